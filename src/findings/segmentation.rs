//! Regions: from the probability of every pixel of a tensor to regions of the source, their size and
//! a mask.
//!
//! Answers that were mirrored are mirrored back, and the mean of all is taken; the mean is brought to
//! the source's grid and compared with the label's threshold there. Measured is what the source
//! has, so that a size does not depend on the size of the tensor. Codes: PS3.16 CID 7470, 7471,
//! 7472; units: UCUM.

use super::activation::{self, Activate};
use super::diameter;
use super::mask::Mask;
use super::nifti;
use super::regrid::{Region as Found, Regrid};
use super::{Draft, Finding, Location, Measurement, Reading, Said, Sample};
use crate::model::manifest::{Code, Flip, Priority, Region, Segmentation};
use crate::model::{Placement, VolumePlacement};
use crate::refusal::Refusal;

/// Regions of a study: for each label one finding, with its mask, per image or volume where the
/// label is present; one with the largest region, or the highest probability, where it is nowhere.
///
/// # Errors
/// `model-output-not-finite`, `model-output-not-probability`, `model-output-shape`,
/// `model-output-too-short`, `model-output-too-large`; `too-large` for a source with more pixels
/// than are looked at; `geometry-missing` where a label's smallest area needs a Pixel Spacing that
/// the image does not have.
pub fn read(output: &Segmentation, samples: &[Sample]) -> Result<Reading, Refusal> {
    let mut present: Vec<Vec<(Finding, Option<File>)>> = vec![Vec::new(); output.labels.len()];
    let mut absent: Vec<Option<(usize, Finding)>> = vec![None; output.labels.len()];
    for sample in samples {
        let placement = sample.placement.as_ref();
        let placement =
            placement.ok_or_else(|| Refusal::new("internal-error", "regions of no image"))?;
        let regrid = Regrid::new(placement)?;
        let answers = answers(output, &sample.answers, &regrid)?;
        let places = present.iter_mut().zip(&mut absent);
        for (region, (present, absent)) in output.labels.iter().zip(places) {
            let probabilities = mean(output, &answers, region.index, regrid.tensor());
            let found = regrid.region(&probabilities, region.threshold)?;
            // Not needed while the mask is measured and written.
            drop(probabilities);
            let pixels = found.mask.pixels();
            let finding = measure(region, &found, sample.location.as_ref(), placement)?;
            if finding.present {
                present.push((finding, Some(file(&found.mask, placement)?)));
            } else {
                let rank = |pixels: usize, finding: &Finding| (pixels, finding.probability);
                let before = absent
                    .as_ref()
                    .map(|(pixels, finding)| rank(*pixels, finding));
                if before.is_none_or(|before| rank(pixels, &finding) > before) {
                    *absent = Some((pixels, finding));
                }
            }
        }
    }
    let mut reading = Reading::default();
    let mut nowhere = Vec::new();
    for (present, absent) in present.into_iter().zip(absent) {
        if present.is_empty() {
            nowhere.extend(absent.map(|(_, finding)| finding));
        }
        for (finding, file) in present {
            reading.drafts.extend(file.map(|(extension, bytes)| Draft {
                finding: reading.findings.len(),
                kind: "mask",
                extension,
                bytes,
            }));
            reading.findings.push(finding);
        }
    }
    reading.findings.extend(nowhere);
    Ok(reading)
}

type File = (&'static str, Vec<u8>);

/// One answer's numbers, channel after channel.
struct Answer<'a> {
    values: std::borrow::Cow<'a, [f32]>,
    flip: Option<Flip>,
}

/// The answers, checked: channels of the tensor's size.
fn answers<'a>(
    output: &Segmentation,
    said: &'a [Said],
    regrid: &Regrid,
) -> Result<Vec<Answer<'a>>, Refusal> {
    let [depth, rows, columns] = regrid.tensor();
    let mut answers = Vec::new();
    for said in said {
        let wrong = |what: &dyn std::fmt::Debug| {
            Refusal::new(
                "model-output-shape",
                format!("the model gave {what:?} for {depth} x {rows} x {columns}"),
            )
        };
        let tensor = said.outputs.first().ok_or_else(|| wrong(&"nothing"))?;
        let (channels, size) = match tensor.shape.as_slice() {
            [channels, rows, columns] => (*channels, [1, *rows, *columns]),
            [channels, depth, rows, columns] => (*channels, [*depth, *rows, *columns]),
            _ => return Err(wrong(&tensor.shape)),
        };
        let values = tensor.floats();
        if size != regrid.tensor() || values.len() != tensor.len() {
            return Err(wrong(&tensor.shape));
        }
        if output.labels.iter().any(|label| label.index >= channels) {
            return Err(Refusal::new(
                "model-output-too-short",
                format!("the model answered with {channels} channels"),
            ));
        }
        activation::check(output.activation, &values)?;
        answers.push(Answer {
            values,
            flip: said.flip,
        });
    }
    Ok(answers)
}

