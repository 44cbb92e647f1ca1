//! A hundred studies whose scores are not what the manifest's reference says: the index shows in the
//! metrics and in `/api/v1/models`, and only after a hundred.

use std::path::{Path, PathBuf};

use crate::support::files::copy_dir;
use crate::support::gateway::binary;
use crate::support::golden;
use crate::support::options::repository;
use crate::support::{Gateway, Options, peers};

/// Σ (a − e) ln(a ÷ e) of the fractions 0 (counted as 0.0001) and 1 against 0.9 and 0.1, by NumPy.
const DRIFTED: f64 = 10.265_897_956_395_53;

#[test]
fn drift_is_told_after_a_hundred_studies() {
    let models = tempfile::tempdir().unwrap();
    let model = models.path().join("cxr-phantom");
    copy_dir(&repository().join("models/cxr-phantom"), &model);
    refer(&model.join("model.toml"));
    let gateway = Gateway::start(&Options::new().models(models.path().to_owned()));
    let case = golden::cases()
        .into_iter()
        .find(|case| case.name == "opacity")
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let copies = copies(&case.files[0], folder.path(), 100);
    let of = |label| {
        [
            ("model", "cxr-phantom"),
            ("version", "1.0.0"),
            ("label", label),
        ]
    };

    send(&gateway, &copies[..99]);
    gateway.wait_until_done(
        &copies[..99]
            .iter()
            .map(|(_, uid)| uid.as_str())
            .collect::<Vec<_>>(),
    );
    assert_eq!(gateway.metric("score_count", &of("opacity")), 99.0);
    assert_eq!(gateway.metric("drift_psi", &of("opacity")), 0.0, "absent");
    let told = gateway.get("/api/v1/models")["models"][0]["drift"].clone();
    assert_eq!(told[0]["studies"], 99, "{told}");
    assert!(told[0]["psi"].is_null(), "{told}");

    send(&gateway, &copies[99..]);
    gateway.wait_until_done(&[&copies[99].1]);
    let drift = gateway.metric("drift_psi", &of("opacity"));
    assert!((drift - DRIFTED).abs() < 1e-9, "{drift}");
    // Its scores are where the reference has them.
    let drift = gateway.metric("drift_psi", &of("pneumothorax"));
    assert!(drift.abs() < 1e-9, "{drift}");
    let told = gateway.get("/api/v1/models")["models"][0]["drift"].clone();
    assert_eq!(
        (&told[0]["label"], &told[0]["studies"]),
        (&"opacity".into(), &100.into())
    );
    assert!(
        (told[0]["psi"].as_f64().unwrap() - DRIFTED).abs() < 1e-9,
        "{told}"
    );

    let present = |label, present| {
        let labels = [&of(label)[..], &[("present", present)]].concat();
        gateway.metric("findings_total", &labels)
    };
    assert_eq!(
        (present("opacity", "true"), present("opacity", "false")),
        (100.0, 0.0)
    );
    assert_eq!(
        (
            present("pneumothorax", "true"),
            present("pneumothorax", "false")
        ),
        (0.0, 100.0)
    );
    assert_eq!(
        gateway.metric("input_mean_count", &of("opacity")[..2]),
        100.0
    );
    assert_eq!(
        gateway.metric("input_deviation_count", &of("opacity")[..2]),
        100.0
    );
}

/// Replaces the references of a manifest: opacity is rare, and so is pneumothorax.
fn refer(manifest: &Path) {
    let mut table: toml::Table = std::fs::read_to_string(manifest).unwrap().parse().unwrap();
    let reference = |label: &str, fractions: [f64; 2]| {
        toml::Table::from_iter([
            ("label".to_owned(), label.into()),
            ("edges".to_owned(), vec![0.5].into()),
            ("fractions".to_owned(), fractions.to_vec().into()),
        ])
    };
    let references = [
        reference("opacity", [0.9, 0.1]),
        reference("pneumothorax", [1.0, 0.0]),
    ];
    table.insert("reference".to_owned(), references.to_vec().into());
    std::fs::write(manifest, toml::to_string(&table).unwrap()).unwrap();
}

/// Copies of a file that are studies of their own, with their Study Instance UIDs.
fn copies(file: &Path, folder: &Path, count: usize) -> Vec<(PathBuf, String)> {
    let bytes = std::fs::read(file).unwrap();
    // All UIDs of the golden files are `2.25.` and a long number; its last digits are replaced.
    let places: Vec<usize> = (0..bytes.len())
        .filter(|at| bytes[*at..].starts_with(b"2.25."))
        .map(|at| {
            at + bytes[at..]
                .iter()
                .take_while(|b| b.is_ascii_digit() || **b == b'.')
                .count()
        })
        .collect();
    assert!(places.len() >= 4, "the golden file has other UIDs");
    (0..count)
        .map(|number| {
            let mut copy = bytes.clone();
            for end in &places {
                copy[end - 4..*end].copy_from_slice(format!("{:04}", number + 1000).as_bytes());
            }
            let path = folder.join(format!("{number}.dcm"));
            std::fs::write(&path, &copy).unwrap();
            let uid = golden::study_uid(&copy);
            (path, uid)
        })
        .collect()
}

fn send(gateway: &Gateway, copies: &[(PathBuf, String)]) {
    let target = format!("PACSGATEWAY@127.0.0.1:{}", gateway.dicom_port);
    let mut command = binary();
    command
        .args(["send", "--to", &target])
        .args(copies.iter().map(|(path, _)| path));
    peers::succeeded(&peers::run(&mut command));
}
