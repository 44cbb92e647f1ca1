//! Walking the elements of a data set without recursion (PS3.5 §7).
//!
//! [`Walker::next`] hands out one [`Token`] at a time: elements, and the starts and ends of
//! sequences, items and fragment lists. A value is read on request or skipped; either way its
//! length has been compared with the enclosing item, sequence and file first. Open containers are
//! kept on a bounded stack, so that nesting costs a few bytes on the heap.
//!
//! What is refused: values past the end of their container, delimiters where none can be, the same
//! tag twice in a row, groups that cannot be in a data set, value representations that are not
//! upper-case letters, fixed-size values of another size, and a wrong value representation on an
//! attribute that decides identity or the shape of the pixels. What is tolerated, because real
//! equipment writes it: elements out of order (noted, so that the caller can decide), odd lengths of text and bytes, unknown value representations, non-zero
//! reserved bytes, wrong group lengths, private elements without a creator, implicit VR where
//! explicit VR was declared (and the reverse).

use std::cmp::Ordering;

use dicom::core::Tag;
use dicom::dictionary_std::tags;

use super::encoding::{Encoding, Vr};
use super::source::Source;
use super::{ReadError, ReadLimits};

/// One step of the walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    /// An element with a value of `length` bytes, which the walker stands before.
    Element {
        tag: Tag,
        vr: Vr,
        length: u32,
    },
    SequenceStart {
        tag: Tag,
        vr: Vr,
    },
    ItemStart,
    ItemEnd,
    SequenceEnd,
    /// An element of undefined length that holds fragments (PS3.5 A.4).
    FragmentsStart {
        tag: Tag,
        vr: Vr,
    },
    /// One fragment; the first of a list is the basic offset table.
    Fragment {
        length: u32,
    },
    FragmentsEnd,
}

#[derive(Debug, Clone, Copy)]
enum Container {
    DataSet {
        end: Option<u64>,
        last: Option<Tag>,
        encoding: Encoding,
    },
    Sequence {
        end: Option<u64>,
        encoding: Encoding,
    },
    Fragments,
}

const UNDEFINED: u32 = u32::MAX;
const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_DELIMITER: Tag = Tag(0xFFFE, 0xE00D);
const SEQUENCE_DELIMITER: Tag = Tag(0xFFFE, 0xE0DD);

/// A walk over one data set.
pub(super) struct Walker<'l, S> {
    source: S,
    limits: &'l ReadLimits,
    stack: Vec<Container>,
    encoding: Encoding,
    /// Bytes of the current value that nobody has read.
    pending: u32,
    tag: Tag,
    count: u64,
    out_of_order: bool,
}

impl<'l, S: Source> Walker<'l, S> {
    pub(super) fn new(source: S, encoding: Encoding, limits: &'l ReadLimits) -> Self {
        Self {
            stack: vec![Container::DataSet {
                end: source.end(),
                last: None,
                encoding,
            }],
            source,
            limits,
            encoding,
            pending: 0,
            tag: Tag(0, 0),
            count: 0,
            out_of_order: false,
        }
    }

    /// Nesting of the current token: 0 for elements of the data set itself.
    pub(super) fn depth(&self) -> usize {
        self.stack.len().saturating_sub(1)
    }

    /// The encoding that the values around the current position are in.
    pub(super) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Whether an element so far had a lower tag than the one before it.
    pub(super) fn is_out_of_order(&self) -> bool {
        self.out_of_order
    }

    /// Position of the next unread byte.
    pub(super) fn position(&self) -> u64 {
        self.source.position()
    }

    /// The value of the current element or fragment, whose length the caller has bounded.
    pub(super) fn value(&mut self) -> Result<Vec<u8>, ReadError> {
        let length = std::mem::take(&mut self.pending) as usize;
        match self.source.take(length)? {
            Some(value) => Ok(value),
            None => Err(self.truncated("a value")),
        }
    }

    /// The next token, or `None` after the last element.
    pub(super) fn next(&mut self) -> Result<Option<Token>, ReadError> {
        let pending = u64::from(std::mem::take(&mut self.pending));
        if pending > 0 && self.source.skip(pending)? < pending {
            return Err(self.truncated("a value"));
        }
        let at = self.source.position();
        match self.stack.last().copied() {
            None => Ok(None),
            Some(Container::DataSet { end, .. }) => {
                if end.is_none_or(|end| at < end) {
                    return self.element();
                }
                self.stack.pop();
                Ok((!self.stack.is_empty()).then_some(Token::ItemEnd))
            }
            Some(Container::Sequence { end, encoding }) => {
                // An undefined-length UN switched to implicit VR inside; each item starts anew.
                self.encoding = encoding;
                if end.is_some_and(|end| at >= end) {
                    self.stack.pop();
                    return Ok(Some(Token::SequenceEnd));
                }
                self.item()
            }
            Some(Container::Fragments) => self.fragment(),
        }
    }

