//! Occlusion sensitivity (Zeiler and Fergus 2014, "Visualizing and understanding convolutional
//! networks", §4.2): cover one square after the other and see what the model loses.
//!
//! The loss is measured in log odds, as the weight of evidence of Robnik-Šikonja and Kononenko (2008)
//! and Zintgraf et al. (2017) is: a probability close to 1 hardly moves when half of what speaks for
//! it is covered, and its odds do.

use half::f16;

use super::HeatMap;
use crate::model::manifest::{Activation, Explanation, Layout};
use crate::model::{Tensor, TensorData};

/// The squares to cover, in rows from the top left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    rows: usize,
    columns: usize,
    patch: usize,
    /// Top and left of each square.
    squares: Vec<[usize; 2]>,
}

impl Plan {
    /// The squares of the manifest's `patch` and `stride` over an input of `rows` × `columns`. The
    /// last of each row and column ends at the edge, so every pixel is covered at least once.
    pub fn new(spec: &Explanation, rows: usize, columns: usize) -> Self {
        let lefts: Vec<usize> = spec.starts(columns).collect();
        let squares = spec
            .starts(rows)
            .flat_map(|top| lefts.iter().map(move |left| [top, *left]))
            .collect();
        Self {
            rows,
            columns,
            patch: spec.patch,
            squares,
        }
    }

    /// Top and left of each square.
    pub fn squares(&self) -> &[[usize; 2]] {
        &self.squares
    }

    /// `tensor` with square `[top, left]` covered by `fill`, a value per channel.
    pub fn cover(
        &self,
        tensor: &Tensor,
        layout: Layout,
        [top, left]: [usize; 2],
        fill: &[f32],
    ) -> Tensor {
        let mut covered = tensor.clone();
        let (channels, columns) = (fill.len(), self.columns);
        for (channel, value) in fill.iter().enumerate() {
            for row in top..(top + self.patch).min(self.rows) {
                let (first, step) = match layout {
                    Layout::Nhwc => ((row * columns + left) * channels + channel, channels),
                    _ => ((channel * self.rows + row) * columns + left, 1),
                };
                let count = self.patch.min(columns.saturating_sub(left));
                match &mut covered.data {
                    TensorData::F32(values) => put(values, first, step, count, *value),
                    TensorData::F16(values) => {
                        put(values, first, step, count, f16::from_f32(*value));
                    }
                    // The cast saturates.
                    TensorData::U8(values) => {
                        put(values, first, step, count, value.round() as u8);
                    }
                    // No image has them.
                    TensorData::I64(_) => {}
                }
            }
        }
        covered
    }

    /// What was lost, averaged for each pixel over the squares that cover it. `losses` has a value
    /// per square, in their order.
    pub fn heat(&self, losses: &[f64]) -> HeatMap {
        let mut values = Vec::with_capacity(self.rows * self.columns);
        // Differences along a row: what begins at a column is added there and taken away after it.
        let mut sums = vec![0.0; self.columns + 1];
        let mut counts = vec![0_i64; self.columns + 1];
        for row in 0..self.rows {
            for ([top, left], loss) in self.squares.iter().zip(losses) {
                let (sign, weight) = match row {
                    row if row == *top => (1.0, 1),
                    row if row == top + self.patch => (-1.0, -1),
                    _ => continue,
                };
                let right = (left + self.patch).min(self.columns);
                for (at, sign, weight) in [(*left, sign, weight), (right, -sign, -weight)] {
                    if let (Some(sum), Some(count)) = (sums.get_mut(at), counts.get_mut(at)) {
                        *sum += sign * loss;
                        *count += weight;
                    }
                }
            }
            let (mut sum, mut count) = (0.0, 0);
            for (change, more) in sums.iter().zip(&counts).take(self.columns) {
                sum += change;
                count += more;
                values.push(if count > 0 {
                    (sum / count as f64) as f32
                } else {
                    0.0
                });
            }
        }
        HeatMap {
            rows: self.rows,
            columns: self.columns,
            values,
        }
    }
}

fn put<T: Copy>(values: &mut [T], first: usize, step: usize, count: usize, value: T) {
    let places = values.get_mut(first..).unwrap_or_default();
    for place in places.iter_mut().step_by(step).take(count) {
        *place = value;
    }
}

/// Log odds of a probability. It is kept away from 0 and 1 as far as numbers of the precision it
/// comes in can tell: `none` says that the graph gives it in single precision; otherwise it is
/// computed in double precision from numbers that have no such bounds.
pub fn evidence(probability: f64, activation: Activation) -> f64 {
    let nearest = match activation {
        Activation::None => f64::from(f32::EPSILON) / 2.0,
        Activation::Sigmoid | Activation::Softmax => 1e-13,
    };
    let probability = probability.clamp(nearest, 1.0 - nearest);
    (probability / (1.0 - probability)).ln()
}

