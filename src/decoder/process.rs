//! The gateway's side of one worker: what a decoding process is started with and asked.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::Config;
use super::protocol::{Job, Reply, Request, take};
use crate::child::{Death, Process, Recipe, garbled};
use crate::pixel::Samples;

/// The hidden command.
pub(crate) const COMMAND: &str = "decode-worker";
/// A worker allocates and frees the same few buffers for every frame. The C library would give their
/// pages back each time, and finding them again costs as much as copying the frame.
const MALLOC: &str = "glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=67108864:glibc.malloc.arena_max=1";
/// More than any frame within [`crate::pixel::Limits`] has; what is asked for is bounded there.
const MAX_VALUES: usize = 1 << 30;
/// The file in memory keeps the room of a frame of ordinary size for the next one.
const KEPT_VALUES: usize = 4 << 20;

/// A running worker. Dropping it ends it.
pub(super) struct Worker {
    process: Process,
}

impl Worker {
    /// Starts a worker and waits for its first answer.
    pub(super) fn start(program: &Path, config: &Config) -> io::Result<Self> {
        let recipe = Recipe {
            program,
            command: COMMAND,
            arguments: vec![
                "--memory".to_owned(),
                config.memory.bytes().to_string(),
                "--timeout".to_owned(),
                config.timeout.get().as_millis().to_string(),
            ],
            environment: vec![("GLIBC_TUNABLES".into(), MALLOC.into())],
        };
        let mut worker = Self {
            process: Process::start(&recipe)?,
        };
        let ping = Request {
            file: std::ffi::OsString::new(),
            frame: 0,
            job: Job::Ping,
            measure: false,
        };
        match worker.ask(&ping, config.timeout.get()) {
            Ok((Reply::Ready, _)) => Ok(worker),
            Ok(_) => Err(io::Error::other("a decoding process does not know its job")),
            Err(death) => Err(io::Error::other(format!(
                "a decoding process cannot start: {}",
                text(&death, config)
            ))),
        }
    }

    /// Asks and waits for the answer, at most `timeout`. After an error the worker is of no use.
    pub(super) fn ask(
        &mut self,
        request: &Request,
        timeout: Duration,
    ) -> Result<(Reply, Option<Samples>), Death> {
        let reply = self.process.ask(request, timeout)?;
        let values = self.values(&reply);
        match values {
            Ok(values) => Ok((reply, values)),
            Err(err) => Err(self.process.post_mortem(&err)),
        }
    }

    fn values(&self, reply: &Reply) -> io::Result<Option<Samples>> {
        let Reply::Done { shape, dtype, .. } = reply else {
            return Ok(None);
        };
        let count = shape
            .iter()
            .try_fold(1usize, |product, size| product.checked_mul(*size))
            .filter(|count| *count <= MAX_VALUES)
            .ok_or_else(|| garbled("too many values"))?;
        let values = take(self.process.values(), dtype, count)?;
        if count > KEPT_VALUES {
            self.process.values().set_len(0)?;
        }
        Ok(Some(values))
    }
}

/// What a worker died of, for people.
pub(super) fn text(death: &Death, config: &Config) -> String {
    match death {
        Death::Timeout => format!("no answer within {}", config.timeout),
        Death::Memory => format!("more than {} of memory needed", config.memory),
        Death::Crash(how) => how.clone(),
    }
}
