//! Starts the gateway's parts on what a power cut left and holds them to what had been promised.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use pacs_gateway::clock::Timestamp;
use pacs_gateway::durable::lock::LockError;
use pacs_gateway::spool::{Config, DuplicatePolicy, Entry, OpenError, Recovered, Spool};
use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;

use crate::driver::{Parts, hex};

/// What the driver's notes say up to some moment.
#[derive(Debug, Clone, Default)]
pub struct Promises {
    /// Digests of everything that a commit was tried for.
    offered: HashSet<String>,
    /// Digests that were acknowledged and not given up since.
    acknowledged: BTreeSet<String>,
    /// Digests of revisions whose writing had begun, and of those that were durable.
    finishing: HashSet<String>,
    finished: HashSet<String>,
    /// Last finished revision of each study.
    revisions: BTreeMap<String, u32>,
    /// Messages that may be owed, and that must be.
    possible: HashSet<String>,
    owed: BTreeSet<String>,
    /// Entries that were moved to quarantine, or are on the way; and names that must be there.
    moving: HashSet<String>,
    set_aside: BTreeSet<String>,
    /// Storage Commitment requests.
    transactions: BTreeSet<String>,
    attempts: u32,
    /// How many notes were read.
    pub notes: usize,
}

impl Promises {
    /// Reads one note.
    pub fn note(&mut self, text: &str) {
        self.notes += 1;
        let words: Vec<&str> = text.split(' ').collect();
        let list = |word: &str| word.split(',').map(str::to_owned).collect::<Vec<_>>();
        match words[0] {
            "offering" => {
                self.offered.insert(words[1].to_owned());
            }
            "acknowledged" => {
                self.acknowledged.insert(words[1].to_owned());
                self.moving.remove(words[1]);
            }
            "releasing" => {
                self.acknowledged.remove(words[1]);
            }
            "finishing" => {
                self.finishing.extend(list(words[3]));
                self.possible.extend(list(words[4]));
            }
            "finished" => {
                self.finished.extend(list(words[3]));
                self.owed.extend(list(words[4]));
                self.revisions
                    .insert(words[1].to_owned(), words[2].parse().unwrap());
            }
            "confirming" => {
                self.owed.remove(words[1]);
            }
            "quarantining" => {
                self.moving.insert(words[1].to_owned());
            }
            "quarantined" => {
                self.acknowledged.remove(words[1]);
                self.set_aside.insert(words[2].to_owned());
            }
            "kept" => {
                self.set_aside.insert(words[2].to_owned());
            }
            "recorded" => {
                self.transactions.insert(words[1].to_owned());
            }
            "attempt" => self.attempts = words[1].parse().unwrap(),
            "ready" | "end" | "refused" | "mended" => {}
            other => panic!("unknown note {other}"),
        }
    }
}

macro_rules! ensure {
    ($condition:expr, $($words:tt)+) => {
        if !$condition {
            return Err(format!($($words)+));
        }
    };
}

/// Starts on `config` and compares.
pub fn check(config: &Config, promises: &Promises, runtime: &Runtime) -> Result<(), String> {
    let parts = open(config)?;
    let entries = parts.spool.entries();
    let digests: HashSet<String> = entries.iter().map(|entry| hex(&entry.digest)).collect();
    for entry in &entries {
        let path = parts.spool.path(entry.id);
        let digest = data_set_digest(&path, Some(entry));
        ensure!(
            digest == hex(&entry.digest),
            "{}: a torn file is an entry",
            entry.id
        );
        ensure!(
            promises.offered.contains(&digest),
            "{}: an entry nobody sent",
            entry.id
        );
    }
    let quarantine = config.dir.join("quarantine");
    let aside: HashSet<String> = names(&quarantine)
        .iter()
        .filter(|name| name.ends_with(".dcm"))
        .map(|name| data_set_digest(&quarantine.join(name), None))
        .collect();
    for digest in &promises.acknowledged {
        let kept_aside =
            config.duplicates == DuplicatePolicy::Quarantine || promises.moving.contains(digest);
        ensure!(
            digests.contains(digest) || kept_aside && aside.contains(digest),
            "acknowledged and not there: {digest}"
        );
    }
    for name in &promises.set_aside {
        let reason = quarantine.join(name).with_extension("reason");
        let reason = fs::read_to_string(reason).unwrap_or_default();
        ensure!(
            quarantine.join(name).exists(),
            "{name} is not in quarantine"
        );
        ensure!(
            reason.lines().next() == Some("a reason"),
            "{name} has the reason {reason:?}"
        );
    }
    check_books(&parts, &entries, promises, runtime)?;
    drop(parts);
    // The same again, so a crash while starting is like one before.
    let (again, recovered) = open_spool(config)?;
    let ids = |entries: &[std::sync::Arc<Entry>]| entries.iter().map(|e| e.id).collect::<Vec<_>>();
    ensure!(
        ids(&again.entries()) == ids(&entries),
        "the second start finds other entries"
    );
    ensure!(
        recovered.incomplete == 0 && recovered.corrupt.is_empty(),
        "the second start finds {recovered:?}"
    );
    Ok(())
}

