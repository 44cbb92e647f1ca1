//! `[ensemble]` and `flips`: several answers that become one.

use serde::{Deserialize, Serialize};

use super::{Activation, Aggregate, Layout, Level, Manifest, OutputSpec, is_name, is_sha256};

/// Graphs of a model, or models of an ensemble, at most: each answers for every sample.
const MAX_MEMBERS: usize = 16;

/// Several graphs of one contract, or several models with the same labels.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ensemble {
    /// How their answers become one.
    pub combine: Combine,
    /// Further ONNX files in the version's folder, beside `model.onnx`.
    #[serde(default)]
    pub folds: Vec<Fold>,
    /// Names of models; a manifest with them has no `[[input]]` and no ONNX file of its own.
    #[serde(default)]
    pub models: Vec<String>,
    /// Fraction of votes from which a label is present (`combine = "vote"`). Default 0.5.
    pub quorum: Option<f64>,
}

/// One further graph of an ensemble.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fold {
    /// File name in the version's folder.
    pub file: String,
    /// SHA-256 of the file, hex.
    pub sha256: String,
}

/// How answers become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Combine {
    /// The mean of the probabilities or quantities.
    Mean,
    /// The highest.
    Max,
    /// The fraction of members that are at or above the label's threshold; present from `quorum` on.
    Vote,
}

impl Combine {
    /// The word in manifests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Max => "max",
            Self::Vote => "vote",
        }
    }
}

/// A mirror image of the input (test-time augmentation).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Flip {
    /// Columns reversed.
    Horizontal,
    /// Rows reversed.
    Vertical,
    /// Planes reversed (volumes).
    Depth,
}

impl Ensemble {
    /// Fraction of votes from which a label is present; none when nobody votes.
    pub fn quorum(&self) -> Option<f64> {
        (self.combine == Combine::Vote).then(|| self.quorum.unwrap_or(0.5))
    }

    fn validate(&self, manifest: &Manifest) -> Result<(), String> {
        if self.folds.is_empty() == self.models.is_empty() {
            return Err("ensemble: needs either `folds` or `models`".to_owned());
        }
        let votes = matches!(manifest.output, OutputSpec::Classification(_));
        if self.combine == Combine::Vote && !votes {
            return Err(format!(
                "ensemble.combine: there is no vote on a {}",
                manifest.output.kind()
            ));
        }
        if self.quorum.is_some() && self.combine != Combine::Vote {
            return Err("ensemble.quorum: belongs to combine = \"vote\"".to_owned());
        }
        if self.quorum.is_some_and(|part| !(part > 0.0 && part <= 1.0)) {
            return Err("ensemble.quorum: must be above 0 and at most 1".to_owned());
        }
        if self.folds.len() >= MAX_MEMBERS || self.models.len() > MAX_MEMBERS {
            return Err(format!(
                "ensemble: more than {MAX_MEMBERS} answers per sample"
            ));
        }
        for (at, fold) in self.folds.iter().enumerate() {
            fold.validate()?;
            let earlier = self.folds.iter().take(at);
            let own = manifest.sha256.as_str();
            let known = |digest: &str| digest.eq_ignore_ascii_case(&fold.sha256);
            if known(own) || earlier.clone().any(|other| known(&other.sha256)) {
                return Err(format!(
                    "ensemble.folds: `{}` is the same graph as another one",
                    fold.file
                ));
            }
            if earlier.clone().any(|other| other.file == fold.file) {
                return Err(format!("ensemble.folds: `{}` is listed twice", fold.file));
            }
        }
        for (at, name) in self.models.iter().enumerate() {
            if !is_name(name) {
                return Err(format!("ensemble.models: `{name}` is no name of a model"));
            }
            if self.models.iter().take(at).any(|other| other == name) {
                return Err(format!("ensemble.models: `{name}` is listed twice"));
            }
        }
        if self.models.len() == 1 {
            return Err("ensemble.models: at least two are needed".to_owned());
        }
        Ok(())
    }
}

