//! `model.toml`: what a model applies to, the tensors it wants and what its outputs mean.
//!
//! The file is read strictly: an unknown key is an error, because a misspelt threshold that is
//! silently ignored is a wrong finding. `docs/models.md` documents every key and
//! `docs/schema/model.v1.json` is the JSON Schema.

use dicom::core::dictionary::DataDictionary;
use dicom::dictionary_std::StandardDataDictionary;
use serde::{Deserialize, Serialize};

pub use super::volume::VolumeSpec;
use super::volume::VolumeTable;
use crate::units::HumanDuration;

/// A model as its author describes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Short name: lower-case letters, digits and `-`; part of routing keys.
    pub name: String,
    /// Version, and the folder that holds `model.onnx`.
    pub version: String,
    /// SHA-256 of the ONNX file, hex.
    pub sha256: String,
    /// One line for people.
    pub title: String,
    /// What the model is meant for, and what not.
    pub intended_use: String,
    /// Licence of the weights.
    pub licence: String,
    /// Device UID (0018,1002) of this version of the model.
    pub device_uid: String,
    /// What it applies to.
    pub applies_to: AppliesTo,
    /// The tensors it wants.
    pub input: Vec<Input>,
    /// What its outputs mean.
    pub output: OutputSpec,
    /// How samples are batched.
    #[serde(default)]
    pub batching: Batching,
}

/// The unit a model looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Each image by itself.
    Instance,
    /// The images of a series together.
    Series,
    /// The study as a whole.
    Study,
}

/// Conditions on an instance; an empty list does not restrict.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AppliesTo {
    /// The unit the model looks at.
    pub level: Level,
    /// Modality (0008,0060).
    #[serde(default)]
    pub modality: Vec<String>,
    /// Body Part Examined (0018,0015).
    #[serde(default)]
    pub body_part: Vec<String>,
    /// View Position (0018,5101).
    #[serde(default)]
    pub view: Vec<String>,
    /// SOP Class UID (0008,0016).
    #[serde(default)]
    pub sop_class: Vec<String>,
    /// Fewer matching instances than this: the study is skipped with a reason.
    #[serde(default = "one")]
    pub min_instances: usize,
}

/// One `[[input]]` table: an image, a volume or a row of features, told apart by the layout.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Name of the tensor in the graph.
    pub name: String,
    /// Order of the axes.
    pub layout: Layout,
    /// Type of the values.
    pub dtype: DType,
    /// Planes (volumes).
    pub depth: Option<usize>,
    /// Height in pixels (images, volumes).
    pub rows: Option<usize>,
    /// Width in pixels (images, volumes).
    pub columns: Option<usize>,
    /// 1 or 3 (images), 1 (volumes).
    pub channels: Option<usize>,
    /// Which values the model was trained on (images, volumes).
    pub value: Option<ValueSpace>,
    /// Window on modality values that overrides the file's (images, volumes; `value = "voi"` and
    /// `"presentation"`).
    pub window: Option<Window>,
    /// How the image is fitted into the tensor (images).
    pub fit: Option<Fit>,
    /// How it is resampled (images).
    pub interpolation: Option<Interpolation>,
    /// Geometry and conditions (volumes).
    pub volume: Option<VolumeTable>,
    /// Value outside a letterboxed image or a volume, before `scale`.
    #[serde(default)]
    pub pad: f32,
    /// Factor before `mean` and `std`.
    #[serde(default = "one_f32")]
    pub scale: f32,
    /// Subtracted after scaling, one per channel (images, volumes).
    #[serde(default)]
    pub mean: Vec<f32>,
    /// Divisor after that, one per channel (images, volumes).
    #[serde(default)]
    pub std: Vec<f32>,
    /// Columns of the row (features).
    #[serde(default)]
    pub features: Vec<Feature>,
}

