//! Where a frame is in the patient: Image Plane module (PS3.3 C.7.6.2), Plane Position, Plane
//! Orientation and Pixel Measures macros (C.7.6.16.2), Grid Frame Offset Vector (C.8.8.3.2).
//!
//! Imager Pixel Spacing is measured at the detector, not in the patient (PS3.3 10.7.1.3), and is no
//! substitute.

use dicom::core::Tag;
use dicom::dictionary_std::tags;

use crate::dicom::dataset::DataSet;
use crate::pixel::functional_groups;
use crate::refusal::Refusal;

/// How far direction cosines may be from unit length and right angles.
const COSINE_TOLERANCE: f64 = 1e-3;
/// Positions beyond a kilometre are damage.
const MAX_POSITION_MM: f64 = 1e6;
/// Pixel sizes that exist.
const SPACING_MM: std::ops::RangeInclusive<f64> = 1e-3..=1e3;

/// A point or direction in the patient coordinate system, towards left, posterior and superior.
pub type Vector = [f64; 3];

/// Position and shape of one frame, in millimetres.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// Centre of the first pixel (0020,0032).
    pub position: Vector,
    /// Unit vector along a row: the way the column index increases.
    pub row: Vector,
    /// Unit vector down a column: the way the row index increases.
    pub column: Vector,
    /// Distance of the centres of neighbouring rows, then of neighbouring columns.
    pub spacing: [f64; 2],
}

impl Geometry {
    /// The planes' normal, right-handed: row × column.
    pub fn normal(&self) -> Vector {
        cross(self.row, self.column)
    }
}

/// The scalar product.
pub fn dot(a: Vector, b: Vector) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The vector product.
pub fn cross(a: Vector, b: Vector) -> Vector {
    [
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    ]
}

/// The length.
pub fn length(a: Vector) -> f64 {
    dot(a, a).sqrt()
}

/// `a + factor * b`.
pub fn along(a: Vector, factor: f64, b: Vector) -> Vector {
    [0, 1, 2].map(|axis| a[axis] + factor * b[axis])
}

/// The geometry of each of `frames` frames.
///
/// # Errors
/// `geometry-missing` when a frame's position, orientation or pixel spacing is not stated,
/// `geometry-invalid` when it makes no sense.
pub(super) fn of_frames(data_set: &DataSet, frames: usize) -> Result<Vec<Geometry>, Refusal> {
    let per_frame = data_set.items(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE);
    let shared = data_set.item(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE);
    if !per_frame.is_empty() || shared.is_some() {
        if per_frame.len() != frames {
            return Err(invalid(format!(
                "functional groups for {} of {frames} frames",
                per_frame.len()
            )));
        }
        return (0..frames).map(|frame| enhanced(data_set, frame)).collect();
    }
    let first = read(data_set, data_set, data_set)?;
    if data_set.has_value(tags::GRID_FRAME_OFFSET_VECTOR) {
        return offsets(data_set, first, frames);
    }
    if frames > 1 {
        return Err(Refusal::new(
            "geometry-missing",
            format!("{frames} frames without a position each"),
        ));
    }
    Ok(vec![first])
}

fn enhanced(data_set: &DataSet, frame: usize) -> Result<Geometry, Refusal> {
    let group = |sequence: Tag, name: &str| {
        functional_groups::find(data_set, frame, sequence)
            .ok_or_else(|| missing(&format!("{name} macro")))
    };
    read(
        group(tags::PLANE_POSITION_SEQUENCE, "Plane Position")?,
        group(tags::PLANE_ORIENTATION_SEQUENCE, "Plane Orientation")?,
        group(tags::PIXEL_MEASURES_SEQUENCE, "Pixel Measures")?,
    )
}

fn read(
    position: &DataSet,
    orientation: &DataSet,
    measures: &DataSet,
) -> Result<Geometry, Refusal> {
    let position: Vector = numbers(
        position,
        tags::IMAGE_POSITION_PATIENT,
        "Image Position (Patient)",
    )?;
    if position.iter().any(|mm| mm.abs() > MAX_POSITION_MM) {
        return Err(invalid("Image Position (Patient) is out of range"));
    }
    let cosines: [f64; 6] = numbers(
        orientation,
        tags::IMAGE_ORIENTATION_PATIENT,
        "Image Orientation (Patient)",
    )?;
    let (row, column) = directions(cosines)?;
    if !measures.has_value(tags::PIXEL_SPACING) && measures.has_value(tags::IMAGER_PIXEL_SPACING) {
        return Err(Refusal::new(
            "geometry-missing",
            "Pixel Spacing is absent, and Imager Pixel Spacing is no substitute",
        ));
    }
    let spacing: [f64; 2] = numbers(measures, tags::PIXEL_SPACING, "Pixel Spacing")?;
    if !spacing.iter().all(|mm| SPACING_MM.contains(mm)) {
        return Err(invalid("Pixel Spacing is out of range"));
    }
    Ok(Geometry {
        position,
        row,
        column,
        spacing,
    })
}

