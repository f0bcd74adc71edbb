//! The `If` header (RFC 4918 section 10.4): lists of lock tokens and entity tags, one of which must be true.

use super::etag::EntityTag;
use crate::tree::LockToken;

/// Maximum number of conditions, more than any client sends: each may cost a lookup in the tree.
const MAX_CONDITIONS: usize = 64;

/// Parsed `If` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IfHeader {
    lists: Vec<IfList>,
}

/// List of conditions: true when all of them are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IfList {
    /// URL of the resource tag; `None` for the resource of the request.
    pub(super) resource: Option<Vec<u8>>,
    conditions: Vec<IfCondition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct IfCondition {
    negated: bool,
    state: IfConditionState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum IfConditionState {
    LockToken(LockToken),
    EntityTag(EntityTag),
}

/// Current state of a resource, as far as conditions refer to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct IfResourceState {
    /// Strong entity tag, where there is one.
    pub(super) etag: Option<String>,
    /// Tokens of the locks that cover the resource.
    pub(super) lock_tokens: Vec<LockToken>,
}

impl IfHeader {
    /// Parses the value of the header; `None` when it is malformed or has more than 64 conditions.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let mut rest = text.trim_ascii();
        let mut resource = None;
        let (mut lists, mut count) = (Vec::new(), 0);
        // Either every list is tagged or none is (RFC 4918 section 10.4.2).
        let tagged = rest.starts_with(b"<");
        while !rest.is_empty() {
            if tagged && rest.starts_with(b"<") {
                // Spaces are allowed: clients that don't escape a Destination don't escape the tag either.
                let (url, after) = parse_angle_bracketed(rest, b' ')?;
                // A tag without a list would be a condition that nobody evaluates.
                if !after.starts_with(b"(") {
                    return None;
                }
                (resource, rest) = (Some(url.to_vec()), after);
            }
            let (conditions, after) = parse_list(rest)?;
            count += conditions.len();
            // A tag applies to all lists up to the next tag.
            lists.push(IfList { resource: resource.clone(), conditions });
            rest = after;
            // After each list, so that a long header is not parsed to its end.
            if count > MAX_CONDITIONS {
                return None;
            }
        }
        (!lists.is_empty()).then_some(Self { lists })
    }

    /// Returns all lock tokens in the header, negated ones included.
    pub(super) fn lock_tokens(&self) -> Vec<LockToken> {
        // Every token in the header counts as submitted, also after `Not` (RFC 4918 section 10.4.1).
        let states = self.lists.iter().flat_map(|list| &list.conditions).map(|condition| &condition.state);
        states
            .filter_map(|state| if let IfConditionState::LockToken(token) = state { Some(token.clone()) } else { None })
            .collect()
    }

    /// Tells whether one of the lists is true; `look_up` returns the current state of a resource, with its entity tag
    /// where the second argument asks for it.
    ///
    /// # Errors
    /// The errors of `look_up`.
    pub(super) fn holds<E>(
        &self,
        mut look_up: impl FnMut(Option<&[u8]>, bool) -> Result<IfResourceState, E>,
    ) -> Result<bool, E> {
        // Stops at the first list that is true: each lookup may read the entry and its locks.
        for list in &self.lists {
            let needs_etag = list.conditions.iter().any(|c| matches!(c.state, IfConditionState::EntityTag(_)));
            let state = look_up(list.resource.as_deref(), needs_etag)?;
            if list.conditions.iter().all(|condition| condition.holds(&state)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl IfCondition {
    fn holds(&self, state: &IfResourceState) -> bool {
        let matches = match &self.state {
            IfConditionState::LockToken(token) => state.lock_tokens.contains(token),
            IfConditionState::EntityTag(tag) => tag.matches_strongly(state.etag.as_deref()),
        };
        matches != self.negated
    }
}

/// Parses `<…>`, in which no byte is below `min_byte`, and the white space after it.
fn parse_angle_bracketed(text: &[u8], min_byte: u8) -> Option<(&[u8], &[u8])> {
    let rest = text.strip_prefix(b"<")?;
    let end = memchr::memchr(b'>', rest)?;
    let inner = &rest[..end];
    let is_valid = !inner.is_empty() && inner.iter().all(|&b| b >= min_byte && b != b'<' && b != 0x7f);
    is_valid.then(|| (inner, rest[end + 1..].trim_ascii_start()))
}

/// Parses `(…)` and the white space after it.
fn parse_list(text: &[u8]) -> Option<(Vec<IfCondition>, &[u8])> {
    let mut rest = text.strip_prefix(b"(")?.trim_ascii_start();
    let mut conditions = Vec::new();
    loop {
        if let Some(after) = rest.strip_prefix(b")") {
            return (!conditions.is_empty()).then(|| (conditions, after.trim_ascii_start()));
        }
        let (condition, after) = parse_condition(rest)?;
        conditions.push(condition);
        rest = after;
    }
}

fn parse_condition(text: &[u8]) -> Option<(IfCondition, &[u8])> {
    let negated = text.get(..3).is_some_and(|word| word.eq_ignore_ascii_case(b"not"));
    let rest = if negated { text[3..].trim_ascii_start() } else { text };
    if let Some(inner) = rest.strip_prefix(b"[") {
        let (tag, after) = EntityTag::parse_prefix(inner.trim_ascii_start())?;
        let after = after.trim_ascii_start().strip_prefix(b"]")?;
        return Some((IfCondition { negated, state: IfConditionState::EntityTag(tag) }, after.trim_ascii_start()));
    }
    // From `!` on: unlike the tags, lock tokens never come unescaped, so a space is an error.
    let (token, after) = parse_angle_bracketed(rest, b'!')?;
    let token = LockToken::new(std::str::from_utf8(token).ok()?);
    Some((IfCondition { negated, state: IfConditionState::LockToken(token) }, after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    fn if_header_holds(text: &str, etag: Option<&str>, tokens: &[&str]) -> bool {
        let header = IfHeader::parse(text.as_bytes()).expect(text);
        let state = IfResourceState {
            etag: etag.map(str::to_owned),
            lock_tokens: tokens.iter().map(|token| LockToken::new(*token)).collect(),
        };
        header.holds(|_, _| Ok::<_, Infallible>(state.clone())).expect("never fails")
    }

    #[test]
    fn list_is_conjunction_and_lists_are_disjunction() {
        assert!(if_header_holds("(<urn:a> [\"x\"])", Some("x"), &["urn:a"]));
        assert!(!if_header_holds("(<urn:a> [\"x\"])", Some("y"), &["urn:a"]));
        assert!(if_header_holds("(<urn:a>) ([\"x\"])", Some("x"), &[]));
        assert!(if_header_holds("(Not <DAV:no-lock>)", None, &[]));
        assert!(if_header_holds("(<urn:b>) (not <DAV:no-lock>)", None, &["urn:a"]));
        assert!(!if_header_holds("([W/\"x\"])", Some("x"), &[]));
        assert!(!if_header_holds("(<urn:a>)(Not [\"x\"])", Some("x"), &[]));
    }

    #[test]
    fn resource_tag_applies_to_all_following_lists() {
        let header = IfHeader::parse(b"</dav/a> (<urn:a>) ([\"x\"]) <http://h/dav/b>(Not <urn:c>)").expect("header");
        let resources: Vec<_> = header.lists.iter().map(|list| list.resource.as_deref().expect("tag")).collect();
        assert_eq!(resources, [&b"/dav/a"[..], b"/dav/a", b"http://h/dav/b"]);
        assert_eq!(header.lock_tokens(), [LockToken::new("urn:a"), LockToken::new("urn:c")]);
        let raw = IfHeader::parse("</dav/a \u{e4}> (<urn:a>)".as_bytes()).expect("header");
        assert_eq!(raw.lists[0].resource.as_deref(), Some("/dav/a \u{e4}".as_bytes()));
    }

    #[test]
    fn malformed_headers_are_refused() {
        for text in [
            "",
            "(",
            ")",
            "()",
            "(<>)",
            "(<a)",
            "(a)",
            "([x])",
            "([\"x\")",
            "(<a>",
            "<a>",
            "<a> <b> (<c>)",
            "(Not)",
            "(Not Not <a>)",
            "(<a>) x",
            "(<a>) <b> (<c>)",
            "(<a b>)",
            "</dav/a\tb> (<c:d>)",
            "(\"x\")",
            "<a> (<b>) x",
        ] {
            assert_eq!(IfHeader::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(IfHeader::parse("(<a>)".repeat(MAX_CONDITIONS + 1).as_bytes()), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, likely in "[<>()\\[\\]\"NotW/a ]{0,40}") {
            let _ = IfHeader::parse(&bytes);
            let _ = IfHeader::parse(likely.as_bytes());
        }
    }
}
