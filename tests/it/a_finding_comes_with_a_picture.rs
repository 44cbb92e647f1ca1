//! A finding comes with a picture that says why: kept before the message names it, served by its
//! reference, the same after a restart. What cannot be made or kept is missing with a remark, and the
//! finding is published all the same.

use std::path::Path;

use pacs_gateway::explanation::{colour, overlay};
use serde_json::Value;

use crate::support::files::copy_dir;
use crate::support::golden::{self, Case};
use crate::support::options::repository;
use crate::support::{Gateway, Options, SOON, contract, peers, wait_until};

const FIXTURES: &str = "tests/fixtures/explanation";

/// A place of heat is known no better than half a square, in pixels of the input tensor of 128.
const HALF_A_SQUARE: f64 = 12.0 / 128.0;

fn case(folder: &str, name: &str) -> Case {
    let cases = golden::cases_below(folder);
    cases.into_iter().find(|case| case.name == name).unwrap()
}

fn expected(name: &str) -> Value {
    let path = repository().join(FIXTURES).join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The message about a study, sent by a real peer.
fn message(gateway: &Gateway, case: &Case) -> Value {
    peers::succeeded(&peers::dcmsend(gateway.dicom_port, &case.files));
    gateway.wait_until_done(&[&case.study]);
    let event = &gateway.messages_by_study()[&case.study][0];
    contract::check_event(event);
    event["data"].clone()
}

fn finding<'a>(data: &'a Value, label: &str) -> &'a Value {
    let findings = data["findings"].as_array().unwrap();
    findings.iter().find(|one| one["label"] == label).unwrap()
}

fn reference(finding: &Value, kind: &str) -> String {
    assert_eq!(finding["explanation"]["kind"], kind, "{finding}");
    let reference = finding["explanation"]["reference"].as_str().unwrap();
    assert!(reference.starts_with("/api/v1/artefacts/"), "{reference}");
    reference.to_owned()
}

fn fetch(gateway: &Gateway, path: &str) -> Vec<u8> {
    let (status, kind, bytes) = gateway.fetch(path).unwrap();
    assert_eq!((status, kind.as_str()), (200, "image/png"), "{path}");
    bytes
}

/// A picture with heat, without its legend.
struct Heated {
    rows: usize,
    columns: usize,
    pixels: Vec<[u8; 3]>,
}

