//! The models being served: loaded, proved, switched.
//!
//! What is served is an immutable [`Snapshot`]. A study takes one when its work begins and keeps it;
//! a switch puts another in its place, and the engines that only the old one knows end with the last
//! study that uses them. A version gets into a snapshot by one way only: its manifest is accepted,
//! its engine has started and warmed up beside the old one, and its golden cases came out as they
//! should. A version that fails any of it changes nothing but [`Snapshot::refused`].

mod config;
mod fingerprint;
pub mod golden;
mod load;
mod model;
mod sites;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde::Serialize;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::decoder::Decoders;
use crate::durable::write_atomically;
use crate::live::Live;
use crate::model::manifest::{is_name, is_version};
use crate::model::repository::{self, Installed};
use crate::model::{ModelError, Roles, Trust};
use crate::telemetry::Metrics;
use fingerprint::Fingerprint;

pub use config::Config;
pub use load::Loader;
pub use model::{Choice, Model, Served};
pub use sites::{Site, Sites};

/// Longest wait for a reload that is under way.
const TURN: Duration = Duration::from_secs(60);

/// A version that is in the folder and not in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// The model, or its folder where the manifest cannot be read; empty for the whole folder.
    pub model: String,
    /// The version, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// File, key and reason.
    pub reason: String,
}

/// What is served at one moment.
#[derive(Default)]
pub struct Snapshot {
    /// Models in order of name.
    pub models: Vec<Model>,
    /// What the last look at the folder found and did not take.
    pub refused: Vec<Refused>,
}

/// What a look at the folder led to.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Models that are new or run other versions now.
    pub switched: Vec<String>,
    /// Models that are gone.
    pub removed: Vec<String>,
    /// What was not taken.
    pub refused: Vec<Refused>,
}

/// Why a request was not done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReloadError {
    /// There is no such model.
    #[error("there is no model `{0}`")]
    Unknown(String),
    /// The version cannot be served; the one before still is.
    #[error("{0}")]
    Refused(String),
    /// Another reload has not ended.
    #[error("another reload is under way; try again")]
    Busy,
}

/// What an operator says of models.
struct Settings {
    config: Config,
    trust: Trust,
}

/// The models being served, and how they change.
pub struct Registry {
    settings: Live<Settings>,
    loader: Loader,
    metrics: Arc<Metrics>,
    current: RwLock<Arc<Snapshot>>,
    /// Held while models are loaded: one change at a time. What the folder looked like before.
    turn: tokio::sync::Mutex<Option<Fingerprint>>,
}

impl Registry {
    /// Loads and proves every model.
    ///
    /// # Errors
    /// The first model that is refused, with file, key and reason.
    pub async fn start(
        config: Config,
        inference: crate::inference::Config,
        decoders: Decoders,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        let trust = config.trust().map_err(anyhow::Error::msg)?;
        let loader = Loader::new(inference, decoders, Some(Arc::clone(&metrics)));
        let dir = config.dir.clone();
        let seen = spawn_blocking(move || fingerprint::of(&dir)).await?;
        let models = loader.all(&config, &trust).await?;
        for model in &models {
            for served in model.running() {
                loader.prove(served, &config).await?;
            }
        }
        let registry = Self {
            settings: Live::new(Settings { config, trust }),
            loader,
            metrics,
            current: RwLock::default(),
            turn: tokio::sync::Mutex::new(seen),
        };
        registry.publish(models, Vec::new());
        Ok(registry)
    }

