//! Versions that look at a study and are not published: shadows, and the served version where the
//! canary answered.
//!
//! They run when the published messages are owed already, so nothing that they do can delay or lose
//! one. A bounded number of studies waits for them; beyond it a study is left out, and counted. What a
//! crash takes of their messages is not made again.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::examine::{self, Earlier, Run};
use super::{Pipeline, Rules, Served, report, spans};
use crate::findings::Outcome;
use crate::findings::event::StudyFacts;
use crate::inference::Turn;
use crate::ledger::Prior;
use crate::model::Role;
use crate::spool::Entry;

/// Studies that are shown to unpublished versions at the same time.
const AT_ONCE: usize = 2;
/// Studies that may wait for that.
const WAITING: usize = 256;

/// The studies that unpublished versions still have to look at.
pub struct Beside {
    running: Arc<Semaphore>,
    places: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl Default for Beside {
    fn default() -> Self {
        Self {
            running: Arc::new(Semaphore::new(AT_ONCE)),
            places: Arc::new(Semaphore::new(AT_ONCE + WAITING)),
            tasks: TaskTracker::new(),
        }
    }
}

/// A finished study, and who is to look at it too.
pub(super) struct Work {
    /// Those of the study.
    pub rules: Arc<Rules>,
    pub models: Vec<Served>,
    pub turn: Turn,
    /// What was published, for models that build on it.
    pub earlier: Earlier,
    pub entries: Vec<Arc<Entry>>,
    pub facts: StudyFacts,
    pub revision: u32,
    /// How often an operator has had the study done again.
    pub rerun: u32,
    /// What was published, by model.
    pub published: BTreeMap<String, Published>,
}

/// What was published of one model.
pub(super) struct Published {
    version: String,
    labels: Option<Labels>,
}

/// By label: its highest probability, and whether it is present anywhere.
type Labels = BTreeMap<String, (Option<f64>, bool)>;

impl Published {
    /// What the runs of a study said, by model.
    pub fn of(runs: &[Run]) -> BTreeMap<String, Self> {
        let said = runs.iter().filter_map(|run| {
            let manifest = &run.model.as_ref()?.package.manifest;
            let published = Self {
                version: manifest.version.clone(),
                labels: labels(&run.outcome),
            };
            Some((manifest.name.clone(), published))
        });
        said.collect()
    }
}

impl Beside {
    /// Shows a study to the versions that are not published, later.
    pub(super) fn look(&self, pipeline: &Arc<Pipeline>, work: Work) {
        if work.models.is_empty() {
            return;
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            pipeline.metrics.shadow_skipped_total.inc();
            return;
        };
        let (pipeline, running) = (Arc::clone(pipeline), Arc::clone(&self.running));
        self.tasks.spawn(async move {
            match running.acquire().await {
                Ok(_permit) => examine(&pipeline, work).await,
                Err(_) => pipeline.metrics.shadow_skipped_total.inc(),
            }
            drop(place);
        });
    }

    /// Waits for what is under way; what waits is left out.
    pub(super) async fn finish(&self) {
        self.running.close();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn examine(pipeline: &Arc<Pipeline>, work: Work) {
    let examined = {
        let Work {
            rules,
            models,
            turn,
            earlier,
            entries,
            ..
        } = &work;
        examine::examine(
            pipeline,
            &rules.sites,
            models,
            turn.clone(),
            earlier.clone(),
            false,
            entries,
        )
        .await
    };
    let study = work.facts.study_instance_uid.as_str();
    if let Some(trace) = pipeline.tracer.study(study, work.revision) {
        spans::models(&trace, trace.root(), &examined.runs);
    }
    let mut messages = Vec::new();
    // Nothing of theirs replaces anything.
    let prior = Prior {
        revision: work.revision - 1,
        rerun: work.rerun,
        ..Prior::default()
    };
    for run in &examined.runs {
        let Some(model) = &run.model else { continue };
        if let Some(published) = work.published.get(&model.package.manifest.name) {
            compare(pipeline, model, published, &run.outcome);
        }
        if model.role == Role::Shadow {
            messages.extend(report::message(pipeline, &work.facts, &prior, run, None));
        }
    }
    if messages.is_empty() {
        return;
    }
    match pipeline.ledger.owe(messages).await {
        Ok(()) => pipeline.outbox_wake.notify_one(),
        Err(err) => tracing::warn!(error = %err, "messages of shadows not kept"),
    }
}

fn compare(pipeline: &Pipeline, model: &Served, published: &Published, outcome: &Outcome) {
    let manifest = &model.package.manifest;
    let (name, other) = (manifest.name.as_str(), manifest.version.as_str());
    let metrics = &pipeline.metrics;
    for (agree, difference) in differences(published.labels.as_ref(), labels(outcome).as_ref()) {
        metrics
            .model_agreement_total
            .with_label_values(&[name, &published.version, other, agree])
            .inc();
        if let Some(difference) = difference {
            metrics
                .model_difference
                .with_label_values(&[name, other])
                .observe(difference);
        }
    }
}

/// One answer per label that either names, and how far apart the two are; `none` where one of them
/// gave no findings.
fn differences(one: Option<&Labels>, two: Option<&Labels>) -> Vec<(&'static str, Option<f64>)> {
    let (Some(one), Some(two)) = (one, two) else {
        return vec![("none", None)];
    };
    let all: std::collections::BTreeSet<&String> = one.keys().chain(two.keys()).collect();
    let answers = all.into_iter().map(|label| {
        let (one, two) = (one.get(label), two.get(label));
        // A label that one of them does not report is not present there.
        let present =
            |side: Option<&(Option<f64>, bool)>| side.is_some_and(|(_, present)| *present);
        let agree = if present(one) == present(two) {
            "yes"
        } else {
            "no"
        };
        let probability = |side: Option<&(Option<f64>, bool)>| side.and_then(|(p, _)| *p);
        let difference = probability(one).zip(probability(two));
        (agree, difference.map(|(one, two)| (one - two).abs()))
    });
    answers.collect()
}

/// None when there are no findings to speak of: skipped, failed.
fn labels(outcome: &Outcome) -> Option<Labels> {
    if outcome.refusal().is_some() {
        return None;
    }
    let mut labels = Labels::new();
    for finding in outcome.findings() {
        let (probability, present) = labels.entry(finding.label.clone()).or_default();
        *probability = match (*probability, finding.probability) {
            (Some(one), Some(two)) => Some(one.max(two)),
            (one, two) => one.or(two),
        };
        *present |= finding.present;
    }
    Some(labels)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn said(labels: &[(&str, f64, bool)]) -> Labels {
        let labels = labels.iter();
        labels
            .map(|(label, p, present)| ((*label).to_owned(), (Some(*p), *present)))
            .collect()
    }

    #[test]
    fn each_label_that_either_names_is_compared() {
        let one = said(&[("a", 0.75, true), ("b", 0.5, true), ("c", 0.25, false)]);
        let two = said(&[("a", 0.5, true), ("b", 0.25, false)]);
        assert_eq!(
            differences(Some(&one), Some(&two)),
            [("yes", Some(0.25)), ("no", Some(0.25)), ("yes", None)]
        );
        assert_eq!(differences(Some(&one), None), [("none", None)]);
        let nothing = Labels::new();
        assert_eq!(differences(Some(&nothing), Some(&nothing)), []);
    }
}
