//! Time as the gateway stores it: microseconds since the Unix epoch.
//!
//! Inside one process the wall clock is read once and then follows the monotonic clock, so a
//! stepped system clock can neither complete a study early nor hold it for ever.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A point in time: microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The present moment.
    pub fn now() -> Self {
        static ANCHOR: OnceLock<(Instant, i64)> = OnceLock::new();
        let (started, wall) = ANCHOR.get_or_init(|| {
            let wall = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            (Instant::now(), micros(wall))
        });
        Self(wall.saturating_add(micros(started.elapsed())))
    }

    /// Time from `earlier` to `self`; zero when `earlier` is in the future.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Whole seconds since the epoch, as AMQP's `timestamp` property wants them.
    pub fn seconds(self) -> u64 {
        u64::try_from(self.0 / 1_000_000).unwrap_or(0)
    }

    /// RFC 3339 with microseconds, in UTC.
    pub fn rfc3339(self) -> String {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1000)
            .ok()
            .and_then(|at| at.format(&Rfc3339).ok())
            .unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned())
    }
}

impl std::str::FromStr for Timestamp {
    type Err = time::error::Parse;

    /// Reads RFC 3339, with any offset.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let at = OffsetDateTime::parse(text, &Rfc3339)?;
        let micros = at.unix_timestamp_nanos() / 1000;
        Ok(Self(i64::try_from(micros).unwrap_or(i64::MAX)))
    }
}

impl std::ops::Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(micros(duration)))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_reads_as_rfc3339() {
        assert_eq!(
            Timestamp(1_700_000_000_123_456).rfc3339(),
            "2023-11-14T22:13:20.123456Z"
        );
    }

    #[test]
    fn rfc3339_reads_as_a_timestamp() {
        let at = |text: &str| text.parse::<Timestamp>();
        assert_eq!(
            at("2023-11-14T23:13:20.123456+01:00").ok(),
            Some(Timestamp(1_700_000_000_123_456))
        );
        assert!(at("yesterday").is_err());
    }

    #[test]
    fn time_to_the_future_is_zero() {
        let now = Timestamp::now();
        assert_eq!(now.since(now + Duration::from_secs(5)), Duration::ZERO);
        assert_eq!((now + Duration::from_secs(5)).since(now).as_secs(), 5);
    }
}
