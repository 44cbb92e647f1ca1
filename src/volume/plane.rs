//! One plane: decoded, brought to the wanted values, resampled and cropped in itself.
//!
//! This is the costly part of a volume, and no plane needs to know of the others.

use serde::{Deserialize, Serialize};

use super::resample::{Axis, between};
use crate::model::manifest::{ValueSpace, Window};
use crate::model::volume::VolumeInterpolation;
use crate::pixel::render::{Grid, render_with_ends};
use crate::pixel::{Frames, Statistics};
use crate::refusal::Refusal;

/// What is done to each plane of a volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlaneSpec {
    /// Which values.
    pub value: ValueSpace,
    /// Window on modality values; without it the file's own.
    pub window: Option<Window>,
    /// How they are resampled.
    pub interpolation: VolumeInterpolation,
    /// From row to row.
    pub rows: Axis,
    /// From column to column.
    pub columns: Axis,
}

/// Frame `frame` (from 0) of `frames` as the part of it that a volume needs: what lies inside the
/// tensor, flipped and resampled in the plane. Rows stay rows; padding comes later.
///
/// # Errors
/// A [`Refusal`] when the frame or a transformation cannot be trusted, `header-mismatch` when it is
/// not the size that the volume was planned with.
pub fn plane(frames: &Frames<'_>, frame: usize, spec: &PlaneSpec) -> Result<Grid, Refusal> {
    plane_measured(frames, frame, spec, false).map(|(grid, _)| grid)
}

/// [`plane`], with `measure` also statistics over the values before they are resampled.
///
/// # Errors
/// As [`plane`].
pub fn plane_measured(
    frames: &Frames<'_>,
    frame: usize,
    spec: &PlaneSpec,
    measure: bool,
) -> Result<(Grid, Option<Statistics>), Refusal> {
    let (grid, ends) = render_with_ends(frames, frame, spec.value, spec.window)?;
    let statistics = measure.then(|| Statistics::of(&grid, ends));
    if (grid.rows, grid.columns, grid.channels) != (spec.rows.size, spec.columns.size, 1) {
        return Err(Refusal::new(
            "header-mismatch",
            format!(
                "a plane of {} x {} x {} where the volume has {} x {}",
                grid.columns, grid.rows, grid.channels, spec.columns.size, spec.rows.size
            ),
        ));
    }
    let rows = spec.rows.taps(spec.interpolation);
    let columns = spec.columns.taps(spec.interpolation);
    let row = |index: usize| {
        let start = index.saturating_mul(grid.columns);
        grid.values.get(start..start + grid.columns).unwrap_or(&[])
    };
    let mut values = Vec::with_capacity(rows.len().saturating_mul(columns.len()));
    for down in &rows {
        let (upper, lower) = (row(down.lower), row(down.upper));
        for across in &columns {
            // Taps are inside the size that was compared above.
            let value = |row: &[f32], index: usize| row.get(index).copied().unwrap_or(f32::NAN);
            let first = between(
                value(upper, across.lower),
                value(upper, across.upper),
                across.fraction,
            );
            let second = between(
                value(lower, across.lower),
                value(lower, across.upper),
                across.fraction,
            );
            values.push((first + down.fraction * (second - first)) as f32);
        }
    }
    let part = Grid {
        rows: rows.len(),
        columns: columns.len(),
        channels: 1,
        values,
    };
    Ok((part, statistics))
}
