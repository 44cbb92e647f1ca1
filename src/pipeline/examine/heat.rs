//! Heat over an image for the labels of its findings: by asking the model again.

use std::sync::Arc;

use tokio::task::{JoinSet, spawn_blocking};

use super::{Case, infer, slot};
use crate::explanation::{HeatMap, activation, occlusion};
use crate::findings::{self, Sample};
use crate::model::manifest::{Aggregate, Explanation, Method, OutputSpec};
use crate::model::{ImageSpec, Manifest, Tensor};
use crate::refusal::Refusal;

/// A smaller loss of log odds, wherever a square is, explains nothing; the rounding of single
/// precision reaches a thousandth of it.
const LEAST_LOSS: f32 = 0.01;

/// What each label loses where a square of the image is covered.
pub(super) async fn occluded(
    case: &Case,
    spec: &Explanation,
    image: &ImageSpec,
    tensor: Tensor,
    sample: &Sample,
    labels: &[&str],
) -> Result<Vec<Option<HeatMap>>, Refusal> {
    let manifest = Arc::new(for_one_image(&case.served.package.manifest));
    let before = evidence(&manifest, sample, labels)?;
    let plan = Arc::new(occlusion::Plan::new(spec, image.rows, image.columns));
    let layout = image.layout;
    let abnormal = || Refusal::new("internal-error", "an explanation ended abnormally");
    let (tensor, fill) = spawn_blocking(move || {
        let fill = occlusion::means(&tensor, layout);
        (Arc::new(tensor), Arc::new(fill))
    })
    .await
    .map_err(|_| abnormal())?;
    let labels: Arc<Vec<String>> =
        Arc::new(labels.iter().map(|label| (*label).to_owned()).collect());
    let mut losses = vec![vec![0.0; plan.squares().len()]; labels.len()];
    let mut waiting = (0..plan.squares().len()).zip(plan.squares().to_vec());
    // Enough to fill batches; the engine's slots bound what is in memory.
    let window = 2 * manifest.batching.max_batch + 2;
    let mut tasks: JoinSet<Result<(usize, Vec<f64>), Refusal>> = JoinSet::new();
    loop {
        while tasks.len() < window
            && let Some((nth, square)) = waiting.next()
        {
            let (case, manifest, plan) = (case.clone(), Arc::clone(&manifest), Arc::clone(&plan));
            let (tensor, fill, labels) = (tensor.clone(), fill.clone(), labels.clone());
            tasks.spawn(async move {
                let slot = slot(&case).await?;
                let cover = move || plan.cover(&tensor, layout, square, &fill);
                let covered = spawn_blocking(cover).await.map_err(|_| {
                    Refusal::new("internal-error", "an explanation ended abnormally")
                })?;
                let (answers, _) = infer(&case, slot, vec![covered]).await?;
                let sample = Sample {
                    answers,
                    location: None,
                    placement: None,
                };
                let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
                Ok((nth, evidence(&manifest, &sample, &labels)?))
            });
        }
        let Some(ended) = tasks.join_next().await else {
            break;
        };
        let (nth, after) = ended.map_err(|_| abnormal())??;
        for ((losses, before), after) in losses.iter_mut().zip(&before).zip(after) {
            if let Some(loss) = losses.get_mut(nth) {
                *loss = before - after;
            }
        }
    }
    spawn_blocking(move || {
        let map = |losses: Vec<f64>| plan.heat(&losses).normalised(LEAST_LOSS);
        losses.into_iter().map(map).collect()
    })
    .await
    .map_err(|_| abnormal())
}

/// The maps that the graph gives for each label. The image is asked about again, so that the maps of
/// all images of a study need not be in memory until it is known which are wanted.
pub(super) async fn activated(
    case: &Case,
    tensor: Tensor,
    labels: &[&str],
) -> Result<Vec<Option<HeatMap>>, Refusal> {
    let slot = slot(case).await?;
    let (answers, _) = infer(case, slot, vec![tensor]).await?;
    let map = answers.first().and_then(|said| said.outputs.last());
    let reported = case.served.package.manifest.output.labels();
    let own = |label: &&str| {
        let index = reported.iter().find(|one| one.label == *label)?.index;
        activation::map(map?, index)?.normalised(0.0)
    };
    Ok(labels.iter().map(own).collect())
}

/// The manifest for a single image, whatever it says of several.
fn for_one_image(manifest: &Manifest) -> Manifest {
    let mut manifest = manifest.clone();
    if let OutputSpec::Classification(output) = &mut manifest.output {
        output.aggregate = Aggregate::Each;
    }
    manifest
}

/// The log odds of each label in one image, from the probability as it is reported.
fn evidence(manifest: &Manifest, sample: &Sample, labels: &[&str]) -> Result<Vec<f64>, Refusal> {
    let no_probability =
        || Refusal::new("internal-error", "an explanation is about no probability");
    let OutputSpec::Classification(output) = &manifest.output else {
        return Err(no_probability());
    };
    let found = findings::read(manifest, std::slice::from_ref(sample))?.findings;
    let of = |label: &&str| {
        let finding = found.iter().find(|finding| finding.label == **label);
        let probability = finding.and_then(|finding| finding.probability);
        probability
            .map(|value| occlusion::evidence(value, output.activation))
            .ok_or_else(no_probability)
    };
    labels.iter().map(of).collect()
}

/// The maps of [`activated`] have no use before a finding is known.
pub(super) fn without_maps(manifest: &Manifest, answers: &mut [findings::Said]) {
    let maps = manifest.explanation.as_ref();
    if maps.is_some_and(|spec| spec.method == Method::ActivationMap) {
        for said in answers {
            said.outputs.truncate(manifest.output.tensors().len());
        }
    }
}
