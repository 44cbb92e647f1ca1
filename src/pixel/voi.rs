//! Values of interest: modality values to a displayed range of 0 to 1 (PS3.3 C.11.2, C.7.6.16.2.10).
//!
//! A VOI LUT Sequence comes first, then the first window, then, without either, everything the
//! stored bits can express. The last is a fixed mapping: it does not depend on what is in the
//! image, so the same tissue gets the same number in every slice.

use dicom::dictionary_std::tags;

use super::lut::Lut;
use super::modality::Modality;
use super::{Layout, Refusal, functional_groups};
use crate::dicom::dataset::DataSet;

/// VOI LUT Function (0028,1056).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// The default; its width counts pixel values, so that the ramp is `width - 1` long.
    Linear,
    /// A ramp of exactly `width`.
    LinearExact,
    /// `1 / (1 + exp(-4 (x - center) / width))`.
    Sigmoid,
}

/// The VOI transformation of one frame.
#[derive(Debug, Clone, PartialEq)]
pub enum Voi {
    /// Window Center and Width (0028,1050) and (0028,1051).
    Window {
        /// Window Center.
        center: f64,
        /// Window Width.
        width: f64,
        /// Shape.
        function: Function,
    },
    /// VOI LUT Sequence (0028,3010).
    Table(Lut),
    /// From `low`, which becomes 0, to `high`, which becomes 1.
    Range {
        /// Becomes 0.
        low: f64,
        /// Becomes 1.
        high: f64,
    },
}

impl Voi {
    /// The transformation for frame `index` (from 0) of a monochrome image.
    ///
    /// # Errors
    /// `window-invalid` and `lut-invalid` when one is present and makes no sense, and
    /// `window-missing` for floating-point pixels without one, whose range nobody knows.
    pub fn of(
        data_set: &DataSet,
        index: usize,
        layout: &Layout,
        modality: &Modality,
    ) -> Result<Self, Refusal> {
        let group = functional_groups::find(data_set, index, tags::FRAME_VOILUT_SEQUENCE);
        let from = group.unwrap_or(data_set);
        if let Some(item) = Lut::item(from, tags::VOILUT_SEQUENCE) {
            // Its input is what the modality transformation gives, which is signed if that can be.
            let signed = match modality {
                Modality::Identity => layout.signed,
                Modality::Linear { .. } => modality_range(layout, modality).0 < 0.0,
                Modality::Table(_) => false,
            };
            return Ok(Self::Table(Lut::read(
                item,
                tags::LUT_DESCRIPTOR,
                tags::LUT_DATA,
                signed,
            )?));
        }
        if let Some(window) = Self::window(from)? {
            return Ok(window);
        }
        if layout.kind != super::layout::SampleKind::Integer {
            return Err(Refusal::new(
                "window-missing",
                "floating-point pixels without a window have no range",
            ));
        }
        let (low, high) = modality_range(layout, modality);
        // A slope that vanishes beside its intercept, or that leaves the numbers.
        if !(high - low).is_normal() {
            return Err(Refusal::new(
                "rescale-invalid",
                "the rescaled range of the stored bits is empty or infinite",
            ));
        }
        Ok(Self::Range { low, high })
    }

    fn window(data_set: &DataSet) -> Result<Option<Self>, Refusal> {
        let invalid = |what: &str| Err(Refusal::new("window-invalid", what));
        let present =
            data_set.has_value(tags::WINDOW_CENTER) || data_set.has_value(tags::WINDOW_WIDTH);
        if !present {
            return Ok(None);
        }
        let (Some(center), Some(width)) = (
            data_set.float(tags::WINDOW_CENTER),
            data_set.float(tags::WINDOW_WIDTH),
        ) else {
            return invalid("the window is not two numbers");
        };
        let function = match data_set.str(tags::VOILUT_FUNCTION).as_deref() {
            None | Some("LINEAR") => Function::Linear,
            Some("LINEAR_EXACT") => Function::LinearExact,
            Some("SIGMOID") => Function::Sigmoid,
            Some(_) => return invalid("a VOI LUT function that does not exist"),
        };
        let least = if function == Function::Linear {
            1.0
        } else {
            f64::MIN_POSITIVE
        };
        if width < least {
            return invalid("a window narrower than its function allows");
        }
        Ok(Some(Self::Window {
            center,
            width,
            function,
        }))
    }

