//! Instances become studies.
//!
//! The assembler is an index over the spool: which studies have instances that no finished revision
//! covers, and when each of them is complete. It owns no instance and no file; it is rebuilt from the
//! spool at every start, by the same calls that serve new arrivals.

pub mod completeness;

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::dicom::uid::StudyInstanceUid;
use crate::priority::Priority;
use crate::spool::Entry;
use crate::units::HumanDuration;

use completeness::{Arrivals, Decision, Method, Policy, decide};

/// The `[study]` section.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Silence after which a study is complete.
    pub quiet_period: HumanDuration,
    /// Other quiet periods by calling AE title.
    pub quiet_period_by_ae: BTreeMap<String, HumanDuration>,
    /// Priority by calling AE title, where the images do not say.
    pub priority_by_ae: BTreeMap<String, Priority>,
    /// Age at which a study is complete whatever still arrives.
    pub max_age: HumanDuration,
    /// Studies worked on at the same time.
    pub concurrency: usize,
    /// Attempts at one set of instances before it is given up.
    pub max_attempts: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            quiet_period: HumanDuration::from_secs(5),
            quiet_period_by_ae: BTreeMap::new(),
            priority_by_ae: BTreeMap::new(),
            max_age: HumanDuration::from_secs(3600),
            concurrency: 8,
            max_attempts: 5,
        }
    }
}

impl Config {
    /// What the configuration says of this sender's studies.
    pub fn priority(&self, calling_ae: &str) -> Option<Priority> {
        by_ae(&self.priority_by_ae, calling_ae)
    }

    fn policy(&self, calling_ae: &str) -> Policy {
        let own = by_ae(&self.quiet_period_by_ae, calling_ae);
        Policy {
            quiet_period: own.unwrap_or(self.quiet_period).get(),
            max_age: self.max_age.get(),
        }
    }
}

fn by_ae<T: Copy>(table: &BTreeMap<String, T>, calling_ae: &str) -> Option<T> {
    // Configuration keys from the environment arrive in lower case.
    let mut rows = table.iter();
    rows.find(|(ae, _)| ae.eq_ignore_ascii_case(calling_ae))
        .map(|(_, value)| *value)
}

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
}

#[derive(Debug)]
struct Open {
    arrivals: Arrivals,
    policy: Policy,
}

/// The open studies.
#[derive(Debug)]
pub struct Assembler {
    config: Config,
    open: HashMap<StudyInstanceUid, Open>,
}

impl Assembler {
    /// No open study.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            open: HashMap::new(),
        }
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
            policy,
        });
        open.arrivals.first = open.arrivals.first.min(at);
        open.arrivals.last = open.arrivals.last.max(at);
        open.policy.quiet_period = open.policy.quiet_period.max(policy.quiet_period);
    }

    /// Takes out the studies that are complete at `now`.
    pub fn take_stable(&mut self, now: Timestamp) -> Vec<StableStudy> {
        let mut stable = Vec::new();
        self.open
            .retain(|uid, open| match decide(now, open.arrivals, open.policy) {
                Decision::Wait(_) => true,
                Decision::Complete(method) => {
                    stable.push(StableStudy {
                        uid: uid.clone(),
                        method,
                        first: open.arrivals.first,
                        last: open.arrivals.last,
                        complete_at: now,
                    });
                    false
                }
            });
        // The study that has waited longest goes first.
        stable.sort_by_key(|study| study.last);
        stable
    }

    /// When the next open study may become complete.
    pub fn next_decision(&self, now: Timestamp) -> Option<Timestamp> {
        self.open
            .values()
            .map(|open| match decide(now, open.arrivals, open.policy) {
                Decision::Wait(until) => until,
                Decision::Complete(_) => now,
            })
            .min()
    }

    /// Studies that are being received.
    pub fn open_studies(&self) -> usize {
        self.open.len()
    }
}
