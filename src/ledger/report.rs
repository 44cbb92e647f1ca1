//! The ledger as the operator reads it over HTTP.

use rusqlite::{Connection, OptionalExtension, Row};
use serde::Serialize;

use crate::clock::Timestamp;

/// One line per study.
#[derive(Debug, Clone, Serialize)]
pub struct StudySummary {
    /// Study Instance UID.
    pub study_instance_uid: String,
    /// Instances received, each SOP Instance UID once.
    pub instances_received: u32,
    /// Of these: part of a finished revision.
    pub instances_processed: u32,
    /// Who sent them.
    pub calling_ae: Vec<String>,
    /// Last finished revision; 0 while the first is open.
    pub revision: u32,
    /// Messages made and messages confirmed by the broker.
    pub published: u32,
    /// Messages the broker has confirmed.
    pub confirmed: u32,
    /// First arrival, RFC 3339.
    pub received_first: String,
    /// Last arrival, RFC 3339.
    pub received_last: String,
    /// `receiving`, `publishing` or `done`.
    pub state: &'static str,
}

/// One instance on its way.
#[derive(Debug, Clone, Serialize)]
pub struct InstanceReport {
    /// SOP Instance UID.
    pub sop_instance_uid: String,
    /// Series Instance UID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub series_instance_uid: Option<String>,
    /// SOP Class UID.
    pub sop_class_uid: String,
    /// Transfer syntax as received.
    pub transfer_syntax_uid: String,
    /// Its file in the spool, `<entry>.dcm`.
    pub entry: String,
    /// Bytes of the data set.
    pub bytes: u64,
    /// SHA-256 of the data set.
    pub sha256: String,
    /// The current one of its SOP Instance UID.
    pub current: bool,
    /// Received, and durable: the response leaves after the sync, so both are one time.
    pub received: String,
    /// When the data set was durable.
    pub durable: String,
    /// When its pixels or features had been decoded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decoded: Option<String>,
    /// When a model had answered for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inferred: Option<String>,
    /// When the first message about it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub published: Option<String>,
    /// When the broker had confirmed every message about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<String>,
    /// Why it was refused, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// When its file left the spool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub released: Option<String>,
}

/// One finished revision.
#[derive(Debug, Clone, Serialize)]
pub struct RevisionReport {
    /// Its number, from 1.
    pub revision: u32,
    /// Digest of the instance set.
    pub instance_set_digest: String,
    /// How it was found to be complete.
    pub completeness: String,
    /// What was known of how complete it is, as in messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<serde_json::Value>,
    /// When it was found to be complete.
    pub complete: String,
    /// When its messages were made.
    pub finished: String,
}

/// Everything about one study, apart from its messages.
#[derive(Debug, Clone, Serialize)]
pub struct StudyReport {
    /// The summary line.
    #[serde(flatten)]
    pub summary: StudySummary,
    /// Finished revisions.
    pub revisions: Vec<RevisionReport>,
    /// Instances in order of arrival.
    pub instances: Vec<InstanceReport>,
}

const SUMMARY: &str = "
    SELECT i.study, count(DISTINCT i.sop_instance),
           count(DISTINCT CASE WHEN i.revision IS NOT NULL THEN i.sop_instance END),
           group_concat(DISTINCT i.calling_ae),
           coalesce((SELECT max(revision) FROM revision AS r WHERE r.study = i.study), 0),
           (SELECT count(*) FROM message AS m
            WHERE m.study = i.study AND m.exchange = 'findings'),
           (SELECT count(confirmed_at) FROM message AS m
            WHERE m.study = i.study AND m.exchange = 'findings'),
           min(i.received_at), max(i.received_at), sum(i.revision IS NULL)
    FROM instance AS i";

pub(super) fn studies(connection: &Connection, limit: u32) -> rusqlite::Result<Vec<StudySummary>> {
    connection
        .prepare_cached(&format!(
            "{SUMMARY} GROUP BY i.study ORDER BY max(i.received_at) DESC LIMIT ?1"
        ))?
        .query_map([limit], summary)?
        .collect()
}

