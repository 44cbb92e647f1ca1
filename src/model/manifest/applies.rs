//! `[applies_to]`, `[[validated_for]]` and `[[quality]]`: which studies a model looks at.

use serde::{Deserialize, Serialize};

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
    /// More matching instances than this: the study is skipped with a reason.
    pub max_instances: Option<usize>,
    /// Calling AE titles.
    #[serde(default)]
    pub calling_ae: Vec<String>,
    /// Further conditions; all of them must hold.
    #[serde(default, rename = "where")]
    pub rules: Vec<Rule>,
    /// Which of several matching units are looked at.
    #[serde(default)]
    pub choose: Choose,
    /// Order of units for `choose`, the first key first.
    #[serde(default)]
    pub order_by: Vec<OrderBy>,
    /// Of the models of one group only the first that applies is run, by `rank`.
    pub group: Option<String>,
    /// Place in the group, lowest first.
    #[serde(default)]
    pub rank: u32,
}

/// A condition on one attribute. All tests that are given must hold; `not` turns the result around.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Keyword of DICOM, keywords joined by `.` for items of sequences, or a derived name in
    /// `snake_case`.
    pub attribute: String,
    /// One of its values equals this.
    pub equals: Option<Scalar>,
    /// One of its values is among these.
    pub any_of: Option<Vec<Scalar>>,
    /// One of its values matches this regular expression.
    pub matches: Option<String>,
    /// All of its values are numbers from the first to the second, both included.
    pub range: Option<[f64; 2]>,
    /// It is there and not empty, or is not.
    pub present: Option<bool>,
    /// The condition must not hold.
    #[serde(default)]
    pub not: bool,
}

/// What a manifest compares with.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Scalar {
    /// `true` or `false`, for derived names.
    Bool(bool),
    /// A number.
    Number(f64),
    /// Text; compared without regard to case and padding.
    Text(String),
}

/// Which of several units that match are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Choose {
    /// All of them.
    #[default]
    All,
    /// The first by `order_by`.
    First,
}

/// A key to sort units by.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct OrderBy {
    /// As in [`Rule::attribute`].
    pub attribute: String,
    /// The largest first.
    #[serde(default)]
    pub descending: bool,
}

/// What the model was validated for. A study for which it does not hold is skipped, coded.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct Guard {
    /// The condition.
    #[serde(flatten)]
    pub rule: Rule,
}

/// A flag on the quality of an image, by a statistic of its values.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Quality {
    /// The statistic.
    pub flag: QualityFlag,
    /// Beyond this the flag is raised.
    pub limit: f64,
    /// The study is skipped instead of only flagged.
    #[serde(default)]
    pub skip: bool,
}

/// A statistic over the values of an image before it is resampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum QualityFlag {
    /// Fraction of pixels at the lowest or highest value that can be stored is above the limit.
    Saturated,
    /// Standard deviation is below the limit.
    Constant,
    /// Fraction of border pixels that are brighter than the mean is above the limit: the anatomy goes
    /// on beyond the image.
    Truncated,
}

fn one() -> usize {
    1
}
