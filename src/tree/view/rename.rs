//! Moving an entry in one step.

use super::links::{JudgedLinks, LINK_WALKS};
use super::{Claim, Overwrite, View};
use crate::domain::{Permission, TreeOperation, TreePath};
use crate::tree::check::Spot;
use crate::tree::host::{Errno, Stat};
use crate::tree::{Error, Kind, Outage, Result};

impl View {
    /// Moves an entry in one step. Returns whether something was replaced.
    ///
    /// No symbolic link in it may lead out afterwards that did not before (see [`super::links`]).
    ///
    /// Between file systems it is copied whole and then removed; whatever was named stays named.
    ///
    /// # Errors
    /// [`Error::Absent`], [`Error::NoParent`], [`Error::Exists`], [`Error::Overlap`], [`Error::Locked`],
    /// [`Error::IsFolder`], [`Error::NotFolder`], [`Error::NotEmpty`]; [`Error::TooLarge`], [`Error::WrongType`] and
    /// [`Error::PathTooLong`], of anything in it;
    /// [`Error::Forbidden`], also when what can't be read would become readable, or a link would lead out;
    /// [`Error::Precondition`], where something in a directory changed meanwhile, again and again.
    pub fn rename(&self, from: &TreePath, to: &TreePath, overwrite: Overwrite, claim: &Claim<'_>) -> Result<bool> {
        let (source, stat) = self.removable(TreeOperation::Move, from)?;
        let target = self.target_of(&source, to)?;
        if overwrite == Overwrite::Posix && source.path == target.path {
            return Ok(false);
        }
        if source.path.starts_with(&target.path) || target.path.starts_with(&source.path) {
            return Err(Error::Overlap);
        }
        self.fits_move(&source, &stat, &target.name)?;
        // A rename within one directory walks nothing: what it can't do without is that named nodes can be located.
        if stat.is_folder() && target.path.as_bytes().len() > source.path.as_bytes().len() {
            self.shared().index.can_follow(&source.path, &target.path)?;
        }
        if source.holder.mount() != target.holder.mount() {
            return self.move_across(&source, &stat, &target, overwrite, claim);
        }
        // Links and directories that come into what moves while it is judged have it judged again.
        for _ in 0..LINK_WALKS {
            let judged = self.judge_links(&source, &target, overwrite)?;
            if let Some(replaced) = self.rename_judged(&source, &target, overwrite, claim, &judged)? {
                return Ok(replaced);
            }
        }
        Err(Error::Precondition)
    }

    /// Moves an entry of which the links were judged; none where something in it has changed since.
    fn rename_judged(
        &self,
        source: &Spot,
        target: &Spot,
        overwrite: Overwrite,
        claim: &Claim<'_>,
        judged: &JudgedLinks<'_>,
    ) -> Result<Option<bool>> {
        let names = self.shared().names.hold(&[&source.path, &target.path]);
        let steady = self.shared().locks.steady();
        let moving = self.may_move(source, target, overwrite, claim)?;
        // Two names of one file: POSIX leaves both, and so both keep their nodes.
        if overwrite == Overwrite::Posix && moving.replaced.as_ref().is_some_and(|old| old.is_same(&moving.moved)) {
            return Ok(Some(true));
        }
        // Before the change begins: nothing is named while it is under way.
        self.shared().index.prepare_move(&source.path, &target.path, self.session().login())?;
        let change = match moving.swapped(overwrite) {
            Some(old) => self.shared().index.begin_swap(&source.path, &target.path, old.entity())?,
            None => self.shared().index.begin_move(&source.path, &target.path)?,
        };
        if !self.replace(source, target, overwrite, &moving, judged)? {
            return Ok(None);
        }
        self.sync_names(&target.folder)?;
        if source.parent() != target.parent() {
            self.sync_names(&source.folder)?;
        }
        change.finish()?;
        self.shared().locks.forget(&source.path);
        self.shared().locks.forget_below(&target.path);
        drop((steady, names));
        Ok(Some(moving.replaced.is_some()))
    }

