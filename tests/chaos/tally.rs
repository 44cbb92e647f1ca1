//! What a campaign has counted, as text, JSON and the table of docs/reliability.md.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::{Map, Value, json};

/// What is counted, in the order of the table.
const ROWS: [(&str, &str); 36] = [
    ("rounds", "rounds"),
    ("seconds", "seconds"),
    ("kills", "SIGKILL of the gateway"),
    ("terms", "SIGTERM of the gateway (drained)"),
    ("terms-killed", "SIGTERM, then SIGKILL while draining"),
    ("pauses", "SIGSTOP of the gateway"),
    (
        "children-killed",
        "SIGKILL of a decoding or inference process",
    ),
    ("broker-stops", "restarts of the broker, orderly"),
    ("broker-kills", "SIGKILL of the broker"),
    ("cuts-senders", "times connections of senders were cut"),
    ("cuts-broker", "times connections to the broker were cut"),
    (
        "slowed-senders",
        "times senders' bytes were frozen, delayed or trickled",
    ),
    ("slowed-broker", "times the broker's bytes were"),
    ("refused-senders", "times senders could not connect"),
    (
        "refused-broker",
        "times the broker could not be connected to",
    ),
    ("disk-full", "times the disk was full"),
    ("failed-starts", "starts refused because of it"),
    ("studies", "studies"),
    ("instances", "instances to be sent"),
    ("stores", "C-STORE requests of our own senders"),
    ("dcmtk-runs", "runs of storescu and dcmsend"),
    ("acknowledged", "instances acknowledged, each once"),
    (
        "acknowledged-again",
        "further acknowledgements of the same instances",
    ),
    ("a700", "refused with A700"),
    ("broken", "associations broken, rejected or aborted"),
    ("halves", "instances cut off for good in the middle"),
    ("silent", "instances sent whole, response never awaited"),
    ("silent-kept", "of these kept"),
    ("messages", "messages in the queue"),
    ("repeats", "of these repeats of an id"),
    ("ids", "distinct messages"),
    ("superseding", "messages that supersede another"),
    ("failed", "messages with outcome failed (children killed)"),
    (
        "in-parts",
        "studies whose earlier instances had been released",
    ),
    ("quarantined", "instances in quarantine (children killed)"),
    ("complaints", "broken promises"),
];

/// Counters by name.
#[derive(Default)]
pub struct Tally {
    counts: Mutex<BTreeMap<&'static str, u64>>,
    peak: Mutex<u64>,
}

impl Tally {
    /// Adds.
    pub fn add(&self, what: &'static str, count: u64) {
        debug_assert!(ROWS.iter().any(|(key, _)| *key == what), "{what}");
        *self.counts.lock().unwrap().entry(what).or_default() += count;
    }

    /// The count of something.
    pub fn of(&self, what: &str) -> u64 {
        self.counts.lock().unwrap().get(what).copied().unwrap_or(0)
    }

    /// Takes note of memory held by the gateway's process, in KiB.
    pub fn memory(&self, kibibytes: u64) {
        let mut peak = self.peak.lock().unwrap();
        *peak = (*peak).max(kibibytes);
    }

    /// Everything, for machines.
    pub fn json(&self, seed: u64) -> Value {
        let mut all = Map::new();
        all.insert("seed".to_owned(), json!(format!("{seed:#x}")));
        for (key, _) in ROWS {
            all.insert(key.to_owned(), json!(self.of(key)));
        }
        let peak = *self.peak.lock().unwrap();
        all.insert("peak-memory-kib".to_owned(), json!(peak));
        Value::Object(all)
    }

    /// Everything, for people.
    pub fn table(&self) -> String {
        let mut table = String::from("| | count |\n|---|---|\n");
        for (key, name) in ROWS {
            table.push_str(&format!("| {name} | {} |\n", self.of(key)));
        }
        let peak = *self.peak.lock().unwrap() / 1024;
        table.push_str(&format!(
            "| most memory of the gateway's process | {peak} MiB |\n"
        ));
        table
    }
}