/// Order of the axes; `N` is the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Layout {
    /// Batch, channel, row, column.
    Nchw,
    /// Batch, row, column, channel.
    Nhwc,
    /// Batch, channel, plane, row, column.
    Ncdhw,
    /// Batch, plane, row, column, channel.
    Ndhwc,
    /// Batch, feature.
    Nf,
}

/// Type of a tensor's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// 32-bit floating point.
    Float32,
    /// 16-bit floating point.
    Float16,
    /// Unsigned bytes.
    Uint8,
}

/// Stage of the pixel pipeline whose values a model wants (PS3.4 §N.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ValueSpace {
    /// Stored values.
    Stored,
    /// After the modality LUT: Hounsfield units and the like.
    Modality,
    /// After the window or VOI LUT, mapped to 0…1 (PS3.3 §C.11.2).
    Voi,
    /// After that as it is shown: white is 1 whatever the photometric interpretation.
    Presentation,
}

/// A window on modality values (PS3.3 §C.11.2.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Window Center.
    pub center: f64,
    /// Window Width, at least 1.
    pub width: f64,
}

/// How an image of another shape is fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// Both axes scaled by themselves.
    Stretch,
    /// Longer side fits, the rest is padded evenly.
    Letterbox,
    /// Shorter side fits, the centre is cut out.
    Crop,
}

/// Resampling, named after what it equals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interpolation {
    /// Pillow and torchvision with antialiasing.
    BilinearAntialias,
    /// OpenCV `INTER_LINEAR`.
    Linear,
    /// OpenCV `INTER_AREA`.
    Area,
    /// Nearest neighbour.
    Nearest,
}

/// One column of a feature row.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feature {
    /// Name for people and messages.
    pub name: String,
    /// A NUM content item of a structured report, by its concept name code.
    pub sr: Option<ConceptCode>,
    /// A DICOM attribute, by keyword.
    pub attribute: Option<String>,
    /// Value when it is absent; without it an absent value is a refusal.
    pub missing: Option<f32>,
}

/// A concept name by scheme and value.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConceptCode {
    /// Coding Scheme Designator (0008,0102).
    pub scheme: String,
    /// Code Value (0008,0100).
    pub value: String,
}

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

/// The task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Probabilities of labels.
    Classification,
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

/// How the images of a unit become one probability per label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Aggregate {
    /// The highest; the finding names the image.
    Max,
    /// The mean.
    Mean,
    /// None: a finding per image.
    Each,
}

/// Urgency, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Within minutes.
    Stat,
    /// Within hours.
    Urgent,
    /// In its turn.
    Routine,
}

impl Priority {
    /// The word in messages and routing keys.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stat => "stat",
            Self::Urgent => "urgent",
            Self::Routine => "routine",
        }
    }
}

/// The `[output]` table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputSpec {
    /// The task.
    pub kind: Kind,
    /// Name of the tensor in the graph.
    pub tensor: String,
    /// What turns its numbers into probabilities.
    pub activation: Activation,
    /// How images are combined.
    pub aggregate: Aggregate,
    /// What is reported.
    pub labels: Vec<Label>,
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

/// How samples of different studies share a run.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Batching {
    /// Samples per run at most.
    pub max_batch: usize,
    /// How long a sample waits for company.
    pub max_delay: HumanDuration,
}

impl Default for Batching {
    fn default() -> Self {
        Self {
            max_batch: 1,
            max_delay: HumanDuration::from_millis(0),
        }
    }
}

/// An `[[input]]` table after validation.
#[derive(Debug, Clone)]
pub enum InputSpec {
    /// One image per sample.
    Image(ImageSpec),
    /// One row of features per sample.
    Features(Vec<Feature>),
    /// The planes of a series, one volume per sample.
    Volume(VolumeSpec),
}

