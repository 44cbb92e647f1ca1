//! Storage Commitment from the other side: pynetdicom asks, and takes the reports.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::certificates::Pair;
use super::options::repository;
use super::{Instance, SOON, peers, reaper, wait_for};

/// A Transaction UID, or one of an instance that nobody has.
pub fn new_uid() -> String {
    super::datasets::Study::ct().uid
}

/// What a request says of an instance.
pub fn reference(instance: &Instance) -> Value {
    json!([instance.sop_class, instance.sop_instance])
}

/// One N-ACTION.
pub fn asks(transaction: &str, references: &[Value]) -> Value {
    json!({ "transaction": transaction, "references": references })
}

/// Associates, sends the requests, waits for `events` reports on the association, releases. `more`
/// is merged into the order. Gives what the peer said, line by line.
#[track_caller]
pub fn request(port: u16, requests: &[Value], events: u32, more: Value) -> Vec<Value> {
    let mut order = json!({ "ae": "CT2", "requests": requests, "events": events });
    let fields = order.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    let mut command = script("request", port);
    let output = peers::run(command.arg(order.to_string()));
    peers::succeeded(&output);
    let lines = String::from_utf8(output.stdout).unwrap();
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A request that is taken, on an association that is released at once. However slow that is: it
/// would not take a report there.
#[track_caller]
pub fn ask_and_leave(port: u16, transaction: &str, references: &[Value]) {
    let answer = json!({ "answer": 0x0110 });
    let said = request(port, &[asks(transaction, references)], 0, answer);
    assert_eq!(said[0], json!({ "action": "0000" }));
}

/// The reports in what a peer said.
pub fn events(said: &[Value]) -> Vec<&Value> {
    said.iter().filter_map(|line| line.get("event")).collect()
}

/// A node that takes reports. It ends when it is dropped.
pub struct Node {
    child: Child,
    said: Arc<Mutex<Vec<Value>>>,
}

impl Node {
    /// Starts a node and waits until it listens.
    pub fn listen(port: u16, ae_title: &str) -> Self {
        Self::start(script("listen", port).arg(ae_title))
    }

    /// The same with TLS: who it is, and whose clients it takes.
    pub fn listen_with_tls(port: u16, ae_title: &str, who: &Pair, ca: &Path) -> Self {
        let mut command = script("listen", port);
        Self::start(command.arg(ae_title).env("PEER_TLS", who.pynetdicom(ca)))
    }

    fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        reaper::adopt(child.id());
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let said = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap();
                lines.lock().unwrap().push(line);
            }
        });
        let node = Self { child, said };
        wait_for("a node that listens", SOON, || {
            let said = node.said.lock().unwrap();
            said.iter()
                .any(|line| line.get("ready").is_some())
                .then_some(())
        });
        node
    }

    /// All reports so far.
    pub fn events(&self) -> Vec<Value> {
        let said = self.said.lock().unwrap();
        said.iter()
            .filter_map(|line| line.get("event").cloned())
            .collect()
    }

    /// Waits for the report on a transaction.
    #[track_caller]
    pub fn report(&self, transaction: &str) -> Value {
        wait_for("report", SOON, || {
            let mut events = self.events().into_iter();
            events.find(|event| event["transaction"] == transaction)
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        reaper::spare(self.child.id());
    }
}

fn script(verb: &str, port: u16) -> Command {
    let mut command = Command::new(peers::python());
    command.arg(repository().join("tests/it/python/commitment_peer.py"));
    command.args([verb, &port.to_string()]);
    command
}
