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

use super::{Overwrite, View};
use crate::domain::{EntryName, Permission, TreePath};
use crate::tree::check::{Spot, stays_inside};
use crate::tree::host::{Folder, Stat};
use crate::tree::link_moves::{DirectoryWatch, LinkEffect};
use crate::tree::{Error, Kind, Result};

use super::rename::Moving;

/// Number of times that a move walks a directory in which links and directories are moved meanwhile.
pub(super) const LINK_WALKS: usize = 8;

/// What is known of the links in what a move moves.
pub(super) struct JudgedLinks<'a> {
    /// The directory that moves: its inode, and what has happened in it since; none where no link in it changes its way.
    walked: Option<(u64, DirectoryWatch<'a>)>,
    /// The same of a directory that is replaced.
    replaced: Option<(u64, DirectoryWatch<'a>)>,
    /// Whether the replaced directory may stand at the source for a moment.
    may_exchange: bool,
    /// Topmost place around the target at which the session may write.
    top: TreePath,
}

/// What a move may do under the lock that it was judged for.
pub(super) struct JudgedMove {
    /// Whether source and target may change places.
    pub(super) may_exchange: bool,
}

impl View {
    /// Judges the links in what is to move, before the first effect and without a lock.
    ///
    /// # Errors
    /// [`Error::Forbidden`] where one would lead out.
    pub(super) fn judge_links(&self, source: &Spot, target: &Spot, overwrite: Overwrite) -> Result<JudgedLinks<'_>> {
        let top = self.link_top(target)?;
        let mut judged = JudgedLinks { walked: None, replaced: None, may_exchange: true, top };
        if source.parent() == target.parent() {
            return Ok(judged);
        }
        match source.stat()? {
            Some(stat) if stat.is_folder() => {
                judged.walked = Some(self.watched(source, &stat));
                if !self.links_fit(source, &target.path, &judged.top)? {
                    return Err(self.leads_out(source));
                }
            }
            Some(stat) if stat.kind == Some(Kind::Link) => self.judge_link(source, &target.path, &judged.top)?,
            Some(_) | None => {}
        }
        // By an exchange, what is replaced stands at the source until it is taken away.
        match target.stat()? {
            Some(stat) if stat.is_folder() && overwrite == Overwrite::Yes => {
                judged.replaced = Some(self.watched(target, &stat));
                judged.may_exchange = match self.links_fit(target, &source.path, &self.link_top(source)?) {
                    Err(Error::PathTooLong) => false,
                    fit => fit?,
                };
            }
            Some(stat) if stat.kind == Some(Kind::Link) => judged.may_exchange = false,
            Some(_) | None => {}
        }
        Ok(judged)
    }

    fn watched(&self, spot: &Spot, stat: &Stat) -> (u64, DirectoryWatch<'_>) {
        (stat.inode, self.shared().link_moves.watch(&spot.path))
    }

    /// Confirms under the lock that what was judged still stands: `None` asks for another walk.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for a link that would lead out; [`Error::Absent`] and [`Error::NoParent`] where a directory
    /// above source or target was moved meanwhile.
    pub(super) fn confirm_links(
        &self,
        judged: &JudgedLinks<'_>,
        effect: &LinkEffect<'_>,
        source: &Spot,
        target: &Spot,
        moving: &Moving,
    ) -> Result<Option<JudgedMove>> {
        let is_at = |spot: &Spot| self.host().whereabouts(&spot.folder).as_ref() == Some(&spot.parent());
        if !is_at(source) {
            return Err(Error::Absent);
        }
        if !is_at(target) {
            return Err(Error::NoParent);
        }
        let is_apart = source.parent() != target.parent();
        let stat = source.stat()?.ok_or(Error::Absent)?;
        if !stat.is_same(&moving.moved) {
            return Ok(None);
        }
        let stands = |walked: &Option<(u64, DirectoryWatch<'_>)>, stat: &Stat| {
            walked.as_ref().is_some_and(|(inode, watch)| *inode == stat.inode && !watch.is_changed())
        };
        match stat.kind {
            Some(Kind::Folder) if effect.is_pinned(&source.path) => return Ok(None),
            Some(Kind::Folder) if is_apart && !stands(&judged.walked, &stat) => return Ok(None),
            Some(Kind::Link) if is_apart => self.judge_link(source, &target.path, &judged.top)?,
            Some(_) | None => {}
        }
        let may_exchange = !is_apart
            || match target.stat()? {
                Some(stat) if stat.is_folder() => judged.may_exchange && stands(&judged.replaced, &stat),
                Some(stat) => stat.kind != Some(Kind::Link),
                None => true,
            };
        Ok(Some(JudgedMove { may_exchange }))
    }

    /// Lets a link be made.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub(super) fn may_make_link(&self, spot: &Spot, target: &[u8]) -> Result<()> {
        let top = self.link_top(spot)?;
        if climbs_first(target) && stays_inside(&spot.path, target, &top) { Ok(()) } else { Err(Error::Forbidden) }
    }

    /// Makes a link, while its directory is where it was judged.
    ///
    /// # Errors
    /// [`Error::NoParent`] where it has been moved; what the host says.
    pub(super) fn make_link(&self, spot: &Spot, target: &[u8]) -> Result<()> {
        let effect = self.shared().link_moves.exclusive();
        if self.host().whereabouts(&spot.folder).as_ref() != Some(&spot.parent()) {
            return Err(Error::NoParent);
        }
        spot.folder.symlink(target, &spot.name).map_err(Error::putting)?;
        effect.arrived(&spot.path);
        Ok(())
    }

    /// Lets a link stand at another place.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub(super) fn judge_link(&self, source: &Spot, to: &TreePath, top: &TreePath) -> Result<()> {
        let text = source.folder.read_link(&source.name)?;
        if may_lead(&text, &source.path, to, top) { Ok(()) } else { Err(self.leads_out(source)) }
    }

    /// Returns the topmost place around a spot at which the session may write.
    pub(super) fn link_top(&self, spot: &Spot) -> Result<TreePath> {
        self.grounds(&spot.parent())?.top(Permission::W).cloned().ok_or(Error::Forbidden)
    }

    /// Tells whether each link below a directory may stand where it comes to by a move of that. The walk asks before
    /// each block of names whether the session lives, and holds one block and the directories to visit.
    ///
    /// # Errors
    /// [`Error::PathTooLong`] for anything in it that could not be named there.
    fn links_fit(&self, source: &Spot, to: &TreePath, top: &TreePath) -> Result<bool> {
        let directory = source.folder.folder(&TreePath::root().child(&source.name))?;
        let mut fit = true;
        let walked = self.each_below(&directory, |holder, below, name, stat| {
            if !to.can_hold(&below.child(name)) {
                return Err(Error::PathTooLong);
            }
            if stat.kind == Some(Kind::Link) {
                let text = link_text(holder, name)?;
                let place = |top: &TreePath| top.join(below).child(name);
                fit = text.is_none_or(|text| may_lead(&text, &place(&source.path), &place(to), top));
            }
            // An error ends the walk early.
            if fit { Ok(()) } else { Err(Error::Forbidden) }
        });
        if fit { walked.map(|()| true) } else { Ok(false) }
    }

    pub(super) fn leads_out(&self, source: &Spot) -> Error {
        self.session().record_denial("rename: a symbolic link would lead out", Some(&source.path));
        Error::Forbidden
    }
}

