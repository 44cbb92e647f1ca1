//! `POST /api/v1/studies/{uid}/retry` and `DELETE /api/v1/studies/{uid}`: a study once more, or out of
//! the spool.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::{Api, answer, database_status, missing, one_line};
use crate::dicom::StudyInstanceUid;
use crate::ledger::OrderError;

/// Answers when the study is to be worked on; its messages are made after that.
pub(super) async fn retry(State(api): State<Api>, Path(uid): Path<String>) -> Response {
    let Ok(study) = StudyInstanceUid::parse(&uid) else {
        return missing("that is no Study Instance UID");
    };
    match api.ledger.redo(&api.spool, study).await {
        Ok(instances) => {
            tracing::info!(instances, "a study is worked on once more by request");
            let body = json!({ "study_instance_uid": uid, "instances": instances });
            (StatusCode::ACCEPTED, Json(body)).into_response()
        }
        Err(err) => refused(&err),
    }
}

/// Why, and whether promises count.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Removal {
    reason: String,
    #[serde(default)]
    force: bool,
}

/// Removes what the spool holds of a study.
pub(super) async fn remove(
    State(api): State<Api>,
    Path(uid): Path<String>,
    query: Result<Query<Removal>, QueryRejection>,
) -> Response {
    let Removal { reason, force } = match query {
        Ok(Query(removal)) => removal,
        Err(err) => return answer(StatusCode::BAD_REQUEST, &err.body_text()),
    };
    let Some(reason) = one_line(&reason).filter(|reason| !reason.is_empty()) else {
        let wanted = "reason: 1 to 200 characters on one line";
        return answer(StatusCode::BAD_REQUEST, wanted);
    };
    let Ok(study) = StudyInstanceUid::parse(&uid) else {
        return missing("that is no Study Instance UID");
    };
    let removed = api
        .ledger
        .remove(&api.spool, study, reason.to_owned(), force);
    match removed.await {
        Ok(instances) => {
            let study = api.study_key.log_id(&uid);
            tracing::warn!(
                %study,
                instances,
                force,
                "a study left the spool by request"
            );
            Json(json!({ "study_instance_uid": uid, "removed": instances })).into_response()
        }
        Err(err) => refused(&err),
    }
}

fn refused(err: &OrderError) -> Response {
    let status = match err {
        OrderError::Unknown => StatusCode::NOT_FOUND,
        OrderError::Open
        | OrderError::Gone
        | OrderError::Incomplete(_)
        | OrderError::Owed(_)
        | OrderError::Promised(_) => StatusCode::CONFLICT,
        OrderError::Io(_) => StatusCode::INTERNAL_SERVER_ERROR,
        OrderError::Database(err) => database_status(err),
    };
    if status.is_server_error() {
        tracing::warn!(error = %err, "an order for a study failed");
    }
    answer(status, &err.to_string())
}
