//! `[applies_to]`, `[[validated_for]]` and `[[quality]]`: which studies a model looks at.

use serde::Deserialize;

use crate::model::selection::{Attribute, Pattern};

/// The unit a model looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
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
#[derive(Debug, Clone, Deserialize)]
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

/// A condition on one attribute. All tests that are given must hold; `not` turns the result around. What
/// is absent passes no test but `present = false`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Keyword of DICOM, keywords joined by `.` for items of sequences, or a derived name in
    /// `snake_case`.
    pub attribute: Attribute,
    /// One of its values equals this.
    pub equals: Option<Scalar>,
    /// One of its values is among these.
    pub any_of: Option<Vec<Scalar>>,
    /// One of its values matches this regular expression.
    pub matches: Option<Pattern>,
    /// All of its values are numbers from the first to the second, both included.
    pub range: Option<[f64; 2]>,
    /// It is there and not empty, or is not.
    pub present: Option<bool>,
    /// The condition must not hold.
    #[serde(default)]
    pub not: bool,
}

/// What a manifest compares with.
#[derive(Debug, Clone, PartialEq, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choose {
    /// All of them.
    #[default]
    All,
    /// The first by `order_by`.
    First,
}

/// A key to sort units by.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderBy {
    /// As in [`Rule::attribute`].
    pub attribute: Attribute,
    /// The largest first.
    #[serde(default)]
    pub descending: bool,
}

/// A flag on the quality of an image, by a statistic of its values.
#[derive(Debug, Clone, PartialEq, Deserialize)]
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

/// A statistic over the values of an image, or of the planes of a volume that are decoded, as
/// `input.value` and `input.window` make them and before they are resampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QualityFlag {
    /// The fraction of values at the lowest or highest that can occur is above the limit: where the
    /// ends of Bits Stored (0028,0101) come out, so with a window everything beyond it counts.
    Saturated,
    /// The standard deviation is below the limit, in the units of the values.
    Constant,
    /// The fraction of the outermost pixels (first and last row, first and last column) that are above
    /// the mean of the image is above the limit: the anatomy goes on beyond the image.
    Truncated,
}

impl QualityFlag {
    /// The code in messages.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Saturated => "image-saturated",
            Self::Constant => "image-constant",
            Self::Truncated => "image-truncated",
        }
    }
}

impl AppliesTo {
    /// What reading the table alone does not find.
    ///
    /// # Errors
    /// The key and the reason.
    pub(super) fn validate(&self, has_roles: bool) -> Result<(), String> {
        for rule in &self.rules {
            rule.validate("applies_to.where")?;
        }
        if self
            .max_instances
            .is_some_and(|most| most < self.min_instances)
        {
            return Err("applies_to.max_instances: is below min_instances".to_owned());
        }
        if let Some(group) = &self.group {
            super::bounded("applies_to.group", group, 64)?;
        }
        match self.choose {
            Choose::First if self.level == Level::Study && !has_roles => Err(
                "applies_to.choose: \"first\" is of instances or series; a study is one".to_owned(),
            ),
            Choose::First if self.order_by.is_empty() => {
                Err("applies_to.order_by: is missing, with choose = \"first\"".to_owned())
            }
            Choose::All if !self.order_by.is_empty() => {
                Err("applies_to.order_by: belongs to choose = \"first\"".to_owned())
            }
            _ if self.group.is_none() && self.rank != 0 => {
                Err("applies_to.rank: belongs to a group".to_owned())
            }
            _ => Ok(()),
        }
    }
}

impl Quality {
    pub(super) fn validate(&self) -> Result<(), String> {
        let fraction = self.flag != QualityFlag::Constant;
        if !self.limit.is_finite() || self.limit < 0.0 || (fraction && self.limit > 1.0) {
            return Err(format!("quality.limit: {} is out of range", self.limit));
        }
        Ok(())
    }
}

fn one() -> usize {
    1
}
