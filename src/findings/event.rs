//! The published message: a CloudEvents 1.0 structured JSON event, version 1.
//!
//! Wire types live here and nowhere else, so a change of the domain cannot change the contract by
//! accident. `docs/schema/inference.v1.json` is the JSON Schema; within version 1 fields are only
//! added. Contract: `docs/messages.md`.

use serde::Serialize;

use super::{Area, Finding, Location, Outcome};
use crate::clock::Timestamp;
use crate::model::manifest::{Code, Priority};
use crate::model::{Manifest, Role};

/// CloudEvents `type`.
pub const EVENT_TYPE: &str = "org.pacsgateway.inference.v1";
/// CloudEvents `dataschema`: the `$id` of the JSON Schema.
pub const DATA_SCHEMA: &str = "urn:org.pacsgateway:schema:inference:v1";
/// Media type of the body.
pub const CONTENT_TYPE: &str = "application/cloudevents+json; charset=utf-8";
/// Version of the steps from stored values to tensors; part of every message.
pub const PREPROCESSING_VERSION: &str = "1";
/// SOP Instance UIDs are listed up to this many, then counted.
const MAX_LISTED: usize = 100;
/// Findings are listed up to this many.
const MAX_FINDINGS: usize = 50;
/// Bytes of the listed findings together, so that the message stays below 64 KiB.
const MAX_FINDINGS_BYTES: usize = 44 << 10;

/// What is said about the study.
#[derive(Debug, Clone)]
pub struct StudyFacts {
    /// Study Instance UID.
    pub study_instance_uid: String,
    /// Accession Number (0008,0050), if policy allows it.
    pub accession_number: Option<String>,
    /// Patient ID (0010,0020), if policy allows it.
    pub patient_id: Option<String>,
    /// Modality of the first instance.
    pub modality: String,
    /// Body part of the first instance that has one.
    pub body_part: Option<String>,
    /// Study Date (0008,0020), `YYYYMMDD`.
    pub study_date: Option<String>,
    /// Instances of the set.
    pub instances: usize,
    /// Instances there should be, when somebody has said so.
    pub instances_expected: Option<u32>,
    /// How it was found to be complete.
    pub completeness: &'static str,
    /// What was known of how complete it is.
    pub evidence: Vec<EvidenceFact>,
    /// Calling AE title of the last association.
    pub calling_ae: String,
    /// Called AE title of the last association.
    pub called_ae: String,
    /// Digest of the instance set, hex.
    pub instance_set_digest: String,
    /// First arrival.
    pub received_first: Timestamp,
    /// Last arrival.
    pub received_last: Timestamp,
    /// When it was found to be complete.
    pub complete_at: Timestamp,
    /// Remarks on the input.
    pub quality: Vec<Remark>,
}

/// What one source says of how complete the study is.
#[derive(Debug, Clone, Serialize)]
pub struct EvidenceFact {
    /// Where it comes from.
    pub kind: &'static str,
    /// What it says.
    pub verdict: &'static str,
    /// How many there should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<u32>,
    /// How many of them are here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received: Option<u32>,
    /// AE title of who says so, or the name of the protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// A coded remark on the quality of the input.
#[derive(Debug, Clone, Serialize)]
pub struct Remark {
    /// Stable word, kebab-case.
    pub code: &'static str,
    /// One sentence.
    pub text: String,
}

/// What ran.
#[derive(Debug, Clone)]
pub struct RuntimeFacts {
    /// Execution provider.
    pub provider: &'static str,
    /// Version of ONNX Runtime.
    pub onnxruntime: String,
}

/// What one model made of the study.
#[derive(Debug, Clone)]
pub struct Result<'a> {
    /// Event id.
    pub id: String,
    /// Its place in the trace of the study, as W3C Trace Context has it.
    pub traceparent: Option<String>,
    /// The message this one replaces.
    pub supersedes: Option<String>,
    /// The model; none when no model applies.
    pub model: Option<&'a Manifest>,
    /// What its version is there for.
    pub role: Role,
    /// The outcome.
    pub outcome: &'a Outcome,
    /// SOP Instance UIDs the model looked at.
    pub inputs: Vec<String>,
    /// Digest of the tensors of all samples; none when no sample reached the model.
    pub input_digest: Option<String>,
    /// Milliseconds in decoding, in the queue, in the model.
    pub decoded_ms: u64,
    /// Longest wait of a sample for its batch.
    pub queued_ms: u64,
    /// Time in the model's runs.
    pub inferred_ms: u64,
}

