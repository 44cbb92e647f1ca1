//! Accepted instances: what we owe the modality.
//!
//! # On disk
//! ```text
//! <dir>/lock                 one process owns the directory (flock)
//! <dir>/data/<id>.dcm        an ordinary Part 10 file per accepted instance; see `entry`
//! <dir>/quarantine/<id>.dcm  set aside, with <id>.reason beside it; see `quarantine`
//! <dir>/watermark            ids below this one need no check at start
//! <dir>/reserve              room for a start on a full disk
//! ```
//!
//! # Invariants
//! - [`Incoming::commit`] returns `Ok` only when the data set, the sealed envelope and the directory
//!   entry are synced. The file has its final name from the start, so one journal commit covers all
//!   three; a rename would cost a second one. What makes a file an entry is its seal.
//! - No name on disk is built from anything a peer sent: files are named by [`EntryId`].
//! - A crash leaves unsealed files (never acknowledged: removed at start) and sealed ones. Files at or
//!   above the watermark are checked against their SHA-256 at start, because a seal may have reached
//!   the disk before the data; all ids below it were settled while the process was alive.
//! - What a start believes is durable: a process that was killed may have left files that only memory
//!   holds, so a start syncs what it has to check. No id below the watermark is given out again, and
//!   the watermark passes a file that was given up when its removal is durable.
//! - The index in memory is rebuilt from the directory; nothing else is needed to recover.

mod capacity;
mod entry;
mod incoming;
mod quarantine;
mod recovery;
mod reserve;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::dicom::uid::{SopInstanceUid, StudyInstanceUid};
use crate::durable::lock::{DirLock, LockError};
use crate::durable::{create_dir_all, write_atomically};
use crate::units::HumanDuration;

pub use capacity::{FreeSpace, Limits};
pub use entry::{Arrival, Entry, EntryId};
pub use incoming::Incoming;
pub use quarantine::{CORRUPT, Kept, Quarantined, RetryError};
pub use recovery::Recovered;

/// What to do with an instance whose SOP Instance UID is known and whose bytes are not the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum DuplicatePolicy {
    /// The first stays current; the other is kept beside it.
    #[default]
    KeepFirst,
    /// The last becomes current; the earlier is kept beside it.
    KeepLast,
    /// The newcomer is kept in quarantine.
    Quarantine,
}

/// The `[spool]` section.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Directory of the spool, the ledger and the outbox.
    pub dir: PathBuf,
    /// How long the instances of a finished study stay for late arrivals and repeats.
    pub retention: HumanDuration,
    /// Same SOP Instance UID, other bytes.
    pub duplicates: DuplicatePolicy,
    /// Watermarks.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("spool"),
            retention: HumanDuration::from_secs(3600),
            duplicates: DuplicatePolicy::default(),
            limits: Limits::default(),
        }
    }
}

/// Why the spool did not take an instance.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// A watermark is reached; the word says which.
    #[error("the spool takes no more: {0}")]
    Shedding(&'static str),
    /// The file system is full.
    #[error("no space left for the instance")]
    OutOfSpace(#[source] io::Error),
    /// The instance is larger than allowed.
    #[error("the instance is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The data set is not the instance that the command named.
    #[error("the data set does not match its command: {0}")]
    Mismatch(String),
    /// The data set cannot be read.
    #[error("the data set cannot be understood: {0}")]
    Malformed(String),
    /// Any other failure of the file system.
    #[error("failed to write the instance")]
    Io(#[source] io::Error),
}

impl From<io::Error> for SpoolError {
    fn from(err: io::Error) -> Self {
        match err.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::OutOfSpace(err),
            _ => Self::Io(err),
        }
    }
}

/// Why the spool could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another gateway owns it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The directory cannot be used.
    #[error("failed to open the spool in {}", dir.display())]
    Io {
        /// The configured directory.
        dir: PathBuf,
        /// What the system said.
        #[source]
        err: io::Error,
    },
}

