//! A session: a thread that takes batches from the queue and has a worker run them.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::batch::Limits;
use super::contract::Contract;
use super::process::{Plan, StartError, Trouble, Worker};
use super::queue::{Queue, Sample};
use super::{Answer, InferenceError};
use crate::child::Death;
use crate::model::Tensor;
use crate::retry::Backoff;

/// Between attempts at starting a worker.
const STARTS: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));

/// What all sessions of a model have in common.
pub(super) struct Model {
    pub plan: Plan,
    pub contract: Contract,
    /// Of the graph that was verified.
    pub sha256: String,
}

pub(super) struct Session {
    queue: Arc<Queue>,
    model: Arc<Model>,
    worker: Option<Worker>,
}

impl Model {
    /// A worker that has loaded the graph, the very one, and run every size of batch.
    pub fn start(&self, limits: &Limits) -> Result<Worker, StartError> {
        let (mut worker, graph) = Worker::start(&self.plan)?;
        if graph.sha256 != self.sha256 {
            return Err(StartError::Graph(
                "the graph has changed since it was verified".to_owned(),
            ));
        }
        worker.warm_up(&self.plan, &self.contract, limits)?;
        Ok(worker)
    }
}

impl Session {
    pub fn new(queue: Arc<Queue>, model: Arc<Model>, worker: Worker) -> Self {
        Self {
            queue,
            model,
            worker: Some(worker),
        }
    }

    /// The life of a session's thread.
    pub fn serve(mut self) {
        while let Some(batch) = self.queue.next_batch() {
            self.run(batch);
            // At once, so that the next study does not wait for it.
            if self.worker.is_none() && !self.queue.is_fenced() {
                self.worker = self.start().ok();
            }
        }
    }

    /// Answers a batch. One that fails is tried again sample by sample, so that only those fail that do
    /// it again. Of a single sample only a crash is tried again: that may have been somebody else's
    /// doing, while the rest is the sample's own.
    fn run(&mut self, batch: Vec<Sample>) {
        let again = match self.attempt(&batch) {
            Ok(answers) => {
                for (sample, answer) in batch.into_iter().zip(answers) {
                    sample.answer(Ok(answer));
                }
                return;
            }
            Err(err) => match err {
                InferenceError::Crashed(_) => Ok(()),
                InferenceError::Fenced | InferenceError::Stopped => Err(err),
                _ if batch.len() > 1 => Ok(()),
                other => Err(other),
            },
        };
        for sample in batch {
            let alone = std::slice::from_ref(&sample);
            let answer = match &again {
                Err(err) => Err(err.clone()),
                Ok(()) if self.queue.is_fenced() && !sample.is_probe() => {
                    Err(InferenceError::Fenced)
                }
                Ok(()) => self.attempt(alone).and_then(|mut answers| {
                    let none = || InferenceError::Failed("a run without an answer".to_owned());
                    answers.pop().ok_or_else(none)
                }),
            };
            sample.answer(answer);
        }
    }

    fn attempt(&mut self, batch: &[Sample]) -> Result<Vec<Answer>, InferenceError> {
        let mut worker = match self.worker.take() {
            Some(worker) => worker,
            None => self.start()?,
        };
        let model = Arc::clone(&self.model);
        let samples: Vec<&[Tensor]> = batch.iter().map(|s| s.tensors.as_slice()).collect();
        let size = self.queue.limits().run_size(samples.len());
        let started = Instant::now();
        let busy = self.queue.busy();
        let outcome = worker.run(&model.plan, &model.contract, &samples, size);
        drop(busy);
        self.queue.ran(match &outcome {
            Ok(_) => "answered",
            Err(Trouble::Failed(_)) => "failed",
            Err(Trouble::Died(_)) => "died",
        });
        let ran = started.elapsed();
        let outcome = match outcome {
            Err(Trouble::Died(death)) => {
                // Gone before it is counted: who looks at the count may look for the process too.
                drop(worker);
                let text = model.plan.text(&death);
                self.queue.died(death.reason(), &text);
                return Err(match death {
                    Death::Timeout => InferenceError::Timeout(text),
                    Death::Memory => InferenceError::Memory(text),
                    Death::Crash(_) => InferenceError::Crashed(text),
                });
            }
            Err(Trouble::Failed(reason)) => Err(InferenceError::Failed(reason)),
            Ok(rows) => Ok(rows),
        };
        self.worker = Some(worker);
        self.queue.answered();
        let answers = outcome?
            .into_iter()
            .zip(batch)
            .map(|(outputs, sample)| Answer {
                outputs,
                queued: started.saturating_duration_since(sample.since),
                ran,
                batch: batch.len(),
            });
        Ok(answers.collect())
    }

    /// A worker in place of the one that is gone. Gives up when that puts up the fence.
    fn start(&self) -> Result<Worker, InferenceError> {
        let mut attempt = 0;
        while !self.queue.is_closed() {
            match self.model.start(self.queue.limits()) {
                Ok(worker) => return Ok(worker),
                Err(err) => {
                    if self.queue.died("start", &err.to_string()) {
                        return Err(InferenceError::Fenced);
                    }
                }
            }
            thread::sleep(STARTS.jittered(attempt));
            attempt += 1;
        }
        Err(InferenceError::Stopped)
    }
}
