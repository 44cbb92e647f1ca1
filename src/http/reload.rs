//! `POST /api/v1/reload`: files and environment are read again, and what may change does.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::oneshot;

use super::{Api, answer};
use crate::registry;

/// Somebody wants the configuration to be read again.
#[derive(Debug)]
pub struct Order {
    /// Gets what came of it, or why nothing did.
    pub answer: oneshot::Sender<Result<Report, String>>,
}

/// What a reload led to. It names keys and holds no values.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Keys that have changed and count from now on.
    pub applied: Vec<String>,
    /// Keys that have changed and count after a restart.
    pub needs_restart: Vec<String>,
    /// Keys that have not changed.
    pub unchanged: usize,
    /// Sections whose certificates were read again.
    pub certificates: Vec<&'static str>,
    /// What came of it for models, if their rules have changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub models: Option<registry::Report>,
}

/// What came of the last reload.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// When it was.
    pub at: String,
    /// Why nothing was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// What was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
}

/// Answers when it is done.
pub(super) async fn reload(State(api): State<Api>) -> Response {
    let (reply, heard) = oneshot::channel();
    if api.reloads.try_send(Order { answer: reply }).is_err() {
        return busy();
    }
    match heard.await {
        Ok(Ok(report)) => Json(report).into_response(),
        Ok(Err(reason)) => answer(StatusCode::CONFLICT, &reason),
        Err(_) => busy(),
    }
}

fn busy() -> Response {
    let reason = "the configuration cannot be reloaded now; try again";
    answer(StatusCode::SERVICE_UNAVAILABLE, reason)
}
