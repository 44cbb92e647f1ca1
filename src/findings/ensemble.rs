//! Several answers that become one: graphs of a model, models of an ensemble, mirror images.

use std::collections::BTreeMap;

use super::{Finding, Said, Sample, classification, regression};
use crate::model::manifest::{Combine, Ensemble, Label, ModelOutput};
use crate::model::{Manifest, OutputSpec, Tensor};
use crate::refusal::Refusal;

/// One number per label and graph for a sample: what `values` makes of an answer, a number per label,
/// averaged over the mirror images that the graph saw.
///
/// # Errors
/// Those of `values`; `model-output-too-short` when nothing was said.
pub(super) fn per_graph(
    sample: &Sample,
    values: impl Fn(&Tensor) -> Result<Vec<f64>, Refusal>,
) -> Result<Vec<Vec<f64>>, Refusal> {
    let nothing = || Refusal::new("model-output-too-short", "the model answered nothing");
    let mut graphs: Vec<Vec<Vec<f64>>> = Vec::new();
    for Said { outputs, flip } in &sample.answers {
        let values = values(outputs.first().ok_or_else(nothing)?)?;
        // What was said of the input itself comes first.
        match graphs.last_mut().filter(|_| flip.is_some()) {
            Some(graph) => graph.push(values),
            None => graphs.push(vec![values]),
        }
    }
    if graphs.is_empty() {
        return Err(nothing());
    }
    Ok(graphs.into_iter().map(|answers| mean(&answers)).collect())
}

/// The numbers of label `at` as one; `members` are numbers per label. `threshold` is what a vote is
/// cast by.
pub(super) fn combine(
    ensemble: Option<&Ensemble>,
    members: &[Vec<f64>],
    at: usize,
    threshold: f64,
) -> f64 {
    let numbers = members.iter().filter_map(|labels| labels.get(at)).copied();
    let count = members.len().max(1) as f64;
    match ensemble.map_or(Combine::Mean, |own| own.combine) {
        Combine::Mean => numbers.sum::<f64>() / count,
        Combine::Max => numbers.fold(f64::NEG_INFINITY, f64::max),
        Combine::Vote => numbers.filter(|number| *number >= threshold).count() as f64 / count,
    }
}

/// The number that a model reports for a label over a study: the highest of its findings, probability
/// or quantity. None of that label is 0: the model looked and has nothing to report.
pub fn number(findings: &[Finding], label: &str) -> f64 {
    let own = findings.iter().filter(|finding| finding.label == label);
    let numbers = own.filter_map(|finding| {
        let measured = finding.measurements.first().map(|measured| measured.value);
        finding.probability.or(measured)
    });
    numbers.max_by(f64::total_cmp).unwrap_or(0.0)
}

/// Findings of an ensemble of models from what its members said, in the manifest's order. They are
/// about the study: what was seen where is in the members' messages.
///
/// # Errors
/// `upstream-missing`: an ensemble without one of its members would be another ensemble.
pub fn read(
    manifest: &Manifest,
    said: &BTreeMap<ModelOutput, f64>,
) -> Result<Vec<Finding>, Refusal> {
    let ensemble = manifest.ensemble.as_ref();
    let combined = |label: &str, threshold: f64| {
        let mut numbers = Vec::new();
        for name in ensemble.iter().flat_map(|own| &own.models) {
            let (name, label) = (name.clone(), label.to_owned());
            let number = said.get(&ModelOutput {
                name: name.clone(),
                label,
            });
            numbers.push(vec![*number.ok_or_else(|| {
                Refusal::new(
                    "upstream-missing",
                    format!("the model `{name}`, a member of this one, gave no number"),
                )
            })?]);
        }
        Ok::<_, Refusal>(combine(ensemble, &numbers, 0, threshold))
    };
    let mut findings = Vec::new();
    match &manifest.output {
        OutputSpec::Classification(output) => {
            for label in &output.labels {
                let probability = combined(&label.label, label.threshold)?;
                let threshold = operating_point(ensemble, label);
                findings.push(classification::finding(label, probability, threshold, None));
            }
        }
        OutputSpec::Regression(output) => {
            for label in &output.labels {
                // Quantities are not voted on.
                let value = combined(&label.label, 0.0)?;
                findings.push(regression::finding(label, value, None));
            }
        }
        // Refused at load.
        OutputSpec::Detection(_) | OutputSpec::Segmentation(_) => {}
    }
    Ok(findings)
}

/// What the number of a label is compared with. Votes are counted, so it is a fraction of them.
pub(super) fn operating_point(ensemble: Option<&Ensemble>, label: &Label) -> f64 {
    ensemble
        .and_then(Ensemble::quorum)
        .unwrap_or(label.threshold)
}

fn mean(answers: &[Vec<f64>]) -> Vec<f64> {
    let count = answers.len() as f64;
    let columns = answers.first().map_or(0, Vec::len);
    let column = |at: usize| {
        answers
            .iter()
            .filter_map(|answer| answer.get(at))
            .sum::<f64>()
    };
    (0..columns).map(|at| column(at) / count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ensemble(combine: Combine) -> Ensemble {
        Ensemble {
            combine,
            folds: Vec::new(),
            models: Vec::new(),
            quorum: None,
        }
    }

    #[test]
    fn numbers_become_one() {
        let check = |combine, expected: f64| {
            let members = [0.25, 0.5, 0.75, 0.0].map(|number| vec![9.0, number]);
            let found = super::combine(Some(&ensemble(combine)), &members, 1, 0.5);
            assert_eq!(found, expected, "{combine:?}");
        };
        check(Combine::Mean, 0.375);
        check(Combine::Max, 0.75);
        // The threshold itself is a vote for it.
        check(Combine::Vote, 0.5);
        assert_eq!(combine(None, &[vec![0.25]], 0, 0.5), 0.25);
        assert_eq!(
            combine(
                Some(&ensemble(Combine::Max)),
                &[vec![-3.0], vec![-2.0]],
                0,
                0.0
            ),
            -2.0
        );
    }

    #[test]
    fn mirror_images_are_averaged_for_each_graph() {
        use crate::model::TensorData;
        use crate::model::manifest::Flip;
        let said = |value: f32, flip| Said {
            outputs: vec![Tensor {
                shape: vec![1],
                data: TensorData::F32(vec![value]),
            }],
            flip,
        };
        let sample = |answers| Sample {
            answers,
            location: None,
            placement: None,
        };
        let values = |tensor: &Tensor| Ok(tensor.to_f32().into_iter().map(f64::from).collect());
        let (a, b) = (Some(Flip::Horizontal), Some(Flip::Vertical));
        let two = sample(vec![
            said(1.0, None),
            said(2.0, a),
            said(6.0, b),
            said(10.0, None),
            said(20.0, a),
            said(30.0, b),
        ]);
        assert_eq!(per_graph(&two, values), Ok(vec![vec![3.0], vec![20.0]]));
        let refusal = per_graph(&sample(Vec::new()), values).map_err(|refusal| refusal.code);
        assert_eq!(refusal, Err("model-output-too-short"));
    }
}
