//! Content codings of request bodies: none is supported.

use http::{HeaderMap, header};

/// Tells whether a body has a content coding. Names of codings are case-insensitive; an empty list and `identity` are
/// none (RFC 9110 section 8.4.1).
pub fn has_content_coding(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CONTENT_ENCODING);
    // Several lines of the header are one list (RFC 9110 section 5.3).
    let mut codings = values.iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    codings.any(|coding| {
        let coding = coding.trim_ascii();
        !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_and_empty_list_are_not_content_codings() {
        for (text, encoded) in
            [("", false), ("Identity", false), ("identity, ,", false), ("gzip", true), ("identity, br", true)]
        {
            let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, text.parse().expect("a value"))]);
            assert_eq!(has_content_coding(&headers), encoded, "{text}");
        }
    }
}
