//! `[ensemble]` and `flips`: several answers that become one.

use serde::{Deserialize, Serialize};

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
    /// The mean of the probabilities.
    Mean,
    /// The highest.
    Max,
    /// The fraction of members that are at or above the threshold.
    Vote,
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
