//! HTTP: probes, metrics, the receipt ledger, models. Who may ask for what: [`access`].

mod access;
mod complete;
mod envelope;
mod export;
mod heartbeat;
mod models;
pub mod operator;
mod outbox;
pub mod pause;
mod quarantine;
mod redo;
pub mod reload;
mod server;
mod stall;
mod status;
mod studies;

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::io::ReaderStream;

pub use self::access::{Access, Secret};
use self::heartbeat::Heartbeat;
pub use self::server::Server;

use crate::artefact;
use crate::broker;
use crate::commitment;
use crate::durable::database::DatabaseError;
use crate::ledger::Ledger;
use crate::live::Live;
use crate::monitor::Monitor;
use crate::outbox::Outbox;
use crate::procedure;
use crate::registry::Registry;
use crate::spool::Spool;
use crate::study::Order;
use crate::telemetry::traces::Tracer;
use crate::telemetry::{Metrics, StudyKey};

/// Rows of a list at most.
const MAX_ROWS: u32 = 10_000;

/// The `[http]` section.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port; port 0 takes a free one.
    pub bind: String,
    /// A listener of its own for probes and metrics; empty: they are on `bind`.
    pub probe_bind: String,
    /// Files with bearer tokens of who may read, one each.
    pub read_token_files: Vec<PathBuf>,
    /// Files with bearer tokens of who may also change something.
    pub operate_token_files: Vec<PathBuf>,
    /// Tokens of who may read, meant for the environment.
    #[serde(deserialize_with = "access::secrets")]
    pub read_tokens: Vec<Secret>,
    /// Likewise of who may also change something.
    #[serde(deserialize_with = "access::secrets")]
    pub operate_tokens: Vec<Secret>,
    /// HTTPS on `bind`.
    pub tls: Tls,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bind: "0.0.0.0:8080".to_owned(),
            probe_bind: String::new(),
            read_token_files: Vec::new(),
            operate_token_files: Vec::new(),
            read_tokens: Vec::new(),
            operate_tokens: Vec::new(),
            tls: Tls::default(),
        }
    }
}

impl Config {
    /// Reads every file once, so that one that cannot be used is told at start. Blocking.
    ///
    /// # Errors
    /// The key with `http.`, the file and the reason.
    pub fn check_files(&self) -> Result<(), String> {
        self.tls.acceptor()?;
        access::check(self)
    }
}

/// The `[http.tls]` section.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM file of our certificate and its chain; empty: no TLS.
    pub certificate: PathBuf,
    /// PEM file of our private key.
    pub key: PathBuf,
}

/// Ports in use.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Ports {
    /// DICOM listener without TLS.
    pub dicom: Option<u16>,
    /// DICOM listener with TLS.
    pub dicom_tls: Option<u16>,
    /// This server.
    pub http: u16,
    /// Its probes, when they have a listener of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_probe: Option<u16>,
}

/// Where the process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Work goes on.
    Running,
    /// No new associations.
    Draining,
}

/// What the handlers read from.
#[derive(Clone)]
pub struct Api {
    /// Accepted instances.
    pub spool: Spool,
    /// Pictures and masks.
    pub artefacts: Arc<artefact::Store>,
    /// What became of them.
    pub ledger: Ledger,
    /// What is owed.
    pub outbox: Outbox,
    /// What modalities say they did.
    pub procedures: procedure::Store,
    /// Storage Commitment requests.
    pub commitments: commitment::Store,
    /// Rung when something in it has become due.
    pub outbox_wake: Arc<Notify>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What stands for studies in logs.
    pub study_key: StudyKey,
    /// Traces of studies.
    pub tracer: Tracer,
    /// Models being served.
    pub registry: Arc<Registry>,
    /// Execution provider.
    pub provider: &'static str,
    /// Who may ask for what.
    pub access: Arc<Access>,
    /// What models say, and whether it drifts.
    pub monitor: Arc<Monitor>,
    /// What people say to the pipeline.
    pub orders: mpsc::Sender<Order>,
    /// State of the broker's connection.
    pub broker: watch::Receiver<broker::State>,
    /// Where wishes for a reload go.
    pub reloads: mpsc::Sender<reload::Order>,
    /// What came of the last one.
    pub last_reload: Live<Option<reload::Outcome>>,
    /// What is paused.
    pub switches: pause::Switches,
    /// Where the process is in its life.
    pub phase: watch::Receiver<Phase>,
    /// Ports in use.
    pub ports: Ports,
}