pub(super) fn study(connection: &Connection, study: &str) -> rusqlite::Result<Option<StudyReport>> {
    let summary = connection
        .prepare_cached(&format!("{SUMMARY} WHERE i.study = ?1 GROUP BY i.study"))?
        .query_row([study], summary)
        .optional()?;
    let Some(summary) = summary else {
        return Ok(None);
    };
    let revisions = connection
        .prepare_cached(
            "SELECT revision, digest, method, complete_at, finished_at, evidence FROM revision
             WHERE study = ?1 ORDER BY revision",
        )?
        .query_map([study], |row| {
            Ok(RevisionReport {
                revision: row.get(0)?,
                instance_set_digest: row.get(1)?,
                completeness: row.get(2)?,
                complete: time(row, 3)?,
                finished: time(row, 4)?,
                evidence: row
                    .get::<_, Option<String>>(5)?
                    .and_then(|text| serde_json::from_str(&text).ok()),
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    let instances = connection
        .prepare_cached(
            "SELECT i.sop_instance, i.series, i.sop_class, i.transfer_syntax, i.entry, i.bytes,
                    i.digest, i.current, i.received_at, i.decoded_at, i.inferred_at, i.refusal,
                    i.released_at,
                    (SELECT min(created_at) FROM message AS m
                     WHERE m.study = i.study AND m.revision = i.revision
                       AND m.exchange = 'findings'),
                    (SELECT CASE WHEN count(*) = count(confirmed_at) THEN max(confirmed_at) END
                     FROM message AS m WHERE m.study = i.study AND m.revision = i.revision
                       AND m.exchange = 'findings')
             FROM instance AS i WHERE i.study = ?1 ORDER BY i.entry",
        )?
        .query_map([study], instance)?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Some(StudyReport {
        summary,
        revisions,
        instances,
    }))
}

fn summary(row: &Row<'_>) -> rusqlite::Result<StudySummary> {
    let (published, confirmed): (u32, u32) = (row.get(5)?, row.get(6)?);
    let open: i64 = row.get(9)?;
    Ok(StudySummary {
        study_instance_uid: row.get(0)?,
        instances_received: row.get(1)?,
        instances_processed: row.get(2)?,
        calling_ae: row
            .get::<_, String>(3)?
            .split(',')
            .map(str::to_owned)
            .collect(),
        revision: row.get(4)?,
        published,
        confirmed,
        received_first: time(row, 7)?,
        received_last: time(row, 8)?,
        state: match (open > 0, published > confirmed) {
            (true, _) => "receiving",
            (false, true) => "publishing",
            (false, false) => "done",
        },
    })
}

fn instance(row: &Row<'_>) -> rusqlite::Result<InstanceReport> {
    let digest: Vec<u8> = row.get(6)?;
    let entry = super::entry_id(row.get(4)?);
    Ok(InstanceReport {
        sop_instance_uid: row.get(0)?,
        series_instance_uid: row.get(1)?,
        sop_class_uid: row.get(2)?,
        transfer_syntax_uid: row.get(3)?,
        entry: entry.to_string(),
        bytes: row.get::<_, i64>(5)?.unsigned_abs(),
        sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        current: row.get(7)?,
        received: time(row, 8)?,
        durable: time(row, 8)?,
        decoded: optional_time(row, 9)?,
        inferred: optional_time(row, 10)?,
        refusal: row.get(11)?,
        released: optional_time(row, 12)?,
        published: optional_time(row, 13)?,
        confirmed: optional_time(row, 14)?,
    })
}

fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    row.get(column).map(|at| Timestamp(at).rfc3339())
}

fn optional_time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<String>> {
    let at: Option<i64> = row.get(column)?;
    Ok(at.map(|at| Timestamp(at).rfc3339()))
}
