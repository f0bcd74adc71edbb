//! Which part of a file a request writes: `Content-Range` of PUT (RFC 9110 section 14.4) and `X-Update-Range` of
//! PATCH, as SabreDAV's clients send it.

use super::error::{Error, Result};

/// A part of a file that is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    start: Start,
    length: Option<u64>,
    total: Option<u64>,
    update: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    At(u64),
    BeforeEnd(u64),
}

const MALFORMED: Error = Error::Malformed("the range to be written can't be read");

impl Part {
    /// Reads `bytes 0-99/200`; the size of the whole may be `*`.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub(super) fn of_content_range(text: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(text).map_err(|_| MALFORMED)?.trim();
        let rest = text.strip_prefix("bytes").map(str::trim).ok_or(MALFORMED)?;
        let (range, total) = rest.split_once('/').ok_or(MALFORMED)?;
        let (first, last) = range.split_once('-').ok_or(MALFORMED)?;
        let (first, last) = (number(first)?, number(last)?);
        let total = if total.trim() == "*" { None } else { Some(number(total)?) };
        if last < first || last == u64::MAX || total.is_some_and(|total| total <= last) {
            return Err(MALFORMED);
        }
        Ok(Self { start: Start::At(first), length: Some(last - first + 1), total, update: false })
    }

    /// Reads `append`, `bytes=0-99`, `bytes=100-` or `bytes=-10`, which begins ten bytes before the end.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub(super) fn of_update_range(text: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(text).map_err(|_| MALFORMED)?.trim();
        let part = |start, length| Ok(Self { start, length, total: None, update: true });
        if text == "append" {
            return part(Start::BeforeEnd(0), None);
        }
        let (first, last) = text.strip_prefix("bytes=").and_then(|range| range.split_once('-')).ok_or(MALFORMED)?;
        match (first.trim(), last.trim()) {
            ("", last) => part(Start::BeforeEnd(number(last)?), None),
            (first, "") => part(Start::At(number(first)?), None),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                let length = last.checked_sub(first).and_then(|length| length.checked_add(1)).ok_or(MALFORMED)?;
                part(Start::At(first), Some(length))
            }
        }
    }

    /// Tells whether it is a part of a file that has to be there.
    pub(super) fn is_update(&self) -> bool {
        self.update
    }

    /// Returns where it begins in a file of `size` bytes.
    ///
    /// # Errors
    /// [`Error::Unsatisfiable`] when that is beyond its end: nobody knows what would lie between.
    pub(super) fn start(&self, size: u64) -> Result<u64> {
        match self.start {
            Start::At(start) if start > size => Err(Error::Unsatisfiable(size)),
            Start::At(start) => Ok(start),
            Start::BeforeEnd(length) => size.checked_sub(length).ok_or(Error::Unsatisfiable(size)),
        }
    }

    /// Compares the length of what was sent with the range.
    ///
    /// # Errors
    /// [`Error::Malformed`] when they differ.
    pub(super) fn fits(&self, sent: u64) -> Result<()> {
        match self.length {
            Some(length) if length != sent => Err(Error::Malformed("the body is not as long as its range")),
            Some(_) | None => Ok(()),
        }
    }

    /// Returns the size that the whole is cut to, when it is said to be smaller than it is.
    pub(super) fn cut_to(&self, size: u64) -> Option<u64> {
        self.total.filter(|total| *total < size)
    }
}

fn number(text: &str) -> Result<u64> {
    let text = text.trim();
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if digits { text.parse().map_err(|_| MALFORMED) } else { Err(MALFORMED) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_to_be_written_are_read() {
        let put = |text: &str| Part::of_content_range(text.as_bytes());
        let part = put("bytes 5-9/20").expect("range");
        assert_eq!((part.start(5).expect("within"), part.cut_to(30), part.cut_to(20)), (5, Some(20), None));
        assert!(part.fits(5).is_ok() && part.fits(6).is_err());
        assert!(matches!(part.start(4), Err(Error::Unsatisfiable(4))));
        assert!(put("bytes 0-0/*").is_ok());
        for text in ["", "bytes", "bytes 5-4/9", "bytes 0-9/9", "bytes */9", "lines 0-1/2", "bytes 0-1", "bytes +0-1/2"]
        {
            assert!(put(text).is_err(), "{text}");
        }
        let patch = |text: &str| Part::of_update_range(text.as_bytes());
        for (text, start) in [("append", 10), ("bytes=3-5", 3), ("bytes=10-", 10), ("bytes=-4", 6)] {
            assert_eq!(patch(text).expect(text).start(10).expect(text), start, "{text}");
        }
        assert!(matches!(patch("bytes=-11").expect("range").start(10), Err(Error::Unsatisfiable(10))));
        for text in ["", "Append", "bytes=", "bytes=-", "bytes=5-4", "bytes 0-1", "bytes=0-18446744073709551615"] {
            assert!(patch(text).is_err(), "{text}");
        }
    }
}
