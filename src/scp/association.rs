//! One association from its acceptance to its end: messages come in, each gets its response.
//!
//! Messages are answered one after the other, also those that a requestor with an asynchronous
//! operations window sends ahead, so a slow disk slows the sender down instead of filling memory.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::Shared;
use super::commitment::Reports;
use super::config::Config;
use super::deliveries::Delivery;
use super::interruption::Interruption;
use super::negotiation::{Context, Titles};
use super::pdu_stream::{PduStream, Pdv};
use crate::dicom::command::{Command, CommandField, MAX_COMMAND_LENGTH};
use crate::dicom::sop_class::Kind;
use crate::dicom::{Status, Uid};

/// How long a peer may be silent once we drain. A sender that just got its last response releases
/// within this time and never notices the shutdown; one that goes on sending gets a status that says
/// to try again, and releases then.
const FAREWELL: Duration = Duration::from_secs(2);

/// Longest data set that is read into memory: a list of some 60,000 instances.
const MAX_MESSAGE_LENGTH: usize = 8 << 20;

/// What an association did, for the one log line at its end.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) stored: u64,
    pub(super) refused: u64,
    pub(super) echoes: u64,
    pub(super) bytes: u64,
}

/// An established association.
pub(super) struct Association<'a, S> {
    pub(super) stream: &'a mut PduStream<S>,
    pub(super) shared: &'a Shared,
    pub(super) config: &'a Config,
    pub(super) peer: IpAddr,
    pub(super) titles: &'a Titles,
    pub(super) contexts: &'a HashMap<u8, Context>,
    pub(super) peer_max_pdu_length: u32,
    /// Receive block kept between instances.
    pub(super) block: Option<Vec<u8>>,
    /// Storage Commitment reports that this association may carry.
    pub(super) reports: Reports,
    pub(super) tally: Tally,
    pub(super) delivery: Delivery,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Association<'_, S> {
    /// Serves messages until something ends the association, and says what.
    pub(super) async fn serve(&mut self) -> Interruption {
        loop {
            if let Err(interruption) = self.serve_message().await {
                return interruption;
            }
        }
    }

    async fn serve_message(&mut self) -> Result<(), Interruption> {
        let shared = self.shared;
        tokio::select! {
            biased;
            () = shared.draining.cancelled() => self.wait_while_draining().await?,
            waited = self.stream.wait_for_message(self.config.idle_timeout.get()) => waited?,
            outgoing = self.reports.next() => return self.send_report(outgoing).await,
        }
        let (id, request) = self.read_command().await?;
        let contexts = self.contexts;
        let context = contexts
            .get(&id)
            .ok_or(Interruption::PresentationContext(id))?;
        match request.field {
            CommandField::C_STORE if request.message_id.is_some() => {
                self.store(id, context, &request).await
            }
            CommandField::C_ECHO if request.message_id.is_some() => self.echo(id, &request).await,
            CommandField::N_ACTION
                if request.message_id.is_some() && context.kind == Kind::StorageCommitment =>
            {
                self.n_action(id, context, &request).await
            }
            CommandField::N_CREATE
                if request.message_id.is_some() && context.kind == Kind::ProcedureStep =>
            {
                self.n_create(id, context, &request).await
            }
            CommandField::N_SET
                if request.message_id.is_some() && context.kind == Kind::ProcedureStep =>
            {
                self.n_set(id, context, &request).await
            }
            field
                if field == CommandField::N_EVENT_REPORT.response()
                    && self.reports.answered(&request) =>
            {
                self.discard_if_present(id, &request).await
            }
            // There is nothing to cancel, and a C-CANCEL has no response (PS3.7 9.3.2.3).
            CommandField::C_CANCEL => self.discard_if_present(id, &request).await,
            field if field.has_response() && request.message_id.is_some() => {
                self.discard_if_present(id, &request).await?;
                let status = Status::UNRECOGNIZED_OPERATION;
                self.respond(id, &request, status, Some("operation not supported"))
                    .await
            }
            field => Err(Interruption::Unanswerable(field.0)),
        }
    }

    /// While draining, a release is confirmed, requests are answered (a C-STORE by "try later"), and
    /// silence ends in an abort.
    async fn wait_while_draining(&mut self) -> Result<(), Interruption> {
        match self.stream.wait_for_message(FAREWELL).await {
            Err(Interruption::TimedOut(_)) => Err(Interruption::Draining),
            waited => waited,
        }
    }

    /// Collects the fragments of a command set, which all have one presentation context.
    async fn read_command(&mut self) -> Result<(u8, Command), Interruption> {
        let mut bytes = Vec::new();
        let mut context = None;
        loop {
            let pdv = self.stream.next_pdv().await?;
            if !pdv.command {
                return Err(Interruption::FragmentKind);
            }
            let id = *context.get_or_insert(pdv.context);
            if id != pdv.context || !self.contexts.contains_key(&id) {
                return Err(Interruption::PresentationContext(pdv.context));
            }
            while self
                .stream
                .take_fragment(&mut bytes, MAX_COMMAND_LENGTH + 1)
                .await?
                > 0
            {}
            if bytes.len() > MAX_COMMAND_LENGTH {
                return Err(Interruption::CommandTooLong);
            }
            if pdv.last {
                return Ok((id, Command::decode(&bytes).map_err(Interruption::Command)?));
            }
        }
    }

    /// C-ECHO (PS3.4 Annex A). Answered on any accepted context, as senders exist that use the
    /// first one they have.
    async fn echo(&mut self, id: u8, request: &Command) -> Result<(), Interruption> {
        self.discard_if_present(id, request).await?;
        self.tally.echoes += 1;
        self.respond(id, request, Status::SUCCESS, None).await
    }

    /// Sends the response to a request. UIDs of the request are repeated only when they are UIDs.
    pub(super) async fn respond(
        &mut self,
        id: u8,
        request: &Command,
        status: Status,
        comment: Option<&'static str>,
    ) -> Result<(), Interruption> {
        self.respond_with(id, request, status, comment, None).await
    }

    /// [`Association::respond`] with an Error ID (0000,0903).
    pub(super) async fn respond_with(
        &mut self,
        id: u8,
        request: &Command,
        status: Status,
        comment: Option<&'static str>,
        error_id: Option<u16>,
    ) -> Result<(), Interruption> {
        let valid = |uid: &Option<String>| uid.clone().filter(|uid| Uid::parse(uid).is_ok());
        let response = Command {
            responded_to: request.message_id,
            // What a request names as requested is affected in its response (PS3.7 10.3).
            affected_sop_class: valid(&request.affected_sop_class)
                .or_else(|| valid(&request.requested_sop_class)),
            affected_sop_instance: valid(&request.affected_sop_instance)
                .or_else(|| valid(&request.requested_sop_instance)),
            status: Some(status),
            error_comment: comment.map(str::to_owned),
            error_id,
            ..Command::new(request.field.response())
        };
        let command = match request.field {
            CommandField::C_STORE => "c-store",
            CommandField::C_ECHO => "c-echo",
            CommandField::N_ACTION => "n-action",
            CommandField::N_CREATE => "n-create",
            CommandField::N_SET => "n-set",
            _ => "other",
        };
        self.shared
            .metrics
            .dimse_requests_total
            .with_label_values(&[command, &status.to_string()])
            .inc();
        self.send_command(id, &response).await
    }

    /// Sends a command set without a data set.
    pub(super) async fn send_command(
        &mut self,
        id: u8,
        command: &Command,
    ) -> Result<(), Interruption> {
        self.stream
            .send_command(id, &command.encode(), self.peer_max_pdu_length)
            .await
    }

    /// The next fragment of the data set that belongs to the command on context `id`.
    pub(super) async fn next_data_pdv(&mut self, id: u8) -> Result<Pdv, Interruption> {
        let pdv = self.stream.next_pdv().await?;
        if pdv.command {
            return Err(Interruption::FragmentKind);
        }
        if pdv.context != id {
            return Err(Interruption::PresentationContext(pdv.context));
        }
        Ok(pdv)
    }

    /// Reads a refused data set to its end, starting with the fragment `current` if one is being
    /// read. The peer would not see our response before it has sent everything.
    ///
    /// # Errors
    /// Also when the data set is longer than any we would have stored.
    pub(super) async fn discard_data_set(
        &mut self,
        id: u8,
        current: Option<Pdv>,
    ) -> Result<(), Interruption> {
        let mut allowed = self.config.max_instance_bytes.bytes();
        let mut pdv = match current {
            Some(pdv) => pdv,
            None => self.next_data_pdv(id).await?,
        };
        loop {
            loop {
                let count = u64::try_from(self.stream.skip_fragment().await?).unwrap_or(u64::MAX);
                if count == 0 {
                    break;
                }
                self.count_bytes(count);
                allowed = allowed
                    .checked_sub(count)
                    .ok_or(Interruption::EndlessDataSet)?;
            }
            if pdv.last {
                return Ok(());
            }
            pdv = self.next_data_pdv(id).await?;
        }
    }

    /// Reads the data set of a message that is not stored but understood, whole and into memory.
    /// `None`: it is longer than [`MAX_MESSAGE_LENGTH`], or there is none; it has been read to its end.
    pub(super) async fn read_data_set(
        &mut self,
        id: u8,
        request: &Command,
    ) -> Result<Option<Vec<u8>>, Interruption> {
        if !request.has_data_set() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        loop {
            let pdv = self.next_data_pdv(id).await?;
            loop {
                let count = self
                    .stream
                    .take_fragment(&mut bytes, MAX_MESSAGE_LENGTH + 1)
                    .await?;
                self.count_bytes(u64::try_from(count).unwrap_or(u64::MAX));
                if count == 0 {
                    break;
                }
            }
            if bytes.len() > MAX_MESSAGE_LENGTH {
                drop(bytes);
                self.discard_data_set(id, Some(pdv)).await?;
                return Ok(None);
            }
            if pdv.last {
                return Ok(Some(bytes));
            }
        }
    }

    pub(super) fn count_bytes(&mut self, count: u64) {
        self.tally.bytes += count;
        self.shared.metrics.received_bytes_total.inc_by(count);
    }

    async fn discard_if_present(&mut self, id: u8, request: &Command) -> Result<(), Interruption> {
        if request.has_data_set() {
            self.discard_data_set(id, None).await
        } else {
            Ok(())
        }
    }
}
