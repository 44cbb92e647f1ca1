//! Files that go with findings, kept before a message names them.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::{Case, Run};
use crate::findings::event::Remark;
use crate::findings::{Area, Artefact, Draft};

/// Why a file is missing.
pub(super) enum Missing {
    /// It could not be made, or not in time.
    Incomplete(&'static str),
    /// It could not be kept.
    NotKept,
}

/// The bytes of one of several drafts, without a copy of what may be the mask of a volume.
struct Nth {
    drafts: Arc<Vec<Draft>>,
    nth: usize,
}

impl AsRef<[u8]> for Nth {
    fn as_ref(&self) -> &[u8] {
        let draft = self.drafts.get(self.nth);
        draft.map_or(&[], |draft| &draft.bytes)
    }
}

/// Keeps the files that belong to the findings, as their areas.
pub(super) async fn drafts(case: &Case, drafts: &Arc<Vec<Draft>>, run: &mut Run) {
    let mut missing = 0;
    for (nth, draft) in drafts.iter().enumerate() {
        let drafts = Arc::clone(drafts);
        let kept = file(case, draft.kind, draft.extension, move || {
            Some(Nth { drafts, nth })
        });
        match (
            kept.await,
            run.outcome.findings_mut().get_mut(draft.finding),
        ) {
            (Ok(artefact), Some(finding)) => {
                if let Some(location) = &mut finding.location {
                    location.area = Some(Area::Mask(artefact));
                }
            }
            _ => missing += 1,
        }
    }
    if missing > 0 {
        let text = format!(
            "{missing} of {} files of findings are missing",
            drafts.len()
        );
        run.remarks.push(not_kept(text));
    }
}

/// Whether there is room for a file. What we owe the modality needs the disk more.
pub(super) fn room(case: &Case) -> Result<(), Missing> {
    let pipeline = &case.pipeline;
    let room = pipeline.spool.shedding().is_none() && pipeline.artefacts.has_room();
    room.then_some(()).ok_or(Missing::NotKept)
}

/// Makes a file and keeps it, both off the runtime.
pub(super) async fn file<B: AsRef<[u8]>>(
    case: &Case,
    kind: &'static str,
    extension: &'static str,
    make: impl FnOnce() -> Option<B> + Send + 'static,
) -> Result<Artefact, Missing> {
    room(case)?;
    let artefacts = Arc::clone(&case.pipeline.artefacts);
    let kept = spawn_blocking(move || {
        let nothing = "no part of the image stands out";
        let bytes = make().ok_or(Missing::Incomplete(nothing))?;
        artefacts
            .keep(kind, extension, bytes.as_ref())
            .map_err(|err| {
                tracing::warn!(kind, error = %err, "artefact not kept");
                Missing::NotKept
            })
    });
    let kept = kept.await;
    let reference = kept.unwrap_or(Err(Missing::Incomplete("internal-error")))?;
    let metrics = &case.pipeline.metrics;
    metrics
        .artefacts_kept_total
        .with_label_values(&[kind])
        .inc();
    Ok(Artefact { kind, reference })
}

pub(super) fn not_kept(text: String) -> Remark {
    Remark {
        code: "artefact-not-kept",
        text,
    }
}
