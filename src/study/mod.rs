//! Instances become studies.
//!
//! The assembler is an index over the spool: which studies have instances that no finished revision
//! covers, and when each of them is complete. It owns no instance and no file; it is rebuilt from the
//! spool at every start, by the same calls that serve new arrivals.
//!
//! It asks for evidence ([`Question`]) and takes answers; who answers is the pipeline's business.

pub mod completeness;
mod config;
pub mod evidence;
pub mod expected;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::Timestamp;
use crate::dicom::uid::StudyInstanceUid;
use crate::retry::Backoff;
use crate::spool::Entry;

use completeness::{Arrivals, Assessment, Decision, Method, Policy, Signs, decide};
use evidence::{Evidence, Kind, Verdict};

pub use config::{Config, Pacs};

/// Between looks at the evidence of a study that lacks something.
const LOOKS: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
/// Between any two looks at one study, however often it is woken.
const PAUSE: Duration = Duration::from_millis(250);
/// An answer that has not come by then never will.
const LOST: Duration = Duration::from_secs(120);

/// A study that is ready to be worked on.
#[derive(Debug, Clone)]
pub struct StableStudy {
    /// Which one.
    pub uid: StudyInstanceUid,
    /// The rule that decided.
    pub method: Method,
    /// First arrival of this revision.
    pub first: Timestamp,
    /// Last arrival.
    pub last: Timestamp,
    /// When it was found to be complete.
    pub complete_at: Timestamp,
    /// What the PACS has answered, if it was asked.
    pub counted: Option<Counted>,
}

/// What a PACS says when it is asked how many instances a study has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// So many.
    Instances(u32),
    /// It could not be asked, does not know the study, or does not count.
    NoAnswer,
}

/// Whether the PACS is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Not now.
    No,
    /// It was, and has said this.
    Known(Counted),
    /// Yes.
    Ask,
}

/// What evidence is there of a study, as it is now?
#[derive(Debug, Clone)]
pub struct Question {
    /// The study.
    pub study: StudyInstanceUid,
    /// Whether to ask the PACS.
    pub count: Count,
    asked_at: Timestamp,
    arrived: u64,
}

/// The answer to a [`Question`].
#[derive(Debug, Clone)]
pub struct Answer {
    /// What was asked.
    pub question: Question,
    /// Everything that is known.
    pub evidence: Vec<Evidence>,
    /// What the PACS has said, now or before.
    pub counted: Option<Counted>,
}

/// Somebody says that a study is complete.
#[derive(Debug)]
pub struct Order {
    /// The study.
    pub study: StudyInstanceUid,
    /// Gets whether the study was open.
    pub answer: oneshot::Sender<bool>,
}

#[derive(Debug)]
struct Open {
    arrivals: Arrivals,
    /// Instances so far: evidence speaks of so many and of no more.
    arrived: u64,
    policy: Policy,
    released: Option<Timestamp>,
    forced: bool,
    /// A question that is not answered yet, by the time it was asked.
    asked: Option<Timestamp>,
    /// It may have changed since the last look.
    woken: bool,
    look: Option<Look>,
}

/// What the last look at the evidence has shown.
#[derive(Debug)]
struct Look {
    asked_at: Timestamp,
    arrived: u64,
    assessment: Assessment,
    counted: Option<Counted>,
    /// The PACS has more.
    short: bool,
    /// Looks in a row that found something missing.
    vetoes: u32,
}

enum Step {
    Wait(Timestamp),
    Ask,
    Complete(Method),
}

/// The open studies.
#[derive(Debug)]
pub struct Assembler {
    config: Config,
    /// Evidence of any kind counts.
    weighs: bool,
    open: HashMap<StudyInstanceUid, Open>,
}

impl Assembler {
    /// No open study.
    pub fn new(config: Config) -> Self {
        Self {
            weighs: Kind::ALL.iter().any(|kind| config.counts(*kind)),
            config,
            open: HashMap::new(),
        }
    }

    /// Other rules from now on. A study that is open keeps what it was told of times.
    pub fn configure(&mut self, config: Config) {
        self.weighs = Kind::ALL.iter().any(|kind| config.counts(*kind));
        self.config = config;
    }

    /// Takes note of an instance that no finished revision covers. The calling AE title of the last
    /// instance chooses the quiet period; of two senders the longer one counts.
    pub fn observe(&mut self, entry: &Entry) {
        let policy = self.config.policy(entry.arrival.calling_ae.as_str());
        // A clock that was set back over a restart must not hold a study until it has caught up.
        let at = entry.received_at.min(Timestamp::now());
        let open = self.open.entry(entry.study.clone()).or_insert(Open {
            arrivals: Arrivals {
                first: at,
                last: at,
            },
            arrived: 0,
            policy,
            released: None,
            forced: false,
            asked: None,
            woken: false,
            look: None,
        });
        open.arrivals.first = open.arrivals.first.min(at);
        open.arrivals.last = open.arrivals.last.max(at);
        open.arrived += 1;
        open.released = open.released.filter(|released| *released >= at);
        open.policy.quiet_period = open.policy.quiet_period.max(policy.quiet_period);
    }

    /// Its evidence may have changed.
    pub fn wake(&mut self, study: &StudyInstanceUid) {
        if let Some(open) = self.open.get_mut(study) {
            open.woken = true;
        }
    }

    /// The last association that delivered it was released.
    pub fn released(&mut self, study: &StudyInstanceUid, at: Timestamp) {
        if let Some(open) = self.open.get_mut(study) {
            open.released = Some(at);
        }
    }

