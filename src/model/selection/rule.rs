//! One condition on one attribute: what it means, and what to say when it does not hold.

use std::fmt;

use regex::{Regex, RegexBuilder};
use serde::Deserialize;

use super::Instance;
use super::attribute::Held;
use super::derived::Derived;
use crate::model::manifest::{Rule, Scalar};

/// Longest regular expression, and how large it may become when compiled.
const MAX_PATTERN: usize = 1024;
const MAX_COMPILED: usize = 1 << 20;
/// Longest text of a condition.
const MAX_TEXT: usize = 160;

/// A regular expression: found anywhere in a value, without regard to case. Linear in the length of
/// the value, whatever the expression.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(Regex);

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(pattern: String) -> Result<Self, String> {
        if pattern.is_empty() || pattern.len() > MAX_PATTERN {
            return Err(format!("matches: must have 1 to {MAX_PATTERN} bytes"));
        }
        let built = RegexBuilder::new(&pattern)
            .case_insensitive(true)
            .size_limit(MAX_COMPILED)
            .dfa_size_limit(MAX_COMPILED)
            .build();
        built.map(Self).map_err(|err| {
            let reason = err.to_string();
            let last = reason.lines().last().unwrap_or_default().trim().to_owned();
            format!("matches: `{pattern}` is no regular expression: {last}")
        })
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Rule {
    /// What reading the table alone does not find; `key` is the table's name.
    ///
    /// # Errors
    /// The key, the attribute and the reason.
    pub fn validate(&self, key: &str) -> Result<(), String> {
        let name = self.attribute.name();
        let refuse = |reason: &str| Err(format!("{key}: `{name}` {reason}"));
        if self.attribute.derived() == Some(Derived::Instances) {
            return refuse("is only for order_by");
        }
        if self.equals.is_none()
            && self.any_of.is_none()
            && self.matches.is_none()
            && self.range.is_none()
            && self.present.is_none()
        {
            return refuse("has no test: equals, any_of, matches, range or present");
        }
        if self.any_of.as_ref().is_some_and(Vec::is_empty) {
            return refuse("any_of: must not be empty");
        }
        if let Some([low, high]) = self.range
            && (!low.is_finite() || !high.is_finite() || low > high)
        {
            return refuse("range: must be two finite numbers, the lower first");
        }
        let is_flag = self.attribute.derived() == Some(Derived::Lossy);
        for scalar in self.equals.iter().chain(self.any_of.iter().flatten()) {
            match scalar {
                Scalar::Bool(_) if !is_flag => return refuse("is neither true nor false"),
                Scalar::Number(_) | Scalar::Text(_) if is_flag => {
                    return refuse("is true or false");
                }
                Scalar::Number(number) if !number.is_finite() => {
                    return refuse("is compared with what is no number");
                }
                Scalar::Text(text) if text.trim().is_empty() => {
                    return refuse("is compared with an empty text; there is `present`");
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether it holds for an instance.
    pub fn holds(&self, instance: &Instance<'_>) -> bool {
        self.holds_for(&self.attribute.values(instance))
    }

    fn holds_for(&self, values: &[Held]) -> bool {
        let one = |test: &dyn Fn(&Held) -> bool| values.iter().any(test);
        let all = self.equals.as_ref().is_none_or(|to| one(&|v| to.equals(v)))
            && self
                .any_of
                .as_ref()
                .is_none_or(|list| one(&|v| list.iter().any(|to| to.equals(v))))
            && self
                .matches
                .as_ref()
                .is_none_or(|pattern| one(&|v| pattern.0.is_match(&v.text)))
            && self.range.is_none_or(|[low, high]| {
                let inside = |v: &Held| v.number.is_some_and(|n| (low..=high).contains(&n));
                !values.is_empty() && values.iter().all(inside)
            })
            && self
                .present
                .is_none_or(|wanted| wanted != values.is_empty());
        all != self.not
    }

    /// Why an instance is outside of what the model was validated for; none when it is not. Values of
    /// the patient and free text are left out.
    pub fn violation(&self, instance: &Instance<'_>) -> Option<String> {
        let values = self.attribute.values(instance);
        if self.holds_for(&values) {
            return None;
        }
        let name = self.attribute.name();
        if !self.attribute.is_public() {
            return Some(format!(
                "{name} outside of what the model was validated for"
            ));
        }
        Some(format!(
            "{name} {} outside {}",
            shown(&values),
            self.wanted()
        ))
    }

    /// What is found, for people at a terminal; nothing of the patient.
    pub(super) fn found(&self, instance: &Instance<'_>) -> String {
        let values = self.attribute.values(instance);
        match self.attribute.is_public() || values.is_empty() {
            true => shown(&values),
            false => "(not shown)".to_owned(),
        }
    }

    /// The tests in words.
    fn wanted(&self) -> String {
        let mut tests = Vec::new();
        tests.extend(self.equals.as_ref().map(Scalar::to_string));
        tests.extend(self.any_of.as_ref().map(|list| {
            let list: Vec<String> = list.iter().map(Scalar::to_string).collect();
            list.join("|")
        }));
        tests.extend(self.matches.as_ref().map(|p| format!("/{}/", p.0.as_str())));
        tests.extend(self.range.map(|[low, high]| format!("{low} to {high}")));
        tests.extend(self.present.map(|present| match present {
            true => "present".to_owned(),
            false => "absent".to_owned(),
        }));
        let tests = tests.join(" and ");
        bounded(match self.not {
            true => format!("not {tests}"),
            false => tests,
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.attribute.name(), self.wanted())
    }
}

impl Scalar {
    /// Numbers as numbers, text without regard to case and padding.
    fn equals(&self, held: &Held) -> bool {
        match self {
            Self::Bool(flag) => held.text == if *flag { "true" } else { "false" },
            Self::Number(number) => held.number == Some(*number),
            Self::Text(text) => text.trim().eq_ignore_ascii_case(held.text.trim()),
        }
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(flag) => flag.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text.trim()),
        }
    }
}

/// Values as a message may show them.
fn shown(values: &[Held]) -> String {
    if values.is_empty() {
        return "absent".to_owned();
    }
    let plain = |c: char| c.is_ascii_graphic() || c == ' ';
    let texts: Vec<String> = values
        .iter()
        .take(8)
        .map(|held| held.text.chars().filter(|c| plain(*c)).take(64).collect())
        .collect();
    bounded(texts.join("\\"))
}

fn bounded(mut text: String) -> String {
    if let Some((at, _)) = text.char_indices().nth(MAX_TEXT) {
        text.truncate(at);
        text.push('…');
    }
    text
}
