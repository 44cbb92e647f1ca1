//! JPEG (ISO/IEC 10918-1): baseline, extended, progressive and lossless, 2 to 16 bits.
//!
//! libjpeg-turbo does the arithmetic; this file decides what it gets to see. The stream is parsed
//! first, so that its header can be compared with the attributes, and rebuilt from the segments
//! that matter:
//! - an Adobe marker with transform 0 replaces whatever the file says about colour, because stored
//!   values must come out as they went in, and a library's guess is how RGB turns green;
//! - the spectral selection of a sequential scan is set to what it must be: old encoders wrote 0;
//! - application data, comments, fill bytes and everything after the image are left out.
//!
//! What is then still wrong with the entropy-coded data is an error, not a warning.

use super::{Cells, Decoded, Header, broken, libjpeg};
use crate::pixel::{Layout, Limits, Photometric, Refusal};

const SOI: u8 = 0xD8;
const EOI: u8 = 0xD9;
const SOS: u8 = 0xDA;
const DHT: u8 = 0xC4;
const DQT: u8 = 0xDB;
const DRI: u8 = 0xDD;
/// Adobe segment: length, name, version, flags, transform 0 (no colour transform).
const NO_TRANSFORM: [u8; 16] = *b"\xFF\xEE\0\x0EAdobe\0\x64\0\0\0\0\0";

/// How the samples were coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Process {
    Sequential,
    Progressive,
    Lossless,
}

struct Stream {
    header: Header,
    process: Process,
    subsampled: bool,
    /// Bytes of entropy-coded data.
    coded: usize,
    /// The stream as libjpeg-turbo gets it.
    rebuilt: Vec<u8>,
}

pub(super) fn decode(bytes: &[u8], layout: &Layout, limits: &Limits) -> Result<Decoded, Refusal> {
    let stream = parse(bytes)?;
    stream.header.check(layout)?;
    stream.check_size(limits)?;
    let header = &stream.header;
    let cells = match header.precision {
        2..=8 => Cells::U8(libjpeg::decode_8(
            &stream.rebuilt,
            header.columns,
            header.rows,
            header.components,
        )?),
        9..=16 => Cells::U16(libjpeg::decode_16(
            &stream.rebuilt,
            header.columns,
            header.rows,
            header.components,
            header.precision,
        )?),
        other => return Err(broken(format_args!("{other} bits per sample"))),
    };
    Ok(Decoded {
        cells,
        precision: header.precision,
        photometric: match layout.photometric {
            Photometric::YbrFull422 => Photometric::YbrFull,
            other => other,
        },
    })
}

/// Whether the stream says in so many words that its samples are another colour model than
/// `photometric`: by Adobe's marker (ISO/IEC 10918-6 §6.5.3), or by components that are called RGB.
/// A JFIF marker alone is no such word, as encoders put it in front of anything.
pub(super) fn colour_contradicts(bytes: &[u8], photometric: Photometric) -> Result<bool, Refusal> {
    let (mut rgb, mut ybr) = (false, false);
    let mut at = 2;
    loop {
        let marker = next_marker(bytes, &mut at)?;
        if matches!(marker, 0x01 | 0xD0..=0xD7) {
            continue;
        }
        if matches!(marker, SOS | EOI) {
            break;
        }
        let segment = segment(bytes, &mut at)?;
        match marker {
            0xEE if segment.starts_with(b"Adobe") => {
                rgb |= segment.get(11) == Some(&0);
                ybr |= segment.get(11) == Some(&1);
            }
            0xC0..=0xC3 => {
                let specs = segment.get(6..).unwrap_or(&[]).as_chunks::<3>().0;
                let ids: Vec<u8> = specs.iter().map(|spec| spec[0]).collect();
                rgb |= ids.eq_ignore_ascii_case(b"RGB");
                break;
            }
            _ => {}
        }
    }
    Ok(if photometric == Photometric::Rgb {
        ybr
    } else {
        rgb
    })
}

impl Stream {
    /// Every sample costs at least a bit in lossless data, every block of 64 two in sequential
    /// data; a stream below that cannot hold the image that its header promises. Progressive scans
    /// may say nothing about most blocks, and keep all coefficients in memory.
    fn check_size(&self, limits: &Limits) -> Result<(), Refusal> {
        let samples = self.header.rows * self.header.columns * self.header.components;
        let bits = self.coded.saturating_mul(8);
        let enough = match self.process {
            Process::Lossless => bits >= samples,
            Process::Sequential if self.subsampled => bits >= samples / 128,
            Process::Sequential => bits >= samples / 32,
            Process::Progressive => samples as u64 * 2 <= limits.max_working_bytes,
        };
        if enough {
            Ok(())
        } else {
            Err(broken("too short for the image it declares"))
        }
    }
}

