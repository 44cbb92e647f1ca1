//! One ONNX Runtime session: loaded, checked, warmed up, and run on batches.

use std::path::Path;

use half::f16;
use ort::ep::ExecutionProviderDispatch;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{RunOptions, Session};
use ort::value::{DynValue, TensorElementType};

use super::contract::{self, Contract};
use super::{Config, Provider, Runtime};
use crate::model::{Manifest, Tensor, TensorData};

/// A session and what the manifest promised about it.
pub(super) struct ModelSession {
    session: Session,
    pub contract: Contract,
}

impl ModelSession {
    /// Loads the graph and checks the manifest against it.
    ///
    /// # Errors
    /// ONNX Runtime's words, or the key that does not fit.
    pub fn load(
        runtime: &Runtime,
        config: &Config,
        manifest: &Manifest,
        onnx: &Path,
    ) -> Result<Self, String> {
        let session = builder(runtime, config)?
            .commit_from_file(onnx)
            .map_err(|err| format!("{}: {err}", onnx.display()))?;
        let contract = contract::check(manifest, &session)?;
        Ok(Self { session, contract })
    }

    /// Runs one batch; the result has the output tensors of each sample.
    pub fn run(
        &mut self,
        samples: &[&Tensor],
        options: &RunOptions,
    ) -> Result<Vec<Vec<Tensor>>, String> {
        let size = self.contract.fixed_batch.unwrap_or(samples.len());
        let input = stack(samples, size, &self.contract.sample_shape)?;
        let inputs = vec![(self.contract.input.as_str(), input)];
        let outputs = self
            .session
            .run_with_options(inputs, options)
            .map_err(|err| err.to_string())?;
        let mut answers = vec![Vec::new(); samples.len()];
        for name in &self.contract.outputs {
            let output = outputs.get(name.as_str());
            let output = output.ok_or_else(|| format!("the run gave no `{name}`"))?;
            let (shape, values) = floats(output)?;
            let (Some(batch), Some(one)) = (shape.first(), shape.get(1..)) else {
                return Err(format!("the run gave no batch of `{name}`"));
            };
            if *batch != size {
                return Err(format!(
                    "the run gave the shape {shape:?} for a batch of {size}"
                ));
            }
            let rows = values.chunks_exact(one.iter().product::<usize>().max(1));
            for (answer, row) in answers.iter_mut().zip(rows) {
                answer.push(Tensor {
                    shape: one.to_vec(),
                    data: TensorData::F32(row.to_vec()),
                });
            }
        }
        Ok(answers)
    }

    /// A sample of zeros, for the warm-up.
    pub fn blank(&self, dtype: crate::model::manifest::DType) -> Tensor {
        use crate::model::manifest::DType;
        let shape = self.contract.sample_shape.clone();
        let count = shape.iter().product();
        let data = match dtype {
            DType::Float32 => TensorData::F32(vec![0.0; count]),
            DType::Float16 => TensorData::F16(vec![f16::ZERO; count]),
            DType::Uint8 => TensorData::U8(vec![0; count]),
        };
        Tensor { shape, data }
    }
}

fn builder(runtime: &Runtime, config: &Config) -> Result<SessionBuilder, String> {
    let builder = Session::builder(&runtime.environment)
        .map_err(|err| err.to_string())?
        .with_optimization_level(GraphOptimizationLevel::All)
        .map_err(|err| err.to_string())?
        .with_intra_threads(config.intra_op_threads.max(1))
        .map_err(|err| err.to_string())?
        .with_inter_threads(1)
        .map_err(|err| err.to_string())?
        // Spinning threads halve the throughput of a machine that also decodes and receives.
        .with_intra_op_spinning(false)
        .map_err(|err| err.to_string())?;
    with_provider(builder, config.provider)
}

/// Registers the provider so that its absence is an error; ort's default is a silent fall-back.
fn with_provider(builder: SessionBuilder, provider: Provider) -> Result<SessionBuilder, String> {
    let Some(dispatch) = dispatch(provider) else {
        return match provider {
            Provider::Cpu => Ok(builder),
            other => Err(format!(
                "inference.provider: this binary was built without the feature `{}`",
                other.as_str()
            )),
        };
    };
    builder
        .with_execution_providers([dispatch.error_on_failure()])
        .map_err(|err| {
            format!(
                "inference.provider: {} is not available: {err}",
                provider.as_str()
            )
        })
}

/// The provider's registration, if it is compiled in. The processor needs none.
fn dispatch(provider: Provider) -> Option<ExecutionProviderDispatch> {
    match provider {
        #[cfg(feature = "cuda")]
        Provider::Cuda => Some(ort::ep::CUDA::default().build()),
        #[cfg(feature = "tensorrt")]
        Provider::Tensorrt => Some(ort::ep::TensorRT::default().build()),
        #[cfg(feature = "openvino")]
        Provider::Openvino => Some(ort::ep::OpenVINO::default().build()),
        _ => None,
    }
}

/// Lays samples one after the other; a graph with a fixed batch gets zeros for the rest.
fn stack(samples: &[&Tensor], size: usize, sample_shape: &[usize]) -> Result<DynValue, String> {
    let count: usize = sample_shape.iter().product();
    if samples.iter().any(|sample| sample.shape != sample_shape) {
        return Err("a sample has another shape than the graph wants".to_owned());
    }
    let mut shape = vec![size];
    shape.extend_from_slice(sample_shape);
    macro_rules! stacked {
        ($variant:path, $zero:expr) => {{
            let mut all = Vec::with_capacity(size * count);
            for sample in samples {
                match &sample.data {
                    $variant(values) => all.extend_from_slice(values),
                    _ => return Err("samples of one batch have different types".to_owned()),
                }
            }
            all.resize(size * count, $zero);
            ort::value::Tensor::from_array((shape, all))
                .map(|tensor| tensor.into_dyn())
                .map_err(|err| err.to_string())
        }};
    }
    match samples.first().map(|sample| &sample.data) {
        Some(TensorData::F32(_)) => stacked!(TensorData::F32, 0.0),
        Some(TensorData::F16(_)) => stacked!(TensorData::F16, f16::ZERO),
        Some(TensorData::U8(_)) => stacked!(TensorData::U8, 0),
        Some(TensorData::I64(_)) => stacked!(TensorData::I64, 0),
        None => Err("a batch has no samples".to_owned()),
    }
}

fn floats(value: &DynValue) -> Result<(Vec<usize>, Vec<f32>), String> {
    let shape = |shape: &ort::value::Shape| {
        shape
            .iter()
            .map(|size| usize::try_from(*size).unwrap_or(0))
            .collect()
    };
    if value.dtype().tensor_type() == Some(TensorElementType::Float16) {
        let (dims, values) = value
            .try_extract_tensor::<f16>()
            .map_err(|err| err.to_string())?;
        return Ok((shape(dims), values.iter().map(|v| v.to_f32()).collect()));
    }
    let (dims, values) = value
        .try_extract_tensor::<f32>()
        .map_err(|err| err.to_string())?;
    Ok((shape(dims), values.to_vec()))
}
