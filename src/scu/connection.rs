//! An association that we requested.

use std::collections::VecDeque;
use std::future::Future;
use std::io;

use dicom_ul::pdu::{
    AssociationRJResult, AssociationRQ, PDataValue, PDataValueType, Pdu,
    PresentationContextNegotiated, PresentationContextProposed, RequestorRoles, UserVariableItem,
};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::link::{Link, MAX_PDU_LENGTH, NoLink};
use super::{PATIENCE, ScuError, Target};
use crate::dicom::command::{Command, CommandField, DATA_SET_PRESENT, MAX_COMMAND_LENGTH};
use crate::dicom::{
    APPLICATION_CONTEXT_NAME, AeTitle, FileMeta, IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME, Status, VERIFICATION,
};

/// Largest PDU we send, whatever the peer would take.
const LARGEST_SENT_PDU: u32 = 131_072;

/// Longest data set of a response that we read: a match of a query.
const MAX_DATA_SET_LENGTH: usize = 64 * 1024;

/// PDU header and presentation data value header in front of a fragment (PS3.8 9.3.5).
const HEADERS: usize = 12;

/// An established association with the means to send requests and await their responses.
pub(super) struct Connection {
    association: Link,
    /// Fragment buffer, reused for all PDUs.
    buffer: Vec<u8>,
    fragment_length: usize,
    last_message_id: u16,
    /// Fragments that came in one PDU with those before them.
    received: VecDeque<PDataValue>,
}

impl Connection {
    /// Connects and proposes one presentation context per entry: abstract syntax, transfer
    /// syntaxes. At most 128 entries fit (PS3.8 9.3.2.2).
    pub(super) async fn establish(
        target: &Target,
        calling: &AeTitle,
        contexts: Vec<(&str, Vec<&str>)>,
    ) -> Result<Self, ScuError> {
        Self::associate(target, proposal(target, calling, contexts)).await
    }

    /// The same for one SOP class of which we are the provider: proposes the roles SCU=0, SCP=1
    /// (PS3.7 D.3.3.4). An acceptor that does not answer to them is taken to agree, as many that
    /// take the service are written that way; one that says no is not called upon.
    pub(super) async fn establish_as_provider(
        target: &Target,
        calling: &AeTitle,
        sop_class: &str,
        transfer_syntaxes: Vec<&str>,
    ) -> Result<Self, ScuError> {
        let mut request = proposal(target, calling, vec![(sop_class, transfer_syntaxes)]);
        let roles = RequestorRoles {
            scu: false,
            scp: true,
        };
        let roles = UserVariableItem::ScuScpRoleSelectionSubItem(sop_class.to_owned(), roles);
        request.user_variables.push(roles);
        let connection = Self::associate(target, request).await?;
        if refuses_provider(&connection.association.user_variables, sop_class) {
            connection.release().await;
            return Err(ScuError::RoleRefused(target.to_string()));
        }
        Ok(connection)
    }

    async fn associate(target: &Target, request: AssociationRQ) -> Result<Self, ScuError> {
        let established = timeout(PATIENCE * 2, Link::establish(target, request)).await;
        let association = match established {
            Err(_) => return Err(ScuError::TimedOut("association request")),
            Ok(Err(error)) => return Err(refused(target, error)),
            Ok(Ok(association)) => association,
        };
        let fragment_length = fragment_length(association.peer_max_pdu_length);
        Ok(Self {
            association,
            buffer: Vec::new(),
            fragment_length,
            last_message_id: 0,
            received: VecDeque::new(),
        })
    }

    /// The ID of the first accepted presentation context.
    pub(super) fn first_context(&self) -> Option<u8> {
        self.first_accepted().map(|(id, _)| id)
    }

