//! The plan of one volume, and its last steps: along the normal, axes, pad, normalise, type.

use half::f16;

use super::orientation::{Axes, axes};
use super::plane::PlaneSpec;
use super::resample::{Axis, Tap, between};
use super::stack::Stack;
use crate::dicom::uid::SopInstanceUid;
use crate::model::manifest::DType;
use crate::model::volume::{VolumeFit, VolumeInterpolation};
use crate::model::{Line, SourcePlane, Tensor, TensorData, VolumePlacement, VolumeSpec};
use crate::pixel::render::Grid;
use crate::refusal::Refusal;

/// Most bytes of all planes of one volume together, as they wait for the step along the normal.
const MAX_PLANES_BYTES: u64 = 2 << 30;

/// One volume's plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Volume {
    planes: Vec<(usize, usize)>,
    plane: PlaneSpec,
    /// Where each kept depth index of the acquisition comes from, as indices of `planes`.
    depth: Vec<Tap>,
    /// Where planes, rows and columns go.
    axes: Axes,
    /// Where in the tensor they begin, in the order planes, rows, columns.
    at: [usize; 3],
    /// All of its planes, those that no value comes from as well.
    stack: Stack,
    /// Index in the tensor of each of them.
    indices: Vec<f64>,
    spec: VolumeSpec,
}

impl Volume {
    /// Plans a checked stack.
    ///
    /// # Errors
    /// `oblique` and `too-large`.
    pub(super) fn plan(stack: &Stack, spec: &VolumeSpec) -> Result<Self, Refusal> {
        let table = &spec.table;
        let axes = axes(
            &stack.geometry,
            table.orientation,
            table.max_oblique_degrees,
        )?;
        let plan = |own: usize, size: usize, old_mm: f64| {
            let target = axes.target[own];
            let new_mm = table.spacing_mm.map(|spacing| spacing[target]);
            let flip = axes.flip[own];
            Axis::plan(size, old_mm, new_mm, table.fit, spec.size[target], flip)
        };
        let (normal, at_depth) = plan(0, stack.offsets.len(), stack.distance)?;
        let (rows, at_row) = plan(1, stack.rows, stack.geometry.spacing[0])?;
        let (columns, at_column) = plan(2, stack.columns, stack.geometry.spacing[1])?;
        let resampled = table.spacing_mm.is_some() || table.fit == VolumeFit::Stretch;
        let offsets = resampled.then_some(stack.offsets.as_slice());
        let mut depth = along_normal(&normal, offsets, stack.distance, table.interpolation);
        let last = stack.offsets.len().saturating_sub(1) as f64;
        let indices = (0..stack.offsets.len()).map(|plane| {
            let index = match offsets.and_then(|offsets| offsets.get(plane)) {
                Some(offset) => offset / stack.distance,
                None => plane as f64,
            };
            normal.index_of(index, last) + at_depth as f64
        });
        // Only the planes that a value comes from are decoded.
        let mut used: Vec<usize> = depth
            .iter()
            .flat_map(|tap| [tap.lower, tap.upper])
            .collect();
        used.sort_unstable();
        used.dedup();
        for tap in &mut depth {
            tap.lower = used.partition_point(|&plane| plane < tap.lower);
            tap.upper = used.partition_point(|&plane| plane < tap.upper);
        }
        let bytes = [used.len(), rows.count, columns.count, size_of::<f32>()]
            .iter()
            .fold(1u64, |bytes, &n| bytes.saturating_mul(n as u64));
        if bytes > MAX_PLANES_BYTES {
            return Err(Refusal::new(
                "too-large",
                format!(
                    "{} planes need {bytes} bytes, the limit is {MAX_PLANES_BYTES}",
                    used.len()
                ),
            ));
        }
        let planes = used.iter().filter_map(|&plane| stack.planes.get(plane));
        Ok(Self {
            planes: planes.copied().collect(),
            plane: PlaneSpec {
                value: spec.value,
                window: spec.window,
                interpolation: table.interpolation,
                rows,
                columns,
            },
            depth,
            axes,
            at: [at_depth, at_row, at_column],
            indices: indices.collect(),
            stack: stack.clone(),
            spec: spec.clone(),
        })
    }

    /// Where the tensor lies in the planes; `image` names the image and the frame (from 1, of a
    /// multi-frame image) of a plane's file and frame. None when it does not know one of them.
    pub fn placement(
        &self,
        image: impl Fn(usize, usize) -> Option<(SopInstanceUid, Option<u32>)>,
    ) -> Option<VolumePlacement> {
        let Stack { geometry, line, .. } = self.stack;
        let planes = self.stack.planes.iter().zip(&self.stack.offsets);
        let planes = planes.zip(&self.indices).map(|((plane, offset), index)| {
            let (sop_instance, frame) = image(plane.0, plane.1)?;
            Some(SourcePlane {
                sop_instance,
                frame,
                offset_mm: *offset,
                index: *index,
            })
        });
        let line_of = |axis: &Axis, at: usize| {
            let last = axis.size.saturating_sub(1) as f64;
            let begin = axis.index_of(0.0, last) + at as f64;
            Line {
                begin,
                rate: axis.index_of(1.0, last) + at as f64 - begin,
            }
        };
        Some(VolumePlacement {
            tensor: self.spec.size,
            target: self.axes.target,
            planes: planes.collect::<Option<_>>()?,
            rows: self.stack.rows,
            columns: self.stack.columns,
            by_row: line_of(&self.plane.rows, self.at[1]),
            by_column: line_of(&self.plane.columns, self.at[2]),
            position: geometry.position,
            row: geometry.row,
            column: geometry.column,
            line,
            spacing_mm: geometry.spacing,
        })
    }

