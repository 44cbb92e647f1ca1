//! `[[quality]]`: flags on images by statistics over their values.

use std::collections::BTreeMap;

use crate::findings::event::Remark;
use crate::model::Manifest;
use crate::model::manifest::{Quality, QualityFlag};
use crate::pixel::Statistics;
use crate::refusal::Refusal;

/// Flags over the samples of a run.
#[derive(Debug, Default)]
pub(super) struct Flags {
    samples: usize,
    /// By code: how many samples, and the figure of the first.
    raised: BTreeMap<&'static str, (usize, String)>,
}

impl Flags {
    /// Takes note of a sample.
    pub(super) fn look(&mut self, manifest: &Manifest, statistics: &Statistics) {
        self.samples += 1;
        for quality in &manifest.quality {
            if let Some(text) = raised(quality, statistics) {
                let first = (0, text);
                self.raised.entry(quality.flag.code()).or_insert(first).0 += 1;
            }
        }
    }

    /// A remark for each flag.
    pub(super) fn remarks(self) -> impl Iterator<Item = Remark> {
        let samples = self.samples;
        self.raised
            .into_iter()
            .map(move |(code, (count, first))| Remark {
                code,
                text: format!("{count} of {samples} samples: {first}"),
            })
    }
}

/// The flag that leaves a sample out, if there is one.
pub(super) fn leaves_out(manifest: &Manifest, statistics: &Statistics) -> Option<Refusal> {
    let mut skipping = manifest.quality.iter().filter(|quality| quality.skip);
    skipping.find_map(|quality| {
        let text = raised(quality, statistics)?;
        Some(Refusal::new(quality.flag.code(), text))
    })
}

/// Whether a refusal says that a flag left an image out.
pub(super) fn is_flag(code: &str) -> bool {
    [
        QualityFlag::Saturated,
        QualityFlag::Constant,
        QualityFlag::Truncated,
    ]
    .iter()
    .any(|flag| flag.code() == code)
}

/// The figure, if it is beyond the limit.
fn raised(quality: &Quality, statistics: &Statistics) -> Option<String> {
    let limit = quality.limit;
    let (word, figure, beyond) = match quality.flag {
        QualityFlag::Saturated => {
            let figure = statistics.saturated;
            ("fraction of saturated values", figure, figure > limit)
        }
        QualityFlag::Constant => {
            let figure = statistics.deviation;
            ("standard deviation", figure, figure < limit)
        }
        QualityFlag::Truncated => {
            let figure = statistics.truncated;
            (
                "fraction of the border above the mean",
                figure,
                figure > limit,
            )
        }
    };
    beyond.then(|| format!("{word} {figure:.3}, limit {limit}"))
}
