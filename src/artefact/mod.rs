//! Files that go with findings and stay out of messages: pictures that say why, masks.
//!
//! # On disk
//! ```text
//! <dir>/<kind>-<sha256>.<extension>   one file per artefact, named by its own content
//! <dir>/.new…                         being written; removed at start
//! ```
//!
//! # Invariants
//! - [`Store::keep`] returns a reference only when the file and its directory entry are synced, so a
//!   message never names a picture that a crash can take back.
//! - A name says what a file is and what is in it: nothing that a peer sent is part of it, the same
//!   study gives the same name, and a second run of a study writes nothing.
//! - A crash between the file and the message leaves a file that nobody names; it goes after its
//!   retention, like every other.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::durable::sync_dir;
use crate::live::Live;
use crate::units::{ByteSize, HumanDuration};

/// Route of the HTTP API below which artefacts are.
pub const ROUTE: &str = "/api/v1/artefacts";
/// What files are called while they are written.
const UNFINISHED: &str = ".new";
/// What a file takes on disk is counted in these, so that many small ones do not fill it unseen.
const BLOCK: u64 = 4096;

/// The `[artefacts]` section.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where they are; empty: `artefacts` inside `spool.dir`.
    pub dir: PathBuf,
    /// How long they stay.
    pub retention: HumanDuration,
    /// What they may take together; one more is not kept, and its message says so.
    pub max_bytes: ByteSize,
    /// What references begin with when the folder is served by somebody else; empty: the path of our
    /// own HTTP API.
    pub base_url: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dir: PathBuf::new(),
            retention: HumanDuration::from_secs(30 * 24 * 3600),
            max_bytes: ByteSize(10 << 30),
            base_url: String::new(),
        }
    }
}

impl Config {
    /// Refuses a `base_url` that is no web address.
    ///
    /// # Errors
    /// The key and the reason.
    pub fn validate(&self) -> Result<(), String> {
        let url = &self.base_url;
        let web = url.starts_with("https://") || url.starts_with("http://");
        let plain = url.bytes().all(|byte| byte.is_ascii_graphic());
        if url.is_empty() || (web && plain && url.len() <= 512) {
            return Ok(());
        }
        Err(format!(
            "base_url: `{url}` must begin with http:// or https:// and have no spaces"
        ))
    }

    /// The folder, resolved.
    pub fn folder(&self, spool: &Path) -> PathBuf {
        if self.dir.as_os_str().is_empty() {
            spool.join("artefacts")
        } else {
            self.dir.clone()
        }
    }
}

/// Why an artefact was not kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// `artefacts.max_bytes` is reached.
    #[error("artefacts.max_bytes is reached")]
    Full,
    /// Kind or extension is no plain word: a mistake of ours.
    #[error("`{0}` cannot be part of a file name")]
    Name(String),
    /// The file system said no.
    #[error("failed to write the artefact")]
    Io(#[from] io::Error),
}

/// The folder of artefacts. Its methods block, but for [`Store::bytes`] and [`Store::has_room`].
pub struct Store {
    dir: PathBuf,
    config: Live<Config>,
    /// Size of each file by name. Held while a file is written.
    files: Mutex<HashMap<String, u64>>,
    /// Their sum, for those who must not wait for a disk.
    bytes: AtomicU64,
}

