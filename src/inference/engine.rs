//! A model being served: one queue, a few sessions in processes of their own.
//!
//! Samples of all studies meet in the queue; a session that is free takes a batch when
//! [`super::batch::cut`] says so. The queue is bounded by places that callers take, in turn, before they
//! prepare a sample, so pixels never pile up in front of a slow model.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use super::batch::Limits;
use super::config::Allowed;
use super::contract::{self, Contract, Input};
use super::gate::Gate;
use super::process::{Plan, StartError, Worker};
use super::protocol::Element;
use super::queue::{Probe, Queue, Sample, Slot};
use super::session::Session;
use super::{Config, Turn};
use crate::model::{ModelError, Package, Tensor, TensorData};
use crate::telemetry::Metrics;

/// Why a sample got no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum InferenceError {
    /// ONNX Runtime failed, or its output contradicts the graph.
    #[error("the model failed: {0}")]
    Failed(String),
    /// The run took longer than `limits.timeout` and its process was ended.
    #[error("the model gave {0}")]
    Timeout(String),
    /// The run ended its process.
    #[error("the model's process failed: {0}")]
    Crashed(String),
    /// The run needed more than `limits.memory`.
    #[error("the model failed: {0}")]
    Memory(String),
    /// The model has ended its processes so often that it is not asked for a while.
    #[error("the model has failed repeatedly and is not asked for a while")]
    Fenced,
    /// The engine is gone.
    #[error("the model is not being served")]
    Stopped,
}

/// The numbers of one sample.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The tensors of [`crate::model::Manifest::tensors`], in that order, without the batch axis:
    /// floats as `f32`, integers as `i64`.
    pub outputs: Vec<Tensor>,
    /// From queue to run.
    pub queued: Duration,
    /// The run that carried the sample.
    pub ran: Duration,
    /// Samples in that run.
    pub batch: usize,
}

/// How a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is asked.
    Serving,
    /// It is not asked, because it keeps ending its processes.
    Fenced,
}

impl State {
    /// The word in `/api/v1/models`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Fenced => "fenced",
        }
    }
}

/// A model being served. Clones share it; the processes end with the last clone.
#[derive(Clone)]
pub struct Engine {
    queue: Arc<Queue>,
    inputs: Arc<[Input]>,
    version: Arc<str>,
    _life: Arc<Life>,
}

