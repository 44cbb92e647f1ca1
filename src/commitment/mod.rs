//! Storage Commitment Push Model (PS3.4 Annex J): what senders asked us to answer for, durably.
//!
//! A request is written down before N-ACTION is answered. It is judged once, when every instance is
//! here or the wait for the missing ones is over; the result is kept, so that each attempt to report
//! it says the same. [`desk`] hands a report to the association of its request while that is open;
//! otherwise the reporter opens one of its own. Who judges and reports is `reporter`.

pub mod desk;
mod judge;
mod listing;
pub mod naming;
pub mod report;

pub use judge::judge;
pub use listing::Summary;

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::dicom::{AeTitle, SopClassUid, SopInstanceUid, Uid};
use crate::durable::database::{Database, DatabaseError};
use crate::units::HumanDuration;

/// The `[commitment]` section.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether the service is offered.
    pub enabled: bool,
    /// How long a request waits for instances that are not here yet.
    pub wait: HumanDuration,
    /// How long a committed instance stays in the spool, from the report on.
    pub keep: HumanDuration,
    /// How long a report is tried.
    pub give_up_after: HumanDuration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            wait: HumanDuration::from_secs(60),
            keep: HumanDuration::from_secs(24 * 3600),
            give_up_after: HumanDuration::from_secs(3 * 24 * 3600),
        }
    }
}

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS commitment (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    transaction_uid TEXT NOT NULL,
    calling_ae TEXT NOT NULL,
    called_ae TEXT NOT NULL,
    peer TEXT NOT NULL,
    duplicate INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    judged_at INTEGER,
    ended_at INTEGER,
    ending TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    not_before INTEGER NOT NULL DEFAULT 0,
    last_error TEXT
);
CREATE INDEX IF NOT EXISTS commitment_open ON commitment (id) WHERE ended_at IS NULL;
CREATE INDEX IF NOT EXISTS commitment_transaction ON commitment (transaction_uid);
CREATE TABLE IF NOT EXISTS commitment_reference (
    commitment INTEGER NOT NULL,
    position INTEGER NOT NULL,
    sop_class TEXT NOT NULL,
    sop_instance TEXT NOT NULL,
    failure INTEGER,
    PRIMARY KEY (commitment, position)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS commitment_sop ON commitment_reference (sop_instance);
";

/// Requests that may be open at the same time; one more is refused until some are reported.
const MAX_OPEN: u32 = 10_000;

/// Between a request and the first report on it. Many senders release their association as soon as
/// the request is answered: a report that crosses the release is heard and cannot be answered, so
/// it would come twice.
const PAUSE: Duration = Duration::from_millis(500);

/// Requests forgotten by one [`Store::expire`], so that it stays short.
const EXPIRED_AT_ONCE: u32 = 1000;

/// SQL condition on a column `i.sop_instance`: an open request has promised this instance. What it
/// names must not leave the spool.
pub const IS_PROMISED: &str = "EXISTS (
    SELECT 1 FROM commitment_reference AS r JOIN commitment AS c ON c.id = r.commitment
    WHERE r.sop_instance = i.sop_instance AND r.failure IS NULL
      AND c.judged_at IS NOT NULL AND c.ended_at IS NULL)";

/// A row of [`Store`].
pub type CommitmentId = i64;

/// One instance of a Referenced SOP Sequence (0008,1199).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Referenced SOP Class UID (0008,1150).
    pub sop_class: SopClassUid,
    /// Referenced SOP Instance UID (0008,1155).
    pub sop_instance: SopInstanceUid,
}

/// A request as it came in.
#[derive(Debug, Clone)]
pub struct Request {
    /// Transaction UID (0008,1195).
    pub transaction: Uid,
    /// Who asks, and gets the report.
    pub calling_ae: AeTitle,
    /// Whom it called.
    pub called_ae: AeTitle,
    /// Its address.
    pub peer: std::net::IpAddr,
    /// What it asks for, in its order.
    pub references: Vec<Reference>,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// It is new.
    New(CommitmentId),
    /// The same request is being worked on: its sender did not hear our answer.
    Repeated(CommitmentId),
    /// The transaction is in use for something else; the report will say so of every instance.
    Duplicate(CommitmentId),
    /// So many requests are open that this one was not taken.
    Full,
}

