//! What the gateway tells about itself: logs, metrics and traces. Never patient data.

mod budget;
pub mod logging;
pub mod metrics;
pub mod study_key;
pub mod traces;

pub use budget::Budget;
pub use metrics::Metrics;
pub use study_key::StudyKey;
