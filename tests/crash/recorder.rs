//! A child of this test executable whose changes to files are written down: `recorder.c`, loaded in
//! front of libc, sees those of Rust's standard library and of SQLite's C alike.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// One call that changed, or was refused to change, something on disk.
#[derive(Debug, Clone)]
pub enum Record {
    /// A file came into being: its object and name.
    Create(u64, String),
    /// Bytes at an offset of an object.
    Write(u64, u64, Vec<u8>),
    /// A new length.
    Truncate(u64, u64),
    /// The object's data are on the disk.
    SyncFile(u64),
    /// The names in a directory are on the disk.
    SyncDir(String),
    /// A sync failed: what waited is lost to every later one.
    FailedSyncFile(u64),
    /// From, to.
    Rename(String, String),
    /// A name went.
    Unlink(String),
    /// An object got a second name.
    Link(String, String),
    /// A directory came into being.
    MakeDir(String),
    /// The driver said something; how many changing calls there had been since faults were last set.
    Note(String, u64),
    /// A call was failed.
    Failed,
}

/// The shared object, built once; nothing where no C compiler is.
fn library() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
            let (ready, fresh) = (
                folder.join("recorder.so"),
                folder.join(format!("recorder.{}.so", std::process::id())),
            );
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash/recorder.c");
            let built = Command::new("cc")
                .args(["-O1", "-shared", "-fPIC", "-o"])
                .arg(&fresh)
                .arg(source)
                .args(["-ldl", "-lpthread"])
                .status();
            match built {
                Ok(status) => assert!(status.success(), "recorder.c does not compile"),
                Err(_) => return None,
            }
            fs::rename(fresh, &ready).unwrap();
            Some(ready)
        })
        .as_deref()
}

/// Whether anything can be recorded here; says so when not, and fails where a skip is no answer.
pub fn available() -> bool {
    let found = cfg!(target_os = "linux") && library().is_some();
    if !found {
        let required = std::env::var("PACS_GATEWAY_TEST_REQUIRE").is_ok_and(|value| value == "1");
        assert!(
            !required,
            "PACS_GATEWAY_TEST_REQUIRE is set, and there is no `cc`"
        );
        eprintln!("SKIPPED: no C compiler `cc`, which builds the recorder");
    }
    found
}

/// Where to work: memory when there is some, since only the recorder's view of syncs counts.
pub fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = tempfile::Builder::new()
        .prefix("gateway-crash")
        .tempdir_in(memory);
    made.or_else(|_| tempfile::tempdir()).unwrap()
}

/// How a child ended.
pub struct Ended {
    /// Its exit status; 7 when it died where it was told to.
    pub code: Option<i32>,
    /// What it wrote to standard error.
    pub stderr: String,
}

/// Runs the ignored test `name` in a process of its own with `root` recorded into `log`.
pub fn run(name: &str, root: &Path, log: &Path, variables: &[(&str, String)]) -> Ended {
    let library = library().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            name,
            "--exact",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env("LD_PRELOAD", library)
        .env("CRASH_ROOT", root)
        .env("CRASH_LOG", log)
        .envs(variables.iter().map(|(name, value)| (*name, value)))
        .output()
        .unwrap();
    Ended {
        code: output.status.code(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Leaves a note in the log of this process.
pub fn note(text: &str) {
    assert!(File::open(format!("/crash/note/{text}")).is_err());
}

/// Fails the calls from `first` to `last`, counted from now; none for 0.
pub fn fail(first: u64, last: u64, errno: i32) {
    assert!(File::open(format!("/crash/fail/{first}/{last}/{errno}")).is_err());
}

/// Ends this process at the changing call `at`, counted from now.
pub fn die(at: u64) {
    assert!(File::open(format!("/crash/die/{at}")).is_err());
}

/// Reads a log.
pub fn read(log: &Path) -> Vec<Record> {
    let bytes = fs::read(log).unwrap();
    let mut records = Vec::new();
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let (head, tail) = rest.split_at(32);
        let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap());
        let length = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap()) as usize;
        let (object, at) = (word(8), word(16));
        let (first, tail) = tail.split_at(length(24));
        let (second, tail) = tail.split_at(length(28));
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        records.push(match head[0] {
            b'C' => Record::Create(object, text(first)),
            b'W' => Record::Write(object, at, first.to_vec()),
            b'T' => Record::Truncate(object, at),
            b'S' => Record::SyncFile(object),
            b'D' => Record::SyncDir(text(first)),
            b'E' => Record::FailedSyncFile(object),
            b'R' => Record::Rename(text(first), text(second)),
            b'U' | b'X' => Record::Unlink(text(first)),
            b'L' => Record::Link(text(first), text(second)),
            b'M' => Record::MakeDir(text(first)),
            b'N' => Record::Note(text(first), at),
            b'F' => Record::Failed,
            other => panic!("unknown record {other}"),
        });
        rest = tail;
    }
    records
}
