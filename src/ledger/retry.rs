//! A second chance for what was set aside: from quarantine into the spool again, as an arrival.
//!
//! The order is that of `spool/quarantine.rs`; what a crash interrupts, [`Ledger::resume_retries`]
//! finishes at the next start.

use std::sync::Arc;

use rusqlite::Connection;
use tokio::task::spawn_blocking;

use super::{Ledger, key, receive};
use crate::durable::database::DatabaseError;
use crate::spool::{Entry, EntryId, RetryError, Spool};

/// Why nothing was put back, or deleted.
#[derive(Debug, thiserror::Error)]
pub enum TurnoverError {
    /// The spool refuses.
    #[error(transparent)]
    Spool(#[from] RetryError),
    /// The ledger could not be written.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl Ledger {
    /// Puts entries of the quarantine back into the spool, all or none. Their studies are worked on
    /// again, with new attempts, as new revisions. In a task of its own, so that a caller who goes
    /// away leaves nothing half done.
    ///
    /// # Errors
    /// Why one of them cannot go back, or what the database said. Nothing has changed then.
    pub async fn retry(
        &self,
        spool: &Spool,
        ids: Vec<EntryId>,
    ) -> Result<Vec<Arc<Entry>>, TurnoverError> {
        let (ledger, spool) = (self.clone(), spool.clone());
        let work = async move {
            let _still = spool.hold_still().await;
            let begun = spool.clone();
            let entries = spawn_blocking(move || begun.begin_retry(&ids)).await;
            let entries = entries.map_err(|_| DatabaseError::Closed)??;
            let opened = ledger.reopen(entries.clone()).await;
            let (ended, done) = (spool.clone(), entries.clone());
            let finish = move || match opened {
                Ok(()) => {
                    ended.end_retry(done);
                    Ok(())
                }
                Err(err) => {
                    ended.undo_retry(&done);
                    Err(err)
                }
            };
            spawn_blocking(finish)
                .await
                .map_err(|_| DatabaseError::Closed)??;
            Ok(entries)
        };
        let ended = tokio::spawn(work).await;
        ended.map_err(|_| DatabaseError::Closed)?
    }

    /// Finishes what a crash has interrupted. Returns how many entries that were.
    ///
    /// # Errors
    /// What file system or database said; the next start tries again.
    pub async fn resume_retries(&self, spool: &Spool) -> Result<usize, TurnoverError> {
        let interrupted = spool.interrupted_retries();
        let entries = interrupted.map_err(RetryError::from)?;
        if entries.is_empty() {
            return Ok(0);
        }
        let count = entries.len();
        self.reopen(entries.clone()).await?;
        let spool = spool.clone();
        spawn_blocking(move || spool.end_retry(entries))
            .await
            .map_err(|_| DatabaseError::Closed)?;
        Ok(count)
    }

    /// Deletes an entry of the quarantine for ever. The ledger keeps what it was. False: there is none.
    ///
    /// # Errors
    /// What file system or database said.
    pub async fn discard(&self, spool: &Spool, id: EntryId) -> Result<bool, TurnoverError> {
        let _still = spool.hold_still().await;
        let deleting = spool.clone();
        let deleted = spawn_blocking(move || deleting.discard(id)).await;
        let deleted = deleted.map_err(|_| DatabaseError::Closed)?;
        Ok(deleted.map_err(RetryError::from)?)
    }

    /// Opens the rows of entries again, and has their studies done again.
    async fn reopen(&self, entries: Vec<Arc<Entry>>) -> Result<(), DatabaseError> {
        self.database
            .write(move |connection| {
                for entry in &entries {
                    reopen(connection, entry)?;
                }
                let mut studies: Vec<&str> = entries.iter().map(|e| e.study.as_str()).collect();
                studies.sort_unstable();
                studies.dedup();
                for study in studies {
                    rerun(connection, study)?;
                }
                Ok(())
            })
            .await
    }
}

fn reopen(connection: &Connection, entry: &Entry) -> rusqlite::Result<()> {
    // One that the ledger has forgotten, or never knew, is new.
    receive(connection, entry)?;
    connection
        .prepare_cached(
            "UPDATE instance SET revision = NULL, current = 1, decoded_at = NULL,
                    inferred_at = NULL, refusal = NULL, released_at = NULL
             WHERE entry = ?1",
        )?
        .execute([key(entry.id)])?;
    Ok(())
}

fn rerun(connection: &Connection, study: &str) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO rerun (study, number, revision)
         VALUES (?1, 1, (SELECT coalesce(max(revision), 0) FROM revision WHERE study = ?1))
         ON CONFLICT (study) DO UPDATE SET number = number + 1, revision = excluded.revision",
        [study],
    )?;
    connection.execute("DELETE FROM attempt WHERE study = ?1", [study])?;
    Ok(())
}
