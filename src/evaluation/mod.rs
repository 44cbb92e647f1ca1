//! How good a model is on labelled studies: figures with intervals, curves, subgroups.
//!
//! Pure: tables and messages come in, a [`Report`] comes out. What a figure is stands in [`figures`]
//! and [`agreement`], its interval in [`bootstrap`]; [`html`] shows a report to people. A figure that
//! is not defined (one class only, an empty denominator) is `null`, never a number.

pub mod agreement;
pub mod answer;
pub mod bootstrap;
pub mod figures;
pub mod html;
pub mod labels;
mod plot;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use agreement::Pair;
use answer::{Given, Task};
use bootstrap::{Draws, Interval};
use figures::{Bin, Case, Confusion};

/// A study that the model answered and whose truth is known.
#[derive(Debug, Clone)]
pub struct Subject {
    /// What the model said, by label.
    pub given: BTreeMap<String, Given>,
    /// What is true, by label; a label without it is unknown.
    pub truth: BTreeMap<String, f64>,
    /// Value of each grouping.
    pub groups: Vec<String>,
}

/// A number and its 95 % interval; `null` where not defined.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figure {
    /// The point estimate.
    pub value: Option<f64>,
    /// Percentile bootstrap.
    pub ci95: Interval,
}

/// What was evaluated.
#[derive(Debug, Clone, Serialize)]
pub struct Model {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// SHA-256 of the ONNX file.
    pub sha256: String,
    /// One line for people.
    pub title: String,
    /// What it is meant for.
    pub intended_use: String,
    /// `classification`, `regression`, `detection` or `segmentation`.
    pub kind: &'static str,
}

/// How.
#[derive(Debug, Clone, Serialize)]
pub struct Settings {
    /// Version of the gateway.
    pub gateway: &'static str,
    /// Version of ONNX Runtime, as the messages say.
    pub onnxruntime: String,
    /// Version of the preprocessing, as the messages say.
    pub preprocessing_version: String,
    /// Draws of the bootstrap.
    pub draws: usize,
    /// Seed of the bootstrap.
    pub seed: u64,
    /// Bins of the calibration error.
    pub bins: usize,
}

/// Where every study and every row went.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Account {
    /// Studies below the folder.
    pub studies: usize,
    /// Of these: counted in the figures.
    pub evaluated: usize,
    /// Studies with a row that the model gave no number for, by the code of the reason.
    pub left_out: BTreeMap<String, Vec<String>>,
    /// Studies without a row.
    pub without_label: Vec<String>,
    /// Rows without a study, by their key.
    pub without_study: Vec<String>,
    /// Files that could not be read.
    pub unreadable: Vec<String>,
}

/// A yes-or-no label.
#[derive(Debug, Clone, Serialize)]
pub struct Label {
    /// Its name.
    pub label: String,
    /// Its operating point, if there is one for the study.
    pub threshold: Option<f64>,
    /// Studies whose truth is known.
    pub studies: usize,
    /// Of these: those that have it.
    pub positives: usize,
    /// Counts at the operating point.
    pub confusion: Confusion,
    /// By the names of [`figures::NAMES`].
    pub figures: BTreeMap<&'static str, Figure>,
    /// False against true positive rate; empty when not defined or in a subgroup.
    pub roc: Vec<[f64; 2]>,
    /// The reliability diagram; empty when not defined or in a subgroup.
    pub calibration: Vec<Bin>,
}

/// A quantity.
#[derive(Debug, Clone, Serialize)]
pub struct Quantity {
    /// Its name.
    pub label: String,
    /// Studies whose truth is known.
    pub studies: usize,
    /// By the names of [`agreement::NAMES`].
    pub figures: BTreeMap<&'static str, Figure>,
    /// Predicted and actual, in the order of studies; empty in a subgroup.
    pub pairs: Vec<Pair>,
}

