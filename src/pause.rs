//! What an operator has told to wait: the listener, the broker's side.
//!
//! A pause lives in memory only: a gateway that starts works.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::IntGauge;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::clock::Timestamp;
use crate::telemetry::metrics::Metrics;

/// The longest pause that ends by itself.
pub const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// A pause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Since when.
    pub since: Timestamp,
    /// When it ends by itself.
    pub until: Option<Timestamp>,
    /// What the operator said of it.
    pub reason: String,
}

/// What the API shows of a pause.
#[derive(Debug, Clone, Serialize)]
pub struct Shown {
    since: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    reason: String,
}

impl From<Pause> for Shown {
    fn from(pause: Pause) -> Self {
        Self {
            since: pause.since.rfc3339(),
            until: pause.until.map(Timestamp::rfc3339),
            reason: pause.reason,
        }
    }
}

/// Pauses one thing. Clones share it.
#[derive(Debug, Clone)]
pub struct Switch {
    /// For logs and metrics.
    name: &'static str,
    state: watch::Sender<Option<Pause>>,
    /// Ends the pause of now.
    timer: Arc<Mutex<Option<AbortHandle>>>,
    gauge: IntGauge,
}

impl Switch {
    /// A switch that pauses nothing yet.
    pub fn new(name: &'static str, metrics: &Metrics) -> Self {
        let gauge = metrics.paused.with_label_values(&[name]);
        gauge.set(0);
        Self {
            name,
            gauge,
            state: watch::Sender::new(None),
            timer: Arc::default(),
        }
    }

    /// What it pauses.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The pause of now.
    pub fn get(&self) -> Option<Pause> {
        self.state.borrow().clone()
    }

    /// Whether there is one. Cheap.
    pub fn is_paused(&self) -> bool {
        self.state.borrow().is_some()
    }

    /// Pauses, or says anew how long and why. Needs a runtime for a pause that ends by itself.
    pub fn pause(&self, reason: String, duration: Option<Duration>) -> Pause {
        let mut timer = self.timer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = timer.take() {
            old.abort();
        }
        let now = Timestamp::now();
        let duration = duration.map(|duration| duration.min(LONGEST));
        let pause = Pause {
            since: self.get().map_or(now, |pause| pause.since),
            until: duration.map(|duration| now + duration),
            reason,
        };
        self.state.send_replace(Some(pause.clone()));
        self.gauge.set(1);
        tracing::warn!(what = self.name, reason = pause.reason, ?duration, "paused");
        *timer = duration.map(|duration| {
            let (state, gauge) = (self.state.clone(), self.gauge.clone());
            let (name, mine) = (self.name, pause.clone());
            let ends = async move {
                tokio::time::sleep(duration).await;
                // Whoever speaks at this very moment has the last word.
                if state.send_if_modified(|now| now.take_if(|now| *now == mine).is_some()) {
                    gauge.set(0);
                    tracing::info!(what = name, "the pause is over");
                }
            };
            tokio::spawn(ends).abort_handle()
        });
        pause
    }

    /// Ends the pause; says whether there was one.
    pub fn resume(&self) -> bool {
        let mut timer = self.timer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = timer.take() {
            old.abort();
        }
        let paused = self.state.send_replace(None).is_some();
        self.gauge.set(0);
        if paused {
            tracing::info!(what = self.name, "resumed");
        }
        paused
    }

    /// Resolves when there is a pause, or when there is none.
    pub async fn becomes(&self, paused: bool) {
        // The sender lives in `self`, so the wait cannot fail.
        let mut state = self.state.subscribe();
        let _ = state.wait_for(|state| state.is_some() == paused).await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pause_ends_by_itself_or_when_it_is_told_to() {
        let metrics = Metrics::new().unwrap();
        let switch = Switch::new("listener", &metrics);
        let other = switch.clone();
        assert!(!switch.resume(), "there was none");
        switch.pause("disk".to_owned(), Some(Duration::from_secs(60)));
        assert_eq!(other.get().unwrap().reason, "disk");
        tokio::time::sleep(Duration::from_secs(59)).await;
        assert!(switch.is_paused());
        assert_eq!(metrics.paused.with_label_values(&["listener"]).get(), 1);
        other.becomes(false).await;
        assert!(!switch.is_paused());
        assert_eq!(metrics.paused.with_label_values(&["listener"]).get(), 0);
        switch.pause(String::new(), None);
        assert_eq!(switch.get().unwrap().until, None);
        assert!(other.resume() && !switch.is_paused());
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_word_counts() {
        let switch = Switch::new("broker", &Metrics::new().unwrap());
        let first = switch.pause("a".to_owned(), Some(Duration::from_secs(1)));
        let second = switch.pause("b".to_owned(), Some(LONGEST * 2));
        assert_eq!(first.since, second.since, "it is one pause");
        assert!(second.until.unwrap().since(second.since) <= LONGEST + Duration::from_secs(1));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(switch.get(), Some(second), "the first timer is off");
        tokio::time::sleep(LONGEST).await;
        assert!(!switch.is_paused());
    }
}
