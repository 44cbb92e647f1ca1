//! After our last word: waiting for the peer to close the connection (Sta13 of PS3.8 9.2).

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::interruption::Interruption;
use super::pdu_stream::{A_ABORT, A_ASSOCIATE_RQ, PduStream};

/// Most bytes read and thrown away.
const MAX_LINGER: u64 = 64 << 20;

/// How often a peer that goes on after our last word is told again that it is over.
const MAX_LAST_WORDS: usize = 16;

/// Waits for `longest` at most. PDUs that were on their way are ignored (AA-6); an A-ABORT ends the
/// wait (AA-2); an association request or what is no PDU is answered with another A-ABORT (AA-7).
/// Reading on is necessary: closing a connection with unread bytes resets it and may take our last
/// word away from the peer.
pub(super) async fn linger<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut PduStream<S>,
    longest: Duration,
) {
    stream.set_deadline(longest);
    let mut allowed = MAX_LINGER;
    let mut last_words = 0;
    while allowed > 0 {
        let Ok(skipped) = stream.skip_pdu(allowed).await else {
            return;
        };
        allowed -= skipped;
        let owed = match stream.pdu_header().await {
            Ok(A_ABORT) => return,
            Ok(kind @ A_ASSOCIATE_RQ) => Interruption::UnexpectedPdu(kind).abort(),
            Ok(_) => None,
            Err(interruption) if interruption.violation().is_some() => interruption.abort(),
            Err(_) => return,
        };
        if let Some((source, reason)) = owed
            && last_words < MAX_LAST_WORDS
        {
            last_words += 1;
            if stream.send_abort(source, reason).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::Instant;

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
        let length = u32::try_from(fragment.len() + 2).unwrap().to_be_bytes();
        [&length[..], &[context, control], fragment].concat()
    }

    /// What a peer hears that sends this after our last word, with how the wait ended before it.
    async fn last_words(bytes: &[u8]) -> Vec<u8> {
        let (mut ours, mut peers) = stream(16384);
        let bytes = bytes.to_vec();
        let peer = tokio::spawn(async move {
            peers.write_all(&bytes).await.unwrap();
            peers.shutdown().await.unwrap();
            let mut heard = Vec::new();
            peers.read_to_end(&mut heard).await.unwrap();
            heard
        });
        linger(&mut ours, PATIENCE).await;
        drop(ours);
        peer.await.unwrap()
    }

    #[tokio::test]
    async fn after_the_last_word_only_an_association_request_and_nonsense_are_answered() {
        let ignored = [
            pdu(0x02, &[0; 90]),
            pdu(0x03, &[0; 4]),
            pdu(0x04, &pdv(1, 3, &[7; 3000])),
            pdu(0x05, &[0; 4]),
            pdu(0x06, &[0; 4]),
        ]
        .concat();
        assert!(last_words(&ignored).await.is_empty());
        let abort = |reason| pdu(0x07, &[0, 0, 2, reason]);
        for (pdu, reason) in [
            (pdu(0x01, &[0; 90]), 2),
            (pdu(0x08, &[0; 90]), 1),
            (pdu(0x05, &[0; 5]), 6),
        ] {
            let bytes = [&ignored[..], &pdu, &ignored, &pdu].concat();
            assert_eq!(last_words(&bytes).await, abort(reason).repeat(2));
            // What is aborted in turn ends the wait: the peer hears no more.
            let bytes = [&super::tests::pdu(0x07, &[0; 4])[..], &pdu].concat();
            assert!(last_words(&bytes).await.is_empty());
        }
        let endless = pdu(0x08, &[]).repeat(1000);
        assert_eq!(last_words(&endless).await, abort(1).repeat(MAX_LAST_WORDS));
    }

    #[tokio::test]
    async fn a_pdu_that_was_given_up_is_read_to_its_end_before_the_next() {
        for (given_up, next) in [
            (
                pdu(
                    0x04,
                    &[pdv(1, 3, &[1; 500]), vec![0, 0, 0, 0, 0, 0, 9, 9]].concat(),
                ),
                0,
            ),
            (pdu(0x99, &[0x01; 700]), 0),
            (pdu(0x05, &[0x01; 9]), 0),
            (pdu(0x02, &[0x01; 900]), 1),
        ] {
            let (mut ours, mut peers) = stream(16384);
            let bytes = [&given_up[..], &pdu(0x01, &[9; 70]).repeat(next)].concat();
            peers.write_all(&bytes).await.unwrap();
            loop {
                if ours.next_pdv().await.is_err() {
                    break;
                }
            }
            peers.shutdown().await.unwrap();
            linger(&mut ours, PATIENCE).await;
            drop(ours);
            let mut heard = Vec::new();
            peers.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, pdu(0x07, &[0, 0, 2, 2]).repeat(next), "{given_up:?}");
        }
    }
}
