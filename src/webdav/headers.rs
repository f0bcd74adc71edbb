//! Parsers of short request headers: those of RFC 4918 section 10, of sync clients, and of uploads.

use std::time::Duration;

use http::header::AsHeaderName;
use http::{HeaderMap, HeaderValue};

use super::date;
use super::error::Error;
use super::structured_field::item_without_parameters;
use crate::domain::FileTag;
use crate::tree::{LockToken, Timestamp};

/// Timeout of a lock without a readable `Timeout` header; the lock table may shorten it.
const DEFAULT_LOCK_TIMEOUT: Duration = Duration::from_secs(3600);
/// Timeout that `Infinite` requests: the largest that RFC 4918 section 10.7 can express.
const MAX_LOCK_TIMEOUT: Duration = Duration::from_secs(u32::MAX as u64);

/// Returns the value of a header that may occur once.
///
/// # Errors
/// [`Error::Malformed`] where it occurs several times: a proxy in front may have checked another one of them.
pub(super) fn single_value(headers: &HeaderMap, name: impl AsHeaderName) -> Result<Option<&HeaderValue>, Error> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(Error::Malformed("a header that may occur once was sent twice")),
        (value, None) => Ok(value),
    }
}

/// Value of `Depth` (RFC 4918 section 10.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DepthHeader {
    /// The resource alone.
    Zero,
    /// The resource and its direct members.
    One,
    /// The resource and all its descendants.
    Infinity,
}

/// Parses `Depth` (section 10.2); `None` where it is missing.
///
/// # Errors
/// [`Error::Malformed`] for any other value than `0`, `1` and `infinity`.
pub(super) fn depth(headers: &HeaderMap) -> Result<Option<DepthHeader>, Error> {
    let Some(value) = single_value(headers, "depth")? else { return Ok(None) };
    match value.as_bytes().trim_ascii() {
        b"0" => Ok(Some(DepthHeader::Zero)),
        b"1" => Ok(Some(DepthHeader::One)),
        text if text.eq_ignore_ascii_case(b"infinity") => Ok(Some(DepthHeader::Infinity)),
        _ => Err(Error::Malformed("Depth is neither 0, 1 nor infinity")),
    }
}

/// Parses `Overwrite` (section 10.6); true where it is missing.
///
/// # Errors
/// [`Error::Malformed`] for any value but `T` and `F`.
pub(super) fn overwrite(headers: &HeaderMap) -> Result<bool, Error> {
    match single_value(headers, "overwrite")?.map(|value| value.as_bytes().trim_ascii()) {
        None | Some(b"T" | b"t") => Ok(true),
        Some(b"F" | b"f") => Ok(false),
        Some(_) => Err(Error::Malformed("Overwrite is neither T nor F")),
    }
}

/// Parses `Timeout` (section 10.7): the first readable element of the list.
pub(super) fn timeout(headers: &HeaderMap) -> Duration {
    // Not `single_value`: a server may ignore the requested timeout (RFC 4918 section 10.7), so none is an error.
    let value = headers.get("timeout").and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(',').find_map(|part| parse_timeout(part.trim())).unwrap_or(DEFAULT_LOCK_TIMEOUT)
}

fn parse_timeout(text: &str) -> Option<Duration> {
    if text.eq_ignore_ascii_case("infinite") {
        return Some(MAX_LOCK_TIMEOUT);
    }
    // 7 is the length of `Second-`.
    let (prefix, digits) = text.split_at_checked(7)?;
    let is_valid =
        prefix.eq_ignore_ascii_case("second-") && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    is_valid.then(|| {
        // 0 would expire at once; more than 2^32-1 s is not allowed (RFC 4918 section 10.7).
        Duration::from_secs(digits.parse().unwrap_or(u64::MAX)).clamp(Duration::from_secs(1), MAX_LOCK_TIMEOUT)
    })
}

/// Parses `Lock-Token` (section 10.5); the angle brackets may be missing, as some clients omit them.
///
/// # Errors
/// [`Error::Malformed`] when it is missing or not a URL.
pub(super) fn lock_token(headers: &HeaderMap) -> Result<LockToken, Error> {
    let inner =
        single_value(headers, "lock-token")?.and_then(|value| value.to_str().ok()).map(str::trim).and_then(|text| {
            // The `webdav` package of npm sends no brackets.
            let inner = text.strip_prefix('<').map_or(Some(text), |rest| rest.strip_suffix('>'))?;
            (inner.contains(':') && !inner.contains(['<', '>', ' '])).then_some(inner)
        });
    inner.map(LockToken::new).ok_or(Error::Malformed("Lock-Token is missing or malformed"))
}

/// Tells whether the client wants short responses: `Prefer: return=minimal` (RFC 8144).
pub(super) fn prefers_minimal(headers: &HeaderMap) -> bool {
    let prefers = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let mut preferences = prefers.flat_map(|value| value.split([',', ';'])).map(str::trim);
    preferences.any(|preference| preference.replace([' ', '"'], "").eq_ignore_ascii_case("return=minimal"))
}

