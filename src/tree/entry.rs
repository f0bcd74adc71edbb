//! Metadata of files and directories, and changes of it.

use std::fmt;

use crate::domain::{EntryName, Permission};

/// Type of an entry of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, where links are not followed.
    Symlink,
}

/// A point in time, as seconds and nanoseconds since 1970 (UTC).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Whole seconds, possibly before 1970.
    pub seconds: i64,
    /// Nanoseconds of the second.
    pub nanos: u32,
}

/// A strong entity tag of a file's content (RFC 9110 section 8.8.3), without its quotes.
///
/// It changes with the content, even within one tick of the file system's clock, and with nothing
/// else: not with a rename, a dead property, or a time set through the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Etag(pub(super) u64, pub(super) u64);

impl Etag {
    /// Returns the tag as the store keeps it.
    pub(in crate::tree) fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.0.to_be_bytes());
        bytes[8..].copy_from_slice(&self.1.to_be_bytes());
        bytes
    }

    /// Appends the tag as it is displayed. A listing writes one for each file, and this takes a fraction of the time of
    /// formatting it.
    pub fn append_to(self, out: &mut String) {
        let (text, start) = self.text();
        out.push_str(std::str::from_utf8(&text[start..]).unwrap_or_default());
    }

    /// Returns the text of the tag, which is `{:x}-{:016x}`, and where it starts.
    fn text(self) -> ([u8; 33], usize) {
        let mut text = [b'-'; 33];
        text[..16].copy_from_slice(&hex_digits(self.0));
        text[17..].copy_from_slice(&hex_digits(self.1));
        // The first number has no leading zeros, and one digit at least.
        (text, (self.0.leading_zeros() as usize / 4).min(15))
    }
}

impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (text, start) = self.text();
        f.write_str(std::str::from_utf8(&text[start..]).unwrap_or_default())
    }
}

/// Returns the 16 hexadecimal digits of a number.
fn hex_digits(number: u64) -> [u8; 16] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0; 16];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(number.to_be_bytes()) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0xf)]]);
    }
    digits
}

/// Metadata of a file, directory or link as one session may see it.
///
/// A directory that is only visible (not readable) has constant metadata: times of 1970, link count 2, size 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name in the parent directory; empty for the root.
    pub name: Vec<u8>,
    /// Type of the entry.
    pub kind: EntryKind,
    /// Size in bytes; 0 for directories.
    pub size: u64,
    /// Time of the last change of content.
    pub modified: Timestamp,
    /// Time of the last read, as the file system keeps it.
    pub accessed: Timestamp,
    /// Birth time; `None` where the file system has none.
    pub created: Option<Timestamp>,
    /// POSIX permission bits (`0o777` at most), without the type.
    pub mode: u32,
    /// Number of hard links.
    pub link_count: u32,
    /// Entity tag; `None` for directories, links, and files that the session may not read.
    pub etag: Option<Etag>,
    /// Permission that the session has on the entry.
    pub permission: Permission,
}

impl Entry {
    /// Tells whether the entry is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind == EntryKind::Directory
    }

    /// Tells whether [`Entry::valid_name`] returns a name.
    pub fn has_valid_name(&self) -> bool {
        EntryName::is_valid(&self.name)
    }

    /// Returns the name; `None` for the root, which has none.
    pub fn valid_name(&self) -> Option<EntryName> {
        EntryName::new(&self.name).ok()
    }
}

/// Attributes to set; `None` leaves an attribute as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttributeChanges {
    /// POSIX permission bits; set-user-ID, set-group-ID and sticky bits are dropped.
    pub mode: Option<u32>,
    /// Time of the last change of content.
    pub modified: Option<Timestamp>,
    /// Time of the last read.
    pub accessed: Option<Timestamp>,
    /// Size in bytes: the file is truncated, or padded with zeros.
    pub size: Option<u64>,
}

/// Space on a file system, in bytes and inodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilesystemSpace {
    /// Total number of bytes.
    pub total: u64,
    /// Number of bytes free to an unprivileged user.
    pub available: u64,
    /// Number of free bytes, those reserved for root included.
    pub free: u64,
    /// Total number of inodes.
    pub inodes: u64,
    /// Number of free inodes.
    pub inodes_free: u64,
    /// Size of a block in bytes.
    pub block_size: u64,
    /// Maximum length of a name in bytes.
    pub name_max_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etag_is_displayed_as_two_hexadecimal_numbers() {
        for (high, low) in [(0, 0), (1, u64::MAX), (0xf0, 0x1f), (u64::MAX, 1), (0x0123_4567_89ab_cdef, 1 << 60)] {
            assert_eq!(Etag(high, low).to_string(), format!("{high:x}-{low:016x}"));
        }
    }
}
