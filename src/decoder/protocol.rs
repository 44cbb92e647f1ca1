//! What gateway and worker say to each other.
//!
//! Headers go over a socket pair: JSON behind its length (32 bits). Values go through a file in
//! memory that both have open, in the byte order of the machine: twice as fast as the socket. The
//! gateway does not trust the answer: lengths have bounds, codes have a shape.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::model::manifest::{ValueSpace, Window};
use crate::model::selection::Condition;
use crate::model::{ImagePlacement, ImageSpec};
use crate::pixel::Samples;
use crate::pixel::stored::each;
use crate::volume::PlaneSpec;

/// Headers hold a path and a specification.
const MAX_HEADER: usize = 1 << 20;

/// One frame and what to do with it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    /// Where the Part 10 file is; not always UTF-8.
    pub file: OsString,
    /// From 0.
    pub frame: usize,
    pub job: Job,
    /// The file is only looked at when this holds.
    pub condition: Option<Condition>,
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
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// Alive.
    Ready,
    /// The condition does not hold.
    NotApplicable,
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

/// Writes a header.
pub(super) fn send(stream: &mut impl Write, header: &impl Serialize) -> io::Result<()> {
    let header = serde_json::to_vec(header)?;
    let length = u32::try_from(header.len()).unwrap_or(u32::MAX);
    stream.write_all(&[length.to_ne_bytes().as_slice(), &header].concat())
}

/// Reads a header; `None` when the other side has hung up between messages.
pub(super) fn receive<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    let mut got = 0;
    while got < length.len() {
        match stream.read(length.get_mut(got..).unwrap_or_default())? {
            0 if got == 0 => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => got += count,
        }
    }
    let length = u32::from_ne_bytes(length) as usize;
    if length > MAX_HEADER {
        return Err(garbled("a header that is too long"));
    }
    let mut header = vec![0; length];
    stream.read_exact(&mut header)?;
    Ok(Some(serde_json::from_slice(&header)?))
}

/// Puts values where the other side finds them.
pub(super) fn put(file: &File, values: &Samples) -> io::Result<()> {
    file.write_all_at(each!(values, values => bytemuck::cast_slice(values)), 0)
}

/// Takes `count` values of `dtype`, NumPy's name of the type.
pub(super) fn take(file: &File, dtype: &str, count: usize) -> io::Result<Samples> {
    Ok(match dtype {
        "uint8" => Samples::U8(values(file, count)?),
        "int8" => Samples::I8(values(file, count)?),
        "uint16" => Samples::U16(values(file, count)?),
        "int16" => Samples::I16(values(file, count)?),
        "uint32" => Samples::U32(values(file, count)?),
        "int32" => Samples::I32(values(file, count)?),
        "float32" => Samples::F32(values(file, count)?),
        "float64" => Samples::F64(values(file, count)?),
        _ => return Err(garbled("an unknown type of values")),
    })
}

fn values<T: bytemuck::Pod>(file: &File, count: usize) -> io::Result<Vec<T>> {
    let bytes = count.checked_mul(size_of::<T>()).map(|bytes| bytes as u64);
    if bytes.is_none_or(|bytes| bytes > file.metadata().map_or(0, |file| file.len())) {
        return Err(garbled("more values announced than there are"));
    }
    let mut values = vec![T::zeroed(); count];
    file.read_exact_at(bytemuck::cast_slice_mut(&mut values), 0)?;
    Ok(values)
}

pub(super) fn garbled(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
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

    #[test]
    fn a_header_that_stops_halfway_is_an_error() {
        let mut wire = Vec::new();
        send(&mut wire, &Reply::Ready).unwrap();
        assert!(receive::<Reply>(&mut wire.as_slice()).unwrap().is_some());
        assert!(receive::<Reply>(&mut [].as_slice()).unwrap().is_none());
        for cut in 1..wire.len() {
            assert!(receive::<Reply>(&mut &wire[..cut]).is_err(), "{cut}");
        }
        let long = u32::MAX.to_ne_bytes();
        assert!(receive::<Reply>(&mut long.as_slice()).is_err());
    }
}
