//! `/api/v1/studies` and `/api/v1/sources`: where everything is.

use axum::Json;
use axum::extract::{Path, Query, State as FromState};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Api, Failure, MAX_ROWS, answer, missing};
use crate::clock::Timestamp;
use crate::ledger::{Span, State, StudyFilter};
use crate::units::HumanDuration;

/// `since` and `until` of a query: RFC 3339, or how long ago, as `2h30m`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SpanQuery {
    since: Option<String>,
    until: Option<String>,
}

impl SpanQuery {
    pub(super) fn span(&self) -> Result<Span, &'static str> {
        span(self.since.as_deref(), self.until.as_deref())
    }
}

fn span(since: Option<&str>, until: Option<&str>) -> Result<Span, &'static str> {
    let all = Span::default();
    Ok(Span {
        since: since.map_or(Ok(all.since), moment)?,
        until: until.map_or(Ok(all.until), moment)?,
    })
}

fn moment(text: &str) -> Result<Timestamp, &'static str> {
    if let Ok(ago) = text.parse::<HumanDuration>() {
        return Ok(Timestamp::now() - ago.get());
    }
    let wanted = "since and until are RFC 3339 (2026-01-31T08:00:00Z) or a duration (2h30m)";
    text.parse().map_err(|_| wanted)
}

/// The query of `/api/v1/studies`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StudiesQuery {
    log_id: Option<String>,
    calling_ae: Option<String>,
    modality: Option<String>,
    state: Option<State>,
    since: Option<String>,
    until: Option<String>,
    cursor: Option<i64>,
    limit: Option<u32>,
}

/// `GET /api/v1/studies`.
pub(super) async fn list(
    FromState(api): FromState<Api>,
    Query(query): Query<StudiesQuery>,
) -> Result<Response, Failure> {
    let span = match span(query.since.as_deref(), query.until.as_deref()) {
        Ok(span) => span,
        Err(reason) => return Ok(answer(StatusCode::BAD_REQUEST, reason)),
    };
    let mut study = None;
    if let Some(wanted) = query.log_id {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if wanted.len() != 16 || !wanted.bytes().all(digit) {
            let reason = "log_id: 16 hexadecimal digits, as in log lines";
            return Ok(answer(StatusCode::BAD_REQUEST, reason));
        }
        let key = api.study_key.clone();
        let found = api
            .ledger
            .find_study(move |uid| key.log_id(uid).to_string() == wanted);
        study = found.await?;
        if study.is_none() {
            return Ok(Json(json!({ "studies": [] })).into_response());
        }
    }
    let filter = StudyFilter {
        study,
        calling_ae: query.calling_ae,
        modality: query.modality,
        state: query.state,
        span,
        cursor: query.cursor,
        limit: query.limit.unwrap_or(100).clamp(1, MAX_ROWS),
    };
    let page = api.ledger.studies(filter).await?;
    let mut body = serde_json::to_value(page).unwrap_or_default();
    if let Some(studies) = body.get_mut("studies").and_then(Value::as_array_mut) {
        studies.iter_mut().for_each(|study| name(&api, study));
    }
    Ok(Json(body).into_response())
}

/// `GET /api/v1/studies/{uid}`.
pub(super) async fn show(
    FromState(api): FromState<Api>,
    Path(uid): Path<String>,
) -> Result<Response, Failure> {
    let Some(report) = api.ledger.study(uid.clone()).await? else {
        return Ok(missing("the ledger knows no such study"));
    };
    let messages = api.outbox.of_study(uid.clone()).await?;
    let procedure_steps = api.procedures.of_study(uid).await?;
    let mut body = serde_json::to_value(report).unwrap_or_default();
    name(&api, &mut body);
    if let Some(fields) = body.as_object_mut() {
        fields.insert("messages".to_owned(), json!(messages));
        fields.insert("procedure_steps".to_owned(), json!(procedure_steps));
    }
    Ok(Json(body).into_response())
}

/// Adds what logs and traces call a study: the only way from one to the other.
fn name(api: &Api, study: &mut Value) {
    let uid = study.get("study_instance_uid").and_then(Value::as_str);
    let Some(uid) = uid.map(str::to_owned) else {
        return;
    };
    let revisions = study.get_mut("revisions").and_then(Value::as_array_mut);
    for revision in revisions.into_iter().flatten() {
        let number = revision.get("revision").and_then(Value::as_u64);
        let number = number.and_then(|number| u32::try_from(number).ok());
        let trace = number.and_then(|number| api.tracer.study(&uid, number));
        if let (Some(trace), Some(fields)) = (trace, revision.as_object_mut()) {
            fields.insert("trace_id".to_owned(), json!(trace.id().to_string()));
        }
    }
    if let Some(fields) = study.as_object_mut() {
        let id = api.study_key.log_id(&uid).to_string();
        fields.insert("log_id".to_owned(), json!(id));
    }
}

/// `GET /api/v1/sources`.
pub(super) async fn sources(
    FromState(api): FromState<Api>,
    Query(query): Query<SpanQuery>,
) -> Result<Response, Failure> {
    let span = match query.span() {
        Ok(span) => span,
        Err(reason) => return Ok(answer(StatusCode::BAD_REQUEST, reason)),
    };
    let sources = api.ledger.sources(span).await?;
    Ok(Json(json!({ "sources": sources })).into_response())
}