    /// Returns the slot that an entry may be moved to.
    fn target_of(&self, source: &Spot, to: &TreePath) -> Result<Spot> {
        let target = self.spot(to)?;
        if target.permission.allows(Permission::R) && !source.permission.allows(Permission::R) {
            return Err(Error::Forbidden);
        }
        Ok(target)
    }

    /// Lets a file that will be put at `from`, of which the host says `moved`, be renamed from there.
    ///
    /// # Errors
    /// As [`View::rename`].
    pub(in crate::tree) fn may_rename_to(
        &self,
        (from, moved): (&TreePath, &Stat),
        to: &TreePath,
        overwrite: Overwrite,
        claim: &Claim<'_>,
    ) -> Result<()> {
        let source = self.spot(from)?;
        let target = self.target_of(&source, to)?;
        if source.path != target.path && target.path.starts_with(&source.path) {
            return Err(Error::NotFolder);
        }
        self.may_hold(moved.size)?;
        self.fits_name(&target.name)?;
        self.unlocked(&source.parent(), claim.tokens)?;
        self.unlocked_all(&source.path, claim.tokens)?;
        match self.may_replace(&target, overwrite, claim)? {
            Some(replaced) if replaced.is_folder() && overwrite == Overwrite::Posix => Err(Error::IsFolder),
            Some(_) | None => Ok(()),
        }
    }

    /// Lets a move pass: asked under the names' commit locks, just before.
    pub(super) fn may_move(
        &self,
        source: &Spot,
        target: &Spot,
        overwrite: Overwrite,
        claim: &Claim<'_>,
    ) -> Result<Moving> {
        self.unlocked(&source.parent(), claim.tokens)?;
        self.unlocked_all(&source.path, claim.tokens)?;
        let replaced = self.may_replace(target, overwrite, claim)?;
        let moved = source.stat()?.ok_or(Error::Absent)?;
        if !moved.is_folder() {
            self.fits_move(source, &moved, &target.name)?;
        }
        Ok(Moving { moved, replaced })
    }

    /// Lets what stands at a target (if anything) be replaced by something whole.
    pub(super) fn may_replace(&self, target: &Spot, overwrite: Overwrite, claim: &Claim<'_>) -> Result<Option<Stat>> {
        self.unlocked(&target.parent(), claim.tokens)?;
        self.unlocked_all(&target.path, claim.tokens)?;
        (claim.judge)()?;
        let replaced = target.stat()?;
        match replaced.as_ref().map(|stat| stat.kind) {
            Some(_) if overwrite == Overwrite::No => Err(Error::Exists),
            Some(None) => Err(Error::Forbidden),
            Some(Some(Kind::Folder)) if overwrite == Overwrite::File => Err(Error::IsFolder),
            Some(Some(Kind::Folder)) if self.host().holds_mounts(&target.path)? => Err(Error::Forbidden),
            Some(Some(Kind::Folder)) if self.host().verify_below(&target.path).is_err() => Err(Outage::Replaced.into()),
            Some(Some(Kind::Folder)) => self.shared().uploads.check(self.host(), &target.path).map(|()| replaced),
            Some(Some(Kind::File | Kind::Link)) | None => Ok(replaced),
        }
    }

    /// Puts what moves in its place; tells whether that was still as it was judged.
    fn replace(
        &self,
        source: &Spot,
        target: &Spot,
        overwrite: Overwrite,
        moving: &Moving,
        judged: &JudgedLinks<'_>,
    ) -> Result<bool> {
        if moving.moved.kind == Some(Kind::File) && moving.swapped(overwrite).is_none() {
            let _file = self.shared().link_moves.shared();
            // Under another of its paths something else may have come there.
            if !source.stat()?.ok_or(Error::Absent)?.is_same(&moving.moved) {
                return Ok(false);
            }
            return self.replace_in_one_step(source, target, overwrite, moving, true).map(|()| true);
        }
        let effect = self.shared().link_moves.exclusive();
        let Some(confirmed) = self.confirm_links(judged, &effect, source, target, moving)? else { return Ok(false) };
        self.replace_in_one_step(source, target, overwrite, moving, confirmed.may_exchange)?;
        effect.moved(&source.path, &target.path);
        Ok(true)
    }

