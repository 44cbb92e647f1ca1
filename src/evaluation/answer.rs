//! What a message says of each label of a study.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::model::OutputSpec;

/// What the labels of a model are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Probabilities; with `exclusive` of labels that exclude each other.
    Classification {
        /// One of the labels is true, or none.
        exclusive: bool,
    },
    /// Boxes or regions: a label is there or it is not, without a probability of the study.
    Presence,
    /// Quantities.
    Regression,
}

impl Task {
    /// The task of a manifest.
    pub fn of(output: &OutputSpec) -> Self {
        use crate::model::manifest::Activation;
        match output {
            OutputSpec::Classification(output) => Self::Classification {
                exclusive: output.activation == Activation::Softmax,
            },
            OutputSpec::Detection(_) | OutputSpec::Segmentation(_) => Self::Presence,
            OutputSpec::Regression(_) => Self::Regression,
        }
    }
}

/// Labels of a model, in its order, with their operating points.
pub fn labels(output: &OutputSpec) -> Vec<(String, Option<f64>)> {
    let thresholds: Vec<Option<f64>> = match output {
        OutputSpec::Classification(output) => {
            output.labels.iter().map(|l| Some(l.threshold)).collect()
        }
        // What makes a box, a region or a quantity present is not one number of the study.
        _ => Vec::new(),
    };
    let thresholds = thresholds.into_iter().chain(std::iter::repeat(None));
    let labels = output.labels().into_iter();
    labels
        .map(|label| label.label.to_owned())
        .zip(thresholds)
        .collect()
}

/// One label of a study.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Given {
    /// The highest probability of the study's units, or the quantity; 0 where there is none.
    pub score: f64,
    /// Present in any unit.
    pub present: bool,
}

/// What the message says of each label.
///
/// # Errors
/// The code of the reason why it says nothing that can be counted.
pub fn read(
    message: &Value,
    task: Task,
    labels: &[String],
) -> Result<BTreeMap<String, Given>, String> {
    let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str);
    if let Some(code) = text("/data/reason/code") {
        return Err(code.to_owned());
    }
    let remarks = message.pointer("/data/quality").and_then(Value::as_array);
    let code = |remark: &Value| remark.get("code").and_then(Value::as_str) == Some(TRUNCATED);
    if remarks.into_iter().flatten().any(code) {
        return Err(TRUNCATED.to_owned());
    }
    let findings = message.pointer("/data/findings").and_then(Value::as_array);
    let findings: Vec<&Value> = findings.into_iter().flatten().collect();
    let mut given = BTreeMap::new();
    for label in labels {
        let of_label =
            |finding: &&&Value| finding.get("label").and_then(Value::as_str) == Some(label);
        let of_label: Vec<&Value> = findings.iter().filter(of_label).copied().collect();
        let scores = |pointer: &str| -> Vec<f64> {
            let number = |finding: &&Value| finding.pointer(pointer).and_then(Value::as_f64);
            of_label.iter().filter_map(number).collect()
        };
        let score = match task {
            Task::Presence => 0.0,
            Task::Classification { .. } => scores("/probability")
                .into_iter()
                .reduce(f64::max)
                .ok_or("no-probability")?,
            Task::Regression => match scores("/measurements/0/value").as_slice() {
                [value] => *value,
                [] => return Err("no-measurement".to_owned()),
                _ => return Err("several-measurements".to_owned()),
            },
        };
        let present =
            |finding: &&Value| finding.get("present").and_then(Value::as_bool) == Some(true);
        given.insert(
            label.clone(),
            Given {
                score,
                present: of_label.iter().any(present),
            },
        );
    }
    Ok(given)
}

/// The remark of a message that does not list all findings.
const TRUNCATED: &str = "findings-truncated";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    const CLASSES: Task = Task::Classification { exclusive: false };

    #[test]
    fn the_highest_of_the_units_speaks_for_the_study() {
        let finding = |p: f64| json!({"label": "a", "probability": p, "present": p >= 0.5});
        let message = json!({"data": {"findings": [finding(0.2), finding(0.7)], "quality": []}});
        let given = read(&message, CLASSES, &["a".to_owned()]).unwrap();
        assert_eq!((given["a"].score, given["a"].present), (0.7, true));
        let unknown = read(&message, CLASSES, &["b".to_owned()]);
        assert_eq!(unknown.unwrap_err(), "no-probability");
        let boxes = read(&message, Task::Presence, &["b".to_owned()]).unwrap();
        assert!(!boxes["b"].present);
    }

    #[test]
    fn what_cannot_be_counted_says_why() {
        let refused = json!({"data": {"reason": {"code": "no-pixel-data"}}});
        assert_eq!(read(&refused, CLASSES, &[]).unwrap_err(), "no-pixel-data");
        let truncated = json!({"data": {"quality": [{"code": "findings-truncated"}]}});
        assert_eq!(
            read(&truncated, CLASSES, &[]).unwrap_err(),
            "findings-truncated"
        );
        let quantity = |value: f64| json!({"label": "a", "measurements": [{"value": value}]});
        let message = json!({"data": {"findings": [quantity(1.5), quantity(2.0)]}});
        let several = read(&message, Task::Regression, &["a".to_owned()]);
        assert_eq!(several.unwrap_err(), "several-measurements");
    }
}
