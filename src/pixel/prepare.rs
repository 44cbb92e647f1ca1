//! One frame to one tensor, as a manifest describes it.
//!
//! The order is fixed and is the order in which training code does it: values of the wanted stage,
//! channels, fit and resample, `scale`, `mean` and `std`, type and axes.

use half::f16;

use super::render::{Grid, render_with_ends};
use super::resize::{resize, resize_part};
use super::{Frames, Limits, Refusal, Statistics, spacing};
use crate::model::ImagePlacement;
use crate::model::manifest::{DType, Fit, ImageSpec, Layout};
use crate::model::tensor::{Tensor, TensorData};

/// Prepares frame `frame` (from 0) of `frames` for a model. The tensor has no batch axis: channels,
/// rows, columns for NCHW and rows, columns, channels for NHWC.
///
/// Channels: colour becomes one channel by Rec. 601 luma (Pillow's `L`), monochrome becomes three
/// by repetition. `uint8` rounds to the nearest and saturates.
///
/// # Errors
/// A [`Refusal`] when the values cannot be trusted, and `model-input` when `spec` asks for the
/// impossible.
pub fn prepare(frames: &Frames<'_>, frame: usize, spec: &ImageSpec) -> Result<Tensor, Refusal> {
    prepare_measured(frames, frame, spec, false).map(|(tensor, _)| tensor)
}

/// [`prepare`], with `measure` also statistics over the values before they are resampled.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_measured(
    frames: &Frames<'_>,
    frame: usize,
    spec: &ImageSpec,
    measure: bool,
) -> Result<(Tensor, Option<Statistics>), Refusal> {
    check(spec)?;
    let (grid, ends) = render_with_ends(frames, frame, spec.value, spec.window)?;
    let statistics = measure.then(|| Statistics::of(&grid, ends));
    let grid = if (grid.channels, spec.channels) == (3, 1) {
        grid.luma()
    } else {
        grid
    };
    affordable(&grid, spec, frames.limits())?;
    Ok((tensor(&fit(grid, spec), spec)?, statistics))
}

fn check(spec: &ImageSpec) -> Result<(), Refusal> {
    let fits = |values: &[f32]| values.is_empty() || values.len() == spec.channels;
    if spec.rows == 0
        || spec.columns == 0
        || !matches!(spec.channels, 1 | 3)
        || !matches!(spec.layout, Layout::Nchw | Layout::Nhwc)
        || !fits(&spec.mean)
        || !fits(&spec.std)
        || spec.std.contains(&0.0)
    {
        return Err(Refusal::new(
            "model-input",
            "the model's input is no image of one or three channels",
        ));
    }
    Ok(())
}

/// How an image is brought to the size of the input: resampled to `size`, of which the tensor shows
/// what begins at `first`; below 0 it is padded. Rows, then columns.
struct Fitting {
    size: [usize; 2],
    first: [isize; 2],
}

impl Fitting {
    fn new(image: [usize; 2], spec: &ImageSpec) -> Self {
        let tensor = [spec.rows, spec.columns];
        let scale = [0, 1].map(|axis| tensor[axis] as f64 / image[axis] as f64);
        match spec.fit {
            Fit::Stretch => Self {
                size: tensor,
                first: [0, 0],
            },
            Fit::Letterbox => {
                let scale = scale[0].min(scale[1]);
                let size = [0, 1].map(|axis| {
                    let size = (image[axis] as f64 * scale).round() as usize;
                    size.clamp(1, tensor[axis])
                });
                Self {
                    size,
                    first: [0, 1].map(|axis| -(((tensor[axis] - size[axis]) / 2) as isize)),
                }
            }
            Fit::Crop => {
                // The shorter side fits exactly and the longer is truncated, as torchvision does it.
                let scale = scale[0].max(scale[1]);
                let size = [0, 1].map(|axis| {
                    let size = (image[axis] as f64 * scale + 1e-9) as usize;
                    size.max(tensor[axis])
                });
                Self {
                    size,
                    first: [0, 1].map(|axis| half_even(size[axis] - tensor[axis]) as isize),
                }
            }
        }
    }
}