    /// Maps one modality value into 0..=1.
    pub fn value(&self, x: f64) -> f64 {
        match self {
            Self::Window {
                center,
                width,
                function,
            } => window(x, *center, *width, *function),
            Self::Table(lut) => f64::from(lut.get(x.round() as i64)) / f64::from(lut.maximum()),
            Self::Range { low, high } => ((x - low) / (high - low)).clamp(0.0, 1.0),
        }
    }

    /// Where it is `(x - center) / width + 0.5`, kept between 0 and 1: that center and width.
    pub(super) fn ramp(&self) -> Option<(f64, f64)> {
        match *self {
            Self::Window {
                center,
                width,
                function,
            } => match function {
                // A width of 1 is a step.
                Function::Linear if width > 1.0 => Some((center - 0.5, width - 1.0)),
                Function::LinearExact => Some((center, width)),
                Function::Linear | Function::Sigmoid => None,
            },
            Self::Range { low, high } => Some((low / 2.0 + high / 2.0, high - low)),
            Self::Table(_) => None,
        }
    }
}

fn window(x: f64, center: f64, width: f64, function: Function) -> f64 {
    match function {
        Function::Linear => {
            let (center, width) = (center - 0.5, width - 1.0);
            if x <= center - width / 2.0 {
                0.0
            } else if x > center + width / 2.0 {
                1.0
            } else {
                // Rounding takes it out of 0..=1 when the center dwarfs the width.
                ((x - center) / width + 0.5).clamp(0.0, 1.0)
            }
        }
        Function::LinearExact => ((x - center) / width + 0.5).clamp(0.0, 1.0),
        Function::Sigmoid => 1.0 / (1.0 + (-4.0 * (x - center) / width).exp()),
    }
}

/// The modality values of the smallest and largest stored value that the bits allow.
fn modality_range(layout: &Layout, modality: &Modality) -> (f64, f64) {
    if let Modality::Table(lut) = modality {
        return (0.0, f64::from(lut.maximum()));
    }
    let span = 2f64.powi(i32::try_from(layout.bits_stored).unwrap_or(i32::MAX));
    let (low, high) = if layout.signed {
        (-span / 2.0, span / 2.0 - 1.0)
    } else {
        (0.0, span - 1.0)
    };
    let (a, b) = (modality.value(low), modality.value(high));
    (a.min(b), a.max(b))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn check(function: Function, center: f64, width: f64, cases: &[(f64, f64)]) {
        let voi = Voi::Window {
            center,
            width,
            function,
        };
        for (x, y) in cases {
            assert!((voi.value(*x) - y).abs() < 1e-9, "{function:?} {x}");
        }
    }

    #[test]
    fn the_three_functions_follow_the_standard() {
        // PS3.3 C.11.2.1.2.1: center 2048 and width 4096 map 0..4095 onto the whole range.
        check(
            Function::Linear,
            2048.0,
            4096.0,
            &[(0.0, 0.0), (4095.0, 1.0), (2047.5, 0.5), (-9.0, 0.0)],
        );
        check(
            Function::LinearExact,
            0.0,
            100.0,
            &[(-50.0, 0.0), (50.0, 1.0), (0.0, 0.5), (25.0, 0.75)],
        );
        check(
            Function::Sigmoid,
            10.0,
            4.0,
            &[(10.0, 0.5), (11.0, 1.0 / (1.0 + (-1f64).exp()))],
        );
    }

    #[test]
    fn a_window_far_from_zero_stays_within_its_range() {
        // Neighbouring doubles are 16 apart here, more than half of the width.
        check(Function::Linear, 1e17, 21.0, &[(1e17 + 16.0, 1.0)]);
    }

    #[test]
    fn a_rescale_that_leaves_no_range_is_refused() {
        let layout = Layout {
            rows: 1,
            columns: 1,
            samples: 1,
            frames: 1,
            bits_allocated: 16,
            bits_stored: 12,
            high_bit: 11,
            signed: true,
            planar: false,
            photometric: super::super::Photometric::Monochrome2,
            kind: super::super::layout::SampleKind::Integer,
        };
        for (slope, intercept) in [(1e-10, 1e30), (1e308, 0.0), (1e-320, 0.0)] {
            let modality = Modality::Linear { slope, intercept };
            let voi = Voi::of(&DataSet::default(), 0, &layout, &modality);
            assert_eq!(
                voi.unwrap_err().code,
                "rescale-invalid",
                "{slope} {intercept}"
            );
        }
    }

    #[test]
    fn a_window_of_one_is_a_threshold() {
        check(
            Function::Linear,
            100.0,
            1.0,
            &[(99.0, 0.0), (99.5, 0.0), (100.0, 1.0)],
        );
    }
}
