//! Paths in the served tree: bytes that can't lead out of it.

use std::borrow::Borrow;
use std::fmt;

/// Name of the directory at the root of each file system that patgate reserves for itself; never visible to clients.
pub(crate) const RESERVED_DIRECTORY: &[u8] = b".patgate";
const MAX_NAME_BYTES: usize = 255;
const MAX_PATH_BYTES: usize = 4095;

/// The name of a file or directory: 1 to 255 bytes without `/` and NUL, not `.`, `..` or `.patgate`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryName(Box<[u8]>);

impl EntryName {
    /// Creates a name.
    ///
    /// # Errors
    /// [`PathError`] with the rule that the bytes violate.
    pub fn new(bytes: &[u8]) -> Result<Self, PathError> {
        check_component(bytes).map(|()| Self(bytes.into()))
    }

    /// Tells whether [`EntryName::new`] accepts the bytes.
    pub fn is_valid(bytes: &[u8]) -> bool {
        check_component(bytes).is_ok()
    }

    /// Returns the bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<EntryName> for Vec<u8> {
    fn from(name: EntryName) -> Self {
        name.0.into_vec()
    }
}

/// Names in a map are found by their bytes: `Hash`, `Eq` and `Ord` of a name are those of its bytes.
impl Borrow<[u8]> for EntryName {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_escaped(&self.0, f)
    }
}

impl fmt::Debug for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// A path in the served tree, from its root: bytes, not text. It has no component that is `.`, `..`, empty or too long
/// and no NUL, so that no spelling of it leads out of the tree.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct TreePath(Box<[u8]>);

impl TreePath {
    /// Returns the root.
    pub fn root() -> Self {
        Self::default()
    }

