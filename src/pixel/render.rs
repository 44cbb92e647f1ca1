//! One frame at one stage: the values a model or a person asks for, as floats on a grid.

use dicom::dictionary_std::tags;

use super::colour::{Scale, to_rgb};
use super::layout::SampleKind;
use super::modality::Modality;
use super::transform::Transform;
use super::voi::{Function, Voi};
use super::{Frames, Layout, Photometric, Refusal};
use crate::dicom::dataset::DataSet;
use crate::model::manifest::{ValueSpace, Window};

/// Values of one frame: rows × columns × channels, interleaved.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// 1, or 3 for red, green and blue.
    pub channels: usize,
    /// The values.
    pub values: Vec<f32>,
}

impl Grid {
    /// Red, green and blue as one grey: Rec. 601, Pillow's `L`.
    #[must_use]
    pub fn luma(&self) -> Self {
        let pixels = self.values.as_chunks::<3>().0.iter();
        Self {
            channels: 1,
            values: pixels
                .map(|[r, g, b]| 0.299 * r + 0.587 * g + 0.114 * b)
                .collect(),
            ..*self
        }
    }
}

/// Renders frame `index` (from 0) of `frames`.
///
/// Monochrome: stored values, modality values, or 0 to 1: [`ValueSpace::Voi`] is what the VOI
/// transformation gives, [`ValueSpace::Presentation`] is what a person is shown, with white as 1,
/// so that MONOCHROME1 is inverted there and only there. `window` replaces the file's VOI
/// transformation and is a plain ramp from `center - width / 2` to `center + width / 2`; before VOI
/// it means nothing.
///
/// Colour: RGB in the range of the samples, or 0 to 1 from [`ValueSpace::Voi`] on; a window does
/// not apply to it.
///
/// # Errors
/// A [`Refusal`] when the frame or a transformation cannot be trusted.
pub fn render(
    frames: &Frames<'_>,
    index: usize,
    space: ValueSpace,
    window: Option<Window>,
) -> Result<Grid, Refusal> {
    render_with_ends(frames, index, space, window).map(|(grid, _)| grid)
}

/// [`render`], and the values that come of the lowest and of the highest value that Bits Stored can
/// hold. Of floating point samples, and of palettes before VOI, nothing is an end.
///
/// # Errors
/// As [`render`].
pub fn render_with_ends(
    frames: &Frames<'_>,
    index: usize,
    space: ValueSpace,
    window: Option<Window>,
) -> Result<(Grid, [f32; 2]), Refusal> {
    let image = frames.decode(index)?;
    let layout = frames.layout();
    let data_set = frames.data_set();
    let (channels, values, ends) = if image.photometric.is_monochrome() {
        let modality = match space {
            ValueSpace::Stored => Modality::Identity,
            _ => Modality::of(data_set, index, layout)?,
        };
        let voi = match (space, window) {
            (ValueSpace::Stored | ValueSpace::Modality, _) => None,
            (ValueSpace::Voi | ValueSpace::Presentation, Some(window)) => Some(own_window(window)?),
            (ValueSpace::Voi | ValueSpace::Presentation, None) => {
                Some(Voi::of(data_set, index, layout, &modality)?)
            }
        };
        let transform = Transform {
            modality,
            voi,
            inverted: space == ValueSpace::Presentation && is_inverted(data_set, image.photometric),
        };
        let ends = match layout.kind {
            SampleKind::Integer => stored_ends(layout).map(|end| transform.value(end) as f32),
            SampleKind::Float | SampleKind::Double => [f32::NEG_INFINITY, f32::INFINITY],
        };
        (1, transform.apply(&image.data)?, ends)
    } else {
        frames.check_colour(index)?;
        let scale = match space {
            ValueSpace::Stored | ValueSpace::Modality => Scale::Samples,
            ValueSpace::Voi | ValueSpace::Presentation => Scale::Unit,
        };
        let ends = match (scale, image.photometric) {
            (Scale::Unit, _) => [0.0, 1.0],
            // The entries of a palette have bits of their own.
            (Scale::Samples, Photometric::PaletteColor) => [f32::NEG_INFINITY, f32::INFINITY],
            (Scale::Samples, _) => stored_ends(layout).map(|end| end as f32),
        };
        let values = to_rgb(&image, data_set, layout.bits_stored, scale)?;
        (3, values, ends)
    };
    let grid = Grid {
        rows: image.rows,
        columns: image.columns,
        channels,
        values,
    };
    Ok((grid, ends))
}

/// What Bits Stored and Pixel Representation can hold.
fn stored_ends(layout: &Layout) -> [f64; 2] {
    let span = 2f64.powi(i32::try_from(layout.bits_stored).unwrap_or(i32::MAX));
    match layout.signed {
        true => [-span / 2.0, span / 2.0 - 1.0],
        false => [0.0, span - 1.0],
    }
}

fn own_window(window: Window) -> Result<Voi, Refusal> {
    let Window { center, width } = window;
    if !center.is_finite() || !width.is_finite() || width <= 0.0 {
        return Err(Refusal::new(
            "window-invalid",
            "the model's window has no width",
        ));
    }
    Ok(Voi::Window {
        center,
        width,
        function: Function::LinearExact,
    })
}

/// Whether low values are to be shown bright: MONOCHROME1, or an inverse Presentation LUT Shape,
/// which goes with it (PS3.3 C.8.11.3.1.2) and does not invert a second time.
fn is_inverted(data_set: &DataSet, photometric: Photometric) -> bool {
    photometric == Photometric::Monochrome1
        || data_set.str(tags::PRESENTATION_LUT_SHAPE).as_deref() == Some("INVERSE")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_are_those_of_bits_stored() {
        let layout = |bits_stored: u32, signed: bool| Layout {
            rows: 1,
            columns: 1,
            samples: 1,
            frames: 1,
            bits_allocated: 16,
            bits_stored,
            high_bit: bits_stored - 1,
            signed,
            planar: false,
            photometric: Photometric::Monochrome2,
            kind: SampleKind::Integer,
        };
        assert_eq!(stored_ends(&layout(12, false)), [0.0, 4095.0]);
        assert_eq!(stored_ends(&layout(16, true)), [-32768.0, 32767.0]);
        assert_eq!(stored_ends(&layout(1, false)), [0.0, 1.0]);
    }
}