/// Walks the segments up to the end of the image.
fn parse(bytes: &[u8]) -> Result<Stream, Refusal> {
    if !bytes.starts_with(&[0xFF, SOI]) {
        return Err(Refusal::new("codec-error", "not a JPEG stream"));
    }
    let mut rebuilt = Vec::with_capacity(bytes.len() + NO_TRANSFORM.len());
    rebuilt.extend([0xFF, SOI]);
    let mut frame: Option<(Header, Process, bool)> = None;
    let (mut coded, mut scanned, mut ended) = (0, 0, false);
    let mut at = 2;
    loop {
        let marker = next_marker(bytes, &mut at)?;
        if marker == EOI {
            ended = true;
            break;
        }
        if matches!(marker, 0x01 | 0xD0..=0xD7) {
            continue;
        }
        let segment = segment(bytes, &mut at)?;
        match marker {
            0xC0..=0xC3 => {
                if frame.is_some() {
                    return Err(broken("two frame headers"));
                }
                let found = frame_header(marker, segment)?;
                if found.0.components == 3 {
                    rebuilt.extend(NO_TRANSFORM);
                }
                frame = Some(found);
                copy(&mut rebuilt, marker, segment);
            }
            DHT | DQT | DRI => copy(&mut rebuilt, marker, segment),
            SOS => {
                let Some((_, process, _)) = &frame else {
                    return Err(broken("a scan before the frame header"));
                };
                let mut scan = segment.to_vec();
                if *process == Process::Sequential {
                    fix_scan(&mut scan)?;
                }
                scanned += scan
                    .first()
                    .map_or(0, |components| usize::from(*components));
                copy(&mut rebuilt, SOS, &scan);
                let end = entropy_end(bytes, at);
                let data = bytes.get(at..end).unwrap_or(&[]);
                coded += data.len();
                rebuilt.extend_from_slice(data);
                at = end;
                if at >= bytes.len() {
                    // Some encoders forget the end marker. If data is missing too, the decoder
                    // will run into the one put here and complain.
                    break;
                }
            }
            0xC5..=0xCF => {
                return Err(Refusal::new(
                    "codec-error",
                    "a JPEG process that DICOM does not use",
                ));
            }
            0xDC => return Err(broken("the number of lines comes after the scan")),
            _ => {}
        }
    }
    rebuilt.extend([0xFF, EOI]);
    let Some((header, process, subsampled)) = frame else {
        return Err(broken("no frame header"));
    };
    // Whole scans may be missing, which no decoder would notice: each component has one, and of
    // progressive ones only the end marker says that there are no more.
    if scanned < header.components || (process == Process::Progressive && !ended) {
        return Err(broken("it ends before the image does"));
    }
    Ok(Stream {
        header,
        process,
        subsampled,
        coded,
        rebuilt,
    })
}

/// The next marker code; any number of fill bytes may stand before it (B.1.1.2).
fn next_marker(bytes: &[u8], at: &mut usize) -> Result<u8, Refusal> {
    if bytes.get(*at) != Some(&0xFF) {
        return Err(broken("no marker where one must be"));
    }
    let fill = bytes.get(*at..).unwrap_or(&[]);
    let Some(skip) = fill.iter().position(|&b| b != 0xFF) else {
        return Err(broken("it ends before the image does"));
    };
    *at += skip + 1;
    fill.get(skip)
        .copied()
        .ok_or_else(|| broken("it ends before the image does"))
}

/// The parameters of a marker segment, without the two length bytes.
fn segment<'b>(bytes: &'b [u8], at: &mut usize) -> Result<&'b [u8], Refusal> {
    let length = match bytes.get(*at..) {
        Some(&[high, low, ..]) => usize::from(u16::from_be_bytes([high, low])),
        _ => 0,
    };
    let start = *at + 2;
    *at += length;
    bytes
        .get(start..*at)
        .ok_or_else(|| broken("a segment runs past the end"))
}

fn copy(out: &mut Vec<u8>, marker: u8, segment: &[u8]) {
    out.extend([0xFF, marker]);
    let length = u16::try_from(segment.len() + 2).unwrap_or(u16::MAX);
    out.extend(length.to_be_bytes());
    out.extend_from_slice(segment);
}

