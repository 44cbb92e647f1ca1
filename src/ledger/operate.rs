//! What an operator orders for a whole study that has ended: once more, or out of the spool.

use rusqlite::{Connection, params};
use tokio::task::spawn_blocking;

use super::Ledger;
use crate::clock::Timestamp;
use crate::commitment;
use crate::dicom::uid::StudyInstanceUid;
use crate::durable::database::DatabaseError;
use crate::spool::{EntryId, Spool, StudyEntries};

/// Why an order was not carried out. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The ledger knows no such study.
    #[error("the ledger knows no such study")]
    Unknown,
    /// It has not ended.
    #[error("it is still received or worked on; try again when it has ended, or complete it")]
    Open,
    /// None of it is in the spool.
    #[error("none of its instances is in the spool any more")]
    Gone,
    /// Part of it is not in the spool.
    #[error(
        "{0} of its instances are not in the spool any more: have it sent again, then try again"
    )]
    Incomplete(u32),
    /// Messages about it are not confirmed.
    #[error("{0} messages about it are still owed; say force to remove its instances all the same")]
    Owed(u32),
    /// A sender was promised that it stays.
    #[error(
        "{0} of its instances are committed to their sender; say force to remove them all the same"
    )]
    Promised(u32),
    /// The ledger could not be read or written.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The file system said no; what was not removed is removed later.
    #[error("the instances could not be removed: {0}")]
    Io(#[from] std::io::Error),
}

/// What the ledger knows of a study that somebody wants something done with.
#[derive(Debug, Clone, Copy)]
struct Standing {
    known: u32,
    open: u32,
    missing: u32,
    owed: u32,
    promised: u32,
}

impl Ledger {
    /// Has a study that has ended worked on once more, with new attempts, as a new revision: for a
    /// model that was repaired. Gives the number of its instances.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn redo(&self, spool: &Spool, study: StudyInstanceUid) -> Result<usize, OrderError> {
        let (ledger, spool) = (self.clone(), spool.clone());
        // In a task of its own, so that a caller who goes away leaves nothing half done.
        let work = async move {
            let _still = spool.hold_still().await;
            let _leaving = ledger.leaving().await;
            let entries = spool.study(&study).current;
            let standing = ledger.standing(&study).await?;
            if standing.known == 0 {
                return Err(OrderError::Unknown);
            }
            if standing.open > 0 {
                return Err(OrderError::Open);
            }
            if entries.is_empty() {
                return Err(OrderError::Gone);
            }
            if standing.missing > 0 {
                return Err(OrderError::Incomplete(standing.missing));
            }
            ledger.replace_released(&study).await?;
            ledger.reopen(entries.clone()).await?;
            let count = entries.len();
            // A start would find them by itself.
            spool.announce(entries);
            Ok(count)
        };
        let ended = tokio::spawn(work).await;
        ended.map_err(|_| DatabaseError::Closed)?
    }

    /// Removes what the spool holds of a study that has ended, for good. The ledger keeps what it was,
    /// and why it went. Gives the number of instances. `force`: also what is promised, or owed.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn remove(
        &self,
        spool: &Spool,
        study: StudyInstanceUid,
        reason: String,
        force: bool,
    ) -> Result<usize, OrderError> {
        let (ledger, spool) = (self.clone(), spool.clone());
        let work = async move {
            let _still = spool.hold_still().await;
            let _leaving = ledger.leaving().await;
            let StudyEntries { current, others } = spool.study(&study);
            let standing = ledger.standing(&study).await?;
            if standing.known == 0 {
                return Err(OrderError::Unknown);
            }
            if standing.open > 0 {
                return Err(OrderError::Open);
            }
            let ids = current.iter().chain(&others).map(|entry| entry.id);
            let ids: Vec<EntryId> = ids.collect();
            if ids.is_empty() {
                return Err(OrderError::Gone);
            }
            if !force && standing.owed > 0 {
                return Err(OrderError::Owed(standing.owed));
            }
            if !force && standing.promised > 0 {
                return Err(OrderError::Promised(standing.promised));
            }
            let now = Timestamp::now();
            ledger
                .note_removal(&study, reason, current.len() + others.len(), now)
                .await?;
            let (removing, gone) = (spool.clone(), ids.clone());
            let removed = spawn_blocking(move || removing.release(&gone)).await;
            removed.map_err(|_| DatabaseError::Closed)??;
            let count = ids.len();
            ledger.released(ids, now).await?;
            Ok(count)
        };
        let ended = tokio::spawn(work).await;
        ended.map_err(|_| DatabaseError::Closed)?
    }

    async fn standing(&self, study: &StudyInstanceUid) -> Result<Standing, DatabaseError> {
        let study = study.as_str().to_owned();
        self.database
            .query(move |connection| standing(connection, &study))
            .await
    }

    /// Instances that left the spool and came again are looked at as they came.
    async fn replace_released(&self, study: &StudyInstanceUid) -> Result<(), DatabaseError> {
        let study = study.as_str().to_owned();
        self.database
            .write(move |connection| {
                connection.execute(
                    "UPDATE instance SET current = 0
                     WHERE study = ?1 AND current = 1 AND released_at IS NOT NULL",
                    [study],
                )?;
                Ok(())
            })
            .await
    }

    async fn note_removal(
        &self,
        study: &StudyInstanceUid,
        reason: String,
        instances: usize,
        at: Timestamp,
    ) -> Result<(), DatabaseError> {
        let study = study.as_str().to_owned();
        self.database
            .write(move |connection| {
                let instances = i64::try_from(instances).unwrap_or(i64::MAX);
                connection.execute(
                    "INSERT INTO removal (study, removed_at, reason, instances)
                     VALUES (?1, ?2, ?3, ?4)",
                    params![study, at.0, reason, instances],
                )?;
                Ok(())
            })
            .await
    }
}

fn standing(connection: &Connection, study: &str) -> rusqlite::Result<Standing> {
    let promised = commitment::IS_PROMISED;
    let (known, open, missing, promised) = connection.query_row(
        &format!(
            "SELECT count(*), coalesce(sum(i.revision IS NULL), 0),
                    count(DISTINCT CASE WHEN i.current AND i.released_at IS NOT NULL
                        AND NOT EXISTS (SELECT 1 FROM instance AS p
                                        WHERE p.sop_instance = i.sop_instance
                                          AND p.study = i.study AND p.digest = i.digest
                                          AND p.released_at IS NULL)
                        THEN i.sop_instance END),
                    coalesce(sum(i.released_at IS NULL
                        AND (coalesce(i.held_until, 0) > ?2 OR {promised})), 0)
             FROM instance AS i WHERE i.study = ?1"
        ),
        params![study, Timestamp::now().0],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
    )?;
    let owed = connection.query_row(
        "SELECT count(*) FROM message
         WHERE study = ?1 AND confirmed_at IS NULL AND discarded_at IS NULL",
        [study],
        |row| row.get(0),
    )?;
    Ok(Standing {
        known,
        open,
        missing,
        owed,
        promised,
    })
}
