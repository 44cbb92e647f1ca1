//! Do the alerts and the dashboard speak of metrics that exist, and does every alert have its entry in
//! the runbook? What their expressions mean is `promtool`'s business, in
//! `tests/it/metrics_are_what_prometheus_expects.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use pacs_gateway::telemetry::Metrics;
use serde_json::Value;

const ALERTS: &str = "helm/pacs-gateway/files/alerts.yaml";
const DASHBOARD: &str = "helm/pacs-gateway/files/dashboard.json";
const RUNBOOK: &str = "docs/operations.md";
/// What promtool tries them with.
const CASES: &str = "tests/rules/alerts.test.yaml";
/// What Prometheus, its targets and our own aggregations add to every series.
const TARGET_LABELS: [&str; 5] = ["job", "namespace", "pod", "instance", "le"];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

/// Metrics and their labels: what docs/metrics.md lists, and those of the process.
fn metrics() -> BTreeMap<String, BTreeSet<String>> {
    let mut metrics: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in read("docs/metrics.md").lines() {
        let Some(row) = line.strip_prefix("| `pacs_gateway_") else {
            continue;
        };
        let cells: Vec<&str> = row.split(" | ").collect();
        let name = format!("pacs_gateway_{}", cells[0].trim_matches('`'));
        let labels: BTreeSet<String> = cells[2]
            .split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect();
        if cells[1].starts_with("histogram") {
            for suffix in ["bucket", "sum", "count"] {
                metrics.insert(format!("{name}_{suffix}"), labels.clone());
            }
        }
        metrics.insert(name, labels);
    }
    for line in Metrics::new().unwrap().render().lines() {
        if let Some(sample) = line.strip_prefix("process_") {
            let name = sample.split([' ', '{']).next().unwrap();
            metrics.insert(format!("process_{name}"), BTreeSet::new());
        }
    }
    metrics
}

/// Words of an expression outside of its quotes, each with whether it stands in braces.
fn words(expression: &str) -> Vec<(String, bool)> {
    let mut words = Vec::new();
    for (part, text) in expression.split('"').enumerate() {
        // Every second part is a string.
        if part % 2 == 1 {
            continue;
        }
        let (mut word, mut inside) = (String::new(), in_braces(expression, part));
        for c in text.chars().chain([' ']) {
            if c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '$') {
                word.push(c);
                continue;
            }
            if !word.is_empty() {
                words.push((std::mem::take(&mut word), inside));
            }
            match c {
                '{' => inside = true,
                '}' => inside = false,
                _ => {}
            }
        }
    }
    words
}

/// Whether the quotes of this part begin between braces.
fn in_braces(expression: &str, part: usize) -> bool {
    let before: String = expression.split('"').take(part).step_by(2).collect();
    before.matches('{').count() > before.matches('}').count()
}

/// What is wrong with an expression: metrics that nobody makes, labels that they do not have.
fn complaints(expression: &str, metrics: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let words = words(expression);
    let named: Vec<&str> = words
        .iter()
        .filter(|(word, inside)| {
            !inside && (word.starts_with("pacs_gateway_") || word.starts_with("process_"))
        })
        .map(|(word, _)| word.as_str())
        .collect();
    let mut complaints = Vec::new();
    if named.is_empty() {
        complaints.push("it names no metric".to_owned());
    }
    let mut labels: BTreeSet<&str> = TARGET_LABELS.into();
    for name in named {
        match metrics.get(name) {
            Some(of) => labels.extend(of.iter().map(String::as_str)),
            None => complaints.push(format!("docs/metrics.md has no `{name}`")),
        }
    }
    let matched = words
        .iter()
        .filter(|(_, inside)| *inside)
        .map(|(word, _)| word);
    let grouped = ["by (", "on ("].iter().flat_map(|clause| {
        let lists = expression.split(clause).skip(1);
        lists.filter_map(|after| after.split_once(')'))
    });
    let grouped: Vec<String> = grouped
        .flat_map(|(list, _)| list.split(','))
        .map(|label| label.trim().to_owned())
        .collect();
    for label in matched.chain(&grouped) {
        if !labels.contains(label.as_str()) {
            complaints.push(format!("no metric in it has a label `{label}`"));
        }
    }
    complaints
}

#[derive(Debug, Default)]
struct Alert {
    expression: String,
    fields: BTreeMap<String, String>,
}

