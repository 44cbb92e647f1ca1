//! User information of an association request and our answers to it (PS3.7 Annex D.3.3).
//!
//! Read from the bytes, not with dicom-ul, which knows not all sub-items and believes the lengths
//! inside of them. What nobody knows is ignored; what is known and cannot be read ends the request.
//! A user identity is looked at just enough to answer it, and nothing of it is kept or logged.

use std::collections::HashMap;

use dicom_ul::pdu::{RequestorRoles, UserVariableItem};

use super::config::{Config, UserIdentity};
use super::interruption::Interruption;
use super::items::{counted, items};
use super::negotiation::Context;
use crate::dicom::sop_class::Kind;
use crate::dicom::{IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME};

/// Maximum length that a requestor receives when it does not say (PS3.8 Annex D.1 leaves it open;
/// this is the common default).
const DEFAULT_MAX_PDU_LENGTH: u32 = 16_384;

/// Smallest maximum length that a fragment of two bytes fits into.
const SMALLEST_MAX_PDU_LENGTH: u32 = 8;

/// Most operations that a requestor may have outstanding. They are performed one after the other
/// and what waits stays with the peer, so the number costs us nothing; it is there because the
/// standard's "unlimited" is no promise to make.
const MAX_OPERATIONS_INVOKED: u16 = 64;

/// Operations that we have outstanding at a requestor.
const MAX_OPERATIONS_PERFORMED: u16 = 1;

/// Storage SCP, Level 2 (Full), digital signatures unspecified as we change nothing, no coercion:
/// the service-class-application-information of PS3.4 B.3.1.
const STORAGE_SCP_INFORMATION: [u8; 6] = [2, 0, 1, 0, 0, 0];

/// The Storage Service Class (PS3.6 Table A-1), as the service class of a SOP class.
const STORAGE_SERVICE_CLASS: &str = "1.2.840.10008.4.2";

/// Sub-item types (PS3.7 D.3.3, PS3.8 D.1).
const MAXIMUM_LENGTH: u8 = 0x51;
const ASYNCHRONOUS_OPERATIONS_WINDOW: u8 = 0x53;
const ROLE_SELECTION: u8 = 0x54;
const EXTENDED_NEGOTIATION: u8 = 0x56;
const COMMON_EXTENDED_NEGOTIATION: u8 = 0x57;
const USER_IDENTITY: u8 = 0x58;
const USER_IDENTITY_RESPONSE: u8 = 0x59;

/// What a requestor says and asks for besides its presentation contexts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct UserInformation {
    max_length: Option<u32>,
    /// Proposed maximum number of operations invoked; zero: unlimited.
    operations_invoked: Option<u16>,
    /// SOP classes with the SCU role that is proposed for the requestor.
    roles: Vec<(String, bool)>,
    /// SOP classes with extended negotiation.
    extended: Vec<String>,
    /// SOP classes with the service class that they belong to.
    services: Vec<(String, String)>,
    /// A username, with or without passcode, that wants to be acknowledged.
    username_wants_answer: bool,
}

