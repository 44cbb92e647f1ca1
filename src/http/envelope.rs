//! What every answer has in common: headers, the form of errors, and that it is counted.

use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::timeout;

use super::{Api, answer};

/// Longest body of a request.
const MAX_BODY: usize = 64 * 1024;
/// Longest wait for it.
const BODY: Duration = Duration::from_secs(10);
/// Longest explanation of axum's that is passed on.
const MAX_REASON: usize = 4096;

/// The outermost layer.
pub(super) async fn close(State(api): State<Api>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().cloned();
    let route = path.as_ref().map_or("other", MatchedPath::as_str);
    let started = Instant::now();
    let mut response = uniform(next.run(request).await).await;
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    let metrics = &api.metrics;
    let durations = metrics
        .http_request_duration_seconds
        .with_label_values(&[route]);
    durations.observe(started.elapsed().as_secs_f64());
    let status = response.status();
    let requests = metrics
        .http_requests_total
        .with_label_values(&[route, status.as_str()]);
    requests.inc();
    response
}

/// Reads the body of a request before its handler runs, within bounds of size and time.
pub(super) async fn whole(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    match timeout(BODY, to_bytes(body, MAX_BODY)).await {
        Ok(Ok(bytes)) => next.run(Request::from_parts(head, Body::from(bytes))).await,
        Ok(Err(_)) => answer(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is longer than 64 KiB, or broke off",
        ),
        Err(_) => answer(StatusCode::REQUEST_TIMEOUT, "the body took too long"),
    }
}

/// Refusals of axum's own in the form of ours.
async fn uniform(response: Response) -> Response {
    let status = response.status();
    let json = HeaderValue::from_static("application/json");
    if !(status.is_client_error() || status.is_server_error())
        || response.headers().get(CONTENT_TYPE) == Some(&json)
    {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let text = to_bytes(body, MAX_REASON).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let reason = match (status, text.trim()) {
        (StatusCode::NOT_FOUND, "") => "there is no such path",
        (StatusCode::METHOD_NOT_ALLOWED, "") => "this path has no such method",
        (_, "") => status.canonical_reason().unwrap_or("refused"),
        (_, text) => text,
    };
    let (ours, body) = answer(status, reason).into_parts();
    head.headers.remove(CONTENT_LENGTH);
    head.headers.extend(ours.headers);
    Response::from_parts(head, body)
}
