//! From the tensor's grid to the source's: probabilities are interpolated linearly to the centres of
//! the source's pixels, row by row, and compared with the threshold there.
//!
//! Outside of the tensor, half a voxel beyond its outer centres, there is no probability. A grid of
//! a tensor is rectilinear in its source, so that every axis is a table by itself.

use super::mask::Mask;
use crate::model::Placement;
use crate::refusal::Refusal;

/// Source pixels of one image or volume: a volume of 8192 planes of 512 × 512.
const MAX_SOURCE: usize = 1 << 31;

/// What lies where, for every axis of the source: planes, rows, columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Regrid {
    /// Sizes of the tensor: depth, rows, columns; an image has the depth 1.
    tensor: [usize; 3],
    axes: [Axis; 3],
}

#[derive(Debug, Clone, PartialEq)]
struct Axis {
    /// Values of the tensor from one index to the next.
    stride: usize,
    /// For each index of the source.
    taps: Vec<Option<Tap>>,
}

/// `lower + fraction × (upper - lower)`, as indices of the tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Tap {
    lower: usize,
    upper: usize,
    fraction: f64,
}

/// A region in the source.
#[derive(Debug, Clone, PartialEq)]
pub struct Region {
    /// Its pixels.
    pub mask: Mask,
    /// Mean probability of its pixels; none when it has none.
    pub mean: Option<f64>,
    /// The highest probability of any source pixel inside the tensor.
    pub highest: Option<f64>,
}

impl Regrid {
    /// For a sample placed so.
    ///
    /// # Errors
    /// `too-large` when the source has more pixels than are looked at.
    pub fn new(placement: &Placement) -> Result<Self, Refusal> {
        let [planes, rows, columns] = match placement {
            Placement::Image(image) => [1, image.rows, image.columns],
            Placement::Volume(volume) => [volume.planes.len(), volume.rows, volume.columns],
        };
        let pixels = planes.saturating_mul(rows).saturating_mul(columns);
        if pixels > MAX_SOURCE {
            return Err(Refusal::new(
                "too-large",
                format!("regions in {planes} planes of {columns} x {rows}"),
            ));
        }
        Ok(match placement {
            Placement::Image(image) => {
                let [rows, columns] = image.tensor;
                let centre = |index: usize| index as f64 + 0.5;
                let row = |row| image.tensor([centre(row), 0.0])[0] - 0.5;
                let column = |column| image.tensor([0.0, centre(column)])[1] - 0.5;
                Self {
                    tensor: [1, rows, columns],
                    axes: [
                        Axis::new(rows * columns, 1, [0.0].into_iter()),
                        Axis::new(columns, rows, (0..image.rows).map(row)),
                        Axis::new(1, columns, (0..image.columns).map(column)),
                    ],
                }
            }
            Placement::Volume(volume) => {
                let [_, rows, columns] = volume.tensor;
                let strides = [rows * columns, columns, 1];
                let target = |own: usize| {
                    (
                        strides[volume.target[own]],
                        volume.tensor[volume.target[own]],
                    )
                };
                let axis = |own, indices: &mut dyn Iterator<Item = f64>| {
                    let (stride, size) = target(own);
                    Axis::new(stride, size, indices)
                };
                let row = |row| volume.by_row.at(row as f64);
                let column = |column| volume.by_column.at(column as f64);
                Self {
                    tensor: volume.tensor,
                    axes: [
                        axis(0, &mut volume.planes.iter().map(|plane| plane.index)),
                        axis(1, &mut (0..volume.rows).map(row)),
                        axis(2, &mut (0..volume.columns).map(column)),
                    ],
                }
            }
        })
    }

    /// Depth, rows and columns of the tensor.
    pub fn tensor(&self) -> [usize; 3] {
        self.tensor
    }

    /// Planes, rows and columns of the source.
    pub fn size(&self) -> [usize; 3] {
        [0, 1, 2].map(|axis| self.axes[axis].taps.len())
    }

    /// The pixels of the source whose probability is at or above `threshold`; `probabilities` in the
    /// order of the tensor.
    ///
    /// # Errors
    /// `model-output-too-large` when they are in more pieces than are followed.
    pub fn region(&self, probabilities: &[f32], threshold: f64) -> Result<Region, Refusal> {
        let [planes, rows, columns] = &self.axes;
        let mut mask = Mask::new(self.size())?;
        let (mut sum, mut count, mut highest) = (0.0, 0usize, None::<f64>);
        // The tensor's values along the source's columns, at one plane and row of the source.
        let mut line = vec![0.0; columns.extent()];
        for (plane, down) in planes.inside() {
            for (row, along) in rows.inside() {
                let corners = [down.lower, down.upper].map(|depth| {
                    [along.lower, along.upper].map(|row| depth * planes.stride + row * rows.stride)
                });
                for (index, value) in line.iter_mut().enumerate() {
                    let [near, far] = corners.map(|corners| {
                        let [one, other] = corners.map(|corner| {
                            let at = corner + index * columns.stride;
                            probabilities.get(at).copied().map_or(0.0, f64::from)
                        });
                        one + along.fraction * (other - one)
                    });
                    *value = near + down.fraction * (far - near);
                }
                let mut start = None;
                for (column, tap) in columns.taps.iter().enumerate() {
                    let probability = tap.as_ref().and_then(|tap| {
                        let (lower, upper) = (line.get(tap.lower)?, line.get(tap.upper)?);
                        Some(lower + tap.fraction * (upper - lower))
                    });
                    let Some(probability) = probability else {
                        end(&mut mask, &mut start, [plane, row, column])?;
                        continue;
                    };
                    highest = Some(highest.map_or(probability, |most| most.max(probability)));
                    if probability >= threshold {
                        start.get_or_insert(column);
                        sum += probability;
                        count += 1;
                    } else {
                        end(&mut mask, &mut start, [plane, row, column])?;
                    }
                }
                end(&mut mask, &mut start, [plane, row, columns.taps.len()])?;
            }
        }
        Ok(Region {
            mask,
            mean: (count > 0).then(|| sum / count as f64),
            highest,
        })
    }
}

fn end(
    mask: &mut Mask,
    start: &mut Option<usize>,
    [plane, row, column]: [usize; 3],
) -> Result<(), Refusal> {
    match start.take() {
        Some(start) => mask.push(plane, row, start, column),
        None => Ok(()),
    }
}

impl Axis {
    /// `indices`: where in the tensor, along its axis of `size`, each source index is.
    fn new(stride: usize, size: usize, indices: impl Iterator<Item = f64>) -> Self {
        let last = size.saturating_sub(1);
        let tap = |index: f64| {
            if !(-0.5..last as f64 + 0.5).contains(&index) {
                return None;
            }
            let index = index.clamp(0.0, last as f64);
            let lower = index.floor();
            Some(Tap {
                lower: lower as usize,
                upper: (lower as usize + 1).min(last),
                fraction: index - lower,
            })
        };
        Self {
            stride,
            taps: indices.map(tap).collect(),
        }
    }

    /// Source indices that are inside the tensor.
    fn inside(&self) -> impl Iterator<Item = (usize, &Tap)> {
        let taps = self.taps.iter().enumerate();
        taps.filter_map(|(index, tap)| Some((index, tap.as_ref()?)))
    }

    /// Indices of the tensor that are needed: up to the highest.
    fn extent(&self) -> usize {
        self.inside()
            .map(|(_, tap)| tap.upper + 1)
            .max()
            .unwrap_or(0)
    }
}
