//! What the models see and say, as metrics: scores, positive rate, skips, inputs, drift.
//!
//! [`Monitor::observe`] is the one place that is told. Nothing here changes a message.
//!
//! Drift is the population stability index of a label's scores (Siddiqi, *Credit Risk Scorecards*,
//! 2006; Yurdakul, *Statistical Properties of Population Stability Index*, 2018) over a window of the
//! last studies, against the bins that the manifest's `[[reference]]` states.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::findings::Outcome;
use crate::model::manifest::Reference;
use crate::model::{Manifest, Prepared};
use crate::telemetry::Metrics;

/// Studies that the index looks back on.
const WINDOW: usize = 1000;
/// With fewer studies there is no index: chance alone would move it.
const MIN_STUDIES: usize = 100;
/// Stands for the fraction of an empty bin, whose logarithm is none. The usual choice: large enough
/// that one empty bin does not decide the sum.
const EMPTY: f64 = 1e-4;

/// The drift of one label.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Drift {
    /// The label.
    pub label: String,
    /// Population stability index; none until enough studies have been seen.
    pub psi: Option<f64>,
    /// Studies in the window.
    pub studies: usize,
}

/// Watches what models say.
pub struct Monitor {
    metrics: Arc<Metrics>,
    /// By model name and version, then by label. As many as there are installed references.
    windows: Mutex<BTreeMap<(String, String), BTreeMap<String, Window>>>,
}

impl Monitor {
    /// A monitor that has seen nothing.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            windows: Mutex::default(),
        }
    }

    /// One model and one study: the outcome, and what the model was given. No model: none applies.
    pub fn observe(&self, model: Option<&Manifest>, outcome: &Outcome, prepared: &[Prepared]) {
        if let Outcome::Skipped(refusal) = outcome {
            let name = model.map_or("", |manifest| manifest.name.as_str());
            self.metrics
                .skips_total
                .with_label_values(&[name, refusal.code])
                .inc();
        }
        let Some(manifest) = model else { return };
        self.inputs(manifest, prepared);
        // Without a number there is nothing to say about labels.
        if outcome.refusal().is_some() {
            return;
        }
        for label in manifest.output.labels() {
            self.label(manifest, label.label, outcome);
        }
    }

    fn inputs(&self, manifest: &Manifest, prepared: &[Prepared]) {
        let of = [manifest.name.as_str(), manifest.version.as_str()];
        let means = self.metrics.input_mean.with_label_values(&of);
        let deviations = self.metrics.input_deviation.with_label_values(&of);
        for (mean, deviation) in prepared.iter().filter_map(|sample| sample.statistics) {
            means.observe(mean);
            deviations.observe(deviation);
        }
    }

    fn label(&self, manifest: &Manifest, label: &str, outcome: &Outcome) {
        let (name, version) = (manifest.name.as_str(), manifest.version.as_str());
        let mut of_label = outcome
            .findings()
            .iter()
            .filter(|found| found.label == label);
        let present = match of_label.any(|found| found.present) {
            true => "true",
            false => "false",
        };
        self.metrics
            .findings_total
            .with_label_values(&[name, version, label, present])
            .inc();
        let Some(score) = outcome.score(label) else {
            return;
        };
        let of_label = outcome
            .findings()
            .iter()
            .filter(|found| found.label == label);
        if of_label.clone().any(|found| found.probability.is_some()) {
            self.metrics
                .score
                .with_label_values(&[name, version, label])
                .observe(score);
        }
        let Some(reference) = manifest.reference.iter().find(|r| r.label == label) else {
            return;
        };
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let window = windows
            .entry((name.to_owned(), version.to_owned()))
            .or_default()
            .entry(label.to_owned())
            .or_insert_with(|| Window::new(reference.clone()));
        window.add(score);
        if let Some(psi) = window.psi() {
            self.metrics
                .drift_psi
                .with_label_values(&[name, version, label])
                .set(psi);
        }
    }

    /// The drift of every label that has a reference and was seen since the start.
    pub fn drift(&self, name: &str, version: &str) -> Vec<Drift> {
        let windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let of_model = windows.get(&(name.to_owned(), version.to_owned()));
        let labels = of_model.into_iter().flatten();
        let drift = labels.map(|(label, window)| Drift {
            label: label.clone(),
            psi: window.psi(),
            studies: window.bins.len(),
        });
        drift.collect()
    }
}

/// The bins of the last studies.
struct Window {
    reference: Reference,
    bins: VecDeque<usize>,
}

impl Window {
    fn new(reference: Reference) -> Self {
        Self {
            reference,
            bins: VecDeque::with_capacity(WINDOW),
        }
    }

    fn add(&mut self, score: f64) {
        if self.bins.len() == WINDOW {
            self.bins.pop_front();
        }
        self.bins.push_back(self.reference.bin(score));
    }

    fn psi(&self) -> Option<f64> {
        if self.bins.len() < MIN_STUDIES {
            return None;
        }
        let mut counts = vec![0u32; self.reference.fractions.len()];
        for bin in &self.bins {
            if let Some(count) = counts.get_mut(*bin) {
                *count += 1;
            }
        }
        Some(psi(&self.reference.fractions, &counts))
    }
}