/// Where the tensor that [`prepare`] makes of frame `frame` (from 0) lies in that frame. Every
/// interpolation maps the whole image to the whole of what it is resampled to, edge to edge.
pub fn placement(frames: &Frames<'_>, frame: usize, spec: &ImageSpec) -> ImagePlacement {
    let layout = frames.layout();
    let image = [layout.rows, layout.columns];
    let Fitting { size, first } = Fitting::new(image, spec);
    let scale = [0, 1].map(|axis| image[axis] as f64 / size[axis] as f64);
    ImagePlacement {
        tensor: [spec.rows, spec.columns],
        rows: layout.rows,
        columns: layout.columns,
        scale,
        offset: [0, 1].map(|axis| first[axis] as f64 * scale[axis]),
        spacing_mm: spacing::in_patient(frames.data_set(), frame),
    }
}

/// Refuses images so long and thin that what resampling makes on its way would dwarf both the image
/// and the tensor: one row of a hundred thousand columns, to fill a square.
fn affordable(grid: &Grid, spec: &ImageSpec, limits: &Limits) -> Result<(), Refusal> {
    let (by_rows, by_columns) = (
        spec.rows as f64 / grid.rows as f64,
        spec.columns as f64 / grid.columns as f64,
    );
    let (by_rows, by_columns) = match spec.fit {
        Fit::Stretch => (by_rows, by_columns),
        Fit::Letterbox => (by_rows.min(by_columns), by_rows.min(by_columns)),
        Fit::Crop => (by_rows.max(by_columns), by_rows.max(by_columns)),
    };
    // Columns are resampled first.
    let rows = grid.rows as f64 * by_rows.max(1.0);
    let columns = grid.columns as f64 * by_columns;
    let float = (grid.channels * size_of::<f32>()) as f64;
    let bytes = rows * columns * float;
    let tensor = spec.rows as f64 * spec.columns as f64 * float;
    if bytes > tensor.mul_add(2.0, limits.max_working_bytes as f64) {
        return Err(Refusal::new(
            "too-large",
            format!(
                "fitting {} x {} into {} x {} needs about {bytes:.0} bytes",
                grid.columns, grid.rows, spec.columns, spec.rows
            ),
        ));
    }
    Ok(())
}

fn fit(grid: Grid, spec: &ImageSpec) -> Grid {
    let (rows, columns) = (spec.rows, spec.columns);
    let Fitting { size, first } = Fitting::new([grid.rows, grid.columns], spec);
    let [top, left] = first.map(isize::unsigned_abs);
    match spec.fit {
        Fit::Stretch => resize(grid, rows, columns, spec.interpolation),
        Fit::Letterbox => {
            let inside = resize(grid, size[0], size[1], spec.interpolation);
            if size == [rows, columns] {
                return inside;
            }
            place(&inside, [rows, columns], [top, left], spec.pad)
        }
        Fit::Crop => {
            let part = (top..top + rows, left..left + columns);
            resize_part(grid, (size[0], size[1]), part, spec.interpolation)
        }
    }
}

/// Half of `n`, a half rounded to the even neighbour, as Python's `round` does.
fn half_even(n: usize) -> usize {
    (n as f64 / 2.0).round_ties_even() as usize
}

/// Puts `grid` at `top`, `left` of an area of `rows` × `columns`, which is `pad` elsewhere.
fn place(grid: &Grid, [rows, columns]: [usize; 2], [top, left]: [usize; 2], pad: f32) -> Grid {
    let channels = grid.channels;
    let left = left * channels;
    let mut values = vec![pad; rows * columns * channels];
    let targets = values.chunks_exact_mut(columns * channels).skip(top);
    for (to, row) in targets.zip(grid.values.chunks_exact(grid.columns * channels)) {
        if let Some(to) = to.get_mut(left..left + row.len()) {
            to.copy_from_slice(row);
        }
    }
    Grid {
        rows,
        columns,
        channels,
        values,
    }
}

/// Scale, mean and standard deviation, then type and axes, value by value as it is written down.
fn tensor(grid: &Grid, spec: &ImageSpec) -> Result<Tensor, Refusal> {
    let (rows, columns, channels) = (grid.rows, grid.columns, spec.channels);
    let shape = match spec.layout {
        Layout::Nchw => vec![channels, rows, columns],
        _ => vec![rows, columns, channels],
    };
    let data = match spec.dtype {
        DType::Float32 => TensorData::F32(written(grid, spec, |v| v)?),
        DType::Float16 => TensorData::F16(written(grid, spec, f16::from_f32)?),
        // The cast saturates.
        DType::Uint8 => TensorData::U8(written(grid, spec, |v| v.round() as u8)?),
    };
    Ok(Tensor { shape, data })
}

