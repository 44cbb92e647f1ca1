//! `[batching]` and `[limits]`: how a model is run.

use serde::Deserialize;

use crate::units::{ByteSize, HumanDuration};

/// How samples of different studies share a run.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Batching {
    /// Samples per run at most.
    pub max_batch: usize,
    /// How long a sample waits for company.
    pub max_delay: HumanDuration,
    /// Batch sizes that are run, ascending, the last being `max_batch`; a smaller batch is filled up.
    /// Empty: any size.
    pub sizes: Vec<usize>,
}

impl Default for Batching {
    fn default() -> Self {
        Self {
            max_batch: 1,
            max_delay: HumanDuration::from_millis(0),
            sizes: Vec::new(),
        }
    }
}

/// What a model may use; absent: what `[inference]` says.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Sessions, each a process of its own.
    pub sessions: Option<usize>,
    /// Threads inside one session.
    pub intra_op_threads: Option<usize>,
    /// Memory of one session's process besides its code.
    pub memory: Option<ByteSize>,
    /// Longest run of one batch.
    pub timeout: Option<HumanDuration>,
    /// Whether a session keeps freed memory for the next run.
    pub arena: Option<bool>,
    /// Whether it gives back what a run did not need before.
    pub arena_shrink: Option<bool>,
}

/// How the scores of a label were distributed when the model was validated.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// The label.
    pub label: String,
    /// Inner edges of the bins, ascending.
    pub edges: Vec<f64>,
    /// Fraction of studies in each bin; one more than `edges`, together 1.
    pub fractions: Vec<f64>,
}
