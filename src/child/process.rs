//! The gateway's side of one child: start it, ask it, find out what it died of.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::wire::{receive, send};

/// How long a child that has hung up may take to be gone.
const FAREWELL: Duration = Duration::from_millis(200);
/// Of a child's last words.
const LAST_WORDS: usize = 16 << 10;

/// How a child is started.
#[derive(Debug, Clone)]
pub struct Recipe<'a> {
    /// This binary, or another with the same command.
    pub program: &'a Path,
    /// The hidden command.
    pub command: &'static str,
    /// What follows it.
    pub arguments: Vec<String>,
    /// The whole environment: passwords of the broker are in ours, and no child needs them.
    pub environment: Vec<(OsString, OsString)>,
}

/// A running child. Dropping it ends it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stream: UnixStream,
    /// Its standard output, in memory.
    values: File,
    /// Its standard error, in memory.
    words: File,
}

/// Why a child is no more. The request in hand has no answer.
#[derive(Debug, Clone)]
pub enum Death {
    /// It did not answer in time and was killed.
    Timeout,
    /// It needed more memory than it may have.
    Memory,
    /// It ended by itself, or talked nonsense.
    Crash(String),
}

impl Death {
    /// A fixed word: a metric's label, and the second half of a refusal's code.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Memory => "memory",
            Self::Crash(_) => "crash",
        }
    }
}

impl Process {
    /// Starts a child. Whether it works is found out by asking it.
    ///
    /// # Errors
    /// When there is no room for a process or the program cannot be executed.
    pub fn start(recipe: &Recipe<'_>) -> io::Result<Self> {
        let (stream, theirs) = UnixStream::pair()?;
        let values = File::from(memfd_create("values", MemfdFlags::CLOEXEC)?);
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let words = File::from(memfd_create("last-words", flags)?);
        words.set_len(LAST_WORDS as u64)?;
        // What goes beyond is not written: a library that complains for ever costs nothing.
        fcntl_add_seals(&words, SealFlags::GROW)?;
        let child = Command::new(recipe.program)
            .arg0("pacs-gateway")
            .arg(recipe.command)
            .args(&recipe.arguments)
            .env_clear()
            .envs(recipe.environment.iter().map(|(name, value)| (name, value)))
            // An interrupt from the terminal is for the gateway, which drains first.
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(values.try_clone()?))
            .stderr(Stdio::from(words.try_clone()?))
            .spawn()?;
        Ok(Self {
            child,
            stream,
            values,
            words,
        })
    }

    /// Asks and waits for the answer, at most `timeout`. After an error the child is of no use.
    ///
    /// # Errors
    /// What it died of.
    pub fn ask<A: DeserializeOwned>(
        &mut self,
        request: &impl Serialize,
        timeout: Duration,
    ) -> Result<A, Death> {
        self.exchange(request, timeout).map_err(|err| {
            if matches!(
                err.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
            ) {
                return Death::Timeout;
            }
            self.post_mortem(&err)
        })
    }

    fn exchange<A: DeserializeOwned>(
        &mut self,
        request: &impl Serialize,
        timeout: Duration,
    ) -> io::Result<A> {
        let deadline = Instant::now() + timeout;
        self.stream.set_write_timeout(Some(timeout))?;
        send(&mut self.stream, request)?;
        let mut stream = Punctual {
            stream: &self.stream,
            deadline,
        };
        Ok(receive(&mut stream)?.ok_or(io::ErrorKind::UnexpectedEof)?)
    }

    /// The file in memory that both have open.
    pub fn values(&self) -> &File {
        &self.values
    }

    /// What it died of, from how it ended and what it said; `err` is how that was noticed.
    pub fn post_mortem(&mut self, err: &io::Error) -> Death {
        let until = Instant::now() + FAREWELL;
        let status = loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < until => thread::sleep(Duration::from_millis(1)),
                Ok(status) => break status,
                Err(_) => break None,
            }
        };
        let mut words = vec![0; LAST_WORDS];
        let said = self.words.read_at(&mut words, 0).unwrap_or(0);
        words.truncate(said);
        let said = |what: &[u8]| words.windows(what.len()).any(|some| some == what);
        // What the standard libraries of Rust and C++ say before they abort.
        if said(b"memory allocation of") || said(b"bad_alloc") {
            return Death::Memory;
        }
        Death::Crash(match status.map(|status| (status.signal(), status)) {
            Some((Some(signal), _)) => format!("it ended by signal {signal}"),
            Some((None, status)) => format!("it ended with {status}"),
            None => format!("it does not answer: {err}"),
        })
    }
}

/// A socket whose reads all end at one time.
struct Punctual<'s> {
    stream: &'s UnixStream,
    deadline: Instant,
}

impl Read for Punctual<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buffer)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
