//! A study's attributes, structured reports and other models' numbers as a row of features.
//!
//! A feature is a NUM content item of a report, found by its concept name code (PS3.3 §C.18.1), an
//! attribute by keyword, or what another model said of the study. What is absent is a refusal unless
//! the manifest states a value for it.

use std::collections::BTreeMap;

use dicom::core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom::dictionary_std::{StandardDataDictionary, tags};

use crate::dicom::dataset::{DataSet, DicomFile, Vr};
use crate::model::manifest::{ConceptCode, Feature, ModelOutput};
use crate::model::{Tensor, TensorData};
use crate::refusal::Refusal;

/// Content items nest at most this deep in reports that are read for features.
const MAX_DEPTH: usize = 32;

/// What other models said of the study; a model that did not answer is not in it.
pub type Heard = BTreeMap<ModelOutput, f64>;

/// One row of features from the files of a study, in whatever order they are. Files that have an
/// attribute have to agree on it.
///
/// # Errors
/// `feature-missing`, `feature-ambiguous` and `feature-invalid`, each naming the feature;
/// `upstream-missing`, naming the other model.
pub fn row(files: &[DicomFile], features: &[Feature], heard: &Heard) -> Result<Tensor, Refusal> {
    let mut values = Vec::with_capacity(features.len());
    for feature in features {
        if let Some(output) = &feature.model {
            let said = heard.get(output).map(|number| *number as f32);
            values.push(said.or(feature.missing).ok_or_else(|| {
                let (model, name) = (&output.name, &feature.name);
                Refusal::new(
                    "upstream-missing",
                    format!("the model `{model}` gave no number, which is the feature `{name}`"),
                )
            })?);
            continue;
        }
        let mut found = None;
        for file in files {
            let value = find(file, feature)?;
            // Two measurements of one name, or an attribute that changes from image to image: which
            // one the model should see is not ours to guess.
            let again = value.is_some() && found.is_some();
            if again && (feature.sr.is_some() || value != found) {
                return Err(ambiguous(feature));
            }
            found = found.or(value);
        }
        values.push(found.or(feature.missing).ok_or_else(|| {
            Refusal::new(
                "feature-missing",
                format!("the study has no value for `{}`", feature.name),
            )
        })?);
    }
    Ok(Tensor {
        shape: vec![values.len()],
        data: TensorData::F32(values),
    })
}

fn find(file: &DicomFile, feature: &Feature) -> Result<Option<f32>, Refusal> {
    let text = match (&feature.sr, &feature.attribute) {
        (Some(code), _) => {
            let mut found = Vec::new();
            numeric_items(file.data_set(), code, 0, &mut found);
            if found.len() > 1 {
                return Err(ambiguous(feature));
            }
            found.pop()
        }
        (_, Some(keyword)) => attribute(file.data_set(), keyword),
        (None, None) => None,
    };
    let Some(text) = text else { return Ok(None) };
    let (value, what) = if feature.values.is_empty() {
        (number(&text), "no number")
    } else {
        (word(&feature.values, &text), "none of its `values`")
    };
    match value {
        Some(value) => Ok(Some(value)),
        None => Err(Refusal::new(
            "feature-invalid",
            format!("the value of `{}` is {what}", feature.name),
        )),
    }
}

fn ambiguous(feature: &Feature) -> Refusal {
    Refusal::new(
        "feature-ambiguous",
        format!("the study has more than one value for `{}`", feature.name),
    )
}

/// Numeric Value (0040,A30A) of every NUM item with this concept name.
fn numeric_items(item: &DataSet, code: &ConceptCode, depth: usize, found: &mut Vec<String>) {
    if depth > MAX_DEPTH {
        return;
    }
    for child in item.items(tags::CONTENT_SEQUENCE) {
        if is_named(child, code) {
            let measured = child.item(tags::MEASURED_VALUE_SEQUENCE);
            let text = measured.and_then(|value| value.str(tags::NUMERIC_VALUE));
            found.extend(text.map(|text| text.to_string()));
        }
        numeric_items(child, code, depth + 1, found);
    }
}

fn is_named(item: &DataSet, code: &ConceptCode) -> bool {
    let is = |item: &DataSet, tag, text: &str| item.str(tag).is_some_and(|found| found == text);
    let name = item.item(tags::CONCEPT_NAME_CODE_SEQUENCE);
    is(item, tags::VALUE_TYPE, "NUM")
        && name.is_some_and(|name| {
            is(name, tags::CODE_VALUE, &code.value)
                && is(name, tags::CODING_SCHEME_DESIGNATOR, &code.scheme)
        })
}

/// The value at a keyword, or at keywords joined by `.`, all but the last naming sequences of which
/// the first item is meant. Binary numbers are written out, the first of several.
fn attribute(data_set: &DataSet, path: &str) -> Option<String> {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    let tag = StandardDataDictionary.by_name(first)?.tag();
    if !rest.is_empty() {
        return attribute(data_set.item(tag)?, rest);
    }
    if !data_set.has_value(tag) {
        return None;
    }
    let numeric = |vr: Vr| matches!(&vr.0, b"US" | b"SS" | b"UL" | b"SL" | b"FL" | b"FD");
    let binary = data_set.get(tag).is_some_and(|found| numeric(found.vr));
    if binary {
        return data_set.float(tag).map(|number| number.to_string());
    }
    data_set.str(tag).map(|text| text.to_string())
}

/// The number that stands for a word. Code strings compare without regard to case and padding.
fn word(values: &BTreeMap<String, f32>, text: &str) -> Option<f32> {
    let text = text.trim();
    let same = |word: &str| word.trim().eq_ignore_ascii_case(text);
    let mut values = values.iter();
    values.find(|(word, _)| same(word)).map(|(_, value)| *value)
}

