//! When the parts of the work on one model took place, for the trace of the study.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Timestamp;

/// Work of one kind on a study, much of it at the same time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// When the first of it began.
    pub start: Timestamp,
    /// When the last of it ended.
    pub end: Timestamp,
    /// How often it was done.
    pub count: u32,
    /// Time in it, added up.
    pub busy: Duration,
    /// Longest wait before it.
    pub waited: Duration,
    /// Most samples in one batch.
    pub batch: usize,
}

/// What a model's work consists of.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Windows {
    /// From files to tensors.
    pub prepare: Option<Window>,
    /// In the model.
    pub infer: Option<Window>,
    /// Pictures that say why.
    pub explain: Option<Window>,
}

/// Filled by the tasks that do the work.
#[derive(Debug, Default)]
pub(super) struct Stages(Mutex<Windows>);

impl Stages {
    fn lock(&self) -> MutexGuard<'_, Windows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A piece of preparation has just ended.
    pub fn prepared(&self, took: Duration) {
        note(&mut self.lock().prepare, took, took, Duration::ZERO, 0);
    }

    /// An answer has just come.
    pub fn inferred(&self, queued: Duration, ran: Duration, batch: usize) {
        note(&mut self.lock().infer, queued + ran, ran, queued, batch);
    }

    /// The pictures have just been made.
    pub fn explained(&self, took: Duration) {
        note(&mut self.lock().explain, took, took, Duration::ZERO, 0);
    }

    /// What there is.
    pub fn windows(&self) -> Windows {
        *self.lock()
    }
}

/// Adds a piece that began `ago` and ends now.
fn note(
    window: &mut Option<Window>,
    ago: Duration,
    busy: Duration,
    waited: Duration,
    batch: usize,
) {
    let end = Timestamp::now();
    let start = end - ago;
    let window = window.get_or_insert(Window {
        start,
        end,
        count: 0,
        busy: Duration::ZERO,
        waited: Duration::ZERO,
        batch: 0,
    });
    window.start = window.start.min(start);
    window.end = window.end.max(end);
    window.count = window.count.saturating_add(1);
    window.busy += busy;
    window.waited = window.waited.max(waited);
    window.batch = window.batch.max(batch);
}