/// The mean of each channel of an image's own tensor: what a square is covered with.
pub fn means(tensor: &Tensor, layout: Layout) -> Vec<f32> {
    let values = tensor.to_f32();
    let channels = match (layout, tensor.shape.as_slice()) {
        (Layout::Nhwc, [_, _, channels]) | (_, [channels, _, _]) => *channels,
        _ => 1,
    };
    let pixels = (values.len() / channels.max(1)).max(1);
    (0..channels)
        .map(|channel| {
            let (first, step) = match layout {
                Layout::Nhwc => (channel, channels),
                _ => (channel * pixels, 1),
            };
            let own = values.iter().skip(first).step_by(step).take(pixels);
            (own.map(|value| f64::from(*value)).sum::<f64>() / pixels as f64) as f32
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::manifest::Method;
    use crate::units::HumanDuration;

    fn plan(rows: usize, columns: usize, patch: usize, stride: usize) -> Plan {
        let spec = Explanation {
            method: Method::Occlusion,
            tensor: None,
            patch,
            stride,
            budget: HumanDuration::from_secs(1),
            max_findings: 1,
        };
        Plan::new(&spec, rows, columns)
    }

    #[test]
    fn the_last_square_ends_at_the_edge() {
        let plan = plan(4, 5, 2, 2);
        let squares = [[0, 0], [0, 2], [0, 3], [2, 0], [2, 2], [2, 3]];
        assert_eq!(plan.squares(), squares);
    }

    #[test]
    fn a_pixel_has_the_mean_of_the_squares_over_it() {
        let plan = plan(2, 5, 2, 2);
        let heat = plan.heat(&[1.0, 2.0, 4.0]);
        assert_eq!(heat.values[..5], [1.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!(heat.values[5..], [1.0, 1.0, 2.0, 3.0, 4.0]);
        // Squares that begin and end in the same row.
        let plan = self::plan(4, 2, 2, 1);
        let heat = plan.heat(&[1.0, 2.0, 4.0]);
        assert_eq!(heat.values, [1.0, 1.0, 1.5, 1.5, 3.0, 3.0, 4.0, 4.0]);
    }

    #[test]
    fn evidence_is_bounded_by_the_precision_of_the_probability() {
        let sigmoid = |logit: f64| 1.0 / (1.0 + (-logit).exp());
        let found = evidence(sigmoid(19.0), Activation::Sigmoid);
        assert!((found - 19.0).abs() < 1e-6, "{found}");
        assert_eq!(evidence(0.5, Activation::None), 0.0);
        // The largest number of single precision below 1 is the last that can be told from 1.
        let most = evidence(1.0, Activation::None);
        assert_eq!(
            most,
            evidence(f64::from(1.0f32.next_down()), Activation::None)
        );
        assert!((most + evidence(0.0, Activation::None)).abs() < 1e-9);
        assert!(evidence(1.0, Activation::Softmax).is_finite());
    }

    #[test]
    fn each_channel_is_covered_by_its_own_mean_in_both_layouts() {
        let plan = plan(2, 3, 1, 1);
        let planes = vec![0.0, 0.0, 0.0, 0.0, 0.0, 6.0, 1.0, 1.0, 1.0, 1.0, 1.0, 7.0];
        let tensor = Tensor {
            shape: vec![2, 2, 3],
            data: TensorData::F32(planes.clone()),
        };
        assert_eq!(means(&tensor, Layout::Nchw), [1.0, 2.0]);
        let covered = plan.cover(&tensor, Layout::Nchw, [1, 2], &[1.0, 2.0]);
        let mut wanted = planes.clone();
        (wanted[5], wanted[11]) = (1.0, 2.0);
        assert_eq!(covered.data, TensorData::F32(wanted));

        let bytes = [0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 6, 7];
        let tensor = Tensor {
            shape: vec![2, 3, 2],
            data: TensorData::U8(bytes.to_vec()),
        };
        assert_eq!(means(&tensor, Layout::Nhwc), [1.0, 2.0]);
        let covered = plan.cover(&tensor, Layout::Nhwc, [0, 1], &[2.6, 300.0]);
        let mut wanted = bytes;
        (wanted[2], wanted[3]) = (3, 255);
        assert_eq!(covered.data, TensorData::U8(wanted.to_vec()));
    }
}
