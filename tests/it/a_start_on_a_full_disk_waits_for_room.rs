//! A gateway that is started while not a byte is free opens its port, asks senders to come back, and goes
//! on by itself when there is room. It is ready all the while, and can be stopped.

use crate::support::disk::SmallDisk;
use crate::support::{Answer, Gateway, Options, RawPeer, SOON, Study, wait_until};

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

fn check(end: impl Fn(&mut Gateway)) {
    let Some(disk) = SmallDisk::mount(16) else {
        return;
    };
    let options = Options::new()
        .set("spool.dir", disk.path().join("spool"))
        .set("spool.limits.min_free_bytes", "2MiB")
        .set("spool.limits.min_free_inodes", 0)
        .set("study.quiet_period", "3s");
    let mut gateway = Gateway::start(&options);
    let (done, open, late) = (Study::chest(), Study::chest(), Study::chest());
    let send = |gateway: &Gateway, study: &Study| {
        let statuses = RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]);
        assert_eq!(statuses, [0]);
    };
    send(&gateway, &done);
    gateway.wait_until_done(&[&done.uid]);
    send(&gateway, &open);
    end(&mut gateway);

    let ballast = disk.fill_up_to(0);
    for _ in 0..2 {
        gateway.restart();
        asks_to_come_back(&gateway);
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
    assert!(gateway.log().contains("there is room again"));
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
    assert!(
        gateway
            .log()
            .contains("the database is opened when there is room")
    );
}
