//! When is a study complete? Pure: time is an argument.
//!
//! The standard has no such signal: the end of an association means nothing (PS3.4 §B.4). The base
//! rule is a quiet period; a maximum age ends studies that never fall silent.

use std::time::Duration;

use crate::clock::Timestamp;

/// What is known of an open study.
#[derive(Debug, Clone, Copy)]
pub struct Arrivals {
    /// First instance of this revision.
    pub first: Timestamp,
    /// Last instance so far.
    pub last: Timestamp,
}

/// The rule for a study.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Silence after which it is complete.
    pub quiet_period: Duration,
    /// Age at which it is complete whatever still arrives.
    pub max_age: Duration,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Ask again at this time.
    Wait(Timestamp),
    /// Complete, by this rule.
    Complete(Method),
}

/// The rule that decided, as it is named in messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Nothing arrived for the quiet period.
    QuietPeriod,
    /// It is older than it may get.
    MaxAge,
}

impl Method {
    /// The word in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QuietPeriod => "quiet-period",
            Self::MaxAge => "max-age",
        }
    }
}

/// Decides at `now`.
pub fn decide(now: Timestamp, arrivals: Arrivals, policy: Policy) -> Decision {
    let quiet = arrivals.last + policy.quiet_period;
    let old = arrivals.first + policy.max_age;
    if now >= quiet {
        Decision::Complete(Method::QuietPeriod)
    } else if now >= old {
        Decision::Complete(Method::MaxAge)
    } else {
        Decision::Wait(quiet.min(old))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        quiet_period: Duration::from_secs(5),
        max_age: Duration::from_secs(20),
    };

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1_000_000)
    }

    fn check(now: i64, first: i64, last: i64) -> Decision {
        let arrivals = Arrivals {
            first: at(first),
            last: at(last),
        };
        decide(at(now), arrivals, POLICY)
    }

    #[test]
    fn silence_completes_a_study() {
        assert_eq!(check(4, 0, 0), Decision::Wait(at(5)));
        assert_eq!(check(5, 0, 0), Decision::Complete(Method::QuietPeriod));
    }

    #[test]
    fn every_instance_starts_the_quiet_period_anew() {
        assert_eq!(check(6, 0, 4), Decision::Wait(at(9)));
    }

    #[test]
    fn a_study_that_never_falls_silent_is_completed_by_its_age() {
        assert_eq!(check(18, 0, 17), Decision::Wait(at(20)));
        assert_eq!(check(20, 0, 19), Decision::Complete(Method::MaxAge));
    }
}
