//! The receipt ledger: for every instance its way and times, for every study its revisions.
//!
//! It answers "CT2 says it sent 412: how many have you got, and where are they?" and remembers which
//! entries of the spool have been dealt with. Rows of instances are written in groups after the
//! C-STORE response and can be rebuilt from the spool; rows of revisions are written in the same
//! transaction as the messages they led to, which makes "finished" and "owed" one fact.

mod export;
mod hold;
mod journey;
mod operate;
mod report;
mod retry;
mod whereabouts;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::Mutex;

use crate::clock::Timestamp;
use crate::commitment;
use crate::dicom::uid::StudyInstanceUid;
use crate::durable::database::{Database, DatabaseError};
use crate::outbox::{self, Message};
use crate::spool::{Entry, EntryId};

pub use export::{ExportRow, Span};
pub use journey::Finished;
pub use operate::OrderError;
pub use report::{
    InstanceReport, RemovalReport, RevisionReport, SourceReport, State, StudyFilter, StudyPage,
    StudyReport, StudySummary,
};
pub use retry::TurnoverError;
pub use whereabouts::Whereabouts;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS instance (
    entry INTEGER PRIMARY KEY,
    study TEXT NOT NULL,
    series TEXT,
    sop_instance TEXT NOT NULL,
    sop_class TEXT NOT NULL,
    transfer_syntax TEXT NOT NULL,
    modality TEXT NOT NULL,
    body_part TEXT NOT NULL,
    calling_ae TEXT NOT NULL,
    called_ae TEXT NOT NULL,
    peer TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    digest BLOB NOT NULL,
    received_at INTEGER NOT NULL,
    revision INTEGER,
    current INTEGER NOT NULL DEFAULT 1,
    decoded_at INTEGER,
    inferred_at INTEGER,
    refusal TEXT,
    released_at INTEGER,
    durable_at INTEGER,
    held_until INTEGER,
    durable_by INTEGER,
    first_revision INTEGER
);
CREATE INDEX IF NOT EXISTS instance_study ON instance (study);
CREATE INDEX IF NOT EXISTS instance_sop ON instance (sop_instance);
CREATE INDEX IF NOT EXISTS instance_open ON instance (study) WHERE revision IS NULL;
CREATE INDEX IF NOT EXISTS instance_present ON instance (study) WHERE released_at IS NULL;
CREATE INDEX IF NOT EXISTS instance_received ON instance (received_at, calling_ae);
CREATE TABLE IF NOT EXISTS study (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    study TEXT NOT NULL UNIQUE,
    first_received INTEGER NOT NULL,
    last_received INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS revision (
    study TEXT NOT NULL,
    revision INTEGER NOT NULL,
    digest TEXT NOT NULL,
    method TEXT NOT NULL,
    first_received INTEGER NOT NULL,
    last_received INTEGER NOT NULL,
    complete_at INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,
    evidence TEXT,
    PRIMARY KEY (study, revision)
);
CREATE TABLE IF NOT EXISTS rerun (
    study TEXT PRIMARY KEY,
    number INTEGER NOT NULL,
    revision INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS attempt (
    study TEXT NOT NULL,
    digest TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    PRIMARY KEY (study, digest)
);
CREATE TABLE IF NOT EXISTS removal (
    study TEXT NOT NULL,
    removed_at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    instances INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS removal_study ON removal (study);
";

/// Refusal code of the instances of a study whose attempts did not end.
pub const GIVEN_UP: &str = "study-failed-repeatedly";

/// Refusal code of an instance that a damaged disk has taken.
pub const LOST: &str = "instance-lost";

/// What became of one instance in the pipeline.
#[derive(Debug, Clone)]
pub struct InstanceOutcome {
    /// The entry.
    pub entry: EntryId,
    /// It is the current one of its SOP Instance UID.
    pub current: bool,
    /// When its pixels or features had been decoded.
    pub decoded_at: Option<Timestamp>,
    /// When a model had answered for it.
    pub inferred_at: Option<Timestamp>,
    /// The code of the refusal, if it was refused.
    pub refusal: Option<String>,
}

/// A finished revision of a study: everything that becomes durable at once.
#[derive(Debug, Clone)]
pub struct Revision {
    /// The study.
    pub study: StudyInstanceUid,
    /// Number of this revision, from 1.
    pub number: u32,
    /// Digest of the instance set, hex.
    pub digest: String,
    /// How it was found to be complete.
    pub method: String,
    /// What was known of how complete it is, as JSON.
    pub evidence: serde_json::Value,
    /// Arrival of its first instance.
    pub first_received: Timestamp,
    /// Arrival of its last instance.
    pub last_received: Timestamp,
    /// When it was found to be complete.
    pub complete_at: Timestamp,
    /// When its messages were made.
    pub finished_at: Timestamp,
    /// Its instances.
    pub instances: Vec<InstanceOutcome>,
    /// What is owed for it.
    pub messages: Vec<Message>,
}

/// What is known of a study from before.
#[derive(Debug, Clone, Default)]
pub struct Prior {
    /// Number of the last finished revision; 0 when there is none.
    pub revision: u32,
    /// Digest of its instance set.
    pub digest: Option<String>,
    /// Latest published message of each model, none of a shadow: name to message id, outcome and version.
    pub messages: HashMap<String, PriorMessage>,
    /// Some of its instances have left the spool.
    pub released: bool,
    /// How often an operator has had it done again.
    pub rerun: u32,
    /// It has to be done again, whatever its digest.
    pub rerun_due: bool,
}

/// The latest message about a study and a model.
#[derive(Debug, Clone)]
pub struct PriorMessage {
    /// Its id.
    pub id: String,
    /// Its outcome.
    pub outcome: String,
    /// The model's version.
    pub version: String,
}

/// An instance that was received and is neither finished nor in the spool: a damaged disk.
#[derive(Debug, Clone)]
pub struct Lost {
    /// What its entry was.
    pub entry: EntryId,
    /// Its study.
    pub study: StudyInstanceUid,
    /// Its SOP Instance UID.
    pub sop_instance: String,
    /// Its digest.
    pub digest: [u8; 32],
    /// When it arrived.
    pub received_at: Timestamp,
}

/// The ledger. Clones share it.
#[derive(Clone)]
pub struct Ledger {
    database: Database,
    leaving: Arc<Mutex<()>>,
}

impl Ledger {
    /// Statements that create the tables.
    pub const fn schema() -> &'static str {
        SCHEMA
    }

    /// A ledger in a database opened with [`Ledger::schema`], the outbox's and the commitments'.
    pub fn new(database: Database) -> Self {
        Self {
            database,
            leaving: Arc::default(),
        }
    }

    /// Writes down arrivals; known ones are left as they are. Returns those already dealt with:
    /// part of a finished revision, or the same instance as one that was.
    pub async fn received(
        &self,
        entries: Vec<Arc<Entry>>,
    ) -> Result<HashSet<EntryId>, DatabaseError> {
        self.database
            .write(move |connection| {
                let mut handled = HashSet::new();
                for entry in &entries {
                    if receive(connection, entry)? {
                        handled.insert(entry.id);
                    }
                }
                Ok(handled)
            })
            .await
    }

    /// What is known of a study from before.
    pub async fn prior(&self, study: &StudyInstanceUid) -> Result<Prior, DatabaseError> {
        let study = study.as_str().to_owned();
        self.database
            .query(move |connection| prior(connection, &study))
            .await
    }

    /// Counts an attempt at this very set of instances, durably and before the work: a study that
    /// kills the process is found out by its count. Returns the count including this attempt.
    pub async fn begin_attempt(
        &self,
        study: &StudyInstanceUid,
        digest: &str,
    ) -> Result<u32, DatabaseError> {
        let (study, digest) = (study.as_str().to_owned(), digest.to_owned());
        self.database
            .write(move |connection| {
                connection.query_row(
                    "INSERT INTO attempt VALUES (?1, ?2, 1)
                     ON CONFLICT DO UPDATE SET attempts = attempts + 1 RETURNING attempts",
                    params![study, digest],
                    |row| row.get(0),
                )
            })
            .await
    }

    /// Instances that no revision covers and that are not among `present`, by study.
    pub async fn lost(&self, present: HashSet<EntryId>) -> Result<Vec<Lost>, DatabaseError> {
        self.database
            .query(move |connection| {
                let mut query = connection.prepare(
                    "SELECT entry, study, sop_instance, digest, received_at FROM instance
                     WHERE revision IS NULL ORDER BY study, entry",
                )?;
                let mut rows = query.query([])?;
                let mut lost = Vec::new();
                while let Some(row) = rows.next()? {
                    let entry = entry_id(row.get(0)?);
                    let study: String = row.get(1)?;
                    // The ledger writes checked UIDs only.
                    let Ok(study) = StudyInstanceUid::parse(&study) else {
                        continue;
                    };
                    if !present.contains(&entry) {
                        lost.push(Lost {
                            entry,
                            study,
                            sop_instance: row.get(2)?,
                            digest: row.get(3)?,
                            received_at: Timestamp(row.get(4)?),
                        });
                    }
                }
                Ok(lost)
            })
            .await
    }

    /// Closes the rows of lost instances of a study that goes on without them.
    pub async fn write_off(
        &self,
        entries: Vec<EntryId>,
        revision: u32,
        at: Timestamp,
    ) -> Result<(), DatabaseError> {
        self.database
            .write(move |connection| {
                let mut update = connection.prepare_cached(
                    "UPDATE instance SET revision = ?2, current = 0, released_at = ?3, refusal = ?4
                     WHERE entry = ?1",
                )?;
                for entry in entries {
                    update.execute(params![key(entry), revision, at.0, LOST])?;
                }
                Ok(())
            })
            .await
    }

    /// Adds entries to a finished revision whose set of instances they do not change: `others` of its
    /// SOP Instance UIDs, which lost against the current ones, and `current` ones that it had looked at
    /// a moment before the ledger was told of them.
    pub async fn cover(
        &self,
        revision: u32,
        current: Vec<EntryId>,
        others: Vec<EntryId>,
    ) -> Result<(), DatabaseError> {
        self.database
            .write(move |connection| {
                let mut update = connection.prepare_cached(
                    "UPDATE instance SET revision = ?2, current = ?3
                     WHERE entry = ?1 AND revision IS NULL",
                )?;
                for (entries, is_current) in [(current, true), (others, false)] {
                    for entry in entries {
                        update.execute(params![key(entry), revision, is_current])?;
                    }
                }
                Ok(())
            })
            .await
    }

    /// Makes a revision and its messages durable at once. From here the findings are the outbox's.
    pub async fn finish(&self, revision: Revision) -> Result<(), DatabaseError> {
        self.database
            .write(move |connection| finish(connection, &revision))
            .await
    }

    /// Owes messages that are no part of a revision: those of shadows.
    pub async fn owe(&self, messages: Vec<Message>) -> Result<(), DatabaseError> {
        self.database
            .write(move |connection| {
                let put = |message| outbox::put(connection, message);
                messages.iter().try_for_each(put)
            })
            .await
    }

    /// Writes down that entries left the spool.
    pub async fn released(
        &self,
        entries: Vec<EntryId>,
        at: Timestamp,
    ) -> Result<(), DatabaseError> {
        self.database
            .write(move |connection| {
                let mut update = connection
                    .prepare_cached("UPDATE instance SET released_at = ?2 WHERE entry = ?1")?;
                for entry in entries {
                    update.execute(params![key(entry), at.0])?;
                }
                Ok(())
            })
            .await
    }

    /// Entries of given-up studies that are still in the spool: a crash came before they were set
    /// aside.
    pub async fn given_up(&self) -> Result<Vec<EntryId>, DatabaseError> {
        self.database
            .query(move |connection| {
                connection
                    .prepare_cached(
                        "SELECT entry FROM instance WHERE released_at IS NULL
                         AND revision IS NOT NULL AND refusal = ?1 ORDER BY entry",
                    )?
                    .query_map([GIVEN_UP], |row| row.get::<_, i64>(0).map(entry_id))?
                    .collect()
            })
            .await
    }

    /// Entries of a study that a revision covers and that are still in the spool, in order of
    /// arrival.
    pub async fn held(&self, study: String) -> Result<Vec<EntryId>, DatabaseError> {
        self.database
            .query(move |connection| {
                connection
                    .prepare_cached(
                        "SELECT entry FROM instance WHERE study = ?1 AND current = 1
                         AND revision IS NOT NULL AND released_at IS NULL ORDER BY entry",
                    )?
                    .query_map([study], |row| row.get::<_, i64>(0).map(entry_id))?
                    .collect()
            })
            .await
    }

    /// Entries of revisions that were finished before `before` and are still in the spool, oldest
    /// first. None of a study with newer instances, which a new revision will want, and none that
    /// belongs in quarantine or is committed and held at `now`.
    pub async fn releasable(
        &self,
        before: Timestamp,
        now: Timestamp,
    ) -> Result<Vec<EntryId>, DatabaseError> {
        let promised = commitment::IS_PROMISED;
        self.database
            .query(move |connection| {
                connection
                    .prepare_cached(&format!(
                        "SELECT i.entry
                         FROM (SELECT DISTINCT study FROM instance
                               WHERE released_at IS NULL) AS p
                         CROSS JOIN instance AS i ON i.study = p.study
                         WHERE (SELECT max(finished_at) FROM revision AS r
                                WHERE r.study = p.study) <= ?1
                           AND coalesce(i.held_until, 0) <= ?2 AND NOT {promised}
                           AND NOT EXISTS (SELECT 1 FROM instance AS o
                                           WHERE o.study = p.study AND o.revision IS NULL)
                           AND i.revision IS NOT NULL AND i.released_at IS NULL
                           AND i.refusal IS NOT ?3
                         ORDER BY i.entry",
                    ))?
                    .query_map(params![before.0, now.0, GIVEN_UP], |row| {
                        row.get::<_, i64>(0).map(entry_id)
                    })?
                    .collect()
            })
            .await
    }

    /// Forgets what was released, confirmed and finished before `before`.
    pub async fn expire(&self, before: Timestamp) -> Result<(), DatabaseError> {
        self.database
            .write(move |connection| {
                outbox::expire(connection, before)?;
                connection.execute("DELETE FROM instance WHERE released_at < ?1", [before.0])?;
                connection.execute(
                    "DELETE FROM revision WHERE finished_at < ?1
                     AND NOT EXISTS (SELECT 1 FROM instance AS i WHERE i.study = revision.study)
                     AND NOT EXISTS (SELECT 1 FROM message AS m WHERE m.study = revision.study)",
                    [before.0],
                )?;
                connection.execute(
                    "DELETE FROM attempt WHERE NOT EXISTS
                     (SELECT 1 FROM instance AS i WHERE i.study = attempt.study)",
                    [],
                )?;
                connection.execute(
                    "DELETE FROM rerun WHERE NOT EXISTS
                     (SELECT 1 FROM instance AS i WHERE i.study = rerun.study)
                     AND NOT EXISTS (SELECT 1 FROM message AS m WHERE m.study = rerun.study)",
                    [],
                )?;
                connection.execute(
                    "DELETE FROM removal WHERE NOT EXISTS
                     (SELECT 1 FROM instance AS i WHERE i.study = removal.study)",
                    [],
                )?;
                connection.execute(
                    "DELETE FROM study WHERE last_received < ?1 AND NOT EXISTS
                     (SELECT 1 FROM instance AS i WHERE i.study = study.study)",
                    [before.0],
                )?;
                Ok(())
            })
            .await
    }

    /// Instances that are part of a finished revision and still in the spool.
    pub async fn covered(&self) -> Result<u64, DatabaseError> {
        self.database
            .query(|connection| {
                connection.query_row(
                    "SELECT count(*) FROM instance
                     WHERE revision IS NOT NULL AND released_at IS NULL",
                    [],
                    |row| row.get::<_, i64>(0).map(i64::unsigned_abs),
                )
            })
            .await
    }

    /// A page of the studies that the filter lets through, the one that was first heard of last
    /// first: an order that arrivals do not change, so pages neither repeat nor skip.
    pub async fn studies(&self, filter: StudyFilter) -> Result<StudyPage, DatabaseError> {
        self.database
            .query(move |connection| report::studies(connection, &filter))
            .await
    }

    /// What every sender has sent in a span of time, and what has become of it.
    pub async fn sources(&self, span: Span) -> Result<Vec<SourceReport>, DatabaseError> {
        self.database
            .query(move |connection| report::sources(connection, span))
            .await
    }

    /// At most `limit` rows of the export after `after`, in order of arrival. Each call is a read of
    /// its own, so that a slow reader of an export holds no snapshot of the database.
    pub async fn export(
        &self,
        after: Option<EntryId>,
        span: Span,
        limit: u32,
    ) -> Result<Vec<ExportRow>, DatabaseError> {
        self.database
            .query(move |connection| export::rows(connection, after, span, limit))
            .await
    }

    /// Everything about one study.
    pub async fn study(&self, study: String) -> Result<Option<StudyReport>, DatabaseError> {
        self.database
            .query(move |connection| report::study(connection, &study))
            .await
    }
}

/// SQLite has signed integers; ids keep their order below 2⁶³, which the clock reaches in year 6429.
fn key(id: EntryId) -> i64 {
    i64::try_from(id.0).unwrap_or(i64::MAX)
}

fn entry_id(key: i64) -> EntryId {
    EntryId(key.unsigned_abs())
}

fn receive(connection: &Connection, entry: &Entry) -> rusqlite::Result<bool> {
    let known: Option<Option<u32>> = connection
        .prepare_cached("SELECT revision FROM instance WHERE entry = ?1")?
        .query_row([key(entry.id)], |row| row.get(0))
        .optional()?;
    if let Some(revision) = known {
        // Its removal had not reached the disk when the power went: it is here, and goes once more.
        connection
            .prepare_cached(
                "UPDATE instance SET released_at = NULL
                 WHERE entry = ?1 AND released_at IS NOT NULL",
            )?
            .execute([key(entry.id)])?;
        return Ok(revision.is_some());
    }
    // The same bytes came before, were dealt with and have left the spool: nothing new to find.
    let repeated: Option<u32> = connection
        .prepare_cached(
            "SELECT revision FROM instance
             WHERE sop_instance = ?1 AND digest = ?2 AND study = ?3 AND revision IS NOT NULL",
        )?
        .query_row(
            params![
                entry.arrival.sop_instance.as_str(),
                entry.digest.as_slice(),
                entry.study.as_str()
            ],
            |row| row.get(0),
        )
        .optional()?;
    let arrival = &entry.arrival;
    connection
        .prepare_cached(
            "INSERT INTO instance (entry, study, series, sop_instance, sop_class, transfer_syntax,
                modality, body_part, calling_ae, called_ae, peer, bytes, digest, received_at,
                revision, current, durable_at, durable_by)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17,
                ?18)",
        )?
        .execute(params![
            key(entry.id),
            entry.study.as_str(),
            entry.series.as_ref().map(|uid| uid.as_str()),
            arrival.sop_instance.as_str(),
            arrival.sop_class.as_str(),
            arrival.transfer_syntax.as_str(),
            entry.modality,
            entry.body_part,
            arrival.calling_ae.as_str(),
            arrival.called_ae.as_str(),
            arrival.peer.to_string(),
            i64::try_from(entry.data_set_bytes).unwrap_or(i64::MAX),
            entry.digest.as_slice(),
            entry.received_at.0,
            repeated,
            repeated.is_none(),
            entry.durable_at.map(|at| at.0),
            // Found by a start: it was durable before, nobody knows when.
            entry.durable_at.is_none().then(|| Timestamp::now().0),
        ])?;
    connection
        .prepare_cached(
            "INSERT INTO study (study, first_received, last_received) VALUES (?1, ?2, ?2)
             ON CONFLICT (study) DO UPDATE SET
                first_received = min(first_received, excluded.first_received),
                last_received = max(last_received, excluded.last_received)",
        )?
        .execute(params![entry.study.as_str(), entry.received_at.0])?;
    Ok(repeated.is_some())
}

