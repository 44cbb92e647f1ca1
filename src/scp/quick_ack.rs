//! A TCP stream that acknowledges at once.
//!
//! Stock senders leave Nagle's algorithm on and write a PDU's header and body separately, so the
//! body waits for our acknowledgement of the header, and the kernel delays that by 40 ms.
//! `TCP_QUICKACK` ends the wait, but the kernel clears it again; it must be set anew each time a
//! read would block. That is exactly when `poll_read` finds nothing, so the wrapper does it there
//! and nobody else has to think of it. Measured with DCMTK: from some ten to over a thousand
//! megabytes per second.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A [`TcpStream`] that re-arms `TCP_QUICKACK` whenever a read has to wait. On other systems than
/// Linux it is a plain stream.
#[derive(Debug)]
pub struct QuickAckStream(TcpStream);

impl QuickAckStream {
    /// Takes a connected stream over and switches Nagle's algorithm off for our own small
    /// responses.
    ///
    /// # Errors
    /// The connection is already gone.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }
}

impl AsyncRead for QuickAckStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.0).poll_read(context, buffer);
        if poll.is_pending() {
            acknowledge_now(&self.0);
        }
        poll
    }
}

/// A failure only means that the peer waits for the delayed acknowledgement, so it is ignored.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn acknowledge_now(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_tcp_quickack(true);
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn acknowledge_now(stream: &TcpStream) {
    let _ = SockRef::from(stream);
}

impl AsyncWrite for QuickAckStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn bytes_pass_unchanged_in_both_directions() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut peer = TcpStream::connect(address).await.unwrap();
        let mut stream = QuickAckStream::new(listener.accept().await.unwrap().0).unwrap();
        assert!(stream.0.nodelay().unwrap());
        let reading = tokio::spawn(async move {
            let mut received = [0; 4];
            stream.read_exact(&mut received).await.unwrap();
            stream.write_all(b"pong").await.unwrap();
            received
        });
        tokio::task::yield_now().await;
        peer.write_all(b"ping").await.unwrap();
        let mut answer = [0; 4];
        peer.read_exact(&mut answer).await.unwrap();
        assert_eq!((&reading.await.unwrap(), &answer), (b"ping", b"pong"));
    }
}
