//! The composition root: the only file that builds the parts and wires them.
//!
//! [`App::build`] opens the stores, loads and warms up the models and binds the sockets: whatever can
//! be wrong in configuration or models is an error here, before a modality can connect. [`App::run`]
//! starts the stages and drains them in the order of the flow.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::artefact::Store;
use crate::broker::Publisher;
use crate::child;
use crate::commitment::desk::Desk;
use crate::config::Config;
use crate::decoder::Decoders;
use crate::durable::database::{Database, Meter};
use crate::findings::event::RuntimeFacts;
use crate::http::pause::Switches;
use crate::http::reload::{Order as Wish, Outcome};
use crate::http::{Access, Api, Phase, Ports, Server};
use crate::inference::Gate;
use crate::journey::Tracing;
use crate::ledger::Ledger;
use crate::lifecycle::{Stage, StageError};
use crate::live::Live;
use crate::maintenance::Housekeeper;
use crate::monitor::Monitor;
use crate::outbox::Outbox;
use crate::pause::Switch;
use crate::pipeline::{Attempts, Beside, Inbox, Pipeline, Sources};
use crate::registry::{Loader, Model, Registry};
use crate::reload::{Reach, Reloader, Renewal, retention, rules};
use crate::reporter::Reporter;
use crate::spool::{CORRUPT, Recovered, Spool};
use crate::study::Order;
use crate::telemetry::{Metrics, StudyKey};
use crate::{broker, commitment, procedure, scp, state};

/// Studies whose wake-ups may wait; more are found by the next look at the spool.
const WAKE_UPS: usize = 1024;
/// Orders that may wait for the pipeline.
const ORDERS: usize = 16;

/// Reloads that may wait for the one that is under way.
const RELOADS: usize = 4;

/// How long a reload may go on at the end.
const RELOADING: Duration = Duration::from_secs(1);

/// How long reports on their way may take to be answered at the end; the next start tries again.
const REPORTING: Duration = Duration::from_secs(2);

/// How long the collector may take for the last spans.
const TRACES: Duration = Duration::from_secs(3);

/// A gateway that is ready to run.
pub struct App {
    config: Config,
    listener: scp::Listener,
    server: Server,
    pipeline: Arc<Pipeline>,
    publisher: Publisher,
    reporter: Arc<Reporter>,
    housekeeper: Housekeeper,
    tracing: Tracing,
    inbox: Inbox,
    orders: mpsc::Sender<Order>,
    broker_state: watch::Receiver<broker::State>,
    access: Arc<Access>,
    switches: Switches,
    reloader: Reloader,
    reloads: mpsc::Sender<Wish>,
    last_reload: Live<Option<Outcome>>,
    ports: Ports,
    database: Database,
}

/// When to end.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    /// Drain.
    pub drain: CancellationToken,
    /// Stop at once.
    pub stop: CancellationToken,
    /// Read the configuration again.
    pub reload: Arc<Notify>,
}

