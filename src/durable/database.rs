//! SQLite behind one writer thread with group commit.
//!
//! Every write is a closure run inside a savepoint of the current transaction; the thread takes all
//! closures that wait, commits once with `synchronous = FULL`, and only then answers them. So a reply
//! means durable, one failing write does not spoil its neighbours, and many small writes share one
//! sync. Reads use their own connection (WAL), and see what has been committed.
//!
//! SQLite cannot even read without a little room for its log. On a full disk a database is opened
//! later, when there is some; until then reads and writes fail as they do when the disk becomes full.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use prometheus::{Histogram, IntCounter, IntGauge};
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{oneshot, watch};

use super::is_full;

/// Writes that may wait for the writer thread; beyond it callers wait in turn.
const QUEUE: usize = 1024;
/// Writes that share one commit.
const GROUP: usize = 512;
/// Between attempts to open a database on a full disk.
const AGAIN: Duration = Duration::from_secs(1);

/// A failed read or write.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DatabaseError {
    /// The file could not be opened or its schema not be created.
    #[error("failed to open {}: {reason}", path.display())]
    Open {
        /// The database file.
        path: PathBuf,
        /// SQLite's words.
        reason: String,
    },
    /// SQLite refused the statement or the commit (for example on a full disk).
    #[error("database: {0}")]
    Sqlite(String),
    /// There has been no room to open it yet.
    #[error("the disk is full, the database is not open yet")]
    NoRoom,
    /// The writer thread is gone.
    #[error("the database is closed")]
    Closed,
}

impl From<rusqlite::Error> for DatabaseError {
    fn from(err: rusqlite::Error) -> Self {
        Self::Sqlite(err.to_string())
    }
}

/// One write: runs inside the transaction, then learns whether the commit held.
trait Job: Send {
    fn run(&mut self, connection: &Connection);
    fn finish(self: Box<Self>, committed: &Result<(), DatabaseError>);
}

struct Write<F, T> {
    work: Option<F>,
    outcome: Option<Result<T, DatabaseError>>,
    reply: oneshot::Sender<Result<T, DatabaseError>>,
}

impl<F, T> Job for Write<F, T>
where
    F: FnOnce(&Connection) -> rusqlite::Result<T> + Send,
    T: Send,
{
    fn run(&mut self, connection: &Connection) {
        let Some(work) = self.work.take() else { return };
        let outcome =
            connection
                .execute_batch("SAVEPOINT job")
                .and_then(|()| match work(connection) {
                    Ok(value) => connection.execute_batch("RELEASE job").map(|()| value),
                    Err(err) => {
                        connection.execute_batch("ROLLBACK TO job; RELEASE job")?;
                        Err(err)
                    }
                });
        self.outcome = Some(outcome.map_err(DatabaseError::from));
    }

    fn finish(self: Box<Self>, committed: &Result<(), DatabaseError>) {
        let outcome = match (self.outcome, committed) {
            (Some(Ok(_)) | None, Err(err)) => Err(err.clone()),
            (Some(outcome), _) => outcome,
            (None, Ok(())) => Err(DatabaseError::Closed),
        };
        // The caller may have stopped waiting; the write stands either way.
        let _ = self.reply.send(outcome);
    }
}

/// Where the writer's work is counted.
#[derive(Debug)]
pub struct Meter {
    /// Writes that are not answered yet.
    pub waiting: IntGauge,
    /// Seconds of each commit.
    pub commits: Histogram,
    /// Commits that held.
    pub committed: IntCounter,
    /// Commits that did not.
    pub failed: IntCounter,
}

/// A write that waits for its answer.
struct Waiting<'a>(&'a IntGauge);

