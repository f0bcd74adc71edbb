//! The mount table of this process: which file systems are mounted at and below the served folder.

use std::fs;

use super::open::host_path;
use super::{Folder, stat};
use crate::domain::TreePath;

/// A line of the mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MountLine {
    /// The number by which statx(2) tells the mount.
    pub(super) id: u64,
    /// Where in the tree it is mounted; `None`: elsewhere, or where the tree lies in it.
    pub(super) place: Option<TreePath>,
    /// Whether it joins layers of other file systems: a directory is born anew there when it is copied up.
    layered: bool,
}

/// Reads the mount table as it is seen from the served folder.
pub(super) fn table(root: &Folder) -> Vec<MountLine> {
    let text = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let root = host_path(root).unwrap_or_default();
    let lines: Vec<_> = text.split(|&b| b == b'\n').filter_map(|line| parse(line, &root)).collect();
    stat::set_layered_mounts(lines.iter().filter(|line| line.layered).map(|line| line.id).collect());
    lines
}

/// Returns where in the tree file systems begin: its root, and what is mounted below.
pub(super) fn below(root: &Folder) -> Vec<TreePath> {
    let mut found = vec![TreePath::root()];
    found.extend(table(root).into_iter().filter_map(|line| line.place).filter(|place| !place.is_root()));
    found
}

/// Reads a line (proc(5)): its first field is the mount's number, its fifth the mount point, and the one behind the
/// hyphen the type of the file system.
fn parse(line: &[u8], root: &[u8]) -> Option<MountLine> {
    let mut fields = line.split(|&b| b == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let point = unescape(fields.nth(3)?);
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some(MountLine { id, place: place(&point, root), layered: kind == b"overlay" })
}

/// Returns the place in the tree of a mount point.
fn place(point: &[u8], root: &[u8]) -> Option<TreePath> {
    let below = if root == b"/" { point } else { point.strip_prefix(root)? };
    if !(below.is_empty() || below.starts_with(b"/")) {
        return None;
    }
    TreePath::parse(below).ok()
}

/// Reads `\040` and the like, by which the kernel writes white space and backslashes.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if first == b'\\' => {
                plain.push(byte);
                rest = &after[3..];
            }
            _ => {
                plain.push(first);
                rest = after;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_the_root_are_told_from_others() {
        let line = b"36 35 98:0 / /srv/tree/a\\040b\\134c rw,noatime master:1 - ext3 /dev/root rw";
        let place = |root: &[u8]| parse(line, root).expect("a line").place;
        assert_eq!(place(b"/srv/tree"), TreePath::parse(b"a b\\c").ok());
        assert_eq!(place(b"/srv/tre"), None);
        assert_eq!(place(b"/srv/tree/a b\\c"), Some(TreePath::root()));
        assert_eq!(place(b"/srv/tree/a b\\c/d"), None);
        assert_eq!(place(b"/"), TreePath::parse(b"srv/tree/a b\\c").ok());
        assert_eq!(parse(b"", b"/"), None);
    }

    #[test]
    fn numbers_and_types_are_read_with_and_without_optional_fields() {
        let read = |line: &[u8]| parse(line, b"/").map(|line| (line.id, line.layered));
        assert_eq!(read(b"36 35 98:0 / / rw shared:1 master:2 - ext3 /dev/root rw"), Some((36, false)));
        assert_eq!(read(b"1041 35 0:41 / /merged rw - overlay overlay rw,lowerdir=/l"), Some((1041, true)));
        assert_eq!(read(b"36 35 98:0 / /cut rw"), None);
    }
}