/// How an image becomes a tensor; the order of the fields is the order of the steps.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct ImageSpec {
    /// Order of the axes.
    pub layout: Layout,
    /// Type of the values.
    pub dtype: DType,
    /// Height in pixels.
    pub rows: usize,
    /// Width in pixels.
    pub columns: usize,
    /// 1 or 3.
    pub channels: usize,
    /// Values before resampling.
    pub value: ValueSpace,
    /// Window on modality values; without it the file's own.
    pub window: Option<Window>,
    /// How the image is fitted.
    pub fit: Fit,
    /// How it is resampled.
    pub interpolation: Interpolation,
    /// Value outside the image.
    pub pad: f32,
    /// Factor before `mean` and `std`.
    pub scale: f32,
    /// Subtracted, one per channel or empty.
    pub mean: Vec<f32>,
    /// Divisor, one per channel or empty.
    pub std: Vec<f32>,
}

fn one() -> usize {
    1
}

fn one_f32() -> f32 {
    1.0
}

/// Largest side of an input image.
const MAX_SIDE: usize = 8192;
/// Largest batch.
const MAX_BATCH: usize = 256;

impl Manifest {
    /// Reads and validates a manifest.
    ///
    /// # Errors
    /// A message that names the key and the reason.
    pub fn parse(text: &str) -> Result<Self, String> {
        let manifest: Self = toml::from_str(text).map_err(|err| err.to_string())?;
        manifest.validate()?;
        Ok(manifest)
    }

    /// The input after validation. One input per model for now.
    pub fn input(&self) -> Result<(&str, InputSpec), String> {
        match self.input.as_slice() {
            [input] => Ok((&input.name, input.spec()?)),
            _ => Err(format!(
                "input: exactly one [[input]] table is supported, found {}",
                self.input.len()
            )),
        }
    }

    fn validate(&self) -> Result<(), String> {
        if !is_name(&self.name) {
            return Err(format!(
                "name: `{}` must be 1 to 64 of a-z, 0-9 and `-`, and not start or end with `-`",
                self.name
            ));
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+');
        let plain = !self.version.is_empty() && self.version.len() <= 64;
        if !plain || !self.version.chars().all(legal) || self.version.starts_with('.') {
            return Err(format!("version: `{}` is not a version", self.version));
        }
        if self.sha256.len() != 64 || !self.sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err("sha256: must be 64 hexadecimal digits".to_owned());
        }
        for (key, value, most) in [
            ("title", &self.title, 200),
            ("intended_use", &self.intended_use, 1000),
            ("licence", &self.licence, 200),
        ] {
            bounded(key, value, most)?;
        }
        crate::dicom::uid::Uid::parse(&self.device_uid)
            .map_err(|err| format!("device_uid: {err}"))?;
        if !(1..=MAX_BATCH).contains(&self.batching.max_batch) {
            return Err(format!("batching.max_batch: must be 1 to {MAX_BATCH}"));
        }
        let (_, input) = self.input()?;
        let level = self.applies_to.level;
        match input {
            InputSpec::Features(_) if level != Level::Study => {
                Err("applies_to.level: a model of features looks at a study".to_owned())
            }
            InputSpec::Volume(_) if level != Level::Series => {
                Err("applies_to.level: a model of volumes looks at a series".to_owned())
            }
            _ => self.output.validate(),
        }
    }
}

