//! Models run by ONNX Runtime in processes of their own. This module sees tensors, never DICOM.
//!
//! ```text
//! slot ──in turn──▶ queue ──batch──▶ session thread ──tensors──▶ worker: this binary, ONNX Runtime
//!                     ▲ fence             └─ replaces a worker that died, and counts it
//! ```
//!
//! - The gateway never loads ONNX Runtime. A model that crashes, hangs or eats memory ends its own
//!   process; the batch is tried again sample by sample, and only what does it again is refused.
//! - A model that does nothing else is fenced: its samples are refused at once, and one is let
//!   through from time to time to see whether that is still needed. Other models notice nothing.
//! - Places in the queue are granted to urgent studies first, then to modalities in turn.

mod batch;
mod config;
mod contract;
mod engine;
mod fence;
mod gate;
mod library;
mod meter;
mod process;
mod protocol;
mod queue;
mod session;
mod turn;
mod worker;

pub use config::{Config, Provider};
pub use engine::{Answer, Engine, InferenceError, State};
pub use gate::{Gate, Place};
pub use queue::Slot;
pub use turn::{Turn, Turns};
pub use worker::{WorkerArgs, work};
