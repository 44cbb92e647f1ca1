//! The data set in memory: elements in order, their values, and typed ways to ask for them.
//!
//! The getters answer `None` for "absent, empty or not of that kind". Where absence and nonsense
//! must be told apart (a rescale slope of `abc` is no slope of 1), ask [`DataSet::has_value`] too.

use std::borrow::Cow;

use dicom::core::Tag;

use super::encoding::Vr;

/// Bytes that stayed in the file (or in the inflated data set): absolute position and length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Position of the first byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u32,
}

/// The value of an element. `Debug` shows sizes, never content.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// The value as written, in the byte order of the data set.
    Bytes(Box<[u8]>),
    /// Items of a sequence.
    Items(Vec<DataSet>),
    /// A large value, or pixel data in native form.
    InFile(Range),
    /// Fragments of encapsulated data; the first is the basic offset table (PS3.5 A.4).
    Fragments(Vec<Range>),
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Items(items) => f.debug_list().entries(items).finish(),
            Self::InFile(range) => write!(f, "{} bytes in the file", range.length),
            Self::Fragments(fragments) => write!(f, "{} fragments", fragments.len()),
        }
    }
}

/// One element.
#[derive(Debug, Clone, PartialEq)]
pub struct Element {
    /// Which attribute.
    pub tag: Tag,
    /// As written, or from the dictionary for implicit VR.
    pub vr: Vr,
    /// Its value.
    pub value: Value,
}

/// Elements in ascending order of tag: the data set itself, or an item of a sequence.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DataSet {
    pub(super) elements: Vec<Element>,
    pub(super) big_endian: bool,
}

impl DataSet {
    /// The elements in order.
    pub fn elements(&self) -> &[Element] {
        &self.elements
    }

    /// Whether numbers in [`DataSet::bytes`] are big endian.
    pub fn is_big_endian(&self) -> bool {
        self.big_endian
    }

    /// The element with this tag.
    pub fn get(&self, tag: Tag) -> Option<&Element> {
        let at = self
            .elements
            .binary_search_by_key(&tag, |element| element.tag)
            .ok()?;
        self.elements.get(at)
    }

    /// Whether the attribute is present with more than padding in it. Zero is a value where numbers
    /// are binary.
    pub fn has_value(&self, tag: Tag) -> bool {
        let Some(element) = self.get(tag) else {
            return false;
        };
        match &element.value {
            Value::Bytes(bytes) if number_size(element.vr).is_some() => !bytes.is_empty(),
            Value::Bytes(bytes) => !trim(bytes).is_empty(),
            Value::Items(items) => !items.is_empty(),
            Value::InFile(range) => range.length > 0,
            Value::Fragments(_) => true,
        }
    }

    /// The value as written, if it is in memory.
    pub fn bytes(&self, tag: Tag) -> Option<&[u8]> {
        match &self.get(tag)?.value {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The items of a sequence; none when it is absent.
    pub fn items(&self, tag: Tag) -> &[DataSet] {
        match self.get(tag).map(|element| &element.value) {
            Some(Value::Items(items)) => items,
            _ => &[],
        }
    }

    /// The first item of a sequence.
    pub fn item(&self, tag: Tag) -> Option<&DataSet> {
        self.items(tag).first()
    }

    /// The whole value as text without padding, several values still joined by `\`. Text that is
    /// not UTF-8 is read as Latin-1, which keeps ASCII codes comparable.
    pub fn str(&self, tag: Tag) -> Option<Cow<'_, str>> {
        let trimmed = trim(self.bytes(tag)?);
        (!trimmed.is_empty()).then(|| text(trimmed))
    }

    /// The values of a multi-valued text attribute, each without padding. Empty values in the
    /// middle stay, because position carries meaning (PS3.5 §6.4).
    pub fn strings(&self, tag: Tag) -> Vec<Cow<'_, str>> {
        match self.bytes(tag).map(trim) {
            None | Some([]) => Vec::new(),
            Some(bytes) => bytes
                .split(|&b| b == b'\\')
                .map(|value| text(trim(value)))
                .collect(),
        }
    }

