//! Log lines that any peer can cause as often as it likes: a port scan, a sender that is turned away
//! and tries again at once.

use crate::telemetry::Budget;

/// The budgets, one per kind of line, so that one kind cannot silence another.
#[derive(Debug, Default)]
pub(super) struct Chatter {
    /// Connections that do not speak DICOM.
    pub(super) strangers: Budget,
    /// Associations that were rejected.
    pub(super) rejections: Budget,
    /// Associations that broke the protocol.
    pub(super) violations: Budget,
    /// Connections from addresses that may not connect.
    pub(super) addresses: Budget,
    /// TLS handshakes that failed.
    pub(super) handshakes: Budget,
    /// Connections that the system could not give us.
    pub(super) accepting: Budget,
}