    /// Somebody says that it is complete. Gives whether it was open.
    pub fn force(&mut self, study: &StudyInstanceUid) -> bool {
        let open = self.open.get_mut(study);
        open.map(|open| open.forced = true).is_some()
    }

    /// Takes an answer. One that speaks of the study as it was before an instance came is worth
    /// nothing; that instance makes the assembler ask again. Gives whether the study begins to be
    /// waited for.
    pub fn learn(&mut self, answer: &Answer) -> bool {
        let Some(open) = self.open.get_mut(&answer.question.study) else {
            return false;
        };
        if open.asked != Some(answer.question.asked_at) {
            return false;
        }
        open.asked = None;
        let assessment = Assessment::of(&answer.evidence);
        let before = open.look.as_ref().map_or(0, |look| look.vetoes);
        open.look = Some(Look {
            asked_at: answer.question.asked_at,
            arrived: answer.question.arrived,
            assessment,
            counted: answer.counted,
            short: answer
                .evidence
                .iter()
                .any(|piece| piece.kind == Kind::PacsCount && piece.verdict == Verdict::Incomplete),
            vetoes: match assessment.veto {
                true => before.saturating_add(1),
                false => 0,
            },
        });
        assessment.veto && before == 0
    }

    /// Takes out the studies that are complete at `now`, and asks for evidence of at most `room`
    /// others.
    pub fn take(&mut self, now: Timestamp, room: usize) -> (Vec<StableStudy>, Vec<Question>) {
        let (mut stable, mut questions) = (Vec::new(), Vec::new());
        let weighs = self.weighs;
        self.open.retain(|uid, open| match open.step(now, weighs) {
            Step::Wait(_) => true,
            Step::Ask => {
                if questions.len() < room {
                    questions.push(open.ask(uid, now));
                }
                true
            }
            Step::Complete(method) => {
                stable.push(StableStudy {
                    uid: uid.clone(),
                    method,
                    first: open.arrivals.first,
                    last: open.arrivals.last,
                    complete_at: now,
                    counted: open.current().and_then(|look| look.counted),
                });
                false
            }
        });
        // The study that has waited longest goes first.
        stable.sort_by_key(|study| study.last);
        (stable, questions)
    }

    /// When there is something to do for an open study.
    pub fn next_decision(&self, now: Timestamp) -> Option<Timestamp> {
        self.open
            .values()
            .map(|open| match open.step(now, self.weighs) {
                Step::Wait(until) => until,
                // With no room for questions the next answer makes some.
                Step::Ask => now + PAUSE,
                Step::Complete(_) => now,
            })
            .min()
    }

    /// When the first instance came of the study that has been received for longest.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.open.values().map(|open| open.arrivals.first).min()
    }

    /// Studies that are being received.
    pub fn open_studies(&self) -> usize {
        self.open.len()
    }
}

impl Open {
    /// The last look, when it was at the study as it is.
    fn current(&self) -> Option<&Look> {
        let look = self.look.as_ref();
        look.filter(|look| look.arrived == self.arrived)
    }

    fn step(&self, now: Timestamp, weighs: bool) -> Step {
        let signs = Signs {
            assessment: self.current().map(|l| l.assessment).unwrap_or_default(),
            released: self.released,
            forced: self.forced,
        };
        let waiting = self.asked.is_some_and(|at| now.since(at) < LOST);
        let decision = decide(now, self.arrivals, signs, self.policy);
        let until = match decision {
            Decision::Complete(method @ (Method::Forced | Method::MaxAge), _) => {
                return Step::Complete(method);
            }
            // Whatever a lost wake-up meant is found by a look at the last moment.
            Decision::Complete(method, since) => {
                let looked = self.current().is_some_and(|look| look.asked_at >= since);
                let old = self.arrivals.first + self.policy.max_age;
                match (looked || !weighs, waiting) {
                    (true, _) => return Step::Complete(method),
                    (false, false) => return Step::Ask,
                    (false, true) if now >= old => return Step::Complete(Method::MaxAge),
                    (false, true) => old,
                }
            }
            Decision::Wait(until) => until,
        };
        match self.look_due().filter(|_| weighs && !waiting) {
            Some(at) if at <= now => Step::Ask,
            Some(at) => Step::Wait(until.min(at)),
            None => Step::Wait(until),
        }
    }

    /// When to look at the evidence before anything is decided.
    fn look_due(&self) -> Option<Timestamp> {
        let silence = self.arrivals.last + self.policy.evidence_period;
        match self.current() {
            None => Some(silence),
            Some(look) if self.woken => Some(silence.max(look.asked_at + PAUSE)),
            Some(look) if look.assessment.veto => {
                Some(look.asked_at + LOOKS.delay(look.vetoes.saturating_sub(1), 1.0))
            }
            Some(_) => None,
        }
    }

    fn ask(&mut self, study: &StudyInstanceUid, now: Timestamp) -> Question {
        self.asked = Some(now);
        self.woken = false;
        let silent = now >= self.arrivals.last + self.policy.quiet_period;
        let known = self.current().filter(|look| !look.short);
        Question {
            study: study.clone(),
            count: match known.and_then(|look| look.counted) {
                Some(counted) => Count::Known(counted),
                None if silent => Count::Ask,
                None => Count::No,
            },
            asked_at: now,
            arrived: self.arrived,
        }
    }
}