    /// A UID without its padding, unchecked: `Uid::parse` decides whether it is one.
    pub fn uid(&self, tag: Tag) -> Option<Cow<'_, str>> {
        self.str(tag)
    }

    /// The first value as an integer, from binary or from an integer string.
    pub fn int(&self, tag: Tag) -> Option<i64> {
        let element = self.get(tag)?;
        let bytes = self.bytes(tag)?;
        match self.number(element.vr, bytes, 0) {
            Some(Number::Int(value)) => Some(value),
            Some(Number::Float(_)) => None,
            None => {
                let trimmed = text(first(bytes)).into_owned();
                trimmed.strip_prefix('+').unwrap_or(&trimmed).parse().ok()
            }
        }
    }

    /// The first value as a finite floating-point number.
    pub fn float(&self, tag: Tag) -> Option<f64> {
        let element = self.get(tag)?;
        let bytes = self.bytes(tag)?;
        if number_size(element.vr).is_none() {
            return decimal(first(bytes));
        }
        let value = match self.number(element.vr, bytes, 0)? {
            Number::Int(value) => value as f64,
            Number::Float(value) => value,
        };
        value.is_finite().then_some(value)
    }

    /// All values as finite floating-point numbers; empty when any of them is not one.
    pub fn floats(&self, tag: Tag) -> Vec<f64> {
        let (Some(element), Some(bytes)) = (self.get(tag), self.bytes(tag)) else {
            return Vec::new();
        };
        let values: Option<Vec<f64>> = match number_size(element.vr) {
            Some(size) => (0..bytes.len() / size)
                .map(|i| match self.number(element.vr, bytes, i) {
                    Some(Number::Int(value)) => Some(value as f64),
                    Some(Number::Float(value)) => Some(value).filter(|v| v.is_finite()),
                    None => None,
                })
                .collect(),
            None if trim(bytes).is_empty() => None,
            None => bytes.split(|&b| b == b'\\').map(decimal).collect(),
        };
        values.unwrap_or_default()
    }

    fn number(&self, vr: Vr, bytes: &[u8], index: usize) -> Option<Number> {
        let size = number_size(vr)?;
        let at = bytes.get(index * size..(index + 1) * size)?;
        let mut little = [0; 8];
        for (i, to) in little.iter_mut().take(size).enumerate() {
            *to = *at.get(if self.big_endian { size - 1 - i } else { i })?;
        }
        let raw = u64::from_le_bytes(little);
        Some(match &vr.0 {
            b"SS" => Number::Int(i64::from(raw as u16 as i16)),
            b"SL" => Number::Int(i64::from(raw as u32 as i32)),
            b"SV" => Number::Int(raw as i64),
            b"FL" => Number::Float(f64::from(f32::from_bits(raw as u32))),
            b"FD" => Number::Float(f64::from_bits(raw)),
            _ => Number::Int(i64::try_from(raw).ok()?),
        })
    }
}

enum Number {
    Int(i64),
    Float(f64),
}

/// Bytes of one number, for representations that hold binary numbers.
fn number_size(vr: Vr) -> Option<usize> {
    match &vr.0 {
        b"US" | b"SS" | b"OW" => Some(2),
        b"UL" | b"SL" | b"FL" => Some(4),
        b"SV" | b"UV" | b"FD" => Some(8),
        _ => None,
    }
}

/// Without the padding around it (PS3.5 §6.2): spaces, and the NUL of a UID.
fn trim(bytes: &[u8]) -> &[u8] {
    let pad = |b: &u8| *b == b' ' || *b == 0;
    let start = bytes.iter().position(|b| !pad(b)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|b| !pad(b)).map_or(start, |i| i + 1);
    bytes.get(start..end).unwrap_or(&[])
}

fn first(bytes: &[u8]) -> &[u8] {
    trim(bytes.split(|&b| b == b'\\').next().unwrap_or(&[]))
}

fn text(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => bytes.iter().copied().map(char::from).collect(),
    }
}

/// One decimal string (PS3.5 §6.2, DS); `NaN` and `inf`, which Rust would parse, are not one.
fn decimal(bytes: &[u8]) -> Option<f64> {
    let bytes = trim(bytes);
    let allowed = |b: &u8| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E');
    if !bytes.iter().all(allowed) {
        return None;
    }
    let value: f64 = std::str::from_utf8(bytes).ok()?.parse().ok()?;
    value.is_finite().then_some(value)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use dicom::dictionary_std::tags;

    use super::*;

    fn data_set(tag: Tag, vr: &[u8; 2], bytes: &[u8]) -> DataSet {
        DataSet {
            elements: vec![Element {
                tag,
                vr: Vr(*vr),
                value: Value::Bytes(bytes.into()),
            }],
            big_endian: false,
        }
    }

    #[test]
    fn text_loses_its_padding_and_splits_at_backslashes() {
        let set = data_set(tags::IMAGE_TYPE, b"CS", b"ORIGINAL \\ PRIMARY\\\\AXIAL ");
        assert_eq!(
            set.strings(tags::IMAGE_TYPE),
            ["ORIGINAL", "PRIMARY", "", "AXIAL"]
        );
        let set = data_set(tags::SOP_INSTANCE_UID, b"UI", b"1.2.3\0");
        assert_eq!(set.uid(tags::SOP_INSTANCE_UID).unwrap(), "1.2.3");
        let set = data_set(tags::MODALITY, b"CS", b"  ");
        assert_eq!(set.str(tags::MODALITY), None);
    }

    #[test]
    fn numbers_come_from_binary_and_from_text() {
        assert_eq!(
            data_set(tags::ROWS, b"US", &[0, 2]).int(tags::ROWS),
            Some(512)
        );
        let set = data_set(tags::NUMBER_OF_FRAMES, b"IS", b" +12 ");
        assert_eq!(set.int(tags::NUMBER_OF_FRAMES), Some(12));
        let set = data_set(tags::WINDOW_CENTER, b"DS", b"40\\-1.5e2 ");
        assert_eq!(set.floats(tags::WINDOW_CENTER), [40.0, -150.0]);
        let set = data_set(tags::WINDOW_CENTER, b"DS", b"40\\");
        assert_eq!(set.float(tags::WINDOW_CENTER), Some(40.0));
        let mut set = data_set(tags::ROWS, b"US", &[2, 0]);
        set.big_endian = true;
        assert_eq!(set.int(tags::ROWS), Some(512));
    }

    #[test]
    fn nonsense_is_no_number_but_is_a_value() {
        for nonsense in ["NaN", "1e999", "abc", "inf"] {
            let set = data_set(tags::RESCALE_SLOPE, b"DS", nonsense.as_bytes());
            assert_eq!(set.float(tags::RESCALE_SLOPE), None, "{nonsense}");
            assert!(set.has_value(tags::RESCALE_SLOPE));
        }
    }
}
