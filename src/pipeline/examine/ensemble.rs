//! A model that combines what other models said of the study. It has no graph and decodes nothing.

use std::sync::Arc;

use super::{Case, Run};
use crate::features::Heard;
use crate::findings::{Outcome, ensemble};
use crate::spool::Entry;

pub(super) fn run(case: &Case, inputs: Vec<Arc<Entry>>, heard: &Heard) -> Run {
    let findings = ensemble::read(&case.served.package.manifest, heard);
    let outcome = findings.map_or_else(Outcome::Skipped, Outcome::of);
    Run::new(Some(case.served.clone()), outcome, inputs)
}