    /// What is served now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current)
    }

    /// Version of ONNX Runtime.
    pub fn onnxruntime(&self) -> String {
        let snapshot = self.snapshot();
        let engines = snapshot.models.iter().flat_map(Model::running);
        let mut engines = engines.filter_map(|served| served.engines.first());
        engines
            .next()
            .map_or_else(String::new, |engine| engine.version().to_owned())
    }

    /// Whether other settings go with the models that are here, as at a start.
    ///
    /// # Errors
    /// The key and the reason.
    pub async fn accepts(&self, config: &Config) -> Result<(), String> {
        let trust = config.trust()?;
        let (config, snapshot) = (config.clone(), self.snapshot());
        let checked = spawn_blocking(move || {
            let folders = repository::folders(&config.dir).unwrap_or_default();
            let open = |folder: &PathBuf| {
                let roles = repository::roles(folder).ok()?;
                repository::open(folder, &roles, &trust).ok()
            };
            let installed: Vec<Installed> = folders.iter().filter_map(open).collect();
            let running = snapshot.models.iter().flat_map(Model::running);
            let running = running.map(|served| &served.package.manifest);
            let manifests = installed.iter().map(|model| &model.served.manifest);
            let manifests: Vec<_> = manifests.chain(running).collect();
            let known = |name: &String| manifests.iter().any(|model| model.name == *name);
            if let Some(unknown) = config.only.iter().find(|name| !known(name)) {
                return Err(format!("models.only: there is no model `{unknown}`"));
            }
            config.sites.check(manifests.into_iter())
        });
        checked.await.map_err(|err| err.to_string())?
    }

    /// Other settings from now on: to be followed by [`Self::reload`], which acts on them.
    ///
    /// # Errors
    /// The key and the reason.
    pub fn configure(&self, config: Config) -> Result<(), String> {
        let trust = config.trust()?;
        self.settings.set(Settings { config, trust });
        Ok(())
    }

    /// Looks at the folder until `stop`, and acts on a change that has come to rest.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) -> Result<(), std::io::Error> {
        let poll = self.settings.get().config.poll.get();
        if poll.is_zero() {
            stop.cancelled().await;
            return Ok(());
        }
        let mut moving = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(poll) => {}
                () = stop.cancelled() => return Ok(()),
            }
            let dir = self.settings.get().config.dir.clone();
            let now = spawn_blocking(move || fingerprint::of(&dir)).await?;
            let known = *self.turn.lock().await;
            if now == known {
                moving = None;
            } else if moving != Some(now) {
                // Somebody may still be copying.
                moving = Some(now);
            } else {
                moving = None;
                let registry = Arc::clone(&self);
                // In a task of its own, which ends what it has begun.
                let _ = tokio::spawn(async move { registry.reload().await }).await;
            }
        }
    }

    /// Brings what is served into line with the folder, as far as the folder is in order.
    ///
    /// # Errors
    /// Another reload does not end.
    pub async fn reload(&self) -> Result<Report, ReloadError> {
        let mut turn = self.turn().await?;
        let settings = self.settings.get();
        let (dir, trust) = (settings.config.dir.clone(), settings.trust.clone());
        let looked = spawn_blocking(move || {
            let seen = fingerprint::of(&dir);
            let folders = repository::folders(&dir).map(|folders| {
                let open = |folder: &PathBuf| {
                    repository::open(folder, &repository::roles(folder)?, &trust)
                };
                let opened = folders.iter().map(|folder| (folder.clone(), open(folder)));
                opened.collect::<Vec<_>>()
            });
            (seen, folders)
        });
        let Ok((seen, folders)) = looked.await else {
            return Err(ReloadError::Refused(
                "looking at the folder failed".to_owned(),
            ));
        };
        *turn = seen;
        let old = self.snapshot();
        let mut report = Report::default();
        let mut models: Vec<Model> = Vec::new();
        match folders {
            Ok(folders) if !folders.is_empty() => {
                for (folder, opened) in folders {
                    self.take(&old, &folder, opened, &mut models, &mut report)
                        .await;
                }
            }
            // A volume that is not there for a moment is no wish to serve nothing.
            other => {
                let reason = other.err().map_or_else(
                    || {
                        let dir = settings.config.dir.display();
                        format!("{dir}: models.dir: holds no model")
                    },
                    |err| err.to_string(),
                );
                models.clone_from(&old.models);
                self.refuse(&mut report, String::new(), None, reason);
            }
        }
        // Each is in order by itself; together they are not, so everything stays as it was.
        if let Err(err) = load::link(&mut models) {
            report.switched.clear();
            models.clone_from(&old.models);
            self.refuse(&mut report, String::new(), None, err.to_string());
        }
        for model in &old.models {
            if !models.iter().any(|kept| kept.name == model.name) {
                self.count(&model.name, "removed");
                tracing::info!(model = model.name, "model is not served any more");
                report.removed.push(model.name.clone());
            }
        }
        self.publish(models, report.refused.clone());
        Ok(report)
    }

    /// Serves `version` of a model from now on, and writes that down in its `serving.toml`.
    ///
    /// # Errors
    /// An unknown model, a version that is refused, or a file that cannot be written; nothing has
    /// changed then.
    pub async fn serve(&self, name: &str, version: &str) -> Result<(), ReloadError> {
        let _turn = self.turn().await?;
        let old = self.snapshot();
        let unknown = || ReloadError::Unknown(name.to_owned());
        let settings = self.settings.get();
        let only = &settings.config.only;
        if !is_name(name) || (!only.is_empty() && !only.iter().any(|known| known == name)) {
            return Err(unknown());
        }
        if !is_version(version) {
            return Err(ReloadError::Refused(format!(
                "version: `{version}` is no version"
            )));
        }
        let before = old.models.iter().find(|model| model.name == name);
        // One that was refused from the beginning has a folder and nothing that runs.
        let folder = before.map_or_else(|| settings.config.dir.join(name), |m| m.folder.clone());
        if !repository::is_model(&folder) {
            return Err(unknown());
        }
        let (trust, wanted) = (settings.trust.clone(), version.to_owned());
        let place = folder.clone();
        let opened = spawn_blocking(move || {
            let roles = repository::roles(&place)?.with_served(&wanted);
            repository::open(&place, &roles, &trust).map(|installed| (installed, roles))
        });
        let refused = |reason: String| {
            tracing::warn!(model = name, version, reason, "version refused");
            self.count(name, "refused");
            ReloadError::Refused(reason)
        };
        let (installed, roles) = opened
            .await
            .map_err(|err| refused(err.to_string()))?
            .map_err(|err| refused(err.to_string()))?;
        if installed.name() != name {
            let reason = format!("name: is `{}` in this folder", installed.name());
            let path = &installed.served.manifest_path;
            return Err(refused(ModelError::new(path, reason).to_string()));
        }
        let model = self.build(before, installed).await;
        let model = model.map_err(|(_, reason)| refused(reason))?;
        let mut models = old.models.clone();
        models.retain(|model| model.name != name);
        models.push(model);
        load::link(&mut models).map_err(|err| refused(err.to_string()))?;
        // The last thing that can fail: from here the file and the snapshot say the same.
        spawn_blocking(move || write_roles(&folder, &roles))
            .await
            .map_err(|err| refused(err.to_string()))?
            .map_err(|err| refused(err.to_string()))?;
        self.count(name, "switched");
        let others = old.refused.iter().filter(|refused| refused.model != name);
        self.publish(models, others.cloned().collect());
        Ok(())
    }

    async fn turn(&self) -> Result<tokio::sync::MutexGuard<'_, Option<Fingerprint>>, ReloadError> {
        tokio::time::timeout(TURN, self.turn.lock())
            .await
            .map_err(|_| ReloadError::Busy)
    }

    /// Adds what a folder holds to `models`: what it asks for, or else what was served of it before.
    async fn take(
        &self,
        old: &Snapshot,
        folder: &Path,
        opened: Result<Installed, ModelError>,
        models: &mut Vec<Model>,
        report: &mut Report,
    ) {
        let before = old.models.iter().find(|model| model.folder == folder);
        let label = folder.file_name().unwrap_or_default().to_string_lossy();
        let name = match &opened {
            Ok(installed) => installed.name(),
            Err(_) => before.map_or(&*label, |model| &model.name),
        };
        let name = name.to_owned();
        let only = &self.settings.get().config.only;
        if !only.is_empty() && !only.contains(&name) {
            return;
        }
        let outcome = match opened {
            Err(err) => Err((None, err.to_string())),
            Ok(installed) if models.iter().any(|model| model.name == name) => {
                Err((None, repository::twice(&installed).to_string()))
            }
            Ok(installed) => match before.filter(|model| model.is(&installed)) {
                Some(model) => return models.push(model.clone()),
                None => self.build(before, installed).await,
            },
        };
        match outcome {
            Ok(model) => {
                self.count(&name, "switched");
                report.switched.push(name);
                models.push(model);
            }
            Err((version, reason)) => {
                let kept = before.filter(|kept| models.iter().all(|model| model.name != kept.name));
                models.extend(kept.cloned());
                self.refuse(report, name, version, reason);
            }
        }
    }

    /// Starts and proves what is new of a model. All of it or nothing.
    async fn build(
        &self,
        before: Option<&Model>,
        installed: Installed,
    ) -> Result<Model, (Option<String>, String)> {
        let running: Vec<Served> = before
            .into_iter()
            .flat_map(|model| model.running().cloned())
            .collect();
        let model = self.loader.model(installed, &running).await;
        let model = model.map_err(|err| (err.version, err.reason))?;
        for served in model.running() {
            let version = &served.package.manifest.version;
            let known = |old: &Served| old.package.identity == served.package.identity;
            if running.iter().any(known) {
                continue;
            }
            let settings = self.settings.get();
            let proved = self.loader.prove(served, &settings.config).await;
            proved.map_err(|err| (Some(version.clone()), format!("{err:#}")))?;
        }
        Ok(model)
    }

    fn refuse(&self, report: &mut Report, model: String, version: Option<String>, reason: String) {
        tracing::warn!(model, version, reason, "models folder: refused");
        self.count(&model, "refused");
        report.refused.push(Refused {
            model,
            version,
            reason,
        });
    }

    fn count(&self, model: &str, result: &str) {
        // The name of a folder that holds no model becomes no label.
        let model = if is_name(model) { model } else { "" };
        let counter = &self.metrics.model_reloads_total;
        counter.with_label_values(&[model, result]).inc();
    }

    /// Counters of a model start at 0, or `increase` would not see the first step.
    fn introduce(&self, model: &str) {
        let (reloads, outcomes) = (
            &self.metrics.model_reloads_total,
            &self.metrics.outcomes_total,
        );
        for result in ["switched", "refused", "removed"] {
            reloads.with_label_values(&[model, result]);
        }
        for outcome in ["finding", "no-finding", "skipped", "failed"] {
            outcomes.with_label_values(&[model, outcome]);
        }
    }

    /// The switch.
    fn publish(&self, mut models: Vec<Model>, refused: Vec<Refused>) {
        models.sort_by(|a, b| a.name.cmp(&b.name));
        let new = Arc::new(Snapshot { models, refused });
        let old = {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, Arc::clone(&new))
        };
        self.tell(&old, &new);
    }

    /// Brings the metrics into line, without a moment at which a version that stays is missing.
    fn tell(&self, old: &Snapshot, new: &Snapshot) {
        let running = |snapshot: &Snapshot| -> Vec<[String; 4]> {
            let models = snapshot.models.iter().flat_map(Model::running);
            models
                .map(|served| {
                    let manifest = &served.package.manifest;
                    let role = served.role.as_str().to_owned();
                    let (name, version) = (manifest.name.clone(), manifest.version.clone());
                    [name, version, manifest.sha256.clone(), role]
                })
                .collect()
        };
        let (old, new) = (running(old), running(new));
        let (info, serving) = (&self.metrics.model_info, &self.metrics.models_serving);
        for [name, version, sha256, role] in &old {
            if !new
                .iter()
                .any(|now| now[..3] == [name.as_str(), version, sha256])
            {
                let _ = info.remove_label_values(&[name, version, sha256]);
            }
            if !new
                .iter()
                .any(|now| [&now[0], &now[1], &now[3]] == [name, version, role])
            {
                let _ = serving.remove_label_values(&[name, version, role]);
            }
        }
        for model in new.iter().map(|[name, ..]| name.as_str()).chain([""]) {
            self.introduce(model);
        }
        for labels in &new {
            let [name, version, sha256, role] = labels;
            info.with_label_values(&[name, version, sha256]).set(1);
            serving.with_label_values(&[name, version, role]).set(1);
            if !old.contains(labels) {
                tracing::info!(model = name, version, role, "model is being served");
            }
        }
    }
}

fn write_roles(folder: &Path, roles: &Roles) -> Result<(), ModelError> {
    let path = repository::roles_path(folder);
    let text = roles
        .render()
        .map_err(|reason| ModelError::new(&path, reason))?;
    write_atomically(&path, text.as_bytes())
        .map_err(|err| ModelError::new(&path, format!("cannot be written: {err}")))
}
