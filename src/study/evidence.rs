//! What others say there should be, held against what is here. Pure.
//!
//! A piece of evidence speaks of the study as it is at one moment: an instance that arrives later
//! makes it worthless.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

/// Where evidence comes from, the strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Performed procedure steps: what the modality says it made (PS3.4 F.7).
    Mpps,
    /// Requests for Storage Commitment: what the modality says it sent (PS3.4 Annex J).
    StorageCommitment,
    /// Number of Study Related Instances (0020,1208) at the PACS.
    PacsCount,
    /// A list of series that the configuration expects of a protocol.
    ExpectedSeries,
}

impl Kind {
    /// Every kind, the strongest first.
    pub const ALL: [Self; 4] = [
        Self::Mpps,
        Self::StorageCommitment,
        Self::PacsCount,
        Self::ExpectedSeries,
    ];

    /// The word in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mpps => "mpps",
            Self::StorageCommitment => "storage-commitment",
            Self::PacsCount => "pacs-count",
            Self::ExpectedSeries => "expected-series",
        }
    }
}

/// What a piece of evidence says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It knows of everything that is here, and all of it is here.
    Complete,
    /// Something is missing or still being made.
    Incomplete,
    /// All that it knows of is here, and more.
    Partial,
    /// It could not be asked, or did not say.
    Unknown,
}

impl Verdict {
    /// The word in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Incomplete => "incomplete",
            Self::Partial => "partial",
            Self::Unknown => "unknown",
        }
    }
}

/// One piece of evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Where it comes from.
    pub kind: Kind,
    /// What it says.
    pub verdict: Verdict,
    /// How many there should be: instances, or series for [`Kind::ExpectedSeries`].
    pub expected: Option<u32>,
    /// How many of them are here.
    pub received: Option<u32>,
    /// AE title of who says so, or the name of the protocol.
    pub source: Option<String>,
    /// The modality broke off.
    pub discontinued: bool,
}

impl Evidence {
    /// Evidence of a kind that says nothing yet.
    pub const fn of(kind: Kind) -> Self {
        Self {
            kind,
            verdict: Verdict::Unknown,
            expected: None,
            received: None,
            source: None,
            discontinued: false,
        }
    }

    /// A list of SOP Instance UIDs, held against those that are here.
    pub fn listed(kind: Kind, source: &str, listed: &HashSet<&str>, here: &HashSet<&str>) -> Self {
        let present = listed.intersection(here).count();
        let verdict = match () {
            () if present < listed.len() => Verdict::Incomplete,
            () if present < here.len() => Verdict::Partial,
            () => Verdict::Complete,
        };
        Self {
            verdict,
            expected: Some(figure(listed.len())),
            received: Some(figure(present)),
            source: Some(source.to_owned()),
            ..Self::of(kind)
        }
    }

    /// A number of instances, held against how many are here. Who has fewer is still receiving.
    pub fn counted(source: &str, expected: u32, here: usize) -> Self {
        let here = figure(here);
        Self {
            verdict: match expected.cmp(&here) {
                std::cmp::Ordering::Greater => Verdict::Incomplete,
                std::cmp::Ordering::Equal => Verdict::Complete,
                std::cmp::Ordering::Less => Verdict::Partial,
            },
            expected: Some(expected),
            received: Some(here),
            source: Some(source.to_owned()),
            ..Self::of(Kind::PacsCount)
        }
    }

    /// A modality that is not done, whatever it has listed so far.
    pub fn in_progress(source: &str, here: usize) -> Self {
        Self {
            verdict: Verdict::Incomplete,
            received: Some(figure(here)),
            source: Some(source.to_owned()),
            ..Self::of(Kind::Mpps)
        }
    }

    /// Instances there should be, if it says so.
    pub fn instances_expected(&self) -> Option<u32> {
        self.expected.filter(|_| self.kind != Kind::ExpectedSeries)
    }

    /// In words, for remarks.
    pub fn in_words(&self) -> String {
        let (kind, verdict) = (self.kind.as_str(), self.verdict.as_str());
        match (self.received, self.expected) {
            (Some(received), Some(expected)) => {
                format!("{kind} {verdict} ({received} of {expected})")
            }
            _ => format!("{kind} {verdict}"),
        }
    }
}

/// Counts end at what a message can say.
pub(super) fn figure(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set<'a>(uids: &[&'a str]) -> HashSet<&'a str> {
        uids.iter().copied().collect()
    }

    fn listed(list: &[&str], here: &[&str]) -> (Verdict, u32, u32) {
        let evidence = Evidence::listed(Kind::Mpps, "CT2", &set(list), &set(here));
        let figures = (evidence.expected, evidence.received);
        (
            evidence.verdict,
            figures.0.unwrap_or_default(),
            figures.1.unwrap_or_default(),
        )
    }

    #[test]
    fn a_list_is_complete_when_it_is_what_is_here() {
        use Verdict::{Complete, Incomplete, Partial};
        assert_eq!(listed(&["1", "2"], &["1", "2"]), (Complete, 2, 2));
        assert_eq!(listed(&["1", "2"], &["2"]), (Incomplete, 2, 1));
        assert_eq!(listed(&["1"], &["1", "2"]), (Partial, 1, 1));
        assert_eq!(listed(&["1", "3"], &["1", "2"]), (Incomplete, 2, 1));
        assert_eq!(listed(&[], &["1"]), (Partial, 0, 0));
    }

    #[test]
    fn a_count_is_complete_when_it_is_the_same() {
        let verdict = |expected, here| Evidence::counted("PACS", expected, here).verdict;
        assert_eq!(verdict(3, 3), Verdict::Complete);
        assert_eq!(verdict(4, 3), Verdict::Incomplete);
        assert_eq!(verdict(2, 3), Verdict::Partial, "it is receiving too");
    }
}
