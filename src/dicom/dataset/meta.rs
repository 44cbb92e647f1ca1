//! The file meta information of a Part 10 file (PS3.10 §7.1), read as leniently as is safe.
//!
//! The group length is ignored, because files without it or with a wrong one are common; group
//! 0002 simply ends where another group begins. Without any meta, a bare data set is accepted when
//! its first element looks like one, as old scanners and some archives write it.

use std::io::{Read, Seek};

use dicom::core::Tag;
use dicom::dictionary_std::tags;

use super::ReadError;
use super::source::{Seekable, Source};

/// What the file says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileMeta {
    /// (0002,0010), absent in bare data sets.
    pub transfer_syntax: Option<String>,
    /// (0002,0002).
    pub media_storage_sop_class: Option<String>,
    /// (0002,0003).
    pub media_storage_sop_instance: Option<String>,
    /// (0002,0016), the application that wrote the file or sent the instance.
    pub source_ae_title: Option<String>,
    /// Position of the first byte of the data set.
    pub data_set_offset: u64,
}

/// No value that is of use here is longer.
const MAX_VALUE: u64 = 1024;
/// Enough for any meta information with its private part; a guard against endless tiny elements.
const MAX_ELEMENTS: usize = 1000;

/// Reads the meta information and says where the data set starts.
pub(super) fn read<R: Read + Seek>(source: &mut Seekable<R>) -> Result<FileMeta, ReadError> {
    let head = source.peek(132)?;
    if head.get(128..132) == Some(b"DICM") {
        source.skip(132)?;
        return group_2(source);
    }
    match head {
        // Meta information without the preamble.
        [2, 0, _, 0, b'A'..=b'Z', b'A'..=b'Z', ..] => group_2(source),
        // A bare data set starts with the identifying group, which is written in this order only
        // in little endian.
        [8, 0, _, _, _, _, _, _, ..] => Ok(FileMeta::default()),
        _ => Err(ReadError::NotDicom),
    }
}

fn group_2<R: Read + Seek>(source: &mut Seekable<R>) -> Result<FileMeta, ReadError> {
    let mut meta = FileMeta::default();
    for _ in 0..MAX_ELEMENTS {
        let mut head = [0; 12];
        let bytes = source.peek(12)?;
        let got = bytes.len();
        if let Some(head) = head.get_mut(..got) {
            head.copy_from_slice(bytes);
        }
        let [g0, g1, e0, e1, a, b, l0, l1, m0, m1, m2, m3] = head;
        let tag = Tag(u16::from_le_bytes([g0, g1]), u16::from_le_bytes([e0, e1]));
        if got < 8 || tag.0 != 2 {
            if got > 0 && got < 8 {
                break;
            }
            meta.data_set_offset = source.position();
            return Ok(meta);
        }
        let (header, length) = match &[a, b] {
            b"OB" | b"OW" | b"UN" | b"UT" | b"SQ" => {
                (12, u64::from(u32::from_le_bytes([m0, m1, m2, m3])))
            }
            [a, b] if a.is_ascii_uppercase() && b.is_ascii_uppercase() => {
                (8, u64::from(u16::from_le_bytes([l0, l1])))
            }
            // Meta information in implicit VR is against PS3.10 and still met.
            _ => (8, u64::from(u32::from_le_bytes([a, b, l0, l1]))),
        };
        source.skip(header)?;
        let field = match tag {
            tags::TRANSFER_SYNTAX_UID => Some(&mut meta.transfer_syntax),
            tags::MEDIA_STORAGE_SOP_CLASS_UID => Some(&mut meta.media_storage_sop_class),
            tags::MEDIA_STORAGE_SOP_INSTANCE_UID => Some(&mut meta.media_storage_sop_instance),
            tags::SOURCE_APPLICATION_ENTITY_TITLE => Some(&mut meta.source_ae_title),
            _ => None,
        };
        match (field, usize::try_from(length)) {
            (Some(field), Ok(n)) if length <= MAX_VALUE => {
                let Some(value) = source.take(n)? else { break };
                let text = String::from_utf8_lossy(&value);
                let text = text.trim_matches([' ', '\0']);
                *field = (!text.is_empty()).then(|| text.to_owned());
            }
            _ if source.skip(length)? < length => break,
            _ => {}
        }
    }
    Err(ReadError::Truncated {
        at: source.position(),
        what: "the file meta information",
    })
}
