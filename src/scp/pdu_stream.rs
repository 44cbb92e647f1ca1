//! The upper layer protocol on a byte stream: PDU headers and presentation data values.
//!
//! dicom-ul reads a P-DATA-TF PDU as a whole and, while it waits for the rest of one, believes any
//! length its header claims. Data sets are most of what we receive, so they are read here: the
//! fragments of a presentation data value are copied from the receive buffer straight into the
//! caller's block, and memory stays the same whatever a peer announces. The small PDUs of
//! association set-up still go through dicom-ul's types (see `acceptor.rs`).

use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::interruption::Interruption;
use super::timed_stream::TimedStream;

/// PDU types (PS3.8 9.3.1).
pub(super) const A_ASSOCIATE_RQ: u8 = 0x01;
const A_ASSOCIATE_AC: u8 = 0x02;
const A_ASSOCIATE_RJ: u8 = 0x03;
const P_DATA_TF: u8 = 0x04;
const A_RELEASE_RQ: u8 = 0x05;
const A_RELEASE_RP: u8 = 0x06;
pub(super) const A_ABORT: u8 = 0x07;

/// Longest A-ASSOCIATE-RQ we read: 128 contexts with 100 transfer syntaxes each need 400 KiB.
const MAX_REQUEST_LENGTH: u32 = 1 << 20;

/// Contents of the PDUs that have no variable part.
const FIXED_LENGTH: u32 = 4;

/// Type, reserved byte and length before every PDU's contents.
const PDU_HEADER: usize = 6;

/// Length, presentation context ID and message control header before every fragment (PS3.8
/// 9.3.5.1).
const PDV_HEADER: u32 = 6;

/// A presentation data value whose fragment has not been read yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pdv {
    /// Presentation context ID.
    pub(super) context: u8,
    /// A fragment of a command set, not of a data set.
    pub(super) command: bool,
    /// The last fragment of its command set or data set.
    pub(super) last: bool,
}

/// One end of an association's connection.
#[derive(Debug)]
pub(super) struct PduStream<S> {
    stream: TimedStream<S>,
    /// Longest P-DATA-TF the peer may send: what we offered.
    max_pdu_length: u32,
    /// Bytes of the current PDU after the current fragment.
    pdu_rest: u32,
    /// Bytes of the current fragment that nobody has taken yet.
    fragment_rest: u32,
}

impl<S: AsyncRead + AsyncWrite + Unpin> PduStream<S> {
    /// Starts before association set-up, all of which must be over at `deadline`. Within a message
    /// the peer has `pdu_timeout` for each kilobyte.
    pub(super) fn new(
        stream: S,
        max_pdu_length: u32,
        pdu_timeout: Duration,
        deadline: Instant,
    ) -> Self {
        let stream = TimedStream::new(stream, pdu_timeout, deadline);
        Self {
            stream,
            max_pdu_length,
            pdu_rest: 0,
            fragment_rest: 0,
        }
    }

    /// Waits until at least one byte of the next message is here. Cancelling the wait loses
    /// nothing.
    pub(super) async fn wait_for_message(&mut self, longest: Duration) -> Result<(), Interruption> {
        if self.pdu_rest > 0 {
            self.stream.start_message();
            return Ok(());
        }
        self.stream.wait(longest).await
    }

    /// Gives the peer its full time again after a wait that was ours.
    pub(super) fn restart_clock(&mut self) {
        self.stream.start_message();
    }

    /// Reads the header of the next presentation data value, starting the next PDU where needed.
    /// The fragment itself must then be taken with [`Self::take_fragment`] until nothing is left.
    pub(super) async fn next_pdv(&mut self) -> Result<Pdv, Interruption> {
        // A caller that left a fragment behind has decided not to want it.
        while self.fragment_rest > 0 {
            self.skip_fragment().await?;
        }
        while self.pdu_rest == 0 {
            match self.pdu_header().await? {
                P_DATA_TF => {}
                A_RELEASE_RQ => {
                    self.take_body(FIXED_LENGTH).await?;
                    return Err(Interruption::Released);
                }
                A_ABORT => return Err(Interruption::AbortedByPeer),
                kind => return Err(Interruption::UnexpectedPdu(kind)),
            }
        }
        let rest = self.pdu_rest;
        if rest < PDV_HEADER {
            return Err(Interruption::PdvLength(rest));
        }
        let mut header = self.take_body(PDV_HEADER).await?;
        let length = header.get_u32();
        let (context, control) = (header.get_u8(), header.get_u8());
        if length < 2 || length > rest - 4 {
            return Err(Interruption::PdvLength(length));
        }
        self.fragment_rest = length - 2;
        self.pdu_rest -= self.fragment_rest;
        Ok(Pdv {
            context,
            command: control & 1 != 0,
            last: control & 2 != 0,
        })
    }

