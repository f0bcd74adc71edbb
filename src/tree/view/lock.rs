//! Locks as one session may take and see them.
//!
//! A lock is taken, refreshed and ended by whoever may write where it is rooted, and only by its user.

use std::time::Duration;

use super::View;
use crate::domain::{Permission, TreeOperation, TreePath};
use crate::tree::host::{Errno, How, Stat};
use crate::tree::{Claim, Error, Lock, LockRequest, LockToken, Result};

/// How many entries of a locked directory are looked at for another name of a file that is being changed.
const LINKS_SEARCHED: usize = 100_000;

impl View {
    /// Takes a lock; makes an empty file where nothing is (RFC 4918 section 7.3). Returns whether it did.
    ///
    /// # Errors
    /// [`Error::Locked`] by the lock that excludes it, on the entry, above or (for a deep one) below it,
    /// or by one of the folder in which a file would be made; [`Error::Store`] of a shortage when the user holds too
    /// many; [`Error::WrongType`] for the name of a file that would be made.
    pub fn lock(&self, path: &TreePath, request: &LockRequest, claim: &Claim<'_>) -> Result<(Lock, bool)> {
        let place = match self.open_for(TreeOperation::Write, path, How::Place) {
            Ok(found) => found.path,
            Err(Error::Absent) => self.writable(path)?.0.path,
            Err(error) => return Err(error),
        };
        let _held = self.shared().names.hold(&[&place]);
        (claim.judge)()?;
        match self.open_for(TreeOperation::Write, &place, How::Place) {
            Ok(_) => self.take(&place, request).map(|lock| (lock, false)),
            Err(Error::Absent) => self.lock_new(&place, request, claim.tokens),
            Err(error) => Err(error),
        }
    }

    fn take(&self, place: &TreePath, request: &LockRequest) -> Result<Lock> {
        let lock = self.shade(place, self.shared().locks.take(place, request, self.session().login()))?;
        // What an edit wrote before the lock has its tag now: its CLOSE, which may come under the lock, moves none.
        self.shared().tags.settle_all();
        Ok(lock)
    }

    /// Tells that no lock on another name of a file, or on a directory above another name, stands in the way of a
    /// change of the file, which was reached by `path`.
    ///
    /// # Errors
    /// [`Error::Locked`].
    pub(in crate::tree) fn unlocked_links(&self, file: &Stat, path: &TreePath, tokens: &[LockToken]) -> Result<()> {
        for (root, deep) in self.shared().locks.roots() {
            let there = match self.host().stat(&root) {
                Ok(stat) => stat,
                // What is locked is gone, or its directory can't be reached.
                Err(_) => continue,
            };
            if there.is_same(file) {
                self.unlocked_at(&root, path, tokens)?;
            } else if deep && there.is_folder() && there.device == file.device {
                self.unlocked_links_below(&root, file, path, tokens)?;
            }
        }
        Ok(())
    }

    fn unlocked_links_below(&self, root: &TreePath, file: &Stat, path: &TreePath, tokens: &[LockToken]) -> Result<()> {
        let mut seen = 0;
        self.host().folder(root)?.each_below(
            || self.session().access().map(drop).map_err(Error::from),
            |_, below, name, stat| {
                seen += 1;
                // A link further down can't be ruled out: the lock counts.
                if seen > LINKS_SEARCHED || stat.is_same(file) {
                    self.unlocked_at(&root.join(below).child(name), path, tokens)?;
                }
                Ok(())
            },
        )
    }

    /// As [`View::unlocked`], named by the path that was asked for where the session can't see the lock's.
    fn unlocked_at(&self, name: &TreePath, path: &TreePath, tokens: &[LockToken]) -> Result<()> {
        self.shade(path, self.shared().locks.check_write(name, self.session().login(), tokens))
    }

    fn lock_new(&self, place: &TreePath, request: &LockRequest, tokens: &[LockToken]) -> Result<(Lock, bool)> {
        let lock = self.take(place, request)?;
        match self.make_empty(place, tokens) {
            Ok(made) => Ok((lock, made)),
            Err(error) => {
                self.shared().locks.release(place, &lock.token, self.session().login())?;
                Err(error)
            }
        }
    }

    fn make_empty(&self, place: &TreePath, tokens: &[LockToken]) -> Result<bool> {
        let (spot, _) = self.writable(place)?;
        let _steady = self.shared().locks.steady();
        self.unlocked(&spot.parent(), tokens)?;
        self.fits_name(&spot.name)?;
        match spot.folder.make_file(&spot.name, self.host().masked(0o666)) {
            Ok(_) => self.sync_names(&spot.folder).map(|()| true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives a lock of the session's user, that covers the path, a new life.
    ///
    /// # Errors
    /// [`Error::Precondition`] when the token names no such lock, [`Error::Forbidden`] when the session
    /// may not write where it is rooted.
    pub fn refresh_lock(&self, path: &TreePath, token: &LockToken, timeout: Duration) -> Result<Lock> {
        let place = self.lock_place(path)?;
        self.rooted(&place, token)?;
        self.shared().locks.refresh(&place, token, self.session().login(), timeout)
    }

    /// Ends a lock of the session's user that covers the path.
    ///
    /// # Errors
    /// [`Error::Precondition`] when the token names no lock there, [`Error::Forbidden`] when it is
    /// another user's, or the session may not write where it is rooted.
    pub fn unlock(&self, path: &TreePath, token: &LockToken) -> Result<()> {
        let place = self.lock_place(path)?;
        self.rooted(&place, token)?;
        self.shared().locks.release(&place, token, self.session().login())
    }

    /// Returns the locks that cover a path, its own and those from above; of a folder that is merely
    /// visible none.
    pub fn locks(&self, path: &TreePath) -> Result<Vec<Lock>> {
        if self.shared().locks.is_empty() {
            return Ok(Vec::new());
        }
        match self.lock_place(path) {
            Ok(place) => Ok(self.shared().locks.covering(&place)),
            Err(Error::Forbidden) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Refuses a lock that is rooted where the session may not write.
    fn rooted(&self, place: &TreePath, token: &LockToken) -> Result<()> {
        let covering = self.shared().locks.covering(place);
        let lock = covering.iter().find(|lock| lock.token == *token).ok_or(Error::Precondition)?;
        match self.grounds(&lock.root)?.permission().allows(Permission::W) {
            true => Ok(()),
            false => Err(Error::Forbidden),
        }
    }

    /// Returns where locks on a path are kept. What was locked may be gone, also its folder.
    fn lock_place(&self, path: &TreePath) -> Result<TreePath> {
        match self.grounds(path)?.permission() {
            Permission::NONE => self.stat(path).and(Err(Error::Forbidden)),
            _ => match self.canonical(path) {
                Err(Error::Absent) => Ok(path.clone()),
                place => place,
            },
        }
    }
}

#[cfg(test)]
mod tests;
