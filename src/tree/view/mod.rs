//! The tree as one session may see it: the operations, each behind its one check.
//!
//! | operation | needs |
//! |---|---|
//! | list, read, COPY source | `r` on the node |
//! | replace, write, set attributes, properties, lock | `w` on the node |
//! | create | `w` on the parent |
//! | remove, rename source | `w` on the parent |
//! | copy and rename target | `w` on the parent; rename also `r` on the source where the target is readable |
//! | hard link | `rw` on the source, `w` on the new parent, both under one grant |
//! | stat | visible |
//!
//! Which symbolic links are made, and where they may be moved, is told in `links`.

mod changes;
#[cfg(test)]
mod concurrency_tests;
mod copy;
mod cross_device_move;
mod links;
mod lock;
mod property;
mod read;
mod rename;
mod sync;
#[cfg(test)]
mod tests;
mod tree_sync;
mod upload_policy;
mod write;

pub use changes::{ChangedMember, SyncChanges, SyncItem};
pub use sync::SyncPoint;

use std::sync::Arc;

use super::authorize::EntrySlot;
use super::fs::{DirectoryFd, ServedFs, StagingDirectory, Stat};
use super::{CancellationFlag, CommitDurability, Entry, EntryKind, Error, LockToken, Result, SharedTree, Timestamp};
use crate::auth::Session;
use crate::domain::{PathAccess, Permission, TreePath};

/// What a request brings against locks and conditions.
#[derive(Clone, Copy)]
pub struct WriteConditions<'a> {
    /// The lock tokens it submitted.
    pub lock_tokens: &'a [LockToken],
    /// Judges the request's conditions; asked under the name's commit lock, just before the effect.
    /// It may use the view to stat and to look at locks, and nothing else.
    pub evaluate: &'a (dyn Fn() -> Result<()> + Sync),
}

impl WriteConditions<'static> {
    /// Returns the claim of a request without lock tokens and conditions.
    pub fn none() -> Self {
        Self { lock_tokens: &[], evaluate: &|| Ok(()) }
    }
}

/// Whether what stands at a target may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverwriteMode {
    /// Replace it; a folder and all in it.
    Replace,
    /// Refuse with [`super::Error::AlreadyExists`].
    Refuse,
    /// Replace as POSIX rename does: a file by a file, an empty folder by a folder.
    Posix,
    /// Replace a file or link, also by another name of the same file; refuse a folder.
    FileOnly,
}

/// How a file is opened to be written in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EditMode {
    /// Allow reading too (needs `r`).
    pub read: bool,
    /// Make it when it is not there.
    pub create: bool,
    /// Refuse when it is there.
    pub exclusive: bool,
    /// Empty it first.
    pub truncate: bool,
    /// Write always at the end.
    pub append: bool,
    /// Permission bits for a file that is made.
    pub mode: Option<u32>,
}

/// The tree as one session may see it; the only way to a byte.
#[derive(Clone)]
pub struct View {
    tree: Arc<SharedTree>,
    session: Session,
    cancellation: CancellationFlag,
}

impl View {
    /// Shows a tree to a session.
    pub(super) fn new(tree: Arc<SharedTree>, session: Session) -> Self {
        Self { tree, session, cancellation: CancellationFlag::default() }
    }

    /// Returns the flag that ends what this view and its clones still work on.
    pub fn cancellation(&self) -> &CancellationFlag {
        &self.cancellation
    }

    /// Returns the session it was made from.
    pub fn session(&self) -> &Session {
        &self.session
    }

    pub(super) fn shared(&self) -> &SharedTree {
        &self.tree
    }

    pub(super) fn fs(&self) -> &ServedFs {
        &self.tree.fs
    }

    /// Shows what stands at a path to one who has `permission` there.
    pub(super) fn entry(&self, path: &TreePath, stat: &Stat, permission: Permission) -> Entry {
        match path.name() {
            Some(name) => self.entry_named(name.as_bytes(), stat, permission),
            None => self.entry_named(b"", stat, permission),
        }
    }

    /// Shows what has a name. Nothing that comes from content is shown to one who may not read it.
    pub(super) fn entry_named(&self, name: &[u8], stat: &Stat, permission: Permission) -> Entry {
        let readable = permission.allows(Permission::R);
        let kind = stat.kind.unwrap_or(EntryKind::File);
        if kind == EntryKind::Directory && !readable {
            return Entry { permission, ..visible_directory_entry(name) };
        }
        Entry {
            name: name.to_vec(),
            kind,
            size: if kind == EntryKind::Directory { 0 } else { stat.size },
            modified: stat.modified,
            accessed: stat.accessed,
            created: stat.created,
            mode: stat.mode & 0o777,
            link_count: stat.link_count,
            etag: (readable && kind == EntryKind::File).then(|| self.tree.etags.etag_of(stat)),
            permission,
        }
    }

    /// Tells that no lock on a path, or above it where it is deep, stands in the way.
    ///
    /// # Errors
    /// [`Error::Locked`], with the lock's place as far as the session may see it.
    pub(super) fn check_locks(&self, path: &TreePath, tokens: &[LockToken]) -> Result<()> {
        let result = self.tree.locks.check_write(path, self.session.login(), tokens);
        self.redact_lock(path, result)
    }

    /// As [`View::check_locks`], for a path and all below it.
    pub(super) fn check_subtree_locks(&self, path: &TreePath, tokens: &[LockToken]) -> Result<()> {
        let result = self.tree.locks.check_subtree(path, self.session.login(), tokens);
        self.redact_lock(path, result)
    }

    /// Names the path asked for where a refusal would name one that the session can't see.
    pub(super) fn redact_lock<T>(&self, path: &TreePath, result: Result<T>) -> Result<T> {
        let Err(Error::Locked { root, token }) = result else { return result };
        let hidden = self.session.access()?.path_access(&root) == PathAccess::Absent;
        Err(Error::Locked { root: if hidden { path.clone() } else { root }, token })
    }

    /// Returns the staging from which a rename reaches a spot.
    pub(in crate::tree) fn staging(&self, slot: &EntrySlot) -> Result<Arc<StagingDirectory>> {
        Ok(self.fs().staging(&slot.directory, slot.directory_stat.mount_key())?)
    }

    /// Writes the names in a folder to disk where durability asks for it.
    pub(super) fn sync_directory(&self, directory: &DirectoryFd) -> Result<()> {
        if self.is_synced() { Ok(directory.sync()?) } else { Ok(()) }
    }

    /// Tells whether success means on disk.
    pub(super) fn is_synced(&self) -> bool {
        self.tree.durability == CommitDurability::Full
    }
}

/// Returns what a folder shows of itself that may only be walked through: constants.
fn visible_directory_entry(name: &[u8]) -> Entry {
    Entry {
        name: name.to_vec(),
        kind: EntryKind::Directory,
        size: 0,
        modified: Timestamp::default(),
        accessed: Timestamp::default(),
        created: None,
        mode: 0o755,
        link_count: 2,
        etag: None,
        permission: Permission::NONE,
    }
}
