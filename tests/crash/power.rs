//! The power goes, at every boundary of an operation.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::runtime::Runtime;

use crate::check::{Promises, check};
use crate::disk::{Cut, Disk};
use crate::driver::{End, Plan, config};
use crate::recorder::{self, Record};

/// What was looked at.
#[derive(Debug, Default)]
pub struct Count {
    boundaries: u64,
    states: u64,
    seen_before: u64,
}

/// A number from the environment.
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Cuts the power at every boundary of `records` at which `due`, in every way, and checks; the
/// directory that held what happened is `root`.
pub fn cut_everywhere(
    seed: u64,
    root: &Path,
    records: &[Record],
    mut due: impl FnMut(usize) -> bool,
    count: &mut Count,
) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut random = StdRng::seed_from_u64(seed);
    let mut disk = Disk::new(root);
    let mut promises = Promises::default();
    let mut seen = HashSet::new();
    for (at, record) in records.iter().enumerate() {
        disk.apply(record);
        if let Record::Note(text, _) = record {
            promises.note(text);
        }
        if at + 1 == records.len() {
            disk.cut(Cut::Complete).is_what_is_there();
        }
        if !due(at) {
            continue;
        }
        count.boundaries += 1;
        for kind in 0..4 {
            let (name, image) = match kind {
                0 => ("forgetful", disk.cut(Cut::Forgetful)),
                1 => ("complete", disk.cut(Cut::Complete)),
                _ => ("random", disk.cut(Cut::Random(&mut random))),
            };
            if !seen.insert((promises.notes, image.fingerprint())) {
                count.seen_before += 1;
                continue;
            }
            count.states += 1;
            let place = recorder::folder();
            image.write(root, place.path());
            start(place.path(), seed, &promises, &runtime).map_err(|err| {
                if std::env::var("CRASH_LOGS").is_ok() {
                    let before = records[..=at].iter().enumerate();
                    before.for_each(|(at, record)| eprintln!("{at} {}", brief(record)));
                }
                let last = brief(record);
                format!("seed {seed}, after record {at} {last}, {name}: {err}")
            })?;
        }
    }
    Ok(())
}

fn start(place: &Path, seed: u64, promises: &Promises, runtime: &Runtime) -> Result<(), String> {
    check(&config(place, seed), promises, runtime)?;
    let beside: Vec<_> = fs::read_dir(place)
        .unwrap()
        .map(|item| item.unwrap().file_name())
        .collect();
    if beside != ["site"] {
        return Err(format!("the start left {beside:?}"));
    }
    Ok(())
}

fn brief(record: &Record) -> String {
    let text = format!("{record:?}");
    text.chars().take(160).collect()
}

/// One seed: two processes after each other on one directory, the first of them killed somewhere.
fn round(seed: u64, count: &mut Count) -> Result<(), String> {
    let (root, logs) = (recorder::folder(), recorder::folder());
    let log = logs.path().join("log");
    let mut random = StdRng::seed_from_u64(seed);
    for session in 0..3 {
        let end = match session {
            2 => End::Steps,
            _ if random.random_bool(0.5) => End::Call(random.random_range(20..160)),
            _ => End::Commit(random.random_range(1..8), random.random_range(1..5)),
        };
        let plan = Plan {
            seed,
            steps: 30,
            session,
            end,
            fault: None,
        };
        let ended = recorder::run("recorded", root.path(), &log, &plan.variables(root.path()));
        if !matches!(ended.code, Some(0 | 7)) {
            return Err(format!(
                "seed {seed}, session {session}: {:?}: {}",
                ended.code, ended.stderr
            ));
        }
    }
    let records = recorder::read(&log);
    cut_everywhere(seed, root.path(), &records, |_| true, count)
}

fn rounds(first: u64) {
    if !recorder::available() {
        return;
    }
    let (seed, wanted) = (number("CRASH_SEED", 1), number("CRASH_ROUNDS", 0));
    let (begun, patience) = (Instant::now(), Duration::from_secs(12));
    let (mut count, mut done) = (Count::default(), 0);
    loop {
        // Without a number it goes by time, at least one each.
        let enough = if wanted > 0 {
            done >= wanted.div_ceil(2)
        } else {
            begun.elapsed() > patience
        };
        if enough && done > 0 {
            break;
        }
        if let Err(err) = round(seed + first + 2 * done, &mut count) {
            panic!("{err}");
        }
        done += 1;
    }
    eprintln!(
        "seeds {}, every second to {}: {done} rounds, {count:?} in {:.1?}",
        seed + first,
        seed + first + 2 * (done - 1),
        begun.elapsed()
    );
}

#[test]
fn a_power_cut_takes_nothing_that_was_promised() {
    rounds(0);
}

#[test]
fn a_power_cut_takes_nothing_that_was_promised_elsewhere() {
    rounds(1);
}
