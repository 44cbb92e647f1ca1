//! C-STORE (PS3.4 Annex B, PS3.7 9.1.1): a data set goes into the spool, a status comes back.
//!
//! Success is a promise: many modalities delete their copy on it. It is sent after the spool has
//! made the instance durable, never before. A refusal never costs the association: the rest of the
//! data set is read and thrown away, then the status says why.

use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};
use tracing::{debug, warn};

use super::association::Association;
use super::interruption::Interruption;
use super::negotiation::Context;
use super::pdu_stream::Pdv;
use super::senders;
use super::writer::{BLOCK_LENGTH, WriteError, Writer};
use crate::clock::Timestamp;
use crate::dicom::command::Command;
use crate::dicom::sop_class::Kind;
use crate::dicom::{SopInstanceUid, Status, TransferSyntaxUid};
use crate::spool::{Arrival, SpoolError, Stored};

/// Why an instance is not stored, in the words the peer gets. The comment names our reason, never
/// anything from the data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Refusal {
    status: Status,
    comment: &'static str,
}

const fn refusal(status: Status, comment: &'static str) -> Refusal {
    Refusal { status, comment }
}

const VERIFICATION_CONTEXT: Refusal =
    refusal(Status::SOP_CLASS_NOT_SUPPORTED, "not a storage SOP class");
const OTHER_CLASS: Refusal = refusal(
    Status::DATA_SET_MISMATCH,
    "SOP class differs from presentation context",
);
const INVALID_INSTANCE_UID: Refusal =
    refusal(Status::INVALID_OBJECT_INSTANCE, "invalid SOP instance UID");
const NO_DATA_SET: Refusal = refusal(Status::CANNOT_UNDERSTAND, "no data set");
const SHEDDING: Refusal = refusal(
    Status::OUT_OF_RESOURCES,
    "temporarily out of space, try later",
);
const DRAINING: Refusal = refusal(Status::OUT_OF_RESOURCES, "shutting down, try again");
const TOO_LARGE: Refusal = refusal(
    Status::OUT_OF_RESOURCES,
    "data set is larger than this node accepts",
);
const CANNOT_WRITE: Refusal = refusal(Status::OUT_OF_RESOURCES, "storage failed, try later");
const MISMATCH: Refusal = refusal(
    Status::DATA_SET_MISMATCH,
    "data set does not match the request",
);
const MALFORMED: Refusal = refusal(Status::CANNOT_UNDERSTAND, "data set cannot be read");
const INTERNAL: Refusal = refusal(Status::PROCESSING_FAILURE, "internal error");

