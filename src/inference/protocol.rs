//! What gateway and worker say to each other. Tensors lie in the file of [`crate::child`], one after
//! the other: those of the inputs first, then, over them, those of the outputs.

use std::ffi::OsString;

use serde::{Deserialize, Serialize};

use super::Provider;

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// The first one.
    Load(Load),
    /// A batch.
    Run(Run),
}

/// A graph and how it is run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Load {
    /// ONNX Runtime.
    pub library: OsString,
    /// The graph.
    pub onnx: OsString,
    pub provider: Provider,
    pub device_id: u32,
    /// In bytes; 0: any.
    pub device_memory: u64,
    pub intra_op_threads: usize,
    pub arena: bool,
    pub arena_shrink: bool,
    /// Time for loading, in milliseconds.
    pub time: u64,
}

/// One run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Run {
    pub inputs: Vec<Named>,
    /// Names of the outputs that are wanted, in the order of the answer.
    pub outputs: Vec<String>,
    /// Time for it, in milliseconds.
    pub time: u64,
}

/// A tensor of the graph that is in the file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Named {
    pub name: String,
    pub values: Values,
}

/// What a tensor in the file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Values {
    pub element: Element,
    /// Sizes, outermost first, with the batch.
    pub shape: Vec<usize>,
}

/// Type of a tensor's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Element {
    F32,
    F16,
    U8,
    I64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// The graph is loaded.
    Loaded(Graph),
    /// The library cannot be used.
    NoLibrary(String),
    /// The graph cannot be loaded.
    NoGraph(String),
    /// The values of the outputs are in the file.
    Done(Vec<Values>),
    /// The run gave an error.
    Failed {
        reason: String,
        /// For want of memory.
        memory: bool,
    },
}

/// What a graph says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Graph {
    /// Version of ONNX Runtime.
    pub version: String,
    /// SHA-256 of the file, hex.
    pub sha256: String,
    pub inputs: Vec<Outlet>,
    pub outputs: Vec<Outlet>,
}

/// An input or an output of a graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Outlet {
    pub name: String,
    /// Element type as ONNX Runtime calls it, and shape, -1 for any size; none when it is no tensor.
    pub tensor: Option<(String, Vec<i64>)>,
}

impl Values {
    /// How many values there are; none when the number makes no sense.
    pub fn count(&self) -> Option<usize> {
        let product = |all: usize, size: &usize| all.checked_mul(*size);
        self.shape.iter().try_fold(1, product)
    }
}
