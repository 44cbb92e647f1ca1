//! Value stages and preparation: rescale, lookup tables, windows, palettes and functional groups
//! that contradict each other give a refusal, or finite values, for VOI from 0 to 1.
#![no_main]

use arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use pacs_gateway_fuzz::dicom::dataset::DicomFile;
use pacs_gateway_fuzz::model::manifest::{
    DType, Fit, ImageSpec, Interpolation, Layout, ValueSpace, Window,
};
use pacs_gateway_fuzz::model::tensor::TensorData;
use pacs_gateway_fuzz::pixel::render::render;
use pacs_gateway_fuzz::pixel::{Frames, Photometric, prepare};
use pacs_gateway_fuzz::{Elements, limits, read_limits, refused};

fuzz_target!(|input: &[u8]| {
    let mut choices = Unstructured::new(input);
    if let (Ok(file), Ok(window), Ok(spec)) =
        (file(&mut choices), window(&mut choices), spec(&mut choices))
    {
        check(file, window, &spec);
    }
});

fn check(bytes: Vec<u8>, window: Option<Window>, spec: &ImageSpec) {
    // What is written here is a data set, whatever its values are.
    let file = DicomFile::from_bytes(bytes, &read_limits()).expect("a file");
    let frames = match Frames::open(&file, &limits()) {
        Ok(frames) => frames,
        Err(refusal) => return refused(&refusal),
    };
    let layout = *frames.layout();
    for index in 0..frames.count() {
        for space in [
            ValueSpace::Stored,
            ValueSpace::Modality,
            ValueSpace::Voi,
            ValueSpace::Presentation,
        ] {
            match render(&frames, index, space, window) {
                Ok(grid) => {
                    let size = layout.rows * layout.columns * grid.channels;
                    assert_eq!(grid.values.len(), size);
                    let shown = matches!(space, ValueSpace::Voi | ValueSpace::Presentation);
                    for value in grid.values {
                        assert!(value.is_finite(), "{value} in {space:?}");
                        assert!(
                            !shown || (0.0..=1.0).contains(&value),
                            "{value} in {space:?}"
                        );
                    }
                }
                Err(refusal) => refused(&refusal),
            }
        }
        match prepare(&frames, index, spec) {
            Ok(tensor) => {
                let values = tensor.shape.iter().product::<usize>();
                assert_eq!(values, spec.rows * spec.columns * spec.channels);
                if let TensorData::F32(data) = &tensor.data {
                    assert_eq!(data.len(), values);
                    assert!(data.iter().all(|value| value.is_finite()));
                }
            }
            Err(refusal) => refused(&refusal),
        }
    }
}

