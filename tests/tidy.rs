//! Is the tree still what its documents say?
//!
//! Rules that the compiler does not know: who may import whom, which words a document must list,
//! and what a source file must not contain. Each message says what to do. Sources are read as text,
//! without their comments and tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use pacs_gateway::config::{Config, keys};
use pacs_gateway::dicom::{TransferSyntax, sop_class};
use pacs_gateway::findings::event;
use pacs_gateway::pixel::codec;
use pacs_gateway::reload::keys::RESTART;
use pacs_gateway::telemetry::Metrics;
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

/// Files below `folder` with one of these extensions, as paths from the root.
fn files(folder: &str, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(&folder).into_iter().flatten() {
            let path = item.unwrap().path();
            let extension = path.extension().unwrap_or_default();
            if path.is_dir() {
                folders.push(path);
            } else if extensions.iter().any(|wanted| extension == *wanted) {
                found.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// Documents that people read: those of the top level, and those in folders of ours.
fn documents() -> Vec<PathBuf> {
    let top = fs::read_dir(root()).unwrap().map(|item| item.unwrap());
    let mut found: Vec<PathBuf> = top
        .map(|item| PathBuf::from(item.file_name()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    for folder in ["docs", "models", "tests", "benches", "helm", "fuzz"] {
        found.extend(files(folder, &["md"]));
    }
    found
}

/// The code of a source file: no comments, no tests. A test module is the end of its file.
fn code(path: &Path) -> String {
    if path.file_name().unwrap() == "tests.rs" || path.parent().unwrap().ends_with("tests") {
        return String::new();
    }
    let text = read(path);
    let mut code = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            while lines.peek().is_some_and(|next| next.starts_with("#[")) {
                lines.next();
            }
            let inline = lines.next().is_some_and(|next| next.ends_with('{'));
            if inline {
                break;
            }
            continue;
        }
        // A comment begins outside of a string; the sources have no quote in a character literal
        // before one.
        let comment = line
            .match_indices("//")
            .find(|(at, _)| line[..*at].matches('"').count() % 2 == 0);
        code.push_str(comment.map_or(line, |(at, _)| &line[..at]));
        code.push('\n');
    }
    code
}

/// The top-level module that a source file belongs to; none for the two roots.
fn module(path: &Path) -> Option<String> {
    let first = path.iter().nth(1).unwrap().to_string_lossy();
    let name = first.trim_end_matches(".rs").to_owned();
    (name != "lib" && name != "main").then_some(name)
}

/// Modules named as `crate::name` or in `crate::{name, …}`.
fn named_modules(code: &str) -> BTreeSet<String> {
    let word = |text: &str| -> String {
        text.trim_start()
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect()
    };
    let mut named = BTreeSet::new();
    for after in code.split("crate::").skip(1) {
        let Some(group) = after.strip_prefix('{') else {
            named.insert(word(after));
            continue;
        };
        let (mut depth, mut start) = (0, 0);
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    named.insert(word(&group[start..at]));
                    start = at + 1;
                    if c == '}' {
                        break;
                    }
                }
                _ => {}
            }
        }
    }
    named.remove("");
    named
}

/// The cells of every table row of a document.
fn rows(document: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| {
        // An escaped bar is part of its cell.
        let line = line.replace("\\|", "\u{1}");
        let cells = line.trim().trim_matches('|').split('|');
        cells
            .map(|cell| cell.trim().replace('\u{1}', "|"))
            .collect()
    };
    document
        .lines()
        .filter(|line| line.starts_with('|'))
        .map(cells)
        .collect()
}

/// Words between single backticks.
fn quoted(text: &str) -> BTreeSet<String> {
    let words = text.split('`').skip(1).step_by(2);
    words.map(str::to_owned).collect()
}

/// Fails with every complaint at once.
fn complain(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n  {}\n", complaints.join("\n  "));
}

fn differences<T: Ord + std::fmt::Debug>(
    code: &BTreeSet<T>,
    document: &BTreeSet<T>,
    name: &str,
) -> Vec<String> {
    let missing = code.difference(document);
    let stale = document.difference(code);
    missing
        .map(|item| format!("{name} does not list {item:?}"))
        .chain(stale.map(|item| format!("{name} lists {item:?}, which the code does not have")))
        .collect()
}

