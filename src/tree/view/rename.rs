//! Rename and MOVE in one step.

use super::checked_move::CheckedMove;
use super::links::{CheckedLinks, LINK_WALK_ATTEMPTS};
use super::storage_changes::QuotaCheck;
use super::{OverwriteMode, View, WriteConditions};
use crate::domain::{Permission, TreeOperation, TreePath};
use crate::tree::authorize::EntrySlot;
use crate::tree::fs::{Errno, Stat};
use crate::tree::index::IndexChange;
use crate::tree::{EntryKind, Error, Result, TreeOutage};

impl View {
    /// Moves an entry in one step. Returns whether something was replaced.
    ///
    /// Refuses to move a symbolic link, at any depth, that would lead out at its new path and did not before (see
    /// [`super::links`]).
    ///
    /// Between file systems the entry is copied completely and then removed; node ids stay.
    ///
    /// # Errors
    /// [`Error::Absent`], [`Error::NoParent`], [`Error::AlreadyExists`], [`Error::Overlap`], [`Error::Locked`],
    /// [`Error::IsADirectory`], [`Error::NotADirectory`], [`Error::DirectoryNotEmpty`]; [`Error::TooLarge`],
    /// [`Error::TypeNotAllowed`] and [`Error::PathTooLong`] for any entry below; [`Error::Forbidden`], also when an
    /// unreadable entry would become readable, a link would lead out, a file system is mounted in what is moved or replaced,
    /// the target is a socket or device, or the host refuses; [`Error::PreconditionFailed`] where something
    /// in the directory changes during each attempt.
    pub fn rename(
        &self,
        from: &TreePath,
        to: &TreePath,
        overwrite: OverwriteMode,
        conditions: &WriteConditions<'_>,
    ) -> Result<bool> {
        let (source, stat) = self.removal_slot(TreeOperation::Move, from)?;
        self.check_may_count(&source.path)?;
        // The links in a directory are looked for, and the locks of what is moved end in the store.
        if stat.is_directory() || !self.shared().locks.is_empty() {
            self.check_may_wait()?;
        }
        let target = self.move_target(&source, to)?;
        self.check_may_count(&target.path)?;
        // rename(2) of a name to itself succeeds and does nothing.
        if overwrite == OverwriteMode::Posix && source.path == target.path {
            return Ok(false);
        }
        if source.path.starts_with(&target.path) || target.path.starts_with(&source.path) {
            return Err(Error::Overlap);
        }
        self.check_move_limits(&source, &stat, &target.name)?;
        // Only longer paths can break it. A rename within one directory walks nothing; the named nodes are the part
        // that must stay within the limit.
        if stat.is_directory() && target.path.as_bytes().len() > source.path.as_bytes().len() {
            self.shared().index.can_follow(&source.path, &target.path)?;
        }
        // rename(2) fails between mounts, even of one file system.
        if source.directory_stat.mount_key() != target.directory_stat.mount_key() {
            self.check_may_wait()?;
            return self.move_cross_device(&source, &stat, &target, overwrite, conditions);
        }
        // Links and directories that are created in the source while it is walked make it be checked again.
        for _ in 0..LINK_WALK_ATTEMPTS {
            let checked_links = self.check_links(&source, &target, overwrite)?;
            if let Some(replaced) = self.rename_checked(&source, &target, overwrite, conditions, &checked_links)? {
                return Ok(replaced);
            }
        }
        Err(Error::PreconditionFailed)
    }

    /// Moves an entry whose links were checked; returns `None` where something in it has changed since.
    fn rename_checked(
        &self,
        source: &EntrySlot,
        target: &EntrySlot,
        overwrite: OverwriteMode,
        conditions: &WriteConditions<'_>,
        checked_links: &CheckedLinks<'_>,
    ) -> Result<Option<bool>> {
        // Lock order: names, locks, index, link moves (see `link_moves`).
        let guards = self.lock_names(&[&source.path, &target.path])?;
        let checked_move = self.check_move(source, target, overwrite, conditions)?;
        // Two names of one file: rename(2) leaves both, and so both keep their nodes.
        if overwrite == OverwriteMode::Posix
            && checked_move.replaced.as_ref().is_some_and(|old| old.is_same_file(&checked_move.moved))
        {
            return Ok(Some(true));
        }
        let change = self.begin_move(source, target, checked_move.exchanged(overwrite))?;
        if !self.rename_if_unchanged(source, target, overwrite, &checked_move, checked_links)? {
            return Ok(None);
        }
        // The new name before the removal of the old one: a power cut may leave both, but never none.
        self.sync_directory(&target.directory)?;
        if source.directory_path() != target.directory_path() {
            self.sync_directory(&source.directory)?;
        }
        // After the sync: the index is never ahead of the disk.
        change.finish()?;
        // Locks do not move with the entry (RFC 4918 section 7.6).
        self.shared().locks.remove_subtree(&source.path);
        self.shared().locks.remove_below(&target.path);
        drop(guards);
        Ok(Some(checked_move.replaced.is_some()))
    }

