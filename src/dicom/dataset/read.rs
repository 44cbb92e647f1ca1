//! Reading a file into a tree, with the large values left where they are.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use dicom::core::Tag;
use dicom::dictionary_std::{tags, uids};

use super::encoding::{Encoding, Vr};
use super::inflate::{Ceiling, Inflate};
use super::source::{Seekable, Source};
use super::value::{DataSet, Element, Range, Value};
use super::walk::{Token, Walker};
use super::{FileMeta, ReadError, ReadLimits, meta};

/// A DICOM file: its meta information, its data set, and access to the values left in the file.
///
/// The file stays open, so that it can be read after its directory entry is gone.
#[derive(Debug)]
pub struct DicomFile {
    meta: FileMeta,
    transfer_syntax: String,
    data_set: DataSet,
    backing: Backing,
}

enum Backing {
    File(File),
    Memory(Vec<u8>),
}

impl std::fmt::Debug for Backing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(file) => file.fmt(f),
            Self::Memory(bytes) => write!(f, "{} bytes", bytes.len()),
        }
    }
}

impl DicomFile {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// [`ReadError`] when it is no DICOM file, is damaged, or exceeds `limits`.
    pub fn read(path: &Path, limits: &ReadLimits) -> Result<Self, ReadError> {
        Self::from_file(File::open(path)?, limits)
    }

    /// Reads an open file from its start.
    ///
    /// # Errors
    /// As [`DicomFile::read`].
    pub fn from_file(file: File, limits: &ReadLimits) -> Result<Self, ReadError> {
        let meta = meta::read(&mut Seekable::new(&file, 0)?)?;
        Self::build(meta, Backing::File(file), limits)
    }

    /// Reads a file that is already in memory.
    ///
    /// # Errors
    /// As [`DicomFile::read`].
    pub fn from_bytes(bytes: Vec<u8>, limits: &ReadLimits) -> Result<Self, ReadError> {
        let meta = meta::read(&mut Seekable::new(Cursor::new(&bytes), 0)?)?;
        Self::build(meta, Backing::Memory(bytes), limits)
    }

    fn build(meta: FileMeta, backing: Backing, limits: &ReadLimits) -> Result<Self, ReadError> {
        let offset = meta.data_set_offset;
        let declared = meta.transfer_syntax.clone().unwrap_or_default();
        let (backing, offset) = if is_deflated(&declared) {
            (Backing::Memory(inflate(&backing, offset, limits)?), 0)
        } else {
            (backing, offset)
        };
        let (data_set, encoding) = match &backing {
            Backing::File(file) => tree(Seekable::new(file, offset)?, &declared, limits)?,
            Backing::Memory(bytes) => tree(
                Seekable::new(Cursor::new(bytes), offset)?,
                &declared,
                limits,
            )?,
        };
        let transfer_syntax = match declared.as_str() {
            "" if encoding.explicit => uids::EXPLICIT_VR_LITTLE_ENDIAN.to_owned(),
            "" => uids::IMPLICIT_VR_LITTLE_ENDIAN.to_owned(),
            _ => declared,
        };
        Ok(Self {
            meta,
            transfer_syntax,
            data_set,
            backing,
        })
    }

    /// The file meta information.
    pub fn meta(&self) -> &FileMeta {
        &self.meta
    }

    /// The transfer syntax of the data set; for a bare data set the one it was recognised as.
    pub fn transfer_syntax(&self) -> &str {
        &self.transfer_syntax
    }

    /// The data set.
    pub fn data_set(&self) -> &DataSet {
        &self.data_set
    }

