//! Attributes that the standard does not have under one name, computed from those it has.

use dicom::core::Tag;
use dicom::dictionary_std::tags;

use super::Instance;
use super::attribute::{Held, find, years};
use crate::dicom::TransferSyntax;
use crate::dicom::dataset::DataSet;
use crate::dicom::transfer_syntax::Compression;

/// A derived attribute. `docs/models.md` says the same in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Derived {
    /// Patient's Age (0010,1010) in years; else the completed months from Patient's Birth Date to Study
    /// Date, divided by 12.
    AgeYears,
    /// Whether the pixels may have been changed by a compression: Lossy Image Compression (0028,2110)
    /// is `01`, or the transfer syntax is one that can be lossy and the attribute does not say `00`.
    Lossy,
    /// Transfer Syntax UID.
    TransferSyntax,
    /// Rows (0028,0010).
    Rows,
    /// Columns (0028,0011).
    Columns,
    /// The smaller of the two.
    Matrix,
    /// The larger side in mm: rows and columns times their Pixel Spacing; without it times Imager Pixel
    /// Spacing (0018,1164), which is the size at the detector.
    FieldOfView,
    /// Pixel Spacing in mm, the larger of the two, from the same place.
    PixelSpacing,
    /// Slice Thickness (0018,0050) in mm, of the data set or of its Pixel Measures Sequence.
    SliceThickness,
    /// Number of Frames (0028,0008), 1 when absent.
    Frames,
    /// Calling AE title of the association.
    CallingAe,
    /// Called AE title of the association.
    CalledAe,
    /// How many instances the unit has that the model applies to; to order by only.
    Instances,
}

impl Derived {
    pub(super) const ALL: [(Self, &'static str); 13] = [
        (Self::AgeYears, "age_years"),
        (Self::Lossy, "lossy"),
        (Self::TransferSyntax, "transfer_syntax"),
        (Self::Rows, "rows"),
        (Self::Columns, "columns"),
        (Self::Matrix, "matrix"),
        (Self::FieldOfView, "field_of_view_mm"),
        (Self::PixelSpacing, "pixel_spacing_mm"),
        (Self::SliceThickness, "slice_thickness_mm"),
        (Self::Frames, "frames"),
        (Self::CallingAe, "calling_ae"),
        (Self::CalledAe, "called_ae"),
        (Self::Instances, "instances"),
    ];

    pub(super) fn parse(name: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(_, known)| *known == name);
        found.map(|(derived, _)| *derived)
    }

    pub(super) fn values(self, instance: &Instance<'_>) -> Vec<Held> {
        let Instance { known, data_set } = instance;
        let text = |text: &str| {
            let some = !text.is_empty();
            some.then(|| Held::text(text))
        };
        let (rows, columns) = (
            positive(data_set, tags::ROWS),
            positive(data_set, tags::COLUMNS),
        );
        let number = |number: Option<f64>| number.map(Held::number);
        let value = match self {
            Self::AgeYears => number(age(data_set)),
            Self::Lossy => Some(Held::text(match lossy(data_set, &known.transfer_syntax) {
                true => "true",
                false => "false",
            })),
            Self::TransferSyntax => text(&known.transfer_syntax),
            Self::Rows => number(rows),
            Self::Columns => number(columns),
            Self::Matrix => number(rows.zip(columns).map(|(r, c)| r.min(c))),
            Self::FieldOfView => {
                let size = rows.zip(columns).zip(spacing(data_set));
                number(size.map(|((r, c), [down, across])| (r * down).max(c * across)))
            }
            Self::PixelSpacing => number(spacing(data_set).map(|[down, across]| down.max(across))),
            Self::SliceThickness => number(
                first(data_set, &[tags::SLICE_THICKNESS])
                    .or_else(|| first(data_set, &[MEASURES, tags::SLICE_THICKNESS])),
            ),
            Self::Frames => number(Some(
                positive(data_set, tags::NUMBER_OF_FRAMES).unwrap_or(1.0),
            )),
            Self::CallingAe => text(&known.calling_ae),
            Self::CalledAe => text(&known.called_ae),
            Self::Instances => None,
        };
        value.into_iter().collect()
    }
}

const MEASURES: Tag = tags::PIXEL_MEASURES_SEQUENCE;

fn positive(data_set: &DataSet, tag: Tag) -> Option<f64> {
    data_set.float(tag).filter(|value| *value > 0.0)
}

fn first(data_set: &DataSet, path: &[Tag]) -> Option<f64> {
    find(data_set, path).first()?.number
}

/// Distance of rows, of columns.
fn spacing(data_set: &DataSet) -> Option<[f64; 2]> {
    [
        &[tags::PIXEL_SPACING][..],
        &[MEASURES, tags::PIXEL_SPACING],
        &[tags::IMAGER_PIXEL_SPACING],
    ]
    .into_iter()
    .map(|path| find(data_set, path))
    .find(|values| !values.is_empty())
    .and_then(|values| match values.as_slice() {
        [down, across] => Some([down.number?, across.number?]),
        _ => None,
    })
    .filter(|spacing| spacing.iter().all(|value| *value > 0.0))
}

fn lossy(data_set: &DataSet, transfer_syntax: &str) -> bool {
    let may_be = TransferSyntax::lookup(transfer_syntax)
        .is_some_and(|s| matches!(s.compression, Compression::Lossy | Compression::Video));
    match data_set.str(tags::LOSSY_IMAGE_COMPRESSION).as_deref() {
        Some("01") => true,
        Some("00") => may_be && !may_be_either(transfer_syntax),
        _ => may_be,
    }
}

/// Transfer syntaxes for either: JPEG 2000, its second part, JPEG-LS near-lossless with an error of
/// 0, JPEG XL, High-Throughput JPEG 2000.
fn may_be_either(transfer_syntax: &str) -> bool {
    let last = transfer_syntax.strip_prefix("1.2.840.10008.1.2.4.");
    last.is_some_and(|last| ["81", "91", "93", "112", "203"].contains(&last))
}

fn age(data_set: &DataSet) -> Option<f64> {
    let stated = data_set.str(tags::PATIENT_AGE);
    if let Some(age) = stated.and_then(|text| years(&text)) {
        return Some(age);
    }
    let born = date(&data_set.str(tags::PATIENT_BIRTH_DATE)?)?;
    let at = date(&data_set.str(tags::STUDY_DATE)?)?;
    let months = (at[0] - born[0]) * 12 + at[1] - born[1] - i32::from(at[2] < born[2]);
    (months >= 0).then(|| f64::from(months) / 12.0)
}

/// Year, month and day of a DA value (PS3.5 §6.2).
fn date(text: &str) -> Option<[i32; 3]> {
    if text.len() != 8 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let part = |range| text.get(range).and_then(|digits: &str| digits.parse().ok());
    Some([part(0..4)?, part(4..6)?, part(6..8)?])
}
