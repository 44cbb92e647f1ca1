//! What traces and logs have to know: whose hash it is, which revision an instance became part of, and when one began.

use rusqlite::{OptionalExtension, params};

use super::{Ledger, key};
use crate::clock::Timestamp;
use crate::durable::database::DatabaseError;
use crate::spool::EntryId;

/// A finished revision as its trace tells of it.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Arrival of its first instance.
    pub first_received: Timestamp,
    /// How it was found to be complete.
    pub method: String,
    /// When its messages were made.
    pub finished_at: Timestamp,
}

impl Ledger {
    /// The study whose UID is `wanted`, for who knows only what stands for it. Looks at all of them.
    pub async fn find_study(
        &self,
        wanted: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<Option<String>, DatabaseError> {
        self.database
            .query(move |connection| {
                let mut query = connection.prepare_cached("SELECT study FROM study")?;
                let mut rows = query.query([])?;
                while let Some(row) = rows.next()? {
                    let study: String = row.get(0)?;
                    if wanted(&study) {
                        return Ok(Some(study));
                    }
                }
                Ok(None)
            })
            .await
    }

    /// The first finished revision that an instance became part of; later ones hold it too.
    pub async fn revision_of(&self, entry: EntryId) -> Result<Option<u32>, DatabaseError> {
        self.database
            .query(move |connection| {
                connection
                    .prepare_cached(
                        "SELECT coalesce(first_revision, revision) FROM instance
                         WHERE entry = ?1",
                    )?
                    .query_row([key(entry)], |row| row.get::<_, Option<u32>>(0))
                    .optional()
            })
            .await
            .map(Option::flatten)
    }

    /// A finished revision.
    pub async fn finished(
        &self,
        study: String,
        revision: u32,
    ) -> Result<Option<Finished>, DatabaseError> {
        self.database
            .query(move |connection| {
                connection
                    .prepare_cached(
                        "SELECT first_received, method, finished_at FROM revision
                         WHERE study = ?1 AND revision = ?2",
                    )?
                    .query_row(params![study, revision], |row| {
                        Ok(Finished {
                            first_received: Timestamp(row.get(0)?),
                            method: row.get(1)?,
                            finished_at: Timestamp(row.get(2)?),
                        })
                    })
                    .optional()
            })
            .await
    }
}
