//! Waiting for a condition. No scenario sleeps for a fixed time; what does not come by its deadline
//! fails with the name of what was waited for.

use std::time::{Duration, Instant};

/// The deadline of most waits: far beyond what a loaded machine needs, so that it only ends what is
/// broken.
pub const SOON: Duration = Duration::from_secs(30);

const LOOK: Duration = Duration::from_millis(20);

/// Looks until there is something.
#[track_caller]
pub fn wait_for<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < deadline, "no {what} in {deadline:?}");
        std::thread::sleep(LOOK);
    }
}

/// Looks until it is so.
#[track_caller]
pub fn wait_until(what: &str, deadline: Duration, mut look: impl FnMut() -> bool) {
    wait_for(what, deadline, || look().then_some(()));
}
