//! Moving an entry in one step.

use super::links::{CheckedLinks, LINK_WALK_ATTEMPTS};
use super::{OverwriteMode, View, WriteConditions};
use crate::domain::{Permission, TreeOperation, TreePath};
use crate::tree::authorize::EntrySlot;
use crate::tree::fs::{Errno, Stat};
use crate::tree::{EntryKind, Error, Result, TreeOutage};

impl View {
    /// Moves an entry in one step. Returns whether something was replaced.
    ///
    /// No symbolic link in it may lead out afterwards that did not before (see [`super::links`]).
    ///
    /// Between file systems it is copied whole and then removed; whatever was named stays named.
    ///
    /// # Errors
    /// [`Error::Absent`], [`Error::NoParent`], [`Error::AlreadyExists`], [`Error::Overlap`], [`Error::Locked`],
    /// [`Error::IsADirectory`], [`Error::NotADirectory`], [`Error::DirectoryNotEmpty`]; [`Error::TooLarge`], [`Error::TypeNotAllowed`] and
    /// [`Error::PathTooLong`], of anything in it;
    /// [`Error::Forbidden`], also when what can't be read would become readable, or a link would lead out;
    /// [`Error::PreconditionFailed`], where something in a directory changed meanwhile, again and again.
    pub fn rename(
        &self,
        from: &TreePath,
        to: &TreePath,
        overwrite: OverwriteMode,
        conditions: &WriteConditions<'_>,
    ) -> Result<bool> {
        let (source, stat) = self.removal_slot(TreeOperation::Move, from)?;
        let target = self.move_target(&source, to)?;
        if overwrite == OverwriteMode::Posix && source.path == target.path {
            return Ok(false);
        }
        if source.path.starts_with(&target.path) || target.path.starts_with(&source.path) {
            return Err(Error::Overlap);
        }
        self.check_move_limits(&source, &stat, &target.name)?;
        // A rename within one directory walks nothing: what it can't do without is that named nodes can be located.
        if stat.is_directory() && target.path.as_bytes().len() > source.path.as_bytes().len() {
            self.shared().index.can_follow(&source.path, &target.path)?;
        }
        if source.directory_stat.mount_key() != target.directory_stat.mount_key() {
            return self.move_cross_device(&source, &stat, &target, overwrite, conditions);
        }
        // Links and directories that come into what moves while it is judged have it judged again.
        for _ in 0..LINK_WALK_ATTEMPTS {
            let checked_links = self.check_links(&source, &target, overwrite)?;
            if let Some(replaced) = self.rename_checked(&source, &target, overwrite, conditions, &checked_links)? {
                return Ok(replaced);
            }
        }
        Err(Error::PreconditionFailed)
    }

    /// Moves an entry of which the links were judged; none where something in it has changed since.
    fn rename_checked(
        &self,
        source: &EntrySlot,
        target: &EntrySlot,
        overwrite: OverwriteMode,
        conditions: &WriteConditions<'_>,
        checked_links: &CheckedLinks<'_>,
    ) -> Result<Option<bool>> {
        let path_guards = self.shared().path_locks.lock(&[&source.path, &target.path]);
        let lock_freeze = self.shared().locks.freeze();
        let checked_move = self.check_move(source, target, overwrite, conditions)?;
        // Two names of one file: POSIX leaves both, and so both keep their nodes.
        if overwrite == OverwriteMode::Posix
            && checked_move.replaced.as_ref().is_some_and(|old| old.is_same_file(&checked_move.moved))
        {
            return Ok(Some(true));
        }
        // Before the change begins: nothing is named while it is under way.
        self.shared().index.prepare_move(&source.path, &target.path, self.session().login())?;
        let change = match checked_move.exchanged(overwrite) {
            Some(old) => self.shared().index.begin_swap(&source.path, &target.path, old.entry_identity())?,
            None => self.shared().index.begin_move(&source.path, &target.path)?,
        };
        if !self.rename_if_unchanged(source, target, overwrite, &checked_move, checked_links)? {
            return Ok(None);
        }
        self.sync_directory(&target.directory)?;
        if source.directory_path() != target.directory_path() {
            self.sync_directory(&source.directory)?;
        }
        change.finish()?;
        self.shared().locks.remove_subtree(&source.path);
        self.shared().locks.remove_below(&target.path);
        drop((lock_freeze, path_guards));
        Ok(Some(checked_move.replaced.is_some()))
    }

