//! Modality Performed Procedure Steps (PS3.4 F.7): what the modality says it did, kept with the study.
//!
//! N-CREATE and N-SET arrive as data sets and leave here as rows: the state of the step, the studies
//! it belongs to, the instances it lists. The data sets themselves are kept as received.
//!
//! A step that is over stays as long as the ledger remembers; one in progress at least a week, because
//! its end is still to be told.

mod attributes;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use self::attributes::{Beginning, Change, Fault};

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Serialize, Serializer};

use crate::clock::Timestamp;
use crate::dicom::{AeTitle, SopClassUid, SopInstanceUid, StudyInstanceUid};
use crate::durable::database::{Database, DatabaseError};

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS procedure_step (
    sop_instance TEXT PRIMARY KEY,
    calling_ae TEXT NOT NULL,
    state TEXT NOT NULL,
    discontinuation TEXT,
    performed INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    transfer_syntax TEXT NOT NULL,
    created BLOB NOT NULL,
    last_set BLOB,
    set_transfer_syntax TEXT
);
CREATE TABLE IF NOT EXISTS procedure_study (
    sop_instance TEXT NOT NULL,
    study TEXT NOT NULL,
    PRIMARY KEY (study, sop_instance)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS procedure_study_step ON procedure_study (sop_instance);
CREATE TABLE IF NOT EXISTS procedure_reference (
    step TEXT NOT NULL,
    position INTEGER NOT NULL,
    sop_class TEXT NOT NULL,
    sop_instance TEXT NOT NULL,
    PRIMARY KEY (step, position)
) WITHOUT ROWID;
";

/// A step in progress is forgotten no earlier than this after it was last heard of.
const PATIENCE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Performed Procedure Step Status (0040,0252).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// `IN PROGRESS`
    InProgress,
    /// `COMPLETED`
    Completed,
    /// `DISCONTINUED`
    Discontinued,
}

impl State {
    /// Reads the defined term (PS3.3 C.4.14).
    pub fn parse(term: &str) -> Option<Self> {
        match term {
            "IN PROGRESS" => Some(Self::InProgress),
            "COMPLETED" => Some(Self::Completed),
            "DISCONTINUED" => Some(Self::Discontinued),
            _ => None,
        }
    }

    /// The defined term.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "IN PROGRESS",
            Self::Completed => "COMPLETED",
            Self::Discontinued => "DISCONTINUED",
        }
    }
}

/// A step as an N-CREATE begins it.
#[derive(Debug, Clone)]
pub struct Created {
    /// Affected SOP Instance UID.
    pub sop_instance: SopInstanceUid,
    /// The modality.
    pub calling_ae: AeTitle,
    /// Study Instance UIDs of its Scheduled Step Attributes Sequence (0040,0270).
    pub studies: Vec<StudyInstanceUid>,
    /// As in [`Changed`]; most steps begin without.
    pub references: Option<Vec<(SopClassUid, SopInstanceUid)>>,
    /// Transfer syntax of the data set.
    pub transfer_syntax: String,
    /// The data set as received.
    pub data_set: Vec<u8>,
}

/// What an N-SET changes.
#[derive(Debug, Clone)]
pub struct Changed {
    /// Requested SOP Instance UID.
    pub sop_instance: SopInstanceUid,
    /// The new state, if the data set has one.
    pub state: Option<State>,
    /// Code Value of the Performed Procedure Step Discontinuation Reason Code Sequence (0040,0281).
    pub discontinuation: Option<String>,
    /// Instances of its Performed Series Sequence (0040,0340), which replace those before; `None` when
    /// the data set has no series.
    pub references: Option<Vec<(SopClassUid, SopInstanceUid)>>,
    /// Transfer syntax of the data set.
    pub transfer_syntax: String,
    /// The data set as received.
    pub data_set: Vec<u8>,
}