    /// Appends bytes of the current fragment to `block`, at most as many as keep it within `limit`
    /// bytes, and says how many. Zero: the fragment is used up, or the block is full.
    pub(super) async fn take_fragment(
        &mut self,
        block: &mut Vec<u8>,
        limit: usize,
    ) -> Result<usize, Interruption> {
        let room = limit.saturating_sub(block.len());
        let wanted = room.min(usize::try_from(self.fragment_rest).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        if self.stream.received().is_empty() {
            self.stream.fill().await?;
        }
        let count = wanted.min(self.stream.received().len());
        block.extend_from_slice(self.stream.received().get(..count).unwrap_or_default());
        self.consume_fragment(count);
        Ok(count)
    }

    /// Throws bytes of the current fragment away and says how many; zero at its end.
    pub(super) async fn skip_fragment(&mut self) -> Result<usize, Interruption> {
        let wanted = usize::try_from(self.fragment_rest).unwrap_or(usize::MAX);
        if wanted == 0 {
            return Ok(0);
        }
        if self.stream.received().is_empty() {
            self.stream.fill().await?;
        }
        let count = wanted.min(self.stream.received().len());
        self.consume_fragment(count);
        Ok(count)
    }

    /// Reads the header of the next PDU and gives its type, whose contents are then to be taken.
    ///
    /// # Errors
    /// Also when there is no such type, or when its contents cannot have the length it announces.
    pub(super) async fn pdu_header(&mut self) -> Result<u8, Interruption> {
        let mut header =
            self.stream
                .take(PDU_HEADER)
                .await
                .map_err(|interruption| match interruption {
                    // Nothing of a PDU had come yet.
                    Interruption::Truncated if self.stream.received().is_empty() => {
                        Interruption::Closed
                    }
                    other => other,
                })?;
        let kind = header.get_u8();
        // The reserved byte is not tested (PS3.8 9.3.1).
        header.advance(1);
        let length = header.get_u32();
        self.pdu_rest = length;
        let fits = match kind {
            A_ASSOCIATE_RQ | A_ASSOCIATE_AC => length <= MAX_REQUEST_LENGTH,
            P_DATA_TF => (1..=self.max_pdu_length).contains(&length),
            A_ASSOCIATE_RJ | A_RELEASE_RQ | A_RELEASE_RP | A_ABORT => length == FIXED_LENGTH,
            _ => return Err(Interruption::UnrecognizedPdu(kind)),
        };
        if fits {
            Ok(kind)
        } else {
            Err(Interruption::PduLength { kind, length })
        }
    }

    /// Reads the contents of the current PDU, all that is left of them.
    pub(super) async fn contents(&mut self) -> Result<BytesMut, Interruption> {
        self.take_body(self.pdu_rest).await
    }

    /// Reads exactly `count` bytes of the current PDU, of which so many must be left.
    async fn take_body(&mut self, count: u32) -> Result<BytesMut, Interruption> {
        let bytes = self
            .stream
            .take(usize::try_from(count).unwrap_or(usize::MAX))
            .await?;
        self.pdu_rest = self.pdu_rest.saturating_sub(count);
        Ok(bytes)
    }

    /// Sends a command set in as many fragments as the peer's maximum PDU length asks for.
    pub(super) async fn send_command(
        &mut self,
        context: u8,
        command: &[u8],
        peer_max_pdu_length: u32,
    ) -> Result<(), Interruption> {
        self.send_fragments(context, 1, command, peer_max_pdu_length)
            .await
    }

    /// Likewise a data set that is in memory.
    pub(super) async fn send_data_set(
        &mut self,
        context: u8,
        data_set: &[u8],
        peer_max_pdu_length: u32,
    ) -> Result<(), Interruption> {
        self.send_fragments(context, 0, data_set, peer_max_pdu_length)
            .await
    }

    /// `control`: bit 0 of the message control header, command or data set.
    async fn send_fragments(
        &mut self,
        context: u8,
        control: u8,
        message: &[u8],
        peer_max_pdu_length: u32,
    ) -> Result<(), Interruption> {
        // Fragments have an even length (PS3.8 Annex E.2).
        let room = (peer_max_pdu_length.saturating_sub(PDV_HEADER) & !1).max(2);
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let mut bytes = Vec::with_capacity(message.len() + 2 * PDU_HEADER);
        let mut fragments = message.chunks(room).peekable();
        while let Some(fragment) = fragments.next() {
            let length = u32::try_from(fragment.len()).unwrap_or(u32::MAX);
            bytes.extend_from_slice(&[P_DATA_TF, 0]);
            bytes.extend_from_slice(&(length + 6).to_be_bytes());
            bytes.extend_from_slice(&(length + 2).to_be_bytes());
            let last = if fragments.peek().is_some() { 0 } else { 2 };
            bytes.extend_from_slice(&[context, control | last]);
            bytes.extend_from_slice(fragment);
        }
        self.send(&bytes).await
    }

    /// Sends bytes that are already a PDU. The peer has `pdu_timeout` to take them.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), Interruption> {
        self.stream.send(bytes).await
    }

