//! Unique identifiers (PS3.5 section 9), checked once and typed by role.
//!
//! A UID from a peer is the usual vehicle for path traversal, log injection and database trouble.
//! [`Uid::parse`] admits digits and dots only, so a value of these types is safe to use as a map
//! key, in a message or, where it must be, as part of a file name. The rejected text is never part
//! of the error.

use std::fmt;
use std::str::FromStr;

/// Longest UID the standard allows, in characters (PS3.5 9.1).
const MAX_LENGTH: usize = 64;

/// Why a text is no UID. The text itself is left out on purpose: it may end up in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UidError {
    /// No characters at all.
    #[error("UID is empty")]
    Empty,
    /// More than 64 characters.
    #[error("UID has {0} characters, at most 64 are allowed")]
    TooLong(usize),
    /// Something else than digits and dots.
    #[error("UID has a character other than digits and dots")]
    Character,
    /// Two dots in a row, or a dot at an end.
    #[error("UID has an empty component")]
    EmptyComponent,
}

/// A unique identifier after PS3.5 9.1: 1 to 64 characters, digits and dots, no empty component.
///
/// Components with leading zeros, which the standard forbids, are admitted: equipment in the field
/// writes them, and refusing its images would lose a study over nothing. The text is kept as it is,
/// so two UIDs that differ only in such zeros stay two.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(Box<str>);

impl Uid {
    /// Checks a text. One trailing NUL (the standard's padding) or space (a frequent mistake) is
    /// dropped first.
    ///
    /// # Errors
    /// [`UidError`] says which rule is broken.
    pub fn parse(text: &str) -> Result<Self, UidError> {
        let text = text.strip_suffix(['\0', ' ']).unwrap_or(text);
        if text.is_empty() {
            return Err(UidError::Empty);
        }
        if text.len() > MAX_LENGTH {
            return Err(UidError::TooLong(text.chars().count()));
        }
        if !text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
        {
            return Err(UidError::Character);
        }
        if text.split('.').any(str::is_empty) {
            return Err(UidError::EmptyComponent);
        }
        Ok(Self(text.into()))
    }

    /// The text without padding.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Uid {
    type Err = UidError;

    fn from_str(text: &str) -> Result<Self, UidError> {
        Self::parse(text)
    }
}

/// One newtype per role, so that a Series Instance UID cannot stand where a Study Instance UID is
/// meant. All have the API of [`Uid`].
macro_rules! uid_of_role {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uid);

        impl $name {
            /// Checks a text, see [`Uid::parse`].
            ///
            /// # Errors
            /// [`UidError`] says which rule is broken.
            pub fn parse(text: &str) -> Result<Self, UidError> {
                Uid::parse(text).map(Self)
            }

            /// The text without padding.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl From<Uid> for $name {
            fn from(uid: Uid) -> Self {
                Self(uid)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = UidError;

            fn from_str(text: &str) -> Result<Self, UidError> {
                Self::parse(text)
            }
        }
    )*};
}

uid_of_role! {
    /// Study Instance UID (0020,000D).
    StudyInstanceUid;
    /// Series Instance UID (0020,000E).
    SeriesInstanceUid;
    /// SOP Instance UID (0008,0018): one instance.
    SopInstanceUid;
    /// SOP Class UID (0008,0016): what kind of instance it is.
    SopClassUid;
    /// Transfer Syntax UID (0002,0010): how the data set is encoded.
    TransferSyntaxUid;
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_keeps_its_text_without_padding() {
        for text in [
            "1.2.840.10008.1.2",
            "1.2.840.10008.1.2\0",
            "1.2.840.10008.1.2 ",
        ] {
            assert_eq!(Uid::parse(text).unwrap().as_str(), "1.2.840.10008.1.2");
        }
        assert_eq!(Uid::parse("0").unwrap().as_str(), "0");
        assert_eq!(Uid::parse("1.0.3").unwrap().to_string(), "1.0.3");
        assert!(Uid::parse(&"1".repeat(64)).is_ok());
    }

    #[test]
    fn each_rule_of_the_standard_has_its_own_refusal() {
        let sixty_five = "1".repeat(65);
        for (text, error) in [
            ("", UidError::Empty),
            ("\0", UidError::Empty),
            (sixty_five.as_str(), UidError::TooLong(65)),
            ("1.2.abc", UidError::Character),
            ("../../etc/passwd", UidError::Character),
            ("1.2\\1.3", UidError::Character),
            ("1.2\n3", UidError::Character),
            ("1.2.３.4", UidError::Character),
            ("1.2\0\0", UidError::Character),
            ("1..2", UidError::EmptyComponent),
            (".1", UidError::EmptyComponent),
            ("1.2.", UidError::EmptyComponent),
            ("..", UidError::EmptyComponent),
        ] {
            assert_eq!(Uid::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn leading_zeros_are_admitted_and_kept_apart() {
        assert_ne!(Uid::parse("1.02").unwrap(), Uid::parse("1.2").unwrap());
    }

    #[test]
    fn an_error_never_repeats_the_text() {
        let text = "secret/1.2";
        assert!(!Uid::parse(text).unwrap_err().to_string().contains("secret"));
    }
}
