//! In which order studies are worked on: the urgent first, then modalities in turn.

use std::collections::HashMap;
use std::sync::Arc;

use dicom::dictionary_std::tags;
use tokio::task::spawn_blocking;

use super::Pipeline;
use crate::dicom::dataset::{DicomFile, ReadLimits};
use crate::dicom::uid::StudyInstanceUid;
use crate::inference::{Turn, Turns};
use crate::priority::Priority;
use crate::spool::Entry;
use crate::study::StableStudy;

/// Instances that are opened in search of one that can be read.
const MAX_TRIES: usize = 8;

/// A complete study and its turn.
#[derive(Debug, Clone)]
pub(super) struct Due {
    pub study: StableStudy,
    pub turn: Turn,
}

/// Studies that wait, and those that are worked on.
#[derive(Default)]
pub(super) struct Line {
    waiting: Turns<Due>,
    running: HashMap<StudyInstanceUid, Priority>,
}

impl Line {
    /// Puts a study where it belongs.
    pub fn admit(&mut self, due: Due) {
        let turn = due.turn.clone();
        self.waiting.push(&turn, due);
    }

    /// The study to begin with now, when there is room. Of `concurrency` studies at a time, a quarter,
    /// at least one, is kept for those that are more than routine, unless there is room for one only.
    pub fn next(&mut self, concurrency: usize) -> Option<Due> {
        let concurrency = concurrency.max(1);
        if self.running.len() >= concurrency {
            return None;
        }
        let kept = match concurrency {
            1 => 0,
            more => (more / 4).max(1),
        };
        let routine = self.running.values();
        let routine = routine.filter(|priority| **priority == Priority::Routine);
        let least = if routine.count() < concurrency - kept {
            Priority::Routine
        } else {
            Priority::Urgent
        };
        let mut held = Vec::new();
        let due = loop {
            let Some(due) = self.waiting.pop(least) else {
                break None;
            };
            // A late instance can complete a study again while its first revision is in hand.
            if self.running.contains_key(&due.study.uid) {
                held.push(due);
                continue;
            }
            self.running
                .insert(due.study.uid.clone(), due.turn.priority);
            break Some(due);
        };
        for due in held {
            self.admit(due);
        }
        due
    }

    /// Nobody works on the study any more.
    pub fn ended(&mut self, study: &StudyInstanceUid) {
        self.running.remove(study);
    }

    /// Studies that are worked on.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Studies that wait or are worked on.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.running.len()
    }
}

/// The turns of studies that have become complete. Opens a file of each.
pub(super) async fn turns(pipeline: Arc<Pipeline>, stable: Vec<StableStudy>) -> Vec<Due> {
    let mut due = Vec::with_capacity(stable.len());
    for study in stable {
        let entries = pipeline.spool.study(&study.uid).current;
        let turn = turn(&pipeline, &entries).await;
        due.push(Due { study, turn });
    }
    due
}

/// Its priority is what the order says, else what the configuration says of the sender.
async fn turn(pipeline: &Pipeline, entries: &[Arc<Entry>]) -> Turn {
    let first = entries.first();
    let by_ae = first.and_then(|entry| {
        let calling_ae = entry.arrival.calling_ae.as_str();
        pipeline.rules.get().study.priority(calling_ae)
    });
    let paths: Vec<_> = entries
        .iter()
        .take(MAX_TRIES)
        .map(|entry| pipeline.spool.path(entry.id))
        .collect();
    let requested = spawn_blocking(move || {
        let mut files = paths
            .iter()
            .filter_map(|path| DicomFile::read(path, &ReadLimits::default()).ok());
        let file = files.next()?;
        let word = file.data_set().str(tags::REQUESTED_PROCEDURE_PRIORITY)?;
        Priority::requested(&word)
    });
    let requested = requested.await.ok().flatten();
    Turn {
        priority: requested.or(by_ae).unwrap_or(Priority::Routine),
        modality: first.map_or_else(String::new, |entry| entry.modality.clone()),
        study: first.map_or(0, |entry| entry.id.0),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::study::completeness::Method;

    fn due(number: u64, priority: Priority) -> Due {
        let now = Timestamp::now();
        Due {
            study: StableStudy {
                uid: StudyInstanceUid::parse(&format!("1.2.{number}")).unwrap(),
                method: Method::QuietPeriod,
                first: now,
                last: now,
                complete_at: now,
                counted: None,
            },
            turn: Turn {
                priority,
                modality: "CT".to_owned(),
                study: number,
            },
        }
    }

    fn begun(line: &mut Line, concurrency: usize) -> Vec<u64> {
        std::iter::from_fn(|| line.next(concurrency))
            .map(|due| due.turn.study)
            .collect()
    }

    #[test]
    fn routine_studies_leave_room_for_urgent_ones() {
        let mut line = Line::default();
        for number in 1..=9 {
            line.admit(due(number, Priority::Routine));
        }
        assert_eq!(begun(&mut line, 4), [1, 2, 3]);
        line.admit(due(10, Priority::Stat));
        line.admit(due(11, Priority::Urgent));
        assert_eq!(begun(&mut line, 4), [10]);
        line.ended(&StudyInstanceUid::parse("1.2.10").unwrap());
        assert_eq!(begun(&mut line, 4), [11]);
        assert_eq!(line.len(), 10);
    }

    #[test]
    fn with_room_for_one_everybody_gets_it() {
        let mut line = Line::default();
        line.admit(due(1, Priority::Routine));
        line.admit(due(2, Priority::Stat));
        assert_eq!(begun(&mut line, 1), [2]);
        line.ended(&StudyInstanceUid::parse("1.2.2").unwrap());
        assert_eq!(begun(&mut line, 1), [1]);
    }

    #[test]
    fn a_study_in_hand_waits_for_itself_and_nobody_waits_for_it() {
        let mut line = Line::default();
        line.admit(due(1, Priority::Routine));
        assert_eq!(begun(&mut line, 8), [1]);
        line.admit(due(1, Priority::Routine));
        line.admit(due(2, Priority::Routine));
        assert_eq!(begun(&mut line, 8), [2]);
        line.ended(&StudyInstanceUid::parse("1.2.1").unwrap());
        assert_eq!(begun(&mut line, 8), [1]);
    }
}
