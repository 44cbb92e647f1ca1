//! Processes of this same binary for what must not harm the gateway: codecs and models.
//!
//! A child is started with a hidden command, an environment that is almost empty, a process group of
//! its own and no core files. Headers go over a socket pair, which is its standard input: JSON behind
//! its length. Values go through a file in memory that both have open, which is its standard output,
//! in the byte order of the machine: twice as fast as the socket. What it says on standard error is
//! kept, up to a bound, to find out what it died of.
//!
//! The gateway does not trust the answer: lengths have bounds, waits have deadlines, and whatever
//! does not make sense ends the child.

mod confinement;
mod process;
mod wire;

use std::path::{Path, PathBuf};

pub use confinement::{Bounds, Watchdog, confine, streams};
pub use process::{Death, Process, Recipe};
pub use wire::{garbled, put, receive, send, take};

/// The program that is running, wherever its file has gone meanwhile.
pub fn this_program() -> PathBuf {
    let running = Path::new("/proc/self/exe");
    if running.exists() {
        return running.to_owned();
    }
    std::env::current_exe().unwrap_or_default()
}
