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
/// `photometric-unsupported` for signed colour and YBR of 32 bits, `lut-invalid` for a
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
        (Photometric::YbrFull | Photometric::YbrFull422, Samples::U16(values)) => {
            let full = f64::from(bits_stored).exp2() - 1.0;
            let centre = f64::from(bits_stored - 1).exp2();
            Ok(ybr_to_rgb(values, scale, full, |[y, cb, cr]| {
                [y, cb - centre, cr - centre]
            }))
        }
        (Photometric::YbrPartial422 | Photometric::YbrPartial420, Samples::U8(values))
            if bits_stored == 8 =>
        {
            // Luminance takes 219 of 255 steps from 16 on, colour 224 of 255 around 128.
            Ok(ybr_to_rgb(values, scale, 255.0, |[y, cb, cr]| {
                let colour = |v| (v - 128.0) * (255.0 / 224.0);
                [(y - 16.0) * (255.0 / 219.0), colour(cb), colour(cr)]
            }))
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
    let (cb, cr) = (f64::from(cb) - 128.0, f64::from(cr) - 128.0);
    // The cast cuts the fraction off and saturates at both ends.
    rgb([f64::from(y), cb, cr]).map(|v| (v + 0.5) as u8)
}

/// The same for other ranges: `centred` gives luminance from 0 to `full` and colour around 0.
fn ybr_to_rgb<T: Copy + Into<f64>>(
    values: &[T],
    scale: Scale,
    full: f64,
    centred: impl Fn([f64; 3]) -> [f64; 3],
) -> Vec<f32> {
    let divisor = scale.divisor(full as f32);
    let mut out = vec![0.0; values.len()];
    let pixels = values.as_chunks::<3>().0;
    for (to, pixel) in out.as_chunks_mut::<3>().0.iter_mut().zip(pixels) {
        *to = rgb(centred(pixel.map(Into::into)))
            .map(|v| (v + 0.5).floor().clamp(0.0, full) as f32 / divisor);
    }
    out
}

/// ITU-R BT.601, which the standard rounds to four digits, exactly.
fn rgb([y, cb, cr]: [f64; 3]) -> [f64; 3] {
    [
        y + 1.402 * cr,
        y - 0.114 * 1.772 / 0.587 * cb - 0.299 * 1.402 / 0.587 * cr,
        y + 1.772 * cb,
    ]
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

    fn show(photometric: Photometric, data: Samples, bits: u32) -> Vec<f32> {
        let image = Image {
            rows: 1,
            columns: data.len() / 3,
            samples_per_pixel: 3,
            frames: 1,
            photometric,
            data,
        };
        to_rgb(&image, &DataSet::default(), bits, Scale::Samples).unwrap()
    }

    /// Expected: NumPy's inverse of the standard's four-digit matrices, rounded and clipped.
    #[test]
    fn partial_range_and_sixteen_bits_follow_the_standards_matrices() {
        let partial = Samples::U8(vec![
            16, 128, 128, 235, 128, 128, 82, 90, 240, 126, 128, 128, 100, 150, 60,
        ]);
        assert_eq!(
            show(Photometric::YbrPartial422, partial, 8),
            [
                0., 0., 0., 255., 255., 255., 255., 1., 0., 128., 128., 128., 0., 144., 142.
            ]
        );
        let wide = Samples::U16(vec![
            19661, 32768, 32768, 30000, 20000, 50000, 4000, 33000, 32000,
        ]);
        let found = show(Photometric::YbrFull, wide, 16);
        let expected = [
            19661., 19661., 19661., 54159.52, 22088.2, 7373.06, 2923.27, 4468.6, 4411.2,
        ];
        for (found, expected) in found.iter().zip(expected) {
            // Four digits of a coefficient are worth this much at 16 bits.
            assert!((found - expected).abs() < 4.0, "{found} {expected}");
        }
    }

    #[test]
    fn ybr_of_grey_and_of_the_primaries_comes_back() {
        assert_eq!(ybr_full([77, 128, 128]), [77, 77, 77]);
        assert_eq!(ybr_full([76, 85, 255]), [254, 0, 0]);
        assert_eq!(ybr_full([150, 44, 21]), [0, 255, 1]);
        assert_eq!(ybr_full([29, 255, 107]), [0, 0, 254]);
    }
}
