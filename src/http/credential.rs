//! Credential of an HTTP request: Basic (RFC 7617) or Bearer (RFC 6750), and the headers that ask for one.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, header};
use zeroize::Zeroizing;

use crate::auth::Credential;

/// Parses the `Authorization` header; `None` when it is missing or malformed.
///
/// With Basic, the password is the token. The user name may be empty, since the token identifies its owner. White space
/// around a token is ignored: it was pasted with it.
pub fn parse_credential(headers: &HeaderMap) -> Option<Credential> {
    // The gateway has refused requests with two different Authorization headers.
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let space = value.iter().position(|&b| b == b' ' || b == b'\t')?;
    let (scheme, rest) = (&value[..space], trim_unicode_whitespace(&value[space..]));
    if scheme.eq_ignore_ascii_case(b"bearer") {
        // No login: the token identifies its owner.
        return Some(Credential { login: None, token: Zeroizing::new(rest.to_vec()) });
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    // Zeroized: the decoded pair contains the secret.
    let pair = Zeroizing::new(STANDARD.decode(rest).ok()?);
    // At the first colon: a user name can't contain one, a password can (RFC 7617 section 2).
    let colon = pair.iter().position(|&b| b == b':')?;
    let login = std::str::from_utf8(&pair[..colon]).ok()?;
    let login = (!login.is_empty()).then(|| login.to_owned());
    Some(Credential { login, token: Zeroizing::new(trim_unicode_whitespace(&pair[colon + 1..]).to_vec()) })
}

/// Trims white space, that of Unicode included: text copied from web pages has no-break spaces.
fn trim_unicode_whitespace(text: &[u8]) -> &[u8] {
    std::str::from_utf8(text).map_or(text.trim_ascii(), |text| text.trim().as_bytes())
}

/// Adds the challenges of a response with status 401 (RFC 9110 section 11.6.1).
pub fn add_challenges(headers: &mut HeaderMap) {
    let basic = HeaderValue::from_static("Basic realm=\"patgate\", charset=\"UTF-8\"");
    headers.append(header::WWW_AUTHENTICATE, basic);
    headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"patgate\""));
}

/// Sets `Retry-After` in whole seconds, rounded up, at least 1 (RFC 9110 section 10.2.3).
pub fn set_retry_after(headers: &mut HeaderMap, wait: Duration) {
    // Rounded up: a client that is one moment early would be refused again.
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: &str) -> Option<(Option<String>, Vec<u8>)> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().expect("header"));
        parse_credential(&headers).map(|c| (c.login, c.token.to_vec()))
    }

    #[test]
    fn auth_schemes_are_case_insensitive() {
        let alice = Some((Some("alice".to_owned()), b"pgt_x:y".to_vec()));
        assert_eq!(parse("Basic YWxpY2U6cGd0X3g6eQ=="), alice);
        assert_eq!(parse("bASIC  YWxpY2U6cGd0X3g6eQ=="), alice);
        assert_eq!(parse("Bearer pgt_x"), Some((None, b"pgt_x".to_vec())));
        assert_eq!(parse("Basic OnBndF94"), Some((None, b"pgt_x".to_vec())));
    }

    #[test]
    fn whitespace_around_token_is_trimmed() {
        for token in ["pgt_x\n", "pgt_x\r\n", "\tpgt_x", " pgt_x ", "\u{a0}pgt_x\u{a0}"] {
            let pair = STANDARD.encode(format!("alice:{token}"));
            let expected = Some((Some("alice".to_owned()), b"pgt_x".to_vec()));
            assert_eq!(parse(&format!("Basic {pair}")), expected, "{token:?}");
        }
        assert_eq!(parse("Bearer \t pgt_x \t"), Some((None, b"pgt_x".to_vec())));
    }

    #[test]
    fn unreadable_authorization_yields_no_credential() {
        for value in ["Basic", "Basic !!!", "Basic YWxpY2U=", "Digest x", "Basic /////w=="] {
            assert_eq!(parse(value), None, "{value}");
        }
    }
}