impl Recorded {
    /// The row, if there is one.
    pub const fn id(self) -> Option<CommitmentId> {
        match self {
            Self::New(id) | Self::Repeated(id) | Self::Duplicate(id) => Some(id),
            Self::Full => None,
        }
    }
}

/// Failure Reason (0008,1197), PS3.3 C.14.1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Failure {
    /// A general failure of ours.
    Processing = 0x0110,
    /// No such object instance.
    NoSuchInstance = 0x0112,
    /// The instance is of another SOP class.
    ClassInstanceConflict = 0x0119,
    /// The SOP class is not one that we store.
    ClassNotSupported = 0x0122,
    /// The Transaction UID is in use.
    DuplicateTransaction = 0x0131,
    /// We lack what it takes.
    ResourceLimitation = 0x0213,
}

impl Failure {
    fn of(code: u16) -> Self {
        match code {
            0x0112 => Self::NoSuchInstance,
            0x0119 => Self::ClassInstanceConflict,
            0x0122 => Self::ClassNotSupported,
            0x0131 => Self::DuplicateTransaction,
            0x0213 => Self::ResourceLimitation,
            _ => Self::Processing,
        }
    }
}

/// A request that is not reported yet.
#[derive(Debug, Clone)]
pub struct Transaction {
    /// Its row.
    pub id: CommitmentId,
    /// The request.
    pub request: Request,
    /// Its Transaction UID was in use.
    pub duplicate: bool,
    /// When it came in.
    pub received_at: Timestamp,
    /// The result, one per reference in their order, once it is judged.
    pub result: Option<Vec<Option<Failure>>>,
    /// Attempts at reporting so far.
    pub attempts: u32,
}

/// The durable requests. Clones share them.
#[derive(Clone)]
pub struct Store {
    database: Database,
}

