//! `expected.json` of a golden case, and whether a model's findings are what it says.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use flate2::read::GzDecoder;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::features::Heard;
use crate::findings::{Area, Draft, Finding, Outcome, Reading};
use crate::model::manifest::ModelOutput;

/// Largest `expected.json`.
const MAX_EXPECTED: u64 = 1 << 20;
/// Largest mask of a case.
const MAX_MASK: u64 = 1 << 28;
/// Before the voxels of a NIfTI-1 file without extensions.
const NIFTI_HEADER: usize = 352;

/// What Python computed. `docs/models.md` documents the keys; those that are for people only are not
/// read.
#[derive(Debug, Deserialize)]
pub(super) struct Expected {
    outcome: String,
    /// Of probabilities and quantities.
    tolerance: f64,
    /// What other models said, by model and label, for a model that builds on them.
    #[serde(default)]
    upstream: BTreeMap<String, BTreeMap<String, f64>>,
    #[serde(default)]
    probabilities: BTreeMap<String, f64>,
    #[serde(default)]
    quantities: BTreeMap<String, f64>,
    /// The most probable first.
    #[serde(default)]
    boxes: Option<Vec<ExpectedBox>>,
    #[serde(default)]
    regions: BTreeMap<String, Region>,
    #[serde(default)]
    tolerances: Tolerances,
}

#[derive(Debug, Deserialize)]
struct ExpectedBox {
    label: String,
    #[serde(rename = "box")]
    place: [f64; 4],
    probability: f64,
}

#[derive(Debug, Deserialize)]
struct Region {
    voxels: u64,
    volume_ml: Option<f64>,
    area_mm2: Option<f64>,
    diameter_mm: Option<f64>,
    mask_sha256: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Tolerances {
    /// Pixels of the source image.
    #[serde(rename = "box")]
    place: f64,
    volume_ml: f64,
    area_mm2: f64,
    diameter_mm: f64,
}

impl Expected {
    /// Reads the file of a case.
    pub(super) fn read(case: &Path) -> Result<Self> {
        let path = case.join("expected.json");
        let mut text = String::new();
        let file = std::fs::File::open(&path).context("expected.json")?;
        file.take(MAX_EXPECTED + 1).read_to_string(&mut text)?;
        ensure!(
            text.len() as u64 <= MAX_EXPECTED,
            "expected.json is larger than 1 MiB"
        );
        serde_json::from_str(&text).context("expected.json")
    }

    /// What other models said.
    pub(super) fn heard(&self) -> Heard {
        let all = self.upstream.iter().flat_map(|(name, labels)| {
            labels.iter().map(move |(label, number)| {
                let (name, label) = (name.clone(), label.clone());
                (ModelOutput { name, label }, *number)
            })
        });
        all.collect()
    }

    /// The largest difference of a probability or quantity.
    pub(super) fn compare(&self, reading: Reading) -> Result<f64> {
        let Reading { findings, drafts } = reading;
        let worst = match &self.boxes {
            Some(boxes) => self.compare_boxes(boxes, &findings)?,
            None => self.compare_numbers(&findings, &drafts)?,
        };
        let outcome = Outcome::of(findings);
        ensure!(
            outcome.as_str() == self.outcome,
            "outcome is {}, expected {}",
            outcome.as_str(),
            self.outcome
        );
        ensure!(
            worst <= self.tolerance,
            "differs by {worst:.2e}, allowed is {:.0e}",
            self.tolerance
        );
        Ok(worst)
    }

    fn compare_numbers(&self, findings: &[Finding], drafts: &[Draft]) -> Result<f64> {
        let mut worst: f64 = 0.0;
        for (index, finding) in findings.iter().enumerate() {
            let label = &finding.label;
            let measured = finding.measurements.first().map(|measured| measured.value);
            let (numbers, found) = match finding.probability {
                Some(probability) => (&self.probabilities, Some(probability)),
                None => (&self.quantities, measured),
            };
            let (Some(wanted), Some(found)) = (numbers.get(label), found) else {
                bail!("expected.json has no number of `{label}`");
            };
            worst = larger(worst, found - wanted);
            if let Some(region) = self.regions.get(label) {
                let draft = drafts.iter().find(|draft| draft.finding == index);
                self.compare_region(region, finding, draft)?;
            }
        }
        Ok(worst)
    }

