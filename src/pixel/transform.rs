//! The way of a monochrome value from what is stored to the stage that is asked for, and its use on
//! all values of a frame.
//!
//! Every stage is a function of one value, so the way is one function too, in double precision from
//! end to end. Small integers go through a table of it, which covers the values between the
//! smallest and the largest of the frame; where the table would be as long as the frame, each value
//! is computed by itself, as a straight line where the way is one.

use super::modality::Modality;
use super::stored::each;
use super::voi::Voi;
use super::{Refusal, Samples};

/// The stages that apply to one frame, in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct Transform {
    /// Stored values to the modality's units.
    pub modality: Modality,
    /// Those to 0 to 1; none where the modality's units are asked for.
    pub voi: Option<Voi>,
    /// Whether 0 and 1 change places at the end.
    pub inverted: bool,
}

/// Beyond this a line would differ from its definition in what a 32-bit float can hold.
const STEEPEST: f64 = 1e7;

/// `slope * x + intercept`, kept between `low` and `high`.
struct Line {
    slope: f64,
    intercept: f64,
    low: f64,
    high: f64,
}

impl Transform {
    /// Where one stored value ends.
    pub fn value(&self, stored: f64) -> f64 {
        let value = self.modality.value(stored);
        let value = self.voi.as_ref().map_or(value, |voi| voi.value(value));
        if self.inverted { 1.0 - value } else { value }
    }

    /// Applies it to all values of a frame.
    ///
    /// # Errors
    /// `values-not-finite` when a sample, or what the modality transformation makes of it, is not a
    /// finite 32-bit float.
    pub fn apply(&self, samples: &Samples) -> Result<Vec<f32>, Refusal> {
        match samples {
            Samples::U8(values) => self.integers(values),
            Samples::I8(values) => self.integers(values),
            Samples::U16(values) => self.integers(values),
            Samples::I16(values) => self.integers(values),
            other => self.numbers(other),
        }
    }

    /// At most 65,536 different values.
    fn integers<T: Copy + Ord + Into<i32>>(&self, values: &[T]) -> Result<Vec<f32>, Refusal> {
        let Some(&first) = values.first() else {
            return Ok(Vec::new());
        };
        // Compared before they are widened, which is what the processor does many of at a time.
        let low: i32 = values.iter().fold(first, |a, b| a.min(*b)).into();
        let high: i32 = values.iter().fold(first, |a, b| a.max(*b)).into();
        self.check_ends(f64::from(low), f64::from(high))?;
        let span = usize::try_from(high - low).unwrap_or(usize::MAX);
        if span >= values.len() / 2 {
            return Ok(self.each(values.iter().map(|v| f64::from((*v).into()))));
        }
        let table = self.each((low..=high).map(f64::from));
        let look_up = |v: &T| {
            let index = (*v).into().wrapping_sub(low) as usize;
            table.get(index).copied().unwrap_or(f32::NAN)
        };
        Ok(values.iter().map(look_up).collect())
    }

    #[allow(clippy::unnecessary_cast)] // the same line serves every sample type
    fn numbers(&self, samples: &Samples) -> Result<Vec<f32>, Refusal> {
        each!(samples, values => {
            let mut ends = (f64::INFINITY, f64::NEG_INFINITY);
            for value in values {
                let value = *value as f64;
                if !value.is_finite() {
                    return Err(not_finite());
                }
                ends = (ends.0.min(value), ends.1.max(value));
            }
            if values.is_empty() {
                return Ok(Vec::new());
            }
            self.check_ends(ends.0, ends.1)?;
            Ok(self.each(values.iter().map(|v| *v as f64)))
        })
    }

    /// The modality transformation is a line or a table of small integers, so what is finite at
    /// both ends is finite between them; later stages end in 0 to 1.
    fn check_ends(&self, low: f64, high: f64) -> Result<(), Refusal> {
        let finite = |stored| (self.modality.value(stored) as f32).is_finite();
        if finite(low) && finite(high) {
            Ok(())
        } else {
            Err(not_finite())
        }
    }

    fn each(&self, values: impl Iterator<Item = f64>) -> Vec<f32> {
        match self.line() {
            Some(line) => values
                .map(|x| (line.slope * x + line.intercept).clamp(line.low, line.high) as f32)
                .collect(),
            None => values.map(|x| self.value(x) as f32).collect(),
        }
    }

