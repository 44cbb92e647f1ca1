//! What both sides say to each other: headers over a stream, values through a file.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

use bytemuck::Pod;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Headers hold paths, names and shapes.
const MAX_HEADER: usize = 1 << 20;

/// Writes a header.
///
/// # Errors
/// When the other side is gone, or a header is too long for it.
pub fn send(stream: &mut impl Write, header: &impl Serialize) -> io::Result<()> {
    let header = serde_json::to_vec(header)?;
    let length = u32::try_from(header.len())
        .ok()
        .filter(|_| header.len() <= MAX_HEADER)
        .ok_or_else(|| garbled("a header that is too long"))?;
    stream.write_all(&[length.to_ne_bytes().as_slice(), &header].concat())
}

/// Reads a header; `None` when the other side has hung up between messages.
///
/// # Errors
/// A header that stops halfway, is too long or means nothing.
pub fn receive<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<Option<T>> {
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

/// Puts values where the other side finds them: `offset` bytes from the beginning. Gives the offset
/// behind them.
///
/// # Errors
/// When there is no room.
pub fn put<T: Pod>(file: &File, offset: u64, values: &[T]) -> io::Result<u64> {
    let bytes: &[u8] = bytemuck::cast_slice(values);
    file.write_all_at(bytes, offset)?;
    Ok(offset + bytes.len() as u64)
}

/// Takes `count` values that begin `offset` bytes from the beginning. Nothing is allocated for values
/// that are not there.
///
/// # Errors
/// When there are fewer.
pub fn take<T: Pod>(file: &File, offset: u64, count: usize) -> io::Result<Vec<T>> {
    let end = count
        .checked_mul(size_of::<T>())
        .and_then(|bytes| offset.checked_add(bytes as u64));
    if end.is_none_or(|end| end > file.metadata().map_or(0, |file| file.len())) {
        return Err(garbled("more values announced than there are"));
    }
    let mut values = vec![T::zeroed(); count];
    file.read_exact_at(bytemuck::cast_slice_mut(&mut values), offset)?;
    Ok(values)
}

/// The other side talks nonsense.
pub fn garbled(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_from_where_they_were_put() {
        let file = tempfile::tempfile().unwrap();
        let behind = put(&file, 0, &[1.5f32, -2.0]).unwrap();
        assert_eq!(behind, 8);
        put(&file, behind, &[7i64, -1]).unwrap();
        assert_eq!(take::<f32>(&file, 0, 2).unwrap(), [1.5, -2.0]);
        assert_eq!(take::<i64>(&file, behind, 2).unwrap(), [7, -1]);
    }

    #[test]
    fn more_values_than_there_are_is_an_error_before_they_are_allocated() {
        let file = tempfile::tempfile().unwrap();
        put(&file, 0, &[1u8, 2, 3]).unwrap();
        for (offset, count) in [(0, 4), (1, 3), (0, usize::MAX), (u64::MAX, 1)] {
            assert!(
                take::<u8>(&file, offset, count).is_err(),
                "{offset} {count}"
            );
        }
        assert!(take::<f64>(&file, 0, usize::MAX / 2).is_err());
    }

    #[test]
    fn a_header_that_stops_halfway_is_an_error() {
        let mut wire = Vec::new();
        send(&mut wire, &"ready").unwrap();
        assert!(receive::<String>(&mut wire.as_slice()).unwrap().is_some());
        assert!(receive::<String>(&mut [].as_slice()).unwrap().is_none());
        for cut in 1..wire.len() {
            assert!(receive::<String>(&mut &wire[..cut]).is_err(), "{cut}");
        }
        let long = u32::MAX.to_ne_bytes();
        assert!(receive::<String>(&mut long.as_slice()).is_err());
        assert!(send(&mut wire, &"x".repeat(MAX_HEADER)).is_err());
    }
}
