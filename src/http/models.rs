//! `/api/v1/models`: which versions run, and the two requests that change it.
//!
//! Changing needs the bearer token of `http.admin_token_file`. The file is read for each request, so
//! that a rotated secret counts at once.

use std::path::Path;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;

use super::Api;
use crate::monitor::Drift;
use crate::registry::{Model, ReloadError, Served, Snapshot};

/// Largest token file.
const MAX_TOKEN: u64 = 4096;
/// A shorter token can be guessed.
const MIN_TOKEN: usize = 16;

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
pub(super) async fn reload(State(api): State<Api>, headers: HeaderMap) -> Response {
    if let Err(refusal) = allowed(&api, &headers).await {
        return refusal;
    }
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
    headers: HeaderMap,
    body: Result<Json<Serve>, JsonRejection>,
) -> Response {
    if let Err(refusal) = allowed(&api, &headers).await {
        return refusal;
    }
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

fn answer(status: StatusCode, reason: &str) -> Response {
    (status, Json(json!({ "error": reason }))).into_response()
}

/// Whether the request carries the token.
async fn allowed(api: &Api, headers: &HeaderMap) -> Result<(), Response> {
    let file = &api.admin_token_file;
    if file.as_os_str().is_empty() {
        let reason = "http.admin_token_file is not set: nothing can be changed over HTTP";
        return Err(answer(StatusCode::FORBIDDEN, reason));
    }
    let token = token(file).await.map_err(|err| {
        tracing::warn!(error = %err, "http.admin_token_file");
        super::failure("http.admin_token_file cannot be used; see the log")
    })?;
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map_or("", |(_, token)| token.trim());
    if same(given, &token) {
        return Ok(());
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    let mut refusal = answer(StatusCode::UNAUTHORIZED, "a valid bearer token is needed");
    refusal
        .headers_mut()
        .extend(challenge.map(|(name, value)| (name, header::HeaderValue::from_static(value))));
    Err(refusal)
}

/// Compares digests, all of them: how long it takes tells nothing of the token.
fn same(given: &str, token: &str) -> bool {
    let (given, token) = (Sha256::digest(given), Sha256::digest(token));
    let different = given
        .iter()
        .zip(&token)
        .fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(different) == 0
}

/// The token in a file, without white space around it.
pub(super) async fn token(file: &Path) -> Result<String, std::io::Error> {
    let refuse = |reason: &str| {
        let reason = format!("{}: {reason}", file.display());
        std::io::Error::new(std::io::ErrorKind::InvalidData, reason)
    };
    let opened = tokio::fs::File::open(file).await;
    let mut text = String::new();
    opened
        .map_err(|err| refuse(&err.to_string()))?
        .take(MAX_TOKEN)
        .read_to_string(&mut text)
        .await
        .map_err(|err| refuse(&err.to_string()))?;
    let token = text.trim();
    if token.len() < MIN_TOKEN {
        return Err(refuse("the token must have at least 16 characters"));
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_same_or_it_is_not() {
        assert!(same("correct horse battery", "correct horse battery"));
        for wrong in ["", "correct horse batter", "Correct horse battery"] {
            assert!(!same(wrong, "correct horse battery"), "{wrong}");
        }
    }
}
