//! The one type that pixel, inference and findings agree on.

use std::borrow::Cow;

use half::f16;

/// A dense tensor in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Sizes, outermost first. One sample has no batch dimension.
    pub shape: Vec<usize>,
    /// As many values as the product of `shape`.
    pub data: TensorData,
}

/// Values of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub enum TensorData {
    /// 32-bit floating point.
    F32(Vec<f32>),
    /// 16-bit floating point.
    F16(Vec<f16>),
    /// Unsigned bytes.
    U8(Vec<u8>),
    /// 64-bit integers: class labels of `ai.onnx.ml` models.
    I64(Vec<i64>),
}

impl Tensor {
    /// Number of values that `shape` stands for.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory that its values take.
    pub fn bytes(&self) -> usize {
        match &self.data {
            TensorData::F32(values) => size_of_val(values.as_slice()),
            TensorData::F16(values) => size_of_val(values.as_slice()),
            TensorData::U8(values) => size_of_val(values.as_slice()),
            TensorData::I64(values) => size_of_val(values.as_slice()),
        }
    }

    /// The values as `f32`, whatever they are stored as.
    pub fn to_f32(&self) -> Vec<f32> {
        self.floats().into_owned()
    }

    /// As [`Self::to_f32`], borrowed where they are stored so.
    pub fn floats(&self) -> Cow<'_, [f32]> {
        match &self.data {
            TensorData::F32(values) => Cow::Borrowed(values),
            TensorData::F16(values) => values.iter().map(|value| value.to_f32()).collect(),
            TensorData::U8(values) => values.iter().map(|value| f32::from(*value)).collect(),
            // Labels are small; beyond 2²⁴ a label would lose its last digits.
            TensorData::I64(values) => values.iter().map(|value| *value as f32).collect(),
        }
    }
}
