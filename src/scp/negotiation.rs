//! What we agree to in an association request (PS3.8 section 7.1, PS3.7 Annex D): pure decisions.
//!
//! dicom-ul's own acceptor is not used, only its PDU types: it knows no transient rejection,
//! compares the protocol version as a number and answers a wrong one with the wrong reason, takes
//! only transfer syntaxes of its own registry, and signs with its own implementation UID.

use std::collections::HashMap;

use dicom_ul::pdu::{
    AssociationAC, AssociationRQ, PresentationContextProposed, PresentationContextResult,
    PresentationContextResultReason,
};

use super::config::{Config, PrivateSopClasses};
use super::interruption::Interruption;
use super::rejection::Rejection;
use super::user_information::UserInformation;
use crate::dicom::sop_class::{self, Kind};
use crate::dicom::transfer_syntax::{EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN};
use crate::dicom::{APPLICATION_CONTEXT_NAME, AeTitle, SopClassUid, TransferSyntax};

/// Transfer syntaxes of the messages that we understand and write.
const PLAIN: [&str; 2] = [EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN];

/// Who talks to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Titles {
    pub(super) calling: AeTitle,
    pub(super) called: AeTitle,
}

/// One accepted presentation context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Context {
    pub(super) abstract_syntax: SopClassUid,
    pub(super) kind: Kind,
    pub(super) transfer_syntax: &'static TransferSyntax,
}

/// The outcome of a negotiation.
#[derive(Debug)]
pub(super) struct Agreement {
    /// Accepted presentation contexts by ID.
    pub(super) contexts: HashMap<u8, Context>,
    /// Longest P-DATA-TF the peer takes; `u32::MAX` when it sets no limit.
    pub(super) peer_max_pdu_length: u32,
    /// Our A-ASSOCIATE-AC.
    pub(super) reply: AssociationAC,
}

/// Checks protocol, application context and AE titles, in the order of PS3.8 7.1.
pub(super) fn admit(request: &AssociationRQ, config: &Config) -> Result<Titles, Rejection> {
    // Bit 0 stands for version 1; other bits are for versions to come (PS3.8 9.3.2).
    if request.protocol_version & 1 == 0 {
        return Err(Rejection::ProtocolVersion);
    }
    if trim(&request.application_context_name) != APPLICATION_CONTEXT_NAME {
        return Err(Rejection::ApplicationContext);
    }
    let called = AeTitle::parse(&request.called_ae_title).map_err(|_| Rejection::CalledAeTitle)?;
    let ours = called == config.ae_title || config.called_ae_titles.contains(&called);
    if !config.accept_any_called_ae_title && !ours {
        return Err(Rejection::CalledAeTitle);
    }
    let calling =
        AeTitle::parse(&request.calling_ae_title).map_err(|_| Rejection::CallingAeTitle)?;
    if !config.calling_ae_titles.is_empty() && !config.calling_ae_titles.contains(&calling) {
        return Err(Rejection::CallingAeTitle);
    }
    Ok(Titles { calling, called })
}

