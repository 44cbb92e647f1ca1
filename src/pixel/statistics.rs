//! Simple statistics over the values of an image: is there something in it, is it clipped, does it go
//! on beyond its edges? And mean and deviation, to see a scanner change.

use serde::{Deserialize, Serialize};

use super::render::Grid;

/// Statistics over one or several grids of the same kind.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// Values: rows × columns × channels.
    pub values: u64,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation (of a population: divided by their number).
    pub deviation: f64,
    /// Fraction of them at an end of what can occur.
    pub saturated: f64,
    /// Fraction of the pixels in the first and last row and column that are above the mean. Several
    /// grids: the mean of their fractions, weighted by their values.
    pub truncated: f64,
}

impl Statistics {
    /// Of one grid, whose values can be as low as the first and as high as the second of `ends`.
    /// Colour: a pixel of the border is the mean of its channels.
    pub fn of(grid: &Grid, ends: [f32; 2]) -> Self {
        let count = grid.values.len().max(1) as f64;
        let ends = [ends[0].min(ends[1]), ends[0].max(ends[1])];
        // From a value near the others, so that nothing is lost where the squares are subtracted.
        let origin = grid.values.first().copied().map_or(0.0, f64::from);
        let sums = Sums::over(&grid.values, origin, ends);
        let off = sums.first / count;
        let mean = origin + off;
        let variance = (sums.second / count - off * off).max(0.0);
        let (mut border, mut above) = (0u64, 0u64);
        let row_length = grid.columns * grid.channels;
        let last = grid.rows.saturating_sub(1);
        for (index, row) in grid.values.chunks_exact(row_length.max(1)).enumerate() {
            let pixels = row.chunks_exact(grid.channels.max(1));
            // The whole row, or its first and its last pixel.
            let step = match index == 0 || index == last {
                true => 1,
                false => grid.columns.saturating_sub(1).max(1),
            };
            for pixel in pixels.step_by(step) {
                let value: f64 = pixel.iter().map(|v| f64::from(*v)).sum();
                border += 1;
                above += u64::from(value / pixel.len().max(1) as f64 > mean);
            }
        }
        Self {
            values: grid.values.len() as u64,
            mean,
            deviation: variance.sqrt(),
            saturated: sums.at_ends as f64 / count,
            truncated: above as f64 / border.max(1) as f64,
        }
    }

    /// Of both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let (left, right) = (self.values as f64, other.values as f64);
        let count = (left + right).max(1.0);
        let mixed = |a: f64, b: f64| (a * left + b * right) / count;
        let mean = mixed(self.mean, other.mean);
        let squares = |s: &Self| s.deviation.powi(2) + (s.mean - mean).powi(2);
        Self {
            values: self.values.saturating_add(other.values),
            mean,
            deviation: mixed(squares(&self), squares(&other)).sqrt(),
            saturated: mixed(self.saturated, other.saturated),
            truncated: mixed(self.truncated, other.truncated),
        }
    }
}

/// Sums over values, from an origin.
#[derive(Default, Clone, Copy)]
struct Sums {
    first: f64,
    second: f64,
    at_ends: u64,
}

impl Sums {
    fn over(values: &[f32], origin: f64, [low, high]: [f32; 2]) -> Self {
        // Lanes that do not wait for each other: the processor does several at a time.
        let mut lanes = [Self::default(); 8];
        let (chunks, rest) = values.as_chunks::<8>();
        for chunk in chunks {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                lane.add(*value, origin, low, high);
            }
        }
        for (lane, value) in lanes.iter_mut().zip(rest) {
            lane.add(*value, origin, low, high);
        }
        lanes.into_iter().fold(Self::default(), |sum, lane| Self {
            first: sum.first + lane.first,
            second: sum.second + lane.second,
            at_ends: sum.at_ends + lane.at_ends,
        })
    }

    fn add(&mut self, value: f32, origin: f64, low: f32, high: f32) {
        let off = f64::from(value) - origin;
        self.first += off;
        self.second += off * off;
        self.at_ends += u64::from(value <= low || value >= high);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(rows: usize, columns: usize, channels: usize, values: Vec<f32>) -> Grid {
        Grid {
            rows,
            columns,
            channels,
            values,
        }
    }

    fn close(left: f64, right: f64) {
        assert!((left - right).abs() < 1e-9, "{left} {right}");
    }

    #[test]
    fn statistics_equal_those_of_numpy() {
        // a = np.arange(12).reshape(3, 4) ** 2 % 11
        let a = [0, 1, 4, 9, 5, 3, 3, 5, 9, 4, 1, 0].map(|v| v as f32);
        let s = Statistics::of(&grid(3, 4, 1, a.to_vec()), [0.0, 9.0]);
        assert_eq!(s.values, 12);
        // a.mean(), a.std(), np.isin(a, [0, 9]).mean()
        close(s.mean, 3.666_666_666_666_666_5);
        close(s.deviation, 2.924_988_129_130_705_6);
        close(s.saturated, 4.0 / 12.0);
        // border = np.r_[a[0], a[-1], a[1, [0, -1]]]; (border > a.mean()).mean()
        close(s.truncated, 0.6);
    }

    #[test]
    fn two_halves_are_the_whole() {
        let values: Vec<f32> = (0..64u16).map(|v| f32::from(v * v % 37)).collect();
        let ends = [0.0, 36.0];
        let half = |part: &[f32]| Statistics::of(&grid(4, 8, 1, part.to_vec()), ends);
        let both = half(&values[..32]).and(half(&values[32..]));
        let whole = Statistics::of(&grid(8, 8, 1, values), ends);
        close(both.mean, whole.mean);
        close(both.deviation, whole.deviation);
        close(both.saturated, whole.saturated);
        assert_eq!(both.values, whole.values);
    }

    #[test]
    fn an_image_of_one_value_has_no_deviation() {
        let s = Statistics::of(&grid(50, 50, 1, vec![0.1; 2500]), [0.0, 1.0]);
        assert_eq!(s.deviation, 0.0);
        close(s.mean, f64::from(0.1f32));
        assert_eq!((s.saturated, s.truncated), (0.0, 0.0));
    }

    #[test]
    fn narrow_and_coloured_images_have_a_border_too() {
        let line = Statistics::of(&grid(3, 1, 1, vec![0.0, 5.0, 1.0]), [0.0, 5.0]);
        close(line.truncated, 1.0 / 3.0);
        let wide = Statistics::of(
            &grid(3, 2, 1, vec![0.0, 9.0, 9.0, 0.0, 0.0, 0.0]),
            [0.0, 9.0],
        );
        close(wide.truncated, 2.0 / 6.0);
        // Two pixels: (1, 0, 0) is below the mean of 0.5, (1, 1, 0) above.
        let colour = Statistics::of(
            &grid(1, 2, 3, vec![1.0, 0.0, 0.0, 1.0, 1.0, 0.0]),
            [0.0, 1.0],
        );
        close(colour.truncated, 0.5);
        close(colour.saturated, 1.0);
    }
}
