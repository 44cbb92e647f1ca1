//! Ports for peers that have to be told theirs.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// A port that is still free when a node comes back: below those that the kernel gives to connections
/// (Linux: from 32768 on).
pub fn own_port() -> u16 {
    let ports = 20_000_u16..32_000;
    let start = u16::try_from(std::process::id() % 12_000).unwrap();
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let mut tries = std::iter::from_fn(|| {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        Some(ports.start + (start + step) % ports.len() as u16)
    });
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    tries.find(free).unwrap()
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}
