//! Functional groups of enhanced multi-frame objects (PS3.3 C.7.6.16): the macro for one frame,
//! from the frame's own item or from the item that all frames share.

use dicom::core::Tag;
use dicom::dictionary_std::tags;

use crate::dicom::dataset::DataSet;

/// The first item of the macro `sequence` that applies to frame `index` (from 0).
pub fn find(data_set: &DataSet, index: usize, sequence: Tag) -> Option<&DataSet> {
    data_set
        .items(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE)
        .get(index)
        .and_then(|groups| groups.item(sequence))
        .or_else(|| {
            data_set
                .item(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE)
                .and_then(|groups| groups.item(sequence))
        })
}
