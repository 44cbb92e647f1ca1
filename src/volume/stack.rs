//! Which slices belong together, in which order, and whether they are regular enough.

use std::collections::BTreeMap;

use super::Slice;
use super::geometry::{Geometry, Vector, along, cross, dot, length};
use super::keys::Word;
use crate::model::volume::VolumeTable;
use crate::refusal::Refusal;

/// Direction cosines that differ by less are the same orientation.
const SAME_COSINE: f64 = 1e-3;
/// Planes closer than this are at the same position.
const SAME_POSITION_MM: f64 = 0.01;
/// Pixel spacings that differ by a smaller fraction are the same.
const SAME_SPACING: f64 = 1e-3;
/// What lengths may be off by rounding, in millimetres.
const ROUNDING_MM: f64 = 1e-4;
/// A series with more orientations than this is no set of volumes.
const MAX_ORIENTATIONS: usize = 1000;

/// The planes of one volume, checked and in order along their normal.
#[derive(Debug, Clone, PartialEq)]
pub struct Stack {
    /// File and frame of each plane.
    pub planes: Vec<(usize, usize)>,
    /// Where each plane is along the normal, in millimetres from the first, strictly ascending.
    pub offsets: Vec<f64>,
    /// Mean distance of neighbouring planes in millimetres, above 0.
    pub distance: f64,
    /// Of the first plane.
    pub geometry: Geometry,
    /// From the first plane's position to the last's, in millimetres.
    pub line: Vector,
    /// Rows of each plane.
    pub rows: usize,
    /// Columns of each plane.
    pub columns: usize,
}

/// The slices of each volume, in an order that does not depend on the order of `slices`.
///
/// # Errors
/// `several-volumes` when there are more orientations than anybody means.
pub fn split(mut slices: Vec<Slice>) -> Result<Vec<Vec<Slice>>, Refusal> {
    slices.retain(|slice| !slice.keys.localizer);
    let cosines = |slice: &Slice| {
        let Geometry { row, column, .. } = slice.geometry;
        [row, column].concat()
    };
    slices.sort_by(|a, b| {
        let (a, b) = (cosines(a), cosines(b));
        let pairs = a.iter().zip(&b);
        pairs.fold(std::cmp::Ordering::Equal, |order, (a, b)| {
            order.then(a.total_cmp(b))
        })
    });
    let mut orientations: Vec<Vec<f64>> = Vec::new();
    let mut stacks: BTreeMap<(usize, Vec<Word>), Vec<Slice>> = BTreeMap::new();
    for slice in slices {
        let own = cosines(&slice);
        let same = |known: &Vec<f64>| {
            let mut pairs = known.iter().zip(&own);
            pairs.all(|(a, b)| (a - b).abs() < SAME_COSINE)
        };
        // The latest first: slices come in order of their cosines.
        let orientation = match orientations.iter().rposition(same) {
            Some(known) => known,
            None if orientations.len() < MAX_ORIENTATIONS => {
                orientations.push(own);
                orientations.len() - 1
            }
            None => {
                return Err(Refusal::new(
                    "several-volumes",
                    format!("more than {MAX_ORIENTATIONS} orientations"),
                ));
            }
        };
        let key = (orientation, slice.keys.content.clone());
        stacks.entry(key).or_default().push(slice);
    }
    Ok(stacks.into_values().flat_map(part_repetitions).collect())
}

/// Parts a stack whose positions repeat, by one attribute after the other.
fn part_repetitions(stack: Vec<Slice>) -> Vec<Vec<Slice>> {
    let attributes = stack.first().map_or(0, |slice| slice.keys.repetition.len());
    let mut parts = vec![stack];
    for attribute in 0..attributes {
        parts = parts
            .into_iter()
            .flat_map(|part| {
                if !repeats(&part) {
                    return vec![part];
                }
                let mut by_value: BTreeMap<Option<Word>, Vec<Slice>> = BTreeMap::new();
                for slice in part {
                    let value = slice.keys.repetition.get(attribute).cloned();
                    by_value.entry(value).or_default().push(slice);
                }
                by_value.into_values().collect()
            })
            .collect();
    }
    parts
}

