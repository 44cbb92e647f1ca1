//! Modality Performed Procedure Step as SCP (PS3.4 F.7): the step is written down, then answered.

use std::fmt::Display;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tracing::{info, warn};
use uuid::Uuid;

use super::association::Association;
use super::interruption::Interruption;
use super::negotiation::Context;
use crate::clock::Timestamp;
use crate::dicom::command::Command;
use crate::dicom::{SopInstanceUid, Status};
use crate::procedure::{Beginning, Change, Changed, Created, Fault, Outcome, State};

/// Error ID (0000,0903) of an N-SET that comes too late (PS3.4 Table F.7.2-2).
const MAY_NO_LONGER_BE_UPDATED: u16 = 0xA710;

/// Data sets read at the same time, by all associations: the longest takes some 40 MB in pieces.
static READERS: Semaphore = Semaphore::const_new(4);

/// Why a request is refused, in the words the peer gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Refusal {
    status: Status,
    comment: &'static str,
    error_id: Option<u16>,
}

const fn refusal(status: Status, comment: &'static str) -> Refusal {
    Refusal {
        status,
        comment,
        error_id: None,
    }
}

const OTHER_CLASS: Refusal = refusal(
    Status::NO_SUCH_CLASS,
    "SOP class differs from presentation context",
);
const INVALID_INSTANCE_UID: Refusal =
    refusal(Status::INVALID_OBJECT_INSTANCE, "invalid SOP instance UID");
const NO_DATA_SET: Refusal = refusal(Status::MISTYPED_ARGUMENT, "no data set");
const TOO_LONG: Refusal = refusal(
    Status::RESOURCE_LIMITATION,
    "data set is longer than this node accepts",
);
const SHEDDING: Refusal = refusal(
    Status::RESOURCE_LIMITATION,
    "temporarily out of space, try later",
);
const UNREADABLE: Refusal = refusal(Status::PROCESSING_FAILURE, "data set cannot be read");
const INTERNAL: Refusal = refusal(Status::PROCESSING_FAILURE, "internal error, try later");
const DUPLICATE: Refusal = refusal(Status::DUPLICATE_INSTANCE, "the step exists already");
const UNKNOWN: Refusal = refusal(Status::NO_SUCH_INSTANCE, "no such step");
const NO_SERIES: Refusal = refusal(
    Status::MISSING_ATTRIBUTE_VALUE,
    "Performed Series Sequence has no item",
);
const FINAL: Refusal = Refusal {
    status: Status::PROCESSING_FAILURE,
    comment: "Performed Procedure Step Object may no longer be updated",
    error_id: Some(MAY_NO_LONGER_BE_UPDATED),
};