impl Refusal {
    /// The one place where a failure of the spool becomes a status (PS3.4 Table B.2-1).
    const fn of(error: &WriteError) -> Self {
        match error {
            WriteError::Spool(SpoolError::Shedding(_) | SpoolError::OutOfSpace(_)) => SHEDDING,
            WriteError::Spool(SpoolError::TooLarge { .. }) => TOO_LARGE,
            WriteError::Spool(SpoolError::Mismatch(_)) => MISMATCH,
            WriteError::Spool(SpoolError::Malformed(_)) => MALFORMED,
            WriteError::Spool(SpoolError::Io(_)) => CANNOT_WRITE,
            WriteError::Ended => INTERNAL,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Association<'_, S> {
    /// Performs one C-STORE on presentation context `id`.
    pub(super) async fn store(
        &mut self,
        id: u8,
        context: &Context,
        request: &Command,
    ) -> Result<(), Interruption> {
        let (started, begun) = (Instant::now(), Timestamp::now());
        let outcome = match self.check(context, request) {
            Ok(arrival) => self.receive(id, arrival).await?,
            Err(refusal) => {
                if request.has_data_set() {
                    self.discard_data_set(id, None).await?;
                }
                Err(refusal)
            }
        };
        let (status, comment) = match &outcome {
            Ok(_) => {
                self.tally.stored += 1;
                (Status::SUCCESS, None)
            }
            Err(refusal) => {
                self.tally.refused += 1;
                (refusal.status, Some(refusal.comment))
            }
        };
        senders::count(
            &self.shared.metrics,
            self.config,
            &self.titles.calling,
            outcome.is_ok(),
        );
        self.respond(id, request, status, comment).await?;
        self.shared
            .metrics
            .store_duration_seconds
            .observe(started.elapsed().as_secs_f64());
        match outcome {
            Ok(stored) => {
                let key = &self.shared.services.study_key;
                debug!(study = %key.log_id(stored.study.as_str()), duplicate = stored.duplicate, "instance stored");
                if let Some(code) = stored.set_aside {
                    let aside = &self.shared.metrics.quarantined_instances_total;
                    aside.with_label_values(&[code]).inc();
                }
                self.delivery.of(&stored, begun);
                // Lossy on purpose: a full channel means the pipeline has work, and its next scan
                // of the spool finds the study.
                let _ = self.shared.wake.try_send(stored.study);
            }
            Err(refusal) => warn!(
                calling = %self.titles.calling,
                peer = %self.peer,
                status = %refusal.status,
                reason = refusal.comment,
                "instance refused"
            ),
        }
        Ok(())
    }

    /// What can be known from the command alone. UIDs become checked types here; nothing further in
    /// sees a peer's text.
    fn check(&self, context: &Context, request: &Command) -> Result<Arrival, Refusal> {
        if !matches!(context.kind, Kind::Storage | Kind::Private) {
            return Err(VERIFICATION_CONTEXT);
        }
        if request.affected_sop_class.as_deref() != Some(context.abstract_syntax.as_str()) {
            return Err(OTHER_CLASS);
        }
        let sop_instance = request.affected_sop_instance.as_deref().unwrap_or_default();
        let sop_instance = SopInstanceUid::parse(sop_instance).map_err(|_| INVALID_INSTANCE_UID)?;
        if !request.has_data_set() {
            return Err(NO_DATA_SET);
        }
        if self.shared.draining.is_cancelled() {
            return Err(DRAINING);
        }
        if self.shared.spool.shedding().is_some() {
            return Err(SHEDDING);
        }
        Ok(Arrival {
            calling_ae: self.titles.calling.clone(),
            called_ae: self.titles.called.clone(),
            peer: self.peer,
            sop_class: context.abstract_syntax.clone(),
            sop_instance,
            transfer_syntax: TransferSyntaxUid::parse(context.transfer_syntax.uid)
                .map_err(|_| INTERNAL)?,
        })
    }

    /// Streams the data set into the spool. The outer error ends the association, the inner one is
    /// the answer.
    async fn receive(
        &mut self,
        id: u8,
        arrival: Arrival,
    ) -> Result<Result<Stored, Refusal>, Interruption> {
        let mut writer = Writer::new(Arc::clone(&self.shared.spool), arrival);
        let mut block = self.block.take().unwrap_or_default();
        match self.pump(id, &mut writer, &mut block).await {
            Ok(()) => {}
            Err(Stop::Interrupted(interruption)) => {
                writer.abandon().await;
                return Err(interruption);
            }
            Err(Stop::Refused(refusal, current)) => {
                writer.abandon().await;
                self.discard_data_set(id, Some(current)).await?;
                return Ok(Err(refusal));
            }
        }
        let received = Instant::now();
        match writer.finish(block).await {
            Ok((stored, block)) => {
                let took = &self.shared.metrics.spool_commit_duration_seconds;
                took.observe(received.elapsed().as_secs_f64());
                self.block = Some(block);
                Ok(Ok(stored))
            }
            Err(error) => Ok(Err(self.refuse(&error))),
        }
    }

    /// The error's own text may quote the data set, so it stays at debug level.
    fn refuse(&self, error: &WriteError) -> Refusal {
        debug!(%error, "spool did not take the instance");
        if let Some(kind) = fault(error) {
            let errors = &self.shared.metrics.spool_write_errors_total;
            errors.with_label_values(&[kind]).inc();
        }
        Refusal::of(error)
    }

    /// Reads fragments up to the last one. What does not fill a block is left in `block`.
    async fn pump(&mut self, id: u8, writer: &mut Writer, block: &mut Vec<u8>) -> Result<(), Stop> {
        let most = self.config.max_instance_bytes.bytes();
        let mut received: u64 = 0;
        loop {
            let pdv = self.next_data_pdv(id).await?;
            loop {
                let count = self.stream.take_fragment(block, BLOCK_LENGTH).await?;
                let bytes = u64::try_from(count).unwrap_or(u64::MAX);
                self.count_bytes(bytes);
                received = received.saturating_add(bytes);
                if received > most {
                    return Err(Stop::Refused(TOO_LARGE, pdv));
                }
                if block.len() >= BLOCK_LENGTH {
                    let full = std::mem::take(block);
                    let handed_over = writer.hand_over(full).await;
                    *block =
                        handed_over.map_err(|error| Stop::Refused(self.refuse(&error), pdv))?;
                    block.reserve(BLOCK_LENGTH);
                    self.stream.restart_clock();
                } else if count == 0 {
                    break;
                }
            }
            if pdv.last {
                return Ok(());
            }
        }
    }
}

/// Why reading a data set stopped early.
enum Stop {
    Interrupted(Interruption),
    /// The instance is refused; the fragment is the one being read, which may be the last.
    Refused(Refusal, Pdv),
}

impl From<Interruption> for Stop {
    fn from(interruption: Interruption) -> Self {
        Self::Interrupted(interruption)
    }
}

/// What is wrong on our side, as a metric label; `None`: nothing is broken.
const fn fault(error: &WriteError) -> Option<&'static str> {
    match error {
        WriteError::Spool(SpoolError::OutOfSpace(_)) => Some("no-space"),
        WriteError::Spool(SpoolError::Io(_)) => Some("io"),
        WriteError::Ended => Some("internal"),
        WriteError::Spool(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_of_the_spool_has_its_status() {
        let io = || std::io::Error::other("disk");
        for (error, status) in [
            (SpoolError::Shedding("bytes"), 0xA700),
            (SpoolError::OutOfSpace(io()), 0xA700),
            (SpoolError::TooLarge { limit: 1 }, 0xA700),
            (SpoolError::Mismatch("x".into()), 0xA900),
            (SpoolError::Malformed("x".into()), 0xC000),
            (SpoolError::Io(io()), 0xA700),
        ] {
            assert_eq!(
                Refusal::of(&WriteError::Spool(error)).status,
                Status(status)
            );
        }
        assert_eq!(
            Refusal::of(&WriteError::Ended).status,
            Status::PROCESSING_FAILURE
        );
    }

    #[test]
    fn comments_fit_into_the_error_comment() {
        for refusal in [
            VERIFICATION_CONTEXT,
            OTHER_CLASS,
            INVALID_INSTANCE_UID,
            NO_DATA_SET,
            SHEDDING,
            DRAINING,
            TOO_LARGE,
            CANNOT_WRITE,
            MISMATCH,
            MALFORMED,
            INTERNAL,
        ] {
            assert!(refusal.comment.len() <= 64, "{}", refusal.comment);
            assert!(!refusal.status.is_stored());
        }
    }
}
