//! Properties of the parsers of this module, for [`crate::fuzzing`]: each function takes any bytes, and panics where a
//! property does not hold.

use std::convert::Infallible;
use std::time::Duration;

use http::HeaderMap;
use percent_encoding::percent_decode;
use sha1::{Digest, Sha1};

use super::checksum::{ChecksumScope, ContentChecksums};
use super::client_root::UrlPrefix;
use super::conditions::{RequestConditions, Validators};
use super::etag::EntityTagList;
use super::headers::{self, AnnouncedLength};
use super::if_header::{IfHeader, IfResourceState};
use super::propfind::PropfindRequest;
use super::range::{RangeSelection, select_ranges};
use super::resource_url::{OutsideTreeResource, ResourceUrl, destination_uri, resolve_in_prefix};
use super::saved_request::SavedRequest;
use super::structured_field::item_without_parameters;
use super::sync_token::parse_sync_token;
use super::write_range::WriteRange;
use super::xml::XmlElement;
use super::{date, lock, proppatch, report, resumable_upload};
use crate::domain::{ALL_BUT_UNRESERVED, EntryName, TreePath};
use crate::http::fuzzing::header_map;
use crate::http::{PublicAddress, ServerName};
use crate::tree::{LockToken, Timestamp};

/// Conditions: an accepted `If` has a bounded number of them and holds where a slow reference says so; no list of entity
/// tags is empty.
pub(crate) fn conditions(data: &[u8]) {
    if let Some(header) = IfHeader::parse(data) {
        let state = IfResourceState {
            etag: Some("x".to_owned()),
            lock_tokens: vec![LockToken::new("urn:a"), LockToken::new("a")],
        };
        let mut lookups = 0;
        let mut look_up = |_: Option<&[u8]>, _: bool| {
            lookups += 1;
            Ok::<_, Infallible>(state.clone())
        };
        let Ok(holds) = header.holds(&mut look_up);
        assert_eq!(holds, if_holds_slowly(data), "{}", data.escape_ascii());
        assert!(lookups <= 64 && header.lock_tokens().len() <= 64);
    }
    if let Some(EntityTagList::Tags(tags)) = EntityTagList::parse(data) {
        assert!(!tags.is_empty() && tags.iter().all(|tag| !tag.tag.contains(&b'"')));
        assert!(tags.iter().map(|tag| tag.tag.len()).sum::<usize>() < data.len().max(1) + 1);
    }
    if let Ok(parsed) = RequestConditions::parse(&header_map(data)) {
        let current = Validators { etag: Some("x".to_owned()), modified: 981_173_106 };
        let _ = (parsed.evaluate(Some(&current), true), parsed.evaluate(None, false));
        let _ = parsed.if_range_holds(&current, current.modified + 2);
    }
}

/// Evaluates an `If` header that is known to be well-formed, sign by sign, for the state in [`conditions`].
fn if_holds_slowly(text: &[u8]) -> bool {
    let (mut in_list, mut negated, mut all, mut any) = (false, false, true, false);
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        let mut take_until = |end: u8| {
            let (inner, behind) = rest.split_at(rest.iter().position(|byte| *byte == end).unwrap_or(rest.len()));
            rest = behind.get(1..).unwrap_or_default();
            inner
        };
        let condition = match first {
            b'(' => {
                (in_list, negated, all) = (true, false, true);
                continue;
            }
            b')' => {
                (in_list, any) = (false, any || all);
                continue;
            }
            b'<' => [&b"urn:a"[..], b"a"].contains(&take_until(b'>')),
            b'[' => {
                let before = take_until(b'"');
                let is_strong = before.trim_ascii().is_empty();
                let tag = take_until(b'"');
                let is_equal = tag == b"x";
                take_until(b']');
                is_strong && is_equal
            }
            b'n' | b'N' if in_list => {
                negated = true;
                continue;
            }
            _ => continue,
        };
        if in_list {
            all &= condition != negated;
            negated = false;
        }
    }
    any
}

