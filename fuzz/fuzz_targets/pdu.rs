//! The listener's PDU stream: whatever lengths a peer announces and however it
//! cuts its bytes, reading ends, and memory follows what arrived. Also after our last word.
#![no_main]
#![allow(dead_code)] // the listener uses more of these files than this target does

// The listener's own files: they are private to it, and need nothing but each other.
#[path = "../../src/scp/interruption.rs"]
mod interruption;
#[path = "../../src/scp/linger.rs"]
mod linger;
#[path = "../../src/scp/pdu_stream.rs"]
mod pdu_stream;
#[path = "../../src/scp/timed_stream.rs"]
mod timed_stream;

use std::io;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use pacs_gateway_fuzz::dicom;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use interruption::Interruption;
use pdu_stream::PduStream;

/// What we offer; small, so that short inputs can exceed it.
const MAX_PDU_LENGTH: u32 = 4096;
const BLOCK: usize = 1000;
const PATIENCE: Duration = Duration::from_secs(60);

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime")
});

fuzz_target!(|input: &[u8]| {
    let Some((&choice, bytes)) = input.split_first() else {
        return;
    };
    let chunk = usize::from(choice >> 1) + 1;
    let first = RUNTIME.block_on(read(Peer { bytes, chunk }));
    // The same bytes at once: nothing may depend on how they were cut.
    let second = RUNTIME.block_on(read(Peer {
        bytes,
        chunk: usize::MAX,
    }));
    assert_eq!(first, second);
    assert!(first.0.len() <= bytes.len());
});

/// All fragments, and how it ended.
async fn read(peer: Peer<'_>) -> (Vec<u8>, String) {
    let mut stream = PduStream::new(peer, MAX_PDU_LENGTH, PATIENCE, Instant::now() + PATIENCE);
    let mut all = Vec::new();
    loop {
        match message(&mut stream, &mut all).await {
            Ok(()) => {}
            Err(interruption) => {
                // What is left is read as PDUs again, and ends too.
                linger::linger(&mut stream, PATIENCE).await;
                return (all, interruption.to_string());
            }
        }
    }
}

async fn message(stream: &mut PduStream<Peer<'_>>, all: &mut Vec<u8>) -> Result<(), Interruption> {
    stream.wait_for_message(PATIENCE).await?;
    let pdv = stream.next_pdv().await?;
    if pdv.context % 2 == 0 {
        // Left behind, as after a refusal; the next header skips it.
        return Ok(());
    }
    let mut block = Vec::new();
    let mut fragment = 0;
    loop {
        let taken = stream.take_fragment(&mut block, BLOCK).await?;
        assert!(block.len() <= BLOCK);
        fragment += taken;
        assert!(fragment <= MAX_PDU_LENGTH as usize);
        if taken == 0 {
            let full = block.len() == BLOCK;
            all.append(&mut block);
            if !full {
                return Ok(());
            }
        }
    }
}

/// Sends at most `chunk` bytes at a time, then closes; takes whatever it gets.
struct Peer<'b> {
    bytes: &'b [u8],
    chunk: usize,
}

impl AsyncRead for Peer<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.chunk.min(out.remaining()).min(self.bytes.len());
        let (now, later) = self.bytes.split_at(count);
        out.put_slice(now);
        self.bytes = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Peer<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
