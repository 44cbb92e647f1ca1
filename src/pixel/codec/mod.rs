//! Compressed frame in, cells out: one table says which code decodes which transfer syntax.
//!
//! A codec only sees a frame whose own header agrees with the attributes of the instance, gets a
//! bound on its memory, and runs inside `catch_unwind`, so that a panic in it costs one frame. Its
//! output is *cells*: what stands in the pixel cell, before masking and sign extension.

mod deflate;
mod jpeg;
mod jpeg2000;
mod jpegls;
mod jpegxl;
mod libjpeg;
pub(super) mod native;
mod rle;

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Layout, Limits, Photometric, Refusal};

/// Cells of one frame, colour interleaved.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cells {
    U8(Vec<u8>),
    U16(Vec<u16>),
    /// Wider cells, and signed ones in two's complement.
    I32(Vec<i32>),
    F32(Vec<f32>),
    F64(Vec<f64>),
}

impl Cells {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::U8(cells) => cells.len(),
            Self::U16(cells) => cells.len(),
            Self::I32(cells) => cells.len(),
            Self::F32(cells) => cells.len(),
            Self::F64(cells) => cells.len(),
        }
    }

    /// Converts every cell from its bits. Float cells have no bits to take apart and are handled
    /// before this is reached.
    pub(super) fn map<T>(self, f: impl Fn(u32) -> T) -> Vec<T> {
        match self {
            Self::U8(cells) => cells.into_iter().map(|cell| f(u32::from(cell))).collect(),
            Self::U16(cells) => cells.into_iter().map(|cell| f(u32::from(cell))).collect(),
            Self::I32(cells) => cells
                .into_iter()
                .map(|cell| f(cell.cast_unsigned()))
                .collect(),
            Self::F32(_) | Self::F64(_) => Vec::new(),
        }
    }

    /// Turns planes (all of one colour, then the next) into interleaved samples.
    fn interleaved(self, samples: usize) -> Self {
        fn run<T: Copy + Default>(planes: Vec<T>, samples: usize) -> Vec<T> {
            if samples < 2 || planes.is_empty() {
                return planes;
            }
            let planes: Vec<&[T]> = planes.chunks_exact(planes.len() / samples).collect();
            woven(&planes, |value| value)
        }
        match self {
            Self::U8(cells) => Self::U8(run(cells, samples)),
            Self::U16(cells) => Self::U16(run(cells, samples)),
            Self::I32(cells) => Self::I32(run(cells, samples)),
            Self::F32(cells) => Self::F32(run(cells, samples)),
            Self::F64(cells) => Self::F64(run(cells, samples)),
        }
    }
}

/// Planes to pixels: the first value of each plane, then the second of each. `convert` is what
/// becomes of a value on the way.
fn woven<T: Copy, U: Copy + Default>(planes: &[&[T]], convert: impl Fn(T) -> U) -> Vec<U> {
    let pixels = planes.iter().map(|plane| plane.len()).min().unwrap_or(0);
    let mut out = vec![U::default(); pixels * planes.len()];
    match planes {
        // Three at a time is what colour needs; plane by plane takes several times as long.
        [a, b, c] => {
            let values = a.iter().zip(*b).zip(*c);
            for (pixel, ((a, b), c)) in out.as_chunks_mut::<3>().0.iter_mut().zip(values) {
                *pixel = [convert(*a), convert(*b), convert(*c)];
            }
        }
        planes => {
            for (s, plane) in planes.iter().enumerate() {
                let cells = out.iter_mut().skip(s).step_by(planes.len());
                for (cell, value) in cells.zip(*plane) {
                    *cell = convert(*value);
                }
            }
        }
    }
    out
}

/// What a codec gives back.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Decoded {
    pub(super) cells: Cells,
    /// Bits of a cell that the stream can set.
    pub(super) precision: u32,
    /// What the cells are after the codec's own colour transform.
    pub(super) photometric: Photometric,
}