impl Store {
    /// Statements that create the tables.
    pub const fn schema() -> &'static str {
        SCHEMA
    }

    /// The requests in a database opened with [`Store::schema`].
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// Writes a request down; on `Ok` it is durable.
    pub async fn record(&self, request: Request, at: Timestamp) -> Result<Recorded, DatabaseError> {
        self.database
            .write(move |connection| record(connection, &request, at))
            .await
    }

    /// Open requests, oldest first, and whether each is judged: those that are not, and those whose
    /// next attempt at reporting may be made.
    pub async fn due(&self, now: Timestamp) -> Result<Vec<(CommitmentId, bool)>, DatabaseError> {
        self.database
            .query(move |connection| {
                connection
                    .prepare_cached(
                        "SELECT id, judged_at IS NOT NULL FROM commitment
                         WHERE ended_at IS NULL AND (judged_at IS NULL OR not_before <= ?1)
                         ORDER BY id",
                    )?
                    .query_map([now.0], |row| Ok((row.get(0)?, row.get(1)?)))?
                    .collect()
            })
            .await
    }

    /// How many requests are not reported yet.
    pub async fn count_open(&self) -> Result<u32, DatabaseError> {
        self.database.query(count_open).await
    }

    /// When the oldest request came that is not reported yet.
    pub async fn oldest_open(&self) -> Result<Option<Timestamp>, DatabaseError> {
        let oldest = |connection: &Connection| {
            connection
                .prepare_cached("SELECT min(received_at) FROM commitment WHERE ended_at IS NULL")?
                .query_row([], |row| row.get::<_, Option<i64>>(0))
        };
        Ok(self.database.query(oldest).await?.map(Timestamp))
    }

    /// An open request with everything it names; `None` when it is ended.
    pub async fn load(&self, id: CommitmentId) -> Result<Option<Transaction>, DatabaseError> {
        self.database
            .query(move |connection| load(connection, id))
            .await
    }

    /// Makes every open request due: after a start, when an address may have become known.
    pub async fn hurry(&self) -> Result<(), DatabaseError> {
        self.database
            .write(|connection| {
                connection.execute(
                    "UPDATE commitment SET not_before = 0 WHERE ended_at IS NULL",
                    [],
                )?;
                Ok(())
            })
            .await
    }

    /// Forgets requests that ended before `before`, some at a time.
    pub async fn expire(&self, before: Timestamp) -> Result<(), DatabaseError> {
        self.database
            .write(move |connection| {
                let old = "(SELECT id FROM commitment WHERE ended_at < ?1 ORDER BY id LIMIT ?2)";
                for (table, key) in [("commitment_reference", "commitment"), ("commitment", "id")] {
                    let delete = format!("DELETE FROM {table} WHERE {key} IN {old}");
                    connection.execute(&delete, params![before.0, EXPIRED_AT_ONCE])?;
                }
                Ok(())
            })
            .await
    }

    /// Writes down the result of a request, one per reference in their order.
    pub async fn judged(
        &self,
        id: CommitmentId,
        result: Vec<Option<Failure>>,
        at: Timestamp,
    ) -> Result<(), DatabaseError> {
        self.database
            .write(move |connection| {
                let mut update = connection.prepare_cached(
                    "UPDATE commitment_reference SET failure = ?3
                     WHERE commitment = ?1 AND position = ?2",
                )?;
                for (position, failure) in (0_i64..).zip(&result) {
                    update.execute(params![id, position, failure.map(|failure| failure as u16)])?;
                }
                connection.execute(
                    "UPDATE commitment SET judged_at = ?2 WHERE id = ?1",
                    params![id, at.0],
                )?;
                Ok(())
            })
            .await
    }

    /// Closes a request: `ending` is `reported` or the reason why it never will be.
    pub async fn ended(
        &self,
        id: CommitmentId,
        ending: &'static str,
        at: Timestamp,
    ) -> Result<(), DatabaseError> {
        self.database
            .write(move |connection| {
                connection.execute(
                    "UPDATE commitment SET ended_at = ?2, ending = ?3 WHERE id = ?1",
                    params![id, at.0, ending],
                )?;
                Ok(())
            })
            .await
    }

    /// Counts a failed attempt at reporting; the next is not before `not_before`.
    pub async fn defer(
        &self,
        id: CommitmentId,
        not_before: Timestamp,
        error: String,
    ) -> Result<(), DatabaseError> {
        self.database
            .write(move |connection| {
                connection.execute(
                    "UPDATE commitment SET attempts = attempts + 1, not_before = ?2, last_error = ?3
                     WHERE id = ?1",
                    params![id, not_before.0, error],
                )?;
                Ok(())
            })
            .await
    }
}

fn record(connection: &Connection, request: &Request, at: Timestamp) -> rusqlite::Result<Recorded> {
    let transaction = request.transaction.as_str();
    let earlier: Option<CommitmentId> = connection
        .prepare_cached(
            "SELECT id FROM commitment WHERE transaction_uid = ?1 AND calling_ae = ?2
             AND ended_at IS NULL ORDER BY id LIMIT 1",
        )?
        .query_row(params![transaction, request.calling_ae.as_str()], |row| {
            row.get(0)
        })
        .optional()?;
    if let Some(id) = earlier
        && references(connection, id)?
            .iter()
            .map(|(reference, _)| reference)
            .eq(&request.references)
    {
        // Its sender is there to hear the report.
        connection.execute(
            "UPDATE commitment SET not_before = min(not_before, ?2) WHERE id = ?1",
            params![id, (at + PAUSE).0],
        )?;
        return Ok(Recorded::Repeated(id));
    }
    if count_open(connection)? >= MAX_OPEN {
        return Ok(Recorded::Full);
    }
    connection
        .prepare_cached(
            "INSERT INTO commitment (transaction_uid, calling_ae, called_ae, peer, duplicate,
                received_at, not_before)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            transaction,
            request.calling_ae.as_str(),
            request.called_ae.as_str(),
            request.peer.to_string(),
            earlier.is_some(),
            at.0,
            (at + PAUSE).0,
        ])?;
    let id = connection.last_insert_rowid();
    let mut insert = connection.prepare_cached(
        "INSERT INTO commitment_reference (commitment, position, sop_class, sop_instance)
         VALUES (?1, ?2, ?3, ?4)",
    )?;
    for (position, reference) in (0_i64..).zip(&request.references) {
        insert.execute(params![
            id,
            position,
            reference.sop_class.as_str(),
            reference.sop_instance.as_str()
        ])?;
    }
    Ok(if earlier.is_some() {
        Recorded::Duplicate(id)
    } else {
        Recorded::New(id)
    })
}

