//! A TCP connection that can be cut, frozen, slowed down and refused, in either direction.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use socket2::SockRef;

/// A stalled read or write looks this often whether the connection was cut.
const LOOK: Duration = Duration::from_millis(25);

/// Shorter than any message, longer than what AMQP says besides.
const LARGE: usize = 600;

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From whom connected to whom it wanted.
    Forth,
    /// Answers.
    Back,
}

/// How bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Travel {
    /// As they come.
    Freely,
    /// Not at all; they wait.
    Frozen,
    /// Each piece later by so much.
    Delayed(Duration),
    /// A few bytes at a time, with a pause behind each piece.
    Trickling(usize),
}

/// How a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// RST to both sides.
    Reset,
    /// FIN to both sides.
    Finish,
    /// FIN to the side that was connected to; the other one learns of it from that.
    FinishForth,
}

/// A port that leads to another one.
pub struct Proxy {
    /// What to connect to.
    pub port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    upstream: AtomicU16,
    refusing: AtomicBool,
    forth: Mutex<Option<Travel>>,
    back: Mutex<Option<Travel>>,
    /// Large pieces that have come from whom connected.
    pieces: AtomicUsize,
    connections: Mutex<Vec<Weak<Pair>>>,
}

struct Pair {
    near: TcpStream,
    far: TcpStream,
    reset: AtomicBool,
}

impl Proxy {
    /// A free port that leads nowhere yet.
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        // It ends with the test process.
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                theirs.connect(near);
            }
        });
        Self { port, shared }
    }

    /// Connections from now on go to this port.
    pub fn lead_to(&self, port: u16) {
        self.shared.upstream.store(port, Ordering::SeqCst);
    }

    /// How many large pieces have come from whom connected: about one for each message to a broker.
    pub fn pieces(&self) -> usize {
        self.shared.pieces.load(Ordering::SeqCst)
    }

    /// Whether new connections are refused.
    pub fn refuse(&self, refuse: bool) {
        self.shared.refusing.store(refuse, Ordering::SeqCst);
    }

    /// How bytes travel from now on, on every connection.
    pub fn travel(&self, direction: Direction, travel: Travel) {
        let side = match direction {
            Direction::Forth => &self.shared.forth,
            Direction::Back => &self.shared.back,
        };
        *side.lock().unwrap() = Some(travel);
    }

    /// Cuts connections: all of them, or the one at `which` (modulo their number). Gives how many.
    pub fn cut(&self, how: Cut, which: Option<usize>) -> usize {
        let mut pairs = self.shared.open();
        if let (Some(which), false) = (which, pairs.is_empty()) {
            pairs = vec![pairs.swap_remove(which % pairs.len())];
        }
        for pair in &pairs {
            pair.cut(how);
        }
        pairs.len()
    }

    /// As if nothing had been wrong.
    pub fn heal(&self) {
        self.refuse(false);
        self.travel(Direction::Forth, Travel::Freely);
        self.travel(Direction::Back, Travel::Freely);
    }
}

impl Shared {
    fn connect(self: &Arc<Self>, near: TcpStream) {
        let upstream = ("127.0.0.1", self.upstream.load(Ordering::SeqCst));
        let far = match self.refusing.load(Ordering::SeqCst) {
            true => None,
            false => TcpStream::connect(upstream).ok(),
        };
        let Some(far) = far else {
            let _ = SockRef::from(&near).set_linger(Some(Duration::ZERO));
            return;
        };
        for stream in [&near, &far] {
            let _ = stream.set_nodelay(true);
            let _ = stream.set_read_timeout(Some(LOOK));
            let _ = stream.set_write_timeout(Some(LOOK));
        }
        let pair = Arc::new(Pair {
            near,
            far,
            reset: AtomicBool::new(false),
        });
        let mut connections = self.connections.lock().unwrap();
        connections.retain(|pair| pair.strong_count() > 0);
        connections.push(Arc::downgrade(&pair));
        drop(connections);
        for direction in [Direction::Forth, Direction::Back] {
            let (shared, pair) = (Arc::clone(self), Arc::clone(&pair));
            std::thread::spawn(move || shared.carry(direction, &pair));
        }
    }

    fn open(&self) -> Vec<Arc<Pair>> {
        let connections = self.connections.lock().unwrap();
        connections.iter().filter_map(Weak::upgrade).collect()
    }

    fn travel(&self, direction: Direction) -> Travel {
        let side = match direction {
            Direction::Forth => &self.forth,
            Direction::Back => &self.back,
        };
        side.lock().unwrap().unwrap_or(Travel::Freely)
    }

    /// Carries bytes one way until one side ends, and tells the other side how.
    fn carry(&self, direction: Direction, pair: &Pair) {
        let (mut from, to) = match direction {
            Direction::Forth => (&pair.near, &pair.far),
            Direction::Back => (&pair.far, &pair.near),
        };
        let mut bytes = vec![0; 16 << 10];
        while !pair.reset.load(Ordering::SeqCst) {
            if self.travel(direction) == Travel::Frozen {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            }
            match from.read(&mut bytes) {
                Ok(0) => {
                    let _ = to.shutdown(Shutdown::Write);
                    return;
                }
                Ok(count) => {
                    if direction == Direction::Forth && count >= LARGE {
                        self.pieces.fetch_add(1, Ordering::SeqCst);
                    }
                    if !self.deliver(direction, pair, to, &bytes[..count]) {
                        return pair.cut(Cut::Reset);
                    }
                }
                Err(err) if is_pause(&err) => {}
                Err(_) => return pair.cut(Cut::Reset),
            }
        }
    }

    fn deliver(
        &self,
        direction: Direction,
        pair: &Pair,
        mut to: &TcpStream,
        mut bytes: &[u8],
    ) -> bool {
        let since = Instant::now();
        while !bytes.is_empty() {
            if pair.reset.load(Ordering::SeqCst) {
                return false;
            }
            let piece = match self.travel(direction) {
                Travel::Freely => bytes.len(),
                Travel::Frozen => 0,
                Travel::Delayed(by) if since.elapsed() < by => 0,
                Travel::Delayed(_) => bytes.len(),
                Travel::Trickling(count) => count.clamp(1, bytes.len()),
            };
            if piece < bytes.len() {
                std::thread::sleep(Duration::from_millis(1));
            }
            if piece == 0 {
                continue;
            }
            match to.write(&bytes[..piece]) {
                Ok(count) => bytes = &bytes[count..],
                Err(err) if is_pause(&err) => {}
                Err(_) => return false,
            }
        }
        true
    }
}

impl Pair {
    fn cut(&self, how: Cut) {
        match how {
            Cut::Reset => {
                // Whoever drops the pair last closes both with RST.
                for stream in [&self.near, &self.far] {
                    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
                }
                self.reset.store(true, Ordering::SeqCst);
            }
            Cut::Finish => {
                let _ = self.near.shutdown(Shutdown::Both);
                let _ = self.far.shutdown(Shutdown::Both);
            }
            Cut::FinishForth => {
                let _ = self.far.shutdown(Shutdown::Write);
            }
        }
    }
}

fn is_pause(err: &std::io::Error) -> bool {
    matches!(
        err.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}
