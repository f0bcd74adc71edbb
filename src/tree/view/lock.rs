//! WebDAV locks as one session may take and see them (RFC 4918 section 6).
//!
//! Taking, refreshing and releasing a lock needs `w` on its root, and only its user may refresh or release it.

use std::time::Duration;

use super::View;
use crate::domain::{Permission, TreeOperation, TreePath};
use crate::tree::fs::{Errno, OpenMode, Stat, none_if_vanished};
use crate::tree::{DavLock, Error, LockRequest, LockToken, Result, WriteConditions};

/// Maximum number of entries of a locked directory that are searched for another name of a changed file.
const HARD_LINK_SEARCH_ENTRIES: usize = 100_000;

/// A lock that was taken, and what it was taken on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcquiredLock {
    /// The lock.
    pub lock: DavLock,
    /// Whether its root is a directory.
    pub is_directory: bool,
    /// Whether an empty file was created, as the path was unmapped.
    pub has_created_file: bool,
}

impl View {
    /// Takes a lock, and creates an empty file where the path is unmapped (RFC 4918 section 7.3).
    ///
    /// # Errors
    /// [`Error::Locked`] by a conflicting lock on the entry, above it, or (at infinite depth) below it, or by a lock of
    /// the directory in which a file would be created; [`Error::Store`] of a shortage when the user holds too many;
    /// [`Error::TypeNotAllowed`] for the name of a file that would be created.
    pub fn lock(
        &self,
        path: &TreePath,
        request: &LockRequest,
        conditions: &WriteConditions<'_>,
    ) -> Result<AcquiredLock> {
        // Locks are kept by canonical path: two links to one file are one lock.
        let canonical_path = match self.open_authorized(TreeOperation::Write, path, OpenMode::Path) {
            Ok(found) => found.path,
            Err(Error::Absent) => self.write_slot(path)?.0.path,
            Err(error) => return Err(error),
        };
        let _path_guard = self.shared().path_locks.lock(&[&canonical_path]);
        (conditions.evaluate)()?;
        // Again under the commit lock: the path may have become mapped, or unmapped, while this waited.
        match self.open_authorized(TreeOperation::Write, &canonical_path, OpenMode::Path) {
            Ok(found) => {
                let lock = self.acquire_lock(&canonical_path, request)?;
                Ok(AcquiredLock { lock, is_directory: found.stat.is_directory(), has_created_file: false })
            }
            Err(Error::Absent) => self.lock_unmapped(&canonical_path, request, conditions.lock_tokens),
            Err(error) => Err(error),
        }
    }

    fn acquire_lock(&self, canonical_path: &TreePath, request: &LockRequest) -> Result<DavLock> {
        let lock = self.redact_lock(
            canonical_path,
            self.shared().locks.acquire(canonical_path, request, self.session().login()),
        )?;
        // Content written in place before the lock gets its entity tag now. Otherwise a CLOSE while the lock is held
        // would change the tag, and the lock holder's If-Match would fail.
        self.shared().etags.settle_all();
        Ok(lock)
    }

    /// Checks that no lock on another name of a file, or on a directory above another name, forbids a change of the
    /// file, which was reached by `path`.
    ///
    /// # Errors
    /// [`Error::Locked`].
    pub(in crate::tree) fn check_hard_link_locks(
        &self,
        file: &Stat,
        path: &TreePath,
        tokens: &[LockToken],
    ) -> Result<()> {
        for (root, depth_infinity) in self.shared().locks.roots() {
            let root_stat = match self.fs().stat(&root) {
                Ok(stat) => stat,
                // The locked entry was removed, or its directory can't be reached.
                Err(_) => continue,
            };
            // A file has other names only on its own file system: others need no walk.
            if root_stat.is_same_file(file) {
                self.check_lock_redacted(&root, path, tokens)?;
            } else if depth_infinity && root_stat.is_directory() && root_stat.device == file.device {
                self.check_hard_link_locks_below(&root, file, path, tokens)?;
            }
        }
        Ok(())
    }

    fn check_hard_link_locks_below(
        &self,
        root: &TreePath,
        file: &Stat,
        path: &TreePath,
        tokens: &[LockToken],
    ) -> Result<()> {
        // Removed since its metadata was read: nothing below it is locked then.
        let Some(directory) = none_if_vanished(self.fs().open_directory(root))? else { return Ok(()) };
        let mut visited = 0;
        directory.walk(
            // The walk may be long: it ends with the session.
            || self.session().access().map(drop).map_err(Error::from),
            |_, parent_path, name, stat| {
                visited += 1;
                // Beyond the bound another name can't be ruled out: the lock counts.
                if visited > HARD_LINK_SEARCH_ENTRIES || stat.is_same_file(file) {
                    self.check_lock_redacted(&root.join(parent_path).child(name), path, tokens)?;
                }
                Ok(())
            },
        )
    }