#[test]
fn modules_import_downward_only() {
    let mut table: BTreeMap<String, (u32, BTreeSet<String>)> = BTreeMap::new();
    for row in rows(&read("docs/architecture.md")) {
        let [row, module, imports] = row.as_slice() else {
            continue;
        };
        if let (Ok(row), Some(module)) = (row.parse(), quoted(module).into_iter().next()) {
            table.insert(module, (row, quoted(imports)));
        }
    }
    let mut complaints = Vec::new();
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in files("src", &["rs"]) {
        let Some(module) = module(&path) else {
            continue;
        };
        let named = used.entry(module.clone()).or_default();
        for name in named_modules(&code(&path)) {
            match table.get(&module) {
                Some((_, allowed)) if name != module && !allowed.contains(&name) => complaints
                    .push(format!(
                        "`{module}` may not import `{name}` ({})",
                        path.display()
                    )),
                _ => {}
            }
            named.insert(name);
        }
    }
    for module in used.keys().filter(|module| !table.contains_key(*module)) {
        complaints.push(format!(
            "`{module}` has no row in docs/architecture.md: decide where it sits in the flow"
        ));
    }
    for (module, (row, allowed)) in &table {
        let named = used.get(module).cloned().unwrap_or_default();
        if !used.contains_key(module) {
            complaints.push(format!(
                "docs/architecture.md has a row for `{module}`, which is gone"
            ));
        }
        for import in allowed {
            match table.get(import) {
                Some((lower, _)) if lower < row => {}
                _ => complaints.push(format!("`{import}` is not in a lower row than `{module}`")),
            }
            if !named.contains(import) {
                complaints.push(format!(
                    "`{module}` does not import `{import}` any more: take it out of its row"
                ));
            }
        }
    }
    complain(&complaints);
}

#[test]
fn every_source_file_begins_with_its_purpose() {
    let mut complaints = Vec::new();
    for folder in ["src", "tests", "benches", "fuzz"] {
        for path in files(folder, &["rs"]) {
            if !read(&path).starts_with("//! ") {
                complaints.push(format!(
                    "{}: begin with `//! ` and what the file is for",
                    path.display()
                ));
            }
        }
    }
    complain(&complaints);
}

#[test]
fn sources_do_not_panic_or_print() {
    let mut complaints = Vec::new();
    for path in files("src", &["rs"]) {
        let in_cli = path.starts_with("src/cli");
        for (number, line) in code(&path).lines().enumerate() {
            for word in [".unwrap()", ".expect(", "panic!(", "todo!(", "println!("] {
                if line.contains(word) && !(in_cli && word == "println!(") {
                    complaints.push(format!("{}: `{word}` in {line:?}", path.display()));
                }
            }
            assert!(
                !line.contains("dbg!("),
                "{}:{}: dbg!",
                path.display(),
                number + 1
            );
        }
    }
    complain(&complaints);
}

#[test]
fn text_files_have_no_tabs_and_no_trailing_space() {
    let mut paths = documents();
    for folder in ["src", "tests", "benches", "config", "docs", "scripts"] {
        paths.extend(files(folder, &["rs", "toml", "yaml", "json", "py", "sh"]));
    }
    let mut complaints = Vec::new();
    for path in paths {
        for (number, line) in read(&path).lines().enumerate() {
            if line.contains('\t') || line.ends_with(' ') {
                complaints.push(format!(
                    "{}:{}: tab or trailing space",
                    path.display(),
                    number + 1
                ));
            }
        }
    }
    complain(&complaints);
}

