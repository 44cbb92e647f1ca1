//! One pass over a received data set: is it whole, and which instance is it?
//!
//! The receiver calls this between the last byte and the promise to keep the instance. Values are
//! skipped by seeking, so an ordinary image costs one or two reads of 16 KiB; a deflated data set
//! is inflated on the way and never held.

use std::io::{Read, Seek, SeekFrom};

use dicom::core::Tag;
use dicom::dictionary_std::tags;

use super::encoding::Encoding;
use super::inflate::Inflate;
use super::read::{inflating, is_deflated};
use super::source::{Seekable, Source, Streaming};
use super::walk::{Token, Walker};
use super::{ReadError, ReadLimits};

/// Who an instance says it is. UIDs are without padding and otherwise as written: the caller
/// parses them, and decides what an absent one means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// SOP Class UID (0008,0016).
    pub sop_class: Option<String>,
    /// SOP Instance UID (0008,0018).
    pub sop_instance: Option<String>,
    /// Study Instance UID (0020,000D).
    pub study: Option<String>,
    /// Series Instance UID (0020,000E).
    pub series: Option<String>,
    /// Modality (0008,0060).
    pub modality: Option<String>,
    /// Body Part Examined (0018,0015).
    pub body_part: Option<String>,
    /// Instance Number (0020,0013).
    pub instance_number: Option<i64>,
    /// What is wrong with a data set that can be kept, but not believed.
    pub defect: Option<Defect>,
}

/// A fault that leaves the identity readable. The instance may be kept, apart from the sound ones
/// and with its reason; nothing may be inferred from it as if it were whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// The bytes end inside an element, after everything that identifies the instance.
    Truncated,
    /// Elements are not in ascending order (PS3.5 §7.1); all values are there.
    OutOfOrder,
}

impl Defect {
    /// A stable code for records and messages.
    pub fn code(self) -> &'static str {
        match self {
            Self::Truncated => "data-set-truncated",
            Self::OutOfOrder => "elements-out-of-order",
        }
    }
}

impl Identity {
    /// Whether the four UIDs are there (whatever they look like).
    pub fn is_complete(&self) -> bool {
        [
            &self.sop_class,
            &self.sop_instance,
            &self.study,
            &self.series,
        ]
        .iter()
        .all(|uid| uid.is_some())
    }
}

/// Identifiers are at most 64 bytes; a few more still show what was wrong, a megabyte does not.
const MAX_IDENTIFIER: u32 = 1024;

/// Walks the data set that starts at `data_set_offset` and ends with the file.
///
/// # Errors
/// [`ReadError::Malformed`] when it is no data set in the transfer syntax `ts`, and
/// [`ReadError::Truncated`] when it ends before it has said who it is (both status C000, PS3.4
/// B.2.3; one that ends later comes back with [`Defect::Truncated`]), [`ReadError::Limit`] when reading it would cost
/// more than [`ReadLimits::default`] allows, and failures of the system.
pub fn identify(
    file: &mut (impl Read + Seek),
    data_set_offset: u64,
    ts: &str,
) -> Result<Identity, ReadError> {
    identify_within(file, data_set_offset, ts, &ReadLimits::default())
}

/// [`identify`] with limits of the caller's.
///
/// # Errors
/// As [`identify`].
pub fn identify_within(
    file: &mut (impl Read + Seek),
    data_set_offset: u64,
    ts: &str,
    limits: &ReadLimits,
) -> Result<Identity, ReadError> {
    if is_deflated(ts) {
        file.seek(SeekFrom::Start(data_set_offset))?;
        let source = Streaming::new(Inflate::new(file, limits));
        walk(source, ts, limits).map_err(|err| inflating(err, data_set_offset))
    } else {
        walk(Seekable::new(file, data_set_offset)?, ts, limits)
    }
}

fn walk(mut source: impl Source, ts: &str, limits: &ReadLimits) -> Result<Identity, ReadError> {
    if source.peek(1)?.is_empty() {
        return Err(ReadError::Truncated {
            at: source.position(),
            what: "its first element",
        });
    }
    let encoding = Encoding::of(ts).sniffed(&mut source)?;
    let mut walker = Walker::new(source, encoding, limits);
    let mut identity = Identity::default();
    let ended = collect(&mut walker, &mut identity);
    identity.defect = match ended {
        Ok(()) if walker.is_out_of_order() => Some(Defect::OutOfOrder),
        Ok(()) => None,
        Err(ReadError::Truncated { .. }) if identity.is_complete() => Some(Defect::Truncated),
        Err(err) => return Err(err),
    };
    Ok(identity)
}

