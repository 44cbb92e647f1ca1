//! The transfer syntaxes whose data sets we can keep (PS3.5 section 10, PS3.6 Table A-1).
//!
//! "Keep" means: the data set arrives whole, so the bytes on disk are the instance. Left out are
//! JPIP (the pixels stay at an URL that we would have to fetch), SMPTE ST 2110 (real-time streams),
//! and the retired MIME and XML encodings. Whether pixels can be *decoded* is another question,
//! asked later.

/// How attributes are written (PS3.5 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VrEncoding {
    /// The value representation follows from the tag alone.
    Implicit,
    /// The value representation is written with each attribute.
    Explicit,
}

/// Byte order of numbers (PS3.5 7.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteOrder {
    /// Least significant byte first.
    Little,
    /// Most significant byte first.
    Big,
}

/// What happened to the pixels of an encapsulated transfer syntax.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not compressed.
    None,
    /// The stored pixel values come back exactly.
    Lossless,
    /// The stored pixel values may have changed.
    Lossy,
    /// A video stream: frames depend on each other.
    Video,
}

/// One transfer syntax.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferSyntax {
    /// The Transfer Syntax UID.
    pub uid: &'static str,
    /// Its name in PS3.6 Table A-1.
    pub name: &'static str,
    /// Implicit or explicit value representation.
    pub vr: VrEncoding,
    /// Byte order of the data set (PS3.5 7.3).
    pub byte_order: ByteOrder,
    /// The whole data set is a raw deflate stream (PS3.5 A.5).
    pub deflated: bool,
    /// Pixel Data is a sequence of fragments (PS3.5 A.4).
    pub encapsulated: bool,
    /// What happened to the pixels.
    pub compression: Compression,
    /// Retired from the standard: still received, never created.
    pub retired: bool,
}

impl TransferSyntax {
    /// Looks a transfer syntax up by its UID (without padding). `None`: we cannot keep such a data
    /// set, so it must not be accepted.
    pub fn lookup(uid: &str) -> Option<&'static TransferSyntax> {
        ALL.iter().find(|syntax| syntax.uid == uid)
    }

    /// All transfer syntaxes we can keep.
    pub fn all() -> &'static [TransferSyntax] {
        ALL
    }

    /// True when the attributes are written with explicit value representation.
    pub fn is_explicit(&self) -> bool {
        self.vr == VrEncoding::Explicit
    }

    /// True when numbers are written least significant byte first.
    pub fn is_little_endian(&self) -> bool {
        self.byte_order == ByteOrder::Little
    }
}

/// Implicit VR Little Endian, which every proposer offers (PS3.5 10.1).
pub const IMPLICIT_VR_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2";

/// Explicit VR Little Endian.
pub const EXPLICIT_VR_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2.1";

/// GE's private syntax: an Implicit VR Little Endian data set whose Pixel Data is big-endian. Old
/// scanners still propose it; the bytes are kept as they come.
pub const GE_IMPLICIT_VR_BIG_ENDIAN_PIXELS: &str = "1.2.840.113619.5.2";

const fn plain(
    uid: &'static str,
    name: &'static str,
    vr: VrEncoding,
    byte_order: ByteOrder,
) -> TransferSyntax {
    TransferSyntax {
        uid,
        name,
        vr,
        byte_order,
        deflated: false,
        encapsulated: false,
        compression: Compression::None,
        retired: false,
    }
}

// Every encapsulated syntax is Explicit VR Little Endian (PS3.5 A.4).
const fn encapsulated(
    uid: &'static str,
    name: &'static str,
    compression: Compression,
    retired: bool,
) -> TransferSyntax {
    TransferSyntax {
        encapsulated: true,
        compression,
        retired,
        ..plain(uid, name, VrEncoding::Explicit, ByteOrder::Little)
    }
}

