//! Saying no to an association request (PS3.8 section 9.3.4).
//!
//! The difference between permanent and transient matters to a modality: it gives up on the first
//! and tries again after the second. Whatever passes by itself, such as our load, is transient.

use dicom_ul::pdu::{
    AssociationRJ, AssociationRJResult, AssociationRJServiceProviderASCEReason,
    AssociationRJServiceProviderPresentationReason, AssociationRJServiceUserReason,
    AssociationRJSource,
};

use super::admission::Limit;

/// Why an association is rejected (PS3.8 Table 9-21). The transient ones ask the peer to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rejection {
    ProtocolVersion,
    ApplicationContext,
    CalledAeTitle,
    CallingAeTitle,
    /// The calling AE title may not come from this address.
    Address,
    /// The calling AE title may not come with this certificate, or without one.
    Certificate,
    /// Too many associations.
    LocalLimit(Limit),
    /// Draining, or the spool takes no more.
    Congestion,
}

impl Rejection {
    /// The reason as a metric label.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::ProtocolVersion => "protocol-version",
            Self::ApplicationContext => "application-context",
            Self::CalledAeTitle => "called-ae-title",
            Self::CallingAeTitle => "calling-ae-title",
            Self::Address => "address",
            Self::Certificate => "certificate",
            Self::LocalLimit(Limit::Total) => "local-limit",
            Self::LocalLimit(Limit::Address) => "local-limit-address",
            Self::LocalLimit(Limit::Title) => "local-limit-ae-title",
            Self::Congestion => "congestion",
        }
    }

    /// The A-ASSOCIATE-RJ that says so.
    pub(super) fn pdu(self) -> AssociationRJ {
        use AssociationRJServiceProviderASCEReason as Acse;
        use AssociationRJServiceProviderPresentationReason as Presentation;
        use AssociationRJServiceUserReason as User;
        let (result, source) = match self {
            Self::ProtocolVersion => (
                AssociationRJResult::Permanent,
                AssociationRJSource::ServiceProviderASCE(Acse::ProtocolVersionNotSupported),
            ),
            Self::ApplicationContext => (
                AssociationRJResult::Permanent,
                AssociationRJSource::ServiceUser(User::ApplicationContextNameNotSupported),
            ),
            Self::CalledAeTitle => (
                AssociationRJResult::Permanent,
                AssociationRJSource::ServiceUser(User::CalledAETitleNotRecognized),
            ),
            Self::CallingAeTitle | Self::Address | Self::Certificate => (
                AssociationRJResult::Permanent,
                AssociationRJSource::ServiceUser(User::CallingAETitleNotRecognized),
            ),
            Self::LocalLimit(_) => (
                AssociationRJResult::Transient,
                AssociationRJSource::ServiceProviderPresentation(Presentation::LocalLimitExceeded),
            ),
            Self::Congestion => (
                AssociationRJResult::Transient,
                AssociationRJSource::ServiceProviderPresentation(Presentation::TemporaryCongestion),
            ),
        };
        AssociationRJ { result, source }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn the_rejection_pdu_carries_result_source_and_reason() {
        for (rejection, bytes) in [
            (Rejection::ProtocolVersion, [1, 2, 2]),
            (Rejection::ApplicationContext, [1, 1, 2]),
            (Rejection::CalledAeTitle, [1, 1, 7]),
            (Rejection::CallingAeTitle, [1, 1, 3]),
            (Rejection::Address, [1, 1, 3]),
            (Rejection::Certificate, [1, 1, 3]),
            (Rejection::LocalLimit(Limit::Title), [2, 3, 2]),
            (Rejection::Congestion, [2, 3, 1]),
        ] {
            let mut pdu = Vec::new();
            dicom_ul::pdu::write_pdu(&mut pdu, &dicom_ul::Pdu::AssociationRJ(rejection.pdu()))
                .unwrap();
            assert_eq!(pdu[7..10], bytes, "{rejection:?}");
        }
    }
}
