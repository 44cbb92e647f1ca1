//! JPEG-LS (ISO/IEC 14495-1), lossless and near-lossless, by CharLS.
//!
//! CharLS returns the components of separate scans as planes and says so nowhere; the interleave
//! mode is therefore read from the stream here.

use charls::CharLS;

use super::{Cells, Decoded, Header, broken};
use crate::pixel::{Layout, Photometric, Refusal};

pub(super) fn decode(bytes: &[u8], layout: &Layout) -> Result<Decoded, Refusal> {
    let (header, planar) = parse(bytes)?;
    header.check(layout)?;
    let precision = header.precision;
    let bytes = CharLS::default()
        .decode(up_to_end(bytes)?)
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

/// The stream without what follows its end marker. CharLS 2.4 counts to 2³² where entropy-coded data
/// runs into the end of the buffer instead of a marker, so it never gets a stream without one.
fn up_to_end(bytes: &[u8]) -> Result<&[u8], Refusal> {
    bytes
        .windows(2)
        .rposition(|pair| pair == [0xFF, 0xD9])
        .and_then(|at| bytes.get(..at + 2))
        .ok_or_else(|| broken("it ends before the image does"))
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
    fn a_stream_without_an_end_is_refused_and_what_follows_the_end_is_cut() {
        assert_eq!(
            up_to_end(b"\xFF\xD8\xFF\xD9\0\0").unwrap(),
            b"\xFF\xD8\xFF\xD9"
        );
        assert!(up_to_end(b"\xFF\xD8\0\0").is_err());
        assert!(up_to_end(b"").is_err());
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
