//! Each key is changed in the file by itself: the answer to a reload names it, and nothing else, as one
//! that counts or as one that waits.

use std::collections::BTreeMap;
use std::path::PathBuf;

use pacs_gateway::config;
use pacs_gateway::reload::keys::LIVE;
use serde_json::{Value, json};

use crate::support::certificates::{Certificates, Pair, secured};
use crate::support::operator::Operator;
use crate::support::{Gateway, Options};

/// Another value for keys whose default does not tell what one would look like.
fn sample(key: &str, files: &Files, models: &[String]) -> Option<Value> {
    Some(match key {
        "dicom.bind" | "http.bind" => json!("127.0.0.2:0"),
        "dicom.addresses" => json!(["127.0.0.0/8"]),
        "dicom.addresses_by_ae" => json!({ "CT1": ["127.0.0.0/8"] }),
        "dicom.calling_ae_titles" | "dicom.called_ae_titles" => json!(["CT1"]),
        "dicom.peers" => json!({ "CT1": "127.0.0.1:104" }),
        "dicom.tls.ae_titles" => json!({ "scanner": ["CT1"] }),
        "dicom.tls.bind" => json!("127.0.0.2:0"),
        "dicom.tls.certificate" => json!(files.others.certificate),
        "dicom.tls.key" => json!(files.others.key),
        "dicom.tls.ca" => json!([files.ca, files.other_ca]),
        "dicom.tls.client_certificate" => json!("optional"),
        "dicom.private_sop_classes" => json!("reject"),
        "dicom.user_identity" => json!("accept"),
        "dicom.max_pdu_length" => json!(16384),
        "spool.duplicates" => json!("keep-last"),
        "spool.limits.resume_bytes" => json!("1GiB"),
        "study.quiet_period_by_ae" => json!({ "CT1": "7s" }),
        "study.priority_by_ae" => json!({ "CT1": "stat" }),
        "study.evidence" => json!(["mpps"]),
        "study.max_age" => json!("2h"),
        "study.expected_series" => json!([{
            "name": "head",
            "when": [{ "attribute": "ProtocolName", "equals": "HEAD" }],
            "series": [{ "min_instances": 3 }],
        }]),
        "study.pacs.ae_title" | "study.pacs.calling_ae_title" => json!("OTHER"),
        "study.pacs.address" => json!("127.0.0.1:105"),
        "models.only" => json!([models[0]]),
        "models.sites" => json!({ "north": { "calling_ae_titles": ["CT1"] } }),
        "models.trusted_keys" => {
            json!(["RWQBAgMEBQYHCAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g"])
        }
        "broker.url" => json!("amqps://user:word@127.0.0.1:2/%2f"),
        "broker.kind" => json!("amqp"),
        "broker.sasl" => json!("external"),
        "broker.declare" => json!("none"),
        "artefacts.base_url" => json!("https://pictures.example"),
        "inference.provider" => json!("cuda"),
        "log.level" => json!("warn"),
        "log.format" => json!("text"),
        "traces.protocol" => json!("http"),
        "traces.endpoint" => json!("http://127.0.0.1:4317"),
        "traces.sample" => json!(0.5),
        _ => return None,
    })
}

/// Another value of the same kind as the default.
fn other(default: &Value) -> Value {
    match default {
        Value::Bool(flag) => json!(!flag),
        Value::Number(number) => json!(number.as_u64().unwrap() + 1),
        Value::Array(_) => json!(["0123456789abcdef0123"]),
        Value::String(text) if text.is_empty() => json!("/nowhere/a-file"),
        Value::String(text) => {
            let digits = text.chars().take_while(char::is_ascii_digit).count();
            match text[..digits].parse::<u64>() {
                // A duration or a size.
                Ok(number) => json!(format!("{}{}", number + 1, &text[digits..])),
                Err(_) => json!(format!("{text}x")),
            }
        }
        other => panic!("{other}"),
    }
}

/// What TLS needs: the same certificate in two places, and two authorities.
struct Files {
    server: Pair,
    others: Pair,
    ca: PathBuf,
    other_ca: PathBuf,
    _folder: Certificates,
}

impl Files {
    fn new() -> Option<Self> {
        let folder = Certificates::new()?;
        let (ca, other_ca) = (folder.authority("ours"), folder.authority("others"));
        let server = folder.server("ours", "gateway");
        let others = Pair {
            certificate: folder.path("copy", "pem"),
            key: folder.path("copy", "key"),
        };
        std::fs::copy(&server.certificate, &others.certificate).unwrap();
        std::fs::copy(&server.key, &others.key).unwrap();
        Some(Self {
            server,
            others,
            ca,
            other_ca,
            _folder: folder,
        })
    }
}

/// What some keys need beside them.
fn base(operator: &Operator, files: &Files) -> Options {
    let key = "RWQAAQIDBAUGBwABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
    operator
        .admit(secured(&files.server, [files.ca.clone()]))
        .all_models()
        .set("broker.url", "amqps://user:word@127.0.0.1:1/%2f")
        .set("broker.tls.certificate", "/nowhere/ours.pem")
        .set("broker.tls.key", "/nowhere/ours.key")
        .set("study.pacs.ae_title", "PACS")
        .set("study.pacs.address", "127.0.0.1:104")
        .set("models.trusted_keys", [key])
}

fn toml(value: &Value) -> toml::Value {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn one_by_one() {
    let Some(files) = Files::new() else { return };
    let operator = Operator::new();
    let gateway = Gateway::start(&base(&operator, &files));
    let models: Vec<String> = gateway.get("/api/v1/models")["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["name"].as_str().unwrap().to_owned())
        .collect();
    // What the harness sets has another value than the default already.
    let mut set = BTreeMap::from([
        ("study.quiet_period", json!("400ms")),
        ("models.dir", json!("/nowhere")),
        ("spool.limits.min_free_bytes", json!("17MiB")),
        ("spool.limits.min_free_inodes", json!(101)),
        ("log.format", json!("text")),
        ("http.operate_token_files", json!([])),
    ]);
    let mut told = Vec::new();
    for (key, default) in config::keys() {
        let value = set.remove(key.as_str());
        let value = value.or_else(|| sample(&key, &files, &models));
        let value = value.unwrap_or_else(|| other(&default));
        let change = |options: Options| options.set(&key, toml(&value));
        gateway.rewrite(&change(base(&operator, &files)));
        let (status, report) = operator.post(&gateway, "/api/v1/reload", &json!({}));
        assert_eq!(status, 200, "{key} = {value}: {report}");
        let live = LIVE.contains(&key.as_str());
        let (named, silent) = match live {
            true => ("applied", "needs_restart"),
            false => ("needs_restart", "applied"),
        };
        assert_eq!(report[named], json!([key]), "{key} = {value}: {report}");
        assert_eq!(report[silent], json!([]), "{key} = {value}: {report}");
        gateway.rewrite(&base(&operator, &files));
        let (status, back) = operator.post(&gateway, "/api/v1/reload", &json!({}));
        let expected = if live { json!([key]) } else { json!([]) };
        assert_eq!((status, &back["applied"]), (200, &expected), "{key}");
        told.push(key);
    }
    assert_eq!(told.len(), config::keys().len());
    assert!(set.is_empty());
}
