//! The span of a message: from when it was made to the broker's confirm.

use crate::clock::Timestamp;
use crate::outbox::{Due, Exchange};
use crate::telemetry::traces::{Kind, News, Tracer};

/// Tells of messages whose confirm is durable.
pub(super) fn confirmed<'a>(tracer: &Tracer, sent: impl Iterator<Item = &'a Due>, at: Timestamp) {
    for Due {
        message, attempts, ..
    } in sent
    {
        // One that was made while traces were off belongs to none.
        let traced = message.traceparent.as_ref();
        let trace = traced.and_then(|_| tracer.study(&message.study, message.revision));
        let Some(trace) = trace else { continue };
        let root = Some(trace.root());
        let span = trace.span("publish", &message.id, root, message.created_at, at);
        trace.record(
            span.kind(Kind::Producer)
                .with("exchange", message.exchange.as_str())
                .with("model", message.model.as_str())
                .with("outcome", message.outcome.as_str())
                .with("bytes", message.body.len())
                .with("attempts", attempts.saturating_add(1))
                .with("result", "ack"),
        );
        if message.exchange == Exchange::Findings {
            tracer.tell(|| News::Settled {
                study: message.study.clone(),
                revision: message.revision,
            });
        }
    }
}
