//! A model that combines what other models said of the study. It has no graph and decodes nothing.

use std::sync::Arc;

use super::table::accepted;
use super::{Case, Run, decode, enough};
use crate::features::Heard;
use crate::findings::{Outcome, ensemble};
use crate::spool::Entry;

pub(super) async fn run(case: &Case, candidates: &[Arc<Entry>], heard: Heard) -> Option<Run> {
    let served = Some(case.served.clone());
    let mut run = Run::new(served, Outcome::NoFinding(Vec::new()), Vec::new());
    let accepted = accepted(case, candidates);
    let (inputs, took) = match decode(case, move || Ok(accepted()?.0)).await {
        Err(refusal) => {
            run.outcome = Outcome::Failed(refusal);
            return Some(run);
        }
        Ok((inputs, _)) if inputs.is_empty() => return None,
        Ok(read) => read,
    };
    let manifest = &case.served.package.manifest;
    let findings = enough(manifest, inputs.len()).and_then(|()| ensemble::read(manifest, &heard));
    run.outcome = findings.map_or_else(Outcome::Skipped, Outcome::of);
    (run.inputs, run.decoded) = (inputs, took);
    Some(run)
}