/// Decides on every presentation context and user item, and words the answer. `commitment`: whether
/// Storage Commitment is offered.
///
/// # Errors
/// [`Interruption::Request`] when the request contradicts the standard in a way that has no answer
/// but A-ABORT.
pub(super) fn agree(
    request: &AssociationRQ,
    user: &UserInformation,
    titles: &Titles,
    config: &Config,
    commitment: bool,
) -> Result<Agreement, Interruption> {
    if request.presentation_contexts.is_empty() {
        return Err(Interruption::Request("no presentation contexts"));
    }
    let mut contexts = HashMap::new();
    let mut results = Vec::with_capacity(request.presentation_contexts.len().min(128));
    let mut seen = [false; 256];
    for proposed in &request.presentation_contexts {
        let Some(seen) = seen.get_mut(usize::from(proposed.id)) else {
            continue;
        };
        if proposed.id % 2 == 0 || std::mem::replace(seen, true) {
            return Err(Interruption::Request(
                "presentation context ID even or used twice",
            ));
        }
        let (reason, transfer_syntax) = match decide(proposed, user, config, commitment) {
            Ok(context) => {
                let uid = context.transfer_syntax.uid;
                contexts.insert(proposed.id, context);
                (PresentationContextResultReason::Acceptance, uid)
            }
            // Not significant in a rejected context, but present (PS3.8 9.3.3.2).
            Err(reason) => (reason, IMPLICIT_VR_LITTLE_ENDIAN),
        };
        results.push(PresentationContextResult {
            id: proposed.id,
            reason,
            transfer_syntax: transfer_syntax.to_owned(),
        });
    }
    let peer_max_pdu_length = user.peer_max_pdu_length()?;
    let user_variables = user.answer(&contexts, config);
    let reply = AssociationAC {
        protocol_version: 1,
        calling_ae_title: titles.calling.as_str().to_owned(),
        called_ae_title: titles.called.as_str().to_owned(),
        application_context_name: APPLICATION_CONTEXT_NAME.to_owned(),
        presentation_contexts: results,
        user_variables,
    };
    Ok(Agreement {
        contexts,
        peer_max_pdu_length,
        reply,
    })
}

/// Accepts a context for a service of ours, or for a private class that is for storage by the
/// requestor's own word (SOP class common extended negotiation) or by policy, with the first *proposed* transfer syntax that we
/// can keep: the requestor lists first what it has, so nothing is transcoded on our behalf, and the
/// choice is the acceptor's (PS3.7 D.3.2). Services whose data sets we write ourselves have the two
/// plain transfer syntaxes.
fn decide(
    proposed: &PresentationContextProposed,
    user: &UserInformation,
    config: &Config,
    commitment: bool,
) -> Result<Context, PresentationContextResultReason> {
    let abstract_syntax = SopClassUid::parse(trim(&proposed.abstract_syntax))
        .map_err(|_| PresentationContextResultReason::AbstractSyntaxNotSupported)?;
    let kind = sop_class::classify(abstract_syntax.as_str());
    let accepted = match kind {
        Kind::Verification | Kind::Storage | Kind::ProcedureStep => true,
        Kind::StorageCommitment => commitment,
        Kind::Private => user
            .is_storage(abstract_syntax.as_str())
            .unwrap_or(config.private_sop_classes == PrivateSopClasses::Store),
        Kind::OtherService => false,
    };
    if !accepted {
        return Err(PresentationContextResultReason::AbstractSyntaxNotSupported);
    }
    let understood = matches!(kind, Kind::StorageCommitment | Kind::ProcedureStep);
    let transfer_syntax = proposed
        .transfer_syntaxes
        .iter()
        .filter_map(|uid| TransferSyntax::lookup(trim(uid)))
        .find(|syntax| !understood || PLAIN.contains(&syntax.uid))
        .ok_or(PresentationContextResultReason::TransferSyntaxesNotSupported)?;
    Ok(Context {
        abstract_syntax,
        kind,
        transfer_syntax,
    })
}

