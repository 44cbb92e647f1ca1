//! An association that we requested.

use std::future::Future;
use std::io;

use dicom_ul::association::Error as UlError;
use dicom_ul::association::client::{AsyncClientAssociation, ClientAssociationOptions};
use dicom_ul::pdu::{
    AssociationRJResult, PDataValueType, Pdu, PresentationContextNegotiated,
    PresentationContextResultReason,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{PATIENCE, ScuError, Target};
use crate::dicom::command::{Command, CommandField, DATA_SET_PRESENT, MAX_COMMAND_LENGTH};
use crate::dicom::{AeTitle, FileMeta, Status, VERIFICATION};

/// Maximum PDU length we offer. We receive responses only.
const MAX_PDU_LENGTH: u32 = 16_384;

/// Largest PDU we send, whatever the peer would take.
const LARGEST_SENT_PDU: u32 = 131_072;

/// PDU header and presentation data value header in front of a fragment (PS3.8 9.3.5).
const HEADERS: usize = 12;

/// An established association with the means to send requests and await their responses.
pub(super) struct Connection {
    association: AsyncClientAssociation<TcpStream>,
    /// Fragment buffer, reused for all PDUs.
    buffer: Vec<u8>,
    fragment_length: usize,
    last_message_id: u16,
}

impl Connection {
    /// Connects and proposes one presentation context per entry: abstract syntax, transfer
    /// syntaxes. At most 128 entries fit (PS3.8 9.3.2.2).
    pub(super) async fn establish(
        target: &Target,
        calling: &AeTitle,
        contexts: Vec<(&str, Vec<&str>)>,
    ) -> Result<Self, ScuError> {
        let mut options = ClientAssociationOptions::new()
            .calling_ae_title(calling.as_str().to_owned())
            .called_ae_title(target.ae_title.as_str().to_owned())
            .max_pdu_length(MAX_PDU_LENGTH)
            .connection_timeout(PATIENCE)
            .read_timeout(PATIENCE)
            .write_timeout(PATIENCE);
        for (abstract_syntax, transfer_syntaxes) in contexts {
            let transfer_syntaxes = transfer_syntaxes.into_iter().map(str::to_owned).collect();
            options =
                options.with_presentation_context(abstract_syntax.to_owned(), transfer_syntaxes);
        }
        let established = timeout(
            PATIENCE * 2,
            options.establish_async(target.address.as_str()),
        )
        .await;
        let mut association = match established {
            Err(_) => return Err(ScuError::TimedOut("association request")),
            Ok(Err(error)) => return Err(refused(target, error)),
            Ok(Ok(association)) => association,
        };
        // A command and a last short fragment must not wait for an acknowledgement.
        association.inner_stream().set_nodelay(true).map_err(lost)?;
        let fragment_length = fragment_length(association.acceptor_max_pdu_length());
        Ok(Self {
            association,
            buffer: Vec::new(),
            fragment_length,
            last_message_id: 0,
        })
    }

    /// The ID of the first accepted presentation context.
    pub(super) fn first_context(&self) -> Option<u8> {
        self.accepted().next().map(|context| context.id)
    }

    /// The accepted context for instances of a SOP class in a transfer syntax.
    pub(super) fn context_for(&self, meta: &FileMeta) -> Option<u8> {
        self.accepted()
            .find(|context| {
                context.abstract_syntax == meta.media_storage_sop_class.as_str()
                    && context.transfer_syntax.trim_end_matches(['\0', ' '])
                        == meta.transfer_syntax.as_str()
            })
            .map(|context| context.id)
    }

    fn accepted(&self) -> impl Iterator<Item = &PresentationContextNegotiated> {
        self.association
            .presentation_contexts()
            .iter()
            .filter(|context| context.reason == PresentationContextResultReason::Acceptance)
    }

    /// Performs C-ECHO.
    pub(super) async fn echo(&mut self, context: u8) -> Result<Status, ScuError> {
        let request = Command {
            message_id: Some(self.next_message_id()),
            affected_sop_class: Some(VERIFICATION.to_owned()),
            ..Command::new(CommandField::C_ECHO)
        };
        self.send_command(context, &request).await?;
        self.response(&request).await.map(|(status, _)| status)
    }

    /// Performs C-STORE with the `length` bytes of data set that `data_set` gives. Returns the
    /// status and the peer's comment.
    ///
    /// # Errors
    /// After an error the association is unusable: the peer may be in the middle of a data set.
    pub(super) async fn store(
        &mut self,
        context: u8,
        meta: &FileMeta,
        data_set: impl AsyncRead + Unpin,
        length: u64,
    ) -> Result<(Status, Option<String>), ScuError> {
        let request = Command {
            message_id: Some(self.next_message_id()),
            affected_sop_class: Some(meta.media_storage_sop_class.to_string()),
            affected_sop_instance: Some(meta.media_storage_sop_instance.to_string()),
            data_set_type: DATA_SET_PRESENT,
            priority: Some(0),
            ..Command::new(CommandField::C_STORE)
        };
        self.send_command(context, &request).await?;
        self.send_data_set(context, data_set, length).await?;
        self.response(&request).await
    }

    /// Releases the association. The answers are in already, so a peer that does not confirm in
    /// time changes nothing.
    pub(super) async fn release(mut self) {
        if !matches!(timeout(PATIENCE, self.take_leave()).await, Ok(Ok(()))) {
            self.abort().await;
        }
    }

    /// Sends A-RELEASE-RQ and waits for its answer (Sta7 of PS3.8 9.2). dicom-ul's own takes a peer
    /// that asks at the same time for one that breaks the protocol.
    async fn take_leave(&mut self) -> Result<(), ScuError> {
        self.association.send(&Pdu::ReleaseRQ).await.map_err(lost)?;
        loop {
            match self.association.receive().await.map_err(lost)? {
                Pdu::ReleaseRP | Pdu::AbortRQ { .. } => return Ok(()),
                // A collision: the requestor answers first (AR-9), and goes on waiting (Sta11).
                Pdu::ReleaseRQ => self.association.send(&Pdu::ReleaseRP).await.map_err(lost)?,
                // What was on its way (AR-6).
                Pdu::PData { .. } => {}
                // Anything else breaks the protocol (AA-8).
                _ => return Err(ScuError::UnexpectedAnswer("PDU of another type")),
            }
        }
    }

    /// Aborts the association.
    pub(super) async fn abort(self) {
        let _ = timeout(PATIENCE, self.association.abort()).await;
    }

    fn next_message_id(&mut self) -> u16 {
        self.last_message_id = self.last_message_id.wrapping_add(1);
        self.last_message_id
    }

    async fn send_command(&mut self, context: u8, command: &Command) -> Result<(), ScuError> {
        let bytes = command.encode();
        let mut fragments = bytes.chunks(self.fragment_length).peekable();
        while let Some(fragment) = fragments.next() {
            self.buffer.clear();
            self.buffer.resize(HEADERS, 0);
            self.buffer.extend_from_slice(fragment);
            let control = if fragments.peek().is_some() { 1 } else { 3 };
            put_headers(&mut self.buffer, context, control);
            write(self.association.inner_stream(), &self.buffer).await?;
        }
        Ok(())
    }

    async fn send_data_set(
        &mut self,
        context: u8,
        mut data_set: impl AsyncRead + Unpin,
        length: u64,
    ) -> Result<(), ScuError> {
        let mut rest = length;
        loop {
            let now = rest.min(u64::try_from(self.fragment_length).unwrap_or(u64::MAX));
            rest -= now;
            self.buffer
                .resize(HEADERS + usize::try_from(now).unwrap_or(0), 0);
            let fragment = self.buffer.get_mut(HEADERS..).unwrap_or_default();
            data_set.read_exact(fragment).await.map_err(lost)?;
            put_headers(&mut self.buffer, context, if rest == 0 { 2 } else { 0 });
            write(self.association.inner_stream(), &self.buffer).await?;
            if rest == 0 {
                return Ok(());
            }
        }
    }

    /// Waits for the response to `request`.
    async fn response(&mut self, request: &Command) -> Result<(Status, Option<String>), ScuError> {
        let mut bytes = Vec::new();
        loop {
            acknowledge_now(self.association.inner_stream());
            let received = within("response", self.association.receive()).await?;
            let values = match received.map_err(lost)? {
                Pdu::PData { data } => data,
                Pdu::AbortRQ { .. } => return Err(lost(io::Error::other("peer aborted"))),
                _ => return Err(ScuError::UnexpectedAnswer("PDU of another type")),
            };
            for value in values {
                if value.value_type != PDataValueType::Command {
                    return Err(ScuError::UnexpectedAnswer("data set"));
                }
                bytes.extend_from_slice(&value.data);
                if bytes.len() > MAX_COMMAND_LENGTH {
                    return Err(ScuError::UnexpectedAnswer("command set is too long"));
                }
                if !value.is_last {
                    continue;
                }
                let response = Command::decode(&bytes)
                    .map_err(|_| ScuError::UnexpectedAnswer("command set cannot be read"))?;
                if response.field != request.field.response()
                    || response.responded_to != request.message_id
                {
                    return Err(ScuError::UnexpectedAnswer("response to another request"));
                }
                let status = response
                    .status
                    .ok_or(ScuError::UnexpectedAnswer("no status"))?;
                return Ok((status, response.error_comment));
            }
        }
    }
}

/// Bytes of a message per PDU: what the peer takes, within reason, and even (PS3.8 Annex E.2).
fn fragment_length(peer_max_pdu_length: u32) -> usize {
    let pdu = usize::try_from(peer_max_pdu_length.min(LARGEST_SENT_PDU)).unwrap_or(0);
    (pdu.saturating_sub(6) & !1).max(2)
}

/// Fills in the headers of a P-DATA-TF PDU with one presentation data value, for which the first
/// twelve bytes of `pdu` are left free.
fn put_headers(pdu: &mut [u8], context: u8, control: u8) {
    let length = u32::try_from(pdu.len().saturating_sub(6)).unwrap_or(u32::MAX);
    if let Some(headers) = pdu.first_chunk_mut::<HEADERS>() {
        let [a, b, c, d] = length.to_be_bytes();
        let [e, f, g, h] = length.saturating_sub(4).to_be_bytes();
        *headers = [0x04, 0, a, b, c, d, e, f, g, h, context, control];
    }
}

/// A peer with Nagle's algorithm on sends the body of its response only when the header of it is
/// acknowledged, which the kernel puts off by 40 ms unless told otherwise. It forgets, so it is
/// told before each response.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn acknowledge_now(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_tcp_quickack(true);
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn acknowledge_now(_: &TcpStream) {}

async fn write(stream: &mut TcpStream, bytes: &[u8]) -> Result<(), ScuError> {
    within("taking data", stream.write_all(bytes))
        .await?
        .map_err(lost)
}

async fn within<T>(what: &'static str, future: impl Future<Output = T>) -> Result<T, ScuError> {
    timeout(PATIENCE, future)
        .await
        .map_err(|_| ScuError::TimedOut(what))
}

fn lost(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ScuError {
    ScuError::Lost(error.into())
}

fn refused(target: &Target, error: UlError) -> ScuError {
    let target = target.to_string();
    match error {
        UlError::Rejected { association_rj, .. } => ScuError::Rejected {
            target,
            permanence: match association_rj.result {
                AssociationRJResult::Permanent => "permanent",
                AssociationRJResult::Transient => "transient",
            },
            reason: association_rj.source.to_string(),
        },
        UlError::NoAcceptedPresentationContexts { .. } => ScuError::NothingAccepted(target),
        other => ScuError::Establish {
            target,
            source: Box::new(other),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_are_even_and_fit_the_peers_maximum() {
        for (peer, length) in [
            (16_384, 16_378),
            (16_383, 16_376),
            (131_072, 131_066),
            (u32::MAX - 7, 131_066),
            (0, 2),
        ] {
            assert_eq!(fragment_length(peer), length);
        }
    }

    #[test]
    fn the_headers_count_what_follows_them() {
        let mut pdu = vec![0xff; HEADERS + 4];
        put_headers(&mut pdu, 5, 2);
        assert_eq!(pdu[..HEADERS], [4, 0, 0, 0, 0, 10, 0, 0, 0, 6, 5, 2]);
        assert_eq!(pdu[HEADERS..], [0xff; 4]);
    }
}
