//! The fault campaign: the real binary, a real RabbitMQ, several senders at once, and whatever can go
//! wrong with them, drawn from a seed. After each round every promise is checked against what the
//! senders know; docs/reliability.md says what and how.
//!
//! `cargo test` runs a few rounds. `make chaos` runs many: `CHAOS_ROUNDS=200 CHAOS_SEED=0x… make chaos`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod audit;
mod plan;
mod proxy;
mod senders;
// Shared with tests/it, which uses other parts of it.
#[allow(dead_code)]
#[path = "../it/support/mod.rs"]
mod support;
mod tally;
mod world;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use plan::{Dice, Fault, Round, StudyPlan, Tool, When};
use senders::{Log, Sender, file_name};
use support::files::copy_dir;
use support::options::repository;
use support::peers;
use support::topology::Bus;
use tally::Tally;
use world::{Broker, World};

/// Rounds that every run of the tests repeats. Between them they have most kinds of faults; restarts of
/// the broker take too long here and have scenarios of their own.
const FIXED: [u64; 3] = [2, 11, 87];
/// Rounds after which a new spool is begun.
const ROUNDS_PER_SPOOL: usize = 20;
/// Faults that have not been finished by then are a defect of the campaign or of the gateway.
const FAULTS: Duration = Duration::from_secs(120);

#[test]
fn no_fault_costs_an_acknowledged_instance() {
    if !senders::dcmtk() {
        return;
    }
    let Some(broker) = Broker::install() else {
        peers::skip("rabbitmq-server is not installed");
        return;
    };
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        let text = text.trim().to_owned();
        let parsed = match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => text.parse(),
        };
        Some(parsed.unwrap_or_else(|_| panic!("{name}={text} is no number")))
    };
    let (rounds, seed) = (number("CHAOS_ROUNDS"), number("CHAOS_SEED"));
    let random = seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    let seeds: Vec<u64> = match rounds {
        None => FIXED.into_iter().chain([random]).collect(),
        // The first round is that of the seed itself, so that a round can be repeated alone.
        Some(rounds) => {
            let mut dice = Dice::new(random);
            let others = std::iter::repeat_with(|| dice.next());
            std::iter::once(random)
                .chain(others)
                .take(rounds as usize)
                .collect()
        }
    };
    println!("fault campaign of {} rounds, seed {random:#x}", seeds.len());
    let tally = Arc::new(Tally::default());
    let outcome = campaign(&seeds, &Arc::new(Mutex::new(broker)), &tally);
    println!("\n{}", tally.table());
    if let Some(path) = std::env::var_os("CHAOS_JSON") {
        std::fs::write(path, format!("{:#}\n", tally.json(random))).unwrap();
    }
    outcome.unwrap_or_else(|report| panic!("{report}"));
}

/// Runs the rounds until one breaks a promise.
fn campaign(seeds: &[u64], broker: &Arc<Mutex<Broker>>, tally: &Arc<Tally>) -> Result<(), String> {
    let models = models();
    let began = Instant::now();
    let bus = Bus::new(&broker.lock().unwrap().route);
    let mut place: Option<Arc<World>> = None;
    for (at, seed) in seeds.iter().enumerate() {
        if at % ROUNDS_PER_SPOOL == 0 {
            drop(place.take());
            let world = World::start(broker, models.path().to_owned(), tally);
            place = Some(Arc::new(world));
        }
        let Some(world) = &place else {
            continue;
        };
        let started = Instant::now();
        run(world, &bus, *seed);
        tally.add("rounds", 1);
        let complaints = world.complaints();
        println!(
            "round {} of {}, seed {seed:#x}: {:.1} s{}",
            at + 1,
            seeds.len(),
            started.elapsed().as_secs_f64(),
            if complaints.is_empty() {
                ""
            } else {
                ", BROKEN"
            }
        );
        if !complaints.is_empty() {
            tally.add("complaints", complaints.len() as u64);
            tally.add("seconds", began.elapsed().as_secs());
            return Err(format!(
                "round {} of seed {seed:#x} broke promises:\n{}\n\nwhat happened:\n{}\n\n\
                 to repeat it: CHAOS_SEED={seed:#x} CHAOS_ROUNDS=1 make chaos",
                at + 1,
                complaints.join("\n"),
                world.timeline()
            ));
        }
    }
    tally.add("seconds", began.elapsed().as_secs());
    Ok(())
}

