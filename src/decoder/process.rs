//! The gateway's side of one worker: start it, ask it, find out what it died of.

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

use super::Config;
use super::protocol::{Job, Reply, Request, garbled, receive, send, take};
use crate::pixel::Samples;

/// The hidden command.
pub(crate) const COMMAND: &str = "decode-worker";
/// A worker allocates and frees the same few buffers for every frame. The C library would give their
/// pages back each time, and finding them again costs as much as copying the frame.
const MALLOC: &str = "glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=67108864:glibc.malloc.arena_max=1";
/// How long a worker that has hung up may take to be gone.
const FAREWELL: Duration = Duration::from_millis(200);
/// More than any frame within [`crate::pixel::Limits`] has; what is asked for is bounded there.
const MAX_VALUES: usize = 1 << 30;
/// The file in memory keeps the room of a frame of ordinary size for the next one.
const KEPT_VALUES: usize = 4 << 20;
/// Of a worker's last words.
const LAST_WORDS: usize = 16 << 10;

/// A running worker. Dropping it ends it.
pub(super) struct Worker {
    child: Child,
    stream: UnixStream,
    /// Its standard output, in memory.
    values: File,
    /// Its standard error, in memory.
    words: File,
}

/// Why a worker is no more. The request in hand has no answer.
#[derive(Debug)]
pub(super) enum Death {
    /// It did not answer in time and was killed.
    Timeout,
    /// It needed more memory than it may have.
    Memory,
    /// It ended by itself, or talked nonsense.
    Crash(String),
}

impl Worker {
    /// Starts a worker and waits for its first answer.
    pub(super) fn start(program: &Path, config: &Config) -> io::Result<Self> {
        let (stream, theirs) = UnixStream::pair()?;
        let values = File::from(memfd_create("values", MemfdFlags::CLOEXEC)?);
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let words = File::from(memfd_create("last-words", flags)?);
        words.set_len(LAST_WORDS as u64)?;
        // What goes beyond is not written: a codec that complains for ever costs nothing.
        fcntl_add_seals(&words, SealFlags::GROW)?;
        let timeout = config.timeout.get().as_millis().to_string();
        let child = Command::new(program)
            .arg0("pacs-gateway")
            .arg(COMMAND)
            .args(["--memory", &config.memory.bytes().to_string()])
            .args(["--timeout", &timeout])
            // Passwords of the broker are in the environment, and no codec needs it.
            .env_clear()
            .env("GLIBC_TUNABLES", MALLOC)
            // An interrupt from the terminal is for the gateway, which drains first.
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(values.try_clone()?))
            .stderr(Stdio::from(words.try_clone()?))
            .spawn()?;
        let mut worker = Self {
            child,
            stream,
            values,
            words,
        };
        let ping = Request {
            file: std::ffi::OsString::new(),
            frame: 0,
            job: Job::Ping,
        };
        match worker.ask(&ping, config.timeout.get()) {
            Ok((Reply::Ready, _)) => Ok(worker),
            Ok(_) => Err(io::Error::other("a decoding process does not know its job")),
            Err(death) => Err(io::Error::other(format!(
                "a decoding process cannot start: {}",
                death.text(config)
            ))),
        }
    }

    /// Asks and waits for the answer, at most `timeout`. After an error the worker is of no use.
    pub(super) fn ask(
        &mut self,
        request: &Request,
        timeout: Duration,
    ) -> Result<(Reply, Option<Samples>), Death> {
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

    fn exchange(
        &mut self,
        request: &Request,
        timeout: Duration,
    ) -> io::Result<(Reply, Option<Samples>)> {
        let deadline = Instant::now() + timeout;
        self.stream.set_write_timeout(Some(timeout))?;
        send(&mut self.stream, request)?;
        let mut stream = Punctual {
            stream: &self.stream,
            deadline,
        };
        let reply = receive(&mut stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let Reply::Done { shape, dtype, .. } = &reply else {
            return Ok((reply, None));
        };
        let count = shape
            .iter()
            .try_fold(1usize, |product, size| product.checked_mul(*size))
            .filter(|count| *count <= MAX_VALUES)
            .ok_or_else(|| garbled("too many values"))?;
        let values = take(&self.values, dtype, count)?;
        if count > KEPT_VALUES {
            self.values.set_len(0)?;
        }
        Ok((reply, Some(values)))
    }

    /// What it died of, from how it ended and what it said.
    fn post_mortem(&mut self, err: &io::Error) -> Death {
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

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Death {
    /// A fixed word: the metric's label, and the second half of the refusal's code.
    pub(super) const fn reason(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Memory => "memory",
            Self::Crash(_) => "crash",
        }
    }

    pub(super) fn text(&self, config: &Config) -> String {
        match self {
            Self::Timeout => format!("no answer within {}", config.timeout),
            Self::Memory => format!("more than {} of memory needed", config.memory),
            Self::Crash(how) => how.clone(),
        }
    }
}