/// What an orchestrator asks, on every listener.
fn probes(heartbeat: Arc<Heartbeat>) -> Router<Api> {
    Router::new()
        .route("/livez", get(async move || heartbeat.answer()))
        .route("/readyz", get(ready))
}

/// The listener of `http.probe_bind`.
fn probe_router(api: Api, heartbeat: Arc<Heartbeat>) -> Router {
    probes(heartbeat)
        .route("/metrics", get(metrics))
        .layer(from_fn_with_state(api.clone(), envelope::close))
        .with_state(api)
}

/// Every route of `http.bind`, by who may ask: anybody, who has a token, who has one to operate with.
fn api_router(api: Api, heartbeat: Arc<Heartbeat>, with_metrics: bool) -> Router {
    let mut open = probes(heartbeat).route("/api/v1/openapi.json", get(openapi));
    if with_metrics {
        open = open.route("/metrics", get(metrics));
    }
    let read = Router::new()
        .route("/api/v1/studies", get(studies::list))
        .route("/api/v1/studies/{uid}", get(studies::show))
        .route("/api/v1/sources", get(studies::sources))
        .route("/api/v1/ledger.csv", get(export::csv))
        .route("/api/v1/ledger.ndjson", get(export::ndjson))
        .route("/api/v1/commitments", get(commitments))
        .route("/api/v1/outbox", get(outbox::list))
        .route("/api/v1/outbox/{id}", get(outbox::show))
        .route("/api/v1/quarantine", get(quarantine::list))
        .route("/api/v1/quarantine/{entry}", get(quarantine::show))
        .route("/api/v1/artefacts/{name}", get(artefact))
        .route("/api/v1/models", get(models::list))
        .route("/api/v1/status", get(status::status))
        .route_layer(from_fn_with_state(api.clone(), access::read));
    let operate = Router::new()
        .route("/api/v1/studies/{uid}/complete", post(complete::complete))
        .route("/api/v1/studies/{uid}/retry", post(redo::retry))
        .route("/api/v1/studies/{uid}", delete(redo::remove))
        .route("/api/v1/outbox/retry", post(outbox::retry_all))
        .route("/api/v1/outbox/{id}", delete(outbox::discard))
        .route("/api/v1/outbox/{id}/retry", post(outbox::retry))
        .route("/api/v1/quarantine/retry", post(quarantine::retry_some))
        .route("/api/v1/quarantine/{entry}", delete(quarantine::discard))
        .route("/api/v1/quarantine/{entry}/retry", post(quarantine::retry))
        .route("/api/v1/reload", post(reload::reload))
        .route("/api/v1/listener/pause", post(pause::pause_listener))
        .route("/api/v1/listener/resume", post(pause::resume_listener))
        .route("/api/v1/broker/pause", post(pause::pause_broker))
        .route("/api/v1/broker/resume", post(pause::resume_broker))
        .route("/api/v1/models/reload", post(models::reload))
        .route("/api/v1/models/{name}/serve", post(models::serve))
        .route_layer(from_fn(envelope::whole))
        .route_layer(from_fn_with_state(api.clone(), access::operate));
    open.merge(read)
        .merge(operate)
        .layer(from_fn_with_state(api.clone(), envelope::close))
        .with_state(api)
}