/// A DS or IS value, or an AS value (`045Y`, PS3.5 §6.2) in years.
fn number(text: &str) -> Option<f32> {
    let text = text.trim();
    let years = |suffix: char, per_year: f32| {
        let digits = text.strip_suffix(suffix)?;
        digits
            .parse::<u32>()
            .ok()
            .map(|count| count as f32 / per_year)
    };
    text.parse::<f32>()
        .ok()
        .filter(|value| value.is_finite())
        .or_else(|| years('Y', 1.0))
        .or_else(|| years('M', 12.0))
        .or_else(|| years('W', 52.1775))
        .or_else(|| years('D', 365.2425))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_decimal_strings_are_numbers() {
        assert_eq!(number("045Y"), Some(45.0));
        assert_eq!(number("006M"), Some(0.5));
        assert_eq!(number(" 17.99 "), Some(17.99));
        assert_eq!(number("1e999"), None);
        assert_eq!(number("NaN"), None);
        assert_eq!(number("n/a"), None);
    }

    fn feature(keys: &str) -> Feature {
        toml::from_str(&format!("name = \"f\"\n{keys}")).unwrap()
    }

    /// An element in explicit VR little endian (PS3.5 §7.1.2).
    fn element(tag: u32, vr: &str, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(((tag >> 16) as u16).to_le_bytes());
        out.extend((tag as u16).to_le_bytes());
        out.extend(vr.as_bytes());
        match vr {
            "SQ" => {
                out.extend([0, 0]);
                out.extend(u32::try_from(value.len()).unwrap().to_le_bytes());
            }
            _ => out.extend(u16::try_from(value.len()).unwrap().to_le_bytes()),
        }
        out.extend(value);
        out
    }

    fn file(elements: &[Vec<u8>]) -> DicomFile {
        let limits = crate::dicom::dataset::ReadLimits::default();
        DicomFile::from_bytes(elements.concat(), &limits).unwrap()
    }

    fn study() -> DicomFile {
        let kvp = element(0x0018_0060, "DS", b"120 ");
        let item = [&[0xFE, 0xFF, 0x00, 0xE0, 12, 0, 0, 0][..], &kvp].concat();
        file(&[
            element(0x0008_0016, "UI", b"1.2.840.10008.5.1.4.1.1.2\0"),
            element(0x0008_0060, "CS", b"CT"),
            element(0x0010_0040, "CS", b"f "),
            element(0x0010_1010, "AS", b"064Y"),
            element(0x0018_9304, "SQ", &item),
            element(0x0028_0010, "US", &512u16.to_le_bytes()),
        ])
    }

    fn value(keys: &str, heard: &Heard) -> Result<Vec<f32>, &'static str> {
        let row = row(&[study()], &[feature(keys)], heard);
        row.map(|row| row.to_f32()).map_err(|refusal| refusal.code)
    }

    #[test]
    fn attributes_are_numbers_words_and_in_sequences() {
        let sex = "attribute = \"PatientSex\"\nvalues = { F = 0.25, M = 0.75 }";
        let only_men = "attribute = \"PatientSex\"\nvalues = { M = 0.75 }";
        for (keys, expected) in [
            ("attribute = \"PatientAge\"", Ok(vec![64.0])),
            ("attribute = \"Rows\"", Ok(vec![512.0])),
            (
                "attribute = \"CTXRayDetailsSequence.KVP\"",
                Err("feature-missing"),
            ),
            (
                "attribute = \"CTXRayDetailsSequence.KVP\"\nmissing = 80",
                Ok(vec![80.0]),
            ),
            ("attribute = \"PatientSex\"", Err("feature-invalid")),
            (sex, Ok(vec![0.25])),
            (only_men, Err("feature-invalid")),
        ] {
            assert_eq!(value(keys, &Heard::new()), expected, "{keys}");
        }
        let keyword = StandardDataDictionary.by_tag(dicom::core::Tag(0x0018, 0x9304));
        let path = format!("attribute = \"{}.KVP\"", keyword.unwrap().alias());
        assert_eq!(value(&path, &Heard::new()), Ok(vec![120.0]));
    }

    #[test]
    fn images_have_to_agree_on_an_attribute() {
        let rows = |count: u16| {
            file(&[
                element(0x0008_0016, "UI", b"1.2.840.10008.5.1.4.1.1.2\0"),
                element(0x0008_0060, "CS", b"CT"),
                element(0x0028_0010, "US", &count.to_le_bytes()),
            ])
        };
        let check = |files: &[DicomFile]| {
            let row = row(files, &[feature("attribute = \"Rows\"")], &Heard::new());
            row.map(|row| row.to_f32()).map_err(|refusal| refusal.code)
        };
        assert_eq!(check(&[rows(64), rows(64)]), Ok(vec![64.0]));
        assert_eq!(check(&[rows(64), rows(32)]), Err("feature-ambiguous"));
    }

    #[test]
    fn another_model_is_a_feature_like_any_other() {
        let keys = "model = { name = \"cxr\", label = \"opacity\" }";
        let output = feature(keys).model.unwrap();
        let heard = Heard::from([(output, 0.75)]);
        assert_eq!(value(keys, &heard), Ok(vec![0.75]));
        assert_eq!(value(keys, &Heard::new()), Err("upstream-missing"));
        let stated = format!("{keys}\nmissing = 0.5");
        assert_eq!(value(&stated, &Heard::new()), Ok(vec![0.5]));
    }
}