/// Reads a link's text; none where it has gone meanwhile.
fn link_text(holder: &Folder, name: &EntryName) -> Result<Option<Vec<u8>>> {
    match holder.read_link(name).map_err(Error::from) {
        Ok(text) => Ok(Some(text)),
        Err(Error::Absent) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Tells whether a text climbs before it names anything.
pub(super) fn climbs_first(target: &[u8]) -> bool {
    let parts = target.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    parts.skip_while(|part| *part == b"..").all(|part| part != b"..")
}

/// Tells whether a link that stands at `from` may be moved to `to`, with `top` as the topmost place at which the session
/// may write there.
pub(super) fn may_lead(text: &[u8], from: &TreePath, to: &TreePath, top: &TreePath) -> bool {
    text.starts_with(b"/")
        || text.is_empty()
        || stays_inside(to, text, top)
        || destination(from, text) == destination(to, text)
}

/// Returns where a relative text leads from where the link stands: how far above the root, and the names from there.
fn destination<'a>(link: &'a TreePath, text: &'a [u8]) -> (usize, Vec<&'a [u8]>) {
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
    use crate::tree::testing::at;

    #[test]
    fn link_text_climbs_before_it_names_anything() {
        for text in ["", "a", "a/b", "..", "../..", "../a", "./../a/./b", ".././/../a", "...", "a/..b"] {
            assert!(climbs_first(text.as_bytes()), "{text}");
        }
        for text in ["a/..", "../a/../b", "a/./..", "a//../b"] {
            assert!(!climbs_first(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn moved_link_stays_inside_or_leads_where_it_led() {
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
            assert_eq!(may_lead(text.as_bytes(), &at(from), &at(to), &at("/s")), outcome, "{text} {from} {to}");
        }
    }
}
