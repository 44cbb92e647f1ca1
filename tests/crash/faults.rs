//! The disk is full, broken or read-only, at every call.
//!
//! A fixed sequence of operations runs once for each call that changes something: that call fails, or
//! all from it on. What it answers is judged in the driver, which then goes on without the fault;
//! afterwards the power goes, at once or in the middle, and what had been promised must be there.

use rustix::io::Errno;

use crate::driver::{End, Fault, Plan};
use crate::power::{Count, cut_everywhere, number};
use crate::recorder::{self, Record};

const STEPS: u32 = 24;

/// Runs the plan with a fault; a fault at the start meets what a process that died has left.
fn run(seed: u64, fault: Fault) -> (tempfile::TempDir, Vec<Record>) {
    let (root, logs) = (recorder::folder(), recorder::folder());
    let log = logs.path().join("log");
    let ends = match fault.at_start {
        true => vec![(STEPS, End::Call(100), None), (1, End::Steps, Some(fault))],
        false => vec![(STEPS, End::Steps, Some(fault))],
    };
    for (session, (steps, end, fault)) in (0..).zip(ends) {
        let plan = Plan {
            seed,
            steps,
            session,
            end,
            fault,
        };
        let ended = recorder::run("recorded", root.path(), &log, &plan.variables(root.path()));
        assert!(
            matches!(ended.code, Some(0 | 7)),
            "seed {seed}, {fault:?}: {:?}: {}",
            ended.code,
            ended.stderr
        );
    }
    (root, recorder::read(&log))
}

fn calls_at(records: &[Record], wanted: &str) -> u64 {
    let found = records.iter().rev().find_map(|record| match record {
        Record::Note(text, calls) if text == wanted => Some(*calls),
        _ => None,
    });
    found.unwrap()
}

/// Fails the calls of a run one after the other, every `stride`-th of them: once, four times, and
/// from there on. With `CRASH_ROUNDS` every call, in all three ways.
fn fail_each(errno: Errno, at_start: bool, stride: u64) {
    if !recorder::available() {
        return;
    }
    let seed = number("CRASH_SEED", 1);
    let none = Fault {
        first: u64::MAX,
        last: u64::MAX,
        errno: errno.raw_os_error(),
        at_start,
    };
    let (_, records) = run(seed, none);
    let last = calls_at(&records, if at_start { "ready" } else { "mended" });
    let stride = if number("CRASH_ROUNDS", 0) > 0 {
        1
    } else {
        stride
    };
    let (mut count, mut runs, mut hits) = (Count::default(), 0, 0);
    // The longer a fault lasts, the more operations meet it.
    for (n, first) in (1..=last).step_by(stride as usize).enumerate() {
        let lasts = if stride == 1 {
            vec![first, first + 3, last]
        } else {
            vec![[first, first + 3, last][n % 3]]
        };
        for last in lasts {
            let fault = Fault {
                first,
                last,
                ..none
            };
            let (root, records) = run(seed, fault);
            runs += 1;
            let failed = |record: &&Record| matches!(record, Record::Failed);
            hits += records.iter().filter(failed).count();
            let mended =
                |at: usize| matches!(&records[at], Record::Note(text, _) if text == "mended");
            let due = |at: usize| at + 1 == records.len() || stride == 1 && mended(at);
            cut_everywhere(seed, root.path(), &records, due, &mut count)
                .unwrap_or_else(|err| panic!("{fault:?}: {err}"));
        }
    }
    eprintln!("{errno:?}, calls 1 to {last}: {runs} runs, {hits} failed calls, {count:?}");
    assert!(hits > 0, "no call failed");
}

#[test]
fn a_full_disk_is_said_and_costs_no_promise() {
    fail_each(Errno::NOSPC, false, 9);
}

#[test]
fn an_input_output_error_is_said_and_costs_no_promise() {
    fail_each(Errno::IO, false, 9);
}

#[test]
fn a_read_only_disk_is_said_and_costs_no_promise() {
    fail_each(Errno::ROFS, false, 9);
}

#[test]
fn a_start_on_a_failing_disk_is_refused_and_the_next_one_works() {
    for errno in [Errno::NOSPC, Errno::IO, Errno::ROFS] {
        fail_each(errno, true, 4);
    }
}
