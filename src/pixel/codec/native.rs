//! Uncompressed frames: bytes, words and bits as they stand (PS3.5 §8.1, Annex D; PS3.3 C.7.6.3).

use super::{Cells, Decoded};
use crate::pixel::layout::SampleKind;
use crate::pixel::{Layout, Photometric, Refusal};

/// The order of the bytes of one sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::pixel) enum ByteOrder {
    Little,
    Big,
    /// 32-bit samples in big endian words. Some software swaps all four bytes and some the bytes of
    /// each word (PS3.5 §7.3 can be read both ways), so only samples for which both agree count.
    BigUnlessAmbiguous,
    /// 8-bit or 1-bit samples in big endian 16-bit words: each pair of bytes is swapped.
    SwappedWords,
}

/// Bits of one frame in the data. Frames of one-bit samples follow each other without padding in
/// native pixel data (`contiguous`), but are padded to bytes where each is compressed on its own.
pub(in crate::pixel) fn frame_bits(layout: &Layout, contiguous: bool) -> Result<u64, Refusal> {
    let samples = match layout.photometric {
        Photometric::YbrFull422 | Photometric::YbrPartial422 => {
            if !layout.columns.is_multiple_of(2) || layout.bits_allocated != 8 {
                return Err(Refusal::new(
                    "attributes-contradict",
                    "4:2:2 chroma needs an even number of columns and 8 bits",
                ));
            }
            // Two pixels share their chroma: Y Y Cb Cr.
            layout.rows as u64 * layout.columns as u64 * 2
        }
        // It belongs to video streams; no arrangement of its samples is defined here.
        Photometric::YbrPartial420 => {
            return Err(Refusal::new(
                "photometric-unsupported",
                "YBR_PARTIAL_420 without compression",
            ));
        }
        _ => layout.frame_samples() as u64,
    };
    let bits = samples.saturating_mul(u64::from(layout.bits_allocated));
    Ok(if contiguous {
        bits
    } else {
        bits.next_multiple_of(8)
    })
}

/// Takes one frame out of `bytes`, of which the first `skip_bits` belong to the frame before.
/// Bytes after the frame are padding.
pub(in crate::pixel) fn decode(
    mut bytes: Vec<u8>,
    skip_bits: u64,
    order: ByteOrder,
    layout: &Layout,
    contiguous: bool,
) -> Result<Decoded, Refusal> {
    if order == ByteOrder::SwappedWords {
        for pair in bytes.as_chunks_mut::<2>().0 {
            pair.swap(0, 1);
        }
    }
    let bits = frame_bits(layout, contiguous)?;
    let short = || {
        Refusal::new(
            "pixel-data-truncated",
            format!("a frame needs {} bytes", bits.div_ceil(8)),
        )
    };
    let start = usize::try_from(skip_bits / 8).map_err(|_| short())?;
    let end = usize::try_from((skip_bits + bits).div_ceil(8)).map_err(|_| short())?;
    let frame = bytes.get(start..end).ok_or_else(short)?;
    if (layout.kind, layout.bits_allocated) == (SampleKind::Integer, 8) {
        bytes.truncate(end);
        bytes.drain(..start);
        return Ok(decoded(Cells::U8(bytes), layout));
    }
    let cells = match (layout.kind, layout.bits_allocated) {
        (SampleKind::Float, _) => Cells::F32(numbers(frame, order, f32::from_le_bytes)),
        (SampleKind::Double, _) => Cells::F64(numbers(frame, order, f64::from_le_bytes)),
        (_, 1) => Cells::U8(unpack(
            frame,
            (skip_bits % 8) as usize,
            layout.frame_samples(),
        )),
        (_, 16) => Cells::U16(numbers(frame, order, u16::from_le_bytes)),
        _ => Cells::I32(numbers(frame, order, i32::from_le_bytes)),
    };
    if let (ByteOrder::BigUnlessAmbiguous, Cells::I32(cells)) = (order, &cells)
        && cells.iter().any(|cell| cell.rotate_left(16) != *cell)
    {
        return Err(Refusal::new(
            "byte-order-ambiguous",
            "32-bit samples in big endian words: implementations disagree on the order",
        ));
    }
    Ok(decoded(cells, layout))
}

/// Reads a frame of 16-bit samples, of which `read` gives the bytes from a position on, in pieces
/// that stay in the processor's cache on their way to the cells.
pub(in crate::pixel) fn read_words(
    order: ByteOrder,
    layout: &Layout,
    mut read: impl FnMut(u64, usize, &mut Vec<u8>) -> Result<(), Refusal>,
) -> Result<Decoded, Refusal> {
    const PIECE: usize = 64 << 10;
    let length = layout.frame_samples() * 2;
    let mut cells = Vec::with_capacity(layout.frame_samples());
    let mut piece = Vec::new();
    for start in (0..length).step_by(PIECE) {
        read(start as u64, PIECE.min(length - start), &mut piece)?;
        cells.extend(numbers(&piece, order, u16::from_le_bytes));
    }
    Ok(decoded(Cells::U16(cells), layout))
}