impl Input {
    fn spec(&self) -> Result<InputSpec, String> {
        let is_volume = matches!(self.layout, Layout::Ncdhw | Layout::Ndhwc);
        if !is_volume && (self.depth.is_some() || self.volume.is_some()) {
            return Err("input.depth, input.volume: belong to layout NCDHW or NDHWC".to_owned());
        }
        if self.layout == Layout::Nf {
            return self.features_spec();
        }
        let need = |key: &str, value: Option<usize>, range: std::ops::RangeInclusive<usize>| {
            let value = value.ok_or_else(|| format!("input.{key}: is missing"))?;
            if range.contains(&value) {
                Ok(value)
            } else {
                Err(format!("input.{key}: {value} is not in {range:?}"))
            }
        };
        let channels = need("channels", self.channels, 1..=3)?;
        if channels == 2 {
            return Err("input.channels: must be 1 or 3".to_owned());
        }
        if is_volume && channels != 1 {
            return Err("input.channels: must be 1 for a volume".to_owned());
        }
        if !self.features.is_empty() {
            return Err("input.features: belong to layout NF".to_owned());
        }
        for (key, values) in [("mean", &self.mean), ("std", &self.std)] {
            if !values.is_empty() && values.len() != channels {
                return Err(format!(
                    "input.{key}: has {} values for {channels} channels",
                    values.len()
                ));
            }
        }
        if self.std.iter().any(|std| !std.is_normal() || *std < 0.0) {
            return Err("input.std: every value must be above 0".to_owned());
        }
        let value = self.value.ok_or("input.value: is missing")?;
        if let Some(window) = self.window {
            if !matches!(value, ValueSpace::Voi | ValueSpace::Presentation) {
                return Err(
                    "input.window: belongs to value = \"voi\" or \"presentation\"".to_owned(),
                );
            }
            if window.width.is_nan() || window.width < 1.0 || !window.center.is_finite() {
                return Err("input.window: width must be at least 1".to_owned());
            }
        }
        if is_volume {
            return self.volume_spec(value);
        }
        Ok(InputSpec::Image(ImageSpec {
            layout: self.layout,
            dtype: self.dtype,
            rows: need("rows", self.rows, 1..=MAX_SIDE)?,
            columns: need("columns", self.columns, 1..=MAX_SIDE)?,
            channels,
            value,
            window: self.window,
            fit: self.fit.ok_or("input.fit: is missing")?,
            interpolation: self
                .interpolation
                .ok_or("input.interpolation: is missing")?,
            pad: self.pad,
            scale: self.scale,
            mean: self.mean.clone(),
            std: self.std.clone(),
        }))
    }

    /// What is particular to a volume; the caller has checked what images share with it.
    fn volume_spec(&self, value: ValueSpace) -> Result<InputSpec, String> {
        if self.fit.is_some() || self.interpolation.is_some() {
            return Err(
                "input.fit, input.interpolation: belong to images, a volume has them in                  [input.volume]"
                    .to_owned(),
            );
        }
        let size =
            |key: &str, size: Option<usize>| size.ok_or_else(|| format!("input.{key}: is missing"));
        let finite = |key: &str, value: f32| match value.is_finite() {
            true => Ok(value),
            false => Err(format!("input.{key}: is not a finite number")),
        };
        let spec = VolumeSpec {
            layout: self.layout,
            dtype: self.dtype,
            size: [
                size("depth", self.depth)?,
                size("rows", self.rows)?,
                size("columns", self.columns)?,
            ],
            value,
            window: self.window,
            table: self.volume.clone().ok_or("input.volume: is missing")?,
            pad: finite("pad", self.pad)?,
            scale: finite("scale", self.scale)?,
            mean: finite("mean", self.mean.first().copied().unwrap_or(0.0))?,
            std: self.std.first().copied().unwrap_or(1.0),
        };
        spec.validate()?;
        Ok(InputSpec::Volume(spec))
    }

    fn features_spec(&self) -> Result<InputSpec, String> {
        if self.features.is_empty() {
            return Err("input.features: layout NF needs at least one".to_owned());
        }
        if self.dtype != DType::Float32 {
            return Err("input.dtype: features are float32".to_owned());
        }
        for feature in &self.features {
            let known = |keyword: &String| StandardDataDictionary.by_name(keyword).is_some();
            if feature
                .attribute
                .as_ref()
                .is_some_and(|keyword| !known(keyword))
            {
                return Err(format!(
                    "input.features.attribute: `{}` is no keyword of DICOM",
                    feature.attribute.as_deref().unwrap_or_default()
                ));
            }
            if feature.sr.is_some() == feature.attribute.is_some() {
                return Err(format!(
                    "input.features: `{}` needs either `sr` or `attribute`",
                    feature.name
                ));
            }
        }
        Ok(InputSpec::Features(self.features.clone()))
    }
}

