//! Two clocks, two types, so that they cannot be mixed up.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

/// A point on the wall clock, in milliseconds since the Unix epoch: what Kinesis stamps on records.
///
/// Never compared between machines to decide who owns what; leases run on [`Monotonic`] time alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// A point from milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// How much later this is than `earlier`; zero if it is not later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// This point moved into the future; stops at the end of the range.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This point moved into the past; stops at the end of the range.
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let millis = |d: Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
        match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => Self(millis(after)),
            Err(before) => Self(-millis(before.duration())),
        }
    }
}

/// RFC 3339 in UTC with milliseconds, such as `2013-01-01T05:15:00.000Z`; plain milliseconds outside the years 1970 to
/// 9999.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const END_OF_9999: i64 = 253_402_300_799_999;
        match u64::try_from(self.0) {
            Ok(millis) if self.0 <= END_OF_9999 => {
                let time = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
                f.pad(&humantime::format_rfc3339_millis(time).to_string())
            }
            _ => write!(f, "{} ms since 1970", self.0),
        }
    }
}

/// Text that is not a point in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a time: RFC 3339 in UTC, such as `2013-01-01T05:15:00.000Z`, or `<milliseconds> ms since 1970`"
)]
pub struct InvalidTimestamp {
    /// The text that was given, cut after 80 characters.
    pub text: String,
}

/// What [`Display`](fmt::Display) prints, and RFC 3339 in UTC with any number of decimals, of which three are kept.
impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidTimestamp { text: text.chars().take(80).collect() };
        match text.strip_suffix(" ms since 1970") {
            Some(millis) => millis.parse().map(Self).map_err(|_| invalid()),
            None => humantime::parse_rfc3339(text).map(Self::from).map_err(|_| invalid()),
        }
    }
}

/// A point on one worker's monotonic clock: the time since an origin that means nothing elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(Duration);

impl Monotonic {
    /// The origin of the clock.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// The point that lies `since_origin` after the origin.
    pub const fn from_origin(since_origin: Duration) -> Self {
        Self(since_origin)
    }

    /// The time since the origin.
    pub const fn since_origin(self) -> Duration {
        self.0
    }

    /// How much later this is than `earlier`; zero if it is not later.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// This point moved into the future; stops at the end of the range.
    pub const fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }

    /// This point moved into the past; stops at the origin.
    pub const fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn timestamps_print_as_rfc_3339_where_they_can() {
        assert_eq!(Timestamp::from_millis(1_357_017_300_007).to_string(), "2013-01-01T05:15:00.007Z");
        assert_eq!(Timestamp::from_millis(-5).to_string(), "-5 ms since 1970");
        assert_eq!(Timestamp::from_millis(i64::MAX).to_string(), "9223372036854775807 ms since 1970");
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "now", "2013-01-01", "2013-01-01T05:15:00+01:00", " ms since 1970", "1e3 ms since 1970"] {
            let error = text.parse::<Timestamp>().expect_err("no time");
            assert_eq!(error.text, text);
        }
        assert_eq!("1970-01-01T00:00:01.2345Z".parse(), Ok(Timestamp::from_millis(1234)));
    }

    proptest! {
        #[test]
        fn text_round_trips(millis in prop_oneof![any::<i64>(), 0..300_000_000_000_000i64]) {
            let time = Timestamp::from_millis(millis);
            prop_assert_eq!(time.to_string().parse(), Ok(time));
        }

        #[test]
        fn reading_never_panics(text in "\\PC*|[-0-9TZ:. ]*") {
            let _ = text.parse::<Timestamp>();
        }
    }

    #[test]
    fn differences_never_go_below_zero() {
        let (early, late) = (Timestamp::from_millis(5), Timestamp::from_millis(9));
        assert_eq!(late.since(early), Duration::from_millis(4));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(Timestamp::from_millis(i64::MAX).plus(Duration::MAX).as_millis(), i64::MAX);
    }
}
