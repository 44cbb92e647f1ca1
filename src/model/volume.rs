//! `[input.volume]`: how the planes of a series become one three-dimensional tensor.
//!
//! `docs/models.md` says what each key does and which library's result it equals.

use serde::{Deserialize, Serialize};

use super::manifest::{DType, Layout, ValueSpace, Window};

/// Most voxels of a tensor: 512 MiB of single precision.
const MAX_VOXELS: usize = 1 << 27;
/// Largest side of a tensor.
const MAX_SIDE: usize = 2048;
/// Voxel sizes that exist, in millimetres.
const SPACING_MM: std::ops::RangeInclusive<f64> = 0.01..=100.0;

/// The `[input.volume]` table as it is written.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeTable {
    /// How it is resampled.
    pub interpolation: VolumeInterpolation,
    /// How it is fitted into the tensor.
    pub fit: VolumeFit,
    /// Directions of the tensor's axes; without it those of the acquisition.
    pub orientation: Option<Orientation>,
    /// Voxel size along depth, rows and columns of the tensor, in millimetres; without it that of
    /// the acquisition.
    pub spacing_mm: Option<[f64; 3]>,
    /// What becomes of a series that holds several volumes.
    #[serde(default)]
    pub several: Several,
    /// Fewest planes, at least 2.
    #[serde(default = "two")]
    pub min_planes: usize,
    /// Largest distance of neighbouring planes, in millimetres.
    pub max_gap_mm: Option<f64>,
    /// How far a distance may be off the median distance, as a fraction of it.
    #[serde(default = "five_percent")]
    pub distance_tolerance: f64,
    /// Largest angle between the planes' normal and the line of their positions, in degrees.
    #[serde(default = "tenth_of_a_degree")]
    pub max_tilt_degrees: f64,
    /// Largest angle between an axis of the acquisition and the patient's, in degrees.
    pub max_oblique_degrees: Option<f64>,
}

fn two() -> usize {
    2
}

fn five_percent() -> f64 {
    0.05
}

fn tenth_of_a_degree() -> f64 {
    0.1
}

/// How a volume becomes a tensor, after validation.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumeSpec {
    /// `NCDHW` or `NDHWC`.
    pub layout: Layout,
    /// Type of the values.
    pub dtype: DType,
    /// Voxels of the tensor along depth, rows and columns.
    pub size: [usize; 3],
    /// Values before resampling.
    pub value: ValueSpace,
    /// Window on modality values; without it the file's own.
    pub window: Option<Window>,
    /// Selection, geometry and conditions.
    pub table: VolumeTable,
    /// Value outside the volume, before `scale`.
    pub pad: f32,
    /// Factor before `mean` and `std`.
    pub scale: f32,
    /// Subtracted after scaling.
    pub mean: f32,
    /// Divisor after that.
    pub std: f32,
}

impl VolumeSpec {
    /// Shape of one sample: channel, depth, rows, columns, with the channel first or last.
    pub fn shape(&self) -> [usize; 4] {
        let [depth, rows, columns] = self.size;
        if self.layout == Layout::Ndhwc {
            [depth, rows, columns, 1]
        } else {
            [1, depth, rows, columns]
        }
    }

    /// Checks what the types do not.
    ///
    /// # Errors
    /// The key and the reason.
    pub(super) fn validate(&self) -> Result<(), String> {
        for (key, size) in ["depth", "rows", "columns"].iter().zip(self.size) {
            if !(1..=MAX_SIDE).contains(&size) {
                return Err(format!("input.{key}: {size} is not in 1..={MAX_SIDE}"));
            }
        }
        let voxels: usize = self.size.iter().product();
        if voxels > MAX_VOXELS {
            return Err(format!(
                "input.depth: {voxels} voxels, the most is {MAX_VOXELS}"
            ));
        }
        let table = &self.table;
        if let Some(spacing) = table.spacing_mm {
            if table.fit == VolumeFit::Stretch {
                return Err(
                    "input.volume.spacing_mm: belongs to fit = \"crop-pad\", stretch decides the \
                     voxel size itself"
                        .to_owned(),
                );
            }
            if !spacing.iter().all(|mm| SPACING_MM.contains(mm)) {
                return Err(format!(
                    "input.volume.spacing_mm: every value must be in {SPACING_MM:?}"
                ));
            }
        }
        if table.min_planes < 2 {
            return Err("input.volume.min_planes: must be at least 2".to_owned());
        }
        let in_range = |key: &str, value: f64, low: f64, high: f64| {
            if value > low && value <= high {
                Ok(())
            } else {
                Err(format!(
                    "input.volume.{key}: {value} is not above {low} and at most {high}"
                ))
            }
        };
        in_range("distance_tolerance", table.distance_tolerance, 0.0, 0.5)?;
        in_range("max_tilt_degrees", table.max_tilt_degrees, 0.0, 45.0)?;
        if let Some(gap) = table.max_gap_mm {
            in_range("max_gap_mm", gap, 0.0, 1000.0)?;
        }
        if let Some(oblique) = table.max_oblique_degrees {
            in_range("max_oblique_degrees", oblique, 0.0, 90.0)?;
        }
        Ok(())
    }
}

/// How a volume is resampled, by the rules of ITK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeInterpolation {
    /// ITK's `sitkLinear`.
    Linear,
    /// ITK's `sitkNearestNeighbor`; halves go up.
    Nearest,
}

/// How a volume of another size is fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeFit {
    /// The centre is cut out, and what is too small is padded evenly.
    CropPad,
    /// Each axis is resampled so that the extent of the volume is that of the tensor.
    Stretch,
}

/// What becomes of a series that holds several volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Several {
    /// It is refused.
    #[default]
    Refuse,
    /// The one with the most planes is taken.
    Largest,
    /// Each is a sample.
    Each,
}

/// Where the depth, row and column index of a tensor increase to: three letters, each the side of
/// the patient, `L` or `R`, `P` or `A`, `S` or `I`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Orientation(pub [Toward; 3]);

/// A direction along an axis of the patient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Toward {
    /// 0 from right to left, 1 from anterior to posterior, 2 from inferior to superior: the axes of
    /// the patient coordinate system (PS3.3 C.7.6.2.1.1).
    pub axis: usize,
    /// To the right, anterior or inferior instead.
    pub negative: bool,
}

impl TryFrom<String> for Orientation {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let toward = |letter: char| {
            let (axis, negative) = match letter {
                'L' => (0, false),
                'R' => (0, true),
                'P' => (1, false),
                'A' => (1, true),
                'S' => (2, false),
                'I' => (2, true),
                _ => return None,
            };
            Some(Toward { axis, negative })
        };
        let letters: Option<Vec<Toward>> = text.chars().map(toward).collect();
        match letters.as_deref() {
            Some(&[a, b, c]) if a.axis != b.axis && a.axis != c.axis && b.axis != c.axis => {
                Ok(Self([a, b, c]))
            }
            _ => Err(format!(
                "`{text}` is not one letter each of L or R, P or A, S or I"
            )),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_orientation_names_each_axis_of_the_patient_once() {
        let parse = |text: &str| Orientation::try_from(text.to_owned());
        let Orientation([depth, rows, columns]) = parse("SPL").unwrap();
        assert_eq!((depth.axis, rows.axis, columns.axis), (2, 1, 0));
        assert!(parse("IAR").unwrap().0.iter().all(|toward| toward.negative));
        for wrong in ["", "SP", "SPLL", "SPS", "SPI", "spl", "HPL"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