impl Fold {
    fn validate(&self) -> Result<(), String> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let plain = self.file.len() <= 64 && self.file.chars().all(legal);
        let graph = self.file.ends_with(".onnx") && self.file != "model.onnx";
        if !plain || !graph || self.file.starts_with('.') {
            return Err(format!(
                "ensemble.folds.file: `{}` is no name of a further ONNX file beside model.onnx",
                self.file
            ));
        }
        if !is_sha256(&self.sha256) {
            return Err("ensemble.folds.sha256: must be 64 hexadecimal digits".to_owned());
        }
        Ok(())
    }
}

impl Manifest {
    /// What `[ensemble]` and `flips` ask of the other tables.
    pub(super) fn validate_combination(&self) -> Result<(), String> {
        if let Some(ensemble) = &self.ensemble {
            ensemble.validate(self)?;
        }
        if self.is_ensemble_of_models() {
            return self.validate_members();
        }
        let (tensor, aggregated) = match &self.output {
            OutputSpec::Classification(output) => (output.tensor.as_str(), true),
            OutputSpec::Regression(output) => (output.tensor.as_str(), true),
            OutputSpec::Detection(_) | OutputSpec::Segmentation(_) => ("", false),
        };
        if aggregated && tensor.is_empty() {
            return Err("output.tensor: is missing".to_owned());
        }
        for (at, flip) in self.flips.iter().enumerate() {
            if self.flips.iter().take(at).any(|other| other == flip) {
                return Err("flips: one is listed twice".to_owned());
            }
            for input in &self.input {
                let volume = matches!(input.layout, Layout::Ncdhw | Layout::Ndhwc);
                if input.layout == Layout::Nf {
                    return Err("flips: a row of features has no mirror image".to_owned());
                }
                if *flip == Flip::Depth && !volume {
                    return Err("flips: `depth` belongs to volumes".to_owned());
                }
            }
        }
        Ok(())
    }

