//! The data sets of Storage Commitment: N-ACTION's action information and N-EVENT-REPORT's event
//! information (PS3.4 Tables J.3-1 and J.3-2).

use dicom::dictionary_std::tags;

use super::{Failure, Reference, Transaction};
use crate::dicom::dataset::Writer;

/// Every instance is committed (PS3.4 J.3.3.1).
pub const ALL_COMMITTED: u16 = 1;
/// Some are not (PS3.4 J.3.3.1).
pub const FAILURES_EXIST: u16 = 2;

impl Transaction {
    /// Event Type ID of the report: 1, or 2 when an instance is not committed.
    pub fn event_type(&self) -> u16 {
        let result = self.result.iter().flatten();
        if result.flatten().next().is_some() {
            FAILURES_EXIST
        } else {
            ALL_COMMITTED
        }
    }

    /// The event information in a transfer syntax; `None` for one that we do not negotiate here, and
    /// while the request is not judged.
    pub fn event_information(&self, transfer_syntax: &str) -> Option<Vec<u8>> {
        let result = self.result.as_ref()?;
        let all = || self.request.references.iter().zip(result);
        let reference = |item: &mut Writer, reference: &Reference| {
            item.text(
                tags::REFERENCED_SOP_CLASS_UID,
                *b"UI",
                reference.sop_class.as_str(),
            )
            .text(
                tags::REFERENCED_SOP_INSTANCE_UID,
                *b"UI",
                reference.sop_instance.as_str(),
            );
        };
        let failed: Vec<(&Reference, Failure)> = all()
            .filter_map(|(reference, failure)| Some((reference, (*failure)?)))
            .collect();
        let committed: Vec<&Reference> = all()
            .filter(|(_, failure)| failure.is_none())
            .map(|(reference, _)| reference)
            .collect();
        let mut writer = Writer::new(transfer_syntax)?;
        writer.text(
            tags::TRANSACTION_UID,
            *b"UI",
            self.request.transaction.as_str(),
        );
        if !failed.is_empty() {
            writer.sequence(
                tags::FAILED_SOP_SEQUENCE,
                failed,
                |item, (failed, reason)| {
                    reference(item, failed);
                    item.unsigned_short(tags::FAILURE_REASON, reason as u16);
                },
            );
        }
        if !committed.is_empty() {
            writer.sequence(tags::REFERENCED_SOP_SEQUENCE, committed, reference);
        }
        Some(writer.finish())
    }
}
