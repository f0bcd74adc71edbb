//! The tree as one session may see it: its operations, each behind one authorization.
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
//! `links` documents which symbolic links may be created, and where they may be moved.

mod checked_move;
#[cfg(test)]
mod concurrency_tests;
mod copy;
mod cross_device_move;
mod initial_sync;
mod links;
mod lock;
mod member_walk;
mod moved_source;
mod property;
mod read;
mod rename;
mod resolved_entry;
mod storage_changes;
mod sync;
mod sync_changes;
#[cfg(test)]
mod tests;
mod tree_sync;
mod upload_limits;
mod write;

pub use lock::AcquiredLock;
pub use member_walk::ChangedMember;
pub use resolved_entry::ResolvedEntry;
pub(in crate::tree) use storage_changes::{ChangedPlace, QuotaCheck, file_bytes};
pub use sync::SyncPoint;
pub use sync_changes::{SyncChanges, SyncItem};

use std::sync::Arc;

use parking_lot::RwLockReadGuard;

use super::fs::{DirectoryFd, ServedFs, Stat};
use super::path_locks::PathGuards;
use super::{CancellationFlag, CommitDurability, Entry, EntryKind, Error, LockToken, Result, SharedTree, Timestamp};
use crate::auth::Session;
use crate::domain::{EntryName, PathAccess, Permission, TreePath};

/// Lock tokens and conditions of a request.
#[derive(Clone, Copy)]
pub struct WriteConditions<'a> {
    /// Lock tokens that the client submitted.
    pub lock_tokens: &'a [LockToken],
    /// Evaluates the request's conditions; called under the commit lock of the name, just before the effect. It may use
    /// the view to stat and to look at locks, and for nothing else.
    pub evaluate: &'a (dyn Fn() -> Result<()> + Sync),
}

impl WriteConditions<'static> {
    /// Returns the conditions of a request without lock tokens and preconditions.
    pub fn none() -> Self {
        Self { lock_tokens: &[], evaluate: &|| Ok(()) }
    }
}

/// Rule for an entry that exists at the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverwriteMode {
    /// Replace it; a directory with everything below it.
    Replace,
    /// Refuse with [`super::Error::AlreadyExists`].
    Refuse,
    /// Replace as POSIX rename does: a file by a file, an empty directory by a directory.
    Posix,
    /// Replace a file or link, also by another name of the same file; refuse a directory.
    FileOnly,
}

/// Mode in which a file is opened to be written in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EditMode {
    /// Allow reading as well (needs `r`).
    pub read: bool,
    /// Create it when it does not exist.
    pub create: bool,
    /// Fail when it exists.
    pub exclusive: bool,
    /// Truncate it to zero bytes first.
    pub truncate: bool,
    /// Append: every write goes to the end.
    pub append: bool,
    /// Permission bits of a file that is created, less the umask; 0666 where there are none.
    pub mode: Option<u32>,
}

/// The tree as one session may see it; the only way to file content.
#[derive(Clone)]
pub struct View {
    tree: Arc<SharedTree>,
    session: Session,
    cancellation: CancellationFlag,
    /// Whether operations that may have to wait for the store, or for long work, are refused ([`View::without_waiting`]).
    refuses_to_wait: bool,
}

impl View {
    /// Creates the view of a session.
    pub(super) fn new(tree: Arc<SharedTree>, session: Session) -> Self {
        Self { tree, session, cancellation: CancellationFlag::default(), refuses_to_wait: false }
    }

    /// Returns a view for an async task. Its [`View::create_directory`], [`View::remove_all`] and [`View::rename`] are
    /// refused, before any effect, where they would write to the store, wait for a change that does, or go through a
    /// directory: with [`Error::Filesystem`] of [`std::io::ErrorKind::WouldBlock`]. They are to be called again then, on a thread that may block and with this view.
    pub fn without_waiting(&self) -> Self {
        Self { refuses_to_wait: true, ..self.clone() }
    }

    /// Returns the outage that is behind a refusal of the host at a path: from a file system that was just unmounted, the
    /// kernel refuses everything to a confined server, before the next check of the mounts. Any other error is returned as
    /// it is.
    pub fn explain_refusal(&self, error: Error, path: Option<&TreePath>) -> Error {
        if !matches!(error, Error::RefusedByHost(_)) {
            return error;
        }
        let outages = self.shared().fs.check_mounts();
        let covers = |outage: &TreePath| outage.is_root() || path.is_some_and(|path| path.starts_with(outage));
        match outages.into_iter().find(|(lost, _)| covers(lost)) {
            Some((_, outage)) => Error::Unavailable(outage),
            None => error,
        }
    }