    /// Findings that are present are the boxes, in their order; any other tells the highest
    /// probability of its label.
    fn compare_boxes(&self, boxes: &[ExpectedBox], findings: &[Finding]) -> Result<f64> {
        let (found, absent): (Vec<&Finding>, Vec<&Finding>) =
            findings.iter().partition(|finding| finding.present);
        ensure!(
            found.len() == boxes.len(),
            "{} boxes, expected {}",
            found.len(),
            boxes.len()
        );
        let mut worst: f64 = 0.0;
        for (finding, wanted) in found.iter().zip(boxes) {
            let area = finding.location.as_ref().and_then(|at| at.area.as_ref());
            let (Some(Area::Box(place)), Some(probability)) = (area, finding.probability) else {
                bail!("a finding of `{}` has no box", finding.label);
            };
            ensure!(
                finding.label == wanted.label,
                "a box of `{}`, expected `{}`",
                finding.label,
                wanted.label
            );
            let off = place.iter().zip(&wanted.place);
            let off = off.fold(0.0, |worst, (a, b)| larger(worst, a - b));
            ensure!(
                off <= self.tolerances.place,
                "a box is off by {off:.2} pixels, allowed are {}",
                self.tolerances.place
            );
            worst = larger(worst, probability - wanted.probability);
        }
        for finding in absent {
            let wanted = self.probabilities.get(&finding.label);
            if let (Some(found), Some(wanted)) = (finding.probability, wanted) {
                worst = larger(worst, found - wanted);
            }
        }
        Ok(worst)
    }

    fn compare_region(
        &self,
        region: &Region,
        finding: &Finding,
        draft: Option<&Draft>,
    ) -> Result<()> {
        let of = |unit: &str| {
            let mut measured = finding.measurements.iter();
            measured.find(|one| one.unit == unit).map(|one| one.value)
        };
        for (unit, wanted, allowed) in [
            ("ml", region.volume_ml, self.tolerances.volume_ml),
            ("mm2", region.area_mm2, self.tolerances.area_mm2),
            ("mm", region.diameter_mm, self.tolerances.diameter_mm),
        ] {
            // A region of nothing measures nothing.
            let Some(wanted) = wanted.filter(|_| region.voxels > 0) else {
                continue;
            };
            let found = of(unit).with_context(|| format!("nothing is measured in {unit}"))?;
            ensure!(
                (found - wanted).abs() <= allowed,
                "{found} {unit}, expected {wanted}"
            );
        }
        let Some(sha256) = region.mask_sha256.as_ref().filter(|_| region.voxels > 0) else {
            return Ok(());
        };
        let draft = draft.context("there is no mask")?;
        let mask = voxels(draft)?;
        let inside = mask.iter().filter(|value| **value == 1).count() as u64;
        ensure!(
            inside == region.voxels,
            "{inside} pixels in the mask, expected {}",
            region.voxels
        );
        let digest: String = Sha256::digest(&mask)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        ensure!(&digest == sha256, "the mask is another one");
        Ok(())
    }
}

/// NaN counts as the largest difference.
fn larger(worst: f64, difference: f64) -> f64 {
    let difference = difference.abs();
    if difference.is_nan() || difference > worst {
        difference
    } else {
        worst
    }
}

/// The mask as bytes 0 and 1: planes, rows, columns.
fn voxels(draft: &Draft) -> Result<Vec<u8>> {
    if draft.extension == "png" {
        let mut decoder = png::Decoder::new(std::io::Cursor::new(&draft.bytes));
        decoder.set_transformations(png::Transformations::EXPAND);
        let mut reader = decoder.read_info()?;
        let size = reader.output_buffer_size().context("a mask too large")?;
        let mut pixels = vec![0; size];
        reader.next_frame(&mut pixels)?;
        return Ok(pixels.iter().map(|value| u8::from(*value > 0)).collect());
    }
    let mut bytes = Vec::new();
    GzDecoder::new(draft.bytes.as_slice())
        .take(MAX_MASK)
        .read_to_end(&mut bytes)?;
    Ok(bytes.get(NIFTI_HEADER..).unwrap_or_default().to_vec())
}
