//! What gateway and worker say to each other.
//!
//! The gateway does not trust the answer: lengths have bounds, codes have a shape. How the words get
//! across is [`crate::child`]'s.

use std::ffi::OsString;
use std::fs::File;
use std::io;

use serde::{Deserialize, Serialize};

use crate::child::{self, garbled};
use crate::model::manifest::{ValueSpace, Window};
use crate::model::{ImagePlacement, ImageSpec};
use crate::pixel::stored::each;
use crate::pixel::{Samples, Statistics};
use crate::volume::PlaneSpec;

/// One frame and what to do with it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    /// Where the Part 10 file is; not always UTF-8.
    pub file: OsString,
    /// From 0.
    pub frame: usize,
    pub job: Job,
    /// Statistics over the values are wanted (tensors, planes).
    pub measure: bool,
}

/// What to do with a frame.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Job {
    /// A model's tensor.
    Tensor(ImageSpec),
    /// One plane of a volume.
    Plane(PlaneSpec),
    /// What a person is shown, with this window instead of the file's.
    Picture(Option<Window>),
    /// The values of a stage.
    Values(Stage),
    /// Nothing: whether the worker answers.
    Ping,
}

/// Stage of the pixel pipeline whose values are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Stored values in their own type.
    Stored,
    /// Values after a transformation, as floats.
    Rendered(ValueSpace),
}

/// What a worker found in a file besides values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Frames in the instance, at least 1.
    pub frames: usize,
    /// Transfer Syntax UID of the file.
    pub transfer_syntax: String,
    /// Where the tensor or the picture lies in the frame.
    pub placement: Option<ImagePlacement>,
    /// Over the values before they were resampled, where they were asked for (tensors, planes).
    pub statistics: Option<Statistics>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// Alive.
    Ready,
    /// The values are in the file.
    Done {
        facts: Facts,
        /// Sizes, outermost first.
        shape: Vec<usize>,
        /// NumPy's name of the type.
        dtype: String,
        /// As [`crate::pixel::Photometric`] spells it; empty for tensors.
        photometric: String,
    },
    /// A number would be a guess.
    Refused { code: String, text: String },
}

/// Puts values where the other side finds them.
pub(super) fn put(file: &File, values: &Samples) -> io::Result<()> {
    each!(values, values => child::put(file, 0, values)).map(|_| ())
}

/// Takes `count` values of `dtype`, NumPy's name of the type.
pub(super) fn take(file: &File, dtype: &str, count: usize) -> io::Result<Samples> {
    Ok(match dtype {
        "uint8" => Samples::U8(child::take(file, 0, count)?),
        "int8" => Samples::I8(child::take(file, 0, count)?),
        "uint16" => Samples::U16(child::take(file, 0, count)?),
        "int16" => Samples::I16(child::take(file, 0, count)?),
        "uint32" => Samples::U32(child::take(file, 0, count)?),
        "int32" => Samples::I32(child::take(file, 0, count)?),
        "float32" => Samples::F32(child::take(file, 0, count)?),
        "float64" => Samples::F64(child::take(file, 0, count)?),
        _ => return Err(garbled("an unknown type of values")),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_in_their_type() {
        let file = tempfile::tempfile().unwrap();
        let values = Samples::I16(vec![-5, 0, 7]);
        put(&file, &values).unwrap();
        assert_eq!(take(&file, "int16", 3).unwrap(), values);
    }

    #[test]
    fn other_values_than_announced_are_an_error() {
        let file = tempfile::tempfile().unwrap();
        put(&file, &Samples::U8(vec![1, 2, 3])).unwrap();
        for (dtype, count) in [
            ("uint8", 4),
            ("uint16", 2),
            ("int32", usize::MAX),
            ("text", 3),
        ] {
            assert!(take(&file, dtype, count).is_err(), "{dtype}");
        }
    }
}
