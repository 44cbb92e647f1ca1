//! The order of the models in a study, and what goes from one to the next.

use std::collections::BTreeMap;

use super::Run;
use crate::features::Heard;
use crate::findings::ensemble::number;
use crate::findings::{Finding, Outcome};
use crate::model::manifest::ModelOutput;
use crate::model::{Manifest, chain};
use crate::registry::Served;

/// The models, each after those it builds on. That there is such an order was checked at load.
pub(super) fn in_order(models: &[Served]) -> Vec<Served> {
    let manifests: Vec<&Manifest> = models.iter().map(|m| &m.package.manifest).collect();
    match chain::order(&manifests) {
        Ok(order) => order
            .into_iter()
            .filter_map(|at| models.get(at).cloned())
            .collect(),
        Err(_) => models.to_vec(),
    }
}

/// What the models that ran before said of the study, by name. One that was skipped, failed or did not
/// apply is not in it.
#[derive(Clone, Default)]
pub(crate) struct Earlier(BTreeMap<String, Vec<Finding>>);

impl Earlier {
    /// What the runs of a study said.
    pub fn of(runs: &[Run]) -> Self {
        let mut earlier = Self::default();
        for run in runs {
            if let Some(model) = &run.model {
                earlier.note(&model.package.manifest, &run.outcome);
            }
        }
        earlier
    }

    /// Takes note of what a model said, if it did and nothing is known of it: models build on what is
    /// published, not on a shadow.
    pub fn note(&mut self, manifest: &Manifest, outcome: &Outcome) {
        if let Outcome::Finding(said) | Outcome::NoFinding(said) = outcome {
            self.0
                .entry(manifest.name.clone())
                .or_insert_with(|| said.clone());
        }
    }

    /// The numbers of other models that `manifest` needs, as far as they are there.
    pub fn heard(&self, manifest: &Manifest) -> Heard {
        let number = |wanted: ModelOutput| {
            let said = self.0.get(&wanted.name)?;
            let number = number(said, &wanted.label);
            Some((wanted, number))
        };
        let wanted = chain::wanted(manifest).into_iter();
        wanted.filter_map(number).collect()
    }
}
