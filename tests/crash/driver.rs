//! What runs in the recorded process: random operations through the library's own interface, in the
//! order in which the gateway does them, with a note of everything that was promised.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pacs_gateway::clock::Timestamp;
use pacs_gateway::commitment::{self, Reference, Request};
use pacs_gateway::dicom::ae_title::AeTitle;
use pacs_gateway::dicom::uid::{
    SopClassUid, SopInstanceUid, StudyInstanceUid, TransferSyntaxUid, Uid,
};
use pacs_gateway::durable::database::DatabaseError;
use pacs_gateway::ledger::{InstanceOutcome, Ledger, Revision};
use pacs_gateway::outbox::{Exchange, Message, Outbox};
use pacs_gateway::spool::{
    Arrival, Config, DuplicatePolicy, Entry, EntryId, Incoming, Limits, Spool, SpoolError,
};
use pacs_gateway::state;
use pacs_gateway::units::ByteSize;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;

use crate::recorder::{die, fail, note};

const CT: &str = "1.2.840.10008.5.1.4.1.1.2";

/// What a driver is to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Decides on the operations.
    pub seed: u64,
    /// How many operations.
    pub steps: u32,
    /// Number of this process on its directory; names are made from it.
    pub session: u32,
    /// Where the process dies.
    pub end: End,
    /// Calls that fail, from first to last, and with what; counted after the start, or with it.
    pub fault: Option<Fault>,
}

/// Where a process dies.
#[derive(Debug, Clone, Copy)]
pub enum End {
    /// After the last step.
    Steps,
    /// Before a changing call, counted from the start.
    Call(u64),
    /// Before the second of these calls of a commit, the commits counted from 1.
    Commit(u64, u64),
}

/// Calls that fail.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    pub first: u64,
    pub last: u64,
    pub errno: i32,
    /// Counted from the opening of the spool on.
    pub at_start: bool,
}

impl Plan {
    /// The plan as variables of the environment.
    pub fn variables(&self, dir: &Path) -> Vec<(&'static str, String)> {
        let fault = self.fault.map_or(String::new(), |f| {
            format!(
                "{} {} {} {}",
                f.first,
                f.last,
                f.errno,
                u8::from(f.at_start)
            )
        });
        let (commit, call) = match self.end {
            End::Steps => (0, 0),
            End::Call(call) => (0, call),
            End::Commit(commit, call) => (commit, call),
        };
        vec![
            ("CRASH_DIR", dir.display().to_string()),
            (
                "CRASH_PLAN",
                format!(
                    "{} {} {} {commit} {call}",
                    self.seed, self.steps, self.session
                ),
            ),
            ("CRASH_FAULT", fault),
        ]
    }

    fn from_environment() -> Option<(PathBuf, Self)> {
        let numbers = |name| -> Option<Vec<u64>> {
            let text = std::env::var(name).ok()?;
            text.split_whitespace()
                .map(|word| word.parse().ok())
                .collect()
        };
        let plan = numbers("CRASH_PLAN")?;
        let fault = numbers("CRASH_FAULT")?;
        Some((
            std::env::var_os("CRASH_DIR")?.into(),
            Self {
                seed: plan[0],
                steps: plan[1] as u32,
                session: plan[2] as u32,
                end: match (plan[3], plan[4]) {
                    (0, 0) => End::Steps,
                    (0, call) => End::Call(call),
                    (commit, call) => End::Commit(commit, call),
                },
                fault: (!fault.is_empty()).then(|| Fault {
                    first: fault[0],
                    last: fault[1],
                    errno: fault[2] as i32,
                    at_start: fault[3] == 1,
                }),
            },
        ))
    }
}

/// The spool's configuration of a plan; the seed chooses what happens to duplicates.
pub fn config(dir: &Path, seed: u64) -> Config {
    let policies = [
        DuplicatePolicy::KeepFirst,
        DuplicatePolicy::KeepLast,
        DuplicatePolicy::Quarantine,
    ];
    Config {
        dir: dir.join("site/spool"),
        duplicates: policies[(seed % 3) as usize],
        limits: Limits {
            min_free_bytes: ByteSize(0),
            min_free_inodes: 0,
            ..Limits::default()
        },
        ..Config::default()
    }
}