    /// Sends A-RELEASE-RP (PS3.8 9.3.7).
    pub(super) async fn send_release_response(&mut self) -> Result<(), Interruption> {
        self.send(&[A_RELEASE_RP, 0, 0, 0, 0, 4, 0, 0, 0, 0]).await
    }

    /// Sends A-ABORT (PS3.8 9.3.8).
    pub(super) async fn send_abort(&mut self, source: u8, reason: u8) -> Result<(), Interruption> {
        self.send(&[A_ABORT, 0, 0, 0, 0, 4, 0, 0, source, reason])
            .await
    }

    /// Whether the header that was read announced more than any PDU has before an association.
    pub(super) fn is_beyond_reason(&self) -> bool {
        self.pdu_rest > MAX_REQUEST_LENGTH
    }

    /// Ends what we send, so that whoever waits for the end of it sees it.
    pub(super) async fn close_our_side(&mut self) {
        self.stream.close_our_side().await;
    }

    /// Gives everything from now on one deadline that does not move.
    pub(super) fn set_deadline(&mut self, longest: Duration) {
        self.stream.set_deadline(longest);
    }

    /// Throws away what is left of the current PDU, at most `most` bytes, and says how many.
    pub(super) async fn skip_pdu(&mut self, most: u64) -> Result<u64, Interruption> {
        let rest = u64::from(self.pdu_rest) + u64::from(self.fragment_rest);
        (self.pdu_rest, self.fragment_rest) = (0, 0);
        let count = rest.min(most);
        self.stream.skip(count).await?;
        Ok(count)
    }

    fn consume_fragment(&mut self, count: usize) {
        self.stream.consume(count);
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.fragment_rest = self.fragment_rest.saturating_sub(count);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn stream(max_pdu_length: u32) -> (PduStream<DuplexStream>, DuplexStream) {
        let (ours, peers) = duplex(1 << 20);
        (
            PduStream::new(ours, max_pdu_length, PATIENCE, Instant::now() + PATIENCE),
            peers,
        )
    }

    fn pdu(kind: u8, contents: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind, 0];
        bytes.extend(u32::try_from(contents.len()).unwrap().to_be_bytes());
        bytes.extend(contents);
        bytes
    }

    fn pdv(context: u8, control: u8, fragment: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(fragment.len() + 2)
            .unwrap()
            .to_be_bytes()
            .to_vec();
        bytes.extend([context, control]);
        bytes.extend(fragment);
        bytes
    }

    /// Reads one message of fragments and gives its bytes and PDVs.
    async fn collect(
        ours: &mut PduStream<DuplexStream>,
    ) -> Result<(Vec<u8>, Vec<Pdv>), Interruption> {
        let (mut block, mut headers) = (Vec::new(), Vec::new());
        loop {
            let header = ours.next_pdv().await?;
            headers.push(header);
            while ours.take_fragment(&mut block, 1 << 20).await? > 0 {}
            if header.last {
                return Ok((block, headers));
            }
        }
    }

    #[tokio::test]
    async fn several_values_in_one_pdu_and_an_empty_last_fragment_are_read() {
        let (mut ours, mut peers) = stream(16384);
        let contents = [pdv(1, 0, b"ab"), pdv(1, 0, b"c"), pdv(1, 2, b"")].concat();
        peers.write_all(&pdu(P_DATA_TF, &contents)).await.unwrap();
        let (bytes, headers) = collect(&mut ours).await.unwrap();
        assert_eq!(bytes, b"abc");
        assert_eq!(headers.len(), 3);
        assert_eq!(
            headers[2],
            Pdv {
                context: 1,
                command: false,
                last: true
            }
        );
    }