#[test]
fn every_metric_is_documented_with_its_labels() {
    let code = code(Path::new("src/telemetry/metrics.rs"));
    let (_, made) = code.split_once("let metrics = Self {").unwrap();
    let (made, _) = made.split_once("registry: make.registry").unwrap();
    let mut metrics = BTreeMap::new();
    // Pieces between one `field: make` and the next; each ends with the name of the next field.
    let pieces: Vec<&str> = made.split(": make").collect();
    for pair in pieces.windows(2) {
        let field = pair[0].split_whitespace().next_back().unwrap();
        let mut words: Vec<&str> = pair[1].split('"').skip(1).step_by(2).collect();
        assert_eq!(
            words.remove(0),
            field,
            "a metric is named like its field of `Metrics`"
        );
        let mut labels: BTreeSet<String> = words.drain(1..).map(str::to_owned).collect();
        if pair[1].contains("histograms(") {
            labels.insert("model".to_owned());
        }
        // What it is made with says what it is.
        let made = pair[1].to_lowercase();
        let kind = ["counter", "gauge", "histogram", "seconds("]
            .into_iter()
            .min_by_key(|kind| made.find(kind).unwrap_or(usize::MAX))
            .map(|kind| kind.replace("seconds(", "histogram"));
        metrics.insert(format!("pacs_gateway_{field}"), (kind.unwrap(), labels));
    }
    let mut documented = BTreeMap::new();
    for row in rows(&read("docs/metrics.md")) {
        let [metric, kind, labels, _] = row.as_slice() else {
            continue;
        };
        if metric.starts_with("`pacs_gateway_") {
            let kind = kind.trim_end_matches(", preset").to_owned();
            documented.insert(metric.trim_matches('`').to_owned(), (kind, quoted(labels)));
        }
    }
    let code = metrics.into_iter().collect();
    let document = documented.into_iter().collect();
    complain(&differences(&code, &document, "docs/metrics.md"));
}

/// The values that the document lists for a label: after its colon, without what stands in brackets.
fn listed(labels: &str) -> Option<(String, Vec<String>)> {
    let (label, values) = labels.split_once(':')?;
    let mut plain = String::new();
    let mut depth = 0_u32;
    for c in values.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            c if depth == 0 => plain.push(c),
            _ => {}
        }
    }
    let values = plain.split(',').map(|value| value.trim().to_owned());
    Some((label.trim_matches('`').to_owned(), values.collect()))
}

#[test]
fn preset_metrics_start_at_zero_for_every_value_of_the_document() {
    let text = Metrics::new().unwrap().render();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let code: BTreeSet<String> = samples
        .filter(|line| line.contains("_total{") && line.ends_with(" 0"))
        .map(|line| line.trim_end_matches(" 0").to_owned())
        .collect();
    let mut document = BTreeSet::new();
    for row in rows(&read("docs/metrics.md")) {
        if let [metric, kind, labels, _] = row.as_slice()
            && kind == "counter, preset"
        {
            let (label, values) = listed(labels).unwrap();
            let metric = metric.trim_matches('`');
            let series = values.iter();
            document.extend(series.map(|value| format!("{metric}{{{label}=\"{value}\"}}")));
        }
    }
    complain(&differences(&code, &document, "docs/metrics.md"));
}

/// What stands between the bracket that opens `text` and the one that closes it, split at commas.
fn arguments(text: &str) -> Vec<String> {
    let (mut depth, mut quoted, mut escaped) = (0_u32, false, false);
    let (mut all, mut one) = (Vec::new(), String::new());
    for c in text.chars() {
        let (was_quoted, was_escaped) = (quoted, std::mem::take(&mut escaped));
        match c {
            '\\' if quoted && !was_escaped => escaped = true,
            '"' if !was_escaped => quoted = !quoted,
            _ if was_quoted => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => break,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                all.push(std::mem::take(&mut one));
                continue;
            }
            _ => {}
        }
        one.push(c);
    }
    all.push(one);
    all.iter().map(|one| one.trim().to_owned()).collect()
}

#[test]
fn every_log_field_is_documented() {
    let mut fields = BTreeSet::new();
    for path in files("src", &["rs"]) {
        let code = code(&path);
        for level in ["debug!(", "info!(", "warn!(", "error!("] {
            for (at, _) in code.match_indices(level) {
                let named = arguments(&code[at + level.len()..]);
                let named = named
                    .iter()
                    .filter(|one| !one.is_empty() && !one.starts_with('"'));
                fields.extend(named.map(|one| {
                    let name = one.trim_start_matches(['%', '?']);
                    let name = name.split('=').next().unwrap().trim();
                    name.to_owned()
                }));
            }
        }
    }
    let document = rows(&read("docs/logs.md"))
        .into_iter()
        .filter(|row| row[0].starts_with('`'))
        .map(|row| row[0].trim_matches('`').to_owned())
        .collect();
    complain(&differences(&fields, &document, "docs/logs.md"));
}

