//! Times and lifetimes.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::json_values::impl_text_json;

/// A time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMillis(i64);

impl UnixMillis {
    /// The latest time that can be written as a date with a four-digit year.
    pub const MAX: UnixMillis = UnixMillis(253_402_300_799_999);

    /// A time before all others that occur.
    pub const EARLIEST: UnixMillis = UnixMillis(i64::MIN / 4);

    /// Returns a time from milliseconds since 1970, [`UnixMillis::MAX`] at most.
    pub fn from_millis(millis: i64) -> Self {
        Self(millis.min(Self::MAX.0))
    }

    /// Returns milliseconds since 1970.
    pub fn as_millis(self) -> i64 {
        self.0
    }

    /// Adds a duration, up to [`UnixMillis::MAX`].
    pub fn saturating_add(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self::from_millis(self.0.saturating_add(millis))
    }

    /// Subtracts a duration, saturating.
    pub fn saturating_sub(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(millis))
    }

    /// Returns the start of its hour.
    pub fn start_of_hour(self) -> Self {
        Self(self.0.saturating_sub(self.0.rem_euclid(3_600_000)))
    }

    /// Returns the duration since `earlier`, zero when this is not later.
    pub fn saturating_duration_since(self, earlier: UnixMillis) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for UnixMillis {
    /// Writes RFC 3339 in UTC with whole seconds: `2026-05-05T08:00:00Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_second(self.0.div_euclid(1000)) {
            Ok(timestamp) => timestamp.fmt(f),
            Err(_) => f.write_str("out of range"),
        }
    }
}

impl UnixMillis {
    /// Returns RFC 3339 in UTC with milliseconds: `2026-05-05T08:00:00.123Z`.
    pub fn format_with_millis(self) -> String {
        self.format("%Y-%m-%dT%H:%M:%S.%3fZ")
    }

    /// Returns the time as the access logs of web servers show it: `05/May/2026:08:00:00 +0000`.
    pub fn format_common_log(self) -> String {
        self.format("%d/%b/%Y:%H:%M:%S +0000")
    }

    fn format(self, format: &str) -> String {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(timestamp) => timestamp.strftime(format).to_string(),
            Err(_) => "out of range".to_owned(),
        }
    }
}

impl FromStr for UnixMillis {
    type Err = String;

    /// Parses RFC 3339; later times become [`UnixMillis::MAX`].
    fn from_str(text: &str) -> Result<Self, String> {
        let error = || format!("{text:?} is not a time: give a date such as 2030-05-05T08:00:00Z");
        // The library reads more than RFC 3339: times without seconds, names of zones, years with a sign.
        let timestamp: Option<jiff::Timestamp> = text.parse().ok().filter(|_| has_rfc3339_form(text));
        let timestamp = timestamp.ok_or_else(error)?;
        Ok(Self::from_millis(timestamp.as_millisecond()))
    }
}

impl UnixMillis {
    /// Parses date and time in UTC in the form `2030-05-05 08:00:00`.
    ///
    /// # Errors
    /// A message that shows the form.
    pub fn parse_utc(text: &str) -> Result<Self, String> {
        let error = || format!("{text:?} is not a time: give it as 2030-05-05 08:00:00, in UTC");
        if !has_form(text, "0000-00-00 00:00:00") {
            return Err(error());
        }
        format!("{}Z", text.replace(' ', "T")).parse().map_err(|_| error())
    }

    /// Returns the time in the form that [`UnixMillis::parse_utc`] reads.
    pub fn format_utc(self) -> String {
        self.to_string().replace('T', " ").replace('Z', "")
    }
}

/// Tells whether a text is another one with any digits in place of its zeros.
fn has_form(text: &str, form: &str) -> bool {
    let fits = |(byte, form): (u8, u8)| if form == b'0' { byte.is_ascii_digit() } else { byte == form };
    text.len() == form.len() && text.bytes().zip(form.bytes()).all(fits)
}

/// Tells whether a text has the form of `date-time` (RFC 3339 section 5.6), its fraction in nanoseconds at most.
fn has_rfc3339_form(text: &str) -> bool {
    let Some((date_time, rest)) = text.split_at_checked(19) else { return false };
    let has_date = ["0000-00-00T00:00:00", "0000-00-00t00:00:00", "0000-00-00 00:00:00"]
        .into_iter()
        .any(|form| has_form(date_time, form));
    let fraction = rest.strip_prefix('.').map(|rest| rest.bytes().take_while(u8::is_ascii_digit).count());
    let (has_fraction, zone) = match fraction {
        None => (true, rest),
        Some(digits) => ((1..=9).contains(&digits), &rest[1 + digits..]),
    };
    has_date && has_fraction && ["Z", "z", "+00:00", "-00:00"].into_iter().any(|form| has_form(zone, form))
}

/// The lifetime or sliding window of a token: an integer and a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lifetime(u64);

const LIFETIME_UNITS_HELP: &str =
    "s (seconds), m (minutes), h, d (days), w, M (months of 30 days) or Y (years of 365 days)";
const MAX_LIFETIME_SECONDS: u64 = 1000 * 365 * 86_400;
/// Number of digits in which every lifetime can be written, in seconds too.
const MAX_LIFETIME_DIGITS: usize = 12;

impl Lifetime {
    /// Returns a lifetime of whole seconds; `None` for zero or more than a thousand years.
    pub fn from_secs(seconds: u64) -> Option<Self> {
        (1..=MAX_LIFETIME_SECONDS).contains(&seconds).then_some(Self(seconds))
    }

