//! The harness: real processes and real peers, and nothing that a scenario has to know twice.

pub mod balancer;
pub mod certificates;
pub mod collector;
pub mod commitment;
pub mod contract;
pub mod datasets;
pub mod disk;
pub mod files;
pub mod gateway;
pub mod golden;
pub mod models;
pub mod operator;
pub mod options;
pub mod orthanc;
pub mod pacs;
pub mod pdus;
pub mod peers;
pub mod ports;
pub mod rabbit;
pub mod raw_peer;
pub mod reaper;
pub mod topology;
pub mod tunnel;
pub mod waiting;

pub use datasets::{Instance, Study};
pub use gateway::Gateway;
pub use options::Options;
pub use raw_peer::{Answer, RawPeer};
pub use waiting::{SOON, wait_for, wait_until};
