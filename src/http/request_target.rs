//! Normalization of URL paths for routing and lookup.

use std::borrow::Cow;

use http::Uri;
use http::uri::PathAndQuery;

/// Tells whether a path equals the prefix or is below it: `/davx` is not within `/dav`.
pub fn is_path_within(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Returns a path without empty segments, and with escaped unreserved characters decoded (RFC 3986 sections 6.2.2.2 and
/// 6.2.3). Everything else is left as it was sent: an escaped slash, or a malformed escape, is rejected by the parser.
pub fn normalized_path(path: &[u8]) -> Cow<'_, [u8]> {
    // Nearly all paths are normalized already: they are not copied.
    let doubled = path.windows(2).any(|pair| pair == b"//");
    if !doubled
        && !path.iter().enumerate().any(|(at, byte)| *byte == b'%' && decode_unreserved(&path[at + 1..]).is_some())
    {
        return Cow::Borrowed(path);
    }
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, decode_unreserved(after)) {
            (b'%', Some(plain)) if !completes_escape(&out, plain) => {
                out.push(plain);
                rest = &after[2..];
            }
            // Compared with the output: escapes in between are already decoded.
            (b'/', _) if out.last() == Some(&b'/') => {}
            _ => out.push(byte),
        }
    }
    Cow::Owned(out)
}

/// Tells whether a byte would make an escape out of a malformed one before it: `%2%64` must not become `%2d`, which the
/// parser would take for an escape that was sent.
fn completes_escape(before: &[u8], byte: u8) -> bool {
    byte.is_ascii_hexdigit() && matches!(before, [.., b'%'] | [.., b'%', b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F'])
}

/// Returns the unreserved character (RFC 3986 section 2.3) that the two hexadecimal digits at the start of a text
/// encode.
fn decode_unreserved(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*digits.get(at)?).to_digit(16);
    let byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
    (byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)).then_some(byte)
}

/// Returns the target of a request with its path normalized; `None` where it already is.
pub fn normalized_target(uri: &Uri) -> Option<Uri> {
    let Cow::Owned(mut target) = normalized_path(uri.path().as_bytes()) else { return None };
    if let Some(query) = uri.query() {
        // The query is left as it is: its syntax is that of the handler.
        target.push(b'?');
        target.extend_from_slice(query.as_bytes());
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(target).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equivalent_paths_normalize_to_one_form() {
        for (sent, expected) in [
            ("/", "/"),
            ("*", "*"),
            ("//dav///a//", "/dav/a/"),
            ("/%64av/%2Epatgate/%7e%20%2f%", "/dav/.patgate/~%20%2f%"),
            ("/dav/%2541", "/dav/%2541"),
            ("/dav/%4", "/dav/%4"),
            ("/dav/%2%64", "/dav/%2%64"),
            ("/dav/%%32%66", "/dav/%%32f"),
            ("/dav/%2f%64", "/dav/%2fd"),
        ] {
            assert_eq!(normalized_path(sent.as_bytes()), expected.as_bytes(), "{sent}");
        }
        let target = |text: &str| normalized_target(&text.parse().expect(text)).map(|uri| uri.to_string());
        assert_eq!(target("/dav/a?x=//%41"), None);
        assert_eq!(target("//dav/a?x=//%41").as_deref(), Some("/dav/a?x=//%41"));
        assert_eq!(target("https://h//%64av").as_deref(), Some("https://h/dav"));
    }
}
