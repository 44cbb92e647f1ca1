//! What the data sets of N-CREATE and N-SET say (PS3.4 Table F.7.2-1): of all their attributes, those
//! that tell which studies a step belongs to, how it stands, and what it made.

use std::collections::BTreeMap;

use dicom::core::Tag;
use dicom::dictionary_std::tags;

use super::State;
use crate::dicom::dataset::{DataSet, ReadLimits, Value, read_data_set};
use crate::dicom::{SopClassUid, SopInstanceUid, StudyInstanceUid};

/// Nested sequences of a step stay below this; a list of 60,000 instances has some 300,000 elements.
const LIMITS: ReadLimits = ReadLimits {
    max_depth: 16,
    max_elements: 500_000,
    max_value_in_memory: 64 << 10,
    max_values_in_memory: 16 << 20,
    max_inflated: 16 << 20,
    max_inflate_ratio: 250,
};

/// Longest code of a reason that is kept. Code Value (0008,0100) has at most 16 characters.
const MAX_CODE: usize = 16;

/// Why a data set is not accepted. The names are those of attributes; values are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No data set in the context's transfer syntax.
    #[error("data set cannot be read")]
    Unreadable,
    /// An attribute that must be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// An attribute that must have a value has none.
    #[error("{0} has no value")]
    NoValue(&'static str),
    /// An attribute has a value that it may not have.
    #[error("{0} is not valid")]
    Value(&'static str),
}

const STATUS: &str = "Performed Procedure Step Status";
const REFERENCE: &str = "Referenced SOP";

/// What an N-CREATE says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beginning {
    /// Study Instance UIDs of the Scheduled Step Attributes Sequence (0040,0270), each once. One
    /// that is no UID is left out: a step is kept even when it is evidence of nothing.
    pub studies: Vec<StudyInstanceUid>,
    /// As in [`Change`].
    pub references: Option<Vec<(SopClassUid, SopInstanceUid)>>,
}

/// What an N-SET says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Performed Procedure Step Status (0040,0252), if it is there.
    pub state: Option<State>,
    /// Code Value of the Performed Procedure Step Discontinuation Reason Code Sequence (0040,0281).
    pub discontinuation: Option<String>,
    /// Instances of all series of the Performed Series Sequence (0040,0340), each once and in order;
    /// `None` when there is no series.
    pub references: Option<Vec<(SopClassUid, SopInstanceUid)>>,
}

impl Beginning {
    /// Reads the data set of an N-CREATE.
    ///
    /// # Errors
    /// [`Fault`]; the status must be `IN PROGRESS` (PS3.4 F.7.2.1.3).
    pub fn read(bytes: &[u8], transfer_syntax: &str) -> Result<Self, Fault> {
        let data_set = read(bytes, transfer_syntax)?;
        match state(&data_set)? {
            None => return Err(Fault::Missing(STATUS)),
            Some(State::InProgress) => {}
            Some(_) => return Err(Fault::Value(STATUS)),
        }
        let mut studies: Vec<StudyInstanceUid> = Vec::new();
        for item in data_set.items(tags::SCHEDULED_STEP_ATTRIBUTES_SEQUENCE) {
            let uid = item.uid(tags::STUDY_INSTANCE_UID);
            let study = uid.and_then(|uid| StudyInstanceUid::parse(&uid).ok());
            studies.extend(study);
        }
        studies.sort();
        studies.dedup();
        Ok(Self {
            studies,
            references: references(&data_set)?,
        })
    }
}

impl Change {
    /// Reads the data set of an N-SET.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn read(bytes: &[u8], transfer_syntax: &str) -> Result<Self, Fault> {
        let data_set = read(bytes, transfer_syntax)?;
        let state = state(&data_set)?;
        let sequence = tags::PERFORMED_PROCEDURE_STEP_DISCONTINUATION_REASON_CODE_SEQUENCE;
        let reason = data_set.item(sequence).and_then(|item| {
            let code = item.str(tags::CODE_VALUE)?;
            // A code and nothing else: it is shown to whoever asks for the study.
            let is_code = code.len() <= MAX_CODE && code.bytes().all(|b| b.is_ascii_graphic());
            is_code.then(|| code.into_owned())
        });
        Ok(Self {
            state,
            discontinuation: reason.filter(|_| state == Some(State::Discontinued)),
            references: references(&data_set)?,
        })
    }
}

fn read(bytes: &[u8], transfer_syntax: &str) -> Result<DataSet, Fault> {
    read_data_set(bytes, transfer_syntax, &LIMITS).map_err(|_| Fault::Unreadable)
}

fn state(data_set: &DataSet) -> Result<Option<State>, Fault> {
    let tag = tags::PERFORMED_PROCEDURE_STEP_STATUS;
    if data_set.get(tag).is_none() {
        return Ok(None);
    }
    let term = data_set.str(tag).ok_or(Fault::NoValue(STATUS))?;
    State::parse(&term).map(Some).ok_or(Fault::Value(STATUS))
}

/// A reference that cannot be read fails the whole list: a list with holes would be complete when the
/// study is not.
fn references(data_set: &DataSet) -> Result<Option<Vec<(SopClassUid, SopInstanceUid)>>, Fault> {
    let series = sequence(data_set, tags::PERFORMED_SERIES_SEQUENCE)?;
    if series.is_empty() {
        return Ok(None);
    }
    let mut classes: BTreeMap<SopInstanceUid, SopClassUid> = BTreeMap::new();
    let mut references = Vec::new();
    for series in series {
        for list in [
            tags::REFERENCED_IMAGE_SEQUENCE,
            tags::REFERENCED_NON_IMAGE_COMPOSITE_SOP_INSTANCE_SEQUENCE,
        ] {
            for item in sequence(series, list)? {
                let class = uid(item, tags::REFERENCED_SOP_CLASS_UID)?;
                let class = SopClassUid::parse(&class).map_err(|_| Fault::Value(REFERENCE))?;
                let instance = uid(item, tags::REFERENCED_SOP_INSTANCE_UID)?;
                let instance =
                    SopInstanceUid::parse(&instance).map_err(|_| Fault::Value(REFERENCE))?;
                match classes.get(&instance) {
                    None => {
                        classes.insert(instance.clone(), class.clone());
                        references.push((class, instance));
                    }
                    Some(listed) if *listed == class => {}
                    Some(_) => return Err(Fault::Value(REFERENCE)),
                }
            }
        }
    }
    Ok(Some(references))
}

/// The items of a sequence, which may be empty or absent but not something else.
fn sequence(data_set: &DataSet, tag: Tag) -> Result<&[DataSet], Fault> {
    match data_set.get(tag).map(|element| &element.value) {
        None => Ok(&[]),
        Some(Value::Items(items)) => Ok(items),
        Some(Value::Bytes(bytes)) if bytes.is_empty() => Ok(&[]),
        Some(_) => Err(Fault::Unreadable),
    }
}

fn uid(item: &DataSet, tag: Tag) -> Result<std::borrow::Cow<'_, str>, Fault> {
    item.uid(tag).ok_or(Fault::NoValue(REFERENCE))
}
