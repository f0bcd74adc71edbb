//! Formats of dates in headers and properties: IMF-fixdate (RFC 9110 section 5.6.7), RFC 3339, and seconds since 1970.
//!
//! Each can express every time of the years 1 to 9999, also those before 1970.

use std::time::UNIX_EPOCH;

use jiff::ToSpan;
use jiff::civil::DateTime;
use jiff::fmt::rfc2822;
use jiff::tz::{Offset, TimeZone};

use crate::tree::Timestamp;

/// First second of the year 1.
const MIN_EPOCH_SECONDS: i64 = -62_135_596_800;
/// Last second of the year 9999.
const MAX_EPOCH_SECONDS: i64 = 253_402_300_799;
const SECONDS_IN_400_YEARS: i64 = 146_097 * 86_400;

/// Names of the days of the week, Monday first, and of the months, three letters each.
const WEEKDAYS: &[u8; 21] = b"MonTueWedThuFriSatSun";
const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";

/// Formats a time as an HTTP date; one outside of the years 1 to 9999 is clamped to them.
pub(super) fn format_http_date(time: Timestamp) -> String {
    let mut text = String::with_capacity(32);
    write_http_date(time, &mut text);
    text
}

/// Appends a time as an HTTP date, clamped as by [`format_http_date`]. Listings contain many: the letters and digits are
/// put into a template, which is several times as fast as formatting.
pub(super) fn write_http_date(time: Timestamp, out: &mut String) {
    let date = utc_date(time);
    let mut text = *b"Mon, 01 Jan 1970 00:00:00 GMT";
    let weekday = usize::from(date.weekday().to_monday_zero_offset().unsigned_abs()) * 3;
    let month = usize::from(date.month().unsigned_abs() - 1) * 3;
    text[..3].copy_from_slice(&WEEKDAYS[weekday..weekday + 3]);
    put_two_digits(date.day(), &mut text[5..]);
    text[8..11].copy_from_slice(&MONTHS[month..month + 3]);
    put_year(date, &mut text[12..]);
    put_time(date, &mut text[17..]);
    out.push_str(std::str::from_utf8(&text).unwrap_or_default());
}

/// Returns the date and time of day in UTC of a time, clamped to the years 1 to 9999.
fn utc_date(time: Timestamp) -> DateTime {
    let seconds = time.seconds.clamp(MIN_EPOCH_SECONDS, MAX_EPOCH_SECONDS);
    let date_at = |seconds| jiff::Timestamp::from_second(seconds).map(|time| Offset::UTC.to_datetime(time));
    // The last day of the year 9999 is beyond a `jiff::Timestamp`; dates and days of the week repeat after 400 years.
    let repeated = || date_at(seconds - SECONDS_IN_400_YEARS).and_then(|date| date.checked_add(400.years()));
    date_at(seconds).or_else(|_| repeated()).unwrap_or_default()
}

/// Puts `HH:MM:SS` at the start of a text.
fn put_time(date: DateTime, text: &mut [u8]) {
    put_two_digits(date.hour(), text);
    put_two_digits(date.minute(), &mut text[3..]);
    put_two_digits(date.second(), &mut text[6..]);
}

/// Puts the year, 1 to 9999, with four digits at the start of a text.
fn put_year(date: DateTime, text: &mut [u8]) {
    let year = date.year();
    for (half, digits) in [year / 100, year % 100].into_iter().zip(text.chunks_exact_mut(2)) {
        put_two_digits(i8::try_from(half).unwrap_or_default(), digits);
    }
}

/// Puts a number from 0 to 99 with two digits at the start of a text.
fn put_two_digits(number: i8, text: &mut [u8]) {
    let number = number.unsigned_abs();
    text[..2].copy_from_slice(&[b'0' + number / 10, b'0' + number % 10]);
}

/// Parses an HTTP date, in any of its three formats, as seconds since 1970.
pub(super) fn parse_http_date(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(time) = httpdate::parse_http_date(text) {
        return i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok();
    }
    // Dates before 1970, which `httpdate` rejects.
    let fixed = || rfc2822::DateTimeParser::new().parse_timestamp(text).ok();
    let asctime =
        || DateTime::strptime("%a %b %e %H:%M:%S %Y", text).ok()?.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp());
    fixed().or_else(asctime).map(jiff::Timestamp::as_second).filter(|seconds| is_in_year_range(*seconds))
}

fn is_in_year_range(seconds: i64) -> bool {
    (MIN_EPOCH_SECONDS..=MAX_EPOCH_SECONDS).contains(&seconds)
}

/// Formats a time as in RFC 3339, in UTC with whole seconds.
pub(super) fn format_rfc3339(time: Timestamp) -> String {
    let mut text = String::with_capacity(20);
    write_rfc3339(time, &mut text);
    text
}

/// Appends a time as [`format_rfc3339`] formats it.
pub(super) fn write_rfc3339(time: Timestamp, out: &mut String) {
    let date = utc_date(time);
    let mut text = *b"1970-01-01T00:00:00Z";
    put_year(date, &mut text);
    put_two_digits(date.month(), &mut text[5..]);
    put_two_digits(date.day(), &mut text[8..]);
    put_time(date, &mut text[11..]);
    out.push_str(std::str::from_utf8(&text).unwrap_or_default());
}