/// The rules. The file keeps every value on a line of its own, so that no YAML parser is needed here;
/// promtool reads it as YAML.
fn alerts() -> BTreeMap<String, Alert> {
    let mut alerts: BTreeMap<String, Alert> = BTreeMap::new();
    let mut current = None;
    for line in read(ALERTS).lines() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix("- alert: ") {
            let new = alerts.insert(name.to_owned(), Alert::default());
            assert!(new.is_none(), "{name} is there twice");
            current = Some(name.to_owned());
        } else if let (Some(name), Some((key, value))) = (&current, line.split_once(": ")) {
            let alert = alerts.get_mut(name).unwrap();
            if key == "expr" {
                value.clone_into(&mut alert.expression);
            } else {
                alert.fields.insert(key.to_owned(), value.to_owned());
            }
        }
    }
    alerts
}

#[test]
fn every_alert_speaks_of_metrics_that_exist() {
    let metrics = metrics();
    let mut wrong = Vec::new();
    for (name, alert) in alerts() {
        let found = complaints(&alert.expression, &metrics);
        wrong.extend(found.iter().map(|text| format!("{name}: {text}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_alert_has_its_entry_in_the_runbook_and_every_entry_its_alert() {
    let runbook = read(RUNBOOK);
    let entries: BTreeMap<&str, &str> = runbook
        .split("\n### ")
        .skip(1)
        .filter(|entry| entry.starts_with("PacsGateway"))
        .map(|entry| entry.split_once('\n').unwrap())
        .collect();
    let (alerts, cases) = (alerts(), read(CASES));
    let named: BTreeSet<&str> = alerts.keys().map(String::as_str).collect();
    assert_eq!(named, entries.keys().copied().collect(), "in {RUNBOOK}");
    for (name, alert) in &alerts {
        let field = |key: &str| {
            let value = alert.fields.get(key);
            value
                .unwrap_or_else(|| panic!("{name} has no {key}"))
                .as_str()
        };
        let fires = format!("alertname=\"{name}\"");
        assert!(cases.contains(&fires), "{CASES} does not try {name}");
        let severity = field("severity");
        assert!(
            ["critical", "warning", "info"].contains(&severity),
            "{name}: {severity}"
        );
        assert!(!field("summary").is_empty() && !field("description").is_empty());
        let anchor = format!("{RUNBOOK}#{}", name.to_lowercase());
        assert_eq!(field("runbook_url"), anchor, "{name}");
        for part in ["**Means:**", "**For patients:**", "**Look:**", "**Do:**"] {
            assert!(entries[name.as_str()].contains(part), "{name}: {part}");
        }
    }
}

/// Panels, those inside of collapsed rows too.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let mut all = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        all.push(panel);
        all.extend(panel["panels"].as_array().into_iter().flatten());
    }
    all
}

#[test]
fn the_dashboard_speaks_of_metrics_that_exist() {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let metrics = metrics();
    let mut wrong = Vec::new();
    let mut asked = 0;
    for panel in panels(&dashboard) {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap();
            let found = complaints(expression, &metrics);
            wrong.extend(
                found
                    .iter()
                    .map(|text| format!("{}: {text}", panel["title"])),
            );
            assert_eq!(target["datasource"]["uid"], "${datasource}");
            asked += 1;
        }
    }
    assert!(asked > 0, "nothing is asked");
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    for query in variables
        .iter()
        .filter_map(|one| one["query"]["query"].as_str())
    {
        // label_values(metric{…}, label)
        let inner = query.strip_prefix("label_values(").unwrap();
        let (selector, label) = inner.trim_end_matches(')').rsplit_once(',').unwrap();
        let found = complaints(&format!("sum by ({}) ({selector})", label.trim()), &metrics);
        wrong.extend(found.iter().map(|text| format!("{query}: {text}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_dashboard_has_room_for_every_panel() {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let mut ids = BTreeSet::new();
    let mut taken = BTreeMap::new();
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id");
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(
            at("w") > 0 && at("h") > 0 && at("x") + at("w") <= 24,
            "{title}"
        );
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                if let Some(other) = taken.insert((x, y), title) {
                    panic!("{title} and {other} lie over each other");
                }
            }
        }
    }
}

#[test]
fn a_wrong_expression_is_found() {
    let metrics = metrics();
    let check = |expression: &str| complaints(expression, &metrics);
    let fine =
        "sum by (pod, result) (rate(pacs_gateway_published_total{result=~\"ack|nack\"}[5m]))";
    assert_eq!(check(fine), Vec::<String>::new());
    for wrong in [
        "rate(pacs_gateway_publishd_total[5m])",
        "sum by (colour) (pacs_gateway_published_total)",
        "pacs_gateway_published_total{colour=\"red\"}",
        "pacs_gateway_outbox_messages_bucket",
        "up == 0",
    ] {
        assert_eq!(check(wrong).len(), 1, "{wrong}: {:?}", check(wrong));
    }
}