    /// Takes the commit locks of paths and freezes the WebDAV locks, in the order in which everybody does.
    fn lock_names(&self, names: &[&TreePath]) -> Result<(PathGuards<'_>, RwLockReadGuard<'_, ()>)> {
        let (path_locks, locks) = (&self.shared().path_locks, &self.shared().locks);
        if let Some(path_guards) = path_locks.try_lock_all(names)
            && let Some(lock_freeze) = locks.try_freeze()
        {
            return Ok((path_guards, lock_freeze));
        }
        self.check_may_wait()?;
        let path_guards = path_locks.lock(names);
        Ok((path_guards, locks.freeze()))
    }

    /// Refuses what may have to wait, to those who can't.
    fn check_may_wait(&self) -> Result<()> {
        if self.refuses_to_wait { Err(Error::Filesystem(std::io::ErrorKind::WouldBlock.into())) } else { Ok(()) }
    }

    /// Returns the flag that cancels the work of this view and its clones.
    pub fn cancellation(&self) -> &CancellationFlag {
        &self.cancellation
    }

    /// Returns the session that it belongs to.
    pub fn session(&self) -> &Session {
        &self.session
    }

    pub(super) fn shared(&self) -> &SharedTree {
        &self.tree
    }

    pub(super) fn fs(&self) -> &ServedFs {
        &self.tree.fs
    }

    /// Returns the metadata of the entry at a path as far as a session with `permission` there may see it.
    pub(super) fn entry(&self, path: &TreePath, stat: &Stat, permission: Permission) -> Entry {
        match path.name() {
            Some(name) => self.entry_named(name, stat, permission),
            None => self.entry_named([], stat, permission),
        }
    }

    /// Returns the metadata of an entry by its name. Metadata that is derived from content is left out where
    /// `permission` does not allow reading.
    pub(super) fn entry_named(&self, name: impl Into<Vec<u8>>, stat: &Stat, permission: Permission) -> Entry {
        let readable = permission.allows(Permission::R);
        let kind = stat.kind.unwrap_or(EntryKind::File);
        // Times and link count of a directory change with its content, which they would reveal without `r`.
        if kind == EntryKind::Directory && !readable {
            return Entry { permission, ..visible_directory_entry(&name.into()) };
        }
        Entry {
            name: name.into(),
            kind,
            // The size of a directory differs between file systems and means nothing to a client.
            size: if kind == EntryKind::Directory { 0 } else { stat.size },
            modified: stat.modified,
            accessed: stat.accessed,
            created: stat.created,
            // Set-ID bits are not shown, and no client can set them on a file.
            mode: stat.mode & 0o777,
            link_count: stat.link_count,
            // A tag would tell a drop box when unreadable content changes.
            etag: (readable && kind == EntryKind::File).then(|| self.tree.etags.etag_of(stat)),
            permission,
        }
    }

    /// Checks that no lock on a path, or of infinite depth above it, forbids a change.
    ///
    /// # Errors
    /// [`Error::Locked`], with the root of the lock as far as the session may see it.
    pub(super) fn check_locks(&self, path: &TreePath, tokens: &[LockToken]) -> Result<()> {
        let result = self.tree.locks.check_write(path, self.session.login(), tokens);
        self.redact_lock(path, result)
    }

    /// Checks locks as [`View::check_locks`] does, for a path and everything below it.
    pub(super) fn check_subtree_locks(&self, path: &TreePath, tokens: &[LockToken]) -> Result<()> {
        let result = self.tree.locks.check_subtree(path, self.session.login(), tokens);
        self.redact_lock(path, result)
    }

    /// Replaces the root of the lock in an error by the requested path where the session can't see the root.
    pub(super) fn redact_lock<T>(&self, path: &TreePath, result: Result<T>) -> Result<T> {
        let Err(Error::Locked { root, token }) = result else { return result };
        // The root is part of the answer (RFC 4918 section 16, lock-token-submitted): a hidden path must not show
        // there.
        let hidden = self.session.access()?.path_access(&root) == PathAccess::Absent;
        Err(Error::Locked { root: if hidden { path.clone() } else { root }, token })
    }

    /// Calls `visit` for each entry below a directory, as long as the session is valid and the request is not
    /// cancelled: with the directory that holds it, the relative path of that, the name and the metadata.
    pub(super) fn walk_subtree(
        &self,
        top: &DirectoryFd,
        visit: impl FnMut(&DirectoryFd, &TreePath, &EntryName, &Stat) -> Result<()>,
    ) -> Result<()> {
        // Session and request are checked for each batch: nobody waits for a walk whose caller is gone.
        top.walk(|| self.cancellation().check().and_then(|()| Ok(self.session().access().map(drop)?)), visit)
    }

    /// Syncs the names in a directory to disk where durability demands it.
    pub(super) fn sync_directory(&self, directory: &DirectoryFd) -> Result<()> {
        if self.is_synced() { Ok(directory.sync()?) } else { Ok(()) }
    }

    /// Tells whether success means that content and names are on disk.
    pub(super) fn is_synced(&self) -> bool {
        self.tree.durability == CommitDurability::Full
    }
}

/// Returns the constant metadata of a directory that is merely visible.
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
