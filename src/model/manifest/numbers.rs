//! What is checked of `kind = "classification"` and `kind = "regression"`: a number per label and
//! sample.

use super::output::thresholds;
use super::{Activation, Aggregate, Classification, Regression, ucum};

/// Samples that an aggregate may ask for.
const MAX_SAMPLES: usize = 100_000;

impl Classification {
    pub(super) fn fits(&self, tensor: &str, shape: &[i64]) -> Result<(), String> {
        let labels = self.labels.iter();
        let wanted: Vec<_> = labels.map(|l| (l.index, l.label.as_str())).collect();
        let columns = columns("classification", "labels", tensor, shape, &wanted)?;
        if columns == Some(1) && self.activation == Activation::Softmax {
            return Err(format!(
                "output.activation: manifest says softmax, the graph gives `{tensor}` one column, of \
                 which it would make 1 every time"
            ));
        }
        Ok(())
    }

    pub(super) fn validate(&self) -> Result<(), String> {
        aggregate(self.aggregate, self.top_k, self.at_least)?;
        thresholds(&self.labels)
    }
}

impl Regression {
    pub(super) fn fits(&self, tensor: &str, shape: &[i64]) -> Result<(), String> {
        let labels = self.labels.iter();
        let wanted: Vec<_> = labels.map(|l| (l.index, l.label.as_str())).collect();
        columns("regression", "quantities", tensor, shape, &wanted).map(|_| ())
    }

    pub(super) fn validate(&self) -> Result<(), String> {
        aggregate(self.aggregate, self.top_k, self.at_least)?;
        for label in &self.labels {
            ucum::check(&label.unit).map_err(|reason| {
                format!("output.labels.unit: `{}` {reason} (UCUM)", label.unit)
            })?;
            let range = label.range.unwrap_or([0.0, 1.0]);
            if !(range[0].is_finite() && range[1].is_finite() && range[0] < range[1]) {
                return Err(format!(
                    "output.labels.range: of `{}` must be two numbers, the lower first",
                    label.label
                ));
            }
            if label.threshold.is_some_and(|at| !at.is_finite()) {
                return Err(format!(
                    "output.labels.threshold: of `{}` is not a finite number",
                    label.label
                ));
            }
        }
        Ok(())
    }
}

/// Columns of an output tensor, if the graph says how many there are.
fn columns(
    kind: &str,
    what: &str,
    tensor: &str,
    shape: &[i64],
    labels: &[(usize, &str)],
) -> Result<Option<usize>, String> {
    let columns = match shape {
        [_] => 1,
        [_, columns] => *columns,
        _ => {
            return Err(format!(
                "output.tensor: {kind} needs the shape [N, {what}] or [N], the graph gives \
                 `{tensor}` {shape:?}"
            ));
        }
    };
    let columns = usize::try_from(columns).ok();
    for (index, label) in labels {
        if let Some(columns) = columns.filter(|columns| index >= columns) {
            return Err(format!(
                "output.labels.index: manifest says {index} for `{label}`, the graph gives {columns} \
                 values"
            ));
        }
    }
    Ok(columns)
}

fn aggregate(
    aggregate: Aggregate,
    top_k: Option<usize>,
    at_least: Option<usize>,
) -> Result<(), String> {
    for (key, value, owner, word) in [
        ("top_k", top_k, Aggregate::MeanTopK, "mean-top-k"),
        ("at_least", at_least, Aggregate::Any, "any"),
    ] {
        match value {
            None if aggregate == owner => {
                return Err(format!("output.{key}: is missing for `{word}`"));
            }
            Some(_) if aggregate != owner => {
                return Err(format!("output.{key}: belongs to aggregate = \"{word}\""));
            }
            Some(count) if !(1..=MAX_SAMPLES).contains(&count) => {
                return Err(format!("output.{key}: must be 1 to {MAX_SAMPLES}"));
            }
            _ => {}
        }
    }
    Ok(())
}
