//! Where the values of a tensor are in the image or the volume they were made from, so that what a
//! model says about a place can be said about the source.
//!
//! Continuous coordinates: 0 is the outer edge of the first pixel, 1 the edge between the first and
//! the second, as in PS3.3 §C.18.6.1.2.

use serde::{Deserialize, Serialize};

/// Where a sample's tensor lies in its source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Placement {
    /// One frame.
    Image(ImagePlacement),
}

/// Where the pixels of an input tensor are in the frame: `source = offset + scale × tensor`, for rows
/// and for columns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImagePlacement {
    /// Rows of the frame.
    pub rows: usize,
    /// Columns of the frame.
    pub columns: usize,
    /// Pixels of the frame per pixel of the tensor: down, across.
    pub scale: [f64; 2],
    /// Where the tensor's first edge is in the frame: down, across. Below 0 where it was padded.
    pub offset: [f64; 2],
    /// Pixel Spacing (0028,0030) in mm: between rows, between columns.
    pub spacing_mm: Option<[f64; 2]>,
}
