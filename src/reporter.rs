//! Storage Commitment after the request: what is judged, held and reported.
//!
//! A request is judged when all its instances are here, or when it has waited for them long enough.
//! From then on its instances stay in the spool, first because an open request names them
//! ([`crate::commitment::IS_PROMISED`]), then for `commitment.keep` after the report. The report
//! goes out on the association of the request, otherwise on one of our own, again and again until a
//! peer has taken it. All of it is in the database: a start goes on where the process before ended.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{self, JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::clock::Timestamp;
use crate::commitment::desk::{Delivery, Desk};
use crate::commitment::{CommitmentId, Config, Failure, Store, Transaction, judge};
use crate::dicom::sop_class::{self, Kind};
use crate::dicom::{STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, SopClassUid, SopInstanceUid};
use crate::durable::database::DatabaseError;
use crate::ledger::Ledger;
use crate::live::Live;
use crate::retry::Backoff;
use crate::scp;
use crate::scu::{EventReport, chain, report_event};
use crate::spool::{EntryId, Spool};
use crate::telemetry::Metrics;

/// Between two looks at open requests.
const LOOK: Duration = Duration::from_millis(500);
/// The same, while something is about to change.
const SOON: Duration = Duration::from_millis(50);
/// Reports on their way at the same time.
const AT_ONCE: usize = 8;
/// Longest wait for the answer on the association of the request.
const ANSWER: Duration = Duration::from_secs(30);
/// Longest attempt on an association of our own.
const CALL: Duration = Duration::from_secs(180);
/// Between attempts.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(600));

const SAME: &str = "same-association";
const NEW: &str = "new-association";

