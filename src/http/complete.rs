//! `POST /api/v1/studies/{uid}/complete`: somebody says that a study is complete.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Api, Failure, answer, missing};
use crate::dicom::StudyInstanceUid;
use crate::study::Order;

/// The pipeline looks at its orders many times a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers when the study counts as complete; its messages are made after that.
pub(super) async fn complete(
    State(api): State<Api>,
    Path(uid): Path<String>,
) -> Result<Response, Failure> {
    let Ok(study) = StudyInstanceUid::parse(&uid) else {
        return Ok(missing("that is no Study Instance UID"));
    };
    let (reply, heard) = oneshot::channel();
    let order = Order {
        study: study.clone(),
        answer: reply,
    };
    let asked = timeout(PATIENCE, async {
        api.orders.send(order).await.ok()?;
        heard.await.ok()
    });
    let Ok(Some(open)) = asked.await else {
        let reason = "no study can be completed now; try again";
        return Ok(answer(StatusCode::SERVICE_UNAVAILABLE, reason));
    };
    if open {
        let study = api.study_key.log_id(&uid);
        tracing::info!(%study, "study completed by request");
        let body = Json(json!({ "study_instance_uid": uid, "completeness": "forced" }));
        return Ok((StatusCode::ACCEPTED, body).into_response());
    }
    Ok(match api.ledger.study(uid).await? {
        Some(_) => answer(
            StatusCode::CONFLICT,
            "nothing of this study is waiting to be completed",
        ),
        None => missing("the ledger knows no such study"),
    })
}
