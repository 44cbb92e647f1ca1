//! An attribute by name, and its values in an instance.
//!
//! A name is a keyword of the standard (`SliceThickness`), keywords joined by `.` for items of
//! sequences (`AnatomicRegionSequence.CodeValue`), or a derived name in `snake_case`. A path that the
//! data set itself does not have is looked for in the Shared Functional Groups Sequence, else in the
//! functional groups of the first frame (PS3.3 C.7.6.16).

use dicom::core::Tag;
use dicom::core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom::dictionary_std::{StandardDataDictionary, tags};
use serde::Deserialize;

use super::Instance;
use super::derived::Derived;
use crate::dicom::dataset::{DataSet, Value, Vr};

/// Sequences that a path may go through.
const MAX_DEPTH: usize = 8;
/// Values of one attribute that are looked at: all items of nested sequences count.
const MAX_VALUES: usize = 4096;

/// A name that a manifest selects by, checked.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct Attribute {
    name: String,
    source: Source,
}

#[derive(Debug, Clone, PartialEq)]
enum Source {
    Path(Vec<Tag>),
    Derived(Derived),
}

/// One value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// Without padding; of a number, its shortest notation. Empty for what is no text, a sequence for
    /// example.
    pub text: String,
    /// When it is a number, or a text that is written like one (PS3.5 §6.2, DS); years for an age.
    pub number: Option<f64>,
}

impl Held {
    /// A text.
    pub fn text(text: &str) -> Self {
        Self {
            number: decimal(text),
            text: text.to_owned(),
        }
    }

    /// A number.
    pub fn number(number: f64) -> Self {
        Self {
            text: number.to_string(),
            number: Some(number),
        }
    }
}

impl TryFrom<String> for Attribute {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let source = if name.starts_with(|c: char| c.is_ascii_lowercase()) {
            let derived = Derived::parse(&name);
            Source::Derived(derived.ok_or_else(|| {
                let known: Vec<&str> = Derived::ALL.iter().map(|(_, name)| *name).collect();
                format!(
                    "`{name}` is no derived attribute; there are {}",
                    known.join(", ")
                )
            })?)
        } else {
            let tags = name.split('.').map(|keyword| {
                let entry = StandardDataDictionary.by_name(keyword);
                entry
                    .map(DataDictionaryEntry::tag)
                    .ok_or_else(|| format!("`{keyword}` is no keyword of DICOM"))
            });
            let tags = tags.collect::<Result<Vec<_>, _>>()?;
            if tags.len() > MAX_DEPTH {
                return Err(format!("`{name}` goes through too many sequences"));
            }
            let sequences = tags.split_last().map_or(&[][..], |(_, before)| before);
            if let Some(at) = sequences.iter().position(|tag| Vr::of(*tag) != Vr::SQ) {
                let keyword = name.split('.').nth(at).unwrap_or_default();
                return Err(format!("`{keyword}` is no sequence"));
            }
            Source::Path(tags)
        };
        Ok(Self { name, source })
    }
}

impl Attribute {
    /// As it is written in the manifest.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The derived name, if it is one.
    pub(super) fn derived(&self) -> Option<Derived> {
        match self.source {
            Source::Derived(derived) => Some(derived),
            Source::Path(_) => None,
        }
    }

    /// Its values; none when it is absent or empty.
    pub fn values(&self, instance: &Instance<'_>) -> Vec<Held> {
        match &self.source {
            Source::Derived(derived) => derived.values(instance),
            Source::Path(path) => find(instance.data_set, path),
        }
    }

    /// Whether a message may show its values: numbers, codes and what the equipment is called. Nothing
    /// of the patient (group 0010, ages, dates), and no text that a person may have typed.
    pub fn is_public(&self) -> bool {
        let path = match &self.source {
            Source::Derived(derived) => return *derived != Derived::AgeYears,
            Source::Path(path) => path,
        };
        let Some(last) = path.last() else {
            return false;
        };
        let plain = matches!(
            &Vr::of(*last).0,
            b"CS" | b"DS" | b"IS" | b"US" | b"SS" | b"UL" | b"SL" | b"FL" | b"FD" | b"UV" | b"SV"
        ) || [
            tags::MANUFACTURER,
            tags::MANUFACTURER_MODEL_NAME,
            tags::SOP_CLASS_UID,
        ]
        .contains(last);
        plain && path.iter().all(|tag| tag.0 != 0x0010)
    }
}

/// The values at the end of a path.
pub(super) fn find(data_set: &DataSet, path: &[Tag]) -> Vec<Held> {
    let mut found = Vec::new();
    follow(data_set, path, &mut found);
    if found.is_empty() && path.len() > 1 {
        for groups in [
            tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE,
            tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE,
        ] {
            if let Some(groups) = data_set.item(groups).filter(|_| found.is_empty()) {
                follow(groups, path, &mut found);
            }
        }
    }
    found
}

fn follow(data_set: &DataSet, path: &[Tag], found: &mut Vec<Held>) {
    match path {
        [] => {}
        [tag] => {
            let room = MAX_VALUES.saturating_sub(found.len());
            found.extend(leaf(data_set, *tag).into_iter().take(room));
        }
        [sequence, rest @ ..] => {
            for item in data_set.items(*sequence) {
                if found.len() < MAX_VALUES {
                    follow(item, rest, found);
                }
            }
        }
    }
}

fn leaf(data_set: &DataSet, tag: Tag) -> Vec<Held> {
    let Some(element) = data_set.get(tag).filter(|_| data_set.has_value(tag)) else {
        return Vec::new();
    };
    // There, and nothing that could be compared.
    let opaque = || {
        vec![Held {
            text: String::new(),
            number: None,
        }]
    };
    if !matches!(element.value, Value::Bytes(_)) {
        return opaque();
    }
    match &element.vr.0 {
        b"US" | b"SS" | b"UL" | b"SL" | b"UV" | b"SV" | b"FL" | b"FD" => {
            let numbers = data_set.floats(tag);
            if numbers.is_empty() {
                return opaque();
            }
            numbers.into_iter().map(Held::number).collect()
        }
        b"OB" | b"OW" | b"OF" | b"OD" | b"OL" | b"OV" | b"UN" | b"AT" => opaque(),
        b"AS" => data_set
            .strings(tag)
            .iter()
            .map(|text| Held {
                text: text.to_string(),
                number: years(text),
            })
            .collect(),
        _ => data_set
            .strings(tag)
            .iter()
            .filter(|text| !text.is_empty())
            .map(|text| Held::text(text))
            .collect(),
    }
}

/// An age (PS3.5 §6.2, AS) in years.
pub(super) fn years(text: &str) -> Option<f64> {
    let per_year = match text.chars().last()? {
        'Y' => 1.0,
        'M' => 12.0,
        'W' => 52.1775,
        'D' => 365.2425,
        _ => return None,
    };
    let digits = text.get(..text.len() - 1)?;
    let plain = (1..=3).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let count: f64 = digits.parse().ok().filter(|_| plain)?;
    Some(count / per_year)
}

/// A number as DS and IS write it; `NaN` and `inf`, which Rust would parse, are none.
fn decimal(text: &str) -> Option<f64> {
    let allowed = |b: u8| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E');
    let number: f64 = text.parse().ok().filter(|_| text.bytes().all(allowed))?;
    number.is_finite().then_some(number)
}
