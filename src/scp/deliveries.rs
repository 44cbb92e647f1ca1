//! Which open associations have delivered instances of which studies: a hint at the end of a study.
//!
//! The standard gives the end of an association no meaning (PS3.4 B.4), so what is told here may be
//! lost, and an association that does not end in an orderly way tells nothing: its sender comes again.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use crate::dicom::StudyInstanceUid;

/// All associations together.
#[derive(Debug)]
pub struct Deliveries {
    /// Open associations that have delivered instances of a study.
    open: Mutex<HashMap<StudyInstanceUid, usize>>,
    released: mpsc::Sender<StudyInstanceUid>,
}

/// One association.
#[derive(Debug)]
pub(super) struct Delivery {
    deliveries: Arc<Deliveries>,
    studies: HashSet<StudyInstanceUid>,
}

impl Deliveries {
    /// Studies whose last association was released go into `released`, unless it is full.
    pub fn new(released: mpsc::Sender<StudyInstanceUid>) -> Self {
        Self {
            open: Mutex::default(),
            released,
        }
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
            studies: HashSet::new(),
        }
    }

    /// It has delivered an instance of a study.
    pub(super) fn of(&mut self, study: &StudyInstanceUid) {
        if !self.studies.contains(study) {
            self.studies.insert(study.clone());
            *self.deliveries.open().entry(study.clone()).or_default() += 1;
        }
    }

    /// Its peer has released it.
    pub(super) fn released(mut self) {
        for study in self.end() {
            let _ = self.deliveries.released.try_send(study);
        }
    }

    /// Forgets the association; gives the studies that no other open one has delivered.
    fn end(&mut self) -> Vec<StudyInstanceUid> {
        let mut open = self.deliveries.open();
        let mut last = Vec::new();
        for study in self.studies.drain() {
            match open.get_mut(&study) {
                Some(count) if *count > 1 => *count -= 1,
                _ => {
                    open.remove(&study);
                    last.push(study);
                }
            }
        }
        last
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_last_release_is_told_and_nothing_else() {
        let (released, mut told) = mpsc::channel(8);
        let deliveries = Arc::new(Deliveries::new(released));
        let study = StudyInstanceUid::parse("1.2").unwrap();
        let begin = || {
            let mut delivery = Delivery::begin(&deliveries);
            delivery.of(&study);
            delivery.of(&study);
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
