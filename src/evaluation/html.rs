//! A report for people: one HTML file without script or anything from outside, made to be printed.

use std::fmt::{self, Display, Write};

use super::figures::{BINS, Confusion};
use super::{Account, Figure, Label, Matrix, Model, Part, Quantity, Report, Settings, Subgroup};
use super::{agreement, figures, plot};

const STYLE: &str = include_str!("report.css");

/// Studies that are listed by name at most, per reason.
const LISTED: usize = 50;

/// What each figure is, for people.
const MEANING: [(&str, &str); figures::NAMES.len()] = [
    ("Accuracy", "called rightly, of all"),
    ("Precision (PPV)", "there, of those called"),
    ("Recall (sensitivity)", "called, of those there"),
    ("Specificity", "not called, of those not there"),
    ("NPV", "not there, of those not called"),
    ("F1", "harmonic mean of precision and recall"),
    ("AUC", "area under the ROC curve"),
    (
        "Brier score",
        "mean squared error of the probability; 0 is best",
    ),
    (
        "Calibration error (ECE)",
        "mean gap of probability and frequency; 0 is best",
    ),
];

const QUANTITY_MEANING: [(&str, &str); agreement::NAMES.len()] = [
    ("Mean absolute error", ""),
    ("Root mean squared error", ""),
    ("Bias", "mean of predicted − actual"),
    (
        "Lower limit of agreement",
        "bias − 1.96 standard deviations",
    ),
    (
        "Upper limit of agreement",
        "bias + 1.96 standard deviations",
    ),
];

/// Figures in the table of subgroups.
const SHORT: [(&str, &str); 6] = [
    ("auc", "AUC"),
    ("recall", "Sensitivity"),
    ("specificity", "Specificity"),
    ("precision", "Precision"),
    ("f1", "F1"),
    ("ece", "ECE"),
];
const SHORT_QUANTITY: [(&str, &str); 3] = [("mae", "MAE"), ("rmse", "RMSE"), ("bias", "Bias")];

/// Text in HTML.
struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// The number with its interval, or that there is none.
struct Cell<'a>(Option<&'a Figure>);

impl Display for Cell<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(value) = self.0.and_then(|figure| figure.value) else {
            return f.write_str("<span class=\"none\">not defined</span>");
        };
        write!(f, "{}", number(value))?;
        match self.0.and_then(|figure| figure.ci95) {
            Some([low, high]) => write!(f, " <small>{} to {}</small>", number(low), number(high)),
            None => f.write_str(" <small>no interval</small>"),
        }
    }
}

/// A number for people: three digits after the point, fewer for large ones.
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        large if large >= 1000.0 => 0,
        large if large >= 100.0 => 1,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    // No negative zero, and a minus that is as wide as a plus.
    match text.strip_prefix('-') {
        Some(zero) if zero.chars().all(|c| matches!(c, '0' | '.')) => zero.to_owned(),
        Some(rest) => format!("−{rest}"),
        None => text,
    }
}

/// The whole document.
///
/// # Errors
/// None in practice: a string takes what is written.
pub fn render(report: &Report) -> Result<String, fmt::Error> {
    let mut out = String::new();
    let model = &report.model;
    let title = format!("{} {}", model.name, model.version);
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>Evaluation of {0}</title><style>{STYLE}</style></head><body>\
         <h1>Evaluation of {0}</h1><p class=\"lead\">{1}</p>",
        Text(&title),
        Text(&model.title)
    )?;
    head(&mut out, report)?;
    account(&mut out, &report.account)?;
    for label in &report.all.labels {
        self::label(&mut out, label)?;
    }
    for quantity in &report.all.quantities {
        self::quantity(&mut out, quantity)?;
    }
    if let Some(matrix) = &report.classes {
        classes(&mut out, matrix)?;
    }
    if !report.subgroups.is_empty() {
        out.push_str("<h2>Subgroups</h2>");
        subgroups(&mut out, &report.all, &report.subgroups)?;
    }
    foot(&mut out, &report.settings)?;
    out.push_str("</body></html>\n");
    Ok(out)
}

fn head(out: &mut String, report: &Report) -> fmt::Result {
    let (
        Model {
            sha256,
            kind,
            intended_use,
            ..
        },
        settings,
    ) = (&report.model, &report.settings);
    out.push_str("<dl class=\"facts\">");
    for (name, value) in [
        ("Made", Text(report.made_at.get(..10).unwrap_or_default())),
        ("Intended use", Text(intended_use)),
        ("Task", Text(kind)),
    ] {
        write!(out, "<dt>{name}</dt><dd>{value}</dd>")?;
    }
    write!(
        out,
        "<dt>SHA-256</dt><dd><code>{}</code></dd>\
         <dt>Run with</dt><dd>pacs-gateway {}, ONNX Runtime {}, preprocessing {}</dd></dl>",
        Text(sha256),
        settings.gateway,
        Text(&settings.onnxruntime),
        Text(&settings.preprocessing_version)
    )
}

