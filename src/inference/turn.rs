//! Whose turn it is: work in the order in which it is due. Pure: nothing here waits.

use std::collections::{BTreeMap, VecDeque};

use crate::priority::Priority;

/// What a piece of work is ordered by: the urgent first, then modalities in turn, then studies in
/// turn, so that a CT of 3,000 slices does not hold up one chest film.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Urgency of the study.
    pub priority: Priority,
    /// Modality (0008,0060).
    pub modality: String,
    /// Tells studies of one modality apart.
    pub study: u64,
}

/// Work that waits for its turn.
#[derive(Debug)]
pub struct Turns<T> {
    levels: BTreeMap<Priority, VecDeque<Modality<T>>>,
    count: usize,
}

#[derive(Debug)]
struct Modality<T> {
    name: String,
    studies: VecDeque<(u64, VecDeque<T>)>,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self {
            levels: BTreeMap::new(),
            count: 0,
        }
    }
}

impl<T> Turns<T> {
    /// Puts work behind what its study already has.
    pub fn push(&mut self, turn: &Turn, work: T) {
        let level = self.levels.entry(turn.priority).or_default();
        let modality = of(
            level,
            |m| m.name == turn.modality,
            || Modality {
                name: turn.modality.clone(),
                studies: VecDeque::new(),
            },
        );
        let Some(modality) = modality else { return };
        let new = || (turn.study, VecDeque::new());
        if let Some((_, waiting)) = of(&mut modality.studies, |s| s.0 == turn.study, new) {
            waiting.push_back(work);
            self.count += 1;
        }
    }

    /// Takes the work that is due next, of what is at least as urgent as `least`. Its study and its
    /// modality go to the end of their rows.
    pub fn pop(&mut self, least: Priority) -> Option<T> {
        for (_, modalities) in self.levels.range_mut(..=least) {
            let Some(mut modality) = modalities.pop_front() else {
                continue;
            };
            let work = modality.studies.pop_front().and_then(|(id, mut waiting)| {
                let work = waiting.pop_front();
                if !waiting.is_empty() {
                    modality.studies.push_back((id, waiting));
                }
                work
            });
            if !modality.studies.is_empty() {
                modalities.push_back(modality);
            }
            if work.is_some() {
                self.count -= 1;
                return work;
            }
        }
        None
    }

    /// How much waits.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// The item that is meant, put at the end when there is none.
fn of<T>(
    row: &mut VecDeque<T>,
    meant: impl Fn(&T) -> bool,
    new: impl FnOnce() -> T,
) -> Option<&mut T> {
    let at = row.iter().position(meant).unwrap_or_else(|| {
        row.push_back(new());
        row.len() - 1
    });
    row.get_mut(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(priority: Priority, modality: &str, study: u64) -> Turn {
        Turn {
            priority,
            modality: modality.to_owned(),
            study,
        }
    }

    fn drain(turns: &mut Turns<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| turns.pop(Priority::Routine)).collect()
    }

    #[test]
    fn the_urgent_go_first_whenever_they_come() {
        let mut turns = Turns::default();
        turns.push(&turn(Priority::Routine, "CT", 1), "routine");
        turns.push(&turn(Priority::Urgent, "CT", 2), "urgent");
        turns.push(&turn(Priority::Stat, "CT", 3), "stat");
        assert_eq!(drain(&mut turns), ["stat", "urgent", "routine"]);
    }

    #[test]
    fn modalities_take_turns_then_studies_then_order_of_arrival() {
        let mut turns = Turns::default();
        for work in ["ct1 a", "ct1 b", "ct1 c"] {
            turns.push(&turn(Priority::Routine, "CT", 1), work);
        }
        turns.push(&turn(Priority::Routine, "CT", 2), "ct2 a");
        turns.push(&turn(Priority::Routine, "DX", 3), "dx a");
        turns.push(&turn(Priority::Routine, "DX", 3), "dx b");
        assert_eq!(turns.len(), 6);
        assert_eq!(
            drain(&mut turns),
            ["ct1 a", "dx a", "ct2 a", "dx b", "ct1 b", "ct1 c"]
        );
        assert!(turns.is_empty());
    }

    #[test]
    fn a_chest_film_waits_for_one_slice_of_three_thousand() {
        let mut turns = Turns::default();
        for _ in 0..3000 {
            turns.push(&turn(Priority::Routine, "CT", 1), "slice");
        }
        assert_eq!(turns.pop(Priority::Routine), Some("slice"));
        turns.push(&turn(Priority::Routine, "DX", 2), "film");
        let first: Vec<_> = (0..2)
            .filter_map(|_| turns.pop(Priority::Routine))
            .collect();
        assert!(first.contains(&"film"), "{first:?}");
    }

    #[test]
    fn what_is_less_urgent_than_asked_for_stays() {
        let mut turns = Turns::default();
        turns.push(&turn(Priority::Routine, "CT", 1), "routine");
        turns.push(&turn(Priority::Urgent, "CT", 2), "urgent");
        assert_eq!(turns.pop(Priority::Urgent), Some("urgent"));
        assert_eq!(turns.pop(Priority::Urgent), None);
        assert_eq!(turns.pop(Priority::Routine), Some("routine"));
    }
}
