//! Properties of the parsers of this module, for [`crate::fuzzing`]: each function takes any bytes, and panics where a
//! property does not hold.

use memchr::memmem;

use super::{
    EntryName, Lifetime, Secret, TokenId, TokenText, TreePath, UnixMillis, redact_tokens_in_bytes,
    redact_tokens_in_text,
};

/// Tokens: the text of one that is accepted is the text that it shows, one mistyped character is found, and redaction
/// leaves no secret wherever a token stands.
pub(crate) fn token_text(data: &[u8]) {
    if let Ok(token) = TokenText::parse(data) {
        assert_eq!(token.reveal().as_bytes(), data);
    }
    let _ = std::str::from_utf8(data).map(|text| (text.parse::<TokenId>(), redact_tokens_in_text(text).len()));
    // A mutation of bytes does not get past the checksum: a valid token is drawn from the bytes as well.
    let (mut drawn, mut source) = (0u8, data.iter().cycle());
    let mut random = |buffer: &mut [u8]| {
        for byte in buffer {
            drawn = drawn.wrapping_add(29);
            *byte = source.next().copied().unwrap_or_default().wrapping_add(drawn);
        }
    };
    let token = TokenText::new(TokenId::generate(&mut random), Secret::generate(&mut random));
    let text = token.reveal();
    assert_eq!(TokenText::parse(text.as_bytes()).as_ref().map(TokenText::id), Ok(token.id()));
    if let [position, character, rest @ ..] = data {
        let mut mistyped = text.as_bytes().to_vec();
        let length = mistyped.len();
        mistyped[usize::from(*position) % length] = *character;
        assert!(mistyped == text.as_bytes() || TokenText::parse(&mistyped).is_err());
        let (before, after) = rest.split_at(rest.len() / 2);
        // A part of it: coverage leads to bytes that hold the rest, and to the secret only beside the token.
        let secret = &token.secret().expose()[..16];
        let redacted = redact_tokens_in_bytes(&[before, text.as_bytes(), after].concat()).into_owned();
        let is_elsewhere = |part: &[u8]| memmem::find(part, secret).is_some();
        assert!(is_elsewhere(before) || is_elsewhere(after) || !is_elsewhere(&redacted));
    }
}

/// Paths: an accepted one stays in the tree and is put together from its parts, resolution agrees with a slow reference,
/// and the spellings of a name lead to each other.
pub(crate) fn tree_path(data: &[u8]) {
    let (base, relative) = data.split_at(data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len()));
    if let Ok(path) = TreePath::parse(base) {
        let trimmed = base.strip_prefix(b"/").unwrap_or(base);
        assert_eq!(path.as_bytes(), trimmed.strip_suffix(b"/").unwrap_or(trimmed));
        assert!(path.components().all(EntryName::is_valid));
        assert_eq!(TreePath::parse(path.as_bytes()).as_ref(), Ok(&path));
        assert_eq!(path.names().fold(TreePath::root(), |parent, name| parent.child(&name)), path);
        assert_eq!(path.prefix(path.depth()), path);
        let shown = path.to_string();
        // A name that is too long as it is shown, and that holds escapes as text, can't be told from another one.
        let is_ambiguous = memmem::find(base, b"\\x").is_some();
        let again = TreePath::parse_displayed(&shown).map(|again| again.to_string());
        assert!(is_ambiguous || again.as_ref() == Ok(&shown), "{again:?} of {shown}");
        path.names().for_each(|name| check_spellings(&name));
        let relative = relative.strip_prefix(b"\n").unwrap_or_default();
        if let Ok(resolved) = path.resolve(relative) {
            assert_eq!(resolved.as_bytes(), resolve_slowly(&path, relative));
            assert_eq!(TreePath::parse(resolved.as_bytes()).as_ref(), Ok(&resolved));
        }
    }
    assert_eq!(EntryName::new(data).is_ok(), EntryName::is_valid(data));
}

/// Resolves as [`TreePath::resolve`], component by component over text.
fn resolve_slowly(base: &TreePath, relative: &[u8]) -> Vec<u8> {
    let mut path = if relative.starts_with(b"/") { Vec::new() } else { base.as_bytes().to_vec() };
    for component in relative.split(|byte| *byte == b'/') {
        if component == b".." {
            path.truncate(path.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
        } else if component != b"." && !component.is_empty() {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(component);
        }
    }
    path
}

fn check_spellings(name: &EntryName) {
    let others = name.alternate_normalizations();
    for other in &others {
        assert_ne!(other, name);
        let back = other.alternate_normalizations();
        assert!(back.iter().all(|spelling| spelling == name || others.contains(spelling)));
    }
}

/// Times and lifetimes: what is accepted is written in a form that is read as the same.
pub(crate) fn times(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(time) = text.parse::<UnixMillis>() {
        assert_eq!(time.format_with_millis().parse(), Ok(time));
    }
    if let Ok(time) = UnixMillis::parse_utc(text) {
        assert_eq!(UnixMillis::parse_utc(&time.format_utc()), Ok(time));
    }
    for lifetime in [text.parse::<Lifetime>(), Lifetime::parse_window(text)].into_iter().flatten() {
        assert_eq!(lifetime.to_string().parse::<Lifetime>().ok(), Some(lifetime));
        assert_eq!(Lifetime::from_secs(lifetime.as_secs()), Some(lifetime));
    }
}