/// Unit vectors at a right angle, from what is one within the rounding of decimal strings.
fn directions(cosines: [f64; 6]) -> Result<(Vector, Vector), Refusal> {
    let [a, b, c, d, e, f] = cosines;
    let (row, column) = ([a, b, c], [d, e, f]);
    for (name, vector) in [("row", row), ("column", column)] {
        if (length(vector) - 1.0).abs() > COSINE_TOLERANCE {
            return Err(invalid(format!(
                "the direction of a {name} has the length {:.4}",
                length(vector)
            )));
        }
    }
    if dot(row, column).abs() > COSINE_TOLERANCE {
        return Err(invalid(format!(
            "rows and columns are not at a right angle, their product is {:.4}",
            dot(row, column)
        )));
    }
    let row = unit(row);
    let column = unit(along(column, -dot(row, column), row));
    Ok((row, column))
}

fn unit(vector: Vector) -> Vector {
    let length = length(vector);
    vector.map(|part| part / length)
}

/// The frames of an object whose frames are a grid: RT Dose.
fn offsets(data_set: &DataSet, first: Geometry, frames: usize) -> Result<Vec<Geometry>, Refusal> {
    let offsets = data_set.floats(tags::GRID_FRAME_OFFSET_VECTOR);
    if offsets.len() != frames {
        return Err(invalid(format!(
            "Grid Frame Offset Vector has {} numbers for {frames} frames",
            offsets.len()
        )));
    }
    if offsets.iter().any(|mm| mm.abs() > MAX_POSITION_MM) {
        return Err(invalid("Grid Frame Offset Vector is out of range"));
    }
    let normal = first.normal();
    let start = offsets.first().copied().unwrap_or(0.0);
    // Either offsets along the normal that begin with zero, or for axial planes the z coordinates
    // themselves (PS3.3 C.8.8.3.2).
    let axial = normal[2].abs() > 1.0 - COSINE_TOLERANCE * COSINE_TOLERANCE;
    let (direction, zero) = if start == 0.0 {
        (normal, 0.0)
    } else if axial && (start - first.position[2]).abs() < 0.01 {
        ([0.0, 0.0, 1.0], start)
    } else {
        return Err(invalid(format!(
            "Grid Frame Offset Vector begins with {start}, which is neither 0 nor the position"
        )));
    };
    Ok(offsets
        .iter()
        .map(|offset| Geometry {
            position: along(first.position, offset - zero, direction),
            ..first
        })
        .collect())
}

fn numbers<const N: usize>(data_set: &DataSet, tag: Tag, name: &str) -> Result<[f64; N], Refusal> {
    if !data_set.has_value(tag) {
        return Err(missing(name));
    }
    let values = data_set.floats(tag);
    values
        .try_into()
        .map_err(|_| invalid(format!("{name} is not {N} finite numbers")))
}

fn missing(name: &str) -> Refusal {
    Refusal::new("geometry-missing", format!("{name} is absent"))
}

fn invalid(text: impl Into<String>) -> Refusal {
    Refusal::new("geometry-invalid", text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn directions_are_unit_vectors_at_a_right_angle_or_refused() {
        let (row, column) = directions([0.8001, 0.6001, 0.0, 0.0, 0.0, -1.0]).unwrap();
        assert!((length(row) - 1.0).abs() < 1e-15);
        assert!(dot(row, column).abs() < 1e-15);
        for wrong in [
            [1.0, 0.0, 0.0, 0.0, 0.9, 0.0],
            [1.0, 0.0, 0.0, 0.1, 0.995, 0.0],
            [0.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        ] {
            assert_eq!(directions(wrong).unwrap_err().code, "geometry-invalid");
        }
    }

    #[test]
    fn the_normal_is_right_handed() {
        let (row, column) = directions([0.0, 1.0, 0.0, 0.0, 0.0, -1.0]).unwrap();
        assert_eq!(cross(row, column), [-1.0, 0.0, 0.0]);
    }
}
