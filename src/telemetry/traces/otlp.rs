//! Spans in the words of OTLP 1.x (opentelemetry-proto, `trace.proto`).

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as Message, Status};
use prost::Message as _;

use super::span::{Kind, Span, Value};
use crate::clock::Timestamp;

/// Span flags: the trace is sampled; the parent is known not to be remote.
const FLAGS: u32 = 0x101;

/// The request that carries `spans`, encoded. `instance` names this process.
pub(super) fn request(instance: &str, spans: Vec<Span>) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let resource = Resource {
        attributes: vec![
            text("service.name", env!("CARGO_PKG_NAME")),
            text("service.version", version),
            text("service.instance.id", instance),
        ],
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: version.to_owned(),
        ..InstrumentationScope::default()
    };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope),
                spans: spans.into_iter().map(message).collect(),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    request.encode_to_vec()
}

fn message(span: Span) -> Message {
    let attributes = span.attributes.into_iter();
    Message {
        trace_id: span.trace.0.to_vec(),
        span_id: span.id.0.to_vec(),
        parent_span_id: span
            .parent
            .map_or_else(Vec::new, |parent| parent.0.to_vec()),
        flags: FLAGS,
        name: span.name.to_owned(),
        kind: i32::from(match span.kind {
            Kind::Internal => SpanKind::Internal,
            Kind::Server => SpanKind::Server,
            Kind::Producer => SpanKind::Producer,
        }),
        start_time_unix_nano: nanos(span.start),
        end_time_unix_nano: nanos(span.end),
        attributes: attributes
            .map(|(name, value)| attribute(name, value))
            .collect(),
        status: span.error.map(|message| Status {
            message,
            code: i32::from(StatusCode::Error),
        }),
        ..Message::default()
    }
}

fn attribute(name: &str, value: Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => any_value::Value::StringValue(text),
        Value::Number(number) => any_value::Value::IntValue(number),
        Value::Real(real) => any_value::Value::DoubleValue(real),
    };
    KeyValue {
        key: name.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn text(name: &str, value: &str) -> KeyValue {
    attribute(name, value.into())
}

fn nanos(at: Timestamp) -> u64 {
    u64::try_from(at.0).unwrap_or(0).saturating_mul(1000)
}