/// Labels that exclude each other: who is taken for whom.
#[derive(Debug, Clone, Serialize)]
pub struct Matrix {
    /// The labels, and `(none)` where a study has none of them.
    pub classes: Vec<String>,
    /// Studies: a row per true class, a column per most probable label.
    pub counts: Vec<Vec<u64>>,
    /// Fraction on the diagonal.
    pub accuracy: Figure,
}

/// The figures of a set of studies.
#[derive(Debug, Clone, Serialize)]
pub struct Part {
    /// Labels, in the model's order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Label>,
    /// Quantities, in the model's order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quantities: Vec<Quantity>,
}

/// The studies that share a value of a grouping.
#[derive(Debug, Clone, Serialize)]
pub struct Subgroup {
    /// The grouping.
    pub by: String,
    /// Their value; empty where a study has none.
    pub value: String,
    /// How many.
    pub studies: usize,
    /// Their figures.
    #[serde(flatten)]
    pub part: Part,
}

/// The whole evaluation.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// When it was made, RFC 3339.
    pub made_at: String,
    /// What was evaluated.
    pub model: Model,
    /// How.
    pub settings: Settings,
    /// Where every study went.
    pub account: Account,
    /// All evaluated studies.
    #[serde(flatten)]
    pub all: Part,
    /// Where labels exclude each other and the truth of every label is known.
    pub classes: Option<Matrix>,
    /// By grouping, then by value.
    pub subgroups: Vec<Subgroup>,
}

/// What the figures are made from.
pub struct Evaluation<'a> {
    /// What the labels are.
    pub task: Task,
    /// Labels to look at, and their operating points.
    pub labels: &'a [(String, Option<f64>)],
    /// Labels of the model.
    pub all_labels: usize,
    /// Names of the groupings.
    pub groupings: &'a [String],
    /// Studies.
    pub subjects: &'a [Subject],
    /// The bootstrap.
    pub draws: Draws,
}

