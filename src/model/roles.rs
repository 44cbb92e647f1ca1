//! `serving.toml`: which version of a model answers, which one is tried out, which ones only watch.

use serde::{Deserialize, Serialize};

use super::manifest::is_version;

/// What a version is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It answers.
    Served,
    /// It answers for a fraction of the studies, in place of the served one.
    Canary,
    /// It runs too, and its messages go to an exchange of their own.
    Shadow,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Served, Self::Canary, Self::Shadow];

    /// The word in messages, metrics and the HTTP API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Canary => "canary",
            Self::Shadow => "shadow",
        }
    }
}

/// The file. Without it the version of the folder's own manifest is served.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Roles {
    /// The version that answers; absent: that of the folder's own manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serve: Option<String>,
    /// Versions that run beside it and are not published.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shadow: Vec<String>,
    /// The version that is tried out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
}

/// A version that answers for some studies.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// The version.
    pub version: String,
    /// Of how many studies, 0 to 100; steps of 0.01 count.
    pub percent: f64,
}

impl Roles {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// A message that names the key and the reason.
    pub fn parse(text: &str) -> Result<Self, String> {
        let roles: Self = toml::from_str(text).map_err(|err| err.to_string())?;
        let canary = roles.canary.as_ref();
        let mut named: Vec<(&str, &str)> = Vec::new();
        named.extend(
            roles
                .serve
                .iter()
                .map(|version| ("serve", version.as_str())),
        );
        named.extend(canary.map(|canary| ("canary.version", canary.version.as_str())));
        named.extend(
            roles
                .shadow
                .iter()
                .map(|version| ("shadow", version.as_str())),
        );
        for (index, (key, version)) in named.iter().enumerate() {
            if !is_version(version) {
                return Err(format!("{key}: `{version}` is not a version"));
            }
            if named.iter().take(index).any(|(_, other)| other == version) {
                return Err(format!("{key}: {version} has another role already"));
            }
        }
        if let Some(Canary { percent, .. }) = canary
            && !(0.0..=100.0).contains(percent)
        {
            return Err(format!("canary.percent: {percent} is not 0 to 100"));
        }
        Ok(roles)
    }

    /// The same with `version` served; it loses any other role.
    #[must_use]
    pub fn with_served(mut self, version: &str) -> Self {
        self.shadow.retain(|other| other != version);
        self.canary = self.canary.filter(|canary| canary.version != version);
        self.serve = Some(version.to_owned());
        self
    }

    /// The text of a file with these roles.
    ///
    /// # Errors
    /// When the roles cannot be written as TOML.
    pub fn render(&self) -> Result<String, String> {
        toml::to_string(self).map_err(|err| err.to_string())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const FULL: &str = "serve = \"1.1.0\"\ncanary = { version = \"1.2.0\", percent = 10 }\n\
                        shadow = [\"1.3.0-rc1\"]\n";

    #[test]
    fn what_is_written_reads_the_same() {
        let roles = Roles::parse(FULL).unwrap();
        assert_eq!(roles.serve.as_deref(), Some("1.1.0"));
        assert_eq!(roles.canary.as_ref().unwrap().percent, 10.0);
        assert_eq!(roles.shadow, ["1.3.0-rc1"]);
        assert_eq!(Roles::parse(&roles.render().unwrap()).unwrap(), roles);
        assert_eq!(Roles::parse("").unwrap(), Roles::default());
    }

    #[test]
    fn the_schema_accepts_what_is_read_and_refuses_what_is_not() {
        let schema = include_str!("../../docs/schema/serving.v1.json");
        let schema = jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap();
        let valid = |text: &str| {
            let table: toml::Table = text.parse().unwrap();
            schema.is_valid(&serde_json::to_value(table).unwrap())
        };
        assert!(valid(FULL) && valid(""));
        for (from, to) in [
            ("\"1.1.0\"", "\"../1\""),
            ("\"1.3.0-rc1\"", "\"\""),
            ("= 10", "= 101"),
            (", percent = 10", ""),
            ("serve", "serves"),
        ] {
            let wrong = FULL.replace(from, to);
            assert!(!valid(&wrong) && Roles::parse(&wrong).is_err(), "{to}");
        }
    }

    #[test]
    fn a_version_that_is_served_loses_its_other_role() {
        let roles = Roles::parse(FULL).unwrap().with_served("1.2.0");
        assert_eq!(roles.serve.as_deref(), Some("1.2.0"));
        assert_eq!(roles.canary, None);
        assert_eq!(roles.shadow, ["1.3.0-rc1"]);
        let roles = roles.with_served("1.3.0-rc1");
        assert!(roles.shadow.is_empty());
    }

    #[test]
    fn each_wrong_value_is_refused_with_its_key() {
        for (from, to, expected) in [
            ("\"1.1.0\"", "\"../1\"", "serve:"),
            ("\"1.2.0\"", "\"a/b\"", "canary.version:"),
            ("\"1.3.0-rc1\"", "\"\"", "shadow:"),
            (
                "\"1.3.0-rc1\"",
                "\"1.2.0\"",
                "shadow: 1.2.0 has another role",
            ),
            (
                "\"1.2.0\"",
                "\"1.1.0\"",
                "canary.version: 1.1.0 has another role",
            ),
            ("= 10", "= 101", "canary.percent:"),
            ("= 10", "= -1", "canary.percent:"),
            ("= 10", "= nan", "canary.percent:"),
            ("percent", "percents", "percents"),
            ("serve", "serves", "serves"),
        ] {
            let refusal = Roles::parse(&FULL.replace(from, to)).unwrap_err();
            assert!(refusal.contains(expected), "{to}: {refusal}");
        }
    }
}
