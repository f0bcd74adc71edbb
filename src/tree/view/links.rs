//! Symbolic links: which are made, and where they may be moved.
//!
//! A session makes a link only when its text is relative and every `..` in it comes first. Then the directories that it
//! climbs are real ancestors of the link, whatever stands at the names that follow, and a count of them tells whether
//! it stays inside the topmost place at which the session may write. `sub/../x` is refused: `sub` may be, or become, a
//! link, and then `..` is the parent of wherever that leads.
//!
//! A move judges each link that it moves, at any depth, by the place where it will stand. A link may be moved
//!
//! - when it then stays inside the topmost place at which the session may write, or
//! - when it leads to where it led before: absolute links do, and relative ones between places of equal depth that share
//!   the ancestors they climb to. An administrator's links, hidden ones too, so move as long as they lead nowhere new.
//!
//! All others refuse the move ([`Error::Forbidden`]), also in a directory that the session may not read: it learns that
//! a link is in the way, not where that leads. A rename within one directory changes no link's way out and walks nothing.
//! A COPY makes links anew: it takes along those that stay inside what is copied, and leaves out the rest.

use super::{OverwriteMode, View};
use crate::domain::{EntryName, Permission, TreePath};
use crate::tree::authorize::{EntrySlot, link_stays_within};
use crate::tree::fs::{DirectoryFd, Stat};
use crate::tree::link_moves::{DirectoryWatch, LinkMoveGuard};
use crate::tree::{EntryKind, Error, Result};

use super::rename::CheckedMove;

/// Number of times that a move walks a directory in which links and directories are moved meanwhile.
pub(super) const LINK_WALK_ATTEMPTS: usize = 8;

