//! The worker's side: one ONNX Runtime session, run on one batch after the other until the gateway
//! hangs up. It knows names, types and shapes; what they mean stays in the gateway.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use half::f16;
use ort::environment::Environment;
use ort::ep::ExecutionProviderDispatch;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{RunOptions, Session, SessionInputValue};
use ort::value::{DynValue, TensorElementType, TensorRef, ValueType};

use super::protocol::{Element, Graph, Load, Named, Outlet, Reply, Request, Run, Values};
use super::{Provider, library};
use crate::child::{Bounds, Watchdog, confine, garbled, put, receive, send, streams, take};
use crate::model::TensorData;
use crate::model::repository::digest;

/// How far models stand back behind the rest of the gateway where both want the processor.
const NICE: i32 = 5;
/// Standard streams, the graph, its external data, and some to spare.
const MAX_FILES: u64 = 256;
/// Tensors that a batch may have are bounded by the memory of the process that makes them; without
/// such a bound, by this.
const MAX_VALUES: u64 = 16 << 30;

/// What a worker is told on its command line.
#[derive(Debug, Clone, clap::Args)]
pub struct WorkerArgs {
    /// Memory in bytes; without it any.
    #[arg(long)]
    pub memory: Option<u64>,
}

/// Serves requests on standard input, which is one end of a socket pair; tensors go both ways through
/// standard output, which is a file in memory.
///
/// # Errors
/// When the limits cannot be set, standard input is no socket, or the gateway says nonsense.
pub fn work(args: &WorkerArgs) -> io::Result<ExitCode> {
    confine(Bounds {
        memory: args.memory,
        values: args.memory.unwrap_or(MAX_VALUES),
        // Drivers of devices need many.
        files: args.memory.map(|_| MAX_FILES),
    })?;
    // Receiving and everything else that a study needs a moment of goes before a run that takes long.
    rustix::process::nice(NICE)?;
    let (mut stream, file) = streams()?;
    let watchdog = Watchdog::start()?;
    let Some(Request::Load(load)) = receive(&mut stream)? else {
        return Err(garbled("the first request is to load a graph"));
    };
    watchdog.arm(Duration::from_millis(load.time));
    let loaded = Model::load(&load);
    watchdog.disarm();
    let mut model = match loaded {
        Ok((model, graph)) => {
            send(&mut stream, &Reply::Loaded(graph))?;
            model
        }
        Err(refusal) => {
            send(&mut stream, &refusal)?;
            return Ok(ExitCode::FAILURE);
        }
    };
    while let Some(request) = receive(&mut stream)? {
        let Request::Run(run) = request else {
            return Err(garbled("a graph is loaded once"));
        };
        watchdog.arm(Duration::from_millis(run.time));
        let reply = model.run(&run, &file)?;
        watchdog.disarm();
        send(&mut stream, &reply)?;
    }
    Ok(ExitCode::SUCCESS)
}

struct Model {
    session: Session,
    options: RunOptions,
    /// Outlives the session.
    _environment: Environment,
}

impl Model {
    fn load(load: &Load) -> Result<(Self, Graph), Reply> {
        let (environment, version) = library::load(Path::new(&load.library))
            .map_err(|err| Reply::NoLibrary(err.to_string()))?;
        let onnx = Path::new(&load.onnx);
        let refuse = |reason: String| Reply::NoGraph(reason);
        let sha256 = digest(onnx).map_err(|err| refuse(format!("{}: {err}", onnx.display())))?;
        let session = builder(&environment, load)
            .map_err(refuse)?
            .commit_from_file(onnx)
            .map_err(|err| refuse(format!("{}: {err}", onnx.display())))?;
        let options = options(load).map_err(refuse)?;
        let graph = Graph {
            version,
            sha256,
            inputs: session.inputs().iter().map(outlet).collect(),
            outputs: session.outputs().iter().map(outlet).collect(),
        };
        let model = Self {
            session,
            options,
            _environment: environment,
        };
        Ok((model, graph))
    }