    #[tokio::test]
    async fn bytes_that_arrive_one_by_one_are_put_together() {
        let (mut ours, mut peers) = stream(16384);
        let bytes = [
            pdu(P_DATA_TF, &pdv(3, 1, b"x")),
            pdu(P_DATA_TF, &pdv(3, 3, b"y")),
        ]
        .concat();
        let writing = tokio::spawn(async move {
            for byte in bytes {
                peers.write_all(&[byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
            peers
        });
        let (bytes, headers) = collect(&mut ours).await.unwrap();
        assert_eq!((bytes.as_slice(), headers.len()), (&b"xy"[..], 2));
        assert!(headers[0].command && !headers[0].last);
        writing.await.unwrap();
    }

    #[tokio::test]
    async fn a_block_is_never_filled_beyond_its_limit() {
        let (mut ours, mut peers) = stream(16384);
        peers
            .write_all(&pdu(P_DATA_TF, &pdv(1, 2, &[7; 100])))
            .await
            .unwrap();
        ours.next_pdv().await.unwrap();
        let mut block = Vec::new();
        assert_eq!(ours.take_fragment(&mut block, 60).await.unwrap(), 60);
        assert_eq!(ours.take_fragment(&mut block, 60).await.unwrap(), 0);
        block.clear();
        assert_eq!(ours.take_fragment(&mut block, 60).await.unwrap(), 40);
    }

    #[tokio::test]
    async fn lengths_that_lie_are_refused_from_the_header_alone() {
        let cases: [(Vec<u8>, &str); 9] = [
            (vec![P_DATA_TF, 0, 0xff, 0xff, 0xff, 0xff], "pdu-length"),
            (vec![P_DATA_TF, 0, 0, 0, 0x40, 1], "pdu-length"),
            (pdu(P_DATA_TF, &[]), "pdu-length"),
            (pdu(P_DATA_TF, &[0, 0, 0]), "pdv-length"),
            (pdu(P_DATA_TF, &[0, 0, 0, 1, 1, 3]), "pdv-length"),
            (pdu(P_DATA_TF, &[0, 0, 0, 3, 1, 3]), "pdv-length"),
            (vec![A_RELEASE_RQ, 0, 0, 0, 0, 5], "pdu-length"),
            (vec![A_ABORT, 0, 0, 0, 0, 3], "pdu-length"),
            (vec![A_ASSOCIATE_RQ, 0, 0, 0x10, 0, 1], "pdu-length"),
        ];
        for (bytes, kind) in cases {
            let (mut ours, mut peers) = stream(16384);
            peers.write_all(&bytes).await.unwrap();
            assert_eq!(
                ours.next_pdv().await.unwrap_err().violation(),
                Some(kind),
                "{bytes:?}"
            );
        }
    }

    #[tokio::test]
    async fn pdus_that_do_not_belong_here_are_named() {
        for (kind, violation) in [
            (A_ASSOCIATE_RQ, "unexpected-pdu"),
            (A_RELEASE_RP, "unexpected-pdu"),
            (b'G', "unrecognized-pdu"),
            (0, "unrecognized-pdu"),
        ] {
            let (mut ours, mut peers) = stream(16384);
            peers.write_all(&[kind, 0, 0, 0, 0, 4]).await.unwrap();
            assert_eq!(
                ours.next_pdv().await.unwrap_err().violation(),
                Some(violation)
            );
        }
    }

    #[tokio::test]
    async fn the_orderly_ends_are_told_apart_from_a_cut() {
        let (mut ours, mut peers) = stream(16384);
        peers.write_all(&pdu(A_RELEASE_RQ, &[0; 4])).await.unwrap();
        assert!(matches!(ours.next_pdv().await, Err(Interruption::Released)));
        peers.write_all(&pdu(A_ABORT, &[0; 4])).await.unwrap();
        assert!(matches!(
            ours.next_pdv().await,
            Err(Interruption::AbortedByPeer)
        ));
        drop(peers);
        let (mut ours, mut peers) = stream(16384);
        peers.write_all(&[P_DATA_TF, 0]).await.unwrap();
        drop(peers);
        assert!(matches!(
            ours.next_pdv().await,
            Err(Interruption::Truncated)
        ));
        let (mut ours, peers) = stream(16384);
        drop(peers);
        assert!(matches!(ours.next_pdv().await, Err(Interruption::Closed)));
    }

    #[tokio::test]
    async fn a_response_is_cut_to_the_peers_maximum() {
        let (mut ours, peers) = stream(16384);
        ours.send_command(5, &[9; 25], 16).await.unwrap();
        let mut other = PduStream::new(peers, 16, PATIENCE, Instant::now() + PATIENCE);
        let (bytes, headers) = collect(&mut other).await.unwrap();
        assert_eq!((bytes.len(), headers.len()), (25, 3));
        assert!(
            headers
                .iter()
                .all(|header| header.command && header.context == 5)
        );
    }
}
