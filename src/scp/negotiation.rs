//! What we agree to in an association request (PS3.8 section 7.1, PS3.7 Annex D): pure decisions.
//!
//! dicom-ul's own acceptor is not used, only its PDU types: it knows no transient rejection,
//! compares the protocol version as a number and answers a wrong one with the wrong reason, takes
//! only transfer syntaxes of its own registry, and signs with its own implementation UID.

use std::collections::HashMap;

use dicom_ul::pdu::{
    AssociationAC, AssociationRQ, PresentationContextProposed, PresentationContextResult,
    PresentationContextResultReason, RequestorRoles, UserVariableItem,
};

use super::config::{Config, PrivateSopClasses};
use super::interruption::Interruption;
use super::rejection::Rejection;
use crate::dicom::sop_class::{self, Kind};
use crate::dicom::transfer_syntax::{EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN};
use crate::dicom::{
    APPLICATION_CONTEXT_NAME, AeTitle, IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME,
    SopClassUid, TransferSyntax,
};

/// Maximum length that a requestor receives when it does not say (PS3.8 Annex D.1 leaves it open;
/// this is the common default).
const DEFAULT_MAX_PDU_LENGTH: u32 = 16_384;

/// Smallest maximum length that a fragment of two bytes fits into.
const SMALLEST_MAX_PDU_LENGTH: u32 = 8;

/// Transfer syntaxes in which we write data sets.
const PLAIN: [&str; 2] = [EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN];

