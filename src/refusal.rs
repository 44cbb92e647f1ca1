//! A coded "no": the answer where a number would be a guess.

/// Why there is no number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {text}")]
pub struct Refusal {
    /// Stable word for machines, kebab-case.
    pub code: &'static str,
    /// One sentence for people, without patient data.
    pub text: String,
}

impl Refusal {
    /// A refusal with its sentence.
    pub fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }
}
