//! Which instances we answer for: a decision that reads no clock and no store.

use super::{Failure, Transaction};
use crate::dicom::{SopClassUid, SopInstanceUid};

/// Judges a request: for each reference, in their order, why it is not committed.
///
/// `here` gives the SOP class under which an instance is kept durably, `storable` says whether a
/// class is one that we take. `None`: instances are missing and may still come, as the request has
/// not `waited` for its time yet.
pub fn judge(
    transaction: &Transaction,
    waited: bool,
    here: impl Fn(&SopInstanceUid) -> Option<SopClassUid>,
    storable: impl Fn(&SopClassUid) -> bool,
) -> Option<Vec<Option<Failure>>> {
    let references = &transaction.request.references;
    if transaction.duplicate {
        return Some(vec![Some(Failure::DuplicateTransaction); references.len()]);
    }
    let result: Vec<Option<Failure>> = references
        .iter()
        .map(|reference| match here(&reference.sop_instance) {
            Some(class) if class == reference.sop_class => None,
            Some(_) => Some(Failure::ClassInstanceConflict),
            None if !storable(&reference.sop_class) => Some(Failure::ClassNotSupported),
            None => Some(Failure::NoSuchInstance),
        })
        .collect();
    // Only what is not here can still change.
    let complete = !result.contains(&Some(Failure::NoSuchInstance));
    (complete || waited).then_some(result)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::super::{Reference, Request};
    use super::*;
    use crate::clock::Timestamp;
    use crate::dicom::{AeTitle, Uid};

    const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
    const MR: &str = "1.2.840.10008.5.1.4.1.1.4";
    const WORKLIST: &str = "1.2.840.10008.5.1.4.31";

    fn transaction(duplicate: bool, references: &[(&str, &str)]) -> Transaction {
        let reference = |(class, instance): &(&str, &str)| Reference {
            sop_class: SopClassUid::parse(class).unwrap(),
            sop_instance: SopInstanceUid::parse(instance).unwrap(),
        };
        Transaction {
            id: 1,
            request: Request {
                transaction: Uid::parse("1.9").unwrap(),
                calling_ae: AeTitle::parse("CT2").unwrap(),
                called_ae: AeTitle::gateway(),
                peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
                references: references.iter().map(reference).collect(),
            },
            duplicate,
            received_at: Timestamp(0),
            result: None,
            attempts: 0,
        }
    }

    /// `1.1` is here as CT, `1.2` as MR.
    fn judged(transaction: &Transaction, waited: bool) -> Option<Vec<Option<Failure>>> {
        let here = |uid: &SopInstanceUid| match uid.as_str() {
            "1.1" => Some(SopClassUid::parse(CT).unwrap()),
            "1.2" => Some(SopClassUid::parse(MR).unwrap()),
            _ => None,
        };
        judge(transaction, waited, here, |class| {
            class.as_str() != WORKLIST
        })
    }

    #[test]
    fn what_is_here_is_committed_at_once_as_often_as_it_is_named() {
        let all = transaction(false, &[(CT, "1.1"), (MR, "1.2"), (CT, "1.1")]);
        assert_eq!(judged(&all, false), Some(vec![None; 3]));
    }

    #[test]
    fn what_is_missing_is_waited_for_and_then_failed() {
        let one = transaction(false, &[(CT, "1.1"), (CT, "1.3")]);
        assert_eq!(judged(&one, false), None);
        let failed = vec![None, Some(Failure::NoSuchInstance)];
        assert_eq!(judged(&one, true), Some(failed));
    }

    #[test]
    fn what_can_never_be_committed_is_not_waited_for() {
        let wrong = transaction(false, &[(MR, "1.1"), (WORKLIST, "1.3")]);
        let failed = vec![
            Some(Failure::ClassInstanceConflict),
            Some(Failure::ClassNotSupported),
        ];
        assert_eq!(judged(&wrong, false), Some(failed));
    }

    #[test]
    fn a_duplicate_transaction_fails_whole_even_where_instances_are_here() {
        let duplicate = transaction(true, &[(CT, "1.1"), (CT, "1.3")]);
        let failed = vec![Some(Failure::DuplicateTransaction); 2];
        assert_eq!(judged(&duplicate, false), Some(failed));
    }
}
