//! When is a study complete? Pure: time is an argument.
//!
//! The standard has no such signal: the end of an association means nothing (PS3.4 §B.4). The base
//! rule is a quiet period; a maximum age ends studies that never fall silent. Evidence of what there
//! should be makes the wait shorter, or longer, and never changes the maximum age.

use std::time::Duration;

use super::evidence::{Evidence, Kind, Verdict};
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
    /// Silence after which evidence that says complete is believed.
    pub evidence_period: Duration,
    /// Silence for which evidence that says incomplete is waited on.
    pub patience: Duration,
    /// Silence after the release of the last association that delivered it; `None`: no matter.
    pub release_period: Option<Duration>,
}

/// What evidence says of the study as it is, all of it together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Assessment {
    /// The strongest kind that says complete.
    pub complete: Option<Kind>,
    /// Some kind says that something is missing.
    pub veto: bool,
}

impl Assessment {
    /// Weighs evidence.
    pub fn of(evidence: &[Evidence]) -> Self {
        let complete = evidence
            .iter()
            .filter(|piece| piece.verdict == Verdict::Complete);
        Self {
            complete: complete.map(|piece| piece.kind).min(),
            veto: evidence
                .iter()
                .any(|piece| piece.verdict == Verdict::Incomplete),
        }
    }
}

/// Besides times of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Signs {
    /// What evidence says.
    pub assessment: Assessment,
    /// When the last association that delivered instances was released.
    pub released: Option<Timestamp>,
    /// Somebody has said that it is complete.
    pub forced: bool,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Ask again at this time.
    Wait(Timestamp),
    /// Complete, by this rule, since this time.
    Complete(Method, Timestamp),
}

/// The rule that decided, as it is named in messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Nothing arrived for the quiet period.
    QuietPeriod,
    /// It is older than it may get.
    MaxAge,
    /// Evidence of this kind, and nothing arrived for a moment.
    Evidence(Kind),
    /// Its last association was released, and nothing arrived for a moment.
    AssociationRelease,
    /// Somebody has said so.
    Forced,
    /// Something is missing and was waited for.
    Patience,
}

impl Method {
    /// Every method.
    pub const ALL: [Self; 9] = [
        Self::QuietPeriod,
        Self::MaxAge,
        Self::Evidence(Kind::Mpps),
        Self::Evidence(Kind::StorageCommitment),
        Self::Evidence(Kind::PacsCount),
        Self::Evidence(Kind::ExpectedSeries),
        Self::AssociationRelease,
        Self::Forced,
        Self::Patience,
    ];

    /// The word in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QuietPeriod => "quiet-period",
            Self::MaxAge => "max-age",
            Self::Evidence(kind) => kind.as_str(),
            Self::AssociationRelease => "association-release",
            Self::Forced => "forced",
            Self::Patience => "patience",
        }
    }
}

/// Decides at `now`. A veto outweighs what says complete: who waits in vain loses
/// [`Policy::patience`], who does not wait speaks of a part of the study.
pub fn decide(now: Timestamp, arrivals: Arrivals, signs: Signs, policy: Policy) -> Decision {
    if signs.forced {
        return Decision::Complete(Method::Forced, now);
    }
    let (method, due) = due(arrivals, signs, policy);
    let old = arrivals.first + policy.max_age;
    let (method, due) = match old < due {
        true => (Method::MaxAge, old),
        false => (method, due),
    };
    match now >= due {
        true => Decision::Complete(method, due),
        false => Decision::Wait(due),
    }
}

