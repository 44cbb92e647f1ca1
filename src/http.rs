//! HTTP: probes, metrics, the receipt ledger. Nothing here changes state.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::broker;
use crate::durable::database::DatabaseError;
use crate::ledger::Ledger;
use crate::monitor::Monitor;
use crate::outbox::Outbox;
use crate::spool::Spool;
use crate::telemetry::Metrics;

/// Rows of a list at most.
const MAX_ROWS: u32 = 10_000;

/// The `[http]` section.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port; port 0 takes a free one.
    pub bind: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bind: "0.0.0.0:8080".to_owned(),
        }
    }
}

/// Ports in use.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Ports {
    /// DICOM listener.
    pub dicom: u16,
    /// This server.
    pub http: u16,
}

/// Where the process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Work goes on.
    Running,
    /// No new associations.
    Draining,
}

/// A model as `/api/v1/models` tells of it.
#[derive(Debug, Clone, Serialize)]
pub struct ModelInfo {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// SHA-256 of the ONNX file.
    pub sha256: String,
    /// Title.
    pub title: String,
    /// Intended use.
    pub intended_use: String,
    /// Device UID.
    pub device_uid: String,
    /// Execution provider.
    pub provider: &'static str,
    /// Labels it reports.
    pub labels: Vec<String>,
}

/// What the handlers read from.
#[derive(Clone)]
pub struct Api {
    /// Accepted instances.
    pub spool: Spool,
    /// What became of them.
    pub ledger: Ledger,
    /// What is owed.
    pub outbox: Outbox,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Models being served.
    pub models: Arc<Vec<ModelInfo>>,
    /// What models say, and whether it drifts.
    pub monitor: Arc<Monitor>,
    /// State of the broker's connection.
    pub broker: watch::Receiver<broker::State>,
    /// Where the process is in its life.
    pub phase: watch::Receiver<Phase>,
    /// Ports in use.
    pub ports: Ports,
}

/// A bound socket that does not serve yet.
pub struct Server {
    listener: TcpListener,
}

impl Server {
    /// Binds eagerly, so that a taken port is an error at start.
    pub async fn bind(config: &Config) -> std::io::Result<Self> {
        let listener = TcpListener::bind(&config.bind).await?;
        Ok(Self { listener })
    }

    /// Address in use.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`.
    pub async fn run(self, api: Api, stop: CancellationToken) -> std::io::Result<()> {
        axum::serve(self.listener, router(api))
            .with_graceful_shutdown(stop.cancelled_owned())
            .await
    }
}

fn router(api: Api) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/api/v1/studies", get(studies))
        .route("/api/v1/studies/{uid}", get(study))
        .route("/api/v1/outbox", get(outbox))
        .route("/api/v1/quarantine", get(quarantine))
        .route("/api/v1/models", get(models))
        .route("/api/v1/openapi.json", get(openapi))
        .with_state(api)
}

/// Ready while associations are accepted. A broker that is away does not count: what is received is
/// safe and will be published. A full spool does not count either: it is answered in DICOM, where the
/// modality's operator sees a reason.
async fn ready(State(api): State<Api>) -> Response {
    let phase = *api.phase.borrow();
    let (status, reason) = match phase {
        Phase::Running => (StatusCode::OK, "ready"),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    };
    let body = json!({
        "ready": phase == Phase::Running,
        "reason": reason,
        "ports": api.ports,
        "broker": *api.broker.borrow(),
        "spool": { "accepting": api.spool.shedding().is_none(), "reason": api.spool.shedding() },
    });
    (status, Json(body)).into_response()
}

async fn metrics(State(api): State<Api>) -> Response {
    let kind = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    (kind, api.metrics.render()).into_response()
}

#[derive(Deserialize)]
struct Page {
    limit: Option<u32>,
}

impl Page {
    fn limit(&self) -> u32 {
        self.limit.unwrap_or(100).clamp(1, MAX_ROWS)
    }
}

async fn studies(State(api): State<Api>, Query(page): Query<Page>) -> Result<Response, Failure> {
    let studies = api.ledger.studies(page.limit()).await?;
    Ok(Json(json!({ "studies": studies })).into_response())
}

async fn study(State(api): State<Api>, Path(uid): Path<String>) -> Result<Response, Failure> {
    let Some(report) = api.ledger.study(uid.clone()).await? else {
        return Ok(missing("the ledger knows no such study"));
    };
    let messages = api.outbox.of_study(uid).await?;
    let mut body = serde_json::to_value(report).unwrap_or_default();
    if let Some(fields) = body.as_object_mut() {
        fields.insert("messages".to_owned(), json!(messages));
    }
    Ok(Json(body).into_response())
}

async fn outbox(State(api): State<Api>, Query(page): Query<Page>) -> Result<Response, Failure> {
    let owed = api.outbox.owed().await?;
    let messages = api.outbox.waiting(page.limit()).await?;
    Ok(Json(json!({ "owed": owed.messages, "messages": messages })).into_response())
}

async fn quarantine(State(api): State<Api>) -> Response {
    let listed = tokio::task::spawn_blocking(move || api.spool.quarantined()).await;
    match listed {
        Ok(Ok(items)) => {
            let items: Vec<_> = items
                .into_iter()
                .map(|(entry, reason)| json!({ "entry": entry, "reason": reason.trim() }))
                .collect();
            Json(json!({ "quarantine": items })).into_response()
        }
        _ => failure("the quarantine cannot be read"),
    }
}

async fn models(State(api): State<Api>) -> Response {
    let models: Vec<_> = api
        .models
        .iter()
        .map(|model| drifting(&api, model))
        .collect();
    Json(json!({ "models": models })).into_response()
}

/// A model with the drift of its scores.
fn drifting(api: &Api, model: &ModelInfo) -> serde_json::Value {
    let mut told = json!(model);
    if let Some(fields) = told.as_object_mut() {
        let drift = api.monitor.drift(&model.name, &model.version);
        fields.insert("drift".to_owned(), json!(drift));
    }
    told
}

async fn openapi() -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (kind, include_str!("../docs/openapi.json")).into_response()
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
        tracing::warn!(error = %self.0, "ledger query failed");
        failure("the ledger cannot be read; see the log")
    }
}

fn missing(reason: &str) -> Response {
    (StatusCode::NOT_FOUND, Json(json!({ "error": reason }))).into_response()
}

fn failure(reason: &str) -> Response {
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        Json(json!({ "error": reason })),
    )
        .into_response()
}
