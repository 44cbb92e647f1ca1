//! Boxes: from the numbers of a detector to places in the source images.
//!
//! In each image: decode, mirror back what was mirrored, keep what is at or above its label's
//! threshold, suppress what shows the same thing, bring it to the source and clip it there. A box
//! without area in the source, in the padding for example, is no finding. A box whose right edge is
//! left of its left one is a refusal: the manifest states another format than the graph has.

use super::activation::{self, Activate};
use super::nms::{Edges, Scored, suppress};
use super::{Area, Finding, Location, Said, Sample};
use crate::model::manifest::{BoxFormat, Coordinates, Detection, Flip, Label, Priority};
use crate::model::{ImagePlacement, Placement, Tensor};
use crate::refusal::Refusal;

/// Boxes of one label in one image at or above the threshold: more are no answer.
const MAX_CANDIDATES: usize = 100_000;

/// Boxes of a study: one finding per box, the most probable first, of equals the first image's; then
/// one per label that was found nowhere, with the highest probability of all boxes seen.
///
/// # Errors
/// `model-output-not-finite`, `model-output-not-probability`, `model-output-shape`,
/// `model-output-too-short`, `model-output-reversed-box`, `model-output-too-large`.
pub fn read(output: &Detection, samples: &[Sample]) -> Result<Vec<Finding>, Refusal> {
    let mut found = Vec::new();
    // Of each label the highest score, and where.
    let mut highest: Vec<(f64, Option<&Sample>)> = vec![(-1.0, None); output.labels.len()];
    for sample in samples {
        let Some(Placement::Image(placement)) = &sample.placement else {
            return Err(Refusal::new("internal-error", "boxes of no image"));
        };
        let mut candidates = vec![Vec::new(); output.labels.len()];
        for said in &sample.answers {
            Answer::of(output, said, placement)?.each(output, |place, one| {
                let seen = highest.get_mut(place);
                if let Some(seen) = seen.filter(|(score, _)| one.score > *score) {
                    *seen = (one.score, Some(sample));
                }
                let label = output.labels.get(place);
                let found = candidates.get_mut(place).zip(label);
                // One more than there may be is enough to know.
                if let Some((boxes, label)) = found
                    && one.score >= label.threshold
                    && boxes.len() <= MAX_CANDIDATES
                {
                    boxes.push(one);
                }
            })?;
        }
        let mut boxes = Vec::new();
        for (label, candidates) in output.labels.iter().zip(candidates) {
            if candidates.len() > MAX_CANDIDATES {
                return Err(Refusal::new(
                    "model-output-too-large",
                    format!("more than {MAX_CANDIDATES} boxes of `{}`", label.label),
                ));
            }
            let kept = suppress(candidates, output.nms.map(|nms| nms.iou), output.max_boxes);
            let ranked = kept.into_iter().enumerate();
            boxes.extend(ranked.map(|(rank, one)| (rank, label, one)));
        }
        boxes.sort_by(|(_, _, left), (_, _, right)| right.score.total_cmp(&left.score));
        let placed = boxes.into_iter().enumerate();
        let reported = placed.filter(|(place, (rank, ..))| *place < output.max_boxes || *rank == 0);
        found.extend(reported.map(|(_, (_, label, one))| {
            let area = Area::Box(in_source(&one.edges, placement));
            let location = sample.location.as_ref();
            (
                one.score,
                finding(label, Some(one.score), location, Some(area)),
            )
        }));
    }
    found.sort_by(|(left, _), (right, _)| right.total_cmp(left));
    let mut findings: Vec<Finding> = found.into_iter().map(|(_, finding)| finding).collect();
    for (label, (score, image)) in output.labels.iter().zip(highest) {
        if image.is_none() || score < label.threshold {
            // Without any box there is no number to give.
            let image = image.or(match samples {
                [only] => Some(only),
                _ => None,
            });
            let location = image.and_then(|sample| sample.location.as_ref());
            let probability = (score >= 0.0).then_some(score);
            findings.push(finding(label, probability, location, None));
        }
    }
    Ok(findings)
}

/// What one graph said of one image.
struct Answer<'a> {
    boxes: &'a Tensor,
    scores: &'a Tensor,
    classes: Option<&'a Tensor>,
    /// Scores per box.
    labels: usize,
    flip: Option<Flip>,
    placement: &'a ImagePlacement,
}

