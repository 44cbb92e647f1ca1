//! Boxes and regions against what ONNX Runtime, SciPy, scikit-image and SimpleITK read from the same
//! answers.
//!
//! `scripts/golden_shapes.py` makes the answers and says what each case is; this test only compares.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use half::f16;
use pacs_gateway::dicom::dataset::{DicomFile, ReadLimits};
use pacs_gateway::dicom::uid::{SeriesInstanceUid, SopInstanceUid};
use pacs_gateway::findings::{self, Area, Draft, Finding, Location, Reading, Said, Sample};
use pacs_gateway::model::{
    ImageSpec, InputSpec, Manifest, Placement, Tensor, TensorData, VolumeSpec,
};
use pacs_gateway::pixel::{self, Frames, Limits};
use pacs_gateway::volume::{arrange, slices};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn cases(kind: &str) -> Vec<Value> {
    let text = fs::read_to_string(fixtures().join("shapes/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    let all = manifest["cases"].as_array().unwrap().iter();
    let some: Vec<Value> = all
        .filter(|case| case["output"]["kind"] == kind)
        .cloned()
        .collect();
    assert!(some.len() > 5, "few cases of {kind}");
    some
}

/// The model of a case as its manifest would describe it.
fn manifest(case: &Value) -> Manifest {
    let volume = !case["input"]["volume"].is_null();
    let text = toml::to_string(&json!({
        "name": "shapes", "version": "1", "sha256": "0".repeat(64), "title": "Shapes",
        "intended_use": "Tests", "licence": "MIT", "device_uid": "2.25.1",
        "flips": case["flips"],
        "applies_to": { "level": if volume { "series" } else { "instance" } },
        "input": [case["input"]],
        "output": case["output"],
    }));
    Manifest::parse(&text.unwrap()).unwrap_or_else(|err| panic!("{}: {err}", case["name"]))
}

fn read(path: &Path) -> DicomFile {
    DicomFile::read(path, &ReadLimits::default()).unwrap()
}

fn uid(file: &DicomFile, tag: dicom::core::Tag) -> String {
    file.data_set().uid(tag).unwrap().into_owned()
}

/// An image, where it is and where the tensor lies in it.
fn image(name: &str, spec: &ImageSpec) -> (Location, Placement) {
    let file = read(&fixtures().join("shapes").join(name));
    let frames = Frames::open(&file, &Limits::default()).unwrap();
    let tensor = pixel::prepare(&frames, 0, spec).unwrap();
    assert_eq!(tensor.shape, [1, spec.rows, spec.columns]);
    let image = uid(&file, dicom::dictionary_std::tags::SOP_INSTANCE_UID);
    let location = Location {
        series: Some(SeriesInstanceUid::parse("2.25.3").unwrap()),
        sop_instance: Some(SopInstanceUid::parse(&image).unwrap()),
        frame: None,
        area: None,
    };
    (
        location,
        Placement::Image(pixel::placement(&frames, 0, spec)),
    )
}

/// As [`image`], for the only volume of a folder.
fn volume(folder: &str, spec: &VolumeSpec) -> (Location, Placement) {
    let items = fs::read_dir(fixtures().join("volumes").join(folder)).unwrap();
    let files: Vec<DicomFile> = items.map(|item| read(&item.unwrap().path())).collect();
    let planes = files.iter().enumerate();
    let planes = planes.flat_map(|(index, file)| slices(file, index).unwrap());
    let volume = &arrange(planes.collect(), spec).unwrap()[0];
    let placement = volume.placement(|file, _| {
        let image = uid(&files[file], dicom::dictionary_std::tags::SOP_INSTANCE_UID);
        Some((SopInstanceUid::parse(&image).unwrap(), None))
    });
    let location = Location {
        series: Some(SeriesInstanceUid::parse("2.25.3").unwrap()),
        sop_instance: None,
        frame: None,
        area: None,
    };
    (location, Placement::Volume(Box::new(placement.unwrap())))
}

fn tensor(output: &Value) -> Tensor {
    let data = if let Some(file) = output["file"].as_str() {
        let bytes = fs::read(fixtures().join("shapes").join(file)).unwrap();
        let words = bytes.as_chunks::<2>().0;
        TensorData::F16(words.iter().map(|word| f16::from_le_bytes(*word)).collect())
    } else if output["integers"].is_array() {
        TensorData::I64(serde_json::from_value(output["integers"].clone()).unwrap())
    } else {
        TensorData::F32(serde_json::from_value(output["values"].clone()).unwrap())
    };
    Tensor {
        shape: serde_json::from_value(output["shape"].clone()).unwrap(),
        data,
    }
}

fn samples(case: &Value, manifest: &Manifest) -> Vec<Sample> {
    let spec = manifest.input().unwrap().1;
    let sample = |sample: &Value| {
        let (location, placement) = match &spec {
            InputSpec::Image(spec) => image(sample["image"].as_str().unwrap(), spec),
            InputSpec::Volume(spec) => volume(sample["folder"].as_str().unwrap(), spec),
            InputSpec::Features(_) => unreachable!("no shapes in a row"),
        };
        let said = |answer: &Value| Said {
            outputs: answer["outputs"]
                .as_array()
                .unwrap()
                .iter()
                .map(tensor)
                .collect(),
            flip: serde_json::from_value(answer["flip"].clone()).unwrap(),
        };
        Sample {
            answers: sample["answers"]
                .as_array()
                .unwrap()
                .iter()
                .map(said)
                .collect(),
            location: Some(location),
            placement: Some(placement),
        }
    };
    case["samples"]
        .as_array()
        .unwrap()
        .iter()
        .map(sample)
        .collect()
}

fn reading(case: &Value) -> Reading {
    let manifest = manifest(case);
    let samples = samples(case, &manifest);
    findings::read(&manifest, &samples).unwrap_or_else(|err| panic!("{}: {err}", case["name"]))
}

fn close(found: f64, expected: f64, name: &str) {
    let tolerance = 1e-5 * expected.abs().max(1.0);
    assert!(
        (found - expected).abs() <= tolerance,
        "{name}: {found} instead of {expected}"
    );
}

/// What boxes and regions have in common.
fn compare(found: &Finding, expected: &Value, name: &str) {
    assert_eq!(found.label, expected["label"].as_str().unwrap(), "{name}");
    assert_eq!(found.present, expected["present"], "{name}");
    close(
        found.probability.unwrap(),
        expected["probability"].as_f64().unwrap(),
        name,
    );
    let image = found.location.as_ref().unwrap().sop_instance.as_ref();
    assert_eq!(
        image.map(|uid| uid.as_str()),
        expected["sop"].as_str(),
        "{name}"
    );
}

#[test]
fn boxes_are_where_the_reference_has_them() {
    for case in cases("detection") {
        let found = reading(&case).findings;
        let expected = case["findings"].as_array().unwrap();
        assert_eq!(found.len(), expected.len(), "{}", case["name"]);
        for (place, (found, expected)) in found.iter().zip(expected).enumerate() {
            let name = format!("{} {place}", case["name"]);
            compare(found, expected, &name);
            match &found.location.as_ref().unwrap().area {
                Some(Area::Box(edges)) => {
                    let wanted: [f64; 4] = serde_json::from_value(expected["box"].clone()).unwrap();
                    for (found, expected) in edges.iter().zip(wanted) {
                        close(*found, expected, &name);
                    }
                }
                _ => assert!(expected["box"].is_null() && !found.present, "{name}"),
            }
        }
    }
}

#[test]
fn regions_are_as_large_as_the_reference_has_them() {
    for case in cases("segmentation") {
        let Reading { findings, drafts } = reading(&case);
        let expected = case["findings"].as_array().unwrap();
        assert_eq!(findings.len(), expected.len(), "{}", case["name"]);
        let mut masks = drafts.iter();
        for (place, (found, expected)) in findings.iter().zip(expected).enumerate() {
            let name = format!("{} {place}", case["name"]);
            compare(found, expected, &name);
            let wanted = expected["measurements"].as_array().unwrap();
            assert_eq!(found.measurements.len(), wanted.len(), "{name}");
            for (found, wanted) in found.measurements.iter().zip(wanted) {
                assert_eq!(found.code.value, wanted[0].as_str().unwrap(), "{name}");
                assert_eq!(found.unit, wanted[1].as_str().unwrap(), "{name}");
                close(found.value, wanted[2].as_f64().unwrap(), &name);
            }
            if expected["mask"].is_object() {
                let draft = masks.next().unwrap();
                assert_eq!((draft.finding, draft.kind), (place, "mask"), "{name}");
                compare_mask(draft, &expected["mask"], &name);
            }
        }
        assert!(masks.next().is_none(), "{}", case["name"]);
    }
}

fn compare_mask(draft: &Draft, expected: &Value, name: &str) {
    assert_eq!(
        draft.extension,
        expected["extension"].as_str().unwrap(),
        "{name}"
    );
    let size: Vec<usize> = serde_json::from_value(expected["size"].clone()).unwrap();
    let pixels = match size.as_slice() {
        [rows, columns] => png_pixels(&draft.bytes, *rows, *columns),
        [planes, rows, columns] => {
            let affine = serde_json::from_value(expected["affine"].clone()).unwrap();
            nifti_voxels(&draft.bytes, [*columns, *rows, *planes], affine, name)
        }
        _ => panic!("{name}: {size:?}"),
    };
    let digest = format!("{:x}", Sha256::digest(&pixels));
    assert_eq!(digest, expected["sha256"].as_str().unwrap(), "{name}");
}

fn png_pixels(bytes: &[u8], rows: usize, columns: usize) -> Vec<u8> {
    let mut decoder = png::Decoder::new(std::io::Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::EXPAND);
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    assert_eq!(pixels.len(), rows * columns);
    pixels.into_iter().map(|pixel| pixel / 255).collect()
}

/// By the offsets of nifti1.h.
fn nifti_voxels(bytes: &[u8], size: [usize; 3], affine: [[f64; 4]; 3], name: &str) -> Vec<u8> {
    let mut file = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut file).unwrap();
    let short = |at: usize| i16::from_le_bytes([file[at], file[at + 1]]);
    let float = |at: usize| f32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    assert_eq!(
        (&file[344..348], short(0), short(40)),
        (&b"n+1\0"[..], 348, 3)
    );
    assert_eq!([42, 44, 46].map(|at| short(at) as usize), size, "{name}");
    assert_eq!((short(70), short(72), short(252), short(254)), (2, 8, 0, 1));
    for (row, expected) in affine.iter().enumerate() {
        for (column, expected) in expected.iter().enumerate() {
            let found = f64::from(float(280 + 16 * row + 4 * column));
            // GDCM takes the distance of planes from positions of 16 digits.
            assert!(
                (found - expected).abs() < 1e-4,
                "{name}: {found} {expected}"
            );
        }
    }
    file.split_off(float(108) as usize)
}

#[test]
fn the_same_answers_give_the_same_bytes() {
    for case in cases("segmentation") {
        let bytes = |reading: Reading| {
            let drafts = reading.drafts.into_iter();
            drafts.map(|draft| draft.bytes).collect::<Vec<_>>()
        };
        assert_eq!(
            bytes(reading(&case)),
            bytes(reading(&case)),
            "{}",
            case["name"]
        );
    }
}

/// A manifest's refusal needs a case that would work without it.
#[test]
fn what_is_no_answer_is_refused() {
    let refused = |case: &Value, spoil: &dyn Fn(&mut Tensor, usize)| {
        let manifest = manifest(case);
        let mut samples = samples(case, &manifest);
        let outputs = &mut samples[0].answers[0].outputs;
        for (place, output) in outputs.iter_mut().enumerate() {
            spoil(output, place);
        }
        findings::read(&manifest, &samples).unwrap_err().code
    };
    let boxes = &cases("detection")[0];
    let fill = |wanted: usize, value: f32| {
        move |tensor: &mut Tensor, place: usize| {
            if let (TensorData::F32(values), true) = (&mut tensor.data, place == wanted) {
                values.fill(value);
            }
        }
    };
    assert_eq!(
        refused(boxes, &fill(0, f32::NAN)),
        "model-output-not-finite"
    );
    assert_eq!(
        refused(boxes, &fill(1, f32::INFINITY)),
        "model-output-not-finite"
    );
    let reversed = |tensor: &mut Tensor, place: usize| {
        if let (TensorData::F32(values), 0) = (&mut tensor.data, place) {
            values.reverse();
        }
    };
    assert_eq!(refused(boxes, &reversed), "model-output-reversed-box");
    let fewer = |tensor: &mut Tensor, place: usize| {
        if place == 1 {
            tensor.shape[0] -= 1;
        }
    };
    assert_eq!(refused(boxes, &fewer), "model-output-shape");
    let one_label = |tensor: &mut Tensor, place: usize| {
        if place == 1 {
            tensor.shape[1] = 1;
        }
    };
    assert_eq!(refused(boxes, &one_label), "model-output-too-short");

    let regions = &cases("segmentation")[0];
    let other_size = |tensor: &mut Tensor, _: usize| tensor.shape[1] -= 1;
    assert_eq!(refused(regions, &other_size), "model-output-shape");
    let channels = |tensor: &mut Tensor, _: usize| {
        tensor.shape[0] = 1;
        let plane = tensor.len();
        if let TensorData::F16(values) = &mut tensor.data {
            values.truncate(plane);
        }
    };
    assert_eq!(refused(regions, &channels), "model-output-too-short");
    let mut plain = cases("segmentation")[0].clone();
    plain["output"]["activation"] = json!("none");
    assert_eq!(refused(&plain, &|_, _| {}), "model-output-not-probability");
    // An image without Pixel Spacing has no area in mm2.
    plain = cases("segmentation")[0].clone();
    plain["output"]["labels"][0]["min_area_mm2"] = json!(1.0);
    assert_eq!(refused(&plain, &|_, _| {}), "geometry-missing");
}