/// The normalised values in the order of the layout, as `convert` makes them.
fn written<T: Copy + Default>(
    grid: &Grid,
    spec: &ImageSpec,
    convert: impl Fn(f32) -> T,
) -> Result<Vec<T>, Refusal> {
    let pixels = grid.rows * grid.columns;
    let mut out = vec![T::default(); pixels * spec.channels];
    let mut finite = true;
    for channel in 0..spec.channels {
        let (start, step) = match spec.layout {
            Layout::Nchw => (channel * pixels, 1),
            _ => (channel, spec.channels),
        };
        let mean = spec.mean.get(channel).copied().unwrap_or(0.0);
        let std = spec.std.get(channel).copied().unwrap_or(1.0);
        let mut one = |to: &mut T, value: &f32| {
            let value = (value * spec.scale - mean) / std;
            finite &= value.is_finite();
            *to = convert(value);
        };
        let targets = out.get_mut(start..).unwrap_or_default();
        // One grey channel serves all of the tensor's. The plain case by itself: it vectorises.
        if (step, grid.channels) == (1, 1) {
            for (to, value) in targets.iter_mut().zip(&grid.values) {
                one(to, value);
            }
        } else {
            let offset = if grid.channels == 1 { 0 } else { channel };
            let values = grid.values.iter().skip(offset).step_by(grid.channels);
            for (to, value) in targets.iter_mut().step_by(step).zip(values) {
                one(to, value);
            }
        }
    }
    if finite {
        Ok(out)
    } else {
        Err(Refusal::new(
            "values-not-finite",
            "an input value is infinite or not a number",
        ))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::model::manifest::{Interpolation, ValueSpace};

    fn spec(fit: Fit, rows: usize, columns: usize) -> ImageSpec {
        ImageSpec {
            layout: Layout::Nchw,
            dtype: DType::Float32,
            rows,
            columns,
            channels: 1,
            value: ValueSpace::Voi,
            window: None,
            fit,
            interpolation: Interpolation::Nearest,
            pad: -1.0,
            scale: 1.0,
            mean: Vec::new(),
            std: Vec::new(),
        }
    }

    fn grid(rows: usize, columns: usize) -> Grid {
        Grid {
            rows,
            columns,
            channels: 1,
            values: (0..rows * columns).map(|v| v as f32).collect(),
        }
    }

    #[test]
    fn a_letterbox_pads_the_shorter_side_evenly() {
        let out = fit(grid(2, 4), &spec(Fit::Letterbox, 4, 4));
        assert_eq!(out.values[..4], [-1.0; 4]);
        assert_eq!(out.values[4..12], [0., 1., 2., 3., 4., 5., 6., 7.]);
        assert_eq!(out.values[12..], [-1.0; 4]);
    }

    /// A ramp, resampled by a kernel that keeps ramps, has at every place of the tensor the value of
    /// its place in the source.
    #[test]
    fn a_place_in_the_tensor_is_where_its_value_came_from() {
        // The antialiasing kernel keeps a ramp but for the rounding of its width.
        for (interpolation, tolerance) in [
            (Interpolation::Linear, 0.01),
            (Interpolation::BilinearAntialias, 0.15),
        ] {
            for (rows, columns, fitted) in [
                (40, 30, Fit::Stretch),
                (37, 80, Fit::Letterbox),
                (80, 37, Fit::Letterbox),
                (91, 44, Fit::Crop),
                (33, 64, Fit::Crop),
                (9, 21, Fit::Crop),
                (9, 21, Fit::Letterbox),
            ] {
                for axis in [0, 1] {
                    let mut image = grid(rows, columns);
                    for (index, value) in image.values.iter_mut().enumerate() {
                        *value = [index / columns, index % columns][axis] as f32 + 0.5;
                    }
                    let mut want = spec(fitted, 24, 16);
                    want.interpolation = interpolation;
                    let placement = placed(rows, columns, &want);
                    let out = super::fit(image, &want);
                    let mut compared = 0;
                    for (index, value) in out.values.iter().enumerate() {
                        let place = [index / 16, index % 16].map(|at| at as f64 + 0.5);
                        let source = placement.source(place);
                        let back = placement.tensor(source);
                        assert!(back.iter().zip(place).all(|(b, p)| (b - p).abs() < 1e-9));
                        // Away from borders, where values repeat and kernels are cut off.
                        let size = [rows, columns][axis] as f64;
                        let reach = placement.scale[axis].max(1.0) + 0.5;
                        let inside = |a: usize, most: usize, reach: f64| {
                            source[a] >= reach && source[a] <= most as f64 - reach
                        };
                        if !inside(0, rows, 0.0) || !inside(1, columns, 0.0) {
                            assert!(*value == -1.0, "{fitted:?} {place:?}");
                        } else if inside(axis, size as usize, reach) {
                            let off = (f64::from(*value) - source[axis]).abs();
                            assert!(
                                off < tolerance,
                                "{fitted:?} {interpolation:?} {place:?}: {off}"
                            );
                            compared += 1;
                        }
                    }
                    assert!(compared > 50, "{fitted:?}: {compared}");
                }
            }
        }
    }

    fn placed(rows: usize, columns: usize, spec: &ImageSpec) -> ImagePlacement {
        let Fitting { size, first } = Fitting::new([rows, columns], spec);
        let scale = [
            rows as f64 / size[0] as f64,
            columns as f64 / size[1] as f64,
        ];
        ImagePlacement {
            tensor: [spec.rows, spec.columns],
            rows,
            columns,
            scale,
            offset: [first[0] as f64 * scale[0], first[1] as f64 * scale[1]],
            spacing_mm: None,
        }
    }

    #[test]
    fn a_thin_image_that_would_be_blown_up_is_refused() {
        let mut thin = grid(1, 60_000);
        let limits = Limits::default();
        let refusal = affordable(&thin, &spec(Fit::Crop, 512, 512), &limits).unwrap_err();
        assert_eq!(refusal.code, "too-large");
        assert!(affordable(&thin, &spec(Fit::Stretch, 512, 512), &limits).is_ok());
        (thin.rows, thin.columns) = (60_000, 1);
        assert!(affordable(&thin, &spec(Fit::Stretch, 8192, 8192), &limits).is_err());
        assert!(affordable(&thin, &spec(Fit::Letterbox, 8192, 8192), &limits).is_ok());
        assert!(affordable(&grid(80, 60), &spec(Fit::Crop, 8192, 8192), &limits).is_ok());
    }

    #[test]
    fn a_crop_takes_the_centre() {
        let out = fit(grid(2, 6), &spec(Fit::Crop, 2, 2));
        assert_eq!(out.values, [2.0, 3.0, 8.0, 9.0]);
    }

    #[test]
    fn planes_and_types_follow_the_manifest() {
        let image = Grid {
            rows: 1,
            columns: 2,
            channels: 3,
            values: vec![0.0, 0.5, 1.0, 0.25, 0.75, 2.0],
        };
        let mut want = spec(Fit::Stretch, 1, 2);
        want.channels = 3;
        want.scale = 255.0;
        want.dtype = DType::Uint8;
        let out = tensor(&image, &want).unwrap();
        assert_eq!(out.shape, [3, 1, 2]);
        assert_eq!(out.data, TensorData::U8(vec![0, 64, 128, 191, 255, 255]));
        want.layout = Layout::Nhwc;
        let out = tensor(&image, &want).unwrap();
        assert_eq!(out.shape, [1, 2, 3]);
        assert_eq!(out.data, TensorData::U8(vec![0, 128, 255, 64, 191, 255]));
    }

    #[test]
    fn mean_and_std_apply_per_channel_of_a_repeated_grey() {
        let mut want = spec(Fit::Stretch, 1, 2);
        want.channels = 3;
        want.mean = vec![0.0, 0.5, 1.0];
        want.std = vec![2.0, 0.5, 1.0];
        let out = tensor(&grid(1, 2), &want).unwrap();
        let planes = vec![0.0, 0.5, -1.0, 1.0, -1.0, 0.0];
        assert_eq!(out.data, TensorData::F32(planes));
    }

    #[test]
    fn what_leaves_the_range_of_the_type_is_refused() {
        let mut want = spec(Fit::Stretch, 1, 2);
        want.scale = f32::MAX;
        want.std = vec![0.5];
        assert!(tensor(&grid(1, 2), &want).is_err());
    }
}
