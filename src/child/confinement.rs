//! The child's side: what it may use, and its end when the gateway is gone.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, setrlimit};

/// How much longer than the gateway a child waits for itself.
const GRACE: Duration = Duration::from_secs(5);

/// What a child may use.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Memory besides its code (`RLIMIT_DATA`) in bytes; none: any.
    pub memory: Option<u64>,
    /// Size of a file it writes, in bytes: its only ones are the two in memory, values and last words.
    pub values: u64,
    /// Open files; none: as many as the gateway.
    pub files: Option<u64>,
}

/// Confines this process, for good.
///
/// # Errors
/// When the system does not accept a limit.
pub fn confine(bounds: Bounds) -> io::Result<()> {
    for (resource, most) in [
        (Resource::Data, bounds.memory),
        // A core file would hold somebody's images.
        (Resource::Core, Some(0)),
        (Resource::Fsize, Some(bounds.values)),
        (Resource::Nofile, bounds.files),
    ] {
        if most.is_some() {
            let limit = Rlimit {
                current: most,
                maximum: most,
            };
            setrlimit(resource, limit)?;
        }
    }
    Ok(())
}

/// The socket to the gateway and the file for values.
///
/// # Errors
/// When this process was not started by a gateway.
pub fn streams() -> io::Result<(UnixStream, File)> {
    Ok((
        UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?),
        File::from(io::stdout().as_fd().try_clone_to_owned()?),
    ))
}

/// Ends a child that outlives its time when there is no gateway any more to do it.
pub struct Watchdog {
    due: Arc<Mutex<Option<Instant>>>,
}

impl Watchdog {
    /// Nothing is due yet.
    ///
    /// # Errors
    /// When there is no room for its thread.
    pub fn start() -> io::Result<Self> {
        let due = Arc::new(Mutex::new(None::<Instant>));
        let seen = Arc::clone(&due);
        thread::Builder::new()
            .name("watchdog".to_owned())
            .stack_size(64 << 10)
            .spawn(move || {
                loop {
                    thread::sleep(GRACE / 5);
                    let due = *seen.lock().unwrap_or_else(PoisonError::into_inner);
                    if due.is_some_and(|due| Instant::now() > due) {
                        std::process::abort();
                    }
                }
            })?;
        Ok(Self { due })
    }

    /// Work begins that the gateway waits `time` for.
    pub fn arm(&self, time: Duration) {
        self.set(Instant::now().checked_add(time + GRACE));
    }

    /// It is done.
    pub fn disarm(&self) {
        self.set(None);
    }

    fn set(&self, due: Option<Instant>) {
        *self.due.lock().unwrap_or_else(PoisonError::into_inner) = due;
    }
}
