//! Patient data stays where it must: not in logs, metrics, routing keys or file names, and in messages
//! only what policy allows.

use crate::support::files::below;
use crate::support::topology::Bus;
use crate::support::{Gateway, Options, RawPeer, SOON, Study, rabbit, wait_until};

const RLE: &str = "1.2.840.10008.1.2.5";

#[test]
fn names_ids_and_uids_do_not_leak() {
    let Some(route) = rabbit::shared() else {
        return;
    };
    let bus = Bus::new(&route);
    let options = Options::amqp(&route)
        .all_models()
        .set("message.accession_number", false)
        .set("spool.duplicates", "quarantine");
    let mut gateway = Gateway::start(&options);
    let studies: Vec<Study> = [Study::chest(), Study::ct(), Study::chest(), Study::chest()]
        .into_iter()
        .map(|study| study.of_patient("ZZYZX^QUENTIN", "QX77003311", "ACC99887766"))
        .collect();
    // What goes well, what is skipped, what fails, what is a duplicate, what is refused.
    let images = [
        studies[0].image(1),
        studies[1].image(1),
        studies[2].compressed(1, RLE, &[7; 100]),
        studies[3].image_with(1, 1),
        studies[3].image_with(1, 2),
    ];
    let all: Vec<_> = images.iter().collect();
    assert_eq!(RawPeer::send(gateway.dicom_port, "CT1", &all), [0; 5]);
    let mut mismatch = studies[0].image(9);
    mismatch.sop_instance = studies[0].sop_instance(10);
    assert_eq!(
        RawPeer::send(gateway.dicom_port, "CT1", &[&mismatch]),
        [0xA900]
    );
    let mut malformed = studies[0].image(11);
    malformed.data_set.truncate(50);
    assert_eq!(
        RawPeer::send(gateway.dicom_port, "CT1", &[&malformed]),
        [0xC000]
    );
    let mut peer = RawPeer::associate(gateway.dicom_port, "CT1", &[&images[0]]);
    peer.begin_store(&images[0]).unwrap();
    peer.continue_store(&images[0], &images[0].data_set[..500], false)
        .unwrap();
    peer.vanish();
    for study in &studies {
        wait_until("message", SOON, || {
            gateway.study(&study.uid)["confirmed"] == 1
        });
    }
    let (_, metrics) = gateway.ask("/metrics").unwrap();
    let names: Vec<String> = below(gateway.dir())
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let messages = bus.take(4);
    let keys: Vec<String> = messages
        .iter()
        .map(|message| message.routing_key.clone())
        .collect();
    gateway.terminate();
    gateway.wait(SOON);

    let mut secrets = vec![
        "ZZYZX".to_owned(),
        "QUENTIN".to_owned(),
        "QX77003311".to_owned(),
        "ACC99887766".to_owned(),
    ];
    for message in &messages {
        let event = message.event.to_string();
        for secret in &secrets {
            assert!(!event.contains(secret), "{secret} in {event}");
        }
    }
    for study in &studies {
        // The root of series and instances, then the study itself.
        secrets.push(study.sop_instance(1).trim_end_matches(".1").to_owned());
        secrets.push(study.uid.clone());
    }
    gateway.wait_until_logged("association ended");
    for secret in &secrets {
        assert!(!gateway.log().contains(secret), "{secret} in the log");
        assert!(!metrics.contains(secret), "{secret} in the metrics");
        assert!(!keys.concat().contains(secret), "{secret} in {keys:?}");
        assert!(!names.concat().contains(secret), "{secret} in {names:?}");
    }
}

#[test]
fn the_patient_id_is_told_where_policy_allows_it() {
    let gateway = Gateway::start(&Options::new().set("message.patient_id", true));
    let study = Study::chest();
    assert_eq!(
        RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]),
        [0]
    );
    gateway.wait_until_done(&[&study.uid]);
    let data = &gateway.messages()[0]["data"];
    assert_eq!(data["patient"]["id"], study.patient_id.as_str(), "{data}");
    assert_eq!(
        data["study"]["accession_number"],
        study.accession_number.as_str()
    );
}