/// A minimal explicit VR little-endian data set.
pub fn data_set(sop_instance: &str, study: &str, pixels: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut put = |group: u16, element: u16, vr: &[u8; 2], value: &str| {
        let length = value.len().next_multiple_of(2);
        out.extend_from_slice(&group.to_le_bytes());
        out.extend_from_slice(&element.to_le_bytes());
        out.extend_from_slice(vr);
        out.extend_from_slice(&(length as u16).to_le_bytes());
        out.extend_from_slice(value.as_bytes());
        if length > value.len() {
            out.push(if vr == b"UI" { 0 } else { b' ' });
        }
    };
    put(0x0008, 0x0016, b"UI", CT);
    put(0x0008, 0x0018, b"UI", sop_instance);
    put(0x0008, 0x0060, b"CS", "CT");
    put(0x0020, 0x000D, b"UI", study);
    put(0x0020, 0x000E, b"UI", "2.25.300");
    out.extend_from_slice(&[0xE0, 0x7F, 0x10, 0x00, b'O', b'W', 0, 0]);
    out.extend_from_slice(&(pixels.len() as u32).to_le_bytes());
    out.extend_from_slice(pixels);
    out
}

/// How the association of a test's instance looks.
pub fn arrival(sop_instance: &str) -> Arrival {
    Arrival {
        calling_ae: AeTitle::parse("MODALITY").unwrap(),
        called_ae: AeTitle::parse("PACSGATEWAY").unwrap(),
        peer: "192.0.2.7".parse().unwrap(),
        sop_class: SopClassUid::parse(CT).unwrap(),
        sop_instance: SopInstanceUid::parse(sop_instance).unwrap(),
        transfer_syntax: TransferSyntaxUid::parse("1.2.840.10008.1.2.1").unwrap(),
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The parts of the gateway that keep promises.
pub struct Parts {
    pub spool: Spool,
    pub ledger: Ledger,
    pub outbox: Outbox,
    pub commitments: commitment::Store,
}

impl Parts {
    /// As the gateway opens them.
    pub fn open(config: Config) -> Result<Self, String> {
        let dir = config.dir.clone();
        let (spool, _) = Spool::open(config).map_err(|err| format!("{err:?}"))?;
        Self::with(spool, &dir).map_err(|err| format!("{err:?}"))
    }

    /// The database beside an open spool.
    pub fn with(spool: Spool, dir: &Path) -> Result<Self, DatabaseError> {
        let database = state::open(dir)?;
        Ok(Self {
            spool,
            ledger: Ledger::new(database.clone()),
            outbox: Outbox::new(database.clone()),
            commitments: commitment::Store::new(database),
        })
    }
}

/// A failed operation, by who failed.
#[derive(Debug)]
enum Failure {
    Spool(SpoolError),
    Files(std::io::Error),
    Database(DatabaseError),
}

impl From<SpoolError> for Failure {
    fn from(err: SpoolError) -> Self {
        Self::Spool(err)
    }
}

impl From<std::io::Error> for Failure {
    fn from(err: std::io::Error) -> Self {
        Self::Files(err)
    }
}

impl From<DatabaseError> for Failure {
    fn from(err: DatabaseError) -> Self {
        Self::Database(err)
    }
}

impl Failure {
    /// The error says what the system said.
    fn judge(&self, errno: i32) {
        let full = errno == rustix::io::Errno::NOSPC.raw_os_error();
        let fits = match self {
            Self::Spool(SpoolError::OutOfSpace(_)) => full,
            Self::Spool(SpoolError::Io(err)) => !full && err.raw_os_error() == Some(errno),
            Self::Spool(_) => false,
            Self::Files(err) => err.raw_os_error() == Some(errno),
            Self::Database(err) => matches!(err, DatabaseError::Sqlite(_)),
        };
        assert!(fits, "{self:?} for errno {errno}");
    }
}

/// An instance that is being received.
struct Open {
    incoming: Incoming,
    instance: Instance,
}

#[derive(Clone)]
struct Instance {
    sop_instance: String,
    study: String,
    bytes: Vec<u8>,
}

impl Instance {
    fn digest(&self) -> String {
        hex(&Sha256::digest(&self.bytes))
    }
}

struct Driver {
    plan: Plan,
    random: StdRng,
    runtime: Runtime,
    parts: Parts,
    open: Vec<Open>,
    /// Everything that was begun here, for repeats.
    sent: Vec<Instance>,
    /// Arrivals whose rows are not written yet.
    arrived: Vec<Arc<Entry>>,
    handled: HashSet<EntryId>,
    count: u32,
    commits: u64,
}

/// Runs the plan of the environment; without one there is nothing to do.
pub fn main() {
    let Some((dir, plan)) = Plan::from_environment() else {
        return;
    };
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_secs(60));
        eprintln!("the driver hangs");
        std::process::abort();
    });
    let fault = plan.fault;
    let arm = || {
        if let Some(fault) = fault {
            fail(fault.first, fault.last, fault.errno);
        }
    };
    if let End::Call(call) = plan.end {
        die(call);
    }
    if fault.is_some_and(|fault| fault.at_start) {
        arm();
    }
    let parts = Parts::open(config(&dir, plan.seed)).or_else(|refused| {
        note("refused");
        assert!(fault.is_some_and(|fault| fault.at_start), "{refused:?}");
        fail(0, 0, 0);
        Parts::open(config(&dir, plan.seed))
    });
    let mut driver = Driver {
        random: StdRng::seed_from_u64(plan.seed ^ u64::from(plan.session) << 32),
        runtime: tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap(),
        parts: parts.unwrap(),
        open: Vec::new(),
        sent: Vec::new(),
        arrived: Vec::new(),
        handled: HashSet::new(),
        count: 0,
        commits: 0,
        plan,
    };
    if fault.is_some_and(|fault| !fault.at_start) {
        arm();
    }
    note("ready");
    for _ in 0..driver.plan.steps {
        if let Err(failure) = driver.step() {
            match fault {
                Some(fault) => failure.judge(fault.errno),
                None => panic!("{failure:?} without a fault"),
            }
        }
    }
    if fault.is_some() {
        note("mended");
        fail(0, 0, 0);
        // Nothing but the fault itself may be in the way.
        driver.open.clear();
        for _ in 0..10 {
            driver.step().unwrap();
        }
        driver.finish().unwrap();
        driver.store(false).unwrap();
    }
    note("end");
    // No destructor runs: what is open stays as it is.
    #[allow(clippy::disallowed_methods)]
    std::process::exit(0);
}

