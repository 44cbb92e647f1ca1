//! The spool on a real file system: what is acknowledged stays, damage is set aside.

#![allow(clippy::unwrap_used)]

mod model;

use super::entry::tests::arrival;
use super::*;

/// A minimal explicit VR little-endian data set.
pub(super) fn data_set(sop_instance: &str, study: &str, pixels: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut put = |group: u16, element: u16, vr: &[u8; 2], value: &str| {
        let mut value = value.as_bytes().to_vec();
        if value.len() % 2 == 1 {
            value.push(if vr == b"UI" { 0 } else { b' ' });
        }
        out.extend_from_slice(&group.to_le_bytes());
        out.extend_from_slice(&element.to_le_bytes());
        out.extend_from_slice(vr);
        out.extend_from_slice(&u16::try_from(value.len()).unwrap().to_le_bytes());
        out.extend_from_slice(&value);
    };
    put(0x0008, 0x0016, b"UI", "1.2.840.10008.5.1.4.1.1.2");
    put(0x0008, 0x0018, b"UI", sop_instance);
    put(0x0008, 0x0060, b"CS", "CT");
    put(0x0018, 0x0015, b"CS", "CHEST");
    put(0x0020, 0x000D, b"UI", study);
    put(0x0020, 0x000E, b"UI", "2.25.300");
    out.extend_from_slice(&[0xE0, 0x7F, 0x10, 0x00, b'O', b'W', 0, 0]);
    out.extend_from_slice(&u32::try_from(pixels.len()).unwrap().to_le_bytes());
    out.extend_from_slice(pixels);
    out
}

fn config(dir: &Path) -> Config {
    Config {
        dir: dir.to_owned(),
        ..Config::default()
    }
}

fn open(dir: &Path) -> (Spool, Recovered) {
    Spool::open(config(dir)).unwrap()
}

pub(super) fn open_with(dir: &Path, duplicates: DuplicatePolicy) -> (Spool, Recovered) {
    let config = Config {
        duplicates,
        ..config(dir)
    };
    Spool::open(config).unwrap()
}

pub(super) fn store(
    spool: &Spool,
    sop_instance: &str,
    pixels: &[u8],
) -> Result<Stored, SpoolError> {
    let mut incoming = spool.begin(arrival(sop_instance))?;
    for piece in data_set(sop_instance, "2.25.200", pixels).chunks(7) {
        incoming.append(piece)?;
    }
    incoming.commit()
}

fn study() -> StudyInstanceUid {
    StudyInstanceUid::parse("2.25.200").unwrap()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir.join("data"))
        .unwrap()
        .map(|item| item.unwrap().path())
        .collect();
    found.sort();
    found
}

#[test]
fn a_committed_instance_is_found_by_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    store(&spool, "2.25.1", &[1, 2, 3, 4]).unwrap();
    drop(spool);
    let (spool, recovered) = open(dir.path());
    assert_eq!((recovered.entries.len(), recovered.incomplete), (1, 0));
    let entry = &spool.study(&study()).current[0];
    assert_eq!(entry.modality, "CT");
    assert_eq!(entry.arrival.calling_ae.as_str(), "MODALITY");
    let file = fs::read(spool.path(entry.id)).unwrap();
    assert!(file.ends_with(&data_set("2.25.1", "2.25.200", &[1, 2, 3, 4])));
}

#[test]
fn a_dropped_instance_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    let mut incoming = spool.begin(arrival("2.25.1")).unwrap();
    incoming.append(b"half of it").unwrap();
    drop(incoming);
    assert!(files(dir.path()).is_empty());
}

#[test]
fn an_unsealed_file_is_removed_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    let mut incoming = spool.begin(arrival("2.25.1")).unwrap();
    incoming.append(b"half of it").unwrap();
    // What a killed process leaves: the file, and no destructor has run.
    let left = files(dir.path())[0].clone();
    let content = fs::read(&left).unwrap();
    drop(incoming);
    drop(spool);
    fs::write(&left, content).unwrap();
    let (_spool, recovered) = open(dir.path());
    assert_eq!((recovered.entries.len(), recovered.incomplete), (0, 1));
    assert!(files(dir.path()).is_empty());
}

