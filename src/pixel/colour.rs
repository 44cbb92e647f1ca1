//! Colour to RGB (PS3.3 C.7.6.3.1.2, C.7.6.3.1.5): YBR by the standard's equations, palettes by
//! their tables. Monochrome is not touched here.

use dicom::dictionary_std::tags;

use super::lut::Lut;
use super::stored::each;
use super::{Image, Photometric, Refusal, Samples};
use crate::dicom::dataset::DataSet;

/// What full intensity becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// 255, 65535 and the like: the samples are what they are.
    Samples,
    /// 1.
    Unit,
}

impl Scale {
    fn divisor(self, maximum: f32) -> f32 {
        match self {
            Self::Samples => 1.0,
            Self::Unit => maximum,
        }
    }

    /// What each byte becomes.
    fn of_bytes(self) -> [f32; 256] {
        let divisor = self.divisor(255.0);
        let mut value = -1.0;
        [(); 256].map(|()| {
            value += 1.0;
            value / divisor
        })
    }
}

/// Converts a colour or palette frame to RGB values, interleaved: rows × columns × 3.
///
/// # Errors
/// `photometric-unsupported` for YBR of other than 8 bits and signed colour, `lut-invalid` for a
/// palette that is absent or damaged.
#[allow(clippy::unnecessary_cast)] // the same line serves every sample type
pub fn to_rgb(
    image: &Image,
    data_set: &DataSet,
    bits_stored: u32,
    scale: Scale,
) -> Result<Vec<f32>, Refusal> {
    match (image.photometric, &image.data) {
        (Photometric::PaletteColor, samples) => palette(samples, data_set, scale),
        (Photometric::Rgb, Samples::U8(values)) if bits_stored == 8 => {
            let bytes = scale.of_bytes();
            Ok(values.iter().map(|v| bytes[usize::from(*v)]).collect())
        }
        (Photometric::Rgb, Samples::U8(_) | Samples::U16(_) | Samples::U32(_)) => {
            let bits = i32::try_from(bits_stored).unwrap_or(32);
            let divisor = scale.divisor((2f64.powi(bits) - 1.0) as f32);
            Ok(each!(&image.data, values => {
                values.iter().map(|v| *v as f32 / divisor).collect()
            }))
        }
        (Photometric::YbrFull | Photometric::YbrFull422, Samples::U8(values)) => {
            let bytes = scale.of_bytes();
            let mut out = vec![0.0; values.len()];
            let pixels = values.as_chunks::<3>().0;
            for (to, pixel) in out.as_chunks_mut::<3>().0.iter_mut().zip(pixels) {
                *to = ybr_full(*pixel).map(|v| bytes[usize::from(v)]);
            }
            Ok(out)
        }
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
fn palette(samples: &Samples, data_set: &DataSet, scale: Scale) -> Result<Vec<f32>, Refusal> {
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
    let divisor = scale.divisor(red.maximum());
    let rgb = |v: i64| [red.get(v), green.get(v), blue.get(v)].map(|v| f32::from(v) / divisor);
    Ok(each!(samples, values => values.iter().flat_map(|v| rgb(*v as i64)).collect()))
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
