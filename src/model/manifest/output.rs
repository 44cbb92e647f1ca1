//! `[output]`: what the numbers of a model mean.

use serde::Deserialize;

use super::bounded;
use crate::priority::Priority;

/// A code with its meaning, as it goes into messages.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Code {
    /// Coding Scheme Designator (0008,0102).
    pub scheme: String,
    /// Code Value (0008,0100).
    pub value: String,
    /// Code Meaning (0008,0104).
    pub meaning: String,
}

/// What turns the graph's numbers into probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// They are probabilities already.
    None,
    /// Each label by itself.
    Sigmoid,
    /// Labels exclude each other.
    Softmax,
}

/// How the images of a unit become one number per label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aggregate {
    /// The highest; the finding names the image.
    Max,
    /// The mean.
    Mean,
    /// The mean of the `top_k` highest.
    MeanTopK,
    /// The `at_least`-th highest: present when that many images have it. A unit of fewer images is
    /// refused.
    Any,
    /// None: a finding per image.
    Each,
}

/// The `[output]` table: the task.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum OutputSpec {
    /// Probabilities of labels.
    Classification(Classification),
    /// Quantities with units.
    Regression(Regression),
    /// Boxes.
    Detection(Detection),
    /// Regions, pixel by pixel or voxel by voxel.
    Segmentation(Segmentation),
}

/// `kind = "classification"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Classification {
    /// Name of the tensor in the graph, shape `[N, labels]`, or `[N]` for one label; empty for an
    /// ensemble of models.
    #[serde(default)]
    pub tensor: String,
    /// What turns its numbers into probabilities.
    pub activation: Activation,
    /// How images are combined.
    pub aggregate: Aggregate,
    /// Images that `mean-top-k` takes.
    pub top_k: Option<usize>,
    /// Images that `any` asks for.
    pub at_least: Option<usize>,
    /// What is reported.
    pub labels: Vec<Label>,
}

/// `kind = "regression"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Regression {
    /// Name of the tensor in the graph, shape `[N, quantities]` or `[N]` for one quantity; empty for
    /// an ensemble of models.
    #[serde(default)]
    pub tensor: String,
    /// How images are combined.
    pub aggregate: Aggregate,
    /// Images that `mean-top-k` takes.
    pub top_k: Option<usize>,
    /// Images that `any` asks for.
    pub at_least: Option<usize>,
    /// What is reported.
    pub labels: Vec<Quantity>,
}

/// One reported quantity.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantity {
    /// Its place in the output tensor.
    pub index: usize,
    /// Its name.
    pub label: String,
    /// Its code.
    pub code: Code,
    /// Unit, in UCUM.
    pub unit: String,
    /// Plausible values; anything else is a refusal.
    pub range: Option<[f64; 2]>,
    /// Present at or above it; without it the quantity is reported and never present.
    pub threshold: Option<f64>,
    /// Urgency when present.
    pub priority: Priority,
}

/// `kind = "detection"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detection {
    /// Tensor of the boxes, shape `[N, boxes, 4]`.
    pub boxes: String,
    /// Tensor of the scores, shape `[N, boxes]`, or `[N, boxes, labels]` without `classes`.
    pub scores: String,
    /// Tensor of the labels' indices, shape `[N, boxes]`.
    pub classes: Option<String>,
    /// What turns scores into probabilities.
    pub activation: Activation,
    /// What the four numbers of a box are.
    pub format: BoxFormat,
    /// What they are measured in.
    pub coordinates: Coordinates,
    /// Boxes of one label that overlap are thinned out; without it the graph has done so.
    pub nms: Option<Nms>,
    /// Boxes reported per image, the most probable first; the most probable one of each label is
    /// always among them.
    pub max_boxes: usize,
    /// What is reported.
    pub labels: Vec<Label>,
}

/// What the four numbers of a box are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BoxFormat {
    /// Left, top, right, bottom.
    Xyxy,
    /// Left, top, width, height.
    Xywh,
    /// Centre, width, height.
    Cxcywh,
}

/// What the numbers of a box are measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Coordinates {
    /// Pixels of the input tensor.
    Pixels,
    /// Fractions of the input tensor's width and height.
    Normalized,
}

/// Non-maximum suppression.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nms {
    /// Intersection over union above which the less probable box is dropped.
    pub iou: f64,
}

/// `kind = "segmentation"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segmentation {
    /// Name of the tensor in the graph, shape `[N, channels, rows, columns]` or
    /// `[N, channels, planes, rows, columns]`, the size of the input.
    pub tensor: String,
    /// What turns its numbers into probabilities; `softmax` over the channels.
    pub activation: Activation,
    /// What is reported.
    pub labels: Vec<Region>,
}

/// One reported region.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// Its channel.
    pub index: usize,
    /// Its name.
    pub label: String,
    /// Its code.
    pub code: Code,
    /// A pixel belongs to the region at or above it.
    pub threshold: f64,
    /// Present from this volume on (volumes).
    pub min_volume_ml: Option<f64>,
    /// Present from this area on (images with Pixel Spacing).
    pub min_area_mm2: Option<f64>,
    /// Present from this many pixels or voxels of the source image on. Default 1.
    pub min_pixels: Option<usize>,
    /// Urgency when present.
    pub priority: Priority,
}

