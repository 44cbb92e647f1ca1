//! From the numbers of a model to findings, and from findings to the published message.
//!
//! Pure: no files, no sockets, no clock. The wire types live in [`event`]; what is here is ours.

pub mod classification;
pub mod event;
pub mod identity;

use crate::dicom::uid::{SeriesInstanceUid, SopInstanceUid};
use crate::model::manifest::{Code, Flip, OutputSpec, Priority};
use crate::model::{Manifest, Placement, Tensor};
use crate::refusal::Refusal;

/// What a model's graphs said of one sample, and where the sample came from.
#[derive(Debug, Clone)]
pub struct Sample {
    /// One per graph of an ensemble and per flip; the first is the first graph's, not flipped.
    pub answers: Vec<Said>,
    /// The image or series; none for a row of features.
    pub location: Option<Location>,
    /// Where the input tensor lies in it; none for a row of features.
    pub placement: Option<Placement>,
}

/// What one graph said of one sample.
#[derive(Debug, Clone)]
pub struct Said {
    /// The tensors of [`Manifest::tensors`], in that order, without the batch axis.
    pub outputs: Vec<Tensor>,
    /// How the input was mirrored.
    pub flip: Option<Flip>,
}

/// What the numbers of all samples of a study mean.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// One per label and unit, or per box.
    pub findings: Vec<Finding>,
    /// Files that go with them.
    pub drafts: Vec<Draft>,
}

/// A file that goes with a finding, before it is kept.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Index of the finding.
    pub finding: usize,
    /// See [`Artefact::kind`].
    pub kind: &'static str,
    /// Extension of the file name, for example `png`.
    pub extension: &'static str,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// Turns numbers into findings, as the manifest's task wants it.
///
/// # Errors
/// `model-output-…`: a number that is none is no finding.
pub fn read(manifest: &Manifest, samples: &[Sample]) -> Result<Reading, Refusal> {
    let level = manifest.applies_to.level;
    match &manifest.output {
        OutputSpec::Classification(output) => Ok(Reading {
            findings: classification::read(output, level, samples)?,
            drafts: Vec::new(),
        }),
        other => Err(Refusal::new(
            "model-manifest",
            format!("{} is not supported yet", other.kind()),
        )),
    }
}

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

    /// The study's number of a label: the highest probability or quantity of its units.
    pub fn score(&self, label: &str) -> Option<f64> {
        let of_label = self.findings().iter().filter(|found| found.label == label);
        let number = |found: &Finding| {
            let measured = found.measurements.first().map(|measured| measured.value);
            found.probability.or(measured)
        };
        of_label.filter_map(number).reduce(f64::max)
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
    /// Between 0 and 1; none for a quantity.
    pub probability: Option<f64>,
    /// The operating point; none for a quantity that is only reported.
    pub threshold: Option<f64>,
    /// Probability or quantity is at or above the threshold.
    pub present: bool,
    /// The label's priority when present, routine otherwise.
    pub priority: Priority,
    /// The image or series it was seen in.
    pub location: Option<Location>,
    /// What was measured: a predicted quantity, the size of a region.
    pub measurements: Vec<Measurement>,
    /// A picture that says why.
    pub explanation: Option<Artefact>,
}

/// A measured or predicted quantity.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    /// What was measured.
    pub code: Code,
    /// Its value.
    pub value: f64,
    /// Unit, in UCUM.
    pub unit: String,
}

/// A file that goes with a finding and stays out of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artefact {
    /// What it is, a fixed word: `occlusion`, `activation-map`, `boxes`, `outlines`, `mask`.
    pub kind: &'static str,
    /// Where it is: a path of the HTTP API or a URL.
    pub reference: String,
}

/// Where in the study.
#[derive(Debug, Clone, PartialEq)]
pub struct Location {
    /// The series, if the object has one.
    pub series: Option<SeriesInstanceUid>,
    /// The image; none when the finding is about a series.
    pub sop_instance: Option<SopInstanceUid>,
    /// The frame, from 1, of a multi-frame image.
    pub frame: Option<u32>,
    /// Where in the image or series.
    pub area: Option<Area>,
}

/// A part of an image or a series.
#[derive(Debug, Clone, PartialEq)]
pub enum Area {
    /// Left, top, right, bottom in continuous pixel coordinates of the source image
    /// (PS3.3 §C.18.6.1.2).
    Box([f64; 4]),
    /// A mask in the geometry of the source.
    Mask(Artefact),
}