fn frame_header(marker: u8, segment: &[u8]) -> Result<(Header, Process, bool), Refusal> {
    let &[precision, r1, r0, c1, c0, components, ref specs @ ..] = segment else {
        return Err(broken("a short frame header"));
    };
    let header = Header {
        rows: usize::from(u16::from_be_bytes([r1, r0])),
        columns: usize::from(u16::from_be_bytes([c1, c0])),
        components: usize::from(components),
        precision: u32::from(precision),
    };
    if specs.len() != header.components * 3 {
        return Err(broken("a frame header of the wrong length"));
    }
    let process = match marker {
        0xC0 | 0xC1 => Process::Sequential,
        0xC2 => Process::Progressive,
        _ => Process::Lossless,
    };
    let first = specs.get(1).copied().unwrap_or(0x11);
    let subsampled =
        header.components > 1 && specs.as_chunks::<3>().0.iter().any(|spec| spec[1] != first);
    if subsampled && process == Process::Lossless {
        return Err(Refusal::new(
            "codec-error",
            "lossless JPEG with subsampled components",
        ));
    }
    Ok((header, process, subsampled))
}

/// Sets the spectral selection of a sequential scan to the whole block (B.2.3).
fn fix_scan(scan: &mut [u8]) -> Result<(), Refusal> {
    match scan {
        [.., start, end, approximation] => {
            (*start, *end, *approximation) = (0, 63, 0);
            Ok(())
        }
        _ => Err(broken("a short scan header")),
    }
}

/// Where the entropy-coded data that starts at `at` ends: at the next marker that is not a restart.
fn entropy_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(rest) = bytes.get(at..) {
        let Some(found) = rest.iter().position(|&b| b == 0xFF) else {
            return bytes.len();
        };
        at += found;
        match bytes.get(at + 1) {
            None => return bytes.len(),
            Some(0x00 | 0xD0..=0xD7) => at += 2,
            Some(0xFF) => at += 1,
            Some(_) => return at,
        }
    }
    bytes.len()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    /// SOI, APP0, SOF0 of 2 x 1 with one component, SOS with Se = 0, two bytes of data, EOI.
    const STREAM: &[u8] = b"\xFF\xD8\xFF\xE0\0\x04ab\xFF\xC0\0\x0B\x08\0\x01\0\x02\x01\x01\x11\0\
        \xFF\xDA\0\x08\x01\x01\0\0\0\0\x12\xFF\x00\xFF\xD9trailing";

    #[test]
    fn the_rebuilt_stream_has_only_what_decides_the_samples() {
        let stream = parse(STREAM).unwrap();
        assert_eq!((stream.header.rows, stream.header.columns), (1, 2));
        assert_eq!(stream.coded, 3);
        assert_eq!(
            stream.rebuilt,
            b"\xFF\xD8\xFF\xC0\0\x0B\x08\0\x01\0\x02\x01\x01\x11\0\
              \xFF\xDA\0\x08\x01\x01\0\0\x3F\0\x12\xFF\x00\xFF\xD9"
        );
    }

    #[test]
    fn a_stream_cut_anywhere_before_its_scan_is_refused() {
        for end in 0..STREAM.len() - 18 {
            assert!(parse(&STREAM[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn what_a_stream_says_about_its_colour_is_held_against_the_attribute() {
        let stream = |adobe: &[u8], ids: [u8; 3]| {
            let [a, b, c] = ids;
            let frame = [
                0xFF, 0xC0, 0, 17, 8, 0, 1, 0, 1, 3, a, 17, 0, b, 17, 0, c, 17, 0,
            ];
            [&[0xFF, SOI], adobe, &frame].concat()
        };
        let adobe = |transform: u8| [&NO_TRANSFORM[..15], &[transform]].concat();
        for (bytes, with_rgb, with_ybr) in [
            (stream(&[], [1, 2, 3]), false, false),
            (stream(&[], *b"RGB"), false, true),
            (stream(&adobe(0), [1, 2, 3]), false, true),
            (stream(&adobe(1), [1, 2, 3]), true, false),
            (stream(&adobe(1), *b"rgb"), true, true),
        ] {
            let contradicts = |photometric| colour_contradicts(&bytes, photometric).unwrap();
            assert_eq!(contradicts(Photometric::Rgb), with_rgb);
            assert_eq!(contradicts(Photometric::YbrFull), with_ybr);
        }
    }

    #[test]
    fn a_huge_image_in_a_tiny_stream_is_refused_before_decoding() {
        let mut bytes = STREAM.to_vec();
        bytes[13..17].copy_from_slice(&[0x20, 0, 0x20, 0]);
        let stream = parse(&bytes).unwrap();
        assert!(stream.check_size(&Limits::default()).is_err());
    }
}
