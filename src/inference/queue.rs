//! Samples on their way to a session, and the fence in front of them.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;

use super::batch::{Cut, Limits, cut};
use super::fence::{Admission, Fence};
use super::gate::{Gate, Place};
use super::meter::{Busy, Meter};
use super::{Answer, Config, InferenceError};
use crate::model::Tensor;
use crate::priority::Priority;
use crate::telemetry::Metrics;

/// The right to put one sample into the queue.
pub struct Slot {
    priority: Priority,
    // Before the place: who gets that next may be the next probe.
    probe: Option<Probe>,
    _place: Place,
}

/// The sample that tries whether a fence is still needed.
pub(super) struct Probe {
    queue: Arc<Queue>,
    number: u64,
}

/// A sample that waits.
pub(super) struct Sample {
    pub tensors: Vec<Tensor>,
    pub since: Instant,
    reply: oneshot::Sender<Result<Answer, InferenceError>>,
    slot: Slot,
}

/// The samples of one model.
pub(super) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    places: Arc<Gate>,
    limits: Limits,
    /// Name of the model.
    model: String,
    sessions: usize,
    meter: OnceLock<Meter>,
}

struct State {
    waiting: VecDeque<Sample>,
    fence: Fence,
    closed: bool,
    /// What this queue has put into the gauge of its depth.
    told: i64,
}

impl Queue {
    pub fn new(
        model: &str,
        limits: Limits,
        places: Arc<Gate>,
        sessions: usize,
        config: &Config,
    ) -> Self {
        Self {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                fence: Fence::new(config.fence_after, config.fence_time.get()),
                closed: false,
                told: 0,
            }),
            wake: Condvar::new(),
            places,
            limits,
            model: model.to_owned(),
            sessions,
            meter: OnceLock::new(),
        }
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub fn places(&self) -> &Arc<Gate> {
        &self.places
    }

    pub fn report_to(&self, metrics: Arc<Metrics>) {
        let waiting = metrics
            .inference_slots_waiting
            .with_label_values(&[&self.model]);
        let meter = Meter::new(metrics, &self.model);
        // Under the lock, so that a fence that goes up just now is counted once.
        let mut state = self.lock();
        let fenced = state.fence.is_up();
        if self.meter.set(meter).is_err() {
            return;
        }
        self.places.report_to(waiting);
        if let Some(meter) = self.meter.get() {
            meter.begin(self.sessions);
            meter.fenced.add(i64::from(fenced));
        }
        self.tell(&mut state);
    }

    /// A session runs a batch while the guard lives.
    pub fn busy(&self) -> Option<Busy> {
        self.meter.get().map(Meter::busy)
    }

    /// A run has ended like this: `answered`, `failed` or `died`.
    pub fn ran(&self, result: &'static str) {
        if let Some(meter) = self.meter.get() {
            meter.ran(result);
        }
    }

    fn tell(&self, state: &mut State) {
        if let Some(meter) = self.meter.get() {
            let waiting = i64::try_from(state.waiting.len()).unwrap_or(i64::MAX);
            meter.depth.add(waiting - state.told);
            state.told = waiting;
        }
    }

    pub fn is_fenced(&self) -> bool {
        self.lock().fence.is_up()
    }

    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Sessions end, and what waits is not answered.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let unanswered = std::mem::take(&mut state.waiting);
        self.tell(&mut state);
        drop(state);
        self.wake.notify_all();
        drop(unanswered);
    }

    /// Behind the samples that are as urgent.
    pub fn push(&self, sample: Sample) -> Result<(), InferenceError> {
        let mut state = self.lock();
        if state.closed {
            return Err(InferenceError::Stopped);
        }
        if state.fence.is_up() && sample.slot.probe.is_none() {
            return Err(InferenceError::Fenced);
        }
        let behind = |other: &Sample| other.slot.priority <= sample.slot.priority;
        let at = state.waiting.partition_point(behind);
        state.waiting.insert(at, sample);
        self.tell(&mut state);
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    /// Blocks until a batch is to be run; `None` when the engine is dropped.
    pub fn next_batch(&self) -> Option<Vec<Sample>> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            // Callers that gave up are not worth a place in the batch.
            let (waiting, given_up): (VecDeque<Sample>, VecDeque<Sample>) =
                std::mem::take(&mut state.waiting)
                    .into_iter()
                    .partition(|sample| !sample.reply.is_closed());
            state.waiting = waiting;
            self.tell(&mut state);
            if !given_up.is_empty() {
                // A slot that is dropped asks for the lock.
                drop(state);
                drop(given_up);
                state = self.lock();
                continue;
            }
            let Some(oldest) = state.waiting.iter().map(|sample| sample.since).min() else {
                state = self
                    .wake
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            match cut(state.waiting.len(), oldest, Instant::now(), &self.limits) {
                Cut::Take(count) => {
                    let batch = state.waiting.drain(..count).collect();
                    self.tell(&mut state);
                    return Some(batch);
                }
                Cut::Wait(left) => {
                    state = self
                        .wake
                        .wait_timeout(state, left)
                        .map_or_else(|err| err.into_inner().0, |(state, _)| state);
                }
            }
        }
    }

    /// A run has answered.
    pub fn answered(&self) {
        let mut state = self.lock();
        if state.fence.answered() {
            self.count_fence(-1);
            drop(state);
            tracing::info!(model = self.model, "a model is asked again");
        }
    }

    /// A process has died of a run, or did not start. Gives whether the fence is up.
    pub fn died(&self, reason: &str, text: &str) -> bool {
        tracing::warn!(
            model = self.model,
            reason,
            text,
            "a model's process is gone; another takes its place"
        );
        if let Some(meter) = self.meter.get() {
            meter.died(reason);
        }
        let mut state = self.lock();
        let raised = state.fence.died(Instant::now());
        let up = state.fence.is_up();
        let mut refused = VecDeque::new();
        if raised {
            self.count_fence(1);
            let waiting = std::mem::take(&mut state.waiting);
            (state.waiting, refused) = waiting.into_iter().partition(Sample::is_probe);
            self.tell(&mut state);
        }
        drop(state);
        if raised {
            tracing::error!(
                model = self.model,
                "a model is fenced: its processes keep failing"
            );
        }
        for sample in refused {
            sample.answer(Err(InferenceError::Fenced));
        }
        up
    }

    /// Several engines may serve one model: the parts of an ensemble, a version and the next.
    fn count_fence(&self, by: i64) {
        if let Some(meter) = self.meter.get() {
            meter.fenced.add(by);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if self.is_fenced() {
            self.count_fence(-1);
        }
        let told = self.lock().told;
        if let Some(meter) = self.meter.get() {
            meter.end(self.sessions, told);
        }
    }
}

