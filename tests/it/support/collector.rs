//! An OTLP collector of grpcio (`tests/it/python/collector.py`), which says what it has got.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::Deserialize;
use serde_json::Value;

use super::options::repository;
use super::{Options, SOON, peers, reaper, wait_for};

/// A running collector, which ends when it is dropped.
pub struct Collector {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    dir: tempfile::TempDir,
    protocol: &'static str,
    port: u16,
}

/// A span as it came over the wire. Times are in nanoseconds.
#[derive(Debug, Clone, Deserialize)]
pub struct Span {
    pub resource: BTreeMap<String, Value>,
    pub trace_id: String,
    pub span_id: String,
    /// Empty for a root.
    pub parent: String,
    pub name: String,
    pub kind: u8,
    pub start: u64,
    pub end: u64,
    pub attributes: BTreeMap<String, Value>,
    /// 2: error.
    pub status: u8,
    pub message: String,
}

impl Collector {
    /// Starts one, with TLS when there are a certificate and its key; `None` when the tests' Python
    /// has no grpcio.
    pub fn start(protocol: &'static str, identity: Option<(&Path, &Path)>) -> Option<Self> {
        if !peers::python_available() {
            return None;
        }
        let mut probe = Command::new(peers::python());
        probe.args(["-c", "import grpc, opentelemetry.proto.trace.v1.trace_pb2"]);
        if !peers::run(&mut probe).status.success() {
            peers::skip("the tests' Python has no grpcio; run `make setup`");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(peers::python());
        command.arg(repository().join("tests/it/python/collector.py"));
        command.arg(protocol).arg(dir.path().join("spans"));
        if let Some((certificate, key)) = identity {
            command.arg(certificate).arg(key);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        reaper::adopt(child.id());
        let mut collector = Self {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
            dir,
            protocol,
            port: 0,
        };
        let line = collector.line();
        collector.port = line.strip_prefix("port ").unwrap().parse().unwrap();
        Some(collector)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// `take`, `refuse`, `busy` or `hang` from now on.
    pub fn behave(&mut self, how: &str) {
        writeln!(self.input, "{how}").unwrap();
        assert_eq!(self.line(), format!("now {how}"));
    }

    /// A gateway that sends its spans here.
    pub fn admit(&self, options: Options) -> Options {
        self.admit_over("http", options)
    }

    /// The same over `http` or `https`.
    pub fn admit_over(&self, scheme: &str, options: Options) -> Options {
        let endpoint = format!("{scheme}://localhost:{}", self.port);
        options
            .set("traces.endpoint", endpoint.as_str())
            .set("traces.protocol", self.protocol)
    }

    /// Everything that has come.
    pub fn spans(&self) -> Vec<Span> {
        let text = std::fs::read_to_string(self.dir.path().join("spans")).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter(|l| l.ends_with('\n'));
        whole.map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    /// The same as it was written down.
    pub fn text(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("spans")).unwrap_or_default()
    }

    /// The traces that have a root, by their id, once there are so many.
    #[track_caller]
    pub fn traces(&self, count: usize) -> BTreeMap<String, Trace> {
        wait_for(&format!("{count} closed traces"), SOON, || {
            let mut traces = BTreeMap::<String, Trace>::new();
            for span in self.spans() {
                let id = span.trace_id.clone();
                traces.entry(id).or_default().0.push(span);
            }
            let closed = |trace: &Trace| trace.0.iter().any(|span| span.parent.is_empty());
            traces.retain(|_, trace| closed(trace));
            (traces.len() >= count).then_some(traces)
        })
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        reaper::spare(self.child.id());
    }
}

/// The spans of one trace.
#[derive(Debug, Clone, Default)]
pub struct Trace(pub Vec<Span>);

impl Trace {
    /// The spans of this name.
    pub fn named(&self, name: &str) -> Vec<&Span> {
        self.0.iter().filter(|span| span.name == name).collect()
    }

    /// The only span of this name.
    #[track_caller]
    pub fn the(&self, name: &str) -> &Span {
        match self.named(name).as_slice() {
            [only] => only,
            spans => panic!("{} spans `{name}` in {:#?}", spans.len(), self.names()),
        }
    }

    /// Every name that occurs.
    pub fn names(&self) -> BTreeSet<&str> {
        self.0.iter().map(|span| span.name.as_str()).collect()
    }

    /// One root; every parent is there; a span lies inside its parent; ids are of the right length
    /// and nobody's else.
    #[track_caller]
    pub fn check(&self) {
        let by_id: BTreeMap<&str, &Span> = self.0.iter().map(|s| (s.span_id.as_str(), s)).collect();
        assert_eq!(by_id.len(), self.0.len(), "span ids differ");
        let roots = self.0.iter().filter(|span| span.parent.is_empty());
        assert_eq!(roots.count(), 1, "one root");
        for span in &self.0 {
            assert_eq!((span.trace_id.len(), span.span_id.len()), (32, 16));
            assert!(span.start <= span.end, "{span:#?}");
            if span.parent.is_empty() {
                continue;
            }
            let parent = by_id.get(span.parent.as_str());
            let parent = parent.unwrap_or_else(|| panic!("no parent of {span:#?}"));
            assert!(
                parent.start <= span.start && span.end <= parent.end,
                "{span:#?} is not inside {parent:#?}"
            );
        }
    }
}
