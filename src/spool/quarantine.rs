//! What was set aside: kept, with its reason, until somebody decides.
//!
//! # On disk
//! ```text
//! quarantine/<id>.dcm      the entry, or a second name of one that is in `data` too
//! quarantine/<id>.reason   a stable word, a colon, one sentence
//! quarantine/<id>.retry    it is on its way back into `data`
//! ```
//!
//! # On its way back
//! The mark is durable first. Then the entry gets its name in `data`, the ledger opens its row again,
//! and the names here go, the mark last. A crash anywhere in between leaves the mark, and the next
//! start does the rest once more: every step may be repeated. So an entry is never without a name, and
//! nothing is processed before it has left the quarantine.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::entry::{Opened, open};
use super::recovery::{HEAD_BYTES, digest};
use super::{DuplicatePolicy, Entry, EntryId, Rivals, Spool, remove_if_present};
use crate::clock::Timestamp;
use crate::durable::{sync_dir, write_atomically};

/// Reason code of what was no whole entry.
pub const CORRUPT: &str = "corrupt-entry";

/// Longest reason that is read.
const MAX_REASON: u64 = 4096;

/// A file in quarantine.
#[derive(Debug, Clone)]
pub struct Quarantined {
    /// Name of the file without extension; an [`EntryId`] unless somebody else put it into the spool.
    pub name: String,
    /// The stable word of the reason.
    pub code: String,
    /// The whole reason.
    pub reason: String,
    /// When it was set aside.
    pub since: Timestamp,
    /// Bytes of its file.
    pub bytes: u64,
    /// Whether the entry is in the spool as well: it was kept for inquiry.
    pub in_spool: bool,
    /// What its envelope says, if it can be read.
    pub entry: Option<Arc<Entry>>,
}

/// How much is in quarantine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// Files.
    pub instances: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Why an entry cannot go back into the spool.