#[test]
fn a_seal_without_its_data_is_quarantined_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    store(&spool, "2.25.1", &[1; 64]).unwrap();
    store(&spool, "2.25.2", &[2; 64]).unwrap();
    drop(spool);
    let torn = files(dir.path())[0].clone();
    let mut content = fs::read(&torn).unwrap();
    let end = content.len();
    content[end - 10..].fill(0);
    fs::write(&torn, content).unwrap();
    let (spool, recovered) = open(dir.path());
    assert_eq!(recovered.entries.len(), 1);
    assert_eq!(recovered.corrupt.len(), 1);
    let quarantined = spool.quarantined().unwrap();
    assert!(quarantined[0].reason.contains("digest"), "{quarantined:?}");
}

#[test]
fn settled_entries_are_not_read_again_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    store(&spool, "2.25.1", &[1; 64]).unwrap();
    spool.checkpoint().unwrap();
    drop(spool);
    let file = files(dir.path())[0].clone();
    let mut content = fs::read(&file).unwrap();
    let end = content.len();
    content[end - 10..].fill(0);
    fs::write(&file, content).unwrap();
    // The damage is not noticed, which shows that the digest was not computed; decoding reads it.
    let (_spool, recovered) = open(dir.path());
    assert_eq!(recovered.entries.len(), 1);
}

#[test]
fn the_same_bytes_twice_are_kept_once() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    assert!(!store(&spool, "2.25.1", &[1; 64]).unwrap().duplicate);
    assert!(store(&spool, "2.25.1", &[1; 64]).unwrap().duplicate);
    assert_eq!(files(dir.path()).len(), 1);
}

#[test]
fn other_bytes_under_one_uid_follow_the_policy_also_after_a_restart() {
    for (policy, current, kept) in [
        (DuplicatePolicy::KeepFirst, 0, 2),
        (DuplicatePolicy::KeepLast, 1, 2),
        (DuplicatePolicy::Quarantine, 0, 1),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            duplicates: policy,
            ..config(dir.path())
        };
        let (spool, _) = Spool::open(config.clone()).unwrap();
        store(&spool, "2.25.1", &[1; 64]).unwrap();
        store(&spool, "2.25.1", &[2; 64]).unwrap();
        let digests = |spool: &Spool| -> Vec<[u8; 32]> {
            spool
                .study(&study())
                .current
                .iter()
                .map(|e| e.digest)
                .collect()
        };
        let before = digests(&spool);
        assert_eq!(before.len(), 1, "{policy:?}");
        let expected: [u8; 32] = {
            use sha2::Digest;
            let pixels = [current + 1; 64];
            sha2::Sha256::digest(data_set("2.25.1", "2.25.200", &pixels)).into()
        };
        assert_eq!(before[0], expected, "{policy:?}");
        drop(spool);
        let (spool, _) = Spool::open(config).unwrap();
        assert_eq!(digests(&spool), before, "{policy:?}");
        assert_eq!(files(dir.path()).len(), kept, "{policy:?}");
    }
}

#[test]
fn a_data_set_that_is_another_instance_is_a_mismatch() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    let mut incoming = spool.begin(arrival("2.25.1")).unwrap();
    incoming
        .append(&data_set("2.25.2", "2.25.200", &[]))
        .unwrap();
    assert!(matches!(incoming.commit(), Err(SpoolError::Mismatch(_))));
    let mut incoming = spool.begin(arrival("2.25.1")).unwrap();
    incoming.append(&data_set("2.25.1", "", &[])).unwrap();
    assert!(matches!(incoming.commit(), Err(SpoolError::Mismatch(_))));
    assert!(files(dir.path()).is_empty());
}

#[test]
fn a_data_set_that_ends_before_it_says_who_it_is_is_malformed() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    let whole = data_set("2.25.1", "2.25.200", &[1; 64]);
    let mut incoming = spool.begin(arrival("2.25.1")).unwrap();
    incoming.append(&whole[..90]).unwrap();
    assert!(matches!(incoming.commit(), Err(SpoolError::Malformed(_))));
    // What is cut off later is kept as it was sent; no model gets to see it as if it were whole.
    let mut incoming = spool.begin(arrival("2.25.1")).unwrap();
    incoming.append(&whole[..whole.len() - 8]).unwrap();
    incoming.commit().unwrap();
}

