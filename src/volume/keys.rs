//! What tells the frames of one volume from those of another in the same series.
//!
//! Two kinds: attributes that differ only when the images show something else (echo, time, b-value),
//! which always separate, and attributes that may differ inside one volume too (Acquisition Number,
//! Trigger Time), which separate only where positions repeat.

use dicom::core::Tag;
use dicom::dictionary_std::tags;

use crate::dicom::dataset::DataSet;
use crate::pixel::functional_groups;

/// An attribute of single-frame objects, and the macro and attribute that enhanced objects have in
/// its place.
type Source = (Option<Tag>, Option<(Tag, Tag)>);

/// Attributes that always separate.
const CONTENT: [Source; 8] = [
    (Some(tags::FRAME_OF_REFERENCE_UID), None),
    (None, Some((tags::FRAME_CONTENT_SEQUENCE, tags::STACK_ID))),
    (
        Some(tags::TEMPORAL_POSITION_IDENTIFIER),
        Some((tags::FRAME_CONTENT_SEQUENCE, tags::TEMPORAL_POSITION_INDEX)),
    ),
    (Some(tags::ECHO_NUMBERS), None),
    (
        Some(tags::ECHO_TIME),
        Some((tags::MR_ECHO_SEQUENCE, tags::EFFECTIVE_ECHO_TIME)),
    ),
    (
        Some(tags::DIFFUSION_B_VALUE),
        Some((tags::MR_DIFFUSION_SEQUENCE, tags::DIFFUSION_B_VALUE)),
    ),
    (Some(tags::DIFFUSION_GRADIENT_ORIENTATION), None),
    (
        None,
        Some((
            tags::MR_IMAGE_FRAME_TYPE_SEQUENCE,
            tags::COMPLEX_IMAGE_COMPONENT,
        )),
    ),
];

/// Attributes that separate where positions repeat, in the order in which they are tried.
const REPETITION: [Source; 6] = [
    (
        Some(tags::ACQUISITION_NUMBER),
        Some((tags::FRAME_CONTENT_SEQUENCE, tags::FRAME_ACQUISITION_NUMBER)),
    ),
    (
        Some(tags::TRIGGER_TIME),
        Some((
            tags::CARDIAC_SYNCHRONIZATION_SEQUENCE,
            tags::NOMINAL_CARDIAC_TRIGGER_DELAY_TIME,
        )),
    ),
    (
        Some(tags::NOMINAL_PERCENTAGE_OF_CARDIAC_PHASE),
        Some((
            tags::CARDIAC_SYNCHRONIZATION_SEQUENCE,
            tags::NOMINAL_PERCENTAGE_OF_CARDIAC_PHASE,
        )),
    ),
    (
        Some(tags::INVERSION_TIME),
        Some((tags::MR_MODIFIER_SEQUENCE, tags::INVERSION_TIMES)),
    ),
    (
        Some(tags::FLIP_ANGLE),
        Some((
            tags::MR_TIMING_AND_RELATED_PARAMETERS_SEQUENCE,
            tags::FLIP_ANGLE,
        )),
    ),
    (Some(tags::FRAME_REFERENCE_TIME), None),
];

/// Macros that hold a Frame Type (0008,9007), which stands for Image Type.
const FRAME_TYPES: [Tag; 3] = [
    tags::MR_IMAGE_FRAME_TYPE_SEQUENCE,
    tags::CT_IMAGE_FRAME_TYPE_SEQUENCE,
    tags::PET_FRAME_TYPE_SEQUENCE,
];

/// Dimensions that say where a frame is, which its position says better.
const SPATIAL: [Tag; 3] = [
    tags::IN_STACK_POSITION_NUMBER,
    tags::IMAGE_POSITION_PATIENT,
    tags::PLANE_POSITION_SEQUENCE,
];

/// The value of an attribute. Numbers are the same however they are written, and in their order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Word {
    /// Absent, or empty.
    Absent,
    /// All values of a numeric attribute, as [`sortable`].
    Numbers(Vec<u64>),
    /// Anything else.
    Text(String),
}

/// The values of one frame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// Value 3 of Image Type or Frame Type is LOCALIZER: never part of a volume.
    pub localizer: bool,
    /// Values that always separate.
    pub content: Vec<Word>,
    /// Values that separate where positions repeat.
    pub repetition: Vec<Word>,
}

