//! `GET /api/v1/status`: the gateway on one page.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::{Api, Failure, Phase};
use crate::clock::Timestamp;
use crate::registry::Model;

/// Everything that an operator asks first.
pub(super) async fn status(State(api): State<Api>) -> Result<Response, Failure> {
    let owed = api.outbox.owed().await?;
    let (usage, kept) = (api.spool.usage(), api.spool.kept());
    let age = |at: Timestamp| Timestamp::now().since(at).as_secs();
    let snapshot = api.registry.snapshot();
    let models: Vec<_> = snapshot
        .models
        .iter()
        .flat_map(Model::running)
        .map(|served| {
            let manifest = &served.package.manifest;
            json!({
                "name": manifest.name,
                "version": manifest.version,
                "role": served.role.as_str(),
                "state": served.state().as_str(),
            })
        })
        .collect();
    let body = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "draining": *api.phase.borrow() == Phase::Draining,
        "ports": api.ports,
        "paused": api.switches.shown(),
        "listener": { "associations": api.metrics.associations_active.get() },
        "broker": *api.broker.borrow(),
        "spool": {
            "accepting": api.spool.shedding().is_none(),
            "reason": api.spool.shedding(),
            "instances": usage.instances,
            "bytes": usage.bytes,
            "free_bytes": usage.free_bytes,
            "oldest_seconds": api.spool.oldest().map(age),
        },
        "studies": {
            "open": api.metrics.studies_open.get(),
            "in_work": api.metrics.studies_in_work.get(),
        },
        "outbox": {
            "messages": owed.messages,
            "shadow": owed.shadow,
            "oldest_seconds": owed.oldest.map(age),
        },
        "commitments_open": api.commitments.count_open().await?,
        "quarantine": { "instances": kept.instances, "bytes": kept.bytes },
        "models": models,
        "refused_models": snapshot.refused.len(),
        "last_reload": *api.last_reload.get(),
    });
    Ok(Json(body).into_response())
}
