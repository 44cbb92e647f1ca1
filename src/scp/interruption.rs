//! Everything that ends an association before or instead of its next message.

use std::io;

use crate::dicom::command::CommandError;

/// Why no further message comes. Orderly ends and faults share one type, so that a reader in the
/// middle of a message needs a single `?` for all of them.
#[derive(Debug, thiserror::Error)]
pub enum Interruption {
    /// The peer asked to release the association.
    #[error("association released")]
    Released,
    /// The peer sent A-ABORT.
    #[error("association aborted by the peer")]
    AbortedByPeer,
    /// The peer closed the connection between two PDUs.
    #[error("connection closed by the peer")]
    Closed,
    /// The peer closed the connection inside a PDU.
    #[error("connection closed inside a PDU")]
    Truncated,
    /// A deadline passed while waiting for the peer.
    #[error("peer was too slow: {0}")]
    TimedOut(&'static str),
    /// The connection failed.
    #[error("connection failed")]
    Io(#[source] io::Error),
    /// We are shutting down.
    #[error("gateway is draining")]
    Draining,
    /// A PDU of a type the standard does not know.
    #[error("PDU of unknown type {0:02X}H")]
    UnrecognizedPdu(u8),
    /// A PDU that has no place here.
    #[error("PDU of type {0:02X}H is not allowed here")]
    UnexpectedPdu(u8),
    /// A PDU longer than we offered, or than its type can be.
    #[error("PDU of type {kind:02X}H has an invalid length of {length} bytes")]
    PduLength {
        /// The PDU type.
        kind: u8,
        /// The length in its header.
        length: u32,
    },
    /// A presentation data value that does not fit its PDU.
    #[error("presentation data value has an invalid length of {0} bytes")]
    PdvLength(u32),
    /// The association request cannot be read or contradicts itself.
    #[error("association request is malformed: {0}")]
    Request(&'static str),
    /// A presentation context that was not accepted, or a change of context within a message.
    #[error("presentation context {0} is not usable here")]
    PresentationContext(u8),
    /// Data set fragments without a command, or command fragments within a data set.
    #[error("fragment of the wrong kind")]
    FragmentKind,
    /// A command set that is too long.
    #[error("command set is too long")]
    CommandTooLong,
    /// A command set that cannot be read.
    #[error("command set cannot be read")]
    Command(#[source] CommandError),
    /// A command that can be neither performed nor answered.
    #[error("command {0:04X}H cannot be answered")]
    Unanswerable(u16),
    /// A data set that goes on and on after it was refused.
    #[error("refused data set does not end")]
    EndlessDataSet,
}

/// Source of an A-ABORT (PS3.8 9.3.8): the service user, who has its own reasons, or the service
/// provider, our upper layer.
const SERVICE_USER: u8 = 0;
const SERVICE_PROVIDER: u8 = 2;
const NOT_SPECIFIED: u8 = 0;
const UNRECOGNIZED_PDU: u8 = 1;
const UNEXPECTED_PDU: u8 = 2;
const INVALID_PARAMETER: u8 = 6;

impl Interruption {
    /// Source and reason of the A-ABORT we owe the peer of an association; `None` when nothing is to
    /// be said, because the peer ended the association or is gone. Our own decisions are the service
    /// user's (AA-1 of PS3.8 Table 9-9), what breaks the protocol is the service provider's (AA-8).
    pub const fn abort(&self) -> Option<(u8, u8)> {
        Some(match self {
            Self::Released | Self::AbortedByPeer | Self::Closed | Self::Truncated | Self::Io(_) => {
                return None;
            }
            Self::TimedOut(_) | Self::Draining | Self::EndlessDataSet => {
                (SERVICE_USER, NOT_SPECIFIED)
            }
            Self::UnrecognizedPdu(_) => (SERVICE_PROVIDER, UNRECOGNIZED_PDU),
            Self::UnexpectedPdu(_) | Self::FragmentKind | Self::Unanswerable(_) => {
                (SERVICE_PROVIDER, UNEXPECTED_PDU)
            }
            Self::PduLength { .. }
            | Self::PdvLength(_)
            | Self::Request(_)
            | Self::PresentationContext(_)
            | Self::CommandTooLong
            | Self::Command(_) => (SERVICE_PROVIDER, INVALID_PARAMETER),
        })
    }

    /// The same while the association is still to be requested (Sta2). Whatever comes instead of a
    /// request ends it with the service user as source, which has no reason (AA-1), and silence ends
    /// it in silence (AA-2).
    pub const fn abort_without_association(&self) -> Option<(u8, u8)> {
        match self {
            Self::TimedOut(_) => None,
            other => match other.abort() {
                Some(_) => Some((SERVICE_USER, NOT_SPECIFIED)),
                None => None,
            },
        }
    }

    /// How the association ended, as a metric label.
    pub const fn result(&self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::AbortedByPeer => "aborted-by-peer",
            Self::Closed | Self::Truncated | Self::Io(_) => "connection-lost",
            Self::TimedOut(_) => "timed-out",
            Self::Draining => "drained",
            _ => "aborted-by-us",
        }
    }

    /// What an operator may not think of.
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            // The content type of a TLS handshake (RFC 8446 5.1).
            Self::UnrecognizedPdu(0x16) => Some("speaks TLS, for which there is dicom.tls.bind"),
            _ => None,
        }
    }

    /// Which rule of the protocol the peer broke, as a metric label; `None` when it broke none.
    pub const fn violation(&self) -> Option<&'static str> {
        Some(match self {
            Self::UnrecognizedPdu(_) => "unrecognized-pdu",
            Self::UnexpectedPdu(_) => "unexpected-pdu",
            Self::PduLength { .. } => "pdu-length",
            Self::PdvLength(_) => "pdv-length",
            Self::Request(_) => "association-request",
            Self::PresentationContext(_) => "presentation-context",
            Self::FragmentKind => "fragment-kind",
            Self::CommandTooLong => "command-length",
            Self::Command(_) => "command-set",
            Self::Unanswerable(_) => "unanswerable-command",
            Self::EndlessDataSet => "endless-data-set",
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_abort_reason_follows_the_standard() {
        for (interruption, abort) in [
            (Interruption::Released, None),
            (Interruption::Closed, None),
            (Interruption::UnrecognizedPdu(0x47), Some((2, 1))),
            (Interruption::UnexpectedPdu(2), Some((2, 2))),
            (
                Interruption::PduLength {
                    kind: 4,
                    length: u32::MAX,
                },
                Some((2, 6)),
            ),
            (Interruption::PdvLength(1), Some((2, 6))),
            (Interruption::PresentationContext(3), Some((2, 6))),
            (Interruption::TimedOut("test"), Some((0, 0))),
            (Interruption::Draining, Some((0, 0))),
        ] {
            assert_eq!(interruption.abort(), abort, "{interruption}");
        }
        let before = Interruption::UnrecognizedPdu(0x47).abort_without_association();
        assert_eq!(before, Some((0, 0)));
        let silent = Interruption::TimedOut("test").abort_without_association();
        assert_eq!(silent, None);
    }

    #[test]
    fn an_orderly_end_is_no_violation() {
        assert_eq!(Interruption::Released.violation(), None);
        assert_eq!(Interruption::Draining.violation(), None);
        assert_eq!(Interruption::PdvLength(0).violation(), Some("pdv-length"));
    }
}
