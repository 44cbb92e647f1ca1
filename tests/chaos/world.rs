//! Gateway, broker, disk and the wires between them, and everything that can go wrong with them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::plan::{Fault, Side};
use super::proxy::{Proxy, Travel};
use super::tally::Tally;
use crate::support::disk::SmallDisk;
use crate::support::rabbit::{Node, Route};
use crate::support::{Gateway, Options};

/// Longest drain: the sum of the graces below and some.
const DRAIN: Duration = Duration::from_secs(30);
/// Longest time until a gateway starts again, a full disk included.
const START: Duration = Duration::from_secs(60);
/// Size of the disk in MiB.
const DISK: u32 = 64;

/// The broker, which several worlds share one after the other.
pub struct Broker {
    /// The node.
    node: Node,
    /// The names that all gateways of the campaign use, one after the other.
    pub route: Route,
    /// It has been stopped in an orderly way since the queue was declared: a power cut a moment after
    /// the declaration costs RabbitMQ the queue's leader.
    settled: bool,
}

impl Broker {
    /// A node; `None` when RabbitMQ is not installed.
    pub fn install() -> Option<Self> {
        let node = Node::install()?;
        Some(Self {
            route: node.route(),
            node,
            settled: false,
        })
    }
}

/// A gateway, and what it depends on.
pub struct World {
    /// The gateway.
    pub gateway: Mutex<Gateway>,
    /// Where it publishes.
    pub broker: Arc<Mutex<Broker>>,
    /// What senders connect to.
    pub senders: Proxy,
    /// What the gateway connects to.
    to_broker: Proxy,
    /// What the spool lies on; an ordinary folder when there is no leave to mount.
    disk: Option<SmallDisk>,
    /// The spool.
    pub spool: PathBuf,
    /// Counters of the campaign.
    pub tally: Arc<Tally>,
    /// What happened in this round, and when.
    timeline: Mutex<Vec<String>>,
    began: Mutex<Instant>,
    pieces_before: AtomicUsize,
    /// Processes that gateways have started: process id and start time.
    children: Mutex<BTreeSet<(u32, u64)>>,
    /// Child processes were killed in this round.
    pub children_killed: AtomicBool,
    /// Entries in quarantine that were counted.
    aside: Mutex<BTreeSet<String>>,
    /// Disks that are full just now.
    full: AtomicUsize,
    /// What must not happen.
    complaints: Mutex<Vec<String>>,
}

impl World {
    /// Starts a gateway with an empty spool.
    pub fn start(broker: &Arc<Mutex<Broker>>, models: PathBuf, tally: &Arc<Tally>) -> Self {
        let (senders, to_broker) = (Proxy::new(), Proxy::new());
        let route = {
            let mut broker = broker.lock().unwrap();
            broker.node.start();
            to_broker.lead_to(broker.node.port());
            broker.route.clone()
        };
        let disk = SmallDisk::mount(DISK);
        let through_proxy = Route {
            url: format!("amqp://guest:guest@127.0.0.1:{}/%2f", to_broker.port),
            ..route
        };
        let mut options = Options::amqp(&through_proxy)
            .models(models)
            .set("models.poll", "0s")
            .set("study.quiet_period", "200ms")
            .set("study.concurrency", 3)
            .set("spool.retention", "20s")
            .set("broker.confirm_timeout", "2s")
            .set("dicom.artim_timeout", "5s")
            .set("dicom.pdu_timeout", "5s")
            .set("dicom.idle_timeout", "10s")
            .set("inference.sessions", 1)
            .set("decode.workers", 1)
            .set("shutdown.associations", "2s")
            .set("shutdown.studies", "3s")
            .set("shutdown.outbox", "2s");
        if let Some(disk) = &disk {
            options = options
                .set("spool.dir", disk.path().join("spool"))
                .set("spool.limits.min_free_bytes", "64KiB")
                .set("spool.limits.min_free_inodes", 0);
        }
        let gateway = Gateway::start(&options);
        senders.lead_to(gateway.dicom_port);
        let folder = disk.as_ref().map_or(gateway.dir(), SmallDisk::path);
        Self {
            spool: folder.join("spool"),
            gateway: Mutex::new(gateway),
            broker: Arc::clone(broker),
            senders,
            to_broker,
            disk,
            tally: Arc::clone(tally),
            timeline: Mutex::default(),
            began: Mutex::new(Instant::now()),
            pieces_before: AtomicUsize::new(0),
            children: Mutex::default(),
            children_killed: AtomicBool::new(false),
            aside: Mutex::default(),
            full: AtomicUsize::new(0),
            complaints: Mutex::default(),
        }
    }

