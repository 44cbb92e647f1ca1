//! Who may come in: limits on connections and associations, in all, per address and per title.
//!
//! A connection costs a task and a socket, an association also buffers. Connections get a little
//! more room than associations, so that a peer over the limit still hears "transient: local limit
//! exceeded" and comes back, and a peer that never speaks cannot take an association's place.
//!
//! A calling AE title is what a peer claims: its limit keeps one sender behind a proxy or a router
//! from taking the places of the others, and is no defence. The limit per address is.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::config::Config;
use crate::dicom::AeTitle;
use crate::live::Live;

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
    /// Associations by calling AE title.
    titles: HashMap<AeTitle, usize>,
}

/// Which limit an association would go beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// Of the gateway.
    Total,
    /// Of the peer's address.
    Address,
    /// Of the calling AE title.
    Title,
}

/// Counts what is open and says whether one more fits.
#[derive(Debug)]
pub(super) struct Admission {
    /// Its limits are those of the moment.
    config: Live<Config>,
    state: Mutex<State>,
    associations: watch::Sender<usize>,
}

/// What a [`Slot`] stands for.
#[derive(Debug)]
enum Occupancy {
    Connection,
    Association(AeTitle),
}

/// One place taken, given back on drop.
#[derive(Debug)]
pub(super) struct Slot {
    admission: Arc<Admission>,
    peer: IpAddr,
    occupancy: Occupancy,
}

impl Admission {
    pub(super) fn new(config: Live<Config>) -> Arc<Self> {
        Arc::new(Self {
            config,
            state: Mutex::new(State::default()),
            associations: watch::Sender::new(0),
        })
    }

    /// Takes a connection's place; `None` when there is no room even to say no.
    pub(super) fn connect(self: &Arc<Self>, peer: IpAddr) -> Option<Slot> {
        self.occupy(peer, Occupancy::Connection).ok()
    }

    /// Takes an association's place.
    ///
    /// # Errors
    /// The [`Limit`] that is reached.
    pub(super) fn associate(
        self: &Arc<Self>,
        peer: IpAddr,
        calling: &AeTitle,
    ) -> Result<Slot, Limit> {
        self.occupy(peer, Occupancy::Association(calling.clone()))
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

    fn occupy(self: &Arc<Self>, peer: IpAddr, occupancy: Occupancy) -> Result<Slot, Limit> {
        let peer = peer.to_canonical();
        let config = self.config.get();
        let limits = Counts {
            connections: config.max_associations.saturating_add(WAITING_ROOM),
            associations: config.max_associations,
        };
        let per_peer = config.max_associations_per_peer;
        let limits_per_peer = Counts {
            connections: per_peer.saturating_add(WAITING_ROOM_PER_PEER),
            associations: per_peer,
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let of_peer = state.peers.get(&peer).copied().unwrap_or_default();
        let room = |limits: Counts, taken: Counts| match &occupancy {
            Occupancy::Connection => taken.connections < limits.connections,
            Occupancy::Association(_) => taken.associations < limits.associations,
        };
        if !room(limits, state.total) {
            return Err(Limit::Total);
        }
        if !room(limits_per_peer, of_peer) {
            return Err(Limit::Address);
        }
        if let Occupancy::Association(title) = &occupancy {
            let of_title = state.titles.entry(title.clone()).or_default();
            // Not remembered for nothing: at a limit the count is at least one.
            if *of_title >= config.max_associations_per_ae {
                return Err(Limit::Title);
            }
            *of_title += 1;
        }
        state.total.add(&occupancy);
        state.peers.entry(peer).or_default().add(&occupancy);
        self.associations.send_replace(state.total.associations);
        Ok(Slot {
            admission: Arc::clone(self),
            peer,
            occupancy,
        })
    }

    fn vacate(&self, peer: IpAddr, occupancy: &Occupancy) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.total.remove(occupancy);
        if let Some(counts) = state.peers.get_mut(&peer) {
            counts.remove(occupancy);
            if counts.connections == 0 && counts.associations == 0 {
                state.peers.remove(&peer);
            }
        }
        if let Occupancy::Association(title) = occupancy
            && let Some(of_title) = state.titles.get_mut(title)
        {
            *of_title = of_title.saturating_sub(1);
            if *of_title == 0 {
                state.titles.remove(title);
            }
        }
        self.associations.send_replace(state.total.associations);
    }
}

impl Counts {
    fn add(&mut self, occupancy: &Occupancy) {
        *self.of(occupancy) += 1;
    }