impl Heated {
    fn read(png: &[u8]) -> Self {
        let mut reader = png::Decoder::new(std::io::Cursor::new(png))
            .read_info()
            .unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut bytes).unwrap();
        assert_eq!(info.color_type, png::ColorType::Rgb);
        let (rows, width) = (info.height as usize, info.width as usize);
        let columns = width - overlay::LEGEND;
        let lines = bytes.as_chunks::<3>().0.chunks_exact(width);
        Self {
            rows,
            columns,
            pixels: lines.flat_map(|line| line[..columns].to_vec()).collect(),
        }
    }

    /// The heat of a pixel: the one with which some grey gives its colour.
    fn at(&self, row: usize, column: usize) -> f64 {
        let pixel = self.pixels[row * self.columns + column];
        let off = |heat: f32, grey: u8| -> i32 {
            let other = colour::over(grey, heat);
            let differences = pixel.iter().zip(other);
            differences
                .map(|(a, b)| (i32::from(*a) - i32::from(b)).pow(2))
                .sum()
        };
        let best = |heat: f32| {
            // Grey enters all three in the same way, so its best value is found by bisection.
            let bright =
                |grey: u8| -> i32 { colour::over(grey, heat).iter().map(|v| i32::from(*v)).sum() };
            let wanted: i32 = pixel.iter().map(|v| i32::from(*v)).sum();
            let (mut low, mut high) = (0, 255);
            while low < high {
                let middle = low + (high - low) / 2;
                if bright(middle) < wanted {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            off(heat, low).min(off(heat, low.saturating_sub(1)))
        };
        let heats = (0..=50).map(|part| part as f32 / 50.0);
        let hottest = heats.min_by_key(|heat| best(*heat)).unwrap();
        f64::from(hottest)
    }
}

#[test]
fn the_hottest_place_is_where_the_opacity_was_drawn() {
    if !peers::available("dcmsend") {
        return;
    }
    let mut gateway = Gateway::start(&Options::new());
    let expected = expected("occlusion.json");
    let mut kept = Vec::new();
    for (name, place) in expected["places"].as_object().unwrap() {
        let case = case("models", name);
        let data = message(&gateway, &case);
        let reference = reference(finding(&data, "opacity"), "occlusion");
        let bytes = fetch(&gateway, &reference);
        let picture = Heated::read(&bytes);
        let (mut sum, mut y, mut x) = (0.0, 0.0, 0.0);
        for row in (0..picture.rows).step_by(6) {
            for column in (0..picture.columns).step_by(6) {
                if picture.at(row, column) >= 0.95 {
                    sum += 1.0;
                    y += row as f64 + 0.5;
                    x += column as f64 + 0.5;
                }
            }
        }
        assert!(sum > 0.0, "{name}: no place is hot");
        let (y, x) = (y / sum, x / sum);
        let place: [f64; 4] = serde_json::from_value(place.clone()).unwrap();
        let (more_x, more_y) = (
            HALF_A_SQUARE * picture.columns as f64,
            HALF_A_SQUARE * picture.rows as f64,
        );
        let [left, top, right, bottom] = place;
        assert!(
            (left - more_x..right + more_x).contains(&x)
                && (top - more_y..bottom + more_y).contains(&y),
            "{name}: hottest at {x:.0}, {y:.0}, drawn at {place:?}"
        );
        kept.push((reference, bytes));
    }
    // What is not present is not explained.
    let data = message(&gateway, &case("models", "normal"));
    assert!(data["findings"].to_string().contains("opacity"));
    assert!(!data.to_string().contains("explanation"), "{data}");
    let metric = gateway.metric("artefacts_kept_total", &[("kind", "occlusion")]);
    assert!(metric >= 2.0, "{metric}");

    gateway.terminate();
    gateway.wait(SOON);
    gateway.restart();
    for (reference, bytes) in &kept {
        assert!(fetch(&gateway, reference) == *bytes, "{reference}");
    }
    nothing_else_is_served(&gateway);

    gateway.terminate();
    gateway.wait(SOON);
    gateway.restart_with(&Options::new().set("artefacts.retention", "1ms"));
    wait_until("end of the retention", SOON, || {
        let gone = |(path, _): &(String, _)| gateway.fetch(path).unwrap().0 == 404;
        kept.iter().all(gone)
    });
}

fn nothing_else_is_served(gateway: &Gateway) {
    for name in [
        "occlusion-0000000000000000000000000000000000000000000000000000000000000000.png",
        "..%2fstate.db",
        "..%2f..%2fgateway.toml",
        "%2fetc%2fpasswd",
        ".",
    ] {
        let path = format!("/api/v1/artefacts/{name}");
        let (status, _, _) = gateway.fetch(&path).unwrap();
        assert_eq!(status, 404, "{path}");
    }
}

#[test]
fn a_map_of_the_graph_is_laid_over_the_image() {
    if !peers::available("dcmsend") {
        return;
    }
    let models = format!("{FIXTURES}/models");
    let gateway = Gateway::start(&Options::new().models(repository().join(&models)));
    let data = message(&gateway, &case(&models, "blobs"));
    let expected = expected("cam.json");
    let step = expected["step"].as_u64().unwrap() as usize;
    for label in ["first", "second"] {
        let reference = reference(finding(&data, label), "activation-map");
        let picture = Heated::read(&fetch(&gateway, &reference));
        assert_eq!(expected["rows"], picture.rows);
        assert_eq!(expected["columns"], picture.columns);
        let wanted: Vec<f64> = serde_json::from_value(expected["labels"][label].clone()).unwrap();
        let across = picture.columns.div_ceil(step);
        let mut hot = 0;
        for (nth, wanted) in wanted.iter().enumerate() {
            // Dark heat hardly colours a picture, so it cannot be read back from one.
            if *wanted > 0.4 {
                let (row, column) = (nth / across * step, nth % across * step);
                let found = picture.at(row, column);
                assert!(
                    (found - wanted).abs() < 0.05,
                    "{label} {row},{column}: {found} {wanted}"
                );
                hot += 1;
            }
        }
        assert!(hot > 20, "{label}: {hot} places are hot");
    }
}

#[test]
fn a_finding_without_room_for_its_picture_is_published() {
    if !peers::available("dcmsend") {
        return;
    }
    let gateway = Gateway::start(&Options::new().set("artefacts.max_bytes", "4KiB"));
    let data = message(&gateway, &case("models", "rle"));
    without_picture(&data, "artefact-not-kept");
}

#[test]
fn a_finding_whose_picture_cannot_be_written_is_published() {
    if !peers::available("dcmsend") {
        return;
    }
    let gateway = Gateway::start(&Options::new());
    std::fs::remove_dir(gateway.dir().join("spool/artefacts")).unwrap();
    let data = message(&gateway, &case("models", "rle"));
    without_picture(&data, "artefact-not-kept");
}

#[test]
fn a_finding_whose_picture_takes_too_long_is_published() {
    if !peers::available("dcmsend") {
        return;
    }
    let models = tempfile::tempdir().unwrap();
    with_budget("1ms", models.path());
    let gateway = Gateway::start(&Options::new().models(models.path().to_owned()));
    let data = message(&gateway, &case("models", "rle"));
    without_picture(&data, "explanation-incomplete");
}

/// The model of phantoms with another budget.
fn with_budget(budget: &str, models: &Path) {
    let model = models.join("cxr-phantom");
    copy_dir(&repository().join("models/cxr-phantom"), &model);
    let text = std::fs::read_to_string(model.join("model.toml")).unwrap();
    let changed = text.replace("budget = \"10s\"", &format!("budget = \"{budget}\""));
    assert_ne!(text, changed, "the manifest has another budget");
    std::fs::write(model.join("model.toml"), changed).unwrap();
}

#[track_caller]
fn without_picture(data: &Value, remark: &str) {
    assert_eq!(data["outcome"], "finding", "{data}");
    let opacity = finding(data, "opacity");
    assert_eq!(opacity["present"], true, "{data}");
    assert!(opacity["explanation"].is_null(), "{data}");
    assert_eq!(data["quality"][0]["code"], remark, "{data}");
}