/// Closes the queue when the last handle goes.
struct Life {
    queue: Arc<Queue>,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl Engine {
    /// Loads and warms up every session of a model in processes of `program`, this binary. `onnx` is
    /// one of the package's graphs. Blocking; returns when every size of batch has run once.
    ///
    /// # Errors
    /// A library that is not there, a manifest that does not fit the graph, or a graph that does not
    /// run within its limits.
    pub fn start(
        config: &Config,
        package: &Package,
        program: &Path,
        onnx: &Path,
    ) -> Result<Self, ModelError> {
        let refuse = |err: StartError| match err {
            StartError::Library(reason) => {
                ModelError::new(Path::new("inference.onnxruntime"), reason)
            }
            other => ModelError::new(&package.manifest_path, other.to_string()),
        };
        let manifest = &package.manifest;
        let allowed = config.allowed(&manifest.limits);
        let plan = Plan::new(config, &allowed, program, onnx).map_err(refuse)?;
        let (mut first, graph) = Worker::start(&plan).map_err(refuse)?;
        let graphs = package.graphs();
        let stated = graphs
            .iter()
            .zip(&package.digests)
            .find(|(path, _)| *path == onnx);
        if stated.is_some_and(|(_, stated)| !graph.sha256.eq_ignore_ascii_case(stated)) {
            let reason = "sha256: the graph has changed since it was verified".to_owned();
            return Err(refuse(StartError::Graph(reason)));
        }
        let contract = contract::check(manifest, &graph)
            .map_err(|reason| refuse(StartError::Graph(reason)))?;
        let batching = &manifest.batching;
        let limits = Limits::of(
            contract.fixed_batch,
            batching.max_batch,
            &batching.sizes,
            batching.max_delay.get(),
        );
        first.warm_up(&plan, &contract, &limits).map_err(refuse)?;
        let Allowed { sessions, .. } = allowed;
        let places = Gate::new(2 * limits.max_batch * sessions);
        let queue = Arc::new(Queue::new(&manifest.name, limits, places, sessions, config));
        let (version, inputs) = (graph.version.as_str().into(), inputs(&contract));
        let model = Arc::new(super::session::Model {
            plan,
            contract,
            sha256: graph.sha256,
        });
        let workers = rest(&model, &queue, sessions - 1).map_err(refuse)?;
        for (number, worker) in std::iter::once(first).chain(workers).enumerate() {
            let session = Session::new(Arc::clone(&queue), Arc::clone(&model), worker);
            thread::Builder::new()
                .name(format!("model-{number}"))
                .spawn(move || session.serve())
                .map_err(|err| refuse(StartError::Process(err)))?;
        }
        if config.provider != super::Provider::Cpu {
            tracing::info!(
                provider = config.provider.as_str(),
                "execution provider in use"
            );
        }
        Ok(Self {
            _life: Arc::new(Life {
                queue: Arc::clone(&queue),
            }),
            queue,
            inputs,
            version,
        })
    }

    /// From now on deaths and fences are counted there. The first call decides.
    pub fn report_to(&self, metrics: &Arc<Metrics>) {
        self.queue.report_to(Arc::clone(metrics));
    }

    /// Waits for room in the queue, in turn. Take it before preparing the sample.
    ///
    /// # Errors
    /// At once when the model is fenced.
    pub async fn slot(&self, turn: &Turn) -> Result<Slot, InferenceError> {
        // Who is refused does not have to wait for it.
        let probe = Probe::admit(&self.queue)?;
        let place = self.queue.places().enter(turn).await;
        let probe = match probe {
            Some(probe) => Some(probe),
            // The fence may have gone up meanwhile.
            None => Probe::admit(&self.queue)?,
        };
        Ok(Slot::new(place, probe, turn.priority))
    }

    /// Runs one sample, a tensor per `[[input]]`, with whatever company it finds.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn infer(&self, slot: Slot, tensors: Vec<Tensor>) -> Result<Answer, InferenceError> {
        if !fits(&self.inputs, &tensors) {
            return Err(InferenceError::Failed(
                "the sample has other tensors than the graph wants".to_owned(),
            ));
        }
        let (reply, answer) = oneshot::channel();
        self.queue.push(Sample::new(tensors, slot, reply))?;
        // Sessions answer what is in the queue, in the time that its runs may take.
        answer.await.unwrap_or(Err(InferenceError::Stopped))
    }

    /// How the model is.
    pub fn state(&self) -> State {
        if self.queue.is_fenced() {
            State::Fenced
        } else {
            State::Serving
        }
    }

    /// Version of ONNX Runtime, for example `1.28.0`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Samples per run at most.
    pub fn max_batch(&self) -> usize {
        self.queue.limits().max_batch
    }
}

impl InferenceError {
    /// The reason code of a sample that got no answer.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Failed(_) => "inference-failed",
            Self::Timeout(_) => "inference-timeout",
            Self::Crashed(_) => "inference-crashed",
            Self::Memory(_) => "inference-memory",
            Self::Fenced => "model-fenced",
            Self::Stopped => "inference-stopped",
        }
    }
}

/// The other sessions, all at the same time: large models take a while to load.
fn rest(
    model: &Arc<super::session::Model>,
    queue: &Arc<Queue>,
    count: usize,
) -> Result<Vec<Worker>, StartError> {
    thread::scope(|scope| {
        let starting: Vec<_> = (0..count)
            .map(|_| scope.spawn(|| model.start(queue.limits())))
            .collect();
        let abnormal = || StartError::Graph("loading it ended abnormally".to_owned());
        starting
            .into_iter()
            .map(|started| started.join().unwrap_or_else(|_| Err(abnormal())))
            .collect()
    })
}

fn inputs(contract: &Contract) -> Arc<[Input]> {
    contract.inputs.as_slice().into()
}

fn fits(inputs: &[Input], tensors: &[Tensor]) -> bool {
    inputs.len() == tensors.len()
        && inputs.iter().zip(tensors).all(|(input, tensor)| {
            let (element, count) = match &tensor.data {
                TensorData::F32(values) => (Element::F32, values.len()),
                TensorData::F16(values) => (Element::F16, values.len()),
                TensorData::U8(values) => (Element::U8, values.len()),
                TensorData::I64(values) => (Element::I64, values.len()),
            };
            input.element == element && input.shape == tensor.shape && count == tensor.len()
        })
}