    /// Reads `length` bytes at `offset`, as ranges in the data set give them, into `out`, which is
    /// cleared first.
    ///
    /// # Errors
    /// [`ReadError::Truncated`] when the file has become shorter, and failures of the system.
    pub fn read_at(&self, offset: u64, length: usize, out: &mut Vec<u8>) -> Result<(), ReadError> {
        out.clear();
        match &self.backing {
            Backing::Memory(bytes) => {
                let range = usize::try_from(offset)
                    .ok()
                    .and_then(|start| bytes.get(start..start.checked_add(length)?));
                out.extend_from_slice(range.ok_or(ReadError::Truncated {
                    at: offset,
                    what: "a value",
                })?);
            }
            Backing::File(file) => {
                let end = file.metadata()?.len();
                if offset.saturating_add(length as u64) > end {
                    return Err(ReadError::Truncated {
                        at: end,
                        what: "a value",
                    });
                }
                out.resize(length, 0);
                file.read_exact_at(out, offset)?;
            }
        }
        Ok(())
    }

    /// The bytes of a value wherever they are, at most `max` of them.
    ///
    /// # Errors
    /// [`ReadError::Limit`] when the value is larger, and as [`DicomFile::read_at`].
    pub fn value_bytes(&self, value: &Value, max: u32) -> Result<Vec<u8>, ReadError> {
        match value {
            Value::Bytes(bytes) => Ok(bytes.to_vec()),
            Value::InFile(range) if range.length <= max => {
                let mut out = Vec::new();
                self.read_at(range.offset, range.length as usize, &mut out)?;
                Ok(out)
            }
            Value::InFile(_) => Err(ReadError::Limit {
                what: "the size of a value",
            }),
            Value::Items(_) | Value::Fragments(_) => Ok(Vec::new()),
        }
    }
}

/// Reads the data set of a DIMSE message, which has no file meta information.
///
/// # Errors
/// As [`DicomFile::read`]. A deflated one is refused: the services that have such data sets do not
/// negotiate it.
pub fn read_data_set(
    bytes: &[u8],
    transfer_syntax: &str,
    limits: &ReadLimits,
) -> Result<DataSet, ReadError> {
    if is_deflated(transfer_syntax) {
        return Err(ReadError::NotDicom);
    }
    let source = Seekable::new(Cursor::new(bytes), 0)?;
    tree(source, transfer_syntax, limits).map(|(data_set, _)| data_set)
}

pub(super) fn is_deflated(transfer_syntax: &str) -> bool {
    transfer_syntax == uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
        || transfer_syntax == "1.2.840.10008.1.2.4.95"
        || transfer_syntax == "1.2.840.10008.1.2.4.205"
}

/// Turns the errors of an inflating stream back into ours.
pub(super) fn inflating(err: ReadError, at: u64) -> ReadError {
    match err {
        ReadError::Io(err) if err.get_ref().is_some_and(|inner| inner.is::<Ceiling>()) => {
            ReadError::Limit {
                what: "the inflated size",
            }
        }
        ReadError::Io(err) if err.kind() == io::ErrorKind::UnexpectedEof => ReadError::Truncated {
            at,
            what: "the deflated data set",
        },
        ReadError::Io(err) if err.kind() == io::ErrorKind::InvalidData => ReadError::Malformed {
            at,
            tag: Tag(0, 0),
            what: "bytes that are not a deflated data set",
        },
        other => other,
    }
}

fn inflate(backing: &Backing, offset: u64, limits: &ReadLimits) -> Result<Vec<u8>, ReadError> {
    fn run(
        mut from: impl Read + Seek,
        offset: u64,
        limits: &ReadLimits,
    ) -> Result<Vec<u8>, ReadError> {
        from.seek(SeekFrom::Start(offset))?;
        let mut out = Vec::new();
        Inflate::new(from, limits)
            .read_to_end(&mut out)
            .map_err(|err| inflating(err.into(), offset))?;
        Ok(out)
    }
    match backing {
        Backing::File(file) => run(file, offset, limits),
        Backing::Memory(bytes) => run(Cursor::new(bytes), offset, limits),
    }
}

/// A sequence or item that is still open.
enum Open {
    Sequence {
        tag: Tag,
        vr: Vr,
        items: Vec<DataSet>,
    },
    Item(DataSet),
}

