//! From stored pixels to a model's tensor, exactly or not at all.
//!
//! The stages, each in its own file and each a pure function of its arguments:
//!
//! ```text
//! frames ─▶ codec ─▶ stored ─▶ modality ─▶ voi ─▶ presentation ─▶ resize ─▶ tensor
//! bytes     cells    values    units       0..1   white is 1      grid      what the model was trained on
//! ```
//!
//! - A number or a refusal: whatever cannot be decoded exactly is a [`Refusal`] with a stable code.
//! - Dimensions are compared with the data and with [`Limits`] before anything is allocated, and
//!   the header of a compressed frame must agree with the attributes before a codec sees it.
//! - No path, socket or clock is visible here.

pub mod codec;
pub mod colour;
pub mod frames;
pub mod functional_groups;
pub mod layout;
pub mod lut;
pub mod modality;
pub mod picture;
pub mod prepare;
pub mod render;
pub mod resize;
pub mod spacing;
pub mod statistics;
pub mod stored;
pub mod transform;
pub mod voi;

pub use frames::Frames;
pub use layout::{Layout, Photometric};
pub use picture::{Picture, picture};
pub use prepare::{placement, prepare};
pub use statistics::Statistics;
pub use stored::{Image, Samples, decode, decode_frame};

use crate::dicom::dataset::ReadError;
pub use crate::refusal::Refusal;

/// What decoding one instance may cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Decoded bytes of one frame.
    pub max_frame_bytes: u64,
    /// Decoded bytes of all frames together, where a caller wants them at once.
    pub max_image_bytes: u64,
    /// Memory a codec may need besides its input and output, estimated before it starts.
    pub max_working_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_frame_bytes: 256 << 20,
            max_image_bytes: 2 << 30,
            max_working_bytes: 400 << 20,
        }
    }
}

impl From<ReadError> for Refusal {
    fn from(err: ReadError) -> Self {
        let code = match &err {
            ReadError::Io(_) => "read-failed",
            ReadError::NotDicom => "not-dicom",
            ReadError::Truncated { .. } => "data-set-truncated",
            ReadError::Malformed { .. } => "data-set-malformed",
            ReadError::Limit { .. } => "too-large",
        };
        Self::new(code, err.to_string())
    }
}
