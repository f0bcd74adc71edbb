//! Redaction of tokens in text that is logged, recorded or shown: a token pasted into a path, a query or a name.

use std::borrow::Cow;

use memchr::memmem;

use super::base62::is_base62;
use super::token::{ID_BYTES, SECRET_AND_CHECKSUM_BYTES};

/// Text in place of a secret.
const REDACTED_SECRET: &[u8] = b"***";

/// Returns a text with the secret of every token in it replaced; the public id stays. A token whose `_` or `.` is
/// percent-encoded counts as well.
pub fn redact_tokens_in_bytes(text: &[u8]) -> Cow<'_, [u8]> {
    let (mut out, mut copied_to) = (Vec::new(), 0);
    // A secret may end in the first letters of the next token, where two stand side by side. No other starts within one:
    // it has letters and digits only.
    for at in memmem::find_iter(text, b"pgt") {
        if let Some((start, end)) = secret_range(text, at) {
            out.extend_from_slice(&text[copied_to..start]);
            out.extend_from_slice(REDACTED_SECRET);
            copied_to = end;
        }
    }
    if copied_to == 0 {
        return Cow::Borrowed(text);
    }
    out.extend_from_slice(&text[copied_to..]);
    Cow::Owned(out)
}

/// Returns a text with the secret of every token in it replaced, as [`redact_tokens_in_bytes`].
pub fn redact_tokens_in_text(text: &str) -> Cow<'_, str> {
    match redact_tokens_in_bytes(text.as_bytes()) {
        Cow::Borrowed(_) => Cow::Borrowed(text),
        // Only ASCII characters were replaced by ASCII, so that the rest is still UTF-8.
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

/// Returns start and end of the secret of a token that starts at `at`, if there is one.
fn secret_range(text: &[u8], at: usize) -> Option<(usize, usize)> {
    let id = skip_separator(text, at + 3, b'_', b"%5f")?;
    let digits = text.get(id..id + ID_BYTES).filter(|digits| is_base62(digits))?;
    let start = skip_separator(text, id + digits.len(), b'.', b"%2e")?;
    let length = text[start..].iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
    (length >= SECRET_AND_CHECKSUM_BYTES).then_some((start, start + length))
}

/// Returns the offset after a separator at `at`, which is plain or percent-encoded.
fn skip_separator(text: &[u8], at: usize, plain: u8, encoded: &[u8]) -> Option<usize> {
    if text.get(at) == Some(&plain) {
        return Some(at + 1);
    }
    let candidate = text.get(at..at + encoded.len())?;
    candidate.eq_ignore_ascii_case(encoded).then_some(at + encoded.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_secrets_are_redacted_and_ids_kept() {
        let secret = "0123456789ABCDEFGHIJKLMNOPQRSTUV123456";
        let token = format!("pgt_JhxND7ci.{secret}");
        let encoded = format!("pgt%5FJhxND7ci%2e{secret}");
        for (text, expected) in [
            (token.clone(), "pgt_JhxND7ci.***".to_owned()),
            (format!("/dav/{token}/x?y={token}&z"), "/dav/pgt_JhxND7ci.***/x?y=pgt_JhxND7ci.***&z".to_owned()),
            (format!("\u{e4}{token}\u{e4}"), "\u{e4}pgt_JhxND7ci.***\u{e4}".to_owned()),
            (encoded, "pgt%5FJhxND7ci%2e***".to_owned()),
            (format!("{token}more"), "pgt_JhxND7ci.***".to_owned()),
            (format!("{token}{token}"), "pgt_JhxND7ci.***_JhxND7ci.***".to_owned()),
            (format!("pgt_pgt_JhxND7ci.{secret}"), "pgt_pgt_JhxND7ci.***".to_owned()),
        ] {
            assert_eq!(redact_tokens_in_text(&text), expected, "{text}");
        }
        for text in ["", "pgt", "pgt_", "pgt_JhxND7ci", "pgt_JhxND7ci.short", "pgt_JhxND7c\u{e4}.x", "a pgt%5"] {
            assert!(matches!(redact_tokens_in_text(text), Cow::Borrowed(same) if same == text), "{text}");
        }
        let short = &token[..token.len() - 1];
        assert_eq!(redact_tokens_in_text(short), short, "not the length of a token");
    }
}
