//! `[explanation]`: pictures that say why.

use serde::{Deserialize, Serialize};

use super::{InputSpec, OutputSpec, bounded};
use crate::units::HumanDuration;

/// How a finding is explained.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explanation {
    /// What is shown.
    pub method: Method,
    /// Output tensor of the graph with a map per label, `[N, labels, rows, columns]`, or one for all,
    /// `[N, rows, columns]` (`activation-map`).
    pub tensor: Option<String>,
    /// Side of the square that is covered, in pixels of the input tensor (`occlusion`).
    #[serde(default = "patch")]
    pub patch: usize,
    /// Distance of one square to the next (`occlusion`).
    #[serde(default = "stride")]
    pub stride: usize,
    /// Time it may take for one study; what is missing then is left out with a remark (`occlusion`).
    #[serde(default = "budget")]
    pub budget: HumanDuration,
    /// Findings of a study that are explained at most, the most urgent and probable first.
    #[serde(default = "most")]
    pub max_findings: usize,
}

/// What is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// How far the odds fall when a square is covered (Zeiler and Fergus 2014).
    Occlusion,
    /// A map that the graph gives: class activation, attention.
    ActivationMap,
    /// The boxes of a detection, drawn.
    Boxes,
    /// The outlines of a segmentation, drawn.
    Outlines,
}

/// Squares of one image at most, each of which is a sample for the model.
const MAX_SQUARES: usize = 1024;
/// Findings of a study at most.
const MAX_FINDINGS: usize = 20;
/// A message does not wait longer.
const MAX_BUDGET: HumanDuration = HumanDuration::from_secs(300);

impl Explanation {
    /// Where the squares begin along a side of `size` pixels: every `stride`, and one that ends at
    /// the edge.
    pub fn starts(&self, size: usize) -> impl Iterator<Item = usize> + use<> {
        let last = size.saturating_sub(self.patch);
        (0..last).step_by(self.stride.max(1)).chain([last])
    }

    /// Whether the graph's map can be read: `shape` with the batch, -1 for any size.
    ///
    /// # Errors
    /// The manifest's key and what the graph says instead.
    pub fn fits(&self, output: &OutputSpec, tensor: &str, shape: &[i64]) -> Result<(), String> {
        let labels = match shape {
            [_, _, _] => return Ok(()),
            [_, labels, _, _] => *labels,
            _ => {
                return Err(format!(
                    "explanation.tensor: needs the shape [N, labels, rows, columns] or \
                     [N, rows, columns], the graph gives `{tensor}` {shape:?}"
                ));
            }
        };
        let beyond = |index: usize| usize::try_from(labels).is_ok_and(|labels| index >= labels);
        match output.labels().iter().find(|label| beyond(label.index)) {
            Some(label) => Err(format!(
                "explanation.tensor: `{}` has the index {}, the graph gives maps of {labels} labels",
                label.label, label.index
            )),
            None => Ok(()),
        }
    }

    pub(super) fn validate(&self, output: &OutputSpec, input: &InputSpec) -> Result<(), String> {
        let InputSpec::Image(image) = input else {
            return Err("explanation: only a model of images has pictures".to_owned());
        };
        let (wanted, task) = match (self.method, output) {
            (Method::Occlusion | Method::ActivationMap, OutputSpec::Classification(_))
            | (Method::Boxes, OutputSpec::Detection(_))
            | (Method::Outlines, OutputSpec::Segmentation(_)) => ("", ""),
            (Method::Occlusion | Method::ActivationMap, _) => ("classification", output.kind()),
            (Method::Boxes, _) => ("detection", output.kind()),
            (Method::Outlines, _) => ("segmentation", output.kind()),
        };
        let method = self.method.as_str();
        if wanted != task {
            return Err(format!(
                "explanation.method: `{method}` explains {wanted}, not {task}"
            ));
        }
        if self.tensor.is_some() != (self.method == Method::ActivationMap) {
            return Err(format!(
                "explanation.tensor: belongs to `activation-map` and to nothing else; \
                 the method is `{method}`"
            ));
        }
        if let Some(tensor) = &self.tensor {
            bounded("explanation.tensor", tensor, 256)?;
            if output.tensors().contains(&tensor.as_str()) {
                return Err(format!(
                    "explanation.tensor: `{tensor}` is the output itself"
                ));
            }
        }
        let side = image.rows.min(image.columns);
        if !(1..=side).contains(&self.patch) && self.method == Method::Occlusion {
            return Err(format!(
                "explanation.patch: {} is not between 1 and {side}, the input's shorter side",
                self.patch
            ));
        }
        if !(1..=self.patch).contains(&self.stride) && self.method == Method::Occlusion {
            return Err(format!(
                "explanation.stride: {} is not between 1 and the patch of {}",
                self.stride, self.patch
            ));
        }
        let squares = self.starts(image.rows).count() * self.starts(image.columns).count();
        if squares > MAX_SQUARES && self.method == Method::Occlusion {
            return Err(format!(
                "explanation.stride: {} makes {squares} squares, at most {MAX_SQUARES} are covered",
                self.stride
            ));
        }
        if self.budget.get().is_zero() || self.budget > MAX_BUDGET {
            return Err(format!(
                "explanation.budget: must be longer than zero and at most {MAX_BUDGET}"
            ));
        }
        if !(1..=MAX_FINDINGS).contains(&self.max_findings) {
            return Err(format!(
                "explanation.max_findings: must be 1 to {MAX_FINDINGS}"
            ));
        }
        Ok(())
    }
}

