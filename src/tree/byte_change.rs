//! Changes of the bytes that are stored at a path, for storage quotas.

use crate::domain::TreePath;

/// A change of the bytes at a path: of a file, or of all files of a directory that appears or vanishes as a whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct ByteChange<'a> {
    pub(super) path: &'a TreePath,
    /// Number of bytes by which it grows, negative where it shrinks.
    pub(super) delta: i64,
    pub(super) entry: ChangedEntry,
}

/// The entry whose bytes change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChangedEntry {
    /// A file.
    File,
    /// A directory that is created or put in place with everything below it.
    AddedDirectory,
    /// A directory that is removed or moved away with everything below it.
    RemovedDirectory,
}

impl<'a> ByteChange<'a> {
    /// Returns the change of a file from one size to another.
    pub(super) fn file(path: &'a TreePath, before: u64, after: u64) -> Self {
        Self { path, delta: signed(after).saturating_sub(signed(before)), entry: ChangedEntry::File }
    }

    /// Returns the arrival of a directory whose files have this many bytes.
    pub(super) fn added_directory(path: &'a TreePath, bytes: u64) -> Self {
        Self { path, delta: signed(bytes), entry: ChangedEntry::AddedDirectory }
    }

    /// Returns the removal of a directory whose files have this many bytes.
    pub(super) fn removed_directory(path: &'a TreePath, bytes: u64) -> Self {
        Self { path, delta: -signed(bytes), entry: ChangedEntry::RemovedDirectory }
    }

    /// Returns the change of a file that has several names, each of which counts.
    pub(super) fn of_names(self, names: u32) -> Self {
        Self { delta: self.delta.saturating_mul(i64::from(names.max(1))), ..self }
    }

    /// Returns the change that undoes this one.
    pub(super) fn reversed(self) -> Self {
        let entry = match self.entry {
            ChangedEntry::File => ChangedEntry::File,
            ChangedEntry::AddedDirectory => ChangedEntry::RemovedDirectory,
            ChangedEntry::RemovedDirectory => ChangedEntry::AddedDirectory,
        };
        Self { delta: -self.delta, entry, ..self }
    }
}

/// Returns a number of bytes with a sign.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