    /// Returns the slot that an entry may be moved to.
    fn move_target(&self, source: &EntrySlot, to: &TreePath) -> Result<EntrySlot> {
        let target = self.create_slot(to)?;
        if target.permission.allows(Permission::R) && !source.permission.allows(Permission::R) {
            return Err(Error::Forbidden);
        }
        Ok(target)
    }

    /// Lets a file that will be put at `from`, of which the host says `moved`, be renamed from there.
    ///
    /// # Errors
    /// As [`View::rename`].
    pub(in crate::tree) fn check_rename_to(
        &self,
        (from, moved): (&TreePath, &Stat),
        to: &TreePath,
        overwrite: OverwriteMode,
        conditions: &WriteConditions<'_>,
    ) -> Result<()> {
        let source = self.create_slot(from)?;
        let target = self.move_target(&source, to)?;
        if source.path != target.path && target.path.starts_with(&source.path) {
            return Err(Error::NotADirectory);
        }
        self.check_size(moved.size)?;
        self.check_name_type(&target.name)?;
        self.check_locks(&source.directory_path(), conditions.lock_tokens)?;
        self.check_subtree_locks(&source.path, conditions.lock_tokens)?;
        match self.check_replace(&target, overwrite, conditions)? {
            Some(replaced) if replaced.is_directory() && overwrite == OverwriteMode::Posix => Err(Error::IsADirectory),
            Some(_) | None => Ok(()),
        }
    }

    /// Lets a move pass: asked under the names' commit locks, just before.
    pub(super) fn check_move(
        &self,
        source: &EntrySlot,
        target: &EntrySlot,
        overwrite: OverwriteMode,
        conditions: &WriteConditions<'_>,
    ) -> Result<CheckedMove> {
        self.check_locks(&source.directory_path(), conditions.lock_tokens)?;
        self.check_subtree_locks(&source.path, conditions.lock_tokens)?;
        let replaced = self.check_replace(target, overwrite, conditions)?;
        let moved = source.stat()?.ok_or(Error::Absent)?;
        if !moved.is_directory() {
            self.check_move_limits(source, &moved, &target.name)?;
        }
        Ok(CheckedMove { moved, replaced })
    }

    /// Lets what stands at a target (if anything) be replaced by something whole.
    pub(super) fn check_replace(
        &self,
        target: &EntrySlot,
        overwrite: OverwriteMode,
        conditions: &WriteConditions<'_>,
    ) -> Result<Option<Stat>> {
        self.check_locks(&target.directory_path(), conditions.lock_tokens)?;
        self.check_subtree_locks(&target.path, conditions.lock_tokens)?;
        (conditions.evaluate)()?;
        let replaced = target.stat()?;
        match replaced.as_ref().map(|stat| stat.kind) {
            Some(_) if overwrite == OverwriteMode::Refuse => Err(Error::AlreadyExists),
            Some(None) => Err(Error::Forbidden),
            Some(Some(EntryKind::Directory)) if overwrite == OverwriteMode::FileOnly => Err(Error::IsADirectory),
            Some(Some(EntryKind::Directory)) if self.fs().contains_mounts(&target.path)? => Err(Error::Forbidden),
            Some(Some(EntryKind::Directory)) if self.fs().verify_mounts_below(&target.path).is_err() => {
                Err(TreeOutage::Replaced.into())
            }
            Some(Some(EntryKind::Directory)) => {
                self.shared().upload_registry.check_no_uploads(self.fs(), &target.path).map(|()| replaced)
            }
            Some(Some(EntryKind::File | EntryKind::Symlink)) | None => Ok(replaced),
        }
    }

    /// Puts what moves in its place; tells whether that was still as it was judged.
    fn rename_if_unchanged(
        &self,
        source: &EntrySlot,
        target: &EntrySlot,
        overwrite: OverwriteMode,
        checked_move: &CheckedMove,
        checked_links: &CheckedLinks<'_>,
    ) -> Result<bool> {
        if checked_move.moved.kind == Some(EntryKind::File) && checked_move.exchanged(overwrite).is_none() {
            let _file = self.shared().link_moves.lock_shared();
            // Under another of its paths something else may have come there.
            if !source.stat()?.ok_or(Error::Absent)?.is_same_file(&checked_move.moved) {
                return Ok(false);
            }
            return self.rename_in_one_step(source, target, overwrite, checked_move, true).map(|()| true);
        }
        let move_guard = self.shared().link_moves.lock_exclusive();
        let Some(confirmed) = self.recheck_links(checked_links, &move_guard, source, target, checked_move)? else {
            return Ok(false);
        };
        self.rename_in_one_step(source, target, overwrite, checked_move, confirmed.may_exchange)?;
        move_guard.mark_move(&source.path, &target.path);
        Ok(true)
    }

