//! Stored values: what the modality wrote, before any lookup table.
//!
//! Each cell is shifted and masked to Bits Stored and sign-extended when Pixel Representation is 1
//! (PS3.5 §8.1.1), in a container of Bits Allocated, colour interleaved. No colour transform is
//! applied or undone, except the one that is part of JPEG 2000, HTJ2K and JPEG XL themselves, so
//! that YBR stays YBR; one-bit samples become a byte of 0 or 1 each.

use super::codec::{Cells, Decoded};
use super::{Frames, Layout, Limits, Photometric, Refusal};
use crate::dicom::dataset::DicomFile;

/// Sample values in the narrowest type of Bits Allocated and Pixel Representation.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // named by their type
pub enum Samples {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    F64(Vec<f64>),
}

/// Runs `$body` with `$values` bound to the vector, whatever its type.
macro_rules! each {
    ($samples:expr, $values:ident => $body:expr) => {
        match $samples {
            $crate::pixel::Samples::U8($values) => $body,
            $crate::pixel::Samples::I8($values) => $body,
            $crate::pixel::Samples::U16($values) => $body,
            $crate::pixel::Samples::I16($values) => $body,
            $crate::pixel::Samples::U32($values) => $body,
            $crate::pixel::Samples::I32($values) => $body,
            $crate::pixel::Samples::F32($values) => $body,
            $crate::pixel::Samples::F64($values) => $body,
        }
    };
}
pub(crate) use each;

impl Samples {
    /// Number of samples.
    pub fn len(&self) -> usize {
        each!(self, values => values.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type's name as NumPy spells it.
    pub fn dtype(&self) -> &'static str {
        match self {
            Self::U8(_) => "uint8",
            Self::I8(_) => "int8",
            Self::U16(_) => "uint16",
            Self::I16(_) => "int16",
            Self::U32(_) => "uint32",
            Self::I32(_) => "int32",
            Self::F32(_) => "float32",
            Self::F64(_) => "float64",
        }
    }

    /// The samples as little endian bytes.
    pub fn to_le_bytes(&self) -> Vec<u8> {
        match self {
            Self::U8(values) => values.clone(),
            Self::I8(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            other => each!(other, values => {
                values.iter().flat_map(|v| v.to_le_bytes()).collect()
            }),
        }
    }

    /// Appends the samples of another frame; `false` when its type differs.
    pub fn append(&mut self, other: &Self) -> bool {
        match (self, other) {
            (Self::U8(to), Self::U8(from)) => to.extend_from_slice(from),
            (Self::I8(to), Self::I8(from)) => to.extend_from_slice(from),
            (Self::U16(to), Self::U16(from)) => to.extend_from_slice(from),
            (Self::I16(to), Self::I16(from)) => to.extend_from_slice(from),
            (Self::U32(to), Self::U32(from)) => to.extend_from_slice(from),
            (Self::I32(to), Self::I32(from)) => to.extend_from_slice(from),
            (Self::F32(to), Self::F32(from)) => to.extend_from_slice(from),
            (Self::F64(to), Self::F64(from)) => to.extend_from_slice(from),
            _ => return false,
        }
        true
    }
}

/// Stored values of one or all frames, interleaved: frames × rows × columns × samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Rows of a frame.
    pub rows: usize,
    /// Columns of a frame.
    pub columns: usize,
    /// 1 or 3.
    pub samples_per_pixel: usize,
    /// Frames in `data`.
    pub frames: usize,
    /// What the values are, which differs from the attribute where a codec inverts a colour
    /// transform (`YBR_RCT` comes out as `RGB`) or chroma was upsampled.
    pub photometric: Photometric,
    /// The values.
    pub data: Samples,
}

/// Decodes all frames.
///
/// # Errors
/// A [`Refusal`] when any frame cannot be decoded exactly or all together exceed
/// [`Limits::max_image_bytes`]; decode frame by frame to work on larger instances.
pub fn decode(file: &DicomFile, limits: &Limits) -> Result<Image, Refusal> {
    let frames = Frames::open(file, limits)?;
    let total = frames
        .layout()
        .frame_bytes()
        .saturating_mul(frames.count() as u64);
    if total > limits.max_image_bytes {
        return Err(Refusal::new(
            "too-large",
            format!("{} frames need {total} bytes", frames.count()),
        ));
    }
    let mut image = frames.decode(0)?;
    for index in 1..frames.count() {
        let next = frames.decode(index)?;
        if next.photometric != image.photometric || !image.data.append(&next.data) {
            return Err(Refusal::new(
                "header-mismatch",
                "the frames differ in their representation",
            ));
        }
        image.frames += 1;
    }
    Ok(image)
}

/// Decodes frame `index` (from 0).
///
/// # Errors
/// A [`Refusal`] when it cannot be decoded exactly.
pub fn decode_frame(file: &DicomFile, index: usize, limits: &Limits) -> Result<Image, Refusal> {
    Frames::open(file, limits)?.decode(index)
}

impl Frames<'_> {
    /// Decodes frame `index` (from 0).
    ///
    /// # Errors
    /// A [`Refusal`] when it cannot be decoded exactly.
    pub fn decode(&self, index: usize) -> Result<Image, Refusal> {
        let layout = self.layout();
        let decoded = self.cells(index)?;
        if decoded.cells.len() != layout.frame_samples() {
            return Err(Refusal::new(
                "codec-error",
                format!(
                    "the codec gave {} samples for {}",
                    decoded.cells.len(),
                    layout.frame_samples()
                ),
            ));
        }
        Ok(Image {
            rows: layout.rows,
            columns: layout.columns,
            samples_per_pixel: layout.samples,
            frames: 1,
            photometric: decoded.photometric,
            data: values(decoded, layout),
        })
    }
}

