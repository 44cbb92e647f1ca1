//! From the network into the spool with two buffers: while the network fills one block, the other
//! is hashed and written on a blocking thread.
//!
//! The file is created as soon as the command is here, while the first block is still arriving:
//! creating it takes as long as writing it.

use std::sync::Arc;

use tokio::task::{JoinHandle, spawn_blocking};

use crate::spool::{Arrival, Incoming, Spool, SpoolError, Stored};

/// Size of a block. Half a CT slice: while the second half arrives, the first is already on its way
/// to the disk.
pub(super) const BLOCK_LENGTH: usize = 256 * 1024;

/// Why an instance did not get into the spool.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// The spool refused it or could not write.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The writing thread panicked; the instance is lost to us and the peer is told so.
    #[error("writing to the spool ended unexpectedly")]
    Ended,
}

/// One instance on its way into the spool.
pub(super) struct Writer {
    stage: Stage,
}

enum Stage {
    /// The file is being created, or a block written; its buffer comes back with the open instance.
    Busy(JoinHandle<Result<(Incoming, Vec<u8>), SpoolError>>),
    /// Failed or handed over.
    Over,
}

impl Writer {
    pub(super) fn new(spool: Arc<Spool>, arrival: Arrival) -> Self {
        let handle = spawn_blocking(move || Ok((spool.begin(arrival)?, Vec::new())));
        Self {
            stage: Stage::Busy(handle),
        }
    }

    /// Starts writing `block` as soon as the block before it is written, and returns the buffer of
    /// the block before to fill meanwhile.
    pub(super) async fn hand_over(&mut self, block: Vec<u8>) -> Result<Vec<u8>, WriteError> {
        let (incoming, spare) = self.ready().await?;
        self.stage = Stage::Busy(spawn_blocking(move || append(incoming, block)));
        Ok(spare)
    }

    /// Writes the last block and makes the instance durable. The buffer comes back for the next
    /// one.
    pub(super) async fn finish(mut self, block: Vec<u8>) -> Result<(Stored, Vec<u8>), WriteError> {
        let (incoming, _) = self.ready().await?;
        let last = spawn_blocking(move || commit(append(incoming, block)?));
        Ok(last.await.map_err(|_| WriteError::Ended)??)
    }

    /// Waits for what was started last.
    async fn ready(&mut self) -> Result<(Incoming, Vec<u8>), WriteError> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Busy(handle) => Ok(handle.await.map_err(|_| WriteError::Ended)??),
            Stage::Over => Err(WriteError::Ended),
        }
    }

    /// Gives the instance up and waits until its file is gone.
    pub(super) async fn abandon(self) {
        if let Stage::Busy(handle) = self.stage
            && let Ok(Ok((incoming, _))) = handle.await
        {
            // Removing a large file takes a while, so not on the runtime's threads.
            let _ = spawn_blocking(move || drop(incoming)).await;
        }
    }
}

fn append(mut incoming: Incoming, mut block: Vec<u8>) -> Result<(Incoming, Vec<u8>), SpoolError> {
    incoming.append(&block)?;
    block.clear();
    Ok((incoming, block))
}

fn commit((incoming, block): (Incoming, Vec<u8>)) -> Result<(Stored, Vec<u8>), SpoolError> {
    Ok((incoming.commit()?, block))
}