fn tree<R: Read + Seek>(
    mut source: Seekable<R>,
    transfer_syntax: &str,
    limits: &ReadLimits,
) -> Result<(DataSet, Encoding), ReadError> {
    let encoding = Encoding::of(transfer_syntax).sniffed(&mut source)?;
    if source.peek(1)?.is_empty() {
        return Err(ReadError::Truncated {
            at: source.position(),
            what: "its first element",
        });
    }
    let mut walker = Walker::new(source, encoding, limits);
    let mut open = vec![Open::Item(DataSet {
        elements: Vec::new(),
        big_endian: encoding.big_endian,
    })];
    let mut fragments: Option<(Tag, Vr, Vec<Range>)> = None;
    let mut kept = 0u64;
    while let Some(token) = walker.next()? {
        match token {
            Token::Element { tag, vr, length } => {
                let value = if length > limits.max_value_in_memory || is_pixel_data(tag) {
                    Value::InFile(Range {
                        offset: walker.position(),
                        length,
                    })
                } else {
                    kept += u64::from(length);
                    if kept > limits.max_values_in_memory {
                        return Err(ReadError::Limit {
                            what: "the size of all values",
                        });
                    }
                    Value::Bytes(walker.value()?.into_boxed_slice())
                };
                add(&mut open, Element { tag, vr, value });
            }
            Token::SequenceStart { tag, vr } => open.push(Open::Sequence {
                tag,
                vr,
                items: Vec::new(),
            }),
            Token::ItemStart => open.push(Open::Item(DataSet {
                elements: Vec::new(),
                big_endian: walker.encoding().big_endian,
            })),
            Token::ItemEnd => {
                if let Some(Open::Item(item)) = open.pop()
                    && let Some(Open::Sequence { items, .. }) = open.last_mut()
                {
                    items.push(sorted(item, walker.is_out_of_order(), walker.position())?);
                }
            }
            Token::SequenceEnd => {
                if let Some(Open::Sequence { tag, vr, items }) = open.pop() {
                    let value = Value::Items(items);
                    add(&mut open, Element { tag, vr, value });
                }
            }
            Token::FragmentsStart { tag, vr } => fragments = Some((tag, vr, Vec::new())),
            Token::Fragment { length } => {
                if let Some((_, _, ranges)) = &mut fragments {
                    ranges.push(Range {
                        offset: walker.position(),
                        length,
                    });
                }
            }
            Token::FragmentsEnd => {
                if let Some((tag, vr, ranges)) = fragments.take() {
                    let value = Value::Fragments(ranges);
                    add(&mut open, Element { tag, vr, value });
                }
            }
        }
    }
    match open.into_iter().next() {
        Some(Open::Item(data_set)) => {
            let (unordered, at) = (walker.is_out_of_order(), walker.position());
            Ok((sorted(data_set, unordered, at)?, encoding))
        }
        _ => Ok((DataSet::default(), encoding)),
    }
}

fn add(open: &mut [Open], element: Element) {
    if let Some(Open::Item(item)) = open.last_mut() {
        item.elements.push(element);
    }
}

/// Puts the elements in order, which lookups rely on, and refuses two of the same tag: nobody can
/// say which one was meant.
fn sorted(mut data_set: DataSet, unordered: bool, at: u64) -> Result<DataSet, ReadError> {
    if unordered {
        data_set.elements.sort_by_key(|element| element.tag);
        let twice = data_set.elements.windows(2).find_map(|pair| match pair {
            [a, b] if a.tag == b.tag => Some(a.tag),
            _ => None,
        });
        if let Some(tag) = twice {
            return Err(ReadError::Malformed {
                at,
                tag,
                what: "an element twice",
            });
        }
    }
    data_set.elements.shrink_to_fit();
    Ok(data_set)
}

fn is_pixel_data(tag: Tag) -> bool {
    matches!(
        tag,
        tags::PIXEL_DATA | tags::FLOAT_PIXEL_DATA | tags::DOUBLE_FLOAT_PIXEL_DATA
    )
}
