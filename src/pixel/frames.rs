//! Which bytes belong to which frame (PS3.5 A.4 and §8).
//!
//! Native frames follow each other without gaps, down to the bit. Encapsulated frames are one or
//! more fragments; which ones, is decided in this order:
//! 1. one fragment that is not empty per frame: the plain case, whatever an offset table claims;
//! 2. one frame: all fragments, unless several of them start a code stream;
//! 3. a basic offset table that has one ascending entry per frame, each the start of a fragment;
//! 4. fragments that start a code stream start a frame, if there are as many as frames.
//!
//! Anything else is refused: a guessed boundary would be a wrong image. The extended offset table
//! needs no rule of its own, because it is only allowed with one fragment per frame (PS3.3 C.7.6.3).

use std::ops::Range as Span;

use dicom::dictionary_std::tags;

use super::codec::{self, Codec, Decoded, native};
use super::layout::SampleKind;
use super::{Layout, Limits, Refusal};
use crate::dicom::dataset::{DataSet, DicomFile, Range, Value};

/// The frames of one instance, ready to be decoded one at a time and from several threads.
#[derive(Debug)]
pub struct Frames<'f> {
    file: &'f DicomFile,
    layout: Layout,
    limits: Limits,
    codec: Codec,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Native {
        range: Range,
        order: native::ByteOrder,
    },
    Encapsulated {
        fragments: Vec<Range>,
        frames: Vec<Span<usize>>,
    },
}

impl<'f> Frames<'f> {
    /// Finds the frames of `file`.
    ///
    /// # Errors
    /// A [`Refusal`] when the transfer syntax is not decoded, the attributes contradict each other,
    /// the pixel data is shorter than they say, or frame boundaries cannot be told.
    pub fn open(file: &'f DicomFile, limits: &Limits) -> Result<Self, Refusal> {
        let transfer_syntax = file.transfer_syntax();
        let codec = Codec::of(transfer_syntax)?;
        let data_set = file.data_set();
        let layout = Layout::read(data_set, limits)?;
        let tag = match layout.kind {
            SampleKind::Integer => tags::PIXEL_DATA,
            SampleKind::Float => tags::FLOAT_PIXEL_DATA,
            SampleKind::Double => tags::DOUBLE_FLOAT_PIXEL_DATA,
        };
        let Some(element) = data_set.get(tag) else {
            return Err(Refusal::new("no-pixel-data", "no pixel data"));
        };
        let place = match (&element.value, codec.is_native()) {
            (Value::InFile(range), true) => {
                let order = byte_order(transfer_syntax, &element.vr.0, &layout);
                let bits = native::frame_bits(&layout, true)?;
                let needed = bits.saturating_mul(layout.frames as u64).div_ceil(8);
                if needed > u64::from(range.length) {
                    return Err(Refusal::new(
                        "pixel-data-truncated",
                        format!(
                            "{} frames need {needed} bytes, there are {}",
                            layout.frames, range.length
                        ),
                    ));
                }
                Place::Native {
                    range: *range,
                    order,
                }
            }
            (Value::Fragments(fragments), false) => {
                let frames = assign(file, fragments, layout.frames)?;
                Place::Encapsulated {
                    fragments: fragments.clone(),
                    frames,
                }
            }
            _ => {
                return Err(Refusal::new(
                    "header-mismatch",
                    "the transfer syntax and the form of the pixel data contradict each other",
                ));
            }
        };
        Ok(Self {
            file,
            layout,
            limits: limits.clone(),
            codec,
            place,
        })
    }

    /// The checked attributes.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The data set the frames are part of.
    pub fn data_set(&self) -> &'f DataSet {
        self.file.data_set()
    }

    /// What decoding may cost.
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Number of frames.
    pub fn count(&self) -> usize {
        self.layout.frames
    }

    /// The cells of frame `index` (from 0) as the codec delivers them.
    pub(super) fn cells(&self, index: usize) -> Result<Decoded, Refusal> {
        if index >= self.layout.frames {
            return Err(Refusal::new(
                "frame-missing",
                format!("frame {} of {}", index + 1, self.layout.frames),
            ));
        }
        match &self.place {
            Place::Native { range, order } => {
                let bits = native::frame_bits(&self.layout, true)?;
                let first_bit = bits.saturating_mul(index as u64);
                // Whole words, so that swapping them is possible wherever the frame starts.
                let start = (first_bit / 8) & !1;
                let end = (first_bit + bits).div_ceil(8).next_multiple_of(2);
                let end = end.min(u64::from(range.length));
                if (self.layout.kind, self.layout.bits_allocated) == (SampleKind::Integer, 16) {
                    return native::read_words(*order, &self.layout, |at, length, out| {
                        let at = range.offset + start + at;
                        Ok(self.file.read_at(at, length, out)?)
                    });
                }
                let length = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
                let mut bytes = Vec::new();
                self.file
                    .read_at(range.offset + start, length, &mut bytes)?;
                let skip_bits = first_bit - start * 8;
                native::decode(bytes, skip_bits, *order, &self.layout, true)
            }
            Place::Encapsulated { fragments, frames } => {
                let bytes = self.compressed(fragments, frames.get(index))?;
                codec::decode(self.codec, &bytes, &self.layout, &self.limits)
            }
        }
    }

    /// Refuses frame `index` (from 0) when its code stream and the attributes disagree about what
    /// its colours mean.
    pub(super) fn check_colour(&self, index: usize) -> Result<(), Refusal> {
        match &self.place {
            Place::Encapsulated { fragments, frames } if self.layout.samples == 3 => {
                let bytes = self.compressed(fragments, frames.get(index))?;
                codec::check_colour(self.codec, &bytes, &self.layout)
            }
            _ => Ok(()),
        }
    }

    fn compressed(
        &self,
        fragments: &[Range],
        span: Option<&Span<usize>>,
    ) -> Result<Vec<u8>, Refusal> {
        let fragments = span
            .and_then(|span| fragments.get(span.clone()))
            .unwrap_or(&[]);
        let total: u64 = fragments.iter().map(|range| u64::from(range.length)).sum();
        if total > self.limits.max_frame_bytes {
            return Err(Refusal::new(
                "too-large",
                format!("a compressed frame of {total} bytes"),
            ));
        }
        let mut bytes = Vec::new();
        if let [one] = fragments {
            self.file
                .read_at(one.offset, one.length as usize, &mut bytes)?;
            return Ok(bytes);
        }
        let mut part = Vec::new();
        for range in fragments {
            self.file
                .read_at(range.offset, range.length as usize, &mut part)?;
            bytes.extend_from_slice(&part);
        }
        Ok(bytes)
    }
}

