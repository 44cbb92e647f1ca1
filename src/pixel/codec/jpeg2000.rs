//! JPEG 2000 (ISO/IEC 15444-1) and High-Throughput JPEG 2000 (15444-15), by OpenJPEG.
//!
//! DICOM wants a bare code stream; some writers put the JP2 file around it, of which only the code
//! stream is used, so that palettes and channel definitions in the boxes cannot change values. The
//! size marker is read first: OpenJPEG allocates what it says.

use jpeg2k::{DecodeParameters, Image};

use super::{Cells, Decoded, Header, broken, mismatch, woven};
use crate::pixel::{Layout, Limits, Photometric, Refusal};

/// Samples cost a 32-bit integer in the tile and another in the image.
const WORKING_BYTES_PER_SAMPLE: u64 = 8;
/// Each tile costs OpenJPEG some kilobytes whatever its size.
const WORKING_BYTES_PER_TILE: u64 = 16 << 10;

pub(super) fn decode(bytes: &[u8], layout: &Layout, limits: &Limits) -> Result<Decoded, Refusal> {
    let stream = code_stream(bytes)?;
    let size = Size::parse(stream)?;
    size.header.check(layout)?;
    let working = (layout.frame_samples() as u64)
        .saturating_mul(WORKING_BYTES_PER_SAMPLE)
        .saturating_add(size.tiles.saturating_mul(WORKING_BYTES_PER_TILE));
    if working > limits.max_working_bytes {
        return Err(Refusal::new(
            "too-large",
            format!("decoding this JPEG 2000 frame needs about {working} bytes"),
        ));
    }
    // OpenJPEG refuses cut streams unless told otherwise. jpeg2k's feature `strict-mode` would also turn
    // off its correction of a known encoder's tile-part count, which real files need.
    let image = Image::from_bytes_with(stream, DecodeParameters::new()).map_err(broken)?;
    let components = image.components();
    if components.len() != layout.samples {
        return Err(mismatch(
            "samples per pixel",
            components.len(),
            layout.samples,
        ));
    }
    let pixels = layout.rows * layout.columns;
    let planes: Vec<&[i32]> = components
        .iter()
        .map(|component| component.data())
        .collect();
    if planes.iter().any(|plane| plane.len() != pixels) {
        return Err(broken("a component of another size"));
    }
    // No more bits of a cell than Bits Allocated are ever looked at.
    let cells = match layout.bits_allocated {
        1 | 8 => Cells::U8(woven(&planes, |v| v as u8)),
        16 => Cells::U16(woven(&planes, |v| v as u16)),
        _ => Cells::I32(woven(&planes, |v| v)),
    };
    Ok(Decoded {
        cells,
        precision: size.header.precision,
        photometric: match layout.photometric {
            // Whether or not the code stream transformed colour, the codec has undone it.
            Photometric::YbrRct | Photometric::YbrIct => Photometric::Rgb,
            Photometric::YbrFull422 => Photometric::YbrFull,
            other => other,
        },
    })
}

/// The code stream inside a JP2 file, or the bytes themselves.
fn code_stream(bytes: &[u8]) -> Result<&[u8], Refusal> {
    if !bytes.starts_with(b"\0\0\0\x0CjP  ") {
        return Ok(bytes);
    }
    let mut rest = bytes;
    while let &[l3, l2, l1, l0, a, b, c, d, ref content @ ..] = rest {
        let length = u32::from_be_bytes([l3, l2, l1, l0]) as usize;
        let content_length = match length {
            0 => Some(content.len()),
            _ => length.checked_sub(8),
        };
        let content_length = content_length.ok_or_else(|| broken("a JP2 box"))?;
        if &[a, b, c, d] == b"jp2c" {
            return content
                .get(..content_length)
                .ok_or_else(|| broken("the code stream is cut"));
        }
        rest = content.get(content_length..).unwrap_or(&[]);
    }
    Err(broken("a JP2 file without a code stream"))
}

struct Size {
    header: Header,
    tiles: u64,
}

impl Size {
    /// Reads the SIZ marker segment (15444-1 A.5.1), which is the first in the stream.
    fn parse(stream: &[u8]) -> Result<Self, Refusal> {
        let Some(siz) = stream.strip_prefix(&[0xFF, 0x4F, 0xFF, 0x51]) else {
            return Err(Refusal::new("codec-error", "not a JPEG 2000 stream"));
        };
        let word = |at: usize| match siz.get(at..at + 4) {
            Some(&[a, b, c, d]) => Ok(u64::from(u32::from_be_bytes([a, b, c, d]))),
            _ => Err(broken("a short size marker")),
        };
        let (x1, y1, x0, y0) = (word(4)?, word(8)?, word(12)?, word(16)?);
        let (tile_x, tile_y, tile_x0, tile_y0) = (word(20)?, word(24)?, word(28)?, word(32)?);
        let Some(&[c1, c0]) = siz.get(36..38) else {
            return Err(broken("a short size marker"));
        };
        let count = usize::from(u16::from_be_bytes([c1, c0]));
        let specs = siz
            .get(38..38 + count * 3)
            .ok_or_else(|| broken("a short size marker"))?;
        if x0 >= x1 || y0 >= y1 || tile_x == 0 || tile_y == 0 || tile_x0 > x0 || tile_y0 > y0 {
            return Err(broken("an empty image or tile"));
        }
        let mut specs = specs.as_chunks::<3>().0.iter();
        let Some(&first) = specs.next() else {
            return Err(broken("no components"));
        };
        if first[1..] != [1, 1] || specs.any(|spec| *spec != first) {
            return Err(Refusal::new(
                "codec-error",
                "components of different size or depth",
            ));
        }
        let precision = u32::from(first[0] & 0x7F) + 1;
        let tiles = (x1 - tile_x0).div_ceil(tile_x) * (y1 - tile_y0).div_ceil(tile_y);
        if tiles > 65_535 {
            return Err(broken("more tiles than there can be"));
        }
        Ok(Self {
            header: Header {
                rows: usize::try_from(y1 - y0).unwrap_or(usize::MAX),
                columns: usize::try_from(x1 - x0).unwrap_or(usize::MAX),
                components: count,
                precision,
            },
            tiles,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn siz(x: u32, y: u32, tile: u32) -> Vec<u8> {
        let mut out = vec![0xFF, 0x4F, 0xFF, 0x51, 0, 41, 0, 0];
        for word in [x, y, 0, 0, tile, tile, 0, 0] {
            out.extend(word.to_be_bytes());
        }
        out.extend([0, 1, 11, 1, 1]);
        out
    }

    #[test]
    fn the_size_marker_gives_the_dimensions() {
        let size = Size::parse(&siz(512, 256, 128)).unwrap();
        assert_eq!((size.header.rows, size.header.columns), (256, 512));
        assert_eq!((size.header.precision, size.tiles), (12, 8));
    }

    #[test]
    fn absurd_tilings_are_refused() {
        assert!(Size::parse(&siz(60_000, 60_000, 1)).is_err());
        assert!(Size::parse(&siz(64, 64, 0)).is_err());
        assert!(Size::parse(&siz(0, 64, 64)).is_err());
    }

    #[test]
    fn the_code_stream_is_found_inside_a_file() {
        let stream = siz(8, 8, 8);
        let mut file = b"\0\0\0\x0CjP  \r\n\x87\n".to_vec();
        file.extend(((stream.len() + 8) as u32).to_be_bytes());
        file.extend(b"jp2c");
        file.extend(&stream);
        assert_eq!(code_stream(&file).unwrap(), stream);
    }
}