#[rustfmt::skip]
const ALL: &[TransferSyntax] = &[
    plain(IMPLICIT_VR_LITTLE_ENDIAN, "Implicit VR Little Endian", VrEncoding::Implicit, ByteOrder::Little),
    plain(EXPLICIT_VR_LITTLE_ENDIAN, "Explicit VR Little Endian", VrEncoding::Explicit, ByteOrder::Little),
    encapsulated("1.2.840.10008.1.2.1.98", "Encapsulated Uncompressed Explicit VR Little Endian", Compression::None, false),
    TransferSyntax { deflated: true, ..plain("1.2.840.10008.1.2.1.99", "Deflated Explicit VR Little Endian", VrEncoding::Explicit, ByteOrder::Little) },
    TransferSyntax { retired: true, ..plain("1.2.840.10008.1.2.2", "Explicit VR Big Endian", VrEncoding::Explicit, ByteOrder::Big) },
    encapsulated("1.2.840.10008.1.2.4.50", "JPEG Baseline (Process 1)", Compression::Lossy, false),
    encapsulated("1.2.840.10008.1.2.4.51", "JPEG Extended (Process 2 and 4)", Compression::Lossy, false),
    encapsulated("1.2.840.10008.1.2.4.52", "JPEG Extended (Process 3 and 5)", Compression::Lossy, true),
    encapsulated("1.2.840.10008.1.2.4.53", "JPEG Spectral Selection, Non-Hierarchical (Process 6 and 8)", Compression::Lossy, true),
    encapsulated("1.2.840.10008.1.2.4.54", "JPEG Spectral Selection, Non-Hierarchical (Process 7 and 9)", Compression::Lossy, true),
    encapsulated("1.2.840.10008.1.2.4.55", "JPEG Full Progression, Non-Hierarchical (Process 10 and 12)", Compression::Lossy, true),
    encapsulated("1.2.840.10008.1.2.4.56", "JPEG Full Progression, Non-Hierarchical (Process 11 and 13)", Compression::Lossy, true),
    encapsulated("1.2.840.10008.1.2.4.57", "JPEG Lossless, Non-Hierarchical (Process 14)", Compression::Lossless, false),
    encapsulated("1.2.840.10008.1.2.4.58", "JPEG Lossless, Non-Hierarchical (Process 15)", Compression::Lossless, true),
    encapsulated("1.2.840.10008.1.2.4.59", "JPEG Extended, Hierarchical (Process 16 and 18)", Compression::Lossy, true),
    encapsulated("1.2.840.10008.1.2.4.60", "JPEG Extended, Hierarchical (Process 17 and 19)", Compression::Lossy, true),
    encapsulated("1.2.840.10008.1.2.4.61", "JPEG Spectral Selection, Hierarchical (Process 20 and 22)", Compression::Lossy, true),
    encapsulated("1.2.840.10008.1.2.4.62", "JPEG Spectral Selection, Hierarchical (Process 21 and 23)", Compression::Lossy, true),
    encapsulated("1.2.840.10008.1.2.4.63", "JPEG Full Progression, Hierarchical (Process 24 and 26)", Compression::Lossy, true),
    encapsulated("1.2.840.10008.1.2.4.64", "JPEG Full Progression, Hierarchical (Process 25 and 27)", Compression::Lossy, true),
    encapsulated("1.2.840.10008.1.2.4.65", "JPEG Lossless, Hierarchical (Process 28)", Compression::Lossless, true),
    encapsulated("1.2.840.10008.1.2.4.66", "JPEG Lossless, Hierarchical (Process 29)", Compression::Lossless, true),
    encapsulated("1.2.840.10008.1.2.4.70", "JPEG Lossless, Non-Hierarchical, First-Order Prediction (Process 14 [Selection Value 1])", Compression::Lossless, false),
    encapsulated("1.2.840.10008.1.2.4.80", "JPEG-LS Lossless Image Compression", Compression::Lossless, false),
    encapsulated("1.2.840.10008.1.2.4.81", "JPEG-LS Lossy (Near-Lossless) Image Compression", Compression::Lossy, false),
    encapsulated("1.2.840.10008.1.2.4.90", "JPEG 2000 Image Compression (Lossless Only)", Compression::Lossless, false),
    encapsulated("1.2.840.10008.1.2.4.91", "JPEG 2000 Image Compression", Compression::Lossy, false),
    encapsulated("1.2.840.10008.1.2.4.92", "JPEG 2000 Part 2 Multi-component Image Compression (Lossless Only)", Compression::Lossless, false),
    encapsulated("1.2.840.10008.1.2.4.93", "JPEG 2000 Part 2 Multi-component Image Compression", Compression::Lossy, false),
    encapsulated("1.2.840.10008.1.2.4.100", "MPEG2 Main Profile / Main Level", Compression::Video, false),
    encapsulated("1.2.840.10008.1.2.4.100.1", "Fragmentable MPEG2 Main Profile / Main Level", Compression::Video, false),
    encapsulated("1.2.840.10008.1.2.4.101", "MPEG2 Main Profile / High Level", Compression::Video, false),
    encapsulated("1.2.840.10008.1.2.4.101.1", "Fragmentable MPEG2 Main Profile / High Level", Compression::Video, false),
    encapsulated("1.2.840.10008.1.2.4.102", "MPEG-4 AVC/H.264 High Profile / Level 4.1", Compression::Video, false),
    encapsulated("1.2.840.10008.1.2.4.102.1", "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.1", Compression::Video, false),
    encapsulated("1.2.840.10008.1.2.4.103", "MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1", Compression::Video, false),
    encapsulated("1.2.840.10008.1.2.4.103.1", "Fragmentable MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1", Compression::Video, false),
    encapsulated("1.2.840.10008.1.2.4.104", "MPEG-4 AVC/H.264 High Profile / Level 4.2 For 2D Video", Compression::Video, false),
    encapsulated("1.2.840.10008.1.2.4.104.1", "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.2 For 2D Video", Compression::Video, false),
    encapsulated("1.2.840.10008.1.2.4.105", "MPEG-4 AVC/H.264 High Profile / Level 4.2 For 3D Video", Compression::Video, false),
    encapsulated("1.2.840.10008.1.2.4.105.1", "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.2 For 3D Video", Compression::Video, false),
    encapsulated("1.2.840.10008.1.2.4.106", "MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2", Compression::Video, false),
    encapsulated("1.2.840.10008.1.2.4.106.1", "Fragmentable MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2", Compression::Video, false),
    encapsulated("1.2.840.10008.1.2.4.107", "HEVC/H.265 Main Profile / Level 5.1", Compression::Video, false),
    encapsulated("1.2.840.10008.1.2.4.108", "HEVC/H.265 Main 10 Profile / Level 5.1", Compression::Video, false),
    encapsulated("1.2.840.10008.1.2.4.110", "JPEG XL Lossless", Compression::Lossless, false),
    encapsulated("1.2.840.10008.1.2.4.111", "JPEG XL JPEG Recompression", Compression::Lossy, false),
    encapsulated("1.2.840.10008.1.2.4.112", "JPEG XL", Compression::Lossy, false),
    encapsulated("1.2.840.10008.1.2.4.201", "High-Throughput JPEG 2000 Image Compression (Lossless Only)", Compression::Lossless, false),
    encapsulated("1.2.840.10008.1.2.4.202", "High-Throughput JPEG 2000 with RPCL Options Image Compression (Lossless Only)", Compression::Lossless, false),
    encapsulated("1.2.840.10008.1.2.4.203", "High-Throughput JPEG 2000 Image Compression", Compression::Lossy, false),
    encapsulated("1.2.840.10008.1.2.5", "RLE Lossless", Compression::Lossless, false),
    encapsulated("1.2.840.10008.1.2.8.1", "Deflated Image Frame Compression", Compression::Lossless, false),
    plain(GE_IMPLICIT_VR_BIG_ENDIAN_PIXELS, "GE Private Implicit VR Little Endian with Big Endian Pixel Data", VrEncoding::Implicit, ByteOrder::Little),
];

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::dicom::Uid;

    #[test]
    fn the_table_has_valid_uids_and_no_doubles() {
        for (at, syntax) in ALL.iter().enumerate() {
            assert!(Uid::parse(syntax.uid).is_ok(), "{}", syntax.uid);
            assert!(
                ALL.iter().skip(at + 1).all(|other| other.uid != syntax.uid),
                "{}",
                syntax.uid
            );
        }
    }

    #[test]
    fn the_encodings_that_differ_are_told_apart() {
        let find = |uid| TransferSyntax::lookup(uid).unwrap();
        assert!(!find("1.2.840.10008.1.2").is_explicit());
        assert!(!find("1.2.840.10008.1.2.2").is_little_endian());
        assert!(find("1.2.840.10008.1.2.1.99").deflated);
        assert!(!find("1.2.840.10008.1.2.8.1").deflated);
        assert!(find("1.2.840.10008.1.2.8.1").encapsulated);
        assert_eq!(
            find("1.2.840.10008.1.2.4.70").compression,
            Compression::Lossless
        );
        assert_eq!(
            find("1.2.840.10008.1.2.4.50").compression,
            Compression::Lossy
        );
        assert_eq!(
            find("1.2.840.10008.1.2.4.102.1").compression,
            Compression::Video
        );
        assert_eq!(
            find("1.2.840.10008.1.2.1.98").compression,
            Compression::None
        );
    }

    #[test]
    fn data_by_reference_and_real_time_streams_cannot_be_kept() {
        for uid in [
            "1.2.840.10008.1.2.4.94",
            "1.2.840.10008.1.2.4.205",
            "1.2.840.10008.1.2.7.1",
            "",
            "1.2.840.10008.1.2\0",
        ] {
            assert!(TransferSyntax::lookup(uid).is_none(), "{uid:?}");
        }
    }
}