    fn replace_in_one_step(
        &self,
        source: &Spot,
        target: &Spot,
        overwrite: Overwrite,
        moving: &Moving,
        may_exchange: bool,
    ) -> Result<()> {
        let (from, to) = ((&source.folder, &source.name), (&target.folder, &target.name));
        let moved = match (&moving.replaced, overwrite) {
            (None, _) | (Some(_), Overwrite::No) => from.0.rename_new(from.1, to.0, to.1),
            (Some(_), Overwrite::Posix) => from.0.rename(from.1, to.0, to.1),
            (Some(old), Overwrite::Yes | Overwrite::File) if moving.moved.is_same(old) => from.0.unlink(from.1),
            (Some(_), Overwrite::File) => from.0.rename(from.1, to.0, to.1),
            (Some(_), Overwrite::Yes) if moving.swapped(overwrite).is_some() => {
                return self.swap(source, target, may_exchange);
            }
            (Some(_), Overwrite::Yes) => from.0.rename(from.1, to.0, to.1),
        };
        moved.map_err(|error| match error {
            Errno::NOTDIR => Error::NotFolder,
            Errno::INVAL => Error::Overlap,
            other => Error::putting(other),
        })
    }

    /// Both change places in one step, so that the target is never missing; then the old one goes. The index
    /// knows of both steps, so that the second follows at the next start at the latest.
    /// Where links of the old one would lead out from the source, it never stands there: then it goes first.
    fn swap(&self, source: &Spot, target: &Spot, may_exchange: bool) -> Result<()> {
        let staging = self.staging(source)?;
        let exchange = || source.folder.exchange(&source.name, &target.folder, &target.name);
        let old = match if may_exchange { exchange() } else { Err(Errno::NOSYS) } {
            Ok(()) => staging.take(&source.folder, &source.name).inspect_err(|_| {
                let _ = source.folder.exchange(&source.name, &target.folder, &target.name);
            })?,
            // What stood there has gone behind the gateway's back.
            Err(Errno::NOENT) => {
                let moved = source.folder.rename_new(&source.name, &target.folder, &target.name);
                return moved.map_err(Error::putting);
            }
            Err(Errno::INVAL) if self.is_nested(source, target) => return Err(Error::Overlap),
            // The file system has no such rename: the next best is two.
            Err(Errno::INVAL | Errno::NOSYS) => {
                let put = || source.folder.rename_new(&source.name, &target.folder, &target.name);
                staging.replace(&target.folder, &target.name, &target.path, put)?
            }
            Err(error) => return Err(error.into()),
        };
        self.shared().removals.begin(old);
        Ok(())
    }

    /// Tells whether one lies within the other, as it may since a folder above either was moved.
    fn is_nested(&self, source: &Spot, target: &Spot) -> bool {
        let place = |spot: &Spot| self.host().whereabouts(&spot.folder).map(|folder| folder.child(&spot.name));
        match (place(source), place(target)) {
            (Some(source), Some(target)) => source.starts_with(&target) || target.starts_with(&source),
            // A folder of theirs is gone.
            (None, _) | (_, None) => true,
        }
    }
}

/// What a move found under the commit locks.
pub(super) struct Moving {
    /// What moves.
    pub(super) moved: Stat,
    /// What it replaces.
    pub(super) replaced: Option<Stat>,
}

impl Moving {
    /// Returns what is replaced by changing places, since no single step of the host does it: a folder, or
    /// what a folder replaces.
    fn swapped(&self, overwrite: Overwrite) -> Option<&Stat> {
        let swaps = |old: &&Stat| !self.moved.is_same(old) && (old.is_folder() || self.moved.is_folder());
        self.replaced.as_ref().filter(swaps).filter(|_| overwrite == Overwrite::Yes)
    }
}
