//! One axis of a rectilinear grid: which input indices a tensor's index gets its value from.
//!
//! The rules are those of ITK's `ResampleImageFilter`. With a voxel size: the centre of the first
//! voxel stays where it is, the new size is `round(size × old / new)`, halves up, and an index that
//! lies half an old voxel or more beyond the last centre is outside. Without one the grid stays as
//! it is. Between the last centre and half a voxel beyond it the last value is repeated.
//!
//! Crop and pad are MONAI's `ResizeWithPadOrCrop`: the first index kept is `size / 2 - wanted / 2`,
//! the first one padded to is `(wanted - size) / 2`, both in integers.

use serde::{Deserialize, Serialize};

use crate::model::volume::{VolumeFit, VolumeInterpolation};
use crate::refusal::Refusal;

/// Indices that differ by less than this are the same: rounding must not move a voxel.
const SAME_INDEX: f64 = 1e-6;
/// A size before cropping that nobody means.
const MAX_SIZE: f64 = 65_535.0;

/// The part of a tensor's axis that lies inside the volume, and where its values come from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Axis {
    /// Input voxels.
    pub size: usize,
    /// Whether the input is read backwards.
    pub flip: bool,
    /// Input indices from one output index to the next.
    pub step: f64,
    /// Input index of the output index 0.
    pub offset: f64,
    /// First output index that is kept.
    pub first: usize,
    /// Output indices that are kept, all of them inside.
    pub count: usize,
}

/// Where one value comes from: `lower + fraction × (upper - lower)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tap {
    /// Input index.
    pub lower: usize,
    /// Input index, the same or a neighbour.
    pub upper: usize,
    /// 0 to 1.
    pub fraction: f64,
}

impl Axis {
    /// Plans an axis of `size` voxels of `old_mm` for a tensor's axis of `wanted`; says where in
    /// the tensor it begins.
    ///
    /// # Errors
    /// `too-large` when the resampled axis has a size that nobody means.
    pub(super) fn plan(
        size: usize,
        old_mm: f64,
        new_mm: Option<f64>,
        fit: VolumeFit,
        wanted: usize,
        flip: bool,
    ) -> Result<(Self, usize), Refusal> {
        if fit == VolumeFit::Stretch {
            let step = size as f64 / wanted as f64;
            let axis = Self {
                size,
                flip,
                step,
                offset: 0.5 * step - 0.5,
                first: 0,
                count: wanted,
            };
            return Ok((axis, 0));
        }
        let step = new_mm.map_or(1.0, |new| new / old_mm);
        let resized = (size as f64 / step + SAME_INDEX).round().max(1.0);
        if resized > MAX_SIZE {
            return Err(Refusal::new(
                "too-large",
                format!("{size} voxels of {old_mm} mm become {resized}"),
            ));
        }
        let resized = resized as usize;
        let (first, at) = if resized > wanted {
            (resized / 2 - wanted / 2, 0)
        } else {
            (0, (wanted - resized) / 2)
        };
        let inside = (first..resized.min(first + wanted))
            .take_while(|&index| index as f64 * step < size as f64 - 0.5 - SAME_INDEX);
        let axis = Self {
            size,
            flip,
            step,
            offset: 0.0,
            first,
            count: inside.count(),
        };
        Ok((axis, at))
    }

    /// Where among the kept output indices the input index `index` falls, the last one being `last`:
    /// the inverse of [`Self::indices`] and the flip.
    pub(super) fn index_of(&self, index: f64, last: f64) -> f64 {
        let index = if self.flip { last - index } else { index };
        (index - self.offset) / self.step - self.first as f64
    }

    /// The input indices of the kept output indices, before any flip.
    pub(super) fn indices(&self) -> impl Iterator<Item = f64> {
        (self.first..self.first.saturating_add(self.count))
            .map(|index| index as f64 * self.step + self.offset)
    }

    /// Where the values of the kept output indices come from.
    pub(super) fn taps(&self, interpolation: VolumeInterpolation) -> Vec<Tap> {
        self.indices()
            .map(|index| self.tap(index, interpolation))
            .collect()
    }

