//! Value representations, and how a transfer syntax writes elements (PS3.5 §6.2, §7.1, Annex A).

use std::io;

use dicom::core::{DataDictionary, Tag};
use dicom::dictionary_std::StandardDataDictionary;

use super::source::Source;

/// A value representation as its two letters (PS3.5 §6.2).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Vr(pub [u8; 2]);

impl std::fmt::Debug for Vr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", char::from(self.0[0]), char::from(self.0[1]))
    }
}

impl Vr {
    /// Sequence of items.
    pub const SQ: Self = Self(*b"SQ");
    /// Unknown.
    pub const UN: Self = Self(*b"UN");

    /// The representation of `tag` in the standard's dictionary, for implicit VR. Attributes that
    /// may be `US` or `SS` come back as `US`, those that may be `OB` or `OW` as `OW`.
    pub fn of(tag: Tag) -> Self {
        if tag.1 == 0 {
            return Self(*b"UL");
        }
        match StandardDataDictionary.by_tag(tag) {
            Some(entry) => Self(entry.vr.relaxed().to_bytes()),
            None => Self::UN,
        }
    }

    pub(super) fn is_plausible(self) -> bool {
        self.0.iter().all(u8::is_ascii_uppercase)
    }

    /// Representations with a 32-bit length (PS3.5 Table 7.1-1). Those that a later edition may
    /// add use this form too (PS3.5 §6.2.2), so the short form is the list.
    pub(super) fn has_short_length(self) -> bool {
        matches!(
            &self.0,
            b"AE"
                | b"AS"
                | b"AT"
                | b"CS"
                | b"DA"
                | b"DS"
                | b"DT"
                | b"FL"
                | b"FD"
                | b"IS"
                | b"LO"
                | b"LT"
                | b"PN"
                | b"SH"
                | b"SL"
                | b"SS"
                | b"ST"
                | b"TM"
                | b"UI"
                | b"UL"
                | b"US"
        )
    }

    fn is_known(self) -> bool {
        self.has_short_length()
            || matches!(
                &self.0,
                b"OB"
                    | b"OD"
                    | b"OF"
                    | b"OL"
                    | b"OV"
                    | b"OW"
                    | b"SQ"
                    | b"SV"
                    | b"UC"
                    | b"UN"
                    | b"UR"
                    | b"UT"
                    | b"UV"
            )
    }

    /// The size in bytes of one value, where it is fixed.
    pub fn size(self) -> Option<u32> {
        match &self.0 {
            b"US" | b"SS" | b"OW" => Some(2),
            b"UL" | b"SL" | b"FL" | b"AT" | b"OL" | b"OF" => Some(4),
            b"FD" | b"SV" | b"UV" | b"OV" | b"OD" => Some(8),
            _ => None,
        }
    }
}

/// How elements are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Encoding {
    pub(super) explicit: bool,
    pub(super) big_endian: bool,
}

impl Encoding {
    pub(super) const EXPLICIT_LE: Self = Self {
        explicit: true,
        big_endian: false,
    };
    pub(super) const IMPLICIT_LE: Self = Self {
        explicit: false,
        big_endian: false,
    };
    pub(super) const EXPLICIT_BE: Self = Self {
        explicit: true,
        big_endian: true,
    };

    /// The encoding of a transfer syntax (PS3.5 Annex A). Everything but three is explicit little
    /// endian; the second implicit one is GE's private syntax, which differs in the pixel data.
    pub(super) fn of(transfer_syntax: &str) -> Self {
        match transfer_syntax {
            "1.2.840.10008.1.2" | "1.2.840.113619.5.2" => Self::IMPLICIT_LE,
            "1.2.840.10008.1.2.2" => Self::EXPLICIT_BE,
            _ => Self::EXPLICIT_LE,
        }
    }

    /// What the first element says, where it contradicts the declared encoding. Equipment that
    /// announces one little endian encoding and writes the other is common enough.
    pub(super) fn sniffed(self, source: &mut impl Source) -> io::Result<Self> {
        let (position, end) = (source.position(), source.end());
        let &[g0, g1, _, _, a, b, c, d] = source.peek(8)? else {
            return Ok(self);
        };
        if self.big_endian || g1 != 0 || g0 == 0 || g0 % 2 != 0 {
            return Ok(self);
        }
        let vr = Vr([a, b]);
        let implicit_length = u64::from(u32::from_le_bytes([a, b, c, d]));
        let fits = end.is_none_or(|end| position + 8 + implicit_length <= end);
        Ok(if self.explicit && !vr.is_plausible() && fits {
            Self::IMPLICIT_LE
        } else if !self.explicit && vr.is_known() && (!fits || implicit_length > 0xFFFF) {
            Self::EXPLICIT_LE
        } else {
            self
        })
    }

    pub(super) fn u16(self, bytes: [u8; 2]) -> u16 {
        if self.big_endian {
            u16::from_be_bytes(bytes)
        } else {
            u16::from_le_bytes(bytes)
        }
    }

    pub(super) fn u32(self, bytes: [u8; 4]) -> u32 {
        if self.big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::io::Cursor;

    use super::super::source::Seekable;
    use super::*;

    fn sniff(declared: Encoding, bytes: &[u8]) -> Encoding {
        let mut source = Seekable::new(Cursor::new(bytes.to_vec()), 0).unwrap();
        declared.sniffed(&mut source).unwrap()
    }

    #[test]
    fn the_first_element_overrules_the_declared_encoding() {
        let explicit = b"\x08\0\x16\0UI\x04\x001.2\0";
        let implicit = b"\x08\0\x16\0\x04\0\0\x001.2\0";
        assert_eq!(
            sniff(Encoding::IMPLICIT_LE, explicit),
            Encoding::EXPLICIT_LE
        );
        assert_eq!(
            sniff(Encoding::EXPLICIT_LE, implicit),
            Encoding::IMPLICIT_LE
        );
        assert_eq!(
            sniff(Encoding::EXPLICIT_LE, explicit),
            Encoding::EXPLICIT_LE
        );
        assert_eq!(
            sniff(Encoding::IMPLICIT_LE, implicit),
            Encoding::IMPLICIT_LE
        );
    }

    #[test]
    fn the_dictionary_gives_implicit_elements_their_representation() {
        assert_eq!(Vr::of(Tag(0x0008, 0x0016)), Vr(*b"UI"));
        assert_eq!(Vr::of(Tag(0x0008, 0x1140)), Vr::SQ);
        assert_eq!(Vr::of(Tag(0x0009, 0x1001)), Vr::UN);
    }
}