impl<'a> Waiting<'a> {
    fn count(meter: &'a OnceLock<Meter>) -> Option<Self> {
        let gauge = &meter.get()?.waiting;
        gauge.inc();
        Some(Self(gauge))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A handle; clones share the writer thread, which ends with the last of them.
#[derive(Clone)]
pub struct Database {
    path: Arc<Path>,
    meter: Arc<OnceLock<Meter>>,
    jobs: mpsc::SyncSender<Box<dyn Job>>,
    /// `None`: not open yet.
    reader: Arc<Mutex<Option<Connection>>>,
    open: watch::Receiver<bool>,
}

impl Database {
    /// Opens `path`, now or as soon as the disk has room, applies `schema` (idempotent statements) and
    /// starts the writer. The format of a file is in SQLite's `user_version`, from 1; each of `upgrades`
    /// brings one to the next.
    ///
    /// # Errors
    /// A file that cannot be opened, or whose format a newer gateway has written.
    pub fn open(path: &Path, schema: &str, upgrades: &[&str]) -> Result<Self, DatabaseError> {
        let (writer, reader) = match prepare(path, schema, upgrades) {
            Ok((writer, reader)) => (Some(writer), Some(reader)),
            Err(err) if path.parent().is_some_and(is_full) => {
                tracing::error!(error = %err, "the disk is full; the database is opened when there is room");
                (None, None)
            }
            Err(err) => return Err(err),
        };
        let (opened, open) = watch::channel(writer.is_some());
        let reader = Arc::new(Mutex::new(reader));
        let late = Late {
            path: path.to_owned(),
            schema: schema.to_owned(),
            upgrades: upgrades.iter().map(|&step| step.to_owned()).collect(),
            reader: Arc::clone(&reader),
        };
        let (jobs, queue) = mpsc::sync_channel(QUEUE);
        let meter = Arc::new(OnceLock::new());
        let metered = Arc::clone(&meter);
        thread::Builder::new()
            .name("database".to_owned())
            .spawn(move || {
                if let Some(writer) = writer.or_else(|| late.open(&queue)) {
                    opened.send_replace(true);
                    write_loop(&writer, &queue, &metered);
                }
            })
            .map_err(|err| DatabaseError::Open {
                path: path.to_owned(),
                reason: err.to_string(),
            })?;
        Ok(Self {
            path: path.into(),
            meter,
            jobs,
            reader,
            open,
        })
    }

    /// Resolves when it is open, which it is at once unless the disk is full.
    pub async fn opened(&self) {
        let _ = self.open.clone().wait_for(|open| *open).await;
    }

    /// Opens the database of a gateway that may be running, to read from it; a write is refused.
    ///
    /// # Errors
    /// A file that is not there, or that is no database.
    pub fn open_read_only(path: &Path) -> Result<Self, DatabaseError> {
        let open = || {
            let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            connection.busy_timeout(std::time::Duration::from_secs(10))?;
            // Opening alone does not look at the file.
            connection.query_row("PRAGMA schema_version", [], |row| row.get::<_, i64>(0))?;
            Ok(connection)
        };
        let reader = open().map_err(|err: rusqlite::Error| DatabaseError::Open {
            path: path.to_owned(),
            reason: err.to_string(),
        })?;
        let (jobs, _) = mpsc::sync_channel(0);
        Ok(Self {
            path: path.into(),
            meter: Arc::default(),
            jobs,
            reader: Arc::new(Mutex::new(Some(reader))),
            open: watch::channel(true).1,
        })
    }

    /// From now on the writer's work is counted there. The first call decides.
    pub fn report_to(&self, meter: Meter) {
        let _ = self.meter.set(meter);
    }

    /// Bytes of the file and of the log beside it. Blocking.
    pub fn bytes(&self) -> u64 {
        let mut log = self.path.as_os_str().to_owned();
        log.push("-wal");
        let files = [self.path.as_os_str(), log.as_os_str()];
        let lengths = files
            .iter()
            .filter_map(|path| Some(std::fs::metadata(path).ok()?.len()));
        lengths.sum()
    }

    /// Runs `work` in a transaction; on `Ok` its effect is durable.
    pub async fn write<T, F>(&self, work: F) -> Result<T, DatabaseError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (job, answer) = job(work);
        let _waiting = Waiting::count(&self.meter);
        let jobs = self.jobs.clone();
        match jobs.try_send(job) {
            Ok(()) => {}
            Err(mpsc::TrySendError::Full(job)) => {
                tokio::task::spawn_blocking(move || jobs.send(job))
                    .await
                    .map_err(|_| DatabaseError::Closed)?
                    .map_err(|_| DatabaseError::Closed)?;
            }
            Err(mpsc::TrySendError::Disconnected(_)) => return Err(DatabaseError::Closed),
        }
        answer.await.map_err(|_| DatabaseError::Closed)?
    }

    /// [`Database::write`] for threads outside the runtime.
    pub fn write_blocking<T, F>(&self, work: F) -> Result<T, DatabaseError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (job, answer) = job(work);
        let _waiting = Waiting::count(&self.meter);
        self.jobs.send(job).map_err(|_| DatabaseError::Closed)?;
        answer.blocking_recv().map_err(|_| DatabaseError::Closed)?
    }

