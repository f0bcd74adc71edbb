//! Tree paths in URLs of the console: percent-encoded bytes.

use http::Uri;
use percent_encoding::{AsciiSet, percent_decode, percent_encode};

use super::error::{ConsoleError, Result};
use crate::domain::{ALL_BUT_UNRESERVED, EntryName, TreePath};

/// Characters that are encoded: all but the unreserved ones and the slash.
const ENCODED_IN_PATH: &AsciiSet = &ALL_BUT_UNRESERVED.remove(b'/');

/// Parses the tree path that follows the second segment of a URL: `/console/files/a/b`.
///
/// # Errors
/// [`ConsoleError::NotFound`] for a path that is not valid in a tree.
pub(super) fn from_uri(uri: &Uri) -> Result<TreePath> {
    let rest = uri.path().splitn(4, '/').nth(3).unwrap_or_default();
    decode(rest)
}

/// Parses an encoded path. Each segment is decoded by itself, so that `%2F` is no separator.
///
/// # Errors
/// As [`from_uri`].
pub(super) fn decode(text: &str) -> Result<TreePath> {
    let mut path = TreePath::root();
    for part in text.split('/').filter(|part| !part.is_empty()) {
        let bytes: Vec<u8> = percent_decode(part.as_bytes()).collect();
        // Checked after decoding, so that `%2e%2e`, `%2f` and NUL are refused like their plain forms.
        path = path.child(&EntryName::new(&bytes).map_err(|_| ConsoleError::NotFound)?);
    }
    // The segments are valid by themselves; this checks the length of the whole path.
    TreePath::parse(path.as_bytes()).map_err(|_| ConsoleError::NotFound)
}

/// Encodes a path with a leading slash; the root is the empty string.
pub(super) fn encode(path: &TreePath) -> String {
    if path.is_root() { String::new() } else { format!("/{}", percent_encode(path.as_bytes(), ENCODED_IN_PATH)) }
}

/// Percent-encodes a value for the query of a URL.
pub(super) fn encode_query(bytes: &[u8]) -> String {
    percent_encode(bytes, ENCODED_IN_PATH).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(bytes: &[u8]) -> TreePath {
        TreePath::parse(bytes).expect("a path")
    }

    #[test]
    fn encoded_path_decodes_to_the_same_bytes() {
        for bytes in [&b""[..], b"a/b", b"\xff\"<script>", b"100% #?&+", b"\xc3\xa4 \x01"] {
            let uri: Uri = format!("/console/files{}", encode(&path(bytes))).parse().expect("an address");
            assert_eq!(from_uri(&uri).ok(), Some(path(bytes)), "{bytes:?}");
        }
    }

    #[test]
    fn path_that_leaves_the_root_is_refused() {
        for text in ["a%2fb", "..", "a/../b", "%2e%2e", "a%00", ".patgate", "x/.PATGATE"] {
            assert!(decode(text).is_err(), "{text}");
        }
    }
}
