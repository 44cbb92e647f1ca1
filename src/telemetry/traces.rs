//! Traces, one per study, to an OpenTelemetry collector.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The `[traces]` section.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// URL of the collector; empty: no traces.
    pub endpoint: String,
    /// OTLP over gRPC or HTTP.
    pub protocol: Protocol,
    /// PEM file of the authority of its certificate; empty: those of the system.
    pub ca: PathBuf,
    /// Share of studies that are traced, from 0 to 1.
    pub sample: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            protocol: Protocol::Grpc,
            ca: PathBuf::new(),
            sample: 1.0,
        }
    }
}

/// How spans travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP over HTTP, protobuf bodies.
    Http,
}