impl App {
    /// Builds everything; nothing is served yet.
    ///
    /// # Errors
    /// Whatever in configuration, spool or models keeps the gateway from starting.
    pub async fn build(config: Config) -> Result<Self> {
        let metrics = Arc::new(Metrics::new().context("metrics")?);
        let files = config.clone();
        let files = spawn_blocking(move || files.check_files()).await?;
        files.map_err(anyhow::Error::msg)?;
        let decoders = decoders(&config, Some(Arc::clone(&metrics))).await?;
        let registry = Registry::start(
            config.models.clone(),
            config.inference.clone(),
            decoders.clone(),
            Arc::clone(&metrics),
        );
        let registry = Arc::new(registry.await?);
        let spool_config = config.spool.clone();
        let (spool, recovered) = spawn_blocking(move || Spool::open(spool_config))
            .await?
            .context("spool.dir")?;
        report(&recovered, &metrics);
        let kept = Live::new(config.artefacts.clone());
        let (opened, beside) = (kept.clone(), config.spool.dir.clone());
        let artefacts = spawn_blocking(move || Store::open(opened, &beside))
            .await?
            .context("artefacts.dir")?;
        let artefacts = Arc::new(artefacts);
        let dir = config.spool.dir.clone();
        let database = spawn_blocking(move || state::open(&dir))
            .await?
            .context("spool.dir")?;
        database.report_to(database_meter(&metrics));
        let (key_file, dir) = (config.log.study_key_file.clone(), config.spool.dir.clone());
        let study_key = spawn_blocking(move || StudyKey::open(&key_file, &dir))
            .await?
            .context("log.study_key_file")?;
        let commitments = commitment::Store::new(database.clone());
        let procedures = procedure::Store::new(database.clone());
        let (ledger, outbox) = (Ledger::new(database.clone()), Outbox::new(database.clone()));
        let desk = Arc::new(Desk::default());
        let (wake, wake_ups) = mpsc::channel(WAKE_UPS);
        let (release, releases) = mpsc::channel(WAKE_UPS);
        let (tracing, deliveries) = Tracing::start(
            &config.traces,
            &study_key,
            (&ledger, &outbox),
            &metrics,
            scp::Deliveries::new(release),
        )
        .map_err(anyhow::Error::msg)?;
        let tracer = tracing.tracer.clone();
        let (orders, ordered) = mpsc::channel(ORDERS);
        let switches = Switches {
            listener: Switch::new("listener", &metrics),
            broker: Switch::new("broker", &metrics),
        };
        let rules = Live::new(rules(&config, None).map_err(anyhow::Error::msg)?);
        let dicom = Live::new(config.dicom.clone());
        let listener = scp::Listener::bind(
            dicom.clone(),
            Arc::new(spool.clone()),
            Arc::clone(&metrics),
            wake,
            scp::Services {
                commitments: config.commitment.enabled.then_some(commitments.clone()),
                procedures: procedures.clone(),
                desk: Arc::clone(&desk),
                deliveries: Arc::new(deliveries),
                study_key: study_key.clone(),
                pause: switches.listener.clone(),
            },
        )?;
        let access = Arc::new(Access::new(&config.http, &config.spool.dir).await?);
        let server = Server::bind(&config.http, &metrics).await?;
        let ports = Ports {
            dicom: listener.ports().plain,
            dicom_tls: listener.ports().tls,
            http: server.local_addr().context("http.bind")?.port(),
            http_probe: server
                .probe_addr()
                .context("http.probe_bind")?
                .map(|address| address.port()),
        };
        let decoding = Gate::new(decoders.count());
        decoding.report_to(metrics.decode_queue_depth.clone());
        let outbox_wake = Arc::new(Notify::new());
        let (state, broker_state) = watch::channel(broker::State::default());
        let pipeline = Pipeline {
            spool: spool.clone(),
            ledger: ledger.clone(),
            sources: Sources {
                commitments: commitments.clone(),
                procedures: procedures.clone(),
            },
            registry: Arc::clone(&registry),
            beside: Beside::default(),
            rules: rules.clone(),
            attempts: Attempts::default(),
            source: config.message.source.clone(),
            artefacts: Arc::clone(&artefacts),
            decoding,
            decoders,
            runtime: RuntimeFacts {
                provider: config.inference.provider.as_str(),
                onnxruntime: registry.onnxruntime(),
            },
            outbox_wake: Arc::clone(&outbox_wake),
            metrics: Arc::clone(&metrics),
            monitor: Arc::new(Monitor::new(Arc::clone(&metrics))),
            study_key: study_key.clone(),
            tracer: tracer.clone(),
        };
        let commitment = Live::new(config.commitment.clone());
        let reporter = Reporter {
            config: commitment.clone(),
            store: commitments.clone(),
            desk,
            ledger: ledger.clone(),
            spool: spool.clone(),
            dicom: dicom.clone(),
            private_classes: config.dicom.private_sop_classes == scp::PrivateSopClasses::Store,
            metrics: Arc::clone(&metrics),
        };
        let (broker, retention) = (
            Live::new(config.broker.clone()),
            Live::new(retention(&config)),
        );
        let (reloads, orders_to_reload) = mpsc::channel(RELOADS);
        let last_reload = Live::new(None);
        let reloader = Reloader {
            files: None,
            config: config.clone(),
            reach: Reach {
                dicom,
                spool: spool.clone(),
                commitment,
                rules,
                registry,
                artefacts: kept,
                broker: broker.clone(),
                retention: retention.clone(),
                shutdown: Live::new(config.shutdown.clone()),
                renewals: Arc::new(renewals(&listener, &server)),
            },
            orders: orders_to_reload,
            last: last_reload.clone(),
            metrics: Arc::clone(&metrics),
        };
        Ok(Self {
            listener,
            server,
            pipeline: Arc::new(pipeline),
            reporter: Arc::new(reporter),
            publisher: Publisher {
                config: broker,
                switch: switches.broker.clone(),
                outbox: outbox.clone(),
                wake: outbox_wake,
                state,
                metrics: Arc::clone(&metrics),
                study_key,
                tracer,
            },
            tracing,
            housekeeper: Housekeeper {
                spool,
                artefacts,
                retention,
                ledger,
                commitments,
                outbox,
                database: database.clone(),
                procedures,
                metrics,
            },
            inbox: Inbox::new(wake_ups, releases, ordered),
            orders,
            broker_state,
            access,
            switches,
            reloader,
            reloads,
            last_reload,
            ports,
            database,
            config,
        })
    }

