//! The Image Pixel attributes of an instance (PS3.3 C.7.6.3), checked once and then trusted.
//!
//! Every later stage takes its dimensions from here, so the products are known to fit and to agree
//! with each other; nothing else reads Rows or Bits Allocated.

use dicom::core::Tag;
use dicom::dictionary_std::tags;

use super::{Limits, Refusal};
use crate::dicom::dataset::DataSet;

/// Photometric Interpretation (0028,0004).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the standard's
pub enum Photometric {
    Monochrome1,
    Monochrome2,
    PaletteColor,
    Rgb,
    YbrFull,
    YbrFull422,
    YbrPartial420,
    YbrPartial422,
    YbrIct,
    YbrRct,
    Xyb,
}

impl Photometric {
    const ALL: [(Self, &'static str); 11] = [
        (Self::Monochrome1, "MONOCHROME1"),
        (Self::Monochrome2, "MONOCHROME2"),
        (Self::PaletteColor, "PALETTE COLOR"),
        (Self::Rgb, "RGB"),
        (Self::YbrFull, "YBR_FULL"),
        (Self::YbrFull422, "YBR_FULL_422"),
        (Self::YbrPartial420, "YBR_PARTIAL_420"),
        (Self::YbrPartial422, "YBR_PARTIAL_422"),
        (Self::YbrIct, "YBR_ICT"),
        (Self::YbrRct, "YBR_RCT"),
        (Self::Xyb, "XYB"),
    ];

    /// From the value of the attribute.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, name)| *name == text)
            .map(|(photometric, _)| *photometric)
    }

    /// The value of the attribute.
    pub fn as_str(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(photometric, _)| *photometric == self)
            .map_or("", |(_, name)| name)
    }

    /// Samples per pixel that go with it.
    pub fn samples(self) -> usize {
        match self {
            Self::Monochrome1 | Self::Monochrome2 | Self::PaletteColor => 1,
            _ => 3,
        }
    }

    /// Whether it is one of the two greys.
    pub fn is_monochrome(self) -> bool {
        matches!(self, Self::Monochrome1 | Self::Monochrome2)
    }
}

/// How one sample is represented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleKind {
    /// Pixel Data (7FE0,0010).
    Integer,
    /// Float Pixel Data (7FE0,0008).
    Float,
    /// Double Float Pixel Data (7FE0,0009).
    Double,
}

/// Checked dimensions and representation of the pixels of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Rows of one frame, at least 1.
    pub rows: usize,
    /// Columns of one frame, at least 1.
    pub columns: usize,
    /// Samples per pixel, 1 or 3.
    pub samples: usize,
    /// Number of frames, at least 1.
    pub frames: usize,
    /// 1, 8, 16 or 32; 32 and 64 for floats.
    pub bits_allocated: u32,
    /// 1..=`bits_allocated`.
    pub bits_stored: u32,
    /// `bits_stored - 1 .. bits_allocated`.
    pub high_bit: u32,
    /// Pixel Representation is 1.
    pub signed: bool,
    /// Planar Configuration is 1: all of one colour, then the next.
    pub planar: bool,
    /// As declared.
    pub photometric: Photometric,
    /// Which of the three pixel data attributes.
    pub kind: SampleKind,
}

impl Layout {
    /// Reads and checks the attributes.
    ///
    /// # Errors
    /// A [`Refusal`] that names the first attribute that is missing, contradictory or too large.
    pub fn read(data_set: &DataSet, limits: &Limits) -> Result<Self, Refusal> {
        let kind = kind(data_set)?;
        let rows = dimension(data_set, tags::ROWS, "Rows")?;
        let columns = dimension(data_set, tags::COLUMNS, "Columns")?;
        let samples = required(data_set, tags::SAMPLES_PER_PIXEL, "Samples per Pixel")?;
        let photometric = data_set
            .str(tags::PHOTOMETRIC_INTERPRETATION)
            .as_deref()
            .and_then(Photometric::parse)
            .ok_or_else(|| {
                Refusal::new(
                    "photometric-unsupported",
                    "Photometric Interpretation is absent or not one we can decode",
                )
            })?;
        if samples != photometric.samples() as i64 {
            return Err(Refusal::new(
                "attributes-contradict",
                format!("Samples per Pixel {samples} with {}", photometric.as_str()),
            ));
        }
        let planar = match data_set.int(tags::PLANAR_CONFIGURATION) {
            None | Some(0) => false,
            Some(1) => true,
            Some(other) => {
                return Err(Refusal::new(
                    "attributes-contradict",
                    format!("Planar Configuration {other}"),
                ));
            }
        };
        let bits = match kind {
            SampleKind::Integer => Bits::read(data_set)?,
            SampleKind::Float => Bits::float(32),
            SampleKind::Double => Bits::float(64),
        };
        let layout = Self {
            rows,
            columns,
            samples: photometric.samples(),
            frames: frames(data_set)?,
            bits_allocated: bits.allocated,
            bits_stored: bits.stored,
            high_bit: bits.high,
            signed: bits.signed,
            planar,
            photometric,
            kind,
        };
        if layout.frame_bytes() > limits.max_frame_bytes {
            return Err(Refusal::new(
                "too-large",
                format!(
                    "a frame of {columns} x {rows} x {samples} needs {} bytes, the limit is {}",
                    layout.frame_bytes(),
                    limits.max_frame_bytes
                ),
            ));
        }
        Ok(layout)
    }

