//! Stages: started together, watched together, drained in the order of the flow.

use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};

/// A stage ended by itself, or by a panic.
#[derive(Debug, thiserror::Error)]
#[error("stage {stage}: {reason}")]
pub struct StageError {
    /// Which one.
    pub stage: &'static str,
    /// What happened.
    pub reason: String,
}

/// A running stage.
pub struct Stage {
    name: &'static str,
    handle: JoinHandle<Result<(), String>>,
    ended: bool,
}

impl Stage {
    /// Starts a stage.
    pub fn spawn<F, E>(name: &'static str, work: F) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: std::fmt::Display,
    {
        let handle = tokio::spawn(async move { work.await.map_err(|err| err.to_string()) });
        Self {
            name,
            handle,
            ended: false,
        }
    }

    /// Waits for an end that nobody asked for.
    pub async fn died(&mut self) -> StageError {
        if self.ended {
            return std::future::pending().await;
        }
        let reason = match (&mut self.handle).await {
            Ok(Ok(())) => "ended before it was told to".to_owned(),
            other => reason(other).unwrap_or_default(),
        };
        self.ended = true;
        StageError {
            stage: self.name,
            reason,
        }
    }

    /// Waits at most `grace` for a stage that was told to stop, then abandons it.
    pub async fn finish(mut self, grace: Duration) -> Result<(), StageError> {
        if self.ended {
            return Ok(());
        }
        let outcome = tokio::time::timeout(grace, &mut self.handle).await;
        let reason = match outcome {
            Ok(outcome) => reason(outcome),
            Err(_) => {
                self.handle.abort();
                Some(format!(
                    "was abandoned after {grace:?}; nothing depends on it"
                ))
            }
        };
        match reason {
            None => Ok(()),
            Some(reason) => Err(StageError {
                stage: self.name,
                reason,
            }),
        }
    }
}

fn reason(outcome: Result<Result<(), String>, JoinError>) -> Option<String> {
    match outcome {
        Ok(Ok(())) => None,
        Ok(Err(reason)) => Some(reason),
        Err(err) if err.is_panic() => Some("panicked".to_owned()),
        Err(_) => Some("was aborted".to_owned()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stage_that_panics_is_noticed_by_name() {
        let mut stage = Stage::spawn("scp", async {
            assert!(std::hint::black_box(false), "on purpose");
            Ok::<(), String>(())
        });
        let error = stage.died().await;
        assert_eq!(error.to_string(), "stage scp: panicked");
        stage.finish(Duration::from_secs(1)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_stage_that_does_not_stop_is_abandoned() {
        let stage = Stage::spawn("scp", std::future::pending::<Result<(), String>>());
        let error = stage.finish(Duration::from_secs(5)).await.unwrap_err();
        assert!(error.to_string().contains("abandoned"));
    }
}
