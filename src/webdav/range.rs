//! The `Range` header (RFC 9110 section 14): which bytes of a file are asked for.

use std::ops::Range;

/// More ranges than a reader of pages or archives asks for at once; a longer list gets the whole file.
const MAX_SPECS: usize = 16;
/// More parts than are sent in one answer.
const MAX_PARTS: usize = 8;
/// Ranges that lie closer than this are sent as one: a part's header costs about as much.
const GAP: u64 = 128;

/// What is to be sent of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selection {
    /// All of it: no range, or none that is honoured.
    Whole,
    /// These, in the order in which they lie, none touching another; never empty.
    Parts(Vec<Range<u64>>),
    /// No range lies within the file.
    Unsatisfiable,
}

/// Reads a `Range` header for a file of `size` bytes. One that is malformed, of another unit, or asks for
/// many overlapping pieces is passed over, as section 14.2 allows.
pub(super) fn select(header: &[u8], size: u64) -> Selection {
    let Some(specs) = specs(header) else { return Selection::Whole };
    let mut ranges: Vec<Range<u64>> = specs.iter().filter_map(|spec| spec.within(size)).collect();
    if ranges.is_empty() {
        return if size == 0 { Selection::Whole } else { Selection::Unsatisfiable };
    }
    let asked: u128 = ranges.iter().map(|range| u128::from(range.end - range.start)).sum();
    if asked > u128::from(size) {
        return Selection::Whole;
    }
    ranges.sort_by_key(|range| range.start);
    let mut parts: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match parts.last_mut() {
            Some(last) if range.start <= last.end.saturating_add(GAP) => last.end = last.end.max(range.end),
            _ => parts.push(range),
        }
    }
    if parts.len() > MAX_PARTS { Selection::Whole } else { Selection::Parts(parts) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spec {
    From(u64),
    Between(u64, u64),
    Last(u64),
}

impl Spec {
    fn within(self, size: u64) -> Option<Range<u64>> {
        let range = match self {
            Spec::From(first) => first..size,
            Spec::Between(first, last) => first..size.min(last.saturating_add(1)),
            Spec::Last(length) => size.saturating_sub(length)..size,
        };
        (range.start < range.end).then_some(range)
    }
}

fn specs(header: &[u8]) -> Option<Vec<Spec>> {
    let text = std::str::from_utf8(header).ok()?.trim();
    let (unit, list) = text.split_once('=')?;
    if !unit.trim_end().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let mut specs = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        if specs.len() == MAX_SPECS {
            return None;
        }
        specs.push(spec(part)?);
    }
    (!specs.is_empty()).then_some(specs)
}

fn spec(text: &str) -> Option<Spec> {
    let (first, last) = text.split_once('-')?;
    match (first.trim(), last.trim()) {
        ("", length) => Some(Spec::Last(number(length)?)),
        (first, "") => Some(Spec::From(number(first)?)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Spec::Between(first, last))
        }
    }
}

/// Reads digits; more than a file can be long count as that.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(list: &[Range<u64>]) -> Selection {
        Selection::Parts(list.to_vec())
    }

    fn part(first: u64, end: u64) -> Selection {
        Selection::Parts(vec![Range { start: first, end }])
    }

    #[test]
    fn ranges_are_cut_at_the_end_of_the_file() {
        assert_eq!(select(b"bytes=0-99", 1000), part(0, 100));
        assert_eq!(select(b"bytes=990-", 1000), part(990, 1000));
        assert_eq!(select(b"bytes=-10", 1000), part(990, 1000));
        assert_eq!(select(b"bytes=-5000", 1000), part(0, 1000));
        assert_eq!(select(b"Bytes = 990-99999999999999999999999", 1000), part(990, 1000));
        assert_eq!(select(b"bytes=1000-", 1000), Selection::Unsatisfiable);
        assert_eq!(select(b"bytes=-0", 1000), Selection::Unsatisfiable);
        assert_eq!(select(b"bytes=0-", 0), Selection::Whole);
    }

    #[test]
    fn what_is_malformed_or_of_another_unit_is_passed_over() {
        for text in
            ["", "bytes", "bytes=", "bytes=5-1", "bytes=a-", "bytes=-", "lines=1-2", "bytes=1-2;3-4", "bytes=+1-2"]
        {
            assert_eq!(select(text.as_bytes(), 1000), Selection::Whole, "{text}");
        }
    }

    #[test]
    fn close_ranges_become_one_and_greedy_lists_get_the_whole_file() {
        assert_eq!(select(b"bytes=0-9,500-509", 1000), parts(&[0..10, 500..510]));
        assert_eq!(select(b"bytes=500-509, 0-9 ,, 5-20", 1000), parts(&[0..21, 500..510]));
        assert_eq!(select(b"bytes=0-9,20-29", 1000), part(0, 30));
        assert_eq!(select(b"bytes=0-,0-,0-,0-", 1000), Selection::Whole);
        let long = format!("bytes={}", vec!["0-0"; MAX_SPECS + 1].join(","));
        assert_eq!(select(long.as_bytes(), 1 << 40), Selection::Whole);
    }

    proptest! {
        #[test]
        fn parts_lie_apart_and_within(text in "bytes=([0-9]{0,4}-[0-9]{0,4},?){1,20}", size in 0u64..5000) {
            if let Selection::Parts(parts) = select(text.as_bytes(), size) {
                prop_assert!(!parts.is_empty() && parts.len() <= MAX_PARTS);
                prop_assert!(parts.iter().all(|p| p.start < p.end && p.end <= size));
                prop_assert!(parts.windows(2).all(|w| w[0].end < w[1].start));
            }
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, size: u64) {
            let _ = select(&bytes, size);
        }
    }
}
