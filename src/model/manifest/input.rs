//! `[[input]]`: the tensors a model wants.

use std::collections::BTreeMap;

use dicom::core::dictionary::DataDictionary;
use dicom::dictionary_std::StandardDataDictionary;
use serde::{Deserialize, Serialize};

use super::{Level, Rule, VolumeSpec, bounded};
use crate::model::volume::{Several, VolumeTable};

/// Largest side of an input image.
const MAX_SIDE: usize = 8192;
/// Most columns of a feature row.
const MAX_FEATURES: usize = 65_536;

/// One `[[input]]` table: an image, a volume or a row of features, told apart by the layout.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Name of the tensor in the graph.
    pub name: String,
    /// What the series of this tensor is to the model, when it wants several, for example
    /// `pre-contrast`.
    pub role: Option<String>,
    /// Conditions that single out the series of this role.
    #[serde(default, rename = "where")]
    pub rules: Vec<Rule>,
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

/// An `[[input]]` table after validation, with its names.
#[derive(Debug, Clone)]
pub struct NamedInput {
    /// Name of the tensor in the graph.
    pub name: String,
    /// What its series is to the model.
    pub role: Option<String>,
    /// The tensor.
    pub spec: InputSpec,
}

/// Most inputs of a model.
const MAX_INPUTS: usize = 16;

/// What must hold when a model wants several series.
pub(super) fn check_roles(
    inputs: &[NamedInput],
    tables: &[Input],
    level: Level,
) -> Result<(), String> {
    if inputs.len() > MAX_INPUTS {
        return Err(format!("input: at most {MAX_INPUTS} tables are possible"));
    }
    if level != Level::Study {
        return Err("applies_to.level: a model of several inputs looks at a study".to_owned());
    }
    let mut seen = std::collections::BTreeSet::new();
    for (input, table) in inputs.iter().zip(tables) {
        let Some(role) = &input.role else {
            return Err(format!("input.role: is missing for `{}`", input.name));
        };
        super::bounded("input.role", role, 64)?;
        if !seen.insert(format!("role {role}")) || !seen.insert(format!("name {}", input.name)) {
            return Err(format!(
                "input.role, input.name: `{role}` is not the only one"
            ));
        }
        if table.rules.is_empty() {
            return Err(format!("input.where: is missing for `{role}`"));
        }
        for rule in &table.rules {
            rule.validate("input.where")?;
        }
        match &input.spec {
            InputSpec::Features(_) => {
                return Err("input.layout: NF cannot be one of several inputs".to_owned());
            }
            InputSpec::Volume(spec) if spec.table.several == Several::Each => {
                return Err(format!(
                    "input.volume.several: `{role}` is one volume, \"each\" can be several"
                ));
            }
            _ => {}
        }
    }
    Ok(())
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

/// One column of a feature row: of `sr`, `attribute` and `model` it has exactly one.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feature {
    /// Name for people and messages.
    pub name: String,
    /// A NUM content item of a structured report, by its concept name code.
    pub sr: Option<ConceptCode>,
    /// A DICOM attribute, by keyword, or keywords joined by `.` for the first items of sequences.
    pub attribute: Option<String>,
    /// Numbers that stand for the words of an attribute; any other word is refused.
    #[serde(default)]
    pub values: BTreeMap<String, f32>,
    /// What another model said of the study.
    pub model: Option<ModelOutput>,
    /// Value when it is absent; without it an absent value is a refusal.
    pub missing: Option<f32>,
}

/// The number that another model reports for a label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelOutput {
    /// Name of the model.
    pub name: String,
    /// Its label.
    pub label: String,
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

impl Input {
    pub(super) fn named(&self) -> Result<NamedInput, String> {
        Ok(NamedInput {
            name: self.name.clone(),
            role: self.role.clone(),
            spec: self.spec()?,
        })
    }

    pub(super) fn spec(&self) -> Result<InputSpec, String> {
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
        if self.features.len() > MAX_FEATURES {
            return Err(format!("input.features: more than {MAX_FEATURES}"));
        }
        for feature in &self.features {
            feature.validate()?;
        }
        Ok(InputSpec::Features(self.features.clone()))
    }
}

impl Feature {
    fn validate(&self) -> Result<(), String> {
        bounded("input.features.name", &self.name, 64)?;
        let sources = [
            self.sr.is_some(),
            self.attribute.is_some(),
            self.model.is_some(),
        ];
        if sources.into_iter().filter(|given| *given).count() != 1 {
            return Err(format!(
                "input.features: `{}` needs either `sr`, `attribute` or `model`",
                self.name
            ));
        }
        let known = |keyword: &str| StandardDataDictionary.by_name(keyword).is_some();
        if let Some(path) = &self.attribute
            && !path.split('.').all(known)
        {
            return Err(format!(
                "input.features.attribute: `{path}` is no keyword of DICOM"
            ));
        }
        if self.attribute.is_none() && !self.values.is_empty() {
            return Err(format!(
                "input.features.values: `{}` has no `attribute`",
                self.name
            ));
        }
        let finite = |value: &f32| value.is_finite();
        if !self.values.values().all(finite) {
            return Err(format!(
                "input.features.values: of `{}` are not finite",
                self.name
            ));
        }
        // A model may want to see that a value is absent, as NaN.
        if self.missing.is_some_and(f32::is_infinite) {
            return Err(format!(
                "input.features.missing: of `{}` is infinite",
                self.name
            ));
        }
        Ok(())
    }
}

fn one_f32() -> f32 {
    1.0
}
