//! The spool beside a model of it: whatever is done in whatever order, and whenever the process ends, the
//! same instances are there, current or not, and on disk bit for bit.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::*;
use super::{arrival, data_set, open_with, store};

/// What may happen. Numbers choose among what there is.
#[derive(Debug, Clone)]
enum Step {
    /// An instance of this UID with these bytes is committed.
    Store { uid: u8, content: u8 },
    /// An instance is begun and given up.
    Abandon { uid: u8 },
    /// An entry is spent.
    Release { which: usize },
    /// An entry is set aside.
    SetAside { which: usize },
    /// An entry in quarantine comes back.
    Retry { which: usize },
    /// An entry in quarantine is deleted.
    Discard { which: usize },
    /// The watermark is moved.
    Checkpoint,
    /// The process ends and starts again.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let which = 0..8_usize;
    prop_oneof![
        6 => (0..4_u8, 0..3_u8).prop_map(|(uid, content)| Step::Store { uid, content }),
        1 => (0..4_u8).prop_map(|uid| Step::Abandon { uid }),
        2 => which.clone().prop_map(|which| Step::Release { which }),
        2 => which.clone().prop_map(|which| Step::SetAside { which }),
        2 => which.clone().prop_map(|which| Step::Retry { which }),
        1 => which.prop_map(|which| Step::Discard { which }),
        1 => Just(Step::Checkpoint),
        2 => Just(Step::Restart),
    ]
}

/// What should be there: UID and content of each entry, by its id.
#[derive(Debug, Default)]
struct Model {
    held: BTreeMap<EntryId, (u8, u8)>,
    aside: BTreeMap<EntryId, (u8, u8)>,
}

impl Model {
    fn nth(map: &BTreeMap<EntryId, (u8, u8)>, which: usize) -> Option<EntryId> {
        let at = which.checked_rem(map.len())?;
        map.keys().nth(at).copied()
    }

    /// Current is the first of each UID, or the last, by the policy.
    fn current(&self, policy: DuplicatePolicy) -> BTreeMap<u8, EntryId> {
        let mut current = BTreeMap::new();
        for (id, (uid, _)) in &self.held {
            match policy {
                DuplicatePolicy::KeepLast => {
                    current.insert(*uid, *id);
                }
                DuplicatePolicy::KeepFirst | DuplicatePolicy::Quarantine => {
                    current.entry(*uid).or_insert(*id);
                }
            }
        }
        current
    }
}

fn uid(number: u8) -> String {
    format!("2.25.{}", 1 + u16::from(number))
}

fn perform(
    step: &Step,
    spool: Spool,
    dir: &Path,
    policy: DuplicatePolicy,
    model: &mut Model,
) -> Spool {
    match step {
        Step::Store {
            uid: number,
            content,
        } => {
            let known = model.held.values().any(|held| held == &(*number, *content));
            let rival = model.held.values().any(|held| held.0 == *number);
            let before = spool.index().next_id;
            let stored = store(&spool, &uid(*number), &[*content, 0]).unwrap();
            assert_eq!(stored.duplicate, known);
            let id = EntryId(spool.index().next_id - 1);
            assert!(id.0 >= before, "ids never repeat");
            if known {
                return spool;
            }
            let place = match policy {
                DuplicatePolicy::Quarantine if rival => &mut model.aside,
                _ => &mut model.held,
            };
            place.insert(id, (*number, *content));
        }
        Step::Abandon { uid: number } => {
            let mut incoming = spool.begin(arrival(&uid(*number))).unwrap();
            incoming.append(b"half of it").unwrap();
        }
        Step::Release { which } => {
            if let Some(id) = Model::nth(&model.held, *which) {
                spool.release(&[id]).unwrap();
                model.held.remove(&id);
            }
        }
        Step::SetAside { which } => {
            if let Some(id) = Model::nth(&model.held, *which) {
                spool.quarantine(id, "some-code: a reason").unwrap();
                model.aside.extend(model.held.remove_entry(&id));
            }
        }
        Step::Retry { which } => {
            let Some(id) = Model::nth(&model.aside, *which) else {
                return spool;
            };
            let returning = model.aside[&id];
            let refused = model.held.values().any(|held| {
                *held == returning || held.0 == returning.0 && policy == DuplicatePolicy::Quarantine
            });
            match spool.begin_retry(&[id]) {
                Ok(entries) => {
                    assert!(!refused);
                    spool.end_retry(entries);
                    model.held.extend(model.aside.remove_entry(&id));
                }
                Err(err) => assert!(refused, "{err}"),
            }
        }
        Step::Discard { which } => {
            if let Some(id) = Model::nth(&model.aside, *which) {
                assert!(spool.discard(id).unwrap());
                model.aside.remove(&id);
            }
        }
        Step::Checkpoint => spool.checkpoint().unwrap(),
        Step::Restart => {
            drop(spool);
            let (spool, recovered) = open_with(dir, policy);
            assert!(recovered.corrupt.is_empty(), "{:?}", recovered.corrupt);
            return spool;
        }
    }
    spool
}

fn compare(spool: &Spool, policy: DuplicatePolicy, model: &Model) {
    let held: Vec<EntryId> = spool.entries().iter().map(|entry| entry.id).collect();
    assert_eq!(held, model.held.keys().copied().collect::<Vec<_>>());
    let study = StudyInstanceUid::parse("2.25.200").unwrap();
    let mut current: Vec<EntryId> = spool.study(&study).current.iter().map(|e| e.id).collect();
    let mut expected: Vec<EntryId> = model.current(policy).into_values().collect();
    current.sort();
    expected.sort();
    assert_eq!(current, expected);
    for (id, (number, content)) in &model.held {
        let file = fs::read(spool.path(*id)).unwrap();
        assert!(file.ends_with(&data_set(&uid(*number), "2.25.200", &[*content, 0])));
    }
    let aside = spool.quarantined().unwrap();
    let aside: Vec<EntryId> = aside
        .iter()
        .map(|kept| kept.entry.as_ref().unwrap().id)
        .collect();
    assert_eq!(aside, model.aside.keys().copied().collect::<Vec<_>>());
    assert_eq!(spool.kept().instances, model.aside.len() as u64);
    let files = fs::read_dir(&spool.inner.data_dir).unwrap().count();
    assert_eq!(files, model.held.len(), "nothing else lies there");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_spool_is_what_its_model_is(
        steps in prop::collection::vec(step(), 1..40),
        policy in prop_oneof![
            Just(DuplicatePolicy::KeepFirst),
            Just(DuplicatePolicy::KeepLast),
            Just(DuplicatePolicy::Quarantine),
        ],
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (mut spool, _) = open_with(dir.path(), policy);
        let mut model = Model::default();
        for step in &steps {
            spool = perform(step, spool, dir.path(), policy, &mut model);
            compare(&spool, policy, &model);
        }
    }
}
