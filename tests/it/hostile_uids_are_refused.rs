//! No path is built from a peer's string: UIDs that are none are refused, and nothing is written
//! outside of the spool.

use crate::support::files::below;
use crate::support::{Gateway, Options, RawPeer, Study};

const HOSTILE: [&str; 11] = [
    "../../../../tmp/passwd",
    "/etc/passwd",
    "..",
    ".",
    "",
    "1.2.3/../../x",
    "1.2.3\\..\\x",
    "1.2.3;rm -rf .",
    "1.2.%2e%2e%2f",
    "1..2",
    "1.2.840.10008.1234567890.1234567890.1234567890.1234567890.12345678",
];

#[test]
fn hostile_sop_instance_uids() {
    let gateway = Gateway::start(&Options::new());
    let before = below(gateway.dir());
    let study = Study::ct();
    let mut image = study.image(1);
    let mut peer = RawPeer::associate(gateway.dicom_port, "CT1", &[&image]);
    for hostile in HOSTILE {
        image.sop_instance = hostile.to_owned();
        assert_eq!(peer.store(&image), 0x0117, "{hostile:?}");
    }
    assert_eq!(peer.store(&study.image(2)), 0, "the association goes on");
    peer.release();
    gateway.wait_until_done(&[&study.uid]);
    only_the_spool_has_grown(&gateway, &before);
}

#[test]
fn hostile_study_instance_uids_inside_the_data_set() {
    let gateway = Gateway::start(&Options::new());
    let before = below(gateway.dir());
    let mut peer = RawPeer::associate(gateway.dicom_port, "CT1", &[&Study::ct().image(1)]);
    for hostile in HOSTILE.into_iter().filter(|uid| !uid.is_empty()) {
        let mut study = Study::ct();
        study.uid = hostile.to_owned();
        assert_eq!(peer.store(&study.image(1)), 0xC000, "{hostile:?}");
    }
    peer.release();
    assert_eq!(
        gateway.get("/api/v1/studies")["studies"]
            .as_array()
            .unwrap()
            .len(),
        0
    );
    only_the_spool_has_grown(&gateway, &before);
}

/// Spool entries are named by hexadecimal digits; database files come and go, and housekeeping lays up the reserve when it
/// gets round to it.
fn only_the_spool_has_grown(gateway: &Gateway, before: &[std::path::PathBuf]) {
    for file in below(gateway.dir())
        .iter()
        .filter(|file| !before.contains(file))
    {
        let name = file.file_name().unwrap().to_str().unwrap();
        let stem = name.strip_suffix(".dcm").unwrap_or_default();
        let is_entry = stem.len() == 16
            && stem.bytes().all(|byte| byte.is_ascii_hexdigit())
            && file.parent() == Some(&gateway.data_dir());
        let is_own =
            ["findings", "watermark", "reserve"].contains(&name) || name.starts_with("state.db");
        assert!(is_entry || is_own, "{}", file.display());
    }
    assert!(!std::path::Path::new("/tmp/passwd").exists());
}
