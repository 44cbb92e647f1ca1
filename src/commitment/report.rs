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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Request;
    use super::*;
    use crate::clock::Timestamp;
    use crate::dicom::dataset::{DataSet, ReadLimits, read_data_set};
    use crate::dicom::{AeTitle, SopClassUid, SopInstanceUid, Uid};

    const IMPLICIT: &str = "1.2.840.10008.1.2";

    fn transaction(result: &[Option<Failure>]) -> Transaction {
        let reference = |index: usize| Reference {
            sop_class: SopClassUid::parse("1.2.840.10008.5.1.4.1.1.2").unwrap(),
            sop_instance: SopInstanceUid::parse(&format!("1.{index}")).unwrap(),
        };
        Transaction {
            id: 1,
            request: Request {
                transaction: Uid::parse("1.9").unwrap(),
                calling_ae: AeTitle::parse("CT2").unwrap(),
                called_ae: AeTitle::gateway(),
                peer: std::net::IpAddr::from([10, 0, 0, 1]),
                references: (0..result.len()).map(reference).collect(),
            },
            duplicate: false,
            received_at: Timestamp(0),
            result: Some(result.to_vec()),
            attempts: 0,
        }
    }

    fn written(transaction: &Transaction) -> DataSet {
        let bytes = transaction.event_information(IMPLICIT).unwrap();
        read_data_set(&bytes, IMPLICIT, &ReadLimits::default()).unwrap()
    }

    fn instances(items: &[DataSet]) -> Vec<String> {
        let tag = tags::REFERENCED_SOP_INSTANCE_UID;
        let uids = items.iter().map(|item| item.uid(tag).unwrap());
        uids.map(|uid| uid.into_owned()).collect()
    }

    #[test]
    fn both_lists_together_are_the_request() {
        let (gone, other) = (Failure::NoSuchInstance, Failure::ClassInstanceConflict);
        let mixed = transaction(&[None, Some(gone), None, Some(other)]);
        assert_eq!(mixed.event_type(), FAILURES_EXIST);
        let data_set = written(&mixed);
        assert_eq!(data_set.uid(tags::TRANSACTION_UID).unwrap(), "1.9");
        let failed = data_set.items(tags::FAILED_SOP_SEQUENCE);
        let committed = instances(data_set.items(tags::REFERENCED_SOP_SEQUENCE));
        assert_eq!(committed, ["1.0", "1.2"]);
        assert_eq!(instances(failed), ["1.1", "1.3"]);
        let reasons: Vec<_> = failed
            .iter()
            .map(|item| item.int(tags::FAILURE_REASON))
            .collect();
        assert_eq!(reasons, [Some(0x0112), Some(0x0119)]);
    }

    #[test]
    fn a_list_without_instances_is_left_out() {
        let all = transaction(&[None, None]);
        assert_eq!(all.event_type(), ALL_COMMITTED);
        assert!(written(&all).get(tags::FAILED_SOP_SEQUENCE).is_none());
        let none = transaction(&[Some(Failure::Processing)]);
        assert_eq!(none.event_type(), FAILURES_EXIST);
        assert!(written(&none).get(tags::REFERENCED_SOP_SEQUENCE).is_none());
    }

    #[test]
    fn what_is_not_judged_has_no_report() {
        let mut open = transaction(&[None]);
        open.result = None;
        assert!(open.event_information(IMPLICIT).is_none());
    }
}
