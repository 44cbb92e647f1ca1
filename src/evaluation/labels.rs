//! The table of what is true: a CSV file with one row per study.
//!
//! A column is the key (`study_instance_uid` or `file`), a label of the model, or a grouping. Any
//! other column is an error: a misspelt label that is silently ignored is a wrong figure.

use std::collections::{BTreeMap, HashSet};
use std::io::Read;

/// Column of the automatic grouping by site.
pub const SITE: &str = "site";

/// Which study a row speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// Its Study Instance UID.
    Study,
    /// A file of it, by its path relative to the folder of studies.
    File,
}

/// The table.
#[derive(Debug)]
pub struct Table {
    /// What the key column holds.
    pub key: Key,
    /// Labels that have a column, in the model's order.
    pub labels: Vec<String>,
    /// Groupings that have a column.
    pub groupings: Vec<String>,
    /// One per study.
    pub rows: Vec<Row>,
}

/// What is true of one study.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The key column.
    pub key: String,
    /// Line of the file, for messages.
    pub line: u64,
    /// Truth by label; a label without one is unknown for this study.
    pub truth: BTreeMap<String, f64>,
    /// Value of each of [`Table::groupings`].
    pub groups: Vec<String>,
}

/// What a column is.
enum Column {
    Key,
    Label(String),
    Grouping,
}

/// Reads the table. `binary`: labels are 0 or 1, not quantities.
///
/// # Errors
/// What is wrong, with the column or the line.
pub fn read(
    text: impl Read,
    labels: &[&str],
    binary: bool,
    group_by: &[String],
) -> Result<Table, String> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_reader(text);
    let header = reader.headers().map_err(|err| err.to_string())?.clone();
    let mut names = HashSet::new();
    let (mut key, mut columns) = (None, Vec::new());
    for name in &header {
        // Spreadsheets begin a file with a byte order mark.
        let name = name.trim_start_matches('\u{feff}');
        if !names.insert(name) {
            return Err(format!("the column `{name}` is there twice"));
        }
        let this = match name {
            "study_instance_uid" => Some(Key::Study),
            "file" => Some(Key::File),
            _ => None,
        };
        columns.push(if let Some(this) = this {
            if key.replace(this).is_some() {
                return Err("give either `study_instance_uid` or `file`, not both".to_owned());
            }
            Column::Key
        } else if labels.contains(&name) {
            Column::Label(name.to_owned())
        } else if name == SITE || group_by.iter().any(|wanted| wanted == name) {
            Column::Grouping
        } else {
            return Err(format!(
                "the column `{name}` is no label of the model (it has {}) and not named by --group-by",
                labels.join(", ")
            ));
        });
    }
    let key = key.ok_or("a column `study_instance_uid` or `file` is needed")?;
    if let Some(missing) = group_by.iter().find(|name| !names.contains(name.as_str())) {
        return Err(format!("there is no column `{missing}` to group by"));
    }
    let known: Vec<&&str> = labels
        .iter()
        .filter(|label| names.contains(*label))
        .collect();
    if known.is_empty() {
        return Err(format!(
            "no column is a label of the model, which has {}",
            labels.join(", ")
        ));
    }
    let grouping = |name: &&str| **name == *SITE || group_by.iter().any(|wanted| wanted == *name);
    let mut table = Table {
        key,
        labels: known.iter().map(|label| (**label).to_owned()).collect(),
        groupings: header.iter().filter(grouping).map(str::to_owned).collect(),
        rows: Vec::new(),
    };
    let mut seen = HashSet::new();
    for record in reader.records() {
        let record = record.map_err(|err| err.to_string())?;
        let line = record.position().map_or(0, csv::Position::line);
        let mut row = Row {
            key: String::new(),
            line,
            truth: BTreeMap::new(),
            groups: Vec::new(),
        };
        for (column, cell) in columns.iter().zip(&record) {
            match column {
                Column::Key => row.key = cell.to_owned(),
                Column::Grouping => row.groups.push(cell.to_owned()),
                Column::Label(_) if cell.is_empty() => {}
                Column::Label(label) => {
                    let value = truth(cell, binary)
                        .map_err(|reason| format!("line {line}, column `{label}`: {reason}"))?;
                    row.truth.insert(label.clone(), value);
                }
            }
        }
        if row.key.is_empty() {
            return Err(format!("line {line} names no study"));
        }
        if !seen.insert(row.key.clone()) {
            return Err(format!("line {line}: `{}` is there twice", row.key));
        }
        table.rows.push(row);
    }
    Ok(table)
}

fn truth(cell: &str, binary: bool) -> Result<f64, String> {
    match (cell, binary) {
        ("0", true) => Ok(0.0),
        ("1", true) => Ok(1.0),
        (_, true) => Err(format!("`{cell}` is neither 0 nor 1")),
        (_, false) => cell
            .parse()
            .ok()
            .filter(|value: &f64| value.is_finite())
            .ok_or_else(|| format!("`{cell}` is no number")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn table(text: &str) -> Result<Table, String> {
        read(text.as_bytes(), &["a", "b"], true, &["ward".to_owned()])
    }

    #[test]
    fn columns_are_found_by_name_and_an_empty_cell_is_unknown() {
        let table = table("\u{feff}site,b,ward,file,a\nX,1,\"w,1\",x/y.dcm,\nY,0,w2,z.dcm,1\n");
        let table = table.unwrap();
        assert_eq!((table.key, table.rows.len()), (Key::File, 2));
        assert_eq!(table.labels, ["a", "b"]);
        assert_eq!(table.groupings, ["site", "ward"]);
        let row = &table.rows[0];
        assert_eq!(row.groups, ["X", "w,1"]);
        assert_eq!(row.truth, BTreeMap::from([("b".to_owned(), 1.0)]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expected) in [
            (
                "file,a,c,ward\n",
                "`c` is no label of the model (it has a, b)",
            ),
            ("file,a\n", "no column `ward`"),
            ("file,ward\n", "no column is a label"),
            ("a,ward\n", "a column `study_instance_uid` or `file`"),
            ("file,study_instance_uid,a,ward\n", "not both"),
            ("file,a,a,ward\n", "`a` is there twice"),
            (
                "file,a,ward\nx,2,w\n",
                "line 2, column `a`: `2` is neither 0 nor 1",
            ),
            ("file,a,ward\nx,1,w\nx,0,w\n", "line 3: `x` is there twice"),
            ("file,a,ward\n,1,w\n", "line 2 names no study"),
            ("file,a,ward\nx,1\n", "2 fields"),
        ] {
            let refusal = table(text).unwrap_err();
            assert!(refusal.contains(expected), "{text}: {refusal}");
        }
        let quantity = read("file,a\nx,nan\n".as_bytes(), &["a"], false, &[]);
        assert!(quantity.unwrap_err().contains("`nan` is no number"));
    }
}
