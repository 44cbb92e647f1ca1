//! Probabilities of labels: activation, operating points.

use super::aggregate::{Rule, findings};
use super::ensemble::{combine, operating_point, per_graph};
use super::{Finding, Location, Sample};
use crate::model::manifest::{Activation, Classification, Label, Priority};
use crate::model::{Manifest, Tensor};
use crate::refusal::Refusal;

/// How far beyond 0 or 1 the sum of a few hundred trees' `f32` votes may end up; it is cut off.
const ROUNDING: f32 = 1e-5;

/// Findings of a study: one per label and unit.
///
/// # Errors
/// `model-output-not-finite`, `model-output-not-probability` or `model-output-too-short`: a number
/// that is none is no finding. `too-few-instances`.
pub fn read(
    manifest: &Manifest,
    output: &Classification,
    samples: &[Sample],
) -> Result<Vec<Finding>, Refusal> {
    let ensemble = manifest.ensemble.as_ref();
    let mut numbers = Vec::with_capacity(samples.len());
    for sample in samples {
        let graphs = per_graph(sample, |tensor| probabilities(output, tensor))?;
        let labels = output.labels.iter().enumerate();
        let one = labels.map(|(at, label)| combine(ensemble, &graphs, at, label.threshold));
        numbers.push(one.collect());
    }
    let rule = Rule {
        aggregate: output.aggregate,
        top_k: output.top_k,
        at_least: output.at_least,
    };
    let (level, labels) = (manifest.applies_to.level, &output.labels);
    findings(rule, level, samples, &numbers, |at, number, location| {
        let threshold = operating_point(ensemble, &labels[at]);
        finding(&labels[at], number, threshold, location)
    })
}

/// A probability per label, in the manifest's order, from the output tensor of one sample.
///
/// # Errors
/// See [`read`].
pub fn probabilities(output: &Classification, tensor: &Tensor) -> Result<Vec<f64>, Refusal> {
    let values = activate(output, &tensor.to_f32())?;
    let labels = output.labels.iter();
    labels
        .map(|label| {
            let value = values.get(label.index).copied();
            value.ok_or_else(|| super::too_short(values.len()))
        })
        .collect()
}

fn activate(output: &Classification, values: &[f32]) -> Result<Vec<f64>, Refusal> {
    if values.iter().any(|value| !value.is_finite()) {
        return Err(super::not_finite());
    }
    if output.activation == Activation::None
        && values
            .iter()
            .any(|value| !(-ROUNDING..=1.0 + ROUNDING).contains(value))
    {
        return Err(Refusal::new(
            "model-output-not-probability",
            "the model answered with a value outside 0 to 1, and its manifest states no activation",
        ));
    }
    let values = values.iter().map(|value| f64::from(*value));
    Ok(match output.activation {
        Activation::None => values.map(|value| value.clamp(0.0, 1.0)).collect(),
        Activation::Sigmoid => values.map(|value| 1.0 / (1.0 + (-value).exp())).collect(),
        Activation::Softmax => {
            let highest = values.clone().fold(f64::NEG_INFINITY, f64::max);
            let powers: Vec<f64> = values.map(|value| (value - highest).exp()).collect();
            let sum: f64 = powers.iter().sum();
            powers.into_iter().map(|power| power / sum).collect()
        }
    })
}

/// The finding of a probability: present from `threshold` on.
pub(super) fn finding(
    label: &Label,
    probability: f64,
    threshold: f64,
    location: Option<Location>,
) -> Finding {
    let present = probability >= threshold;
    Finding {
        label: label.label.clone(),
        code: label.code.clone(),
        probability: Some(probability),
        threshold: Some(threshold),
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
    use crate::model::manifest::{Aggregate, Code, Level};

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

    fn read(
        output: &Classification,
        level: Level,
        samples: &[Sample],
    ) -> Result<Vec<Finding>, Refusal> {
        let mut manifest = crate::findings::tests::manifest();
        manifest.applies_to.level = level;
        super::read(&manifest, output, samples)
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

    fn rounded(findings: &[Finding]) -> Vec<f64> {
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
        assert_eq!(rounded(&findings), [0.5, 0.952_574]);
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
        assert_eq!(rounded(&findings), [0.268_941, 0.731_059]);
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
        assert_eq!(rounded(&findings), [0.3, 0.0, 0.9, 0.0]);
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
        let nearly = sample([1.000_000_1, -1e-8], "2.1", "2.2");
        let findings = read(&none, Level::Instance, &[nearly]).unwrap();
        assert_eq!(rounded(&findings), [1.0, 0.0]);
        let refusal = read(&none, Level::Instance, &[sample([1.5, 0.0], "2.1", "2.2")]);
        assert_eq!(refusal.unwrap_err().code, "model-output-not-probability");
        let short = sample([0.0], "2.1", "2.2");
        let refusal = read(&output, Level::Instance, &[short]);
        assert_eq!(refusal.unwrap_err().code, "model-output-too-short");
    }

    #[test]
    fn a_series_of_too_few_images_does_not_hide_what_another_one_shows() {
        let mut output = output(Activation::None, Aggregate::Any);
        output.at_least = Some(2);
        let scout = sample([0.9, 0.9], "2.1", "2.11");
        let pair = |high: f32| {
            let images = ["2.21", "2.22"].map(|image| sample([high, 0.1], "2.2", image));
            [images.as_slice(), std::slice::from_ref(&scout)].concat()
        };
        let findings = read(&output, Level::Series, &pair(0.8)).unwrap();
        assert_eq!(rounded(&findings), [0.8, 0.1]);
        let refusal = read(&output, Level::Series, &pair(0.2)).unwrap_err();
        assert_eq!(refusal.code, "too-few-instances");
    }

    #[test]
    fn graphs_are_combined_before_images_are() {
        use crate::model::manifest::{Combine, Ensemble};
        let mut manifest = crate::findings::tests::manifest();
        let output = output(Activation::None, Aggregate::Max);
        // Two images, three graphs; the highest of a graph is not what decides.
        let images = [[0.2, 0.6, 0.4], [0.9, 0.1, 0.1]].map(|said| {
            let mut sample = sample([], "2.1", "2.2");
            let answers = said.map(|value| Said {
                outputs: vec![row(vec![value, 0.5])],
                flip: None,
            });
            sample.answers = answers.into();
            sample
        });
        for (combine, quorum, expected, threshold, present) in [
            (Combine::Mean, None, 0.4, 0.5, false),
            (Combine::Max, None, 0.9, 0.5, true),
            (Combine::Vote, None, 0.333_333, 0.5, false),
            (Combine::Vote, Some(0.3), 0.333_333, 0.3, true),
        ] {
            manifest.ensemble = Some(Ensemble {
                combine,
                folds: Vec::new(),
                models: Vec::new(),
                quorum,
            });
            let findings = super::read(&manifest, &output, &images).unwrap();
            assert_eq!(rounded(&findings)[0], expected, "{combine:?}");
            assert_eq!(findings[0].threshold, Some(threshold));
            assert_eq!(findings[0].present, present);
        }
    }
}