fn count_open(connection: &Connection) -> rusqlite::Result<u32> {
    connection
        .prepare_cached("SELECT count(*) FROM commitment WHERE ended_at IS NULL")?
        .query_row([], |row| row.get(0))
}

fn load(connection: &Connection, id: CommitmentId) -> rusqlite::Result<Option<Transaction>> {
    let head = connection
        .prepare_cached(
            "SELECT id, transaction_uid, calling_ae, called_ae, peer, duplicate, received_at,
                    judged_at IS NOT NULL, attempts
             FROM commitment WHERE id = ?1 AND ended_at IS NULL",
        )?
        .query_row([id], |row| {
            Ok(request(row)?.map(|request| {
                Ok::<_, rusqlite::Error>((
                    request,
                    row.get::<_, bool>(5)?,
                    Timestamp(row.get(6)?),
                    row.get::<_, bool>(7)?,
                    row.get::<_, u32>(8)?,
                ))
            }))
        })
        .optional()?
        .flatten()
        .transpose()?;
    // Only checked values are written, so a row that does not parse is damage.
    let Some((request, duplicate, received_at, judged, attempts)) = head else {
        return Ok(None);
    };
    let (references, result): (Vec<_>, Vec<_>) = references(connection, id)?.into_iter().unzip();
    Ok(Some(Transaction {
        id,
        request: Request {
            references,
            ..request
        },
        duplicate,
        received_at,
        result: judged.then_some(result),
        attempts,
    }))
}

fn request(row: &Row<'_>) -> rusqlite::Result<Option<Request>> {
    let text = |column: usize| row.get::<_, String>(column);
    let (transaction, calling) = (Uid::parse(&text(1)?), AeTitle::parse(&text(2)?));
    let (called, peer) = (AeTitle::parse(&text(3)?), text(4)?.parse());
    let (Ok(transaction), Ok(calling_ae), Ok(called_ae), Ok(peer)) =
        (transaction, calling, called, peer)
    else {
        return Ok(None);
    };
    Ok(Some(Request {
        transaction,
        calling_ae,
        called_ae,
        peer,
        references: Vec::new(),
    }))
}

fn references(
    connection: &Connection,
    id: CommitmentId,
) -> rusqlite::Result<Vec<(Reference, Option<Failure>)>> {
    let mut query = connection.prepare_cached(
        "SELECT sop_class, sop_instance, failure FROM commitment_reference
         WHERE commitment = ?1 ORDER BY position",
    )?;
    let mut rows = query.query([id])?;
    let mut references = Vec::new();
    while let Some(row) = rows.next()? {
        let (class, instance): (String, String) = (row.get(0)?, row.get(1)?);
        if let (Ok(sop_class), Ok(sop_instance)) =
            (SopClassUid::parse(&class), SopInstanceUid::parse(&instance))
        {
            let reference = Reference {
                sop_class,
                sop_instance,
            };
            references.push((reference, row.get::<_, Option<u16>>(2)?.map(Failure::of)));
        }
    }
    Ok(references)
}

#[cfg(test)]
mod tests;