    /// File and frame of the planes that have to be decoded, in order along the normal. Planes that
    /// no value of the tensor comes from are left out.
    pub fn planes(&self) -> &[(usize, usize)] {
        &self.planes
    }

    /// What is done to each of them.
    pub fn plane(&self) -> &PlaneSpec {
        &self.plane
    }

    /// Bytes that the planes need together while they wait to be assembled.
    pub fn planes_bytes(&self) -> u64 {
        let plane = self
            .plane
            .rows
            .count
            .saturating_mul(self.plane.columns.count);
        (self.planes.len() as u64)
            .saturating_mul(plane as u64)
            .saturating_mul(size_of::<f32>() as u64)
    }

    /// The tensor, from what [`super::plane`] made of each of [`Volume::planes`], in their order.
    ///
    /// # Errors
    /// `internal-error` when these are not the planes of this volume, and `values-not-finite`.
    pub fn assemble(&self, planes: Vec<Grid>) -> Result<Tensor, Refusal> {
        let (rows, columns) = (self.plane.rows.count, self.plane.columns.count);
        let fits = |grid: &Grid| {
            (grid.rows, grid.columns, grid.channels) == (rows, columns, 1)
                && grid.values.len() == rows.saturating_mul(columns)
        };
        if planes.len() != self.planes.len() || !planes.iter().all(fits) {
            return Err(Refusal::new(
                "internal-error",
                "the planes are not those of the volume",
            ));
        }
        let [depth_size, row_size, column_size] = self.spec.size;
        let mut values = vec![self.spec.pad; depth_size * row_size * column_size];
        let strides = [row_size * column_size, column_size, 1];
        let [by_plane, by_row, by_column] = self.axes.target.map(|target| strides[target]);
        let begin = self.at[0] * by_plane + self.at[1] * by_row + self.at[2] * by_column;
        for (index, tap) in self.depth.iter().enumerate() {
            let (Some(lower), Some(upper)) = (planes.get(tap.lower), planes.get(tap.upper)) else {
                continue;
            };
            let pairs = lower.values.iter().zip(&upper.values);
            for (pixel, (lower, upper)) in pairs.enumerate() {
                let (row, column) = (pixel / columns, pixel % columns);
                let to = begin + index * by_plane + row * by_row + column * by_column;
                if let Some(value) = values.get_mut(to) {
                    *value = between(*lower, *upper, tap.fraction) as f32;
                }
            }
        }
        // Freed before the tensor is copied into its type.
        drop(planes);
        self.normalise(&mut values);
        if values.iter().any(|value| !value.is_finite()) {
            return Err(Refusal::new(
                "values-not-finite",
                "an input value is infinite or not a number",
            ));
        }
        let data = match self.spec.dtype {
            DType::Float32 => TensorData::F32(values),
            DType::Float16 => TensorData::F16(values.into_iter().map(f16::from_f32).collect()),
            // The cast saturates.
            DType::Uint8 => TensorData::U8(values.into_iter().map(|v| v.round() as u8).collect()),
        };
        Ok(Tensor {
            shape: self.spec.shape().to_vec(),
            data,
        })
    }

    fn normalise(&self, values: &mut [f32]) {
        let VolumeSpec {
            scale, mean, std, ..
        } = self.spec;
        for value in values {
            *value = (*value * scale - mean) / std;
        }
    }
}

/// Where the kept depth indices come from. With `offsets`, where the planes really are in
/// millimetres from the first, values are taken at real positions; without them the planes stay as
/// they are.
fn along_normal(
    axis: &Axis,
    offsets: Option<&[f64]>,
    distance: f64,
    interpolation: VolumeInterpolation,
) -> Vec<Tap> {
    let Some(offsets) = offsets else {
        return axis.taps(interpolation);
    };
    let end = offsets.last().copied().unwrap_or(0.0);
    // From the end that the tensor begins with.
    let places: Vec<f64> = if axis.flip {
        offsets.iter().rev().map(|offset| end - offset).collect()
    } else {
        offsets.to_vec()
    };
    axis.indices()
        .map(|index| axis.tap(real_index(&places, index * distance), interpolation))
        .collect()
}

/// The index that stands for the position `mm`, when index `i` is at `places[i]`.
fn real_index(places: &[f64], mm: f64) -> f64 {
    let after = places.partition_point(|&place| place <= mm);
    let before = after.saturating_sub(1);
    match (places.get(before), places.get(after)) {
        (Some(&from), Some(&to)) if after > 0 => before as f64 + (mm - from) / (to - from),
        // Less than half a plane outside, where the border is repeated.
        _ => before as f64,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn values_are_taken_at_real_positions() {
        let places = [0.0, 1.0, 2.2, 3.0];
        for (mm, index) in [
            (0.0, 0.0),
            (0.5, 0.5),
            (1.6, 1.5),
            (2.2, 2.0),
            (3.3, 3.0),
            (-0.4, 0.0),
        ] {
            assert!((real_index(&places, mm) - index).abs() < 1e-12, "{mm}");
        }
    }
}