/// Reduces cells to values.
fn values(decoded: Decoded, layout: &Layout) -> Samples {
    // A code stream that holds fewer bits than the cell has nothing below the value to remove.
    let shift = if decoded.precision > layout.high_bit {
        layout.high_bit + 1 - layout.bits_stored
    } else {
        0
    };
    let unused = 32u32.saturating_sub(layout.bits_stored);
    let unsigned = |cell: u32| (cell >> shift) << unused >> unused;
    let signed = |cell: u32| ((cell >> shift) << unused).cast_signed() >> unused;
    match (decoded.cells, layout.bits_allocated, layout.signed) {
        (Cells::F32(values), ..) => Samples::F32(values),
        (Cells::F64(values), ..) => Samples::F64(values),
        (Cells::U8(cells), 1 | 8, false) if unused == 24 => Samples::U8(cells),
        (Cells::U16(cells), 16, false) if unused == 16 => Samples::U16(cells),
        // The two that nearly all images are, in their own width: twice as many at a time.
        (Cells::U16(mut cells), 16, false) => {
            let mask = u16::MAX >> (unused - 16);
            for cell in &mut cells {
                *cell = *cell >> shift & mask;
            }
            Samples::U16(cells)
        }
        (Cells::U16(cells), 16, true) => {
            let unused = unused - 16;
            let extended = |cell: u16| ((cell >> shift) << unused).cast_signed() >> unused;
            Samples::I16(cells.into_iter().map(extended).collect())
        }
        (cells, 1 | 8, false) => Samples::U8(cells.map(|cell| unsigned(cell) as u8)),
        (cells, 1 | 8, true) => Samples::I8(cells.map(|cell| signed(cell) as i8)),
        (cells, 16, false) => Samples::U16(cells.map(|cell| unsigned(cell) as u16)),
        (cells, 16, true) => Samples::I16(cells.map(|cell| signed(cell) as i16)),
        (cells, _, false) => Samples::U32(cells.map(unsigned)),
        (cells, _, true) => Samples::I32(cells.map(signed)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::pixel::layout::SampleKind;

    fn layout(stored: u32, high_bit: u32, signed: bool) -> Layout {
        Layout {
            rows: 1,
            columns: 2,
            samples: 1,
            frames: 1,
            bits_allocated: 16,
            bits_stored: stored,
            high_bit,
            signed,
            planar: false,
            photometric: Photometric::Monochrome2,
            kind: SampleKind::Integer,
        }
    }

    fn check(cells: [u16; 2], precision: u32, layout: Layout, expected: &Samples) {
        let decoded = Decoded {
            cells: Cells::U16(cells.to_vec()),
            precision,
            photometric: Photometric::Monochrome2,
        };
        assert_eq!(&values(decoded, &layout), expected);
    }

    #[test]
    fn bits_above_the_high_bit_are_not_part_of_the_value() {
        let expected = Samples::U16(vec![0x0ABC, 0x0001]);
        check([0xFABC, 0x8001], 16, layout(12, 11, false), &expected);
    }

    #[test]
    fn a_shifted_sample_comes_down_to_its_value() {
        let expected = Samples::U16(vec![0x0ABC, 0x0001]);
        check([0xABCF, 0x0010], 16, layout(12, 15, false), &expected);
    }

    #[test]
    fn signed_values_are_extended_from_the_stored_bits() {
        let expected = Samples::I16(vec![-1, 2047]);
        check([0x0FFF, 0x07FF], 12, layout(12, 11, true), &expected);
        check([0xFFFF, 0xF7FF], 16, layout(12, 11, true), &expected);
    }
}
