//! `/api/v1/outbox`: what is owed, sending it at once, giving it up.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::{Api, Failure, Page, answer, missing, one_line};
use crate::clock::Timestamp;
use crate::telemetry::traces::News;

/// `GET /api/v1/outbox`.
pub(super) async fn list(
    State(api): State<Api>,
    Query(page): Query<Page>,
) -> Result<Response, Failure> {
    let owed = api.outbox.owed().await?;
    let messages = api.outbox.waiting(page.limit()).await?;
    Ok(Json(json!({ "owed": owed.messages, "messages": messages })).into_response())
}

/// `GET /api/v1/outbox/{id}`. Not the body: it may name the patient.
pub(super) async fn show(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    Ok(match api.outbox.message(id).await? {
        Some(message) => Json(message).into_response(),
        None => missing(UNKNOWN),
    })
}

const UNKNOWN: &str = "there is no such message, or its retention is over";

/// `POST /api/v1/outbox/{id}/retry`: due at once.
pub(super) async fn retry(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    if api.outbox.retry(Some(id.clone())).await? == 0 {
        return not_owed(&api, id).await;
    }
    api.outbox_wake.notify_one();
    tracing::info!(message_id = id, "message made due by an operator");
    Ok(Json(json!({ "retried": 1 })).into_response())
}

/// `POST /api/v1/outbox/retry`: everything that is owed is due at once.
pub(super) async fn retry_all(State(api): State<Api>) -> Result<Response, Failure> {
    let retried = api.outbox.retry(None).await?;
    api.outbox_wake.notify_one();
    tracing::info!(retried, "messages made due by an operator");
    Ok(Json(json!({ "retried": retried })).into_response())
}

/// Why a message is given up.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reason {
    reason: String,
}

/// `DELETE /api/v1/outbox/{id}?reason=…`: given up, durably. The row stays, marked as discarded.
pub(super) async fn discard(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(Reason { reason }): Query<Reason>,
) -> Result<Response, Failure> {
    let Some(reason) = one_line(&reason).filter(|reason| !reason.is_empty()) else {
        let wrong = "reason: 1 to 200 characters on one line";
        return Ok(answer(StatusCode::BAD_REQUEST, wrong));
    };
    let reason = reason.to_owned();
    let now = Timestamp::now();
    if !api.outbox.discard(id.clone(), reason, now).await? {
        return not_owed(&api, id).await;
    }
    // The next message of the study may go.
    api.outbox_wake.notify_one();
    let message = api.outbox.message(id.clone()).await.ok().flatten();
    let study = message
        .as_ref()
        .map(|message| api.study_key.log_id(&message.study_instance_uid));
    let study = study.map(tracing::field::display);
    tracing::warn!(study, message_id = id, "message given up by an operator");
    if let Some(message) = message {
        // It may have been the last one that was owed.
        api.tracer.tell(|| News::Settled {
            study: message.study_instance_uid,
            revision: message.summary.revision,
        });
    }
    Ok(Json(json!({ "discarded": id })).into_response())
}

async fn not_owed(api: &Api, id: String) -> Result<Response, Failure> {
    Ok(match api.outbox.message(id).await? {
        None => missing(UNKNOWN),
        Some(_) => answer(
            StatusCode::CONFLICT,
            "it is not owed: the broker has confirmed it, or it was given up",
        ),
    })
}