/// What is known of the links in what a move moves.
pub(super) struct CheckedLinks<'a> {
    /// The directory that moves: its inode, and what has happened in it since; none where no link in it changes its way.
    moved_directory: Option<(u64, DirectoryWatch<'a>)>,
    /// The same of a directory that is replaced.
    replaced_directory: Option<(u64, DirectoryWatch<'a>)>,
    /// Whether the replaced directory may stand at the source for a moment.
    may_exchange: bool,
    /// Topmost place around the target at which the session may write.
    link_boundary: TreePath,
}

/// What a move may do under the lock that it was judged for.
pub(super) struct ConfirmedMove {
    /// Whether source and target may change places.
    pub(super) may_exchange: bool,
}

impl View {
    /// Judges the links in what is to move, before the first effect and without a lock.
    ///
    /// # Errors
    /// [`Error::Forbidden`] where one would lead out.
    pub(super) fn check_links(
        &self,
        source: &EntrySlot,
        target: &EntrySlot,
        overwrite: OverwriteMode,
    ) -> Result<CheckedLinks<'_>> {
        let top = self.link_boundary(target)?;
        let mut judged =
            CheckedLinks { moved_directory: None, replaced_directory: None, may_exchange: true, link_boundary: top };
        if source.directory_path() == target.directory_path() {
            return Ok(judged);
        }
        match source.stat()? {
            Some(stat) if stat.is_directory() => {
                judged.moved_directory = Some(self.watch_directory(source, &stat));
                if !self.links_may_move(source, &target.path, &judged.link_boundary)? {
                    return Err(self.link_escape_error(source));
                }
            }
            Some(stat) if stat.kind == Some(EntryKind::Symlink) => {
                self.check_link_move(source, &target.path, &judged.link_boundary)?
            }
            Some(_) | None => {}
        }
        // By an exchange, what is replaced stands at the source until it is taken away.
        match target.stat()? {
            Some(stat) if stat.is_directory() && overwrite == OverwriteMode::Replace => {
                judged.replaced_directory = Some(self.watch_directory(target, &stat));
                judged.may_exchange = match self.links_may_move(target, &source.path, &self.link_boundary(source)?) {
                    Err(Error::PathTooLong) => false,
                    fit => fit?,
                };
            }
            Some(stat) if stat.kind == Some(EntryKind::Symlink) => judged.may_exchange = false,
            Some(_) | None => {}
        }
        Ok(judged)
    }

    fn watch_directory(&self, spot: &EntrySlot, stat: &Stat) -> (u64, DirectoryWatch<'_>) {
        (stat.inode, self.shared().link_moves.watch(&spot.path))
    }

    /// Confirms under the lock that what was judged still stands: `None` asks for another walk.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for a link that would lead out; [`Error::Absent`] and [`Error::NoParent`] where a directory
    /// above source or target was moved meanwhile.
    pub(super) fn recheck_links(
        &self,
        judged: &CheckedLinks<'_>,
        effect: &LinkMoveGuard<'_>,
        source: &EntrySlot,
        target: &EntrySlot,
        moving: &CheckedMove,
    ) -> Result<Option<ConfirmedMove>> {
        let is_at = |spot: &EntrySlot| self.fs().path_of_fd(&spot.directory).as_ref() == Some(&spot.directory_path());
        if !is_at(source) {
            return Err(Error::Absent);
        }
        if !is_at(target) {
            return Err(Error::NoParent);
        }
        let is_apart = source.directory_path() != target.directory_path();
        let stat = source.stat()?.ok_or(Error::Absent)?;
        if !stat.is_same_file(&moving.moved) {
            return Ok(None);
        }
        let stands = |walked: &Option<(u64, DirectoryWatch<'_>)>, stat: &Stat| {
            walked.as_ref().is_some_and(|(inode, watch)| *inode == stat.inode && !watch.is_changed())
        };
        match stat.kind {
            Some(EntryKind::Directory) if effect.is_pinned(&source.path) => return Ok(None),
            Some(EntryKind::Directory) if is_apart && !stands(&judged.moved_directory, &stat) => return Ok(None),
            Some(EntryKind::Symlink) if is_apart => {
                self.check_link_move(source, &target.path, &judged.link_boundary)?
            }
            Some(_) | None => {}
        }
        let may_exchange = !is_apart
            || match target.stat()? {
                Some(stat) if stat.is_directory() => judged.may_exchange && stands(&judged.replaced_directory, &stat),
                Some(stat) => stat.kind != Some(EntryKind::Symlink),
                None => true,
            };
        Ok(Some(ConfirmedMove { may_exchange }))
    }

    /// Lets a link be made.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub(super) fn check_new_link(&self, spot: &EntrySlot, target: &[u8]) -> Result<()> {
        let top = self.link_boundary(spot)?;
        if parent_segments_lead(target) && link_stays_within(&spot.path, target, &top) {
            Ok(())
        } else {
            Err(Error::Forbidden)
        }
    }

    /// Makes a link, while its directory is where it was judged.
    ///
    /// # Errors
    /// [`Error::NoParent`] where it has been moved; what the host says.
    pub(super) fn create_link(&self, spot: &EntrySlot, target: &[u8]) -> Result<()> {
        let effect = self.shared().link_moves.lock_exclusive();
        if self.fs().path_of_fd(&spot.directory).as_ref() != Some(&spot.directory_path()) {
            return Err(Error::NoParent);
        }
        spot.directory.symlink(target, &spot.name).map_err(Error::from_target_errno)?;
        effect.mark_arrival(&spot.path);
        Ok(())
    }

    /// Lets a link stand at another place.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub(super) fn check_link_move(&self, source: &EntrySlot, to: &TreePath, top: &TreePath) -> Result<()> {
        let text = source.directory.read_link(&source.name)?;
        if link_may_move(&text, &source.path, to, top) { Ok(()) } else { Err(self.link_escape_error(source)) }
    }

    /// Returns the topmost place around a spot at which the session may write.
    pub(super) fn link_boundary(&self, spot: &EntrySlot) -> Result<TreePath> {
        self.permissions_at(&spot.directory_path())?.topmost_path(Permission::W).cloned().ok_or(Error::Forbidden)
    }

    /// Tells whether each link below a directory may stand where it comes to by a move of that. The walk asks before
    /// each block of names whether the session lives, and holds one block and the directories to visit.
    ///
    /// # Errors
    /// [`Error::PathTooLong`] for anything in it that could not be named there.
    fn links_may_move(&self, source: &EntrySlot, to: &TreePath, top: &TreePath) -> Result<bool> {
        let directory = source.directory.open_directory(&TreePath::root().child(&source.name))?;
        let mut fit = true;
        let walked = self.walk_below(&directory, |holder, below, name, stat| {
            if !to.can_hold(&below.child(name)) {
                return Err(Error::PathTooLong);
            }
            if stat.kind == Some(EntryKind::Symlink) {
                let text = read_link_text(holder, name)?;
                let place = |top: &TreePath| top.join(below).child(name);
                fit = text.is_none_or(|text| link_may_move(&text, &place(&source.path), &place(to), top));
            }
            // An error ends the walk early.
            if fit { Ok(()) } else { Err(Error::Forbidden) }
        });
        if fit { walked.map(|()| true) } else { Ok(false) }
    }

    pub(super) fn link_escape_error(&self, source: &EntrySlot) -> Error {
        self.session().record_denial("rename: a symbolic link would lead out", Some(&source.path));
        Error::Forbidden
    }
}

/// Reads a link's text; none where it has gone meanwhile.
fn read_link_text(holder: &DirectoryFd, name: &EntryName) -> Result<Option<Vec<u8>>> {
    match holder.read_link(name).map_err(Error::from) {
        Ok(text) => Ok(Some(text)),
        Err(Error::Absent) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Tells whether a text climbs before it names anything.
pub(super) fn parent_segments_lead(target: &[u8]) -> bool {
    let parts = target.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    parts.skip_while(|part| *part == b"..").all(|part| part != b"..")
}

/// Tells whether a link that stands at `from` may be moved to `to`, with `top` as the topmost place at which the session
/// may write there.
pub(super) fn link_may_move(text: &[u8], from: &TreePath, to: &TreePath, top: &TreePath) -> bool {
    text.starts_with(b"/")
        || text.is_empty()
        || link_stays_within(to, text, top)
        || link_destination(from, text) == link_destination(to, text)
}

/// Returns where a relative text leads from where the link stands: how far above the root, and the names from there.
fn link_destination<'a>(link: &'a TreePath, text: &'a [u8]) -> (usize, Vec<&'a [u8]>) {
    let (mut above, mut names) = (0, Vec::new());
    let parent = link.as_bytes().rsplitn(2, |&byte| byte == b'/').nth(1).unwrap_or_default();
    let parts = |bytes: &'a [u8]| bytes.split(|&byte| byte == b'/');
    for part in parts(parent).chain(parts(text)) {
        match part {
            b"" | b"." => {}
            b".." if names.pop().is_none() => above += 1,
            b".." => {}
            name => names.push(name),
        }
    }
    (above, names)
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
