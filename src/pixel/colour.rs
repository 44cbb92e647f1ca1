//! Colour to RGB (PS3.3 C.7.6.3.1.2, C.7.6.3.1.5): YBR by the standard's equations, palettes by
//! their tables. Monochrome is not touched here.

use dicom::dictionary_std::tags;

use super::lut::Lut;
use super::stored::each;
use super::{Image, Photometric, Refusal, Samples};
use crate::dicom::dataset::DataSet;

/// RGB samples of a frame, interleaved, and the value that is full intensity.
#[derive(Debug, Clone, PartialEq)]
pub struct Rgb {
    /// Rows × columns × 3, from 0 to `maximum`.
    pub values: Vec<f32>,
    /// 255 or 65535 and the like.
    pub maximum: f32,
}

/// Converts a colour or palette frame.
///
/// # Errors
/// `photometric-unsupported` for YBR of other than 8 bits and signed colour, `lut-invalid` for a
/// palette that is absent or damaged.
#[allow(clippy::unnecessary_cast)] // the same line serves every sample type
pub fn to_rgb(image: &Image, data_set: &DataSet, bits_stored: u32) -> Result<Rgb, Refusal> {
    match (image.photometric, &image.data) {
        (Photometric::PaletteColor, samples) => palette(samples, data_set),
        (Photometric::Rgb, Samples::U8(_) | Samples::U16(_) | Samples::U32(_)) => Ok(Rgb {
            values: each!(&image.data, values => values.iter().map(|v| *v as f32).collect()),
            maximum: (2f64.powi(i32::try_from(bits_stored).unwrap_or(32)) - 1.0) as f32,
        }),
        (Photometric::YbrFull | Photometric::YbrFull422, Samples::U8(values)) => Ok(Rgb {
            values: values
                .as_chunks::<3>()
                .0
                .iter()
                .flat_map(|pixel| ybr_full(*pixel))
                .map(f32::from)
                .collect(),
            maximum: 255.0,
        }),
        (photometric, _) => Err(Refusal::new(
            "photometric-unsupported",
            format!(
                "{} with {} samples cannot be shown as RGB",
                photometric.as_str(),
                image.data.dtype()
            ),
        )),
    }
}

/// The inverse of the equations in PS3.3 C.7.6.3.1.2, rounded to the nearest integer.
fn ybr_full([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    let (y, cb, cr) = (f64::from(y), f64::from(cb) - 128.0, f64::from(cr) - 128.0);
    [
        y + 1.402 * cr,
        y - 0.114 * 1.772 / 0.587 * cb - 0.299 * 1.402 / 0.587 * cr,
        y + 1.772 * cb,
    ]
    // The cast cuts the fraction off and saturates at both ends.
    .map(|v| (v + 0.5) as u8)
}

#[allow(clippy::unnecessary_cast)] // the same line serves every sample type
fn palette(samples: &Samples, data_set: &DataSet) -> Result<Rgb, Refusal> {
    let signed = matches!(samples, Samples::I8(_) | Samples::I16(_) | Samples::I32(_));
    let table = |descriptor, data, segmented| {
        if data_set.get(segmented).is_some() {
            Lut::read_segmented(data_set, descriptor, segmented, signed)
        } else {
            Lut::read(data_set, descriptor, data, signed)
        }
    };
    let luts = [
        table(
            tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
            tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DATA,
            tags::SEGMENTED_RED_PALETTE_COLOR_LOOKUP_TABLE_DATA,
        )?,
        table(
            tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
            tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA,
            tags::SEGMENTED_GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA,
        )?,
        table(
            tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
            tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA,
            tags::SEGMENTED_BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA,
        )?,
    ];
    let [red, green, blue] = &luts;
    if red.maximum() != green.maximum() || red.maximum() != blue.maximum() {
        return Err(Refusal::new(
            "lut-invalid",
            "palette tables of different depth",
        ));
    }
    let rgb = |v: i64| [red.get(v), green.get(v), blue.get(v)].map(f32::from);
    Ok(Rgb {
        values: each!(samples, values => values.iter().flat_map(|v| rgb(*v as i64)).collect()),
        maximum: red.maximum(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn ybr_of_grey_and_of_the_primaries_comes_back() {
        assert_eq!(ybr_full([77, 128, 128]), [77, 77, 77]);
        assert_eq!(ybr_full([76, 85, 255]), [254, 0, 0]);
        assert_eq!(ybr_full([150, 44, 21]), [0, 255, 1]);
        assert_eq!(ybr_full([29, 255, 107]), [0, 0, 254]);
    }
}
