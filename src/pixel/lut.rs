//! Lookup tables as DICOM writes them: a descriptor and data (PS3.3 C.11.1.1, C.11.2.1.1, C.7.6.3.1.5).

use dicom::core::Tag;
use dicom::dictionary_std::tags;

use super::Refusal;
use crate::dicom::dataset::DataSet;

/// A table of 8- to 16-bit entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lut {
    /// The input value that gets the first entry; lower ones get it too.
    first: i64,
    /// Bits of an entry.
    bits: u32,
    entries: Vec<u16>,
}

impl Lut {
    /// The first item of a Modality or VOI LUT Sequence. An item whose descriptor and data are both
    /// empty says nothing and counts as none.
    pub(super) fn item(data_set: &DataSet, sequence: Tag) -> Option<&DataSet> {
        data_set
            .item(sequence)
            .filter(|item| item.has_value(tags::LUT_DESCRIPTOR) || item.has_value(tags::LUT_DATA))
    }

    /// Reads a table from its descriptor and data in `data_set`. `signed` is whether the input
    /// values are, which decides how the second value of the descriptor reads.
    ///
    /// # Errors
    /// `lut-invalid` when the descriptor and the data contradict each other.
    pub fn read(
        data_set: &DataSet,
        descriptor: Tag,
        data: Tag,
        signed: bool,
    ) -> Result<Self, Refusal> {
        let (count, first, bits) = read_descriptor(data_set, descriptor, signed)?;
        let bytes = data_set.bytes(data).ok_or_else(|| invalid("has no data"))?;
        let entries: Vec<u16> = if bytes.len() >= count * 2 {
            words(data_set, bytes).take(count).collect()
        } else if bits == 8 && bytes.len() >= count {
            bytes.iter().take(count).map(|b| u16::from(*b)).collect()
        } else {
            return Err(invalid(format_args!(
                "declares {count} entries and has {} bytes",
                bytes.len()
            )));
        };
        Self::new(first, bits, entries)
    }

    /// Reads a palette table whose data is segmented (PS3.3 C.7.9.2).
    ///
    /// # Errors
    /// As [`Lut::read`].
    pub fn read_segmented(
        data_set: &DataSet,
        descriptor: Tag,
        data: Tag,
        signed: bool,
    ) -> Result<Self, Refusal> {
        let (count, first, bits) = read_descriptor(data_set, descriptor, signed)?;
        let bytes = data_set.bytes(data).ok_or_else(|| invalid("has no data"))?;
        let segments: Vec<u16> = words(data_set, bytes).collect();
        let mut entries = Vec::with_capacity(count);
        expand(&segments, count, &mut entries)?;
        if entries.len() != count {
            return Err(invalid("has segments for another number of entries"));
        }
        Self::new(first, bits, entries)
    }

    fn new(first: i64, bits: u32, entries: Vec<u16>) -> Result<Self, Refusal> {
        if entries.iter().any(|entry| u32::from(*entry) >> bits != 0) {
            return Err(invalid("has entries of more bits than it declares"));
        }
        Ok(Self {
            first,
            bits,
            entries,
        })
    }

    /// The largest value that an entry can have.
    pub fn maximum(&self) -> f32 {
        ((1u32 << self.bits) - 1) as f32
    }

    /// The entry for `value`.
    pub fn get(&self, value: i64) -> u16 {
        let last = self.entries.len().saturating_sub(1);
        let index = usize::try_from(value.saturating_sub(self.first))
            .unwrap_or(0)
            .min(last);
        self.entries.get(index).copied().unwrap_or(0)
    }
}

fn invalid(what: impl std::fmt::Display) -> Refusal {
    Refusal::new("lut-invalid", format!("a lookup table {what}"))
}

/// Number of entries, first mapped value, bits.
fn read_descriptor(
    data_set: &DataSet,
    descriptor: Tag,
    signed: bool,
) -> Result<(usize, i64, u32), Refusal> {
    let values = data_set.floats(descriptor);
    let &[count, first, bits] = values.as_slice() else {
        return Err(invalid("has no descriptor of three values"));
    };
    // The descriptor is US or SS whatever its values mean: the count is never negative, and the
    // first value is signed exactly when the pixels are (PS3.3 C.11.1.1.1).
    let count = match count as i32 as u16 {
        0 => 65_536,
        count => usize::from(count),
    };
    let first = first as i32 as u16;
    let first = if signed {
        i64::from(first.cast_signed())
    } else {
        i64::from(first)
    };
    match bits as u32 {
        bits @ 8..=16 => Ok((count, first, bits)),
        bits => Err(invalid(format_args!("has entries of {bits} bits"))),
    }
}