/// UIDs in association PDUs are not padded (PS3.8 Annex F), but some senders pad them all the same.
fn trim(uid: &str) -> &str {
    uid.trim_matches(['\0', ' '])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::dicom::STORAGE_COMMITMENT;

    const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
    const JPEG: &str = "1.2.840.10008.1.2.4.50";
    const EXPLICIT: &str = "1.2.840.10008.1.2.1";

    fn request(contexts: &[(u8, &str, &[&str])]) -> AssociationRQ {
        AssociationRQ {
            protocol_version: 1,
            calling_ae_title: "CT2".into(),
            called_ae_title: "PACSGATEWAY".into(),
            application_context_name: APPLICATION_CONTEXT_NAME.into(),
            presentation_contexts: contexts
                .iter()
                .map(|(id, uid, syntaxes)| PresentationContextProposed {
                    id: *id,
                    abstract_syntax: (*uid).into(),
                    transfer_syntaxes: syntaxes.iter().map(|uid| (*uid).into()).collect(),
                })
                .collect(),
            user_variables: Vec::new(),
        }
    }

    fn agreed(request: AssociationRQ, config: &Config) -> Agreement {
        let titles = admit(&request, config).unwrap();
        agree(&request, &UserInformation::default(), &titles, config, true).unwrap()
    }

    fn reasons(agreement: &Agreement) -> Vec<PresentationContextResultReason> {
        agreement
            .reply
            .presentation_contexts
            .iter()
            .map(|result| result.reason.clone())
            .collect()
    }

    #[test]
    fn the_first_proposed_transfer_syntax_we_can_keep_is_chosen() {
        let agreement = agreed(
            request(&[
                (1, CT, &["1.2.840.10008.1.2.4.94", JPEG, EXPLICIT]),
                (3, CT, &[EXPLICIT, JPEG]),
                (5, CT, &["1.2.3.4"]),
            ]),
            &Config::default(),
        );
        assert_eq!(agreement.contexts[&1].transfer_syntax.uid, JPEG);
        assert_eq!(agreement.contexts[&3].transfer_syntax.uid, EXPLICIT);
        assert!(!agreement.contexts.contains_key(&5));
        assert_eq!(
            reasons(&agreement)[2],
            PresentationContextResultReason::TransferSyntaxesNotSupported
        );
    }

    #[test]
    fn messages_that_are_understood_are_little_endian_and_uncompressed() {
        const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";
        const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
        for service in ["1.2.840.10008.3.1.2.3.3", "1.2.840.10008.1.20.1"] {
            let agreement = agreed(
                request(&[
                    (1, service, &[DEFLATED, BIG_ENDIAN, JPEG, EXPLICIT]),
                    (3, service, &[DEFLATED, BIG_ENDIAN, JPEG]),
                ]),
                &Config::default(),
            );
            assert_eq!(agreement.contexts[&1].transfer_syntax.uid, EXPLICIT);
            assert!(!agreement.contexts.contains_key(&3), "{service}");
        }
    }

    #[test]
    fn storage_and_verification_are_accepted_and_other_services_are_not() {
        let mut config = Config::default();
        let proposal = || {
            request(&[
                (1, "1.2.840.10008.1.1", &[IMPLICIT_VR_LITTLE_ENDIAN]),
                (3, "1.2.840.10008.5.1.4.31", &[EXPLICIT]),
                (5, "1.2.826.0.1.3680043.8.498.5.1", &[EXPLICIT]),
                (7, "../x", &[EXPLICIT]),
                (9, "1.2.840.10008.5.1.4.1.1.2\0", &["1.2.840.10008.1.2.1\0"]),
            ])
        };
        use PresentationContextResultReason::{
            AbstractSyntaxNotSupported as No, Acceptance as Yes,
        };
        assert_eq!(
            reasons(&agreed(proposal(), &config)),
            [Yes, No, Yes, No, Yes]
        );
        config.private_sop_classes = PrivateSopClasses::Reject;
        assert_eq!(
            reasons(&agreed(proposal(), &config)),
            [Yes, No, No, No, Yes]
        );
    }

    #[test]
    fn storage_commitment_is_offered_by_configuration_in_what_we_can_write() {
        let config = Config::default();
        let big_endian = "1.2.840.10008.1.2.2";
        let proposal = || request(&[(1, STORAGE_COMMITMENT, &[big_endian, JPEG, EXPLICIT])]);
        let titles = admit(&proposal(), &config).unwrap();
        let user = UserInformation::default();
        let offered = agree(&proposal(), &user, &titles, &config, true).unwrap();
        assert_eq!(offered.contexts[&1].transfer_syntax.uid, EXPLICIT);
        let not_offered = agree(&proposal(), &user, &titles, &config, false).unwrap();
        assert_eq!(
            reasons(&not_offered),
            [PresentationContextResultReason::AbstractSyntaxNotSupported]
        );
    }

    #[test]
    fn an_association_without_an_acceptable_context_is_still_accepted() {
        let agreement = agreed(
            request(&[(1, "1.2.840.10008.5.1.4.31", &[EXPLICIT])]),
            &Config::default(),
        );
        assert!(agreement.contexts.is_empty());
        assert_eq!(agreement.reply.presentation_contexts.len(), 1);
    }

    #[test]
    fn titles_and_versions_are_rejected_with_the_standards_reasons() {
        let mut config = Config {
            accept_any_called_ae_title: false,
            calling_ae_titles: vec![AeTitle::parse("CT2").unwrap()],
            ..Config::default()
        };
        let check = |change: fn(&mut AssociationRQ), config: &Config, rejection: Rejection| {
            let mut request = request(&[(1, CT, &[EXPLICIT])]);
            change(&mut request);
            assert_eq!(admit(&request, config), Err(rejection));
        };
        check(
            |rq| rq.protocol_version = 2,
            &config,
            Rejection::ProtocolVersion,
        );
        check(
            |rq| rq.application_context_name = "1.2".into(),
            &config,
            Rejection::ApplicationContext,
        );
        check(
            |rq| rq.called_ae_title = "OTHER".into(),
            &config,
            Rejection::CalledAeTitle,
        );
        check(
            |rq| rq.calling_ae_title = "CT3".into(),
            &config,
            Rejection::CallingAeTitle,
        );
        config.accept_any_called_ae_title = true;
        config.calling_ae_titles.clear();
        check(
            |rq| rq.called_ae_title = String::new(),
            &config,
            Rejection::CalledAeTitle,
        );
        check(
            |rq| rq.calling_ae_title = "A\\B".into(),
            &config,
            Rejection::CallingAeTitle,
        );
        let mut newer = request(&[(1, CT, &[EXPLICIT])]);
        newer.protocol_version = 3;
        assert!(admit(&newer, &config).is_ok());
    }

    #[test]
    fn context_ids_that_break_the_rules_end_the_association() {
        let config = Config::default();
        for ids in [[1, 1], [0, 1], [2, 3]] {
            let request = request(&[(ids[0], CT, &[EXPLICIT]), (ids[1], CT, &[EXPLICIT])]);
            let titles = admit(&request, &config).unwrap();
            let user = UserInformation::default();
            let agreement = agree(&request, &user, &titles, &config, true);
            assert!(agreement.is_err(), "{ids:?}");
        }
    }

    #[test]
    fn a_private_class_is_what_its_requestor_says_it_is() {
        const PRIVATE: &str = "1.2.826.0.1.3680043.8.498.5.1";
        let kind_with = |service: &str, policy| {
            let mut item = Vec::new();
            for text in [PRIVATE, service, ""] {
                item.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
                item.extend(text.as_bytes());
            }
            let mut user = UserInformation::default();
            let length = u8::try_from(item.len()).unwrap();
            user.read(&[&[0x57, 0, 0, length][..], &item].concat())
                .unwrap();
            let config = Config {
                private_sop_classes: policy,
                ..Config::default()
            };
            let request = request(&[(1, PRIVATE, &[EXPLICIT])]);
            let titles = admit(&request, &config).unwrap();
            let agreement = agree(&request, &user, &titles, &config, true).unwrap();
            agreement.contexts.get(&1).map(|context| context.kind)
        };
        for policy in [PrivateSopClasses::Store, PrivateSopClasses::Reject] {
            assert_eq!(kind_with("1.2.840.10008.4.2", policy), Some(Kind::Private));
            assert_eq!(kind_with("1.2.840.10008.4.1", policy), None);
        }
    }
}
