//! What the benches measure with.

use std::fs;

/// What this thread has had of the processor, in seconds. Other work on the machine does not count,
/// which the clock on the wall cannot say; a tick of the scheduler is the resolution.
pub fn processor_seconds() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanoseconds = text.split(' ').next().unwrap().parse::<u64>().unwrap();
    nanoseconds as f64 * 1e-9
}
