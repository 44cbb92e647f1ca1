//! Stored values to the modality's units (PS3.3 C.11.1): Hounsfield units, Bq/ml, Gy.
//!
//! In this order: the Pixel Value Transformation macro of the frame, the Modality LUT Sequence,
//! Rescale Slope and Intercept, for RT Dose the Dose Grid Scaling, and nothing. A transformation
//! that is there but unusable is a refusal, never a slope of 1.

use dicom::dictionary_std::tags;

use super::lut::Lut;
use super::{Layout, Refusal, functional_groups};
use crate::dicom::dataset::DataSet;

/// The modality transformation of one frame.
#[derive(Debug, Clone, PartialEq)]
pub enum Modality {
    /// Values are what they are.
    Identity,
    /// `slope * value + intercept`.
    Linear {
        /// Rescale Slope (0028,1053).
        slope: f64,
        /// Rescale Intercept (0028,1052).
        intercept: f64,
    },
    /// Modality LUT Sequence (0028,3000).
    Table(Lut),
}

impl Modality {
    /// The transformation for frame `index` (from 0). Colour has none.
    ///
    /// # Errors
    /// `rescale-invalid` and `lut-invalid` when it is present and makes no sense.
    pub fn of(data_set: &DataSet, index: usize, layout: &Layout) -> Result<Self, Refusal> {
        if !layout.photometric.is_monochrome() {
            return Ok(Self::Identity);
        }
        let group =
            functional_groups::find(data_set, index, tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE);
        if let Some(group) = group {
            return Self::rescale(group);
        }
        if let Some(item) = Lut::item(data_set, tags::MODALITY_LUT_SEQUENCE) {
            return Ok(Self::Table(Lut::read(
                item,
                tags::LUT_DESCRIPTOR,
                tags::LUT_DATA,
                layout.signed,
            )?));
        }
        match Self::rescale(data_set)? {
            Self::Identity if data_set.str(tags::MODALITY).as_deref() == Some("RTDOSE") => {
                match number(data_set, tags::DOSE_GRID_SCALING)? {
                    Some(slope) => Self::linear(slope, 0.0),
                    None => Ok(Self::Identity),
                }
            }
            found => Ok(found),
        }
    }

    fn rescale(data_set: &DataSet) -> Result<Self, Refusal> {
        let slope = number(data_set, tags::RESCALE_SLOPE)?;
        let intercept = number(data_set, tags::RESCALE_INTERCEPT)?;
        match (slope, intercept) {
            (None, None) => Ok(Self::Identity),
            (slope, intercept) => Self::linear(slope.unwrap_or(1.0), intercept.unwrap_or(0.0)),
        }
    }

    fn linear(slope: f64, intercept: f64) -> Result<Self, Refusal> {
        if slope == 0.0 {
            return Err(Refusal::new("rescale-invalid", "a rescale slope of zero"));
        }
        Ok(Self::Linear { slope, intercept })
    }

    /// Applies it to one value.
    pub fn value(&self, stored: f64) -> f64 {
        match self {
            Self::Identity => stored,
            Self::Linear { slope, intercept } => slope * stored + intercept,
            Self::Table(lut) => f64::from(lut.get(stored as i64)),
        }
    }
}

/// A number that may be absent but not nonsense.
fn number(data_set: &DataSet, tag: dicom::core::Tag) -> Result<Option<f64>, Refusal> {
    match data_set.float(tag) {
        Some(value) => Ok(Some(value)),
        None if data_set.has_value(tag) => Err(Refusal::new(
            "rescale-invalid",
            format!("{tag} is not a finite number"),
        )),
        None => Ok(None),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_of_zero_is_refused() {
        assert!(Modality::linear(0.0, 1.0).is_err());
    }
}