    fn truncated(&self, what: &'static str) -> ReadError {
        ReadError::Truncated {
            at: self.source.position(),
            what,
        }
    }

    fn malformed(&self, what: &'static str) -> ReadError {
        ReadError::Malformed {
            at: self.source.position(),
            tag: self.tag,
            what,
        }
    }

    /// The nearest known end of an enclosing container.
    fn bound(&self) -> Option<u64> {
        self.stack
            .iter()
            .rev()
            .find_map(|container| match container {
                Container::DataSet { end, .. } | Container::Sequence { end, .. } => *end,
                Container::Fragments => None,
            })
    }

    /// The position after `length` more bytes, if the containers have room for them.
    fn end_of(&self, length: u32) -> Result<u64, ReadError> {
        let end = self.source.position() + u64::from(length);
        match self.bound() {
            Some(bound) if end > bound => {
                Err(self.truncated("a value that is longer than what holds it"))
            }
            _ => Ok(end),
        }
    }

    fn push(&mut self, container: Container) -> Result<(), ReadError> {
        if self.stack.len() > self.limits.max_depth {
            return Err(ReadError::Limit {
                what: "nested sequences",
            });
        }
        self.stack.push(container);
        Ok(())
    }

    fn tally(&mut self) -> Result<(), ReadError> {
        self.count += 1;
        if self.count > self.limits.max_elements {
            return Err(ReadError::Limit { what: "elements" });
        }
        Ok(())
    }

    fn element(&mut self) -> Result<Option<Token>, ReadError> {
        let Some(&Container::DataSet {
            end,
            last,
            encoding,
        }) = self.stack.last()
        else {
            return Ok(None);
        };
        self.encoding = encoding;
        let mut head = [0; 12];
        let bytes = self.source.peek(12)?;
        let got = bytes.len();
        if let Some(head) = head.get_mut(..got) {
            head.copy_from_slice(bytes);
        }
        if got == 0 && self.stack.len() == 1 {
            self.stack.pop();
            return Ok(None);
        }
        if got < 8 {
            return Err(self.truncated("an element header"));
        }
        let [g0, g1, e0, e1, h4, h5, h6, h7, h8, h9, h10, h11] = head;
        let tag = Tag(encoding.u16([g0, g1]), encoding.u16([e0, e1]));
        self.tag = tag;
        self.tally()?;
        if tag.0 == 0xFFFE {
            return self.delimiter(tag, encoding.u32([h4, h5, h6, h7]), end);
        }
        if matches!(tag.0, 0 | 1 | 2 | 3 | 5 | 7 | 0xFFFF) {
            return Err(self.malformed("a group that cannot be in a data set"));
        }
        match last.map(|last| tag.cmp(&last)) {
            Some(Ordering::Equal) => return Err(self.malformed("an element twice")),
            Some(Ordering::Less) => self.out_of_order = true,
            Some(Ordering::Greater) | None => {}
        }
        if let Some(Container::DataSet { last, .. }) = self.stack.last_mut() {
            *last = Some(tag);
        }
        let (vr, length, header) = if encoding.explicit {
            let vr = Vr([h4, h5]);
            if !vr.is_plausible() {
                return Err(self.malformed("a value representation that is not two letters"));
            }
            if vr.has_short_length() {
                (vr, u32::from(encoding.u16([h6, h7])), 8)
            } else if got < 12 {
                return Err(self.truncated("an element header"));
            } else {
                (vr, encoding.u32([h8, h9, h10, h11]), 12)
            }
        } else {
            (Vr::of(tag), encoding.u32([h4, h5, h6, h7]), 8)
        };
        self.source.skip(header)?;
        self.start(tag, vr, length)
    }

