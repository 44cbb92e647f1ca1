//! What the fuzz targets share: DICOM files made in memory, and what must hold of anything decoded.
//!
//! A target says which promise it attacks; the assertions here are those promises. A panic in our
//! own code is a finding, and so are memory above the limits and input that takes seconds. A panic
//! inside a codec library is none, because the gateway contains it to one frame.
//!
//! The gateway's modules are compiled into this crate instead of being linked: fuzzing compiles
//! all dependencies anew, `make fuzz` with instrumentation, and those of the broker, the HTTP server and the model
//! runtime, most of all, have no part in this.

#[path = "../../src/certificates.rs"]
pub mod certificates;
#[path = "../../src/clock.rs"]
pub mod clock;
#[path = "../../src/commitment/mod.rs"]
pub mod commitment;
#[path = "../../src/dicom/mod.rs"]
pub mod dicom;
#[path = "../../src/durable/mod.rs"]
pub mod durable;
#[path = "../../src/live.rs"]
pub mod live;
#[path = "../../src/model/mod.rs"]
pub mod model;
#[path = "../../src/pause.rs"]
pub mod pause;
#[path = "../../src/pixel/mod.rs"]
pub mod pixel;
#[path = "../../src/priority.rs"]
pub mod priority;
#[path = "../../src/procedure/mod.rs"]
pub mod procedure;
#[path = "../../src/refusal.rs"]
pub mod refusal;
#[path = "../../src/scp/mod.rs"]
pub mod scp;
#[path = "../../src/scu/mod.rs"]
pub mod scu;
#[path = "../../src/spool/mod.rs"]
pub mod spool;
/// Without the logging of the binary.
#[path = "../../src/telemetry"]
pub mod telemetry {
    mod budget;
    pub mod metrics;
    pub mod study_key;
    pub use budget::Budget;
    pub use metrics::Metrics;
}
#[path = "../../src/tls/mod.rs"]
pub mod tls;
#[path = "../../src/units.rs"]
pub mod units;

use std::panic;

use crate::dicom::dataset::{DicomFile, ReadLimits};
use crate::pixel::{Frames, Image, Layout, Limits, Photometric, Refusal, Samples};

/// Far below what a gateway allows, so that an allocation that escapes them is seen.
pub fn limits() -> Limits {
    Limits {
        max_frame_bytes: 8 << 20,
        max_image_bytes: 32 << 20,
        max_working_bytes: 64 << 20,
    }
}

/// As [`limits`], for the reader of data sets.
pub fn read_limits() -> ReadLimits {
    ReadLimits {
        max_values_in_memory: 16 << 20,
        max_inflated: 32 << 20,
        ..ReadLimits::default()
    }
}

/// Lets panics in libraries unwind, as they do in the gateway, and ends the process for our own.
/// To be called once; libFuzzer's own hook would end the process for both.
pub fn contain_library_panics() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let in_library = info
            .location()
            .is_some_and(|location| location.file().contains("/registry/src/"));
        if !in_library {
            report(info);
            std::process::abort();
        }
    }));
}

/// Elements in explicit VR little endian.
#[derive(Debug, Default, Clone)]
pub struct Elements(Vec<u8>);

impl Elements {
    /// Appends an element; the caller keeps them in order.
    pub fn put(&mut self, (group, element): (u16, u16), vr: &[u8; 2], value: &[u8]) -> &mut Self {
        self.0.extend(group.to_le_bytes());
        self.0.extend(element.to_le_bytes());
        self.0.extend(vr);
        let padding = value.len() % 2;
        let length = value.len() + padding;
        if matches!(vr, b"OB" | b"OW" | b"OF" | b"OD" | b"SQ" | b"UN" | b"UT") {
            self.0.extend([0, 0]);
            self.0.extend((length as u32).to_le_bytes());
        } else {
            self.0.extend((length as u16).to_le_bytes());
        }
        self.0.extend(value);
        self.0.extend(&[b' '][..padding]);
        self
    }

    /// Appends numbers as US.
    pub fn us(&mut self, tag: (u16, u16), values: &[u16]) -> &mut Self {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.put(tag, b"US", &bytes)
    }

    /// Appends a sequence.
    pub fn sequence(&mut self, tag: (u16, u16), items: &[Elements]) -> &mut Self {
        let mut value = Vec::new();
        for item in items {
            value.extend([0xFE, 0xFF, 0x00, 0xE0]);
            value.extend((item.0.len() as u32).to_le_bytes());
            value.extend(&item.0);
        }
        self.put(tag, b"SQ", &value)
    }

    /// Appends encapsulated pixel data with an empty offset table and one fragment (PS3.5 A.4).
    pub fn fragment(&mut self, stream: &[u8]) -> &mut Self {
        let padded = stream.len().next_multiple_of(2) as u32;
        let mut items = vec![0xFE, 0xFF, 0x00, 0xE0, 0, 0, 0, 0, 0xFE, 0xFF, 0x00, 0xE0];
        items.extend(padded.to_le_bytes());
        items.extend(stream);
        items.resize(16 + padded as usize, 0);
        items.extend([0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0]);
        self.encapsulated(&items)
    }

    /// Appends Pixel Data of undefined length with these bytes as its items.
    pub fn encapsulated(&mut self, items: &[u8]) -> &mut Self {
        self.0.extend(
            b"\xE0\x7F\x10\x00OB\0\0\xFF\xFF\xFF\xFF"
                .iter()
                .chain(items),
        );
        self
    }

    /// The bytes so far.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// A Part 10 file of these elements.
    pub fn file(&self, transfer_syntax: &str) -> Vec<u8> {
        part_10(transfer_syntax, &self.0)
    }
}

