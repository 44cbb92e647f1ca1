//! Probabilities of labels: activation, aggregation over the images of a unit, operating points.

use super::{Finding, Location};
use crate::model::OutputSpec;
use crate::model::manifest::{Activation, Aggregate, Label, Level, Priority};
use crate::refusal::Refusal;

/// The output row of one sample and the image it came from.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The tensor's row, before the activation.
    pub values: Vec<f32>,
    /// The image; none for a row of features.
    pub location: Option<Location>,
}

/// Findings of a study: one per label and unit.
///
/// # Errors
/// `model-output-not-finite`, `model-output-not-probability` or `model-output-too-short`: a number
/// that is none is no finding.
pub fn read(
    output: &OutputSpec,
    level: Level,
    samples: &[Sample],
) -> Result<Vec<Finding>, Refusal> {
    let mut activated = Vec::with_capacity(samples.len());
    for sample in samples {
        activated.push((activate(output, &sample.values)?, &sample.location));
    }
    let mut findings = Vec::new();
    for group in units(level, activated) {
        for label in &output.labels {
            findings.extend(aggregate(output.aggregate, level, label, &group)?);
        }
    }
    Ok(findings)
}

type Activated<'a> = (Vec<f64>, &'a Option<Location>);

/// Splits samples into units: by series, or all of the study together. Order of arrival is kept.
fn units(level: Level, samples: Vec<Activated<'_>>) -> Vec<Vec<Activated<'_>>> {
    if level != Level::Series {
        return vec![samples];
    }
    let mut units: Vec<Vec<Activated<'_>>> = Vec::new();
    for sample in samples {
        let series = |sample: &Activated<'_>| sample.1.as_ref().map(|at| at.series.clone());
        let same =
            |unit: &&mut Vec<Activated<'_>>| unit.first().map(series) == Some(series(&sample));
        match units.iter_mut().find(same) {
            Some(unit) => unit.push(sample),
            None => units.push(vec![sample]),
        }
    }
    units
}

fn activate(output: &OutputSpec, values: &[f32]) -> Result<Vec<f64>, Refusal> {
    if values.iter().any(|value| !value.is_finite()) {
        return Err(Refusal::new(
            "model-output-not-finite",
            "the model answered with a value that is no number",
        ));
    }
    if output.activation == Activation::None
        && values.iter().any(|value| !(0.0..=1.0).contains(value))
    {
        return Err(Refusal::new(
            "model-output-not-probability",
            "the model answered with a value outside 0 to 1, and its manifest states no activation",
        ));
    }
    let values = values.iter().map(|value| f64::from(*value));
    Ok(match output.activation {
        Activation::None => values.collect(),
        Activation::Sigmoid => values.map(|value| 1.0 / (1.0 + (-value).exp())).collect(),
        Activation::Softmax => {
            let highest = values.clone().fold(f64::NEG_INFINITY, f64::max);
            let powers: Vec<f64> = values.map(|value| (value - highest).exp()).collect();
            let sum: f64 = powers.iter().sum();
            powers.into_iter().map(|power| power / sum).collect()
        }
    })
}

fn aggregate(
    aggregate: Aggregate,
    level: Level,
    label: &Label,
    samples: &[Activated<'_>],
) -> Result<Vec<Finding>, Refusal> {
    let mut probabilities = Vec::with_capacity(samples.len());
    for (values, location) in samples {
        let probability = values.get(label.index).ok_or_else(|| {
            Refusal::new(
                "model-output-too-short",
                format!("the model answered with {} values", values.len()),
            )
        })?;
        probabilities.push((*probability, *location));
    }
    let image = |location: &Option<Location>| location.clone();
    let whole = |location: &Option<Location>| match (level, location) {
        (Level::Series, Some(at)) => Some(Location {
            series: at.series.clone(),
            sop_instance: None,
            frame: None,
        }),
        _ => None,
    };
    Ok(match aggregate {
        Aggregate::Each => probabilities
            .iter()
            .map(|(probability, location)| finding(label, *probability, image(location)))
            .collect(),
        // The first of equals wins, so the same study names the same image every time.
        Aggregate::Max => probabilities
            .iter()
            .rev()
            .max_by(|left, right| left.0.total_cmp(&right.0))
            .map(|(probability, location)| finding(label, *probability, image(location)))
            .into_iter()
            .collect(),
        Aggregate::Mean => probabilities
            .first()
            .map(|(_, location)| {
                let sum: f64 = probabilities
                    .iter()
                    .map(|(probability, _)| probability)
                    .sum();
                finding(label, sum / probabilities.len() as f64, whole(location))
            })
            .into_iter()
            .collect(),
    })
}

fn finding(label: &Label, probability: f64, location: Option<Location>) -> Finding {
    let present = probability >= label.threshold;
    Finding {
        label: label.label.clone(),
        code: label.code.clone(),
        probability,
        threshold: label.threshold,
        present,
        priority: if present {
            label.priority
        } else {
            Priority::Routine
        },
        location,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::dicom::uid::{SeriesInstanceUid, SopInstanceUid};
    use crate::model::manifest::{Code, Kind};

    fn output(activation: Activation, aggregate: Aggregate) -> OutputSpec {
        let label = |index: usize, label: &str| Label {
            index,
            label: label.to_owned(),
            code: Code {
                scheme: "99TEST".to_owned(),
                value: label.to_owned(),
                meaning: label.to_owned(),
            },
            threshold: 0.5,
            priority: Priority::Urgent,
        };
        OutputSpec {
            kind: Kind::Classification,
            tensor: "logits".to_owned(),
            activation,
            aggregate,
            labels: vec![label(0, "a"), label(1, "b")],
        }
    }

    fn sample(values: [f32; 2], series: &str, instance: &str) -> Sample {
        Sample {
            values: values.to_vec(),
            location: Some(Location {
                series: Some(SeriesInstanceUid::parse(series).unwrap()),
                sop_instance: Some(SopInstanceUid::parse(instance).unwrap()),
                frame: None,
            }),
        }
    }

    fn probabilities(findings: &[Finding]) -> Vec<f64> {
        findings
            .iter()
            .map(|f| (f.probability * 1e6).round() / 1e6)
            .collect()
    }

    #[test]
    fn the_highest_image_is_named() {
        let output = output(Activation::Sigmoid, Aggregate::Max);
        let samples = [
            sample([0.0, -2.0], "2.1", "2.11"),
            sample([-1.0, 3.0], "2.1", "2.12"),
        ];
        let findings = read(&output, Level::Instance, &samples).unwrap();
        assert_eq!(probabilities(&findings), [0.5, 0.952_574]);
        let image = |n: usize| findings[n].location.clone().unwrap().sop_instance.unwrap();
        assert_eq!((image(0).as_str(), image(1).as_str()), ("2.11", "2.12"));
        // The operating point belongs to "present".
        assert!(findings[0].present && findings[0].priority == Priority::Urgent);
    }

    #[test]
    fn softmax_adds_up_to_one_even_for_large_numbers() {
        let output = output(Activation::Softmax, Aggregate::Each);
        let findings = read(
            &output,
            Level::Study,
            &[sample([1000.0, 1001.0], "2.1", "2.2")],
        )
        .unwrap();
        assert_eq!(probabilities(&findings), [0.268_941, 0.731_059]);
    }

    #[test]
    fn series_are_units_of_their_own() {
        let output = output(Activation::None, Aggregate::Mean);
        let samples = [
            sample([0.2, 0.0], "2.1", "2.11"),
            sample([0.9, 0.0], "2.2", "2.21"),
            sample([0.4, 0.0], "2.1", "2.12"),
        ];
        let findings = read(&output, Level::Series, &samples).unwrap();
        assert_eq!(probabilities(&findings), [0.3, 0.0, 0.9, 0.0]);
        assert!(
            findings[0]
                .location
                .as_ref()
                .unwrap()
                .sop_instance
                .is_none()
        );
    }

    #[test]
    fn a_value_that_is_no_number_is_a_refusal() {
        let output = output(Activation::Sigmoid, Aggregate::Max);
        let refusal = read(
            &output,
            Level::Instance,
            &[sample([f32::NAN, 0.0], "2.1", "2.2")],
        );
        assert_eq!(refusal.unwrap_err().code, "model-output-not-finite");
        let none = self::output(Activation::None, Aggregate::Max);
        let refusal = read(&none, Level::Instance, &[sample([1.5, 0.0], "2.1", "2.2")]);
        assert_eq!(refusal.unwrap_err().code, "model-output-not-probability");
        let mut short = sample([0.0, 0.0], "2.1", "2.2");
        short.values.truncate(1);
        let refusal = read(&output, Level::Instance, &[short]);
        assert_eq!(refusal.unwrap_err().code, "model-output-too-short");
    }
}