impl Driver {
    fn step(&mut self) -> Result<(), Failure> {
        match self.random.random_range(0..100) {
            0..30 => self.store(false),
            30..36 => self.store(true),
            36..44 => self.begin(),
            44..50 => self.go_on(),
            50..53 => {
                self.open.pop();
                Ok(())
            }
            53..60 => self.receive(),
            60..70 => self.finish(),
            70..77 => self.confirm(),
            77..84 => Ok(self.parts.spool.checkpoint()?),
            84..91 => self.release(),
            91..93 => self.quarantine(),
            93..95 => self.keep(),
            95..98 => self.commitment(),
            _ => self.attempt(),
        }
    }

    fn instance(&mut self) -> Instance {
        self.count += 1;
        let session = self.plan.session + 1;
        let known = self.sent.choose(&mut self.random).cloned();
        let (sop_instance, study) = match known {
            // The same instance with other bytes.
            Some(known) if self.random.random_bool(0.1) => (known.sop_instance, known.study),
            _ => (
                format!("2.25.{session}{:04}", self.count),
                format!("2.25.{}", 200 + self.random.random_range(0..3)),
            ),
        };
        let length = match self.random.random_range(0..4) {
            0 => 0,
            1 => 5000,
            _ => self.random.random_range(1..400) * 2,
        };
        let mut pixels = vec![0; length];
        self.random.fill(pixels.as_mut_slice());
        let bytes = data_set(&sop_instance, &study, &pixels);
        Instance {
            sop_instance,
            study,
            bytes,
        }
    }