    /// The configuration came from these files and the environment, and can be read again.
    #[must_use]
    pub fn configured_by(mut self, files: Vec<std::path::PathBuf>) -> Self {
        self.reloader.files = Some(files);
        self
    }

    /// Ports in use.
    pub fn ports(&self) -> Ports {
        self.ports
    }

    /// Resolves when every instance in the spool is covered by a revision and nothing is owed.
    pub fn idle(&self) -> impl Future<Output = ()> + use<> {
        let (spool, ledger) = (self.pipeline.spool.clone(), self.pipeline.ledger.clone());
        let outbox = self.housekeeper.outbox.clone();
        async move {
            loop {
                let instances = spool.usage().instances;
                let covered = ledger
                    .covered()
                    .await
                    .is_ok_and(|covered| covered >= instances);
                if covered
                    && outbox
                        .owed()
                        .await
                        .is_ok_and(|owed| owed.messages + owed.shadow == 0)
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Runs until told to drain, or until a stage dies.
    ///
    /// # Errors
    /// The stage that ended by itself, or a drain that was cut short.
    pub async fn run(self, signals: Signals) -> Result<(), StageError> {
        let (phase, phase_seen) = watch::channel(Phase::Running);
        let api = self.api(phase_seen);
        let Self { config, ports, .. } = &self;
        let grace = self.reloader.reach.shutdown.clone();
        tracing::info!(
            dicom_port = ports.dicom,
            dicom_tls_port = ports.dicom_tls,
            http_port = ports.http,
            ae_title = %config.dicom.ae_title,
            "gateway is ready"
        );
        // One token per stage, cancelled in the order of the flow.
        let stop = signals.stop.clone();
        let [refuse, finish, flush, quiet] = [(); 4].map(|()| stop.child_token());
        let mut scp = Stage::spawn("scp", self.listener.run(refuse.clone(), stop.clone()));
        let watch = Arc::clone(&self.pipeline.registry).watch(finish.clone());
        let pipeline_run = self.pipeline.run(self.inbox, finish.clone());
        let room = in_time(self.database.clone(), finish.clone());
        let mut pipeline = Stage::spawn("pipeline", async {
            room.await;
            pipeline_run.await;
            Ok::<(), String>(())
        });
        let publisher_run = self.publisher.run(flush.clone(), stop.clone());
        let room = in_time(self.database.clone(), flush.clone());
        let mut publisher = Stage::spawn("publisher", async {
            room.await;
            publisher_run.await;
            Ok::<(), String>(())
        });
        let reporter_run = self.reporter.run(refuse.clone());
        let room = in_time(self.database, refuse.clone());
        let mut reporter = Stage::spawn("reporter", async {
            room.await;
            reporter_run.await;
            Ok::<(), String>(())
        });
        let mut models = Stage::spawn("models", watch);
        let mut housekeeper = Stage::spawn("housekeeper", self.housekeeper.run(quiet.clone()));
        let tracing_run = self.tracing.run(quiet.clone());
        let traces = Stage::spawn("traces", async {
            tracing_run.await;
            Ok::<(), String>(())
        });
        let mut http = Stage::spawn("http", self.server.run(api, quiet.clone()));
        let reload_run = self.reloader.run(signals.reload.clone(), refuse.clone());
        let mut reloader = Stage::spawn("reload", async {
            reload_run.await;
            Ok::<(), String>(())
        });

        let died = {
            let death = async {
                tokio::select! {
                    error = scp.died() => error,
                    error = pipeline.died() => error,
                    error = publisher.died() => error,
                    error = reporter.died() => error,
                    error = models.died() => error,
                    error = housekeeper.died() => error,
                    error = http.died() => error,
                    error = reloader.died() => error,
                }
            };
            tokio::pin!(death);
            let told = tokio::select! {
                () = signals.drain.cancelled() => None,
                () = stop.cancelled() => None,
                error = &mut death => Some(error),
            };
            phase.send_replace(Phase::Draining);
            let delay = grace.get().delay.get();
            if told.is_none() && !delay.is_zero() && !stop.is_cancelled() {
                // Who sends us connections learns by /readyz that it should not, and that takes a while.
                tracing::info!(
                    ?delay,
                    "not ready any more; everything goes on until the drain"
                );
                tokio::select! {
                    () = tokio::time::sleep(delay) => None,
                    () = stop.cancelled() => None,
                    error = &mut death => Some(error),
                }
            } else {
                told
            }
        };
        if let Some(error) = &died {
            tracing::error!(error = %error, "draining because a stage died");
        } else {
            tracing::info!("draining");
        }
        let grace = grace.get();
        let drain = async {
            refuse.cancel();
            told(reloader.finish(RELOADING).await);
            told(scp.finish(grace.associations.get()).await);
            told(reporter.finish(REPORTING).await);
            finish.cancel();
            told(models.finish(grace.studies.get()).await);
            told(pipeline.finish(grace.studies.get()).await);
            flush.cancel();
            told(publisher.finish(grace.outbox.get()).await);
            quiet.cancel();
            told(housekeeper.finish(Duration::from_secs(2)).await);
            told(http.finish(Duration::from_secs(2)).await);
            told(traces.finish(TRACES).await);
        };
        let drained = tokio::select! {
            () = drain => Ok(()),
            () = stop.cancelled() => Err(StageError {
                stage: "drain",
                reason: "cut short by a second signal; nothing depends on it".to_owned(),
            }),
        };
        tracing::info!("stopped");
        died.map_or(drained, Err)
    }

    fn api(&self, phase: watch::Receiver<Phase>) -> Api {
        Api {
            spool: self.pipeline.spool.clone(),
            artefacts: Arc::clone(&self.pipeline.artefacts),
            ledger: self.pipeline.ledger.clone(),
            outbox: self.housekeeper.outbox.clone(),
            procedures: self.housekeeper.procedures.clone(),
            commitments: self.housekeeper.commitments.clone(),
            outbox_wake: Arc::clone(&self.pipeline.outbox_wake),
            metrics: Arc::clone(&self.pipeline.metrics),
            study_key: self.pipeline.study_key.clone(),
            tracer: self.pipeline.tracer.clone(),
            registry: Arc::clone(&self.pipeline.registry),
            provider: self.config.inference.provider.as_str(),
            access: Arc::clone(&self.access),
            monitor: Arc::clone(&self.pipeline.monitor),
            orders: self.orders.clone(),
            broker: self.broker_state.clone(),
            reloads: self.reloads.clone(),
            last_reload: self.last_reload.clone(),
            switches: self.switches.clone(),
            phase,
            ports: self.ports,
        }
    }
}

/// Who keeps books begins when they are open: on a full disk that can be late. Who is told to end waits
/// no longer.
async fn in_time(database: Database, end: CancellationToken) {
    tokio::select! {
        () = database.opened() => {}
        () = end.cancelled() => {}
    }
}

/// What is made of files beside the configuration, and is read again with it.
fn renewals(listener: &scp::Listener, server: &Server) -> Vec<Renewal> {
    let dicom = listener.certificates().map(|certificates| Renewal {
        section: "dicom.tls",
        renew: Box::new(move |config| certificates.reload(&config.dicom.tls.server())),
    });
    let http = server.certificates().map(|certificates| Renewal {
        section: "http.tls",
        renew: Box::new(move |config| {
            let files = config.http.tls.server()?;
            files.map_or(Ok(()), |files| certificates.reload(&files))
        }),
    });
    dicom.into_iter().chain(http).collect()
}

fn database_meter(metrics: &Metrics) -> Meter {
    let commits = &metrics.database_commits_total;
    Meter {
        waiting: metrics.database_queue_depth.clone(),
        commits: metrics.database_commit_duration_seconds.clone(),
        committed: commits.with_label_values(&["committed"]),
        failed: commits.with_label_values(&["failed"]),
    }
}

/// Starts the decoding processes.
async fn decoders(config: &Config, metrics: Option<Arc<Metrics>>) -> Result<Decoders> {
    let config = config.decode.clone();
    let start = move || Decoders::start(config, child::this_program(), metrics);
    Ok(spawn_blocking(start).await??)
}

/// Starts every model without proving or serving it. Also gives what can run its golden cases.
pub async fn load_models(config: &Config) -> Result<(Vec<Model>, Loader)> {
    let decoders = decoders(config, None).await?;
    let trust = config.models.trust().map_err(anyhow::Error::msg)?;
    let loader = Loader::new(config.inference.clone(), decoders, None);
    Ok((loader.all(&config.models, &trust).await?, loader))
}

/// An abandoned stage costs time at the next start, nothing else.
fn told(outcome: Result<(), StageError>) {
    if let Err(error) = outcome {
        tracing::warn!(error = %error, "not drained");
    }
}

fn report(recovered: &Recovered, metrics: &Metrics) {
    tracing::info!(
        instances = recovered.entries.len(),
        incomplete = recovered.incomplete,
        corrupt = recovered.corrupt.len(),
        "spool opened"
    );
    for (file, reason) in &recovered.corrupt {
        metrics
            .quarantined_instances_total
            .with_label_values(&[CORRUPT])
            .inc();
        tracing::warn!(file, reason, "entry quarantined");
    }
}
