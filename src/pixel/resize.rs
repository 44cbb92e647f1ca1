//! Resampling in single precision, by the rules of the libraries that models are trained with.
//!
//! All four are separable, so each axis becomes a table of taps: for each output position the
//! first input position and the weights from there on. What equals what:
//! - [`Interpolation::BilinearAntialias`]: Pillow's `BILINEAR` in mode `F`, torchvision with
//!   `antialias=True`; the triangle widens when the image shrinks;
//! - [`Interpolation::Linear`]: OpenCV's `INTER_LINEAR`, two taps whatever the scale;
//! - [`Interpolation::Area`]: OpenCV's `INTER_AREA`, with its variant of linear when enlarging;
//! - [`Interpolation::Nearest`]: OpenCV's `INTER_NEAREST` and PyTorch's `nearest`.

use super::render::Grid;
use crate::model::manifest::Interpolation;

/// Where one output position gets its value from.
#[derive(Debug, Clone, PartialEq)]
struct Taps {
    first: usize,
    weights: Vec<f32>,
}

/// Resamples `grid` to `rows` × `columns`.
pub fn resize(grid: Grid, rows: usize, columns: usize, interpolation: Interpolation) -> Grid {
    if (grid.rows, grid.columns) == (rows, columns) {
        return grid;
    }
    // OpenCV enlarges with its linear variant as soon as one axis grows.
    let enlarges = rows > grid.rows || columns > grid.columns;
    let horizontal = axis(grid.columns, columns, interpolation, enlarges);
    let vertical = axis(grid.rows, rows, interpolation, enlarges);
    let channels = grid.channels;
    let narrow = across(&grid.values, grid.columns, channels, &horizontal);
    let values = down(&narrow, columns * channels, &vertical);
    Grid {
        rows,
        columns,
        channels,
        values,
    }
}

fn axis(from: usize, to: usize, interpolation: Interpolation, enlarges: bool) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    (0..to)
        .map(|i| match interpolation {
            Interpolation::BilinearAntialias => triangle(i, scale, from),
            Interpolation::Linear => two_taps((i as f64 + 0.5) * scale - 0.5, from),
            Interpolation::Area if enlarges => area_linear(i, scale, from),
            Interpolation::Area => area(i, scale, from),
            Interpolation::Nearest => Taps {
                first: ((i as f64 * scale).floor() as usize).min(from - 1),
                weights: vec![1.0],
            },
        })
        .collect()
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
        return Taps {
            first: 0,
            weights: vec![1.0],
        };
    }
    let first = x.floor() as usize;
    if first >= last {
        return Taps {
            first: last,
            weights: vec![1.0],
        };
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

/// Applies taps along each row.
fn across(values: &[f32], columns: usize, channels: usize, taps: &[Taps]) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len() / columns * taps.len());
    for row in values.chunks_exact(columns * channels) {
        for tap in taps {
            for channel in 0..channels {
                let cells = row.iter().skip(tap.first * channels + channel);
                let sum: f32 = cells
                    .step_by(channels)
                    .zip(&tap.weights)
                    .map(|(value, weight)| value * weight)
                    .sum();
                out.push(sum);
            }
        }
    }
    out
}

/// Applies taps along each column of rows that are `width` values long.
fn down(values: &[f32], width: usize, taps: &[Taps]) -> Vec<f32> {
    let mut out = vec![0.0; width * taps.len()];
    for (to, tap) in out.chunks_exact_mut(width).zip(taps) {
        let rows = values.chunks_exact(width).skip(tap.first);
        for (row, weight) in rows.zip(&tap.weights) {
            for (sum, value) in to.iter_mut().zip(row) {
                *sum += value * weight;
            }
        }
    }
    out
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
}
