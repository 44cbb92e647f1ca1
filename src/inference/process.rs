//! The gateway's side of one worker: load a graph, try it, run batches.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::batch::Limits;
use super::config::{Allowed, Config, Provider};
use super::contract::Contract;
use super::library;
use super::protocol::{Element, Graph, Load, Named, Reply, Request, Run, Values};
use crate::child::{Death, Process, Recipe, garbled, put, take};
use crate::model::{Tensor, TensorData};
use crate::units::{ByteSize, HumanDuration};

/// The hidden command.
const COMMAND: &str = "inference-worker";
/// What of the gateway's environment a runtime and its drivers need.
const ENVIRONMENT: [&str; 4] = ["LD_LIBRARY_PATH", "CUDA_", "NVIDIA_", "OPENVINO_"];
/// The file in memory keeps the room of batches of ordinary size for the next one.
const KEPT_BYTES: u64 = 64 << 20;

/// How the workers of one graph are started and run.
#[derive(Debug)]
pub(super) struct Plan {
    program: PathBuf,
    load: Load,
    /// None: any.
    memory: Option<ByteSize>,
    start_timeout: HumanDuration,
    pub timeout: Duration,
}

/// A running worker. Dropping it ends it.
pub(super) struct Worker {
    process: Process,
}

/// Why there is no worker.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// The library's fault: the same for every model.
    #[error("{0}")]
    Library(String),
    /// The graph's, or that of its manifest.
    #[error("{0}")]
    Graph(String),
    /// The system's.
    #[error("cannot start a process for the model: {0}")]
    Process(#[from] io::Error),
}

/// Why a run has no answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The worker is no more.
    Died(Death),
    /// The worker lives.
    Failed(String),
}

impl Plan {
    pub fn new(
        config: &Config,
        allowed: &Allowed,
        program: &Path,
        onnx: &Path,
    ) -> Result<Self, StartError> {
        let library = library::find(&config.onnxruntime)
            .map_err(|err| StartError::Library(err.to_string()))?;
        let load = Load {
            library: library.into_os_string(),
            onnx: onnx.as_os_str().to_owned(),
            provider: config.provider,
            device_id: config.device_id,
            device_memory: config.device_memory.bytes(),
            intra_op_threads: allowed.intra_op_threads,
            arena: allowed.arena,
            arena_shrink: allowed.arena_shrink,
            time: milliseconds(config.start_timeout.get()),
        };
        Ok(Self {
            program: program.to_owned(),
            load,
            // Drivers of devices reserve more addresses than there is memory.
            memory: (config.provider == Provider::Cpu).then_some(allowed.memory),
            start_timeout: config.start_timeout,
            timeout: allowed.timeout,
        })
    }

    /// What a worker died of, for people.
    pub fn text(&self, death: &Death) -> String {
        match (death, self.memory) {
            (Death::Timeout, _) => format!("no answer within {}", HumanDuration(self.timeout)),
            (Death::Memory, Some(memory)) => format!("more than {memory} of memory needed"),
            (Death::Memory, None) => "more memory needed than there is".to_owned(),
            (Death::Crash(how), _) => how.clone(),
        }
    }
}

impl Worker {
    /// Starts a worker and has it load the graph.
    pub fn start(plan: &Plan) -> Result<(Self, Graph), StartError> {
        let mut environment: Vec<(OsString, OsString)> = std::env::vars_os()
            .filter(|(name, _)| {
                let name = name.to_string_lossy();
                ENVIRONMENT.iter().any(|kept| name.starts_with(kept))
            })
            .collect();
        environment.push(("ORT_DISABLE_TELEMETRY".into(), "1".into()));
        let recipe = Recipe {
            program: &plan.program,
            command: COMMAND,
            arguments: plan.memory.map_or_else(Vec::new, |memory| {
                vec!["--memory".to_owned(), memory.bytes().to_string()]
            }),
            environment,
        };
        let mut worker = Self {
            process: Process::start(&recipe)?,
        };
        let load = Request::Load(plan.load.clone());
        match worker.process.ask(&load, plan.start_timeout.get()) {
            Ok(Reply::Loaded(graph)) => Ok((worker, graph)),
            Ok(Reply::NoLibrary(reason)) => Err(StartError::Library(reason)),
            Ok(Reply::NoGraph(reason)) => Err(StartError::Graph(reason)),
            Ok(_) => Err(StartError::Graph(
                "its process does not know its job".to_owned(),
            )),
            Err(Death::Timeout) => Err(StartError::Graph(format!(
                "it was not loaded within {} (`inference.start_timeout`)",
                plan.start_timeout
            ))),
            Err(death) => Err(StartError::Graph(format!(
                "its process failed while it was loaded: {}",
                plan.text(&death)
            ))),
        }
    }

    /// Runs every size of batch once, with zeros.
    pub fn warm_up(
        &mut self,
        plan: &Plan,
        contract: &Contract,
        limits: &Limits,
    ) -> Result<(), StartError> {
        let blank: Vec<Tensor> = contract.inputs.iter().map(blank).collect();
        for size in limits.warm_up() {
            let samples = vec![blank.as_slice(); size];
            self.run(plan, contract, &samples, size)
                .map_err(|trouble| {
                    let reason = match trouble {
                        Trouble::Failed(reason) => reason,
                        Trouble::Died(death) => plan.text(&death),
                    };
                    StartError::Graph(format!("warm-up with a batch of {size}: {reason}"))
                })?;
        }
        Ok(())
    }

