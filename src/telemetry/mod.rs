//! What the gateway tells about itself: logs and metrics. Never patient data.

pub mod logging;
pub mod metrics;

pub use metrics::Metrics;
