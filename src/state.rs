//! `state.db`: the one database beside the spool, with the tables of every part that keeps books.
//!
//! One file, so that facts which belong together become durable together: a finished study and the
//! messages it led to, a step and the evidence it is.

use std::path::Path;

use crate::durable::database::{Database, DatabaseError};
use crate::ledger::Ledger;
use crate::outbox::Outbox;
use crate::{commitment, procedure};

/// Name of the file inside `spool.dir`.
pub const FILE: &str = "state.db";

/// From each format to the next; the first was 1. Tables that are new need no step.
const UPGRADES: &[&str] = &[
    "ALTER TABLE message ADD COLUMN exchange TEXT NOT NULL DEFAULT 'findings'",
    "ALTER TABLE instance ADD COLUMN durable_at INTEGER;
     ALTER TABLE instance ADD COLUMN held_until INTEGER;
     ALTER TABLE revision ADD COLUMN evidence TEXT;
     ALTER TABLE instance ADD COLUMN durable_by INTEGER;
     ALTER TABLE message ADD COLUMN discarded_at INTEGER;
     ALTER TABLE message ADD COLUMN discard_reason TEXT;
     CREATE TABLE study (seq INTEGER PRIMARY KEY AUTOINCREMENT, study TEXT NOT NULL UNIQUE,
        first_received INTEGER NOT NULL, last_received INTEGER NOT NULL);
     INSERT INTO study (study, first_received, last_received)
        SELECT study, min(received_at), max(received_at) FROM instance
        GROUP BY study ORDER BY min(entry)",
    "ALTER TABLE message ADD COLUMN traceparent TEXT;
     ALTER TABLE instance ADD COLUMN first_revision INTEGER",
];

/// Opens the database of the spool in `dir`, bringing an older one to the present format. Blocking.
///
/// # Errors
/// A file that cannot be opened, or whose format a newer gateway has written.
pub fn open(dir: &Path) -> Result<Database, DatabaseError> {
    let schema = [
        Ledger::schema(),
        Outbox::schema(),
        commitment::Store::schema(),
        procedure::Store::schema(),
    ];
    Database::open(&dir.join(FILE), &schema.concat(), UPGRADES)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    /// The tables of the first format, as a gateway of that time made them.
    const FIRST: &str = "
        CREATE TABLE instance (entry INTEGER PRIMARY KEY, study TEXT NOT NULL, series TEXT,
            sop_instance TEXT NOT NULL, sop_class TEXT NOT NULL, transfer_syntax TEXT NOT NULL,
            modality TEXT NOT NULL, body_part TEXT NOT NULL, calling_ae TEXT NOT NULL,
            called_ae TEXT NOT NULL, peer TEXT NOT NULL, bytes INTEGER NOT NULL,
            digest BLOB NOT NULL, received_at INTEGER NOT NULL, revision INTEGER,
            current INTEGER NOT NULL DEFAULT 1, decoded_at INTEGER, inferred_at INTEGER,
            refusal TEXT, released_at INTEGER);
        CREATE TABLE revision (study TEXT NOT NULL, revision INTEGER NOT NULL,
            digest TEXT NOT NULL, method TEXT NOT NULL, first_received INTEGER NOT NULL,
            last_received INTEGER NOT NULL, complete_at INTEGER NOT NULL,
            finished_at INTEGER NOT NULL, PRIMARY KEY (study, revision));
        CREATE TABLE message (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
            study TEXT NOT NULL, revision INTEGER NOT NULL, model TEXT NOT NULL,
            model_version TEXT NOT NULL, outcome TEXT NOT NULL, routing_key TEXT NOT NULL,
            body BLOB NOT NULL, created_at INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
            not_before INTEGER NOT NULL DEFAULT 0, last_error TEXT, confirmed_at INTEGER);
        INSERT INTO message (id, study, revision, model, model_version, outcome, routing_key, body,
            created_at) VALUES ('a', 's', 1, 'm', '1', 'finding', 'k', x'', 1);
        INSERT INTO revision VALUES ('s', 1, 'd', 'quiet-period', 1, 2, 3, 4);
        PRAGMA user_version = 1;";

    #[test]
    fn a_database_of_the_first_format_ends_like_a_new_one() {
        let columns = |dir: &Path| {
            let connection = Connection::open(dir.join(FILE)).unwrap();
            let mut all: Vec<String> = connection
                .prepare(
                    "SELECT m.name || '.' || c.name FROM sqlite_master AS m, pragma_table_info(m.name) AS c
                     WHERE m.type = 'table'",
                )
                .unwrap()
                .query_map([], |row| row.get(0))
                .unwrap()
                .map(Result::unwrap)
                .collect();
            all.sort();
            all
        };
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = Connection::open(old.path().join(FILE)).unwrap();
        first.execute_batch(FIRST).unwrap();
        drop(first);
        drop((open(old.path()).unwrap(), open(new.path()).unwrap()));
        assert_eq!(columns(old.path()), columns(new.path()));
        let database = open(old.path()).unwrap();
        let kept = |query: &str| {
            database
                .read(|c| c.query_row(query, [], |row| row.get::<_, i64>(0)))
                .unwrap()
        };
        assert_eq!(
            kept("SELECT count(*) FROM message WHERE exchange = 'findings'"),
            1
        );
        assert_eq!(
            kept("SELECT count(*) FROM revision WHERE evidence IS NULL"),
            1
        );
    }
}
