//! `[batching]` and `[limits]`: how a model is run.

use serde::Deserialize;

use crate::units::{ByteSize, HumanDuration};

/// Largest batch.
const MAX_BATCH: usize = 256;
/// More would only wait for each other.
const MAX_SESSIONS: usize = 256;
/// Likewise.
const MAX_THREADS: usize = 256;

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

impl Batching {
    pub(super) fn validate(&self) -> Result<(), String> {
        if !(1..=MAX_BATCH).contains(&self.max_batch) {
            return Err(format!("batching.max_batch: must be 1 to {MAX_BATCH}"));
        }
        let Some(last) = self.sizes.last() else {
            return Ok(());
        };
        let ascending = self.sizes.is_sorted_by(|one, next| one < next);
        if !ascending || self.sizes.first() == Some(&0) {
            return Err(format!(
                "batching.sizes: {:?} must ascend from 1 or more",
                self.sizes
            ));
        }
        if *last != self.max_batch {
            return Err(format!(
                "batching.sizes: the last is {last}, must be max_batch, which is {}",
                self.max_batch
            ));
        }
        Ok(())
    }
}

impl Limits {
    /// ONNX Runtime itself needs some.
    pub const MIN_MEMORY: ByteSize = ByteSize(64 << 20);

    pub(super) fn validate(&self) -> Result<(), String> {
        for (key, value, most) in [
            ("sessions", self.sessions, MAX_SESSIONS),
            ("intra_op_threads", self.intra_op_threads, MAX_THREADS),
        ] {
            if value.is_some_and(|value| !(1..=most).contains(&value)) {
                return Err(format!("limits.{key}: must be 1 to {most}"));
            }
        }
        let least = Self::MIN_MEMORY;
        if self.memory.is_some_and(|memory| memory < least) {
            return Err(format!("limits.memory: must be at least {least}"));
        }
        if self.timeout.is_some_and(|timeout| timeout.get().is_zero()) {
            return Err("limits.timeout: must be longer than zero".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batching(max_batch: usize, sizes: &[usize]) -> Batching {
        Batching {
            max_batch,
            sizes: sizes.to_vec(),
            ..Batching::default()
        }
    }

    #[test]
    fn sizes_ascend_to_the_largest_batch() {
        for (max_batch, sizes) in [(8, &[][..]), (8, &[8]), (8, &[1, 2, 8]), (256, &[1, 256])] {
            assert_eq!(batching(max_batch, sizes).validate(), Ok(()), "{sizes:?}");
        }
        for (max_batch, sizes) in [
            (0, &[][..]),
            (257, &[]),
            (8, &[0, 8]),
            (8, &[4, 2, 8]),
            (8, &[8, 8]),
            (8, &[1, 4]),
            (8, &[1, 16]),
        ] {
            let refusal = batching(max_batch, sizes).validate();
            assert!(
                refusal.is_err_and(|r| r.starts_with("batching.")),
                "{sizes:?}"
            );
        }
    }

    #[test]
    fn limits_that_cannot_work_are_refused_with_their_key() {
        assert_eq!(Limits::default().validate(), Ok(()));
        for (key, limits) in [
            (
                "sessions",
                Limits {
                    sessions: Some(0),
                    ..Limits::default()
                },
            ),
            (
                "sessions",
                Limits {
                    sessions: Some(257),
                    ..Limits::default()
                },
            ),
            (
                "intra_op_threads",
                Limits {
                    intra_op_threads: Some(0),
                    ..Limits::default()
                },
            ),
            (
                "memory",
                Limits {
                    memory: Some(ByteSize(1 << 20)),
                    ..Limits::default()
                },
            ),
            (
                "timeout",
                Limits {
                    timeout: Some(HumanDuration::from_secs(0)),
                    ..Limits::default()
                },
            ),
        ] {
            let refusal = limits.validate();
            assert!(refusal.is_err_and(|r| r.contains(key)), "{key}");
        }
    }
}
