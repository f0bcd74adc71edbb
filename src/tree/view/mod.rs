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

mod across;
mod changes;
mod copy;
#[cfg(test)]
mod crowd;
mod fit;
mod links;
mod lock;
mod property;
mod read;
mod rename;
mod sync;
#[cfg(test)]
mod tests;
mod tree_sync;
mod write;

pub use changes::{Change, Changed, Changes};
pub use sync::Point;

use std::sync::Arc;

use super::check::Spot;
use super::host::{Folder, Host, Staging, Stat};
use super::{Cancellation, Durability, Entry, Error, Kind, LockToken, Result, Shared, Timestamp};
use crate::auth::Session;
use crate::domain::{PathAccess, Permission, TreePath};

/// What a request brings against locks and conditions.
#[derive(Clone, Copy)]
pub struct Claim<'a> {
    /// The lock tokens it submitted.
    pub tokens: &'a [LockToken],
    /// Judges the request's conditions; asked under the name's commit lock, just before the effect.
    /// It may use the view to stat and to look at locks, and nothing else.
    pub judge: &'a (dyn Fn() -> Result<()> + Sync),
}

impl Claim<'static> {
    /// Returns the claim of a request without lock tokens and conditions.
    pub fn none() -> Self {
        Self { tokens: &[], judge: &|| Ok(()) }
    }
}

/// Whether what stands at a target may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overwrite {
    /// Replace it; a folder and all in it.
    Yes,
    /// Refuse with [`super::Error::Exists`].
    No,
    /// Replace as POSIX rename does: a file by a file, an empty folder by a folder.
    Posix,
    /// Replace a file or link, also by another name of the same file; refuse a folder.
    File,
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
    tree: Arc<Shared>,
    session: Session,
    cancellation: Cancellation,
}

impl View {
    /// Shows a tree to a session.
    pub(super) fn new(tree: Arc<Shared>, session: Session) -> Self {
        Self { tree, session, cancellation: Cancellation::default() }
    }

    /// Returns the flag that ends what this view and its clones still work on.
    pub fn cancellation(&self) -> &Cancellation {
        &self.cancellation
    }

    /// Returns the session it was made from.
    pub fn session(&self) -> &Session {
        &self.session
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.tree
    }

    pub(super) fn host(&self) -> &Host {
        &self.tree.host
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
        let kind = stat.kind.unwrap_or(Kind::File);
        if kind == Kind::Folder && !readable {
            return Entry { permission, ..visible(name) };
        }
        Entry {
            name: name.to_vec(),
            kind,
            size: if kind == Kind::Folder { 0 } else { stat.size },
            modified: stat.modified,
            accessed: stat.accessed,
            created: stat.created,
            mode: stat.mode & 0o777,
            links: stat.links,
            etag: (readable && kind == Kind::File).then(|| self.tree.tags.of(stat)),
            permission,
        }
    }

    /// Tells that no lock on a path, or above it where it is deep, stands in the way.
    ///
    /// # Errors
    /// [`Error::Locked`], with the lock's place as far as the session may see it.
    pub(super) fn unlocked(&self, path: &TreePath, tokens: &[LockToken]) -> Result<()> {
        let result = self.tree.locks.check_write(path, self.session.login(), tokens);
        self.shade(path, result)
    }

    /// As [`View::unlocked`], for a path and all below it.
    pub(super) fn unlocked_all(&self, path: &TreePath, tokens: &[LockToken]) -> Result<()> {
        let result = self.tree.locks.check_subtree(path, self.session.login(), tokens);
        self.shade(path, result)
    }

    /// Names the path asked for where a refusal would name one that the session can't see.
    pub(super) fn shade<T>(&self, path: &TreePath, result: Result<T>) -> Result<T> {
        let Err(Error::Locked { root, token }) = result else { return result };
        let hidden = self.session.access()?.path_access(&root) == PathAccess::Absent;
        Err(Error::Locked { root: if hidden { path.clone() } else { root }, token })
    }

    /// Returns the staging from which a rename reaches a spot.
    pub(in crate::tree) fn staging(&self, spot: &Spot) -> Result<Arc<Staging>> {
        Ok(self.host().staging(&spot.folder, spot.holder.mount())?)
    }

    /// Writes the names in a folder to disk where durability asks for it.
    pub(super) fn sync_names(&self, folder: &Folder) -> Result<()> {
        if self.is_full() { Ok(folder.sync()?) } else { Ok(()) }
    }

    /// Tells whether success means on disk.
    pub(super) fn is_full(&self) -> bool {
        self.tree.durability == Durability::Full
    }
}

/// Returns what a folder shows of itself that may only be walked through: constants.
fn visible(name: &[u8]) -> Entry {
    Entry {
        name: name.to_vec(),
        kind: Kind::Folder,
        size: 0,
        modified: Timestamp::default(),
        accessed: Timestamp::default(),
        created: None,
        mode: 0o755,
        links: 2,
        etag: None,
        permission: Permission::NONE,
    }
}