/// Encodes the structured event. `source` identifies the gateway, `now` is CloudEvents `time`.
pub fn encode(
    source: &str,
    now: Timestamp,
    study: &StudyFacts,
    runtime: &RuntimeFacts,
    result: &Result<'_>,
) -> serde_json::Result<Vec<u8>> {
    let listed = result.inputs.len() <= MAX_LISTED;
    let mut quality = study.quality.clone();
    let all = result.outcome.findings();
    let findings = listed_findings(all)?;
    if findings.len() < all.len() {
        quality.push(Remark {
            code: "findings-truncated",
            text: format!("{} of {} findings are listed", findings.len(), all.len()),
        });
    }
    serde_json::to_vec(&Envelope {
        specversion: "1.0",
        id: &result.id,
        source,
        r#type: EVENT_TYPE,
        subject: format!("urn:oid:{}", study.study_instance_uid),
        time: now.rfc3339(),
        datacontenttype: "application/json",
        dataschema: DATA_SCHEMA,
        traceparent: result.traceparent.as_deref(),
        data: Data {
            outcome: result.outcome.as_str(),
            reason: result.outcome.refusal().map(|refusal| Reason {
                code: refusal.code,
                text: &refusal.text,
            }),
            priority: result.outcome.priority().as_str(),
            supersedes: result.supersedes.as_deref(),
            study: Study {
                study_instance_uid: &study.study_instance_uid,
                accession_number: study.accession_number.as_deref(),
                modality: &study.modality,
                body_part: study.body_part.as_deref(),
                study_date: study.study_date.as_deref(),
                instances_received: study.instances,
                instances_expected: study.instances_expected,
                completeness: Completeness {
                    method: study.completeness,
                    at: study.complete_at.rfc3339(),
                    evidence: &study.evidence,
                },
            },
            patient: study.patient_id.as_deref().map(|id| Patient { id }),
            source: Source {
                calling_ae: &study.calling_ae,
                called_ae: &study.called_ae,
            },
            model: result.model.map(|model| Model {
                name: &model.name,
                version: &model.version,
                sha256: &model.sha256,
                role: result.role,
                device_uid: &model.device_uid,
                intended_use: &model.intended_use,
            }),
            runtime: Runtime {
                provider: runtime.provider,
                onnxruntime: &runtime.onnxruntime,
                gateway: env!("CARGO_PKG_VERSION"),
            },
            findings,
            inputs: Inputs {
                instance_set_digest: &study.instance_set_digest,
                count: result.inputs.len(),
                sop_instance_uids: listed.then_some(&result.inputs),
                reference: (!listed)
                    .then(|| format!("/api/v1/studies/{}", study.study_instance_uid)),
                preprocessing_version: PREPROCESSING_VERSION,
                input_digest: result.input_digest.as_deref(),
            },
            quality: &quality,
            timing: Timing {
                received_first: study.received_first.rfc3339(),
                received_last: study.received_last.rfc3339(),
                complete: study.complete_at.rfc3339(),
                decoded_ms: result.decoded_ms,
                queued_ms: result.queued_ms,
                inferred_ms: result.inferred_ms,
            },
        },
    })
}

/// As many of the first findings as a message has room for, at least one.
fn listed_findings(findings: &[Finding]) -> serde_json::Result<Vec<FindingOut<'_>>> {
    let (mut listed, mut bytes) = (Vec::new(), 0);
    for finding in findings.iter().take(MAX_FINDINGS).map(FindingOut::from) {
        bytes += serde_json::to_vec(&finding)?.len() + 1;
        if bytes > MAX_FINDINGS_BYTES && !listed.is_empty() {
            break;
        }
        listed.push(finding);
    }
    Ok(listed)
}

