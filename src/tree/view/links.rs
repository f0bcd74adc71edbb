//! Symbolic links: which may be created, and where they may be moved.
//!
//! A session may create a link only when its text is relative and every `..` in it comes first. Then the directories
//! that it ascends are real ancestors of the link, whatever the later names lead to, and counting them tells whether
//! the link stays within the topmost directory at which the session may write. `sub/../x` is refused: `sub` may be, or
//! become, a link, and then `..` is the parent of the link's target.
//!
//! A move checks each link that it moves, at any depth, against its new path. A link may be moved
//!
//! - when it then stays within the topmost directory at which the session may write, or
//! - when it leads to the same destination as before: absolute links do, and relative ones between paths of equal depth
//!   that share the ancestors they ascend to. An administrator's links, hidden ones too, may be moved as long as that
//!   holds.
//!
//! Any other link makes the move fail ([`Error::Forbidden`]), also in a directory that the session may not read: it
//! learns that there is a link, not where it leads. A rename within one directory changes no link's destination and
//! walks nothing. A COPY creates links anew: those that stay within the copied directory are copied, the others are
//! left out.

use super::{OverwriteMode, View};
use crate::domain::{EntryName, Permission, TreePath};
use crate::tree::authorize::{EntrySlot, link_stays_within};
use crate::tree::fs::{DirectoryFd, Stat};
use crate::tree::link_moves::{DirectoryWatch, LinkMoveGuard};
use crate::tree::{EntryKind, Error, Result};

use super::checked_move::CheckedMove;

/// Maximum number of walks of a move whose directory changes during each of them.
pub(super) const LINK_WALK_ATTEMPTS: usize = 8;