#[derive(Debug, thiserror::Error)]
pub enum RetryError {
    /// There is no such entry.
    #[error("there is no such entry in quarantine")]
    Unknown,
    /// It is no whole entry, so nobody can say what it was.
    #[error("{0} is damaged ({1}) and cannot be worked on: let the sender send it again")]
    Corrupt(EntryId, String),
    /// Another instance has its place.
    #[error("{0}: {1}")]
    Rival(EntryId, &'static str),
    /// The file system refused.
    #[error("the quarantine cannot be read or written: {0}")]
    Io(#[from] io::Error),
}

impl Spool {
    /// Moves an entry out of the way and writes the reason beside it. Blocking.
    ///
    /// # Errors
    /// What the file system said; the entry then stays where it is.
    pub fn quarantine(&self, id: EntryId, reason: &str) -> io::Result<()> {
        let path = self.path(id);
        let bytes = fs::metadata(&path)?.len();
        let new = !self.in_quarantine(id).exists();
        set_aside(&path, &self.inner.quarantine_dir, reason)?;
        let mut index = self.index();
        index.remove(id);
        if new {
            index.kept.add(bytes);
        }
        Ok(())
    }

    /// Keeps an entry for people to look at, with the reason beside it, and the entry itself where it
    /// is: a second name of the same file, which stays when the entry is released. Blocking.
    ///
    /// # Errors
    /// What the file system said.
    pub fn keep_for_inquiry(&self, id: EntryId, reason: &str) -> io::Result<()> {
        let dir = &self.inner.quarantine_dir;
        let target = dir.join(id.file_name());
        let new = link(&self.path(id), &target)?;
        write_reason(&target, reason)?;
        sync_dir(dir)?;
        if new {
            let bytes = fs::metadata(&target)?.len();
            self.index().kept.add(bytes);
        }
        Ok(())
    }

    /// How much is in quarantine. Cheap: no system call.
    pub fn kept(&self) -> Kept {
        self.index().kept
    }

    /// Everything in quarantine, in order of arrival. Reads the beginning of each file. Blocking.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn quarantined(&self) -> io::Result<Vec<Quarantined>> {
        let dir = &self.inner.quarantine_dir;
        let mut found: Vec<Quarantined> = names(dir, ".reason")?
            .iter()
            .filter_map(|name| self.look(&dir.join(name)))
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// One file in quarantine. Blocking.
    pub fn quarantined_entry(&self, id: EntryId) -> Option<Quarantined> {
        self.look(&self.in_quarantine(id).with_extension("reason"))
    }

    /// Nothing is a file that went meanwhile.
    fn look(&self, reason: &Path) -> Option<Quarantined> {
        let name = reason.file_stem()?.to_str()?.to_owned();
        let path = reason.with_extension("dcm");
        let (text, since) = read_reason(reason).ok()?;
        let bytes = fs::metadata(&path).map_or(0, |meta| meta.len());
        let id = EntryId::from_file_name(&format!("{name}.dcm"));
        let entry = id.and_then(|id| match head(&path, id) {
            Ok(Opened::Sealed(entry, _)) => Some(Arc::new(*entry)),
            _ => None,
        });
        let code = text.split(':').next().unwrap_or_default();
        Some(Quarantined {
            code: code.trim().to_owned(),
            reason: text.trim().to_owned(),
            since,
            bytes,
            in_spool: id.is_some_and(|id| self.index().entries.contains_key(&id)),
            entry,
            name,
        })
    }

    /// While the guard lives nothing else moves between `data`, quarantine and nowhere.
    pub async fn hold_still(&self) -> tokio::sync::OwnedMutexGuard<()> {
        Arc::clone(&self.inner.turnover).lock_owned().await
    }

    /// The first half of a retry, up to the name in `data`: after it the ledger has to open the rows,
    /// and [`Spool::end_retry`] or [`Spool::undo_retry`] has to follow. All of `ids` or none. Blocking;
    /// the caller holds [`Spool::hold_still`].
    ///
    /// # Errors
    /// Why one of them cannot go back; nothing has changed then.
    pub fn begin_retry(&self, ids: &[EntryId]) -> Result<Vec<Arc<Entry>>, RetryError> {
        let ids: BTreeSet<EntryId> = ids.iter().copied().collect();
        let entries = ids
            .iter()
            .map(|id| self.may_return(*id))
            .collect::<Result<Vec<_>, _>>()?;
        let begin = || -> io::Result<()> {
            for id in &ids {
                File::create(self.in_quarantine(*id).with_extension("retry"))?.sync_data()?;
            }
            sync_dir(&self.inner.quarantine_dir)?;
            for id in &ids {
                link(&self.in_quarantine(*id), &self.path(*id))?;
            }
            self.inner.data_handle.sync_all()
        };
        match begin() {
            Ok(()) => Ok(entries),
            Err(err) => {
                self.undo_retry(&entries);
                Err(err.into())
            }
        }
    }

    /// Takes the first half of a retry back: the ledger could not be written. Blocking.
    pub fn undo_retry(&self, entries: &[Arc<Entry>]) {
        for entry in entries {
            let undone = || -> io::Result<()> {
                if !self.index().entries.contains_key(&entry.id) {
                    remove_if_present(&self.path(entry.id))?;
                }
                remove_if_present(&self.in_quarantine(entry.id).with_extension("retry"))
            };
            // What stays is finished by the next start.
            if let Err(err) = undone() {
                tracing::warn!(entry = %entry.id, error = %err, "retry not taken back");
            }
        }
    }

    /// The second half of a retry: out of quarantine, and into the index as arrivals, all at once.
    /// Blocking.
    pub fn end_retry(&self, entries: Vec<Arc<Entry>>) {
        for entry in &entries {
            // They are in `data` and in the ledger: a name that stays here costs room, nothing else.
            if let Err(err) = self.remove_from_quarantine(entry.id) {
                tracing::warn!(entry = %entry.id, error = %err, "still in quarantine too");
            }
        }
        if let Err(err) = sync_dir(&self.inner.quarantine_dir) {
            tracing::warn!(error = %err, "quarantine not synced");
        }
        let mut index = self.index();
        for entry in entries {
            match index.entries.get(&entry.id).cloned() {
                // Kept for inquiry: it was there all the time.
                Some(known) => index.arrivals.push(known),
                None => index.insert(entry),
            }
        }
    }

    /// Entries whose retry a crash has interrupted. They are in `data` again.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn interrupted_retries(&self) -> io::Result<Vec<Arc<Entry>>> {
        let marks = names(&self.inner.quarantine_dir, ".retry")?;
        let index = self.index();
        let ids = marks.iter().filter_map(|name| marked(name));
        Ok(ids
            .filter_map(|id| index.entries.get(&id).cloned())
            .collect())
    }

    /// Deletes an entry in quarantine, durably. False: there is none. Blocking; the caller holds
    /// [`Spool::hold_still`].
    ///
    /// # Errors
    /// What the file system said.
    pub fn discard(&self, id: EntryId) -> io::Result<bool> {
        let path = self.in_quarantine(id);
        if !path.exists() && !path.with_extension("reason").exists() {
            return Ok(false);
        }
        self.remove_from_quarantine(id)?;
        sync_dir(&self.inner.quarantine_dir)?;
        Ok(true)
    }

    /// The whole file is read: it counts as received again.
    fn may_return(&self, id: EntryId) -> Result<Arc<Entry>, RetryError> {
        let path = self.in_quarantine(id);
        let (entry, data_set_at) = match head(&path, id) {
            Ok(Opened::Sealed(entry, at)) => (entry, at),
            Ok(Opened::Incomplete) => {
                return Err(RetryError::Corrupt(id, "never completed".to_owned()));
            }
            Ok(Opened::Foreign(reason)) => return Err(RetryError::Corrupt(id, reason.to_owned())),
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Err(RetryError::Unknown),
            Err(err) => return Err(err.into()),
        };
        if fs::metadata(&path)?.len() != data_set_at + entry.data_set_bytes
            || digest(&path, data_set_at)? != entry.digest
        {
            let reason = "data set differs from its digest".to_owned();
            return Err(RetryError::Corrupt(id, reason));
        }
        let index = self.index();
        if !index.entries.contains_key(&id) {
            match index.rivals(&entry.arrival.sop_instance, &entry.digest) {
                Rivals::Same => {
                    return Err(RetryError::Rival(
                        id,
                        "the same instance is in the spool again",
                    ));
                }
                Rivals::Different
                    if self.inner.config.duplicates == DuplicatePolicy::Quarantine =>
                {
                    let reason = "another instance with its SOP Instance UID is in the spool; \
                                  it can be retried when that one was released";
                    return Err(RetryError::Rival(id, reason));
                }
                Rivals::Different | Rivals::None => {}
            }
        }
        Ok(Arc::new(*entry))
    }

    /// The file first, the mark last.
    fn remove_from_quarantine(&self, id: EntryId) -> io::Result<()> {
        let path = self.in_quarantine(id);
        if let Ok(meta) = fs::metadata(&path) {
            remove_if_present(&path)?;
            self.index().kept.take(meta.len());
        }
        remove_if_present(&path.with_extension("reason"))?;
        remove_if_present(&path.with_extension("retry"))
    }

    fn in_quarantine(&self, id: EntryId) -> PathBuf {
        self.inner.quarantine_dir.join(id.file_name())
    }
}

impl Kept {
    pub(super) fn add(&mut self, bytes: u64) {
        self.instances += 1;
        self.bytes += bytes;
    }