/// Headers in which clients announce the length of a whole file beside `Content-Length`, or in place of it where the
/// body is chunked: macOS's WebDAV file system, the sync clients of ownCloud and Nextcloud, resumable uploads.
// The first must remain X-Expected-Entity-Length: only this one also announces the length of a part.
const FILE_LENGTH_HEADERS: [&str; 4] =
    [EXPECTED_ENTITY_LENGTH, "oc-total-length", "oc-total-file-length", "upload-length"];
/// Header in which macOS announces the length of a chunked body.
const EXPECTED_ENTITY_LENGTH: &str = "x-expected-entity-length";

/// Kind of length that a request announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnnouncedLength {
    /// Length of a body that is the whole file.
    File,
    /// Length of a body that is a part of the file.
    Part,
}

/// Returns the largest length that a request announces in other headers than `Content-Length`: a shorter body is
/// truncated.
///
/// # Errors
/// [`Error::Malformed`] when one is not a number or occurs twice.
pub(super) fn expected_length(headers: &HeaderMap, kind: AnnouncedLength) -> Result<Option<u64>, Error> {
    // In the old chunking protocol of ownCloud (`OC-Chunked`), every part announces the length of the whole file.
    let is_part = kind == AnnouncedLength::Part || headers.contains_key("oc-chunked");
    let names = if is_part { &FILE_LENGTH_HEADERS[..1] } else { &FILE_LENGTH_HEADERS[..] };
    let mut longest = None;
    for name in names {
        let Some(value) = single_value(headers, *name)? else { continue };
        let length = value.to_str().ok().and_then(|text| text.trim().parse().ok());
        // A client may send several; the body must satisfy the largest.
        longest = longest.max(Some(length.ok_or(Error::Malformed("an announced length is not a number"))?));
    }
    Ok(longest)
}

/// Parses `X-OC-Mtime`: the modification time that a sync client sets, in seconds since 1970.
///
/// # Errors
/// [`Error::Malformed`] when it is not a number of seconds.
pub(super) fn oc_mtime(headers: &HeaderMap) -> Result<Option<Timestamp>, Error> {
    let Some(value) = single_value(headers, "x-oc-mtime")? else { return Ok(None) };
    let time = value.to_str().ok().and_then(date::parse_epoch_seconds);
    time.map(Some).ok_or(Error::Malformed("X-OC-Mtime is not a number of seconds"))
}

/// Parses `Upload-Length`: the number of bytes that a resumable upload will have when it is complete.
///
/// # Errors
/// [`Error::Malformed`] when it is not a number or occurs twice.
pub(super) fn upload_length(headers: &HeaderMap) -> Result<Option<u64>, Error> {
    upload_number(headers, "upload-length")
}

/// Parses `Upload-Offset`: the offset at which the client appends to a resumable upload.
///
/// # Errors
/// [`Error::Malformed`] when it is not a number or occurs twice.
pub(super) fn upload_offset(headers: &HeaderMap) -> Result<Option<u64>, Error> {
    upload_number(headers, "upload-offset")
}

fn upload_number(headers: &HeaderMap, name: &str) -> Result<Option<u64>, Error> {
    let Some(value) = single_value(headers, name)? else { return Ok(None) };
    let digits = item_without_parameters(value.as_bytes()).filter(|item| item.iter().all(u8::is_ascii_digit));
    let number = digits.and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|digits| digits.parse().ok());
    number.map(Some).ok_or(Error::Malformed("an upload's offset or length is not a number"))
}

/// Parses `X-Patgate-Tags`: the tags of an uploaded file; an empty value removes all tags.
///
/// # Errors
/// [`Error::Malformed`] when one of them is not a valid tag, or there are more than [`MAX_TAGS`] in all lines together.
pub(super) fn tags(headers: &HeaderMap) -> Result<Option<Vec<FileTag>>, Error> {
    if !headers.contains_key("x-patgate-tags") {
        return Ok(None);
    }
    let mut tags = Vec::new();
    // Not `single_value`: a list may be spread over several lines (RFC 9110 section 5.3).
    for value in headers.get_all("x-patgate-tags") {
        let text = std::str::from_utf8(value.as_bytes()).map_err(|_| Error::Malformed(INVALID_TAGS_MESSAGE))?;
        tags.extend(parse_tags(text)?);
        // Of all lines together: they are one list, and `parse_tags` sees one line.
        if tags.len() > MAX_TAGS {
            return Err(Error::Malformed(INVALID_TAGS_MESSAGE));
        }
    }
    Ok(Some(tags))
}

