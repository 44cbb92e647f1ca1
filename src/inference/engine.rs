//! A model being served: one queue, a few sessions on threads of their own.
//!
//! Samples of all studies meet in the queue; a session thread that is free takes a batch when
//! [`super::batch::cut`] says so. The queue is bounded by permits that callers take before they
//! prepare a sample, so pixels never pile up in front of a slow model.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ort::session::RunOptions;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::batch::{Cut, Limits, cut};
use super::session::ModelSession;
use super::{Config, Provider, Runtime, Turn};
use crate::model::manifest::DType;
use crate::model::{InputSpec, Manifest, ModelError, Package, Tensor};

/// Why a sample got no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum InferenceError {
    /// ONNX Runtime failed, or its output contradicts the graph.
    #[error("the model failed: {0}")]
    Failed(String),
    /// The run took longer than `inference.timeout`.
    #[error("the model did not answer within {0:?}")]
    Timeout(Duration),
    /// The engine is gone.
    #[error("the model is not being served")]
    Stopped,
}

/// The numbers of one sample.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The tensors of [`Manifest::tensors`], in that order, without the batch axis.
    pub outputs: Vec<Tensor>,
    /// From queue to run.
    pub queued: Duration,
    /// The run that carried the sample.
    pub ran: Duration,
    /// Samples in that run.
    pub batch: usize,
}

/// The right to put one sample into the queue.
pub struct Slot {
    _permit: OwnedSemaphorePermit,
}

/// A model being served. Clones share it; the threads end with the last clone.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    _life: Arc<Life>,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    slots: Arc<Semaphore>,
    limits: Limits,
    timeout: Duration,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Sample>,
    running: Vec<Run>,
    closed: bool,
}

struct Sample {
    tensor: Tensor,
    since: Instant,
    reply: oneshot::Sender<Result<Answer, InferenceError>>,
    _slot: Slot,
}

struct Run {
    thread: usize,
    since: Instant,
    options: Arc<RunOptions>,
}

/// Closes the queue when the last handle goes.
struct Life {
    shared: Arc<Shared>,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_all();
    }
}

impl Engine {
    /// Loads and warms up every session of a model. Returns when the largest batch has run once.
    ///
    /// # Errors
    /// A manifest that does not fit the graph, or a graph that does not run.
    pub fn start(
        runtime: &Runtime,
        config: &Config,
        package: &Package,
    ) -> Result<Self, ModelError> {
        let manifest = &package.manifest;
        let refuse = |reason: String| ModelError::new(&package.manifest_path, reason);
        let mut sessions = Vec::new();
        for _ in 0..config.session_count() {
            let session = load(runtime, config, manifest, &package.onnx).map_err(refuse)?;
            sessions.push(session);
        }
        let max_batch = sessions
            .first()
            .and_then(|session| session.contract.fixed_batch)
            .unwrap_or(manifest.batching.max_batch);
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake: Condvar::new(),
            slots: Arc::new(Semaphore::new(2 * max_batch * sessions.len())),
            limits: Limits {
                max_batch,
                max_delay: manifest.batching.max_delay.get(),
            },
            timeout: config.timeout.get(),
        });
        for (thread, session) in sessions.into_iter().enumerate() {
            let shared = Arc::clone(&shared);
            let name = format!("model-{thread}");
            thread::Builder::new()
                .name(name)
                .spawn(move || shared.serve(thread, session))
                .map_err(|err| refuse(format!("cannot start a thread: {err}")))?;
        }
        Ok(Self {
            _life: Arc::new(Life {
                shared: Arc::clone(&shared),
            }),
            shared,
        })
    }

    /// Waits for room in the queue. Take it before preparing the sample.
    pub async fn slot(&self, _turn: &Turn) -> Result<Slot, InferenceError> {
        let slots = Arc::clone(&self.shared.slots);
        let permit = slots
            .acquire_owned()
            .await
            .map_err(|_| InferenceError::Stopped)?;
        Ok(Slot { _permit: permit })
    }

    /// Runs one sample, a tensor per `[[input]]`, with whatever company it finds.
    pub async fn infer(&self, slot: Slot, tensors: Vec<Tensor>) -> Result<Answer, InferenceError> {
        let Some(tensor) = tensors.into_iter().next() else {
            return Err(InferenceError::Failed(
                "a sample without tensors".to_owned(),
            ));
        };
        let (reply, answer) = oneshot::channel();
        self.shared.lock().waiting.push_back(Sample {
            tensor,
            since: Instant::now(),
            reply,
            _slot: slot,
        });
        self.shared.wake.notify_one();
        let watch = async {
            loop {
                tokio::time::sleep(self.shared.timeout / 2).await;
                self.shared.terminate_overdue();
            }
        };
        tokio::select! {
            answer = answer => answer.unwrap_or(Err(InferenceError::Stopped)),
            never = watch => never,
        }
    }

    /// Samples per run at most.
    pub fn max_batch(&self) -> usize {
        self.shared.limits.max_batch
    }
}