impl<'a> Answer<'a> {
    fn of(
        output: &Detection,
        said: &'a Said,
        placement: &'a ImagePlacement,
    ) -> Result<Self, Refusal> {
        let wrong = |shapes: String| {
            Refusal::new(
                "model-output-shape",
                format!("the model gave boxes {shapes}"),
            )
        };
        let (Some(boxes), Some(scores)) = (said.outputs.first(), said.outputs.get(1)) else {
            return Err(wrong("without scores".to_owned()));
        };
        let classes = said.outputs.get(2).filter(|_| output.classes.is_some());
        let shapes = || wrong(format!("{:?} with scores {:?}", boxes.shape, scores.shape));
        let &[count, 4] = boxes.shape.as_slice() else {
            return Err(shapes());
        };
        let labels = match scores.shape.as_slice() {
            [boxes] if *boxes == count => 1,
            [boxes, labels] if *boxes == count && output.classes.is_none() => *labels,
            _ => return Err(shapes()),
        };
        if output.classes.is_some() && classes.is_none_or(|classes| classes.shape != [count]) {
            return Err(shapes());
        }
        Ok(Self {
            boxes,
            scores,
            classes,
            labels,
            flip: said.flip,
            placement,
        })
    }

    /// Every box that has an area in the source with the place of its label in the manifest, in the
    /// graph's order; in continuous coordinates of the tensor.
    fn each(
        &self,
        output: &Detection,
        mut found: impl FnMut(usize, Scored),
    ) -> Result<(), Refusal> {
        let (boxes, scores) = (self.boxes.floats(), self.scores.floats());
        let classes = self.classes.map(Tensor::floats);
        activation::check(output.activation, &scores)?;
        activation::check_finite(&boxes)?;
        let most = output.labels.iter().map(|label| label.index).max();
        if classes.is_none() && most.is_some_and(|most| most >= self.labels) {
            return Err(Refusal::new(
                "model-output-too-short",
                format!("the model answered with {} scores per box", self.labels),
            ));
        }
        for (index, numbers) in boxes.as_chunks::<4>().0.iter().enumerate() {
            let start = index * self.labels;
            let own = scores.get(start..start + self.labels).unwrap_or_default();
            let activate = Activate::of(output.activation, own.iter());
            let edges = self.edges(output, numbers.map(f64::from));
            let [left, top, right, bottom] = edges;
            let reversed = right < left || bottom < top;
            let visible = has_area(&in_source(&edges, self.placement));
            for (place, label) in output.labels.iter().enumerate() {
                // Labels are small whole numbers, also where a graph gives them as floats.
                let score = match &classes {
                    Some(classes) if classes.get(index) == Some(&(label.index as f32)) => {
                        own.first()
                    }
                    Some(_) => None,
                    None => own.get(label.index),
                };
                let Some(score) = score.map(|score| activate.probability(*score)) else {
                    continue;
                };
                if reversed && score >= label.threshold {
                    return Err(Refusal::new(
                        "model-output-reversed-box",
                        "a box ends before it begins: not the format that the manifest states",
                    ));
                }
                if visible {
                    found(place, Scored { score, edges });
                }
            }
        }
        Ok(())
    }

    fn edges(&self, output: &Detection, numbers: [f64; 4]) -> Edges {
        let [rows, columns] = self.placement.tensor.map(|size| size as f64);
        let [a, b, c, d] = numbers;
        let [left, top, right, bottom] = match output.format {
            BoxFormat::Xyxy => [a, b, c, d],
            BoxFormat::Xywh => [a, b, a + c, b + d],
            BoxFormat::Cxcywh => [a - c / 2.0, b - d / 2.0, a + c / 2.0, b + d / 2.0],
        };
        let [across, down] = match output.coordinates {
            Coordinates::Pixels => [1.0, 1.0],
            Coordinates::Normalized => [columns, rows],
        };
        let [left, top, right, bottom] = [left * across, top * down, right * across, bottom * down];
        match self.flip {
            None | Some(Flip::Depth) => [left, top, right, bottom],
            Some(Flip::Horizontal) => [columns - right, top, columns - left, bottom],
            Some(Flip::Vertical) => [left, rows - bottom, right, rows - top],
        }
    }
}

/// The part of a box of the tensor that is in the source image.
fn in_source([left, top, right, bottom]: &Edges, placement: &ImagePlacement) -> Edges {
    let [rows, columns] = [placement.rows as f64, placement.columns as f64];
    let [top, left] = placement.source([*top, *left]);
    let [bottom, right] = placement.source([*bottom, *right]);
    [
        left.clamp(0.0, columns),
        top.clamp(0.0, rows),
        right.clamp(0.0, columns),
        bottom.clamp(0.0, rows),
    ]
}

fn has_area([left, top, right, bottom]: &Edges) -> bool {
    right > left && bottom > top
}

