//! A frame as a person is shown it, small enough to be looked at: the ground that explanations are
//! drawn on. No model sees it.

use super::render::{Grid, render};
use super::resize::resize;
use super::{Frames, Refusal};
use crate::model::ImagePlacement;
use crate::model::manifest::{Interpolation, ValueSpace, Window};

/// Pixels of the longer side at most.
pub const LONGEST: usize = 1024;

/// Grey, 8 bits, white as 255.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// The values, row by row.
    pub values: Vec<u8>,
    /// Where the picture's pixels are in the frame.
    pub placement: ImagePlacement,
}

/// The picture of frame `index` (from 0): presentation values with the file's window or `window`
/// instead, colour as Rec. 601 luma, shrunk so that no side has more than [`LONGEST`] pixels.
///
/// # Errors
/// A [`Refusal`] when the frame or a transformation cannot be trusted.
pub fn picture(
    frames: &Frames<'_>,
    index: usize,
    window: Option<Window>,
) -> Result<Picture, Refusal> {
    let grid = render(frames, index, ValueSpace::Presentation, window)?;
    Ok(shrunk(if grid.channels == 3 {
        grid.luma()
    } else {
        grid
    }))
}

fn shrunk(grid: Grid) -> Picture {
    let (rows, columns) = (grid.rows, grid.columns);
    let by = LONGEST as f64 / rows.max(columns).max(1) as f64;
    let small = if by < 1.0 {
        let side = |size: usize| ((size as f64 * by).round() as usize).clamp(1, LONGEST);
        let (rows, columns) = (side(rows), side(columns));
        resize(grid, rows, columns, Interpolation::BilinearAntialias)
    } else {
        grid
    };
    Picture {
        rows: small.rows,
        columns: small.columns,
        placement: ImagePlacement {
            tensor: [small.rows, small.columns],
            rows,
            columns,
            scale: [
                rows as f64 / small.rows.max(1) as f64,
                columns as f64 / small.columns.max(1) as f64,
            ],
            offset: [0.0; 2],
            spacing_mm: None,
        },
        // The cast saturates, and makes 0 of what is no number.
        values: small
            .values
            .iter()
            .map(|v| (v * 255.0).round() as u8)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_frame_is_shrunk_and_a_small_one_is_not() {
        let grid = |rows: usize, columns: usize| Grid {
            rows,
            columns,
            channels: 1,
            values: (0..rows * columns)
                .map(|v| if v % columns < columns / 2 { 0.0 } else { 1.0 })
                .collect(),
        };
        let small = shrunk(grid(2, 4));
        assert_eq!((small.rows, small.columns), (2, 4));
        assert_eq!(small.values, [0, 0, 255, 255, 0, 0, 255, 255]);
        assert_eq!(small.placement.scale, [1.0, 1.0]);
        let large = shrunk(grid(10, 2048));
        assert_eq!((large.rows, large.columns), (5, 1024));
        assert_eq!(large.placement.scale, [2.0, 2.0]);
        assert_eq!((large.placement.rows, large.placement.columns), (10, 2048));
        assert_eq!((large.values[0], large.values[1023]), (0, 255));
        let thin = shrunk(grid(1, 60_000));
        assert_eq!((thin.rows, thin.columns), (1, 1024));
    }
}