/// What an operation on a step led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is done; these studies are concerned.
    Done(Vec<StudyInstanceUid>),
    /// N-CREATE of a step that is there (0111H).
    Duplicate,
    /// N-SET of a step that is not (0112H).
    Unknown,
    /// N-SET of a step that is no longer in progress (0110H with Error ID A710H, PS3.4 F.7.2.2.4).
    Final,
    /// N-SET that ends a step of which no series was ever told (0121H, PS3.4 Table F.7.2-1, note 2).
    NoSeries,
}

/// A step of a study, as evidence of what there should be.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// SOP Instance UID of the step.
    pub sop_instance_uid: String,
    /// The modality.
    pub calling_ae: String,
    /// Its state.
    pub state: State,
    /// Code of the reason, when it was discontinued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discontinuation_reason: Option<String>,
    /// When it began.
    #[serde(rename = "created", serialize_with = "rfc3339")]
    pub created_at: Timestamp,
    /// When it last changed.
    #[serde(rename = "updated", serialize_with = "rfc3339")]
    pub updated_at: Timestamp,
    /// SOP Instance UIDs that it lists, each once.
    pub instances: Vec<String>,
}

fn rfc3339<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&at.rfc3339())
}

/// The durable steps. Clones share them.
#[derive(Clone)]
pub struct Store {
    database: Database,
}

impl Store {
    /// Statements that create the tables.
    pub const fn schema() -> &'static str {
        SCHEMA
    }

    /// The steps in a database opened with [`Store::schema`].
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// N-CREATE; on [`Outcome::Done`] the step is durable.
    pub async fn create(&self, step: Created, at: Timestamp) -> Result<Outcome, DatabaseError> {
        self.database
            .write(move |connection| create(connection, &step, at))
            .await
    }

    /// N-SET; on [`Outcome::Done`] the change is durable.
    pub async fn set(&self, change: Changed, at: Timestamp) -> Result<Outcome, DatabaseError> {
        self.database
            .write(move |connection| set(connection, &change, at))
            .await
    }

    /// The steps of a study, oldest first.
    pub async fn of_study(&self, study: String) -> Result<Vec<Step>, DatabaseError> {
        self.database
            .query(move |connection| of_study(connection, &study))
            .await
    }

    /// Forgets the steps that ended before this moment. Those in progress go when nothing was heard of
    /// them since this moment, and for a week.
    pub async fn expire(&self, before: Timestamp, now: Timestamp) -> Result<(), DatabaseError> {
        let patience = i64::try_from(PATIENCE.as_micros()).unwrap_or(i64::MAX);
        let patient = now.0.saturating_sub(patience);
        self.database
            .write(move |connection| expire(connection, before, Timestamp(patient)))
            .await
    }
}

fn create(connection: &Connection, step: &Created, at: Timestamp) -> rusqlite::Result<Outcome> {
    let uid = step.sop_instance.as_str();
    let inserted = connection
        .prepare_cached(
            "INSERT OR IGNORE INTO procedure_step
                (sop_instance, calling_ae, state, performed, created_at, updated_at,
                 transfer_syntax, created)
             VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6, ?7)",
        )?
        .execute(params![
            uid,
            step.calling_ae.as_str(),
            State::InProgress.as_str(),
            step.references.is_some(),
            at.0,
            step.transfer_syntax,
            step.data_set,
        ])?;
    if inserted == 0 {
        return Ok(Outcome::Duplicate);
    }
    for study in &step.studies {
        connection
            .prepare_cached("INSERT OR IGNORE INTO procedure_study VALUES (?1, ?2)")?
            .execute(params![uid, study.as_str()])?;
    }
    if let Some(references) = &step.references {
        refer(connection, uid, references)?;
    }
    Ok(Outcome::Done(step.studies.clone()))
}