fn account(out: &mut String, account: &Account) -> fmt::Result {
    let left_out: usize = account.left_out.values().map(Vec::len).sum();
    out.push_str("<h2>Studies</h2><div class=\"tiles\">");
    for (count, what) in [
        (account.studies, "studies in the folder"),
        (account.evaluated, "evaluated"),
        (left_out, "labelled, but without an answer"),
        (account.without_label.len(), "without a label"),
    ] {
        write!(
            out,
            "<div class=\"tile\"><b>{count}</b><span>{what}</span></div>"
        )?;
    }
    out.push_str("</div>");
    let mut lists: Vec<(String, &[String])> = account
        .left_out
        .iter()
        .map(|(code, studies)| (format!("Not evaluated: {code}"), studies.as_slice()))
        .collect();
    lists.push(("Studies without a label".to_owned(), &account.without_label));
    lists.push(("Labels without a study".to_owned(), &account.without_study));
    lists.push((
        "Files that could not be read".to_owned(),
        &account.unreadable,
    ));
    for (title, items) in lists.iter().filter(|(_, items)| !items.is_empty()) {
        write!(out, "<h3>{} ({})</h3><p>", Text(title), items.len())?;
        for item in items.iter().take(LISTED) {
            write!(out, "<code>{}</code> ", Text(item))?;
        }
        if items.len() > LISTED {
            write!(
                out,
                "and {} more; all are in the JSON report",
                items.len() - LISTED
            )?;
        }
        out.push_str("</p>");
    }
    Ok(())
}

fn label(out: &mut String, label: &Label) -> fmt::Result {
    write!(
        out,
        "<section class=\"label\"><h2>{}</h2><p>{} studies, {} with the label",
        Text(&label.label),
        label.studies,
        label.positives
    )?;
    if let Some(threshold) = label.threshold {
        write!(out, "; called at a probability of {} or more", threshold)?;
    }
    out.push_str(".</p><div class=\"cols\"><table><thead><tr><th>Figure</th><th>Value <small>95 % interval</small></th></tr></thead>");
    for (name, (title, meaning)) in figures::NAMES.iter().zip(MEANING) {
        let cell = Cell(label.figures.get(name));
        write!(
            out,
            "<tr><td title=\"{meaning}\">{title}</td><td>{cell}</td></tr>"
        )?;
    }
    out.push_str("</table>");
    confusion(out, &label.confusion)?;
    out.push_str("</div>");
    if !label.calibration.is_empty() {
        out.push_str("<div class=\"plots\"><figure><figcaption>ROC curve <span>the dot is the operating point</span></figcaption>");
        if label.roc.is_empty() {
            out.push_str("<p class=\"none\">Not defined: all studies are of one class.</p>");
        } else {
            let figure = |name| {
                label
                    .figures
                    .get(name)
                    .and_then(|figure: &Figure| figure.value)
            };
            let at = figure("specificity").zip(figure("recall"));
            out.push_str(&plot::roc(&label.roc, at.map(|(no, yes)| [1.0 - no, yes])));
        }
        write!(
            out,
            "</figure><figure><figcaption>Calibration <span>{BINS} bins, dots by number of studies</span></figcaption>{}{}</figure></div>",
            plot::reliability(&label.calibration),
            plot::counts(&label.calibration)
        )?;
    }
    out.push_str("</section>");
    Ok(())
}

fn confusion(out: &mut String, counts: &Confusion) -> fmt::Result {
    let all = counts.true_positives
        + counts.false_positives
        + counts.false_negatives
        + counts.true_negatives;
    out.push_str(
        "<table class=\"matrix\"><thead><tr><th></th><th>called</th><th>not called</th></tr></thead>",
    );
    for (title, cells) in [
        (
            "has it",
            [
                (counts.true_positives, "true positives", true),
                (counts.false_negatives, "false negatives", false),
            ],
        ),
        (
            "has it not",
            [
                (counts.false_positives, "false positives", false),
                (counts.true_negatives, "true negatives", true),
            ],
        ),
    ] {
        write!(out, "<tr><th>{title}</th>")?;
        for (count, name, right) in cells {
            let shade = shade(count, all, right);
            write!(out, "<td {shade}><b>{count}</b><span>{name}</span></td>")?;
        }
        out.push_str("</tr>");
    }
    out.push_str("</table>");
    Ok(())
}

/// Blue where it is right, orange where it is not, stronger with the number of studies.
fn shade(count: u64, all: u64, right: bool) -> String {
    let part = count as f64 / all.max(1) as f64;
    let alpha = if count == 0 { 0.04 } else { 0.12 + 0.5 * part };
    let colour = if right { "31 95 139" } else { "196 98 45" };
    format!("style=\"background:rgb({colour} / {alpha:.2})\"")
}

