//! Mount table of this process (`/proc/self/mountinfo`): file systems that are mounted at and below the served
//! directory.

use std::fs;

use super::open::host_path;
use super::{DirectoryFd, stat};
use crate::domain::TreePath;

/// Line of the mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MountInfoEntry {
    /// Mount id, as statx(2) returns it in `stx_mnt_id`.
    pub(super) id: u64,
    /// Mount point as a path of the tree; `None` where that is outside of the tree or above its root.
    pub(super) tree_path: Option<TreePath>,
    /// Whether it is an overlayfs, where a directory gets a new birth time when it is copied up.
    is_overlay: bool,
    /// Whether it is a tmpfs, which keeps its content in memory.
    is_tmpfs: bool,
}

/// Reads the mount table, with the mount points relative to the served directory.
pub(super) fn read_mountinfo(root: &DirectoryFd) -> Vec<MountInfoEntry> {
    let text = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let root = host_path(root).unwrap_or_default();
    let lines: Vec<_> = text.split(|&b| b == b'\n').filter_map(|line| parse_mountinfo_line(line, &root)).collect();
    // From here on no birth time on overlayfs becomes part of an identity.
    stat::set_overlay_mounts(lines.iter().filter(|line| line.is_overlay).map(|line| line.id).collect());
    stat::set_memory_mounts(lines.iter().filter(|line| line.is_tmpfs).map(|line| line.id).collect());
    lines
}

/// Returns the root of the tree and every mount point below it.
pub(super) fn mount_points(root: &DirectoryFd) -> Vec<TreePath> {
    let mut points = vec![TreePath::root()];
    points.extend(read_mountinfo(root).into_iter().filter_map(|line| line.tree_path).filter(|path| !path.is_root()));
    points
}

/// Parses a line (proc(5)): the first field is the mount id, the fifth the mount point, and the one behind the hyphen
/// the type of the file system.
fn parse_mountinfo_line(line: &[u8], root: &[u8]) -> Option<MountInfoEntry> {
    let mut fields = line.split(|&b| b == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let point = unescape(fields.nth(3)?);
    // The optional fields before the hyphen vary in number.
    let fs_type = fields.skip_while(|field| *field != b"-").nth(1)?;
    let (is_overlay, is_tmpfs) = (fs_type == b"overlay", fs_type == b"tmpfs");
    Some(MountInfoEntry { id, tree_path: mount_point_in_tree(&point, root), is_overlay, is_tmpfs })
}

/// Returns the path in the tree of a mount point of the host.
fn mount_point_in_tree(point: &[u8], root: &[u8]) -> Option<TreePath> {
    let relative_path = if root == b"/" { point } else { point.strip_prefix(root)? };
    // A sibling with the same prefix: `/srv/tree2` beside `/srv/tree`.
    if !(relative_path.is_empty() || relative_path.starts_with(b"/")) {
        return None;
    }
    // Mount points that no client path can name (in `.patgate`) are none of the tree.
    TreePath::parse(relative_path).ok()
}

/// Decodes the octal escapes (`\040` and the like) by which the kernel writes white space and backslashes.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut unescaped = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if first == b'\\' => {
                unescaped.push(byte);
                rest = &after[3..];
            }
            _ => {
                unescaped.push(first);
                rest = after;
            }
        }
    }
    unescaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_below_root_get_tree_path() {
        let line = b"36 35 98:0 / /srv/tree/a\\040b\\134c rw,noatime master:1 - ext3 /dev/root rw";
        let tree_path = |root: &[u8]| parse_mountinfo_line(line, root).expect("a line").tree_path;
        assert_eq!(tree_path(b"/srv/tree"), TreePath::parse(b"a b\\c").ok());
        assert_eq!(tree_path(b"/srv/tre"), None);
        assert_eq!(tree_path(b"/srv/tree/a b\\c"), Some(TreePath::root()));
        assert_eq!(tree_path(b"/srv/tree/a b\\c/d"), None);
        assert_eq!(tree_path(b"/"), TreePath::parse(b"srv/tree/a b\\c").ok());
        assert_eq!(parse_mountinfo_line(b"", b"/"), None);
    }

    #[test]
    fn mountinfo_parses_with_and_without_optional_fields() {
        let read = |line: &[u8]| parse_mountinfo_line(line, b"/").map(|line| (line.id, line.is_overlay, line.is_tmpfs));
        assert_eq!(read(b"36 35 98:0 / / rw shared:1 master:2 - ext3 /dev/root rw"), Some((36, false, false)));
        assert_eq!(read(b"1041 35 0:41 / /merged rw - overlay overlay rw,lowerdir=/l"), Some((1041, true, false)));
        assert_eq!(read(b"29 24 0:25 / /dev/shm rw,nosuid - tmpfs tmpfs rw"), Some((29, false, true)));
        assert_eq!(read(b"36 35 98:0 / /cut rw"), None);
    }
}
