//! Storage Commitment Push Model as SCP (PS3.4 Annex J): the request is written down, then answered.
//!
//! The report goes out here while the association of its request is open: between two messages, one
//! at a time, as no asynchronous operations window is negotiated. A peer that does not answer it
//! keeps the association and gets the report on another one.

use std::collections::{BTreeSet, HashMap};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tracing::{debug, info, warn};

use super::association::Association;
use super::interruption::Interruption;
use super::negotiation::Context;
use crate::clock::Timestamp;
use crate::commitment::desk::{Outgoing, Window};
use crate::commitment::{CommitmentId, Recorded, Reference, Request};
use crate::dicom::command::{Command, CommandField, DATA_SET_PRESENT};
use crate::dicom::dataset::{DataSet, ReadLimits, read_data_set};
use crate::dicom::{
    STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, SopClassUid, SopInstanceUid, Status,
    StudyInstanceUid, Uid,
};
use dicom::dictionary_std::tags;

/// Action Type ID of "Request Storage Commitment" (PS3.4 J.3.2.1).
const REQUEST_STORAGE_COMMITMENT: u16 = 1;

/// Elements and items of the largest request that is read.
const MAX_ELEMENTS: u64 = 400_000;

/// A status that is no success, and our reason in words that hold nothing of the request.
type Refused = (Status, &'static str);

/// The reports that an association may carry.
#[derive(Debug, Default)]
pub(super) struct Reports {
    window: Option<Window>,
    /// The presentation context on which each request came.
    contexts: HashMap<CommitmentId, u8>,
    outstanding: Option<Outstanding>,
    last_message_id: u16,
}

#[derive(Debug)]
struct Outstanding {
    id: CommitmentId,
    message_id: u16,
    answer: oneshot::Sender<Status>,
}

impl Reports {
    /// The next report to send; waits for ever when there is none, and while one is not answered.
    /// Cancel-safe.
    pub(super) async fn next(&mut self) -> Outgoing {
        match &mut self.window {
            Some(window) if self.outstanding.is_none() => window.next().await,
            _ => std::future::pending().await,
        }
    }

    /// Takes the response to the report that was sent; false when this is none.
    pub(super) fn answered(&mut self, response: &Command) -> bool {
        let ours = |sent: &mut Outstanding| Some(sent.message_id) == response.responded_to;
        let Some(sent) = self.outstanding.take_if(ours) else {
            return false;
        };
        let status = response.status.unwrap_or(Status::PROCESSING_FAILURE);
        if status.is_stored() {
            self.contexts.remove(&sent.id);
            if let Some(window) = &mut self.window {
                window.forget(sent.id);
            }
        }
        // Whoever waited for it may have given up.
        let _ = sent.answer.send(status);
        true
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Association<'_, S> {
    /// Performs one N-ACTION on presentation context `id`.
    pub(super) async fn n_action(
        &mut self,
        id: u8,
        context: &Context,
        request: &Command,
    ) -> Result<(), Interruption> {
        let data_set = self.read_data_set(id, request).await?;
        let taken = match check(request, data_set.is_some()) {
            Ok(()) => self.take(id, context, data_set.unwrap_or_default()).await,
            Err(refused) => Err(refused),
        };
        let (status, comment) = match taken {
            Ok(()) => (Status::SUCCESS, None),
            Err((status, comment)) => (status, Some(comment)),
        };
        self.respond(id, request, status, comment).await
    }

    /// Writes the request down. From `Ok` on it is answered for, whatever happens to us.
    async fn take(&mut self, id: u8, context: &Context, data_set: Vec<u8>) -> Result<(), Refused> {
        let syntax = context.transfer_syntax.uid;
        let spool = self.shared.spool.clone();
        let read = spawn_blocking(move || {
            let (transaction, references) = read(&data_set, syntax)?;
            let here = references.iter();
            let here = here.filter_map(|reference| spool.instance(&reference.sop_instance));
            let studies: BTreeSet<StudyInstanceUid> =
                here.map(|entry| entry.study.clone()).collect();
            Ok((transaction, references, studies))
        });
        let (transaction, references, studies) = read
            .await
            .unwrap_or(Err((Status::PROCESSING_FAILURE, "internal error")))?;
        let services = &self.shared.services;
        let Some(store) = &services.commitments else {
            return Err((Status::SOP_CLASS_NOT_SUPPORTED, "not offered"));
        };
        let (calling, instances) = (&self.titles.calling, references.len());
        let request = Request {
            transaction,
            calling_ae: calling.clone(),
            called_ae: self.titles.called.clone(),
            peer: self.peer,
            references,
        };
        let recorded = match store.record(request, Timestamp::now()).await {
            Ok(recorded) => recorded,
            Err(error) => {
                warn!(%error, "storage commitment request not written down");
                return Err((Status::PROCESSING_FAILURE, "not recorded, try later"));
            }
        };
        let Some(row) = recorded.id() else {
            warn!(%calling, "storage commitment request refused, too many are open");
            return Err((Status::RESOURCE_LIMITATION, "too many requests, try later"));
        };
        info!(
            %calling, peer = %self.peer, instances,
            repeated = matches!(recorded, Recorded::Repeated(_)),
            "storage commitment requested"
        );
        let window = self
            .reports
            .window
            .get_or_insert_with(|| services.desk.window());
        self.reports.contexts.insert(row, id);
        window.register(row);
        for study in studies {
            // A full channel loses the hint, not the evidence.
            let _ = self.shared.wake.try_send(study);
        }
        Ok(())
    }

    /// Sends one N-EVENT-REPORT on the context of its request. Its response is a message like any
    /// other.
    pub(super) async fn send_report(&mut self, outgoing: Outgoing) -> Result<(), Interruption> {
        // Whoever wanted it sent has sent it elsewhere by now.
        if outgoing.answer.is_closed() {
            return Ok(());
        }
        let Some(&id) = self.reports.contexts.get(&outgoing.id) else {
            return Ok(());
        };
        let contexts = self.contexts;
        let information = contexts.get(&id).and_then(|context| {
            let syntax = context.transfer_syntax.uid;
            outgoing.information.event_information(syntax)
        });
        let Some(information) = information else {
            return Ok(());
        };
        self.reports.last_message_id = self.reports.last_message_id.wrapping_add(1);
        let message_id = self.reports.last_message_id;
        let command = Command {
            message_id: Some(message_id),
            affected_sop_class: Some(STORAGE_COMMITMENT.to_owned()),
            affected_sop_instance: Some(STORAGE_COMMITMENT_INSTANCE.to_owned()),
            event_type: Some(outgoing.event_type),
            data_set_type: DATA_SET_PRESENT,
            ..Command::new(CommandField::N_EVENT_REPORT)
        };
        debug!(
            event_type = outgoing.event_type,
            "storage commitment reported here"
        );
        self.reports.outstanding = Some(Outstanding {
            id: outgoing.id,
            message_id,
            answer: outgoing.answer,
        });
        self.send_command(id, &command).await?;
        self.stream
            .send_data_set(id, &information, self.peer_max_pdu_length)
            .await
    }
}

/// What the command must say before its data set is looked at (PS3.4 J.3.2, PS3.7 10.1.4).
fn check(request: &Command, has_data_set: bool) -> Result<(), Refused> {
    if request.requested_sop_class.as_deref() != Some(STORAGE_COMMITMENT) {
        return Err((Status::NO_SUCH_CLASS, "not Storage Commitment Push Model"));
    }
    if request.requested_sop_instance.as_deref() != Some(STORAGE_COMMITMENT_INSTANCE) {
        return Err((
            Status::NO_SUCH_INSTANCE,
            "not the well-known commitment instance",
        ));
    }
    if request.action_type != Some(REQUEST_STORAGE_COMMITMENT) {
        return Err((Status::NO_SUCH_ACTION, "action type is not 1"));
    }
    match (request.has_data_set(), has_data_set) {
        (true, true) => Ok(()),
        (true, false) => Err((Status::RESOURCE_LIMITATION, "list is too long")),
        (false, _) => Err((Status::INVALID_ARGUMENT, "no action information")),
    }
}

/// Reads the action information (PS3.4 Table J.3-1). Retrieve AE Title and the file-set attributes
/// have no meaning for a gateway that is no archive.
fn read(bytes: &[u8], transfer_syntax: &str) -> Result<(Uid, Vec<Reference>), Refused> {
    let refused = |why| (Status::INVALID_ARGUMENT, why);
    let limits = ReadLimits {
        max_elements: MAX_ELEMENTS,
        ..ReadLimits::default()
    };
    let data_set = read_data_set(bytes, transfer_syntax, &limits).map_err(|error| {
        if error.is_limit() {
            (Status::RESOURCE_LIMITATION, "list is too long")
        } else {
            refused("action information cannot be read")
        }
    })?;
    let transaction = data_set.uid(tags::TRANSACTION_UID);
    let transaction = transaction.ok_or(refused("no Transaction UID"))?;
    let transaction = Uid::parse(&transaction).map_err(|_| refused("Transaction UID is no UID"))?;
    let items = data_set.items(tags::REFERENCED_SOP_SEQUENCE);
    if items.is_empty() {
        return Err(refused("no Referenced SOP Sequence"));
    }
    let reference = |item: &DataSet| {
        let class = item.uid(tags::REFERENCED_SOP_CLASS_UID)?;
        let instance = item.uid(tags::REFERENCED_SOP_INSTANCE_UID)?;
        Some(Reference {
            sop_class: SopClassUid::parse(&class).ok()?,
            sop_instance: SopInstanceUid::parse(&instance).ok()?,
        })
    };
    let references: Option<Vec<Reference>> = items.iter().map(reference).collect();
    let references = references.ok_or(refused("a reference lacks a valid UID"))?;
    Ok((transaction, references))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::dicom::dataset::Writer;

    const IMPLICIT: &str = "1.2.840.10008.1.2";
    const CT: &str = "1.2.840.10008.5.1.4.1.1.2";

    fn action() -> Command {
        Command {
            message_id: Some(1),
            requested_sop_class: Some(STORAGE_COMMITMENT.into()),
            requested_sop_instance: Some(STORAGE_COMMITMENT_INSTANCE.into()),
            action_type: Some(1),
            data_set_type: DATA_SET_PRESENT,
            ..Command::new(CommandField::N_ACTION)
        }
    }

    #[test]
    fn a_command_that_asks_for_something_else_is_refused_by_its_first_mistake() {
        let refused = |change: fn(&mut Command), has_data_set| {
            let mut command = action();
            change(&mut command);
            check(&command, has_data_set)
                .err()
                .map(|(status, _)| status)
        };
        assert_eq!(refused(|_| {}, true), None);
        for (change, status) in [
            (
                (|c| c.requested_sop_class = None) as fn(&mut Command),
                Status::NO_SUCH_CLASS,
            ),
            (
                |c| c.requested_sop_class = Some(CT.into()),
                Status::NO_SUCH_CLASS,
            ),
            (
                |c| c.requested_sop_instance = Some("1.2".into()),
                Status::NO_SUCH_INSTANCE,
            ),
            (|c| c.action_type = Some(2), Status::NO_SUCH_ACTION),
            (|c| c.action_type = None, Status::NO_SUCH_ACTION),
        ] {
            assert_eq!(refused(change, true), Some(status));
        }
        assert_eq!(
            refused(|_| {}, false),
            Some(Status::RESOURCE_LIMITATION),
            "it was too long to be read"
        );
        let none = |c: &mut Command| c.data_set_type = crate::dicom::command::NO_DATA_SET;
        assert_eq!(refused(none, false), Some(Status::INVALID_ARGUMENT));
    }

    fn information(transaction: &str, references: &[(&str, &str)]) -> Vec<u8> {
        let mut writer = Writer::new(IMPLICIT).unwrap();
        writer.text(tags::TRANSACTION_UID, *b"UI", transaction);
        writer.sequence(
            tags::REFERENCED_SOP_SEQUENCE,
            references,
            |item, (class, instance)| {
                item.text(tags::REFERENCED_SOP_CLASS_UID, *b"UI", class)
                    .text(tags::REFERENCED_SOP_INSTANCE_UID, *b"UI", instance);
            },
        );
        writer.finish()
    }

    #[test]
    fn a_list_is_taken_as_it_is_repetitions_included() {
        let bytes = information("1.9", &[(CT, "1.1"), (CT, "1.2"), (CT, "1.1")]);
        let (transaction, references) = read(&bytes, IMPLICIT).unwrap();
        assert_eq!(transaction.as_str(), "1.9");
        let instances: Vec<_> = references.iter().map(|r| r.sop_instance.as_str()).collect();
        assert_eq!(instances, ["1.1", "1.2", "1.1"]);
    }

    #[test]
    fn a_list_with_a_hole_is_refused_whole() {
        for bytes in [
            information("", &[(CT, "1.1")]),
            information("../x", &[(CT, "1.1")]),
            information("1.9", &[]),
            information("1.9", &[(CT, "1.1"), (CT, "")]),
            information("1.9", &[("x", "1.1")]),
            b"\x08\0\x95\x11\xff\xff\0\0".to_vec(),
            Vec::new(),
        ] {
            let (status, _) = read(&bytes, IMPLICIT).unwrap_err();
            assert_eq!(status, Status::INVALID_ARGUMENT, "{bytes:?}");
        }
    }
}