/// When the study is complete if nothing more is heard, but for its age.
fn due(arrivals: Arrivals, signs: Signs, policy: Policy) -> (Method, Timestamp) {
    let Policy {
        quiet_period: quiet,
        patience,
        ..
    } = policy;
    let Assessment { complete, veto } = signs.assessment;
    if veto {
        return (Method::Patience, arrivals.last + quiet.max(patience));
    }
    if let Some(kind) = complete {
        let silence = quiet.min(policy.evidence_period);
        return (Method::Evidence(kind), arrivals.last + silence);
    }
    let silent = arrivals.last + quiet;
    let released = signs.released.zip(policy.release_period);
    let released = released.map(|(at, period)| at.max(arrivals.last) + period);
    match released.filter(|at| *at < silent) {
        Some(at) => (Method::AssociationRelease, at),
        None => (Method::QuietPeriod, silent),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: Policy = Policy {
        quiet_period: Duration::from_secs(5),
        max_age: Duration::from_secs(20),
        evidence_period: Duration::from_secs(1),
        patience: Duration::from_secs(10),
        release_period: Some(Duration::from_secs(2)),
    };

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1_000_000)
    }

    fn with(now: i64, first: i64, last: i64, signs: Signs) -> Decision {
        let arrivals = Arrivals {
            first: at(first),
            last: at(last),
        };
        decide(at(now), arrivals, signs, POLICY)
    }

    fn check(now: i64, first: i64, last: i64) -> Decision {
        with(now, first, last, Signs::default())
    }

    fn signs(complete: Option<Kind>, veto: bool) -> Signs {
        Signs {
            assessment: Assessment { complete, veto },
            ..Signs::default()
        }
    }

    #[test]
    fn silence_completes_a_study() {
        assert_eq!(check(4, 0, 0), Decision::Wait(at(5)));
        let complete = Decision::Complete(Method::QuietPeriod, at(5));
        assert_eq!(check(5, 0, 0), complete);
        assert_eq!(check(9, 0, 0), complete);
    }

    #[test]
    fn every_instance_starts_the_quiet_period_anew() {
        assert_eq!(check(6, 0, 4), Decision::Wait(at(9)));
    }

    #[test]
    fn a_study_that_never_falls_silent_is_completed_by_its_age() {
        assert_eq!(check(18, 0, 17), Decision::Wait(at(20)));
        let complete = Decision::Complete(Method::MaxAge, at(20));
        assert_eq!(check(20, 0, 19), complete);
    }

    #[test]
    fn evidence_makes_the_wait_shorter_and_names_the_method() {
        let mpps = signs(Some(Kind::Mpps), false);
        let complete = Decision::Complete(Method::Evidence(Kind::Mpps), at(4));
        assert_eq!(with(4, 0, 3, mpps), complete);
        assert_eq!(
            with(3, 0, 3, mpps),
            Decision::Wait(at(4)),
            "a moment of silence is always waited for"
        );
    }

    #[test]
    fn a_veto_is_waited_on_and_runs_out() {
        for complete in [None, Some(Kind::Mpps)] {
            let veto = signs(complete, true);
            assert_eq!(with(9, 0, 0, veto), Decision::Wait(at(10)));
            let ran_out = Decision::Complete(Method::Patience, at(10));
            assert_eq!(with(10, 0, 0, veto), ran_out);
            let old = Decision::Complete(Method::MaxAge, at(20));
            assert_eq!(with(20, 0, 15, veto), old, "age ends everything");
        }
    }

    #[test]
    fn a_release_makes_the_wait_shorter_but_not_a_veto() {
        let released = |at_second| Signs {
            released: Some(at(at_second)),
            ..Signs::default()
        };
        assert_eq!(with(2, 0, 0, released(1)), Decision::Wait(at(3)));
        let complete = Decision::Complete(Method::AssociationRelease, at(3));
        assert_eq!(with(3, 0, 0, released(1)), complete);
        let late = Decision::Complete(Method::QuietPeriod, at(5));
        assert_eq!(with(5, 0, 0, released(4)), late);
        let vetoed = Signs {
            released: Some(at(1)),
            ..signs(None, true)
        };
        assert_eq!(with(9, 0, 0, vetoed), Decision::Wait(at(10)));
    }

    #[test]
    fn who_says_it_is_complete_is_believed_at_once() {
        let forced = Signs {
            forced: true,
            ..signs(None, true)
        };
        let complete = Decision::Complete(Method::Forced, at(0));
        assert_eq!(with(0, 0, 0, forced), complete);
    }

    #[test]
    fn the_strongest_evidence_names_the_method() {
        let piece = |kind, verdict| Evidence {
            verdict,
            ..Evidence::of(kind)
        };
        let evidence = [
            piece(Kind::ExpectedSeries, Verdict::Complete),
            piece(Kind::StorageCommitment, Verdict::Complete),
            piece(Kind::Mpps, Verdict::Partial),
            piece(Kind::PacsCount, Verdict::Unknown),
        ];
        let assessment = Assessment::of(&evidence);
        assert_eq!(assessment.complete, Some(Kind::StorageCommitment));
        assert!(!assessment.veto, "what knows nothing vetoes nothing");
        let veto = Assessment::of(&[piece(Kind::PacsCount, Verdict::Incomplete)]);
        assert!(veto.veto && veto.complete.is_none());
    }

    fn kinds() -> impl Strategy<Value = Option<Kind>> {
        proptest::option::of(proptest::sample::select(Kind::ALL.to_vec()))
    }

    fn policies() -> impl Strategy<Value = Policy> {
        let ms = |most: u64| (0..most).prop_map(Duration::from_millis);
        let release = proptest::option::of(ms(5_000));
        (ms(60_000), ms(600_000), ms(5_000), ms(300_000), release).prop_map(
            |(quiet_period, max_age, evidence_period, patience, release_period)| Policy {
                quiet_period,
                max_age,
                evidence_period,
                patience,
                release_period,
            },
        )
    }

    fn arrivals() -> impl Strategy<Value = Arrivals> {
        (0..1_000_000_i64, 0..600_000_000_i64).prop_map(|(first, more)| Arrivals {
            first: Timestamp(first),
            last: Timestamp(first + more),
        })
    }

    proptest! {
        #[test]
        fn time_decides_once_and_the_limits_hold(
            policy in policies(),
            arrivals in arrivals(),
            complete in kinds(),
            veto in any::<bool>(),
            released in proptest::option::of(0..600_000_000_i64),
            now in 0..2_000_000_000_i64,
        ) {
            let signs = Signs {
                assessment: Assessment { complete, veto },
                released: released.map(Timestamp),
                forced: false,
            };
            let now = Timestamp(now);
            let old = arrivals.first + policy.max_age;
            match decide(now, arrivals, signs, policy) {
                Decision::Wait(until) => {
                    prop_assert!(until > now && until <= old);
                    // Asking again at that time is enough, and asking before it changes nothing.
                    let then = decide(until, arrivals, signs, policy);
                    prop_assert!(matches!(then, Decision::Complete(_, at) if at == until));
                    let before = Timestamp(until.0 - 1);
                    prop_assert_eq!(decide(before, arrivals, signs, policy), Decision::Wait(until));
                }
                Decision::Complete(method, since) => {
                    prop_assert!(since <= now && since <= old);
                    // Once complete, complete for ever.
                    let later = decide(now + Duration::from_secs(1), arrivals, signs, policy);
                    prop_assert_eq!(later, Decision::Complete(method, since));
                    let silence = since.since(arrivals.last);
                    let least = match method {
                        Method::MaxAge => Duration::ZERO,
                        Method::Evidence(_) => policy.evidence_period.min(policy.quiet_period),
                        Method::AssociationRelease => policy.release_period.unwrap_or_default(),
                        _ => policy.quiet_period,
                    };
                    prop_assert!(silence >= least);
                    prop_assert!(silence <= policy.quiet_period.max(policy.patience));
                    prop_assert_eq!(method == Method::Patience, veto && method != Method::MaxAge);
                }
            }
        }

        #[test]
        fn a_veto_never_makes_it_earlier_and_evidence_never_later(
            policy in policies(),
            arrivals in arrivals(),
            complete in kinds(),
            released in proptest::option::of(0..600_000_000_i64),
        ) {
            let when = |complete, veto| {
                let assessment = Assessment { complete, veto };
                let released = released.map(Timestamp);
                let signs = Signs { assessment, released, forced: false };
                match decide(Timestamp(i64::MAX), arrivals, signs, policy) {
                    Decision::Complete(_, since) => since,
                    Decision::Wait(until) => until,
                }
            };
            prop_assert!(when(complete, true) >= when(complete, false));
            let quiet = (arrivals.last + policy.quiet_period)
                .min(arrivals.first + policy.max_age);
            prop_assert!(when(complete, false) <= quiet);
        }
    }
}
