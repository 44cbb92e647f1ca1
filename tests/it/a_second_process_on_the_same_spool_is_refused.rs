//! A spool has one owner; the second one is told who the first is, and the first is not disturbed.

use crate::support::{Gateway, Options, RawPeer, Study};

#[test]
fn it_names_the_owner_and_harms_nothing() {
    let owner = Gateway::start(&Options::new());
    let shared = Options::new().set("spool.dir", owner.dir().join("spool"));
    let refusal = Gateway::refusal(&shared);
    assert_eq!(refusal.code, Some(64), "{}", refusal.stderr);
    let named = format!("in use by process {}", owner.pid());
    assert!(refusal.stderr.contains(&named), "{}", refusal.stderr);
    assert!(refusal.stderr.contains("spool.dir"), "{}", refusal.stderr);

    let study = Study::chest();
    assert_eq!(
        RawPeer::send(owner.dicom_port, "CT1", &[&study.image(1)]),
        [0]
    );
    owner.wait_until_done(&[&study.uid]);
}
