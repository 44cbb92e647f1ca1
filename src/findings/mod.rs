//! From the numbers of a model to findings, and from findings to the published message.
//!
//! Pure: no files, no sockets, no clock. The wire types live in [`event`]; what is here is ours.

pub mod classification;
pub mod event;
pub mod identity;

use crate::dicom::uid::{SeriesInstanceUid, SopInstanceUid};
use crate::model::manifest::{Code, Priority};
use crate::refusal::Refusal;

/// What a study led to for one model.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// At least one label is present.
    Finding(Vec<Finding>),
    /// The model ran and no label is present.
    NoFinding(Vec<Finding>),
    /// The study is outside what the model is for.
    Skipped(Refusal),
    /// It should have worked and did not.
    Failed(Refusal),
    /// An earlier message no longer holds and nothing replaces it.
    Superseded(Refusal),
}

impl Outcome {
    /// Sorts findings into "finding" and "no-finding".
    pub fn of(findings: Vec<Finding>) -> Self {
        if findings.iter().any(|finding| finding.present) {
            Self::Finding(findings)
        } else {
            Self::NoFinding(findings)
        }
    }

    /// The word in messages, routing keys and metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Finding(_) => "finding",
            Self::NoFinding(_) => "no-finding",
            Self::Skipped(_) => "skipped",
            Self::Failed(_) => "failed",
            Self::Superseded(_) => "superseded",
        }
    }

    /// The findings, present or not.
    pub fn findings(&self) -> &[Finding] {
        match self {
            Self::Finding(findings) | Self::NoFinding(findings) => findings,
            _ => &[],
        }
    }

    /// Why there is no number, if there is none.
    pub const fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Skipped(refusal) | Self::Failed(refusal) | Self::Superseded(refusal) => {
                Some(refusal)
            }
            _ => None,
        }
    }

    /// The most urgent priority among the labels that are present.
    pub fn priority(&self) -> Priority {
        self.findings()
            .iter()
            .filter(|finding| finding.present)
            .map(|finding| finding.priority)
            .min()
            .unwrap_or(Priority::Routine)
    }
}

/// One label, with its probability, for one unit of the study.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The label's name.
    pub label: String,
    /// The label's code.
    pub code: Code,
    /// Between 0 and 1.
    pub probability: f64,
    /// The operating point.
    pub threshold: f64,
    /// `probability >= threshold`.
    pub present: bool,
    /// The label's priority when present, routine otherwise.
    pub priority: Priority,
    /// The image or series it was seen in.
    pub location: Option<Location>,
}

/// Where in the study.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The series, if the object has one.
    pub series: Option<SeriesInstanceUid>,
    /// The image; none when the finding is about a series.
    pub sop_instance: Option<SopInstanceUid>,
    /// The frame, from 1, of a multi-frame image.
    pub frame: Option<u32>,
}