impl Evaluation<'_> {
    /// Figures and curves of all studies.
    pub fn all(&self) -> Part {
        let everybody: Vec<&Subject> = self.subjects.iter().collect();
        self.part(&everybody, true)
    }

    /// Figures by grouping and value.
    pub fn subgroups(&self) -> Vec<Subgroup> {
        let mut subgroups = Vec::new();
        for (index, by) in self.groupings.iter().enumerate() {
            let value = |subject: &Subject| subject.groups.get(index).cloned().unwrap_or_default();
            let values: BTreeSet<String> = self.subjects.iter().map(value).collect();
            for wanted in values {
                let members: Vec<&Subject> = self
                    .subjects
                    .iter()
                    .filter(|s| value(s) == wanted)
                    .collect();
                subgroups.push(Subgroup {
                    by: by.clone(),
                    value: wanted,
                    studies: members.len(),
                    part: self.part(&members, false),
                });
            }
        }
        subgroups
    }

    fn part(&self, subjects: &[&Subject], curves: bool) -> Part {
        let mut part = Part {
            labels: Vec::new(),
            quantities: Vec::new(),
        };
        for (label, threshold) in self.labels {
            let known: Vec<(Given, f64)> = subjects
                .iter()
                .filter_map(|s| Some((*s.given.get(label)?, *s.truth.get(label)?)))
                .collect();
            if self.task == Task::Regression {
                part.quantities.push(self.quantity(label, &known, curves));
            } else {
                let label = self.label(label, *threshold, &known, curves);
                part.labels.push(label);
            }
        }
        part
    }

    fn label(
        &self,
        label: &str,
        threshold: Option<f64>,
        known: &[(Given, f64)],
        curves: bool,
    ) -> Label {
        let scored = matches!(self.task, Task::Classification { .. });
        let cases: Vec<Case> = known
            .iter()
            .map(|(given, truth)| Case {
                score: given.score,
                called: given.present,
                positive: *truth > 0.5,
            })
            .collect();
        let (groups, _) = figures::group(&cases);
        let values = figures::figures(&groups, scored);
        let intervals = bootstrap::label(&cases, scored, self.draws);
        let curves = curves && scored && !cases.is_empty();
        Label {
            label: label.to_owned(),
            threshold,
            studies: cases.len(),
            positives: cases.iter().filter(|case| case.positive).count(),
            confusion: figures::confusion(&groups),
            figures: named(figures::NAMES, values, intervals),
            roc: if curves {
                figures::roc(&groups)
            } else {
                Vec::new()
            },
            calibration: if curves {
                figures::calibration(&groups)
            } else {
                Vec::new()
            },
        }
    }

    fn quantity(&self, label: &str, known: &[(Given, f64)], curves: bool) -> Quantity {
        let pairs: Vec<Pair> = known
            .iter()
            .map(|(given, actual)| Pair {
                predicted: given.score,
                actual: *actual,
            })
            .collect();
        let values = agreement::figures(&pairs);
        let intervals = bootstrap::values(&pairs, agreement::figures, self.draws);
        Quantity {
            label: label.to_owned(),
            studies: pairs.len(),
            figures: named(agreement::NAMES, values, intervals),
            pairs: if curves { pairs } else { Vec::new() },
        }
    }

    /// Who is taken for whom: labels exclude each other, and the truth of all of them is known.
    pub fn classes(&self) -> Option<Matrix> {
        let exclusive = Task::Classification { exclusive: true };
        if self.task != exclusive || self.labels.len() != self.all_labels {
            return None;
        }
        let mut pairs: Vec<(usize, usize)> = Vec::new();
        for subject in self.subjects {
            let truth: Vec<f64> = self
                .labels
                .iter()
                .map(|(label, _)| subject.truth.get(label).copied())
                .collect::<Option<_>>()?;
            let mut is: Vec<usize> = (0..truth.len()).filter(|at| truth[*at] > 0.5).collect();
            let mut said: Option<(usize, f64)> = None;
            for (index, (label, _)) in self.labels.iter().enumerate() {
                let score = subject.given.get(label)?.score;
                // Of two that are as probable the first.
                if said.is_none_or(|(_, best)| score > best) {
                    said = Some((index, score));
                }
            }
            let is = match (is.pop(), is.pop()) {
                (Some(only), None) => only,
                (None, _) => self.labels.len(),
                // Labels that exclude each other, and a study that has two: there is no matrix.
                (Some(_), Some(_)) => return None,
            };
            pairs.push((is, said?.0));
        }
        let mut classes: Vec<String> = self.labels.iter().map(|(l, _)| l.clone()).collect();
        if pairs.iter().any(|(is, _)| *is == classes.len()) {
            classes.push("(none)".to_owned());
        }
        let mut counts = vec![vec![0; self.labels.len()]; classes.len()];
        for (is, said) in &pairs {
            if let Some(count) = counts
                .get_mut(*is)
                .and_then(|row: &mut Vec<u64>| row.get_mut(*said))
            {
                *count += 1;
            }
        }
        let accuracy = |pairs: &[(usize, usize)]| {
            let right = pairs.iter().filter(|(is, said)| is == said).count();
            [(!pairs.is_empty()).then(|| right as f64 / pairs.len() as f64)]
        };
        let [value] = accuracy(&pairs);
        let [ci95] = bootstrap::values(&pairs, accuracy, self.draws);
        Some(Matrix {
            classes,
            counts,
            accuracy: Figure { value, ci95 },
        })
    }
}

fn named<const N: usize>(
    names: [&'static str; N],
    values: [Option<f64>; N],
    intervals: [Interval; N],
) -> BTreeMap<&'static str, Figure> {
    let figures = values
        .into_iter()
        .zip(intervals)
        .map(|(value, ci95)| Figure {
            value,
            ci95: ci95.filter(|_| value.is_some()),
        });
    names.into_iter().zip(figures).collect()
}

#[cfg(test)]
mod tests;