    /// Runs a query on the read connection. Blocking, so call it off the runtime.
    pub fn read<T>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, DatabaseError> {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = reader.as_ref().ok_or(DatabaseError::NoRoom)?;
        Ok(query(connection)?)
    }

    /// [`Database::read`] from async code.
    pub async fn query<T, F>(&self, query: F) -> Result<T, DatabaseError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let database = self.clone();
        tokio::task::spawn_blocking(move || database.read(query))
            .await
            .map_err(|_| DatabaseError::Closed)?
    }
}

type Answer<T> = oneshot::Receiver<Result<T, DatabaseError>>;

fn job<T, F>(work: F) -> (Box<dyn Job>, Answer<T>)
where
    T: Send + 'static,
    F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    let job = Write {
        work: Some(work),
        outcome: None,
        reply,
    };
    (Box::new(job), answer)
}

/// The two connections, to a file of the present format.
fn prepare(
    path: &Path,
    schema: &str,
    upgrades: &[impl std::fmt::Display],
) -> Result<(Connection, Connection), DatabaseError> {
    let fail = |err: rusqlite::Error| DatabaseError::Open {
        path: path.to_owned(),
        reason: err.to_string(),
    };
    let writer = connect(path).map_err(fail)?;
    // A process before this one may have ended over a failed sync, and then memory alone holds
    // some of the log, which later syncs do not write again. So all of it is written anew.
    writer
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .map_err(fail)?;
    let found: i64 = writer
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(fail)?;
    let wanted = 1 + i64::try_from(upgrades.len()).unwrap_or(i64::MAX);
    if found > wanted {
        return Err(DatabaseError::Open {
            path: path.to_owned(),
            reason: format!("its format is {found}, this gateway knows up to {wanted}"),
        });
    }
    for (format, upgrade) in (1..).zip(upgrades) {
        if found > 0 && found <= format {
            let next = format + 1;
            let whole = format!("BEGIN; {upgrade}; PRAGMA user_version = {next}; COMMIT;");
            writer.execute_batch(&whole).map_err(fail)?;
        }
    }
    // One transaction, or a crash would leave tables of this format in a file without one.
    let whole = format!("BEGIN; {schema}; PRAGMA user_version = {wanted}; COMMIT;");
    writer.execute_batch(&whole).map_err(fail)?;
    let reader = connect(path).map_err(fail)?;
    Ok((writer, reader))
}

/// A database that could not be opened yet.
struct Late {
    path: PathBuf,
    schema: String,
    upgrades: Vec<String>,
    reader: Arc<Mutex<Option<Connection>>>,
}

impl Late {
    /// Tries until it is open; what is asked for meanwhile fails at once. `None`: nobody wants it any
    /// more.
    fn open(&self, queue: &mpsc::Receiver<Box<dyn Job>>) -> Option<Connection> {
        let mut next = Instant::now() + AGAIN;
        loop {
            let now = Instant::now();
            if now < next {
                match queue.recv_timeout(next - now) {
                    Ok(job) => job.finish(&Err(DatabaseError::NoRoom)),
                    Err(mpsc::RecvTimeoutError::Timeout) => {}
                    Err(mpsc::RecvTimeoutError::Disconnected) => return None,
                }
                continue;
            }
            match prepare(&self.path, &self.schema, &self.upgrades) {
                Ok((writer, reader)) => {
                    *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = Some(reader);
                    tracing::info!("there is room again; the database is open");
                    return Some(writer);
                }
                Err(err) => tracing::debug!(error = %err, "the database cannot be opened yet"),
            }
            next = Instant::now() + AGAIN;
        }
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;",
    )?;
    Ok(connection)
}

