//! Who may come in: limits on connections and associations, in all and per address.
//!
//! A connection costs a task and a socket, an association also buffers. Connections get a little
//! more room than associations, so that a peer over the limit still hears "transient: local limit
//! exceeded" and comes back, and a peer that never speaks cannot take an association's place.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::config::Config;

/// Connections beyond the association limits that we keep open to tell their peers so.
const WAITING_ROOM: usize = 128;

/// The same, per address.
const WAITING_ROOM_PER_PEER: usize = 16;

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    connections: usize,
    associations: usize,
}

#[derive(Debug, Default)]
struct State {
    total: Counts,
    peers: HashMap<IpAddr, Counts>,
}

/// Counts what is open and says whether one more fits.
#[derive(Debug)]
pub(super) struct Admission {
    limits: Counts,
    limits_per_peer: Counts,
    state: Mutex<State>,
    associations: watch::Sender<usize>,
}

/// What a [`Slot`] stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Occupancy {
    Connection,
    Association,
}

/// One place taken, given back on drop.
#[derive(Debug)]
pub(super) struct Slot {
    admission: Arc<Admission>,
    peer: IpAddr,
    occupancy: Occupancy,
}

impl Admission {
    pub(super) fn new(config: &Config) -> Arc<Self> {
        let (total, per_peer) = (config.max_associations, config.max_associations_per_peer);
        Arc::new(Self {
            limits: Counts {
                connections: total.saturating_add(WAITING_ROOM),
                associations: total,
            },
            limits_per_peer: Counts {
                connections: per_peer.saturating_add(WAITING_ROOM_PER_PEER),
                associations: per_peer,
            },
            state: Mutex::new(State::default()),
            associations: watch::Sender::new(0),
        })
    }

    /// Takes a connection's place; `None` when there is no room even to say no.
    pub(super) fn connect(self: &Arc<Self>, peer: IpAddr) -> Option<Slot> {
        self.occupy(peer, Occupancy::Connection)
    }

    /// Takes an association's place; `None` when the limit is reached.
    pub(super) fn associate(self: &Arc<Self>, peer: IpAddr) -> Option<Slot> {
        self.occupy(peer, Occupancy::Association)
    }

    /// Waits until no association is open.
    pub(super) async fn idle(&self) {
        // The sender lives in `self`, so the wait cannot fail.
        let _ = self
            .associations
            .subscribe()
            .wait_for(|open| *open == 0)
            .await;
    }

    fn occupy(self: &Arc<Self>, peer: IpAddr, occupancy: Occupancy) -> Option<Slot> {
        let peer = peer.to_canonical();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let of_peer = state.peers.get(&peer).copied().unwrap_or_default();
        let fits = match occupancy {
            Occupancy::Connection => {
                state.total.connections < self.limits.connections
                    && of_peer.connections < self.limits_per_peer.connections
            }
            Occupancy::Association => {
                state.total.associations < self.limits.associations
                    && of_peer.associations < self.limits_per_peer.associations
            }
        };
        if !fits {
            return None;
        }
        state.total.add(occupancy);
        state.peers.entry(peer).or_default().add(occupancy);
        self.associations.send_replace(state.total.associations);
        Some(Slot {
            admission: Arc::clone(self),
            peer,
            occupancy,
        })
    }

    fn vacate(&self, peer: IpAddr, occupancy: Occupancy) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.total.remove(occupancy);
        if let Some(counts) = state.peers.get_mut(&peer) {
            counts.remove(occupancy);
            if counts.connections == 0 && counts.associations == 0 {
                state.peers.remove(&peer);
            }
        }
        self.associations.send_replace(state.total.associations);
    }
}

impl Counts {
    fn add(&mut self, occupancy: Occupancy) {
        *self.of(occupancy) += 1;
    }

    fn remove(&mut self, occupancy: Occupancy) {
        let count = self.of(occupancy);
        *count = count.saturating_sub(1);
    }

    fn of(&mut self, occupancy: Occupancy) -> &mut usize {
        match occupancy {
            Occupancy::Connection => &mut self.connections,
            Occupancy::Association => &mut self.associations,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.admission.vacate(self.peer, self.occupancy);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn admission(total: usize, per_peer: usize) -> Arc<Admission> {
        Admission::new(&Config {
            max_associations: total,
            max_associations_per_peer: per_peer,
            ..Config::default()
        })
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn one_address_cannot_take_all_places() {
        let admission = admission(3, 2);
        let _first = admission.associate(address(1)).unwrap();
        let second = admission.associate(address(1)).unwrap();
        assert!(admission.associate(address(1)).is_none());
        let _third = admission.associate(address(2)).unwrap();
        assert!(
            admission.associate(address(3)).is_none(),
            "the total limit holds too"
        );
        drop(second);
        assert!(admission.associate(address(1)).is_some());
    }

    #[test]
    fn silent_connections_do_not_use_up_associations() {
        let admission = admission(1, 1);
        let connections: Vec<_> = (0..WAITING_ROOM_PER_PEER + 1)
            .map(|_| admission.connect(address(1)).unwrap())
            .collect();
        assert!(admission.connect(address(1)).is_none());
        assert!(admission.associate(address(1)).is_some());
        drop(connections);
        assert!(
            admission.state.lock().unwrap().peers.is_empty(),
            "nothing is remembered of a peer that left"
        );
    }

    #[test]
    fn an_address_is_the_same_in_both_notations() {
        let admission = admission(2, 1);
        let _slot = admission.associate("10.0.0.1".parse().unwrap()).unwrap();
        assert!(
            admission
                .associate("::ffff:10.0.0.1".parse().unwrap())
                .is_none()
        );
    }

    #[tokio::test]
    async fn idle_waits_for_the_last_association() {
        let admission = admission(2, 2);
        admission.idle().await;
        let slot = admission.associate(address(1)).unwrap();
        let waiting = tokio::spawn({
            let admission = Arc::clone(&admission);
            async move { admission.idle().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(slot);
        waiting.await.unwrap();
    }
}
