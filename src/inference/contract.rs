//! Does the manifest fit the graph? Checked at load, with a message that names both sides.

use super::protocol::{Element, Graph, Outlet};
use crate::model::manifest::{DType, Layout, NamedInput};
use crate::model::{InputSpec, Manifest};

/// What runs need to know of a checked graph.
#[derive(Debug, Clone)]
pub(super) struct Contract {
    /// In the manifest's order, which is that of a sample's tensors.
    pub inputs: Vec<Input>,
    /// Names of the tensors of [`Manifest::tensors`].
    pub outputs: Vec<String>,
    /// Size of the batch dimension when the graph fixes it.
    pub fixed_batch: Option<usize>,
}

/// An input tensor.
#[derive(Debug, Clone)]
pub(super) struct Input {
    pub name: String,
    pub element: Element,
    /// Of one sample, without the batch.
    pub shape: Vec<usize>,
}

/// Checks names, types and shapes of the manifest's inputs and outputs against the graph's.
///
/// # Errors
/// The manifest's key and what the graph says instead.
pub(super) fn check(manifest: &Manifest, graph: &Graph) -> Result<Contract, String> {
    let wanted = manifest.inputs()?;
    let mut inputs = Vec::new();
    let mut fixed_batch = None;
    for NamedInput { name, spec, .. } in &wanted {
        let (input, batch) = input(name, spec, graph)?;
        if inputs.is_empty() {
            fixed_batch = batch;
        } else if fixed_batch != batch {
            return Err(format!(
                "input: the graph wants another batch for `{name}` than for the inputs before it"
            ));
        }
        inputs.push(input);
    }
    if graph.inputs.len() != wanted.len() {
        return Err(format!(
            "input: manifest has {}, the graph wants {}",
            wanted.len(),
            names(&graph.inputs)
        ));
    }
    for name in manifest.tensors() {
        let shape = output(name, graph)?;
        manifest.fits(name, shape)?;
    }
    Ok(Contract {
        inputs,
        outputs: manifest.tensors().into_iter().map(str::to_owned).collect(),
        fixed_batch,
    })
}

fn input(name: &str, spec: &InputSpec, graph: &Graph) -> Result<(Input, Option<usize>), String> {
    let outlet = find(name, &graph.inputs).ok_or_else(|| {
        format!(
            "input.name: manifest says `{name}`, the graph has {}",
            names(&graph.inputs)
        )
    })?;
    let (element, shape) = outlet
        .tensor
        .as_ref()
        .ok_or_else(|| format!("input.name: `{name}` is no tensor in the graph"))?;
    let (wanted, expected) = expected(spec);
    if element != word(wanted) {
        return Err(format!(
            "input.dtype: manifest says {} for `{name}`, the graph wants {element}",
            word(wanted)
        ));
    }
    let fits = shape.len() == expected.len() + 1
        && shape
            .iter()
            .skip(1)
            .zip(&expected)
            .all(|(graph, ours)| *graph < 0 || usize::try_from(*graph) == Ok(*ours));
    if !fits {
        return Err(format!(
            "input: manifest gives `{name}` the shape {}, the graph wants {}",
            show(&[&[-1], as_signed(&expected).as_slice()].concat()),
            show(shape)
        ));
    }
    let batch = shape.first().and_then(|batch| usize::try_from(*batch).ok());
    let input = Input {
        name: name.to_owned(),
        element: wanted,
        shape: expected,
    };
    Ok((input, batch.filter(|batch| *batch > 0)))
}

fn output<'g>(name: &str, graph: &'g Graph) -> Result<&'g [i64], String> {
    let outlet = find(name, &graph.outputs).ok_or_else(|| {
        format!(
            "output.tensor: manifest says `{name}`, the graph has {}",
            names(&graph.outputs)
        )
    })?;
    let (element, shape) = outlet
        .tensor
        .as_ref()
        .ok_or_else(|| format!("output.tensor: `{name}` is no tensor in the graph"))?;
    if !["Float32", "Float16", "Int64", "Int32"].contains(&element.as_str()) {
        return Err(format!(
            "output.tensor: `{name}` has {element}; float32, float16, int64 and int32 can be read"
        ));
    }
    Ok(shape)
}

fn find<'g>(name: &str, outlets: &'g [Outlet]) -> Option<&'g Outlet> {
    outlets.iter().find(|outlet| outlet.name == name)
}

fn names(outlets: &[Outlet]) -> String {
    let names: Vec<&str> = outlets.iter().map(|outlet| outlet.name.as_str()).collect();
    names.join(", ")
}

fn expected(spec: &InputSpec) -> (Element, Vec<usize>) {
    match spec {
        InputSpec::Features(features) => (Element::F32, vec![features.len()]),
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

fn element(dtype: DType) -> Element {
    match dtype {
        DType::Float32 => Element::F32,
        DType::Float16 => Element::F16,
        DType::Uint8 => Element::U8,
    }
}

/// ONNX Runtime's word.
const fn word(element: Element) -> &'static str {
    match element {
        Element::F32 => "Float32",
        Element::F16 => "Float16",
        Element::U8 => "Uint8",
        Element::I64 => "Int64",
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