/// Storage SCP, Level 2 (Full), digital signatures unspecified as we change nothing, no coercion:
/// the service-class-application-information of PS3.4 B.3.1.
const STORAGE_SCP_INFORMATION: [u8; 6] = [2, 0, 1, 0, 0, 0];

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
    if !config.accept_any_called_ae_title && called != config.ae_title {
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
    request: AssociationRQ,
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
        let (reason, transfer_syntax) = match decide(proposed, config, commitment) {
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
    let peer_max_pdu_length = peer_max_pdu_length(&request.user_variables)?;
    let mut user_variables = vec![
        UserVariableItem::MaxLength(config.max_pdu_length),
        UserVariableItem::ImplementationClassUID(IMPLEMENTATION_CLASS_UID.to_owned()),
        UserVariableItem::ImplementationVersionName(IMPLEMENTATION_VERSION_NAME.to_owned()),
    ];
    user_variables.extend(answers(&request.user_variables, &contexts));
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

/// Accepts a context for storage or verification with the first *proposed* transfer syntax that we
/// can keep: the requestor lists first what it has, so nothing is transcoded on our behalf, and the
/// choice is the acceptor's (PS3.7 D.3.2). Services whose data sets we write ourselves have the two
/// plain transfer syntaxes.
fn decide(
    proposed: &PresentationContextProposed,
    config: &Config,
    commitment: bool,
) -> Result<Context, PresentationContextResultReason> {
    let abstract_syntax = SopClassUid::parse(trim(&proposed.abstract_syntax))
        .map_err(|_| PresentationContextResultReason::AbstractSyntaxNotSupported)?;
    let kind = sop_class::classify(abstract_syntax.as_str());
    let accepted = match kind {
        Kind::Verification | Kind::Storage | Kind::ProcedureStep => true,
        Kind::StorageCommitment => commitment,
        Kind::Private => config.private_sop_classes == PrivateSopClasses::Store,
        Kind::OtherService => false,
    };
    if !accepted {
        return Err(PresentationContextResultReason::AbstractSyntaxNotSupported);
    }
    let writes = matches!(kind, Kind::StorageCommitment | Kind::ProcedureStep);
    let transfer_syntax = proposed
        .transfer_syntaxes
        .iter()
        .filter_map(|uid| TransferSyntax::lookup(trim(uid)))
        .find(|syntax| !writes || PLAIN.contains(&syntax.uid))
        .ok_or(PresentationContextResultReason::TransferSyntaxesNotSupported)?;
    Ok(Context {
        abstract_syntax,
        kind,
        transfer_syntax,
    })
}

/// The last Maximum Length item counts; zero means no limit (PS3.8 D.1).
fn peer_max_pdu_length(items: &[UserVariableItem]) -> Result<u32, Interruption> {
    let stated = items.iter().rev().find_map(|item| match item {
        UserVariableItem::MaxLength(length) => Some(*length),
        _ => None,
    });
    match stated.unwrap_or(DEFAULT_MAX_PDU_LENGTH) {
        0 => Ok(u32::MAX),
        length if length < SMALLEST_MAX_PDU_LENGTH => Err(Interruption::Request(
            "maximum length leaves no room for data",
        )),
        length => Ok(length),
    }
}

/// Our answers to the optional items: role selection (PS3.7 D.3.3.4), where the requestor stays SCU
/// and never becomes SCP, and the storage service's extended negotiation (PS3.4 B.3.1).
/// Asynchronous operations and user identity are accepted by silence, which means one operation at
/// a time and no acknowledged identity (PS3.7 D.3.3.3, D.3.3.7).
fn answers<'a>(
    items: &'a [UserVariableItem],
    contexts: &'a HashMap<u8, Context>,
) -> impl Iterator<Item = UserVariableItem> + 'a {
    let accepted = |uid: &str, kind: Option<Kind>| {
        contexts.values().any(|context| {
            context.abstract_syntax.as_str() == trim(uid)
                && kind.is_none_or(|kind| kind == context.kind)
        })
    };
    items.iter().filter_map(move |item| match item {
        UserVariableItem::ScuScpRoleSelectionSubItem(uid, roles) if accepted(uid, None) => {
            let roles = RequestorRoles {
                scu: roles.scu,
                scp: false,
            };
            Some(UserVariableItem::ScuScpRoleSelectionSubItem(
                uid.clone(),
                roles,
            ))
        }
        UserVariableItem::SopClassExtendedNegotiationSubItem(uid, _)
            if accepted(uid, Some(Kind::Storage)) =>
        {
            let information = STORAGE_SCP_INFORMATION.to_vec();
            Some(UserVariableItem::SopClassExtendedNegotiationSubItem(
                uid.clone(),
                information,
            ))
        }
        _ => None,
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
            user_variables: vec![UserVariableItem::MaxLength(16384)],
        }
    }

    fn agreed(request: AssociationRQ, config: &Config) -> Agreement {
        let titles = admit(&request, config).unwrap();
        agree(request, &titles, config, true).unwrap()
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
        let offered = agree(proposal(), &titles, &config, true).unwrap();
        assert_eq!(offered.contexts[&1].transfer_syntax.uid, EXPLICIT);
        let not_offered = agree(proposal(), &titles, &config, false).unwrap();
        assert_eq!(
            reasons(&not_offered),
            [PresentationContextResultReason::AbstractSyntaxNotSupported]
        );
        // Its requestor is the SCU; whoever proposes more is told so (PS3.4 J.3.1).
        let mut both = proposal();
        let roles = |scp| {
            let roles = RequestorRoles { scu: true, scp };
            UserVariableItem::ScuScpRoleSelectionSubItem(STORAGE_COMMITMENT.into(), roles)
        };
        both.user_variables.push(roles(true));
        let agreement = agree(both, &titles, &config, true).unwrap();
        assert!(agreement.reply.user_variables.contains(&roles(false)));
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
            let agreement = agree(request, &titles, &config, true);
            assert!(agreement.is_err(), "{ids:?}");
        }
    }

    #[test]
    fn the_peers_maximum_length_is_read_with_its_special_values() {
        let length = |value| peer_max_pdu_length(&[UserVariableItem::MaxLength(value)]);
        assert_eq!(length(0).unwrap(), u32::MAX);
        assert_eq!(length(8).unwrap(), 8);
        assert!(length(1).is_err());
        assert_eq!(peer_max_pdu_length(&[]).unwrap(), DEFAULT_MAX_PDU_LENGTH);
    }

    #[test]
    fn the_requestor_never_becomes_scp_and_learns_our_level_of_storage() {
        let mut proposal = request(&[(1, CT, &[EXPLICIT])]);
        proposal.user_variables.extend([
            UserVariableItem::ScuScpRoleSelectionSubItem(
                CT.into(),
                RequestorRoles {
                    scu: true,
                    scp: true,
                },
            ),
            UserVariableItem::SopClassExtendedNegotiationSubItem(CT.into(), vec![2, 0, 3, 0, 1, 0]),
            UserVariableItem::SopClassExtendedNegotiationSubItem("1.2.3".into(), vec![1]),
        ]);
        let agreement = agreed(proposal, &Config::default());
        assert_eq!(
            agreement.reply.user_variables[3..],
            [
                UserVariableItem::ScuScpRoleSelectionSubItem(
                    CT.into(),
                    RequestorRoles {
                        scu: true,
                        scp: false
                    }
                ),
                UserVariableItem::SopClassExtendedNegotiationSubItem(
                    CT.into(),
                    vec![2, 0, 1, 0, 0, 0]
                ),
            ]
        );
    }
}
