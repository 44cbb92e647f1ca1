//! Which associations have delivered instances of which studies: a hint at the end of a study, and
//! what is told of each when it ends.
//!
//! The standard gives the end of an association no meaning (PS3.4 B.4), so what is told here may be
//! lost, and for an association that does not end in an orderly way there is no hint: its sender
//! comes again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use crate::clock::Timestamp;
use crate::dicom::StudyInstanceUid;
use crate::spool::{EntryId, Stored};

/// All associations together.
pub struct Deliveries {
    /// Open associations that have delivered instances of a study.
    open: Mutex<HashMap<StudyInstanceUid, usize>>,
    released: mpsc::Sender<StudyInstanceUid>,
    observer: Option<Box<Observer>>,
}

/// Gets told of every association and study, in the association's own task: it must not wait.
type Observer = dyn Fn(Delivered) + Send + Sync;

/// What one association has delivered of one study.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// The study.
    pub study: StudyInstanceUid,
    /// Its first instance from this association.
    pub entry: EntryId,
    /// New instances.
    pub instances: u64,
    /// Bytes of their data sets.
    pub bytes: u64,
    /// When the association began.
    pub opened: Timestamp,
    /// When the first instance's C-STORE request had come.
    pub first: Timestamp,
    /// When the last instance had been stored.
    pub last: Timestamp,
    /// When the association ended.
    pub ended: Timestamp,
    /// By A-RELEASE.
    pub released: bool,
}

/// One association.
pub(super) struct Delivery {
    deliveries: Arc<Deliveries>,
    opened: Timestamp,
    /// What is new of each study; `None` while that is nothing.
    studies: HashMap<StudyInstanceUid, Option<Delivered>>,
}

impl Deliveries {
    /// Studies whose last association was released go into `released`, unless it is full.
    pub fn new(released: mpsc::Sender<StudyInstanceUid>) -> Self {
        Self {
            open: Mutex::default(),
            released,
            observer: None,
        }
    }

    /// Also tells `observer` what each association has delivered, when it has ended.
    #[must_use]
    pub fn observed(mut self, observer: impl Fn(Delivered) + Send + Sync + 'static) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    fn open(&self) -> MutexGuard<'_, HashMap<StudyInstanceUid, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Delivery {
    /// An association that has delivered nothing yet.
    pub(super) fn begin(deliveries: &Arc<Deliveries>) -> Self {
        Self {
            deliveries: Arc::clone(deliveries),
            opened: Timestamp::now(),
            studies: HashMap::new(),
        }
    }

    /// It has delivered an instance, whose request came at `begun`.
    pub(super) fn of(&mut self, stored: &Stored, begun: Timestamp) {
        let study = &stored.study;
        if !self.studies.contains_key(study) {
            self.studies.insert(study.clone(), None);
            *self.deliveries.open().entry(study.clone()).or_default() += 1;
        }
        let (Some(entry), Some(new)) = (stored.entry, self.studies.get_mut(study)) else {
            return;
        };
        let now = Timestamp::now();
        let new = new.get_or_insert_with(|| Delivered {
            study: study.clone(),
            entry,
            instances: 0,
            bytes: 0,
            opened: self.opened,
            first: begun,
            last: now,
            ended: now,
            released: false,
        });
        new.instances += 1;
        new.bytes = new.bytes.saturating_add(stored.bytes);
        new.last = now;
    }

    /// Its peer has released it.
    pub(super) fn released(mut self) {
        for study in self.end(true) {
            let _ = self.deliveries.released.try_send(study);
        }
    }

    /// Forgets the association; gives the studies that no other open one has delivered.
    fn end(&mut self, released: bool) -> Vec<StudyInstanceUid> {
        let mut last = Vec::new();
        let mut told = Vec::new();
        {
            let mut open = self.deliveries.open();
            for (study, new) in self.studies.drain() {
                told.extend(new);
                match open.get_mut(&study) {
                    Some(count) if *count > 1 => *count -= 1,
                    _ => {
                        open.remove(&study);
                        last.push(study);
                    }
                }
            }
        }
        if let Some(observer) = &self.deliveries.observer {
            let ended = Timestamp::now();
            for delivered in told {
                observer(Delivered {
                    ended,
                    released,
                    ..delivered
                });
            }
        }
        last
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.end(false);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn stored(id: u64) -> Stored {
        Stored {
            set_aside: None,
            study: StudyInstanceUid::parse("1.2").unwrap(),
            duplicate: false,
            entry: Some(EntryId(id)),
            bytes: 10,
        }
    }

    #[test]
    fn what_was_delivered_is_told_at_the_end_however_it_ends() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let (heard, released) = (Arc::clone(&told), mpsc::channel(8).0);
        let deliveries = Deliveries::new(released)
            .observed(move |delivered| heard.lock().unwrap().push(delivered));
        let deliveries = Arc::new(deliveries);
        for released in [true, false] {
            let mut delivery = Delivery::begin(&deliveries);
            delivery.of(&stored(7), Timestamp(1));
            delivery.of(&stored(8), Timestamp(2));
            let known = Stored {
                entry: None,
                duplicate: true,
                ..stored(9)
            };
            delivery.of(&known, Timestamp(3));
            if released {
                delivery.released();
            }
        }
        let mut repeats = Delivery::begin(&deliveries);
        let known = Stored {
            entry: None,
            ..stored(9)
        };
        repeats.of(&known, Timestamp(3));
        repeats.released();
        let told = told.lock().unwrap();
        let seen: Vec<_> = told
            .iter()
            .map(|d| (d.entry, d.instances, d.bytes, d.first, d.released))
            .collect();
        let (entry, first) = (EntryId(7), Timestamp(1));
        assert_eq!(
            seen,
            [(entry, 2, 20, first, true), (entry, 2, 20, first, false)],
            "and nothing of who brought nothing new"
        );
    }

    #[test]
    fn the_last_release_is_told_and_nothing_else() {
        let (released, mut told) = mpsc::channel(8);
        let deliveries = Arc::new(Deliveries::new(released));
        let study = StudyInstanceUid::parse("1.2").unwrap();
        let begin = || {
            let mut delivery = Delivery::begin(&deliveries);
            delivery.of(&stored(1), Timestamp(1));
            delivery.of(&stored(2), Timestamp(2));
            delivery
        };
        let (first, second) = (begin(), begin());
        first.released();
        assert!(told.try_recv().is_err(), "another one is open");
        second.released();
        assert_eq!(told.try_recv().unwrap(), study);
        drop(begin());
        assert!(told.try_recv().is_err(), "it was not released");
        Delivery::begin(&deliveries).released();
        assert!(told.try_recv().is_err(), "it has delivered nothing");
        assert!(deliveries.open().is_empty());
    }
}