#[test]
fn a_full_spool_sheds_and_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.limits.max_bytes = crate::units::ByteSize(300);
    config.limits.resume_bytes = crate::units::ByteSize(300);
    let (spool, _) = Spool::open(config).unwrap();
    store(&spool, "2.25.1", &[1; 200]).unwrap();
    assert!(matches!(
        store(&spool, "2.25.2", &[1; 200]),
        Err(SpoolError::Shedding("spool-full"))
    ));
    let id = spool.entries()[0].id;
    spool.release(&[id]).unwrap();
    store(&spool, "2.25.2", &[1; 200]).unwrap();
}

#[test]
fn other_limits_count_at_once_and_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    store(&spool, "1.2.3", b"pixels").unwrap();
    let mut limits = config(dir.path()).limits;
    limits.max_bytes = crate::units::ByteSize(1);
    limits.resume_bytes = crate::units::ByteSize(0);
    spool.set_limits(limits);
    assert_eq!(spool.usage().limit_bytes, 1);
    assert_eq!(spool.shedding(), Some("spool-full"));
}

#[test]
fn ids_never_repeat_within_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    for n in 0..50 {
        store(&spool, &format!("2.25.1{n}"), &[1, 1]).unwrap();
        store(&spool, &format!("2.25.1{n}"), &[2, 2]).unwrap();
    }
    let last = spool.entries().last().unwrap().id;
    drop(spool);
    let (spool, _) = open(dir.path());
    store(&spool, "2.25.999", &[1, 2]).unwrap();
    assert!(spool.entries().last().unwrap().id > last);
}

/// Where the entry has names, in `data` and in quarantine, and whether its retry is marked.
fn names(dir: &Path, id: EntryId) -> (bool, bool, bool) {
    let set_aside = dir.join("quarantine").join(id.file_name());
    (
        dir.join("data").join(id.file_name()).exists(),
        set_aside.exists(),
        set_aside.with_extension("retry").exists(),
    )
}

fn set_aside_one(dir: &Path) -> (Spool, EntryId) {
    let (spool, _) = open(dir);
    store(&spool, "2.25.1", &[1, 2]).unwrap();
    let id = spool.take_arrivals()[0].id;
    spool.quarantine(id, "some-code: for a reason").unwrap();
    assert_eq!(names(dir, id), (false, true, false));
    assert_eq!(spool.kept().instances, 1);
    (spool, id)
}

#[test]
fn what_was_set_aside_can_come_back_as_an_arrival() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, id) = set_aside_one(dir.path());
    let listed = spool.quarantined().unwrap();
    assert_eq!(
        (listed[0].code.as_str(), listed[0].in_spool),
        ("some-code", false)
    );
    assert_eq!(listed[0].entry.as_ref().unwrap().study, study());
    let entries = spool.begin_retry(&[id]).unwrap();
    assert!(spool.take_arrivals().is_empty(), "not before the ledger");
    spool.end_retry(entries);
    assert_eq!(names(dir.path(), id), (true, false, false));
    assert_eq!(spool.take_arrivals()[0].id, id);
    assert_eq!(spool.kept(), Kept::default());
    assert!(spool.quarantined().unwrap().is_empty());
}

#[test]
fn a_retry_that_is_taken_back_leaves_everything_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, id) = set_aside_one(dir.path());
    let entries = spool.begin_retry(&[id]).unwrap();
    spool.undo_retry(&entries);
    assert_eq!(names(dir.path(), id), (false, true, false));
    drop(spool);
    let (spool, recovered) = open(dir.path());
    assert!(recovered.entries.is_empty());
    assert_eq!(spool.kept().instances, 1);
}