#[derive(Serialize)]
struct Envelope<'a> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    r#type: &'static str,
    subject: String,
    time: String,
    datacontenttype: &'static str,
    dataschema: &'static str,
    /// CloudEvents extension "Distributed Tracing".
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason<'a>>,
    priority: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    supersedes: Option<&'a str>,
    study: Study<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patient: Option<Patient<'a>>,
    source: Source<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<Model<'a>>,
    runtime: Runtime<'a>,
    findings: Vec<FindingOut<'a>>,
    inputs: Inputs<'a>,
    quality: &'a [Remark],
    timing: Timing,
}

#[derive(Serialize)]
struct Reason<'a> {
    code: &'static str,
    text: &'a str,
}

#[derive(Serialize)]
struct Study<'a> {
    study_instance_uid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    accession_number: Option<&'a str>,
    modality: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_part: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    study_date: Option<&'a str>,
    instances_received: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    instances_expected: Option<u32>,
    completeness: Completeness<'a>,
}

#[derive(Serialize)]
struct Completeness<'a> {
    method: &'static str,
    at: String,
    evidence: &'a [EvidenceFact],
}

#[derive(Serialize)]
struct Patient<'a> {
    id: &'a str,
}

#[derive(Serialize)]
struct Source<'a> {
    calling_ae: &'a str,
    called_ae: &'a str,
}

#[derive(Serialize)]
struct Model<'a> {
    name: &'a str,
    version: &'a str,
    sha256: &'a str,
    role: Role,
    device_uid: &'a str,
    intended_use: &'a str,
}

#[derive(Serialize)]
struct Runtime<'a> {
    provider: &'static str,
    onnxruntime: &'a str,
    gateway: &'static str,
}

#[derive(Serialize)]
struct FindingOut<'a> {
    code: CodeOut<'a>,
    label: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    probability: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    threshold: Option<f64>,
    present: bool,
    priority: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<LocationOut<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    measurements: Vec<MeasurementOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<ArtefactOut<'a>>,
}

#[derive(Serialize)]
struct MeasurementOut<'a> {
    code: CodeOut<'a>,
    value: f64,
    unit: &'a str,
}

#[derive(Serialize)]
struct ArtefactOut<'a> {
    kind: &'static str,
    reference: &'a str,
}

#[derive(Serialize)]
struct CodeOut<'a> {
    scheme: &'a str,
    value: &'a str,
    meaning: &'a str,
}

#[derive(Serialize)]
struct LocationOut<'a> {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    series_instance_uid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sop_instance_uid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frame: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    coordinates: Option<[f64; 4]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<&'a str>,
}

#[derive(Serialize)]
struct Inputs<'a> {
    instance_set_digest: &'a str,
    count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    sop_instance_uids: Option<&'a Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    preprocessing_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_digest: Option<&'a str>,
}

#[derive(Serialize)]
struct Timing {
    received_first: String,
    received_last: String,
    complete: String,
    decoded_ms: u64,
    queued_ms: u64,
    inferred_ms: u64,
}

impl<'a> From<&'a Finding> for FindingOut<'a> {
    fn from(finding: &'a Finding) -> Self {
        Self {
            code: CodeOut::from(&finding.code),
            label: &finding.label,
            probability: finding.probability,
            threshold: finding.threshold,
            present: finding.present,
            priority: if finding.present {
                finding.priority
            } else {
                Priority::Routine
            }
            .as_str(),
            location: finding.location.as_ref().map(LocationOut::from),
            measurements: finding
                .measurements
                .iter()
                .map(|measurement| MeasurementOut {
                    code: CodeOut::from(&measurement.code),
                    value: measurement.value,
                    unit: &measurement.unit,
                })
                .collect(),
            explanation: finding.explanation.as_ref().map(|artefact| ArtefactOut {
                kind: artefact.kind,
                reference: &artefact.reference,
            }),
        }
    }
}