fn load(
    runtime: &Runtime,
    config: &Config,
    manifest: &Manifest,
    onnx: &Path,
) -> Result<ModelSession, String> {
    let mut session = ModelSession::load(runtime, config, manifest, onnx)?;
    let dtype = match manifest.input()?.1 {
        InputSpec::Image(image) => image.dtype,
        InputSpec::Volume(volume) => volume.dtype,
        InputSpec::Features(_) => DType::Float32,
    };
    let blank = session.blank(dtype);
    let largest = session
        .contract
        .fixed_batch
        .unwrap_or(manifest.batching.max_batch);
    let options = RunOptions::new().map_err(|err| err.to_string())?;
    for size in [1, largest] {
        let samples = vec![&blank; size.min(largest)];
        session
            .run(&samples, &options)
            .map_err(|err| format!("warm-up with a batch of {size}: {err}"))?;
    }
    if config.provider != Provider::Cpu {
        tracing::info!(
            provider = config.provider.as_str(),
            "execution provider in use"
        );
    }
    Ok(session)
}

impl Shared {
    /// The life of a session thread.
    fn serve(&self, thread: usize, mut session: ModelSession) {
        while let Some(batch) = self.next_batch() {
            let Ok(options) = RunOptions::new().map(Arc::new) else {
                continue;
            };
            let started = Instant::now();
            self.lock().running.push(Run {
                thread,
                since: started,
                options: Arc::clone(&options),
            });
            let tensors: Vec<&Tensor> = batch.iter().map(|sample| &sample.tensor).collect();
            let outcome = session.run(&tensors, &options);
            let ran = started.elapsed();
            self.lock().running.retain(|run| run.thread != thread);
            self.answer(batch, outcome, started, ran);
        }
    }

    /// Blocks until a batch is to be run; `None` when the engine is dropped.
    fn next_batch(&self) -> Option<Vec<Sample>> {
        let mut queue = self.lock();
        loop {
            // Callers that gave up are not worth a place in the batch.
            queue.waiting.retain(|sample| !sample.reply.is_closed());
            let Some(oldest) = queue.waiting.front() else {
                if queue.closed {
                    return None;
                }
                queue = self
                    .wake
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            match cut(
                queue.waiting.len(),
                oldest.since,
                Instant::now(),
                self.limits,
            ) {
                Cut::Take(count) => return Some(queue.waiting.drain(..count).collect()),
                Cut::Wait(left) => {
                    queue = self
                        .wake
                        .wait_timeout(queue, left)
                        .map_or_else(|err| err.into_inner().0, |(queue, _)| queue);
                }
            }
        }
    }

    fn answer(
        &self,
        batch: Vec<Sample>,
        outcome: Result<Vec<Vec<Tensor>>, String>,
        started: Instant,
        ran: Duration,
    ) {
        let size = batch.len();
        let mut rows = match outcome {
            Ok(rows) => Ok(rows.into_iter()),
            Err(_) if ran >= self.timeout => Err(InferenceError::Timeout(self.timeout)),
            Err(reason) => Err(InferenceError::Failed(reason)),
        };
        for sample in batch {
            let answer = match &mut rows {
                Err(err) => Err(err.clone()),
                Ok(rows) => rows
                    .next()
                    .map(|outputs| Answer {
                        outputs,
                        queued: started.saturating_duration_since(sample.since),
                        ran,
                        batch: size,
                    })
                    .ok_or_else(|| InferenceError::Failed("fewer rows than samples".to_owned())),
            };
            let _ = sample.reply.send(answer);
        }
    }

    fn terminate_overdue(&self) {
        for run in &self.lock().running {
            if run.since.elapsed() >= self.timeout {
                // The run returns with an error at the next kernel; the session stays usable.
                let _ = run.options.terminate();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
