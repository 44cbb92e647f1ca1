//! Where the values of a tensor are in the image or the volume they were made from, so that what a
//! model says about a place can be said about the source.
//!
//! Two ways to count. *Continuous coordinates*: 0 is the outer edge of the first pixel, 1 the edge
//! between the first and the second, as in PS3.3 §C.18.6.1.2. *Indices*: 0 is the centre of the
//! first pixel or voxel. An index is the continuous coordinate less a half.

use serde::{Deserialize, Serialize};

use crate::dicom::uid::SopInstanceUid;

/// Where a sample's tensor lies in its source.
#[derive(Debug, Clone, PartialEq)]
pub enum Placement {
    /// One frame.
    Image(ImagePlacement),
    /// The planes of a series.
    Volume(Box<VolumePlacement>),
}

/// Where the pixels of an input tensor are in the frame: `source = offset + scale × tensor` in
/// continuous coordinates, for rows and for columns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImagePlacement {
    /// Rows and columns of the tensor.
    pub tensor: [usize; 2],
    /// Rows of the frame.
    pub rows: usize,
    /// Columns of the frame.
    pub columns: usize,
    /// Pixels of the frame per pixel of the tensor: down, across.
    pub scale: [f64; 2],
    /// Where the tensor's first edge is in the frame: down, across. Below 0 where it was padded.
    pub offset: [f64; 2],
    /// Size of a pixel in the patient in mm: between rows, between columns. None where the file does
    /// not state it.
    pub spacing_mm: Option<[f64; 2]>,
}

/// Largest side of an image: Rows and Columns are 16 bits.
const MAX_SIDE: usize = 65_535;

impl ImagePlacement {
    /// Whether it is that of some image: it comes from a process that a hostile file may have taken
    /// over.
    pub fn is_possible(&self) -> bool {
        let sides = [self.tensor[0], self.tensor[1], self.rows, self.columns];
        let positive = |number: &f64| *number > 0.0 && number.is_finite();
        sides.iter().all(|side| (1..=MAX_SIDE).contains(side))
            && self.scale.iter().all(positive)
            && self.offset.iter().all(|offset| offset.is_finite())
            && self.spacing_mm.is_none_or(|mm| mm.iter().all(positive))
    }

    /// The place in the frame of a place in the tensor: down and across, continuous coordinates.
    pub fn source(&self, tensor: [f64; 2]) -> [f64; 2] {
        [0, 1].map(|axis| self.offset[axis] + self.scale[axis] * tensor[axis])
    }

    /// The place in the tensor of a place in the frame: down and across, continuous coordinates.
    pub fn tensor(&self, source: [f64; 2]) -> [f64; 2] {
        [0, 1].map(|axis| (source[axis] - self.offset[axis]) / self.scale[axis])
    }
}

/// Where the voxels of an input tensor are in the planes of a series.
///
/// Axes of the source are planes, rows and columns; those of the tensor depth, rows and columns.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumePlacement {
    /// Depth, rows and columns of the tensor.
    pub tensor: [usize; 3],
    /// Axis of the tensor that planes, rows and columns of the source lie along.
    pub target: [usize; 3],
    /// Every plane of the source, in order along the normal, at least two.
    pub planes: Vec<SourcePlane>,
    /// Rows of each plane.
    pub rows: usize,
    /// Columns of each plane.
    pub columns: usize,
    /// Index in the tensor of the source's rows.
    pub by_row: Line,
    /// Index in the tensor of the source's columns.
    pub by_column: Line,
    /// Centre of the first pixel of the first plane in the patient (LPS), mm.
    pub position: [f64; 3],
    /// Unit vector along a row: the way the column index increases.
    pub row: [f64; 3],
    /// Unit vector down a column: the way the row index increases.
    pub column: [f64; 3],
    /// From the first pixel of the first plane to that of the last, mm.
    pub line: [f64; 3],
    /// Distance of neighbouring rows, then of neighbouring columns, mm.
    pub spacing_mm: [f64; 2],
}

/// One plane of the source.
#[derive(Debug, Clone, PartialEq)]
pub struct SourcePlane {
    /// Its image.
    pub sop_instance: SopInstanceUid,
    /// Its frame, from 1, of a multi-frame image.
    pub frame: Option<u32>,
    /// Where it is along the normal, in mm from the first plane; ascending.
    pub offset_mm: f64,
    /// Its index in the tensor; ascending or descending from plane to plane.
    pub index: f64,
}

/// `begin + rate × index`, the rate not 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// Value at index 0.
    pub begin: f64,
    /// From one index to the next.
    pub rate: f64,
}

impl Line {
    /// The value at `index`.
    pub fn at(self, index: f64) -> f64 {
        self.begin + self.rate * index
    }

    fn inverse(self, value: f64) -> f64 {
        (value - self.begin) / self.rate
    }
}

impl VolumePlacement {
    /// Plane, row and column of the source, as indices with fractions, of a place in the tensor:
    /// depth, row and column as indices.
    pub fn source(&self, tensor: [f64; 3]) -> [f64; 3] {
        let [plane, row, column] = self.target.map(|axis| tensor[axis]);
        [
            self.plane(plane, |plane| plane.index),
            self.by_row.inverse(row),
            self.by_column.inverse(column),
        ]
    }