    fn take(&mut self, bytes: u64) {
        self.instances = self.instances.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// What a start does before it looks at `data`: names of entries on their way back, reasons of files
/// that went. Gives the highest id in quarantine too, so that no id is given twice.
pub(super) fn put_in_order(data: &Path, quarantine: &Path) -> io::Result<Option<EntryId>> {
    for name in names(quarantine, ".retry")? {
        let Some(id) = marked(&name) else { continue };
        let path = quarantine.join(id.file_name());
        match link(&path, &data.join(id.file_name())) {
            Ok(_) => {}
            // Its name here was the first to go, so it had come to its end.
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                remove_if_present(&path.with_extension("reason"))?;
                remove_if_present(&path.with_extension("retry"))?;
            }
            Err(err) => return Err(err),
        }
    }
    for name in names(quarantine, ".reason")? {
        let path = quarantine.join(&name).with_extension("dcm");
        let ours = EntryId::from_file_name(&name.replace(".reason", ".dcm")).is_some();
        if ours && !path.exists() {
            remove_if_present(&quarantine.join(&name))?;
        }
    }
    sync_dir(data)?;
    let ids = names(quarantine, ".dcm")?;
    Ok(ids
        .iter()
        .filter_map(|name| EntryId::from_file_name(name))
        .max())
}

/// How much is in `quarantine`.
pub(super) fn count(quarantine: &Path) -> io::Result<Kept> {
    let mut kept = Kept::default();
    for name in names(quarantine, ".dcm")? {
        kept.add(fs::metadata(quarantine.join(name)).map_or(0, |meta| meta.len()));
    }
    Ok(kept)
}

/// Moves `path` into `quarantine` and writes `<name>.reason`.
pub(super) fn set_aside(path: &Path, quarantine: &Path, reason: &str) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default();
    let target = quarantine.join(name);
    write_reason(&target, reason)?;
    fs::rename(path, &target)?;
    // Two names of one file stay what they are in a rename (POSIX).
    remove_if_present(path)?;
    // What is set aside is not on its way back.
    remove_if_present(&target.with_extension("retry"))?;
    sync_dir(quarantine)?;
    path.parent().map_or(Ok(()), sync_dir)
}

fn write_reason(target: &Path, reason: &str) -> io::Result<()> {
    let text = format!("{reason}\n");
    write_atomically(&target.with_extension("reason"), text.as_bytes())
}

fn read_reason(path: &Path) -> io::Result<(String, Timestamp)> {
    let file = File::open(path)?;
    let modified = file.metadata()?.modified()?;
    let since = modified.duration_since(std::time::UNIX_EPOCH);
    let mut text = Vec::new();
    file.take(MAX_REASON).read_to_end(&mut text)?;
    let since = Timestamp(0) + since.unwrap_or_default();
    Ok((String::from_utf8_lossy(&text).into_owned(), since))
}

fn head(path: &Path, id: EntryId) -> io::Result<Opened> {
    let mut head = Vec::new();
    File::open(path)?.take(HEAD_BYTES).read_to_end(&mut head)?;
    Ok(open(id, &head))
}

/// A second name. False: it had it already.
fn link(from: &Path, to: &Path) -> io::Result<bool> {
    match fs::hard_link(from, to) {
        Ok(()) => Ok(true),
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(err) => Err(err),
    }
}

fn names(dir: &Path, extension: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for item in fs::read_dir(dir)? {
        let name = item?.file_name().to_string_lossy().into_owned();
        if name.ends_with(extension) {
            names.push(name);
        }
    }
    Ok(names)
}

fn marked(name: &str) -> Option<EntryId> {
    EntryId::from_file_name(&format!("{}.dcm", name.strip_suffix(".retry")?))
}
