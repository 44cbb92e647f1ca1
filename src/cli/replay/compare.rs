//! Two messages about the same: what is the same, what differs, and by how much.

use std::collections::BTreeMap;

use serde_json::Value;

/// Numbers that are closer than this, relative to numbers above 1, are the same.
const TOLERANCE: f64 = 1e-6;

/// One line of the comparison.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    /// What is compared.
    pub what: String,
    /// What the message says.
    pub then: String,
    /// What the replay says.
    pub now: String,
    /// The verdict.
    pub verdict: Verdict,
}

/// What a comparison found.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    /// Exactly.
    Same,
    /// Within the tolerance; the largest difference.
    Near(f64),
    /// Told, and no reason to call the result another one.
    Aside(&'static str),
    /// Not the same; where, and by how much if it is a number.
    Differs(String),
}

impl Verdict {
    pub fn differs(&self) -> bool {
        matches!(self, Self::Differs(_))
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Same => f.write_str("same"),
            Self::Near(by) => write!(f, "same, off by {by:.0e}"),
            Self::Aside(reason) => write!(f, "{reason}"),
            Self::Differs(how) => write!(f, "DIFFERS{how}"),
        }
    }
}

/// What decides, by its place in the message.
const DECIDES: [(&str, &str); 7] = [
    ("model digest", "/data/model/sha256"),
    ("instance set", "/data/inputs/instance_set_digest"),
    ("input digest", "/data/inputs/input_digest"),
    ("inputs", "/data/inputs/count"),
    ("preprocessing", "/data/inputs/preprocessing_version"),
    ("outcome", "/data/outcome"),
    ("reason", "/data/reason/code"),
];
/// What may explain a difference and is none by itself.
const ASIDE: [(&str, &str); 3] = [
    ("ONNX Runtime", "/data/runtime/onnxruntime"),
    ("provider", "/data/runtime/provider"),
    ("gateway", "/data/runtime/gateway"),
];
/// Keys of a finding that name files of one gateway.
const FILES: [&str; 3] = ["explanation", "reference", "mask"];

/// Compares a message with its replay.
pub(super) fn compare(then: &Value, now: &Value) -> Vec<Line> {
    let text = |message: &Value, pointer: &str| message.pointer(pointer).map(plain);
    let mut lines = Vec::new();
    for (what, pointer) in DECIDES {
        let (then, now) = (text(then, pointer), text(now, pointer));
        if then.is_none() && now.is_none() {
            continue;
        }
        let verdict = match (&then, &now) {
            // Messages of earlier releases have none.
            (None, _) if what == "input digest" => Verdict::Aside("not in the message"),
            _ if then == now => Verdict::Same,
            _ => Verdict::Differs(String::new()),
        };
        lines.push(line(what, then, now, verdict));
    }
    lines.extend(findings(then, now));
    for (what, pointer) in ASIDE {
        let (then, now) = (text(then, pointer), text(now, pointer));
        let verdict = match then == now {
            true => Verdict::Same,
            false => Verdict::Aside("another"),
        };
        lines.push(line(what, then, now, verdict));
    }
    lines
}

fn line(what: &str, then: Option<String>, now: Option<String>, verdict: Verdict) -> Line {
    Line {
        what: what.to_owned(),
        then: then.unwrap_or_else(|| "-".to_owned()),
        now: now.unwrap_or_else(|| "-".to_owned()),
        verdict,
    }
}

/// Findings of the same label and place, in their order.
fn findings(then: &Value, now: &Value) -> Vec<Line> {
    let (mut then, mut now) = (by_place(then), by_place(now));
    let places: Vec<_> = then.keys().chain(now.keys()).cloned().collect();
    let mut lines = Vec::new();
    for place in places {
        let (then, now) = (then.remove(&place), now.remove(&place));
        if then.is_none() && now.is_none() {
            continue;
        }
        let verdict = match (then, now) {
            (Some(then), Some(now)) => difference(then, now),
            _ => Verdict::Differs(", only one has it".to_owned()),
        };
        let label = format!("finding {}", place.1);
        lines.push(line(&label, then.map(number), now.map(number), verdict));
    }
    lines
}

/// Place in the list of findings of the same label, image and frame; label; image and frame.
type Place = (usize, String, String);

fn by_place(message: &Value) -> BTreeMap<Place, &Value> {
    let mut findings = BTreeMap::new();
    let list = message.pointer("/data/findings").and_then(Value::as_array);
    for finding in list.into_iter().flatten() {
        let text = |pointer: &str| finding.pointer(pointer).map(plain).unwrap_or_default();
        let place = ["series_instance_uid", "sop_instance_uid", "frame"]
            .map(|key| text(&format!("/location/{key}")))
            .join(" ");
        let mut key = (0, text("/label"), place);
        while findings.contains_key(&key) {
            key.0 += 1;
        }
        findings.insert(key, finding);
    }
    findings
}

