//! A DICOM-aware gateway between scanners and AI.
//!
//! ```text
//! modality ─association─▶ scp ─▶ [SPOOL] ─▶ study ─▶ pixel ─▶ inference ─▶ findings ─▶ [OUTBOX] ─▶ broker
//!           loop 1: per association          loop 2: pipeline, per study              loop 3: publisher
//! ```
//!
//! Two directories on disk are the only places where the gateway owes anybody anything; everything in
//! memory can be rebuilt from them. `docs/architecture.md` says more; the modules below are in the
//! order of the flow, and `tests/tidy.rs` holds them to who may import whom.

pub mod child;
pub mod clock;
pub mod lifecycle;
pub mod live;
pub mod pause;
pub mod priority;
pub mod refusal;
pub mod retry;
pub mod telemetry;
pub mod tls;
pub mod units;

pub mod decoder;
pub mod dicom;
pub mod durable;

pub mod artefact;
pub mod certificates;
pub mod commitment;
pub mod outbox;
pub mod procedure;
pub mod spool;

pub mod ledger;
pub mod scp;
pub mod scu;
pub mod state;
pub mod study;

pub mod model;

pub mod evaluation;
pub mod features;
pub mod findings;
pub mod inference;
pub mod pixel;

pub mod answers;
pub mod broker;
pub mod explanation;
pub mod journey;
pub mod maintenance;
pub mod monitor;
pub mod reporter;
pub mod volume;

pub mod registry;

pub mod http;
pub mod pipeline;

pub mod config;

pub mod reload;

pub mod app;

pub mod cli;
