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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let text = include_str!("../../models/cxr-phantom/model.toml");
        Manifest::parse(text).unwrap()
    }

    fn outlet(name: &str, element: &str, shape: &[i64]) -> Outlet {
        Outlet {
            name: name.to_owned(),
            tensor: Some((element.to_owned(), shape.to_vec())),
        }
    }

    fn graph(inputs: Vec<Outlet>, outputs: Vec<Outlet>) -> Graph {
        Graph {
            version: "1.28.0".to_owned(),
            sha256: String::new(),
            inputs,
            outputs,
        }
    }

    #[test]
    fn a_graph_may_fix_its_batch_or_leave_it_open() {
        for (batch, fixed) in [(-1, None), (1, Some(1)), (8, Some(8))] {
            let graph = graph(
                vec![outlet("image", "Float32", &[batch, 1, 128, 128])],
                vec![outlet("logits", "Float16", &[batch, 2])],
            );
            let contract = check(&manifest(), &graph).unwrap();
            assert_eq!(contract.fixed_batch, fixed);
            assert_eq!(contract.outputs, ["logits"]);
            assert_eq!(contract.inputs[0].shape, [1, 128, 128]);
        }
    }

    #[test]
    fn each_contradiction_names_the_key_and_both_sides() {
        let image = || outlet("image", "Float32", &[-1, 1, 128, 128]);
        let logits = || outlet("logits", "Float32", &[-1, 2]);
        let sequence = |name: &str| Outlet {
            name: name.to_owned(),
            tensor: None,
        };
        let cases: [(Vec<Outlet>, Vec<Outlet>, &[&str]); 8] = [
            (
                vec![outlet("x", "Float32", &[-1, 1, 128, 128])],
                vec![logits()],
                &["input.name", "`image`", "x"],
            ),
            (
                vec![image(), outlet("age", "Float32", &[-1, 1])],
                vec![logits()],
                &["manifest has 1", "image, age"],
            ),
            (
                vec![sequence("image")],
                vec![logits()],
                &["input.name", "no tensor"],
            ),
            (
                vec![outlet("image", "Double", &[-1, 1, 128, 128])],
                vec![logits()],
                &["input.dtype", "Float32", "Double"],
            ),
            (
                vec![outlet("image", "Float32", &[-1, 128, 128])],
                vec![logits()],
                &["[N, 1, 128, 128]", "[N, 128, 128]"],
            ),
            (
                vec![image()],
                vec![outlet("probabilities", "Float32", &[-1, 2])],
                &["output.tensor", "`logits`", "probabilities"],
            ),
            (
                vec![image()],
                vec![outlet("logits", "String", &[-1, 2])],
                &["output.tensor", "String"],
            ),
            (
                vec![image()],
                vec![sequence("logits")],
                &["output.tensor", "no tensor"],
            ),
        ];
        for (inputs, outputs, words) in cases {
            let refusal = check(&manifest(), &graph(inputs, outputs)).unwrap_err();
            for word in words {
                assert!(refusal.contains(word), "no `{word}` in {refusal}");
            }
        }
    }
}