impl UserInformation {
    /// Adds the sub-items of a user information item.
    ///
    /// # Errors
    /// [`Interruption::Request`]: a known sub-item does not have its form.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(), Interruption> {
        for item in items(bytes) {
            item.and_then(|item| self.read_item(item.kind, item.contents))
                .ok_or(Interruption::Request("user information cannot be read"))?;
        }
        Ok(())
    }

    fn read_item(&mut self, kind: u8, bytes: &[u8]) -> Option<()> {
        match kind {
            MAXIMUM_LENGTH => self.max_length = Some(u32::from_be_bytes(bytes.try_into().ok()?)),
            ASYNCHRONOUS_OPERATIONS_WINDOW => {
                let &[high, low, _, _] = bytes else {
                    return None;
                };
                self.operations_invoked = Some(u16::from_be_bytes([high, low]));
            }
            ROLE_SELECTION => {
                let (uid, roles) = counted(bytes)?;
                let &[scu, _] = roles else {
                    return None;
                };
                self.roles.push((text(uid), scu != 0));
            }
            EXTENDED_NEGOTIATION => self.extended.push(text(counted(bytes)?.0)),
            COMMON_EXTENDED_NEGOTIATION => {
                let (uid, rest) = counted(bytes)?;
                let (service, rest) = counted(rest)?;
                // Related general SOP classes: nothing depends on them, as nothing is coerced.
                counted(rest)?;
                self.services.push((text(uid), text(service)));
            }
            USER_IDENTITY => {
                let (&[kind, response_requested], rest) = bytes.split_first_chunk()?;
                let (_, rest) = counted(rest)?;
                counted(rest)?;
                // The answer to a ticket, an assertion or a token (types 3 to 5) has contents that
                // only who verified it can give.
                self.username_wants_answer = matches!(kind, 1 | 2) && response_requested == 1;
            }
            _ => {}
        }
        Some(())
    }

    /// Longest P-DATA-TF the peer takes; `u32::MAX` when it sets no limit. The last Maximum Length
    /// counts; zero means no limit (PS3.8 D.1).
    ///
    /// # Errors
    /// [`Interruption::Request`]: no fragment would fit.
    pub(super) fn peer_max_pdu_length(&self) -> Result<u32, Interruption> {
        match self.max_length.unwrap_or(DEFAULT_MAX_PDU_LENGTH) {
            0 => Ok(u32::MAX),
            length if length < SMALLEST_MAX_PDU_LENGTH => Err(Interruption::Request(
                "maximum length leaves no room for data",
            )),
            length => Ok(length),
        }
    }

    /// Whether the requestor calls a SOP class a storage class (PS3.7 D.3.3.6); `None`: it does not
    /// say what it is.
    pub(super) fn is_storage(&self, sop_class: &str) -> Option<bool> {
        let (_, service) = self.services.iter().find(|(uid, _)| uid == sop_class)?;
        Some(service == STORAGE_SERVICE_CLASS)
    }

    /// The user information of our answer: who we are, and for each SOP class that was accepted the
    /// role (D.3.3.4: the requestor never becomes SCP) and our level of storage (PS3.4 B.3.1).
    pub(super) fn answer(
        &self,
        contexts: &HashMap<u8, Context>,
        config: &Config,
    ) -> Vec<UserVariableItem> {
        let mut answer = vec![
            UserVariableItem::MaxLength(config.max_pdu_length),
            UserVariableItem::ImplementationClassUID(IMPLEMENTATION_CLASS_UID.to_owned()),
        ];
        if let Some(proposed) = self.operations_invoked {
            let invoked = match proposed {
                0 => MAX_OPERATIONS_INVOKED,
                some => some.min(MAX_OPERATIONS_INVOKED),
            };
            let window = [invoked, MAX_OPERATIONS_PERFORMED].map(u16::to_be_bytes);
            answer.push(UserVariableItem::Unknown(
                ASYNCHRONOUS_OPERATIONS_WINDOW,
                window.concat(),
            ));
        }
        answer.push(UserVariableItem::ImplementationVersionName(
            IMPLEMENTATION_VERSION_NAME.to_owned(),
        ));
        // By accepted class, so that the answer is bounded whatever was asked, and however often.
        let mut accepted: Vec<(&str, Kind)> = contexts
            .values()
            .map(|context| (context.abstract_syntax.as_str(), context.kind))
            .collect();
        accepted.sort_unstable_by_key(|(uid, _)| *uid);
        accepted.dedup_by_key(|(uid, _)| *uid);
        for (uid, kind) in accepted {
            if let Some((_, scu)) = self.roles.iter().find(|(class, _)| class == uid) {
                let roles = RequestorRoles {
                    scu: *scu,
                    scp: false,
                };
                answer.push(UserVariableItem::ScuScpRoleSelectionSubItem(
                    uid.to_owned(),
                    roles,
                ));
            }
            if kind == Kind::Storage && self.extended.iter().any(|class| class == uid) {
                answer.push(UserVariableItem::SopClassExtendedNegotiationSubItem(
                    uid.to_owned(),
                    STORAGE_SCP_INFORMATION.to_vec(),
                ));
            }
        }
        if self.username_wants_answer && config.user_identity == UserIdentity::Accept {
            // An empty server response, as both kinds of username have (D.3.3.7.2).
            answer.push(UserVariableItem::Unknown(
                USER_IDENTITY_RESPONSE,
                vec![0; 2],
            ));
        }
        answer
    }
}

