//! A manifest says which studies its model is for, what it was validated for and how good an image must
//! be; a site says what is different for its senders. The message says which of it decided.

use std::path::Path;

use serde_json::Value;

use crate::support::files::copy_dir;
use crate::support::gateway::{Refusal, binary};
use crate::support::golden::{self, Case};
use crate::support::options::repository;
use crate::support::{Gateway, Instance, Options, RawPeer, Study, contract, peers};

const LABEL: &str = "threshold = 0.5";
const MANUFACTURER: (u16, u16) = (0x0008, 0x0070);
const THICKNESS: (u16, u16) = (0x0018, 0x0050);

/// A folder of copies of `cxr-phantom`, each with a name, text that replaces `[[input]]` and follows
/// it, and other thresholds.
fn models(models: &[(&str, &str, f64)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, extra, threshold) in models {
        let folder = dir.path().join(name);
        copy_dir(&repository().join("models/cxr-phantom"), &folder);
        std::fs::remove_dir_all(folder.join("1.0.0/golden")).unwrap();
        let path = folder.join("model.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        for part in ["\"cxr-phantom\"", "[[input]]", LABEL] {
            assert!(text.contains(part), "the manifest has no `{part}`");
        }
        let text = text
            .replace("\"cxr-phantom\"", &format!("\"{name}\""))
            .replace("[[input]]", &format!("{extra}\n[[input]]"))
            .replace(LABEL, &format!("threshold = {threshold:?}"));
        std::fs::write(path, text).unwrap();
    }
    dir
}

fn options(models: &Path) -> Options {
    Options::new()
        .models(models.to_owned())
        .set("inference.sessions", 1)
}

/// What the models said of one study, by their names; the message of no model has none.
fn said(gateway: &Gateway, calling: &str, study: &Study, images: &[&Instance]) -> Vec<Value> {
    let sent = RawPeer::send(gateway.dicom_port, calling, images);
    assert!(sent.iter().all(|status| *status == 0), "{sent:?}");
    gateway.wait_until_done(&[&study.uid]);
    let messages = gateway.messages_by_study().remove(&study.uid).unwrap();
    messages
        .iter()
        .map(|event| {
            contract::check_event(event);
            event["data"].clone()
        })
        .collect()
}

fn of<'a>(said: &'a [Value], model: &str) -> &'a Value {
    let found = said.iter().find(|data| data["model"]["name"] == *model);
    found.unwrap_or_else(|| panic!("no message of {model}: {said:?}"))
}

fn remark<'a>(data: &'a Value, code: &str) -> Option<&'a str> {
    let remarks = data["quality"].as_array().unwrap();
    let found = remarks.iter().find(|remark| remark["code"] == *code);
    found.map(|remark| remark["text"].as_str().unwrap())
}