/// Ready while associations are accepted, so not while an operator has paused the listener: other
/// replicas get the connections. A broker that is away does not count: what is received is
/// safe and will be published. A full spool does not count either: it is answered in DICOM, where the
/// modality's operator sees a reason.
async fn ready(State(api): State<Api>) -> Response {
    let phase = *api.phase.borrow();
    let (ready, reason) = match phase {
        Phase::Draining => (false, "draining"),
        Phase::Running if api.switches.listener.is_paused() => (false, "listener paused"),
        Phase::Running => (true, "ready"),
    };
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({
        "ready": ready,
        "reason": reason,
        "ports": api.ports,
        "broker": broker_state(&api),
        "paused": api.switches.names(),
        "spool": { "accepting": api.spool.shedding().is_none(), "reason": api.spool.shedding() },
    });
    (status, Json(body)).into_response()
}

/// Without its last error, which may name hosts.
fn broker_state(api: &Api) -> broker::State {
    let state = api.broker.borrow().clone();
    broker::State {
        error: None,
        ..state
    }
}

async fn metrics(State(api): State<Api>) -> Response {
    let kind = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    (kind, api.metrics.render()).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    limit: Option<u32>,
}

impl Page {
    fn limit(&self) -> u32 {
        self.limit.unwrap_or(100).clamp(1, MAX_ROWS)
    }
}

async fn commitments(
    State(api): State<Api>,
    Query(page): Query<Page>,
) -> Result<Response, Failure> {
    let open = api.commitments.count_open().await?;
    let listed = api.commitments.list(page.limit()).await?;
    Ok(Json(json!({ "open": open, "commitments": listed })).into_response())
}

/// Sent piece by piece: a mask of a volume may be large.
async fn artefact(State(api): State<Api>, Path(name): Path<String>) -> Response {
    let media_type = artefact::media_type(&name);
    let opened = tokio::task::spawn_blocking(move || {
        let file = api.artefacts.open_file(&name)?;
        let length = file.as_ref().map(|file| file.metadata()).transpose()?;
        Ok::<_, std::io::Error>(file.zip(length.map(|meta| meta.len())))
    });
    match opened.await {
        Ok(Ok(Some((file, length)))) => {
            let head = [
                (header::CONTENT_TYPE, media_type.to_owned()),
                (header::CONTENT_LENGTH, length.to_string()),
                // Its name is its content's; who may see it is not for a cache to decide.
                (header::CACHE_CONTROL, "private, immutable".to_owned()),
            ];
            let file = tokio::fs::File::from_std(file);
            (head, Body::from_stream(ReaderStream::new(file))).into_response()
        }
        Ok(Ok(None)) => missing("no such artefact, or its retention is over"),
        _ => failure("the artefact cannot be read"),
    }
}

async fn openapi() -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (kind, include_str!("../docs/openapi.json")).into_response()
}

/// Longest reason that an operator gives, in characters.
const MAX_REASON: usize = 200;

/// What an operator says of an action, without white space around it. `None`: not one line of at most
/// [`MAX_REASON`] characters.
fn one_line(text: &str) -> Option<&str> {
    let fits = text.chars().count() <= MAX_REASON && !text.chars().any(char::is_control);
    fits.then(|| text.trim())
}

/// A failed read of the database.
struct Failure(DatabaseError);

impl From<DatabaseError> for Failure {
    fn from(err: DatabaseError) -> Self {
        Self(err)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        tracing::warn!(error = %self.0, "the database failed a request");
        let reason = "the ledger cannot be read or written; see the log";
        answer(database_status(&self.0), reason)
    }
}

/// A database that waits for room will be opened.
fn database_status(err: &DatabaseError) -> StatusCode {
    match err {
        DatabaseError::NoRoom => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn missing(reason: &str) -> Response {
    answer(StatusCode::NOT_FOUND, reason)
}

fn failure(reason: &str) -> Response {
    answer(StatusCode::INTERNAL_SERVER_ERROR, reason)
}

fn answer(status: StatusCode, reason: &str) -> Response {
    (status, Json(json!({ "error": reason }))).into_response()
}
