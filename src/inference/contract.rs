//! Does the manifest fit the graph? Checked at load, with a message that names both sides.

use ort::session::Session;
use ort::value::{TensorElementType, ValueType};

use crate::model::manifest::{DType, Layout, NamedInput, OutputSpec};
use crate::model::{InputSpec, Manifest};

/// What the session thread needs to know of a checked graph.
#[derive(Debug, Clone)]
pub(super) struct Contract {
    /// The input tensors, in the manifest's order.
    pub inputs: Vec<Wanted>,
    /// Name of the output tensor.
    pub output: String,
    /// Size of the batch dimension when the graph fixes it.
    pub fixed_batch: Option<usize>,
}

/// One input tensor.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// Its name in the graph.
    pub name: String,
    /// Type of its values.
    pub dtype: DType,
    /// Shape of one sample, without the batch.
    pub shape: Vec<usize>,
}

/// Checks names, types and shapes of the manifest's inputs and output against the graph's.
///
/// # Errors
/// The manifest's key and what the graph says instead.
pub(super) fn check(manifest: &Manifest, session: &Session) -> Result<Contract, String> {
    let inputs = manifest.inputs()?;
    if session.inputs().len() != inputs.len() {
        return Err(format!(
            "input: manifest has {}, the graph wants {}",
            inputs.len(),
            names(session.inputs())
        ));
    }
    let mut wanted_inputs = Vec::new();
    let mut fixed_batch = None;
    for NamedInput { name, spec, .. } in &inputs {
        let (wanted, batch) = check_input(name, spec, session)?;
        wanted_inputs.push(wanted);
        fixed_batch = fixed_batch.or(batch);
    }
    let OutputSpec::Classification(wanted) = &manifest.output else {
        return Err(format!(
            "output.kind: {} is not supported yet",
            manifest.output.kind()
        ));
    };
    let tensor_name = &wanted.tensor;
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
    manifest.output.fits(tensor_name, &output)?;
    Ok(Contract {
        inputs: wanted_inputs,
        output: tensor_name.clone(),
        fixed_batch,
    })
}

/// Also gives the size of the batch dimension when the graph fixes it.
fn check_input(
    input: &str,
    spec: &InputSpec,
    session: &Session,
) -> Result<(Wanted, Option<usize>), String> {
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
    let (graph, shape) = tensor(outlet.dtype())
        .ok_or_else(|| format!("input.name: `{input}` is no tensor in the graph"))?;
    let (dtype, expected) = expected(spec);
    if graph != element(dtype) {
        return Err(format!(
            "input.dtype: manifest says {:?}, the graph wants {graph:?}",
            element(dtype)
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
    let batch = usize::try_from(shape[0]).ok().filter(|batch| *batch > 0);
    let wanted = Wanted {
        name: input.to_owned(),
        dtype,
        shape: expected,
    };
    Ok((wanted, batch))
}

fn names(outlets: &[ort::value::Outlet]) -> String {
    let names: Vec<&str> = outlets.iter().map(|outlet| outlet.name()).collect();
    names.join(", ")
}

fn tensor(dtype: &ValueType) -> Option<(TensorElementType, Vec<i64>)> {
    match dtype {
        ValueType::Tensor { ty, shape, .. } => Some((*ty, shape.to_vec())),
        _ => None,
    }
}

fn expected(spec: &InputSpec) -> (DType, Vec<usize>) {
    match spec {
        InputSpec::Features(features) => (DType::Float32, vec![features.len()]),
        InputSpec::Image(image) => {
            let shape = match image.layout {
                Layout::Nhwc => vec![image.rows, image.columns, image.channels],
                _ => vec![image.channels, image.rows, image.columns],
            };
            (image.dtype, shape)
        }
        InputSpec::Volume(volume) => (volume.dtype, volume.shape().to_vec()),
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
