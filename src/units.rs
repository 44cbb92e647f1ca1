//! Durations and byte counts as people write them in a configuration file.
//!
//! `"30s"` and `"4GiB"` say their unit where they are read; a bare number in a file would have to
//! be looked up. Both types keep exactly what was written and print it back in the same notation,
//! so a dumped configuration can be loaded again.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a duration or a size could not be read. The message is complete for the user: it names what
/// is expected, and the configuration loader adds file and key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// The text is not a duration.
    #[error(
        "expected a duration such as \"250ms\", \"30s\", \"5m\", \"1h30m\" or \"7d\", got {0:?}"
    )]
    Duration(String),
    /// The text is not a size in bytes.
    #[error(
        "expected a size such as \"512KiB\", \"4GiB\", \"10MB\" or \"65536\" (bytes), got {0:?}"
    )]
    Size(String),
}

/// A [`Duration`] written as `"250ms"`, `"30s"`, `"1h30m"`. A number without a unit is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanDuration(pub Duration);

/// Milliseconds per unit, largest first: [`HumanDuration`] prints in this order.
const DURATION_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

impl HumanDuration {
    /// A whole number of seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// A whole number of milliseconds.
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }

    /// The duration itself.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl FromStr for HumanDuration {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let invalid = || UnitError::Duration(text.to_owned());
        let mut rest = text.trim();
        let mut total: u64 = 0;
        if rest.is_empty() {
            return Err(invalid());
        }
        while !rest.is_empty() {
            let (number, after) = split_number(rest).ok_or_else(invalid)?;
            let letters = after
                .find(|c: char| !c.is_ascii_alphabetic())
                .unwrap_or(after.len());
            let (unit, remainder) = after.split_at(letters);
            let (_, scale) = DURATION_UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .ok_or_else(invalid)?;
            let part = number.checked_mul(*scale).ok_or_else(invalid)?;
            total = total.checked_add(part).ok_or_else(invalid)?;
            rest = remainder.trim_start();
        }
        Ok(Self(Duration::from_millis(total)))
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, scale) in DURATION_UNITS {
            if rest >= scale {
                write!(f, "{}{unit}", rest / scale)?;
                rest %= scale;
            }
        }
        Ok(())
    }
}

/// A number of bytes written as `"4GiB"`, `"10MB"` or `"65536"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// Bytes per unit; the binary ones come first, largest first, because [`ByteSize`] prints those.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
];

/// How many of [`SIZE_UNITS`] are binary.
const BINARY_UNITS: usize = 5;

impl ByteSize {
    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let invalid = || UnitError::Size(text.to_owned());
        let (number, unit) = split_number(text.trim()).ok_or_else(invalid)?;
        let scale = match unit.trim() {
            "" => 1,
            unit => {
                SIZE_UNITS
                    .iter()
                    .find(|(name, _)| name.eq_ignore_ascii_case(unit))
                    .ok_or_else(invalid)?
                    .1
            }
        };
        number.checked_mul(scale).map(Self).ok_or_else(invalid)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = SIZE_UNITS
            .iter()
            .take(BINARY_UNITS)
            .find(|(_, scale)| self.0 >= *scale && self.0.is_multiple_of(*scale));
        match exact {
            Some((unit, scale)) => write!(f, "{}{unit}", self.0 / scale),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// Splits the leading decimal digits off; `None` when there are none or they overflow.
fn split_number(text: &str) -> Option<(u64, &str)> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    Some((number.parse().ok()?, rest))
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ByteSizeVisitor)
    }
}

/// Takes `"4GiB"` and a bare integer alike: a count of bytes needs no unit to be understood.
struct ByteSizeVisitor;

impl Visitor<'_> for ByteSizeVisitor {
    type Value = ByteSize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as \"4GiB\" or a number of bytes")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
        text.parse().map_err(de::Error::custom)
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
        Ok(ByteSize(bytes))
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
        u64::try_from(bytes)
            .map(ByteSize)
            .map_err(|_| de::Error::custom(UnitError::Size(bytes.to_string())))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_written_and_print_back() {
        for (text, milliseconds) in [
            ("0s", 0),
            ("250ms", 250),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
        ] {
            let parsed: HumanDuration = text.parse().unwrap();
            assert_eq!(parsed, HumanDuration::from_millis(milliseconds), "{text}");
            assert_eq!(parsed.to_string(), text);
        }
    }

    #[test]
    fn a_duration_without_a_unit_is_refused() {
        for text in [
            "",
            "30",
            "s",
            "5x",
            "5s30",
            "-1s",
            "1.5s",
            "99999999999999999999s",
            "9999999999999999999d",
        ] {
            assert!(text.parse::<HumanDuration>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_read_as_written_and_print_in_the_largest_exact_unit() {
        for (text, bytes, printed) in [
            ("4GiB", 4 << 30, "4GiB"),
            ("128 KiB", 131_072, "128KiB"),
            ("1536MiB", 1536 << 20, "1536MiB"),
            ("10MB", 10_000_000, "10000000B"),
            ("65536", 65_536, "64KiB"),
            ("0", 0, "0B"),
        ] {
            let parsed: ByteSize = text.parse().unwrap();
            assert_eq!(parsed.bytes(), bytes, "{text}");
            assert_eq!(parsed.to_string(), printed);
            assert_eq!(printed.parse::<ByteSize>().unwrap(), parsed);
        }
    }

    #[test]
    fn a_size_that_overflows_or_has_no_number_is_refused() {
        for text in ["", "GiB", "4 gigs", "-1", "99999999999TiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn both_travel_through_toml() {
        #[derive(Serialize, Deserialize, PartialEq, Debug)]
        struct Pair {
            wait: HumanDuration,
            most: ByteSize,
        }
        let pair: Pair = toml::from_str("wait = \"90s\"\nmost = 1048576\n").unwrap();
        assert_eq!(pair.wait.get(), Duration::from_secs(90));
        assert_eq!(pair.most.to_string(), "1MiB");
        assert_eq!(
            toml::from_str::<Pair>(&toml::to_string(&pair).unwrap()).unwrap(),
            pair
        );
        assert!(toml::from_str::<Pair>("wait = 90\nmost = 1\n").is_err());
        assert!(toml::from_str::<Pair>("wait = \"9s\"\nmost = -1\n").is_err());
    }
}