    fn store(&mut self, again: bool) -> Result<(), Failure> {
        let repeat = again
            .then(|| self.sent.choose(&mut self.random).cloned())
            .flatten();
        let instance = repeat.unwrap_or_else(|| self.instance());
        let mut incoming = self.parts.spool.begin(arrival(&instance.sop_instance))?;
        self.sent.push(instance.clone());
        for piece in instance.bytes.chunks(2048) {
            incoming.append(piece)?;
        }
        self.commit(Open { incoming, instance })
    }

    fn begin(&mut self) -> Result<(), Failure> {
        let instance = self.instance();
        let mut incoming = self.parts.spool.begin(arrival(&instance.sop_instance))?;
        self.sent.push(instance.clone());
        incoming.append(&instance.bytes[..100])?;
        self.open.push(Open { incoming, instance });
        Ok(())
    }

    /// Completes the oldest of those that were begun.
    fn go_on(&mut self) -> Result<(), Failure> {
        if self.open.is_empty() {
            return Ok(());
        }
        let mut open = self.open.remove(0);
        open.incoming.append(&open.instance.bytes[100..])?;
        self.commit(open)
    }

    /// The pipeline's first act with an arrival.
    fn receive(&mut self) -> Result<(), Failure> {
        self.arrived.extend(self.parts.spool.take_arrivals());
        let handled = self
            .runtime
            .block_on(self.parts.ledger.received(self.arrived.clone()))?;
        self.arrived.clear();
        self.handled.extend(handled);
        Ok(())
    }

    /// Finishes a study with everything that is there of it.
    fn finish(&mut self) -> Result<(), Failure> {
        self.receive()?;
        let fresh = self.parts.spool.entries();
        let Some(entry) = fresh.iter().find(|entry| !self.handled.contains(&entry.id)) else {
            return Ok(());
        };
        let study = entry.study.clone();
        let (parts, random) = (&self.parts, &mut self.random);
        let number = self.runtime.block_on(parts.ledger.prior(&study))?.revision + 1;
        let entries = parts.spool.study(&study);
        let (now, outcome) = (Timestamp::now(), |current| {
            move |entry: &Arc<Entry>| InstanceOutcome {
                entry: entry.id,
                current,
                decoded_at: None,
                inferred_at: None,
                refusal: None,
            }
        });
        let current = entries.current.iter().map(outcome(true));
        let instances: Vec<_> = current
            .chain(entries.others.iter().map(outcome(false)))
            .collect();
        let messages: Vec<_> = (0..random.random_range(1..4))
            .map(|n| Message {
                id: format!("{study}/{number}/{n}"),
                study: study.to_string(),
                revision: number,
                model: format!("m{n}"),
                model_version: "1".to_owned(),
                outcome: "finding".to_owned(),
                exchange: Exchange::Findings,
                routing_key: "finding.routine.ct.chest.m".to_owned(),
                body: vec![b'x'; random.random_range(10..3000)],
                created_at: now,
                traceparent: None,
            })
            .collect();
        let digests: Vec<_> = entries
            .current
            .iter()
            .chain(&entries.others)
            .map(|entry| hex(&entry.digest))
            .collect();
        let ids: Vec<_> = messages.iter().map(|message| message.id.clone()).collect();
        let what = format!("{study} {number} {} {}", digests.join(","), ids.join(","));
        note(&format!("finishing {what}"));
        let done: Vec<_> = instances.iter().map(|instance| instance.entry).collect();
        self.runtime.block_on(parts.ledger.finish(Revision {
            study,
            number,
            digest: format!("d{number}"),
            method: "quiet-period".to_owned(),
            first_received: now,
            last_received: now,
            complete_at: now,
            finished_at: now,
            evidence: serde_json::Value::Null,
            instances,
            messages,
        }))?;
        note(&format!("finished {what}"));
        self.handled.extend(done);
        Ok(())
    }