/// What of a finding fits into a table.
fn number(finding: &Value) -> String {
    let probability = finding.get("probability");
    let value = probability.or_else(|| finding.pointer("/measurements/0/value"));
    let number = value.map(plain).unwrap_or_default();
    let present = finding.get("present").and_then(Value::as_bool) == Some(true);
    format!("{number}{}", if present { " *" } else { "" })
}

fn difference(then: &Value, now: &Value) -> Verdict {
    let (mut worst, mut other) = (0.0, Vec::new());
    walk("", then, now, &mut worst, &mut other);
    match other.as_slice() {
        [] if worst == 0.0 => Verdict::Same,
        [] => Verdict::Near(worst),
        _ => Verdict::Differs(format!(": {}", other.join(", "))),
    }
}

fn walk(path: &str, then: &Value, now: &Value, worst: &mut f64, other: &mut Vec<String>) {
    match (then, now) {
        (Value::Number(left), Value::Number(right)) => {
            let (Some(left), Some(right)) = (left.as_f64(), right.as_f64()) else {
                return;
            };
            let off = (left - right).abs();
            if off > TOLERANCE * left.abs().max(1.0) {
                other.push(format!("{path} by {off:.1e}"));
            } else {
                *worst = worst.max(off);
            }
        }
        (Value::Object(left), Value::Object(right)) => {
            let mut keys: Vec<&String> = left.keys().chain(right.keys()).collect();
            keys.sort();
            keys.dedup();
            keys.retain(|key| !FILES.contains(&key.as_str()));
            for key in keys {
                let none = &Value::Null;
                let (left, right) = (left.get(key), right.get(key));
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                walk(
                    &path,
                    left.unwrap_or(none),
                    right.unwrap_or(none),
                    worst,
                    other,
                );
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (index, (left, right)) in left.iter().zip(right).enumerate() {
                walk(&format!("{path}[{index}]"), left, right, worst, other);
            }
        }
        _ if then == now => {}
        _ => other.push(path.to_owned()),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(probability: f64) -> Value {
        let finding = |frame: u64, probability: f64| {
            json!({"label": "a", "probability": probability, "threshold": 0.5,
                   "present": probability >= 0.5, "location": {"frame": frame},
                   "explanation": {"reference": probability.to_string()}})
        };
        json!({"data": {
            "outcome": "finding",
            "model": {"sha256": "ab"},
            "runtime": {"onnxruntime": "1.28.0", "provider": "cpu", "gateway": "0.1.0"},
            "inputs": {"instance_set_digest": "cd", "input_digest": "ef"},
            "findings": [finding(1, probability), finding(2, 0.1)],
        }})
    }

    fn verdicts(then: &Value, now: &Value) -> Vec<(String, Verdict)> {
        let lines = compare(then, now).into_iter();
        lines
            .map(|line| (line.what, line.verdict))
            .filter(|(_, verdict)| *verdict != Verdict::Same)
            .collect()
    }

    #[test]
    fn the_same_is_the_same_whatever_the_names_of_files() {
        let mut other = message(0.9);
        other["data"]["findings"][0]["explanation"]["reference"] = json!("elsewhere");
        assert_eq!(verdicts(&message(0.9), &other), []);
    }

    #[test]
    fn numbers_may_be_off_by_a_millionth() {
        let near = verdicts(&message(0.9), &message(0.900_000_5));
        assert!(matches!(near.as_slice(), [(_, Verdict::Near(by))] if *by < 1e-6));
        let off = verdicts(&message(0.9), &message(0.91));
        let how = ": probability by 1.0e-2".to_owned();
        assert_eq!(off, [("finding a".to_owned(), Verdict::Differs(how))]);
    }

    #[test]
    fn what_is_missing_or_new_differs() {
        let mut less = message(0.9);
        if let Some(findings) = less["data"]["findings"].as_array_mut() {
            findings.pop();
        }
        assert!(verdicts(&message(0.9), &less)[0].1.differs());
        assert!(verdicts(&less, &message(0.9))[0].1.differs());
        let mut other = message(0.9);
        other["data"]["findings"][1]["threshold"] = json!(0.6);
        let found = verdicts(&message(0.9), &other);
        assert_eq!(
            found[0].1,
            Verdict::Differs(": threshold by 1.0e-1".to_owned())
        );
    }

    #[test]
    fn another_runtime_is_told_and_does_not_decide() {
        let mut other = message(0.9);
        other["data"]["runtime"]["onnxruntime"] = json!("1.29.0");
        let told = ("ONNX Runtime".to_owned(), Verdict::Aside("another"));
        assert_eq!(verdicts(&message(0.9), &other), [told]);
        let mut old = message(0.9);
        if let Some(inputs) = old["data"]["inputs"].as_object_mut() {
            inputs.remove("input_digest");
        }
        let lines = verdicts(&old, &message(0.9));
        assert_eq!(lines[0].1, Verdict::Aside("not in the message"));
        // The other way round something is lost.
        assert!(verdicts(&message(0.9), &old)[0].1.differs());
    }
}
