//! Our own bounded reader for DICOM data sets and Part 10 files (PS3.5 §7, PS3.10 §7).
//!
//! Why not `dicom-object`: it allocates by declared length, so a forty-byte file can ask for four
//! gigabytes. Here a length is compared with the bytes that are really there before anything is
//! reserved, nesting is a stack on the heap with a limit (never recursion), elements are counted,
//! and a deflated data set has a ceiling before it is inflated.
//!
//! Two ways in:
//! - [`identify`] walks the whole structure once, skips every value, and answers "is this a data
//!   set, and whose?"; a receiver calls it before it promises to keep an instance.
//! - [`DicomFile::read`] keeps the values in memory, except large ones and pixel data, which stay
//!   in the file as ranges. [`read_data_set`] does the same for the data set of a DIMSE message.
//!
//! Character sets beyond the default repertoire are not interpreted: text is returned for matching
//! codes, not for showing names.

mod encoding;
mod identify;
mod inflate;
mod meta;
mod read;
mod source;
mod value;
mod walk;
mod write;

pub use encoding::Vr;
pub use identify::{Defect, Identity, identify, identify_within};
pub use meta::FileMeta;
pub use read::{DicomFile, read_data_set};
pub use value::{DataSet, Element, Range, Value};
pub use write::Writer;

use std::io;

use dicom::core::Tag;

/// What a reader may spend on one data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadLimits {
    /// How deep sequences may nest; the deepest standard objects stay below ten.
    pub max_depth: usize,
    /// Elements, items and fragments together.
    pub max_elements: u64,
    /// Values above this many bytes stay in the file as a range.
    pub max_value_in_memory: u32,
    /// Sum of the values kept in memory, in bytes.
    pub max_values_in_memory: u64,
    /// Size of an inflated deflated data set, in bytes.
    pub max_inflated: u64,
    /// Inflated bytes allowed for each deflated byte once [`Self::FREE_INFLATED`] bytes are out.
    pub max_inflate_ratio: u64,
}

impl ReadLimits {
    /// Inflated bytes that are always allowed: small data sets of zeros compress a thousandfold.
    pub const FREE_INFLATED: u64 = 16 << 20;
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self {
            max_depth: 128,
            max_elements: 2_000_000,
            max_value_in_memory: 256 << 10,
            max_values_in_memory: 128 << 20,
            max_inflated: 512 << 20,
            max_inflate_ratio: 250,
        }
    }
}

/// Why a data set or file could not be read. No variant carries a value from the data set.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The operating system failed, not the data.
    #[error("reading the data set failed")]
    Io(#[from] io::Error),
    /// Neither a Part 10 file nor a bare data set.
    #[error("not a DICOM file")]
    NotDicom,
    /// The bytes end inside an element, item or sequence.
    #[error("the data set ends inside {what} at byte {at}")]
    Truncated {
        /// Byte position in the data set (inflated when it was deflated).
        at: u64,
        /// What was being read.
        what: &'static str,
    },
    /// The structure contradicts PS3.5.
    #[error("malformed data set: {what} at byte {at}, element {tag}")]
    Malformed {
        /// Byte position in the data set (inflated when it was deflated).
        at: u64,
        /// The element concerned, or the last one read.
        tag: Tag,
        /// What is wrong.
        what: &'static str,
    },
    /// A limit of [`ReadLimits`] was reached.
    #[error("the data set exceeds the limit on {what}")]
    Limit {
        /// Which limit.
        what: &'static str,
    },
}

impl ReadError {
    /// Whether the data set may be sound but is more than we are willing to read.
    pub fn is_limit(&self) -> bool {
        matches!(self, Self::Limit { .. })
    }

    /// Whether the operating system failed, so that the same bytes may be readable later.
    pub fn is_io(&self) -> bool {
        matches!(self, Self::Io(_))
    }
}
