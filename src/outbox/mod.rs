//! Messages we owe the broker.
//!
//! A message is put in the same transaction that marks its study as finished, and leaves the state
//! "owed" only when the broker has confirmed it. Putting an id that is known changes nothing: ids are
//! derived from what was computed, so a second run after a crash owes nothing new.
//!
//! An operator can give a message up: it is marked as discarded, with the reason, and never counts as
//! confirmed.
//!
//! Order: of each study only the oldest unconfirmed message may be in flight, so a consumer never
//! sees a revision before the one that it supersedes. Messages of shadows are a queue of their own:
//! what is wrong with them holds nothing else up.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

use crate::clock::Timestamp;
use crate::durable::database::{Database, DatabaseError};

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS message (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    study TEXT NOT NULL,
    revision INTEGER NOT NULL,
    model TEXT NOT NULL,
    model_version TEXT NOT NULL,
    outcome TEXT NOT NULL,
    routing_key TEXT NOT NULL,
    body BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    not_before INTEGER NOT NULL DEFAULT 0,
    last_error TEXT,
    confirmed_at INTEGER,
    exchange TEXT NOT NULL DEFAULT 'findings',
    discarded_at INTEGER,
    discard_reason TEXT,
    traceparent TEXT
);
CREATE INDEX IF NOT EXISTS message_owed ON message (study, seq) WHERE confirmed_at IS NULL;
CREATE INDEX IF NOT EXISTS message_study ON message (study, seq);
";

const SUMMARY: &str = "SELECT id, revision, model, model_version, outcome, attempts, last_error,
    created_at, confirmed_at, exchange, discarded_at, discard_reason FROM message";

const SHOWN: &str = "SELECT id, revision, model, model_version, outcome, attempts, last_error,
    created_at, confirmed_at, exchange, discarded_at, discard_reason, study, routing_key,
    length(body) FROM message";

/// Who a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Exchange {
    /// Everybody who waits for findings.
    Findings,
    /// Those who compare versions of a model.
    Shadow,
}

impl Exchange {
    /// The word in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Findings => "findings",
            Self::Shadow => "shadow",
        }
    }

    /// Anything unknown is kept from the findings.
    fn parse(word: &str) -> Self {
        match word {
            "findings" => Self::Findings,
            _ => Self::Shadow,
        }
    }
}

/// A message as the pipeline hands it over.
#[derive(Debug, Clone)]
pub struct Message {
    /// CloudEvents `id` and AMQP `message_id`.
    pub id: String,
    /// Study Instance UID: the unit of order. It never leaves the body.
    pub study: String,
    /// Revision of the study, from 1.
    pub revision: u32,
    /// Model name; empty for a study no model applies to.
    pub model: String,
    /// Model version.
    pub model_version: String,
    /// `finding`, `no-finding`, `skipped`, `failed` or `superseded`.
    pub outcome: String,
    /// Who it is for.
    pub exchange: Exchange,
    /// AMQP routing key.
    pub routing_key: String,
    /// The structured CloudEvent.
    pub body: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its place in the trace of its study, as W3C Trace Context has it.
    pub traceparent: Option<String>,
}

/// A message that may be sent now.
#[derive(Debug, Clone)]
pub struct Due {
    /// Order of putting.
    pub seq: i64,
    /// Attempts so far.
    pub attempts: u32,
    /// What to send.
    pub message: Message,
}

/// What the operator sees of a message; the body stays in the database.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Message id.
    pub id: String,
    /// Revision of the study it speaks of.
    pub revision: u32,
    /// Model name and version, `name@version`.
    pub model: String,
    /// Outcome.
    pub outcome: String,
    /// Who it is for.
    pub exchange: Exchange,
    /// Attempts so far.
    pub attempts: u32,
    /// Last refusal by the broker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When it was put, RFC 3339.
    pub published: String,
    /// When the broker confirmed it, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<String>,
    /// When an operator gave it up, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discarded: Option<String>,
    /// Why, in the operator's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discard_reason: Option<String>,
}

/// A message in more detail; the body stays in the database.
#[derive(Debug, Clone, Serialize)]
pub struct Shown {
    /// Its line.
    #[serde(flatten)]
    pub summary: Summary,
    /// Study Instance UID.
    pub study_instance_uid: String,
    /// AMQP routing key.
    pub routing_key: String,
    /// Bytes of its body.
    pub bytes: u32,
}

/// How much is owed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Owed {
    /// Messages without a confirm, apart from those of shadows.
    pub messages: u64,
    /// When the oldest of them was put.
    pub oldest: Option<Timestamp>,
    /// Messages of shadows without a confirm.
    pub shadow: u64,
}

