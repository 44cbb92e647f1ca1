//! A byte stream on which every wait for the peer has a deadline.
//!
//! There are three kinds of waiting ([`Clock`]): for an association request, for the next message,
//! and for the rest of a message. Within a message the deadline moves only when a kilobyte has
//! come, so a peer that trickles single bytes cannot hold an association.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::interruption::Interruption;

/// Bytes asked from the kernel at a time; more than the largest PDU of common senders.
const READ_LENGTH: usize = 256 * 1024;

/// Bytes that must arrive within one `patience` while a message is coming in.
const MIN_PROGRESS: usize = 1024;

/// How long the end of what we send may take: the close_notify of TLS is a few bytes.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Which deadline the next wait for the peer has.
#[derive(Debug, Clone, Copy)]
enum Clock {
    /// A fixed point in time: association request, waiting for the connection to close.
    Fixed,
    /// Between messages; becomes [`Clock::Message`] with the first byte.
    Idle,
    /// Within a message: moves on when enough bytes came since it was set.
    Message {
        /// Bytes since the deadline was set.
        progress: usize,
    },
}

/// A stream with a receive buffer and a clock.
#[derive(Debug)]
pub(super) struct TimedStream<S> {
    stream: S,
    received: BytesMut,
    /// How long the peer may take for its next kilobyte, and to take something from us.
    patience: Duration,
    clock: Clock,
    deadline: Instant,
}

impl<S: AsyncRead + AsyncWrite + Unpin> TimedStream<S> {
    /// Starts with a fixed `deadline`, which holds until the first [`Self::wait`].
    pub(super) fn new(stream: S, patience: Duration, deadline: Instant) -> Self {
        Self {
            stream,
            received: BytesMut::new(),
            patience,
            clock: Clock::Fixed,
            deadline,
        }
    }

    /// Bytes that are here and not consumed.
    pub(super) fn received(&self) -> &[u8] {
        &self.received
    }

    /// Removes bytes from the front of [`Self::received`], at most as many as there are.
    pub(super) fn consume(&mut self, count: usize) {
        self.received.advance(count.min(self.received.len()));
    }

    /// Waits until at least one byte of the next message is here. Cancelling the wait loses
    /// nothing.
    pub(super) async fn wait(&mut self, longest: Duration) -> Result<(), Interruption> {
        if !self.received.is_empty() {
            self.start_message();
            return Ok(());
        }
        self.clock = Clock::Idle;
        self.deadline = Instant::now() + longest;
        self.fill()
            .await
            .map_err(|interruption| match interruption {
                Interruption::Truncated => Interruption::Closed,
                other => other,
            })
    }

    /// Gives the peer its full time for the next kilobyte. Also called when the wait was ours, for
    /// a slow disk, which must not count against the peer.
    pub(super) fn start_message(&mut self) {
        self.clock = Clock::Message { progress: 0 };
        self.deadline = Instant::now() + self.patience;
    }

    /// Reads exactly `count` bytes. The buffer grows with what arrives, not with `count`.
    pub(super) async fn take(&mut self, count: usize) -> Result<BytesMut, Interruption> {
        while self.received.len() < count {
            self.fill().await?;
        }
        Ok(self.received.split_to(count))
    }