    /// Parses `/a/b`, `a/b` or `/a/b/`; `/` and the empty text are the root.
    ///
    /// # Errors
    /// [`PathError`] for a component that is empty, `.`, `..`, reserved or too long, a NUL, or more than 4095 bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, PathError> {
        let bytes = bytes.strip_prefix(b"/").unwrap_or(bytes);
        // `//`: after its first slash, the rest would pass for a trailing slash.
        if bytes == b"/" {
            return Err(PathError::EmptyComponent);
        }
        let bytes = bytes.strip_suffix(b"/").unwrap_or(bytes);
        if bytes.len() > MAX_PATH_BYTES {
            return Err(PathError::TooLong);
        }
        if !bytes.is_empty() {
            bytes.split(|&b| b == b'/').try_for_each(check_component)?;
        }
        Ok(Self(bytes.into()))
    }

    /// Parses a path that begins with a slash, as people write the node of a grant or scope. Without it, the path of
    /// an unset variable in a script would name the whole tree.
    ///
    /// # Errors
    /// A message that shows the form, or says what [`TreePath::parse`] refuses.
    pub fn parse_absolute(text: &str) -> Result<Self, String> {
        match text.starts_with('/') {
            true => Self::parse(text.as_bytes()).map_err(|why| why.to_string()),
            false => Err(format!("the path {text:?} does not begin with a slash: give / for the whole tree")),
        }
    }

    /// Parses the form that a path is displayed in, which escapes bytes that can't be shown as `\xNN`. The result is
    /// displayed the same, and is the path itself unless its names hold such sequences as text.
    ///
    /// # Errors
    /// As [`TreePath::parse`].
    pub(crate) fn parse_displayed(text: &str) -> Result<Self, PathError> {
        // As it is, where possible: a name may hold a backslash. Escaped, it may be longer than any name.
        Self::parse(text.as_bytes()).or_else(|error| {
            let mut parts = text.split("\\x");
            let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
            for part in parts {
                let digits = part.get(..2).ok_or(error)?;
                bytes.push(u8::from_str_radix(digits, 16).map_err(|_| error)?);
                bytes.extend_from_slice(&part.as_bytes()[2..]);
            }
            Self::parse(&bytes)
        })
    }

    /// Resolves a path as a shell does, relative to this directory or absolute: repeated slashes and `.` are skipped,
    /// and `..` goes up, at the root to the root itself. Symbolic links are not considered.
    ///
    /// # Errors
    /// [`PathError`] for a NUL, or a component that is reserved or too long.
    pub fn resolve(&self, bytes: &[u8]) -> Result<Self, PathError> {
        let mut parts: Vec<&[u8]> = if bytes.first() == Some(&b'/') { Vec::new() } else { self.components().collect() };
        for step in bytes.split(|&b| b == b'/') {
            match step {
                b"" | b"." => {}
                b".." => {
                    parts.pop();
                }
                name => {
                    check_component(name)?;
                    parts.push(name);
                }
            }
        }
        let joined = parts.join(&b'/');
        if joined.len() > MAX_PATH_BYTES { Err(PathError::TooLong) } else { Ok(Self(joined.into())) }
    }

    /// Returns the path of an entry of this directory.
    pub fn child(&self, name: &EntryName) -> Self {
        if self.is_root() { Self(name.0.clone()) } else { Self([&self.0[..], b"/", &name.0].concat().into()) }
    }

    /// Returns the path of `below` relative to this directory.
    pub fn join(&self, below: &TreePath) -> Self {
        match (self.is_root(), below.is_root()) {
            (true, _) => below.clone(),
            (_, true) => self.clone(),
            _ => Self([&self.0[..], b"/", &below.0].concat().into()),
        }
    }

    /// Tells whether the path of an entry at `below` in this directory is not too long.
    pub(crate) fn can_hold(&self, below: &TreePath) -> bool {
        self.can_hold_bytes(below.0.len())
    }

    /// Tells the same as [`TreePath::can_hold`] for a relative path of a number of bytes.
    pub(crate) fn can_hold_bytes(&self, below: usize) -> bool {
        self.0.len().saturating_add(1).saturating_add(below) <= MAX_PATH_BYTES
    }

    /// Tells whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the parent directory; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        self.split_last().map(|(parent, _)| parent)
    }

    /// Returns the last component; `None` for the root.
    pub fn name(&self) -> Option<EntryName> {
        self.split_last().map(|(_, name)| name)
    }

    /// Returns the parent directory and the name in it; `None` for the root.
    pub fn split_last(&self) -> Option<(Self, EntryName)> {
        if self.is_root() {
            return None;
        }
        let at = memchr::memrchr(b'/', &self.0);
        let (parent, name) = at.map_or((&b""[..], &self.0[..]), |at| (&self.0[..at], &self.0[at + 1..]));
        Some((Self(parent.into()), EntryName(name.into())))
    }

    /// Returns the first `depth` components of the path.
    pub fn prefix(&self, depth: usize) -> Self {
        let end = memchr::memchr_iter(b'/', &self.0).nth(depth.saturating_sub(1));
        match (depth, end) {
            (0, _) => Self::root(),
            (_, Some(end)) => Self(self.0[..end].into()),
            (_, None) => self.clone(),
        }
    }

    /// Returns the components, from the root down.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/').filter(|part| !part.is_empty())
    }

    /// Returns the components as names, from the root down.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = EntryName> {
        self.components().map(|part| EntryName(part.into()))
    }

    /// Returns the number of components: 0 for the root.
    pub fn depth(&self) -> usize {
        self.components().count()
    }

    /// Tells whether this path is `ancestor` or below it, by whole components.
    pub fn starts_with(&self, ancestor: &TreePath) -> bool {
        self.bytes_below(ancestor).is_some()
    }

    /// Returns this path relative to `ancestor`; `None` when it is not at or below it.
    pub fn strip_prefix(&self, ancestor: &TreePath) -> Option<TreePath> {
        self.bytes_below(ancestor).map(|below| Self(below.into()))
    }

    /// Returns the bytes of this path relative to `ancestor`; `None` when it is not at or below it.
    pub fn bytes_below(&self, ancestor: &TreePath) -> Option<&[u8]> {
        if ancestor.is_root() {
            return Some(&self.0);
        }
        let rest = self.0.strip_prefix(&ancestor.0[..])?;
        match rest.split_first() {
            None => Some(b""),
            Some((b'/', rest)) => Some(rest),
            // `/ab` is not below `/a`.
            Some(_) => None,
        }
    }

    /// Returns the bytes without a leading slash; empty for the root.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::str::FromStr for TreePath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::parse(text.as_bytes())
    }
}

impl fmt::Display for TreePath {
    /// Writes `/a/b` with bytes that aren't printable UTF-8 escaped as `\xNN`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("/")?;
        write_escaped(&self.0, f)
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

fn check_component(bytes: &[u8]) -> Result<(), PathError> {
    match bytes {
        b"" => Err(PathError::EmptyComponent),
        b"." | b".." => Err(PathError::DotComponent),
        // In any case of letters: a file system that ignores case opens the reserved directory by `.PatGate`, too.
        _ if bytes.eq_ignore_ascii_case(RESERVED_DIRECTORY) => Err(PathError::Reserved),
        _ if bytes.len() > MAX_NAME_BYTES => Err(PathError::TooLong),
        _ if bytes.contains(&0) => Err(PathError::Nul),
        _ if bytes.contains(&b'/') => Err(PathError::Slash),
        _ => Ok(()),
    }
}

fn write_escaped(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    use fmt::Write;
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if !c.is_control() {
                f.write_char(c)?;
                continue;
            }
            // By its bytes, also where it has two: what is shown can be read back.
            c.encode_utf8(&mut [0; 4]).bytes().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        for byte in chunk.invalid() {
            write!(f, "\\x{byte:02x}")?;
        }
    }
    Ok(())
}

