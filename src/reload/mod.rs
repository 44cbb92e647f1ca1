//! The configuration, read again while the gateway runs.
//!
//! Files and environment are read exactly as at a start. What is refused changes nothing. Of what is
//! taken, keys that may change ([`keys`]) count from the next association, study or connection on;
//! the others are named and wait for a restart.

pub mod keys;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::clock::Timestamp;
use crate::config::{Config, Shutdown};
use crate::http::reload::{Order, Outcome, Report};
use crate::live::Live;
use crate::maintenance::Retention;
use crate::pipeline::{Pacs, Rules};
use crate::registry::Registry;
use crate::spool::Spool;
use crate::telemetry::{Metrics, logging};
use crate::{artefact, broker, commitment, registry, scp};

/// Something that was made of files beside the configuration, as certificates are.
pub struct Renewal {
    /// The section that names the files.
    pub section: &'static str,
    /// Reads them again. After an error everything is as it was; the text names the key.
    #[allow(clippy::type_complexity)]
    pub renew: Box<dyn Fn(&Config) -> Result<(), String> + Send + Sync>,
}

/// The parts that a reload reaches.
pub struct Reach {
    /// The listener.
    pub dicom: Live<scp::Config>,
    /// Watermarks.
    pub spool: Spool,
    /// What we answer for.
    pub commitment: Live<commitment::Config>,
    /// Studies, sites, messages.
    pub rules: Live<Rules>,
    /// Models.
    pub registry: Arc<Registry>,
    /// Pictures and masks.
    pub artefacts: Live<artefact::Config>,
    /// The publisher.
    pub broker: Live<broker::Config>,
    /// Spent instances, old rows.
    pub retention: Live<Retention>,
    /// The end.
    pub shutdown: Live<Shutdown>,
    /// Certificates.
    pub renewals: Arc<Vec<Renewal>>,
}

/// Reloads when it is told to.
pub struct Reloader {
    /// Files as at the start; `None`: the configuration was made by the program.
    pub files: Option<Vec<PathBuf>>,
    /// The configuration in force.
    pub config: Config,
    /// Whom it reaches.
    pub reach: Reach,
    /// Wishes over HTTP.
    pub orders: mpsc::Receiver<Order>,
    /// Where what came of it is kept.
    pub last: Live<Option<Outcome>>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

impl Reloader {
    /// Does what it is told, one thing after the other, until `stop`. `signal`: SIGHUP.
    pub async fn run(mut self, signal: Arc<Notify>, stop: CancellationToken) {
        self.metrics.config_reload_success.set(1);
        self.told();
        loop {
            let order = tokio::select! {
                () = stop.cancelled() => return,
                () = signal.notified() => None,
                Some(order) = self.orders.recv() => Some(order),
            };
            let outcome = self.reload().await;
            self.report(&outcome);
            if let Some(order) = order {
                // Whoever asked may have hung up.
                let _ = order.answer.send(outcome);
            }
        }
    }

    async fn reload(&mut self) -> Result<Report, String> {
        let files = self.files.clone();
        let files = files.ok_or("there is no configuration to read again")?;
        let read = spawn_blocking(move || Config::load(&files)).await;
        let new = read.map_err(|err| err.to_string())?;
        self.apply(new.map_err(|err| err.to_string())?).await
    }

    /// Everything that can be refused comes first; from then on nothing fails.
    async fn apply(&mut self, new: Config) -> Result<Report, String> {
        let (changed, unchanged) = keys::changed(&self.config, &new);
        let (applied, needs_restart): (Vec<_>, Vec<_>) =
            changed.into_iter().partition(|key| keys::is_live(key));
        let merged = keys::merged(&self.config, &new);
        merged.validate().map_err(|err| {
            let keys = needs_restart.join(", ");
            format!("does not go with what needs a restart ({keys}): {err}")
        })?;
        let filter = logging::filter(&merged.log.level)?;
        let touches = |section: &str| {
            let prefix = format!("{section}.");
            applied.iter().any(|key| key.starts_with(&prefix))
        };
        let reach = &self.reach;
        let rules = rules(&merged, Some((&self.config, &reach.rules.get())))?;
        if touches("broker") {
            let broker = merged.broker.clone();
            let checked = spawn_blocking(move || broker.check_files()).await;
            checked.map_err(|err| err.to_string())??;
        }
        // A listener's own are looked at where they are renewed.
        if touches("dicom.tls") && merged.dicom.tls.address().is_none() {
            let tls = merged.dicom.tls.clone();
            let checked = spawn_blocking(move || tls.check_files()).await;
            checked.map_err(|err| err.to_string())??;
        }
        if touches("models") {
            reach.registry.accepts(&merged.models).await?;
        }
        let certificates = renew(&reach.renewals, &merged).await?;
        if touches("log") {
            logging::set_filter(filter)?;
        }
        if touches("dicom") {
            reach.dicom.set(merged.dicom.clone());
            scp::introduce(&self.metrics, &merged.dicom);
        }
        if touches("spool") {
            let (spool, limits) = (reach.spool.clone(), merged.spool.limits.clone());
            let _ = spawn_blocking(move || spool.set_limits(limits)).await;
        }
        if touches("commitment") {
            reach.commitment.set(merged.commitment.clone());
        }
        if ["study", "models", "message"].into_iter().any(touches) {
            reach.rules.set(rules);
        }
        if touches("artefacts") {
            reach.artefacts.set(merged.artefacts.clone());
        }
        if touches("broker") {
            reach.broker.set(merged.broker.clone());
        }
        reach.retention.set(retention(&merged));
        reach.shutdown.set(merged.shutdown.clone());
        let models = match touches("models") {
            true => Some(look_again(&reach.registry, &merged.models).await),
            false => None,
        };
        self.config = merged;
        Ok(Report {
            applied,
            needs_restart,
            unchanged,
            certificates,
            models,
        })
    }