/// Result of checking the links in the entries that a move moves.
pub(super) struct CheckedLinks<'a> {
    /// Inode and watch of the directory that moves; `None` where the destination of its links can't change.
    moved_directory: Option<(u64, DirectoryWatch<'a>)>,
    /// Inode and watch of a directory that is replaced.
    replaced_directory: Option<(u64, DirectoryWatch<'a>)>,
    /// Whether the replaced directory may be at the source's path for a moment.
    may_exchange: bool,
    /// Topmost ancestor of the target at which the session may write.
    link_boundary: TreePath,
}

/// Permission for a move, confirmed under the lock.
pub(super) struct ConfirmedMove {
    /// Whether source and target may be exchanged.
    pub(super) may_exchange: bool,
}

impl View {
    /// Checks the links in the entries that are to move, before the first effect and without a lock.
    ///
    /// # Errors
    /// [`Error::Forbidden`] where a link would lead out.
    pub(super) fn check_links(
        &self,
        source: &EntrySlot,
        target: &EntrySlot,
        overwrite: OverwriteMode,
    ) -> Result<CheckedLinks<'_>> {
        let link_boundary = self.link_boundary(target)?;
        let mut checked =
            CheckedLinks { moved_directory: None, replaced_directory: None, may_exchange: true, link_boundary };
        // Within one directory no link gets another parent, so none another destination.
        if source.directory_path() == target.directory_path() {
            return Ok(checked);
        }
        match source.stat()? {
            Some(stat) if stat.is_directory() => {
                // Watched before the walk begins, so that a link created during it is noticed.
                checked.moved_directory = Some(self.watch_directory(source, &stat));
                if !self.links_may_move(source, &target.path, &checked.link_boundary)? {
                    return Err(self.deny_link_escape(&source.path));
                }
            }
            Some(stat) if stat.kind == Some(EntryKind::Symlink) => {
                self.check_link_move(source, &target.path, &checked.link_boundary)?
            }
            Some(_) | None => {}
        }
        // An exchange places the replaced entry at the source's path until it is removed.
        match target.stat()? {
            Some(stat) if stat.is_directory() && overwrite == OverwriteMode::Replace => {
                checked.replaced_directory = Some(self.watch_directory(target, &stat));
                checked.may_exchange = match self.links_may_move(target, &source.path, &self.link_boundary(source)?) {
                    // Not even for a moment may an entry have a path that nobody could name.
                    Err(Error::PathTooLong) => false,
                    may_move => may_move?,
                };
            }
            Some(stat) if stat.kind == Some(EntryKind::Symlink) => checked.may_exchange = false,
            Some(_) | None => {}
        }
        Ok(checked)
    }

    fn watch_directory(&self, slot: &EntrySlot, stat: &Stat) -> (u64, DirectoryWatch<'_>) {
        (stat.inode, self.shared().link_moves.watch(&slot.path))
    }

    /// Confirms under the lock that the result of [`View::check_links`] still holds; `None` demands another check.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for a link that would lead out; [`Error::Absent`] and [`Error::NoParent`] where a directory
    /// above source or target was moved meanwhile.
    pub(super) fn recheck_links(
        &self,
        checked: &CheckedLinks<'_>,
        move_guard: &LinkMoveGuard<'_>,
        source: &EntrySlot,
        target: &EntrySlot,
        checked_move: &CheckedMove,
    ) -> Result<Option<ConfirmedMove>> {
        // By the kernel: another session may have moved a directory above since the paths were resolved.
        let is_at = |slot: &EntrySlot| self.fs().path_of_fd(&slot.directory).as_ref() == Some(&slot.directory_path());
        if !is_at(source) {
            return Err(Error::Absent);
        }
        if !is_at(target) {
            return Err(Error::NoParent);
        }
        let changes_directory = source.directory_path() != target.directory_path();
        let stat = source.stat()?.ok_or(Error::Absent)?;
        if !stat.is_same_file(&checked_move.moved) {
            return Ok(None);
        }
        let is_unchanged = |watched: &Option<(u64, DirectoryWatch<'_>)>, stat: &Stat| {
            watched.as_ref().is_some_and(|(inode, watch)| *inode == stat.inode && !watch.is_changed())
        };
        match stat.kind {
            // A cross-device move below may still restore the entry that it replaced here.
            Some(EntryKind::Directory) if move_guard.is_pinned(&source.path) => return Ok(None),
            Some(EntryKind::Directory) if changes_directory && !is_unchanged(&checked.moved_directory, &stat) => {
                return Ok(None);
            }
            Some(EntryKind::Symlink) if changes_directory => {
                self.check_link_move(source, &target.path, &checked.link_boundary)?
            }
            Some(_) | None => {}
        }
        let may_exchange = !changes_directory
            || match target.stat()? {
                Some(stat) if stat.is_directory() => {
                    checked.may_exchange && is_unchanged(&checked.replaced_directory, &stat)
                }
                Some(stat) => stat.kind != Some(EntryKind::Symlink),
                None => true,
            };
        Ok(Some(ConfirmedMove { may_exchange }))
    }

    /// Checks that a session may create a link with this target.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub(super) fn check_new_link(&self, slot: &EntrySlot, target: &[u8]) -> Result<()> {
        let link_boundary = self.link_boundary(slot)?;
        if parent_segments_lead(target) && link_stays_within(&slot.path, target, &link_boundary) {
            Ok(())
        } else {
            Err(Error::Forbidden)
        }
    }

    /// Creates a link, if its directory still has the path for which the link was checked.
    ///
    /// # Errors
    /// [`Error::NoParent`] where it was moved; errors of the host.
    pub(super) fn create_link(&self, slot: &EntrySlot, target: &[u8]) -> Result<()> {
        // Held over check and effect: no directory above the link moves between the two.
        let move_guard = self.shared().link_moves.lock_exclusive();
        if self.fs().path_of_fd(&slot.directory).as_ref() != Some(&slot.directory_path()) {
            return Err(Error::NoParent);
        }
        slot.directory.symlink(target, &slot.name).map_err(Error::from_target_errno)?;
        // A move that walks a directory above has to walk it again.
        move_guard.mark_arrival(&slot.path);
        Ok(())
    }

    /// Checks that a link may be moved to another path.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub(super) fn check_link_move(&self, source: &EntrySlot, to: &TreePath, link_boundary: &TreePath) -> Result<()> {
        let text = source.directory.read_link(&source.name)?;
        if link_may_move(&text, &source.path, to, link_boundary) {
            Ok(())
        } else {
            Err(self.deny_link_escape(&source.path))
        }
    }

    /// Returns the topmost ancestor of a slot at which the session may write.
    pub(super) fn link_boundary(&self, slot: &EntrySlot) -> Result<TreePath> {
        match &slot.topmost_writable {
            Some(topmost) => Ok(topmost.clone()),
            None => self
                .permissions_at(&slot.directory_path())?
                .topmost_path(Permission::W)
                .cloned()
                .ok_or(Error::Forbidden),
        }
    }

    /// Tells whether each link below a directory may be moved with the directory to `to`. The walk checks the session
    /// before each batch of names, and holds one batch and the directories to visit.
    ///
    /// # Errors
    /// [`Error::PathTooLong`] for an entry whose new path would be too long.
    fn links_may_move(&self, source: &EntrySlot, to: &TreePath, link_boundary: &TreePath) -> Result<bool> {
        let directory = source.directory.open_directory(&TreePath::root().child(&source.name))?;
        let mut may_move = true;
        let walked = self.walk_subtree(&directory, |parent, relative_path, name, stat| {
            // The walk is the only one over the subtree, so it checks the length as well.
            if !to.can_hold(&relative_path.child(name)) {
                return Err(Error::PathTooLong);
            }
            if stat.kind == Some(EntryKind::Symlink) {
                let text = read_link_text(parent, name)?;
                let path_below = |link_boundary: &TreePath| link_boundary.join(relative_path).child(name);
                may_move = text
                    .is_none_or(|text| link_may_move(&text, &path_below(&source.path), &path_below(to), link_boundary));
            }
            // The error only ends the walk; the caller looks at `may_move`.
            if may_move { Ok(()) } else { Err(Error::Forbidden) }
        });
        if may_move { walked.map(|()| true) } else { Ok(false) }
    }

    /// Refuses the move of a link, and audits that: a link at a shallower path is how a scope would be escaped.
    pub(super) fn deny_link_escape(&self, link: &TreePath) -> Error {
        self.session().record_denial("move: a symbolic link would lead out", Some(link));
        Error::Forbidden
    }
}