fn words<'d>(data_set: &DataSet, bytes: &'d [u8]) -> impl Iterator<Item = u16> + 'd {
    let big = data_set.is_big_endian();
    bytes.as_chunks::<2>().0.iter().map(move |word| {
        if big {
            u16::from_be_bytes(*word)
        } else {
            u16::from_le_bytes(*word)
        }
    })
}

/// Expands discrete (0), linear (1) and indirect (2) segments, never beyond `count` entries.
fn expand(segments: &[u16], count: usize, out: &mut Vec<u16>) -> Result<(), Refusal> {
    let short = || invalid("has a segment that is cut");
    let mut at = 0;
    while at < segments.len() && out.len() < count {
        // One word of padding may follow the last segment.
        let Some(&[opcode, length, ref rest @ ..]) = segments.get(at..) else {
            break;
        };
        let length = usize::from(length);
        if opcode != 2 && out.len() + length > count {
            return Err(invalid("has segments for more entries than it declares"));
        }
        match opcode {
            0 => {
                out.extend_from_slice(rest.get(..length).ok_or_else(short)?);
                at += 2 + length;
            }
            1 => {
                let to = *rest.first().ok_or_else(short)?;
                linear(out, length, to)?;
                at += 3;
            }
            2 => {
                let &[low, high, ..] = rest else {
                    return Err(short());
                };
                let offset = (usize::from(high) << 16 | usize::from(low)) / 2;
                repeat(segments, offset, length, at, count, out)?;
                at += 4;
            }
            _ => return Err(invalid("has a segment of unknown kind")),
        }
    }
    Ok(())
}

fn linear(out: &mut Vec<u16>, length: usize, to: u16) -> Result<(), Refusal> {
    let from = *out
        .last()
        .ok_or_else(|| invalid("starts with a linear segment"))?;
    let (from, to) = (f64::from(from), f64::from(to));
    let step = (to - from) / length as f64;
    out.extend((1..=length).map(|i| (from + step * i as f64).round() as u16));
    Ok(())
}

/// An indirect segment repeats `length` earlier segments that start at word `offset`; they may not
/// be indirect themselves, which is what keeps this from recursing.
fn repeat(
    segments: &[u16],
    offset: usize,
    length: usize,
    before: usize,
    count: usize,
    out: &mut Vec<u16>,
) -> Result<(), Refusal> {
    let mut at = offset;
    for _ in 0..length {
        let Some(&[opcode @ (0 | 1), size, ref rest @ ..]) = segments.get(at..before) else {
            return Err(invalid("has an indirect segment that points nowhere"));
        };
        let size = usize::from(size);
        if out.len() + size > count {
            return Err(invalid("has segments for more entries than it declares"));
        }
        let cut = || invalid("has a segment that is cut");
        if opcode == 0 {
            out.extend_from_slice(rest.get(..size).ok_or_else(cut)?);
            at += 2 + size;
        } else {
            linear(out, size, *rest.first().ok_or_else(cut)?)?;
            at += 3;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn values_outside_the_table_get_its_ends() {
        let lut = Lut::new(-2, 12, vec![10, 20, 30]).unwrap();
        let values: Vec<u16> = (-4..3).map(|v| lut.get(v)).collect();
        assert_eq!(values, [10, 10, 10, 20, 30, 30, 30]);
        assert_eq!((lut.get(i64::MIN), lut.get(i64::MAX)), (10, 30));
        assert_eq!(lut.maximum(), 4095.0);
    }

    #[test]
    fn entries_of_more_bits_than_declared_are_refused() {
        assert!(Lut::new(0, 8, vec![256]).is_err());
    }

    #[test]
    fn segments_expand_and_stop_at_the_declared_size() {
        let mut out = Vec::new();
        // Two discrete entries, a ramp of three to 8, and the two discrete ones again.
        let segments = [0, 2, 1, 2, 1, 3, 8, 2, 1, 0, 0];
        expand(&segments, 7, &mut out).unwrap();
        assert_eq!(out, [1, 2, 4, 6, 8, 1, 2]);
        let bomb = [0, 1, 0, 1, 60_000, 9, 1, 60_000, 9];
        assert!(expand(&bomb, 256, &mut Vec::new()).is_err());
    }
}
