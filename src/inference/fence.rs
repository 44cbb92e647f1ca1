//! When a model is not asked any more because it keeps killing its processes. Pure: the clock is an
//! argument.

use std::time::{Duration, Instant};

/// A fence that stays up longer each time is up this long at most.
const LONGEST: Duration = Duration::from_secs(30 * 60);

/// Counts deaths, and stands between the queue and a model that does nothing else.
#[derive(Debug)]
pub(super) struct Fence {
    /// Deaths in a row that put it up.
    after: u32,
    /// How long it stays up the first time.
    first: Duration,
    deaths: u32,
    up: Option<Up>,
    probes: u64,
}

#[derive(Debug)]
struct Up {
    until: Instant,
    /// Doubles with each probe that dies.
    time: Duration,
    probe: Option<u64>,
}

/// Whether a sample may be run.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// There is no fence.
    Open,
    /// The fence is up, and this one tries whether it is still needed.
    Probe(u64),
    /// The fence is up.
    Fenced,
}

impl Fence {
    pub fn new(after: u32, first: Duration) -> Self {
        Self {
            after: after.max(1),
            first,
            deaths: 0,
            up: None,
            probes: 0,
        }
    }

    /// Asks for one sample.
    pub fn admit(&mut self, now: Instant) -> Admission {
        let Some(up) = &mut self.up else {
            return Admission::Open;
        };
        if up.probe.is_some() || now < up.until {
            return Admission::Fenced;
        }
        self.probes += 1;
        up.probe = Some(self.probes);
        Admission::Probe(self.probes)
    }

    /// A run has answered: the process lives. Gives whether this took the fence down.
    pub fn answered(&mut self) -> bool {
        self.deaths = 0;
        self.up.take().is_some()
    }

    /// A process has died of a run, or did not start. Gives whether this put the fence up.
    pub fn died(&mut self, now: Instant) -> bool {
        self.deaths = self.deaths.saturating_add(1);
        match &mut self.up {
            None if self.deaths >= self.after => {
                self.up = Some(Up {
                    until: now + self.first,
                    time: self.first,
                    probe: None,
                });
                true
            }
            None => false,
            Some(up) => {
                // Runs that were under way when it went up say nothing new.
                if up.probe.take().is_some() {
                    up.time = (up.time * 2).min(LONGEST.max(self.first));
                    up.until = now + up.time;
                }
                false
            }
        }
    }

    /// A probe ended without a run: another may try.
    pub fn gave_up(&mut self, probe: u64) {
        if let Some(up) = &mut self.up
            && up.probe == Some(probe)
        {
            up.probe = None;
        }
    }

    /// Whether it is up.
    pub fn is_up(&self) -> bool {
        self.up.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// A fence that has just gone up at the given time.
    fn up(at: Instant) -> Fence {
        let mut fence = Fence::new(3, MINUTE);
        let up: Vec<bool> = (0..3).map(|_| fence.died(at)).collect();
        assert_eq!(up, [false, false, true]);
        fence
    }

    #[test]
    fn deaths_in_a_row_put_it_up_and_a_good_run_between_them_does_not() {
        let now = Instant::now();
        let mut fence = Fence::new(3, MINUTE);
        for _ in 0..10 {
            fence.died(now);
            fence.died(now);
            assert!(!fence.answered());
            assert_eq!(fence.admit(now), Admission::Open);
        }
        assert_eq!(up(now).admit(now), Admission::Fenced);
    }

    #[test]
    fn after_its_time_one_probe_goes_through_and_takes_it_down() {
        let start = Instant::now();
        let mut fence = up(start);
        let nearly = start + MINUTE - Duration::from_millis(1);
        assert_eq!(fence.admit(nearly), Admission::Fenced);
        assert!(matches!(fence.admit(start + MINUTE), Admission::Probe(_)));
        assert_eq!(fence.admit(start + MINUTE), Admission::Fenced);
        assert!(fence.answered());
        assert_eq!(fence.admit(start + MINUTE), Admission::Open);
        // It takes as many deaths as before to put it up again.
        assert!(!fence.died(start + MINUTE) && !fence.is_up());
    }

    #[test]
    fn a_probe_that_dies_doubles_the_time_up_to_a_bound() {
        let mut now = Instant::now();
        let mut fence = up(now);
        for minutes in [1, 2, 4, 8, 16, 30, 30] {
            let time = minutes * MINUTE;
            assert_eq!(
                fence.admit(now + time - Duration::from_millis(1)),
                Admission::Fenced,
                "{minutes}"
            );
            now += time;
            assert!(matches!(fence.admit(now), Admission::Probe(_)), "{minutes}");
            assert!(!fence.died(now));
        }
    }

    #[test]
    fn a_probe_without_a_run_leaves_the_place_to_the_next() {
        let now = Instant::now();
        let mut fence = up(now);
        let later = now + MINUTE;
        let Admission::Probe(probe) = fence.admit(later) else {
            panic!("a probe");
        };
        fence.gave_up(probe + 1);
        assert_eq!(fence.admit(later), Admission::Fenced);
        fence.gave_up(probe);
        assert!(matches!(fence.admit(later), Admission::Probe(_)));
    }

    #[test]
    fn deaths_of_runs_that_were_under_way_change_nothing() {
        let now = Instant::now();
        let mut fence = up(now);
        assert!(!fence.died(now + MINUTE / 2));
        assert!(matches!(fence.admit(now + MINUTE), Admission::Probe(_)));
    }
}