#[test]
fn a_crash_at_any_step_of_a_retry_loses_and_doubles_nothing() {
    // Each step leaves something on disk; the crash comes after it.
    type Step = fn(&Path, &Path);
    let mark: Step = |_, aside| fs::write(aside.with_extension("retry"), "").unwrap();
    let link: Step = |data, aside| fs::hard_link(aside, data).unwrap();
    let leave: Step = |_, aside| fs::remove_file(aside).unwrap();
    let forget: Step = |_, aside| fs::remove_file(aside.with_extension("reason")).unwrap();
    let steps = [mark, link, leave, forget];
    for done in 1..=steps.len() {
        let dir = tempfile::tempdir().unwrap();
        let (spool, id) = set_aside_one(dir.path());
        drop(spool);
        let data = dir.path().join("data").join(id.file_name());
        let aside = dir.path().join("quarantine").join(id.file_name());
        for step in &steps[..done] {
            step(&data, &aside);
        }
        let (spool, recovered) = open(dir.path());
        assert_eq!(recovered.entries.len(), 1, "after step {done}");
        assert!(recovered.corrupt.is_empty());
        spool.end_retry(spool.interrupted_retries().unwrap());
        assert_eq!(names(dir.path(), id), (true, false, false));
        assert!(!aside.with_extension("reason").exists());
        assert_eq!(spool.study(&study()).current.len(), 1);
        assert_eq!(spool.kept(), Kept::default());
    }
}

#[test]
fn damage_and_rivals_do_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, id) = set_aside_one(dir.path());
    // The sender sent it again.
    store(&spool, "2.25.1", &[1, 2]).unwrap();
    assert!(matches!(
        spool.begin_retry(&[id]),
        Err(RetryError::Rival(..))
    ));
    let again = spool.entries()[0].id;
    spool.release(&[again]).unwrap();
    let aside = dir.path().join("quarantine").join(id.file_name());
    let mut content = fs::read(&aside).unwrap();
    *content.last_mut().unwrap() ^= 1;
    fs::write(&aside, content).unwrap();
    assert!(matches!(
        spool.begin_retry(&[id]),
        Err(RetryError::Corrupt(..))
    ));
    assert_eq!(names(dir.path(), id), (false, true, false));
    assert!(matches!(
        spool.begin_retry(&[EntryId(7)]),
        Err(RetryError::Unknown)
    ));
    assert!(spool.discard(id).unwrap());
    assert!(!spool.discard(id).unwrap());
    assert_eq!(names(dir.path(), id), (false, false, false));
    assert_eq!(spool.kept(), Kept::default());
}

#[test]
fn one_that_was_kept_for_inquiry_is_set_aside_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    store(&spool, "2.25.1", &[1, 2]).unwrap();
    let id = spool.take_arrivals()[0].id;
    spool.keep_for_inquiry(id, "decoder-crash: look").unwrap();
    spool.keep_for_inquiry(id, "decoder-crash: again").unwrap();
    assert_eq!(names(dir.path(), id), (true, true, false));
    assert!(spool.quarantined_entry(id).unwrap().in_spool);
    assert_eq!(spool.kept().instances, 1);
    spool.quarantine(id, "study-failed-repeatedly: x").unwrap();
    assert_eq!(names(dir.path(), id), (false, true, false));
    assert_eq!(spool.kept().instances, 1);
    // Its id is not given again, whatever the clock says.
    drop(spool);
    let (spool, _) = open(dir.path());
    assert_eq!(spool.kept().instances, 1);
    assert!(spool.index().next_id > id.0);
}

#[test]
fn ids_stay_above_the_watermark_when_the_clock_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    // A mark of tomorrow, and nothing left of it.
    let tomorrow = u64::try_from(Timestamp::now().0 / 1000 + 86_400_000).unwrap() << 16;
    drop(spool);
    fs::write(dir.path().join("watermark"), format!("{tomorrow:016x}\n")).unwrap();
    let (spool, _) = open(dir.path());
    store(&spool, "2.25.1", &[1; 64]).unwrap();
    assert!(spool.entries()[0].id.0 >= tomorrow);
}

/// The first lines of the reasons in quarantine.
fn reasons(dir: &Path) -> Vec<String> {
    let found = fs::read_dir(dir.join("quarantine")).unwrap();
    let paths = found.map(|item| item.unwrap().path());
    let reasons = paths.filter(|path| path.extension().is_some_and(|ext| ext == "reason"));
    let text = reasons.map(|path| fs::read_to_string(path).unwrap());
    text.map(|text| text.lines().next().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn a_foreign_directory_is_set_aside_too() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("data/strange")).unwrap();
    let (_spool, recovered) = open(dir.path());
    assert_eq!(recovered.corrupt.len(), 1);
    assert!(files(dir.path()).is_empty());
    assert!(reasons(dir.path())[0].contains("not a file"));
}
