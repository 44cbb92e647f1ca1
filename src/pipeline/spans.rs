//! What a trace tells of the work on a revision. Made when the revision is finished, so that work that
//! a crash has repeated is told once.

use super::StableStudy;
use super::examine::{Run, Window};
use crate::clock::Timestamp;
use crate::spool::Entry;
use crate::telemetry::traces::{News, SpanId, StudyTrace, Tracer};
use std::sync::Arc;

/// A finished revision.
pub(super) struct Finished<'a> {
    pub study: &'a StableStudy,
    pub revision: u32,
    pub entries: &'a [Arc<Entry>],
    /// The attempt that led to it, from 1.
    pub attempt: u32,
    /// When that attempt began.
    pub began: Timestamp,
    /// When every model had answered.
    pub examined: Timestamp,
    pub runs: &'a [Run],
    pub messages: usize,
}

/// Tells of a revision that has just become durable.
pub(super) fn finished(tracer: &Tracer, done: &Finished<'_>) {
    let study = done.study;
    if let Some(trace) = tracer.study(study.uid.as_str(), done.revision) {
        tell(&trace, done);
    }
    tracer.tell(|| News::Finished {
        study: study.uid.as_str().to_owned(),
    });
}

fn tell(trace: &StudyTrace, done: &Finished<'_>) {
    let Finished {
        study,
        entries,
        began,
        examined,
        ..
    } = *done;
    let root = Some(trace.root());
    let now = Timestamp::now();
    let bytes: u64 = entries.iter().map(|entry| entry.data_set_bytes).sum();
    let modality = entries.iter().map(|entry| &entry.modality);
    let modality = modality.min().cloned().unwrap_or_default();
    let assembled = trace.span("assemble", "", root, study.first, study.complete_at);
    trace.record(
        assembled
            .with("completeness", study.method.as_str())
            .with("instances", entries.len())
            .with("bytes", bytes)
            .with("modality", modality),
    );
    let process = trace.span("process", "", root, began, now);
    let id = process.id();
    trace.record(
        process
            .with("revision", done.revision)
            .with("attempt", done.attempt)
            .with("waited", began.since(study.complete_at)),
    );
    models(trace, id, done.runs);
    let report = trace.span("report", "", Some(id), examined, now);
    trace.record(report.with("messages", done.messages));
}

/// What each model did, below `parent`.
pub(super) fn models(trace: &StudyTrace, parent: SpanId, runs: &[Run]) {
    for run in runs {
        let (Some(model), Some((start, end, windows))) = (&run.model, run.times) else {
            continue;
        };
        let manifest = &model.package.manifest;
        let of = format!("{}@{}", manifest.name, manifest.version);
        let span = trace.span("model", &of, Some(parent), start, end);
        let id = span.id();
        let refusal = run.outcome.refusal();
        trace.record(
            span.with("model", manifest.name.as_str())
                .with("version", manifest.version.as_str())
                .with("role", model.role.as_str())
                .with("outcome", run.outcome.as_str())
                .with("code", refusal.map_or("", |refusal| refusal.code))
                .with("instances", run.inputs.len())
                .with("refused", run.refused)
                .failed(refusal.map(|refusal| refusal.code)),
        );
        for (name, window) in [
            ("prepare", windows.prepare),
            ("infer", windows.infer),
            ("explain", windows.explain),
        ] {
            if let Some(window) = window {
                stage(trace, name, &of, id, &window);
            }
        }
    }
}

/// Many frames at the same time are one span: from the first to the last, with the time in them.
fn stage(trace: &StudyTrace, name: &'static str, of: &str, parent: SpanId, window: &Window) {
    let span = trace.span(name, of, Some(parent), window.start, window.end);
    let span = span.with("count", window.count).with("busy", window.busy);
    trace.record(match window.batch {
        0 => span,
        batch => span.with("waited", window.waited).with("batch", batch),
    });
}