/// Σ (actual − expected) · ln(actual ÷ expected) over the bins; an empty bin counts as [`EMPTY`].
fn psi(expected: &[f64], counts: &[u32]) -> f64 {
    let all: f64 = counts.iter().copied().map(f64::from).sum();
    let terms = expected.iter().zip(counts).map(|(expected, count)| {
        let (actual, expected) = ((f64::from(*count) / all).max(EMPTY), expected.max(EMPTY));
        (actual - expected) * (actual / expected).ln()
    });
    terms.sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::findings::Finding;
    use crate::model::manifest::{Code, Priority};
    use crate::refusal::Refusal;

    fn manifest() -> Manifest {
        let text = include_str!("../tests/fixtures/monitor/model.toml");
        Manifest::parse(text).unwrap()
    }

    fn said(probability: f64) -> Outcome {
        let finding = |probability: f64| Finding {
            label: "opacity".to_owned(),
            code: Code {
                scheme: "99TEST".to_owned(),
                value: "1".to_owned(),
                meaning: "Opacity".to_owned(),
            },
            probability: Some(probability),
            threshold: Some(0.5),
            present: probability >= 0.5,
            priority: Priority::Routine,
            location: None,
            measurements: Vec::new(),
            explanation: None,
        };
        Outcome::of(vec![finding(0.0), finding(probability)])
    }

    /// By NumPy: `a = np.maximum([.5, .5, 0, 0], 1e-4); e = np.maximum([.7, .2, .1, 0], 1e-4);
    /// ((a - e) * np.log(a / e)).sum()`.
    #[test]
    fn the_index_is_what_numpy_computes() {
        let index = psi(&[0.7, 0.2, 0.1, 0.0], &[50, 50, 0, 0]);
        assert!((index - 1.0322664192568047).abs() < 1e-12, "{index}");
        assert!(psi(&[0.25, 0.75], &[25, 75]).abs() < 1e-15);
    }

    #[test]
    fn drift_waits_for_enough_studies_and_forgets_the_oldest() {
        let (metrics, manifest) = (Arc::new(Metrics::new().unwrap()), manifest());
        let monitor = Monitor::new(Arc::clone(&metrics));
        let drift = || monitor.drift("watched", "1.0.0");
        assert!(drift().is_empty());
        for _ in 0..MIN_STUDIES - 1 {
            monitor.observe(Some(&manifest), &said(0.9), &[]);
        }
        assert_eq!(
            (drift()[0].psi, drift()[0].studies),
            (None, MIN_STUDIES - 1)
        );
        monitor.observe(Some(&manifest), &said(0.9), &[]);
        let drifted = drift()[0].psi.unwrap();
        assert!(drifted > 0.25, "{drifted}");
        // The reference's own distribution again, for a whole window.
        for study in 0..WINDOW {
            let score = if study % 10 < 8 { 0.2 } else { 0.9 };
            monitor.observe(Some(&manifest), &said(score), &[]);
        }
        let settled = &drift()[0];
        assert_eq!(settled.studies, WINDOW);
        assert!(settled.psi.unwrap() < 1e-9, "{settled:?}");
        let gauge = metrics
            .drift_psi
            .with_label_values(&["watched", "1.0.0", "opacity"]);
        assert_eq!(Some(gauge.get()), settled.psi);
    }

    #[test]
    fn a_study_counts_once_whatever_the_number_of_its_findings() {
        let (metrics, manifest) = (Arc::new(Metrics::new().unwrap()), manifest());
        let monitor = Monitor::new(Arc::clone(&metrics));
        let prepared = Prepared {
            digest: [0; 32],
            statistics: Some((0.1, 1.0)),
        };
        monitor.observe(Some(&manifest), &said(0.9), &[prepared, prepared]);
        monitor.observe(Some(&manifest), &said(0.1), &[]);
        let skipped = Outcome::Skipped(Refusal::new("too-few-planes", "one plane"));
        monitor.observe(Some(&manifest), &skipped, &[]);
        monitor.observe(
            None,
            &Outcome::Skipped(Refusal::new("no-model-applies", "")),
            &[],
        );
        let text = metrics.render();
        for line in [
            "findings_total{label=\"opacity\",model=\"watched\",present=\"true\",version=\"1.0.0\"} 1",
            "findings_total{label=\"opacity\",model=\"watched\",present=\"false\",version=\"1.0.0\"} 1",
            "score_count{label=\"opacity\",model=\"watched\",version=\"1.0.0\"} 2",
            "input_mean_count{model=\"watched\",version=\"1.0.0\"} 2",
            "skips_total{code=\"too-few-planes\",model=\"watched\"} 1",
            "skips_total{code=\"no-model-applies\",model=\"\"} 1",
        ] {
            assert!(
                text.contains(&format!("pacs_gateway_{line}")),
                "{line}\n{text}"
            );
        }
    }
}