    /// Where the value at the input index `index` comes from.
    pub(super) fn tap(&self, index: f64, interpolation: VolumeInterpolation) -> Tap {
        let last = self.size.saturating_sub(1);
        let (lower, fraction) = match interpolation {
            VolumeInterpolation::Nearest => ((index + 0.5 + SAME_INDEX).floor(), 0.0),
            VolumeInterpolation::Linear => {
                let inside = index.clamp(0.0, last as f64);
                let nearest = inside.round();
                if (inside - nearest).abs() < SAME_INDEX {
                    (nearest, 0.0)
                } else {
                    (inside.floor(), inside - inside.floor())
                }
            }
        };
        // The cast saturates.
        let lower = (lower as usize).min(last);
        let upper = if fraction > 0.0 {
            (lower + 1).min(last)
        } else {
            lower
        };
        let place = |index: usize| if self.flip { last - index } else { index };
        Tap {
            lower: place(lower),
            upper: place(upper),
            fraction,
        }
    }
}

/// Linear interpolation that keeps equal values exactly.
pub(super) fn between(lower: f32, upper: f32, fraction: f64) -> f64 {
    let (lower, upper) = (f64::from(lower), f64::from(upper));
    lower + fraction * (upper - lower)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use VolumeInterpolation::{Linear, Nearest};

    fn plan(size: usize, new_mm: Option<f64>, fit: VolumeFit, wanted: usize) -> (Axis, usize) {
        Axis::plan(size, 1.0, new_mm, fit, wanted, false).unwrap()
    }

    /// The input's values are ten times its indices.
    fn values(axis: &Axis, interpolation: VolumeInterpolation) -> Vec<f64> {
        let taps = axis.taps(interpolation);
        taps.iter()
            .map(|tap| {
                between(
                    10.0 * tap.lower as f32,
                    10.0 * tap.upper as f32,
                    tap.fraction,
                )
            })
            .collect()
    }

    #[test]
    fn a_finer_grid_ends_half_a_voxel_after_the_last_centre() {
        // SimpleITK 2.5: size 4 to 8, of which the last is outside.
        let (axis, at) = plan(4, Some(0.5), VolumeFit::CropPad, 8);
        assert_eq!(at, 0);
        assert_eq!(values(&axis, Linear), [0., 5., 10., 15., 20., 25., 30.]);
        assert_eq!(values(&axis, Nearest), [0., 10., 10., 20., 20., 30., 30.]);
    }

    #[test]
    fn a_coarser_grid_begins_at_the_first_centre() {
        // SimpleITK 2.5: size 7 to 5, 4.67 rounded.
        let (axis, _) = plan(7, Some(1.5), VolumeFit::CropPad, 5);
        assert_eq!(values(&axis, Linear), [0., 15., 30., 45., 60.]);
        assert_eq!(values(&axis, Nearest), [0., 20., 30., 50., 60.]);
    }

    #[test]
    fn odd_remainders_go_where_monai_puts_them() {
        for (size, wanted, first, at) in [
            (5, 2, 1, 0),
            (4, 3, 1, 0),
            (5, 4, 0, 0),
            (6, 2, 2, 0),
            (3, 6, 0, 1),
            (4, 4, 0, 0),
        ] {
            let (axis, begins) = plan(size, None, VolumeFit::CropPad, wanted);
            assert_eq!((axis.first, begins), (first, at), "{size} to {wanted}");
            assert_eq!(axis.count, size.min(wanted));
        }
    }

    #[test]
    fn stretching_keeps_the_extent() {
        let (axis, _) = plan(4, None, VolumeFit::Stretch, 2);
        assert_eq!(values(&axis, Linear), [5.0, 25.0]);
        let (axis, _) = plan(2, None, VolumeFit::Stretch, 4);
        assert_eq!(values(&axis, Linear), [0.0, 2.5, 7.5, 10.0]);
    }

    #[test]
    fn a_flip_is_a_flip_of_the_input() {
        let fit = VolumeFit::CropPad;
        let (axis, _) = Axis::plan(4, 1.0, Some(2.0), fit, 2, true).unwrap();
        assert_eq!(values(&axis, Linear), [30.0, 10.0]);
    }

    #[test]
    fn rounding_noise_moves_no_voxel() {
        // 0.7 / 0.1 is 6.999999999999999.
        let (axis, _) = Axis::plan(10, 0.1, Some(0.7), VolumeFit::CropPad, 8, false).unwrap();
        assert_eq!(axis.count, 1);
        let (axis, _) = Axis::plan(15, 0.1, Some(0.3), VolumeFit::CropPad, 8, false).unwrap();
        assert!(axis.taps(Linear).iter().all(|tap| tap.fraction == 0.0));
    }

    #[test]
    fn an_absurd_size_is_refused() {
        let refusal = Axis::plan(65_000, 1.0, Some(0.01), VolumeFit::CropPad, 8, false);
        assert_eq!(refusal.unwrap_err().code, "too-large");
    }
}
