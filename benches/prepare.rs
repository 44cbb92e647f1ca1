//! Nanoseconds of processor per stored pixel, from decoded values to the tensor, as a table.
//!
//! The images are made here and are uncompressed; what reading them takes is measured by itself and
//! taken off. Each figure is the least of several measurements.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::hint::black_box;

use pacs_gateway::dicom::dataset::{DicomFile, ReadLimits};
use pacs_gateway::model::manifest::{
    DType, Fit, ImageSpec, Interpolation, Layout, ValueSpace, Window,
};
use pacs_gateway::pixel::{Frames, Limits, prepare};
use support::processor_seconds;

const MEASUREMENTS: usize = 5;
const ENOUGH_SECONDS: f64 = 0.2;

struct Case {
    name: &'static str,
    rows: u16,
    columns: u16,
    bits: u16,
    photometric: &'static str,
    side: usize,
    channels: usize,
    value: ValueSpace,
}

const fn grey(name: &'static str, rows: u16, columns: u16, bits: u16, side: usize) -> Case {
    Case {
        name,
        rows,
        columns,
        bits,
        photometric: "MONOCHROME2",
        side,
        channels: 1,
        value: ValueSpace::Presentation,
    }
}

const CASES: &[Case] = &[
    grey("CT 512x512, 16 bit, window", 512, 512, 16, 224),
    Case {
        value: ValueSpace::Modality,
        ..grey("CT 512x512, 16 bit, units", 512, 512, 16, 224)
    },
    Case {
        channels: 3,
        ..grey("CT 512x512, 16 bit, repeated", 512, 512, 16, 224)
    },
    grey("MR 256x256, 12 bit, window", 256, 256, 12, 64),
    grey("DX 3000x2500, 12 bit, window", 3000, 2500, 12, 512),
    Case {
        photometric: "RGB",
        channels: 3,
        ..grey("RGB 480x640", 480, 640, 8, 224)
    },
    Case {
        photometric: "YBR_FULL",
        channels: 3,
        ..grey("YBR_FULL 480x640", 480, 640, 8, 224)
    },
];

fn main() {
    // `cargo test` runs this too, to see that it builds.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    println!("| image | tensor | ns per pixel |\n|---|---|---|");
    for case in CASES {
        let file = DicomFile::from_bytes(case.file(), &ReadLimits::default()).unwrap();
        let frames = Frames::open(&file, &Limits::default()).unwrap();
        let spec = case.spec();
        let decoding = least(|| drop(black_box(frames.decode(0).unwrap())));
        let all = least(|| drop(black_box(prepare(&frames, 0, &spec).unwrap())));
        let pixels = f64::from(case.rows) * f64::from(case.columns);
        println!(
            "| {} | {}x{}x{} | {:.2} |",
            case.name,
            case.side,
            case.side,
            case.channels,
            (all - decoding) * 1e9 / pixels
        );
    }
}

/// Processor seconds of one run.
fn least(run: impl Fn()) -> f64 {
    let times = (0..MEASUREMENTS).map(|_| {
        let started = processor_seconds();
        let mut runs = 0.0;
        loop {
            run();
            runs += 1.0;
            let spent = processor_seconds() - started;
            if spent >= ENOUGH_SECONDS {
                return spent / runs;
            }
        }
    });
    times.fold(f64::INFINITY, f64::min)
}

impl Case {
    fn spec(&self) -> ImageSpec {
        ImageSpec {
            layout: Layout::Nchw,
            dtype: DType::Float32,
            rows: self.side,
            columns: self.side,
            channels: self.channels,
            value: self.value,
            window: (self.value == ValueSpace::Presentation).then_some(Window {
                center: 1500.0,
                width: 2000.0,
            }),
            fit: Fit::Stretch,
            interpolation: Interpolation::BilinearAntialias,
            pad: 0.0,
            scale: 1.0,
            mean: vec![0.5; self.channels],
            std: vec![0.25; self.channels],
        }
    }

    /// A file in explicit VR little endian, with smooth content and some noise.
    fn file(&self) -> Vec<u8> {
        let colour = self.photometric != "MONOCHROME2";
        let allocated: u16 = if self.bits > 8 { 16 } else { 8 };
        let short = |v: u16| v.to_le_bytes().to_vec();
        let mut out = vec![0; 128];
        out.extend(b"DICM\x02\0\0\0UL\x04\0\x1C\0\0\0");
        out.extend(b"\x02\0\x10\0UI\x14\x001.2.840.10008.1.2.1\0");
        let mut put = |element: u16, vr: &[u8; 2], value: Vec<u8>| {
            out.extend(0x0028u16.to_le_bytes());
            out.extend(element.to_le_bytes());
            out.extend(vr);
            out.extend((value.len() as u16).to_le_bytes());
            out.extend(value);
        };
        put(0x0002, b"US", short(if colour { 3 } else { 1 }));
        let mut photometric = self.photometric.as_bytes().to_vec();
        photometric.resize(photometric.len().next_multiple_of(2), b' ');
        put(0x0004, b"CS", photometric);
        if colour {
            put(0x0006, b"US", short(0));
        }
        put(0x0010, b"US", short(self.rows));
        put(0x0011, b"US", short(self.columns));
        put(0x0100, b"US", short(allocated));
        put(0x0101, b"US", short(self.bits));
        put(0x0102, b"US", short(self.bits - 1));
        put(0x0103, b"US", short(0));
        put(0x1052, b"DS", b"0 ".to_vec());
        put(0x1053, b"DS", b"1 ".to_vec());
        let samples =
            usize::from(self.rows) * usize::from(self.columns) * if colour { 3 } else { 1 };
        let mut state = 1u32;
        let pixels = (0..samples).flat_map(|i| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let wave = 1800.0 + 1500.0 * (i as f64 / 3000.0).sin();
            let value = wave as u16 + (state >> 28) as u16;
            if allocated == 8 {
                vec![(value >> 4) as u8]
            } else {
                value.to_le_bytes().to_vec()
            }
        });
        let pixels: Vec<u8> = pixels.collect();
        out.extend([0xE0, 0x7F, 0x10, 0x00]);
        out.extend(if allocated == 8 { b"OB" } else { b"OW" });
        out.extend([0, 0]);
        out.extend((pixels.len() as u32).to_le_bytes());
        out.extend(pixels);
        out
    }
}
