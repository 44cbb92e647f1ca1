//! From packages to engines that have proved themselves.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, ensure};
use tokio::task::spawn_blocking;

use super::{Config, Model, Served, golden};
use crate::child;
use crate::decoder::Decoders;
use crate::inference::{self, Engine};
use crate::model::repository::{self, Installed};
use crate::model::{ModelError, Package, Role, Trust};
use crate::telemetry::Metrics;

/// What engines are started with. Cheap to clone.
#[derive(Clone)]
pub struct Loader {
    inference: Arc<inference::Config>,
    decoders: Decoders,
    metrics: Option<Arc<Metrics>>,
}

/// A version that did not start.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct LoadError {
    /// The version, where one is at fault.
    pub version: Option<String>,
    /// File, key and reason.
    pub reason: String,
}

impl Loader {
    /// Starts nothing yet. Engines tell `metrics` of deaths and fences.
    pub fn new(
        inference: inference::Config,
        decoders: Decoders,
        metrics: Option<Arc<Metrics>>,
    ) -> Self {
        Self {
            inference: Arc::new(inference),
            decoders,
            metrics,
        }
    }

    /// Starts every model of the folder. None has been proved yet.
    ///
    /// # Errors
    /// The first model that is refused.
    pub async fn all(&self, config: &Config, trust: &Trust) -> anyhow::Result<Vec<Model>> {
        let (dir, only, trust) = (config.dir.clone(), config.only.clone(), trust.clone());
        let sites = config.sites.clone();
        let installed = spawn_blocking(move || {
            let installed = repository::scan_trusted(&dir, &trust)?;
            sites
                .check(installed.iter().map(|model| &model.served.manifest))
                .map_err(|reason| ModelError::new(Path::new("configuration"), reason))?;
            repository::select(installed, &only)
        })
        .await??;
        let mut models = Vec::new();
        for installed in installed {
            models.push(self.model(installed, &[]).await?);
        }
        link(&mut models)?;
        Ok(models)
    }

    /// Starts the versions of a model, apart from those that are among `running` already.
    ///
    /// # Errors
    /// The first version that does not start.
    pub async fn model(
        &self,
        installed: Installed,
        running: &[Served],
    ) -> Result<Model, LoadError> {
        let name = installed.name().to_owned();
        let served = self
            .version(installed.served, Role::Served, running)
            .await?;
        let canary = match installed.canary {
            Some((package, percent)) => {
                let canary = self.version(package, Role::Canary, running).await?;
                Some((canary, percent))
            }
            None => None,
        };
        let mut shadows = Vec::new();
        for package in installed.shadows {
            shadows.push(self.version(package, Role::Shadow, running).await?);
        }
        Ok(Model {
            name,
            folder: installed.folder,
            served,
            canary,
            shadows,
            versions: installed.versions,
        })
    }

    async fn version(
        &self,
        package: Package,
        role: Role,
        running: &[Served],
    ) -> Result<Served, LoadError> {
        let known = running
            .iter()
            .find(|s| s.package.identity == package.identity);
        if let Some(known) = known {
            let package = Arc::new(package);
            let engines = known.engines.clone();
            return Ok(Served {
                package,
                engines,
                role,
            });
        }
        let version = Some(package.manifest.version.clone());
        let loader = self.clone();
        let started = spawn_blocking(move || {
            let engines = loader.engines(&package)?;
            let package = Arc::new(package);
            Ok::<_, ModelError>(Served {
                package,
                engines,
                role,
            })
        });
        let refuse = |reason: String| LoadError {
            version: version.clone(),
            reason,
        };
        started
            .await
            .map_err(|err| refuse(format!("loading ended abnormally: {err}")))?
            .map_err(|err| refuse(err.to_string()))
    }

    /// The one place where engines are started. Blocking.
    fn engines(&self, package: &Package) -> Result<Vec<Engine>, ModelError> {
        let program = child::this_program();
        let start = |onnx: &PathBuf| {
            let engine = Engine::start(&self.inference, package, &program, onnx)?;
            if let Some(metrics) = &self.metrics {
                engine.report_to(metrics);
            }
            Ok(engine)
        };
        package.graphs().iter().map(start).collect()
    }

    /// Holds a version to the configuration, and runs its golden cases. Gives their number and the
    /// largest difference.
    ///
    /// # Errors
    /// A site whose operating points do not fit; no case where one is required; the first case that does
    /// not come out as it should.
    pub async fn prove(&self, served: &Served, config: &Config) -> anyhow::Result<(usize, f64)> {
        let path = served.package.manifest_path.display();
        let fits = config.sites.fit(&served.package.manifest);
        fits.map_err(|reason| anyhow!("{path}: {reason}"))?;
        let cases = served.package.golden_cases()?;
        ensure!(
            !config.require_golden || !cases.is_empty(),
            "{path}: there is no golden case, and models.require_golden is set"
        );
        let mut worst: f64 = 0.0;
        for case in &cases {
            let name = case.file_name().unwrap_or_default().to_string_lossy();
            let difference = golden::run(served, &self.decoders, case)
                .await
                .with_context(|| format!("{path}: golden case {name}"))?;
            worst = worst.max(difference);
        }
        Ok((cases.len(), worst))
    }
}

/// Gives ensembles of models the digest of their members as they are served, in every version. To be
/// called whenever a model is exchanged.
///
/// # Errors
/// The first model that cannot be served beside the others.
pub(super) fn link(models: &mut [Model]) -> Result<(), ModelError> {
    let mut served: Vec<Package> = Vec::new();
    for model in models.iter() {
        served.push((*model.served.package).clone());
    }
    repository::link(&mut served)?;
    for (place, model) in models.iter_mut().enumerate() {
        let canary = model.canary.iter_mut().map(|(served, _)| served);
        for version in canary.chain(&mut model.shadows) {
            let mut among = served.clone();
            if let Some(own) = among.get_mut(place) {
                own.clone_from(&version.package);
            }
            repository::link(&mut among)?;
            if let Some(own) = among.into_iter().nth(place) {
                version.package = Arc::new(own);
            }
        }
        if let Some(own) = served.get(place) {
            model.served.package = Arc::new(own.clone());
        }
    }
    Ok(())
}
