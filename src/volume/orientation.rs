//! Which axis of the acquisition becomes which axis of the tensor: permutation and flips only.
//!
//! The assignment is nibabel's `io_orientation`: columns, rows and planes, the one that is closest to
//! an axis of the patient first, take the closest axis among those left. So the result is that of `as_closest_canonical`,
//! MONAI's `Orientation` and ITK's `OrientImageFilter`, and no value is interpolated.

use super::geometry::{Geometry, Vector};
use crate::model::volume::Orientation;
use crate::refusal::Refusal;

/// What becomes of the acquisition's planes, rows and columns, in this order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Axes {
    /// Axis of the tensor: 0 depth, 1 rows, 2 columns.
    pub target: [usize; 3],
    /// Whether it is read backwards.
    pub flip: [bool; 3],
}

impl Axes {
    const UNCHANGED: Self = Self {
        target: [0, 1, 2],
        flip: [false; 3],
    };
}

/// The axes of an acquisition for a tensor of `orientation`; unchanged without one.
///
/// # Errors
/// `oblique` when an axis is further than `max_degrees` from the patient's.
pub(super) fn axes(
    geometry: &Geometry,
    orientation: Option<Orientation>,
    max_degrees: Option<f64>,
) -> Result<Axes, Refusal> {
    let directions = [geometry.normal(), geometry.column, geometry.row];
    let closest = closest(directions);
    if let Some(most) = max_degrees {
        let angle = directions
            .iter()
            .zip(closest)
            .map(|(direction, axis)| direction[axis].abs().min(1.0).acos().to_degrees())
            .fold(0.0, f64::max);
        if angle > most {
            return Err(Refusal::new(
                "oblique",
                format!("{angle:.1} degrees > {most:.1} degrees"),
            ));
        }
    }
    let Some(Orientation(wanted)) = orientation else {
        return Ok(Axes::UNCHANGED);
    };
    let mut axes = Axes::UNCHANGED;
    for (own, axis) in closest.into_iter().enumerate() {
        for (target, toward) in wanted.iter().enumerate() {
            if toward.axis == axis {
                axes.target[own] = target;
                axes.flip[own] = (directions[own][axis] < 0.0) != toward.negative;
            }
        }
    }
    Ok(axes)
}

/// The patient's axis that each of the directions is closest to, each axis once.
fn closest(directions: [Vector; 3]) -> [usize; 3] {
    let mut taken = [false; 3];
    let mut closest = [0; 3];
    let strength = |own: &usize| {
        directions[*own]
            .iter()
            .fold(0.0, |most: f64, part| most.max(part.abs()))
    };
    // Stable: of equals columns come before rows, and rows before planes.
    let mut order = [2, 1, 0];
    order.sort_by(|a, b| strength(b).total_cmp(&strength(a)));
    for own in order {
        let size = |axis: &usize| directions[own][*axis].abs();
        let free = (0..3).filter(|axis| !taken[*axis]);
        // Of equals the first, as NumPy's argmax.
        let best = free.reduce(|best, axis| {
            if size(&axis) > size(&best) {
                axis
            } else {
                best
            }
        });
        if let Some(axis) = best {
            taken[axis] = true;
            closest[own] = axis;
        }
    }
    closest
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn geometry(row: Vector, column: Vector) -> Geometry {
        Geometry {
            position: [0.0; 3],
            row,
            column,
            spacing: [1.0; 2],
        }
    }

    fn check(row: Vector, column: Vector, code: &str, target: [usize; 3], flip: [bool; 3]) {
        let wanted = Orientation::try_from(code.to_owned()).unwrap();
        let found = axes(&geometry(row, column), Some(wanted), None).unwrap();
        assert_eq!(found, Axes { target, flip }, "{code}");
    }

    #[test]
    fn axes_are_permuted_and_flipped_to_the_letters() {
        let axial = ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0]);
        check(axial.0, axial.1, "SPL", [0, 1, 2], [false; 3]);
        check(axial.0, axial.1, "IAR", [0, 1, 2], [true; 3]);
        check(axial.0, axial.1, "RAS", [2, 1, 0], [false, true, true]);
        // Sagittal: rows run to the posterior, columns down; the normal points to the right.
        let sagittal = ([0.0, 1.0, 0.0], [0.0, 0.0, -1.0]);
        check(
            sagittal.0,
            sagittal.1,
            "SPL",
            [2, 0, 1],
            [true, true, false],
        );
    }

    #[test]
    fn beyond_forty_five_degrees_the_strongest_axis_chooses_first() {
        // By nibabel 5.4.2 (io_orientation) and SimpleITK 2.5 (DICOMOrientImageFilter): RAS.
        let row = [-0.578, 0.609, -0.544];
        let column = [-0.543, -0.784, -0.301];
        let normal = [-0.609, 0.122, 0.784];
        assert_eq!(closest([normal, column, row]), [2, 1, 0]);
    }

    #[test]
    fn an_oblique_axis_is_named_with_its_angle() {
        let (sin, cos) = 20f64.to_radians().sin_cos();
        let tilted = geometry([1.0, 0.0, 0.0], [0.0, cos, sin]);
        assert!(axes(&tilted, None, Some(20.1)).is_ok());
        let refusal = axes(&tilted, None, Some(15.0)).unwrap_err();
        assert_eq!(refusal.to_string(), "oblique: 20.0 degrees > 15.0 degrees");
    }
}
