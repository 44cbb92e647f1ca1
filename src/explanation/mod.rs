//! Pictures that say why: heat over an image, boxes and outlines drawn on it, as PNG.
//!
//! Pure: values in, bytes out. Who covers squares and asks the model again is the pipeline
//! (`pipeline/examine/explain.rs`); where the bytes go is [`crate::artefact`].
//!
//! ```text
//! occlusion:      squares ─▶ what each of them takes away ─▶ HeatMap ┐
//! activation map: a tensor of the graph ───────────────────▶ HeatMap ├─▶ overlay ─▶ PNG
//! boxes, outlines: what the finding says it is ──────────────────────┘
//! ```
//!
//! Tensor, frame and picture are different grids; continuous coordinates of the frame (see
//! [`crate::model::ImagePlacement`]) are what they meet in.

pub mod activation;
pub mod colour;
pub mod occlusion;
pub mod outline;
pub mod overlay;

use crate::model::ImagePlacement;

/// Heat over the input tensor of an image, row by row; the cells share the tensor's area evenly.
#[derive(Debug, Clone, PartialEq)]
pub struct HeatMap {
    /// Cells from top to bottom.
    pub rows: usize,
    /// Cells from left to right.
    pub columns: usize,
    /// As many values as cells.
    pub values: Vec<f32>,
}

impl HeatMap {
    /// What is below 0 as 0, the rest as parts of the highest. `None` when the highest is below
    /// `least`: the map says nothing, and stretching it would show noise as if it were a reason.
    #[must_use]
    pub fn normalised(mut self, least: f32) -> Option<Self> {
        if self.values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let highest = self.values.iter().copied().fold(0.0, f32::max);
        if highest < least || highest == 0.0 {
            return None;
        }
        for value in &mut self.values {
            *value = value.max(0.0) / highest;
        }
        Some(self)
    }

    /// The heat at continuous coordinates of the map (0 is its upper or left edge), bilinear between
    /// the centres of cells; `None` outside of it.
    pub fn at(&self, y: f64, x: f64) -> Option<f32> {
        let (low, high, down) = between(y, self.rows)?;
        let (left, right, across) = between(x, self.columns)?;
        let cell = |row: usize, column: usize| {
            let value = self.values.get(row * self.columns + column);
            value.copied().map(f64::from)
        };
        let blend = |a: f64, b: f64, part: f64| (b - a).mul_add(part, a);
        let upper = blend(cell(low, left)?, cell(low, right)?, across);
        let lower = blend(cell(high, left)?, cell(high, right)?, across);
        Some(blend(upper, lower, down) as f32)
    }

    /// Where the cells are in a frame that the tensor (`rows` × `columns`) lies in as `tensor` says.
    pub fn placement(
        &self,
        tensor: &ImagePlacement,
        rows: usize,
        columns: usize,
    ) -> ImagePlacement {
        let cell = |size: usize, cells: usize| size as f64 / cells.max(1) as f64;
        ImagePlacement {
            tensor: [self.rows, self.columns],
            scale: [
                tensor.scale[0] * cell(rows, self.rows),
                tensor.scale[1] * cell(columns, self.columns),
            ],
            ..tensor.clone()
        }
    }
}

/// The two cells around a coordinate, and how much of the second there is.
fn between(at: f64, cells: usize) -> Option<(usize, usize, f64)> {
    if !(0.0..=cells as f64).contains(&at) || cells == 0 {
        return None;
    }
    // Half a cell at the edges has nothing beyond it.
    let centre = (at - 0.5).clamp(0.0, (cells - 1) as f64);
    let first = centre.floor() as usize;
    Some((first, (first + 1).min(cells - 1), centre - centre.floor()))
}

/// A tensor of `rows` × `columns` stretched over all of a frame.
pub fn stretched(frame: &ImagePlacement, rows: usize, columns: usize) -> ImagePlacement {
    let scale = |size: usize, cells: usize| size as f64 / cells.max(1) as f64;
    ImagePlacement {
        tensor: [rows, columns],
        scale: [scale(frame.rows, rows), scale(frame.columns, columns)],
        offset: [0.0; 2],
        ..frame.clone()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn map(values: &[f32]) -> HeatMap {
        HeatMap {
            rows: 2,
            columns: 2,
            values: values.to_vec(),
        }
    }

    #[test]
    fn heat_is_bilinear_between_centres_and_even_at_the_edges() {
        let map = map(&[0.0, 1.0, 2.0, 3.0]);
        assert_eq!(map.at(0.5, 0.5), Some(0.0));
        assert_eq!(map.at(0.0, 0.0), Some(0.0));
        assert_eq!(map.at(2.0, 2.0), Some(3.0));
        assert_eq!(map.at(1.0, 1.0), Some(1.5));
        assert_eq!(map.at(0.5, 1.25), Some(0.75));
        assert_eq!(map.at(2.01, 1.0), None);
        assert_eq!(map.at(f64::NAN, 1.0), None);
    }

    #[test]
    fn normalised_heat_is_a_part_of_the_highest() {
        let heat = map(&[-1.0, 0.5, 0.25, 0.0]).normalised(0.1).unwrap();
        assert_eq!(heat.values, [0.0, 1.0, 0.5, 0.0]);
        assert!(map(&[-1.0, 0.05, 0.0, 0.0]).normalised(0.1).is_none());
        assert!(map(&[-1.0, -0.5, -0.2, 0.0]).normalised(0.0).is_none());
        assert!(map(&[f32::NAN, 1.0, 0.0, 0.0]).normalised(0.0).is_none());
    }
}
