//! `model.toml`: what a model applies to, the tensors it wants and what its outputs mean.
//!
//! The file is read strictly: an unknown key is an error, because a misspelt threshold that is
//! silently ignored is a wrong finding. `docs/models.md` documents every key and
//! `docs/schema/model.v1.json` is the JSON Schema. One file per table; what is checked across tables is
//! checked here.

mod applies;
mod combine;
mod explanation;
mod input;
mod numbers;
mod output;
mod reference;
mod serving;
mod shapes;
mod ucum;

use std::collections::BTreeMap;

use serde::Deserialize;

pub use super::volume::VolumeSpec;
pub use crate::priority::Priority;
pub use applies::{AppliesTo, Choose, Level, OrderBy, Quality, QualityFlag, Rule, Scalar};
pub use combine::{Combine, Ensemble, Flip, Fold};
pub use explanation::{Explanation, Method};
pub use input::{
    ConceptCode, DType, Feature, Fit, ImageSpec, Input, InputSpec, Interpolation, Layout,
    ModelOutput, NamedInput, ValueSpace, Window,
};
pub use output::{
    Activation, Aggregate, BoxFormat, Classification, Code, Coordinates, Detection, Label, Nms,
    OutputSpec, Quantity, Region, Regression, Reported, Segmentation,
};
pub use reference::Reference;
pub use serving::{Batching, Limits};