/// A committed instance.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The study it belongs to.
    pub study: StudyInstanceUid,
    /// The same bytes were here before; nothing new was kept.
    pub duplicate: bool,
    /// It went to quarantine, for this reason.
    pub set_aside: Option<&'static str>,
    /// Its entry, when it has become part of the study.
    pub entry: Option<EntryId>,
    /// Bytes of its data set.
    pub bytes: u64,
}

/// The entries of one study, taken together: what arrives later is in neither list.
#[derive(Debug, Clone, Default)]
pub struct StudyEntries {
    /// One per SOP Instance UID.
    pub current: Vec<Arc<Entry>>,
    /// Others of the same SOP Instance UIDs, with other bytes.
    pub others: Vec<Arc<Entry>>,
}

/// How full the spool is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Instances held.
    pub instances: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Free bytes of the file system at the last look.
    pub free_bytes: u64,
    /// Free inodes of the file system at the last look.
    pub free_inodes: u64,
    /// Bytes at which no more is accepted.
    pub limit_bytes: u64,
    /// Size of the file system.
    pub capacity_bytes: u64,
}

/// The store of accepted instances. Clones share it.
#[derive(Clone)]
pub struct Spool {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    data_dir: PathBuf,
    quarantine_dir: PathBuf,
    /// Kept open so that a commit syncs the directory without opening it again.
    data_handle: File,
    index: Mutex<Index>,
    turnover: Arc<tokio::sync::Mutex<()>>,
    _lock: DirLock,
}

#[derive(Default)]
struct Index {
    entries: BTreeMap<EntryId, Arc<Entry>>,
    studies: HashMap<StudyInstanceUid, BTreeSet<EntryId>>,
    instances: HashMap<SopInstanceUid, BTreeSet<EntryId>>,
    /// Committed and not yet handed to the pipeline.
    arrivals: Vec<Arc<Entry>>,
    in_flight: BTreeSet<EntryId>,
    next_id: u64,
    bytes: u64,
    kept: Kept,
    free: Option<FreeSpace>,
    shedding: Option<&'static str>,
    limits: Limits,
    watermark: u64,
}

impl Spool {
    /// Locks the directory, removes what was never completed, checks and indexes the rest.
    ///
    /// # Errors
    /// Another owner, or a directory that cannot be created, read or written.
    pub fn open(config: Config) -> Result<(Self, Recovered), OpenError> {
        let fail = |err| OpenError::Io {
            dir: config.dir.clone(),
            err,
        };
        let data_dir = config.dir.join("data");
        let quarantine_dir = config.dir.join("quarantine");
        for dir in [&config.dir, &data_dir, &quarantine_dir] {
            create_dir_all(dir).map_err(fail)?;
        }
        let lock = DirLock::acquire(&config.dir)?;
        reserve::give_up(&config.dir).map_err(fail)?;
        let set_aside = quarantine::put_in_order(&data_dir, &quarantine_dir).map_err(fail)?;
        let watermark = read_watermark(&config.dir);
        let data_handle = File::open(&data_dir).map_err(fail)?;
        let recovered = recovery::scan(&data_dir, &quarantine_dir, watermark).map_err(fail)?;
        // A process that was killed may have left names that no sync has reached.
        data_handle.sync_all().map_err(fail)?;
        let kept = quarantine::count(&quarantine_dir).map_err(fail)?;
        let spool = Self {
            inner: Arc::new(Inner {
                data_handle,
                index: Mutex::default(),
                turnover: Arc::default(),
                data_dir,
                quarantine_dir,
                config,
                _lock: lock,
            }),
        };
        {
            let mut index = spool.index();
            // Not below the watermark, whatever the clock says now: what is there is believed.
            let highest = recovered.highest.max(set_aside);
            let unused = highest.map_or(0, |id| id.0.saturating_add(1));
            index.next_id = unused.max(watermark.0);
            index.kept = kept;
            index.limits = spool.inner.config.limits.clone();
            for entry in &recovered.entries {
                index.insert(Arc::clone(entry));
            }
        }
        spool.refresh();
        Ok((spool, recovered))
    }