    /// A new round begins.
    pub fn begin(&self) {
        *self.began.lock().unwrap() = Instant::now();
        self.pieces_before
            .store(self.to_broker.pieces(), Ordering::SeqCst);
        self.timeline.lock().unwrap().clear();
        self.children_killed.store(false, Ordering::SeqCst);
    }

    /// Messages of this round that were on their way to the broker.
    pub fn published(&self) -> usize {
        self.to_broker.pieces() - self.pieces_before.load(Ordering::SeqCst)
    }

    /// Writes down what happens.
    pub fn note(&self, what: &str) {
        let at = self.began.lock().unwrap().elapsed().as_millis();
        self.timeline
            .lock()
            .unwrap()
            .push(format!("{at:6} ms  {what}"));
    }

    /// What happened in this round.
    pub fn timeline(&self) -> String {
        self.timeline.lock().unwrap().join("\n")
    }

    /// What must not happen.
    pub fn complain(&self, complaint: String) {
        self.note(&format!("!! {complaint}"));
        self.complaints.lock().unwrap().push(complaint);
    }

    /// The complaints so far.
    pub fn complaints(&self) -> Vec<String> {
        self.complaints.lock().unwrap().clone()
    }

    /// An instance was set aside because its process was killed; it is counted once.
    pub fn set_aside(&self, entry: &str) {
        if self.aside.lock().unwrap().insert(entry.to_owned()) {
            self.tally.add("quarantined", 1);
        }
    }

