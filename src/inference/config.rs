//! The `[inference]` section, and what a model's own `[limits]` make of it.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::manifest::Limits;
use crate::units::{ByteSize, HumanDuration};

/// The `[inference]` section.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where models run.
    pub provider: Provider,
    /// Path of the ONNX Runtime shared library; empty: look for it.
    pub onnxruntime: PathBuf,
    /// Sessions per model, each in a process of its own; 0: one per core.
    pub sessions: usize,
    /// Threads inside one session. One is best for throughput on few cores.
    pub intra_op_threads: usize,
    /// Longest run of one batch before its process is ended.
    pub timeout: HumanDuration,
    /// Longest time for loading a model.
    pub start_timeout: HumanDuration,
    /// Memory of one process besides its code (`RLIMIT_DATA`; provider `cpu`).
    pub memory: ByteSize,
    /// Whether a session keeps freed memory for the next run.
    pub arena: bool,
    /// Whether it gives back what a run did not need before.
    pub arena_shrink: bool,
    /// Which device (providers `cuda`, `tensorrt`).
    pub device_id: u32,
    /// Memory of the device for one session (providers `cuda`, `tensorrt`); 0: any.
    pub device_memory: ByteSize,
    /// Deaths in a row after which a model is fenced.
    pub fence_after: u32,
    /// How long, the first time.
    pub fence_time: HumanDuration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            provider: Provider::Cpu,
            onnxruntime: PathBuf::new(),
            sessions: 0,
            intra_op_threads: 1,
            timeout: HumanDuration::from_secs(60),
            start_timeout: HumanDuration::from_secs(300),
            memory: ByteSize(4 << 30),
            arena: true,
            arena_shrink: false,
            device_id: 0,
            device_memory: ByteSize(0),
            fence_after: 3,
            fence_time: HumanDuration::from_secs(60),
        }
    }
}

/// What one model may use: its own `[limits]`, else the configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowed {
    pub sessions: usize,
    pub intra_op_threads: usize,
    pub memory: ByteSize,
    pub timeout: Duration,
    pub arena: bool,
    pub arena_shrink: bool,
}

impl Config {
    /// Checks what no type can.
    ///
    /// # Errors
    /// The key and the reason.
    pub fn validate(&self) -> Result<(), String> {
        if self.intra_op_threads == 0 {
            return Err("intra_op_threads: must be at least 1".to_owned());
        }
        if self.fence_after == 0 {
            return Err("fence_after: must be at least 1".to_owned());
        }
        let least = Limits::MIN_MEMORY;
        if self.memory < least {
            return Err(format!("memory: must be at least {least}"));
        }
        for (key, value) in [
            ("timeout", self.timeout),
            ("start_timeout", self.start_timeout),
            ("fence_time", self.fence_time),
        ] {
            if value.get().is_zero() {
                return Err(format!("{key}: must be longer than zero"));
            }
        }
        Ok(())
    }

    /// What a model with these limits may use.
    pub(super) fn allowed(&self, limits: &Limits) -> Allowed {
        let sessions = match limits.sessions.unwrap_or(self.sessions) {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        };
        Allowed {
            sessions: sessions.min(MAX_SESSIONS),
            intra_op_threads: limits
                .intra_op_threads
                .unwrap_or(self.intra_op_threads)
                .max(1),
            memory: limits.memory.unwrap_or(self.memory),
            timeout: limits.timeout.unwrap_or(self.timeout).get(),
            arena: limits.arena.unwrap_or(self.arena),
            arena_shrink: limits.arena_shrink.unwrap_or(self.arena_shrink),
        }
    }
}

/// More would only wait for each other.
const MAX_SESSIONS: usize = 256;

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
