//! From the network into the spool with two buffers: while the network fills one block, the other
//! is hashed and written on a blocking thread.
//!
//! An instance that fits into one block costs a single hop to another thread for everything from
//! creating its file to making it durable.

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
    spool: Arc<Spool>,
    stage: Stage,
}

enum Stage {
    /// Nothing written; the file does not exist.
    New(Box<Arrival>),
    /// A block is being written; its buffer comes back with the open instance.
    Busy(JoinHandle<Result<(Incoming, Vec<u8>), SpoolError>>),
    /// Failed or handed over.
    Over,
}

impl Writer {
    pub(super) fn new(spool: Arc<Spool>, arrival: Arrival) -> Self {
        Self {
            spool,
            stage: Stage::New(Box::new(arrival)),
        }
    }

    /// Starts writing `block` as soon as the block before it is written, and returns an empty
    /// buffer to fill meanwhile: the one of the block before, or `None` when there was none.
    pub(super) async fn hand_over(
        &mut self,
        block: Vec<u8>,
    ) -> Result<Option<Vec<u8>>, WriteError> {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        let (handle, spare) = match stage {
            Stage::New(arrival) => {
                let spool = Arc::clone(&self.spool);
                (
                    spawn_blocking(move || append(spool.begin(*arrival)?, block)),
                    None,
                )
            }
            Stage::Busy(handle) => {
                let (incoming, spare) = handle.await.map_err(|_| WriteError::Ended)??;
                (spawn_blocking(move || append(incoming, block)), Some(spare))
            }
            Stage::Over => return Err(WriteError::Ended),
        };
        self.stage = Stage::Busy(handle);
        Ok(spare)
    }

    /// Writes the last block and makes the instance durable. The buffer comes back for the next
    /// one.
    pub(super) async fn finish(mut self, block: Vec<u8>) -> Result<(Stored, Vec<u8>), WriteError> {
        let handle = match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::New(arrival) => {
                let spool = Arc::clone(&self.spool);
                spawn_blocking(move || commit(append(spool.begin(*arrival)?, block)?))
            }
            Stage::Busy(handle) => {
                let (incoming, _) = handle.await.map_err(|_| WriteError::Ended)??;
                spawn_blocking(move || commit(append(incoming, block)?))
            }
            Stage::Over => return Err(WriteError::Ended),
        };
        Ok(handle.await.map_err(|_| WriteError::Ended)??)
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