/// URLs: a decoded path is the one that `percent_encoding` decodes, no accepted one leaves the tree, and a Destination
/// names the path that its normalized form names.
pub(crate) fn resource_url(data: &[u8]) {
    let url = [b"/dav/", data].concat();
    if let Ok(resource) = ResourceUrl::parse(&url) {
        let decoded: Vec<u8> = percent_decode(data).collect();
        assert_eq!(resource.path.as_bytes(), decoded.strip_suffix(b"/").unwrap_or(&decoded));
        assert!(resource.path.components().all(EntryName::is_valid));
        assert!(!url.to_ascii_lowercase().windows(3).any(|escape| escape == b"%2f"));
    }
    if let Ok(path) = TreePath::parse(data) {
        let encoded: Vec<_> =
            path.components().map(|name| percent_encoding::percent_encode(name, &ALL_BUT_UNRESERVED)).collect();
        let encoded: Vec<String> = encoded.iter().map(ToString::to_string).collect();
        let parsed = ResourceUrl::parse(format!("/dav/{}", encoded.join("/")).as_bytes());
        assert_eq!(parsed.ok().map(|parsed| parsed.path), Some(path));
    }
    let names: Vec<ServerName> = ["h", "h:8080"].iter().filter_map(|name| ServerName::parse(name.as_bytes())).collect();
    for prefix in ["", "/p"] {
        let server = PublicAddress::from_parts(names.clone(), prefix.to_owned());
        let resolved = resolve_in_prefix(data, &server, UrlPrefix::Tree);
        if let (Ok(uri), Ok(resource)) = (destination_uri(data, &server), resolved) {
            assert_eq!(ResourceUrl::parse(uri.path().as_bytes()).ok(), Some(resource));
        }
    }
    if let Ok(login) = "alice".parse() {
        let outside = OutsideTreeResource::parse(data, &login);
        assert!(OutsideTreeResource::has_prefix(data) || matches!(outside, Ok(None)));
    }
}

/// Ranges: in order, disjoint, within the file, not more bytes than it has; those that are asked for are among them.
/// Ranges to write start within the file.
pub(crate) fn ranges(data: &[u8]) {
    let Some((size, header)) = data.split_first_chunk::<2>() else { return };
    let size = u64::from(u16::from_le_bytes(*size));
    if let RangeSelection::Ranges(parts) = select_ranges(header, size) {
        assert!((1..=8).contains(&parts.len()));
        assert!(parts.iter().all(|part| part.start < part.end && part.end <= size));
        assert!(parts.windows(2).all(|pair| pair[0].end < pair[1].start));
        let text = String::from_utf8_lossy(header).into_owned();
        let specs = text.split_once('=').map(|(_, specs)| specs).unwrap_or_default();
        for spec in specs.split(',').filter(|spec| !spec.trim().is_empty()) {
            let (first, last) = spec.split_once('-').unwrap_or_default();
            let number = |text: &str| text.trim().parse().unwrap_or(u64::MAX);
            let wanted = match (first.trim(), last.trim()) {
                ("", last) => size.saturating_sub(number(last))..size,
                (first, "") => number(first)..size,
                (first, last) => number(first)..number(last).saturating_add(1).min(size),
            };
            let is_covered = parts.iter().any(|part| part.start <= wanted.start && wanted.end <= part.end);
            assert!(wanted.is_empty() || is_covered, "{text}: {wanted:?} of {size}");
        }
    }
    for range in [WriteRange::from_content_range(header), WriteRange::from_update_range(header)].into_iter().flatten() {
        assert!(range.start_offset(size).map_or(true, |start| start <= size));
        assert!(range.truncated_size(size).is_none_or(|truncated| truncated < size));
        let _ = (range.check_length(size), range.requires_existing_file());
    }
}

/// XML: what is accepted is written as XML that is read as the same, the elements of a document one by one as well.
pub(crate) fn xml(data: &[u8]) {
    if let Ok(root) = XmlElement::parse(data) {
        check_written_again(&root, true);
        root.elements().for_each(|element| check_written_again(element, false));
    }
    let names = PropfindRequest::parse(data).map(|request| request.into_plan().needs_dead_properties());
    let changes = proppatch::parse_instructions(data).or_else(|| proppatch::parse_mkcol_instructions(data));
    let locked = lock::parse_lockinfo(&HeaderMap::new(), data, false).map(|request| request.owner.len());
    // A document is one of them; an empty body is a PROPFIND.
    assert!(u8::from(names.is_some()) + u8::from(changes.is_some()) + u8::from(locked.is_ok()) <= 1);
    for depth in ["depth: 0", "depth: 1"] {
        let _ = report::parse_sync_collection(&header_map(depth.as_bytes()), data).is_ok();
    }
    let _ = std::str::from_utf8(data).map(|text| parse_sync_token(text).is_some());
}

fn check_written_again(element: &XmlElement, is_root: bool) {
    let written = element.to_xml();
    match XmlElement::parse(written.as_bytes()) {
        Ok(again) => {
            assert_eq!(again.to_xml(), written);
            assert_same_content(&again, element);
        }
        // The declarations that an element inherits count as attributes of their own.
        Err(_) => assert!(!is_root && written.matches("xmlns").count() > 1, "{written}"),
    }
}

fn assert_same_content(first: &XmlElement, second: &XmlElement) {
    assert_eq!((first.name(), first.text(), first.language()), (second.name(), second.text(), second.language()));
    assert_eq!(first.elements().count(), second.elements().count());
    first.elements().zip(second.elements()).for_each(|(first, second)| assert_same_content(first, second));
}

