//! Pictures that say why: made when the findings are known.
//!
//! They are made in the study's own turn, because its message waits for them. It never waits for good,
//! and a finding never fails for its picture: what is not made in time, or does not fit on the disk,
//! is left out with a remark.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::keep::{Missing, not_kept};
use super::{Case, Run, decode, heat, images, keep};
use crate::explanation::overlay::Canvas;
use crate::explanation::{HeatMap, outline, stretched};
use crate::findings::event::Remark;
use crate::findings::{Area, Artefact, Draft, Finding, Location, Sample};
use crate::model::manifest::{Explanation, Method};
use crate::model::{ImagePlacement, ImageSpec};
use crate::pixel::Picture;
use crate::refusal::Refusal;
use crate::spool::Entry;

/// What a model of images has looked at.
pub(super) struct Seen<'a> {
    pub spec: &'a Arc<ImageSpec>,
    pub candidates: &'a [Arc<Entry>],
    pub samples: &'a [Sample],
    pub drafts: &'a Arc<Vec<Draft>>,
}

/// Explains the findings that are present, the most urgent and probable first, as the manifest says.
pub(super) async fn explain(case: &Case, seen: &Seen<'_>, run: &mut Run) {
    let manifest = &case.served.package.manifest;
    let Some(spec) = &manifest.explanation else {
        return;
    };
    let chosen = choose(run.outcome.findings(), spec.max_findings);
    if chosen.is_empty() {
        return;
    }
    let started = Instant::now();
    // What is decoded and asked for pictures is no part of the answer.
    let stages = Arc::clone(&case.stages);
    let case = &Case {
        stages: Arc::default(),
        ..case.clone()
    };
    let deadline = started + spec.budget.get();
    let mut missing = Vec::new();
    for image in by_image(run.outcome.findings(), &chosen) {
        let found = run.outcome.findings();
        let made = timeout_at(deadline, pictures(case, spec, seen, found, &image)).await;
        let made = made.unwrap_or(Err(Missing::Incomplete("the time is over")));
        match made {
            Err(reason) => missing.extend(image.iter().map(|_| match reason {
                Missing::Incomplete(text) => Missing::Incomplete(text),
                Missing::NotKept => Missing::NotKept,
            })),
            Ok(made) => {
                for (index, picture) in image.iter().zip(made) {
                    match (picture, run.outcome.findings_mut().get_mut(*index)) {
                        (Ok(artefact), Some(finding)) => finding.explanation = Some(artefact),
                        (Err(reason), _) => missing.push(reason),
                        (Ok(_), None) => {}
                    }
                }
            }
        }
    }
    run.remarks.extend(remarks(&missing, chosen.len()));
    let made = chosen.len().saturating_sub(missing.len());
    for (result, count) in [("made", made), ("missing", missing.len())] {
        case.pipeline
            .metrics
            .explanations_total
            .with_label_values(&[&manifest.name, result])
            .inc_by(count as u64);
    }
    stages.explained(started.elapsed());
    case.pipeline
        .metrics
        .explanation_duration_seconds
        .with_label_values(&[&manifest.name])
        .observe(started.elapsed().as_secs_f64());
}

/// Findings that are present and name an image, the most urgent first, then the most probable.
fn choose(findings: &[Finding], most: usize) -> Vec<usize> {
    let mut chosen: Vec<(usize, &Finding)> = findings
        .iter()
        .enumerate()
        .filter(|(_, finding)| finding.present && image(finding).is_some())
        .collect();
    // Stable, so that the same study has the same pictures every time.
    chosen.sort_by(|(_, left), (_, right)| {
        let probability = |finding: &Finding| finding.probability.unwrap_or(0.0);
        let urgency = left.priority.cmp(&right.priority);
        urgency.then(probability(right).total_cmp(&probability(left)))
    });
    chosen.truncate(most);
    chosen.into_iter().map(|(index, _)| index).collect()
}

fn image(finding: &Finding) -> Option<&Location> {
    let location = finding.location.as_ref();
    location.filter(|location| location.sop_instance.is_some())
}

fn same_image(left: &Location, right: &Location) -> bool {
    left.sop_instance == right.sop_instance && left.frame == right.frame
}

/// The chosen findings of one image together: a square that is covered tells of all its labels.
fn by_image(findings: &[Finding], chosen: &[usize]) -> Vec<Vec<usize>> {
    let place = |index: usize| findings.get(index).and_then(image);
    let mut images: Vec<Vec<usize>> = Vec::new();
    for index in chosen {
        let same = |other: &usize| match (place(*other), place(*index)) {
            (Some(left), Some(right)) => same_image(left, right),
            _ => false,
        };
        match images.iter_mut().find(|image| image.iter().any(same)) {
            Some(image) => image.push(*index),
            None => images.push(vec![*index]),
        }
    }
    images
}