    /// An ensemble of models has no graph, so nothing that is about one.
    fn validate_members(&self) -> Result<(), String> {
        let (tensor, aggregate, activation) = match &self.output {
            OutputSpec::Classification(output) => {
                (&output.tensor, output.aggregate, output.activation)
            }
            OutputSpec::Regression(output) => (&output.tensor, output.aggregate, Activation::None),
            OutputSpec::Detection(_) | OutputSpec::Segmentation(_) => {
                return Err(format!(
                    "ensemble.models: a {} cannot be combined",
                    self.output.kind()
                ));
            }
        };
        for (wrong, reason) in [
            (
                !self.input.is_empty(),
                "input: an ensemble of models has none",
            ),
            (
                !tensor.is_empty(),
                "output.tensor: an ensemble of models has none",
            ),
            (
                activation != Activation::None,
                "output.activation: must be \"none\" for an ensemble of models, its members give \
                 probabilities",
            ),
            (
                aggregate != Aggregate::Max,
                "output.aggregate: must be \"max\" for an ensemble of models: a member's highest \
                 finding of a label counts",
            ),
            (
                !self.flips.is_empty(),
                "flips: an ensemble of models has no input",
            ),
            (
                self.explanation.is_some(),
                "explanation: an ensemble of models has no graph",
            ),
            (
                self.applies_to.level != Level::Study,
                "applies_to.level: an ensemble of models looks at a study",
            ),
            (
                self.ensemble
                    .as_ref()
                    .is_some_and(|own| own.models.contains(&self.name)),
                "ensemble.models: a model is no member of itself",
            ),
        ] {
            if wrong {
                return Err(reason.to_owned());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::EXAMPLE;
    use super::*;

    const FOLDS: &str = r#"
        [ensemble]
        combine = "vote"
        quorum = 0.6
        folds = [{ file = "two.onnx", sha256 = "1111111111111111111111111111111111111111111111111111111111111111" }]
    "#;
    const MODELS: &str = r#"
        name = "all"
        version = "1"
        title = "t"
        intended_use = "t"
        licence = "MIT"
        device_uid = "2.25.1"
        [applies_to]
        level = "study"
        [ensemble]
        combine = "mean"
        models = ["one", "two"]
        [output]
        kind = "classification"
        activation = "none"
        aggregate = "max"
        [[output.labels]]
        index = 0
        label = "opacity"
        code = { scheme = "SCT", value = "1", meaning = "Opacity" }
        threshold = 0.5
        priority = "urgent"
    "#;

    fn refused(text: &str, changes: &[(&str, &str, &str)]) {
        assert!(Manifest::parse(text).is_ok(), "{:?}", Manifest::parse(text));
        for (from, to, expected) in changes {
            assert!(text.contains(from), "{from}");
            let refusal = Manifest::parse(&text.replacen(from, to, 1)).unwrap_err();
            assert!(refusal.contains(expected), "{to}: {refusal}");
        }
    }

    #[test]
    fn each_wrong_value_of_folds_is_refused_with_its_key() {
        let text = format!("flips = [\"horizontal\", \"vertical\"]\n{EXAMPLE}{FOLDS}");
        let (ones, zeros) = ("1".repeat(64), "0".repeat(64));
        refused(
            &text,
            &[
                (
                    "\"vertical\"",
                    "\"horizontal\"",
                    "flips: one is listed twice",
                ),
                (
                    "\"vertical\"",
                    "\"depth\"",
                    "flips: `depth` belongs to volumes",
                ),
                ("\"vertical\"", "\"diagonal\"", "diagonal"),
                ("quorum = 0.6", "quorum = 0.0", "ensemble.quorum: must be"),
                ("quorum = 0.6", "quorum = 1.1", "ensemble.quorum: must be"),
                ("quorum = 0.6", "quorum = nan", "ensemble.quorum: must be"),
                ("\"vote\"", "\"mean\"", "ensemble.quorum: belongs to"),
                ("two.onnx", "../two.onnx", "ensemble.folds.file"),
                ("two.onnx", ".onnx", "ensemble.folds.file"),
                ("two.onnx", "model.onnx", "ensemble.folds.file"),
                (&ones, "11", "ensemble.folds.sha256"),
                (&ones, &zeros, "same graph as another"),
                (
                    "quorum = 0.6",
                    "models = [\"a\", \"b\"]",
                    "either `folds` or `models`",
                ),
                ("tensor = \"logits\"", "", "output.tensor: is missing"),
            ],
        );
    }

    #[test]
    fn each_wrong_value_of_an_ensemble_of_models_is_refused_with_its_key() {
        let manifest = Manifest::parse(MODELS).unwrap();
        assert!(manifest.is_ensemble_of_models() && manifest.tensors().is_empty());
        let digest = format!("sha256 = \"{}\"\ntitle", "0".repeat(64));
        refused(
            MODELS,
            &[
                ("title", &digest, "sha256: an ensemble"),
                (
                    "title",
                    "flips = [\"vertical\"]\ntitle",
                    "flips: an ensemble",
                ),
                ("\"study\"", "\"instance\"", "applies_to.level"),
                ("\"none\"", "\"sigmoid\"", "output.activation"),
                ("\"max\"", "\"mean\"", "output.aggregate"),
                ("kind", "tensor = \"p\"\nkind", "output.tensor"),
                (
                    "\"two\"",
                    "\"one\"",
                    "ensemble.models: `one` is listed twice",
                ),
                (
                    "\"two\"",
                    "\"all\"",
                    "ensemble.models: a model is no member",
                ),
                ("\"two\"", "\"Two\"", "ensemble.models: `Two` is no name"),
                (", \"two\"", "", "ensemble.models: at least two"),
                ("[\"one\", \"two\"]", "[]", "ensemble: needs either"),
            ],
        );
        let input = EXAMPLE.split("[[input]]").nth(1).unwrap();
        let input = input.split("[output]").next().unwrap();
        let text = format!("{MODELS}\n[[input]]{input}");
        let refusal = Manifest::parse(&text).unwrap_err();
        assert!(
            refusal.contains("input: an ensemble of models"),
            "{refusal}"
        );
    }
}
