//! Range of a file that a request writes: `Content-Range` of PUT (RFC 9110 section 14.4), and `X-Update-Range` of PATCH
//! as defined by SabreDAV.

use super::error::{Error, Result};

/// Range of a file that is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WriteRange {
    start: WriteStart,
    length: Option<u64>,
    total: Option<u64>,
    requires_existing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriteStart {
    FromStart(u64),
    FromEnd(u64),
}

const MALFORMED_RANGE: Error = Error::Malformed("the range to write is malformed");

impl WriteRange {
    /// Parses `bytes 0-99/200`; the complete length may be `*`.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the syntax or the order of the numbers is wrong.
    pub(super) fn from_content_range(text: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(text).map_err(|_| MALFORMED_RANGE)?.trim();
        let rest = text.strip_prefix("bytes").map(str::trim).ok_or(MALFORMED_RANGE)?;
        let (range, total) = rest.split_once('/').ok_or(MALFORMED_RANGE)?;
        let (first, last) = range.split_once('-').ok_or(MALFORMED_RANGE)?;
        let (first, last) = (parse_number(first)?, parse_number(last)?);
        let total = if total.trim() == "*" { None } else { Some(parse_number(total)?) };
        // `last + 1` below must not overflow.
        if last < first || last == u64::MAX || total.is_some_and(|total| total <= last) {
            return Err(MALFORMED_RANGE);
        }
        Ok(Self {
            start: WriteStart::FromStart(first),
            length: Some(last - first + 1),
            total,
            requires_existing: false,
        })
    }

    /// Parses `append`, `bytes=0-99`, `bytes=100-` or `bytes=-10`, which starts ten bytes before the end.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the syntax or the order of the numbers is wrong.
    pub(super) fn from_update_range(text: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(text).map_err(|_| MALFORMED_RANGE)?.trim();
        // PATCH changes an existing file; only PUT with Content-Range may create one.
        let update_range = |start, length| Ok(Self { start, length, total: None, requires_existing: true });
        if text == "append" {
            return update_range(WriteStart::FromEnd(0), None);
        }
        let (first, last) =
            text.strip_prefix("bytes=").and_then(|range| range.split_once('-')).ok_or(MALFORMED_RANGE)?;
        match (first.trim(), last.trim()) {
            ("", last) => update_range(WriteStart::FromEnd(parse_number(last)?), None),
            (first, "") => update_range(WriteStart::FromStart(parse_number(first)?), None),
            (first, last) => {
                let (first, last) = (parse_number(first)?, parse_number(last)?);
                let length = last.checked_sub(first).and_then(|length| length.checked_add(1)).ok_or(MALFORMED_RANGE)?;
                update_range(WriteStart::FromStart(first), Some(length))
            }
        }
    }

    /// Tells whether the file must exist.
    pub(super) fn requires_existing_file(&self) -> bool {
        self.requires_existing
    }

    /// Returns the offset of the range in a file of `size` bytes.
    ///
    /// # Errors
    /// [`Error::RangeNotSatisfiable`] when it is after the end: the content of the gap would be undefined.
    pub(super) fn start_offset(&self, size: u64) -> Result<u64> {
        match self.start {
            // Equal to the size appends.
            WriteStart::FromStart(start) if start > size => Err(Error::RangeNotSatisfiable(size)),
            WriteStart::FromStart(start) => Ok(start),
            WriteStart::FromEnd(length) => size.checked_sub(length).ok_or(Error::RangeNotSatisfiable(size)),
        }
    }

    /// Checks that the length of the body is that of the range.
    ///
    /// # Errors
    /// [`Error::Malformed`] when they differ.
    pub(super) fn check_length(&self, sent: u64) -> Result<()> {
        match self.length {
            Some(length) if length != sent => Err(Error::Malformed("the length of the body is not that of its range")),
            Some(_) | None => Ok(()),
        }
    }

    /// Returns the size to which the file is truncated, when the announced complete length is smaller than `size`.
    pub(super) fn truncated_size(&self, size: u64) -> Option<u64> {
        self.total.filter(|total| *total < size)
    }
}

fn parse_number(text: &str) -> Result<u64> {
    let text = text.trim();
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if is_number { text.parse().map_err(|_| MALFORMED_RANGE) } else { Err(MALFORMED_RANGE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_ranges_are_parsed() {
        let put = |text: &str| WriteRange::from_content_range(text.as_bytes());
        let update_range = put("bytes 5-9/20").expect("range");
        assert_eq!(
            (
                update_range.start_offset(5).expect("within"),
                update_range.truncated_size(30),
                update_range.truncated_size(20)
            ),
            (5, Some(20), None)
        );
        assert!(update_range.check_length(5).is_ok() && update_range.check_length(6).is_err());
        assert!(matches!(update_range.start_offset(4), Err(Error::RangeNotSatisfiable(4))));
        assert!(put("bytes 0-0/*").is_ok());
        for text in ["", "bytes", "bytes 5-4/9", "bytes 0-9/9", "bytes */9", "lines 0-1/2", "bytes 0-1", "bytes +0-1/2"]
        {
            assert!(put(text).is_err(), "{text}");
        }
        let patch = |text: &str| WriteRange::from_update_range(text.as_bytes());
        for (text, start) in [("append", 10), ("bytes=3-5", 3), ("bytes=10-", 10), ("bytes=-4", 6)] {
            assert_eq!(patch(text).expect(text).start_offset(10).expect(text), start, "{text}");
        }
        assert!(matches!(patch("bytes=-11").expect("range").start_offset(10), Err(Error::RangeNotSatisfiable(10))));
        for text in ["", "Append", "bytes=", "bytes=-", "bytes=5-4", "bytes 0-1", "bytes=0-18446744073709551615"] {
            assert!(patch(text).is_err(), "{text}");
        }
    }
}