/// One round.
fn run(world: &Arc<World>, bus: &Bus, seed: u64) {
    let round = Arc::new(Round::of(seed));
    let log = Arc::new(Log::new(&round));
    let folder = tempfile::tempdir().unwrap();
    for (at, study) in round.studies.iter().enumerate() {
        write_files(&folder, at, study);
    }
    world.begin();
    let senders: Vec<_> = round
        .senders
        .iter()
        .map(|plan| {
            world.note(&format!("{plan:?}"));
            let sender = Sender {
                plan: plan.clone(),
                round: Arc::clone(&round),
                log: Arc::clone(&log),
                port: world.senders.port,
                files: folder.path().to_owned(),
            };
            std::thread::spawn(move || sender.run())
        })
        .collect();
    let expected: usize = round.senders.iter().map(|plan| plan.instances.len()).sum();
    let faults: Vec<_> = round
        .faults
        .iter()
        .map(|(when, fault)| {
            let (world, log) = (Arc::clone(world), Arc::clone(&log));
            let (when, fault) = (*when, *fault);
            std::thread::spawn(move || bring(&world, &log, expected, when, fault))
        })
        .collect();
    let began = Instant::now();
    while !faults.iter().all(|fault| fault.is_finished()) && began.elapsed() < FAULTS {
        world.look();
        std::thread::sleep(Duration::from_millis(50));
    }
    for fault in faults {
        if !fault.is_finished() || fault.join().is_err() {
            world.complain("a fault could not be finished".to_owned());
        }
    }
    world.heal();
    for sender in senders {
        if sender.join().is_err() {
            world.complain("a sender ended by itself".to_owned());
        }
    }
    world.note("everything was sent");
    for complaint in log.complaints.lock().unwrap().drain(..) {
        world.complain(complaint);
    }
    world.look();
    audit::audit(world, bus, &round, &log);
    count(&world.tally, &round, &log);
}

/// Waits for its time and lets it happen.
fn bring(world: &World, log: &Log, expected: usize, when: When, fault: Fault) {
    let wait = match when {
        When::Acknowledged(share, wait) => {
            let enough = expected as u64 * share / 1000;
            while (log.progress.load(Ordering::SeqCst) as u64) < enough && is_sending(log) {
                std::thread::sleep(Duration::from_millis(1));
            }
            wait
        }
        When::Published(count, wait) => {
            // A round may have fewer messages.
            let mut late = None;
            while world.published() < count {
                if !is_sending(log) {
                    let since: &mut Instant = late.get_or_insert_with(Instant::now);
                    if since.elapsed() > Duration::from_secs(2) {
                        break;
                    }
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            wait
        }
        When::Sent(wait) => {
            while is_sending(log) {
                std::thread::sleep(Duration::from_millis(5));
            }
            wait
        }
    };
    std::thread::sleep(wait);
    world.perform(fault);
}

fn is_sending(log: &Log) -> bool {
    log.working.load(Ordering::SeqCst) > 0
}

fn write_files(folder: &tempfile::TempDir, at: usize, study: &StudyPlan) {
    for (number, instance) in study.required.iter().enumerate() {
        let path = folder.path().join(file_name(at, number));
        std::fs::write(path, instance.part_10()).unwrap();
    }
}

fn count(tally: &Tally, round: &Round, log: &Log) {
    let acknowledged: usize = (0..round.studies.len())
        .map(|at| log.acknowledged(at).len())
        .sum();
    let again = log.progress.load(Ordering::SeqCst) - acknowledged;
    tally.add("studies", round.studies.len() as u64);
    tally.add("instances", round.instances() as u64);
    tally.add("acknowledged", acknowledged as u64);
    tally.add("acknowledged-again", again as u64);
    for (what, count) in [
        ("stores", &log.stores),
        ("a700", &log.refused),
        ("broken", &log.broken),
        ("halves", &log.halves),
        ("silent", &log.silent),
        ("dcmtk-runs", &log.dcmtk),
    ] {
        tally.add(what, count.load(Ordering::SeqCst));
    }
}

/// Two models for projection images: one of the repository, and one of several graphs.
fn models() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let shipped = repository().join("models/cxr-phantom");
    copy_dir(&shipped, &folder.path().join("cxr-phantom"));
    let made = repository().join("tests/fixtures/combinations/three-folds");
    copy_dir(&made, &folder.path().join("three-folds"));
    folder
}

/// The fixed rounds and the tools they use are what `FIXED` says they are.
#[test]
fn the_fixed_rounds_have_something_of_everything() {
    let rounds = FIXED.map(Round::of);
    let tools: Vec<Tool> = rounds
        .iter()
        .flat_map(|round| round.senders.iter().map(|sender| sender.tool))
        .collect();
    for tool in [Tool::Raw, Tool::Storescu, Tool::Dcmsend] {
        assert!(tools.contains(&tool), "{tool:?}");
    }
    let faults: Vec<Fault> = rounds
        .iter()
        .flat_map(|round| round.faults.iter().map(|(_, fault)| *fault))
        .collect();
    let has = |some: fn(&Fault) -> bool| assert!(faults.iter().any(some), "{faults:?}");
    has(|fault| matches!(fault, Fault::Kill(_)));
    has(|fault| matches!(fault, Fault::Terminate));
    has(|fault| matches!(fault, Fault::TerminateAndKill(_)));
    has(|fault| matches!(fault, Fault::Pause(_)));
    has(|fault| matches!(fault, Fault::KillChild(_)));
    has(|fault| matches!(fault, Fault::FillDisk(..)));
    has(|fault| matches!(fault, Fault::HoldAndCut(..)));
    has(|fault| matches!(fault, Fault::Slow(..)));
    has(|fault| matches!(fault, Fault::Refuse(..)));
}
