//! A film that is requested as STAT is published while a large CT study is still being worked on, and
//! so is one of a sender whose studies are urgent by configuration.

use crate::support::files::copy_dir;
use crate::support::options::repository;
use crate::support::{Gateway, Options, RawPeer, SOON, Study, wait_until};

/// At 60 ms each: far longer than a film takes.
const SLICES: u16 = 120;

#[test]
fn a_stat_film_is_published_before_the_ct_that_came_before_it() {
    let models = tempfile::tempdir().unwrap();
    for model in ["tests/fixtures/misbehaving/slow", "models/cxr-phantom"] {
        let from = repository().join(model);
        copy_dir(&from, &models.path().join(from.file_name().unwrap()));
    }
    // Films wait for the same slow model too.
    let slow = models.path().join("slow/model.toml");
    let alone = std::fs::read_to_string(&slow).unwrap();
    let both = alone.replace("modality = [\"CT\"]", "modality = [\"CT\", \"DX\"]");
    assert_ne!(alone, both);
    std::fs::write(&slow, both).unwrap();
    let options = Options::new()
        .models(models.path().to_owned())
        .set("inference.sessions", 1)
        .set("study.concurrency", 2)
        .set("study.priority_by_ae.EMERGENCY", "urgent");
    let gateway = Gateway::start(&options);

    let (first, second) = (Study::ct(), Study::ct());
    for ct in [&first, &second] {
        let slices: Vec<_> = (1..=SLICES).map(|number| ct.image(number)).collect();
        let slices: Vec<_> = slices.iter().collect();
        let sent = RawPeer::send(gateway.dicom_port, "CT1", &slices);
        assert!(sent.iter().all(|status| *status == 0));
    }
    wait_until("first slice in front of the model", SOON, || {
        gateway.metric("inference_batch_size_count", &[("model", "slow")]) > 0.0
    });
    let (film, by_ae) = (Study::chest().requested("STAT"), Study::chest());
    for (study, calling) in [(&film, "XR1"), (&by_ae, "EMERGENCY")] {
        let sent = RawPeer::send(gateway.dicom_port, calling, &[&study.image(1)]);
        assert_eq!(sent, [0]);
    }
    gateway.wait_until_done(&[&film.uid, &by_ae.uid, &first.uid, &second.uid]);

    let order: Vec<String> = gateway
        .messages()
        .iter()
        .map(|message| message["data"]["study"]["study_instance_uid"].to_string())
        .collect();
    let place = |study: &Study| {
        let uid = format!("\"{}\"", study.uid);
        order.iter().rposition(|other| *other == uid).unwrap()
    };
    let films = place(&film).max(place(&by_ae));
    assert!(films < place(&first).min(place(&second)), "{order:?}");
}