    /// Why no instance is accepted just now. Cheap: no system call.
    pub fn shedding(&self) -> Option<&'static str> {
        self.index().shedding
    }

    /// Other limits from now on. Blocking.
    pub fn set_limits(&self, limits: Limits) {
        self.index().limits = limits;
        self.refresh();
    }

    /// Asks the file system again and moves the watermarks. Blocking.
    pub fn refresh(&self) {
        let free = capacity::free_space(&self.inner.data_dir).ok();
        let mut index = self.index();
        if free.is_some() {
            index.free = free;
        }
        if let Some(free) = index.free {
            index.shedding = capacity::shedding(&index.limits, index.bytes, free, index.shedding);
        }
    }

    /// Creates the file of a new instance and writes its file meta. Blocking.
    ///
    /// # Errors
    /// [`SpoolError::Shedding`] above a watermark, otherwise what the file system said.
    pub fn begin(&self, arrival: Arrival) -> Result<Incoming, SpoolError> {
        self.refresh();
        if let Some(reason) = self.shedding() {
            return Err(SpoolError::Shedding(reason));
        }
        Incoming::create(self.clone(), self.next_id(), arrival)
    }

    /// A study as it is at this moment, in order of arrival.
    pub fn study(&self, study: &StudyInstanceUid) -> StudyEntries {
        let index = self.index();
        let policy = self.inner.config.duplicates;
        let ids = index.studies.get(study).into_iter().flatten();
        let (current, others) = ids
            .filter_map(|id| index.entries.get(id).cloned())
            .partition(|entry| index.is_current(entry.id, policy));
        StudyEntries { current, others }
    }

    /// The current instance of a SOP Instance UID.
    pub fn instance(&self, sop_instance: &SopInstanceUid) -> Option<Arc<Entry>> {
        let index = self.index();
        let policy = self.inner.config.duplicates;
        let mut ids = index.instances.get(sop_instance).into_iter().flatten();
        ids.find(|id| index.is_current(**id, policy))
            .and_then(|id| index.entries.get(id).cloned())
    }

    /// Entries nobody has been told of yet: all of them after a start, then the newly committed.
    pub fn take_arrivals(&self) -> Vec<Arc<Entry>> {
        std::mem::take(&mut self.index().arrivals)
    }

    /// Entries that the pipeline is told of once more.
    pub fn announce(&self, entries: Vec<Arc<Entry>>) {
        self.index().arrivals.extend(entries);
    }

    /// Every entry, current or not, in order of arrival.
    pub fn entries(&self) -> Vec<Arc<Entry>> {
        self.index().entries.values().cloned().collect()
    }

    /// Where the file of an entry is.
    pub fn path(&self, id: EntryId) -> PathBuf {
        self.inner.data_dir.join(id.file_name())
    }

    /// Where the file of an entry is, in a spool that another process may hold. What is there can
    /// be gone a moment later.
    pub fn path_below(dir: &Path, id: EntryId) -> PathBuf {
        dir.join("data").join(id.file_name())
    }

    /// Forgets entries whose messages are owed by the outbox. Blocking.
    ///
    /// No sync: an entry that comes back after a power cut is known to the ledger and released again.
    pub fn release(&self, ids: &[EntryId]) -> io::Result<()> {
        for id in ids {
            remove_if_present(&self.path(*id))?;
            self.index().remove(*id);
        }
        self.refresh();
        Ok(())
    }

    /// Records which ids are settled, so that the next start need not check them. Blocking.
    pub fn checkpoint(&self) -> io::Result<()> {
        let watermark = {
            let index = self.index();
            let settled = index.in_flight.first().map_or(index.next_id, |id| id.0);
            if settled == index.watermark {
                return Ok(());
            }
            settled
        };
        // What was given up must not come back below the mark, where nobody looks at it again.
        self.inner.data_handle.sync_all()?;
        let path = self.inner.config.dir.join("watermark");
        write_atomically(&path, format!("{watermark:016x}\n").as_bytes())?;
        self.index().watermark = watermark;
        Ok(())
    }

    /// Keeps room for a start on a full disk, unless the spool takes no more. Blocking.
    pub fn keep_reserve(&self) -> io::Result<()> {
        let (shedding, free) = {
            let index = self.index();
            (index.shedding, index.free.map_or(0, |free| free.bytes))
        };
        match shedding {
            Some(_) => Ok(()),
            None => reserve::keep(&self.inner.config.dir, free),
        }
    }

    /// How full the spool is.
    pub fn usage(&self) -> Usage {
        let index = self.index();
        Usage {
            instances: index.entries.len() as u64,
            bytes: index.bytes,
            free_bytes: index.free.map_or(0, |free| free.bytes),
            free_inodes: index.free.map_or(0, |free| free.inodes),
            limit_bytes: index.limits.max_bytes.bytes(),
            capacity_bytes: index.free.map_or(0, |free| free.capacity),
        }
    }

    /// When the oldest entry arrived.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.index()
            .entries
            .first_key_value()
            .map(|(_, entry)| entry.received_at)
    }

    /// Ids follow the clock, so that `ls` lists files in order of arrival, and never repeat. The new
    /// id is in flight from the moment it exists, or a checkpoint could call it settled.
    fn next_id(&self) -> EntryId {
        let now = u64::try_from(Timestamp::now().0 / 1000).unwrap_or(0) << 16;
        let mut index = self.index();
        let id = EntryId(index.next_id.max(now));
        index.next_id = id.0 + 1;
        index.in_flight.insert(id);
        id
    }

    fn settle(&self, id: EntryId) {
        self.index().in_flight.remove(&id);
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        // Every change leaves the index consistent, so a panicking holder does not spoil it.
        self.inner
            .index
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    fn insert(&mut self, entry: Arc<Entry>) {
        self.bytes += entry.data_set_bytes;
        let id = entry.id;
        self.studies
            .entry(entry.study.clone())
            .or_default()
            .insert(id);
        self.instances
            .entry(entry.arrival.sop_instance.clone())
            .or_default()
            .insert(id);
        self.arrivals.push(Arc::clone(&entry));
        self.entries.insert(id, entry);
    }

    fn remove(&mut self, id: EntryId) {
        let Some(entry) = self.entries.remove(&id) else {
            return;
        };
        self.bytes = self.bytes.saturating_sub(entry.data_set_bytes);
        drop_from(&mut self.studies, &entry.study, id);
        drop_from(&mut self.instances, &entry.arrival.sop_instance, id);
    }

    /// Among entries of one SOP Instance UID the policy and the order of arrival decide, so the same
    /// answer comes back after a restart.
    fn is_current(&self, id: EntryId, policy: DuplicatePolicy) -> bool {
        let Some(entry) = self.entries.get(&id) else {
            return false;
        };
        let Some(rivals) = self.instances.get(&entry.arrival.sop_instance) else {
            return false;
        };
        match policy {
            DuplicatePolicy::KeepLast => rivals.last() == Some(&id),
            DuplicatePolicy::KeepFirst | DuplicatePolicy::Quarantine => rivals.first() == Some(&id),
        }
    }

    /// Entries with the same SOP Instance UID: same bytes, or not.
    fn rivals(&self, sop_instance: &SopInstanceUid, digest: &[u8; 32]) -> Rivals {
        let ids = self.instances.get(sop_instance).into_iter().flatten();
        let mut rivals = Rivals::None;
        for entry in ids.filter_map(|id| self.entries.get(id)) {
            if entry.digest == *digest {
                return Rivals::Same;
            }
            rivals = Rivals::Different;
        }
        rivals
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Rivals {
    None,
    Same,
    Different,
}

fn drop_from<K: std::hash::Hash + Eq>(
    map: &mut HashMap<K, BTreeSet<EntryId>>,
    key: &K,
    id: EntryId,
) {
    if let Some(ids) = map.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            map.remove(key);
        }
    }
}

fn read_watermark(dir: &Path) -> EntryId {
    let text = fs::read_to_string(dir.join("watermark")).unwrap_or_default();
    // An unreadable mark costs a longer check, never an instance. The clock reaches 2⁶³ in year 6429.
    let mark = u64::from_str_radix(text.trim(), 16).unwrap_or(0);
    EntryId(if mark >> 63 == 0 { mark } else { 0 })
}

fn remove_if_present(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
