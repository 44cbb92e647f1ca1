//! Resampling in single precision, by the rules of the libraries that models are trained with.
//!
//! All four are separable, so each axis becomes a table of taps: for each output position the
//! first input position and the weights from there on. What equals what:
//! - [`Interpolation::BilinearAntialias`]: Pillow's `BILINEAR` in mode `F`, torchvision with
//!   `antialias=True`; the triangle widens when the image shrinks;
//! - [`Interpolation::Linear`]: OpenCV's `INTER_LINEAR`, two taps whatever the scale;
//! - [`Interpolation::Area`]: OpenCV's `INTER_AREA`, with its variant of linear when enlarging;
//! - [`Interpolation::Nearest`]: OpenCV's `INTER_NEAREST` and PyTorch's `nearest`.
//!
//! No resizing library has all four in single precision, so that one of our own serves them all.
//! What costs is the pass over the larger image. Both passes are written as sums over runs of
//! neighbouring values, which compilers turn into vector instructions: rows are added to each other
//! first, while they are whole, and columns in blocks of [`BLOCK`] rows that are turned around.

use std::ops::Range;

use super::render::Grid;
use crate::model::manifest::Interpolation;

/// Rows that are resampled along the columns together.
const BLOCK: usize = 8;

/// Values of a row that are summed up together.
const RUN: usize = 16;

/// Where each output position of an axis gets its value from: a run of `count` input positions,
/// the same number for all; those that are not needed weigh nothing.
#[derive(Debug, Clone, PartialEq)]
struct Axis {
    count: usize,
    first: Vec<usize>,
    /// `count` for each output position.
    weights: Vec<f32>,
}

/// One output position while its axis is being built.
struct Taps {
    first: usize,
    weights: Vec<f32>,
}

/// Resamples `grid` to `rows` × `columns`.
pub fn resize(grid: Grid, rows: usize, columns: usize, interpolation: Interpolation) -> Grid {
    resize_part(grid, (rows, columns), (0..rows, 0..columns), interpolation)
}

/// The part of `grid`, resampled to `size`, that lies within `part`: rows and columns, both not
/// empty and within `size`.
pub(super) fn resize_part(
    grid: Grid,
    size: (usize, usize),
    part: (Range<usize>, Range<usize>),
    interpolation: Interpolation,
) -> Grid {
    // OpenCV enlarges with its linear variant as soon as one axis grows.
    let enlarges = size.0 > grid.rows || size.1 > grid.columns;
    let vertical = Axis::new(grid.rows, size.0, part.0, interpolation, enlarges);
    let horizontal = Axis::new(grid.columns, size.1, part.1, interpolation, enlarges);
    // The pass that makes more of the image comes last.
    if vertical.len() <= grid.rows {
        across(down(grid, &vertical), &horizontal)
    } else {
        down(across(grid, &horizontal), &vertical)
    }
}

impl Axis {
    /// Positions `part` of `to` that `from` are resampled to.
    fn new(
        from: usize,
        to: usize,
        part: Range<usize>,
        interpolation: Interpolation,
        enlarges: bool,
    ) -> Self {
        let scale = from as f64 / to as f64;
        let all: Vec<Taps> = part
            .map(|i| match interpolation {
                // Where nothing changes each rule comes down to this.
                _ if from == to => Taps::one(i),
                Interpolation::BilinearAntialias => triangle(i, scale, from),
                Interpolation::Linear => two_taps((i as f64 + 0.5) * scale - 0.5, from),
                Interpolation::Area if enlarges => area_linear(i, scale, from),
                Interpolation::Area => area(i, scale, from),
                Interpolation::Nearest => {
                    Taps::one(((i as f64 * scale).floor() as usize).min(from - 1))
                }
            })
            .collect();
        let count = all.iter().map(|taps| taps.weights.len()).max().unwrap_or(0);
        let mut axis = Self {
            count,
            first: Vec::with_capacity(all.len()),
            weights: Vec::with_capacity(all.len() * count),
        };
        for taps in all {
            let first = taps.first.min(from - count);
            let before = taps.first - first;
            let after = count - before - taps.weights.len();
            axis.first.push(first);
            axis.weights.extend(std::iter::repeat_n(0.0, before));
            axis.weights.extend(taps.weights);
            axis.weights.extend(std::iter::repeat_n(0.0, after));
        }
        axis
    }

    fn len(&self) -> usize {
        self.first.len()
    }

    /// Whether each output position is one input position.
    fn copies(&self) -> bool {
        self.count == 1
    }

