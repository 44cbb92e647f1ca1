//! Does the manifest fit the graph? Checked at load, with a message that names both sides.

use ort::session::Session;
use ort::value::{TensorElementType, ValueType};

use crate::model::manifest::{DType, Layout, OutputSpec};
use crate::model::{InputSpec, Manifest};

/// What the session thread needs to know of a checked graph.
#[derive(Debug, Clone)]
pub(super) struct Contract {
    /// Name of the input tensor.
    pub input: String,
    /// Names of the output tensors, in the order of answers.
    pub outputs: Vec<String>,
    /// Shape of one sample, without the batch.
    pub sample_shape: Vec<usize>,
    /// Size of the batch dimension when the graph fixes it.
    pub fixed_batch: Option<usize>,
}

/// Checks names, types and shapes of the manifest's input and output against the graph's.
///
/// # Errors
/// The manifest's key and what the graph says instead.
pub(super) fn check(manifest: &Manifest, session: &Session) -> Result<Contract, String> {
    let (input, spec) = manifest.input()?;
    let names = |outlets: &[ort::value::Outlet]| {
        let names: Vec<&str> = outlets.iter().map(|outlet| outlet.name()).collect();
        names.join(", ")
    };
    let outlet = session
        .inputs()
        .iter()
        .find(|outlet| outlet.name() == input)
        .ok_or_else(|| {
            format!(
                "input.name: manifest says `{input}`, the graph has {}",
                names(session.inputs())
            )
        })?;
    if session.inputs().len() != 1 {
        return Err(format!(
            "input: manifest has one, the graph wants {}",
            names(session.inputs())
        ));
    }
    let (element, shape) = tensor(outlet.dtype())
        .ok_or_else(|| format!("input.name: `{input}` is no tensor in the graph"))?;
    let (dtype, expected) = expected(&spec);
    if element != dtype {
        return Err(format!(
            "input.dtype: manifest says {dtype:?}, the graph wants {element:?}"
        ));
    }
    let fits = shape.len() == expected.len() + 1
        && shape[1..]
            .iter()
            .zip(&expected)
            .all(|(graph, ours)| *graph < 0 || usize::try_from(*graph) == Ok(*ours));
    if !fits {
        return Err(format!(
            "input: manifest gives `{input}` the shape {}, the graph wants {}",
            show(&[&[-1], as_signed(&expected).as_slice()].concat()),
            show(&shape)
        ));
    }
    let OutputSpec::Classification(_) = &manifest.output else {
        return Err(format!(
            "output.kind: {} is not supported yet",
            manifest.output.kind()
        ));
    };
    for tensor_name in manifest.tensors() {
        let outlet = session
            .outputs()
            .iter()
            .find(|outlet| outlet.name() == tensor_name)
            .ok_or_else(|| {
                format!(
                    "output.tensor: manifest says `{tensor_name}`, the graph has {}",
                    names(session.outputs())
                )
            })?;
        let (element, output) = tensor(outlet.dtype())
            .ok_or_else(|| format!("output.tensor: `{tensor_name}` is no tensor in the graph"))?;
        if !matches!(
            element,
            TensorElementType::Float32 | TensorElementType::Float16
        ) {
            return Err(format!(
                "output.tensor: `{tensor_name}` has {element:?}, not floating point"
            ));
        }
        manifest.fits(tensor_name, &output)?;
    }
    let outputs = manifest.tensors().into_iter().map(str::to_owned).collect();
    Ok(Contract {
        input: input.to_owned(),
        outputs,
        sample_shape: expected,
        fixed_batch: usize::try_from(shape[0]).ok().filter(|batch| *batch > 0),
    })
}

fn tensor(dtype: &ValueType) -> Option<(TensorElementType, Vec<i64>)> {
    match dtype {
        ValueType::Tensor { ty, shape, .. } => Some((*ty, shape.to_vec())),
        _ => None,
    }
}

fn expected(spec: &InputSpec) -> (TensorElementType, Vec<usize>) {
    match spec {
        InputSpec::Features(features) => (TensorElementType::Float32, vec![features.len()]),
        InputSpec::Image(image) => {
            let shape = match image.layout {
                Layout::Nhwc => vec![image.rows, image.columns, image.channels],
                _ => vec![image.channels, image.rows, image.columns],
            };
            (element(image.dtype), shape)
        }
        InputSpec::Volume(volume) => (element(volume.dtype), volume.shape().to_vec()),
    }
}

fn element(dtype: DType) -> TensorElementType {
    match dtype {
        DType::Float32 => TensorElementType::Float32,
        DType::Float16 => TensorElementType::Float16,
        DType::Uint8 => TensorElementType::Uint8,
    }
}

fn as_signed(shape: &[usize]) -> Vec<i64> {
    shape
        .iter()
        .map(|size| i64::try_from(*size).unwrap_or(i64::MAX))
        .collect()
}

fn show(shape: &[i64]) -> String {
    let sizes: Vec<String> = shape
        .iter()
        .map(|size| {
            if *size < 0 {
                "N".to_owned()
            } else {
                size.to_string()
            }
        })
        .collect();
    format!("[{}]", sizes.join(", "))
}