/// A native image with some of the attributes that change values.
fn file(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut elements = Elements::default();
    let modality = *u.choose(&["CT", "RTDOSE"])?;
    elements.put((0x0008, 0x0060), b"CS", modality.as_bytes());

    let photometric = *u.choose(&[
        "MONOCHROME2",
        "MONOCHROME1",
        "PALETTE COLOR",
        "RGB",
        "YBR_FULL",
        "YBR_FULL_422",
    ])?;
    let samples = Photometric::parse(photometric).map_or(1, Photometric::samples) as u16;
    // Long and thin images are where scaling can go wrong.
    let (rows, columns) = match u.int_in_range(0..=19)? {
        0 => (1, u.int_in_range(1..=4000)?),
        1 => (u.int_in_range(1..=4000)?, 1),
        _ => (u.int_in_range(1..=24u16)?, u.int_in_range(1..=24u16)?),
    };
    let frames = u.int_in_range(1..=2usize)?;
    let pixel_data = *u.choose(&[INTEGER, INTEGER, INTEGER, FLOAT, DOUBLE])?;
    let allocated: u16 = match pixel_data {
        INTEGER => *u.choose(&[8, 16, 16, 32, 1])?,
        FLOAT => 32,
        _ => 64,
    };
    let stored = u.int_in_range(1..=allocated)?;
    let high = if u.ratio(1, 8)? { allocated } else { stored } - 1;
    let planar = if samples == 3 {
        u.int_in_range(0..=1)?
    } else {
        0
    };
    elements
        .us((0x0028, 0x0002), &[samples])
        .put((0x0028, 0x0004), b"CS", photometric.as_bytes())
        .us((0x0028, 0x0006), &[planar])
        .put((0x0028, 0x0008), b"IS", frames.to_string().as_bytes())
        .us((0x0028, 0x0010), &[rows])
        .us((0x0028, 0x0011), &[columns])
        .us((0x0028, 0x0100), &[allocated])
        .us((0x0028, 0x0101), &[stored])
        .us((0x0028, 0x0102), &[high])
        .us((0x0028, 0x0103), &[u.int_in_range(0..=1)?]);

    windows(u, &mut elements)?;
    rescale(u, &mut elements)?;
    if photometric == "PALETTE COLOR" {
        palette(u, &mut elements)?;
    }
    if u.ratio(1, 4)? {
        elements.sequence((0x0028, 0x3000), &[lut(u)?]);
    }
    if u.ratio(1, 4)? {
        elements.sequence((0x0028, 0x3010), &[lut(u)?]);
    }
    if u.ratio(1, 4)? {
        elements.put(
            (0x2050, 0x0020),
            b"CS",
            u.choose(&[b"INVERSE ", b"IDENTITY"])?.as_slice(),
        );
    }
    if modality == "RTDOSE" {
        elements.put((0x3004, 0x000E), b"DS", &decimal(u)?);
    }
    if u.ratio(1, 4)? {
        elements.sequence((0x5200, 0x9229), &[groups(u)?]);
    }
    if u.ratio(1, 4)? {
        elements.sequence((0x5200, 0x9230), &[groups(u)?, groups(u)?]);
    }

    let bits = usize::from(rows) * usize::from(columns) * usize::from(samples * allocated);
    let pattern: [u8; 16] = u.arbitrary()?;
    let mut pixels = Vec::with_capacity(bits * frames / 8 + 8);
    pixels.extend(
        pattern
            .iter()
            .cycle()
            .take((bits * frames).div_ceil(8).next_multiple_of(8)),
    );
    let (element, vr) = pixel_data;
    elements.put((0x7FE0, element), vr, &pixels);
    Ok(elements.file("1.2.840.10008.1.2.1"))
}

const INTEGER: (u16, &[u8; 2]) = (0x0010, b"OW");
const FLOAT: (u16, &[u8; 2]) = (0x0008, b"OF");
const DOUBLE: (u16, &[u8; 2]) = (0x0009, b"OD");

/// A decimal string: ordinary, extreme, or nonsense.
fn decimal(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    const USUAL: [&str; 12] = [
        "1", "0", "-1024", "0.5", "40", "400", "1e308", "-1e308", "1e-320", "2048", "65536", "NaN",
    ];
    Ok(match u.int_in_range(0..=3)? {
        0 | 1 => u.choose(&USUAL)?.as_bytes().to_vec(),
        2 => format!("{:e}", f64::arbitrary(u)?).into_bytes(),
        _ => u.bytes(6)?.to_vec(),
    })
}

fn windows(u: &mut Unstructured<'_>, elements: &mut Elements) -> Result<()> {
    if u.ratio(1, 2)? {
        elements.put((0x0028, 0x1050), b"DS", &decimal(u)?);
        elements.put((0x0028, 0x1051), b"DS", &decimal(u)?);
    }
    Ok(())
}

/// Rescale, and what stands behind it in order of tags.
fn rescale(u: &mut Unstructured<'_>, elements: &mut Elements) -> Result<()> {
    if u.ratio(1, 2)? {
        elements.put((0x0028, 0x1052), b"DS", &decimal(u)?);
        elements.put((0x0028, 0x1053), b"DS", &decimal(u)?);
    }
    if u.ratio(1, 2)? {
        let functions = ["LINEAR", "LINEAR_EXACT", "SIGMOID", "CUBIC"];
        elements.put((0x0028, 0x1056), b"CS", u.choose(&functions)?.as_bytes());
    }
    Ok(())
}