    fn remove(&mut self, occupancy: &Occupancy) {
        let count = self.of(occupancy);
        *count = count.saturating_sub(1);
    }

    fn of(&mut self, occupancy: &Occupancy) -> &mut usize {
        match occupancy {
            Occupancy::Connection => &mut self.connections,
            Occupancy::Association(_) => &mut self.associations,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.admission.vacate(self.peer, &self.occupancy);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn admission(total: usize, per_peer: usize) -> Arc<Admission> {
        Admission::new(Live::new(Config {
            max_associations: total,
            max_associations_per_peer: per_peer,
            max_associations_per_ae: 2,
            ..Config::default()
        }))
    }

    fn title(text: &str) -> AeTitle {
        AeTitle::parse(text).unwrap()
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn one_address_cannot_take_all_places() {
        let admission = admission(3, 2);
        let associate = |last, calling| admission.associate(address(last), &title(calling));
        let _first = associate(1, "A").unwrap();
        let second = associate(1, "B").unwrap();
        assert_eq!(associate(1, "C").unwrap_err(), Limit::Address);
        let _third = associate(2, "C").unwrap();
        assert_eq!(
            associate(3, "D").unwrap_err(),
            Limit::Total,
            "the total limit holds too"
        );
        drop(second);
        assert!(associate(1, "B").is_ok());
    }

    #[test]
    fn one_title_cannot_take_all_places_of_an_address() {
        let admission = admission(9, 9);
        let associate = |last, calling| admission.associate(address(last), &title(calling));
        let first = associate(1, "CT1").unwrap();
        let second = associate(2, "CT1").unwrap();
        assert_eq!(associate(1, "CT1").unwrap_err(), Limit::Title);
        assert!(associate(1, "MR1").is_ok(), "another title has its own");
        drop(first);
        let third = associate(1, "CT1").unwrap();
        drop((second, third));
        assert!(
            admission.state.lock().unwrap().titles.is_empty(),
            "nothing is remembered of a title that left"
        );
    }

    #[test]
    fn silent_connections_do_not_use_up_associations() {
        let admission = admission(1, 1);
        let connections: Vec<_> = (0..WAITING_ROOM_PER_PEER + 1)
            .map(|_| admission.connect(address(1)).unwrap())
            .collect();
        assert!(admission.connect(address(1)).is_none());
        assert!(admission.associate(address(1), &title("A")).is_ok());
        drop(connections);
        assert!(
            admission.state.lock().unwrap().peers.is_empty(),
            "nothing is remembered of a peer that left"
        );
    }

    #[test]
    fn a_limit_that_is_changed_counts_for_the_next_one() {
        let admission = admission(1, 1);
        let associate = |last| admission.associate(address(last), &title("A"));
        let _first = associate(1).unwrap();
        assert_eq!(associate(2).unwrap_err(), Limit::Total);
        admission.config.set(Config::default());
        let _second = associate(2).unwrap();
        admission.config.set(Config {
            max_associations: 1,
            ..Config::default()
        });
        assert_eq!(associate(3).unwrap_err(), Limit::Total);
    }

    #[test]
    fn an_address_is_the_same_in_both_notations() {
        let admission = admission(2, 1);
        let associate = |address: &str| admission.associate(address.parse().unwrap(), &title("A"));
        let _slot = associate("10.0.0.1").unwrap();
        assert_eq!(associate("::ffff:10.0.0.1").unwrap_err(), Limit::Address);
    }

    #[tokio::test]
    async fn idle_waits_for_the_last_association() {
        let admission = admission(2, 2);
        admission.idle().await;
        let slot = admission.associate(address(1), &title("A")).unwrap();
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