/// What every kind of label has.
#[derive(Debug, Clone, Copy)]
pub struct Reported<'a> {
    /// Its place in the output.
    pub index: usize,
    /// Its name.
    pub label: &'a str,
    /// Its code.
    pub code: &'a Code,
    /// Urgency when present.
    pub priority: Priority,
}

/// One reported label.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// Its place in the output tensor.
    pub index: usize,
    /// Its name.
    pub label: String,
    /// Its code.
    pub code: Code,
    /// Operating point: present at or above it.
    pub threshold: f64,
    /// Urgency when present.
    pub priority: Priority,
}

impl OutputSpec {
    /// Output tensors of the graph, in the order of answers.
    pub fn tensors(&self) -> Vec<&str> {
        match self {
            Self::Classification(output) => vec![&output.tensor],
            Self::Regression(output) => vec![&output.tensor],
            Self::Segmentation(output) => vec![&output.tensor],
            Self::Detection(output) => [&output.boxes, &output.scores]
                .into_iter()
                .chain(&output.classes)
                .map(String::as_str)
                .collect(),
        }
    }

    /// Whether an output tensor of the graph can be read: `shape` with the batch, -1 for any size.
    ///
    /// # Errors
    /// The manifest's key and what the graph says instead.
    pub fn fits(&self, tensor: &str, shape: &[i64]) -> Result<(), String> {
        match self {
            Self::Classification(output) => output.fits(tensor, shape),
            Self::Regression(output) => output.fits(tensor, shape),
            Self::Detection(output) => output.fits(tensor, shape),
            Self::Segmentation(output) => output.fits(tensor, shape),
        }
    }

    /// What is reported, in the manifest's order.
    pub fn labels(&self) -> Vec<Reported<'_>> {
        fn all<'a, T>(labels: &'a [T], of: fn(&'a T) -> Reported<'a>) -> Vec<Reported<'a>> {
            labels.iter().map(of).collect()
        }
        macro_rules! reported {
            ($label:ident) => {
                Reported {
                    index: $label.index,
                    label: &$label.label,
                    code: &$label.code,
                    priority: $label.priority,
                }
            };
        }
        match self {
            Self::Classification(output) => all(&output.labels, |l| reported!(l)),
            Self::Detection(output) => all(&output.labels, |l| reported!(l)),
            Self::Regression(output) => all(&output.labels, |l| reported!(l)),
            Self::Segmentation(output) => all(&output.labels, |l| reported!(l)),
        }
    }

    /// Gives the label another operating point.
    ///
    /// # Errors
    /// When there is no such label, or it has no operating point, or it cannot have this one.
    pub fn set_threshold(&mut self, label: &str, threshold: f64) -> Result<(), String> {
        let place = match self {
            Self::Classification(Classification { labels, .. })
            | Self::Detection(Detection { labels, .. }) => labels
                .iter_mut()
                .find(|known| known.label == label)
                .map(|known| &mut known.threshold),
            Self::Regression(output) => output
                .labels
                .iter_mut()
                .find(|known| known.label == label)
                .and_then(|known| known.threshold.as_mut()),
            // Its threshold decides what a region is, not whether it is reported.
            Self::Segmentation(_) => None,
        };
        let place = place.ok_or_else(|| format!("there is no operating point of `{label}`"))?;
        if !threshold.is_finite() {
            return Err(format!("{threshold} of `{label}` is no number"));
        }
        *place = threshold;
        Ok(())
    }

    /// The word for the task.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Classification(_) => "classification",
            Self::Regression(_) => "regression",
            Self::Detection(_) => "detection",
            Self::Segmentation(_) => "segmentation",
        }
    }

    pub(super) fn validate(&self) -> Result<(), String> {
        let labels = self.labels();
        if labels.is_empty() {
            return Err("output.labels: at least one is needed".to_owned());
        }
        for (at, Reported { label, code, .. }) in labels.iter().enumerate() {
            if labels.iter().take(at).any(|other| other.label == *label) {
                return Err(format!("output.labels.label: `{label}` is used twice"));
            }
            // Each of them is part of every message, and a message has at most 64 KiB.
            bounded("output.labels.label", label, 64)?;
            bounded("output.labels.code.scheme", &code.scheme, 16)?;
            bounded("output.labels.code.value", &code.value, 64)?;
            bounded("output.labels.code.meaning", &code.meaning, 128)?;
        }
        match self {
            Self::Classification(output) => output.validate(),
            Self::Regression(output) => output.validate(),
            Self::Detection(output) => thresholds(&output.labels),
            Self::Segmentation(_) => Ok(()),
        }
    }
}

/// Operating points of probabilities.
pub(super) fn thresholds(labels: &[Label]) -> Result<(), String> {
    for label in labels {
        if !(0.0..=1.0).contains(&label.threshold) {
            return Err(format!(
                "output.labels.threshold: {} of `{}` is not between 0 and 1",
                label.threshold, label.label
            ));
        }
    }
    Ok(())
}