    /// Checks locks as [`View::check_locks`] does for `name`; an error names `path` where the session can't see the
    /// root of the lock.
    fn check_lock_redacted(&self, name: &TreePath, path: &TreePath, tokens: &[LockToken]) -> Result<()> {
        self.redact_lock(path, self.shared().locks.check_write(name, self.session().login(), tokens))
    }

    fn lock_unmapped(
        &self,
        canonical_path: &TreePath,
        request: &LockRequest,
        tokens: &[LockToken],
    ) -> Result<AcquiredLock> {
        // The lock before the file: nobody else may see the new file unlocked.
        let lock = self.acquire_lock(canonical_path, request)?;
        match self.create_empty_file(canonical_path, tokens) {
            Ok(has_created_file) => Ok(AcquiredLock { lock, is_directory: false, has_created_file }),
            Err(error) => {
                self.shared().locks.release(canonical_path, &lock.token, self.session().login())?;
                Err(error)
            }
        }
    }

    fn create_empty_file(&self, canonical_path: &TreePath, tokens: &[LockToken]) -> Result<bool> {
        let (slot, _) = self.write_slot(canonical_path)?;
        let _lock_freeze = self.shared().locks.freeze();
        // A new member changes the directory: its lock must be submitted (RFC 4918 section 7.4).
        self.check_locks(&slot.directory_path(), tokens)?;
        self.check_name_type(&slot.name)?;
        match slot.directory.create_file(&slot.name, self.fs().apply_umask(0o666)) {
            Ok(_) => self.sync_directory(&slot.directory).map(|()| true),
            // Created behind the gateway's back meanwhile: the lock covers it all the same.
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Refreshes a lock of the session's user that covers the path.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`] when the token names no such lock, [`Error::Forbidden`] when the session may not
    /// write at its root.
    pub fn refresh_lock(&self, path: &TreePath, token: &LockToken, timeout: Duration) -> Result<DavLock> {
        let canonical_path = self.lock_path(path)?;
        self.check_lock_root(&canonical_path, token)?;
        self.shared().locks.refresh(&canonical_path, token, self.session().login(), timeout)
    }

    /// Releases a lock of the session's user that covers the path.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`] when the token names no lock there, [`Error::Forbidden`] when it belongs to
    /// another user, or the session may not write at its root.
    pub fn unlock(&self, path: &TreePath, token: &LockToken) -> Result<()> {
        let canonical_path = self.lock_path(path)?;
        self.check_lock_root(&canonical_path, token)?;
        self.shared().locks.release(&canonical_path, token, self.session().login())
    }

    /// Returns the locks that cover a path: its own, and those of infinite depth above it; none for a directory that is
    /// merely visible.
    pub fn locks(&self, path: &TreePath) -> Result<Vec<DavLock>> {
        if self.shared().locks.is_empty() {
            return Ok(Vec::new());
        }
        match self.lock_path(path) {
            Ok(canonical_path) => Ok(self.shared().locks.covering(&canonical_path)),
            // A PROPFIND of a merely visible directory must not fail for lockdiscovery.
            Err(Error::Forbidden | Error::RefusedByHost(_)) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Checks that the session may write at the root of a lock.
    fn check_lock_root(&self, canonical_path: &TreePath, token: &LockToken) -> Result<()> {
        // At the root and not at `path`: a narrow token must not release a lock that a wider token of its user took
        // above its scope.
        let covering = self.shared().locks.covering(canonical_path);
        let lock = covering.iter().find(|lock| lock.token == *token).ok_or(Error::PreconditionFailed)?;
        match self.permissions_at(&lock.root)?.permission().allows(Permission::W) {
            true => Ok(()),
            false => Err(Error::Forbidden),
        }
    }

    /// Returns the canonical path under which locks on a path are kept. The locked entry may have been removed, and its
    /// directory too.
    fn lock_path(&self, path: &TreePath) -> Result<TreePath> {
        match self.permissions_at(path)?.permission() {
            // Visible without a permission is forbidden, hidden is absent: as for every operation.
            Permission::NONE => self.stat(path).and(Err(Error::Forbidden)),
            _ => match self.canonical(path) {
                // UNLOCK must work after the entry was removed behind the gateway's back.
                Err(Error::Absent) => Ok(path.clone()),
                canonical_path => canonical_path,
            },
        }
    }
}

#[cfg(test)]
mod tests;