impl OutputSpec {
    fn validate(&self) -> Result<(), String> {
        if self.labels.is_empty() {
            return Err("output.labels: at least one is needed".to_owned());
        }
        for label in &self.labels {
            let code = &label.code;
            // Each of them is part of every message, and a message has at most 64 KiB.
            bounded("output.labels.label", &label.label, 64)?;
            bounded("output.labels.code.scheme", &code.scheme, 16)?;
            bounded("output.labels.code.value", &code.value, 64)?;
            bounded("output.labels.code.meaning", &code.meaning, 128)?;
            if !(0.0..=1.0).contains(&label.threshold) {
                return Err(format!(
                    "output.labels.threshold: {} of `{}` is not between 0 and 1",
                    label.threshold, label.label
                ));
            }
        }
        Ok(())
    }
}

fn bounded(key: &str, value: &str, most: usize) -> Result<(), String> {
    if value.is_empty() || value.len() > most {
        return Err(format!(
            "{key}: must have 1 to {most} bytes, has {}",
            value.len()
        ));
    }
    Ok(())
}

/// Whether `name` may stand in a routing key and a folder name.
pub fn is_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=64).contains(&name.len())
        && name.bytes().all(legal)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    pub(crate) const EXAMPLE: &str = r#"
        name = "example"
        version = "1.0.0"
        sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
        title = "Example"
        intended_use = "Tests"
        licence = "MIT"
        device_uid = "2.25.1"
        [applies_to]
        level = "instance"
        modality = ["DX"]
        [[input]]
        name = "image"
        layout = "NCHW"
        dtype = "float32"
        rows = 8
        columns = 8
        channels = 1
        value = "voi"
        fit = "stretch"
        interpolation = "bilinear-antialias"
        [output]
        kind = "classification"
        tensor = "logits"
        activation = "sigmoid"
        aggregate = "max"
        [[output.labels]]
        index = 0
        label = "opacity"
        code = { scheme = "SCT", value = "1", meaning = "Opacity" }
        threshold = 0.5
        priority = "urgent"
    "#;

    #[test]
    fn the_example_reads() {
        let manifest = Manifest::parse(EXAMPLE).unwrap();
        assert_eq!(manifest.batching.max_batch, 1);
        assert!(matches!(manifest.input().unwrap().1, InputSpec::Image(_)));
    }

    #[test]
    fn each_wrong_value_is_refused_with_its_key() {
        for (from, to, expected) in [
            ("\"example\"", "\"Bad Name\"", "name:"),
            ("\"1.0.0\"", "\"../1\"", "version:"),
            ("sha256 = \"00", "sha256 = \"zz", "sha256:"),
            ("\"2.25.1\"", "\"2.25..1\"", "device_uid:"),
            ("rows = 8", "rows = 0", "input.rows:"),
            ("rows = 8", "", "input.rows: is missing"),
            ("channels = 1", "channels = 2", "input.channels:"),
            (
                "channels = 1",
                "channels = 1\nmean = [0.1, 0.2]",
                "input.mean:",
            ),
            (
                "threshold = 0.5",
                "threshold = 1.5",
                "output.labels.threshold",
            ),
            ("threshold = 0.5", "treshold = 0.5", "treshold"),
            ("\"instance\"", "\"patient\"", "patient"),
            ("\"NCHW\"", "\"NF\"", "input.features:"),
        ] {
            let text = EXAMPLE.replace(from, to);
            let refusal = Manifest::parse(&text).unwrap_err();
            assert!(refusal.contains(expected), "{to}: {refusal}");
        }
    }

    /// [`EXAMPLE`] as a model of volumes.
    fn volume_example() -> String {
        EXAMPLE
            .replace("\"instance\"", "\"series\"")
            .replace("\"NCHW\"", "\"NCDHW\"\ndepth = 4")
            .replace(
                "fit = \"stretch\"\n        interpolation = \"bilinear-antialias\"",
                "pad = -1024\n[input.volume]\nfit = \"crop-pad\"\ninterpolation = \"linear\"\n\
                 orientation = \"SPL\"\nspacing_mm = [2.0, 1.0, 1.0]",
            )
    }

    #[test]
    fn a_volume_reads_with_its_defaults() {
        let manifest = Manifest::parse(&volume_example()).unwrap();
        let InputSpec::Volume(spec) = manifest.input().unwrap().1 else {
            unreachable!("the layout is NCDHW");
        };
        assert_eq!(spec.shape(), [1, 4, 8, 8]);
        assert_eq!((spec.table.min_planes, spec.table.max_gap_mm), (2, None));
        assert_eq!(
            (spec.pad, spec.scale, spec.mean, spec.std),
            (-1024.0, 1.0, 0.0, 1.0)
        );
    }

    #[test]
    fn each_wrong_value_of_a_volume_is_refused_with_its_key() {
        for (from, to, expected) in [
            ("\"series\"", "\"study\"", "applies_to.level"),
            ("\"series\"", "\"instance\"", "applies_to.level"),
            ("\"NCDHW\"", "\"NCHW\"", "input.depth, input.volume"),
            ("depth = 4", "depth = 0", "input.depth: 0"),
            ("depth = 4", "", "input.depth: is missing"),
            ("rows = 8", "rows = 4096", "input.rows: 4096"),
            ("channels = 1", "channels = 3", "input.channels"),
            ("pad = -1024", "fit = \"crop\"", "input.fit"),
            ("pad = -1024", "pad = nan", "input.pad"),
            ("pad = -1024", "mean = [1.0, 2.0]", "input.mean"),
            ("pad = -1024", "std = [0.0]", "input.std"),
            ("\"crop-pad\"", "\"stretch\"", "input.volume.spacing_mm"),
            ("\"crop-pad\"", "\"letterbox\"", "letterbox"),
            ("\"linear\"", "\"area\"", "area"),
            ("\"SPL\"", "\"SPS\"", "SPS"),
            ("[2.0, 1.0, 1.0]", "[2.0, 1.0]", "spacing_mm"),
            (
                "[2.0, 1.0, 1.0]",
                "[2.0, 0.0, 1.0]",
                "input.volume.spacing_mm",
            ),
            (
                "[2.0, 1.0, 1.0]",
                "[2.0, nan, 1.0]",
                "input.volume.spacing_mm",
            ),
            (
                "spacing_mm",
                "min_planes = 1\nspacing_mm",
                "input.volume.min_planes",
            ),
            (
                "spacing_mm",
                "max_gap_mm = 0.0\nspacing_mm",
                "input.volume.max_gap_mm",
            ),
            (
                "spacing_mm",
                "max_gap_mm = nan\nspacing_mm",
                "input.volume.max_gap_mm",
            ),
            (
                "spacing_mm",
                "distance_tolerance = 0.6\nspacing_mm",
                "input.volume.distance_tolerance",
            ),
            (
                "spacing_mm",
                "max_tilt_degrees = 90\nspacing_mm",
                "input.volume.max_tilt_degrees",
            ),
            (
                "spacing_mm",
                "max_oblique_degrees = -1\nspacing_mm",
                "input.volume.max_oblique_degrees",
            ),
            ("spacing_mm", "several = \"all\"\nspacing_mm", "all"),
            ("spacing_mm", "max_gap = 3\nspacing_mm", "max_gap"),
        ] {
            let text = volume_example();
            assert!(text.contains(from), "{from}");
            let refusal = Manifest::parse(&text.replace(from, to)).unwrap_err();
            assert!(refusal.contains(expected), "{to}: {refusal}");
        }
        let large = volume_example()
            .replace("depth = 4", "depth = 2048")
            .replace("rows = 8", "rows = 2048");
        let refusal = Manifest::parse(&large.replace("columns = 8", "columns = 2048"));
        assert!(refusal.unwrap_err().contains("voxels"));
    }
}