/// Returns the text of a link; `None` where it was removed meanwhile.
fn read_link_text(parent: &DirectoryFd, name: &EntryName) -> Result<Option<Vec<u8>>> {
    match parent.read_link(name).map_err(Error::from) {
        Ok(text) => Ok(Some(text)),
        Err(Error::Absent) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Tells whether every `..` of a link text comes before the first name.
pub(super) fn parent_segments_lead(target: &[u8]) -> bool {
    // Empty segments and `.` change nothing for the kernel.
    let parts = target.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    parts.skip_while(|part| *part == b"..").all(|part| part != b"..")
}

/// Tells whether a link at `from` may be moved to `to`, where `link_boundary` is the topmost directory around `to` at
/// which the session may write.
pub(super) fn link_may_move(text: &[u8], from: &TreePath, to: &TreePath, link_boundary: &TreePath) -> bool {
    // Absolute and empty texts mean the same everywhere; resolution refuses both to clients.
    text.starts_with(b"/")
        || text.is_empty()
        || link_stays_within(to, text, link_boundary)
        || link_destination(from, text) == link_destination(to, text)
}

/// Returns the destination of a relative link text: the number of levels above the root, and the names from there.
fn link_destination<'a>(link: &'a TreePath, text: &'a [u8]) -> (usize, Vec<&'a [u8]>) {
    let (mut levels_above_root, mut names) = (0, Vec::new());
    let parent = link.as_bytes().rsplitn(2, |&byte| byte == b'/').nth(1).unwrap_or_default();
    let parts = |bytes: &'a [u8]| bytes.split(|&byte| byte == b'/');
    for part in parts(parent).chain(parts(text)) {
        match part {
            b"" | b"." => {}
            // Levels above the root count: from another depth the link leads to another directory of the host.
            b".." if names.pop().is_none() => levels_above_root += 1,
            b".." => {}
            name => names.push(name),
        }
    }
    (levels_above_root, names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::testing::tree_path;

    #[test]
    fn parent_segments_must_come_first_in_link_text() {
        for text in ["", "a", "a/b", "..", "../..", "../a", "./../a/./b", ".././/../a", "...", "a/..b"] {
            assert!(parent_segments_lead(text.as_bytes()), "{text}");
        }
        for text in ["a/..", "../a/../b", "a/./..", "a//../b"] {
            assert!(!parent_segments_lead(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn moved_link_stays_within_boundary_or_keeps_its_destination() {
        let table = [
            ("x", "/s/a/l", "/s/l", true),
            ("../x", "/s/a/l", "/s/b/l", true),
            ("../x", "/s/a/l", "/s/l", false),
            ("../../x", "/s/a/l", "/s/b/l", true),
            ("../../x", "/s/a/l", "/s/l", false),
            ("../../../x", "/s/a/l", "/s/b/l", true),
            ("../../../x", "/s/a/l", "/s/l", false),
            ("../../../x", "/s/a/l", "/s/b/c/l", false),
            ("../../y", "/s/a/l", "/s/b/c/l", true),
            ("/etc/passwd", "/s/a/l", "/s/l", true),
            ("a/../../x", "/s/a/l", "/s/l", false),
            (".patgate/x", "/s/a/l", "/s/l", false),
        ];
        for (text, from, to, outcome) in table {
            assert_eq!(
                link_may_move(text.as_bytes(), &tree_path(from), &tree_path(to), &tree_path("/s")),
                outcome,
                "{text} {from} {to}"
            );
        }
    }
}