/// Parses seconds since 1970, as in `X-OC-Mtime`, with or without a fraction; negative before 1970.
pub(super) fn parse_epoch_seconds(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    // `parse` alone would accept another sign: `--5` or `+5`.
    let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    // Padded to nanoseconds on the right: `.5` is 500,000,000. Further digits are cut off.
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    // Nanoseconds of a `Timestamp` count forward, also before 1970: -1.25 is -2 s and 750,000,000 ns.
    let time = match (negative, nanos) {
        (false, _) => Timestamp { seconds, nanos },
        (true, 0) => Timestamp { seconds: -seconds, nanos },
        (true, _) => Timestamp { seconds: -seconds - 1, nanos: 1_000_000_000 - nanos },
    };
    // A later year could be set, but not written back in any of the formats.
    is_in_year_range(time.seconds).then_some(time)
}

/// Parses a time as in RFC 3339, with a time zone.
fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    let time: jiff::Timestamp = text.trim().parse().ok()?;
    let nanos = time.as_nanosecond().rem_euclid(1_000_000_000);
    let seconds = i64::try_from(time.as_nanosecond().div_euclid(1_000_000_000)).ok()?;
    is_in_year_range(seconds).then_some(Timestamp { seconds, nanos: u32::try_from(nanos).ok()? })
}

/// Parses a time that a client sets by PROPPATCH: an HTTP date, seconds since 1970, or RFC 3339.
pub(super) fn parse_property_time(text: &str) -> Option<Timestamp> {
    let http = parse_http_date(text).map(|seconds| Timestamp { seconds, nanos: 0 });
    http.or_else(|| parse_epoch_seconds(text)).or_else(|| parse_rfc3339(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn timestamp(seconds: i64) -> Timestamp {
        Timestamp { seconds, nanos: 0 }
    }

    #[test]
    fn unrepresentable_times_are_clamped() {
        assert_eq!(format_http_date(timestamp(981_173_106)), "Sat, 03 Feb 2001 04:05:06 GMT");
        assert_eq!(format_http_date(timestamp(-1)), "Wed, 31 Dec 1969 23:59:59 GMT");
        assert_eq!(format_http_date(timestamp(i64::MIN)), "Mon, 01 Jan 0001 00:00:00 GMT");
        assert_eq!(format_http_date(timestamp(i64::MAX)), "Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(format_rfc3339(timestamp(981_173_106)), "2001-02-03T04:05:06Z");
        assert_eq!(format_rfc3339(timestamp(-1)), "1969-12-31T23:59:59Z");
    }

    #[test]
    fn property_times_are_accepted_in_several_formats() {
        let part = |seconds, nanos| Some(Timestamp { seconds, nanos });
        assert_eq!(parse_epoch_seconds("981173106"), Some(timestamp(981_173_106)));
        assert_eq!(parse_epoch_seconds("981173106.25"), part(981_173_106, 250_000_000));
        assert_eq!(parse_epoch_seconds("-1.25"), part(-2, 750_000_000));
        assert_eq!(parse_epoch_seconds("-0.5"), part(-1, 500_000_000));
        assert_eq!(parse_epoch_seconds("-5.0"), Some(timestamp(-5)));
        for text in [
            "Sat, 03 Feb 2001 04:05:06 GMT",
            "Saturday, 03-Feb-01 04:05:06 GMT",
            "Sat Feb  3 04:05:06 2001",
            " 981173106 ",
            "2001-02-03T04:05:06Z",
            "2001-02-03T05:05:06+01:00",
        ] {
            assert_eq!(parse_property_time(text), Some(timestamp(981_173_106)), "{text}");
        }
        assert_eq!(parse_property_time("Wed Dec 31 23:59:59 1969"), Some(timestamp(-1)));
        assert_eq!(parse_property_time("1969-12-31T23:59:58.5Z"), part(-2, 500_000_000));
        for text in [
            "",
            "x",
            "1.x",
            ".5",
            "-",
            "--1",
            "1e9",
            "99999999999999999999",
            "253402300800",
            "-62135596801",
            "Sat, 99 Feb 2001 04:05:06 GMT",
            "2001-02-03",
        ] {
            assert_eq!(parse_property_time(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_and_times_never_panic(text: String, seconds: i64) {
            let _ = (parse_property_time(&text), format_http_date(timestamp(seconds)), format_rfc3339(timestamp(seconds)));
        }

        #[test]
        fn formatted_dates_round_trip(seconds in MIN_EPOCH_SECONDS..=MAX_EPOCH_SECONDS) {
            prop_assert_eq!(parse_http_date(&format_http_date(timestamp(seconds))), Some(seconds));
            // All but the last day.
            if let Ok(date) = jiff::Timestamp::from_second(seconds) {
                let formatted = rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&date).expect("formatted");
                prop_assert_eq!(format_http_date(timestamp(seconds)), formatted);
                prop_assert_eq!(format_rfc3339(timestamp(seconds)), date.to_string());
            }
            prop_assert_eq!(parse_property_time(&format_rfc3339(timestamp(seconds))), Some(timestamp(seconds)));
            prop_assert_eq!(parse_epoch_seconds(&seconds.to_string()), Some(timestamp(seconds)));
        }
    }
}
