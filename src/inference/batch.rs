//! When a batch is cut, and how large its run is. Pure: the queue and the clock are arguments.

use std::time::{Duration, Instant};

/// Limits of a batch.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// Samples per run at most.
    pub max_batch: usize,
    /// How long the oldest sample waits for company.
    pub max_delay: Duration,
    /// Sizes of a run, ascending, the last being `max_batch`; empty: any.
    pub sizes: Vec<usize>,
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
pub(super) fn cut(waiting: usize, oldest: Instant, now: Instant, limits: &Limits) -> Cut {
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

impl Limits {
    /// A graph that fixes its batch is run with that, whatever the manifest says.
    pub fn of(fixed: Option<usize>, max_batch: usize, sizes: &[usize], delay: Duration) -> Self {
        Self {
            max_batch: fixed.unwrap_or(max_batch),
            max_delay: delay,
            sizes: fixed.map_or_else(|| sizes.to_vec(), |size| vec![size]),
        }
    }

    /// Size of the run that carries `samples`: the rest of it is filled up.
    pub fn run_size(&self, samples: usize) -> usize {
        let fitting = self.sizes.iter().find(|size| **size >= samples);
        fitting.copied().unwrap_or(samples)
    }

    /// Sizes that are tried before the first sample.
    pub fn warm_up(&self) -> Vec<usize> {
        if self.sizes.is_empty() {
            let mut sizes = vec![1, self.max_batch];
            sizes.dedup();
            return sizes;
        }
        self.sizes.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(fixed: Option<usize>, sizes: &[usize]) -> Limits {
        Limits::of(fixed, 4, sizes, Duration::from_millis(5))
    }

    #[test]
    fn a_full_batch_goes_at_once_and_a_short_one_waits() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let limits = limits(None, &[]);
        assert_eq!(cut(4, start, start, &limits), Cut::Take(4));
        assert_eq!(cut(9, start, start, &limits), Cut::Take(4));
        assert_eq!(
            cut(1, start, after(2), &limits),
            Cut::Wait(Duration::from_millis(3))
        );
        assert_eq!(cut(3, start, after(5), &limits), Cut::Take(3));
    }

    #[test]
    fn a_run_has_the_next_size_and_a_fixed_batch_wins() {
        let sizes = |limits: &Limits| [1, 2, 3, 4].map(|samples| limits.run_size(samples));
        assert_eq!(sizes(&limits(None, &[])), [1, 2, 3, 4]);
        assert_eq!(sizes(&limits(None, &[2, 4])), [2, 2, 4, 4]);
        let fixed = limits(Some(8), &[2, 4]);
        assert_eq!(sizes(&fixed), [8; 4]);
        assert_eq!((fixed.max_batch, fixed.warm_up()), (8, vec![8]));
    }

    #[test]
    fn every_size_is_warmed_up() {
        assert_eq!(limits(None, &[]).warm_up(), [1, 4]);
        assert_eq!(limits(None, &[1, 2, 4]).warm_up(), [1, 2, 4]);
        assert_eq!(limits(Some(1), &[]).warm_up(), [1]);
    }
}
