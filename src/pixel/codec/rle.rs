//! RLE Lossless (PS3.5 Annex G): one PackBits segment per byte of a sample, high byte first.

use super::{Cells, Decoded, broken, native};
use crate::pixel::{Layout, Refusal};

/// Sixteen little endian words: the number of segments and the offset of each.
const HEADER: usize = 64;

pub(super) fn decode(bytes: &[u8], layout: &Layout) -> Result<Decoded, Refusal> {
    let sample_bytes = layout.sample_bytes();
    let expected = layout.samples * sample_bytes;
    let pixels = layout.rows * layout.columns;
    let segment = if layout.bits_allocated == 1 {
        pixels.div_ceil(8)
    } else {
        pixels
    };
    let header = bytes.get(..HEADER).ok_or_else(|| broken("no RLE header"))?;
    let mut words = header
        .as_chunks::<4>()
        .0
        .iter()
        .map(|word| u32::from_le_bytes(*word) as usize);
    if words.next() != Some(expected) {
        return Err(super::mismatch("RLE segments", "another number", expected));
    }
    let mut offsets: Vec<usize> = words.take(expected).collect();
    offsets.push(bytes.len());
    if offsets.first() != Some(&HEADER) {
        return Err(broken("the first RLE segment is not where it must be"));
    }
    // A literal needs a byte for each byte and a run two for up to 128, so short data cannot fill
    // a frame; asking first keeps a lying header from allocating one.
    if bytes.len().saturating_mul(64) < segment.saturating_mul(expected) {
        return Err(broken("too short for its frame"));
    }
    let mut planes = Vec::with_capacity(segment * expected);
    for pair in offsets.windows(2) {
        let &[start, end] = pair else { continue };
        let packed = bytes
            .get(start..end)
            .ok_or_else(|| broken("RLE segment offsets"))?;
        unpack(packed, segment, &mut planes)?;
    }
    let cells = match layout.bits_allocated {
        1 => {
            let planes = planes.chunks_exact(segment);
            Cells::U8(planes.flat_map(|s| native::unpack(s, 0, pixels)).collect())
        }
        8 => Cells::U8(planes),
        16 => Cells::U16(joined(&planes, pixels, 2, |c: u16, b| {
            c << 8 | u16::from(b)
        })),
        _ => Cells::I32(joined(&planes, pixels, 4, |c: i32, b| {
            c << 8 | i32::from(b)
        })),
    };
    let cells = cells.interleaved(layout.samples);
    Ok(Decoded {
        cells,
        precision: layout.bits_allocated,
        photometric: if layout.photometric == crate::pixel::Photometric::YbrFull422 {
            crate::pixel::Photometric::YbrFull
        } else {
            layout.photometric
        },
    })
}

/// Undoes PackBits and appends `length` bytes; more than that are padding that some encoders leave.
fn unpack(packed: &[u8], length: usize, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let end = out.len() + length;
    let mut rest = packed;
    while out.len() < end {
        let (&code, after) = rest
            .split_first()
            .ok_or_else(|| broken("an RLE segment is too short"))?;
        rest = match code {
            0..=127 => {
                let (literal, after) = after
                    .split_at_checked(usize::from(code) + 1)
                    .ok_or_else(|| broken("an RLE literal is cut"))?;
                out.extend_from_slice(literal);
                after
            }
            128 => after,
            129..=255 => {
                let (&value, after) = after
                    .split_first()
                    .ok_or_else(|| broken("an RLE run is cut"))?;
                out.resize(out.len() + 257 - usize::from(code), value);
                after
            }
        };
    }
    out.truncate(end);
    Ok(())
}

/// Joins `bytes` planes of each sample, high byte first, into a plane of cells; `push` puts a byte
/// below those that a cell has already.
fn joined<T: Copy + Default>(
    planes: &[u8],
    pixels: usize,
    bytes: usize,
    push: impl Fn(T, u8) -> T,
) -> Vec<T> {
    let mut cells = vec![T::default(); planes.len() / bytes];
    let samples = planes.chunks_exact(pixels * bytes);
    for (cells, planes) in cells.chunks_exact_mut(pixels).zip(samples) {
        for plane in planes.chunks_exact(pixels) {
            for (cell, byte) in cells.iter_mut().zip(plane) {
                *cell = push(*cell, *byte);
            }
        }
    }
    cells
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn literals_runs_and_no_ops_unpack() {
        let packed = [2, 10, 20, 30, 128, 254, 7];
        let unpacked = |packed: &[u8], length| {
            let mut out = vec![1];
            unpack(packed, length, &mut out).map(|()| out)
        };
        assert_eq!(unpacked(&packed, 6).unwrap(), [1, 10, 20, 30, 7, 7, 7]);
        assert_eq!(unpacked(&packed, 5).unwrap(), [1, 10, 20, 30, 7, 7]);
        assert!(unpacked(&packed, 7).is_err());
        assert!(unpacked(&packed[..3], 6).is_err());
    }

    #[test]
    fn planes_join_high_byte_first_for_each_sample() {
        let planes = [1, 3, 2, 4, 5, 7, 6, 8];
        let cells = joined(&planes, 2, 2, |c: u16, b| c << 8 | u16::from(b));
        assert_eq!(cells, [0x0102, 0x0304, 0x0506, 0x0708]);
    }
}
