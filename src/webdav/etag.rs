//! Entity tags in requests (RFC 9110 section 8.8.3).

/// Entity tag as a client sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EntityTag {
    /// Whether it is marked as weak.
    pub(super) weak: bool,
    /// Opaque tag between the quotes.
    pub(super) tag: Vec<u8>,
}

impl EntityTag {
    /// Parses a tag at the start of a text; returns it and the rest.
    pub(super) fn parse_prefix(text: &[u8]) -> Option<(Self, &[u8])> {
        // `W/` is case-sensitive.
        let (weak, rest) = text.strip_prefix(b"W/").map_or((false, text), |rest| (true, rest));
        let rest = rest.strip_prefix(b"\"")?;
        let end = memchr::memchr(b'"', rest)?;
        let (tag, rest) = (&rest[..end], &rest[end + 1..]);
        // The characters of `etagc` (RFC 9110 section 8.8.3).
        let is_valid = tag.iter().all(|&b| b == 0x21 || (0x23..=0x7e).contains(&b) || b >= 0x80);
        is_valid.then(|| (Self { weak, tag: tag.to_vec() }, rest))
    }

    /// Parses a tag without quotes, as Joplin sends in `If-None-Match` (only to bypass caches).
    fn parse_unquoted_prefix(text: &[u8]) -> Option<(Self, &[u8])> {
        let end = text.iter().position(|&b| b == b',' || b.is_ascii_whitespace()).unwrap_or(text.len());
        let (tag, rest) = text.split_at(end);
        // No `*`: in a list it is malformed, and not the tag of an entry.
        let is_valid = !tag.is_empty() && tag.iter().all(|&b| b.is_ascii_graphic() && b != b'"' && b != b'*');
        is_valid.then(|| (Self { weak: false, tag: tag.to_vec() }, rest))
    }

    /// Compares with the current strong tag: strong comparison (RFC 9110 section 8.8.3.2).
    pub(super) fn matches_strongly(&self, current: Option<&str>) -> bool {
        // Tags of the gateway are always strong, so only that of the client can be weak.
        !self.weak && self.matches_weakly(current)
    }

    /// Compares with the current tag: weak comparison (RFC 9110 section 8.8.3.2).
    pub(super) fn matches_weakly(&self, current: Option<&str>) -> bool {
        current.is_some_and(|tag| tag.as_bytes() == self.tag)
    }
}

/// Value of If-Match or If-None-Match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum EntityTagList {
    /// `*`: any current representation.
    Any,
    /// Any of these tags.
    Tags(Vec<EntityTag>),
}

impl EntityTagList {
    /// Parses a header value; several fields must be joined by commas. `None` when it is malformed or empty.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        if text.trim_ascii() == b"*" {
            return Some(Self::Any);
        }
        let mut rest = text.trim_ascii();
        let mut tags = Vec::new();
        while !rest.is_empty() {
            // Empty list elements must be accepted (RFC 9110 section 5.6.1.2).
            if let Some(after) = rest.strip_prefix(b",") {
                rest = after.trim_ascii_start();
                continue;
            }
            let (tag, after) = EntityTag::parse_prefix(rest).or_else(|| EntityTag::parse_unquoted_prefix(rest))?;
            tags.push(tag);
            rest = after.trim_ascii_start();
            if !rest.is_empty() && !rest.starts_with(b",") {
                return None;
            }
        }
        (!tags.is_empty()).then_some(Self::Tags(tags))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn entity_tag_lists_are_parsed() {
        assert_eq!(EntityTagList::parse(b" * "), Some(EntityTagList::Any));
        let Some(EntityTagList::Tags(tags)) = EntityTagList::parse(b"\"a\", W/\"b,c\" ,, \"\"") else {
            panic!("a list")
        };
        let parsed: Vec<_> = tags.iter().map(|t| (t.weak, t.tag.as_slice())).collect();
        assert_eq!(parsed, [(false, &b"a"[..]), (true, b"b,c"), (false, b"")]);
        let bare = EntityTagList::parse(b"JoplinIgnore-12345, b").expect("a list");
        let tag = |text: &[u8]| EntityTag { weak: false, tag: text.to_vec() };
        assert_eq!(bare, EntityTagList::Tags(vec![tag(b"JoplinIgnore-12345"), tag(b"b")]));
        for text in [&b""[..], b",", b"a b", b"\"a", b"\"a\" \"b\"", b"w/\"a\"", b"*, \"a\"", b"\"a b\""] {
            assert_eq!(EntityTagList::parse(text), None, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn weak_tag_never_matches_strongly() {
        let (weak, _) = EntityTag::parse_prefix(b"W/\"x\"").expect("tag");
        assert!(weak.matches_weakly(Some("x")) && !weak.matches_strongly(Some("x")) && !weak.matches_weakly(None));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = EntityTagList::parse(&bytes);
        }
    }
}
