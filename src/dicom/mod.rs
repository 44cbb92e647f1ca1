//! The DICOM standard's value types: checked identifiers, tables and codecs.
//!
//! Nothing here opens a socket or a file of its own accord. A peer's text becomes one of these
//! types at the edge (`parse`), and only the type travels inward, so no path, log line or routing
//! key is ever built from unchecked bytes.

pub mod ae_title;
pub mod command;
pub mod dataset;
pub mod file_meta;
pub mod modality;
pub mod sop_class;
pub mod status;
pub mod transfer_syntax;
pub mod uid;

pub use ae_title::AeTitle;
pub use file_meta::FileMeta;
pub use status::Status;
pub use transfer_syntax::TransferSyntax;
pub use uid::{
    SeriesInstanceUid, SopClassUid, SopInstanceUid, StudyInstanceUid, TransferSyntaxUid, Uid,
};

/// Application context name of every DICOM association (PS3.7 Annex A.2.1).
pub const APPLICATION_CONTEXT_NAME: &str = "1.2.840.10008.3.1.1.1";

/// Verification SOP Class, the C-ECHO service (PS3.4 A.4).
pub const VERIFICATION: &str = "1.2.840.10008.1.1";

/// Storage Commitment Push Model SOP Class (PS3.4 J.3).
pub const STORAGE_COMMITMENT: &str = "1.2.840.10008.1.20.1";

/// The well-known SOP Instance of the Storage Commitment Push Model (PS3.4 J.3.5).
pub const STORAGE_COMMITMENT_INSTANCE: &str = "1.2.840.10008.1.20.1.1";

/// Modality Performed Procedure Step SOP Class (PS3.4 F.7).
pub const PROCEDURE_STEP: &str = "1.2.840.10008.3.1.2.3.3";

/// Study Root Query/Retrieve Information Model - FIND (PS3.4 C.6.2).
pub const STUDY_ROOT_FIND: &str = "1.2.840.10008.5.1.4.1.2.2.1";

/// Implementation Class UID of this gateway (PS3.7 D.3.3.2), a UUID-derived UID (PS3.5 B.2).
///
/// It names the implementation, not a release: it stays the same while the way we encode stays the
/// same, and also goes into the file meta information of every file we write (PS3.10 7.1).
pub const IMPLEMENTATION_CLASS_UID: &str = "2.25.213484134958979954026933913268068716924";

/// Implementation Version Name of this gateway, 1 to 16 characters (PS3.7 D.3.3.2).
pub const IMPLEMENTATION_VERSION_NAME: &str = concat!("PACSGW_", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn our_implementation_identifiers_obey_the_standard() {
        assert!(Uid::parse(IMPLEMENTATION_CLASS_UID).is_ok());
        assert!((1..=16).contains(&IMPLEMENTATION_VERSION_NAME.len()));
        assert!(Uid::parse(APPLICATION_CONTEXT_NAME).is_ok());
    }
}
