//! Quantities with units: what the graph says is the value.

use super::aggregate::{Rule, findings};
use super::ensemble::{combine, per_graph};
use super::{Finding, Location, Measurement, Sample};
use crate::model::manifest::{Priority, Quantity, Regression};
use crate::model::{Manifest, Tensor};
use crate::refusal::Refusal;

/// Findings of a study: one per quantity and unit.
///
/// # Errors
/// `model-output-not-finite`, `model-output-too-short` or `model-output-implausible`, whichever graph or
/// mirror image it comes from; `too-few-instances`.
pub fn read(
    manifest: &Manifest,
    output: &Regression,
    samples: &[Sample],
) -> Result<Vec<Finding>, Refusal> {
    let ensemble = manifest.ensemble.as_ref();
    let mut numbers = Vec::with_capacity(samples.len());
    for sample in samples {
        let graphs = per_graph(sample, |tensor| quantities(output, tensor))?;
        let labels = 0..output.labels.len();
        // Quantities are not voted on, so there is no threshold to vote by.
        let one = labels.map(|at| combine(ensemble, &graphs, at, 0.0));
        numbers.push(one.collect());
    }
    let rule = Rule {
        aggregate: output.aggregate,
        top_k: output.top_k,
        at_least: output.at_least,
    };
    let (level, labels) = (manifest.applies_to.level, &output.labels);
    findings(rule, level, samples, &numbers, |at, number, location| {
        finding(&labels[at], number, location)
    })
}

/// A value per label.
fn quantities(output: &Regression, tensor: &Tensor) -> Result<Vec<f64>, Refusal> {
    let values = tensor.to_f32();
    let mut quantities = Vec::with_capacity(output.labels.len());
    for label in &output.labels {
        let value = values.get(label.index).copied().map(f64::from);
        let value = value.ok_or_else(|| super::too_short(values.len()))?;
        if !value.is_finite() {
            return Err(super::not_finite());
        }
        if let Some([low, high]) = label.range
            && !(low..=high).contains(&value)
        {
            let (name, unit) = (&label.label, &label.unit);
            return Err(Refusal::new(
                "model-output-implausible",
                format!("`{name}` is {value} {unit}, outside {low} to {high}"),
            ));
        }
        quantities.push(value);
    }
    Ok(quantities)
}

/// The finding of a quantity: without a probability, present from its threshold on.
pub(super) fn finding(label: &Quantity, value: f64, location: Option<Location>) -> Finding {
    let present = label.threshold.is_some_and(|threshold| value >= threshold);
    Finding {
        label: label.label.clone(),
        code: label.code.clone(),
        probability: None,
        threshold: label.threshold,
        present,
        priority: if present {
            label.priority
        } else {
            Priority::Routine
        },
        location,
        measurements: vec![Measurement {
            code: label.code.clone(),
            value,
            unit: label.unit.clone(),
        }],
        explanation: None,
    }
}