/// Judges requests and reports them.
pub struct Reporter {
    /// The `[commitment]` section.
    pub config: Live<Config>,
    /// The requests.
    pub store: Store,
    /// Associations that wait for reports.
    pub desk: Arc<Desk>,
    /// Where it is written down what stays.
    pub ledger: Ledger,
    /// What is here.
    pub spool: Spool,
    /// Where senders are reached.
    pub dicom: Live<scp::Config>,
    /// Whether SOP classes that DICOM did not register are stored.
    pub private_classes: bool,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// Why a report did not get through.
enum Undelivered {
    /// We are ending; it is not an attempt.
    Stopping,
    /// The peer was asked, or could not be.
    Failed(String),
}

impl Reporter {
    /// Runs until `stop`; reports on their way are finished first.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        if let Err(error) = self.store.hurry().await {
            tracing::warn!(%error, "storage commitment requests are not hurried");
        }
        let mut ready = VecDeque::new();
        let mut on_the_way: HashMap<task::Id, CommitmentId> = HashMap::new();
        let mut work = JoinSet::new();
        let mut next_look = Instant::now();
        let mut last_look = next_look;
        while !stop.is_cancelled() {
            if Instant::now() >= next_look {
                last_look = Instant::now();
                let pause = match self.look(&mut ready, &on_the_way).await {
                    Ok(pause) => pause,
                    Err(error) => {
                        tracing::warn!(%error, "storage commitment: state.db failed, tried again");
                        LOOK
                    }
                };
                next_look = Instant::now() + pause;
            }
            while on_the_way.len() < AT_ONCE
                && let Some(id) = ready.pop_front()
            {
                let (reporter, stop) = (Arc::clone(&self), stop.clone());
                let report = work.spawn(async move { reporter.report(id, &stop).await });
                on_the_way.insert(report.id(), id);
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep_until(next_look) => {}
                // However fast peers ask, there are not more looks than these.
                () = self.desk.changed.notified() => next_look = next_look.min(last_look + SOON),
                Some(ended) = work.join_next_with_id() => {
                    // One that panicked is tried again at the next look, as nothing was recorded.
                    let id = match &ended {
                        Ok((id, ())) => *id,
                        Err(error) => error.id(),
                    };
                    on_the_way.remove(&id);
                }
            }
        }
        while work.join_next().await.is_some() {}
    }

    /// Judges what can be judged and lists what is to be reported now.
    async fn look(
        &self,
        ready: &mut VecDeque<CommitmentId>,
        on_the_way: &HashMap<task::Id, CommitmentId>,
    ) -> Result<Duration, DatabaseError> {
        let due = self.store.due(Timestamp::now()).await?;
        ready.clear();
        let mut pause = LOOK;
        for (id, judged) in due {
            if judged && !on_the_way.values().any(|one| *one == id) {
                ready.push_back(id);
            } else if !judged && self.judge(id).await? {
                pause = SOON;
            }
        }
        let open = self.store.count_open().await?;
        self.metrics.commitments_open.set(i64::from(open));
        let oldest = self.store.oldest_open().await?;
        let age = oldest.map_or(0, |at| Timestamp::now().since(at).as_secs());
        let gauge = &self.metrics.commitments_oldest_age_seconds;
        gauge.set(i64::try_from(age).unwrap_or(i64::MAX));
        Ok(pause)
    }

    /// Judges a request if it can be. True: another look is worth it soon, as it is judged, or as
    /// arrivals are about to be written down.
    async fn judge(&self, id: CommitmentId) -> Result<bool, DatabaseError> {
        let Some(transaction) = self.store.load(id).await? else {
            return Ok(false);
        };
        let now = Timestamp::now();
        let age = now.since(transaction.received_at);
        let waited = age >= self.config.get().wait.get();
        // From here to the last write nothing leaves the spool.
        let _leaving = self.ledger.leaving().await;
        let (spool, private_classes) = (self.spool.clone(), self.private_classes);
        let judging = spawn_blocking(move || {
            let here = |uid: &SopInstanceUid| {
                let entry = spool.instance(uid)?;
                Some(entry.arrival.sop_class.clone())
            };
            let storable = |class: &SopClassUid| match sop_class::classify(class.as_str()) {
                Kind::Storage => true,
                Kind::Private => private_classes,
                _ => false,
            };
            let result = judge(&transaction, waited, here, storable)?;
            let entries = committed(&spool, &transaction, &result);
            Some((transaction, result, entries))
        });
        let Some((transaction, result, entries)) = judging.await.ok().flatten() else {
            return Ok(false);
        };
        if self
            .ledger
            .hold(entries, now + self.config.get().keep.get())
            .await?
            > 0
        {
            if age < self.config.get().give_up_after.get() {
                return Ok(true);
            }
            tracing::error!("storage commitment given up: arrivals are not written down");
            self.count_ended("given-up");
            self.store.ended(id, "given-up", now).await?;
            return Ok(false);
        }
        self.store.judged(id, result.clone(), now).await?;
        let failed = result.iter().flatten().count();
        self.count_ended(match failed {
            _ if transaction.duplicate => "duplicate",
            0 => "committed",
            _ => "failures",
        });
        tracing::info!(
            calling = %transaction.request.calling_ae,
            instances = result.len(),
            failed,
            duplicate = transaction.duplicate,
            "storage commitment judged"
        );
        Ok(true)
    }

    /// One attempt at one report, and what follows from it.
    async fn report(&self, id: CommitmentId, stop: &CancellationToken) {
        let attempted = async {
            let Some(transaction) = self.store.load(id).await? else {
                return Ok(());
            };
            let transaction = Arc::new(transaction);
            match self.deliver(&transaction, stop).await {
                Ok(()) => self.end(transaction, "reported").await,
                Err(Undelivered::Stopping) => Ok(()),
                Err(Undelivered::Failed(error)) => self.put_off(transaction, error).await,
            }
        };
        if let Err::<(), DatabaseError>(error) = attempted.await {
            // It stays open, so the peer hears it once more rather than not at all.
            tracing::warn!(%error, "storage commitment report not written down");
        }
    }

    async fn deliver(
        &self,
        transaction: &Arc<Transaction>,
        stop: &CancellationToken,
    ) -> Result<(), Undelivered> {
        let request = &transaction.request;
        let event_type = transaction.event_type();
        let count = |via, result| {
            let reports = &self.metrics.commitment_reports_total;
            reports.with_label_values(&[via, result]).inc();
        };
        let mut last = None;
        match self.desk.deliver(transaction, event_type, ANSWER).await {
            Delivery::Answered(status) if status.is_stored() => {
                count(SAME, "reported");
                return Ok(());
            }
            Delivery::Answered(status) => {
                count(SAME, "refused");
                last = Some(format!("its association answered with status {status}"));
            }
            Delivery::Unanswered => {
                count(SAME, "unanswered");
                last = Some("its association did not answer".to_owned());
            }
            Delivery::Absent => {}
        }
        if stop.is_cancelled() {
            return Err(Undelivered::Stopping);
        }
        let dicom = self.dicom.get();
        let target = dicom.peers.target(&request.calling_ae);
        let Some(target) = target.map(|target| target.trusting(&dicom.tls.client())) else {
            count(NEW, "no-address");
            if transaction.attempts == 0 {
                tracing::warn!(
                    calling = %request.calling_ae,
                    "storage commitment report has no way out: dicom.peers has no address"
                );
            }
            let no_address = || "dicom.peers has no address for it".to_owned();
            return Err(Undelivered::Failed(last.unwrap_or_else(no_address)));
        };
        let event = EventReport {
            sop_class: STORAGE_COMMITMENT,
            sop_instance: STORAGE_COMMITMENT_INSTANCE,
            event_type,
        };
        let information = |syntax: &str| transaction.event_information(syntax);
        let call = report_event(&target, &request.called_ae, event, information);
        match timeout(CALL, call).await {
            Ok(Ok(status)) if status.is_stored() => {
                count(NEW, "reported");
                Ok(())
            }
            Ok(Ok(status)) => {
                count(NEW, "refused");
                Err(Undelivered::Failed(format!(
                    "answered with status {status}"
                )))
            }
            Ok(Err(error)) => {
                count(NEW, "unreachable");
                Err(Undelivered::Failed(chain(&error)))
            }
            Err(_) => {
                count(NEW, "unreachable");
                Err(Undelivered::Failed("did not answer in time".to_owned()))
            }
        }
    }

    async fn put_off(
        &self,
        transaction: Arc<Transaction>,
        error: String,
    ) -> Result<(), DatabaseError> {
        let now = Timestamp::now();
        let calling = &transaction.request.calling_ae;
        if now.since(transaction.received_at) >= self.config.get().give_up_after.get() {
            tracing::error!(%calling, error, "storage commitment report given up");
            self.count_ended("given-up");
            return self.end(transaction, "given-up").await;
        }
        tracing::info!(%calling, error, "storage commitment report failed, tried again later");
        let pause = BACKOFF.jittered(transaction.attempts);
        self.store.defer(transaction.id, now + pause, error).await
    }

    /// Closes a request. Its instances are held from now on by their rows, no more by the request;
    /// also those of a report that was given up, as a peer may have heard it.
    async fn end(
        &self,
        transaction: Arc<Transaction>,
        ending: &'static str,
    ) -> Result<(), DatabaseError> {
        let (id, calling) = (transaction.id, transaction.request.calling_ae.clone());
        let spool = self.spool.clone();
        let entries = spawn_blocking(move || {
            let result = transaction.result.as_deref().unwrap_or_default();
            committed(&spool, &transaction, result)
        });
        let entries = entries.await.map_err(|_| DatabaseError::Closed)?;
        let now = Timestamp::now();
        self.ledger
            .hold(entries, now + self.config.get().keep.get())
            .await?;
        self.store.ended(id, ending, now).await?;
        tracing::info!(%calling, ending, "storage commitment ended");
        Ok(())
    }

    fn count_ended(&self, result: &str) {
        let requests = &self.metrics.commitments_total;
        requests.with_label_values(&[result]).inc();
    }
}

/// The entries that a result commits us to.
fn committed(spool: &Spool, transaction: &Transaction, result: &[Option<Failure>]) -> Vec<EntryId> {
    let references = transaction.request.references.iter().zip(result);
    references
        .filter(|(_, failure)| failure.is_none())
        .filter_map(|(reference, _)| spool.instance(&reference.sop_instance))
        .map(|entry| entry.id)
        .collect()
}
