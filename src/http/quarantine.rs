//! `/api/v1/quarantine`: what was set aside, putting it back, deleting it.
//!
//! A name from a request becomes an [`EntryId`] or nothing: no path is built from text.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::task::spawn_blocking;

use super::{Api, MAX_ROWS, answer, database_status, missing};
use crate::ledger::TurnoverError;
use crate::spool::{EntryId, Quarantined, RetryError};

const UNKNOWN: &str = "there is no such entry in quarantine";
const UNREADABLE: &str = "the quarantine cannot be read";

/// One file in quarantine.
#[derive(Serialize)]
struct Item {
    entry: String,
    code: String,
    reason: String,
    since: String,
    bytes: u64,
    in_spool: bool,
    #[serde(flatten)]
    facts: Option<Facts>,
}

/// What its envelope says.
#[derive(Serialize)]
struct Facts {
    study_instance_uid: String,
    sop_instance_uid: String,
    sop_class_uid: String,
    transfer_syntax_uid: String,
    modality: String,
    calling_ae: String,
    received: String,
    sha256: String,
}

impl From<Quarantined> for Item {
    fn from(found: Quarantined) -> Self {
        let facts = found.entry.map(|entry| Facts {
            study_instance_uid: entry.study.as_str().to_owned(),
            sop_instance_uid: entry.arrival.sop_instance.as_str().to_owned(),
            sop_class_uid: entry.arrival.sop_class.as_str().to_owned(),
            transfer_syntax_uid: entry.arrival.transfer_syntax.as_str().to_owned(),
            modality: entry.modality.clone(),
            calling_ae: entry.arrival.calling_ae.as_str().to_owned(),
            received: entry.received_at.rfc3339(),
            sha256: entry.digest.iter().map(|b| format!("{b:02x}")).collect(),
        });
        Self {
            entry: found.name,
            code: found.code,
            reason: found.reason,
            since: found.since.rfc3339(),
            bytes: found.bytes,
            in_spool: found.in_spool,
            facts,
        }
    }
}

/// Which entries. What is not given does not restrict.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    study: Option<String>,
    code: Option<String>,
}

impl Which {
    fn has(&self, found: &Quarantined) -> bool {
        let study = found.entry.as_ref().map(|entry| entry.study.as_str());
        (self.study.is_none() || self.study.as_deref() == study)
            && self.code.as_ref().is_none_or(|code| *code == found.code)
    }
}

async fn find(api: &Api, which: Which) -> Result<Vec<Quarantined>, Response> {
    let spool = api.spool.clone();
    match spawn_blocking(move || spool.quarantined()).await {
        Ok(Ok(mut all)) => {
            all.retain(|found| which.has(found));
            Ok(all)
        }
        _ => Err(super::failure(UNREADABLE)),
    }
}

/// The query of `/api/v1/quarantine`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    study: Option<String>,
    code: Option<String>,
    limit: Option<u32>,
}

/// `GET /api/v1/quarantine`.
pub(super) async fn list(State(api): State<Api>, Query(query): Query<ListQuery>) -> Response {
    let which = Which {
        study: query.study,
        code: query.code,
    };
    let found = match find(&api, which).await {
        Ok(found) => found,
        Err(refusal) => return refusal,
    };
    let (count, limit) = (found.len(), query.limit.unwrap_or(MAX_ROWS).min(MAX_ROWS));
    let items = found.into_iter().take(limit as usize).map(Item::from);
    let items: Vec<Item> = items.collect();
    Json(json!({ "instances": count, "quarantine": items })).into_response()
}

/// `GET /api/v1/quarantine/{entry}`.
pub(super) async fn show(State(api): State<Api>, Path(name): Path<String>) -> Response {
    let Some(id) = entry_id(&name) else {
        return missing(UNKNOWN);
    };
    match spawn_blocking(move || api.spool.quarantined_entry(id)).await {
        Ok(Some(found)) => Json(Item::from(found)).into_response(),
        Ok(None) => missing(UNKNOWN),
        Err(_) => super::failure(UNREADABLE),
    }
}

/// `POST /api/v1/quarantine/{entry}/retry`: back into the spool.
pub(super) async fn retry(State(api): State<Api>, Path(name): Path<String>) -> Response {
    match entry_id(&name) {
        Some(id) => put_back(&api, vec![id]).await,
        None => missing(UNKNOWN),
    }
}

/// `POST /api/v1/quarantine/retry`: everything of a study, or with a reason, at once.
pub(super) async fn retry_some(
    State(api): State<Api>,
    body: Result<Json<Which>, JsonRejection>,
) -> Response {
    let which = match body {
        Ok(Json(which)) => which,
        Err(err) => return answer(err.status(), &err.body_text()),
    };
    if which.study.is_none() && which.code.is_none() {
        return answer(StatusCode::BAD_REQUEST, "study or code must be given");
    }
    let found = match find(&api, which).await {
        Ok(found) => found,
        Err(refusal) => return refusal,
    };
    let ids: Vec<EntryId> = found.iter().filter_map(|f| entry_id(&f.name)).collect();
    if ids.is_empty() {
        return missing("nothing in quarantine is of this study and has this code");
    }
    put_back(&api, ids).await
}

async fn put_back(api: &Api, ids: Vec<EntryId>) -> Response {
    match api.ledger.retry(&api.spool, ids).await {
        Ok(entries) => {
            tracing::info!(instances = entries.len(), "retried by an operator");
            let names: Vec<String> = entries.iter().map(|entry| entry.id.to_string()).collect();
            Json(json!({ "retried": names })).into_response()
        }
        Err(err) => refused(&err),
    }
}

/// `DELETE /api/v1/quarantine/{entry}`: for ever.
pub(super) async fn discard(State(api): State<Api>, Path(name): Path<String>) -> Response {
    let Some(id) = entry_id(&name) else {
        return missing(UNKNOWN);
    };
    match api.ledger.discard(&api.spool, id).await {
        Ok(true) => {
            tracing::warn!(entry = %id, "deleted from quarantine by an operator");
            Json(json!({ "deleted": id.to_string() })).into_response()
        }
        Ok(false) => missing(UNKNOWN),
        Err(err) => refused(&err),
    }
}

fn entry_id(name: &str) -> Option<EntryId> {
    EntryId::from_file_name(&format!("{name}.dcm"))
}

fn refused(err: &TurnoverError) -> Response {
    let status = match err {
        TurnoverError::Spool(RetryError::Unknown) => StatusCode::NOT_FOUND,
        TurnoverError::Spool(RetryError::Corrupt(..) | RetryError::Rival(..)) => {
            StatusCode::CONFLICT
        }
        TurnoverError::Spool(RetryError::Io(_)) => StatusCode::INTERNAL_SERVER_ERROR,
        TurnoverError::Database(err) => database_status(err),
    };
    if status.is_server_error() {
        tracing::warn!(error = %err, "quarantine not changed");
    }
    answer(status, &err.to_string())
}
