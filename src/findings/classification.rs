//! Probabilities of labels: activation, aggregation over the images of a unit, operating points.

use super::{Finding, Location, Sample};
use crate::model::Tensor;
use crate::model::manifest::{Activation, Aggregate, Classification, Label, Level, Priority};
use crate::refusal::Refusal;

/// Findings of a study: one per label and unit.
///
/// # Errors
/// `model-output-not-finite`, `model-output-not-probability` or `model-output-too-short`: a number
/// that is none is no finding.
pub fn read(
    output: &Classification,
    level: Level,
    samples: &[Sample],
) -> Result<Vec<Finding>, Refusal> {
    let mut activated = Vec::with_capacity(samples.len());
    for sample in samples {
        let said = sample.answers.first();
        let values = said
            .and_then(|said| said.outputs.first())
            .map(Tensor::to_f32);
        let values = activate(output, &values.unwrap_or_default())?;
        activated.push((values, &sample.location));
    }
    let mut findings = Vec::new();
    for group in units(level, activated) {
        for label in &output.labels {
            findings.extend(aggregate(output, level, label, &group)?);
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

fn activate(output: &Classification, values: &[f32]) -> Result<Vec<f64>, Refusal> {
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
    output: &Classification,
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
            area: None,
        }),
        _ => None,
    };
    let nth_highest = |place: usize| {
        let mut sorted: Vec<_> = probabilities.iter().collect();
        // Stable, so that the same study names the same image every time.
        sorted.sort_by(|left, right| right.0.total_cmp(&left.0));
        let (probability, location) = sorted.get(place.min(sorted.len()).saturating_sub(1))?;
        Some(finding(label, *probability, image(location)))
    };
    Ok(match output.aggregate {
        Aggregate::MeanTopK | Aggregate::Any => nth_highest(1).into_iter().collect(),
        Aggregate::Each => probabilities
            .iter()
            .map(|(probability, location)| finding(label, *probability, image(location)))
            .collect(),
        Aggregate::Max => nth_highest(1).into_iter().collect(),
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
        probability: Some(probability),
        threshold: Some(label.threshold),
        present,
        priority: if present {
            label.priority
        } else {
            Priority::Routine
        },
        location,
        measurements: Vec::new(),
        explanation: None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::dicom::uid::{SeriesInstanceUid, SopInstanceUid};
    use crate::findings::Said;
    use crate::model::TensorData;
    use crate::model::manifest::Code;

    fn output(activation: Activation, aggregate: Aggregate) -> Classification {
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
        Classification {
            tensor: "logits".to_owned(),
            activation,
            aggregate,
            top_k: None,
            at_least: None,
            labels: vec![label(0, "a"), label(1, "b")],
        }
    }

    fn row(values: Vec<f32>) -> Tensor {
        Tensor {
            shape: vec![values.len()],
            data: TensorData::F32(values),
        }
    }

    fn sample(values: impl Into<Vec<f32>>, series: &str, instance: &str) -> Sample {
        Sample {
            answers: vec![Said {
                outputs: vec![row(values.into())],
                flip: None,
            }],
            placement: None,
            location: Some(Location {
                series: Some(SeriesInstanceUid::parse(series).unwrap()),
                sop_instance: Some(SopInstanceUid::parse(instance).unwrap()),
                frame: None,
                area: None,
            }),
        }
    }

    fn probabilities(findings: &[Finding]) -> Vec<f64> {
        findings
            .iter()
            .map(|f| (f.probability.unwrap() * 1e6).round() / 1e6)
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
        let short = sample([0.0], "2.1", "2.2");
        let refusal = read(&output, Level::Instance, &[short]);
        assert_eq!(refusal.unwrap_err().code, "model-output-too-short");
    }
}
