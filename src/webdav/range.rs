//! The `Range` header (RFC 9110 section 14): the requested bytes of a file.

use std::ops::Range;

/// Maximum number of ranges in a request, more than PDF viewers or archive readers send; a longer list gets the whole
/// file.
const MAX_RANGE_SPECS: usize = 16;
/// Maximum number of parts in a response; where there would be more, the whole file is sent.
const MAX_PARTS: usize = 8;
/// Maximum gap between ranges that are sent as one part: the header of a part takes about as many bytes.
const RANGE_COALESCE_GAP_BYTES: u64 = 128;

/// Part of a file that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RangeSelection {
    /// The whole file: no range was requested, or it is ignored.
    FullFile,
    /// These ranges, in ascending order and disjoint; never empty.
    Ranges(Vec<Range<u64>>),
    /// No range is within the file.
    Unsatisfiable,
}

/// Parses a `Range` header for a file of `size` bytes. A header that is malformed, has another unit, or requests many
/// overlapping ranges is ignored, as section 14.2 allows.
pub(super) fn select_ranges(header: &[u8], size: u64) -> RangeSelection {
    let Some(specs) = parse_specs(header) else { return RangeSelection::FullFile };
    let mut ranges: Vec<Range<u64>> = specs.iter().filter_map(|spec| spec.to_range(size)).collect();
    if ranges.is_empty() {
        // An empty file has no byte to ask for: clients that always send `bytes=0-` get it with 200.
        return if size == 0 { RangeSelection::FullFile } else { RangeSelection::Unsatisfiable };
    }
    let requested: u128 = ranges.iter().map(|range| u128::from(range.end - range.start)).sum();
    // Overlapping ranges multiply a file: an amplification attack (CVE-2011-3192).
    if requested > u128::from(size) {
        return RangeSelection::FullFile;
    }
    // Coalescing, and another order than the requested one, are allowed (RFC 9110 section 15.3.7.2).
    ranges.sort_by_key(|range| range.start);
    let mut parts: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match parts.last_mut() {
            Some(last) if range.start <= last.end.saturating_add(RANGE_COALESCE_GAP_BYTES) => {
                last.end = last.end.max(range.end)
            }
            _ => parts.push(range),
        }
    }
    if parts.len() > MAX_PARTS { RangeSelection::FullFile } else { RangeSelection::Ranges(parts) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RangeSpec {
    From(u64),
    Bounded(u64, u64),
    Suffix(u64),
}

impl RangeSpec {
    fn to_range(self, size: u64) -> Option<Range<u64>> {
        let range = match self {
            RangeSpec::From(first) => first..size,
            RangeSpec::Bounded(first, last) => first..size.min(last.saturating_add(1)),
            RangeSpec::Suffix(length) => size.saturating_sub(length)..size,
        };
        (range.start < range.end).then_some(range)
    }
}

fn parse_specs(header: &[u8]) -> Option<Vec<RangeSpec>> {
    let text = std::str::from_utf8(header).ok()?.trim();
    let (unit, list) = text.split_once('=')?;
    if !unit.trim_end().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let mut specs = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        // While parsing, so that a header of thousands of ranges is not read to its end.
        if specs.len() == MAX_RANGE_SPECS {
            return None;
        }
        specs.push(parse_spec(part)?);
    }
    (!specs.is_empty()).then_some(specs)
}

fn parse_spec(text: &str) -> Option<RangeSpec> {
    let (first, last) = text.split_once('-')?;
    match (first.trim(), last.trim()) {
        ("", length) => Some(RangeSpec::Suffix(parse_number(length)?)),
        (first, "") => Some(RangeSpec::From(parse_number(first)?)),
        (first, last) => {
            let (first, last) = (parse_number(first)?, parse_number(last)?);
            // One invalid range makes the whole header invalid (RFC 9110 section 14.1.1).
            (first <= last).then_some(RangeSpec::Bounded(first, last))
        }
    }
}

/// Parses digits; a number that is too large becomes the maximum.
fn parse_number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn selection_of(list: &[Range<u64>]) -> RangeSelection {
        RangeSelection::Ranges(list.to_vec())
    }

    fn selection_of_one(first: u64, end: u64) -> RangeSelection {
        RangeSelection::Ranges(vec![Range { start: first, end }])
    }

    #[test]
    fn ranges_are_clamped_to_file_size() {
        assert_eq!(select_ranges(b"bytes=0-99", 1000), selection_of_one(0, 100));
        assert_eq!(select_ranges(b"bytes=990-", 1000), selection_of_one(990, 1000));
        assert_eq!(select_ranges(b"bytes=-10", 1000), selection_of_one(990, 1000));
        assert_eq!(select_ranges(b"bytes=-5000", 1000), selection_of_one(0, 1000));
        assert_eq!(select_ranges(b"Bytes = 990-99999999999999999999999", 1000), selection_of_one(990, 1000));
        assert_eq!(select_ranges(b"bytes=1000-", 1000), RangeSelection::Unsatisfiable);
        assert_eq!(select_ranges(b"bytes=-0", 1000), RangeSelection::Unsatisfiable);
        assert_eq!(select_ranges(b"bytes=0-", 0), RangeSelection::FullFile);
    }

    #[test]
    fn malformed_range_or_other_unit_is_ignored() {
        for text in
            ["", "bytes", "bytes=", "bytes=5-1", "bytes=a-", "bytes=-", "lines=1-2", "bytes=1-2;3-4", "bytes=+1-2"]
        {
            assert_eq!(select_ranges(text.as_bytes(), 1000), RangeSelection::FullFile, "{text}");
        }
    }

    #[test]
    fn close_ranges_are_coalesced_and_excessive_lists_get_full_file() {
        assert_eq!(select_ranges(b"bytes=0-9,500-509", 1000), selection_of(&[0..10, 500..510]));
        assert_eq!(select_ranges(b"bytes=500-509, 0-9 ,, 5-20", 1000), selection_of(&[0..21, 500..510]));
        assert_eq!(select_ranges(b"bytes=0-9,20-29", 1000), selection_of_one(0, 30));
        assert_eq!(select_ranges(b"bytes=0-,0-,0-,0-", 1000), RangeSelection::FullFile);
        let long = format!("bytes={}", vec!["0-0"; MAX_RANGE_SPECS + 1].join(","));
        assert_eq!(select_ranges(long.as_bytes(), 1 << 40), RangeSelection::FullFile);
    }

    proptest! {
        #[test]
        fn selected_ranges_are_disjoint_and_within_file(text in "bytes=([0-9]{0,4}-[0-9]{0,4},?){1,20}", size in 0u64..5000) {
            if let RangeSelection::Ranges(parts) = select_ranges(text.as_bytes(), size) {
                prop_assert!(!parts.is_empty() && parts.len() <= MAX_PARTS);
                prop_assert!(parts.iter().all(|p| p.start < p.end && p.end <= size));
                prop_assert!(parts.windows(2).all(|w| w[0].end < w[1].start));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, size: u64) {
            let _ = select_ranges(&bytes, size);
        }
    }
}
