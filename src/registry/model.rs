//! A model and its versions, and which of them answers for a study.

use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::inference::{Engine, State};
use crate::model::repository::Installed;
use crate::model::{Package, Role};

/// A version of a model that runs.
#[derive(Clone)]
pub struct Served {
    /// Manifest and files.
    pub package: Arc<Package>,
    /// An engine for each of [`Package::graphs`], in that order.
    pub engines: Vec<Engine>,
    /// What it is there for.
    pub role: Role,
}

impl Served {
    /// Fenced when one of its graphs is: an ensemble answers with all of them or not at all.
    pub fn state(&self) -> State {
        let fenced = |engine: &&Engine| engine.state() == State::Fenced;
        match self.engines.iter().find(fenced) {
            Some(_) => State::Fenced,
            None => State::Serving,
        }
    }
}

/// A model and the versions of it that run.
#[derive(Clone)]
pub struct Model {
    /// Name.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// The version that answers.
    pub served: Served,
    /// The version that answers for a fraction of the studies, and the fraction in percent.
    pub canary: Option<(Served, f64)>,
    /// The versions that are not published.
    pub shadows: Vec<Served>,
    /// Every version in the folder.
    pub versions: Vec<String>,
}

/// Who looks at a study, of one model.
pub struct Choice {
    /// The version whose message is published.
    pub answers: Served,
    /// Versions that run afterwards: shadows, and the served one where the canary answers.
    pub beside: Vec<Served>,
}

impl Model {
    /// Every version that runs.
    pub fn running(&self) -> impl Iterator<Item = &Served> {
        let canary = self.canary.iter().map(|(served, _)| served);
        std::iter::once(&self.served)
            .chain(canary)
            .chain(&self.shadows)
    }

    /// Who looks at a study. Whatever arrives of it later, it is the same as long as the fraction is.
    pub fn choose(&self, study: &str) -> Choice {
        let shadows = self.shadows.iter().cloned();
        match &self.canary {
            Some((canary, percent)) if bucket(&self.name, study) < hundredths(*percent) => Choice {
                answers: canary.clone(),
                beside: std::iter::once(self.served.clone())
                    .chain(shadows)
                    .collect(),
            },
            _ => Choice {
                answers: self.served.clone(),
                beside: shadows.collect(),
            },
        }
    }

    /// Whether this is what the folder asks for.
    pub(super) fn is(&self, installed: &Installed) -> bool {
        let wanted = installed.canary.as_ref();
        let canary = self.canary.as_ref();
        let same = |served: &Served, package: &Package| served.package.identity == package.identity;
        same(&self.served, &installed.served)
            && self.versions == installed.versions
            && canary.map(|(_, percent)| percent) == wanted.map(|(_, percent)| percent)
            && canary.zip(wanted).is_none_or(|((a, _), (b, _))| same(a, b))
            && self.shadows.len() == installed.shadows.len()
            && self
                .shadows
                .iter()
                .zip(&installed.shadows)
                .all(|(a, b)| same(a, b))
    }
}

/// Where a study stands between 0 and 9999 for a model: SHA-256 of name, NUL and Study Instance UID,
/// as one number, modulo 10,000.
fn bucket(model: &str, study: &str) -> u32 {
    let digest = Sha256::new()
        .chain_update(model)
        .chain_update([0])
        .chain_update(study);
    let digest = digest.finalize();
    digest
        .iter()
        .fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % 10_000)
}

/// Percent in steps of 0.01; roles are checked to be 0 to 100 when they are read.
fn hundredths(percent: f64) -> u32 {
    (percent * 100.0).round() as u32
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_bucket_of_a_study_is_what_pythons_hashlib_says() {
        // int(hashlib.sha256(f"{model}\0{study}".encode()).hexdigest(), 16) % 10000
        for (model, study, expected) in [
            ("cxr-phantom", "1.2.3", 9067),
            ("cxr-phantom", "2.25.1", 5550),
            ("wdbc-forest", "1.2.3", 5282),
            ("m", "2.25.340282366920938463463374607431768211455", 7294),
        ] {
            assert_eq!(bucket(model, study), expected, "{model} {study}");
        }
    }

    #[test]
    fn percent_counts_in_hundredths() {
        for (percent, expected) in [
            (0.0, 0),
            (0.01, 1),
            (0.29, 29),
            (10.0, 1000),
            (100.0, 10_000),
        ] {
            assert_eq!(hundredths(percent), expected);
        }
    }
}
