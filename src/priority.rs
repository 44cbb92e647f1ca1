//! Urgency: of a study while it waits, and of a finding when it is told.

use serde::{Deserialize, Serialize};

/// Urgency, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Within minutes.
    Stat,
    /// Within hours.
    Urgent,
    /// In its turn.
    Routine,
}

impl Priority {
    /// The word in configuration, messages and routing keys.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stat => "stat",
            Self::Urgent => "urgent",
            Self::Routine => "routine",
        }
    }

    /// Requested Procedure Priority (0040,1003), PS3.3 C.4.11. `None` for words the standard does
    /// not have.
    pub fn requested(word: &str) -> Option<Self> {
        match word.trim() {
            "STAT" => Some(Self::Stat),
            "HIGH" => Some(Self::Urgent),
            "ROUTINE" | "MEDIUM" | "LOW" => Some(Self::Routine),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standards_words_are_known_and_no_others() {
        assert_eq!(Priority::requested("STAT "), Some(Priority::Stat));
        assert_eq!(Priority::requested("HIGH"), Some(Priority::Urgent));
        assert_eq!(Priority::requested("LOW"), Some(Priority::Routine));
        assert_eq!(Priority::requested("stat"), None);
        assert_eq!(Priority::requested(""), None);
        assert!(Priority::Stat < Priority::Urgent && Priority::Urgent < Priority::Routine);
    }
}
