//! A gateway that is started while not a byte is free opens its port and asks senders to come back. With
//! the room that it kept for this it finishes what it has; without, it goes on by itself when there is
//! room. It is ready all the while, and can be stopped.

use std::path::PathBuf;

use crate::support::disk::SmallDisk;
use crate::support::{Answer, Gateway, Options, RawPeer, SOON, Study, wait_until};

/// What was accepted is finished, sent and deleted although nothing more fits.
#[test]
fn what_is_there_is_finished_in_the_room_that_was_kept() {
    let Some(disk) = SmallDisk::mount(16) else {
        return;
    };
    let mut gateway = Gateway::start(&options(&disk).set("study.quiet_period", "3s"));
    let study = Study::chest();
    wait_until("the room", SOON, || reserve(&disk).is_file());
    send(&gateway, &study);
    gateway.terminate();
    assert_eq!(gateway.wait(SOON).code(), Some(0));
    assert_eq!(gateway.messages().len(), 0);

    let ballast = disk.fill_up_to(0);
    gateway.restart();
    asks_to_come_back(&gateway);
    gateway.wait_until_done(&[&study.uid]);
    assert_eq!(gateway.messages().len(), 1);
    wait_until("room made by deleting", SOON, || {
        gateway.metric("spool_instances", &[]) == 0.0
    });
    disk.empty(&ballast);
    wait_until("room for the next time", SOON, || reserve(&disk).is_file());
}

#[test]
fn after_an_orderly_stop() {
    check(|gateway| {
        gateway.terminate();
        assert_eq!(gateway.wait(SOON).code(), Some(0));
    });
}

#[test]
fn after_a_crash() {
    check(Gateway::kill);
}

fn options(disk: &SmallDisk) -> Options {
    Options::new()
        .set("spool.dir", disk.path().join("spool"))
        .set("spool.limits.min_free_bytes", "2MiB")
        .set("spool.limits.min_free_inodes", 0)
}

fn send(gateway: &Gateway, study: &Study) {
    let statuses = RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]);
    assert_eq!(statuses, [0]);
}

fn reserve(disk: &SmallDisk) -> PathBuf {
    disk.path().join("spool/reserve")
}

/// Without the room that was kept.
fn check(end: impl Fn(&mut Gateway)) {
    let Some(disk) = SmallDisk::mount(16) else {
        return;
    };
    let mut gateway = Gateway::start(&options(&disk).set("study.quiet_period", "3s"));
    let (done, open, late) = (Study::chest(), Study::chest(), Study::chest());
    wait_until("the room", SOON, || reserve(&disk).is_file());
    send(&gateway, &done);
    gateway.wait_until_done(&[&done.uid]);
    send(&gateway, &open);
    end(&mut gateway);

    std::fs::remove_file(reserve(&disk)).unwrap();
    let ballast = disk.fill_up_to(0);
    for _ in 0..2 {
        gateway.restart();
        asks_to_come_back(&gateway);
        gateway.wait_until_logged("the database is opened when there is room");
        gateway.take_log();
        assert_eq!(gateway.ask("/api/v1/studies").unwrap().0, 503);
        gateway.terminate();
        assert_eq!(gateway.wait(SOON).code(), Some(0), "it can be stopped");
    }
    gateway.restart();
    asks_to_come_back(&gateway);
    assert_eq!(gateway.messages().len(), 1);
    assert_eq!(gateway.metric("spool_instances", &[]), 2.0);

    disk.empty(&ballast);
    gateway.wait_until_done(&[&done.uid, &open.uid]);
    wait_until("acceptance", SOON, || {
        gateway.get("/readyz")["spool"]["accepting"] == true
    });
    send(&gateway, &late);
    gateway.wait_until_done(&[&late.uid]);
    assert_eq!(gateway.messages().len(), 3, "each study once");
    gateway.wait_until_logged("there is room again");
}

fn asks_to_come_back(gateway: &Gateway) {
    let image = Study::chest().image(1);
    let (_, answer) = RawPeer::request(gateway.dicom_port, "CT2", &[&image]).unwrap();
    assert_eq!(answer, Answer::Rejected(2, 3, 1), "come back later");
    let ready = gateway.get("/readyz");
    assert_eq!(ready["ready"], true);
    assert_eq!(ready["spool"]["accepting"], false);
    assert_eq!(ready["spool"]["reason"], "disk-full");
    wait_until("the gauge", SOON, || {
        gateway.metric("spool_shedding", &[]) == 1.0
    });
}
