//! The report as tables on stdout.

use super::super::table;
use crate::evaluation::html::number;
use crate::evaluation::{Figure, Report, agreement, figures};

/// Columns of figures beside each other.
const COLUMNS: usize = 4;

/// Everything but the curves.
pub(super) fn print(report: &Report) {
    let (model, account) = (&report.model, &report.account);
    println!("{} {} ({})\n", model.name, model.version, model.kind);
    let mut rows = vec![
        vec!["in the folder".to_owned(), account.studies.to_string()],
        vec!["evaluated".to_owned(), account.evaluated.to_string()],
        vec![
            "without a label".to_owned(),
            account.without_label.len().to_string(),
        ],
        vec![
            "labels without a study".to_owned(),
            account.without_study.len().to_string(),
        ],
        vec![
            "unreadable files".to_owned(),
            account.unreadable.len().to_string(),
        ],
    ];
    for (code, studies) in &account.left_out {
        rows.push(vec![
            format!("not evaluated: {code}"),
            studies.len().to_string(),
        ]);
    }
    println!("{}\n", table::render(&["studies", "count"], &rows));
    for labels in report.all.labels.chunks(COLUMNS) {
        let names: Vec<&str> = labels.iter().map(|label| label.label.as_str()).collect();
        let mut rows = vec![
            row("studies", labels, |label| label.studies.to_string()),
            row("with the label", labels, |label| {
                label.positives.to_string()
            }),
            row("tp fp fn tn", labels, |label| {
                let counts = label.confusion;
                let (tp, fp) = (counts.true_positives, counts.false_positives);
                format!(
                    "{tp} {fp} {} {}",
                    counts.false_negatives, counts.true_negatives
                )
            }),
        ];
        rows.extend(figures::NAMES.map(|name| row(name, labels, |l| cell(l.figures.get(name)))));
        println!("{}\n", table::render(&header(&names), &rows));
    }
    for quantities in report.all.quantities.chunks(COLUMNS) {
        let names: Vec<&str> = quantities.iter().map(|q| q.label.as_str()).collect();
        let mut rows = vec![row("studies", quantities, |q| q.studies.to_string())];
        rows.extend(
            agreement::NAMES.map(|name| row(name, quantities, |q| cell(q.figures.get(name)))),
        );
        println!("{}\n", table::render(&header(&names), &rows));
    }
    if let Some(matrix) = &report.classes {
        let columns = matrix.counts.first().map_or(0, Vec::len);
        let names: Vec<&str> = matrix
            .classes
            .iter()
            .take(columns)
            .map(String::as_str)
            .collect();
        let classes = matrix.classes.iter().zip(&matrix.counts);
        let rows: Vec<Vec<String>> = classes
            .map(|(class, counts)| {
                let counts = counts.iter().map(u64::to_string);
                std::iter::once(class.clone()).chain(counts).collect()
            })
            .collect();
        println!(
            "{}\n",
            table::render(&[&["is \\ most probable"], &names[..]].concat(), &rows)
        );
    }
    subgroups(report);
}

fn subgroups(report: &Report) {
    let mut rows = Vec::new();
    for group in &report.subgroups {
        for label in &group.part.labels {
            let figure = |name: &str| cell(label.figures.get(name));
            rows.push(vec![
                format!("{} {}", group.by, group.value),
                label.label.clone(),
                format!("{} ({})", label.studies, label.positives),
                figure("auc"),
                figure("recall"),
                figure("specificity"),
            ]);
        }
    }
    if !rows.is_empty() {
        let header = [
            "subgroup",
            "label",
            "studies (with it)",
            "auc",
            "recall",
            "specificity",
        ];
        println!("{}", table::render(&header, &rows));
    }
    let mut rows = Vec::new();
    for group in &report.subgroups {
        for quantity in &group.part.quantities {
            let figure = |name: &str| cell(quantity.figures.get(name));
            rows.push(vec![
                format!("{} {}", group.by, group.value),
                quantity.label.clone(),
                quantity.studies.to_string(),
                figure("mae"),
                figure("bias"),
            ]);
        }
    }
    if !rows.is_empty() {
        let header = ["subgroup", "quantity", "studies", "mae", "bias"];
        println!("{}", table::render(&header, &rows));
    }
}

fn header<'a>(names: &[&'a str]) -> Vec<&'a str> {
    [&["figure"], names].concat()
}

fn row<T>(name: &str, items: &[T], cell: impl Fn(&T) -> String) -> Vec<String> {
    std::iter::once(name.to_owned())
        .chain(items.iter().map(cell))
        .collect()
}

fn cell(figure: Option<&Figure>) -> String {
    let Some(value) = figure.and_then(|figure| figure.value) else {
        return "not defined".to_owned();
    };
    match figure.and_then(|figure| figure.ci95) {
        Some([low, high]) => format!("{} ({} to {})", number(value), number(low), number(high)),
        None => number(value),
    }
}