    /// Errors are those of the file and the gateway; those of the run are replies.
    fn run(&mut self, run: &Run, file: &File) -> io::Result<Reply> {
        let tensors = read(&run.inputs, file)?;
        let outcome = run
            .inputs
            .iter()
            .zip(&tensors)
            .map(|(input, data)| {
                let value = value(&input.values.shape, data)?;
                Ok((Cow::from(input.name.as_str()), value))
            })
            .collect::<ort::Result<Vec<_>>>()
            .and_then(|inputs| self.session.run_with_options(inputs, &self.options));
        let outputs = match outcome {
            Ok(outputs) => outputs,
            Err(err) => return Ok(failed(err.to_string())),
        };
        let (mut values, mut offset) = (Vec::new(), 0);
        for name in &run.outputs {
            let Some(output) = outputs.get(name.as_str()) else {
                return Ok(failed(format!("the run gave no `{name}`")));
            };
            match write(output, file, &mut offset)? {
                Ok(written) => values.push(written),
                Err(reason) => return Ok(failed(format!("`{name}`: {reason}"))),
            }
        }
        Ok(Reply::Done(values))
    }
}

fn failed(reason: String) -> Reply {
    // ONNX Runtime reports a failed allocation as an error like any other.
    let memory = ["Failed to allocate memory", "bad_alloc", "out of memory"]
        .iter()
        .any(|words| reason.contains(words));
    Reply::Failed { reason, memory }
}

fn outlet(outlet: &ort::value::Outlet) -> Outlet {
    Outlet {
        name: outlet.name().to_owned(),
        tensor: match outlet.dtype() {
            ValueType::Tensor { ty, shape, .. } => Some((format!("{ty:?}"), shape.to_vec())),
            _ => None,
        },
    }
}

fn read(inputs: &[Named], file: &File) -> io::Result<Vec<TensorData>> {
    let mut offset = 0;
    let mut tensors = Vec::new();
    for Named { values, .. } in inputs {
        let count = values.count().ok_or_else(|| garbled("too many values"))?;
        let (data, size) = match values.element {
            Element::F32 => (TensorData::F32(take(file, offset, count)?), 4),
            Element::F16 => {
                let bits: Vec<u16> = take(file, offset, count)?;
                let halves = bits.into_iter().map(f16::from_bits).collect();
                (TensorData::F16(halves), 2)
            }
            Element::U8 => (TensorData::U8(take(file, offset, count)?), 1),
            Element::I64 => (TensorData::I64(take(file, offset, count)?), 8),
        };
        offset += (count * size) as u64;
        tensors.push(data);
    }
    Ok(tensors)
}

fn value<'v>(shape: &[usize], data: &'v TensorData) -> ort::Result<SessionInputValue<'v>> {
    let shape = shape.to_vec();
    Ok(match data {
        TensorData::F32(v) => TensorRef::from_array_view((shape, v.as_slice()))?.into(),
        TensorData::F16(v) => TensorRef::from_array_view((shape, v.as_slice()))?.into(),
        TensorData::U8(v) => TensorRef::from_array_view((shape, v.as_slice()))?.into(),
        TensorData::I64(v) => TensorRef::from_array_view((shape, v.as_slice()))?.into(),
    })
}

/// Writes an output behind `offset`, floats as `f32`, integers as `i64`.
fn write(output: &DynValue, file: &File, offset: &mut u64) -> io::Result<Result<Values, String>> {
    macro_rules! values {
        ($type:ty, $element:expr, |$values:ident| $converted:expr) => {
            match output.try_extract_tensor::<$type>() {
                Ok((shape, $values)) => {
                    *offset = put(file, *offset, &$converted[..])?;
                    let sizes = shape.iter().map(|size| usize::try_from(*size));
                    Ok(sizes
                        .collect::<Result<_, _>>()
                        .map(|shape| Values {
                            element: $element,
                            shape,
                        })
                        .map_err(|_| format!("has the shape {shape:?}")))
                }
                Err(err) => Ok(Err(err.to_string())),
            }
        };
    }
    match output.dtype().tensor_type() {
        Some(TensorElementType::Float32) => values!(f32, Element::F32, |values| values),
        Some(TensorElementType::Float16) => values!(f16, Element::F32, |values| {
            values.iter().map(|v| v.to_f32()).collect::<Vec<f32>>()
        }),
        Some(TensorElementType::Int64) => values!(i64, Element::I64, |values| values),
        Some(TensorElementType::Int32) => values!(i32, Element::I64, |values| {
            values.iter().map(|v| i64::from(*v)).collect::<Vec<i64>>()
        }),
        _ => Ok(Err(format!("has the type {:?}", output.dtype()))),
    }
}