impl Store {
    /// Opens the folder, makes it if it is not there, and removes what was being written.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(config: Live<Config>, spool: &Path) -> io::Result<Self> {
        let dir = config.get().folder(spool);
        fs::create_dir_all(&dir)?;
        let mut files = HashMap::new();
        for item in fs::read_dir(&dir)? {
            let item = item?;
            let Ok(name) = item.file_name().into_string() else {
                continue;
            };
            if name.starts_with(UNFINISHED) {
                fs::remove_file(item.path())?;
            } else if is_name(&name) {
                files.insert(name, on_disk(item.metadata()?.len()));
            }
        }
        Ok(Self {
            dir,
            config,
            bytes: AtomicU64::new(files.values().sum()),
            files: Mutex::new(files),
        })
    }

    /// Keeps `bytes` for good and gives the reference for a message. What is there already is not
    /// written again, and stays for another retention.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn keep(&self, kind: &str, extension: &str, bytes: &[u8]) -> Result<String, StoreError> {
        let name = format!("{kind}-{}.{extension}", hex(&Sha256::digest(bytes)));
        if !is_name(&name) {
            return Err(StoreError::Name(name));
        }
        let path = self.dir.join(&name);
        // One at a time is enough, and the sum stays right.
        let mut files = self.lock();
        if files.contains_key(&name) && touch(&path).is_ok() {
            return Ok(self.reference(&name));
        }
        let size = on_disk(bytes.len() as u64);
        if self.bytes().saturating_add(size) > self.config.get().max_bytes.bytes() {
            return Err(StoreError::Full);
        }
        let mut file = tempfile::Builder::new()
            // The operator's umask decides who may read it, as for instances.
            .permissions(fs::Permissions::from_mode(0o666))
            .prefix(UNFINISHED)
            .tempfile_in(&self.dir)?;
        file.write_all(bytes)?;
        file.as_file().sync_data()?;
        file.persist(&path).map_err(|err| err.error)?;
        sync_dir(&self.dir)?;
        self.count(files.insert(name.clone(), size), Some(size));
        Ok(self.reference(&name))
    }

    /// Whether anything more can be kept, so that nobody makes what cannot.
    pub fn has_room(&self) -> bool {
        self.bytes().saturating_add(BLOCK) <= self.config.get().max_bytes.bytes()
    }

    /// An artefact, open for reading; `None` when there is none of that name (any more).
    ///
    /// # Errors
    /// When the file system fails.
    pub fn open_file(&self, name: &str) -> io::Result<Option<File>> {
        if !is_name(name) {
            return Ok(None);
        }
        match File::open(self.dir.join(name)) {
            Ok(file) => Ok(Some(file)),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// Removes what was last kept longer than the retention before `now`. Gives the number of files.
    ///
    /// # Errors
    /// When the file system fails; the rest is removed the next time.
    pub fn expire(&self, now: SystemTime) -> io::Result<usize> {
        let names: Vec<String> = self.lock().keys().cloned().collect();
        let mut removed = 0;
        for name in names {
            // Taken again for each file, so that nobody waits for a long list.
            let mut files = self.lock();
            let path = self.dir.join(&name);
            let gone = match fs::metadata(&path).and_then(|meta| meta.modified()) {
                Ok(kept) => now.duration_since(kept).unwrap_or(Duration::ZERO),
                Err(err) if err.kind() == io::ErrorKind::NotFound => Duration::MAX,
                Err(err) => return Err(err),
            };
            if gone < self.config.get().retention.get() {
                continue;
            }
            match fs::remove_file(&path) {
                Ok(()) => removed += 1,
                Err(err) if err.kind() == io::ErrorKind::NotFound => {}
                Err(err) => return Err(err),
            }
            self.count(files.remove(&name), None);
        }
        Ok(removed)
    }

    /// What they take on disk together, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Changes the sum; only with the lock.
    fn count(&self, gone: Option<u64>, come: Option<u64>) {
        let bytes = self.bytes().saturating_sub(gone.unwrap_or(0));
        let bytes = bytes.saturating_add(come.unwrap_or(0));
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    fn reference(&self, name: &str) -> String {
        match self.config.get().base_url.trim_end_matches('/') {
            "" => format!("{ROUTE}/{name}"),
            base => format!("{base}/{name}"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Media type (RFC 2046) by the extension of a name.
pub fn media_type(name: &str) -> &'static str {
    match name.split_once('.').map_or("", |(_, extension)| extension) {
        "png" => "image/png",
        "nii.gz" => "application/gzip",
        _ => "application/octet-stream",
    }
}

/// `<kind>-<64 hexadecimal digits>.<extension>`, in lower case: no separator, no dot at the start.
fn is_name(name: &str) -> bool {
    let Some((stem, extension)) = name.split_once('.') else {
        return false;
    };
    let Some((kind, digest)) = stem.rsplit_once('-') else {
        return false;
    };
    let word = |text: &str, also: u8| {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == also;
        (1..=32).contains(&text.len()) && text.bytes().all(legal)
    };
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    word(kind, b'-') && word(extension, b'.') && digest.len() == 64 && digest.bytes().all(hex)
}

fn touch(path: &Path) -> io::Result<()> {
    File::options()
        .write(true)
        .open(path)?
        .set_modified(SystemTime::now())
}

const fn on_disk(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn store(dir: &Path, max_bytes: u64) -> Store {
        let config = Config {
            max_bytes: ByteSize(max_bytes),
            retention: HumanDuration::from_secs(60),
            ..Config::default()
        };
        Store::open(Live::new(config), dir).unwrap()
    }

    fn name(reference: &str) -> &str {
        reference.strip_prefix("/api/v1/artefacts/").unwrap()
    }

    fn read(store: &Store, name: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut file = store.open_file(name).unwrap()?;
        io::Read::read_to_end(&mut file, &mut bytes).unwrap();
        Some(bytes)
    }

    #[test]
    fn the_same_bytes_have_the_same_name_and_are_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let first = store(dir.path(), 1 << 20);
        let reference = first.keep("occlusion", "png", b"picture").unwrap();
        assert_eq!(
            first.keep("occlusion", "png", b"picture").unwrap(),
            reference
        );
        assert_eq!(first.bytes(), BLOCK);
        // A file that a crash has left half written.
        fs::write(dir.path().join("artefacts/.newhalf"), b"pic").unwrap();
        let second = store(dir.path(), 1 << 20);
        assert_eq!(second.bytes(), BLOCK);
        assert_eq!(read(&second, name(&reference)).unwrap(), b"picture");
        assert_eq!(
            fs::read_dir(dir.path().join("artefacts")).unwrap().count(),
            1
        );
    }

    #[test]
    fn what_does_not_fit_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path(), 2 * BLOCK);
        assert!(store.has_room());
        store.keep("mask", "nii.gz", &[1; 5000]).unwrap();
        let refused = store.keep("mask", "nii.gz", b"one more");
        assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
        assert!(!store.has_room());
        // What is there already needs no room.
        store.keep("mask", "nii.gz", &[1; 5000]).unwrap();
    }

    #[test]
    fn what_is_older_than_the_retention_goes() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path(), 1 << 20);
        let reference = store.keep("occlusion", "png", b"picture").unwrap();
        let after = |seconds| SystemTime::now() + Duration::from_secs(seconds);
        assert_eq!(store.expire(after(50)).unwrap(), 0);
        assert_eq!(store.expire(after(61)).unwrap(), 1);
        assert_eq!(read(&store, name(&reference)), None);
        assert_eq!(store.bytes(), 0);
        // And can be kept again.
        store.keep("occlusion", "png", b"picture").unwrap();
        assert!(read(&store, name(&reference)).is_some());
    }

    #[test]
    fn no_other_name_reaches_the_file_system() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path(), 1 << 20);
        fs::write(dir.path().join("secret.png"), b"secret").unwrap();
        let digest = "0".repeat(64);
        for name in [
            "../secret.png".to_owned(),
            "..".to_owned(),
            String::new(),
            "/etc/passwd".to_owned(),
            format!("a/../occlusion-{digest}.png"),
            format!("occlusion-{digest}.png\0"),
            format!("occlusion-{digest}"),
            format!("-{digest}.png"),
            format!("occlusion-{}.png", "0".repeat(63)),
        ] {
            assert!(read(&store, &name).is_none(), "{name}");
        }
        let wrong = store.keep("../up", "png", b"picture");
        assert!(matches!(wrong, Err(StoreError::Name(_))), "{wrong:?}");
    }

    #[test]
    fn references_are_those_of_whoever_serves_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            base_url: "https://pictures.example/ai/".to_owned(),
            ..Config::default()
        };
        config.validate().unwrap();
        let store = Store::open(Live::new(config.clone()), dir.path()).unwrap();
        let reference = store.keep("boxes", "png", b"picture").unwrap();
        assert!(reference.starts_with("https://pictures.example/ai/boxes-"));
        for wrong in ["pictures.example", "file:///tmp", "https://a b"] {
            let config = Config {
                base_url: wrong.to_owned(),
                ..config.clone()
            };
            assert!(config.validate().is_err(), "{wrong}");
        }
    }
}
