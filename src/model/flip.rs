//! Mirror images of a tensor (test-time augmentation), and of what a model says about one.

use super::manifest::{Flip, Layout};
use super::{Tensor, TensorData};

/// The mirror image of a sample, a tensor without the batch axis. As numpy's `flip`.
///
/// A tensor whose layout has no such axis is given back as it is: manifests that ask for it are
/// refused at load.
pub fn flip(tensor: &Tensor, layout: Layout, flip: Flip) -> Tensor {
    match axis(layout, flip) {
        Some(axis) => reverse(tensor, axis),
        None => tensor.clone(),
    }
}

/// The axis that `flip` reverses in a sample of this layout, from 0.
pub fn axis(layout: Layout, flip: Flip) -> Option<usize> {
    // Where planes, rows and columns are.
    let (depth, rows, columns) = match layout {
        Layout::Nchw => (None, 1, 2),
        Layout::Nhwc => (None, 0, 1),
        Layout::Ncdhw => (Some(1), 2, 3),
        Layout::Ndhwc => (Some(0), 1, 2),
        Layout::Nf => return None,
    };
    match flip {
        Flip::Depth => depth,
        Flip::Vertical => Some(rows),
        Flip::Horizontal => Some(columns),
    }
}

/// The tensor with one axis in reverse order, as numpy's `flip(tensor, axis)`; as it is when there is
/// no such axis.
pub fn reverse(tensor: &Tensor, axis: usize) -> Tensor {
    let Some(size) = tensor.shape.get(axis).copied() else {
        return tensor.clone();
    };
    // What moves as a whole: everything inside of the axis.
    let run: usize = tensor.shape.iter().skip(axis + 1).product();
    let data = match &tensor.data {
        TensorData::F32(values) => TensorData::F32(reversed(values, size, run)),
        TensorData::F16(values) => TensorData::F16(reversed(values, size, run)),
        TensorData::U8(values) => TensorData::U8(reversed(values, size, run)),
        TensorData::I64(values) => TensorData::I64(reversed(values, size, run)),
    };
    Tensor {
        shape: tensor.shape.clone(),
        data,
    }
}

fn reversed<T: Copy>(values: &[T], size: usize, run: usize) -> Vec<T> {
    if run == 0 || size == 0 {
        return values.to_vec();
    }
    let mut out = Vec::with_capacity(values.len());
    for block in values.chunks(size * run) {
        for part in block.chunks(run).rev() {
            out.extend_from_slice(part);
        }
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use half::f16;

    use super::*;

    /// `numpy.arange(24).reshape(shape)`, and `numpy.flip` of it, by `scripts/golden_tabular.py`.
    const GOLDEN: &str = include_str!("../../tests/fixtures/flips.json");

    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Case {
        layout: Layout,
        flip: Flip,
        shape: Vec<usize>,
        flipped: Vec<u8>,
    }

    #[test]
    fn every_layout_and_type_is_mirrored_as_by_numpy() {
        let cases: Vec<Case> = serde_json::from_str(GOLDEN).unwrap();
        assert_eq!(cases.len(), 10, "two for images, three for volumes");
        for case in cases {
            let values: Vec<u8> = (0..24).collect();
            let types: [(TensorData, TensorData); 4] = [
                (
                    TensorData::U8(values.clone()),
                    TensorData::U8(case.flipped.clone()),
                ),
                (
                    TensorData::F32(values.iter().map(|v| f32::from(*v)).collect()),
                    TensorData::F32(case.flipped.iter().map(|v| f32::from(*v)).collect()),
                ),
                (
                    TensorData::F16(values.iter().map(|v| f16::from(*v)).collect()),
                    TensorData::F16(case.flipped.iter().map(|v| f16::from(*v)).collect()),
                ),
                (
                    TensorData::I64(values.iter().map(|v| i64::from(*v)).collect()),
                    TensorData::I64(case.flipped.iter().map(|v| i64::from(*v)).collect()),
                ),
            ];
            for (data, expected) in types {
                let shape = case.shape.clone();
                let tensor = Tensor { shape, data };
                let mirrored = flip(&tensor, case.layout, case.flip);
                assert_eq!(mirrored.data, expected, "{:?} {:?}", case.layout, case.flip);
                assert_eq!(flip(&mirrored, case.layout, case.flip), tensor);
            }
        }
    }

    #[test]
    fn what_has_no_such_axis_stays() {
        let row = Tensor {
            shape: vec![3],
            data: TensorData::U8(vec![1, 2, 3]),
        };
        assert_eq!(flip(&row, Layout::Nf, Flip::Horizontal), row);
        assert_eq!(reverse(&row, 1), row);
        assert_eq!(axis(Layout::Nchw, Flip::Depth), None);
        let none = Tensor {
            shape: vec![0, 4],
            data: TensorData::U8(Vec::new()),
        };
        assert_eq!(reverse(&none, 1), none);
    }
}
