//! What a file or folder shows of itself.

use std::fmt;

use crate::domain::{EntryName, Permission};

/// What kind of thing an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A folder.
    Directory,
    /// A symbolic link, where links are not followed.
    Symlink,
}

/// Seconds since 1970 and nanoseconds of the second.
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
    /// Returns it as the store keeps it.
    pub(in crate::tree) fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.0.to_be_bytes());
        bytes[8..].copy_from_slice(&self.1.to_be_bytes());
        bytes
    }
}

impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:016x}", self.0, self.1)
    }
}

/// What a file or folder shows of itself to one session.
///
/// A folder that is merely visible shows constants: times of 1970, link count 2, size 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name in its folder; empty for the root.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes; 0 for folders.
    pub size: u64,
    /// The last change of content.
    pub modified: Timestamp,
    /// The last read, as the host keeps it.
    pub accessed: Timestamp,
    /// When it was made, where the file system knows.
    pub created: Option<Timestamp>,
    /// Permission bits, without the type.
    pub mode: u32,
    /// Hard links.
    pub link_count: u32,
    /// The tag, for files that the session may read.
    pub etag: Option<Etag>,
    /// What the session may do with it.
    pub permission: Permission,
}

impl Entry {
    /// Tells whether this is a folder.
    pub fn is_directory(&self) -> bool {
        self.kind == EntryKind::Directory
    }

    /// Returns the name, where it is one (the root has none).
    pub fn valid_name(&self) -> Option<EntryName> {
        EntryName::new(&self.name).ok()
    }
}

/// What can be set; `None` leaves a thing as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttributeChanges {
    /// Permission bits (set-id and sticky bits are dropped).
    pub mode: Option<u32>,
    /// The last change of content.
    pub modified: Option<Timestamp>,
    /// The last read.
    pub accessed: Option<Timestamp>,
    /// Bytes: cut or padded with zeros.
    pub size: Option<u64>,
}

/// Room on the file system, in bytes and inodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilesystemSpace {
    /// Bytes in all.
    pub total: u64,
    /// Bytes free to an ordinary user.
    pub available: u64,
    /// Bytes free.
    pub free: u64,
    /// Inodes in all.
    pub inodes: u64,
    /// Inodes free.
    pub inodes_free: u64,
    /// The size of a block.
    pub block_size: u64,
    /// The longest name.
    pub name_max_bytes: u64,
}