    /// The first accepted presentation context: its ID and its transfer syntax.
    pub(super) fn first_accepted(&self) -> Option<(u8, String)> {
        self.accepted().next().map(|context| {
            let syntax = context.transfer_syntax.trim_end_matches(['\0', ' ']);
            (context.id, syntax.to_owned())
        })
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
        self.association.contexts.iter()
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

    /// Sends a request with a data set that is in memory; `message_id` and `data_set_type` are set
    /// here. Returns the request as sent, for [`Connection::answer`].
    pub(super) async fn request(
        &mut self,
        context: u8,
        mut request: Command,
        data_set: &[u8],
    ) -> Result<Command, ScuError> {
        request.message_id = Some(self.next_message_id());
        request.data_set_type = DATA_SET_PRESENT;
        self.send_command(context, &request).await?;
        let length = u64::try_from(data_set.len()).unwrap_or(u64::MAX);
        self.send_data_set(context, data_set, length).await?;
        Ok(request)
    }

    /// Performs a request with a data set that is in memory.
    ///
    /// # Errors
    /// After an error the association is unusable.
    pub(super) async fn perform(
        &mut self,
        context: u8,
        request: Command,
        data_set: &[u8],
    ) -> Result<Status, ScuError> {
        let request = self.request(context, request, data_set).await?;
        self.response(&request).await.map(|(status, _)| status)
    }

    /// Waits for the next response to `request`: its status, and its data set if it has one.
    pub(super) async fn answer(
        &mut self,
        request: &Command,
    ) -> Result<(Status, Option<Vec<u8>>), ScuError> {
        let response = self.next_response(request).await?;
        let status = status_of(&response)?;
        if !response.has_data_set() {
            return Ok((status, None));
        }
        let data_set = self.fragments(PDataValueType::Data, MAX_DATA_SET_LENGTH);
        Ok((status, Some(data_set.await?)))
    }

    /// Releases the association. The answers are in already, so a peer that does not confirm in
    /// time changes nothing.
    pub(super) async fn release(mut self) {
        match timeout(PATIENCE, self.take_leave()).await {
            Ok(Ok(())) => {
                let _ = timeout(PATIENCE, self.association.close()).await;
            }
            _ => self.abort().await,
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
    pub(super) async fn abort(mut self) {
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
            write(&mut self.association, &self.buffer).await?;
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
            write(&mut self.association, &self.buffer).await?;
            if rest == 0 {
                return Ok(());
            }
        }
    }

    /// Waits for the response to `request`, which has no data set.
    async fn response(&mut self, request: &Command) -> Result<(Status, Option<String>), ScuError> {
        let response = self.next_response(request).await?;
        if response.has_data_set() {
            return Err(ScuError::UnexpectedAnswer("data set"));
        }
        Ok((status_of(&response)?, response.error_comment))
    }

    async fn next_response(&mut self, request: &Command) -> Result<Command, ScuError> {
        let bytes = self
            .fragments(PDataValueType::Command, MAX_COMMAND_LENGTH)
            .await?;
        let response = Command::decode(&bytes)
            .map_err(|_| ScuError::UnexpectedAnswer("command set cannot be read"))?;
        if response.field != request.field.response() || response.responded_to != request.message_id
        {
            return Err(ScuError::UnexpectedAnswer("response to another request"));
        }
        Ok(response)
    }

    /// Collects the fragments of a command set or of a data set.
    async fn fragments(&mut self, kind: PDataValueType, most: usize) -> Result<Vec<u8>, ScuError> {
        let mut bytes = Vec::new();
        loop {
            let value = self.next_fragment().await?;
            if value.value_type != kind {
                let other = "data set where a command set belongs, or the other way round";
                return Err(ScuError::UnexpectedAnswer(other));
            }
            if bytes.len() + value.data.len() > most {
                return Err(ScuError::UnexpectedAnswer("message is too long"));
            }
            bytes.extend_from_slice(&value.data);
            if value.is_last {
                return Ok(bytes);
            }
        }
    }

    async fn next_fragment(&mut self) -> Result<PDataValue, ScuError> {
        loop {
            if let Some(value) = self.received.pop_front() {
                return Ok(value);
            }
            acknowledge_now(self.association.tcp());
            let received = within("response", self.association.receive()).await?;
            match received.map_err(lost)? {
                Pdu::PData { data } => self.received.extend(data),
                Pdu::AbortRQ { .. } => return Err(lost(io::Error::other("peer aborted"))),
                _ => return Err(ScuError::UnexpectedAnswer("PDU of another type")),
            }
        }
    }
}

fn status_of(response: &Command) -> Result<Status, ScuError> {
    let status = response.status;
    status.ok_or(ScuError::UnexpectedAnswer("no status"))
}

/// What we propose: one presentation context per entry. More than there are IDs are left out, and
/// their instances are told to be not accepted.
fn proposal(target: &Target, calling: &AeTitle, contexts: Vec<(&str, Vec<&str>)>) -> AssociationRQ {
    let ids = (1..=u8::MAX).step_by(2);
    let proposed = ids.zip(contexts).map(|(id, (class, syntaxes))| {
        let transfer_syntaxes = syntaxes.into_iter().map(str::to_owned).collect();
        PresentationContextProposed {
            id,
            abstract_syntax: class.to_owned(),
            transfer_syntaxes,
        }
    });
    AssociationRQ {
        protocol_version: 1,
        calling_ae_title: calling.as_str().to_owned(),
        called_ae_title: target.ae_title.as_str().to_owned(),
        application_context_name: APPLICATION_CONTEXT_NAME.to_owned(),
        presentation_contexts: proposed.collect(),
        user_variables: vec![
            UserVariableItem::MaxLength(MAX_PDU_LENGTH),
            UserVariableItem::ImplementationClassUID(IMPLEMENTATION_CLASS_UID.to_owned()),
            UserVariableItem::ImplementationVersionName(IMPLEMENTATION_VERSION_NAME.to_owned()),
        ],
    }
}

/// Whether the answer to our role selection says that we are not the provider.
fn refuses_provider(answers: &[UserVariableItem], sop_class: &str) -> bool {
    answers.iter().any(|item| match item {
        UserVariableItem::ScuScpRoleSelectionSubItem(uid, roles) => {
            uid.trim_end_matches(['\0', ' ']) == sop_class && !roles.scp
        }
        _ => false,
    })
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

async fn write(association: &mut Link, bytes: &[u8]) -> Result<(), ScuError> {
    within("taking data", association.write_all(bytes))
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

fn refused(target: &Target, error: NoLink) -> ScuError {
    let target = target.to_string();
    match error {
        NoLink::Rejected(rejection) => ScuError::Rejected {
            target,
            permanence: match rejection.result {
                AssociationRJResult::Permanent => "permanent",
                AssociationRJResult::Transient => "transient",
            },
            reason: rejection.source.to_string(),
        },
        NoLink::NothingAccepted => ScuError::NothingAccepted(target),
        NoLink::Failed(source) => ScuError::Establish { target, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dicom::STORAGE_COMMITMENT;

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
    fn only_an_explicit_no_keeps_us_from_being_the_provider() {
        let answer = |uid: &str, scp| {
            let roles = RequestorRoles { scu: false, scp };
            UserVariableItem::ScuScpRoleSelectionSubItem(uid.to_owned(), roles)
        };
        assert!(!refuses_provider(&[], STORAGE_COMMITMENT));
        for (item, refused) in [
            (answer(STORAGE_COMMITMENT, true), false),
            (answer(STORAGE_COMMITMENT, false), true),
            (answer("1.2.840.10008.1.20.1\0", false), true),
            (answer(VERIFICATION, false), false),
        ] {
            assert_eq!(refuses_provider(&[item], STORAGE_COMMITMENT), refused);
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