/// The mean probability of channel `channel` of all answers, in the order of the tensor.
fn mean(
    output: &Segmentation,
    answers: &[Answer<'_>],
    channel: usize,
    [depth, rows, columns]: [usize; 3],
) -> Vec<f32> {
    let area = rows * columns;
    let mut sum = vec![0.0f32; depth * area];
    for Answer { values, flip } in answers {
        for (at, sum) in sum.iter_mut().enumerate() {
            let (plane, row, column) = (at / area, at % area / columns, at % columns);
            let from = match flip {
                None => at,
                Some(Flip::Horizontal) => at - column + (columns - 1 - column),
                Some(Flip::Vertical) => plane * area + (rows - 1 - row) * columns + column,
                Some(Flip::Depth) => (depth - 1 - plane) * area + at % area,
            };
            let pixel = values.iter().skip(from).step_by(depth * area);
            let activate = Activate::of(output.activation, pixel);
            let value = values.get(channel * depth * area + from);
            *sum += value.map_or(0.0, |value| activate.probability(*value)) as f32;
        }
    }
    let count = answers.len().max(1) as f32;
    for sum in &mut sum {
        *sum /= count;
    }
    sum
}

/// What one label's region in one image or volume says.
fn measure(
    region: &Region,
    found: &Found,
    location: Option<&Location>,
    placement: &Placement,
) -> Result<Finding, Refusal> {
    let pixels = found.mask.pixels();
    let enough = pixels >= region.min_pixels.unwrap_or(1).max(1);
    let part = found.mask.largest_part();
    let mut location = location.cloned();
    let (present, measurements) = match placement {
        Placement::Image(image) => {
            let area = image.spacing_mm.map(|[between_rows, between_columns]| {
                pixels as f64 * between_rows * between_columns
            });
            let least = match (region.min_area_mm2, area) {
                (None, _) => true,
                (Some(least), Some(area)) => area >= least,
                (Some(_), None) => {
                    return Err(Refusal::new(
                        "geometry-missing",
                        "an area in mm2 is wanted, and the image has no Pixel Spacing",
                    ));
                }
            };
            let longest = image.spacing_mm.and_then(|mm| diameter::largest(&part, mm));
            let mut measured = vec![area_of(pixels as f64, "{pixels}")];
            measured.extend(area.map(|area| area_of(area, "mm2")));
            measured.extend(longest.map(|(mm, _)| long_axis(mm)));
            (enough && least, measured)
        }
        Placement::Volume(volume) => {
            let millilitres = volume_ml(&found.mask, volume);
            let least = region
                .min_volume_ml
                .is_none_or(|least| millilitres >= least);
            let longest = diameter::largest(&part, volume.spacing_mm);
            // The image to look at first.
            let image = longest.and_then(|(_, plane)| volume.planes.get(plane));
            if let (Some(location), Some(image)) = (&mut location, image) {
                location.sop_instance = Some(image.sop_instance.clone());
                location.frame = image.frame;
            }
            let mut measured = vec![Measurement {
                code: code("118565006", "Volume"),
                value: millilitres,
                unit: "ml".to_owned(),
            }];
            measured.extend(longest.map(|(mm, _)| long_axis(mm)));
            (enough && least, measured)
        }
    };
    Ok(Finding {
        label: region.label.clone(),
        code: region.code.clone(),
        probability: found.mean.or(found.highest),
        threshold: Some(region.threshold),
        present,
        priority: if present {
            region.priority
        } else {
            Priority::Routine
        },
        location,
        measurements: if pixels == 0 {
            Vec::new()
        } else {
            measurements
        },
        explanation: None,
    })
}

/// Millilitres of a region: each plane is as thick as half the distances to its neighbours, the
/// outer ones as the distance to their only one.
fn volume_ml(mask: &Mask, volume: &VolumePlacement) -> f64 {
    let offset = |plane: usize| volume.planes.get(plane).map(|plane| plane.offset_mm);
    let thickness = |plane: usize| {
        let own = offset(plane)?;
        let before = plane
            .checked_sub(1)
            .and_then(offset)
            .map(|before| own - before);
        let after = offset(plane + 1).map(|after| after - own);
        match (before, after) {
            (Some(before), Some(after)) => Some((before + after) / 2.0),
            (before, after) => before.or(after),
        }
    };
    let [between_rows, between_columns] = volume.spacing_mm;
    let planes = mask.runs().chunk_by(|a, b| a.plane == b.plane);
    let cubic: f64 = planes
        .map(|runs| {
            let pixels: usize = runs.iter().map(super::mask::Run::len).sum();
            let plane = runs.first().map_or(0, |run| run.plane as usize);
            pixels as f64 * thickness(plane).unwrap_or(0.0)
        })
        .sum();
    cubic * between_rows * between_columns / 1000.0
}

fn area_of(value: f64, unit: &str) -> Measurement {
    Measurement {
        code: code("42798000", "Area"),
        value,
        unit: unit.to_owned(),
    }
}

fn long_axis(value: f64) -> Measurement {
    Measurement {
        code: code("103339001", "Long axis"),
        value,
        unit: "mm".to_owned(),
    }
}

fn code(value: &str, meaning: &str) -> Code {
    Code {
        scheme: "SCT".to_owned(),
        value: value.to_owned(),
        meaning: meaning.to_owned(),
    }
}

/// The mask in the grid of its source: PNG for an image, NIfTI-1 for a volume.
fn file(mask: &Mask, placement: &Placement) -> Result<File, Refusal> {
    let failed = |reason: String| Refusal::new("internal-error", format!("a mask: {reason}"));
    match placement {
        Placement::Image(_) => {
            let bytes = png(mask).map_err(|err| failed(err.to_string()))?;
            Ok(("png", bytes))
        }
        Placement::Volume(volume) => {
            let bytes = nifti::encode(mask, volume).map_err(|err| failed(err.to_string()))?;
            Ok(("nii.gz", bytes))
        }
    }
}

/// One bit per pixel, white inside.
fn png(mask: &Mask) -> Result<Vec<u8>, png::EncodingError> {
    let [_, rows, columns] = mask.size;
    let stride = columns.div_ceil(8);
    let mut bits = vec![0u8; rows * stride];
    for run in mask.runs() {
        for column in run.start..run.end {
            let at = run.row as usize * stride + column as usize / 8;
            if let Some(byte) = bits.get_mut(at) {
                *byte |= 0x80 >> (column % 8);
            }
        }
    }
    let mut file = Vec::new();
    // `Mask::new` has seen that they fit.
    let mut encoder = png::Encoder::new(&mut file, columns as u32, rows as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    encoder.write_header()?.write_image_data(&bits)?;
    Ok(file)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::dicom::uid::SopInstanceUid;
    use crate::model::manifest::Activation;
    use crate::model::{ImagePlacement, Line, SourcePlane, Tensor, TensorData};

    fn region(min_volume_ml: Option<f64>) -> Segmentation {
        Segmentation {
            tensor: "t".to_owned(),
            activation: Activation::None,
            labels: vec![Region {
                index: 0,
                label: "lesion".to_owned(),
                code: code("52988006", "Lesion"),
                threshold: 0.5,
                min_volume_ml,
                min_area_mm2: None,
                min_pixels: None,
                priority: Priority::Stat,
            }],
        }
    }

    fn said(shape: &[usize], values: &[f32]) -> Vec<Said> {
        vec![Said {
            outputs: vec![Tensor {
                shape: shape.to_vec(),
                data: TensorData::F32(values.to_vec()),
            }],
            flip: None,
        }]
    }

    /// Planes of two pixels of 10 x 5 mm at 0, 4 and 10 mm; the tensor has the same voxels.
    fn volume(values: &[f32]) -> Sample {
        let planes = [(1, 0.0), (2, 4.0), (3, 10.0)].into_iter().enumerate();
        let plane = |(index, (uid, offset_mm)): (usize, (usize, f64))| SourcePlane {
            sop_instance: SopInstanceUid::parse(&format!("2.25.{uid}")).unwrap(),
            frame: None,
            offset_mm,
            index: index as f64,
        };
        let same = Line {
            begin: 0.0,
            rate: 1.0,
        };
        Sample {
            answers: said(&[1, 3, 1, 2], values),
            location: Some(Location {
                series: None,
                sop_instance: None,
                frame: None,
                area: None,
            }),
            placement: Some(Placement::Volume(Box::new(VolumePlacement {
                tensor: [3, 1, 2],
                target: [0, 1, 2],
                planes: planes.map(plane).collect(),
                rows: 1,
                columns: 2,
                by_row: same,
                by_column: same,
                position: [0.0; 3],
                row: [1.0, 0.0, 0.0],
                column: [0.0, 1.0, 0.0],
                line: [0.0, 0.0, 10.0],
                spacing_mm: [10.0, 5.0],
            }))),
        }
    }

    fn image(values: &[f32]) -> Sample {
        Sample {
            answers: said(&[1, 1, 2], values),
            location: None,
            placement: Some(Placement::Image(ImagePlacement {
                tensor: [1, 2],
                rows: 1,
                columns: 2,
                scale: [1.0, 1.0],
                offset: [0.0, 0.0],
                spacing_mm: None,
            })),
        }
    }

    #[test]
    fn planes_are_as_thick_as_their_distances() {
        // 4 mm, (4 + 6) / 2 and 6 mm thick, of 50 mm2 each.
        for (values, ml) in [
            ([0.9, 0.0, 0.0, 0.0, 0.0, 0.0], 0.2),
            ([0.0, 0.0, 0.9, 0.9, 0.0, 0.0], 0.5),
            ([0.0, 0.0, 0.0, 0.0, 0.0, 0.9], 0.3),
            ([0.9, 0.0, 0.9, 0.0, 0.9, 0.0], 0.75),
        ] {
            let finding = &read(&region(None), &[volume(&values)]).unwrap().findings[0];
            assert!(
                (finding.measurements[0].value - ml).abs() < 1e-12,
                "{values:?}"
            );
        }
    }

    #[test]
    fn the_volume_decides_and_the_longest_plane_is_named() {
        let small = volume(&[0.9, 0.0, 0.8, 0.8, 0.0, 0.0]);
        let reading = read(&region(Some(0.71)), std::slice::from_ref(&small)).unwrap();
        assert!(!reading.findings[0].present && reading.drafts.is_empty());
        assert_eq!(reading.findings[0].measurements.len(), 2);
        let reading = read(&region(Some(0.70)), &[small]).unwrap();
        let finding = &reading.findings[0];
        assert!(finding.present && finding.priority == Priority::Stat);
        // From the middle of an upper edge to that of a lower one.
        assert_eq!(finding.measurements[1].value, 125f64.sqrt());
        let image = finding.location.as_ref().unwrap().sop_instance.clone();
        assert_eq!(image.unwrap().as_str(), "2.25.2");
        assert_eq!(
            (reading.drafts.len(), reading.drafts[0].extension),
            (1, "nii.gz")
        );
    }

    #[test]
    fn a_label_that_is_nowhere_is_one_finding() {
        let samples = [image(&[0.1, 0.2]), image(&[0.4, 0.1]), image(&[0.3, 0.3])];
        let reading = read(&region(None), &samples).unwrap();
        let [finding] = reading.findings.as_slice() else {
            unreachable!("{:?}", reading.findings);
        };
        assert!((finding.probability.unwrap() - 0.4).abs() < 1e-6);
        assert!(finding.measurements.is_empty() && !finding.present);
    }

    #[test]
    fn each_image_with_the_label_is_a_finding_with_its_mask() {
        let samples = [image(&[0.9, 0.2]), image(&[0.4, 0.1]), image(&[0.7, 0.5])];
        let reading = read(&region(None), &samples).unwrap();
        assert_eq!((reading.findings.len(), reading.drafts.len()), (2, 2));
        assert_eq!(reading.drafts[1].finding, 1);
        // Without Pixel Spacing there are pixels and no millimetres.
        let [pixels] = reading.findings[1].measurements.as_slice() else {
            unreachable!("{:?}", reading.findings);
        };
        assert_eq!((pixels.value, pixels.unit.as_str()), (2.0, "{pixels}"));
        assert!((reading.findings[1].probability.unwrap() - 0.6).abs() < 1e-6);
    }
}