/// The durable queue. Clones share it.
#[derive(Clone)]
pub struct Outbox {
    database: Database,
}

impl Outbox {
    /// Statements that create the tables.
    pub const fn schema() -> &'static str {
        SCHEMA
    }

    /// An outbox in a database opened with [`Outbox::schema`].
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// Messages that may be sent at `now`: at most one per study and exchange, oldest first, at
    /// most `limit`.
    pub async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<Due>, DatabaseError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.database
            .query(move |connection| {
                connection
                    .prepare_cached(
                        "SELECT m.seq, m.attempts, m.id, m.study, m.revision, m.model,
                                m.model_version, m.outcome, m.routing_key, m.body, m.created_at,
                                m.exchange, m.traceparent
                         FROM (SELECT min(seq) AS seq FROM message
                               WHERE confirmed_at IS NULL AND discarded_at IS NULL
                               GROUP BY study, exchange) AS first
                         JOIN message AS m ON m.seq = first.seq
                         WHERE m.not_before <= ?1 ORDER BY m.seq LIMIT ?2",
                    )?
                    .query_map(params![now.0, limit], due)?
                    .collect()
            })
            .await
    }

    /// Marks messages as confirmed by the broker.
    pub async fn confirmed(&self, seqs: Vec<i64>, at: Timestamp) -> Result<(), DatabaseError> {
        self.database
            .write(move |connection| {
                let mut update = connection
                    .prepare_cached("UPDATE message SET confirmed_at = ?2 WHERE seq = ?1")?;
                for seq in seqs {
                    update.execute(params![seq, at.0])?;
                }
                Ok(())
            })
            .await
    }

    /// Puts a message back: not before `not_before`, with the broker's words.
    pub async fn defer(
        &self,
        seq: i64,
        not_before: Timestamp,
        error: String,
    ) -> Result<(), DatabaseError> {
        self.database
            .write(move |connection| {
                connection.execute(
                    "UPDATE message SET attempts = attempts + 1, not_before = ?2, last_error = ?3
                     WHERE seq = ?1",
                    params![seq, not_before.0, error],
                )?;
                Ok(())
            })
            .await
    }

    /// How much is owed.
    pub async fn owed(&self) -> Result<Owed, DatabaseError> {
        self.database
            .query(|connection| {
                connection.query_row(
                    "SELECT count(*) FILTER (WHERE exchange = 'findings'),
                            min(created_at) FILTER (WHERE exchange = 'findings'),
                            count(*) FILTER (WHERE exchange <> 'findings')
                     FROM message WHERE confirmed_at IS NULL AND discarded_at IS NULL",
                    [],
                    |row| {
                        Ok(Owed {
                            messages: row.get::<_, i64>(0)?.unsigned_abs(),
                            oldest: row.get::<_, Option<i64>>(1)?.map(Timestamp),
                            shadow: row.get::<_, i64>(2)?.unsigned_abs(),
                        })
                    },
                )
            })
            .await
    }

    /// The earliest time at which a deferred message may be sent.
    pub async fn next_due(&self) -> Result<Option<Timestamp>, DatabaseError> {
        self.database
            .query(|connection| {
                connection
                    .query_row(
                        "SELECT min(not_before) FROM message
                         WHERE confirmed_at IS NULL AND discarded_at IS NULL",
                        [],
                        |row| row.get::<_, Option<i64>>(0),
                    )
                    .optional()
            })
            .await
            .map(|time| time.flatten().map(Timestamp))
    }

    /// Messages that are owed, oldest first, at most `limit`.
    pub async fn waiting(&self, limit: u32) -> Result<Vec<Summary>, DatabaseError> {
        self.database
            .query(move |connection| {
                connection
                    .prepare_cached(&format!(
                        "{SUMMARY} WHERE confirmed_at IS NULL AND discarded_at IS NULL
                         ORDER BY seq LIMIT ?1"
                    ))?
                    .query_map([limit], summary)?
                    .collect()
            })
            .await
    }

    /// A message by its id.
    pub async fn message(&self, id: String) -> Result<Option<Shown>, DatabaseError> {
        self.database
            .query(move |connection| {
                connection
                    .prepare_cached(&format!("{SHOWN} WHERE id = ?1"))?
                    .query_row([id], |row| {
                        Ok(Shown {
                            summary: summary(row)?,
                            study_instance_uid: row.get(12)?,
                            routing_key: row.get(13)?,
                            bytes: row.get(14)?,
                        })
                    })
                    .optional()
            })
            .await
    }

    /// Makes messages that are owed due at once: this one, or all. Returns how many there were.
    pub async fn retry(&self, id: Option<String>) -> Result<usize, DatabaseError> {
        self.database
            .write(move |connection| {
                connection.execute(
                    "UPDATE message SET not_before = 0
                     WHERE confirmed_at IS NULL AND discarded_at IS NULL
                       AND (?1 IS NULL OR id = ?1)",
                    [id],
                )
            })
            .await
    }

    /// Gives a message up, durably. False: it is not owed.
    pub async fn discard(
        &self,
        id: String,
        reason: String,
        at: Timestamp,
    ) -> Result<bool, DatabaseError> {
        self.database
            .write(move |connection| {
                let changed = connection.execute(
                    "UPDATE message SET discarded_at = ?2, discard_reason = ?3
                     WHERE id = ?1 AND confirmed_at IS NULL AND discarded_at IS NULL",
                    params![id, at.0, reason],
                )?;
                Ok(changed == 1)
            })
            .await
    }

    /// Every message of a study, oldest first.
    pub async fn of_study(&self, study: String) -> Result<Vec<Summary>, DatabaseError> {
        self.database
            .query(move |connection| {
                connection
                    .prepare_cached(&format!("{SUMMARY} WHERE study = ?1 ORDER BY seq"))?
                    .query_map([study], summary)?
                    .collect()
            })
            .await
    }

    /// The body of the last message of each model about a study, in order of the model's name.
    pub async fn last_bodies(&self, study: String) -> Result<Vec<Vec<u8>>, DatabaseError> {
        self.database
            .query(move |connection| {
                connection
                    .prepare_cached(
                        "SELECT body FROM message WHERE seq IN
                         (SELECT max(seq) FROM message WHERE study = ?1 GROUP BY model)
                         ORDER BY model",
                    )?
                    .query_map([study], |row| row.get(0))?
                    .collect()
            })
            .await
    }
}