fn builder(environment: &Environment, load: &Load) -> Result<SessionBuilder, String> {
    let builder = Session::builder(environment)
        .map_err(|err| err.to_string())?
        .with_optimization_level(GraphOptimizationLevel::All)
        .map_err(|err| err.to_string())?
        .with_intra_threads(load.intra_op_threads)
        .map_err(|err| err.to_string())?
        .with_inter_threads(1)
        .map_err(|err| err.to_string())?
        // Spinning threads halve the throughput of a machine that also decodes and receives.
        .with_intra_op_spinning(false)
        .map_err(|err| err.to_string())?
        // A plan of the whole run's memory is kept with the arena or not at all.
        .with_memory_pattern(load.arena)
        .map_err(|err| err.to_string())?;
    // The processor takes what another provider leaves.
    let cpu = ort::ep::CPU::default()
        .with_arena_allocator(load.arena)
        .build();
    let mut providers = vec![cpu.error_on_failure()];
    if load.provider != Provider::Cpu {
        let provider = dispatch(load).ok_or_else(|| {
            format!(
                "inference.provider: this binary was built without the feature `{}`",
                load.provider.as_str()
            )
        })?;
        // ort's default is a silent fall-back.
        providers.insert(0, provider.error_on_failure());
    }
    builder.with_execution_providers(providers).map_err(|err| {
        format!(
            "inference.provider: {} is not available: {err}",
            load.provider.as_str()
        )
    })
}

/// The provider's registration, if it is compiled in.
fn dispatch(load: &Load) -> Option<ExecutionProviderDispatch> {
    #[cfg(any(feature = "cuda", feature = "tensorrt"))]
    let device = i32::try_from(load.device_id).unwrap_or(i32::MAX);
    #[cfg(any(feature = "cuda", feature = "tensorrt"))]
    let memory = usize::try_from(load.device_memory)
        .ok()
        .filter(|bytes| *bytes > 0);
    match load.provider {
        #[cfg(feature = "cuda")]
        Provider::Cuda => {
            let provider = ort::ep::CUDA::default().with_device_id(device);
            let provider = match memory {
                // By default the arena doubles, which would pass the limit long before it is needed.
                Some(bytes) => provider
                    .with_memory_limit(bytes)
                    .with_arena_extend_strategy(ort::ep::ArenaExtendStrategy::SameAsRequested),
                None => provider,
            };
            Some(provider.build())
        }
        #[cfg(feature = "tensorrt")]
        Provider::Tensorrt => {
            let provider = ort::ep::TensorRT::default().with_device_id(device);
            let provider = match memory {
                Some(bytes) => provider.with_max_workspace_size(bytes),
                None => provider,
            };
            Some(provider.build())
        }
        #[cfg(feature = "openvino")]
        Provider::Openvino => Some(ort::ep::OpenVINO::default().build()),
        _ => None,
    }
}

fn options(load: &Load) -> Result<RunOptions, String> {
    let mut options = RunOptions::new().map_err(|err| err.to_string())?;
    if load.arena && load.arena_shrink {
        let arenas = match load.provider {
            Provider::Cuda | Provider::Tensorrt => format!("cpu:0;gpu:{}", load.device_id),
            Provider::Cpu | Provider::Openvino => "cpu:0".to_owned(),
        };
        options
            .set("memory.enable_memory_arena_shrinkage", arenas)
            .map_err(|err| err.to_string())?;
    }
    Ok(options)
}