/// Checksums: those of headers and content in the same input. The blocks of the content don't matter, a right checksum
/// is accepted, and none is right for two contents.
pub(crate) fn checksums(data: &[u8]) {
    let end = data.windows(2).position(|pair| pair == b"\n\n");
    let (head, content) = end.map_or((data, &b""[..]), |end| (&data[..end], &data[end + 2..]));
    let headers = header_map(head);
    for scope in [ChecksumScope::BodyAndFile, ChecksumScope::Body, ChecksumScope::File] {
        let verify = |headers: &HeaderMap, blocks: &[&[u8]]| {
            let mut checksums = ContentChecksums::from_headers(headers, scope);
            blocks.iter().for_each(|block| checksums.update(block));
            (checksums.is_empty(), checksums.verify().ok())
        };
        let (front, back) = content.split_at(content.len() / 3);
        let whole = verify(&headers, &[content]);
        assert_eq!(whole, verify(&headers, &[front, b"", back]));
        let changed = verify(&headers, &[content, b"x"]);
        assert!(whole.0 || whole.1.is_none() || changed.1.is_none(), "both contents have the checksum");
        // The one of OC-Checksum that is right, in either case of letters.
        let digest = data_encoding::HEXUPPER.encode(&Sha1::digest(content));
        let right = header_map(format!("oc-checksum: SHA1:{digest}").as_bytes());
        assert!(verify(&right, &[content]).1.is_some());
        assert_eq!(verify(&right, &[content, b"x"]).1.is_some(), scope == ChecksumScope::Body);
    }
}

/// Short headers of uploads, locks and sync clients: accepted numbers are those of the text, and all is within its bounds.
pub(crate) fn short_headers(data: &[u8]) {
    let headers = header_map(data);
    let value_of =
        |name: &str| headers.get(name).map(|value| value.as_bytes().trim_ascii().to_vec()).unwrap_or_default();
    for (number, name) in
        [(headers::upload_length(&headers), "upload-length"), (headers::upload_offset(&headers), "upload-offset")]
    {
        if let Ok(Some(number)) = number {
            let text = value_of(name);
            let digits: Vec<u8> = text.iter().copied().take_while(u8::is_ascii_digit).collect();
            assert_eq!(String::from_utf8_lossy(&digits).parse().ok(), Some(number));
            assert!(matches!(text.get(digits.len()), None | Some(b';')));
        }
    }
    let longest = headers::expected_length(&headers, AnnouncedLength::File).ok().flatten();
    let part = headers::expected_length(&headers, AnnouncedLength::Part).ok().flatten();
    assert!(longest.is_none() || part <= longest);
    assert!((Duration::from_secs(1)..=Duration::from_secs(u64::from(u32::MAX))).contains(&headers::timeout(&headers)));
    assert!(headers::tags(&headers).map_or(true, |tags| tags.is_none_or(|tags| tags.len() <= 100)));
    if let Ok(token) = headers::lock_token(&headers) {
        assert!(!token.as_str().contains(['<', '>', ' ']));
    }
    let _ =
        (headers::depth(&headers).is_ok(), headers::overwrite(&headers).is_ok(), headers::prefers_minimal(&headers));
    let _ = (headers::oc_mtime(&headers).is_ok(), resumable_upload::parse_upload_complete(&headers).is_ok());
    if let Some(item) = item_without_parameters(data) {
        assert!(!item.contains(&b';') && data.trim_ascii().starts_with(item));
        let more = [data.trim_ascii(), b"; a=1;b;c=?1;d=\"\\\"\""].concat();
        assert_eq!(item_without_parameters(&more), Some(item));
        assert_eq!(item_without_parameters(&[data.trim_ascii(), b";A"].concat()), None);
    }
}

/// Dates: what is accepted is a time of the years 1 to 9999, and is read again from every form that is written. Stored
/// requests are read as they are written.
pub(crate) fn dates(data: &[u8]) {
    if let Some(saved) = SavedRequest::parse(data) {
        let bytes = saved.to_bytes();
        assert_eq!(SavedRequest::parse(&bytes).map(|again| again.to_bytes()), Some(bytes));
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(seconds) = date::parse_http_date(text) {
        let time = Timestamp { seconds, nanos: 0 };
        assert_eq!(date::parse_http_date(&date::format_http_date(time)), Some(seconds));
    }
    if let Some(time) = date::parse_epoch_seconds(text) {
        assert!(time.nanos < 1_000_000_000);
        if time.seconds >= 0 {
            let again = format!("{}.{:09}", time.seconds, time.nanos);
            assert_eq!(date::parse_epoch_seconds(&again), Some(time));
        }
    }
    if let Some(time) = date::parse_property_time(text) {
        let whole = Timestamp { nanos: 0, ..time };
        assert_eq!(date::parse_property_time(&date::format_rfc3339(time)), Some(whole));
        assert_eq!(date::parse_property_time(&date::format_http_date(time)), Some(whole));
    }
}