    /// Announces a move to the index; `exchanged` is the entry with which the moved one is exchanged.
    fn begin_move(&self, source: &EntrySlot, target: &EntrySlot, exchanged: Option<&Stat>) -> Result<IndexChange<'_>> {
        let index = &self.shared().index;
        // Nearly always nothing is named there.
        if exchanged.is_none()
            && let Some(change) = index.try_begin_move(&source.path, &target.path)?
        {
            return Ok(change);
        }
        self.check_may_wait()?;
        // Before the change begins: no node can be named while it is under way.
        index.prepare_move(&source.path, &target.path, self.session().login())?;
        // Where something is named, or two steps are needed, the intent is on disk before the effect.
        match exchanged {
            Some(old) => index.begin_swap(&source.path, &target.path, old.entry_identity()),
            None => index.begin_move(&source.path, &target.path),
        }
    }

    /// Returns the target slot of a move.
    fn move_target(&self, source: &EntrySlot, to: &TreePath) -> Result<EntrySlot> {
        let target = self.create_slot(to)?;
        // Otherwise a drop box could be emptied by moving its content to where it is readable.
        if target.permission.allows(Permission::R) && !source.permission.allows(Permission::R) {
            let denial = "move: content that may not be read would become readable";
            self.session().record_denial(denial, Some(&source.path));
            return Err(Error::Forbidden);
        }
        Ok(target)
    }

    /// Checks that a file that will be committed to `from`, with the metadata `moved`, may be renamed from there.
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

    /// Checks a move under the commit locks of both names, just before the effect.
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
        // Again for a file, whose content may have changed. A directory was walked before the locks.
        if !moved.is_directory() {
            self.check_move_limits(source, &moved, &target.name)?;
        }
        Ok(CheckedMove { moved, replaced })
    }

    /// Checks that the entry at a target, if there is one, may be replaced. Returns its metadata.
    pub(super) fn check_replace(
        &self,
        target: &EntrySlot,
        overwrite: OverwriteMode,
        conditions: &WriteConditions<'_>,
    ) -> Result<Option<Stat>> {
        self.check_locks(&target.directory_path(), conditions.lock_tokens)?;
        self.check_subtree_locks(&target.path, conditions.lock_tokens)?;
        // Callers repeat this under the commit lock: what the conditions saw still holds at the effect then.
        (conditions.evaluate)()?;
        let replaced = target.stat()?;
        match replaced.as_ref().map(|stat| stat.kind) {
            Some(_) if overwrite == OverwriteMode::Refuse => Err(Error::AlreadyExists),
            // A socket or device, which the client can't see.
            Some(None) => Err(Error::Forbidden),
            Some(Some(EntryKind::Directory)) if overwrite == OverwriteMode::FileOnly => Err(Error::IsADirectory),
            Some(Some(EntryKind::Directory)) if self.fs().contains_mounts(&target.path)? => Err(Error::Forbidden),
            // Nodes of a file system that belongs below but is not mounted would end with the directory.
            Some(Some(EntryKind::Directory)) if self.fs().verify_mounts_below(&target.path).is_err() => {
                Err(TreeOutage::Replaced.into())
            }
            Some(Some(EntryKind::Directory)) => {
                self.shared().upload_registry.check_no_uploads(self.fs(), &target.path).map(|()| replaced)
            }
            Some(Some(EntryKind::File | EntryKind::Symlink)) | None => Ok(replaced),
        }
    }

    /// Renames the source, unless something changed since its links were checked: returns false then.
    fn rename_if_unchanged(
        &self,
        source: &EntrySlot,
        target: &EntrySlot,
        overwrite: OverwriteMode,
        checked_move: &CheckedMove,
        checked_links: &CheckedLinks<'_>,
    ) -> Result<bool> {
        if checked_move.moved.kind == Some(EntryKind::File) && checked_move.exchanged(overwrite).is_none() {
            // A plain file contains no links: such moves run in parallel, and exclude only those of links and
            // directories.
            let _file = self.shared().link_moves.lock_shared();
            // A directory above has another path than the one that is locked, by which another client may have replaced
            // the file.
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

    /// Renames the source and records the bytes that it takes from one path to the other.
    fn rename_in_one_step(
        &self,
        source: &EntrySlot,
        target: &EntrySlot,
        overwrite: OverwriteMode,
        checked_move: &CheckedMove,
        may_exchange: bool,
    ) -> Result<()> {
        let bytes = || {
            let moved = source.stat()?.ok_or(Error::Absent)?;
            let replaced = target.stat()?;
            let moved_bytes = self.moved_bytes(source, target, &moved)?;
            Ok(CheckedMove { moved, replaced }.byte_changes(&source.path, &target.path, moved_bytes))
        };
        self.with_byte_changes(QuotaCheck::Enforced, &[source.place(), target.place()], bytes, || {
            self.rename_uncounted(source, target, overwrite, checked_move, may_exchange)
        })
    }

    fn rename_uncounted(
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
            // rename(2) of two names of one file does nothing; a MOVE has to remove the source.
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
            // A directory into itself: one above was moved since the paths were compared.
            Errno::INVAL => Error::Overlap,
            other => Error::from_target_errno(other),
        })
    }

    /// Exchanges both entries in one step, so that the target is never missing, and then removes the old one. The index
    /// has logged both steps, so that the next start completes the second. Where links of the old one would lead out
    /// from the source's path, it is never placed there, but moved into staging first.
    fn exchange_and_remove(&self, source: &EntrySlot, target: &EntrySlot, may_exchange: bool) -> Result<()> {
        let staging = self.staging(source)?;
        // No upload begins in the replaced directory meanwhile: it would be answered as a success, and be removed.
        let exchange = || {
            self.shared().upload_registry.remove_all(self.fs(), &target.path, || {
                Ok(source.directory.exchange(&source.name, &target.directory, &target.name))
            })
        };
        // `NOSYS` takes the way of a file system without exchange: the old entry goes to staging first.
        let old = match if may_exchange { exchange()? } else { Err(Errno::NOSYS) } {
            // Exchanged back on an error, so that a refused move leaves both as they were.
            Ok(()) => staging.move_in(&source.directory, &source.name).inspect_err(|_| {
                let _ = source.directory.exchange(&source.name, &target.directory, &target.name);
            })?,
            // The old entry was removed behind the gateway's back.
            Err(Errno::NOENT) => {
                let moved = source.directory.rename_noreplace(&source.name, &target.directory, &target.name);
                return moved.map_err(Error::from_target_errno);
            }
            // EINVAL has two meanings: one directory contains the other, or the file system has no exchange.
            Err(Errno::INVAL) if self.is_nested(source, target) => return Err(Error::Overlap),
            // The file system has no RENAME_EXCHANGE: two renames, with a note for the next start.
            Err(Errno::INVAL | Errno::NOSYS) => {
                let put = || source.directory.rename_noreplace(&source.name, &target.directory, &target.name);
                staging.replace_with_backup(&target.directory, &target.name, &target.path, put)?
            }
            Err(error) => return Err(error.into()),
        };
        self.count_replaced(target, &old)?;
        // Already out of the tree: the client need not wait for its content to be deleted.
        self.shared().background_deletes.enqueue(old);
        Ok(())
    }

    /// Tells whether one contains the other, as may be since a directory above either was moved.
    fn is_nested(&self, source: &EntrySlot, target: &EntrySlot) -> bool {
        let path_of =
            |slot: &EntrySlot| self.fs().path_of_fd(&slot.directory).map(|directory| directory.child(&slot.name));
        match (path_of(source), path_of(target)) {
            (Some(source), Some(target)) => source.starts_with(&target) || target.starts_with(&source),
            // Its directory was removed.
            (None, _) | (_, None) => true,
        }
    }
}