#[test]
fn a_rule_on_any_attribute_decides() {
    let rule = "[[applies_to.where]]\nattribute = 'Manufacturer'\nmatches = '^acme'\n\
                [[applies_to.where]]\nattribute = 'matrix'\nrange = [64, 64]";
    let folder = models(&[("acme-only", rule, 0.5)]);
    let gateway = Gateway::start(&options(folder.path()));
    let study = Study::chest();
    let image = study.image(1).with(MANUFACTURER, b"LO", b"ACME Imaging");
    let data = said(&gateway, "CT1", &study, &[&image]);
    assert!(
        !of(&data, "acme-only")["findings"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    for (study, maker) in [(Study::chest(), Some("Other")), (Study::chest(), None)] {
        let image = study.image(1);
        let image = match maker {
            Some(maker) => image.with(MANUFACTURER, b"LO", maker.as_bytes()),
            None => image,
        };
        let data = said(&gateway, "CT1", &study, &[&image]);
        assert_eq!(data[0]["reason"]["code"], "no-model-applies", "{data:?}");
    }
}

#[test]
fn outside_of_what_was_validated_there_is_a_code_instead_of_a_number() {
    let guard = "[[validated_for]]\nattribute = 'SliceThickness'\nrange = [0.5, 3]\n\
                 [[validated_for]]\nattribute = 'PatientID'\nmatches = 'VENT'";
    let folder = models(&[("always", guard, 0.0), ("never", guard, 1.0)]);
    let gateway = Gateway::start(&options(folder.path()));
    let thin = |study: &Study| study.image(1).with(THICKNESS, b"DS", b"1");
    let thick = |study: &Study| study.image(2).with(THICKNESS, b"DS", b"8");

    let study = Study::chest();
    let data = said(&gateway, "CT1", &study, &[&thin(&study)]);
    assert_eq!(of(&data, "always")["outcome"], "finding");
    assert_eq!(of(&data, "never")["outcome"], "no-finding");
    assert_eq!(of(&data, "never")["quality"], serde_json::json!([]));

    let study = Study::chest();
    let data = said(&gateway, "CT1", &study, &[&thick(&study)]);
    for model in ["always", "never"] {
        let data = of(&data, model);
        assert_eq!(data["outcome"], "skipped", "{data}");
        assert_eq!(data["reason"]["code"], "outside-validation", "{data}");
        let text = &data["reason"]["text"];
        assert_eq!(text, "SliceThickness 8 outside 0.5 to 3", "{data}");
        assert_eq!(data["findings"], serde_json::json!([]));
    }

    // One of two: what is there stands, "nothing there" would speak of what was not looked at.
    let study = Study::chest();
    let data = said(&gateway, "CT1", &study, &[&thin(&study), &thick(&study)]);
    let (always, never) = (of(&data, "always"), of(&data, "never"));
    assert_eq!(always["outcome"], "finding", "{always}");
    assert_eq!(never["outcome"], "skipped", "{never}");
    assert_eq!(never["reason"]["code"], "outside-validation", "{never}");
    for data in [always, never] {
        assert_eq!(
            remark(data, "outside-validation"),
            Some("1 of 2 instances: SliceThickness 8 outside 0.5 to 3"),
            "{data}"
        );
        assert_eq!(data["inputs"]["count"], 2, "{data}");
    }
    let entries = gateway.study(&study.uid);
    let refusals: Vec<&Value> = entries["instances"].as_array().unwrap().iter().collect();
    let refused = refusals
        .iter()
        .filter(|i| i["refusal"] == "outside-validation");
    assert_eq!(refused.count(), 1, "{entries}");

    // What is known of the patient decides, and is not told.
    let study = Study::chest().of_patient("A^B", "SECRET-7", "A1");
    let data = said(&gateway, "CT1", &study, &[&thin(&study)]);
    let text = of(&data, "always")["reason"]["text"].as_str().unwrap();
    assert_eq!(
        text,
        "PatientID outside of what the model was validated for"
    );
}

#[test]
fn an_image_of_poor_quality_is_flagged_or_left_out() {
    let flag = |skip: bool| {
        format!(
            "[[quality]]\nflag = 'constant'\nlimit = 0.01\nskip = {skip}\n\
             [[quality]]\nflag = 'saturated'\nlimit = 0.9\n\
             [[quality]]\nflag = 'truncated'\nlimit = 0.9"
        )
    };
    let (flags, skips) = (flag(false), flag(true));
    let folder = models(&[
        ("always-skips", &skips, 0.0),
        ("flags", &flags, 1.0),
        ("skips", &skips, 1.0),
    ]);
    let gateway = Gateway::start(&options(folder.path()));
    let blank = |study: &Study, value: u16| {
        let pixels: Vec<u8> = (0..64 * 64).flat_map(|_| value.to_le_bytes()).collect();
        study.image(1).with((0x7FE0, 0x0010), b"OW", &pixels)
    };
    let study = Study::chest();
    let data = said(&gateway, "CT1", &study, &[&study.image(1)]);
    for data in &data {
        assert_eq!(data["quality"], serde_json::json!([]), "{data}");
    }

    let study = Study::chest();
    let data = said(&gateway, "CT1", &study, &[&blank(&study, 4095)]);
    let flagged = of(&data, "flags");
    assert_eq!(flagged["outcome"], "no-finding", "{flagged}");
    let text = remark(flagged, "image-constant").unwrap();
    assert_eq!(text, "1 of 1 samples: standard deviation 0.000, limit 0.01");
    let text = remark(flagged, "image-saturated").unwrap();
    assert!(text.contains("1.000, limit 0.9"), "{text}");
    assert_eq!(remark(flagged, "image-truncated"), None);
    for model in ["skips", "always-skips"] {
        let skipped = of(&data, model);
        assert_eq!(skipped["outcome"], "skipped", "{skipped}");
        assert_eq!(skipped["reason"]["code"], "image-constant", "{skipped}");
    }

    // Grey is constant and not at an end; the other image of the study can still have a finding.
    let study = Study::chest();
    let images = [&blank(&study, 2000), &study.image(2)];
    let data = said(&gateway, "CT1", &study, &images);
    let text = remark(of(&data, "flags"), "image-constant").unwrap();
    assert!(text.starts_with("1 of 2 samples"), "{text}");
    assert_eq!(remark(of(&data, "flags"), "image-saturated"), None);
    assert_eq!(of(&data, "always-skips")["outcome"], "finding");
    let skipped = of(&data, "skips");
    assert_eq!(skipped["outcome"], "skipped", "{skipped}");
    assert_eq!(skipped["reason"]["code"], "image-constant", "{skipped}");

    // A dark image in a bright frame goes on beyond its edges.
    let study = Study::chest();
    let pixels: Vec<u8> = (0..64 * 64u16)
        .flat_map(|at| {
            let (row, column) = (at / 64, at % 64);
            let border = [row, column].iter().any(|place| [0, 63].contains(place));
            if border { 3000u16 } else { 500 + at % 7 }.to_le_bytes()
        })
        .collect();
    let framed = study.image(1).with((0x7FE0, 0x0010), b"OW", &pixels);
    let data = said(&gateway, "CT1", &study, &[&framed]);
    let text = remark(of(&data, "flags"), "image-truncated").unwrap();
    assert!(text.contains("1.000, limit 0.9"), "{text}");
}

#[test]
fn a_volume_is_flagged_as_a_whole_and_outside_with_one_of_its_planes() {
    if !peers::available("dcmsend") {
        return;
    }
    let fixture = repository().join("tests/fixtures/models/ct-volume");
    let folder = tempfile::tempdir().unwrap();
    copy_dir(&fixture, &folder.path().join("ct-volume"));
    let manifest = folder.path().join("ct-volume/model.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let guards = "[[quality]]\nflag = 'constant'\nlimit = 1000\n\
                  [[validated_for]]\nattribute = 'Manufacturer'\npresent = false\n[[input]]";
    std::fs::write(&manifest, text.replacen("[[input]]", guards, 1)).unwrap();
    let gateway = Gateway::start(&options(folder.path()));
    let cases = golden::cases_below("tests/fixtures/models");
    let find = |name: &str| cases.iter().find(|case| case.name == name).unwrap();
    let case = find("axial-clear");
    let data = looked_at(&gateway, case);
    assert_eq!(data["outcome"], case.expected["outcome"], "{data}");
    // numpy's std() over pydicom's pixels of all planes, rescaled: 472.8515520639155.
    let text = remark(&data, "image-constant").unwrap();
    assert_eq!(
        text,
        "1 of 1 samples: standard deviation 472.852, limit 1000"
    );

    // Another plane of the other study's series, from a named manufacturer.
    let case = find("axial-superior-left");
    let file = std::fs::read(&case.files[0]).unwrap();
    let meta = 132 + 12 + u32::from_le_bytes(file[140..144].try_into().unwrap()) as usize;
    let plane = Instance {
        sop_class: "1.2.840.10008.5.1.4.1.1.2".to_owned(),
        sop_instance: "2.25.4711".to_owned(),
        transfer_syntax: "1.2.840.10008.1.2.1".to_owned(),
        data_set: file[meta..].to_vec(),
    };
    let plane =
        plane
            .with((0x0008, 0x0018), b"UI", b"2.25.4711\0")
            .with(MANUFACTURER, b"LO", b"Acme");
    assert_eq!(RawPeer::send(gateway.dicom_port, "CT1", &[&plane]), [0]);
    let data = looked_at(&gateway, case);
    assert_eq!(data["outcome"], "skipped", "{data}");
    assert_eq!(data["reason"]["code"], "outside-validation", "{data}");
    assert_eq!(data["inputs"]["count"], case.files.len() + 1, "{data}");
}

#[test]
fn a_site_has_models_and_operating_points_of_its_own() {
    let folder = models(&[("one", "", 0.0), ("two", "", 0.0)]);
    let options = options(folder.path())
        .set("models.sites.north.calling_ae_titles", ["NORTH1", "NORTH2"])
        .set("models.sites.north.except", ["two"])
        .set("models.sites.south.calling_ae_titles", ["SOUTH"]);
    let gateway =
        Gateway::start(&options.set_number("models.sites.south.thresholds", "one.opacity", 1.0));
    let thresholds = |data: &Value| -> Vec<(f64, bool)> {
        let findings = data["findings"].as_array().unwrap().iter();
        findings
            .map(|f| {
                (
                    f["threshold"].as_f64().unwrap(),
                    f["present"].as_bool().unwrap(),
                )
            })
            .collect()
    };
    let ask = |calling: &str| {
        let study = Study::chest();
        said(&gateway, calling, &study, &[&study.image(1)])
    };
    let elsewhere = ask("CT1");
    assert_eq!(elsewhere.len(), 2);
    assert_eq!(
        thresholds(of(&elsewhere, "one")),
        [(0.0, true), (0.0, true)]
    );
    let north = ask("NORTH2");
    assert_eq!(north.len(), 1, "{north:?}");
    assert_eq!(thresholds(of(&north, "one")), [(0.0, true), (0.0, true)]);
    let south = ask("SOUTH");
    assert_eq!(thresholds(of(&south, "one")), [(1.0, false), (0.0, true)]);
    assert_eq!(thresholds(of(&south, "two")), [(0.0, true), (0.0, true)]);
}

#[test]
fn the_first_image_is_chosen_and_the_first_model_of_a_group() {
    let choose = "choose = 'first'\ngroup = 'chest'\nrank = 1\n\
                  order_by = [{ attribute = 'InstanceNumber', descending = true }]";
    let thin = "group = 'chest'\nrank = 0\n\
                [[applies_to.where]]\nattribute = 'SliceThickness'\nrange = [0, 1]";
    let folder = models(&[("a-general", choose, 0.0), ("b-special", thin, 0.0)]);
    let gateway = Gateway::start(&options(folder.path()));
    let study = Study::chest();
    let images = [study.image(1), study.image(3), study.image(2)];
    let data = said(&gateway, "CT1", &study, &images.each_ref());
    assert_eq!(data.len(), 1, "{data:?}");
    let general = of(&data, "a-general");
    let inputs = &general["inputs"]["sop_instance_uids"];
    assert_eq!(
        *inputs,
        serde_json::json!([study.sop_instance(3)]),
        "{general}"
    );

    let study = Study::chest();
    let image = study.image(1).with(THICKNESS, b"DS", b"0.8");
    let data = said(&gateway, "CT1", &study, &[&image]);
    assert_eq!(data.len(), 1, "{data:?}");
    assert_eq!(of(&data, "b-special")["outcome"], "finding");
}

const ROLES: &str = "tests/fixtures/roles";

#[test]
fn a_model_of_several_series_gets_each_in_its_role() {
    if !peers::available("dcmsend") {
        return;
    }
    let gateway = Gateway::start(&options(&repository().join(ROLES)));
    let cases = golden::cases_below(ROLES);
    assert_eq!(cases.len(), 3, "the model has lost its golden cases");
    for case in &cases {
        let data = looked_at(&gateway, case);
        assert_eq!(data["outcome"], case.expected["outcome"], "{data}");
        let tolerance = case.expected["tolerance"].as_f64().unwrap();
        for finding in data["findings"].as_array().unwrap() {
            let wanted = &case.expected["probabilities"][finding["label"].as_str().unwrap()];
            let off = finding["probability"].as_f64().unwrap() - wanted.as_f64().unwrap();
            assert!(off.abs() <= tolerance, "{}: {finding}", case.name);
        }
        assert_eq!(data["inputs"]["count"], case.files.len(), "{data}");
    }
    let mut check = binary();
    check.arg("check").current_dir(repository());
    check.env("PACS_GATEWAY__MODELS__DIR", ROLES);
    let output = peers::run(&mut check);
    peers::succeeded(&output);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("3 passed"), "{table}");
}

#[test]
fn a_role_without_its_series_is_named() {
    if !peers::available("dcmsend") {
        return;
    }
    let gateway = Gateway::start(&options(&repository().join(ROLES)));
    let mut cases = golden::cases_below(ROLES);
    let (mut missing, mut double) = (cases.remove(0), cases.remove(0));
    missing
        .files
        .retain(|file| !file.to_str().unwrap().contains("/post-"));
    let data = looked_at(&gateway, &missing);
    assert_eq!(data["outcome"], "skipped", "{data}");
    assert_eq!(data["reason"]["code"], "series-missing", "{data}");
    assert_eq!(data["reason"]["text"], "no series is `post-contrast`");

    // The scout once more, as another series of the study.
    let mut second = Study::ct();
    second.uid.clone_from(&double.study);
    let image = second
        .image(1)
        .with((0x0008, 0x0008), b"CS", b"ORIGINAL\\PRIMARY\\LOCALIZER");
    assert_eq!(RawPeer::send(gateway.dicom_port, "CT1", &[&image]), [0]);
    double.files.sort();
    let data = looked_at(&gateway, &double);
    assert_eq!(data["outcome"], "skipped", "{data}");
    assert_eq!(data["reason"]["code"], "series-ambiguous", "{data}");
    assert_eq!(data["reason"]["text"], "2 series could be `scout`");
}

fn looked_at(gateway: &Gateway, case: &Case) -> Value {
    peers::succeeded(&peers::dcmsend(gateway.dicom_port, &case.files));
    gateway.wait_until_done(&[&case.study]);
    let messages = &gateway.messages_by_study()[&case.study];
    let event = messages.last().unwrap();
    contract::check_event(event);
    event["data"].clone()
}

#[test]
fn a_rule_that_cannot_be_meant_is_refused_at_start() {
    let says = |extra: &str, words: &[&str]| {
        let folder = models(&[("chest", extra, 0.5)]);
        let Refusal { code, stderr } = Gateway::refusal(&options(folder.path()));
        assert_eq!(code, Some(64), "{stderr}");
        for word in words {
            assert!(stderr.contains(word), "no `{word}` in {stderr}");
        }
    };
    says(
        "[[applies_to.where]]\nattribute = 'Manufactuer'\npresent = true",
        &["chest/model.toml", "attribute", "`Manufactuer`"],
    );
    says(
        "[[validated_for]]\nattribute = 'KVP'\nrange = [120, 60]",
        &["chest/model.toml", "validated_for", "`KVP`", "range"],
    );
}

#[test]
fn check_explains_what_it_would_decide() {
    let rules = "group = 'chest'\n[[applies_to.where]]\nattribute = 'PatientID'\npresent = true\n\
                 [[validated_for]]\nattribute = 'SliceThickness'\nrange = [0.5, 3]";
    let folder = models(&[("guarded", rules, 0.5), ("second", "group = 'chest'", 0.5)]);
    let study = Study::chest();
    let files = tempfile::tempdir().unwrap();
    let thick = study.image(2).with(THICKNESS, b"DS", b"8");
    let thin = study.image(1).with(THICKNESS, b"DS", b"1");
    for (name, image) in [("thin.dcm", thin), ("thick.dcm", thick)] {
        std::fs::write(files.path().join(name), image.part_10()).unwrap();
    }
    let config = files.path().join("gateway.toml");
    let text = format!(
        "[models]\ndir = {:?}\n[models.sites.north]\ncalling_ae_titles = ['NORTH']\nexcept = ['guarded']\n",
        folder.path()
    );
    std::fs::write(&config, text).unwrap();
    let explain = |more: &[&str]| {
        let mut command = binary();
        command.arg("check").arg("--config").arg(&config);
        command.arg("--explain").arg(files.path()).args(more);
        let output = peers::run(&mut command);
        peers::succeeded(&output);
        String::from_utf8(output.stdout).unwrap()
    };
    let text = explain(&[]);
    for words in [
        "2 files",
        "guarded@1.0.0: looks at 1 of 2 instances; 1 are left out, outside-validation: \
         SliceThickness 8 outside 0.5 to 3",
        "second@1.0.0: does not run: another model of the group `chest` comes first",
    ] {
        assert!(text.contains(words), "no `{words}` in\n{text}");
    }
    let row = |words: &str| {
        let row = text.lines().find(|line| line.contains(words));
        row.unwrap_or_else(|| panic!("no row of `{words}` in\n{text}"))
    };
    let guard = row("validated_for SliceThickness 0.5 to 3");
    assert!(
        guard.contains("1 of 2") && guard.ends_with("thick.dcm"),
        "{guard}"
    );
    let hidden = row("PatientID present");
    assert!(
        hidden.contains("yes") && hidden.contains("(not shown)"),
        "{hidden}"
    );
    assert!(!text.contains(&study.patient_id), "{text}");
    let text = explain(&["--calling-ae", "NORTH"]);
    for words in [
        "guarded@1.0.0: does not run at `north`",
        "second@1.0.0: looks at 2 of 2 instances",
    ] {
        assert!(text.contains(words), "no `{words}` in\n{text}");
    }
}