impl Probe {
    /// Asks the fence: nothing when there is none, a probe when it is time for one.
    pub fn admit(queue: &Arc<Queue>) -> Result<Option<Self>, InferenceError> {
        match queue.lock().fence.admit(Instant::now()) {
            Admission::Open => Ok(None),
            Admission::Fenced => Err(InferenceError::Fenced),
            Admission::Probe(number) => Ok(Some(Self {
                queue: Arc::clone(queue),
                number,
            })),
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.queue.lock().fence.gave_up(self.number);
    }
}

impl Slot {
    pub(super) fn new(place: Place, probe: Option<Probe>, priority: Priority) -> Self {
        Self {
            priority,
            probe,
            _place: place,
        }
    }
}

impl Sample {
    pub fn new(
        tensors: Vec<Tensor>,
        slot: Slot,
        reply: oneshot::Sender<Result<Answer, InferenceError>>,
    ) -> Self {
        Self {
            tensors,
            since: Instant::now(),
            reply,
            slot,
        }
    }

    /// Whether it tries a fence.
    pub fn is_probe(&self) -> bool {
        self.slot.probe.is_some()
    }

    /// Its place is free before the answer is out.
    pub fn answer(self, answer: Result<Answer, InferenceError>) {
        let Self { reply, slot, .. } = self;
        drop(slot);
        let _ = reply.send(answer);
    }
}