    /// Runs `samples`, filled up to `size` with zeros. Gives the outputs of each.
    pub fn run(
        &mut self,
        plan: &Plan,
        contract: &Contract,
        samples: &[&[Tensor]],
        size: usize,
    ) -> Result<Vec<Vec<Tensor>>, Trouble> {
        let inputs = self
            .write(contract, samples, size)
            .map_err(|err| Trouble::Died(self.process.post_mortem(&err)))?;
        let request = Request::Run(Run {
            inputs,
            outputs: contract.outputs.clone(),
            time: milliseconds(plan.timeout),
        });
        let reply = self.process.ask(&request, plan.timeout);
        let outcome = match reply.map_err(Trouble::Died)? {
            Reply::Done(outputs) => self.read(contract, &outputs, samples.len(), size),
            // A session that has just run into its limit is no good for the next run.
            Reply::Failed { memory: true, .. } => return Err(Trouble::Died(Death::Memory)),
            Reply::Failed { reason, .. } => return Err(Trouble::Failed(reason)),
            _ => Err(Wrong::Garbled(garbled("it does not know its job"))),
        };
        match outcome {
            Ok(rows) => Ok(rows),
            Err(Wrong::Shape(reason)) => Err(Trouble::Failed(reason)),
            Err(Wrong::Garbled(err)) => Err(Trouble::Died(self.process.post_mortem(&err))),
        }
    }

    /// Lays samples one after the other, input by input.
    fn write(
        &self,
        contract: &Contract,
        samples: &[&[Tensor]],
        size: usize,
    ) -> io::Result<Vec<Named>> {
        let file = self.process.values();
        let (mut offset, mut named) = (0, Vec::new());
        for (index, input) in contract.inputs.iter().enumerate() {
            let tensors = samples.iter().filter_map(|sample| sample.get(index));
            let mut bytes = 0;
            for tensor in tensors {
                let begin = offset;
                offset = match &tensor.data {
                    TensorData::F32(values) => put(file, offset, values)?,
                    TensorData::F16(values) => {
                        let bits: Vec<u16> = values.iter().map(|v| v.to_bits()).collect();
                        put(file, offset, &bits)?
                    }
                    TensorData::U8(values) => put(file, offset, values)?,
                    TensorData::I64(values) => put(file, offset, values)?,
                };
                bytes = usize::try_from(offset - begin).unwrap_or(0);
            }
            for _ in samples.len()..size {
                offset = put(file, offset, &vec![0u8; bytes])?;
            }
            named.push(Named {
                name: input.name.clone(),
                values: Values {
                    element: input.element,
                    shape: [&[size], input.shape.as_slice()].concat(),
                },
            });
        }
        Ok(named)
    }

    /// Takes the outputs apart by sample.
    fn read(
        &self,
        contract: &Contract,
        outputs: &[Values],
        samples: usize,
        size: usize,
    ) -> Result<Vec<Vec<Tensor>>, Wrong> {
        if outputs.len() != contract.outputs.len() {
            return Err(Wrong::Garbled(garbled("another number of outputs")));
        }
        let file = self.process.values();
        let mut rows: Vec<Vec<Tensor>> = (0..samples).map(|_| Vec::new()).collect();
        let mut offset: u64 = 0;
        for (name, output) in contract.outputs.iter().zip(outputs) {
            let shape = match output.shape.split_first() {
                Some((batch, shape)) if *batch == size => shape,
                _ => {
                    return Err(Wrong::Shape(format!(
                        "`{name}` has the shape {:?} for a batch of {size}",
                        output.shape
                    )));
                }
            };
            let values = Values {
                element: output.element,
                shape: shape.to_vec(),
            };
            let count = values.count().ok_or_else(|| garbled("too many values"))?;
            let bytes = match output.element {
                Element::F32 => count.checked_mul(4),
                Element::I64 => count.checked_mul(8),
                Element::F16 | Element::U8 => None,
            };
            let bytes = bytes.ok_or_else(|| garbled("an output of no such type"))? as u64;
            for (index, row) in rows.iter_mut().enumerate() {
                let at = bytes
                    .checked_mul(index as u64)
                    .and_then(|before| before.checked_add(offset))
                    .ok_or_else(|| garbled("too many values"))?;
                let data = match output.element {
                    Element::F32 => TensorData::F32(take(file, at, count)?),
                    _ => TensorData::I64(take(file, at, count)?),
                };
                row.push(Tensor {
                    shape: values.shape.clone(),
                    data,
                });
            }
            offset = bytes
                .checked_mul(size as u64)
                .and_then(|all| all.checked_add(offset))
                .ok_or_else(|| garbled("too many values"))?;
        }
        if file.metadata()?.len() > KEPT_BYTES {
            file.set_len(0)?;
        }
        Ok(rows)
    }
}

/// What is wrong with an answer.
enum Wrong {
    /// The graph gave something else than the manifest promises.
    Shape(String),
    /// The worker talks nonsense.
    Garbled(io::Error),
}

impl From<io::Error> for Wrong {
    fn from(err: io::Error) -> Self {
        Self::Garbled(err)
    }
}

/// A sample of zeros.
fn blank(input: &super::contract::Input) -> Tensor {
    let count = input.shape.iter().product();
    let data = match input.element {
        Element::F32 => TensorData::F32(vec![0.0; count]),
        Element::F16 => TensorData::F16(vec![half::f16::ZERO; count]),
        Element::U8 => TensorData::U8(vec![0; count]),
        Element::I64 => TensorData::I64(vec![0; count]),
    };
    Tensor {
        shape: input.shape.clone(),
        data,
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