    /// Receives more bytes, whatever the kernel has. Cancel-safe. The end of the stream is
    /// [`Interruption::Truncated`].
    pub(super) async fn fill(&mut self) -> Result<(), Interruption> {
        if self.received.capacity() - self.received.len() < READ_LENGTH / 2 {
            self.received.reserve(READ_LENGTH);
        }
        let reading = self.stream.read_buf(&mut self.received);
        let count = match timeout_at(self.deadline, reading).await {
            Ok(Ok(0)) => return Err(Interruption::Truncated),
            Ok(Ok(count)) => count,
            // A peer that closes without the close_notify of TLS, as DCMTK does. Whether a message was
            // cut off is for DICOM to see: its PDUs say how long they are.
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(Interruption::Truncated);
            }
            Ok(Err(error)) => return Err(Interruption::Io(error)),
            Err(_) => {
                return Err(Interruption::TimedOut(match self.clock {
                    Clock::Fixed => "association request",
                    Clock::Idle => "next message",
                    Clock::Message { .. } => "rest of a message",
                }));
            }
        };
        match &mut self.clock {
            Clock::Fixed => {}
            Clock::Idle => self.start_message(),
            Clock::Message { progress } => {
                *progress += count;
                if *progress >= MIN_PROGRESS {
                    self.start_message();
                }
            }
        }
        Ok(())
    }

    /// Sends bytes, which the peer must take in time.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), Interruption> {
        let sending = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        match timeout(self.patience, sending).await {
            Ok(result) => result.map_err(Interruption::Io),
            Err(_) => Err(Interruption::TimedOut("taking a response")),
        }
    }

    /// Ends what we send. A failure is the peer's absence, which the next read tells; what does not
    /// fit into the kernel's buffer at once is not waited for long.
    pub(super) async fn close_our_side(&mut self) {
        let _ = timeout(LAST_WORD.min(self.patience), self.stream.shutdown()).await;
    }

    /// Gives everything from now on one deadline that does not move.
    pub(super) fn set_deadline(&mut self, longest: Duration) {
        self.clock = Clock::Fixed;
        self.deadline = Instant::now() + longest;
        self.patience = longest;
    }

    /// Reads `count` bytes and throws them away.
    pub(super) async fn skip(&mut self, mut count: u64) -> Result<(), Interruption> {
        while count > 0 {
            if self.received.is_empty() {
                self.fill().await?;
            }
            let here = self.received.len();
            let now = usize::try_from(count).unwrap_or(usize::MAX).min(here);
            self.consume(now);
            count -= u64::try_from(now).unwrap_or(count);
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    fn stream(patience: Duration) -> (TimedStream<DuplexStream>, DuplexStream) {
        let (ours, peers) = duplex(1 << 20);
        (
            TimedStream::new(ours, patience, Instant::now() + patience),
            peers,
        )
    }

    #[tokio::test]
    async fn a_peer_that_trickles_bytes_runs_into_the_deadline() {
        let (mut ours, mut peers) = stream(Duration::from_millis(300));
        let trickle = tokio::spawn(async move {
            for _ in 0..1000 {
                if peers.write_all(&[0]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        let started = Instant::now();
        ours.wait(Duration::from_secs(5)).await.unwrap();
        let error = ours.take(1000).await.unwrap_err();
        assert!(
            matches!(error, Interruption::TimedOut("rest of a message")),
            "{error}"
        );
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "the bytes alone take ten seconds"
        );
        drop(ours);
        trickle.await.unwrap();
    }

    #[tokio::test]
    async fn a_peer_that_keeps_a_modest_pace_is_served_to_the_end() {
        let patience = Duration::from_millis(600);
        let (mut ours, mut peers) = stream(patience);
        let steady = tokio::spawn(async move {
            for _ in 0..8 {
                peers.write_all(&[7; 2000]).await.unwrap();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            peers
        });
        let started = Instant::now();
        ours.wait(Duration::from_secs(5)).await.unwrap();
        assert_eq!(ours.take(16000).await.unwrap().len(), 16000);
        assert!(started.elapsed() > patience, "the deadline must have moved");
        steady.await.unwrap();
    }

    #[tokio::test]
    async fn the_deadline_of_association_set_up_never_moves() {
        let (mut ours, mut peers) = stream(Duration::from_millis(200));
        let flood = tokio::spawn(async move {
            while peers.write_all(&[0; 2000]).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let error = ours.take(100 << 20).await.unwrap_err();
        assert!(
            matches!(error, Interruption::TimedOut("association request")),
            "{error}"
        );
        drop(ours);
        flood.await.unwrap();
    }

    #[tokio::test]
    async fn skipping_takes_exactly_what_it_was_told() {
        let (mut ours, mut peers) = stream(Duration::from_secs(5));
        let peer = tokio::spawn(async move {
            peers.write_all(&[0; 3 << 20]).await.unwrap();
            peers.write_all(b"rest").await.unwrap();
        });
        ours.skip(3 << 20).await.unwrap();
        assert_eq!(&ours.take(4).await.unwrap()[..], b"rest");
        peer.await.unwrap();
        assert!(matches!(ours.skip(1).await, Err(Interruption::Truncated)));
    }
}