/// Puts a message inside the caller's transaction; a known id changes nothing.
pub fn put(connection: &Connection, message: &Message) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO message
             (id, study, revision, model, model_version, outcome, routing_key, body, created_at,
              exchange, traceparent)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?
        .execute(params![
            message.id,
            message.study,
            message.revision,
            message.model,
            message.model_version,
            message.outcome,
            message.routing_key,
            message.body,
            message.created_at.0,
            message.exchange.as_str(),
            message.traceparent,
        ])?;
    Ok(())
}

/// Forgets messages confirmed before `before`, inside the caller's transaction; those of shadows that
/// were made before it too, for nobody may be there to take them.
pub fn expire(connection: &Connection, before: Timestamp) -> rusqlite::Result<usize> {
    connection.execute(
        "DELETE FROM message
         WHERE confirmed_at < ?1 OR discarded_at < ?1 OR (exchange <> 'findings' AND created_at < ?1)",
        [before.0],
    )
}

fn due(row: &Row<'_>) -> rusqlite::Result<Due> {
    Ok(Due {
        seq: row.get(0)?,
        attempts: row.get(1)?,
        message: Message {
            id: row.get(2)?,
            study: row.get(3)?,
            revision: row.get(4)?,
            model: row.get(5)?,
            model_version: row.get(6)?,
            outcome: row.get(7)?,
            routing_key: row.get(8)?,
            body: row.get(9)?,
            created_at: Timestamp(row.get(10)?),
            exchange: Exchange::parse(&row.get::<_, String>(11)?),
            traceparent: row.get(12)?,
        },
    })
}