/// Who decodes a transfer syntax.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    Native,
    EncapsulatedNative,
    DeflatedFrame,
    Rle,
    Jpeg,
    JpegLs,
    Jpeg2000,
    JpegXl,
}

/// Explicit VR big endian, retired and alive.
pub(super) const EXPLICIT_BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";

/// GE's private implicit VR little endian with big endian pixel data.
pub(super) const GE_BIG_ENDIAN_PIXELS: &str = "1.2.840.113619.5.2";

/// Transfer syntaxes (PS3.6 Table A-1) and their codecs. The retired JPEG processes with Huffman
/// coding are here because archives are full of them.
const CODECS: &[(&str, Codec)] = &[
    ("1.2.840.10008.1.2", Codec::Native),
    ("1.2.840.10008.1.2.1", Codec::Native),
    (EXPLICIT_BIG_ENDIAN, Codec::Native),
    ("1.2.840.10008.1.2.1.99", Codec::Native),
    (GE_BIG_ENDIAN_PIXELS, Codec::Native),
    ("1.2.840.10008.1.2.1.98", Codec::EncapsulatedNative),
    ("1.2.840.10008.1.2.8.1", Codec::DeflatedFrame),
    ("1.2.840.10008.1.2.5", Codec::Rle),
    ("1.2.840.10008.1.2.4.50", Codec::Jpeg),
    ("1.2.840.10008.1.2.4.51", Codec::Jpeg),
    ("1.2.840.10008.1.2.4.53", Codec::Jpeg),
    ("1.2.840.10008.1.2.4.55", Codec::Jpeg),
    ("1.2.840.10008.1.2.4.57", Codec::Jpeg),
    ("1.2.840.10008.1.2.4.70", Codec::Jpeg),
    ("1.2.840.10008.1.2.4.80", Codec::JpegLs),
    ("1.2.840.10008.1.2.4.81", Codec::JpegLs),
    ("1.2.840.10008.1.2.4.90", Codec::Jpeg2000),
    ("1.2.840.10008.1.2.4.91", Codec::Jpeg2000),
    ("1.2.840.10008.1.2.4.92", Codec::Jpeg2000),
    ("1.2.840.10008.1.2.4.93", Codec::Jpeg2000),
    ("1.2.840.10008.1.2.4.201", Codec::Jpeg2000),
    ("1.2.840.10008.1.2.4.202", Codec::Jpeg2000),
    ("1.2.840.10008.1.2.4.203", Codec::Jpeg2000),
    ("1.2.840.10008.1.2.4.110", Codec::JpegXl),
    ("1.2.840.10008.1.2.4.111", Codec::JpegXl),
    ("1.2.840.10008.1.2.4.112", Codec::JpegXl),
];

/// The families of MPEG-2, MPEG-4, HEVC and SMPTE ST 2110 syntaxes.
const VIDEO: &[&str] = &["1.2.840.10008.1.2.4.10", "1.2.840.10008.1.2.7."];

impl Codec {
    /// The codec of a transfer syntax.
    pub(super) fn of(transfer_syntax: &str) -> Result<Self, Refusal> {
        if let Some((_, codec)) = CODECS.iter().find(|(uid, _)| *uid == transfer_syntax) {
            return Ok(*codec);
        }
        if VIDEO.iter().any(|root| transfer_syntax.starts_with(root)) {
            return Err(Refusal::new("video", "video is kept, not decoded"));
        }
        // The UID came from outside and may be anything; show it only when it looks like one.
        let shown = if transfer_syntax.len() <= 64
            && transfer_syntax
                .bytes()
                .all(|b| b.is_ascii_digit() || b == b'.')
        {
            transfer_syntax
        } else {
            "not a UID"
        };
        Err(Refusal::new(
            "transfer-syntax-unsupported",
            format!("transfer syntax {shown}"),
        ))
    }

    /// Whether its pixel data is one value instead of fragments.
    pub(super) fn is_native(self) -> bool {
        self == Self::Native
    }
}

/// Transfer syntaxes whose frames can be decoded.
pub fn supported() -> impl Iterator<Item = &'static str> {
    CODECS.iter().map(|(uid, _)| *uid)
}

