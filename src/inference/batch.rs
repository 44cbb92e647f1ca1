//! When a batch is cut. Pure: the queue and the clock are arguments.

use std::time::{Duration, Instant};

/// Limits of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Samples per run at most.
    pub max_batch: usize,
    /// How long the oldest sample waits for company.
    pub max_delay: Duration,
}

/// What to do with a queue.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Take this many from the front now.
    Take(usize),
    /// Look again after this long, or when a sample arrives.
    Wait(Duration),
}

/// Decides on a queue of `waiting` samples whose oldest came at `oldest`.
///
/// A full batch goes at once. Otherwise the oldest sample waits until its delay is over; samples that
/// came meanwhile, of whatever study, go with it.
pub(super) fn cut(waiting: usize, oldest: Instant, now: Instant, limits: Limits) -> Cut {
    if waiting >= limits.max_batch {
        return Cut::Take(limits.max_batch);
    }
    let waited = now.saturating_duration_since(oldest);
    if waited >= limits.max_delay {
        Cut::Take(waiting)
    } else {
        Cut::Wait(limits.max_delay - waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        max_batch: 4,
        max_delay: Duration::from_millis(5),
    };

    #[test]
    fn a_full_batch_goes_at_once_and_a_short_one_waits() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        assert_eq!(cut(4, start, start, LIMITS), Cut::Take(4));
        assert_eq!(cut(9, start, start, LIMITS), Cut::Take(4));
        assert_eq!(
            cut(1, start, after(2), LIMITS),
            Cut::Wait(Duration::from_millis(3))
        );
        assert_eq!(cut(3, start, after(5), LIMITS), Cut::Take(3));
    }
}