fn summary(row: &Row<'_>) -> rusqlite::Result<Summary> {
    let (name, version): (String, String) = (row.get(2)?, row.get(3)?);
    Ok(Summary {
        id: row.get(0)?,
        revision: row.get(1)?,
        model: if name.is_empty() {
            name
        } else {
            format!("{name}@{version}")
        },
        outcome: row.get(4)?,
        attempts: row.get(5)?,
        last_error: row.get(6)?,
        published: Timestamp(row.get(7)?).rfc3339(),
        confirmed: row
            .get::<_, Option<i64>>(8)?
            .map(|at| Timestamp(at).rfc3339()),
        exchange: Exchange::parse(&row.get::<_, String>(9)?),
        discarded: row
            .get::<_, Option<i64>>(10)?
            .map(|at| Timestamp(at).rfc3339()),
        discard_reason: row.get(11)?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn open() -> (tempfile::TempDir, Database, Outbox) {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("state.db"), Outbox::schema(), &[]).unwrap();
        let outbox = Outbox::new(database.clone());
        (dir, database, outbox)
    }

    fn message(id: &str, study: &str) -> Message {
        Message {
            id: id.to_owned(),
            study: study.to_owned(),
            revision: 1,
            model: "m".to_owned(),
            model_version: "1".to_owned(),
            outcome: "finding".to_owned(),
            exchange: Exchange::Findings,
            routing_key: "finding.routine.ct.chest.m".to_owned(),
            body: b"{}".to_vec(),
            created_at: Timestamp(1),
            traceparent: None,
        }
    }

    async fn put_all(database: &Database, messages: &[(&str, &str)]) {
        for (id, study) in messages {
            let message = message(id, study);
            database.write(move |c| put(c, &message)).await.unwrap();
        }
    }

    async fn due_ids(outbox: &Outbox, now: i64) -> Vec<String> {
        let due = outbox.due(Timestamp(now), 10).await.unwrap();
        due.into_iter().map(|due| due.message.id).collect()
    }

    #[tokio::test]
    async fn a_known_id_is_not_owed_twice() {
        let (_dir, database, outbox) = open();
        put_all(&database, &[("a", "s1"), ("a", "s1")]).await;
        assert_eq!(outbox.owed().await.unwrap().messages, 1);
        let seq = outbox.due(Timestamp(0), 10).await.unwrap()[0].seq;
        outbox.confirmed(vec![seq], Timestamp(5)).await.unwrap();
        put_all(&database, &[("a", "s1")]).await;
        assert_eq!(outbox.owed().await.unwrap().messages, 0);
    }

    #[tokio::test]
    async fn a_study_has_one_message_in_flight() {
        let (_dir, database, outbox) = open();
        put_all(&database, &[("a1", "s1"), ("b1", "s2"), ("a2", "s1")]).await;
        assert_eq!(due_ids(&outbox, 0).await, ["a1", "b1"]);
        outbox
            .defer(1, Timestamp(100), "nack".to_owned())
            .await
            .unwrap();
        // The deferred message holds back its study, and only its study.
        assert_eq!(due_ids(&outbox, 50).await, ["b1"]);
        assert_eq!(due_ids(&outbox, 100).await, ["a1", "b1"]);
        outbox.confirmed(vec![1], Timestamp(101)).await.unwrap();
        assert_eq!(due_ids(&outbox, 101).await, ["b1", "a2"]);
    }

    #[tokio::test]
    async fn what_an_operator_gives_up_holds_nothing_up_and_is_not_confirmed() {
        let (_dir, database, outbox) = open();
        put_all(&database, &[("a1", "s1"), ("a2", "s1")]).await;
        let discard =
            |id: &str, reason: &str| outbox.discard(id.to_owned(), reason.to_owned(), Timestamp(7));
        assert!(discard("a1", "nobody wants it").await.unwrap());
        assert!(!discard("a1", "twice").await.unwrap());
        assert_eq!(due_ids(&outbox, 0).await, ["a2"]);
        assert_eq!(outbox.owed().await.unwrap().messages, 1);
        let a1 = outbox.message("a1".to_owned()).await.unwrap().unwrap();
        let told = a1.summary;
        assert_eq!(told.discard_reason.as_deref(), Some("nobody wants it"));
        assert!(told.discarded.is_some() && told.confirmed.is_none());
        // The same work done again does not bring it back.
        put_all(&database, &[("a1", "s1")]).await;
        assert_eq!(due_ids(&outbox, 0).await, ["a2"]);
    }

    #[tokio::test]
    async fn a_retry_makes_a_deferred_message_due() {
        let (_dir, database, outbox) = open();
        put_all(&database, &[("a1", "s1"), ("b1", "s2")]).await;
        for seq in [1, 2] {
            let nack = "nack".to_owned();
            outbox.defer(seq, Timestamp(100), nack).await.unwrap();
        }
        assert_eq!(outbox.retry(Some("b1".to_owned())).await.unwrap(), 1);
        assert_eq!(due_ids(&outbox, 0).await, ["b1"]);
        assert_eq!(outbox.retry(None).await.unwrap(), 2);
        assert_eq!(due_ids(&outbox, 0).await, ["a1", "b1"]);
    }

    #[tokio::test]
    async fn a_shadow_holds_nothing_up() {
        let (_dir, database, outbox) = open();
        let shadow = Message {
            exchange: Exchange::Shadow,
            ..message("shadow", "s1")
        };
        database.write(move |c| put(c, &shadow)).await.unwrap();
        put_all(&database, &[("a1", "s1")]).await;
        assert_eq!(due_ids(&outbox, 0).await, ["shadow", "a1"]);
        let owed = outbox.owed().await.unwrap();
        assert_eq!((owed.messages, owed.shadow), (1, 1));
        let late = outbox.due(Timestamp(0), 10).await.unwrap();
        assert_eq!(late[0].message.exchange, Exchange::Shadow);
        // Nobody takes it: it goes with its age, and what is owed stays.
        database.write(|c| expire(c, Timestamp(2))).await.unwrap();
        assert_eq!(due_ids(&outbox, 0).await, ["a1"]);
    }
}
