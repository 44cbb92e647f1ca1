//! The largest diameter of a region: the maximum Feret diameter in a plane, as RECIST 1.1 measures a
//! lesion's longest diameter in the plane of the image.
//!
//! Between the middles of the pixels' outer edges, so that a line of n pixels is n pixels long. They
//! are the points of the outline at one half that marching squares finds, and scikit-image's
//! `feret_diameter_max` measures between them too.

use super::mask::Run;

/// Length in mm and the plane where it is largest, of equals the first; `part` is sorted, `spacing`
/// that of rows, then of columns. None without a pixel.
pub fn largest(part: &[Run], spacing: [f64; 2]) -> Option<(f64, usize)> {
    let mut largest: Option<(f64, usize)> = None;
    for plane in part.chunk_by(|a, b| a.plane == b.plane) {
        let length = feret(plane, spacing);
        let number = plane.first().map_or(0, |run| run.plane as usize);
        if largest.is_none_or(|(most, _)| length > most) {
            largest = Some((length, number));
        }
    }
    largest
}

/// A point in half pixels: row, column.
type Point = (i64, i64);

fn feret(plane: &[Run], spacing: [f64; 2]) -> f64 {
    let mut points = Vec::new();
    for row in plane.chunk_by(|a, b| a.row == b.row) {
        let (Some(first), Some(last)) = (row.first(), row.last()) else {
            continue;
        };
        let down = 2 * i64::from(first.row);
        for column in [first.start, last.end - 1] {
            let across = 2 * i64::from(column);
            points.extend([(down - 1, across), (down + 1, across)]);
        }
        points.push((down, 2 * i64::from(first.start) - 1));
        points.push((down, 2 * i64::from(last.end) - 1));
    }
    let hull = hull(points);
    let mut most: f64 = 0.0;
    for (index, a) in hull.iter().enumerate() {
        for b in hull.iter().skip(index + 1) {
            let down = (a.0 - b.0) as f64 / 2.0 * spacing[0];
            let across = (a.1 - b.1) as f64 / 2.0 * spacing[1];
            most = most.max(down.hypot(across));
        }
    }
    most
}

/// The corners of the convex hull: the two points furthest apart are among them. Andrew's monotone
/// chain, exact in integers.
fn hull(mut points: Vec<Point>) -> Vec<Point> {
    points.sort_unstable();
    points.dedup();
    let mut hull = chain(points.iter());
    hull.extend(chain(points.iter().rev()));
    hull
}

/// The corners of one side; `points` come in order.
fn chain<'a>(points: impl Iterator<Item = &'a Point>) -> Vec<Point> {
    let mut side: Vec<Point> = Vec::new();
    for point in points {
        while let [.., a, b] = side.as_slice()
            && (b.0 - a.0) * (point.1 - a.1) - (b.1 - a.1) * (point.0 - a.0) <= 0
        {
            side.pop();
        }
        side.push(*point);
    }
    side
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::mask::tests::mask;

    fn of(picture: &[&[&str]], spacing: [f64; 2]) -> Option<(f64, usize)> {
        let mask = mask(picture);
        largest(mask.runs(), spacing).map(|(mm, plane)| ((mm * 1e6).round() / 1e6, plane))
    }

    #[test]
    fn a_line_is_as_long_as_its_pixels() {
        assert_eq!(of(&[&["#"]], [2.0, 3.0]), Some((3.0, 0)));
        assert_eq!(of(&[&["####"]], [1.0, 0.5]), Some((2.0, 0)));
        assert_eq!(of(&[&["#", "#", "#"]], [0.7, 0.5]), Some((2.1, 0)));
        assert_eq!(of(&[&["."]], [1.0, 1.0]), None);
    }

    #[test]
    fn a_diagonal_is_measured_in_millimetres() {
        // scikit-image 0.26: find_contours at 0.5, the largest of scipy's pdist.
        assert_eq!(
            of(&[&["##..", ".##.", "..##"]], [1.0, 1.0]),
            Some((4.472_136, 0))
        );
        assert_eq!(
            of(&[&["##..", ".##.", "..##"]], [3.0, 1.0]),
            Some((9.486_833, 0))
        );
    }

    #[test]
    fn the_plane_where_it_is_longest_is_named() {
        let picture: &[&[&str]] = &[
            &["##...", "....."],
            &["####.", "....."],
            &[".....", "####."],
        ];
        assert_eq!(of(picture, [1.0, 1.0]), Some((4.0, 1)));
    }
}
