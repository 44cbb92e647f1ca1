//! "CT2 says it sent 5: how many have you got, and where are they?"

use crate::support::{Gateway, Instance, Options, RawPeer, Study};

#[test]
fn every_instance_has_its_times() {
    let gateway = Gateway::start(&Options::new());
    let (chest, ct) = (Study::chest(), Study::ct());
    let images: Vec<Instance> = (1..=5).map(|number| chest.image(number)).collect();
    let all: Vec<&Instance> = images.iter().collect();
    assert_eq!(RawPeer::send(gateway.dicom_port, "CT2", &all), [0; 5]);
    assert_eq!(
        RawPeer::send(gateway.dicom_port, "CT3", &[&ct.image(1)]),
        [0]
    );
    gateway.wait_until_done(&[&chest.uid, &ct.uid]);

    let list = gateway.get("/api/v1/studies");
    let list = list["studies"].as_array().unwrap();
    assert_eq!(list.len(), 2);
    let line = list
        .iter()
        .find(|line| line["study_instance_uid"] == chest.uid.as_str());
    let line = line.unwrap();
    assert_eq!(line["instances_received"], 5);
    assert_eq!(line["instances_processed"], 5);
    assert_eq!(line["calling_ae"], serde_json::json!(["CT2"]));
    assert_eq!(
        (&line["published"], &line["confirmed"]),
        (&1.into(), &1.into())
    );

    let report = gateway.study(&chest.uid);
    let instances = report["instances"].as_array().unwrap();
    assert_eq!(instances.len(), 5);
    for (instance, image) in instances.iter().zip(&images) {
        assert_eq!(instance["sop_instance_uid"], image.sop_instance.as_str());
        assert_eq!(instance["sop_class_uid"], image.sop_class.as_str());
        assert_eq!(instance["bytes"], image.data_set.len());
        let steps = [
            "received",
            "durable",
            "decoded",
            "inferred",
            "published",
            "confirmed",
        ];
        let times: Vec<&str> = steps
            .iter()
            .map(|step| {
                instance[step]
                    .as_str()
                    .unwrap_or_else(|| panic!("no {step}: {instance}"))
            })
            .collect();
        assert!(times.is_sorted(), "{instance}");
        let file = format!("{}.dcm", instance["entry"].as_str().unwrap());
        assert!(
            gateway.data_dir().join(file).is_file(),
            "the operator can open it"
        );
    }
    assert_eq!(
        report["messages"][0]["id"],
        gateway.messages_by_study()[&chest.uid][0]["id"]
    );

    // Nothing looked at the CT image, so it has not been decoded.
    let ct = &gateway.study(&ct.uid)["instances"][0];
    assert!(
        ct["decoded"].is_null() && ct["confirmed"].is_string(),
        "{ct}"
    );
    let (status, body) = gateway.ask("/api/v1/studies/1.2.3").unwrap();
    assert_eq!(status, 404, "{body}");
}