/// A model as its author describes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Short name: lower-case letters, digits and `-`; part of routing keys.
    pub name: String,
    /// Version, and the folder that holds `model.onnx`.
    pub version: String,
    /// SHA-256, hex. In the file: of `model.onnx`; absent from an ensemble of models. In a loaded
    /// package: of all that answers, see [`super::repository`].
    #[serde(default)]
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
    /// The tensors it wants; none for an ensemble of models.
    #[serde(default)]
    pub input: Vec<Input>,
    /// What its outputs mean.
    pub output: OutputSpec,
    /// What it was validated for; a study outside of it is skipped.
    #[serde(default)]
    pub validated_for: Vec<Rule>,
    /// Flags on the input's quality.
    #[serde(default)]
    pub quality: Vec<Quality>,
    /// Several graphs, or several models, that answer as one.
    pub ensemble: Option<Ensemble>,
    /// Flipped copies of the input whose answers are averaged, besides the input itself.
    #[serde(default)]
    pub flips: Vec<Flip>,
    /// Pictures that say why.
    pub explanation: Option<Explanation>,
    /// How samples are batched.
    #[serde(default)]
    pub batching: Batching,
    /// What the model may use.
    #[serde(default)]
    pub limits: Limits,
    /// Distribution of the scores that the author expects.
    #[serde(default)]
    pub reference: Vec<Reference>,
}

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

    /// The only input, after validation.
    ///
    /// # Errors
    /// The key and the reason; a model of several inputs has [`Self::inputs`].
    pub fn input(&self) -> Result<(&str, InputSpec), String> {
        match self.input.as_slice() {
            [input] => Ok((&input.name, input.spec()?)),
            _ => Err(format!(
                "input: exactly one [[input]] table is expected, found {}",
                self.input.len()
            )),
        }
    }

    /// The inputs after validation, in the order in which a sample's tensors go to the engine.
    ///
    /// # Errors
    /// The key and the reason.
    pub fn inputs(&self) -> Result<Vec<NamedInput>, String> {
        self.input.iter().map(input::Input::named).collect()
    }

    /// The same model with other operating points, by label.
    ///
    /// # Errors
    /// The label and the reason.
    pub fn with_thresholds(&self, thresholds: &BTreeMap<&str, f64>) -> Result<Self, String> {
        let mut changed = self.clone();
        for (label, threshold) in thresholds {
            changed.output.set_threshold(label, *threshold)?;
        }
        changed.output.validate()?;
        Ok(changed)
    }

    /// Output tensors of the graph that are read, in the order of answers; the explanation's map, if
    /// the graph has one, is the last.
    pub fn tensors(&self) -> Vec<&str> {
        if self.is_ensemble_of_models() {
            return Vec::new();
        }
        let map = self.explanation.as_ref().and_then(|e| e.tensor.as_deref());
        self.output.tensors().into_iter().chain(map).collect()
    }

    /// Whether it has no graph of its own and combines what other models say.
    pub fn is_ensemble_of_models(&self) -> bool {
        let ensemble = self.ensemble.as_ref();
        ensemble.is_some_and(|ensemble| !ensemble.models.is_empty())
    }

    /// Other models' numbers that are columns of its rows.
    pub fn upstream(&self) -> impl Iterator<Item = &ModelOutput> {
        let features = self.input.iter().flat_map(|input| &input.features);
        features.filter_map(|feature| feature.model.as_ref())
    }

    /// Whether one of [`Self::tensors`] can be read: `shape` with the batch, -1 for any size.
    ///
    /// # Errors
    /// The manifest's key and what the graph says instead.
    pub fn fits(&self, tensor: &str, shape: &[i64]) -> Result<(), String> {
        match &self.explanation {
            Some(map) if map.tensor.as_deref() == Some(tensor) => {
                map.fits(&self.output, tensor, shape)
            }
            _ => self.output_fits(tensor, shape),
        }
    }

    fn validate(&self) -> Result<(), String> {
        if !is_name(&self.name) {
            return Err(format!(
                "name: `{}` must be 1 to 64 of a-z, 0-9 and `-`, and not start or end with `-`",
                self.name
            ));
        }
        if !is_version(&self.version) {
            return Err(format!("version: `{}` is not a version", self.version));
        }
        self.validate_combination()?;
        let members = self.is_ensemble_of_models();
        if members && !self.sha256.is_empty() {
            return Err("sha256: an ensemble of models has no file, leave it out".to_owned());
        }
        if !members && !is_sha256(&self.sha256) {
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
        self.batching.validate()?;
        self.limits.validate()?;
        self.validate_combination()?;
        let inputs = self.inputs()?;
        self.applies_to.validate(inputs.len() > 1)?;
        for rule in &self.validated_for {
            rule.validate("validated_for")?;
        }
        for quality in &self.quality {
            quality.validate()?;
        }
        if let Some(explanation) = &self.explanation {
            let [input] = inputs.as_slice() else {
                return Err("explanation: belongs to a model of one input".to_owned());
            };
            explanation.validate(&self.output, &input.spec)?;
        }
        reference::validate(&self.reference, &self.output.labels())?;
        let level = self.applies_to.level;
        match inputs.as_slice() {
            [] if members => {}
            [] => return Err("input: at least one [[input]] table is needed".to_owned()),
            [input] => match input.spec {
                _ if input.role.is_some() || self.input.iter().any(|i| !i.rules.is_empty()) => {
                    return Err(
                        "input.role, input.where: belong to a model of several inputs; there is \
                         applies_to.where"
                            .to_owned(),
                    );
                }
                InputSpec::Features(_) if level != Level::Study => {
                    return Err("applies_to.level: a model of features looks at a study".to_owned());
                }
                InputSpec::Volume(_) if level != Level::Series => {
                    return Err("applies_to.level: a model of volumes looks at a series".to_owned());
                }
                _ => {}
            },
            several => input::check_roles(several, &self.input, level)?,
        }
        self.output.validate()?;
        match inputs.first() {
            Some(first) => self.validate_shapes(&first.spec),
            None => Ok(()),
        }
    }
}

/// Whether `text` is a SHA-256 in hexadecimal.
pub(crate) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
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

/// Whether `version` may be the name of a version's folder.
pub fn is_version(version: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+');
    (1..=64).contains(&version.len()) && version.chars().all(legal) && !version.starts_with('.')
}

#[cfg(test)]
pub(crate) use tests::EXAMPLE;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
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