fn finding(
    label: &Label,
    probability: Option<f64>,
    location: Option<&Location>,
    area: Option<Area>,
) -> Finding {
    let present = area.is_some();
    Finding {
        label: label.label.clone(),
        code: label.code.clone(),
        probability,
        threshold: Some(label.threshold),
        present,
        priority: if present {
            label.priority
        } else {
            Priority::Routine
        },
        location: location.map(|location| Location {
            area,
            ..location.clone()
        }),
        measurements: Vec::new(),
        explanation: None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::TensorData;
    use crate::model::manifest::{Activation, Code};

    fn output(max_boxes: usize) -> Detection {
        let label = |(index, label): (usize, &str)| Label {
            index,
            label: label.to_owned(),
            code: Code {
                scheme: "99TEST".to_owned(),
                value: label.to_owned(),
                meaning: label.to_owned(),
            },
            threshold: 0.5,
            priority: Priority::Urgent,
        };
        Detection {
            boxes: "boxes".to_owned(),
            scores: "scores".to_owned(),
            classes: None,
            activation: Activation::None,
            format: BoxFormat::Xyxy,
            coordinates: Coordinates::Pixels,
            nms: None,
            max_boxes,
            labels: [(0, "rib"), (1, "nodule")].map(label).to_vec(),
        }
    }

    /// Boxes and their scores for rib and nodule in an image of 20 x 10 that the tensor shows half as
    /// large, its upper left corner at 2, 1.
    fn sample(boxes: &[([f32; 4], [f32; 2])]) -> Sample {
        let tensor = |values: Vec<f32>, width| Tensor {
            shape: vec![boxes.len(), width],
            data: TensorData::F32(values),
        };
        let edges = boxes.iter().flat_map(|(edges, _)| *edges).collect();
        let scores = boxes.iter().flat_map(|(_, scores)| *scores).collect();
        Sample {
            answers: vec![Said {
                outputs: vec![tensor(edges, 4), tensor(scores, 2)],
                flip: None,
            }],
            location: Some(Location {
                series: None,
                sop_instance: None,
                frame: Some(3),
                area: None,
            }),
            placement: Some(Placement::Image(ImagePlacement {
                tensor: [8, 8],
                rows: 10,
                columns: 20,
                scale: [2.0, 2.0],
                offset: [1.0, 2.0],
                spacing_mm: None,
            })),
        }
    }

    fn told(findings: &[Finding]) -> Vec<(&str, Option<f64>, bool)> {
        let told = findings.iter();
        told.map(|f| (f.label.as_str(), f.probability, f.present))
            .collect()
    }

    #[test]
    fn the_best_box_of_a_label_is_never_cut_off() {
        let rib = |x: f32, score: f32| ([x, 0.0, x + 1.0, 1.0], [score, 0.0]);
        let nodule = |x: f32, score: f32| ([x, 0.0, x + 1.0, 1.0], [0.0, score]);
        let boxes = [
            rib(1.0, 1.0),
            rib(2.0, 0.875),
            rib(3.0, 0.75),
            nodule(4.0, 0.625),
            nodule(5.0, 0.5),
        ];
        let findings = read(&output(2), &[sample(&boxes)]).unwrap();
        let expected = [("rib", 1.0), ("rib", 0.875), ("nodule", 0.625)];
        assert_eq!(
            told(&findings),
            expected.map(|(label, p)| (label, Some(p), true))
        );
    }

    #[test]
    fn a_box_is_clipped_to_its_image_and_dropped_outside() {
        let boxes = [
            ([-4.0, 1.0, 2.0, 30.0], [0.75, 0.0]),
            // In what the image does not fill.
            ([-4.0, 1.0, -1.0, 3.0], [0.0, 0.875]),
            ([3.0, 3.0, 3.0, 5.0], [0.0, 0.875]),
            ([3.0, 3.0, 4.0, 5.0], [0.0, 0.25]),
            // Reversed, and nobody cares at this score.
            ([4.0, 3.0, 3.0, 5.0], [0.0, 0.375]),
        ];
        let findings = read(&output(9), &[sample(&boxes)]).unwrap();
        assert_eq!(
            told(&findings),
            [("rib", Some(0.75), true), ("nodule", Some(0.25), false)]
        );
        let location = findings[0].location.as_ref().unwrap();
        assert_eq!(location.area, Some(Area::Box([0.0, 3.0, 6.0, 10.0])));
        assert_eq!(location.frame, Some(3));
        assert_eq!(findings[1].location.as_ref().unwrap().area, None);
    }

    #[test]
    fn without_any_box_there_is_no_probability() {
        let findings = read(&output(9), &[sample(&[])]).unwrap();
        assert_eq!(
            told(&findings),
            [("rib", None, false), ("nodule", None, false)]
        );
    }

    #[test]
    fn boxes_without_end_are_refused() {
        let boxes = vec![([0.0, 0.0, 1.0, 1.0], [1.0, 0.0]); MAX_CANDIDATES + 1];
        let refusal = read(&output(9), &[sample(&boxes)]).unwrap_err();
        assert_eq!(refusal.code, "model-output-too-large");
        assert!(read(&output(9), &[sample(&boxes[1..])]).is_ok());
    }
}
