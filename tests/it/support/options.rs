//! The configuration of a gateway under test: defaults that suit tests, and what a scenario sets.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::rabbit::Route;

/// `gateway.toml` in the making.
#[derive(Debug, Clone)]
pub struct Options {
    table: Table,
}

impl Options {
    /// Free ports, the quickest of the repository's models, messages into a file, a short quiet period.
    pub fn new() -> Self {
        let options = Self {
            table: Table::new(),
        };
        options
            .set("dicom.bind", "127.0.0.1:0")
            .set("http.bind", "127.0.0.1:0")
            .set("models.dir", repository().join("models"))
            .set("models.only", ["cxr-phantom"])
            .set("study.quiet_period", "300ms")
            .set("spool.limits.min_free_bytes", "16MiB")
            .set("spool.limits.min_free_inodes", 100)
            .set("broker.kind", "file")
            .set("log.format", "json")
    }

    /// The same, with messages going to RabbitMQ.
    pub fn amqp(route: &Route) -> Self {
        Self::new()
            .set("broker.kind", "amqp")
            .set("broker.url", route.url.as_str())
            .set("broker.exchange", route.exchange.as_str())
            .set("broker.queue", route.queue.as_str())
            .set(
                "broker.shadow",
                format!("{}.shadow", route.exchange).as_str(),
            )
    }

    /// The models of this folder instead.
    pub fn models(self, dir: impl Into<Setting>) -> Self {
        self.all_models().set("models.dir", dir)
    }

    /// Every model of the folder.
    pub fn all_models(self) -> Self {
        self.set("models.only", [""; 0])
    }

    /// Sets `section.key`.
    pub fn set(mut self, key: &str, value: impl Into<Setting>) -> Self {
        let mut table = &mut self.table;
        let mut parts: Vec<&str> = key.split('.').collect();
        let last = parts.pop().unwrap();
        for part in parts {
            let entry = table
                .entry(part)
                .or_insert_with(|| Value::Table(Table::new()));
            table = entry.as_table_mut().unwrap();
        }
        table.insert(last.to_owned(), value.into().0);
        self
    }

    /// Sets a number in the table at `path`, under a key that may have dots.
    pub fn set_number(self, path: &str, key: &str, value: f64) -> Self {
        self.set_in(path, key, Value::from(value))
    }

    /// The same for any value.
    pub fn set_in(mut self, path: &str, key: &str, value: impl Into<Setting>) -> Self {
        let mut table = &mut self.table;
        for part in path.split('.') {
            let entry = table
                .entry(part)
                .or_insert_with(|| Value::Table(Table::new()));
            table = entry.as_table_mut().unwrap();
        }
        table.insert(key.to_owned(), value.into().0);
        self
    }

    /// The text of the file, with spool and findings inside `dir` unless set otherwise.
    pub(super) fn render(&self, dir: &Path) -> String {
        let mut all = self.clone();
        for (section, key, name) in [("spool", "dir", "spool"), ("broker", "file", "findings")] {
            let known = all.table.get(section).and_then(|table| table.get(key));
            if known.is_none() {
                all = all.set(&format!("{section}.{key}"), dir.join(name));
            }
        }
        toml::to_string(&all.table).unwrap()
    }
}

/// A value of a key.
pub struct Setting(Value);

impl From<&str> for Setting {
    fn from(text: &str) -> Self {
        Self(Value::from(text))
    }
}

impl From<Value> for Setting {
    fn from(value: Value) -> Self {
        Self(value)
    }
}

impl From<PathBuf> for Setting {
    fn from(path: PathBuf) -> Self {
        Self(Value::from(path.display().to_string()))
    }
}

impl<const N: usize> From<[PathBuf; N]> for Setting {
    fn from(paths: [PathBuf; N]) -> Self {
        let paths = paths.map(|path| path.display().to_string());
        Self(Value::from(paths.to_vec()))
    }
}

impl From<i64> for Setting {
    fn from(number: i64) -> Self {
        Self(Value::from(number))
    }
}

impl From<bool> for Setting {
    fn from(flag: bool) -> Self {
        Self(Value::from(flag))
    }
}

impl<const N: usize> From<[&str; N]> for Setting {
    fn from(items: [&str; N]) -> Self {
        Self(Value::from(items.to_vec()))
    }
}

/// The folder of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