impl Keys {
    /// The keys of frame `index` (from 0).
    pub(super) fn read(data_set: &DataSet, index: usize) -> Self {
        let mut image_type = image_type(data_set, index);
        let further = image_type.split_off(image_type.len().min(3));
        let kind = image_type.pop().filter(|_| image_type.len() == 2);
        let kind = kind.unwrap_or_default();
        let values = |sources: &[Source]| -> Vec<Word> {
            sources
                .iter()
                .map(|source| value(data_set, index, *source))
                .collect()
        };
        let localizer = kind == "LOCALIZER";
        let mut content = values(&CONTENT);
        content.extend([gradient(data_set, index), Word::Text(kind)]);
        let mut repetition = values(&REPETITION);
        repetition.extend([Word::Text(further.join("\\")), dimensions(data_set, index)]);
        Self {
            localizer,
            content,
            repetition,
        }
    }
}

fn image_type(data_set: &DataSet, index: usize) -> Vec<String> {
    let group = FRAME_TYPES
        .iter()
        .find_map(|sequence| functional_groups::find(data_set, index, *sequence))
        .filter(|group| group.has_value(tags::FRAME_TYPE));
    let values = match group {
        Some(group) => group.strings(tags::FRAME_TYPE),
        None => data_set.strings(tags::IMAGE_TYPE),
    };
    values.iter().map(|value| value.to_string()).collect()
}

fn value(data_set: &DataSet, index: usize, (plain, grouped): Source) -> Word {
    let grouped = grouped.and_then(|(sequence, tag)| {
        let group = functional_groups::find(data_set, index, sequence)?;
        Some(word(group, tag))
    });
    grouped
        .or_else(|| plain.map(|tag| word(data_set, tag)))
        .unwrap_or(Word::Absent)
}

/// Diffusion Gradient Orientation (0018,9089) of an enhanced object.
fn gradient(data_set: &DataSet, index: usize) -> Word {
    functional_groups::find(data_set, index, tags::MR_DIFFUSION_SEQUENCE)
        .and_then(|group| group.item(tags::DIFFUSION_GRADIENT_DIRECTION_SEQUENCE))
        .map_or(Word::Absent, |item| {
            word(item, tags::DIFFUSION_GRADIENT_ORIENTATION)
        })
}

/// Dimension Index Values (0020,9157) but for the spatial dimensions (PS3.3 C.7.6.17).
fn dimensions(data_set: &DataSet, index: usize) -> Word {
    let pointers = data_set.items(tags::DIMENSION_INDEX_SEQUENCE);
    let Some(content) = functional_groups::find(data_set, index, tags::FRAME_CONTENT_SEQUENCE)
    else {
        return Word::Absent;
    };
    let values = content.floats(tags::DIMENSION_INDEX_VALUES);
    if values.len() != pointers.len() {
        return Word::Absent;
    }
    let values = values
        .iter()
        .zip(pointers)
        .filter(|(_, item)| pointer(item).is_none_or(|tag| !SPATIAL.contains(&tag)));
    Word::Numbers(values.map(|(value, _)| sortable(*value)).collect())
}

/// Dimension Index Pointer (0020,9165).
fn pointer(item: &DataSet) -> Option<Tag> {
    let &[a, b, c, d] = item.bytes(tags::DIMENSION_INDEX_POINTER)? else {
        return None;
    };
    let word = |bytes| match item.is_big_endian() {
        true => u16::from_be_bytes(bytes),
        false => u16::from_le_bytes(bytes),
    };
    Some(Tag(word([a, b]), word([c, d])))
}

fn word(data_set: &DataSet, tag: Tag) -> Word {
    let numbers = data_set.floats(tag);
    if !numbers.is_empty() {
        return Word::Numbers(numbers.into_iter().map(sortable).collect());
    }
    match data_set.str(tag) {
        Some(text) => Word::Text(text.into_owned()),
        None => Word::Absent,
    }
}

/// An integer in the order of finite numbers, the same for both zeros.
fn sortable(number: f64) -> u64 {
    let bits = (number + 0.0).to_bits();
    if bits >> 63 == 0 {
        bits | 1 << 63
    } else {
        !bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_order() {
        let numbers = [-11.5, -4.5, -0.0, 1e-9, 4.5, 11.5];
        assert!(numbers.is_sorted_by_key(|number| sortable(*number)));
        assert_eq!(sortable(0.0), sortable(-0.0));
    }
}
