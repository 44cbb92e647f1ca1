//! `POST /api/v1/{listener,broker}/{pause,resume}`: what an operator tells to wait.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Api, answer, one_line};
use crate::pause::{LONGEST, Shown, Switch};
use crate::units::HumanDuration;

/// What can be paused.
#[derive(Clone)]
pub struct Switches {
    /// New associations.
    pub listener: Switch,
    /// Publishing.
    pub broker: Switch,
}

/// What is paused, for who may read.
#[derive(Debug, Serialize)]
pub(super) struct Paused {
    #[serde(skip_serializing_if = "Option::is_none")]
    listener: Option<Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    broker: Option<Shown>,
}

impl Switches {
    /// For everybody: what an operator said is not for them.
    pub(super) fn names(&self) -> Vec<&'static str> {
        let all = [&self.listener, &self.broker].into_iter();
        all.filter(|switch| switch.is_paused())
            .map(Switch::name)
            .collect()
    }

    pub(super) fn shown(&self) -> Paused {
        Paused {
            listener: self.listener.get().map(Shown::from),
            broker: self.broker.get().map(Shown::from),
        }
    }
}

/// The body of a pause; all of it may be left out.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Wish {
    reason: String,
    #[serde(rename = "for")]
    duration: Option<HumanDuration>,
}

/// A body, or none.
type Wished = Result<Option<Json<Wish>>, JsonRejection>;

pub(super) async fn pause_listener(State(api): State<Api>, wished: Wished) -> Response {
    pause(&api.switches.listener, wished)
}

pub(super) async fn pause_broker(State(api): State<Api>, wished: Wished) -> Response {
    pause(&api.switches.broker, wished)
}

pub(super) async fn resume_listener(State(api): State<Api>) -> Response {
    resume(&api.switches.listener)
}

pub(super) async fn resume_broker(State(api): State<Api>) -> Response {
    resume(&api.switches.broker)
}

/// Pauses, or says anew how long and why.
fn pause(switch: &Switch, wished: Wished) -> Response {
    let wish = match wished {
        Ok(wish) => wish.map(|Json(wish)| wish).unwrap_or_default(),
        Err(err) => return answer(err.status(), &err.body_text()),
    };
    let Some(reason) = one_line(&wish.reason) else {
        return answer(
            StatusCode::UNPROCESSABLE_ENTITY,
            "reason: at most 200 characters on one line",
        );
    };
    let duration = wish.duration.map(|duration| duration.get().min(LONGEST));
    let pause = switch.pause(reason.to_owned(), duration);
    Json(json!({ "what": switch.name(), "paused": Shown::from(pause) })).into_response()
}

/// Ends a pause; one that is over already is no mistake.
fn resume(switch: &Switch) -> Response {
    let was_paused = switch.resume();
    Json(json!({ "what": switch.name(), "was_paused": was_paused })).into_response()
}
