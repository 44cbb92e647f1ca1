//! Decoding in processes of its own: what a hostile or broken image can do ends with one of them.
//!
//! A code stream is a program for a codec, and the exact codecs are written in C and C++. So files
//! are opened, decoded and turned into tensors by *workers*: this same binary with a hidden command,
//! an empty environment, one thread, and limits on memory and on time. A worker that crashes, runs
//! out of memory or does not answer is replaced; the instance is refused with a code, and the
//! gateway has noticed nothing but a closed socket.
//!
//! ```text
//! pool ──request: file, frame, job──▶ worker: DicomFile ─▶ Frames ─▶ prepare | plane | decode
//!      ◀──reply: header, values────── only what a model sees crosses back, not the image
//! ```
//!
//! - Uncompressed frames of ordinary size are copied, not decoded: the gateway does that by itself,
//!   because passing them on would cost more than reading them.
//! - A request is one frame and a worker does one at a time, so the frames of a study are decoded in
//!   parallel by as many workers as are configured, and a slow frame delays nobody else's.
//! - Values cross a socket pair once, straight from and into the vector they live in.
//! - A death is retried once in a fresh worker, because it may have been somebody else's doing (an
//!   operator, the kernel short of memory). A second one is the file's.

mod pool;
mod process;
mod protocol;
mod worker;

use serde::{Deserialize, Serialize};

use crate::units::{ByteSize, HumanDuration};

pub use pool::{Decoders, Source, StartError};
pub use protocol::{Facts, Stage};
pub use worker::{WorkerArgs, work};

/// The `[decode]` section.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Decoding processes; 0: one per core.
    pub workers: usize,
    /// Longest time for one frame.
    pub timeout: HumanDuration,
    /// Memory of one process besides its code (`RLIMIT_DATA`).
    pub memory: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            workers: 0,
            timeout: HumanDuration::from_secs(30),
            memory: ByteSize(512 << 20),
        }
    }
}

impl Config {
    /// Decoding processes, resolved.
    pub fn worker_count(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count.min(MAX_WORKERS),
        }
    }
}

/// What the codes of refusals begin with that a dead worker causes.
pub const REFUSAL: &str = "decoder-";

/// More would only wait for each other.
const MAX_WORKERS: usize = 256;
