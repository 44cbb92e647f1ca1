//! Application Entity titles (PS3.5 6.2, value representation AE).
//!
//! Sixteen characters of the default repertoire without control characters and backslash; leading
//! and trailing spaces mean nothing. A checked title is safe to log and to compare byte for byte.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest title in characters, and the width of its field in an A-ASSOCIATE PDU (PS3.8 9.3.2).
const MAX_LENGTH: usize = 16;

/// Why a text is no AE title. The text itself is left out on purpose: it may end up in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AeTitleError {
    /// Nothing but spaces, which the standard reserves for "no name specified".
    #[error("AE title is empty")]
    Empty,
    /// More than 16 characters.
    #[error("AE title has {0} characters, at most 16 are allowed")]
    TooLong(usize),
    /// A control character, a backslash, or one outside the default repertoire (ISO 646).
    #[error("AE title has a character that is not allowed")]
    Character,
}

/// A checked Application Entity title, without leading and trailing spaces.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AeTitle(Box<str>);

impl AeTitle {
    /// Checks a text after trimming spaces and the NULs some senders pad with.
    ///
    /// # Errors
    /// [`AeTitleError`] says which rule is broken.
    pub fn parse(text: &str) -> Result<Self, AeTitleError> {
        let text = text.trim_end_matches(['\0', ' ']).trim_start_matches(' ');
        if text.is_empty() {
            return Err(AeTitleError::Empty);
        }
        if !text
            .bytes()
            .all(|byte| (0x20..0x7f).contains(&byte) && byte != b'\\')
        {
            return Err(AeTitleError::Character);
        }
        if text.len() > MAX_LENGTH {
            return Err(AeTitleError::TooLong(text.len()));
        }
        Ok(Self(text.into()))
    }

    /// The gateway's own title, unless it is configured to have another one.
    pub fn gateway() -> Self {
        Self("PACSGATEWAY".into())
    }

    /// The title without padding.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AeTitle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AeTitle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for AeTitle {
    type Err = AeTitleError;

    fn from_str(text: &str) -> Result<Self, AeTitleError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for AeTitle {
    type Error = AeTitleError;

    fn try_from(text: String) -> Result<Self, AeTitleError> {
        Self::parse(&text)
    }
}

impl From<AeTitle> for String {
    fn from(title: AeTitle) -> Self {
        title.0.into()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn spaces_around_a_title_mean_nothing_and_inside_they_stay() {
        assert_eq!(
            AeTitle::parse("  CT 2            ").unwrap().as_str(),
            "CT 2"
        );
        assert_eq!(AeTitle::parse("CT2\0\0\0").unwrap().as_str(), "CT2");
        assert_eq!(AeTitle::parse("0012").unwrap().to_string(), "0012");
    }

    #[test]
    fn a_title_that_breaks_a_rule_is_refused() {
        for (text, error) in [
            ("", AeTitleError::Empty),
            ("                ", AeTitleError::Empty),
            ("SEVENTEEN_LETTERS", AeTitleError::TooLong(17)),
            ("CT\\2", AeTitleError::Character),
            ("CT\n2", AeTitleError::Character),
            ("CT\u{1b}[31m", AeTitleError::Character),
            ("RÖNTGEN", AeTitleError::Character),
        ] {
            assert_eq!(AeTitle::parse(text), Err(error), "{text:?}");
        }
    }
}