#[test]
fn every_configuration_key_is_documented_with_its_default() {
    let code = keys()
        .into_iter()
        .map(|(key, default)| (key, default.to_string()))
        .collect();
    let document = rows(&read("docs/configuration.md"))
        .into_iter()
        .filter(|row| row.len() == 3 && row[0].starts_with('`') && row[0].contains('.'))
        .map(|row| {
            let [key, default] = [&row[0], &row[1]].map(|cell| cell.trim_matches('`').to_owned());
            (key, default)
        })
        .collect();
    complain(&differences(&code, &document, "docs/configuration.md"));
}

#[test]
fn every_key_that_needs_a_restart_is_documented() {
    let document = read("docs/configuration.md");
    let (_, section) = document.split_once("| keys that need a restart |").unwrap();
    let (table, _) = section.split_once("\n\n").unwrap();
    let cells = table
        .lines()
        .skip(1)
        .filter_map(|row| row.split('|').nth(1));
    let documented = cells.flat_map(quoted).collect();
    let code = RESTART.iter().map(|key| (*key).to_owned()).collect();
    complain(&differences(&code, &documented, "docs/configuration.md"));
}

#[test]
fn the_sample_configuration_holds_every_default() {
    let sample = Config::load(&[root().join("config/gateway.toml")]).unwrap();
    let sample = serde_json::to_value(sample).unwrap();
    let table: toml::Table = toml::from_str(&read("config/gateway.toml")).unwrap();
    let written = serde_json::to_value(table).unwrap();
    let mut complaints = Vec::new();
    for (key, default) in keys() {
        let pointer = format!("/{}", key.replace('.', "/"));
        if written.pointer(&pointer).is_none() {
            complaints.push(format!("config/gateway.toml does not show `{key}`"));
        }
        let value = sample.pointer(&pointer).unwrap();
        if *value != default {
            complaints.push(format!(
                "config/gateway.toml has {value} for `{key}`, the default is {default}"
            ));
        }
    }
    complain(&complaints);
}

#[test]
fn the_conformance_statement_lists_what_is_kept_and_decoded() {
    let document = read("docs/conformance.md");
    let (_, tables) = document.split_once("## Transfer syntaxes").unwrap();
    let tables = rows(tables);
    let lists = |width: usize| tables.iter().filter(move |row| row.len() == width);
    let uid = |row: &Vec<String>| row[1].trim_matches('`').to_owned();
    let is_uid = |row: &&Vec<String>| row[1].starts_with("`1.2.840.");
    let decoded: BTreeSet<&str> = codec::supported().collect();
    let kept = TransferSyntax::all()
        .iter()
        .map(|syntax| (syntax.uid.to_owned(), decoded.contains(syntax.uid)))
        .collect();
    let listed = lists(3)
        .filter(is_uid)
        .map(|row| (uid(row), row[2] == "yes"))
        .collect();
    let mut complaints = differences(&kept, &listed, "docs/conformance.md");
    let classes = sop_class::all()
        .iter()
        .map(|class| class.uid.to_owned())
        .collect();
    let listed = lists(2).filter(is_uid).map(uid).collect();
    complaints.extend(differences(&classes, &listed, "docs/conformance.md"));
    complain(&complaints);
}

/// Dotted keys of a JSON Schema; arrays add nothing to the path.
fn schema_keys(schema: &Value, node: &Value, path: &str, found: &mut BTreeSet<String>) {
    if let Some(target) = node.get("$ref").and_then(Value::as_str) {
        let target = schema.pointer(target.trim_start_matches('#')).unwrap();
        schema_keys(schema, target, path, found);
    }
    if let Some(properties) = node.get("properties").and_then(Value::as_object) {
        for (name, node) in properties {
            let key = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            schema_keys(schema, node, &key, found);
            found.insert(key);
        }
    }
    let alternatives = node.get("oneOf").and_then(Value::as_array);
    for inner in alternatives.into_iter().flatten().chain(node.get("items")) {
        schema_keys(schema, inner, path, found);
    }
}

