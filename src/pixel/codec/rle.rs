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
    let mut segments = Vec::with_capacity(expected);
    for pair in offsets.windows(2) {
        let &[start, end] = pair else { continue };
        let packed = bytes
            .get(start..end)
            .ok_or_else(|| broken("RLE segment offsets"))?;
        segments.push(unpack(packed, segment)?);
    }
    let cells = match layout.bits_allocated {
        1 => {
            let planes = segments.iter().flat_map(|s| native::unpack(s, 0, pixels));
            Cells::U8(planes.collect()).interleaved(layout.samples)
        }
        8 => Cells::U8(segments.concat()).interleaved(layout.samples),
        16 => Cells::U16(join::<2, _>(&segments, pixels, u16::from_be_bytes)),
        _ => Cells::I32(join::<4, _>(&segments, pixels, i32::from_be_bytes)),
    };
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

/// Undoes PackBits; bytes beyond `length` are padding that some encoders leave.
fn unpack(packed: &[u8], length: usize) -> Result<Vec<u8>, Refusal> {
    let mut out = Vec::with_capacity(length);
    let mut at = 0;
    while out.len() < length {
        let &code = packed
            .get(at)
            .ok_or_else(|| broken("an RLE segment is too short"))?;
        at += 1;
        match code {
            0..=127 => {
                let count = usize::from(code) + 1;
                let literal = packed
                    .get(at..at + count)
                    .ok_or_else(|| broken("an RLE literal is cut"))?;
                out.extend_from_slice(literal);
                at += count;
            }
            128 => {}
            129..=255 => {
                let &value = packed.get(at).ok_or_else(|| broken("an RLE run is cut"))?;
                out.resize(out.len() + 257 - usize::from(code), value);
                at += 1;
            }
        }
    }
    out.truncate(length);
    Ok(out)
}

/// Joins the byte planes of each sample, high byte first, into interleaved cells.
fn join<const N: usize, T>(
    segments: &[Vec<u8>],
    pixels: usize,
    from_be: impl Fn([u8; N]) -> T,
) -> Vec<T> {
    let mut cells = Vec::with_capacity(pixels * segments.len() / N);
    for i in 0..pixels {
        for planes in segments.as_chunks::<N>().0 {
            cells.push(from_be(
                planes
                    .each_ref()
                    .map(|plane| plane.get(i).copied().unwrap_or(0)),
            ));
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
        assert_eq!(unpack(&packed, 6).unwrap(), [10, 20, 30, 7, 7, 7]);
        assert_eq!(unpack(&packed, 5).unwrap(), [10, 20, 30, 7, 7]);
        assert!(unpack(&packed, 7).is_err());
        assert!(unpack(&packed[..3], 6).is_err());
    }

    #[test]
    fn planes_join_high_byte_first() {
        let planes = [vec![1, 3], vec![2, 4]];
        assert_eq!(
            join::<2, _>(&planes, 2, u16::from_be_bytes),
            [0x0102, 0x0304]
        );
    }
}