impl Method {
    /// The word in manifests and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Occlusion => "occlusion",
            Self::ActivationMap => "activation-map",
            Self::Boxes => "boxes",
            Self::Outlines => "outlines",
        }
    }
}

fn patch() -> usize {
    32
}

fn stride() -> usize {
    16
}

fn budget() -> HumanDuration {
    HumanDuration::from_secs(10)
}

fn most() -> usize {
    3
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Manifest;
    use super::super::tests::EXAMPLE;

    fn parse(explanation: &str) -> Result<Manifest, String> {
        Manifest::parse(&format!("{EXAMPLE}\n[explanation]\n{explanation}"))
    }

    #[test]
    fn each_wrong_value_is_refused_with_its_key() {
        let map = "method = \"activation-map\"\n";
        let squares = "method = \"occlusion\"\npatch = 4\nstride = 2\n";
        assert!(parse(squares).is_ok());
        for (text, key) in [
            ("method = \"occlusion\"".to_owned(), "explanation.patch"),
            (squares.replace("= 4", "= 0"), "explanation.patch"),
            (squares.replace("= 4", "= 9"), "explanation.patch"),
            (squares.replace("= 2", "= 0"), "explanation.stride"),
            (squares.replace("= 2", "= 5"), "explanation.stride"),
            (format!("{squares}tensor = \"maps\""), "explanation.tensor"),
            (map.to_owned(), "explanation.tensor"),
            (format!("{map}tensor = \"\""), "explanation.tensor"),
            (format!("{map}tensor = \"logits\""), "explanation.tensor"),
            (format!("{squares}budget = \"0s\""), "explanation.budget"),
            (format!("{squares}budget = \"6m\""), "explanation.budget"),
            (
                format!("{squares}max_findings = 0"),
                "explanation.max_findings",
            ),
            (
                format!("{squares}max_findings = 21"),
                "explanation.max_findings",
            ),
            (format!("{squares}patches = 3"), "patches"),
            ("method = \"boxes\"".to_owned(), "explanation.method"),
            ("method = \"outlines\"".to_owned(), "explanation.method"),
        ] {
            let refusal = parse(&text).unwrap_err();
            assert!(refusal.contains(key), "{text}: {refusal}");
        }
    }

    #[test]
    fn the_number_of_squares_is_bounded() {
        let large = EXAMPLE
            .replace("rows = 8", "rows = 256")
            .replace("columns = 8", "columns = 256");
        let with = |stride: usize| {
            let text = format!("method = \"occlusion\"\npatch = 8\nstride = {stride}");
            Manifest::parse(&format!("{large}\n[explanation]\n{text}"))
        };
        assert!(with(7).unwrap_err().contains("1369 squares"));
        assert!(with(8).is_ok());
    }

    #[test]
    fn squares_begin_at_every_stride_and_end_at_the_edge() {
        let starts = |size: usize| {
            let text = "method = \"occlusion\"\npatch = 4\nstride = 3";
            let explanation = parse(text).unwrap().explanation.unwrap();
            explanation.starts(size).collect::<Vec<_>>()
        };
        assert_eq!(starts(4), [0]);
        assert_eq!(starts(10), [0, 3, 6]);
        assert_eq!(starts(12), [0, 3, 6, 8]);
    }

    #[test]
    fn a_map_has_a_place_for_every_label() {
        let manifest = parse("method = \"activation-map\"\ntensor = \"maps\"").unwrap();
        assert_eq!(manifest.tensors(), ["logits", "maps"]);
        assert!(manifest.fits("maps", &[-1, 7, 7]).is_ok());
        assert!(manifest.fits("maps", &[-1, 1, 7, 7]).is_ok());
        assert!(manifest.fits("logits", &[-1, 7, 7]).is_err());
        for shape in [&[-1, 0, 7, 7][..], &[-1, 7], &[-1, 1, 1, 7, 7]] {
            let refusal = manifest.fits("maps", shape).unwrap_err();
            assert!(refusal.contains("explanation.tensor"), "{refusal}");
        }
    }
}
