//! `/api/v1/models`: which versions run, and the two requests that change it.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Api, answer};
use crate::monitor::Drift;
use crate::registry::{Model, ReloadError, Served, Snapshot};

/// A version that runs, as `/api/v1/models` tells of it.
#[derive(Debug, Serialize)]
struct ModelInfo<'a> {
    name: &'a str,
    version: &'a str,
    role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<f64>,
    sha256: &'a str,
    signature: &'static str,
    title: &'a str,
    intended_use: &'a str,
    device_uid: &'a str,
    provider: &'static str,
    state: &'static str,
    labels: Vec<&'a str>,
    versions: &'a [String],
    drift: Vec<Drift>,
}

/// Every version that runs, the served one of each model first, and what was refused.
pub(super) async fn list(State(api): State<Api>) -> Response {
    let snapshot = api.registry.snapshot();
    let api = &api;
    let running = |model| Model::running(model).map(move |served| info(api, model, served));
    let models: Vec<ModelInfo<'_>> = snapshot.models.iter().flat_map(running).collect();
    Json(json!({ "models": models, "refused": refused(&snapshot) })).into_response()
}

fn refused(snapshot: &Snapshot) -> serde_json::Value {
    json!(snapshot.refused)
}

fn info<'a>(api: &Api, model: &'a Model, served: &'a Served) -> ModelInfo<'a> {
    let package = &served.package;
    let manifest = &package.manifest;
    let canary = model.canary.as_ref();
    ModelInfo {
        name: &manifest.name,
        version: &manifest.version,
        role: served.role.as_str(),
        percent: canary
            .filter(|(canary, _)| canary.role == served.role)
            .map(|(_, percent)| *percent),
        sha256: &manifest.sha256,
        signature: package.signature.as_str(),
        title: &manifest.title,
        intended_use: &manifest.intended_use,
        device_uid: &manifest.device_uid,
        provider: api.provider,
        state: served.state().as_str(),
        labels: manifest
            .output
            .labels()
            .into_iter()
            .map(|label| label.label)
            .collect(),
        versions: &model.versions,
        drift: api.monitor.drift(&manifest.name, &manifest.version),
    }
}

/// `POST /api/v1/models/reload`: looks at the folder now.
pub(super) async fn reload(State(api): State<Api>) -> Response {
    let registry = Arc::clone(&api.registry);
    // In a task of its own: a client that hangs up does not stop it half way.
    match tokio::spawn(async move { registry.reload().await }).await {
        Ok(Ok(report)) => Json(report).into_response(),
        Ok(Err(err)) => failed(&err),
        Err(_) => super::failure("the reload ended abnormally; see the log"),
    }
}

/// The body of `POST /api/v1/models/{name}/serve`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Serve {
    version: String,
}

/// `POST /api/v1/models/{name}/serve`: makes a version the served one.
pub(super) async fn serve(
    State(api): State<Api>,
    UrlPath(name): UrlPath<String>,
    body: Result<Json<Serve>, JsonRejection>,
) -> Response {
    let version = match body {
        Ok(Json(body)) => body.version,
        Err(err) => return answer(err.status(), &err.body_text()),
    };
    let registry = Arc::clone(&api.registry);
    let (model, wanted) = (name.clone(), version.clone());
    match tokio::spawn(async move { registry.serve(&model, &wanted).await }).await {
        Ok(Ok(())) => Json(json!({ "model": name, "version": version })).into_response(),
        Ok(Err(err)) => failed(&err),
        Err(_) => super::failure("loading ended abnormally; see the log"),
    }
}

fn failed(err: &ReloadError) -> Response {
    let status = match err {
        ReloadError::Unknown(_) => StatusCode::NOT_FOUND,
        ReloadError::Refused(_) => StatusCode::CONFLICT,
        ReloadError::Busy => StatusCode::SERVICE_UNAVAILABLE,
    };
    answer(status, &err.to_string())
}
