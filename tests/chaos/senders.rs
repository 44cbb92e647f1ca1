//! Modalities at work: each sends until everything it has is acknowledged, whatever happens.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::plan::{Round, SenderPlan, StudyPlan, Tool};
use crate::support::{Answer, Instance, RawPeer, peers, reaper};

/// A sender that cannot finish in this time has found a defect.
const DEADLINE: Duration = Duration::from_secs(90);
const OUT_OF_RESOURCES: u16 = 0xA700;

/// What the senders know together.
pub struct Log {
    /// Acknowledged instances of each study, by their place in `required`.
    acknowledged: Vec<Mutex<BTreeSet<usize>>>,
    /// Acknowledgements so far, each instance of each sender once.
    pub progress: AtomicUsize,
    /// C-STOREs that were begun, those of our own senders.
    pub stores: AtomicU64,
    /// Responses with A700 (out of resources).
    pub refused: AtomicU64,
    /// Associations that were rejected, broken or aborted, and runs of DCMTK that failed.
    pub broken: AtomicU64,
    /// Runs of DCMTK's senders.
    pub dcmtk: AtomicU64,
    /// Data sets that were cut off for good.
    pub halves: AtomicU64,
    /// Whole data sets without a response.
    pub silent: AtomicU64,
    /// What must not happen.
    pub complaints: Mutex<Vec<String>>,
    /// Senders that are still at work.
    pub working: AtomicUsize,
}

impl Log {
    /// Of a round that has not begun.
    pub fn new(round: &Round) -> Self {
        Self {
            acknowledged: round.studies.iter().map(|_| Mutex::default()).collect(),
            progress: AtomicUsize::new(0),
            stores: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            broken: AtomicU64::new(0),
            dcmtk: AtomicU64::new(0),
            halves: AtomicU64::new(0),
            silent: AtomicU64::new(0),
            complaints: Mutex::default(),
            working: AtomicUsize::new(round.senders.len()),
        }
    }

    /// The acknowledged instances of a study, by their place in `required`.
    pub fn acknowledged(&self, study: usize) -> BTreeSet<usize> {
        self.acknowledged[study].lock().unwrap().clone()
    }

    fn complain(&self, complaint: String) {
        self.complaints.lock().unwrap().push(complaint);
    }
}

/// One sender.
pub struct Sender {
    /// What it does.
    pub plan: SenderPlan,
    /// Everything of the round.
    pub round: Arc<Round>,
    /// Where it tells what it knows.
    pub log: Arc<Log>,
    /// Where it connects to.
    pub port: u16,
    /// Folder with the round's instances as files.
    pub files: PathBuf,
}

/// Where the file of an instance is.
pub fn file_name(study: usize, instance: usize) -> String {
    format!("{study}-{instance}.dcm")
}