/// A picture for each of the findings `chosen`, which name the same image.
async fn pictures(
    case: &Case,
    spec: &Explanation,
    seen: &Seen<'_>,
    findings: &[Finding],
    chosen: &[usize],
) -> Result<Vec<Result<Artefact, Missing>>, Missing> {
    // Nobody waits for a picture that cannot be kept.
    keep::room(case)?;
    let unknown = || Missing::Incomplete("internal-error");
    let incomplete = |refusal: Refusal| Missing::Incomplete(refusal.code);
    let first = chosen.first().and_then(|index| findings.get(*index));
    let location = first.and_then(image).ok_or_else(unknown)?;
    let entry = seen
        .candidates
        .iter()
        .find(|entry| Some(&entry.arrival.sop_instance) == location.sop_instance.as_ref());
    let source = images::source(&case.pipeline, entry.ok_or_else(unknown)?);
    let frame = location.frame.unwrap_or(1).saturating_sub(1) as usize;
    let (decoders, window) = (case.pipeline.decoders.clone(), seen.spec.window);
    let file = source.clone();
    let (picture, _) = decode(case, move || decoders.picture(&file, frame, window))
        .await
        .map_err(incomplete)?;
    let picture = Arc::new(picture);
    let labels: Vec<&str> = chosen
        .iter()
        .filter_map(|index| findings.get(*index))
        .map(|finding| finding.label.as_str())
        .collect();
    let mut hot: HashMap<usize, Heat> = HashMap::new();
    if matches!(spec.method, Method::Occlusion | Method::ActivationMap) {
        let (decoders, wanted) = (case.pipeline.decoders.clone(), Arc::clone(seen.spec));
        let ((facts, tensor), _) = decode(case, move || {
            decoders.tensor(&source, frame, &wanted, false)
        })
        .await
        .map_err(incomplete)?;
        let (rows, columns) = (seen.spec.rows, seen.spec.columns);
        let whole = || stretched(&picture.placement, rows, columns);
        let place = facts.placement.unwrap_or_else(whole);
        let maps = if spec.method == Method::Occlusion {
            let sample = seen.samples.iter().find(|sample| {
                let other = sample.location.as_ref();
                other.is_some_and(|other| same_image(location, other))
            });
            let sample = sample.ok_or_else(unknown)?;
            heat::occluded(case, spec, seen.spec, tensor, sample, &labels).await
        } else {
            heat::activated(case, tensor, &labels).await
        };
        for ((index, _), map) in chosen.iter().zip(&labels).zip(maps.map_err(incomplete)?) {
            if let Some(map) = map {
                let place = map.placement(&place, rows, columns);
                hot.insert(*index, Heat { map, place });
            }
        }
    }
    let mut made = Vec::new();
    for index in chosen {
        let drawing = Drawing {
            picture: Arc::clone(&picture),
            heat: hot.remove(index),
            boxes: boxes(findings, *index, location),
            drafts: Arc::clone(seen.drafts),
            finding: *index,
            method: spec.method,
        };
        let kind = spec.method.as_str();
        made.push(keep::file(case, kind, "png", move || drawing.draw()).await);
    }
    Ok(made)
}

struct Heat {
    map: HeatMap,
    place: ImagePlacement,
}

/// Everything on one picture, to be drawn off the runtime.
struct Drawing {
    picture: Arc<Picture>,
    heat: Option<Heat>,
    boxes: Vec<([f64; 4], bool)>,
    drafts: Arc<Vec<Draft>>,
    finding: usize,
    method: Method,
}

impl Drawing {
    /// The PNG; `None` when there is nothing to show on the picture.
    fn draw(self) -> Option<Vec<u8>> {
        let mut canvas = Canvas::new(&self.picture);
        match self.method {
            Method::Occlusion | Method::ActivationMap => {
                let heat = self.heat?;
                canvas.heat(&heat.map, &heat.place);
            }
            Method::Boxes => {
                self.boxes.iter().find(|(_, own)| *own)?;
                for (place, own) in &self.boxes {
                    canvas.boxed(*place, *own);
                }
            }
            Method::Outlines => {
                let own =
                    |draft: &&Draft| draft.finding == self.finding && draft.extension == "png";
                let draft = self.drafts.iter().find(own)?;
                let frame = &self.picture.placement;
                let mask = outline::Mask::read(&draft.bytes, frame.rows, frame.columns)?;
                canvas.line(&mask.outline(&self.picture, canvas.line_width()));
            }
        }
        canvas.png().ok()
    }
}