    fn start(&mut self, tag: Tag, vr: Vr, length: u32) -> Result<Option<Token>, ReadError> {
        let undefined = length == UNDEFINED;
        if undefined && matches!(&vr.0, b"OB" | b"OW") && self.encoding.explicit
            || undefined && tag == tags::PIXEL_DATA
        {
            self.push(Container::Fragments)?;
            return Ok(Some(Token::FragmentsStart { tag, vr }));
        }
        if vr == Vr::SQ || (undefined && vr == Vr::UN) {
            let end = if undefined {
                None
            } else {
                Some(self.end_of(length)?)
            };
            // The content of an UN of undefined length is implicit VR (PS3.5 §6.2.2 note).
            let encoding = if vr == Vr::UN {
                Encoding::IMPLICIT_LE
            } else {
                self.encoding
            };
            self.push(Container::Sequence { end, encoding })?;
            return Ok(Some(Token::SequenceStart { tag, vr }));
        }
        if undefined {
            return Err(self.malformed("an undefined length where none can be"));
        }
        self.end_of(length)?;
        self.check_representation(tag, vr, length)?;
        self.pending = length;
        Ok(Some(Token::Element { tag, vr, length }))
    }

    /// A wrong representation elsewhere is the reader's problem; here it decides whose image this
    /// is and how many bytes a codec may write.
    fn check_representation(&self, tag: Tag, vr: Vr, length: u32) -> Result<(), ReadError> {
        if !self.encoding.explicit || vr == Vr::UN {
            return Ok(());
        }
        if vr.size().is_some_and(|size| !length.is_multiple_of(size)) {
            return Err(self.malformed("a value whose length does not fit its representation"));
        }
        let wanted: &[&[u8; 2]] = match tag {
            tags::SOP_CLASS_UID
            | tags::SOP_INSTANCE_UID
            | tags::STUDY_INSTANCE_UID
            | tags::SERIES_INSTANCE_UID => &[b"UI"],
            tags::SAMPLES_PER_PIXEL
            | tags::PLANAR_CONFIGURATION
            | tags::ROWS
            | tags::COLUMNS
            | tags::BITS_ALLOCATED
            | tags::BITS_STORED
            | tags::HIGH_BIT
            | tags::PIXEL_REPRESENTATION => &[b"US"],
            tags::PIXEL_DATA => &[b"OB", b"OW"],
            tags::FLOAT_PIXEL_DATA => &[b"OF"],
            tags::DOUBLE_FLOAT_PIXEL_DATA => &[b"OD"],
            _ => return Ok(()),
        };
        if wanted.contains(&&vr.0) {
            Ok(())
        } else {
            Err(self.malformed("a value representation that the attribute cannot have"))
        }
    }

    fn delimiter(
        &mut self,
        tag: Tag,
        length: u32,
        end: Option<u64>,
    ) -> Result<Option<Token>, ReadError> {
        if tag != ITEM_DELIMITER || self.stack.len() < 2 || end.is_some() {
            return Err(self.malformed("an item or delimiter where none can be"));
        }
        if length != 0 {
            return Err(self.malformed("a delimiter with a length"));
        }
        self.source.skip(8)?;
        self.end_of(0)?;
        self.stack.pop();
        Ok(Some(Token::ItemEnd))
    }

    /// Reads the eight bytes of an item or delimiter.
    fn item_header(&mut self) -> Result<(Tag, u32), ReadError> {
        let Ok::<[u8; 8], _>([g0, g1, e0, e1, l0, l1, l2, l3]) = self.source.peek(8)?.try_into()
        else {
            return Err(self.truncated("a sequence"));
        };
        let tag = Tag(self.encoding.u16([g0, g1]), self.encoding.u16([e0, e1]));
        self.source.skip(8)?;
        self.end_of(0)?;
        self.tally()?;
        Ok((tag, self.encoding.u32([l0, l1, l2, l3])))
    }

    fn item(&mut self) -> Result<Option<Token>, ReadError> {
        let defined = matches!(
            self.stack.last(),
            Some(Container::Sequence { end: Some(_), .. })
        );
        match self.item_header()? {
            (ITEM, length) => {
                let end = if length == UNDEFINED {
                    None
                } else {
                    Some(self.end_of(length)?)
                };
                let encoding = self.encoding;
                self.push(Container::DataSet {
                    end,
                    last: None,
                    encoding,
                })?;
                Ok(Some(Token::ItemStart))
            }
            (SEQUENCE_DELIMITER, 0) if !defined => {
                self.stack.pop();
                Ok(Some(Token::SequenceEnd))
            }
            _ => Err(self.malformed("something other than an item in a sequence")),
        }
    }

    fn fragment(&mut self) -> Result<Option<Token>, ReadError> {
        match self.item_header()? {
            (ITEM, length) if length != UNDEFINED => {
                self.end_of(length)?;
                self.pending = length;
                Ok(Some(Token::Fragment { length }))
            }
            (SEQUENCE_DELIMITER, 0) => {
                self.stack.pop();
                Ok(Some(Token::FragmentsEnd))
            }
            _ => Err(self.malformed("something other than a fragment in encapsulated data")),
        }
    }
}
