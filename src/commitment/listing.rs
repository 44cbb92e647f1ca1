//! What people are told of requests.

use rusqlite::Row;
use serde::Serialize;

use super::Store;
use crate::clock::Timestamp;
use crate::durable::database::DatabaseError;

/// A request and what became of it.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Transaction UID.
    pub transaction_uid: String,
    /// Who asked.
    pub calling_ae: String,
    /// Whom it called.
    pub called_ae: String,
    /// Its address.
    pub peer: String,
    /// `waiting` for instances, `judged` and owed, `reported`, or `given-up`.
    pub state: String,
    /// Instances it names.
    pub instances: u32,
    /// Instances not committed; absent while it is not judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<u32>,
    /// When it came in.
    pub received: String,
    /// When it was judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judged: Option<String>,
    /// When it was reported or given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// Failed attempts at reporting.
    pub attempts: u32,
    /// Why the last one failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

impl Store {
    /// The latest requests, newest first, at most `limit`.
    pub async fn list(&self, limit: u32) -> Result<Vec<Summary>, DatabaseError> {
        self.database
            .query(move |connection| {
                connection
                    .prepare_cached(
                        "SELECT transaction_uid, calling_ae, called_ae, peer, ending, judged_at,
                                received_at, ended_at, attempts, last_error,
                                (SELECT count(*) FROM commitment_reference WHERE commitment = id),
                                (SELECT count(failure) FROM commitment_reference
                                 WHERE commitment = id)
                         FROM commitment ORDER BY id DESC LIMIT ?1",
                    )?
                    .query_map([limit], summary)?
                    .collect()
            })
            .await
    }
}

fn summary(row: &Row<'_>) -> rusqlite::Result<Summary> {
    let time = |column: usize| -> rusqlite::Result<Option<String>> {
        let at: Option<i64> = row.get(column)?;
        Ok(at.map(|at| Timestamp(at).rfc3339()))
    };
    let judged = time(5)?;
    let state = match (row.get::<_, Option<String>>(4)?, &judged) {
        (Some(ending), _) => ending,
        (None, Some(_)) => "judged".to_owned(),
        (None, None) => "waiting".to_owned(),
    };
    let failed: u32 = row.get(11)?;
    Ok(Summary {
        transaction_uid: row.get(0)?,
        calling_ae: row.get(1)?,
        called_ae: row.get(2)?,
        peer: row.get(3)?,
        state,
        instances: row.get(10)?,
        failed: judged.is_some().then_some(failed),
        received: time(6)?.unwrap_or_default(),
        judged,
        ended: time(7)?,
        attempts: row.get(8)?,
        last_error: row.get(9)?,
    })
}
