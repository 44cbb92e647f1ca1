//! From the numbers of a model to findings, and from findings to the published message.
//!
//! Pure: no files, no sockets, no clock. The wire types live in [`event`]; what is here is ours.

pub mod activation;
mod aggregate;
pub mod classification;
pub mod detection;
pub mod diameter;
pub mod ensemble;
pub mod event;
pub mod identity;
pub mod mask;
pub mod nifti;
pub mod nms;
mod regression;
pub mod regrid;
pub mod segmentation;

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

impl Sample {
    /// Memory that its answers take.
    pub fn bytes(&self) -> usize {
        let outputs = self.answers.iter().flat_map(|said| &said.outputs);
        outputs.map(Tensor::bytes).sum()
    }
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
    match &manifest.output {
        OutputSpec::Classification(output) => Ok(Reading {
            findings: classification::read(manifest, output, samples)?,
            drafts: Vec::new(),
        }),
        OutputSpec::Regression(output) => Ok(Reading {
            findings: regression::read(manifest, output, samples)?,
            drafts: Vec::new(),
        }),
        OutputSpec::Detection(output) => Ok(Reading {
            findings: detection::read(output, samples)?,
            drafts: Vec::new(),
        }),
        OutputSpec::Segmentation(output) => segmentation::read(output, samples),
    }
}

fn not_finite() -> Refusal {
    Refusal::new(
        "model-output-not-finite",
        "the model answered with a value that is no number",
    )
}

fn too_short(values: usize) -> Refusal {
    Refusal::new(
        "model-output-too-short",
        format!("the model answered with {values} values"),
    )
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

    /// The findings, to add what was made of them afterwards.
    pub fn findings_mut(&mut self) -> &mut [Finding] {
        match self {
            Self::Finding(findings) | Self::NoFinding(findings) => findings,
            _ => &mut [],
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
    /// The image; none when the finding is about a series. Of a region in a volume: where its diameter
    /// is largest.
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::TensorData;

    const HEAD: &str = r#"
        name = "example"
        version = "1"
        sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
        title = "t"
        intended_use = "t"
        licence = "MIT"
        device_uid = "2.25.1"
        applies_to = { level = "study" }
        [[input]]
        name = "x"
        layout = "NF"
        dtype = "float32"
        [[input.features]]
        name = "age"
        attribute = "PatientAge"
    "#;

    /// A model of one quantity.
    pub(super) fn manifest() -> Manifest {
        regression("aggregate = \"mean\"", "").unwrap()
    }

    fn regression(output: &str, label: &str) -> Result<Manifest, String> {
        Manifest::parse(&format!(
            r#"{HEAD}
            [output]
            kind = "regression"
            tensor = "y"
            {output}
            [[output.labels]]
            index = 0
            label = "ejection fraction"
            code = {{ scheme = "LN", value = "10230-1", meaning = "Left ventricular Ejection fraction" }}
            unit = "%"
            priority = "urgent"
            {label}"#
        ))
    }

    fn sample(values: &[f32]) -> Sample {
        Sample {
            answers: vec![Said {
                outputs: vec![Tensor {
                    shape: vec![values.len()],
                    data: TensorData::F32(values.to_vec()),
                }],
                flip: None,
            }],
            location: None,
            placement: None,
        }
    }

    #[test]
    fn a_quantity_is_what_the_graph_says_with_its_unit() {
        let manifest = manifest();
        let samples = [sample(&[55.5]), sample(&[44.5])];
        let findings = read(&manifest, &samples).unwrap().findings;
        let [finding] = findings.as_slice() else {
            panic!("one for the study");
        };
        assert_eq!((finding.probability, finding.threshold), (None, None));
        assert!(!finding.present && finding.priority == Priority::Routine);
        let measured = &finding.measurements[0];
        assert_eq!((measured.value, measured.unit.as_str()), (50.0, "%"));
        assert_eq!(measured.code.value, "10230-1");
    }

    #[test]
    fn a_quantity_is_present_from_its_threshold_on() {
        let manifest = regression("aggregate = \"max\"", "threshold = 60").unwrap();
        for (value, present) in [(59.9, false), (60.0, true)] {
            let found = read(&manifest, &[sample(&[value]), sample(&[1.0])]).unwrap();
            assert_eq!(found.findings[0].present, present, "{value}");
        }
    }

    #[test]
    fn a_quantity_that_cannot_be_is_a_refusal() {
        let manifest = regression("aggregate = \"max\"", "range = [0, 100]").unwrap();
        for (values, code) in [
            (&[100.5][..], "model-output-implausible"),
            (&[f32::NAN], "model-output-not-finite"),
            (&[], "model-output-too-short"),
        ] {
            let refusal = read(&manifest, &[sample(&[50.0]), sample(values)]).unwrap_err();
            assert_eq!(refusal.code, code);
        }
        assert!(read(&manifest, &[sample(&[100.0])]).is_ok());
    }

    #[test]
    fn each_wrong_value_of_a_regression_is_refused_with_its_key() {
        for (output, label, expected) in [
            (
                "aggregate = \"mean\"",
                "range = [1, 1]",
                "output.labels.range",
            ),
            (
                "aggregate = \"mean\"",
                "threshold = nan",
                "output.labels.threshold",
            ),
            ("aggregate = \"mean-top-k\"", "", "output.top_k: is missing"),
            ("aggregate = \"any\"", "", "output.at_least: is missing"),
            (
                "aggregate = \"any\"\nat_least = 0",
                "",
                "output.at_least: must be",
            ),
            (
                "aggregate = \"max\"\ntop_k = 2",
                "",
                "output.top_k: belongs",
            ),
        ] {
            let refusal = regression(output, label).unwrap_err();
            assert!(refusal.contains(expected), "{refusal}");
        }
        let unit = regression("aggregate = \"max\"", "").unwrap();
        let OutputSpec::Regression(mut output) = unit.output else {
            panic!("a regression");
        };
        let refusal = OutputSpec::Regression(output.clone())
            .fits("y", &[-1, 1, 1])
            .unwrap_err();
        assert!(refusal.contains("[N, quantities]"), "{refusal}");
        output.labels[0].index = 1;
        for shape in [&[-1][..], &[-1, 1]] {
            let refusal = OutputSpec::Regression(output.clone())
                .fits("y", shape)
                .unwrap_err();
            assert!(refusal.contains("gives 1 values"), "{refusal}");
        }
    }
}
