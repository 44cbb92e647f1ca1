//! What every message promises, whatever its outcome (docs/messages.md).

use serde_json::Value;

use super::options::repository;
use super::topology::Received;

/// Checks properties, routing key, size and body of a message from the queue.
#[track_caller]
pub fn check(message: &Received) {
    let (event, properties) = (&message.event, &message.properties);
    let word = |value: &Option<lapin::types::ShortString>| value.as_ref().unwrap().to_string();
    assert_eq!(*properties.delivery_mode(), Some(2), "persistent");
    assert_eq!(
        word(properties.content_type()),
        "application/cloudevents+json; charset=utf-8"
    );
    assert_eq!(word(properties.message_id()), text(event, "/id"));
    assert_eq!(word(properties.kind()), "org.pacsgateway.inference.v1");
    assert_eq!(text(event, "/type"), "org.pacsgateway.inference.v1");
    assert_eq!(word(properties.app_id()), "pacs-gateway");
    assert!(
        properties
            .timestamp()
            .is_some_and(|seconds| seconds > 1_700_000_000)
    );
    // What is unknown is an underscore.
    let word_of_key = |pointer: &str| match text(event, pointer).to_lowercase().as_str() {
        "" => "_".to_owned(),
        word => word.to_owned(),
    };
    let key = [
        "/data/outcome",
        "/data/priority",
        "/data/study/modality",
        "/data/study/body_part",
        "/data/model/name",
    ];
    assert_eq!(message.routing_key, key.map(word_of_key).join("."));
    assert!(message.size < 64 * 1024, "{} bytes", message.size);
    check_event(event);
}

/// Checks the body against the published JSON Schema.
#[track_caller]
pub fn check_event(event: &Value) {
    let path = repository().join("docs/schema/inference.v1.json");
    let schema = std::fs::read_to_string(&path).expect("docs/schema/inference.v1.json");
    let schema = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    let errors: Vec<String> = schema
        .iter_errors(event)
        .map(|err| err.to_string())
        .collect();
    assert!(errors.is_empty(), "{errors:?} in {event}");
}

fn text(value: &Value, pointer: &str) -> String {
    let text = value.pointer(pointer).and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
}