fn repeats(stack: &[Slice]) -> bool {
    let Some(first) = stack.first() else {
        return false;
    };
    let mut heights: Vec<f64> = heights(stack, first.geometry.normal());
    heights.sort_by(f64::total_cmp);
    closest(&heights) < SAME_POSITION_MM
}

fn heights(stack: &[Slice], normal: Vector) -> Vec<f64> {
    let height = |slice: &Slice| dot(slice.geometry.position, normal);
    stack.iter().map(height).collect()
}

fn closest(sorted: &[f64]) -> f64 {
    sorted
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .fold(f64::INFINITY, f64::min)
}

/// Sorts the slices of one volume and checks them against the manifest's conditions.
///
/// # Errors
/// `too-few-planes`, `mixed-sizes`, `mixed-spacing`, `duplicate-position`, `gantry-tilt`,
/// `slice-gap`, `slice-uneven`, `planes-shifted`.
pub fn check(mut slices: Vec<Slice>, table: &VolumeTable) -> Result<Stack, Refusal> {
    let refuse = |code, text: String| Err(Refusal::new(code, text));
    let count = slices.len();
    let (Some(first), true) = (slices.first(), count >= table.min_planes.max(2)) else {
        return refuse("too-few-planes", format!("{count} < {}", table.min_planes));
    };
    let normal = first.geometry.normal();
    let height = |slice: &Slice| dot(slice.geometry.position, normal);
    // Equal heights are refused below; the rest makes the refusal's text the same every time.
    slices.sort_by(|a, b| {
        let by_height = height(a).total_cmp(&height(b));
        by_height.then((a.file, a.frame).cmp(&(b.file, b.frame)))
    });
    let Some((first, last)) = slices.first().zip(slices.last()) else {
        return refuse("too-few-planes", format!("{count} < {}", table.min_planes));
    };
    let (rows, columns, geometry) = (first.rows, first.columns, first.geometry);
    for slice in &slices {
        if (slice.rows, slice.columns) != (rows, columns) {
            return refuse(
                "mixed-sizes",
                format!("{columns} x {rows} and {} x {}", slice.columns, slice.rows),
            );
        }
        let pairs = slice.geometry.spacing.iter().zip(geometry.spacing);
        for (own, wanted) in pairs {
            if (own - wanted).abs() > SAME_SPACING * wanted {
                return refuse(
                    "mixed-spacing",
                    format!("pixels of {} and of {}", mm(wanted), mm(*own)),
                );
            }
        }
    }
    let start = height(first);
    let offsets: Vec<f64> = slices.iter().map(|slice| height(slice) - start).collect();
    if closest(&offsets) < SAME_POSITION_MM {
        let same = offsets
            .windows(2)
            .filter(|pair| pair[1] - pair[0] < SAME_POSITION_MM)
            .count();
        return refuse(
            "duplicate-position",
            format!("{same} of {count} planes are where another one is"),
        );
    }
    let line = along(last.geometry.position, -1.0, first.geometry.position);
    let tilt = length(cross(line, normal))
        .atan2(dot(line, normal))
        .to_degrees();
    if tilt > table.max_tilt_degrees {
        return refuse(
            "gantry-tilt",
            format!("{tilt:.2} degrees > {} degrees", table.max_tilt_degrees),
        );
    }
    distances(&offsets, table)?;
    straight(&slices, &offsets, line, normal)?;
    let distance = offsets.last().copied().unwrap_or(0.0) / (count - 1) as f64;
    Ok(Stack {
        planes: slices.iter().map(|s| (s.file, s.frame)).collect(),
        offsets,
        distance,
        geometry,
        line,
        rows,
        columns,
    })
}