impl<'a> From<&'a Code> for CodeOut<'a> {
    fn from(code: &'a Code) -> Self {
        Self {
            scheme: &code.scheme,
            value: &code.value,
            meaning: &code.meaning,
        }
    }
}

impl<'a> From<&'a Location> for LocationOut<'a> {
    fn from(location: &'a Location) -> Self {
        let (kind, coordinates, reference) = match &location.area {
            Some(Area::Box(edges)) => ("box", Some(*edges), None),
            Some(Area::Mask(mask)) => ("mask", None, Some(mask.reference.as_str())),
            None if location.sop_instance.is_some() => ("image", None, None),
            None => ("series", None, None),
        };
        Self {
            kind,
            series_instance_uid: location.series.as_ref().map(|uid| uid.as_str()),
            sop_instance_uid: location.sop_instance.as_ref().map(|uid| uid.as_str()),
            frame: location.frame,
            coordinates,
            reference,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::dicom::uid::{SeriesInstanceUid, SopInstanceUid};
    use crate::findings::{Artefact, Measurement};

    fn code() -> Code {
        Code {
            scheme: "s".repeat(16),
            value: "v".repeat(64),
            // As long in JSON as anything that a manifest accepts gets.
            meaning: "\u{1}".repeat(128),
        }
    }

    /// As large as a finding can be.
    fn large() -> Finding {
        let uid = format!("2.{}", "9".repeat(62));
        let artefact = |kind| Artefact {
            kind,
            reference: "r".repeat(300),
        };
        Finding {
            label: "\u{1}".repeat(64),
            code: code(),
            probability: Some(1.0 / 3.0),
            threshold: Some(2.0 / 3.0),
            present: true,
            priority: Priority::Urgent,
            location: Some(Location {
                series: Some(SeriesInstanceUid::parse(&uid).unwrap()),
                sop_instance: Some(SopInstanceUid::parse(&uid).unwrap()),
                frame: Some(u32::MAX),
                area: Some(Area::Mask(artefact("mask"))),
            }),
            measurements: vec![
                Measurement {
                    code: code(),
                    value: 1.0 / 3.0,
                    unit: "mm2".to_owned(),
                };
                3
            ],
            explanation: Some(artefact("outlines")),
        }
    }

    #[test]
    fn findings_are_listed_as_far_as_the_message_has_room() {
        let many = vec![large(); 60];
        let listed = listed_findings(&many).unwrap();
        let bytes = serde_json::to_vec(&listed).unwrap().len();
        assert!(
            listed.len() > 5 && bytes <= MAX_FINDINGS_BYTES + 1,
            "{bytes}"
        );
        let plain = Finding {
            measurements: Vec::new(),
            explanation: None,
            location: None,
            label: "a".to_owned(),
            code: Code {
                meaning: "m".to_owned(),
                ..code()
            },
            ..large()
        };
        assert_eq!(
            listed_findings(&vec![plain; 60]).unwrap().len(),
            MAX_FINDINGS
        );
        assert!(listed_findings(&[]).unwrap().is_empty());
    }

    #[test]
    fn a_place_is_told_by_its_kind() {
        let mut location = large().location.unwrap();
        let told = |location: &Location| serde_json::to_value(LocationOut::from(location)).unwrap();
        assert_eq!(told(&location)["kind"], "mask");
        assert_eq!(told(&location)["reference"], "r".repeat(300));
        location.area = Some(Area::Box([0.5, 1.0, 20.25, 31.0]));
        assert_eq!(told(&location)["kind"], "box");
        let edges = serde_json::json!([0.5, 1.0, 20.25, 31.0]);
        assert_eq!(told(&location)["coordinates"], edges);
        location.area = None;
        assert_eq!(told(&location)["kind"], "image");
        assert!(told(&location).get("coordinates").is_none());
        location.sop_instance = None;
        assert_eq!(told(&location)["kind"], "series");
    }
}