/// Undoes what the attributes say about the arrangement of colour.
fn decoded(cells: Cells, layout: &Layout) -> Decoded {
    let (cells, photometric) = match cells {
        Cells::U8(cells) if layout.photometric == Photometric::YbrFull422 => {
            (Cells::U8(replicate_chroma(&cells)), Photometric::YbrFull)
        }
        // There is no name for it with chroma in every pixel.
        Cells::U8(cells) if layout.photometric == Photometric::YbrPartial422 => {
            (Cells::U8(replicate_chroma(&cells)), layout.photometric)
        }
        cells if layout.planar => (cells.interleaved(layout.samples), layout.photometric),
        cells => (cells, layout.photometric),
    };
    Decoded {
        cells,
        precision: layout.bits_allocated,
        photometric,
    }
}

fn numbers<const N: usize, T>(
    bytes: &[u8],
    order: ByteOrder,
    from_le: impl Fn([u8; N]) -> T,
) -> Vec<T> {
    let chunks = bytes.as_chunks::<N>().0.iter();
    if matches!(order, ByteOrder::Big | ByteOrder::BigUnlessAmbiguous) {
        chunks
            .map(|bytes| {
                let mut bytes = *bytes;
                bytes.reverse();
                from_le(bytes)
            })
            .collect()
    } else {
        chunks.map(|bytes| from_le(*bytes)).collect()
    }
}

/// One byte of 0 or 1 per bit, the least significant bit first (PS3.5 §8.1.1).
pub(super) fn unpack(bytes: &[u8], skip: usize, count: usize) -> Vec<u8> {
    bytes
        .iter()
        .flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1))
        .skip(skip)
        .take(count)
        .collect()
}

fn replicate_chroma(cells: &[u8]) -> Vec<u8> {
    cells
        .as_chunks::<4>()
        .0
        .iter()
        .flat_map(|&[y0, y1, cb, cr]| [y0, cb, cr, y1, cb, cr])
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn layout(bits: u32, samples: usize, photometric: Photometric) -> Layout {
        Layout {
            rows: 1,
            columns: 4,
            samples,
            frames: 1,
            bits_allocated: bits,
            bits_stored: bits,
            high_bit: bits - 1,
            signed: false,
            planar: false,
            photometric,
            kind: SampleKind::Integer,
        }
    }

    fn cells(bytes: &[u8], skip: u64, order: ByteOrder, layout: &Layout) -> Cells {
        decode(bytes.to_vec(), skip, order, layout, true)
            .unwrap()
            .cells
    }

    #[test]
    fn words_come_in_either_order() {
        let grey = layout(16, 1, Photometric::Monochrome2);
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(
            cells(&bytes, 0, ByteOrder::Little, &grey),
            Cells::U16(vec![0x0201, 0x0403, 0x0605, 0x0807])
        );
        assert_eq!(
            cells(&bytes, 0, ByteOrder::Big, &grey),
            Cells::U16(vec![0x0102, 0x0304, 0x0506, 0x0708])
        );
        let bytes = layout(8, 1, Photometric::Monochrome2);
        assert_eq!(
            cells(&[2, 1, 4, 3], 0, ByteOrder::SwappedWords, &bytes),
            Cells::U8(vec![1, 2, 3, 4])
        );
    }

    #[test]
    fn a_frame_of_bits_may_start_inside_a_byte() {
        let bits = layout(1, 1, Photometric::Monochrome2);
        assert_eq!(
            cells(&[0b1010_0101, 0b11], 6, ByteOrder::Little, &bits),
            Cells::U8(vec![0, 1, 1, 1])
        );
    }

    #[test]
    fn planes_are_interleaved_and_shared_chroma_repeated() {
        let mut rgb = layout(8, 3, Photometric::Rgb);
        rgb.planar = true;
        assert_eq!(
            cells(
                &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
                0,
                ByteOrder::Little,
                &rgb
            ),
            Cells::U8(vec![1, 5, 9, 2, 6, 10, 3, 7, 11, 4, 8, 12])
        );
        let ybr = layout(8, 3, Photometric::YbrFull422);
        assert_eq!(
            cells(&[1, 2, 3, 4, 5, 6, 7, 8], 0, ByteOrder::Little, &ybr),
            Cells::U8(vec![1, 3, 4, 2, 3, 4, 5, 7, 8, 6, 7, 8])
        );
    }

    #[test]
    fn a_short_frame_is_refused() {
        let grey = layout(16, 1, Photometric::Monochrome2);
        let refusal = decode(vec![0; 7], 0, ByteOrder::Little, &grey, true).unwrap_err();
        assert_eq!(refusal.code, "pixel-data-truncated");
    }
}