    /// Does it, and puts right what was done unless the gateway has to cope with it for ever.
    pub fn perform(&self, fault: Fault) {
        self.note(&format!("{fault:?}"));
        match fault {
            Fault::Kill(down) => {
                let mut gateway = self.gateway.lock().unwrap();
                if self.runs(&mut gateway) {
                    gateway.kill();
                    self.tally.add("kills", 1);
                }
                std::thread::sleep(down);
                self.start_again(&mut gateway);
            }
            Fault::Terminate => {
                let mut gateway = self.gateway.lock().unwrap();
                if self.runs(&mut gateway) {
                    gateway.terminate();
                    let status = gateway.wait(DRAIN);
                    if status.code() != Some(0) {
                        self.complain(format!("after SIGTERM the gateway ended with {status}"));
                    }
                    self.tally.add("terms", 1);
                }
                self.start_again(&mut gateway);
            }
            Fault::TerminateAndKill(after) => {
                let mut gateway = self.gateway.lock().unwrap();
                if self.runs(&mut gateway) {
                    gateway.terminate();
                    std::thread::sleep(after);
                    if gateway.ended().is_none() {
                        gateway.kill();
                    }
                    self.tally.add("terms-killed", 1);
                }
                self.start_again(&mut gateway);
            }
            Fault::Pause(time) => {
                let pid = {
                    let mut gateway = self.gateway.lock().unwrap();
                    if !self.runs(&mut gateway) {
                        return;
                    }
                    gateway.signal(Signal::STOP);
                    gateway.pid()
                };
                self.tally.add("pauses", 1);
                std::thread::sleep(time);
                // Not through the gateway: somebody may be waiting for it to end.
                signal(pid, Signal::CONT);
            }
            Fault::KillChild(which) => {
                let gateway = self.gateway.lock().unwrap();
                let children = children_of(gateway.pid());
                if !children.is_empty() {
                    self.children_killed.store(true, Ordering::SeqCst);
                    let (pid, _) = children[which as usize % children.len()];
                    signal(pid, Signal::KILL);
                    self.tally.add("children-killed", 1);
                }
            }
            Fault::BrokerStop(down) => self.restart_broker(false, down),
            Fault::BrokerKill(down) => self.restart_broker(true, down),
            Fault::Cut(side, how, which) => {
                self.proxy(side).cut(how, which);
                self.count(side, "cuts-senders", "cuts-broker");
            }
            Fault::HoldAndCut(side, direction, time, how) => {
                self.proxy(side).travel(direction, Travel::Frozen);
                std::thread::sleep(time);
                self.proxy(side).cut(how, None);
                self.proxy(side).travel(direction, Travel::Freely);
                self.count(side, "cuts-senders", "cuts-broker");
            }
            Fault::Slow(side, direction, travel, time) => {
                self.proxy(side).travel(direction, travel);
                std::thread::sleep(time);
                self.proxy(side).travel(direction, Travel::Freely);
                self.count(side, "slowed-senders", "slowed-broker");
            }
            Fault::Refuse(side, time) => {
                self.proxy(side).refuse(true);
                self.proxy(side).cut(super::proxy::Cut::Reset, None);
                std::thread::sleep(time);
                self.proxy(side).refuse(false);
                self.count(side, "refused-senders", "refused-broker");
            }
            Fault::FillDisk(free, time) => {
                // Two at a time would remove each other's ballast.
                let Some(disk) = &self.disk else { return };
                if self.full.fetch_add(1, Ordering::SeqCst) == 0 {
                    let ballast = disk.fill_up_to(free);
                    std::thread::sleep(time);
                    disk.empty(&ballast);
                    self.tally.add("disk-full", 1);
                }
                self.full.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.note(&format!("done: {fault:?}"));
    }

    /// Nothing is wrong any more.
    pub fn heal(&self) {
        self.senders.heal();
        self.to_broker.heal();
        self.broker.lock().unwrap().node.start();
        let mut gateway = self.gateway.lock().unwrap();
        if !self.runs(&mut gateway) {
            self.start_again(&mut gateway);
        }
        self.note("healed");
    }

    /// Writes down which processes the gateway has started, and how much memory it holds.
    pub fn look(&self) {
        let Ok(gateway) = self.gateway.try_lock() else {
            return;
        };
        let pid = gateway.pid();
        self.children.lock().unwrap().extend(children_of(pid));
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok());
        self.tally.memory(peak.unwrap_or(0));
    }

    /// Processes of earlier gateways that are still there.
    pub fn orphans(&self) -> Vec<u32> {
        let gateway = self.gateway.lock().unwrap();
        let alive: BTreeSet<(u32, u64)> = children_of(gateway.pid()).into_iter().collect();
        let mut known = self.children.lock().unwrap();
        known.retain(|(pid, started)| start_time(*pid) == Some(*started));
        known.difference(&alive).map(|(pid, _)| *pid).collect()
    }

    fn count(&self, side: Side, senders: &'static str, broker: &'static str) {
        let what = match side {
            Side::Senders => senders,
            Side::Broker => broker,
        };
        self.tally.add(what, 1);
    }

    fn proxy(&self, side: Side) -> &Proxy {
        match side {
            Side::Senders => &self.senders,
            Side::Broker => &self.to_broker,
        }
    }

    /// A gateway that has ended by itself is a complaint.
    fn runs(&self, gateway: &mut Gateway) -> bool {
        match gateway.ended() {
            Some(status) => {
                self.complain(format!("the gateway ended by itself with {status}"));
                false
            }
            None => true,
        }
    }

    /// What a supervisor does: tries until it starts.
    fn start_again(&self, gateway: &mut Gateway) {
        let began = Instant::now();
        while let Err(err) = gateway.try_restart() {
            self.note(&err);
            self.tally.add("failed-starts", 1);
            // A start that began on a full disk may fail a moment after it was emptied.
            if !self.timeline().contains("FillDisk") {
                self.complain(format!("a start failed without a reason: {err}"));
            }
            assert!(began.elapsed() < START, "the gateway does not start: {err}");
            std::thread::sleep(Duration::from_millis(100));
        }
        self.senders.lead_to(gateway.dicom_port);
        self.note("gateway is ready");
    }

    fn restart_broker(&self, kill: bool, down: Duration) {
        let mut broker = self.broker.lock().unwrap();
        if kill && broker.settled {
            broker.node.kill();
            self.tally.add("broker-kills", 1);
        } else {
            broker.node.stop();
            self.tally.add("broker-stops", 1);
            broker.settled = true;
        }
        std::thread::sleep(down);
        broker.node.start();
    }
}

fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _ = kill_process(pid, signal);
    }
}

/// Children of all threads of a process, with their start times.
fn children_of(pid: u32) -> Vec<(u32, u64)> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<u32>>()
        })
        .filter_map(|pid| Some((pid, start_time(pid)?)))
        .collect()
}

/// When a process started, in ticks; none when it has ended.
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; fields count from behind it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    (state != "Z").then(|| fields.nth(18)?.parse().ok())?
}