/// The boxes of an image's findings that are present; the one that is explained comes last, on top.
fn boxes(findings: &[Finding], own: usize, location: &Location) -> Vec<([f64; 4], bool)> {
    let mut found = Vec::new();
    for (index, finding) in findings.iter().enumerate() {
        match finding.location.as_ref() {
            Some(Location {
                area: Some(Area::Box(place)),
                ..
            }) if finding.present
                && image(finding).is_some_and(|other| same_image(other, location)) =>
            {
                found.push((*place, index == own));
            }
            _ => {}
        }
    }
    found.sort_by_key(|(_, own)| *own);
    found
}

fn remarks(missing: &[Missing], wanted: usize) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let kept = missing.iter().filter(|why| matches!(why, Missing::NotKept));
    match kept.count() {
        0 => {}
        count => remarks.push(not_kept(format!(
            "{count} of {wanted} pictures could not be kept on the gateway's disk"
        ))),
    }
    let made = missing.iter().filter_map(|why| match why {
        Missing::Incomplete(reason) => Some(*reason),
        Missing::NotKept => None,
    });
    let made: Vec<&str> = made.collect();
    if let Some(reason) = made.first() {
        remarks.push(Remark {
            code: "explanation-incomplete",
            text: format!("{} of {wanted} pictures are missing: {reason}", made.len()),
        });
    }
    remarks
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::dicom::uid::SopInstanceUid;
    use crate::model::manifest::{Code, Priority};

    fn finding(image: Option<&str>, priority: Priority, probability: f64) -> Finding {
        Finding {
            label: "label".to_owned(),
            code: Code {
                scheme: "99TEST".to_owned(),
                value: "1".to_owned(),
                meaning: "Label".to_owned(),
            },
            probability: Some(probability),
            threshold: Some(0.5),
            present: probability >= 0.5,
            priority,
            location: Some(Location {
                series: None,
                sop_instance: image.map(|uid| SopInstanceUid::parse(uid).unwrap()),
                frame: None,
                area: None,
            }),
            measurements: Vec::new(),
            explanation: None,
        }
    }

    #[test]
    fn the_most_urgent_and_probable_findings_with_an_image_are_explained() {
        let findings = [
            finding(Some("2.1"), Priority::Routine, 0.9),
            finding(Some("2.1"), Priority::Urgent, 0.6),
            finding(Some("2.2"), Priority::Urgent, 0.8),
            finding(Some("2.2"), Priority::Stat, 0.4),
            finding(None, Priority::Stat, 0.9),
            finding(Some("2.1"), Priority::Urgent, 0.8),
        ];
        assert_eq!(choose(&findings, 9), [2, 5, 1, 0]);
        assert_eq!(choose(&findings, 2), [2, 5]);
        assert_eq!(by_image(&findings, &[2, 5, 1, 0]), [vec![2], vec![5, 1, 0]]);
    }

    #[test]
    fn a_picture_has_the_boxes_of_its_image_and_its_own_on_top() {
        let with = |image: &str, probability: f64, place: f64| {
            let mut finding = finding(Some(image), Priority::Urgent, probability);
            finding.location.as_mut().unwrap().area = Some(Area::Box([place; 4]));
            finding
        };
        let findings = [
            with("2.1", 0.9, 0.0),
            with("2.1", 0.8, 1.0),
            with("2.1", 0.1, 2.0),
            with("2.2", 0.9, 3.0),
        ];
        let location = image(&findings[0]).unwrap();
        let found = boxes(&findings, 0, location);
        assert_eq!(found, [([1.0; 4], false), ([0.0; 4], true)]);
    }

    #[test]
    fn a_remark_says_how_many_pictures_are_missing_and_why() {
        let missing = [
            Missing::Incomplete("too-large"),
            Missing::NotKept,
            Missing::Incomplete("codec-error"),
        ];
        let found = remarks(&missing, 4);
        let text: Vec<_> = found
            .iter()
            .map(|one| (one.code, one.text.as_str()))
            .collect();
        let kept = "1 of 4 pictures could not be kept on the gateway's disk";
        let made = "2 of 4 pictures are missing: too-large";
        let wanted = [
            ("artefact-not-kept", kept),
            ("explanation-incomplete", made),
        ];
        assert_eq!(text, wanted);
        assert!(remarks(&[], 4).is_empty());
    }
}