    /// Keys only: values may be secrets.
    fn report(&self, outcome: &Result<Report, String>) {
        let result = match outcome {
            Ok(_) => "applied",
            Err(_) => "refused",
        };
        let reloads = &self.metrics.config_reloads_total;
        reloads.with_label_values(&[result]).inc();
        let success = i64::from(outcome.is_ok());
        self.metrics.config_reload_success.set(success);
        match outcome {
            Ok(report) => {
                self.told();
                tracing::info!(
                    applied = report.applied.join(","),
                    needs_restart = report.needs_restart.join(","),
                    certificates = report.certificates.join(","),
                    "configuration reloaded"
                );
            }
            Err(reason) => {
                tracing::error!(reason, "configuration refused; everything stays as it was");
            }
        }
        self.last.set(Some(Outcome {
            at: Timestamp::now().rfc3339(),
            refused: outcome.as_ref().err().cloned(),
            report: outcome.as_ref().ok().cloned(),
        }));
    }

    fn told(&self) {
        let now = i64::try_from(Timestamp::now().seconds()).unwrap_or(i64::MAX);
        self.metrics.config_reload_timestamp_seconds.set(now);
    }
}

/// All of them, until one fails. Those before it have new files then, which is what is on disk.
async fn renew(renewals: &Arc<Vec<Renewal>>, config: &Config) -> Result<Vec<&'static str>, String> {
    let (renewals, config) = (Arc::clone(renewals), config.clone());
    let renewed = spawn_blocking(move || {
        let mut sections = Vec::new();
        for renewal in renewals.iter() {
            (renewal.renew)(&config)?;
            sections.push(renewal.section);
        }
        Ok(sections)
    });
    renewed.await.map_err(|err| err.to_string())?
}

/// Models by other rules. A version that they do not admit is a line of the report.
async fn look_again(registry: &Registry, config: &registry::Config) -> registry::Report {
    let configured = registry.configure(config.clone());
    let reloaded = match configured {
        Ok(()) => registry.reload().await.map_err(|err| err.to_string()),
        Err(reason) => Err(reason),
    };
    reloaded.unwrap_or_else(|reason| registry::Report {
        refused: vec![registry::Refused {
            model: String::new(),
            version: None,
            reason,
        }],
        ..registry::Report::default()
    })
}

/// What the housekeeper goes by.
pub fn retention(config: &Config) -> Retention {
    Retention {
        spool: config.spool.retention.get(),
        ledger: config.ledger.retention.get(),
    }
}

/// What the pipeline goes by. `before`: what it went by until now; a PACS that stays the same is the
/// same, with what is known of it.
///
/// # Errors
/// The key and the reason.
pub fn rules(config: &Config, before: Option<(&Config, &Rules)>) -> Result<Rules, String> {
    let asked = |config: &Config| -> Result<_, String> {
        let target = config.study.pacs.target(&config.dicom.ae_title);
        let target = target.map_err(|reason| format!("study.pacs.{reason}"))?;
        let trusted = config.dicom.tls.client();
        let target = target.map(|(target, calling)| (target.trusting(&trusted), calling));
        Ok((target, config.study.pacs.timeout.get()))
    };
    let now = asked(config)?;
    let same = before.filter(|(before, _)| asked(before).as_ref() == Ok(&now));
    let pacs = match (same, now) {
        (Some((_, rules)), _) => rules.pacs.clone(),
        (None, (target, timeout)) => {
            target.map(|(target, calling)| Arc::new(Pacs::new(target, calling, timeout)))
        }
    };
    Ok(Rules {
        sites: config.models.sites.clone(),
        study: config.study.clone(),
        message: config.message.clone(),
        pacs,
    })
}
