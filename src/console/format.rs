//! Formats times, durations, sizes and counts for people.

use std::fmt;
use std::time::Duration;

use crate::domain::{Role, UnixMillis};
use crate::tree::Timestamp;

/// A time as a page shows it: relative to now, and exact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DisplayTime {
    /// RFC 3339, for `datetime` attributes.
    pub(super) iso: String,
    /// The exact time for people: `2026-05-05 08:00:00 UTC`.
    pub(super) exact: String,
    /// The relative time: `in 3 days`, `2 hours ago`.
    pub(super) words: String,
}

impl DisplayTime {
    /// Formats a time relative to `now`.
    pub(super) fn new(time: UnixMillis, now: UnixMillis) -> Self {
        let iso = time.to_string();
        let exact = iso.replace('T', " ").replace('Z', " UTC");
        let words = match (time.saturating_duration_since(now), now.saturating_duration_since(time)) {
            (Duration::ZERO, elapsed) if elapsed < Duration::from_secs(5) => "just now".to_owned(),
            (Duration::ZERO, elapsed) => format!("{} ago", format_duration(elapsed)),
            (remaining, _) => format!("in {}", format_duration(remaining)),
        };
        Self { iso, exact, words }
    }

    /// Formats the modification time of a file.
    pub(super) fn from_file_time(time: Timestamp, now: UnixMillis) -> Self {
        Self::new(UnixMillis::from_millis(time.seconds.saturating_mul(1000)), now)
    }
}

/// Formats a duration in its largest whole unit: `3 days`.
pub(super) fn format_duration(duration: Duration) -> String {
    let units = [(365 * 86_400, "year"), (30 * 86_400, "month"), (86_400, "day"), (3600, "hour"), (60, "minute")];
    let seconds = duration.as_secs();
    // Less than two of a unit are given in the next smaller one, so that "in 1 day" never means 47 hours.
    let fitting_unit = units.into_iter().find(|(size, _)| seconds >= 2 * size);
    let (size, unit) = fitting_unit.unwrap_or((1, "second"));
    let count = seconds / size;
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// A number of bytes that is displayed in binary units: `1.4 MiB`.
pub(super) struct DisplaySize(pub(super) u64);

impl fmt::Display for DisplaySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match units.into_iter().find(|(size, _)| self.0 >= *size) {
            None => write!(f, "{} B", self.0),
            Some((size, unit)) => {
                let tenths = u128::from(self.0) * 10 / u128::from(size);
                if tenths < 100 {
                    write!(f, "{}.{} {unit}", tenths / 10, tenths % 10)
                } else {
                    write!(f, "{} {unit}", tenths / 10)
                }
            }
        }
    }
}

/// Returns a description of a role; empty for an unknown one.
pub(super) fn role_description(name: &str) -> &'static str {
    match name.parse() {
        Ok(Role::Admin) => "all roles",
        Ok(Role::GenerateTokens) => "create, narrow and rotate other users’ tokens",
        Ok(Role::AuthenticationLookup) => "list and show other users’ tokens",
        Ok(Role::RevokeTokens) => "revoke other users’ tokens",
        Ok(Role::ManageUsers) => "manage users and grants",
        Ok(Role::ManagePolicy) => "change the policy",
        Ok(Role::ReadAudit) => "read the audit trail",
        Ok(Role::ReadMetrics) => "read the metrics of the server",
        Err(_) => "",
    }
}

/// Formats a number with thousands separators: `10,000`.
pub(super) fn format_grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_relative_to_now() {
        let now = UnixMillis::from_millis(1_777_968_000_000);
        let words =
            |seconds: i64| DisplayTime::new(UnixMillis::from_millis(now.as_millis() + seconds * 1000), now).words;
        assert_eq!(words(0), "just now");
        assert_eq!(words(-90), "90 seconds ago");
        assert_eq!(words(-7200), "2 hours ago");
        assert_eq!(words(47 * 3600), "in 47 hours");
        assert_eq!(words(90 * 86_400), "in 3 months");
        assert_eq!(DisplayTime::new(now, now).exact, "2026-05-05 08:00:00 UTC");
    }

    #[test]
    fn sizes_are_shown_with_two_or_three_digits() {
        let sizes = [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (10 << 20, "10 MiB"), (u64::MAX, "16777215 TiB")];
        for (bytes, text) in sizes {
            assert_eq!(DisplaySize(bytes).to_string(), text);
        }
        assert_eq!(
            (format_grouped(7), format_grouped(1000), format_grouped(1_234_567)),
            ("7".into(), "1,000".into(), "1,234,567".into())
        );
    }
}
