//! `[explanation]`: pictures that say why.

use serde::{Deserialize, Serialize};

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
    /// How much the probability falls when a square is covered (Zeiler and Fergus 2014).
    Occlusion,
    /// A map that the graph gives: class activation, attention.
    ActivationMap,
    /// The boxes of a detection, drawn.
    Boxes,
    /// The outlines of a segmentation, drawn.
    Outlines,
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