/// A UID without padding. UIDs in association PDUs are not padded (PS3.8 Annex F), but some senders
/// pad them all the same. Bytes that are no text match no UID.
fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim_matches(['\0', ' ']).to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::dicom::{SopClassUid, TransferSyntax};

    const CT: &str = "1.2.840.10008.5.1.4.1.1.2";

    fn item(kind: u8, contents: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind, 0];
        bytes.extend(u16::try_from(contents.len()).unwrap().to_be_bytes());
        bytes.extend(contents);
        bytes
    }

    fn counted(text: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend(text);
        bytes
    }

    fn read(items: &[Vec<u8>]) -> Result<UserInformation, Interruption> {
        let mut user = UserInformation::default();
        user.read(&items.concat()).map(|()| user)
    }

    /// What we answer to these sub-items besides who we are, with CT accepted.
    fn answers(items: &[Vec<u8>], config: &Config) -> Vec<UserVariableItem> {
        let context = Context {
            abstract_syntax: SopClassUid::parse(CT).unwrap(),
            kind: Kind::Storage,
            transfer_syntax: TransferSyntax::lookup("1.2.840.10008.1.2.1").unwrap(),
        };
        let contexts = HashMap::from([(1, context.clone()), (3, context)]);
        let mut answer = read(items).unwrap().answer(&contexts, config);
        answer.retain(|item| {
            !matches!(
                item,
                UserVariableItem::MaxLength(_)
                    | UserVariableItem::ImplementationClassUID(_)
                    | UserVariableItem::ImplementationVersionName(_)
            )
        });
        answer
    }

    #[test]
    fn the_peers_maximum_length_is_read_with_its_special_values() {
        let length = |value: u32| {
            let user = read(&[item(0x51, &value.to_be_bytes())]).unwrap();
            user.peer_max_pdu_length()
        };
        assert_eq!(length(0).unwrap(), u32::MAX);
        assert_eq!(length(8).unwrap(), 8);
        assert!(length(7).is_err());
        let silent = UserInformation::default().peer_max_pdu_length().unwrap();
        assert_eq!(silent, DEFAULT_MAX_PDU_LENGTH);
    }

    #[test]
    fn the_requestor_never_becomes_scp_and_learns_our_level_of_storage_once() {
        let role = |uid: &str, roles: [u8; 2]| {
            item(0x54, &[&counted(uid.as_bytes())[..], &roles].concat())
        };
        let extended = |uid: &str| {
            item(
                0x56,
                &[&counted(uid.as_bytes())[..], &[2, 0, 3, 0, 1, 0]].concat(),
            )
        };
        let asked = [
            role("1.2.3", [1, 1]),
            role(CT, [1, 1]),
            role(CT, [0, 1]),
            extended(CT),
            extended(CT),
            extended("1.2.3"),
        ];
        let roles = RequestorRoles {
            scu: true,
            scp: false,
        };
        assert_eq!(
            answers(&asked, &Config::default()),
            [
                UserVariableItem::ScuScpRoleSelectionSubItem(CT.into(), roles),
                UserVariableItem::SopClassExtendedNegotiationSubItem(
                    CT.into(),
                    vec![2, 0, 1, 0, 0, 0]
                ),
            ]
        );
    }

    #[test]
    fn a_window_is_answered_with_a_bound_and_never_with_unlimited() {
        for (asked, invoked) in [
            (0, 64),
            (1, 1),
            (63, 63),
            (64, 64),
            (65, 64),
            (u16::MAX, 64),
        ] {
            for performed in [0_u16, 1, 9] {
                let window = [asked, performed].map(u16::to_be_bytes).concat();
                assert_eq!(
                    answers(&[item(0x53, &window)], &Config::default()),
                    [UserVariableItem::Unknown(0x53, vec![0, invoked, 0, 1])]
                );
            }
        }
        assert!(answers(&[], &Config::default()).is_empty());
    }

    #[test]
    fn a_username_is_acknowledged_by_policy_and_nothing_else_is() {
        let identity = |kind: u8, wants: u8| {
            let fields = [&[kind, wants][..], &counted(b"name"), &counted(b"word")];
            item(0x58, &fields.concat())
        };
        let ignore = Config::default();
        let accept = Config {
            user_identity: UserIdentity::Accept,
            ..Config::default()
        };
        let acknowledged = [UserVariableItem::Unknown(0x59, vec![0, 0])];
        for kind in 0..=6 {
            assert!(answers(&[identity(kind, 1)], &ignore).is_empty());
            assert!(answers(&[identity(kind, 0)], &accept).is_empty());
            let answer = answers(&[identity(kind, 1)], &accept);
            assert_eq!(answer == acknowledged, kind == 1 || kind == 2, "{kind}");
        }
    }

    #[test]
    fn a_private_class_may_say_what_it_is_for() {
        let common = |service: &str| {
            let related = counted(&counted(CT.as_bytes()));
            let fields = [counted(b"1.2.3\0"), counted(service.as_bytes()), related];
            item(0x57, &fields.concat())
        };
        let said = |service| read(&[common(service)]).unwrap().is_storage("1.2.3");
        assert_eq!(said("1.2.840.10008.4.2"), Some(true));
        assert_eq!(said("1.2.840.10008.4.1"), Some(false));
        assert_eq!(UserInformation::default().is_storage("1.2.3"), None);
    }

    #[test]
    fn what_nobody_knows_is_ignored_and_what_is_known_must_have_its_form() {
        let unknown = item(0x77, &[0xff; 300]);
        assert_eq!(read(&[unknown]).unwrap(), UserInformation::default());
        for (kind, contents) in [
            (0x51, &[0, 0, 0x40][..]),
            (0x53, &[0, 1, 0, 1, 0]),
            (0x54, &[0, 1, b'1', 1]),
            (0x54, &[0, 9, b'1', 1, 0]),
            (0x56, &[0, 2, b'1']),
            (0x57, &[0, 1, b'1', 0, 1, b'2']),
            (0x58, &[1]),
            (0x58, &[1, 0, 0, 1, b'n', 0, 9]),
        ] {
            assert!(
                read(&[item(kind, contents)]).is_err(),
                "{kind:02X}H {contents:?}"
            );
        }
        assert!(read(&[vec![0x51, 0, 0]]).is_err());
    }
}