fn collect(walker: &mut Walker<'_, impl Source>, identity: &mut Identity) -> Result<(), ReadError> {
    while let Some(token) = walker.next()? {
        let Token::Element { tag, length, .. } = token else {
            continue;
        };
        if walker.depth() > 0 || tag.0 > 0x0020 {
            continue;
        }
        let field = match tag {
            tags::SOP_CLASS_UID => &mut identity.sop_class,
            tags::SOP_INSTANCE_UID => &mut identity.sop_instance,
            tags::STUDY_INSTANCE_UID => &mut identity.study,
            tags::SERIES_INSTANCE_UID => &mut identity.series,
            tags::MODALITY => &mut identity.modality,
            tags::BODY_PART_EXAMINED => &mut identity.body_part,
            tags::INSTANCE_NUMBER if length <= 16 => {
                identity.instance_number = text(&walker.value()?).and_then(|v| v.parse().ok());
                continue;
            }
            _ => continue,
        };
        let at = walker.position();
        if field.is_some() {
            return Err(malformed(at, tag, "an element twice"));
        }
        if length > MAX_IDENTIFIER {
            return Err(malformed(at, tag, "an identifier that is far too long"));
        }
        *field = text(&walker.value()?);
    }
    Ok(())
}

fn malformed(at: u64, tag: Tag, what: &'static str) -> ReadError {
    ReadError::Malformed { at, tag, what }
}

/// Without padding; bytes outside UTF-8 become characters that no checked type accepts.
fn text(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_matches([' ', '\0']);
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::io::Cursor;

    use super::*;

    const TS: &str = "1.2.840.10008.1.2.1";

    fn element(group: u16, element: u16, vr: &[u8; 2], value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(group.to_le_bytes());
        out.extend(element.to_le_bytes());
        out.extend(vr);
        if matches!(vr, b"OB" | b"OW" | b"SQ" | b"UN") {
            out.extend([0, 0]);
            out.extend((value.len() as u32).to_le_bytes());
        } else {
            out.extend((value.len() as u16).to_le_bytes());
        }
        out.extend(value);
        out
    }

    fn whole() -> Vec<Vec<u8>> {
        vec![
            element(0x0008, 0x0016, b"UI", b"1.2.3.4\0"),
            element(0x0008, 0x0018, b"UI", b"1.2.3.5 "),
            element(0x0008, 0x0060, b"CS", b"CT"),
            element(0x0020, 0x000D, b"UI", b"1.2.3.6\0"),
            element(0x0020, 0x000E, b"UI", b"1.2.3.7\0"),
            element(0x0020, 0x0013, b"IS", b"12"),
            element(0x7FE0, 0x0010, b"OW", &[7; 64]),
        ]
    }

    fn run(bytes: Vec<u8>) -> Result<Identity, ReadError> {
        identify(&mut Cursor::new(bytes), 0, TS)
    }

    #[test]
    fn a_whole_data_set_says_who_it_is() {
        let identity = run(whole().concat()).unwrap();
        assert_eq!(identity.sop_instance.as_deref(), Some("1.2.3.5"));
        assert_eq!(identity.modality.as_deref(), Some("CT"));
        assert_eq!(identity.instance_number, Some(12));
        assert_eq!(identity.defect, None);
        assert!(identity.is_complete());
    }

    #[test]
    fn a_data_set_cut_in_its_pixels_is_identified_but_marked() {
        let mut bytes = whole().concat();
        bytes.truncate(bytes.len() - 1);
        assert_eq!(run(bytes).unwrap().defect, Some(Defect::Truncated));
    }

    #[test]
    fn a_data_set_cut_before_its_identity_is_refused() {
        let bytes = whole().concat();
        for end in [0, 3, 10, 40] {
            assert!(run(bytes[..end].to_vec()).is_err(), "{end}");
        }
    }

    #[test]
    fn order_is_noted_and_a_second_identity_refused() {
        let mut swapped = whole();
        swapped.swap(2, 3);
        assert_eq!(
            run(swapped.concat()).unwrap().defect,
            Some(Defect::OutOfOrder)
        );
        let mut twice = whole();
        twice.push(element(0x0008, 0x0018, b"UI", b"1.2.3.9\0"));
        assert!(matches!(
            run(twice.concat()),
            Err(ReadError::Malformed { .. })
        ));
    }

    #[test]
    fn nesting_beyond_the_limit_is_refused_without_recursion() {
        let open = [
            0x09, 0, 0x10, 0x10, b'S', b'Q', 0, 0, 0xFF, 0xFF, 0xFF, 0xFF,
        ];
        let item = [0xFE, 0xFF, 0, 0xE0, 0xFF, 0xFF, 0xFF, 0xFF];
        let bytes = [&open[..], &item[..]].concat().repeat(100_000);
        assert!(matches!(run(bytes), Err(ReadError::Limit { .. })));
    }
}
