//! File systems mounted below the served folder.

use std::fs;

use super::Folder;
use super::open::host_path;
use crate::domain::TreePath;

/// Returns where in the tree file systems begin: its root, and what is mounted below.
pub(super) fn below(root: &Folder) -> Vec<TreePath> {
    let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let root = host_path(root).unwrap_or_default();
    let mut found = vec![TreePath::root()];
    found.extend(table.split(|&b| b == b'\n').filter_map(|line| place(line, &root)));
    found
}

/// Returns the mount point of a line (proc(5): its fifth field), taken from the root.
fn place(line: &[u8], root: &[u8]) -> Option<TreePath> {
    let point = unescape(line.split(|&b| b == b' ').nth(4)?);
    let below = if root == b"/" { &point[..] } else { point.strip_prefix(root)? };
    if !below.starts_with(b"/") {
        return None;
    }
    TreePath::parse(below).ok().filter(|path| !path.is_root())
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
        assert_eq!(place(line, b"/srv/tree"), TreePath::parse(b"a b\\c").ok());
        assert_eq!(place(line, b"/srv/tre"), None);
        assert_eq!(place(line, b"/srv/tree/a b\\c"), None);
        assert_eq!(place(line, b"/"), TreePath::parse(b"srv/tree/a b\\c").ok());
        assert_eq!(place(b"", b"/"), None);
    }
}
