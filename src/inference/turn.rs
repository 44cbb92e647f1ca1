//! Whose turn it is.

use crate::model::manifest::Priority;

/// What a piece of work is ordered by: the urgent first, then modalities in turn, then studies in
/// turn, so that a CT of 3,000 slices does not hold up one chest film.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Urgency of the study.
    pub priority: Priority,
    /// Modality (0008,0060).
    pub modality: String,
    /// Tells studies of one modality apart.
    pub study: u64,
}