/// Whether the pixels of a transfer syntax stand in the file as they are, so that reading them takes
/// no codec and no more memory than they have.
pub fn is_plain(transfer_syntax: &str) -> bool {
    [
        "1.2.840.10008.1.2",
        "1.2.840.10008.1.2.1",
        EXPLICIT_BIG_ENDIAN,
    ]
    .contains(&transfer_syntax)
}

/// Whether bytes begin a JPEG, JPEG-LS, JPEG 2000 or JPEG XL stream.
pub(super) fn starts_stream(head: &[u8]) -> bool {
    head.starts_with(&[0xFF, 0xD8, 0xFF])
        || head.starts_with(&[0xFF, 0x4F, 0xFF, 0x51])
        || head.starts_with(&[0xFF, 0x0A])
        || head.starts_with(b"\0\0\0\x0CjP  ")
        || head.starts_with(b"\0\0\0\x0CJXL ")
}

/// Decodes one compressed frame.
pub(super) fn decode(
    codec: Codec,
    bytes: &[u8],
    layout: &Layout,
    limits: &Limits,
) -> Result<Decoded, Refusal> {
    let run = || match codec {
        Codec::Native | Codec::EncapsulatedNative => {
            native::decode(bytes.to_vec(), 0, native::ByteOrder::Little, layout, false)
        }
        Codec::DeflatedFrame => deflate::decode(bytes, layout),
        Codec::Rle => rle::decode(bytes, layout),
        Codec::Jpeg => jpeg::decode(bytes, layout, limits),
        Codec::JpegLs => jpegls::decode(bytes, layout),
        Codec::Jpeg2000 => jpeg2000::decode(bytes, layout, limits),
        Codec::JpegXl => jpegxl::decode(bytes, layout, limits),
    };
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|_| Err(Refusal::new("codec-error", "the codec failed unexpectedly")))
}

/// Refuses a frame whose own words about its colour contradict Photometric Interpretation. Stored
/// values do not depend on either, so this is asked only where colour is to be shown.
pub(super) fn check_colour(codec: Codec, bytes: &[u8], layout: &Layout) -> Result<(), Refusal> {
    if codec == Codec::Jpeg && jpeg::colour_contradicts(bytes, layout.photometric)? {
        return Err(mismatch(
            "colour",
            "another model",
            layout.photometric.as_str(),
        ));
    }
    Ok(())
}

/// A frame header that contradicts the attributes of the instance.
fn mismatch(
    what: &str,
    stream: impl std::fmt::Display,
    attribute: impl std::fmt::Display,
) -> Refusal {
    Refusal::new(
        "header-mismatch",
        format!("{what}: {stream} in the code stream, {attribute} in the attributes"),
    )
}

/// A stream that cannot be decoded.
fn broken(what: impl std::fmt::Display) -> Refusal {
    Refusal::new("codec-error", format!("the code stream is damaged: {what}"))
}

/// What the header of a code stream says about its image.
struct Header {
    rows: usize,
    columns: usize,
    components: usize,
    precision: u32,
}

impl Header {
    /// Compares the stream with the attributes. More bits than Bits Stored are met in practice
    /// (the whole cell was encoded) and are masked later; fewer mean that one of the two lies.
    fn check(&self, layout: &Layout) -> Result<(), Refusal> {
        if (self.rows, self.columns) != (layout.rows, layout.columns) {
            return Err(mismatch(
                "columns x rows",
                format_args!("{} x {}", self.columns, self.rows),
                format_args!("{} x {}", layout.columns, layout.rows),
            ));
        }
        if self.components != layout.samples {
            return Err(mismatch(
                "samples per pixel",
                self.components,
                layout.samples,
            ));
        }
        if self.precision > layout.bits_allocated || self.precision < layout.bits_stored {
            return Err(mismatch(
                "bits",
                self.precision,
                format_args!("{} stored in {}", layout.bits_stored, layout.bits_allocated),
            ));
        }
        Ok(())
    }
}
