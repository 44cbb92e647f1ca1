//! Figures and intervals against scikit-learn's, NumPy's and SciPy's (`scripts/golden_evaluation.py`).
#![allow(clippy::unwrap_used)]

use serde_json::Value;

use super::bootstrap::{self, Draws};
use super::*;

fn golden() -> Value {
    let text = include_str!("../../tests/fixtures/evaluation/figures.json");
    serde_json::from_str(text).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    let items = value.as_array().unwrap().iter();
    items.map(|item| item.as_f64().unwrap()).collect()
}

fn draws(golden: &Value) -> Draws {
    Draws {
        count: golden["draws"].as_u64().unwrap() as usize,
        seed: golden["seed"].as_u64().unwrap(),
    }
}

#[track_caller]
fn same(what: &str, ours: Option<f64>, theirs: &Value, tolerance: f64) {
    match (ours, theirs.as_f64()) {
        (None, None) => {}
        (Some(ours), Some(theirs)) => {
            assert!(
                (ours - theirs).abs() <= tolerance,
                "{what}: {ours}, not {theirs}"
            );
        }
        other => panic!("{what}: {other:?}"),
    }
}

fn cases(golden: &Value) -> Vec<Case> {
    let threshold = golden["threshold"].as_f64().unwrap();
    let scores = numbers(&golden["scores"]).into_iter();
    scores
        .zip(numbers(&golden["truth"]))
        .map(|(score, truth)| Case {
            score,
            called: score >= threshold,
            positive: truth > 0.5,
        })
        .collect()
}

#[test]
fn labels_have_the_figures_of_scikit_learn() {
    let golden = golden();
    assert_eq!(golden["bins"], figures::BINS);
    for case in golden["labels"].as_array().unwrap() {
        let (groups, _) = figures::group(&cases(case));
        let counts = figures::confusion(&groups);
        let ravelled = [
            counts.true_negatives,
            counts.false_positives,
            counts.false_negatives,
            counts.true_positives,
        ];
        assert_eq!(
            ravelled.map(|n| n as f64).to_vec(),
            numbers(&case["confusion"])
        );
        for (name, ours) in figures::NAMES.iter().zip(figures::figures(&groups, true)) {
            let what = format!("{name} of {}", case["name"]);
            same(&what, ours, &case["figures"][name], 1e-12);
        }
        // scikit-learn leaves out the points of a straight line too, its own way: ours must lie on
        // theirs and have the same ends.
        let (ours, theirs) = (figures::roc(&groups), case["roc"].as_array().unwrap());
        assert_eq!(ours.is_empty(), theirs.is_empty());
        for point in &ours {
            let near = |theirs: &Value| {
                let theirs = numbers(theirs);
                (theirs[0] - point[0]).abs() < 1e-12 && (theirs[1] - point[1]).abs() < 1e-12
            };
            assert!(theirs.iter().any(near), "{point:?} of {}", case["name"]);
        }
    }
}

#[test]
fn intervals_are_those_of_the_same_draws_in_numpy() {
    let golden = golden();
    for case in golden["labels"].as_array().unwrap() {
        let intervals = bootstrap::label(&cases(case), true, draws(&golden));
        for (name, ours) in figures::NAMES.iter().zip(intervals) {
            let theirs = &case["intervals"][name];
            assert_eq!(
                ours.is_none(),
                theirs.is_null(),
                "{name} of {}",
                case["name"]
            );
            for (end, ours) in ours.into_iter().flatten().enumerate() {
                let what = format!("{name} of {}", case["name"]);
                same(&what, Some(ours), &theirs[end], 1e-12);
            }
        }
    }
}

#[test]
fn intervals_agree_with_those_of_scipy() {
    // Other draws: the ends of 2,000 and of 5,000 draws scatter by about a hundredth.
    let golden = golden();
    let many = Draws {
        count: 2000,
        seed: 1,
    };
    let mut compared = 0;
    for case in golden["labels"].as_array().unwrap() {
        let intervals = bootstrap::label(&cases(case), true, many);
        for (name, ours) in figures::NAMES.iter().zip(intervals) {
            let theirs = &case["scipy"][name];
            let (Some(ours), false) = (ours, theirs.is_null()) else {
                continue;
            };
            for (end, ours) in ours.into_iter().enumerate() {
                let what = format!("{name} of {}", case["name"]);
                same(&what, Some(ours), &theirs[end], 0.015);
                compared += 1;
            }
        }
    }
    assert!(compared >= 20, "{compared}");
}

#[test]
fn quantities_have_the_figures_of_scikit_learn() {
    let golden = golden();
    for case in golden["quantities"].as_array().unwrap() {
        let predicted = numbers(&case["predicted"]).into_iter();
        let pairs: Vec<Pair> = predicted
            .zip(numbers(&case["actual"]))
            .map(|(predicted, actual)| Pair { predicted, actual })
            .collect();
        let intervals = bootstrap::values(&pairs, agreement::figures, draws(&golden));
        let values = agreement::figures(&pairs);
        for ((name, ours), ends) in agreement::NAMES.iter().zip(values).zip(intervals) {
            same(name, ours, &case["figures"][name], 1e-12);
            for (end, ours) in ends.unwrap().into_iter().enumerate() {
                same(name, Some(ours), &case["intervals"][name][end], 1e-12);
            }
        }
    }
}