/// Parses a comma-separated list of tags; an empty text is an empty list.
///
/// # Errors
/// [`Error::Malformed`] when one of them is not a valid tag, or there are more than [`MAX_TAGS`].
pub(super) fn parse_tags(text: &str) -> Result<Vec<FileTag>, Error> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let tags: Result<Vec<FileTag>, _> = text.split(',').map(|tag| tag.trim().parse()).collect();
    tags.ok().filter(|tags| tags.len() <= MAX_TAGS).ok_or(Error::Malformed(INVALID_TAGS_MESSAGE))
}

const MAX_TAGS: usize = 100;
/// Message for malformed tags.
pub(super) const INVALID_TAGS_MESSAGE: &str =
    "tags must be separated by commas: 100 at most, each of 1 to 64 characters without control characters";

#[cfg(test)]
mod tests {
    use super::*;

    fn header_map(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().expect("value"));
        headers
    }

    #[test]
    fn depth_must_be_zero_one_or_infinity() {
        assert_eq!(depth(&HeaderMap::new()).expect("none"), None);
        assert_eq!(depth(&header_map("depth", "Infinity")).expect("depth"), Some(DepthHeader::Infinity));
        for text in ["", "2", "00", "1,noroot", "-1"] {
            assert!(depth(&header_map("depth", text)).is_err(), "{text}");
        }
    }

    #[test]
    fn duplicate_single_value_header_is_refused() {
        for (name, value) in [("depth", "0"), ("overwrite", "T"), ("lock-token", "<a:b>"), ("x-oc-mtime", "1")] {
            let mut headers = header_map(name, value);
            let read = |headers: &HeaderMap| {
                depth(headers).is_ok()
                    && overwrite(headers).is_ok()
                    && oc_mtime(headers).is_ok()
                    && (name != "lock-token" || lock_token(headers).is_ok())
            };
            assert!(read(&headers), "{name}");
            headers.append(name, value.parse().expect("value"));
            assert!(!read(&headers), "{name}");
        }
    }

    #[test]
    fn timeout_header_is_parsed_leniently() {
        for (text, seconds) in [
            ("Second-10", 10),
            ("Infinite, Second-4100000000", u64::from(u32::MAX)),
            ("Extend, second-5", 5),
            ("Second-99999999999999999999999", u64::from(u32::MAX)),
            ("Second-0", 1),
            ("nonsense", 3600),
        ] {
            assert_eq!(timeout(&header_map("timeout", text)).as_secs(), seconds, "{text}");
        }
    }

    #[test]
    fn largest_announced_length_is_expected() {
        let mut headers = header_map("x-expected-entity-length", " 5 ");
        assert_eq!(expected_length(&headers, AnnouncedLength::Part).expect("length"), Some(5));
        headers.insert("oc-total-length", HeaderValue::from(9));
        assert_eq!(expected_length(&headers, AnnouncedLength::File).expect("length"), Some(9));
        assert_eq!(expected_length(&headers, AnnouncedLength::Part).expect("length"), Some(5));
        headers.insert("oc-chunked", HeaderValue::from(1));
        assert_eq!(expected_length(&headers, AnnouncedLength::File).expect("length"), Some(5));
        headers.insert("x-expected-entity-length", HeaderValue::from_static("much"));
        assert!(expected_length(&headers, AnnouncedLength::File).is_err());
        assert_eq!(expected_length(&HeaderMap::new(), AnnouncedLength::File).expect("none"), None);
    }

    #[test]
    fn tags_are_comma_separated() {
        let read = |text: &str| tags(&header_map("x-patgate-tags", text)).map(|tags| tags.unwrap_or_default());
        let words = |text: &str| read(text).expect(text).iter().map(|tag| tag.as_str().to_owned()).collect::<Vec<_>>();
        assert_eq!(words("a, b c ,d"), ["a", "b c", "d"]);
        assert_eq!(words(" "), [""; 0]);
        for text in [",", "a,,b", &"x".repeat(65), &"a,".repeat(101)] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(tags(&HeaderMap::new()).expect("none").is_none());
    }

    #[test]
    fn tags_of_all_header_lines_count_together() {
        let line = |count: usize| vec!["a"; count].join(",").parse::<HeaderValue>().expect("value");
        let mut headers = header_map("x-patgate-tags", "a");
        headers.append("x-patgate-tags", line(99));
        assert_eq!(tags(&headers).expect("tags").map(|tags| tags.len()), Some(100));
        headers.append("x-patgate-tags", line(1));
        assert!(tags(&headers).is_err());
    }

    #[test]
    fn lock_token_is_accepted_with_or_without_angle_brackets() {
        for text in ["<urn:uuid:x>", " urn:uuid:x "] {
            assert_eq!(lock_token(&header_map("lock-token", text)).expect("token").as_str(), "urn:uuid:x");
        }
        for text in ["", "x", "<>", "<a:b> <a:c>", "<a:b", "a:b>"] {
            assert!(lock_token(&header_map("lock-token", text)).is_err(), "{text}");
        }
    }
}
