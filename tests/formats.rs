//! What earlier gateways wrote is read by this one: entries of the spool by the version of their
//! envelope, `state.db` by its format. The files are in `tests/fixtures/formats`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use pacs_gateway::clock::Timestamp;
use pacs_gateway::dicom::ae_title::AeTitle;
use pacs_gateway::dicom::uid::{SopClassUid, SopInstanceUid, StudyInstanceUid, TransferSyntaxUid};
use pacs_gateway::ledger::Ledger;
use pacs_gateway::outbox::{Exchange, Outbox};
use pacs_gateway::spool::{Arrival, Config, EntryId, Recovered, Spool};
use pacs_gateway::state;
use rusqlite::Connection;

/// The entry of the fixture: arrived in November 2026.
const ENTRY: &str = "01a1fd8f69b10001.dcm";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/formats")
        .join(name)
}

fn open(dir: &Path) -> (Spool, Recovered) {
    let config = Config {
        dir: dir.to_owned(),
        ..Config::default()
    };
    Spool::open(config).unwrap()
}

/// A spool with the fixture's entry, changed by `change`.
fn spool_with(change: impl FnOnce(&mut Vec<u8>)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("data")).unwrap();
    let mut bytes = fs::read(fixture("entry-1.dcm")).unwrap();
    change(&mut bytes);
    fs::write(dir.path().join("data").join(ENTRY), bytes).unwrap();
    dir
}

fn envelope_at(bytes: &[u8]) -> usize {
    bytes.windows(4).position(|four| four == b"PGW1").unwrap()
}

#[test]
fn an_entry_of_the_first_version_is_read() {
    let dir = spool_with(|_| {});
    let (spool, recovered) = open(dir.path());
    assert_eq!((recovered.entries.len(), recovered.corrupt.len()), (1, 0));
    let entry = &spool.entries()[0];
    assert_eq!(entry.id, EntryId::from_file_name(ENTRY).unwrap());
    assert_eq!(entry.study.as_str(), "2.25.200");
    assert_eq!(entry.series.as_ref().unwrap().as_str(), "2.25.300");
    assert_eq!(entry.arrival.sop_instance.as_str(), "2.25.1");
    assert_eq!(
        entry.arrival.sop_class.as_str(),
        "1.2.840.10008.5.1.4.1.1.2"
    );
    assert_eq!(
        entry.arrival.transfer_syntax.as_str(),
        "1.2.840.10008.1.2.1"
    );
    assert_eq!(entry.arrival.calling_ae.as_str(), "MODALITY");
    assert_eq!(entry.arrival.called_ae.as_str(), "PACSGATEWAY");
    assert_eq!(entry.arrival.peer.to_string(), "192.0.2.7");
    assert_eq!(
        (entry.modality.as_str(), entry.body_part.as_str()),
        ("CT", "CHEST")
    );
    let file = fs::read(spool.path(entry.id)).unwrap();
    assert!(file.ends_with(&data_set()) && entry.data_set_bytes == data_set().len() as u64);
}

#[test]
fn an_entry_of_a_later_version_is_set_aside_and_kept() {
    for version in ["PGW2", "PGW9", "PGWA"] {
        let dir = spool_with(|bytes| {
            let at = envelope_at(bytes);
            bytes[at..at + 4].copy_from_slice(version.as_bytes());
        });
        let before = fs::read(dir.path().join("data").join(ENTRY)).unwrap();
        let (_spool, recovered) = open(dir.path());
        assert_eq!(recovered.entries.len(), 0);
        let aside = dir.path().join("quarantine").join(ENTRY);
        let reason = fs::read_to_string(aside.with_extension("reason")).unwrap();
        assert!(reason.contains("written by a newer gateway"), "{reason}");
        assert!(reason.contains(version), "{reason}");
        assert_eq!(fs::read(aside).unwrap(), before);
    }
}

#[test]
fn a_garbled_watermark_costs_a_check_and_no_entry() {
    let marks: [&[u8]; 6] = [
        b"",
        b"\0\0\0\0",
        b"not a number",
        b"\xff\xfe\xfd",
        b"ffffffffffffffff\n",
        b"-1\n",
    ];
    for mark in marks {
        let dir = spool_with(|_| {});
        fs::write(dir.path().join("watermark"), mark).unwrap();
        let (spool, recovered) = open(dir.path());
        assert_eq!(recovered.entries.len(), 1, "{mark:?}");
        spool.checkpoint().unwrap();
        drop(spool);
        // A torn one is found, since the mark says nothing.
        let dir = spool_with(|bytes| *bytes.last_mut().unwrap() ^= 1);
        fs::write(dir.path().join("watermark"), mark).unwrap();
        let (_spool, recovered) = open(dir.path());
        assert_eq!(
            (recovered.entries.len(), recovered.corrupt.len()),
            (0, 1),
            "{mark:?}"
        );
    }
}