    /// Samples in one frame.
    pub fn frame_samples(&self) -> usize {
        self.rows
            .saturating_mul(self.columns)
            .saturating_mul(self.samples)
    }

    /// Bytes of one decoded sample.
    pub fn sample_bytes(&self) -> usize {
        (self.bits_allocated as usize).div_ceil(8)
    }

    /// Bytes of one decoded frame; one-bit samples take a byte each.
    pub fn frame_bytes(&self) -> u64 {
        (self.frame_samples() as u64).saturating_mul(self.sample_bytes() as u64)
    }
}

fn kind(data_set: &DataSet) -> Result<SampleKind, Refusal> {
    let present = |tag: Tag| data_set.get(tag).is_some();
    match (
        present(tags::PIXEL_DATA),
        present(tags::FLOAT_PIXEL_DATA),
        present(tags::DOUBLE_FLOAT_PIXEL_DATA),
    ) {
        (true, false, false) => Ok(SampleKind::Integer),
        (false, true, false) => Ok(SampleKind::Float),
        (false, false, true) => Ok(SampleKind::Double),
        (false, false, false) => Err(Refusal::new(
            "no-pixel-data",
            "the instance has no pixel data",
        )),
        _ => Err(Refusal::new(
            "attributes-contradict",
            "more than one pixel data element",
        )),
    }
}

fn required(data_set: &DataSet, tag: Tag, name: &str) -> Result<i64, Refusal> {
    data_set.int(tag).ok_or_else(|| {
        Refusal::new(
            "attribute-missing",
            format!("{name} is absent or not a number"),
        )
    })
}

fn dimension(data_set: &DataSet, tag: Tag, name: &str) -> Result<usize, Refusal> {
    match usize::try_from(required(data_set, tag, name)?) {
        Ok(value @ 1..=0xFFFF) => Ok(value),
        _ => Err(Refusal::new(
            "attributes-contradict",
            format!("{name} is out of range"),
        )),
    }
}

/// Absent or empty means one frame; anything but one positive integer string is refused rather
/// than guessed.
fn frames(data_set: &DataSet) -> Result<usize, Refusal> {
    let text = data_set.str(tags::NUMBER_OF_FRAMES);
    let frames = match text.as_deref() {
        _ if !data_set.has_value(tags::NUMBER_OF_FRAMES) => Some(1),
        None => None,
        Some(text) => text.parse::<u32>().ok(),
    };
    match frames {
        Some(frames @ 1..) => Ok(frames as usize),
        _ => Err(Refusal::new(
            "attributes-contradict",
            "Number of Frames is not a positive integer",
        )),
    }
}

struct Bits {
    allocated: u32,
    stored: u32,
    high: u32,
    signed: bool,
}

impl Bits {
    fn float(bits: u32) -> Self {
        Self {
            allocated: bits,
            stored: bits,
            high: bits - 1,
            signed: true,
        }
    }

    fn read(data_set: &DataSet) -> Result<Self, Refusal> {
        let allocated = required(data_set, tags::BITS_ALLOCATED, "Bits Allocated")?;
        if !matches!(allocated, 1 | 8 | 16 | 32) {
            return Err(Refusal::new(
                "bits-unsupported",
                format!("Bits Allocated {allocated}"),
            ));
        }
        let stored = required(data_set, tags::BITS_STORED, "Bits Stored")?;
        let high = data_set.int(tags::HIGH_BIT).unwrap_or(stored - 1);
        let signed = required(data_set, tags::PIXEL_REPRESENTATION, "Pixel Representation")?;
        if !(1..=allocated).contains(&stored)
            || !(stored - 1..allocated).contains(&high)
            || !matches!(signed, 0 | 1)
        {
            return Err(Refusal::new(
                "attributes-contradict",
                format!(
                    "Bits Allocated {allocated}, Bits Stored {stored}, High Bit {high}, \
                     Pixel Representation {signed}"
                ),
            ));
        }
        Ok(Self {
            allocated: allocated as u32,
            stored: stored as u32,
            high: high as u32,
            signed: signed == 1,
        })
    }
}