fn prior(connection: &Connection, study: &str) -> rusqlite::Result<Prior> {
    let last: Option<(u32, String)> = connection
        .query_row(
            "SELECT revision, digest FROM revision WHERE study = ?1
             ORDER BY revision DESC LIMIT 1",
            [study],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    let (revision, digest) = last.unzip();
    let released: bool = connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM instance
                        WHERE study = ?1 AND current AND released_at IS NOT NULL)",
        [study],
        |row| row.get(0),
    )?;
    let mut messages = HashMap::new();
    let mut query = connection.prepare_cached(
        "SELECT model, id, outcome, model_version FROM message
         WHERE study = ?1 AND exchange = 'findings' ORDER BY seq",
    )?;
    let mut rows = query.query([study])?;
    while let Some(row) = rows.next()? {
        let message = PriorMessage {
            id: row.get(1)?,
            outcome: row.get(2)?,
            version: row.get(3)?,
        };
        messages.insert(row.get(0)?, message);
    }
    let revision = revision.unwrap_or(0);
    let rerun: Option<(u32, u32)> = connection
        .prepare_cached("SELECT number, revision FROM rerun WHERE study = ?1")?
        .query_row([study], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(Prior {
        revision,
        digest,
        messages,
        released,
        rerun: rerun.map_or(0, |(number, _)| number),
        rerun_due: rerun.is_some_and(|(_, asked_at)| asked_at == revision),
    })
}

fn finish(connection: &Connection, revision: &Revision) -> rusqlite::Result<()> {
    let study = revision.study.as_str();
    for message in &revision.messages {
        outbox::put(connection, message)?;
    }
    connection.execute(
        "INSERT OR REPLACE INTO revision (study, revision, digest, method, first_received,
            last_received, complete_at, finished_at, evidence)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            study,
            revision.number,
            revision.digest,
            revision.method,
            revision.first_received.0,
            revision.last_received.0,
            revision.complete_at.0,
            revision.finished_at.0,
            revision.evidence.to_string(),
        ],
    )?;
    let mut update = connection.prepare_cached(
        "UPDATE instance SET revision = ?2, current = ?3, decoded_at = ?4, inferred_at = ?5,
                refusal = ?6, first_revision = coalesce(first_revision, ?2)
         WHERE entry = ?1",
    )?;
    for instance in &revision.instances {
        update.execute(params![
            key(instance.entry),
            revision.number,
            instance.current,
            instance.decoded_at.map(|at| at.0),
            instance.inferred_at.map(|at| at.0),
            instance.refusal,
        ])?;
    }
    connection.execute(
        "DELETE FROM attempt WHERE study = ?1 AND digest = ?2",
        params![study, revision.digest],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests;
