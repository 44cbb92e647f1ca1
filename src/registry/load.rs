//! From packages to engines that have proved themselves.

use std::sync::Arc;

use anyhow::{Context, ensure};
use tokio::task::spawn_blocking;

use super::{Config, Model, Served, golden};
use crate::decoder::Decoders;
use crate::inference::{self, Engine, Runtime};
use crate::model::repository::{self, Installed};
use crate::model::{ModelError, Package, Role, Trust};

/// What engines are started with. Cheap to clone.
#[derive(Clone)]
pub struct Loader {
    runtime: Runtime,
    inference: Arc<inference::Config>,
    decoders: Decoders,
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
    /// Loads ONNX Runtime.
    ///
    /// # Errors
    /// A library that is absent, too old or broken.
    pub fn new(inference: inference::Config, decoders: Decoders) -> anyhow::Result<Self> {
        Ok(Self {
            runtime: Runtime::load(&inference.onnxruntime)?,
            inference: Arc::new(inference),
            decoders,
        })
    }

    /// Version of ONNX Runtime.
    pub fn onnxruntime(&self) -> &str {
        self.runtime.version()
    }

    /// Starts every model of the folder. None has been proved yet.
    ///
    /// # Errors
    /// The first model that is refused.
    pub async fn all(&self, config: &Config, trust: &Trust) -> anyhow::Result<Vec<Model>> {
        let (dir, only, trust) = (config.dir.clone(), config.only.clone(), trust.clone());
        let installed = spawn_blocking(move || {
            repository::select(repository::scan_trusted(&dir, &trust)?, &only)
        })
        .await??;
        let mut models = Vec::new();
        for installed in installed {
            models.push(self.model(installed, &[]).await?);
        }
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
            let engine = known.engine.clone();
            return Ok(Served {
                package,
                engine,
                role,
            });
        }
        let version = Some(package.manifest.version.clone());
        let loader = self.clone();
        let started = spawn_blocking(move || {
            let engine = loader.engine(&package)?;
            let package = Arc::new(package);
            Ok::<_, ModelError>(Served {
                package,
                engine,
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

    /// The one place where an engine is started. Blocking.
    fn engine(&self, package: &Package) -> Result<Engine, ModelError> {
        Engine::start(&self.runtime, &self.inference, package)
    }

    /// Runs the golden cases of a version. Gives their number and the largest difference.
    ///
    /// # Errors
    /// The first case that does not come out as it should; no case where `required`.
    pub async fn prove(&self, served: &Served, required: bool) -> anyhow::Result<(usize, f64)> {
        let path = served.package.manifest_path.display();
        let cases = served.package.golden_cases()?;
        ensure!(
            !required || !cases.is_empty(),
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
