//! The housekeeper: watermarks, gauges, release of spent instances, old ledger rows and artefacts.
//!
//! Nothing here is needed for correctness: what it does not get to is done at the next look.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::artefact::Store;
use crate::clock::Timestamp;
use crate::commitment;
use crate::durable::database::{Database, DatabaseError};
use crate::ledger::Ledger;
use crate::live::Live;
use crate::outbox::Outbox;
use crate::procedure;
use crate::spool::{EntryId, Spool};
use crate::telemetry::Metrics;
use crate::units::HumanDuration;

const LOOK: Duration = Duration::from_secs(1);
/// Looks between expiries of the ledger.
const EXPIRE_EVERY: u64 = 600;
/// Files removed at one look, so that a look stays short.
const RELEASE_AT_ONCE: usize = 2000;

/// The `[ledger]` section.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long the ledger remembers what was released and confirmed.
    pub retention: HumanDuration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            retention: HumanDuration::from_secs(30 * 24 * 3600),
        }
    }
}

/// How long what is spent stays.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Instances in the spool.
    pub spool: Duration,
    /// Rows of the ledger.
    pub ledger: Duration,
}

/// What the housekeeper looks after.
pub struct Housekeeper {
    /// Accepted instances.
    pub spool: Spool,
    /// How long what is spent stays.
    pub retention: Live<Retention>,
    /// Pictures and masks.
    pub artefacts: Arc<Store>,
    /// What became of them.
    pub ledger: Ledger,
    /// Storage Commitment requests.
    pub commitments: commitment::Store,
    /// What is owed.
    pub outbox: Outbox,
    /// Where the books of all of these are.
    pub database: Database,
    /// What modalities say they did.
    pub procedures: procedure::Store,
    /// Gauges.
    pub metrics: Arc<Metrics>,
}

impl Housekeeper {
    /// Looks once a second until `stop`, and once more.
    pub async fn run(self, stop: CancellationToken) -> Result<(), DatabaseError> {
        let mut looks: u64 = 0;
        let mut said = None;
        while !stop.is_cancelled() {
            let error = self.look(looks).await.err().map(|err| err.to_string());
            if let Some(error) = error.as_ref().filter(|_| error != said) {
                tracing::warn!(error, "housekeeping failed; it is tried again");
            }
            said = error;
            looks += 1;
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = stop.cancelled() => {}
            }
        }
        self.checkpoint().await;
        Ok(())
    }

    async fn look(&self, looks: u64) -> Result<(), DatabaseError> {
        self.checkpoint().await;
        // Before anything that a full disk can fail, or nobody would be told that it is full.
        self.gauges().await?;
        self.release().await?;
        if looks.is_multiple_of(EXPIRE_EVERY) {
            let now = Timestamp::now();
            let before = Timestamp(now.0.saturating_sub(micros(self.retention.get().ledger)));
            self.ledger.expire(before).await?;
            self.procedures.expire(before, now).await?;
            self.commitments.expire(before).await?;
            self.expire_artefacts().await;
        }
        Ok(())
    }

    async fn expire_artefacts(&self) {
        let artefacts = Arc::clone(&self.artefacts);
        let expired = tokio::task::spawn_blocking(move || artefacts.expire(SystemTime::now()));
        if let Ok(Err(err)) = expired.await {
            tracing::warn!(error = %err, "old artefacts not removed; it is tried again");
        }
    }

    async fn checkpoint(&self) {
        let spool = self.spool.clone();
        let work = move || {
            spool.refresh();
            if let Err(err) = spool.keep_reserve() {
                tracing::warn!(error = %err, "no room is kept for a start on a full disk");
            }
            spool.checkpoint()
        };
        if let Ok(Err(err)) = tokio::task::spawn_blocking(work).await {
            tracing::warn!(error = %err, "spool watermark not written; the next start checks more");
        }
    }

    /// Spent instances go after their retention, or as soon as the spool needs the room.
    async fn release(&self) -> Result<(), DatabaseError> {
        // What comes back out of quarantine must not be taken for spent half way.
        let _still = self.spool.hold_still().await;
        let now = Timestamp::now();
        let retention = match self.spool.shedding() {
            Some(_) => Duration::ZERO,
            None => self.retention.get().spool,
        };
        let before = Timestamp(now.0.saturating_sub(micros(retention)));
        let _leaving = self.ledger.leaving().await;
        let mut ids: Vec<EntryId> = self.ledger.releasable(before, now).await?;
        if ids.is_empty() {
            return Ok(());
        }
        ids.truncate(RELEASE_AT_ONCE);
        let (spool, gone) = (self.spool.clone(), ids.clone());
        match tokio::task::spawn_blocking(move || spool.release(&gone)).await {
            Ok(Ok(())) => self.ledger.released(ids, now).await,
            Ok(Err(err)) => {
                tracing::warn!(error = %err, "spent instances not removed");
                Ok(())
            }
            Err(_) => Ok(()),
        }
    }

    async fn gauges(&self) -> Result<(), DatabaseError> {
        let now = Timestamp::now();
        let age = |oldest: Option<Timestamp>| {
            oldest.map_or(0, |at| {
                i64::try_from(now.since(at).as_secs()).unwrap_or(i64::MAX)
            })
        };
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let (metrics, usage) = (&self.metrics, self.spool.usage());
        metrics.artefact_bytes.set(gauge(self.artefacts.bytes()));
        metrics.spool_instances.set(gauge(usage.instances));
        metrics.spool_bytes.set(gauge(usage.bytes));
        metrics.spool_free_bytes.set(gauge(usage.free_bytes));
        metrics.spool_limit_bytes.set(gauge(usage.limit_bytes));
        metrics
            .spool_capacity_bytes
            .set(gauge(usage.capacity_bytes));
        metrics.spool_free_inodes.set(gauge(usage.free_inodes));
        metrics
            .spool_shedding
            .set(i64::from(self.spool.shedding().is_some()));
        metrics
            .spool_oldest_age_seconds
            .set(age(self.spool.oldest()));
        let kept = self.spool.kept();
        metrics.quarantine_instances.set(gauge(kept.instances));
        metrics.quarantine_bytes.set(gauge(kept.bytes));
        let database = self.database.clone();
        if let Ok(bytes) = tokio::task::spawn_blocking(move || database.bytes()).await {
            metrics.database_bytes.set(gauge(bytes));
        }
        let owed = self.outbox.owed().await?;
        metrics.outbox_messages.set(gauge(owed.messages));
        metrics.outbox_shadow_messages.set(gauge(owed.shadow));
        metrics.outbox_oldest_age_seconds.set(age(owed.oldest));
        Ok(())
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
