//! A spool that can take no more answers A700 (out of resources) in DICOM, keeps what it has, and
//! takes instances again when there is room.

use crate::support::disk::SmallDisk;
use crate::support::{Answer, Gateway, Instance, Options, RawPeer, SOON, Study, wait_until};

const OUT_OF_RESOURCES: u16 = 0xA700;

/// The file system itself says no (ENOSPC).
#[test]
fn a_full_file_system() {
    let Some(disk) = SmallDisk::mount(16) else {
        return;
    };
    let options = Options::new()
        .set("spool.dir", disk.path().join("spool"))
        .set("spool.limits.min_free_bytes", "0B")
        .set("spool.limits.min_free_inodes", 0);
    check(&options, &disk, false);
}

/// The floor of free space is reached before that.
#[test]
fn the_floor_of_free_space() {
    let Some(disk) = SmallDisk::mount(16) else {
        return;
    };
    let options = Options::new()
        .set("spool.dir", disk.path().join("spool"))
        .set("spool.limits.min_free_bytes", "3MiB")
        .set("spool.limits.min_free_inodes", 0);
    check(&options, &disk, true);
}

/// The spool's own limit, on any file system.
#[test]
fn the_limit_of_the_spool() {
    let options = Options::new()
        .set("spool.limits.max_bytes", "2MiB")
        .set("spool.limits.resume_bytes", "1MiB")
        .set("study.quiet_period", "2s");
    let gateway = Gateway::start(&options);
    let (first, second) = (large(), large());
    let mut peer = RawPeer::associate(gateway.dicom_port, "CT1", &[&first.1]);
    assert_eq!(peer.store(&first.1), 0);
    assert_eq!(peer.store(&second.1), OUT_OF_RESOURCES);
    peer.release();
    // Finished studies make room as soon as it is needed.
    gateway.wait_until_done(&[&first.0.uid]);
    takes_instances_again(&gateway);
    assert_eq!(RawPeer::send(gateway.dicom_port, "CT1", &[&second.1]), [0]);
    gateway.wait_until_done(&[&second.0.uid]);
    assert_eq!(gateway.messages().len(), 2);
}

fn check(options: &Options, disk: &SmallDisk, turns_newcomers_away: bool) {
    let gateway = Gateway::start(options);
    let (kept, refused) = (large(), large());
    let mut peer = RawPeer::associate(gateway.dicom_port, "CT1", &[&kept.1]);
    assert_eq!(peer.store(&kept.1), 0);
    // Every instance is 3 MB; 2 MB are left for the next.
    let ballast = disk.fill_up_to(2 << 20);
    assert_eq!(peer.store(&refused.1), OUT_OF_RESOURCES);
    if turns_newcomers_away {
        let (_, answer) = RawPeer::request(gateway.dicom_port, "CT2", &[&kept.1]).unwrap();
        assert_eq!(answer, Answer::Rejected(2, 3, 1), "come back later");
        assert_eq!(gateway.get("/readyz")["spool"]["reason"], "disk-full");
    }
    // Somebody is told while the disk is still full.
    let reason = match turns_newcomers_away {
        true => ("spool_shedding", vec![]),
        false => ("spool_write_errors_total", vec![("kind", "no-space")]),
    };
    wait_until("the full disk in the metrics", SOON, || {
        gateway.metric(reason.0, &reason.1) == 1.0 && gateway.metric("spool_free_bytes", &[]) < 3e6
    });
    disk.empty(&ballast);
    takes_instances_again(&gateway);
    assert_eq!(peer.store(&refused.1), 0, "the association has lived on");
    peer.release();
    gateway.wait_until_done(&[&kept.0.uid, &refused.0.uid]);
    assert_eq!(gateway.messages().len(), 2);
}

fn takes_instances_again(gateway: &Gateway) {
    wait_until("acceptance", SOON, || {
        gateway.get("/readyz")["spool"]["accepting"] == true
    });
}

fn large() -> (Study, Instance) {
    let mut study = Study::ct();
    study.side = 1250;
    let image = study.image(1);
    (study, image)
}