    fn rename_in_one_step(
        &self,
        source: &EntrySlot,
        target: &EntrySlot,
        overwrite: OverwriteMode,
        checked_move: &CheckedMove,
        may_exchange: bool,
    ) -> Result<()> {
        let (from, to) = ((&source.directory, &source.name), (&target.directory, &target.name));
        let moved = match (&checked_move.replaced, overwrite) {
            (None, _) | (Some(_), OverwriteMode::Refuse) => from.0.rename_noreplace(from.1, to.0, to.1),
            (Some(_), OverwriteMode::Posix) => from.0.rename(from.1, to.0, to.1),
            (Some(old), OverwriteMode::Replace | OverwriteMode::FileOnly) if checked_move.moved.is_same_file(old) => {
                from.0.unlink(from.1)
            }
            (Some(_), OverwriteMode::FileOnly) => from.0.rename(from.1, to.0, to.1),
            (Some(_), OverwriteMode::Replace) if checked_move.exchanged(overwrite).is_some() => {
                return self.exchange_and_remove(source, target, may_exchange);
            }
            (Some(_), OverwriteMode::Replace) => from.0.rename(from.1, to.0, to.1),
        };
        moved.map_err(|error| match error {
            Errno::NOTDIR => Error::NotADirectory,
            Errno::INVAL => Error::Overlap,
            other => Error::from_target_errno(other),
        })
    }

    /// Both change places in one step, so that the target is never missing; then the old one goes. The index
    /// knows of both steps, so that the second follows at the next start at the latest.
    /// Where links of the old one would lead out from the source, it never stands there: then it goes first.
    fn exchange_and_remove(&self, source: &EntrySlot, target: &EntrySlot, may_exchange: bool) -> Result<()> {
        let staging = self.staging(source)?;
        let exchange = || source.directory.exchange(&source.name, &target.directory, &target.name);
        let old = match if may_exchange { exchange() } else { Err(Errno::NOSYS) } {
            Ok(()) => staging.move_in(&source.directory, &source.name).inspect_err(|_| {
                let _ = source.directory.exchange(&source.name, &target.directory, &target.name);
            })?,
            // What stood there has gone behind the gateway's back.
            Err(Errno::NOENT) => {
                let moved = source.directory.rename_noreplace(&source.name, &target.directory, &target.name);
                return moved.map_err(Error::from_target_errno);
            }
            Err(Errno::INVAL) if self.is_nested(source, target) => return Err(Error::Overlap),
            // The file system has no such rename: the next best is two.
            Err(Errno::INVAL | Errno::NOSYS) => {
                let put = || source.directory.rename_noreplace(&source.name, &target.directory, &target.name);
                staging.replace_with_backup(&target.directory, &target.name, &target.path, put)?
            }
            Err(error) => return Err(error.into()),
        };
        self.shared().background_deletes.enqueue(old);
        Ok(())
    }

    /// Tells whether one lies within the other, as it may since a folder above either was moved.
    fn is_nested(&self, source: &EntrySlot, target: &EntrySlot) -> bool {
        let path_of =
            |slot: &EntrySlot| self.fs().path_of_fd(&slot.directory).map(|directory| directory.child(&slot.name));
        match (path_of(source), path_of(target)) {
            (Some(source), Some(target)) => source.starts_with(&target) || target.starts_with(&source),
            // A folder of theirs is gone.
            (None, _) | (_, None) => true,
        }
    }
}

/// What a move found under the commit locks.
pub(super) struct CheckedMove {
    /// What moves.
    pub(super) moved: Stat,
    /// What it replaces.
    pub(super) replaced: Option<Stat>,
}

impl CheckedMove {
    /// Returns what is replaced by changing places, since no single step of the host does it: a folder, or
    /// what a folder replaces.
    fn exchanged(&self, overwrite: OverwriteMode) -> Option<&Stat> {
        let needs_exchange =
            |old: &&Stat| !self.moved.is_same_file(old) && (old.is_directory() || self.moved.is_directory());
        self.replaced.as_ref().filter(needs_exchange).filter(|_| overwrite == OverwriteMode::Replace)
    }
}