/// A Part 10 file around a data set that is already encoded.
pub fn part_10(transfer_syntax: &str, data_set: &[u8]) -> Vec<u8> {
    let mut meta = Elements(vec![0; 128]);
    meta.0.extend(b"DICM");
    meta.put((0x0002, 0x0010), b"UI", transfer_syntax.as_bytes());
    // A UID is padded with a NUL, which the reader takes off like a space.
    meta.0.extend(data_set);
    meta.0
}

const PHOTOMETRIC: [&str; 11] = [
    "MONOCHROME2",
    "MONOCHROME1",
    "PALETTE COLOR",
    "RGB",
    "YBR_FULL",
    "YBR_FULL_422",
    "YBR_PARTIAL_420",
    "YBR_PARTIAL_422",
    "YBR_ICT",
    "YBR_RCT",
    "XYB",
];

/// The image attributes that the first bytes of an input stand for. scripts/fuzz_seeds.py writes
/// the same bytes.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    rows: u8,
    columns: u8,
    bits: u8,
    flags: u8,
    /// Left to the target, usually to choose a transfer syntax.
    pub choice: u8,
}

impl Shape {
    /// Takes the shape off an input.
    pub fn split(input: &[u8]) -> Option<(Self, &[u8])> {
        let (&[rows, columns, bits, flags, choice], rest) = input.split_first_chunk()?;
        let shape = Self {
            rows,
            columns,
            bits,
            flags,
            choice,
        };
        Some((shape, rest))
    }

    /// The Image Pixel attributes of `frames` frames (PS3.3 C.7.6.3).
    pub fn attributes(&self, frames: usize) -> Elements {
        let photometric = PHOTOMETRIC[usize::from(self.flags & 0x0F) % PHOTOMETRIC.len()];
        let samples = Photometric::parse(photometric).map_or(1, Photometric::samples) as u16;
        let allocated = [8, 16, 32, 1][usize::from(self.bits & 3)];
        let stored = u16::from(self.bits >> 2) % allocated + 1;
        let high = if self.flags & 0x40 == 0 {
            stored
        } else {
            allocated
        } - 1;
        let mut elements = Elements::default();
        elements
            .us((0x0028, 0x0002), &[samples])
            .put((0x0028, 0x0004), b"CS", photometric.as_bytes())
            .us((0x0028, 0x0006), &[u16::from(self.flags >> 5 & 1)])
            .put((0x0028, 0x0008), b"IS", frames.to_string().as_bytes())
            .us((0x0028, 0x0010), &[u16::from(self.rows.max(1))])
            .us((0x0028, 0x0011), &[u16::from(self.columns.max(1))])
            .us((0x0028, 0x0100), &[allocated])
            .us((0x0028, 0x0101), &[stored])
            .us((0x0028, 0x0102), &[high])
            .us((0x0028, 0x0103), &[u16::from(self.flags >> 4 & 1)]);
        elements
    }
}

/// An input of a codec's target: a shape, then one code stream.
pub fn code_stream(input: &[u8], transfer_syntaxes: &[&str]) {
    let Some((shape, stream)) = Shape::split(input) else {
        return;
    };
    let syntax = transfer_syntaxes[usize::from(shape.choice) % transfer_syntaxes.len()];
    decode_all(shape.attributes(1).fragment(stream).file(syntax));
}

/// Decodes every frame of a file twice: each is exactly what its attributes say or a refusal, and
/// the second time the same as the first.
pub fn decode_all(bytes: Vec<u8>) {
    let file = match DicomFile::from_bytes(bytes, &read_limits()) {
        Ok(file) => file,
        Err(err) => return refused(&Refusal::from(err)),
    };
    let frames = match Frames::open(&file, &limits()) {
        Ok(frames) => frames,
        Err(refusal) => return refused(&refusal),
    };
    for index in 0..frames.count().min(16) {
        match (frames.decode(index), frames.decode(index)) {
            (Ok(first), Ok(second)) => {
                exact(&first, frames.layout());
                assert_eq!(first.data.to_le_bytes(), second.data.to_le_bytes());
                assert_eq!(first.photometric, second.photometric);
            }
            (Err(first), Err(second)) => {
                refused(&first);
                assert_eq!(first, second);
            }
            (first, second) => panic!("once {first:?}, once {second:?}"),
        }
    }
}

/// A frame has the samples that the attributes promise, and values that fit in Bits Stored.
pub fn exact(image: &Image, layout: &Layout) {
    assert_eq!((image.rows, image.columns), (layout.rows, layout.columns));
    assert_eq!(image.samples_per_pixel, layout.samples);
    assert_eq!(
        image.data.len(),
        layout.rows * layout.columns * layout.samples
    );
    let span = 1i64 << layout.bits_stored.min(32);
    let range = if layout.signed {
        -span / 2..span / 2
    } else {
        0..span
    };
    let fits = |value: i64| assert!(range.contains(&value), "{value} in {range:?}");
    match &image.data {
        Samples::U8(values) => values.iter().for_each(|v| fits((*v).into())),
        Samples::I8(values) => values.iter().for_each(|v| fits((*v).into())),
        Samples::U16(values) => values.iter().for_each(|v| fits((*v).into())),
        Samples::I16(values) => values.iter().for_each(|v| fits((*v).into())),
        Samples::U32(values) => values.iter().for_each(|v| fits((*v).into())),
        Samples::I32(values) => values.iter().for_each(|v| fits((*v).into())),
        Samples::F32(_) | Samples::F64(_) => {}
    }
}

/// A refusal says why, in a code and a sentence.
pub fn refused(refusal: &Refusal) {
    assert!(!refusal.code.is_empty());
    assert!(
        refusal
            .code
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    );
    assert!(!refusal.text.is_empty());
}
