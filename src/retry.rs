//! When to try again: the one schedule of attempts.
//!
//! Nothing here sleeps or reads a clock, so schedules are tested as arithmetic.

use std::time::Duration;

/// Capped exponential back-off with jitter.
///
/// Attempt `n` (from 0) waits between half and the whole of `min · 2ⁿ`, never more than `max`.
/// The jitter keeps many replicas from knocking at a restarted broker in step.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    min: Duration,
    max: Duration,
}

impl Backoff {
    /// A schedule that starts at `min` and never waits longer than `max`.
    pub const fn new(min: Duration, max: Duration) -> Self {
        Self { min, max }
    }

    /// How long to wait before attempt `attempt`; `jitter` is uniform in `[0, 1)`.
    pub fn delay(&self, attempt: u32, jitter: f64) -> Duration {
        let doubled = self
            .min
            .saturating_mul(1u32.checked_shl(attempt.min(20)).unwrap_or(u32::MAX));
        let ceiling = doubled.min(self.max);
        ceiling.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
    }

    /// [`Backoff::delay`] with a random jitter.
    pub fn jittered(&self, attempt: u32) -> Duration {
        self.delay(attempt, rand::random::<f64>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));

    #[test]
    fn delays_double_until_the_cap() {
        let delays: Vec<u128> = [0, 1, 2, 6, 7, 40]
            .iter()
            .map(|attempt| SCHEDULE.delay(*attempt, 1.0).as_millis())
            .collect();
        assert_eq!(delays, [100, 200, 400, 6400, 10_000, 10_000]);
    }

    #[test]
    fn jitter_takes_off_at_most_half() {
        assert_eq!(SCHEDULE.delay(0, 0.0).as_millis(), 50);
        for _ in 0..100 {
            let delay = SCHEDULE.jittered(3);
            assert!(delay >= Duration::from_millis(400) && delay <= Duration::from_millis(800));
        }
    }
}