    /// The whole way as one line, where it is one.
    fn line(&self) -> Option<Line> {
        let (slope, intercept) = match self.modality {
            Modality::Identity => (1.0, 0.0),
            Modality::Linear { slope, intercept } => (slope, intercept),
            Modality::Table(_) => return None,
        };
        let mut line = Line {
            slope,
            intercept,
            low: f64::NEG_INFINITY,
            high: f64::INFINITY,
        };
        if let Some(voi) = &self.voi {
            let (center, width) = voi.ramp()?;
            line = Line {
                slope: slope / width,
                intercept: (intercept - center) / width + 0.5,
                low: 0.0,
                high: 1.0,
            };
            // A ramp that is steep and far from 0 is the difference of two large numbers.
            if !line.slope.is_finite() || line.intercept.abs() > STEEPEST {
                return None;
            }
        }
        if self.inverted {
            (line.slope, line.intercept) = (-line.slope, 1.0 - line.intercept);
        }
        Some(line)
    }
}

fn not_finite() -> Refusal {
    Refusal::new(
        "values-not-finite",
        "a pixel value is infinite or not a number",
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::pixel::voi::Function;

    fn linear(slope: f64, intercept: f64) -> Transform {
        Transform {
            modality: Modality::Linear { slope, intercept },
            voi: None,
            inverted: false,
        }
    }

    #[test]
    fn rescaling_gives_the_units_for_either_sign() {
        let transform = linear(2.0, -1024.0);
        let values = transform.apply(&Samples::U16(vec![0, 512, 65_535]));
        assert_eq!(values.unwrap(), [-1024.0, 0.0, 130_046.0]);
        let values = transform.apply(&Samples::I16(vec![-32_768, 0, 32_767]));
        assert_eq!(values.unwrap(), [-66_560.0, -1024.0, 64_510.0]);
    }

    #[test]
    fn what_overflows_is_refused_even_where_a_window_would_cut_it() {
        let mut transform = linear(-1e308, 0.0);
        transform.voi = Some(Voi::Range {
            low: 0.0,
            high: 1.0,
        });
        let refusal = transform.apply(&Samples::U16(vec![7])).unwrap_err();
        assert_eq!(refusal.code, "values-not-finite");
    }

    #[test]
    fn floats_that_are_no_numbers_are_refused() {
        for bad in [f32::NAN, f32::INFINITY] {
            let samples = Samples::F32(vec![1.0, bad]);
            assert!(linear(1.0, 0.0).apply(&samples).is_err());
        }
    }

    /// The table, the line and the definition agree, whatever the sample type and its range.
    #[test]
    fn the_short_ways_end_where_the_definition_does() {
        let windows = [
            (Function::Linear, 40.0, 400.0),
            (Function::Linear, 100.0, 1.0),
            (Function::Linear, 100.0, 2.0),
            (Function::LinearExact, 40.5, 0.25),
            (Function::LinearExact, -7.0, 1e-300),
            (Function::Sigmoid, 40.0, 400.0),
        ];
        let vois = windows.map(|(function, center, width)| Voi::Window {
            center,
            width,
            function,
        });
        let range = Voi::Range {
            low: -1024.0,
            high: 3071.0,
        };
        let few: Vec<i16> = (0..4096).map(|i| i % 300 - 50).collect();
        let many: Vec<i16> = (0..4096).map(|i| (i * 16 - 32_768) as i16).collect();
        for voi in vois.into_iter().chain([range]) {
            for inverted in [false, true] {
                let transform = Transform {
                    voi: Some(voi.clone()),
                    inverted,
                    ..linear(1.25, -3.0)
                };
                for stored in [&few, &many] {
                    let found = transform.apply(&Samples::I16(stored.clone())).unwrap();
                    let wide = stored.iter().map(|v| i32::from(*v)).collect();
                    assert_eq!(transform.apply(&Samples::I32(wide)).unwrap(), found);
                    for (x, y) in stored.iter().zip(found) {
                        let expected = transform.value(f64::from(*x));
                        assert!(
                            (f64::from(y) - expected).abs() < 1e-7,
                            "{voi:?} {x}: {y} instead of {expected}"
                        );
                    }
                }
            }
        }
    }
}
