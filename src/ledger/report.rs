//! The ledger as the operator reads it over HTTP.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::Span;
use crate::clock::Timestamp;

/// Where a study is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Instances are there that no finished revision covers.
    Receiving,
    /// Messages are owed.
    Publishing,
    /// Neither.
    Done,
}

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Receiving => "receiving",
            Self::Publishing => "publishing",
            Self::Done => "done",
        }
    }
}

/// Which studies to list. What is not given does not restrict.
#[derive(Debug, Clone, Default)]
pub struct StudyFilter {
    /// This one.
    pub study: Option<String>,
    /// Some instance came from this sender.
    pub calling_ae: Option<String>,
    /// Some instance is of this Modality (0008,0060).
    pub modality: Option<String>,
    /// Where the study is on its way.
    pub state: Option<State>,
    /// Some instance may have come in this span: the first before its end, the last after its begin.
    pub span: Span,
    /// Go on after the page that gave this cursor.
    pub cursor: Option<i64>,
    /// Studies at most.
    pub limit: u32,
}

/// A page of studies.
#[derive(Debug, Clone, Serialize)]
pub struct StudyPage {
    /// One line per study.
    pub studies: Vec<StudySummary>,
    /// Where the next page begins; none after the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One line per study.
#[derive(Debug, Clone, Serialize)]
pub struct StudySummary {
    /// Study Instance UID.
    pub study_instance_uid: String,
    /// Instances received, each SOP Instance UID once.
    pub instances_received: u32,
    /// Of these: part of a finished revision.
    pub instances_processed: u32,
    /// Entries that were refused, whatever their SOP Instance UID.
    pub instances_refused: u32,
    /// Who sent them.
    pub calling_ae: Vec<String>,
    /// Their modalities.
    pub modality: Vec<String>,
    /// Last finished revision; 0 while the first is open.
    pub revision: u32,
    /// Messages made and messages confirmed by the broker.
    pub published: u32,
    /// Messages the broker has confirmed.
    pub confirmed: u32,
    /// Messages an operator has given up before the broker confirmed them.
    pub discarded: u32,
    /// First arrival, RFC 3339.
    pub received_first: String,
    /// Last arrival, RFC 3339.
    pub received_last: String,
    /// Where it is on its way.
    pub state: State,
}

/// What one calling AE title has sent.
#[derive(Debug, Clone, Serialize)]
pub struct SourceReport {
    /// Calling AE title.
    pub calling_ae: String,
    /// Studies with an instance from it.
    pub studies: u64,
    /// Instances received, each SOP Instance UID once. All of them are durable: nothing gets into the
    /// ledger before.
    pub instances_received: u64,
    /// The same SOP Instance UID again, with other bytes.
    pub instances_replaced: u64,
    /// Of the received: no finished revision covers them yet.
    pub instances_open: u64,
    /// Of the received: part of a finished revision.
    pub instances_processed: u64,
    /// Of the processed: refused by what looked at them, with a code.
    pub instances_refused: u64,
    /// Of the processed: the broker has confirmed every message about them.
    pub instances_confirmed: u64,
    /// Bytes of their data sets.
    pub bytes: u64,
    /// First arrival, RFC 3339.
    pub received_first: String,
    /// Last arrival, RFC 3339.
    pub received_last: String,
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
    /// When its last byte had arrived.
    pub received: String,
    /// When it was durable: data, seal and directory entry synced. The response left after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durable: Option<String>,
    /// Instead of `durable`, for one that a start has found: it was durable before this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durable_by: Option<String>,
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
    /// What an operator has removed from the spool.
    pub removals: Vec<RemovalReport>,
    /// Instances in order of arrival.
    pub instances: Vec<InstanceReport>,
}

/// A removal of a study from the spool.
#[derive(Debug, Clone, Serialize)]
pub struct RemovalReport {
    /// When.
    pub at: String,
    /// Why, in the operator's words.
    pub reason: String,
    /// So many instances.
    pub instances: u32,
}

/// The state of the study of a row `s`.
const STATE: &str = "
    CASE WHEN EXISTS (SELECT 1 FROM instance AS o
                      WHERE o.study = s.study AND o.revision IS NULL) THEN 'receiving'
         WHEN EXISTS (SELECT 1 FROM message AS m
                      WHERE m.study = s.study AND m.confirmed_at IS NULL
                        AND m.discarded_at IS NULL AND m.exchange = 'findings') THEN 'publishing'
         ELSE 'done' END";

const SUMMARY: &str = "
    SELECT i.study, count(DISTINCT i.sop_instance),
           count(DISTINCT CASE WHEN i.revision IS NOT NULL THEN i.sop_instance END),
           count(i.refusal),
           json_group_array(DISTINCT i.calling_ae),
           json_group_array(DISTINCT i.modality) FILTER (WHERE i.modality <> ''),
           coalesce((SELECT max(revision) FROM revision AS r WHERE r.study = i.study), 0),
           (SELECT count(*) FROM message AS m
            WHERE m.study = i.study AND m.exchange = 'findings'),
           (SELECT count(confirmed_at) FROM message AS m
            WHERE m.study = i.study AND m.exchange = 'findings'),
           (SELECT count(*) FROM message AS m
            WHERE m.study = i.study AND m.exchange = 'findings' AND m.confirmed_at IS NULL
              AND m.discarded_at IS NOT NULL),
           min(i.received_at), max(i.received_at), sum(i.revision IS NULL)
    FROM instance AS i WHERE i.study = ?1 GROUP BY i.study";

pub(super) fn studies(
    connection: &Connection,
    filter: &StudyFilter,
) -> rusqlite::Result<StudyPage> {
    let found: Vec<(i64, String)> = connection
        .prepare_cached(&format!(
            "SELECT s.seq, s.study FROM study AS s
             WHERE s.seq < ?1 AND s.last_received >= ?2 AND s.first_received < ?3
               AND (?4 IS NULL OR EXISTS (SELECT 1 FROM instance AS i
                                          WHERE i.study = s.study AND i.calling_ae = ?4))
               AND (?5 IS NULL OR EXISTS (SELECT 1 FROM instance AS i
                                          WHERE i.study = s.study AND i.modality = ?5))
               AND (?6 IS NULL OR ?6 = {STATE})
               AND (?8 IS NULL OR s.study = ?8)
             ORDER BY s.seq DESC LIMIT ?7"
        ))?
        .query_map(
            params![
                filter.cursor.unwrap_or(i64::MAX),
                filter.span.since.0,
                filter.span.until.0,
                filter.calling_ae,
                filter.modality,
                filter.state.map(State::as_str),
                filter.limit,
                filter.study,
            ],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?
        .collect::<rusqlite::Result<_>>()?;
    let full = u32::try_from(found.len()).is_ok_and(|rows| rows == filter.limit);
    let next = found
        .last()
        .filter(|_| full)
        .map(|(seq, _)| seq.to_string());
    let mut query = connection.prepare_cached(SUMMARY)?;
    let mut studies = Vec::with_capacity(found.len());
    for (_, study) in found {
        // A study whose instances have just been forgotten has no line.
        studies.extend(query.query_row([study], summary).optional()?);
    }
    Ok(StudyPage { studies, next })
}

pub(super) fn sources(connection: &Connection, span: Span) -> rusqlite::Result<Vec<SourceReport>> {
    connection
        .prepare_cached(
            "SELECT i.calling_ae, count(DISTINCT i.study), count(DISTINCT i.sop_instance),
                    count(*) - count(DISTINCT i.sop_instance),
                    count(DISTINCT CASE WHEN i.revision IS NULL THEN i.sop_instance END),
                    count(DISTINCT CASE WHEN i.revision IS NOT NULL THEN i.sop_instance END),
                    count(DISTINCT CASE WHEN i.refusal IS NOT NULL THEN i.sop_instance END),
                    count(DISTINCT CASE WHEN m.confirmed THEN i.sop_instance END),
                    sum(i.bytes), min(i.received_at), max(i.received_at)
             FROM instance AS i
             LEFT JOIN (SELECT study, revision, min(confirmed_at IS NOT NULL) AS confirmed
                        FROM message WHERE exchange = 'findings' GROUP BY study, revision) AS m
               ON m.study = i.study AND m.revision = i.revision
             WHERE i.received_at >= ?1 AND i.received_at < ?2
             GROUP BY i.calling_ae ORDER BY i.calling_ae",
        )?
        .query_map([span.since.0, span.until.0], |row| {
            let count = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
            Ok(SourceReport {
                calling_ae: row.get(0)?,
                studies: count(1)?,
                instances_received: count(2)?,
                instances_replaced: count(3)?,
                instances_open: count(4)?,
                instances_processed: count(5)?,
                instances_refused: count(6)?,
                instances_confirmed: count(7)?,
                bytes: count(8)?,
                received_first: time(row, 9)?,
                received_last: time(row, 10)?,
            })
        })?
        .collect()
}

pub(super) fn study(connection: &Connection, study: &str) -> rusqlite::Result<Option<StudyReport>> {
    let summary = connection
        .prepare_cached(SUMMARY)?
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
                       AND m.exchange = 'findings'),
                    i.durable_at, i.durable_by
             FROM instance AS i WHERE i.study = ?1 ORDER BY i.entry",
        )?
        .query_map([study], instance)?
        .collect::<rusqlite::Result<_>>()?;
    let removals = connection
        .prepare_cached(
            "SELECT removed_at, reason, instances FROM removal WHERE study = ?1 ORDER BY rowid",
        )?
        .query_map([study], |row| {
            Ok(RemovalReport {
                at: time(row, 0)?,
                reason: row.get(1)?,
                instances: row.get(2)?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Some(StudyReport {
        summary,
        revisions,
        removals,
        instances,
    }))
}

fn summary(row: &Row<'_>) -> rusqlite::Result<StudySummary> {
    let (published, confirmed, discarded): (u32, u32, u32) =
        (row.get(7)?, row.get(8)?, row.get(9)?);
    let open: i64 = row.get(12)?;
    Ok(StudySummary {
        study_instance_uid: row.get(0)?,
        instances_received: row.get(1)?,
        instances_processed: row.get(2)?,
        instances_refused: row.get(3)?,
        calling_ae: words(row, 4)?,
        modality: words(row, 5)?,
        revision: row.get(6)?,
        published,
        confirmed,
        discarded,
        received_first: time(row, 10)?,
        received_last: time(row, 11)?,
        state: match (open > 0, published > confirmed.saturating_add(discarded)) {
            (true, _) => State::Receiving,
            (false, true) => State::Publishing,
            (false, false) => State::Done,
        },
    })
}

/// A JSON array of texts: an AE title may have any character that would separate them.
fn words(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<String>> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|err| {
        let kind = rusqlite::types::Type::Text;
        rusqlite::Error::FromSqlConversionFailure(column, kind, Box::new(err))
    })
}

fn instance(row: &Row<'_>) -> rusqlite::Result<InstanceReport> {
    Ok(InstanceReport {
        sop_instance_uid: row.get(0)?,
        series_instance_uid: row.get(1)?,
        sop_class_uid: row.get(2)?,
        transfer_syntax_uid: row.get(3)?,
        entry: super::entry_id(row.get(4)?).to_string(),
        bytes: row.get::<_, i64>(5)?.unsigned_abs(),
        sha256: hex(row, 6)?,
        current: row.get(7)?,
        received: time(row, 8)?,
        durable: optional_time(row, 15)?,
        durable_by: optional_time(row, 16)?,
        decoded: optional_time(row, 9)?,
        inferred: optional_time(row, 10)?,
        refusal: row.get(11)?,
        released: optional_time(row, 12)?,
        published: optional_time(row, 13)?,
        confirmed: optional_time(row, 14)?,
    })
}

pub(super) fn hex(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    let digest: Vec<u8> = row.get(column)?;
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

pub(super) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    row.get(column).map(|at| Timestamp(at).rfc3339())
}

pub(super) fn optional_time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<String>> {
    let at: Option<i64> = row.get(column)?;
    Ok(at.map(|at| Timestamp(at).rfc3339()))
}
