//! Storage Commitment Push Model (PS3.4 Annex J): what senders asked us to answer for, durably.
//!
//! A request is written down before N-ACTION is answered. It is judged once, when every instance is
//! here or the wait for the missing ones is over; the result is kept, so that each attempt to report
//! it says the same. [`desk`] hands a report to the association of its request while that is open;
//! otherwise the reporter opens one of its own. Who judges and reports is `reporter`.

pub mod desk;
pub mod naming;
pub mod report;

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
}

impl Recorded {
    /// The row.
    pub const fn id(self) -> CommitmentId {
        match self {
            Self::New(id) | Self::Repeated(id) | Self::Duplicate(id) => id,
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

    /// Requests that are not reported yet and may be looked at, oldest first, at most `limit`.
    pub async fn open(
        &self,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<Transaction>, DatabaseError> {
        self.database
            .query(move |connection| open(connection, now, limit))
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
        return Ok(Recorded::Repeated(id));
    }
    connection
        .prepare_cached(
            "INSERT INTO commitment (transaction_uid, calling_ae, called_ae, peer, duplicate, received_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            transaction,
            request.calling_ae.as_str(),
            request.called_ae.as_str(),
            request.peer.to_string(),
            earlier.is_some(),
            at.0,
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

fn open(connection: &Connection, now: Timestamp, limit: u32) -> rusqlite::Result<Vec<Transaction>> {
    let mut query = connection.prepare_cached(
        "SELECT id, transaction_uid, calling_ae, called_ae, peer, duplicate, received_at,
                judged_at, attempts
         FROM commitment WHERE ended_at IS NULL AND not_before <= ?1 ORDER BY id LIMIT ?2",
    )?;
    let mut rows = query.query(params![now.0, limit])?;
    let mut open = Vec::new();
    while let Some(row) = rows.next()? {
        // Only checked values are written, so a row that does not parse is damage.
        let (Some(request), judged) = (request(row)?, row.get::<_, Option<i64>>(7)?.is_some())
        else {
            continue;
        };
        let id = row.get(0)?;
        let (references, result): (Vec<_>, Vec<_>) =
            references(connection, id)?.into_iter().unzip();
        open.push(Transaction {
            id,
            request: Request {
                references,
                ..request
            },
            duplicate: row.get(5)?,
            received_at: Timestamp(row.get(6)?),
            result: judged.then_some(result),
            attempts: row.get(8)?,
        });
    }
    Ok(open)
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
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn request(transaction: &str, instances: &[&str]) -> Request {
        Request {
            transaction: Uid::parse(transaction).unwrap(),
            calling_ae: AeTitle::parse("CT2").unwrap(),
            called_ae: AeTitle::gateway(),
            peer: std::net::IpAddr::from([10, 0, 0, 1]),
            references: instances
                .iter()
                .map(|uid| Reference {
                    sop_class: SopClassUid::parse("1.2.840.10008.5.1.4.1.1.2").unwrap(),
                    sop_instance: SopInstanceUid::parse(uid).unwrap(),
                })
                .collect(),
        }
    }

    #[tokio::test]
    async fn a_request_stays_with_its_result_until_it_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let open = || Store::new(Database::open(&path, SCHEMA, &[]).unwrap());
        let store = open();
        let first = request("1.2", &["1.1", "1.2"]);
        let recorded = store.record(first.clone(), Timestamp(5)).await.unwrap();
        let Recorded::New(id) = recorded else {
            panic!("{recorded:?}");
        };
        let again = store.record(first, Timestamp(6)).await.unwrap();
        assert_eq!(again, Recorded::Repeated(id));
        let other = store.record(request("1.2", &["1.3"]), Timestamp(7)).await;
        assert!(matches!(other.unwrap(), Recorded::Duplicate(_)));
        let result = vec![None, Some(Failure::NoSuchInstance)];
        store
            .judged(id, result.clone(), Timestamp(8))
            .await
            .unwrap();
        let later = Timestamp(100);
        store.defer(id, later, "refused".into()).await.unwrap();
        drop(store);
        let store = open();
        let now = store.open(Timestamp(50), 10).await.unwrap();
        assert_eq!(now.len(), 1, "the other one is deferred");
        assert!(now[0].duplicate && now[0].result.is_none());
        let all = store.open(later, 10).await.unwrap();
        assert_eq!((all[0].id, all[0].attempts), (id, 1));
        assert_eq!(all[0].result, Some(result));
        store.ended(id, "reported", later).await.unwrap();
        assert_eq!(store.open(later, 10).await.unwrap().len(), 1);
        // The Transaction UID is free again (PS3.4 J.3.3.1.2).
        let other = all[1].id;
        store.ended(other, "reported", later).await.unwrap();
        let anew = store.record(request("1.2", &["1.3"]), later).await.unwrap();
        assert!(matches!(anew, Recorded::New(_)));
    }
}