#[test]
fn every_manifest_key_is_documented() {
    let mut keys = BTreeSet::new();
    for file in ["docs/schema/model.v1.json", "docs/schema/serving.v1.json"] {
        let schema: Value = serde_json::from_str(&read(file)).unwrap();
        schema_keys(&schema, &schema, "", &mut keys);
    }
    let documented: BTreeSet<String> = rows(&read("docs/models.md"))
        .iter()
        .flat_map(|row| quoted(&row[0]))
        .collect();
    // Tables have a heading of their own, `[applies_to]` and so on.
    let text = read("docs/models.md");
    let complaints: Vec<String> = keys
        .iter()
        .filter(|key| !documented.contains(*key) && !text.contains(&format!("[{key}]")))
        .map(|key| format!("docs/models.md does not explain `{key}`"))
        .collect();
    complain(&complaints);
}

#[test]
fn every_reason_code_is_documented() {
    let documented = quoted(&read("docs/messages.md"));
    let mut complaints = BTreeSet::new();
    // Refusals of the command line never reach a message.
    let inside = files("src", &["rs"]);
    for path in inside.iter().filter(|path| !path.starts_with("src/cli")) {
        for after in code(path).split("Refusal::new(").skip(1) {
            let Some(literal) = after.trim_start().strip_prefix('"') else {
                continue;
            };
            let code = literal.split('"').next().unwrap_or_default();
            if !documented.contains(code) {
                complaints.insert(format!(
                    "docs/messages.md does not explain the reason `{code}` ({})",
                    path.display()
                ));
            }
        }
    }
    complain(&complaints.into_iter().collect::<Vec<_>>());
}

#[test]
fn the_contracts_name_what_the_code_serves() {
    let schema: Value = serde_json::from_str(&read("docs/schema/inference.v1.json")).unwrap();
    assert_eq!(schema["$id"], event::DATA_SCHEMA);
    let event_type = &schema["properties"]["type"]["const"];
    assert_eq!(event_type, event::EVENT_TYPE);
    let messages = read("docs/messages.md");
    let (_, example) = messages.split_once("```json\n").unwrap();
    let example: Value = serde_json::from_str(example.split("```").next().unwrap()).unwrap();
    assert_eq!(example["dataschema"], event::DATA_SCHEMA);
    assert!(read("docs/asyncapi.yaml").contains(event::CONTENT_TYPE));

    let openapi: Value = serde_json::from_str(&read("docs/openapi.json")).unwrap();
    let documented = openapi["paths"].as_object().unwrap().keys().cloned();
    let http = code(Path::new("src/http.rs"));
    let served = http.split(".route(").skip(1);
    let served = served.map(|after| after.split('"').nth(1).unwrap().to_owned());
    complain(&differences(
        &served.collect(),
        &documented.collect(),
        "docs/openapi.json",
    ));
}

/// A heading's anchor, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// A document without its fenced blocks.
fn prose(path: &Path) -> String {
    let text = read(path);
    text.split("```").step_by(2).collect()
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut complaints = Vec::new();
    for path in documents() {
        for after in prose(&path).split("](").skip(1) {
            let target = after.split(')').next().unwrap_or_default();
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
            let linked = match file {
                "" => path.clone(),
                file => path.parent().unwrap().join(file),
            };
            let exists = root().join(&linked).exists();
            let found = exists
                && (fragment.is_empty()
                    || prose(&linked)
                        .lines()
                        .any(|line| line.starts_with('#') && anchor(line) == fragment));
            if !found {
                complaints.push(format!("{}: no such target: {target}", path.display()));
            }
        }
    }
    complain(&complaints);
}

#[test]
fn every_promise_names_tests_that_exist() {
    let readme = read("README.md");
    let promises: Vec<_> = rows(&readme)
        .into_iter()
        .filter(|row| row[0].parse::<u32>().is_ok())
        .collect();
    assert_eq!(promises.len(), 8, "README.md lists the eight promises");
    for promise in promises {
        let named: Vec<&str> = promise[2]
            .split("](")
            .skip(1)
            .map(|after| after.split(')').next().unwrap_or_default())
            .collect();
        assert!(
            !named.is_empty(),
            "promise {} names no test: `{}`",
            promise[0],
            promise[1]
        );
        for test in named {
            let is_test = test.starts_with("tests/") && test.ends_with(".rs");
            assert!(
                is_test && root().join(test).is_file(),
                "promise {}: {test} is no test",
                promise[0]
            );
        }
    }
}