#[tokio::test]
async fn a_database_of_any_format_keeps_what_it_holds() {
    for format in 1..=3 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(state::FILE);
        let sql = fs::read_to_string(fixture(&format!("state-{format}.sql"))).unwrap();
        Connection::open(&path)
            .unwrap()
            .execute_batch(&sql)
            .unwrap();
        // Twice: the second start finds the newest format.
        for _ in 0..2 {
            let database = state::open(dir.path()).unwrap();
            let (ledger, outbox) = (Ledger::new(database.clone()), Outbox::new(database));
            let due = outbox.due(Timestamp(10), 10).await.unwrap();
            let owed: Vec<_> = due
                .iter()
                .map(|due| (due.message.id.as_str(), due.message.exchange))
                .collect();
            let shadow = [("b", Exchange::Findings), ("c", Exchange::Shadow)];
            let expected = if format == 1 {
                &shadow[..1]
            } else {
                &shadow[..]
            };
            assert_eq!(owed, expected, "format {format}");
            assert_eq!(
                (due[0].attempts, due[0].message.body.as_slice()),
                (1, &b"{}"[..])
            );
            let study = StudyInstanceUid::parse("2.25.200").unwrap();
            let prior = ledger.prior(&study).await.unwrap();
            assert_eq!((prior.revision, prior.digest.as_deref()), (1, Some("d1")));
            assert!(prior.released && prior.messages.len() == 2, "{prior:?}");
            assert_eq!(
                ledger.held("2.25.200".to_owned()).await.unwrap(),
                [EntryId(2)]
            );
            let lost = ledger.lost(HashSet::new()).await.unwrap();
            assert_eq!(lost.len(), 1, "{lost:?}");
            assert_eq!((lost[0].entry, lost[0].digest), (EntryId(3), [3; 32]));
            assert!(ledger.study("2.25.200".to_owned()).await.unwrap().is_some());
        }
        let other = StudyInstanceUid::parse("2.25.201").unwrap();
        let ledger = Ledger::new(state::open(dir.path()).unwrap());
        assert_eq!(
            ledger.begin_attempt(&other, "d2").await.unwrap(),
            3,
            "format {format}"
        );
    }
}

#[test]
fn a_database_of_a_later_format_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(state::FILE);
    let sql = fs::read_to_string(fixture("state-3.sql")).unwrap();
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(&sql).unwrap();
    connection
        .execute_batch("PRAGMA user_version = 1000")
        .unwrap();
    drop(connection);
    let refusal = state::open(dir.path()).err().unwrap().to_string();
    assert!(
        refusal.contains("its format is 1000, this gateway knows up to"),
        "{refusal}"
    );
    let connection = Connection::open(&path).unwrap();
    let kept: i64 = connection
        .query_row("SELECT count(*) FROM message", [], |row| row.get(0))
        .unwrap();
    assert_eq!(kept, 3);
}

/// The data set of the fixture's entry, explicit VR little-endian.
fn data_set() -> Vec<u8> {
    let elements: [(u16, u16, &[u8; 2], &str); 6] = [
        (0x0008, 0x0016, b"UI", "1.2.840.10008.5.1.4.1.1.2\0"),
        (0x0008, 0x0018, b"UI", "2.25.1"),
        (0x0008, 0x0060, b"CS", "CT"),
        (0x0018, 0x0015, b"CS", "CHEST "),
        (0x0020, 0x000D, b"UI", "2.25.200"),
        (0x0020, 0x000E, b"UI", "2.25.300"),
    ];
    let mut out = Vec::new();
    for (group, element, vr, value) in elements {
        out.extend_from_slice(&group.to_le_bytes());
        out.extend_from_slice(&element.to_le_bytes());
        out.extend_from_slice(vr);
        out.extend_from_slice(&u16::try_from(value.len()).unwrap().to_le_bytes());
        out.extend_from_slice(value.as_bytes());
    }
    out
}

/// How `entry-1.dcm` was made, by the first gateway that wrote this version; a later version gets a
/// file of its own.
#[test]
#[ignore = "writes the fixture of the present version"]
fn write_the_entry() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    let arrival = Arrival {
        calling_ae: AeTitle::parse("MODALITY").unwrap(),
        called_ae: AeTitle::parse("PACSGATEWAY").unwrap(),
        peer: "192.0.2.7".parse().unwrap(),
        sop_class: SopClassUid::parse("1.2.840.10008.5.1.4.1.1.2").unwrap(),
        sop_instance: SopInstanceUid::parse("2.25.1").unwrap(),
        transfer_syntax: TransferSyntaxUid::parse("1.2.840.10008.1.2.1").unwrap(),
    };
    let mut incoming = spool.begin(arrival).unwrap();
    incoming.append(&data_set()).unwrap();
    incoming.commit().unwrap();
    let written = spool.path(spool.entries()[0].id);
    fs::copy(written, fixture("entry-1.dcm")).unwrap();
}
