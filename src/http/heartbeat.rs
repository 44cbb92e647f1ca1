//! Whether the process still turns: what `/livez` tells.
//!
//! A task goes round once a second, through the timer, the scheduler and the pool of blocking threads
//! that every file operation takes. A minute without a round is no load but a standstill, and only a
//! restart ends it. Nothing else counts: a broker or a disk that fails is no reason to be killed.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::answer;

/// How often.
const ROUND: Duration = Duration::from_secs(1);
/// Without a round for this long the process stands still.
const STANDSTILL: Duration = Duration::from_secs(60);

/// When the last round was.
pub(super) struct Heartbeat(Mutex<Instant>);

impl Default for Heartbeat {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

impl Heartbeat {
    /// Goes round for ever.
    pub(super) async fn run(&self) {
        loop {
            let through = tokio::spawn(tokio::task::spawn_blocking(|| ())).await;
            if matches!(through, Ok(Ok(()))) {
                *self.last() = Instant::now();
            }
            tokio::time::sleep(ROUND).await;
        }
    }

    /// The answer of `/livez`.
    pub(super) fn answer(&self) -> Response {
        match self.stands_still(Instant::now()) {
            false => "ok\n".into_response(),
            true => answer(
                StatusCode::SERVICE_UNAVAILABLE,
                "the process has stood still for a minute",
            ),
        }
    }

    fn stands_still(&self, now: Instant) -> bool {
        now.saturating_duration_since(*self.last()) > STANDSTILL
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_without_a_round_is_a_standstill() {
        let heartbeat = Heartbeat::default();
        let last = *heartbeat.last();
        assert!(!heartbeat.stands_still(last + STANDSTILL));
        let late = last + STANDSTILL + Duration::from_millis(1);
        assert!(heartbeat.stands_still(late));
        assert_eq!(heartbeat.answer().status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn rounds_are_gone() {
        let heartbeat = Heartbeat::default();
        let before = *heartbeat.last();
        let _ = tokio::time::timeout(Duration::from_millis(300), heartbeat.run()).await;
        assert!(*heartbeat.last() > before);
    }
}