    /// The publisher: the broker confirms some, and not others.
    fn confirm(&mut self) -> Result<(), Failure> {
        let now = Timestamp(i64::MAX);
        let due = self.runtime.block_on(self.parts.outbox.due(now, 10))?;
        let mut seqs = Vec::new();
        for due in due {
            if self.random.random_bool(0.7) {
                note(&format!("confirming {}", due.message.id));
                seqs.push(due.seq);
            } else {
                let deferred = self
                    .parts
                    .outbox
                    .defer(due.seq, Timestamp(1), "nack".to_owned());
                self.runtime.block_on(deferred)?;
            }
        }
        Ok(self
            .runtime
            .block_on(self.parts.outbox.confirmed(seqs, Timestamp::now()))?)
    }

    /// The housekeeper.
    fn release(&mut self) -> Result<(), Failure> {
        let now = Timestamp::now();
        let mut ids = self
            .runtime
            .block_on(self.parts.ledger.releasable(now, now))?;
        ids.truncate(self.random.random_range(1..6));
        let digests: HashMap<_, _> = self
            .parts
            .spool
            .entries()
            .iter()
            .map(|entry| (entry.id, hex(&entry.digest)))
            .collect();
        for id in &ids {
            if let Some(digest) = digests.get(id) {
                note(&format!("releasing {digest}"));
            }
        }
        self.parts.spool.release(&ids)?;
        Ok(self
            .runtime
            .block_on(self.parts.ledger.released(ids, now))?)
    }

    /// An entry whose study has ended.
    fn spent(&mut self) -> Option<Arc<Entry>> {
        let entries = self.parts.spool.entries();
        let spent: Vec<_> = entries
            .into_iter()
            .filter(|entry| self.handled.contains(&entry.id))
            .collect();
        spent.choose(&mut self.random).cloned()
    }

    fn quarantine(&mut self) -> Result<(), Failure> {
        let Some(entry) = self.spent() else {
            return Ok(());
        };
        let what = format!("{} {}", hex(&entry.digest), entry.id.file_name());
        note(&format!("quarantining {what}"));
        self.parts.spool.quarantine(entry.id, "a reason")?;
        note(&format!("quarantined {what}"));
        Ok(())
    }

    fn keep(&mut self) -> Result<(), Failure> {
        let Some(entry) = self.spent() else {
            return Ok(());
        };
        self.parts.spool.keep_for_inquiry(entry.id, "a reason")?;
        note(&format!(
            "kept {} {}",
            hex(&entry.digest),
            entry.id.file_name()
        ));
        Ok(())
    }

    fn commitment(&mut self) -> Result<(), Failure> {
        self.count += 1;
        let transaction = format!("2.25.9{}{:04}", self.plan.session + 1, self.count);
        let request = Request {
            transaction: Uid::parse(&transaction).unwrap(),
            calling_ae: AeTitle::parse("MODALITY").unwrap(),
            called_ae: AeTitle::parse("PACSGATEWAY").unwrap(),
            peer: "192.0.2.7".parse().unwrap(),
            references: vec![Reference {
                sop_class: SopClassUid::parse(CT).unwrap(),
                sop_instance: SopInstanceUid::parse("2.25.1").unwrap(),
            }],
        };
        self.runtime
            .block_on(self.parts.commitments.record(request, Timestamp::now()))?;
        note(&format!("recorded {transaction}"));
        Ok(())
    }

    fn attempt(&mut self) -> Result<(), Failure> {
        let study = StudyInstanceUid::parse("2.25.999").unwrap();
        let begun = self
            .runtime
            .block_on(self.parts.ledger.begin_attempt(&study, "poison"))?;
        note(&format!("attempt {begun}"));
        Ok(())
    }

    fn commit(&mut self, open: Open) -> Result<(), Failure> {
        self.commits += 1;
        let (digest, instance) = (open.instance.digest(), open.instance);
        note(&format!("offering {digest}"));
        if let End::Commit(commit, call) = self.plan.end
            && commit == self.commits
        {
            die(call);
        }
        open.incoming.commit()?;
        note(&format!("acknowledged {digest} {}", instance.study));
        Ok(())
    }
}
