//! Crashes: the spool and `state.db` on a disk that forgets what was not synced, and on one that
//! fails. docs/reliability.md says what is modelled.
//!
//! A test runs random operations in a process of its own whose calls are recorded, cuts the power
//! after every one of them, starts the gateway's own code on each disk that the cut may have left,
//! and compares with what had been promised until then. `CRASH_ROUNDS` and `CRASH_SEED` choose how
//! much, and where to begin.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation
)]

mod check;
mod disk;
mod driver;
mod faults;
mod power;
mod recorder;

/// The recorded process; see `driver`.
#[test]
#[ignore = "a child of the other tests"]
fn recorded() {
    driver::main();
}