    /// Whether it is the same position, for all of `from`.
    fn keeps(&self, from: usize) -> bool {
        self.copies() && self.len() == from && self.first.iter().enumerate().all(|(i, f)| i == *f)
    }

    /// The input positions and weights of each output position.
    fn taps(&self) -> impl Iterator<Item = (Range<usize>, &[f32])> {
        let ranges = self.first.iter().map(|first| *first..first + self.count);
        ranges.zip(self.weights.chunks_exact(self.count.max(1)))
    }
}

impl Taps {
    fn one(first: usize) -> Self {
        Self {
            first,
            weights: vec![1.0],
        }
    }
}

fn triangle(i: usize, scale: f64, from: usize) -> Taps {
    let stretch = scale.max(1.0);
    let center = (i as f64 + 0.5) * scale;
    let first = (center - stretch + 0.5).max(0.0) as usize;
    let end = ((center + stretch + 0.5) as usize).min(from);
    let mut weights: Vec<f64> = (first..end)
        .map(|x| (1.0 - ((x as f64 - center + 0.5) / stretch).abs()).max(0.0))
        .collect();
    let sum: f64 = weights.iter().sum();
    for weight in &mut weights {
        *weight /= sum;
    }
    Taps {
        first,
        weights: weights.into_iter().map(|w| w as f32).collect(),
    }
}

/// Linear interpolation at `x`, with the border repeated.
fn two_taps(x: f64, from: usize) -> Taps {
    let last = from - 1;
    if x <= 0.0 {
        return Taps::one(0);
    }
    let first = x.floor() as usize;
    if first >= last {
        return Taps::one(last);
    }
    let fraction = (x - x.floor()) as f32;
    Taps {
        first,
        weights: vec![1.0 - fraction, fraction],
    }
}

/// How OpenCV places the taps of `INTER_AREA` when it enlarges.
fn area_linear(i: usize, scale: f64, from: usize) -> Taps {
    let cell = (i as f64 * scale).floor();
    let fraction = (i as f64 + 1.0) - (cell + 1.0) / scale;
    let fraction = if fraction <= 0.0 {
        0.0
    } else {
        fraction - fraction.floor()
    };
    two_taps(cell + fraction, from)
}

/// The part that each input cell has in the output cell.
fn area(i: usize, scale: f64, from: usize) -> Taps {
    let start = i as f64 * scale;
    let end = (start + scale).min(from as f64);
    let width = scale.min(from as f64 - start);
    let first = (start.floor() as usize).min(from - 1);
    let weights = (first..from)
        .take_while(|&x| (x as f64) < end - 1e-3)
        .map(|x| ((x as f64 + 1.0).min(end) - (x as f64).max(start)) / width)
        .map(|weight| {
            if weight > 1e-3 / width {
                weight as f32
            } else {
                0.0
            }
        })
        .collect();
    Taps { first, weights }
}

/// Resamples along the columns: each output row is a weighted sum of input rows.
fn down(grid: Grid, axis: &Axis) -> Grid {
    if axis.keeps(grid.rows) {
        return grid;
    }
    let width = grid.columns * grid.channels;
    let mut values = Vec::with_capacity(axis.len() * width);
    for (rows, weights) in axis.taps() {
        let rows = grid
            .values
            .get(rows.start * width..rows.end * width)
            .unwrap_or(&[]);
        if axis.copies() {
            values.extend_from_slice(rows);
        } else {
            weighted_sum(rows, width, weights, &mut values);
        }
    }
    Grid {
        rows: axis.len(),
        values,
        ..grid
    }
}

/// Appends the sum of `rows`, each `width` long, times their weights.
fn weighted_sum(rows: &[f32], width: usize, weights: &[f32], out: &mut Vec<f32>) {
    let whole = width / RUN * RUN;
    for at in (0..whole).step_by(RUN) {
        let mut sums = [0f32; RUN];
        for (row, weight) in rows.chunks_exact(width).zip(weights) {
            let Some(run) = row.get(at..).and_then(|rest| rest.first_chunk::<RUN>()) else {
                continue;
            };
            for (sum, value) in sums.iter_mut().zip(run) {
                *sum += value * weight;
            }
        }
        out.extend_from_slice(&sums);
    }
    for at in whole..width {
        let column = rows.iter().skip(at).step_by(width);
        out.push(
            column
                .zip(weights)
                .map(|(value, weight)| value * weight)
                .sum(),
        );
    }
}