impl Refusal {
    /// The status of a data set that is not accepted (PS3.7 C.5).
    const fn of(fault: Fault) -> Self {
        match fault {
            Fault::Unreadable => UNREADABLE,
            Fault::Missing(attribute) => refusal(Status::MISSING_ATTRIBUTE, attribute),
            Fault::NoValue(attribute) => refusal(Status::MISSING_ATTRIBUTE_VALUE, attribute),
            Fault::Value(attribute) => refusal(Status::INVALID_ATTRIBUTE_VALUE, attribute),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Association<'_, S> {
    /// Performs one N-CREATE on presentation context `id`.
    pub(super) async fn n_create(
        &mut self,
        id: u8,
        context: &Context,
        request: &Command,
    ) -> Result<(), Interruption> {
        let data_set = self.read_data_set(id, request).await?;
        let named = request.affected_sop_instance.as_deref();
        // The SCU may leave the name to us (PS3.7 10.1.5.1.4), and learns it from the response.
        let named = match named.filter(|uid| !uid.is_empty()) {
            Some(uid) => SopInstanceUid::parse(uid),
            None => SopInstanceUid::parse(&format!("2.25.{}", Uuid::new_v4().as_u128())),
        };
        let answered = Command {
            affected_sop_instance: named.as_ref().ok().map(ToString::to_string),
            ..request.clone()
        };
        let performed = async {
            if request.affected_sop_class.as_deref() != Some(context.abstract_syntax.as_str()) {
                return Err(OTHER_CLASS);
            }
            let sop_instance = named.map_err(|_| INVALID_INSTANCE_UID)?;
            // Steps share the disk with the instances. An N-SET replaces what is there already.
            if self.shared.spool.shedding().is_some() {
                return Err(SHEDDING);
            }
            let syntax = context.transfer_syntax.uid;
            let (beginning, data_set) = read(request, data_set, syntax, Beginning::read).await?;
            let step = Created {
                sop_instance,
                calling_ae: self.titles.calling.clone(),
                studies: beginning.studies,
                references: beginning.references,
                transfer_syntax: syntax.to_owned(),
                data_set,
            };
            let procedures = &self.shared.services.procedures;
            let outcome = procedures.create(step, Timestamp::now()).await;
            self.concerned(outcome)?;
            Ok(State::InProgress)
        };
        let performed = performed.await;
        self.answer_step(id, &answered, performed).await
    }

    /// Performs one N-SET on presentation context `id`.
    pub(super) async fn n_set(
        &mut self,
        id: u8,
        context: &Context,
        request: &Command,
    ) -> Result<(), Interruption> {
        let data_set = self.read_data_set(id, request).await?;
        let answered = Command {
            affected_sop_class: request.requested_sop_class.clone(),
            affected_sop_instance: request.requested_sop_instance.clone(),
            ..request.clone()
        };
        let performed = async {
            if request.requested_sop_class.as_deref() != Some(context.abstract_syntax.as_str()) {
                return Err(OTHER_CLASS);
            }
            let named = request.requested_sop_instance.as_deref();
            let sop_instance = SopInstanceUid::parse(named.unwrap_or_default())
                .map_err(|_| INVALID_INSTANCE_UID)?;
            let syntax = context.transfer_syntax.uid;
            let (change, data_set) = read(request, data_set, syntax, Change::read).await?;
            let state = change.state.unwrap_or(State::InProgress);
            let change = Changed {
                sop_instance,
                state: change.state,
                discontinuation: change.discontinuation,
                references: change.references,
                transfer_syntax: syntax.to_owned(),
                data_set,
            };
            let procedures = &self.shared.services.procedures;
            let outcome = procedures.set(change, Timestamp::now()).await;
            self.concerned(outcome)?;
            Ok(state)
        };
        let performed = performed.await;
        self.answer_step(id, &answered, performed).await
    }

    /// Wakes the studies up that a step says something about.
    fn concerned(&self, outcome: Result<Outcome, impl Display>) -> Result<(), Refusal> {
        match outcome {
            Ok(Outcome::Done(studies)) => {
                for study in studies {
                    // A full channel loses the hint, not the evidence.
                    let _ = self.shared.wake.try_send(study);
                }
                Ok(())
            }
            Ok(Outcome::Duplicate) => Err(DUPLICATE),
            Ok(Outcome::Unknown) => Err(UNKNOWN),
            Ok(Outcome::Final) => Err(FINAL),
            Ok(Outcome::NoSeries) => Err(NO_SERIES),
            Err(error) => {
                warn!(%error, "procedure step not written");
                Err(INTERNAL)
            }
        }
    }

    async fn answer_step(
        &mut self,
        id: u8,
        request: &Command,
        performed: Result<State, Refusal>,
    ) -> Result<(), Interruption> {
        let (calling, peer) = (&self.titles.calling, self.peer);
        match performed {
            Ok(state) => {
                info!(%calling, %peer, state = state.as_str(), "procedure step kept");
                self.respond(id, request, Status::SUCCESS, None).await
            }
            Err(refusal) => {
                let (status, reason) = (refusal.status, refusal.comment);
                warn!(%calling, %peer, %status, reason, "procedure step refused");
                self.respond_with(id, request, status, Some(reason), refusal.error_id)
                    .await
            }
        }
    }
}

/// Reads the data set of a request off the runtime: a long list takes milliseconds. Gives the data
/// set back with what it says.
async fn read<T: Send + 'static>(
    request: &Command,
    data_set: Option<Vec<u8>>,
    transfer_syntax: &'static str,
    read: fn(&[u8], &str) -> Result<T, Fault>,
) -> Result<(T, Vec<u8>), Refusal> {
    let Some(data_set) = data_set else {
        return Err(if request.has_data_set() {
            TOO_LONG
        } else {
            NO_DATA_SET
        });
    };
    // Each turn is short, and the semaphore is never closed.
    let _turn = READERS.acquire().await.map_err(|_| INTERNAL)?;
    let work = move || read(&data_set, transfer_syntax).map(|said| (said, data_set));
    match tokio::task::spawn_blocking(work).await {
        Ok(said) => said.map_err(Refusal::of),
        Err(_) => Err(INTERNAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_fit_into_the_error_comment() {
        for refusal in [
            OTHER_CLASS,
            INVALID_INSTANCE_UID,
            NO_DATA_SET,
            TOO_LONG,
            SHEDDING,
            UNREADABLE,
            INTERNAL,
            DUPLICATE,
            UNKNOWN,
            NO_SERIES,
            FINAL,
        ] {
            assert!(refusal.comment.len() <= 64, "{}", refusal.comment);
            assert!(!refusal.status.is_stored());
        }
    }

    #[test]
    fn each_fault_of_a_data_set_has_its_status() {
        for (fault, status) in [
            (Fault::Unreadable, 0x0110),
            (Fault::Missing("x"), 0x0120),
            (Fault::NoValue("x"), 0x0121),
            (Fault::Value("x"), 0x0106),
        ] {
            assert_eq!(Refusal::of(fault).status, Status(status));
        }
    }
}