/// The reason why bytes are not a path or name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Two slashes in a row, or an empty name.
    #[error("the path has an empty component")]
    EmptyComponent,
    /// A component `.` or `..`.
    #[error("the path has a component . or ..")]
    DotComponent,
    /// A NUL byte.
    #[error("the path has a NUL byte")]
    Nul,
    /// A slash inside a name.
    #[error("the name has a slash")]
    Slash,
    /// A name of more than 255 bytes or a path of more than 4095.
    #[error("the path is too long: 255 bytes a name, 4095 in all")]
    TooLong,
    /// The name of the reserved directory.
    #[error("the name .patgate is reserved")]
    Reserved,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text.as_bytes()).expect(text)
    }

    #[test]
    fn parse_refuses_traversal_and_reserved_components() {
        let cases: [(&[u8], PathError); 10] = [
            (b"/..", PathError::DotComponent),
            (b"/a/../b", PathError::DotComponent),
            (b"a/.", PathError::DotComponent),
            (b"//", PathError::EmptyComponent),
            (b"/a//b", PathError::EmptyComponent),
            (b"/a\0b", PathError::Nul),
            (b"/.patgate/x", PathError::Reserved),
            (b"/a/.patgate", PathError::Reserved),
            (b"/.PatGate", PathError::Reserved),
            (&[b'x'; 256], PathError::TooLong),
        ];
        for (bytes, error) in cases {
            assert_eq!(TreePath::parse(bytes), Err(error), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn displayed_path_is_parsed_as_it_is_shown() {
        // The third and fourth are too long as they are shown, and the last name holds an escape as text.
        let two_byte_control = [&[0xff; 100][..], "\u{82}\u{e4}".as_bytes(), b"\xc2\xc2\x82"].concat();
        for bytes in [&b"a b/c"[..], b"caf\xe9/\x01", &[0xff; 255], &two_byte_control, br"a\xff"] {
            let path = TreePath::parse(bytes).expect("a path");
            let text = path.to_string();
            assert_eq!(TreePath::parse_displayed(&text).expect("a path").to_string(), text);
        }
        assert!(TreePath::parse_displayed(&format!("/{}", "x".repeat(256))).is_err());
        assert!(TreePath::parse_displayed(&format!("/{}", r"\x2f\x2f".repeat(64))).is_err());
    }

    #[test]
    fn path_prefix_matches_whole_components() {
        assert!(path("/a/b").starts_with(&path("/a")));
        assert!(path("/a").starts_with(&path("/a")));
        assert!(path("/a").starts_with(&TreePath::root()));
        assert!(!path("/ab").starts_with(&path("/a")));
        assert!(!path("/a").starts_with(&path("/a/b")));
        assert_eq!(path("/a/b/c").strip_prefix(&path("/a")), Some(path("b/c")));
    }

    #[test]
    fn resolve_clamps_parent_components_at_root() {
        let home = path("/home/x");
        for (text, expected) in [
            ("", "/home/x"),
            (".", "/home/x"),
            ("..", "/home"),
            ("../../../..", "/"),
            ("a//b/./c/..", "/home/x/a/b"),
            ("/etc/../../b/", "/b"),
        ] {
            assert_eq!(home.resolve(text.as_bytes()), Ok(path(expected)), "{text}");
        }
        assert_eq!(home.resolve(b"/.patgate"), Err(PathError::Reserved));
    }

    #[test]
    fn path_display_escapes_invalid_utf8_and_control_characters() {
        let odd = TreePath::parse(b"a/\xff\n\xc3\xa4").expect("bytes");
        assert_eq!(odd.to_string(), "/a/\\xff\\x0a\u{e4}");
    }

    proptest! {
        #[test]
        fn resolved_path_never_leaves_root(bytes: Vec<u8>) {
            if let Ok(found) = path("/a/b").resolve(&bytes) {
                prop_assert!(found.components().all(|p| check_component(p).is_ok()));
                prop_assert_eq!(TreePath::parse(found.as_bytes()), Ok(found));
            }
        }

        #[test]
        fn child_path_splits_into_parent_and_name(bytes in proptest::collection::vec(any::<u8>(), 1..20)) {
            if let Ok(name) = EntryName::new(&bytes) {
                prop_assert_eq!(path("/a").child(&name).split_last(), Some((path("/a"), name)));
            }
        }
    }
}
