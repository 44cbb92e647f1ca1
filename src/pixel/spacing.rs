//! How large a pixel is in the patient (PS3.3 §10.7.1.3).
//!
//! Only Pixel Spacing says so. Imager Pixel Spacing and Nominal Scanned Pixel Spacing are measured at
//! the detector and on the film; where Pixel Spacing has the same values as one of them, nobody has
//! corrected it for the magnification, and it says no more than they do.

use dicom::dictionary_std::tags;

use super::functional_groups;
use crate::dicom::dataset::DataSet;

/// Pixel sizes that exist.
const SPACING_MM: std::ops::RangeInclusive<f64> = 1e-3..=1e3;

/// Distance of neighbouring rows, then of neighbouring columns, in mm, in the plane of the patient
/// that frame `frame` (from 0) shows; none where the file does not state it.
pub fn in_patient(data_set: &DataSet, frame: usize) -> Option<[f64; 2]> {
    let measures = functional_groups::find(data_set, frame, tags::PIXEL_MEASURES_SEQUENCE);
    let read = |data_set: &DataSet, tag| <[f64; 2]>::try_from(data_set.floats(tag)).ok();
    let spacing = read(data_set, tags::PIXEL_SPACING)
        .or_else(|| read(measures?, tags::PIXEL_SPACING))
        .filter(|spacing| spacing.iter().all(|mm| SPACING_MM.contains(mm)))?;
    let uncorrected = [
        tags::IMAGER_PIXEL_SPACING,
        tags::NOMINAL_SCANNED_PIXEL_SPACING,
    ]
    .into_iter()
    .any(|tag| read(data_set, tag) == Some(spacing));
    (!uncorrected).then_some(spacing)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::dicom::dataset::{DicomFile, ReadLimits};

    fn of(elements: &[(u16, u16, &str)]) -> Option<[f64; 2]> {
        let mut bytes = vec![0; 128];
        bytes.extend(b"DICM");
        bytes.extend(b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\0");
        for (group, element, value) in elements {
            bytes.extend(group.to_le_bytes());
            bytes.extend(element.to_le_bytes());
            bytes.extend(b"DS");
            bytes.extend((value.len() as u16).to_le_bytes());
            bytes.extend(value.as_bytes());
        }
        let file = DicomFile::from_bytes(bytes, &ReadLimits::default()).unwrap();
        in_patient(file.data_set(), 0)
    }

    #[test]
    fn only_a_spacing_in_the_patient_counts() {
        let spacing = (0x0028, 0x0030, "0.2\\0.1 ");
        assert_eq!(of(&[spacing]), Some([0.2, 0.1]));
        assert_eq!(of(&[(0x0018, 0x1164, "0.2\\0.1 ")]), None);
        assert_eq!(of(&[(0x0018, 0x1164, "0.2\\0.1 "), spacing]), None);
        assert_eq!(of(&[(0x0018, 0x2010, "0.2\\0.1 "), spacing]), None);
        assert_eq!(
            of(&[(0x0018, 0x1164, "0.3\\0.1 "), spacing]),
            Some([0.2, 0.1])
        );
        assert_eq!(of(&[(0x0028, 0x0030, "0\\0.1 ")]), None);
        assert_eq!(of(&[(0x0028, 0x0030, "0.1 ")]), None);
    }
}