fn subject(given: [f64; 2], truth: [f64; 2], ward: &str) -> Subject {
    let labels = ["a", "b"].map(str::to_owned);
    let given = given.map(|score| Given {
        score,
        present: score >= 0.5,
    });
    Subject {
        given: labels.clone().into_iter().zip(given).collect(),
        truth: labels.into_iter().zip(truth).collect(),
        groups: vec![ward.to_owned()],
    }
}

fn evaluation<'a>(
    task: Task,
    labels: &'a [(String, Option<f64>)],
    groupings: &'a [String],
    subjects: &'a [Subject],
) -> Evaluation<'a> {
    Evaluation {
        task,
        labels,
        all_labels: 2,
        groupings,
        subjects,
        draws: Draws { count: 20, seed: 1 },
    }
}

#[test]
fn subgroups_are_parts_of_the_whole() {
    let labels = ["a", "b"].map(|label| (label.to_owned(), Some(0.5)));
    let groupings = ["ward".to_owned()];
    let mut subjects = vec![
        subject([0.9, 0.1], [1.0, 0.0], "w1"),
        subject([0.2, 0.8], [0.0, 1.0], "w2"),
        subject([0.6, 0.4], [0.0, 1.0], "w1"),
    ];
    subjects[1].truth.remove("b");
    let task = Task::Classification { exclusive: false };
    let evaluation = evaluation(task, &labels, &groupings, &subjects);
    let all = evaluation.all();
    assert_eq!((all.labels[0].studies, all.labels[1].studies), (3, 2));
    assert!(!all.labels[0].roc.is_empty());
    let groups = evaluation.subgroups();
    let values: Vec<(&str, usize)> = groups
        .iter()
        .map(|g| (g.value.as_str(), g.studies))
        .collect();
    assert_eq!(values, [("w1", 2), ("w2", 1)]);
    assert!(groups[0].part.labels[0].roc.is_empty());
    // Nobody is known in w2 for b: no figure, and no number in its place.
    let nobody = &groups[1].part.labels[1];
    assert!(
        nobody
            .figures
            .values()
            .all(|f| f.value.is_none() && f.ci95.is_none())
    );
    assert!(evaluation.classes().is_none());
}

#[test]
fn exclusive_labels_have_a_matrix_unless_a_study_has_two() {
    let labels = ["a", "b"].map(|label| (label.to_owned(), Some(0.5)));
    let mut subjects = vec![
        subject([0.9, 0.1], [1.0, 0.0], ""),
        subject([0.9, 0.1], [0.0, 1.0], ""),
        subject([0.2, 0.8], [0.0, 0.0], ""),
    ];
    let task = Task::Classification { exclusive: true };
    let matrix = evaluation(task, &labels, &[], &subjects).classes().unwrap();
    assert_eq!(matrix.classes, ["a", "b", "(none)"]);
    assert_eq!(matrix.counts, [[1, 0], [1, 0], [0, 1]]);
    assert_eq!(matrix.accuracy.value, Some(1.0 / 3.0));
    subjects.push(subject([0.9, 0.1], [1.0, 1.0], ""));
    assert!(
        evaluation(task, &labels, &[], &subjects)
            .classes()
            .is_none()
    );
}

#[test]
fn quantities_and_classes_are_shown_too() {
    let labels = ["a", "b"].map(|label| (label.to_owned(), None));
    let groupings = ["ward".to_owned()];
    let subjects: Vec<Subject> = (0..40)
        .map(f64::from)
        .map(|at| subject([at, 100.0 - at], [at * 1.1, 97.0], "w<1>"))
        .collect();
    let regression = evaluation(Task::Regression, &labels, &groupings, &subjects);
    let exclusive = Task::Classification { exclusive: true };
    let classes = vec![
        subject([0.9, 0.1], [1.0, 0.0], ""),
        subject([0.2, 0.8], [0.0, 0.0], ""),
    ];
    let report = Report {
        made_at: "2026-01-02T03:04:05Z".to_owned(),
        model: Model {
            name: "m".to_owned(),
            version: "1".to_owned(),
            sha256: "ab".to_owned(),
            title: "Bones & <ages>".to_owned(),
            intended_use: "Tests".to_owned(),
            kind: "regression",
        },
        settings: Settings {
            gateway: "0",
            onnxruntime: "1".to_owned(),
            preprocessing_version: "1".to_owned(),
            draws: 20,
            seed: 1,
            bins: figures::BINS,
        },
        account: Account::default(),
        all: regression.all(),
        classes: evaluation(exclusive, &labels, &[], &classes).classes(),
        subgroups: regression.subgroups(),
    };
    let page = html::render(&report).unwrap();
    for shown in [
        "Limit",
        "limit of agreement",
        "(none)",
        "Bones &amp; &lt;ages&gt;",
        "w&lt;1&gt;",
        "MAE",
    ] {
        assert!(
            page.to_lowercase().contains(&shown.to_lowercase()),
            "{shown}"
        );
    }
    assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["quantities"][0]["studies"], 40);
    assert_eq!(json["subgroups"][0]["quantities"][1]["studies"], 40);
    assert!(json.get("labels").is_none());
}