fn open(config: &Config) -> Result<Parts, String> {
    let (spool, recovered) = open_spool(config)?;
    drop(spool);
    for (name, reason) in &recovered.corrupt {
        // Nothing that was durable is ever damaged here.
        let alarm = reason.contains("after it was durable") || reason.contains("is gone");
        ensure!(!alarm, "a false alarm about {name}: {reason}");
    }
    let (spool, _) = open_spool(config)?;
    Parts::with(spool, &config.dir).map_err(|err| format!("{err:?}"))
}

/// A test that starts a child beside us holds a copy of our lock until the child is another program.
fn open_spool(config: &Config) -> Result<(Spool, Recovered), String> {
    let begun = Instant::now();
    loop {
        match Spool::open(config.clone()) {
            Err(OpenError::Lock(LockError::Held { .. }))
                if begun.elapsed() < Duration::from_secs(10) =>
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            opened => return opened.map_err(|err| format!("{err:?}")),
        }
    }
}

fn check_books(
    parts: &Parts,
    entries: &[std::sync::Arc<Entry>],
    promises: &Promises,
    runtime: &Runtime,
) -> Result<(), String> {
    let fail = |err| format!("{err:?}");
    let arrivals = parts.spool.take_arrivals();
    let handled = runtime
        .block_on(parts.ledger.received(arrivals))
        .map_err(fail)?;
    let mut fresh = HashSet::new();
    for entry in entries {
        let digest = hex(&entry.digest);
        if handled.contains(&entry.id) {
            ensure!(
                promises.finishing.contains(&digest),
                "{}: dealt with by nobody",
                entry.id
            );
        } else {
            ensure!(
                !promises.finished.contains(&digest),
                "{}: finished, and to be done again",
                entry.id
            );
            fresh.insert(entry.study.clone());
        }
    }
    let present = entries.iter().map(|entry| entry.id).collect();
    let lost = runtime.block_on(parts.ledger.lost(present)).map_err(fail)?;
    ensure!(lost.is_empty(), "the ledger misses {lost:?}");
    let releasable = runtime
        .block_on(
            parts
                .ledger
                .releasable(Timestamp(i64::MAX), Timestamp(i64::MAX)),
        )
        .map_err(fail)?;
    let releasable: HashSet<_> = releasable.into_iter().collect();
    for entry in entries {
        ensure!(
            releasable.contains(&entry.id)
                || fresh.contains(&entry.study)
                || !handled.contains(&entry.id),
            "{}: nobody will ever release it",
            entry.id
        );
    }
    let waiting = runtime
        .block_on(parts.outbox.waiting(100_000))
        .map_err(fail)?;
    let waiting: HashSet<String> = waiting.into_iter().map(|message| message.id).collect();
    for id in &promises.owed {
        ensure!(
            waiting.contains(id),
            "the message {id} is not owed any more"
        );
    }
    for id in &waiting {
        ensure!(
            promises.possible.contains(id),
            "the message {id} was never made"
        );
    }
    for (study, revision) in &promises.revisions {
        let study = pacs_gateway::dicom::uid::StudyInstanceUid::parse(study).unwrap();
        let prior = runtime.block_on(parts.ledger.prior(&study)).map_err(fail)?;
        ensure!(
            prior.revision >= *revision,
            "revision {revision} of {study} is gone"
        );
    }
    let due = parts.commitments.due(Timestamp(i64::MAX));
    let mut open: HashMap<String, usize> = HashMap::new();
    for (id, _) in runtime.block_on(due).map_err(fail)? {
        if let Some(open_one) = runtime.block_on(parts.commitments.load(id)).map_err(fail)? {
            let request = open_one.request;
            open.insert(request.transaction.to_string(), request.references.len());
        }
    }
    for transaction in &promises.transactions {
        ensure!(
            open.get(transaction) == Some(&1),
            "the request {transaction} is gone"
        );
    }
    let study = pacs_gateway::dicom::uid::StudyInstanceUid::parse("2.25.999").unwrap();
    let attempt = runtime
        .block_on(parts.ledger.begin_attempt(&study, "poison"))
        .map_err(fail)?;
    ensure!(
        attempt > promises.attempts,
        "attempt {} was forgotten",
        promises.attempts
    );
    Ok(())
}

fn names(dir: &Path) -> Vec<String> {
    let found = fs::read_dir(dir).into_iter().flatten();
    found
        .map(|item| item.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// SHA-256 of what follows the file meta group; of a file whose entry is known its length is checked.
fn data_set_digest(path: &Path, entry: Option<&Entry>) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let Some(length) = bytes.get(140..144) else {
        return String::new();
    };
    let length = u32::from_le_bytes(length.try_into().unwrap()) as usize;
    let data_set = bytes.get(144 + length..).unwrap_or_default();
    if entry.is_some_and(|entry| entry.data_set_bytes != data_set.len() as u64) {
        return String::new();
    }
    hex(&Sha256::digest(data_set))
}