fn descriptor(u: &mut Unstructured<'_>) -> Result<[u16; 3]> {
    Ok([
        if u.ratio(7, 8)? {
            u.int_in_range(0..=64)?
        } else {
            u.arbitrary()?
        },
        if u.ratio(1, 2)? { 0 } else { u.arbitrary()? },
        if u.ratio(7, 8)? {
            u.int_in_range(8..=16)?
        } else {
            u.arbitrary()?
        },
    ])
}

fn words(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let length = u.int_in_range(0..=160usize)?;
    let pattern: [u8; 8] = u.arbitrary()?;
    Ok(pattern.iter().copied().cycle().take(length).collect())
}

/// An item of a Modality or VOI LUT Sequence.
fn lut(u: &mut Unstructured<'_>) -> Result<Elements> {
    let mut item = Elements::default();
    item.us((0x0028, 0x3002), &descriptor(u)?);
    item.put((0x0028, 0x3006), b"OW", &words(u)?);
    Ok(item)
}

fn palette(u: &mut Unstructured<'_>, elements: &mut Elements) -> Result<()> {
    let segmented = u.arbitrary()?;
    let one: [u16; 3] = descriptor(u)?;
    let same = u.ratio(7, 8)?;
    for element in 0x1101..=0x1103 {
        let descriptor = if same { one } else { descriptor(u)? };
        elements.us((0x0028, element), &descriptor);
    }
    for element in 0x1201..=0x1203 {
        let element = if segmented { element + 0x20 } else { element };
        let data = if segmented {
            u.bytes(24)?.to_vec()
        } else {
            words(u)?
        };
        elements.put((0x0028, element), b"OW", &data);
    }
    Ok(())
}

/// An item of a functional groups sequence.
fn groups(u: &mut Unstructured<'_>) -> Result<Elements> {
    let mut item = Elements::default();
    if u.ratio(1, 2)? {
        let mut voi = Elements::default();
        windows(u, &mut voi)?;
        item.sequence((0x0028, 0x9132), &[voi]);
    }
    if u.ratio(1, 2)? {
        let mut transformation = Elements::default();
        rescale(u, &mut transformation)?;
        item.sequence((0x0028, 0x9145), &[transformation]);
    }
    Ok(item)
}

/// A model's own window, mostly none.
fn window(u: &mut Unstructured<'_>) -> Result<Option<Window>> {
    if u.ratio(3, 4)? {
        return Ok(None);
    }
    Ok(Some(Window {
        center: u.arbitrary()?,
        width: u.arbitrary()?,
    }))
}

fn side(u: &mut Unstructured<'_>) -> Result<usize> {
    let most = if u.ratio(1, 16)? { 512 } else { 40 };
    u.int_in_range(1..=most)
}

/// A model's input, as a manifest may ask for it.
fn spec(u: &mut Unstructured<'_>) -> Result<ImageSpec> {
    let channels = *u.choose(&[1, 3])?;
    let numbers = |u: &mut Unstructured<'_>| -> Result<Vec<f32>> {
        let count = *u.choose(&[0, channels])?;
        (0..count).map(|_| u.arbitrary()).collect()
    };
    Ok(ImageSpec {
        layout: *u.choose(&[Layout::Nchw, Layout::Nhwc])?,
        dtype: *u.choose(&[DType::Float32, DType::Float16, DType::Uint8])?,
        rows: side(u)?,
        columns: side(u)?,
        channels,
        value: *u.choose(&[
            ValueSpace::Stored,
            ValueSpace::Modality,
            ValueSpace::Voi,
            ValueSpace::Presentation,
        ])?,
        window: window(u)?,
        fit: *u.choose(&[Fit::Stretch, Fit::Letterbox, Fit::Crop])?,
        interpolation: *u.choose(&[
            Interpolation::BilinearAntialias,
            Interpolation::Linear,
            Interpolation::Area,
            Interpolation::Nearest,
        ])?,
        pad: if u.ratio(1, 2)? { 0.0 } else { u.arbitrary()? },
        scale: if u.ratio(1, 2)? { 1.0 } else { u.arbitrary()? },
        mean: numbers(u)?,
        std: numbers(u)?,
    })
}