fn write_loop(
    connection: &Connection,
    queue: &mpsc::Receiver<Box<dyn Job>>,
    meter: &OnceLock<Meter>,
) {
    while let Ok(first) = queue.recv() {
        let mut group = vec![first];
        while group.len() < GROUP {
            match queue.try_recv() {
                Ok(job) => group.push(job),
                Err(_) => break,
            }
        }
        let started = Instant::now();
        let committed = commit(connection, &mut group);
        if let Some(meter) = meter.get() {
            meter.commits.observe(started.elapsed().as_secs_f64());
            match committed {
                Ok(()) => meter.committed.inc(),
                Err(_) => meter.failed.inc(),
            }
        }
        for job in group {
            job.finish(&committed);
        }
    }
}

fn commit(connection: &Connection, group: &mut [Box<dyn Job>]) -> Result<(), DatabaseError> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    for job in group.iter_mut() {
        job.run(connection);
    }
    connection.execute_batch("COMMIT").map_err(|err| {
        // SQLite may or may not have rolled back by itself; a second rollback is harmless.
        let _ = connection.execute_batch("ROLLBACK");
        DatabaseError::from(err)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn open() -> (tempfile::TempDir, Database) {
        let dir = tempfile::tempdir().unwrap();
        let schema = "CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY)";
        let database = Database::open(&dir.path().join("t.db"), schema, &[]).unwrap();
        (dir, database)
    }

    #[test]
    fn an_older_format_is_upgraded_once_and_a_newer_one_refused() {
        let (dir, database) = open();
        database
            .write_blocking(|c| c.execute("INSERT INTO t VALUES (1)", []))
            .unwrap();
        drop(database);
        let path = dir.path().join("t.db");
        let schema = "CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, m INTEGER DEFAULT 7)";
        let upgrades = ["ALTER TABLE t ADD COLUMN m INTEGER DEFAULT 7"];
        for _ in 0..2 {
            let database = Database::open(&path, schema, &upgrades).unwrap();
            let row =
                |c: &Connection| c.query_row("SELECT m FROM t", [], |row| row.get::<_, i64>(0));
            assert_eq!(database.read(row).unwrap(), 7);
        }
        let refusal = Database::open(&path, schema, &[]).err().unwrap();
        assert!(refusal.to_string().contains("its format is 2"), "{refusal}");
        // A new file has the newest format from the beginning.
        let fresh = dir.path().join("fresh.db");
        for _ in 0..2 {
            Database::open(&fresh, schema, &upgrades).unwrap();
        }
    }

    fn count(database: &Database) -> i64 {
        database
            .read(|c| c.query_row("SELECT count(*) FROM t", [], |row| row.get(0)))
            .unwrap()
    }

    #[test]
    fn an_answered_write_is_visible_to_readers() {
        let (_dir, database) = open();
        database
            .write_blocking(|c| c.execute("INSERT INTO t VALUES (1)", []))
            .unwrap();
        assert_eq!(count(&database), 1);
    }

    #[test]
    fn a_reader_of_anothers_database_sees_it_grow_and_cannot_write() {
        let (dir, database) = open();
        let path = dir.path().join("t.db");
        let reader = Database::open_read_only(&path).unwrap();
        assert_eq!(count(&reader), 0);
        database
            .write_blocking(|c| c.execute("INSERT INTO t VALUES (1)", []))
            .unwrap();
        assert_eq!(count(&reader), 1);
        let refused = reader.write_blocking(|c| c.execute("DELETE FROM t", []));
        assert!(matches!(refused, Err(DatabaseError::Closed)), "{refused:?}");
        let missing = Database::open_read_only(&dir.path().join("other.db"));
        assert!(matches!(missing, Err(DatabaseError::Open { .. })));
        assert!(!dir.path().join("other.db").exists());
    }

    #[tokio::test]
    async fn a_failing_write_does_not_spoil_its_neighbours() {
        let (_dir, database) = open();
        let writes = (0..64).map(|n| {
            let database = database.clone();
            tokio::spawn(async move {
                database
                    .write(move |c| {
                        c.execute("INSERT INTO t VALUES (?1)", [n])?;
                        // Half of the writes then break the primary key, and must leave no row.
                        if n % 2 == 1 {
                            c.execute("INSERT INTO t VALUES (?1)", [n])?;
                        }
                        Ok(())
                    })
                    .await
            })
        });
        let mut failed = 0;
        for write in writes.collect::<Vec<_>>() {
            failed += usize::from(write.await.unwrap().is_err());
        }
        assert_eq!((failed, count(&database)), (32, 32));
    }
}
