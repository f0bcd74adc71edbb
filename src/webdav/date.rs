//! Dates on the wire: IMF-fixdate (RFC 9110 section 5.6.7), RFC 3339, and the forms clients set times in.

use std::time::{Duration, UNIX_EPOCH};

use crate::domain::Time;
use crate::tree::Timestamp;

const LAST_SECOND: i64 = 253_402_300_799;

/// Returns a time as an HTTP date; one before 1970 or after 9999 shows as the nearest that can be written.
pub(super) fn http_date(time: Timestamp) -> String {
    let seconds = u64::try_from(time.seconds.clamp(0, LAST_SECOND)).unwrap_or(0);
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Reads an HTTP date, in any of its three forms, as seconds since 1970.
pub(super) fn parse_http_date(text: &str) -> Option<i64> {
    let time = httpdate::parse_http_date(text.trim()).ok()?;
    i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
}

/// Returns a time as RFC 3339 writes it, in UTC with whole seconds.
pub(super) fn internet_date(time: Timestamp) -> String {
    Time::from_millis(time.seconds.clamp(0, LAST_SECOND).saturating_mul(1000)).to_string()
}

/// Reads seconds since 1970 as `X-OC-Mtime` has them, with or without a fraction.
pub(super) fn parse_epoch(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok().filter(|s| (-LAST_SECOND..=LAST_SECOND).contains(s))?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos = digits.parse().ok()?;
    Some(Timestamp { seconds, nanos: if whole.starts_with('-') { 0 } else { nanos } })
}

/// Reads a time that a client sets by PROPPATCH: an HTTP date, or seconds since 1970.
pub(super) fn parse_set_time(text: &str) -> Option<Timestamp> {
    parse_http_date(text).map(|seconds| Timestamp { seconds, nanos: 0 }).or_else(|| parse_epoch(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp { seconds, nanos: 0 }
    }

    #[test]
    fn times_that_http_cannot_write_show_as_the_nearest_that_it_can() {
        assert_eq!(http_date(at(981_173_106)), "Sat, 03 Feb 2001 04:05:06 GMT");
        assert_eq!(http_date(at(-1)), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(http_date(at(i64::MAX)), "Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(internet_date(at(981_173_106)), "2001-02-03T04:05:06Z");
    }

    #[test]
    fn clients_set_times_in_several_forms() {
        assert_eq!(parse_epoch("981173106"), Some(at(981_173_106)));
        assert_eq!(parse_epoch("981173106.25"), Some(Timestamp { seconds: 981_173_106, nanos: 250_000_000 }));
        assert_eq!(parse_set_time("Sat, 03 Feb 2001 04:05:06 GMT"), Some(at(981_173_106)));
        assert_eq!(parse_set_time(" 981173106 "), Some(at(981_173_106)));
        for text in ["", "x", "1.x", "99999999999999999999", "Sat, 99 Feb 2001 04:05:06 GMT"] {
            assert_eq!(parse_set_time(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_and_no_time_panics(text: String, seconds: i64) {
            let _ = (parse_set_time(&text), http_date(at(seconds)), internet_date(at(seconds)));
        }
    }
}