    /// The place in the patient (LPS, mm) of a place in the tensor: depth, row and column as indices.
    pub fn patient(&self, tensor: [f64; 3]) -> [f64; 3] {
        let [plane, row, column] = self.source(tensor);
        let offset = self.between(plane, |plane| plane.offset_mm);
        let along = offset / self.extent_mm();
        [0, 1, 2].map(|axis| {
            self.position[axis]
                + along * self.line[axis]
                + row * self.spacing_mm[0] * self.column[axis]
                + column * self.spacing_mm[1] * self.row[axis]
        })
    }

    /// Distance of the first plane and the last along the normal, in mm.
    pub fn extent_mm(&self) -> f64 {
        self.planes.last().map_or(0.0, |plane| plane.offset_mm)
    }

    /// The index with a fraction at which `of` has `value`; `of` goes up or down from plane to plane.
    fn plane(&self, value: f64, of: impl Fn(&SourcePlane) -> f64) -> f64 {
        let last = self.planes.len().saturating_sub(1);
        let at = |index: usize| self.planes.get(index).map_or(f64::NAN, &of);
        let up = at(0) <= at(last);
        let passed = |plane: &SourcePlane| match up {
            true => of(plane) <= value,
            false => of(plane) >= value,
        };
        let after = self.planes.partition_point(passed).clamp(1, last.max(1));
        let (from, to) = (at(after - 1), at(after));
        (after - 1) as f64 + (value - from) / (to - from)
    }

    /// What `of` is at the index `plane`, which may lie between two planes or outside.
    fn between(&self, plane: f64, of: impl Fn(&SourcePlane) -> f64) -> f64 {
        let last = self.planes.len().saturating_sub(1);
        let lower = (plane.max(0.0) as usize).min(last.saturating_sub(1));
        let at = |index: usize| self.planes.get(index).map_or(f64::NAN, &of);
        at(lower) + (plane - lower as f64) * (at(lower + 1) - at(lower))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Sagittal planes at uneven distances, read backwards and permuted.
    fn placement() -> VolumePlacement {
        let plane = |(index, offset_mm): (usize, f64)| SourcePlane {
            sop_instance: SopInstanceUid::parse(&format!("2.25.{}", index + 1)).unwrap(),
            frame: None,
            offset_mm,
            index: 4.5 - offset_mm / 2.0,
        };
        VolumePlacement {
            tensor: [8, 8, 8],
            target: [2, 0, 1],
            planes: [0.0, 2.0, 4.1, 6.0]
                .into_iter()
                .enumerate()
                .map(plane)
                .collect(),
            rows: 10,
            columns: 12,
            by_row: Line {
                begin: 7.25,
                rate: -0.75,
            },
            by_column: Line {
                begin: -1.0,
                rate: 0.5,
            },
            position: [10.0, -20.0, 30.0],
            row: [0.0, 1.0, 0.0],
            column: [0.0, 0.0, -1.0],
            line: [-6.0, 0.0, 0.0],
            spacing_mm: [0.8, 0.6],
        }
    }

    #[test]
    fn the_tensors_place_of_a_source_voxel_leads_back_to_it() {
        let placement = placement();
        for (plane, row, column) in [(0, 0, 0), (1, 3, 5), (2, 9, 0), (3, 4, 11)] {
            let mut tensor = [0.0; 3];
            tensor[2] = placement.planes[plane].index;
            tensor[0] = placement.by_row.at(row as f64);
            tensor[1] = placement.by_column.at(column as f64);
            let back = placement.source(tensor);
            for (found, wanted) in back.iter().zip([plane, row, column]) {
                assert!((found - wanted as f64).abs() < 1e-9, "{back:?}");
            }
            let patient = placement.patient(tensor);
            let offset = placement.planes[plane].offset_mm;
            let wanted = [
                10.0 - offset,
                -20.0 + 0.6 * column as f64,
                30.0 - 0.8 * row as f64,
            ];
            for (found, wanted) in patient.iter().zip(wanted) {
                assert!((found - wanted).abs() < 1e-9, "{patient:?}");
            }
        }
    }

    #[test]
    fn an_impossible_image_is_told() {
        let possible = ImagePlacement {
            tensor: [8, 8],
            rows: 10,
            columns: 65_535,
            scale: [1.5, 2.0],
            offset: [-3.0, 0.0],
            spacing_mm: Some([0.1, 0.1]),
        };
        assert!(possible.is_possible());
        let change = |change: &dyn Fn(&mut ImagePlacement)| {
            let mut placement = possible.clone();
            change(&mut placement);
            placement.is_possible()
        };
        assert!(!change(&|p| p.rows = 0));
        assert!(!change(&|p| p.columns = usize::MAX));
        assert!(!change(&|p| p.scale[1] = 0.0));
        assert!(!change(&|p| p.scale[0] = f64::NAN));
        assert!(!change(&|p| p.offset[0] = f64::INFINITY));
        assert!(!change(&|p| p.spacing_mm = Some([-1.0, 1.0])));
    }

    #[test]
    fn between_and_outside_of_planes_is_linear() {
        let placement = placement();
        let at = |offset: f64| placement.source([0.0, 0.0, 4.5 - offset / 2.0])[0];
        for (offset, plane) in [(1.0, 0.5), (3.05, 1.5), (-1.0, -0.5), (7.9, 4.0)] {
            assert!(
                (at(offset) - plane).abs() < 1e-9,
                "{offset}: {}",
                at(offset)
            );
        }
        let patient = placement.patient([0.0, 0.0, 4.5 + 0.5]);
        assert!((patient[0] - 11.0).abs() < 1e-9);
    }
}
