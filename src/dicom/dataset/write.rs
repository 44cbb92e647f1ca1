//! Writing the small data sets of DIMSE messages: little endian, explicit or implicit VR, sequences
//! and items of undefined length (PS3.5 §7).
//!
//! The caller puts elements in ascending order of tag, as the standard wants them.

use dicom::core::Tag;

use super::encoding::{Encoding, Vr};

const UNDEFINED: u32 = u32::MAX;

/// A data set in the making.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    explicit: bool,
}

impl Writer {
    /// An empty data set in `transfer_syntax`; `None` for one that is not little endian and
    /// uncompressed, which no message service negotiates here.
    pub fn new(transfer_syntax: &str) -> Option<Self> {
        let encoding = Encoding::of(transfer_syntax);
        (!encoding.big_endian && !super::read::is_deflated(transfer_syntax)).then(|| Self {
            bytes: Vec::new(),
            explicit: encoding.explicit,
        })
    }

    /// Puts text: padded to an even length, with NUL for a UID and a space for anything else.
    pub fn text(&mut self, tag: Tag, vr: [u8; 2], text: &str) -> &mut Self {
        let mut value = text.as_bytes().to_vec();
        if value.len() % 2 == 1 {
            value.push(if vr == *b"UI" { 0 } else { b' ' });
        }
        self.header(tag, vr, u32::try_from(value.len()).unwrap_or(0));
        self.bytes.extend_from_slice(&value);
        self
    }

    /// Puts an unsigned short (US).
    pub fn unsigned_short(&mut self, tag: Tag, value: u16) -> &mut Self {
        self.header(tag, *b"US", 2);
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Puts a sequence: `item` writes the elements of each of `items`.
    pub fn sequence<T>(
        &mut self,
        tag: Tag,
        items: impl IntoIterator<Item = T>,
        mut item: impl FnMut(&mut Self, T),
    ) -> &mut Self {
        self.header(tag, *b"SQ", UNDEFINED);
        for contents in items {
            self.delimiter(0xE000, UNDEFINED);
            item(self, contents);
            self.delimiter(0xE00D, 0);
        }
        self.delimiter(0xE0DD, 0);
        self
    }

    /// The bytes of the data set.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    fn header(&mut self, tag: Tag, vr: [u8; 2], length: u32) {
        self.tag(tag);
        if !self.explicit {
            self.bytes.extend_from_slice(&length.to_le_bytes());
            return;
        }
        self.bytes.extend_from_slice(&vr);
        if Vr(vr).has_short_length() {
            let length = u16::try_from(length).unwrap_or(u16::MAX);
            self.bytes.extend_from_slice(&length.to_le_bytes());
        } else {
            self.bytes.extend_from_slice(&[0, 0]);
            self.bytes.extend_from_slice(&length.to_le_bytes());
        }
    }

    fn delimiter(&mut self, element: u16, length: u32) {
        self.tag(Tag(0xFFFE, element));
        self.bytes.extend_from_slice(&length.to_le_bytes());
    }

    fn tag(&mut self, tag: Tag) {
        self.bytes.extend_from_slice(&tag.group().to_le_bytes());
        self.bytes.extend_from_slice(&tag.element().to_le_bytes());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use dicom::dictionary_std::{tags, uids};

    use super::super::{ReadLimits, read_data_set};
    use super::*;

    #[test]
    fn what_is_written_is_read_back_in_both_encodings() {
        for syntax in [
            uids::IMPLICIT_VR_LITTLE_ENDIAN,
            uids::EXPLICIT_VR_LITTLE_ENDIAN,
        ] {
            let mut writer = Writer::new(syntax).unwrap();
            writer
                .text(tags::TRANSACTION_UID, *b"UI", "1.2.3")
                .sequence(tags::FAILED_SOP_SEQUENCE, ["1.2", "1.3.4"], |item, uid| {
                    item.text(tags::REFERENCED_SOP_INSTANCE_UID, *b"UI", uid)
                        .unsigned_short(tags::FAILURE_REASON, 0x0112);
                })
                .sequence(tags::REFERENCED_SOP_SEQUENCE, [], |_, (): ()| {});
            let bytes = writer.finish();
            let data_set = read_data_set(&bytes, syntax, &ReadLimits::default()).unwrap();
            assert_eq!(data_set.uid(tags::TRANSACTION_UID).unwrap(), "1.2.3");
            let items = data_set.items(tags::FAILED_SOP_SEQUENCE);
            assert_eq!(items.len(), 2);
            assert_eq!(
                items[1].uid(tags::REFERENCED_SOP_INSTANCE_UID).unwrap(),
                "1.3.4"
            );
            assert_eq!(items[1].int(tags::FAILURE_REASON), Some(0x0112));
            assert!(data_set.items(tags::REFERENCED_SOP_SEQUENCE).is_empty());
        }
        assert!(Writer::new("1.2.840.10008.1.2.2").is_none(), "big endian");
    }
}
