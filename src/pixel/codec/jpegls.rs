//! JPEG-LS (ISO/IEC 14495-1), lossless and near-lossless, by CharLS.
//!
//! CharLS returns the components of separate scans as planes and says so nowhere; the interleave
//! mode is therefore read from the stream here.

use std::borrow::Cow;

use charls::CharLS;

use super::{Cells, Decoded, Header, broken};
use crate::pixel::{Layout, Photometric, Refusal};

pub(super) fn decode(bytes: &[u8], layout: &Layout) -> Result<Decoded, Refusal> {
    let (header, planar) = parse(bytes)?;
    header.check(layout)?;
    let precision = header.precision;
    let bytes = CharLS::default()
        .decode(&terminated(bytes))
        .map_err(broken)?;
    let cells = if precision <= 8 {
        Cells::U8(bytes)
    } else {
        let (words, _) = bytes.as_chunks::<2>();
        Cells::U16(words.iter().map(|word| u16::from_ne_bytes(*word)).collect())
    };
    Ok(Decoded {
        cells: if planar {
            cells.interleaved(header.components)
        } else {
            cells
        },
        precision,
        photometric: match layout.photometric {
            Photometric::YbrFull422 => Photometric::YbrFull,
            other => other,
        },
    })
}

/// The stream with an end marker behind it. CharLS 2.4.5 stops at a marker, but does not notice that
/// it has run past the last byte, and then counts zeros for minutes.
fn terminated(bytes: &[u8]) -> Cow<'_, [u8]> {
    const END: [u8; 2] = [0xFF, 0xD9];
    let padding = bytes.iter().rev().take_while(|b| **b == 0).count();
    if bytes[..bytes.len() - padding].ends_with(&END) {
        return Cow::Borrowed(bytes);
    }
    Cow::Owned([bytes, &END].concat())
}

/// Reads the frame header (SOF55) and the interleave mode of the first scan.
fn parse(bytes: &[u8]) -> Result<(Header, bool), Refusal> {
    if !bytes.starts_with(&[0xFF, 0xD8]) {
        return Err(Refusal::new("codec-error", "not a JPEG-LS stream"));
    }
    let mut header = None;
    let mut rest = bytes.get(2..).unwrap_or(&[]);
    loop {
        let &[0xFF, marker, h, l, ref after @ ..] = rest else {
            return Err(broken("no marker where one must be"));
        };
        if marker == 0xFF {
            rest = rest.get(1..).unwrap_or(&[]);
            continue;
        }
        let length = usize::from(u16::from_be_bytes([h, l]));
        let segment = length
            .checked_sub(2)
            .and_then(|length| after.get(..length))
            .ok_or_else(|| broken("a segment runs past the end"))?;
        match (marker, segment) {
            (0xF7, &[precision, r1, r0, c1, c0, components, ..]) => {
                header = Some(Header {
                    rows: usize::from(u16::from_be_bytes([r1, r0])),
                    columns: usize::from(u16::from_be_bytes([c1, c0])),
                    components: usize::from(components),
                    precision: u32::from(precision),
                });
            }
            (0xDA, scan) => {
                let interleave = scan.len().checked_sub(2).and_then(|i| scan.get(i));
                return match (header, interleave) {
                    (Some(header), Some(&mode)) => Ok((header, mode == 0)),
                    _ => Err(broken("a scan before the frame header")),
                };
            }
            (0xC0..=0xC3 | 0xC5..=0xCF, _) => {
                return Err(Refusal::new("codec-error", "JPEG instead of JPEG-LS"));
            }
            _ => {}
        }
        rest = after.get(segment.len()..).unwrap_or(&[]);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_always_ends_in_its_marker() {
        assert_eq!(*terminated(b"ab\xFF\xD9"), *b"ab\xFF\xD9");
        assert_eq!(*terminated(b"ab\xFF\xD9\0"), *b"ab\xFF\xD9\0");
        assert_eq!(*terminated(b"ab\0"), *b"ab\0\xFF\xD9");
        assert_eq!(*terminated(b"\0"), *b"\0\xFF\xD9");
    }

    #[test]
    fn the_interleave_mode_comes_from_the_scan() {
        for (mode, planar) in [(0, true), (1, false), (2, false)] {
            let stream = [
                b"\xFF\xD8\xFF\xF7\0\x11\x08\0\x02\0\x03\x03\x01\x11\0\x02\x11\0\x03\x11\0"
                    .as_slice(),
                &[0xFF, 0xDA, 0, 8, 1, 1, 0, 0, mode, 0],
            ]
            .concat();
            let (header, found) = parse(&stream).unwrap();
            assert_eq!((header.rows, header.columns, header.components), (2, 3, 3));
            assert_eq!(found, planar);
        }
    }
}
