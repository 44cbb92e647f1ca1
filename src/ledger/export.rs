//! The whole ledger as a table: one row per instance, with all its times and what its study led to.
//!
//! UIDs, AE titles, digests, times and codes: the ledger holds nothing else.

use rusqlite::{Connection, params};
use serde::Serialize;

use super::report::{hex, optional_time, time};
use super::{entry_id, key};
use crate::clock::Timestamp;
use crate::spool::EntryId;

/// A span of time: from `since`, and before `until`.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// Its first moment.
    pub since: Timestamp,
    /// The first moment after it.
    pub until: Timestamp,
}

impl Default for Span {
    /// All of time.
    fn default() -> Self {
        Self {
            since: Timestamp(i64::MIN),
            until: Timestamp(i64::MAX),
        }
    }
}

/// One instance. The names are the columns of the CSV; times are RFC 3339 in UTC.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ExportRow {
    /// Its file in the spool, `<entry>.dcm`.
    pub entry: String,
    /// Study Instance UID.
    pub study_instance_uid: String,
    /// Series Instance UID.
    pub series_instance_uid: Option<String>,
    /// SOP Instance UID.
    pub sop_instance_uid: String,
    /// SOP Class UID.
    pub sop_class_uid: String,
    /// Transfer syntax as received.
    pub transfer_syntax_uid: String,
    /// Modality (0008,0060), or empty.
    pub modality: String,
    /// Calling AE title.
    pub calling_ae: String,
    /// Called AE title.
    pub called_ae: String,
    /// Bytes of the data set.
    pub bytes: u64,
    /// SHA-256 of the data set.
    pub sha256: String,
    /// The current one of its SOP Instance UID.
    pub current: bool,
    /// When its last byte had arrived.
    pub received: String,
    /// When it was durable.
    pub durable: Option<String>,
    /// Instead of `durable`, for one that a start has found: it was durable before this.
    pub durable_by: Option<String>,
    /// When its pixels or features had been decoded.
    pub decoded: Option<String>,
    /// When a model had answered for it.
    pub inferred: Option<String>,
    /// When the first message about it was made.
    pub published: Option<String>,
    /// When the broker had confirmed every message about it.
    pub confirmed: Option<String>,
    /// When its file left the spool.
    pub released: Option<String>,
    /// Why it was refused, if it was.
    pub refusal: Option<String>,
    /// The last revision of its study that covers it.
    pub revision: Option<u32>,
    /// How that revision was found to be complete.
    pub completeness: Option<String>,
    /// What that revision led to: `model@version=outcome`, separated by blanks; the name is empty
    /// where no model applies.
    pub outcomes: Option<String>,
    /// Messages of that revision that an operator has given up.
    pub discarded: u32,
}

/// At most `limit` rows after `after`, in order of arrival.
pub(super) fn rows(
    connection: &Connection,
    after: Option<EntryId>,
    span: Span,
    limit: u32,
) -> rusqlite::Result<Vec<ExportRow>> {
    connection
        .prepare_cached(
            "SELECT i.entry, i.study, i.series, i.sop_instance, i.sop_class, i.transfer_syntax,
                    i.modality, i.calling_ae, i.called_ae, i.bytes, i.digest, i.current,
                    i.received_at, i.durable_at, i.durable_by, i.decoded_at, i.inferred_at,
                    min(m.created_at),
                    CASE WHEN count(m.seq) = count(m.confirmed_at) THEN max(m.confirmed_at) END,
                    i.released_at, i.refusal, i.revision, r.method,
                    group_concat(m.model || CASE m.model WHEN '' THEN '' ELSE '@' END
                                 || m.model_version || '=' || m.outcome, ' ' ORDER BY m.seq),
                    count(m.discarded_at)
             FROM (SELECT * FROM instance
                   WHERE entry > ?1 AND received_at >= ?2 AND received_at < ?3
                   ORDER BY entry LIMIT ?4) AS i
             LEFT JOIN revision AS r ON r.study = i.study AND r.revision = i.revision
             LEFT JOIN message AS m ON m.study = i.study AND m.revision = i.revision
                                   AND m.exchange = 'findings'
             GROUP BY i.entry ORDER BY i.entry",
        )?
        .query_map(
            params![after.map_or(-1, key), span.since.0, span.until.0, limit],
            |row| {
                Ok(ExportRow {
                    entry: entry_id(row.get(0)?).to_string(),
                    study_instance_uid: row.get(1)?,
                    series_instance_uid: row.get(2)?,
                    sop_instance_uid: row.get(3)?,
                    sop_class_uid: row.get(4)?,
                    transfer_syntax_uid: row.get(5)?,
                    modality: row.get(6)?,
                    calling_ae: row.get(7)?,
                    called_ae: row.get(8)?,
                    bytes: row.get::<_, i64>(9)?.unsigned_abs(),
                    sha256: hex(row, 10)?,
                    current: row.get(11)?,
                    received: time(row, 12)?,
                    durable: optional_time(row, 13)?,
                    durable_by: optional_time(row, 14)?,
                    decoded: optional_time(row, 15)?,
                    inferred: optional_time(row, 16)?,
                    published: optional_time(row, 17)?,
                    confirmed: optional_time(row, 18)?,
                    released: optional_time(row, 19)?,
                    refusal: row.get(20)?,
                    revision: row.get(21)?,
                    completeness: row.get(22)?,
                    outcomes: row.get(23)?,
                    discarded: row.get(24)?,
                })
            },
        )?
        .collect()
}

impl ExportRow {
    /// The names of the fields in their order: the header of the CSV.
    pub const COLUMNS: [&str; 25] = [
        "entry",
        "study_instance_uid",
        "series_instance_uid",
        "sop_instance_uid",
        "sop_class_uid",
        "transfer_syntax_uid",
        "modality",
        "calling_ae",
        "called_ae",
        "bytes",
        "sha256",
        "current",
        "received",
        "durable",
        "durable_by",
        "decoded",
        "inferred",
        "published",
        "confirmed",
        "released",
        "refusal",
        "revision",
        "completeness",
        "outcomes",
        "discarded",
    ];

    /// The row as a spreadsheet may open it: a text that would be a formula there is quoted with an
    /// apostrophe. Of what the ledger holds only AE titles can begin like one.
    pub fn for_spreadsheets(mut self) -> Self {
        for text in [&mut self.calling_ae, &mut self.called_ae] {
            if text.starts_with(['=', '+', '-', '@']) {
                text.insert(0, '\'');
            }
        }
        self
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_header_names_the_fields() {
        let row = serde_json::to_value(ExportRow::default()).unwrap();
        let names: Vec<&String> = row.as_object().unwrap().keys().collect();
        assert_eq!(names, ExportRow::COLUMNS.each_ref());
    }

    #[test]
    fn no_cell_is_a_formula() {
        for ae in ["=1+1", "+CT", "-CT", "@SUM"] {
            let row = ExportRow {
                calling_ae: ae.to_owned(),
                called_ae: ae.to_owned(),
                ..ExportRow::default()
            };
            let row = row.for_spreadsheets();
            assert_eq!(row.calling_ae, format!("'{ae}"));
            assert_eq!(row.called_ae, format!("'{ae}"));
        }
    }
}
