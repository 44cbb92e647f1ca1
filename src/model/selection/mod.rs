//! Which studies a model looks at, and at what of them. Pure: it sees data sets, never files.
//!
//! ```text
//! header ─▶ judge (one instance) ─▶ select (a study) ─▶ first_of_groups (several models)
//! ```

mod attribute;
mod choose;
mod derived;
mod explain;
mod rule;

#[cfg(test)]
mod tests;

pub use attribute::{Attribute, Held};
pub use choose::{Candidate, Selected, first_of_groups, select};
pub use explain::{Check, checks};
pub use rule::Pattern;

use dicom::dictionary_std::tags;

use super::manifest::{AppliesTo, Layout, Manifest, OrderBy};
use crate::dicom::dataset::{DataSet, DicomFile};

/// What is known of an instance besides its data set, or before it is opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Modality (0008,0060).
    pub modality: String,
    /// Body Part Examined (0018,0015).
    pub body_part: String,
    /// SOP Class UID (0008,0016).
    pub sop_class: String,
    /// Transfer Syntax UID of the file.
    pub transfer_syntax: String,
    /// Calling AE title of the association, empty where there was none.
    pub calling_ae: String,
    /// Called AE title of the association, empty where there was none.
    pub called_ae: String,
}

impl Known {
    /// What a file says of itself.
    pub fn of_file(file: &DicomFile) -> Self {
        let text = |tag| {
            let text = file.data_set().str(tag);
            text.map(|text| text.into_owned()).unwrap_or_default()
        };
        Self {
            modality: text(tags::MODALITY),
            body_part: text(tags::BODY_PART_EXAMINED),
            sop_class: text(tags::SOP_CLASS_UID),
            transfer_syntax: file.transfer_syntax().to_owned(),
            calling_ae: String::new(),
            called_ae: String::new(),
        }
    }
}

/// An instance in front of a model.
#[derive(Debug, Clone, Copy)]
pub struct Instance<'a> {
    /// What is known besides.
    pub known: &'a Known,
    /// Its data set.
    pub data_set: &'a DataSet,
}

impl Instance<'_> {
    fn has_pixels(&self) -> bool {
        [
            tags::PIXEL_DATA,
            tags::FLOAT_PIXEL_DATA,
            tags::DOUBLE_FLOAT_PIXEL_DATA,
        ]
        .into_iter()
        .any(|tag| self.data_set.get(tag).is_some())
    }
}

/// What an instance is to a model that applies to it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fit {
    /// Why the model was not validated for it, if it was not.
    pub outside: Option<String>,
    /// Its place among others, one value per key of `order_by`.
    keys: Vec<Key>,
    /// Whether it can be each of the manifest's inputs.
    roles: Vec<bool>,
}

/// A value to sort by: numbers, then texts, then nothing.
#[derive(Debug, Clone, PartialEq)]
enum Key {
    Number(f64),
    Text(String),
    Absent,
}

/// What an instance is to a model; none when the model does not apply to it. An instance without
/// pixels is nothing to a model of pixels: reports and presentation states share modality and body
/// part with the images.
pub fn judge(manifest: &Manifest, instance: &Instance<'_>) -> Option<Fit> {
    let applies = &manifest.applies_to;
    if !applies.accepts(instance) || (wants_pixels(manifest) && !instance.has_pixels()) {
        return None;
    }
    let outside = manifest.validated_for.iter();
    Some(Fit {
        outside: outside.filter_map(|rule| rule.violation(instance)).next(),
        keys: applies
            .order_by
            .iter()
            .map(|by| key(by, instance))
            .collect(),
        roles: manifest
            .input
            .iter()
            .map(|input| input.rules.iter().all(|rule| rule.holds(instance)))
            .collect(),
    })
}

fn wants_pixels(manifest: &Manifest) -> bool {
    let mut inputs = manifest.input.iter();
    inputs.any(|input| input.layout != Layout::Nf)
}

fn key(by: &OrderBy, instance: &Instance<'_>) -> Key {
    match by.attribute.values(instance).into_iter().next() {
        None => Key::Absent,
        Some(Held {
            number: Some(number),
            ..
        }) => Key::Number(number),
        Some(held) => Key::Text(held.text.to_ascii_lowercase()),
    }
}

impl AppliesTo {
    /// Whether an instance is one the model looks at.
    pub fn accepts(&self, instance: &Instance<'_>) -> bool {
        let view = instance.data_set.str(tags::VIEW_POSITION);
        self.may_accept(instance.known)
            && among(&self.view, view.as_deref().unwrap_or_default())
            && self.rules.iter().all(|rule| rule.holds(instance))
    }

    /// [`AppliesTo::accepts`] as far as it can be told without opening the file.
    pub fn may_accept(&self, known: &Known) -> bool {
        among(&self.modality, &known.modality)
            && among(&self.body_part, &known.body_part)
            && among(&self.sop_class, &known.sop_class)
            && among(&self.calling_ae, &known.calling_ae)
    }
}

/// Code strings compare without regard to case and padding (PS3.5 §6.2).
fn among(allowed: &[String], value: &str) -> bool {
    allowed.is_empty()
        || allowed
            .iter()
            .any(|allowed| allowed.trim().eq_ignore_ascii_case(value.trim()))
}