impl Sender {
    /// Sends until everything is acknowledged.
    pub fn run(self) {
        std::thread::sleep(self.plan.starts_after);
        let started = Instant::now();
        let mut pending = self.plan.instances.clone();
        let mut had_a_break = false;
        let mut gave_up = false;
        while !pending.is_empty() {
            if started.elapsed() > DEADLINE {
                self.log.complain(format!(
                    "{} could not get rid of {} instances in {DEADLINE:?}",
                    self.plan.title,
                    pending.len()
                ));
                break;
            }
            if self.plan.gives_up && !gave_up && pending.len() <= self.plan.instances.len() / 2 + 1
            {
                gave_up = true;
                let _ = self.give_up();
            }
            let sent = self.plan.instances.len() - pending.len();
            let mut batch = match self.plan.begins_anew {
                true => self.plan.instances.clone(),
                false => pending.clone(),
            };
            if let Some((after, pause)) = self.plan.break_after {
                if sent >= after && !had_a_break {
                    had_a_break = true;
                    std::thread::sleep(pause);
                } else if !had_a_break {
                    batch.retain(|one| {
                        let place = self.plan.instances.iter().position(|other| other == one);
                        place.is_some_and(|place| place < after)
                    });
                }
            }
            let done = self.transfer(&batch);
            pending.retain(|one| !done.contains(one));
            if done.len() < batch.len() {
                self.log.broken.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(60));
            }
        }
        // Once more what was acknowledged: nothing may come of it.
        let again: Vec<usize> = self.plan.instances.iter().rev().copied().collect();
        let again = &again[..self.plan.repeats.min(again.len())];
        if !again.is_empty() {
            self.transfer(again);
        }
        self.log.working.fetch_sub(1, Ordering::SeqCst);
    }

    fn study(&self) -> &StudyPlan {
        &self.round.studies[self.plan.study]
    }

    fn acknowledge(&self, instance: usize) {
        let mut known = self.log.acknowledged[self.plan.study].lock().unwrap();
        known.insert(instance);
        self.log.progress.fetch_add(1, Ordering::SeqCst);
    }

    /// Gives what was acknowledged of the batch.
    fn transfer(&self, batch: &[usize]) -> BTreeSet<usize> {
        match self.plan.tool {
            Tool::Raw => {
                let mut done = BTreeSet::new();
                let _ = self.associate_and_store(batch, &mut done);
                done
            }
            Tool::Storescu | Tool::Dcmsend => self.run_dcmtk(batch),
        }
    }

    fn associate(&self, instances: &[&Instance]) -> io::Result<RawPeer> {
        let peer = RawPeer::connect(self.port)?;
        peer.patience(self.plan.patience)?;
        match peer.ask(self.plan.title, instances)? {
            (peer, Answer::Accepted) => Ok(peer),
            // A permanent rejection would tell a modality never to come again.
            (_, Answer::Rejected(result, source, reason)) => {
                if result != 2 {
                    self.log.complain(format!(
                        "association rejected: result {result}, source {source}, reason {reason}"
                    ));
                }
                Err(io::Error::other("rejected"))
            }
            (_, Answer::Gone) => Err(io::Error::other("gone")),
        }
    }

    fn associate_and_store(&self, batch: &[usize], done: &mut BTreeSet<usize>) -> io::Result<()> {
        let study = self.study();
        let instances: Vec<&Instance> = batch.iter().map(|at| &study.required[*at]).collect();
        let mut peer = self.associate(&instances)?;
        for (at, instance) in batch.iter().zip(instances) {
            self.log.stores.fetch_add(1, Ordering::SeqCst);
            match peer.try_store(instance)? {
                0 => {
                    self.acknowledge(*at);
                    done.insert(*at);
                }
                OUT_OF_RESOURCES => {
                    self.log.refused.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(40));
                }
                status => self
                    .log
                    .complain(format!("{} got status {status:04X}", self.plan.title)),
            }
        }
        peer.try_release().map(drop)
    }

    /// Sends what nobody will ever complete: half an instance, and one without waiting.
    fn give_up(&self) -> io::Result<()> {
        let study = self.study();
        if let Some(half) = &study.half {
            let mut peer = self.associate(&[half])?;
            peer.begin_store(half)?;
            let length = half.data_set.len() / 2;
            peer.continue_store(half, &half.data_set[..length], false)?;
            self.log.halves.fetch_add(1, Ordering::SeqCst);
            peer.vanish();
        }
        if let Some(silent) = &study.silent {
            let mut peer = self.associate(&[silent])?;
            peer.begin_store(silent)?;
            peer.continue_store(silent, &silent.data_set, true)?;
            self.log.silent.fetch_add(1, Ordering::SeqCst);
            peer.vanish();
        }
        Ok(())
    }

    /// DCMTK says of each response what it was.
    fn run_dcmtk(&self, batch: &[usize]) -> BTreeSet<usize> {
        let program = match self.plan.tool {
            Tool::Storescu => "storescu",
            _ => "dcmsend",
        };
        let mut command = Command::new(program);
        command.args(["-v", "-aet", self.plan.title, "-aec", "PACSGATEWAY"]);
        command.args(["-to", "2", "-ta", "3", "-td", "3"]);
        command.args(["127.0.0.1", &self.port.to_string()]);
        let file = |at: &usize| self.files.join(file_name(self.plan.study, *at));
        command.args(batch.iter().map(file));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        self.log.dcmtk.fetch_add(1, Ordering::SeqCst);
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        reaper::adopt(pid);
        let said = child.wait_with_output().unwrap().stderr;
        reaper::spare(pid);
        let said = String::from_utf8_lossy(&said);
        let lines = said.lines();
        let successes = lines
            .filter(|line| line.contains("Response (Success)"))
            .count();
        // dcmsend may send in another order, so there only all of them are known.
        let done = match self.plan.tool {
            Tool::Storescu => &batch[..successes.min(batch.len())],
            _ if successes >= batch.len() => batch,
            _ => &[],
        };
        done.iter().for_each(|at| self.acknowledge(*at));
        done.iter().copied().collect()
    }
}

/// Whether DCMTK's senders are there.
pub fn dcmtk() -> bool {
    peers::available("storescu") && peers::available("dcmsend")
}
