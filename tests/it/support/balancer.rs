//! A TCP load balancer as Kubernetes has it: connections go to a process that says it is ready, which is
//! noticed late, and stay where they are.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::gateway::Gateway;

/// Between two looks at `/readyz`.
const PROBE: Duration = Duration::from_millis(200);

/// Balances until it is dropped.
pub struct Balancer {
    /// Where senders connect to.
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    backends: Vec<Mutex<Backend>>,
    lag: Duration,
    next: AtomicUsize,
    ended: AtomicBool,
    /// Connections that no backend took.
    dropped: AtomicUsize,
}

#[derive(Default)]
struct Backend {
    dicom_port: u16,
    http_port: u16,
    /// Since when it says another thing than what it is treated as.
    differs_since: Option<Instant>,
    in_use: bool,
}

impl Balancer {
    /// For so many processes. What one of them says of itself counts after `lag`.
    pub fn start(backends: usize, lag: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            backends: (0..backends).map(|_| Mutex::default()).collect(),
            lag,
            next: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            dropped: AtomicUsize::new(0),
        });
        let probing = Arc::clone(&shared);
        std::thread::spawn(move || {
            while !probing.ended.load(Ordering::Relaxed) {
                probing
                    .backends
                    .iter()
                    .for_each(|backend| probing.probe(backend));
                std::thread::sleep(PROBE);
            }
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if accepting.ended.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || shared.forward(stream));
            }
        });
        Self { port, shared }
    }

    /// The process of this number has these ports now.
    pub fn set(&self, number: usize, gateway: &Gateway) {
        let mut backend = self.shared.backends[number].lock().unwrap();
        backend.dicom_port = gateway.dicom_port;
        backend.http_port = gateway.http_port;
    }

    /// Whether it sends anybody to that process.
    pub fn uses(&self, number: usize) -> bool {
        self.shared.backends[number].lock().unwrap().in_use
    }

    /// Connections that no process took.
    pub fn dropped(&self) -> usize {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn probe(&self, backend: &Mutex<Backend>) {
        let port = backend.lock().unwrap().http_port;
        let ready = is_ready(port).unwrap_or(false);
        let mut backend = backend.lock().unwrap();
        if ready == backend.in_use {
            backend.differs_since = None;
        } else if backend
            .differs_since
            .get_or_insert_with(Instant::now)
            .elapsed()
            >= self.lag
        {
            backend.in_use = ready;
            backend.differs_since = None;
        }
    }

    fn forward(&self, client: TcpStream) {
        let ports: Vec<u16> = self
            .backends
            .iter()
            .map(|backend| backend.lock().unwrap())
            .filter(|backend| backend.in_use)
            .map(|backend| backend.dicom_port)
            .collect();
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let server = ports
            .get(turn % ports.len().max(1))
            .and_then(|port| TcpStream::connect(("127.0.0.1", *port)).ok());
        let Some(server) = server else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let (from, to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        let back = std::thread::spawn(move || copy(from, to));
        copy(client, server);
        let _ = back.join();
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut block = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut block) {
        if to.write_all(&block[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// `None`: nobody is there.
fn is_ready(port: u16) -> Option<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    let request = b"GET /readyz HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n";
    stream.write_all(request).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Some(answer.starts_with(b"HTTP/1.1 200 "))
}