/// How multi-byte samples of native data are written.
fn byte_order(transfer_syntax: &str, vr: &[u8; 2], layout: &Layout) -> native::ByteOrder {
    use native::ByteOrder;
    let big = transfer_syntax == codec::EXPLICIT_BIG_ENDIAN
        || transfer_syntax == codec::GE_BIG_ENDIAN_PIXELS;
    match (big, layout.kind, layout.bits_allocated) {
        (false, ..) => ByteOrder::Little,
        (true, SampleKind::Integer, 32) => ByteOrder::BigUnlessAmbiguous,
        (true, SampleKind::Integer, 1 | 8) if vr == b"OB" => ByteOrder::Little,
        (true, SampleKind::Integer, 1 | 8) => ByteOrder::SwappedWords,
        (true, ..) => ByteOrder::Big,
    }
}

/// Assigns fragments to frames; indices are into `fragments`, whose first is the offset table.
fn assign(
    file: &DicomFile,
    fragments: &[Range],
    frames: usize,
) -> Result<Vec<Span<usize>>, Refusal> {
    let filled: Vec<usize> = (1..fragments.len())
        .filter(|&i| fragments.get(i).is_some_and(|range| range.length > 0))
        .collect();
    if filled.len() < frames {
        return Err(Refusal::new(
            "pixel-data-truncated",
            format!("{frames} frames, but {} fragments", filled.len()),
        ));
    }
    if filled.len() == frames {
        return Ok(filled.into_iter().map(|i| i..i + 1).collect());
    }
    let starts = if frames > 1 {
        match offset_table(file, fragments, frames)? {
            Some(starts) => starts,
            None => stream_starts(file, fragments, &filled)?,
        }
    } else {
        let mut starts = stream_starts(file, fragments, &filled)?;
        if starts.is_empty() {
            starts.push(1);
        }
        starts
    };
    if starts.len() != frames {
        return Err(Refusal::new(
            "frame-boundaries-unknown",
            format!(
                "{frames} frames in {} fragments, of which {} start a code stream",
                filled.len(),
                starts.len()
            ),
        ));
    }
    let ends = starts.iter().skip(1).copied().chain([fragments.len()]);
    Ok(starts
        .iter()
        .zip(ends)
        .map(|(&start, end)| start..end)
        .collect())
}

/// The fragments that a believable basic offset table names, one per frame.
fn offset_table(
    file: &DicomFile,
    fragments: &[Range],
    frames: usize,
) -> Result<Option<Vec<usize>>, Refusal> {
    let (Some(table), Some(first)) = (fragments.first(), fragments.get(1)) else {
        return Ok(None);
    };
    if table.length as usize != frames.saturating_mul(4) {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.read_at(table.offset, table.length as usize, &mut bytes)?;
    let mut starts: Vec<usize> = Vec::with_capacity(frames);
    for entry in bytes.as_chunks::<4>().0 {
        let offset = first.offset + u64::from(u32::from_le_bytes(*entry));
        // Fragments are in file order, so each offset is found by bisection.
        match fragments.binary_search_by_key(&offset, |range| range.offset) {
            Ok(i) if starts.last().is_none_or(|&last| i > last) => starts.push(i),
            _ => return Ok(None),
        }
    }
    Ok((starts.first() == Some(&1)).then_some(starts))
}

/// The fragments that begin with the first marker of a JPEG, JPEG-LS, JPEG 2000 or JPEG XL stream.
fn stream_starts(
    file: &DicomFile,
    fragments: &[Range],
    filled: &[usize],
) -> Result<Vec<usize>, Refusal> {
    let mut starts = Vec::new();
    let mut head = Vec::new();
    for &i in filled {
        let Some(range) = fragments.get(i) else {
            continue;
        };
        file.read_at(range.offset, range.length.min(12) as usize, &mut head)?;
        if codec::starts_stream(&head) {
            starts.push(i);
        }
    }
    Ok(starts)
}