/// The distances of neighbouring planes against the limit, and against their median.
fn distances(offsets: &[f64], table: &VolumeTable) -> Result<(), Refusal> {
    let distances: Vec<f64> = offsets.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let mut sorted = distances.clone();
    sorted.sort_by(f64::total_cmp);
    // The lower median: where gaps are as many as distances, the distance is the usual one.
    let middle = sorted.len().saturating_sub(1) / 2;
    let (Some(&smallest), Some(&largest), Some(&usual)) =
        (sorted.first(), sorted.last(), sorted.get(middle))
    else {
        return Ok(());
    };
    let between = |distance: f64| {
        let at = distances.iter().position(|d| *d == distance).unwrap_or(0);
        format!(
            "between planes {} and {} of {}",
            at + 1,
            at + 2,
            offsets.len()
        )
    };
    let over = |limit: f64| {
        let text = format!("{} > {} {}", mm(largest), mm(limit), between(largest));
        Err(Refusal::new("slice-gap", text))
    };
    if let Some(limit) = table.max_gap_mm
        && largest > limit + ROUNDING_MM
    {
        return over(limit);
    }
    let most = usual * (1.0 + table.distance_tolerance);
    if largest > most + ROUNDING_MM {
        return over(most);
    }
    let least = usual * (1.0 - table.distance_tolerance);
    if smallest < least - ROUNDING_MM {
        let text = format!("{} < {} {}", mm(smallest), mm(least), between(smallest));
        return Err(Refusal::new("slice-uneven", text));
    }
    Ok(())
}

/// Whether every plane lies on the line from the first to the last, by half a pixel.
fn straight(
    slices: &[Slice],
    offsets: &[f64],
    line: Vector,
    normal: Vector,
) -> Result<(), Refusal> {
    let (Some(first), Some(&extent)) = (slices.first(), offsets.last()) else {
        return Ok(());
    };
    let [by_row, by_column] = first.geometry.spacing;
    let most = by_row.min(by_column) / 2.0;
    for (index, (slice, offset)) in slices.iter().zip(offsets).enumerate() {
        let expected = along(first.geometry.position, offset / extent, line);
        let error = along(slice.geometry.position, -1.0, expected);
        let sideways = length(along(error, -dot(error, normal), normal));
        if sideways > most {
            return Err(Refusal::new(
                "planes-shifted",
                format!(
                    "plane {} of {} lies {} > {} beside the others",
                    index + 1,
                    slices.len(),
                    mm(sideways),
                    mm(most)
                ),
            ));
        }
    }
    Ok(())
}