    /// Parses a sliding window: a lifetime in which a number without a unit means seconds.
    ///
    /// # Errors
    /// As [`Lifetime::from_str`].
    pub fn parse_window(text: &str) -> Result<Self, LifetimeError> {
        let text = text.trim();
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return format!("{text}s").parse();
        }
        text.parse()
    }

    /// Returns the whole seconds.
    pub fn as_secs(self) -> u64 {
        self.0
    }

    /// Returns it as a duration.
    pub fn as_duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl FromStr for Lifetime {
    type Err = LifetimeError;

    fn from_str(text: &str) -> Result<Self, LifetimeError> {
        let error = |problem| LifetimeError { text: text.to_owned(), problem };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        if number.is_empty() {
            return Err(error("is not a whole number with a unit"));
        }
        let unit = match unit {
            "s" | "S" => 1,
            "m" => 60,
            "h" | "H" => 3600,
            "d" | "D" => 86_400,
            "w" | "W" => 7 * 86_400,
            "M" => 30 * 86_400,
            "Y" => 365 * 86_400,
            "" => return Err(error("has no unit")),
            _ => return Err(error("has an unknown unit")),
        };
        let number = Some(number).filter(|_| digits <= MAX_LIFETIME_DIGITS);
        let seconds = number.and_then(|number| number.parse::<u64>().ok()).and_then(|n| n.checked_mul(unit));
        match seconds {
            Some(0) => Err(error("is zero")),
            Some(s) => Self::from_secs(s).ok_or_else(|| error("is too long")),
            None => Err(error("is too long")),
        }
    }
}

impl fmt::Display for Lifetime {
    /// Writes the largest unit that divides it: `90d`, `36h`, `61s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(365 * 86_400, 'Y'), (86_400, 'd'), (3600, 'h'), (60, 'm'), (1, 's')];
        let (size, unit) = units.into_iter().find(|(size, _)| self.0.is_multiple_of(*size)).unwrap_or((1, 's'));
        write!(f, "{}{unit}", self.0 / size)
    }
}

impl_text_json!(Lifetime);

/// A text that is not a lifetime. The message lists the units.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the duration {text:?} {problem}: give a whole number above zero and a unit, {LIFETIME_UNITS_HELP}")]
pub struct LifetimeError {
    text: String,
    problem: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lifetime_unit_parses() {
        let cases = [
            ("10s", 10),
            ("10S", 10),
            ("2m", 120),
            ("24h", 86_400),
            ("1H", 3600),
            ("3d", 259_200),
            ("3D", 259_200),
            ("2w", 1_209_600),
            ("1W", 604_800),
            ("1M", 2_592_000),
            ("1Y", 31_536_000),
        ];
        for (text, seconds) in cases {
            assert_eq!(text.parse::<Lifetime>().map(Lifetime::as_secs), Ok(seconds), "{text}");
        }
    }

    #[test]
    fn invalid_duration_error_lists_units() {
        for text in [
            "",
            "0s",
            "-1h",
            "10",
            "10x",
            "h",
            "1.5h",
            "99999999999999999999s",
            "99999999999Y",
            "0000000000001s",
            " 1h",
            "1 h",
            "1y",
        ] {
            let error = text.parse::<Lifetime>().expect_err(text).to_string();
            assert!(error.contains("s (seconds)") && error.contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn window_accepts_bare_seconds() {
        assert_eq!(Lifetime::parse_window("600").map(Lifetime::as_secs), Ok(600));
        assert_eq!(Lifetime::parse_window("10m").map(Lifetime::as_secs), Ok(600));
        assert!(Lifetime::parse_window("0").is_err());
        assert!(Lifetime::parse_window("-5").is_err());
    }

    #[test]
    fn times_roundtrip() {
        let time = UnixMillis::from_millis(1_777_968_000_000);
        assert_eq!(time.to_string().parse(), Ok(time));
        assert_eq!("2026-05-05T10:00:00+02:00".parse(), Ok(time));
        assert_eq!(
            (UnixMillis::parse_utc("2026-05-05 08:00:00"), time.format_utc()),
            (Ok(time), "2026-05-05 08:00:00".into())
        );
        for text in ["", "2026-05-05", "2026-05-05T08:00:00Z", "2026-02-30 08:00:00", "2026-05-05 25:00:00"] {
            assert!(UnixMillis::parse_utc(text).is_err(), "{text}");
        }
        for text in ["2026-05-05 10:00:00.000000001+02:00", "2026-05-05t08:00:00z"] {
            assert_eq!(text.parse(), Ok(time), "{text}");
        }
        let malformed = [
            "2026-05-05 08:00:00",
            "tomorrow",
            "2026-05-05T08:00Z",
            "20260505T08:00:00Z",
            "2026-05-05T08:00:00Z[UTC]",
            "+002026-05-05T08:00:00Z",
            "2026-05-05T08:00:00.Z",
            "2026-05-05T08:00:00+02",
            "2026-05-05T08:00:00Z\n",
        ];
        for text in malformed {
            assert!(text.parse::<UnixMillis>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn start_of_hour_rounds_down() {
        let of = |millis| UnixMillis::from_millis(millis).start_of_hour().as_millis();
        assert_eq!((of(0), of(3_599_999), of(3_600_000), of(-1)), (0, 0, 3_600_000, -3_600_000));
        assert_eq!(of(i64::MIN), i64::MIN);
    }

    #[test]
    fn times_format_as_rfc3339_and_saturate() {
        assert_eq!(UnixMillis::from_millis(1_777_968_000_999).to_string(), "2026-05-05T08:00:00Z");
        assert_eq!(UnixMillis::MAX.saturating_add(Duration::MAX), UnixMillis::MAX);
        assert_eq!(UnixMillis::from_millis(5).saturating_duration_since(UnixMillis::from_millis(9)), Duration::ZERO);
    }
}