/// Resamples along the rows.
fn across(grid: Grid, axis: &Axis) -> Grid {
    if axis.keeps(grid.columns) {
        return grid;
    }
    let (from, to) = (grid.columns * grid.channels, axis.len() * grid.channels);
    let mut values = Vec::with_capacity(grid.rows * to);
    if axis.copies() {
        for row in grid.values.chunks_exact(from) {
            for &first in &axis.first {
                let pixel = row.get(first * grid.channels..(first + 1) * grid.channels);
                values.extend_from_slice(pixel.unwrap_or(&[]));
            }
        }
    } else {
        // What is one value of a row is a run of BLOCK values here, one of each row.
        let mut turned = vec![[0f32; BLOCK]; from];
        let mut sums = vec![[0f32; BLOCK]; to];
        for block in grid.values.chunks(from * BLOCK) {
            for (lane, row) in block.chunks_exact(from).enumerate() {
                for (run, value) in turned.iter_mut().zip(row) {
                    if let Some(cell) = run.get_mut(lane) {
                        *cell = *value;
                    }
                }
            }
            for ((columns, weights), pixel) in axis.taps().zip(sums.chunks_exact_mut(grid.channels))
            {
                let runs = columns.start * grid.channels..columns.end * grid.channels;
                let runs = turned.get(runs).unwrap_or(&[]);
                for (channel, out) in pixel.iter_mut().enumerate() {
                    let mut sum = [0f32; BLOCK];
                    let runs = runs.iter().skip(channel).step_by(grid.channels);
                    for (run, weight) in runs.zip(weights) {
                        for (sum, value) in sum.iter_mut().zip(run) {
                            *sum += value * weight;
                        }
                    }
                    *out = sum;
                }
            }
            for lane in 0..block.len() / from {
                values.extend(sums.iter().filter_map(|run| run.get(lane)));
            }
        }
    }
    Grid {
        columns: axis.len(),
        values,
        ..grid
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    const ALL: [Interpolation; 4] = [
        Interpolation::BilinearAntialias,
        Interpolation::Linear,
        Interpolation::Area,
        Interpolation::Nearest,
    ];

    fn grid(rows: usize, columns: usize, channels: usize) -> Grid {
        Grid {
            rows,
            columns,
            channels,
            values: vec![3.5; rows * columns * channels],
        }
    }

    #[test]
    fn a_flat_image_stays_flat_at_any_size() {
        for interpolation in ALL {
            for (rows, columns) in [(1, 1), (7, 3), (40, 90), (13, 64)] {
                let out = resize(grid(17, 31, 3), rows, columns, interpolation);
                assert_eq!(out.values.len(), rows * columns * 3);
                assert!(
                    out.values.iter().all(|v| (v - 3.5).abs() < 1e-5),
                    "{interpolation:?} {rows} x {columns}"
                );
            }
        }
    }

    #[test]
    fn halving_averages_except_where_it_must_not() {
        let image = Grid {
            rows: 1,
            columns: 4,
            channels: 1,
            values: vec![0.0, 2.0, 4.0, 8.0],
        };
        let halved = |interpolation| resize(image.clone(), 1, 2, interpolation).values;
        assert_eq!(halved(Interpolation::Area), [1.0, 6.0]);
        assert_eq!(halved(Interpolation::Linear), [1.0, 6.0]);
        assert_eq!(halved(Interpolation::Nearest), [0.0, 4.0]);
        // The triangle reaches one cell beyond on the inner side.
        let smooth = halved(Interpolation::BilinearAntialias);
        assert!((smooth[0] - (0.0 * 3.0 + 2.0 * 3.0 + 4.0) / 7.0).abs() < 1e-6);
    }

    #[test]
    fn a_part_is_what_would_be_cut_out_of_the_whole() {
        let image = Grid {
            rows: 17,
            columns: 31,
            channels: 3,
            values: (0..17 * 31 * 3).map(|i| (i * 37 % 101) as f32).collect(),
        };
        for interpolation in ALL {
            for (rows, columns) in [(9, 12), (30, 40), (12, 40), (17, 31)] {
                let whole = resize(image.clone(), rows, columns, interpolation);
                let part = (2..rows - 3, 4..columns - 1);
                let cut: Vec<f32> = whole
                    .values
                    .chunks_exact(columns * 3)
                    .skip(2)
                    .take(rows - 5)
                    .flat_map(|row| row[4 * 3..(columns - 1) * 3].to_vec())
                    .collect();
                let found = resize_part(image.clone(), (rows, columns), part, interpolation);
                assert_eq!((found.rows, found.columns), (rows - 5, columns - 5));
                assert!(
                    found
                        .values
                        .iter()
                        .zip(&cut)
                        .all(|(a, b)| (a - b).abs() < 1e-4),
                    "{interpolation:?} {rows} x {columns}"
                );
                assert_eq!(found.values.len(), cut.len());
            }
        }
    }
}
