//! A region of a volume as NIfTI-1 (`.nii.gz`), in the grid of its source.
//!
//! Unsigned bytes, 1 inside and 0 outside, columns first, then rows, then planes; the affine (sform)
//! leads from their indices to the patient in mm, towards right, anterior and superior as NIfTI has
//! it. Planes at uneven distances have their mean distance. No name, no date: the same region
//! gives the same bytes. Format: nifti1.h, NIfTI-1.1 (2003).

use std::io::{self, Write};

use flate2::{Compression, GzBuilder};

use super::mask::Mask;
use crate::model::VolumePlacement;

const HEADER: usize = 348;
/// Header and the four bytes that say that no extension follows.
const VOXEL_OFFSET: usize = HEADER + 4;
/// `DT_UNSIGNED_CHAR`.
const UNSIGNED_BYTES: i16 = 2;
/// `NIFTI_INTENT_LABEL`.
const LABEL: i16 = 1002;
/// `NIFTI_XFORM_SCANNER_ANAT`.
const SCANNER: i16 = 1;
/// `NIFTI_UNITS_MM`.
const MILLIMETRES: u8 = 2;

/// The file. Memory: its compressed size and one row.
///
/// # Errors
/// When a dimension does not fit in the format's 16 bits.
pub fn encode(mask: &Mask, placement: &VolumePlacement) -> io::Result<Vec<u8>> {
    let header = header(mask.size, placement)?;
    // No time and no system, so that the bytes depend on nothing else.
    let mut file = GzBuilder::new()
        .mtime(0)
        .operating_system(255)
        .write(Vec::new(), Compression::fast());
    file.write_all(&header)?;
    let [planes, rows, columns] = mask.size;
    let mut runs = mask.runs().iter().peekable();
    let mut line = vec![0; columns];
    for plane in 0..planes {
        for row in 0..rows {
            line.fill(0);
            while let Some(run) =
                runs.next_if(|run| (run.plane as usize, run.row as usize) == (plane, row))
            {
                let inside = line.get_mut(run.start as usize..run.end as usize);
                inside.unwrap_or_default().fill(1);
            }
            file.write_all(&line)?;
        }
    }
    file.finish()
}

fn header([planes, rows, columns]: [usize; 3], placement: &VolumePlacement) -> io::Result<Vec<u8>> {
    let mut header = vec![0; VOXEL_OFFSET];
    let mut put = |at: usize, bytes: &[u8]| {
        let place = header.get_mut(at..at + bytes.len());
        place.unwrap_or_default().copy_from_slice(bytes);
    };
    let distance = placement
        .line
        .map(|part| part / planes.saturating_sub(1).max(1) as f64);
    let [between_rows, between_columns] = placement.spacing_mm;
    let axes = [
        placement.row.map(|part| part * between_columns),
        placement.column.map(|part| part * between_rows),
        distance,
    ];
    put(0, &(HEADER as i32).to_le_bytes());
    for (index, size) in [3, columns, rows, planes, 1, 1, 1, 1]
        .into_iter()
        .enumerate()
    {
        let size = i16::try_from(size).map_err(io::Error::other)?;
        put(40 + 2 * index, &size.to_le_bytes());
    }
    put(68, &LABEL.to_le_bytes());
    put(70, &UNSIGNED_BYTES.to_le_bytes());
    put(72, &8i16.to_le_bytes());
    let length = |axis: [f64; 3]| axis.iter().map(|part| part * part).sum::<f64>().sqrt();
    let steps = axes.map(length);
    for (index, step) in [1.0, steps[0], steps[1], steps[2]].into_iter().enumerate() {
        put(76 + 4 * index, &(step as f32).to_le_bytes());
    }
    put(108, &(VOXEL_OFFSET as f32).to_le_bytes());
    put(123, &[MILLIMETRES]);
    put(254, &SCANNER.to_le_bytes());
    for patient in 0..3 {
        // DICOM counts towards left and posterior, NIfTI towards right and anterior.
        let sign = if patient < 2 { -1.0 } else { 1.0 };
        let columns = axes.map(|axis| axis[patient]);
        let row = [
            columns[0],
            columns[1],
            columns[2],
            placement.position[patient],
        ];
        for (index, value) in row.into_iter().enumerate() {
            // Adding 0 turns -0 into 0.
            let value = (sign * value + 0.0) as f32;
            put(280 + 16 * patient + 4 * index, &value.to_le_bytes());
        }
    }
    put(344, b"n+1\0");
    Ok(header)
}