/// Millimetres with as many decimals as they need, three at most.
fn mm(value: f64) -> String {
    let rounded = (value * 1000.0).round() / 1000.0;
    format!("{rounded:?} mm")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::model::volume::{Several, VolumeFit, VolumeInterpolation};
    use crate::volume::Keys;

    fn table() -> VolumeTable {
        VolumeTable {
            interpolation: VolumeInterpolation::Linear,
            fit: VolumeFit::CropPad,
            orientation: None,
            spacing_mm: None,
            several: Several::Refuse,
            min_planes: 2,
            max_gap_mm: None,
            distance_tolerance: 0.05,
            max_tilt_degrees: 0.1,
            max_oblique_degrees: None,
        }
    }

    /// Axial planes at these positions, each a file of its own.
    fn planes(positions: &[Vector]) -> Vec<Slice> {
        let plane = |(file, position): (usize, &Vector)| Slice {
            file,
            frame: 0,
            rows: 8,
            columns: 8,
            geometry: Geometry {
                position: *position,
                row: [1.0, 0.0, 0.0],
                column: [0.0, 1.0, 0.0],
                spacing: [1.0, 1.0],
            },
            keys: Keys {
                repetition: vec![Word::Absent],
                ..Keys::default()
            },
        };
        positions.iter().enumerate().map(plane).collect()
    }

    fn heights(heights: &[f64]) -> Vec<Slice> {
        let positions: Vec<Vector> = heights.iter().map(|z| [0.0, 0.0, *z]).collect();
        planes(&positions)
    }

    fn refused(slices: Vec<Slice>, table: &VolumeTable) -> String {
        check(slices, table).unwrap_err().to_string()
    }

    #[test]
    fn planes_come_in_order_of_their_position() {
        let stack = check(heights(&[5.0, -5.0, 0.0]), &table()).unwrap();
        assert_eq!(stack.planes, [(1, 0), (2, 0), (0, 0)]);
        assert_eq!(stack.offsets, [0.0, 5.0, 10.0]);
        assert_eq!(stack.distance, 5.0);
    }

    #[test]
    fn a_gap_is_named_with_its_size() {
        let mut table = table();
        let missing = heights(&[0.0, 2.5, 5.0, 10.0]);
        assert_eq!(
            refused(missing.clone(), &table),
            "slice-gap: 5.0 mm > 2.625 mm between planes 3 and 4 of 4"
        );
        // Of two distances the smaller is the usual one; of as many gaps as distances too.
        assert!(refused(heights(&[0.0, 2.5, 7.5]), &table).starts_with("slice-gap: 5.0 mm"));
        assert!(refused(heights(&[0.0, 5.0, 7.5]), &table).starts_with("slice-gap: 5.0 mm"));
        let half = heights(&[0.0, 2.5, 7.5, 10.0, 15.0]);
        assert!(refused(half, &table).starts_with("slice-gap: 5.0 mm"));
        table.max_gap_mm = Some(2.0);
        assert!(refused(missing, &table).starts_with("slice-gap: 5.0 mm > 2.0 mm"));
        table.max_gap_mm = Some(2.5);
        assert!(check(heights(&[0.0, 2.500_04, 5.0]), &table).is_ok());
    }

    #[test]
    fn a_plane_too_close_is_uneven() {
        let slices = heights(&[0.0, 2.5, 5.0, 6.0, 8.5, 11.0]);
        let text = refused(slices, &table());
        assert!(text.starts_with("slice-uneven: 1.0 mm < 2.375 mm between planes 3 and 4"));
    }

    #[test]
    fn a_tilted_gantry_is_named_with_its_angle() {
        let lean = 12f64.to_radians().tan();
        let positions: Vec<Vector> = (0..5)
            .map(|k| [0.0, lean * 2.5 * f64::from(k), 2.5 * f64::from(k)])
            .collect();
        let mut table = table();
        assert_eq!(
            refused(planes(&positions), &table),
            "gantry-tilt: 12.00 degrees > 0.1 degrees"
        );
        table.max_tilt_degrees = 12.5;
        assert!(check(planes(&positions), &table).is_ok());
    }

    #[test]
    fn a_plane_beside_the_others_is_shifted() {
        let slices = planes(&[
            [0.0, 0.0, 0.0],
            [0.4, 0.0, 2.0],
            [0.0, 0.6, 4.0],
            [0.0, 0.0, 6.0],
        ]);
        assert_eq!(
            refused(slices, &table()),
            "planes-shifted: plane 3 of 4 lies 0.6 mm > 0.5 mm beside the others"
        );
    }

    #[test]
    fn repetitions_are_parted_only_where_positions_repeat() {
        let with = |heights: &[f64], numbers: &[u64]| {
            let mut slices = super::tests::heights(heights);
            for (slice, number) in slices.iter_mut().zip(numbers) {
                slice.keys.repetition = vec![Word::Numbers(vec![*number])];
            }
            let stacks = split(slices).unwrap();
            stacks.iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(with(&[0.0, 1.0, 2.0], &[1, 2, 3]), [3]);
        assert_eq!(with(&[0.0, 1.0, 2.0, 0.0, 1.0], &[1, 1, 1, 2, 2]), [3, 2]);
        // Nothing tells them apart: together, and a duplicate.
        assert_eq!(with(&[0.0, 1.0, 0.0], &[1, 1, 1]), [3]);
        let twice = refused(super::tests::heights(&[0.0, 1.0, 0.0]), &table());
        assert!(twice.starts_with("duplicate-position: 1 of 3 planes"));
    }

    #[test]
    fn content_and_orientation_always_part() {
        let mut slices = heights(&[0.0, 1.0, 2.0, 3.0]);
        slices[1].keys.content = vec![Word::Numbers(vec![2])];
        slices[2].geometry.row = [0.999, 0.044_71, 0.0];
        slices[3].keys.localizer = true;
        let stacks = split(slices).unwrap();
        assert_eq!(stacks.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1]);
        let mut slices = heights(&[0.0, 1.0]);
        slices[1].geometry.row = [1.0, 0.000_9, 0.0];
        assert_eq!(split(slices).unwrap().len(), 1);
    }

    #[test]
    fn endless_orientations_end_in_a_refusal() {
        let mut slices = heights(&[0.0; 1100]);
        for (index, slice) in slices.iter_mut().enumerate() {
            slice.geometry.row[1] = index as f64 * 0.01;
        }
        assert_eq!(split(slices).unwrap_err().code, "several-volumes");
    }
}
