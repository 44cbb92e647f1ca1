//! From the planes of a series to one three-dimensional tensor, exactly or not at all.
//!
//! ```text
//! headers ─▶ slices ─▶ arrange ─▶ plane (each by itself) ─▶ assemble ─▶ tensor
//!            geometry   split,     values, in-plane          along the
//!            and keys   sort,      resampling and crop       normal, pad,
//!                       check                                normalise
//! ```
//!
//! Resampling a rectilinear grid is separable. So everything inside a plane is done plane by plane,
//! where the pixels are decoded, and only the small result is kept for the step along the normal.
//!
//! - Positions come from Image Position, Image Orientation and Pixel Spacing alone; neither Slice
//!   Thickness, Spacing Between Slices, Instance Number nor Imager Pixel Spacing is believed.
//! - What is irregular beyond the manifest's conditions is a [`Refusal`] that names the figure.
//! - Headers decide the plan before a pixel is read, and the plan bounds the memory.

pub mod assemble;
pub mod geometry;
pub mod keys;
pub mod orientation;
pub mod plane;
pub mod resample;
pub mod stack;

pub use assemble::Volume;
pub use geometry::Geometry;
pub use keys::Keys;
pub use plane::{PlaneSpec, plane, plane_measured};

use crate::dicom::dataset::DicomFile;
use crate::model::VolumeSpec;
use crate::model::volume::Several;
use crate::pixel::{Layout, Limits};
use crate::refusal::Refusal;

/// One frame of one file, as far as its header tells.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    /// The caller's index of the file.
    pub file: usize,
    /// Frame in the file, from 0.
    pub frame: usize,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Where it is.
    pub geometry: Geometry,
    /// What tells it from frames of other volumes.
    pub keys: Keys,
}

/// Every frame of `file` as a slice; `index` is the caller's index of it. Reads the header only.
///
/// # Errors
/// What [`Layout::read`] refuses; `photometric-unsupported` for colour; `geometry-missing` and
/// `geometry-invalid`.
pub fn slices(file: &DicomFile, index: usize) -> Result<Vec<Slice>, Refusal> {
    let data_set = file.data_set();
    let layout = Layout::read(data_set, &Limits::default())?;
    if !layout.photometric.is_monochrome() {
        return Err(Refusal::new(
            "photometric-unsupported",
            format!("a volume of {} images", layout.photometric.as_str()),
        ));
    }
    // Proves that the file has something to say about every frame, so the count is not only a claim.
    let geometry = geometry::of_frames(data_set, layout.frames)?;
    let slices = geometry.into_iter().enumerate();
    Ok(slices
        .map(|(frame, geometry)| Slice {
            file: index,
            frame,
            rows: layout.rows,
            columns: layout.columns,
            geometry,
            keys: Keys::read(data_set, frame),
        })
        .collect())
}

/// Splits, sorts and checks the slices of one series; one plan per volume that `spec` wants. The
/// order of `slices` does not matter.
///
/// # Errors
/// A [`Refusal`] with the figure: `several-volumes`, `too-few-planes`, `mixed-sizes`,
/// `mixed-spacing`, `duplicate-position`, `gantry-tilt`, `slice-gap`, `slice-uneven`,
/// `planes-shifted`, `oblique`, `too-large`.
pub fn arrange(slices: Vec<Slice>, spec: &VolumeSpec) -> Result<Vec<Volume>, Refusal> {
    let mut stacks = stack::split(slices)?;
    let largest = stacks.iter().map(Vec::len).max().unwrap_or(0);
    if spec.table.several == Several::Largest {
        stacks.retain(|stack| stack.len() == largest);
    }
    if spec.table.several != Several::Each && stacks.len() > 1 {
        let mut sizes: Vec<String> = stacks.iter().map(|s| s.len().to_string()).collect();
        if sizes.len() > 5 {
            sizes.truncate(5);
            sizes.push("…".to_owned());
        }
        return Err(Refusal::new(
            "several-volumes",
            format!("{} volumes, of {} planes", stacks.len(), sizes.join(", ")),
        ));
    }
    if stacks.is_empty() {
        // Nothing, or localizers alone.
        stacks.push(Vec::new());
    }
    stacks
        .into_iter()
        .map(|stack| Volume::plan(&stack::check(stack, &spec.table)?, spec))
        .collect()
}