fn quantity(out: &mut String, quantity: &Quantity) -> fmt::Result {
    write!(
        out,
        "<section class=\"label\"><h2>{}</h2><p>{} studies.</p><div class=\"cols\"><table><thead><tr><th>Figure</th>\
         <th>Value <small>95 % interval</small></th></tr></thead>",
        Text(&quantity.label),
        quantity.studies
    )?;
    for (name, (title, meaning)) in agreement::NAMES.iter().zip(QUANTITY_MEANING) {
        let cell = Cell(quantity.figures.get(name));
        write!(
            out,
            "<tr><td title=\"{meaning}\">{title}</td><td>{cell}</td></tr>"
        )?;
    }
    let lines = ["limit_low", "bias", "limit_high"]
        .map(|name| quantity.figures.get(name).and_then(|figure| figure.value));
    write!(
        out,
        "</table><figure><figcaption>Differences <span>bias and limits of agreement</span></figcaption>{}</figure></div></section>",
        plot::differences(&quantity.pairs, lines)
    )
}

fn classes(out: &mut String, matrix: &Matrix) -> fmt::Result {
    let all = matrix.counts.iter().flatten().sum();
    write!(
        out,
        "<h2>Classes</h2><p>Rows: what a study is. Columns: the most probable label. Accuracy {}</p>\
         <table class=\"matrix\"><thead><tr><th></th>",
        Cell(Some(&matrix.accuracy))
    )?;
    let columns = matrix.counts.first().map_or(0, Vec::len);
    for class in matrix.classes.iter().take(columns) {
        write!(out, "<th>{}</th>", Text(class))?;
    }
    out.push_str("</tr></thead>");
    for (row, (class, counts)) in matrix.classes.iter().zip(&matrix.counts).enumerate() {
        write!(out, "<tr><th>{}</th>", Text(class))?;
        for (column, count) in counts.iter().enumerate() {
            let shade = shade(*count, all, row == column);
            write!(out, "<td {shade}><b>{count}</b></td>")?;
        }
        out.push_str("</tr>");
    }
    out.push_str("</table>");
    Ok(())
}

fn subgroups(out: &mut String, all: &Part, subgroups: &[Subgroup]) -> fmt::Result {
    for (index, label) in all.labels.iter().enumerate() {
        table_head(out, &label.label, &["Studies", "With it"], &SHORT)?;
        for group in subgroups {
            if let Some(label) = group.part.labels.get(index) {
                let counts = [label.studies, label.positives];
                row(out, group, &counts, &SHORT, |name| label.figures.get(name))?;
            }
        }
        out.push_str("</table>");
    }
    for (index, quantity) in all.quantities.iter().enumerate() {
        table_head(out, &quantity.label, &["Studies"], &SHORT_QUANTITY)?;
        for group in subgroups {
            if let Some(quantity) = group.part.quantities.get(index) {
                row(out, group, &[quantity.studies], &SHORT_QUANTITY, |name| {
                    quantity.figures.get(name)
                })?;
            }
        }
        out.push_str("</table>");
    }
    Ok(())
}

fn table_head(
    out: &mut String,
    title: &str,
    counts: &[&str],
    names: &[(&str, &str)],
) -> fmt::Result {
    let title = Text(title);
    write!(
        out,
        "<h3>{title}</h3><table class=\"wide\"><thead><tr><th>By</th><th>Value</th>"
    )?;
    for count in counts {
        write!(out, "<th class=\"n\">{count}</th>")?;
    }
    for (_, name) in names {
        write!(out, "<th>{name}</th>")?;
    }
    out.push_str("</tr></thead>");
    Ok(())
}

fn row<'a>(
    out: &mut String,
    group: &Subgroup,
    counts: &[usize],
    names: &[(&str, &str)],
    figure: impl Fn(&str) -> Option<&'a Figure>,
) -> fmt::Result {
    let value = match group.value.as_str() {
        "" => "(none)",
        value => value,
    };
    write!(
        out,
        "<tr><td>{}</td><td>{}</td>",
        Text(&group.by),
        Text(value)
    )?;
    for count in counts {
        write!(out, "<td class=\"n\">{count}</td>")?;
    }
    for (name, _) in names {
        write!(out, "<td>{}</td>", Cell(figure(name)))?;
    }
    out.push_str("</tr>");
    Ok(())
}

fn foot(out: &mut String, settings: &Settings) -> fmt::Result {
    write!(
        out,
        "<footer>Intervals: 95 % percentile bootstrap, {} draws of studies, seed {}; the AUC is drawn within studies that have the \
         label and those that have not. Several images or series of a study: the highest probability counts. Figures describe \
         these studies and no others; few studies mean wide intervals.</footer>",
        settings.draws, settings.seed
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_have_no_negative_zero() {
        for (value, expected) in [
            (0.5, "0.500"),
            (-0.0001, "0.000"),
            (-1.25, "−1.250"),
            (123.46, "123.5"),
            (12345.6, "12346"),
        ] {
            assert_eq!(number(value), expected);
        }
    }

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(
            Text("<b a=\"1\">&'").to_string(),
            "&lt;b a=&quot;1&quot;&gt;&amp;&#39;"
        );
        assert!(Cell(None).to_string().contains("not defined"));
    }
}
