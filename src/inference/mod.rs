//! Models run by ONNX Runtime. This module sees tensors, never DICOM.

mod batch;
mod contract;
mod engine;
mod library;
mod session;
mod turn;

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

use crate::units::HumanDuration;

pub use engine::{Answer, Engine, InferenceError, Slot};
use library::Runtime;
pub use turn::Turn;

/// The `[inference]` section.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where models run.
    pub provider: Provider,
    /// Path of the ONNX Runtime shared library; empty: look for it.
    pub onnxruntime: PathBuf,
    /// Sessions per model, each with a thread of its own; 0: one per core.
    pub sessions: usize,
    /// Threads inside one session. One is best for throughput on few cores.
    pub intra_op_threads: usize,
    /// Longest run of one batch before it is terminated.
    pub timeout: HumanDuration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            provider: Provider::Cpu,
            onnxruntime: PathBuf::new(),
            sessions: 0,
            intra_op_threads: 1,
            timeout: HumanDuration::from_secs(60),
        }
    }
}

impl Config {
    /// Sessions per model, resolved.
    pub fn session_count(&self) -> usize {
        match self.sessions {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        }
    }
}

/// Execution provider. One that is not there is an error at start, never a silent fall-back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// The processor.
    #[default]
    Cpu,
    /// NVIDIA CUDA; needs the Cargo feature `cuda`.
    Cuda,
    /// NVIDIA TensorRT; needs the Cargo feature `tensorrt`.
    Tensorrt,
    /// Intel OpenVINO; needs the Cargo feature `openvino`.
    Openvino,
}

impl Provider {
    /// The word in configuration and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Tensorrt => "tensorrt",
            Self::Openvino => "openvino",
        }
    }
}