fn set(connection: &Connection, change: &Changed, at: Timestamp) -> rusqlite::Result<Outcome> {
    let uid = change.sop_instance.as_str();
    let found: Option<(String, bool)> = connection
        .prepare_cached("SELECT state, performed FROM procedure_step WHERE sop_instance = ?1")?
        .query_row([uid], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((state, performed)) = found else {
        return Ok(Outcome::Unknown);
    };
    if State::parse(&state) != Some(State::InProgress) {
        return Ok(Outcome::Final);
    }
    let ends = change.state.is_some_and(|state| state != State::InProgress);
    if ends && !performed && change.references.is_none() {
        return Ok(Outcome::NoSeries);
    }
    connection
        .prepare_cached(
            "UPDATE procedure_step
             SET state = coalesce(?2, state), discontinuation = coalesce(?3, discontinuation),
                 updated_at = ?4, last_set = ?5, set_transfer_syntax = ?6,
                 performed = performed OR ?7
             WHERE sop_instance = ?1",
        )?
        .execute(params![
            uid,
            change.state.map(State::as_str),
            change.discontinuation,
            at.0,
            change.data_set,
            change.transfer_syntax,
            change.references.is_some(),
        ])?;
    if let Some(references) = &change.references {
        refer(connection, uid, references)?;
    }
    let studies: Vec<String> = connection
        .prepare_cached("SELECT study FROM procedure_study WHERE sop_instance = ?1")?
        .query_map([uid], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let parse = |study: &String| StudyInstanceUid::parse(study).ok();
    Ok(Outcome::Done(studies.iter().filter_map(parse).collect()))
}

/// Puts the list of a step in the place of the one before.
fn refer(
    connection: &Connection,
    step: &str,
    references: &[(SopClassUid, SopInstanceUid)],
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM procedure_reference WHERE step = ?1")?
        .execute([step])?;
    let mut insert =
        connection.prepare_cached("INSERT INTO procedure_reference VALUES (?1, ?2, ?3, ?4)")?;
    for (position, (class, instance)) in (0_i64..).zip(references) {
        insert.execute(params![step, position, class.as_str(), instance.as_str()])?;
    }
    Ok(())
}

fn expire(connection: &Connection, before: Timestamp, patient: Timestamp) -> rusqlite::Result<()> {
    const OLD: &str = "SELECT sop_instance FROM procedure_step
         WHERE updated_at < ?1 AND (state <> ?3 OR updated_at < ?2)";
    for (table, step) in [
        ("procedure_reference", "step"),
        ("procedure_study", "sop_instance"),
        ("procedure_step", "sop_instance"),
    ] {
        connection.execute(
            &format!("DELETE FROM {table} WHERE {step} IN ({OLD})"),
            params![before.0, patient.0, State::InProgress.as_str()],
        )?;
    }
    Ok(())
}

fn of_study(connection: &Connection, study: &str) -> rusqlite::Result<Vec<Step>> {
    let mut query = connection.prepare_cached(
        "SELECT p.sop_instance, p.calling_ae, p.state, p.discontinuation, p.created_at, p.updated_at
         FROM procedure_study AS s JOIN procedure_step AS p USING (sop_instance)
         WHERE s.study = ?1 ORDER BY p.created_at, p.sop_instance",
    )?;
    let mut rows = query.query([study])?;
    let mut steps = Vec::new();
    while let Some(row) = rows.next()? {
        let uid: String = row.get(0)?;
        let Some(state) = State::parse(&row.get::<_, String>(2)?) else {
            continue;
        };
        let instances = connection
            .prepare_cached(
                "SELECT sop_instance FROM procedure_reference WHERE step = ?1 ORDER BY position",
            )?
            .query_map([&uid], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        steps.push(Step {
            sop_instance_uid: uid,
            calling_ae: row.get(1)?,
            state,
            discontinuation_reason: row.get(3)?,
            created_at: Timestamp(row.get(4)?),
            updated_at: Timestamp(row.get(5)?),
            instances,
        });
    }
    Ok(steps)
}
