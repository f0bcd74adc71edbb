//! Operations that create, change and remove entries.

use std::sync::Arc;

use super::storage_changes::{ChangedPlace, QuotaCheck, file_bytes};
use super::{EditMode, View, WriteConditions};
use crate::domain::{Permission, TreeOperation, TreePath};
use crate::tree::authorize::{EntrySlot, OpenEntry};
use crate::tree::byte_change::ByteChange;
use crate::tree::etag::keep_mark;
use crate::tree::fs::{FileFd, OpenMode, Stat};
use crate::tree::handle_access::HandleAccess;
use crate::tree::{
    AttributeChanges, CommittedUpload, Entry, EntryKind, Error, FileEditor, PropertyChange, Result, StagedUpload,
};

impl View {
    /// Begins an upload that creates or replaces a file when it is committed. `size` is the announced length, if any:
    /// one that is too large, or more than the free space, is refused at once.
    ///
    /// # Errors
    /// [`Error::NoParent`], [`Error::Forbidden`], [`Error::IsADirectory`], [`Error::Locked`],
    /// [`Error::TooLarge`], [`Error::TypeNotAllowed`] for the name alone, [`Error::NoSpace`].
    pub fn stage(&self, path: &TreePath, size: Option<u64>, conditions: &WriteConditions<'_>) -> Result<StagedUpload> {
        let (slot, stat) = self.write_slot(path)?;
        // Refusals before the body is sent; `commit` repeats them under the commit lock.
        self.check_create_or_replace_locks(&slot, stat.as_ref(), conditions)?;
        self.check_name_type(&slot.name)?;
        // The commit is a rename in this directory: better refused now than after the whole body was sent.
        slot.directory.check_write_access()?;
        if let Some(size) = size {
            self.check_size(size)?;
            self.check_quota(&slot.path, file_bytes(stat.as_ref()), size)?;
            if size > 0 && size > slot.directory.space()?.available {
                return Err(Error::NoSpace);
            }
        }
        StagedUpload::begin(self, path, &slot, stat.as_ref(), conditions)
    }

    /// Creates or replaces a file with content that has arrived as a whole, in one step: with fewer look-ups than an
    /// upload in several steps, during which names and rights may change.
    ///
    /// # Errors
    /// As [`View::stage`], [`StagedUpload::write_at`] and [`StagedUpload::commit`].
    pub fn upload_whole(
        &self,
        path: &TreePath,
        blocks: &[impl AsRef<[u8]>],
        conditions: &WriteConditions<'_>,
    ) -> Result<CommittedUpload> {
        let (slot, replaced) = self.write_slot(path)?;
        // Refusals before anything is written; the commit repeats them under the commit lock. That the directory can be
        // written is left to the rename.
        self.check_create_or_replace_locks(&slot, replaced.as_ref(), conditions)?;
        self.check_name_type(&slot.name)?;
        let size = blocks.iter().map(|block| block.as_ref().len() as u64).sum();
        self.check_size(size)?;
        self.check_quota(&slot.path, file_bytes(replaced.as_ref()), size)?;
        // Space that the host keeps for root isn't available, also where this process is root.
        if size > 0 && size > slot.directory.space()?.available {
            return Err(Error::NoSpace);
        }
        (conditions.evaluate)()?;
        let upload = StagedUpload::begin_whole(self, path, &slot, replaced.as_ref(), conditions)?;
        let mut offset = 0;
        for block in blocks {
            upload.write_at(block.as_ref(), offset)?;
            offset += block.as_ref().len() as u64;
        }
        upload.commit_begun_at(slot, conditions)
    }

    /// Opens a file for writing: in place, or, where the token limits types, as a copy that replaces the file when it
    /// is closed. The type check at that time would reveal the existing content, so that such a token may edit only
    /// files that it may read; to a drop box it can only upload complete files.
    ///
    /// # Errors
    /// As [`View::stage`]; [`Error::Forbidden`] for content that may not be read; [`Error::Absent`] where the file does
    /// not exist and `mode.create` is not set, [`Error::AlreadyExists`] where it does and `mode.exclusive` is.
    pub fn edit(&self, path: &TreePath, mode: EditMode, conditions: &WriteConditions<'_>) -> Result<FileEditor> {
        let (slot, stat) = match self.write_slot(path) {
            Err(Error::NoParent) if !mode.create => return Err(Error::Absent),
            // Where nothing may be created, a missing entry is reported as missing rather than forbidden.
            Err(error @ (Error::Forbidden | Error::RefusedByHost(_))) if !mode.create => {
                return Err(self.link_stat(path).err().unwrap_or(error));
            }
            slot => slot?,
        };
        let is_file = |stat: &Option<Stat>| stat.as_ref().is_some_and(|stat| stat.kind == Some(EntryKind::File));
        if !mode.create && !is_file(&stat) {
            return Err(Error::Absent);
        }
        // Reading back in-place content needs `r` as well.
        if mode.read && !slot.permission.allows(Permission::RW) {
            return Err(Error::Forbidden);
        }
        // A link whose target is missing exists as well (open(2), O_EXCL).
        if mode.exclusive && self.create_slot(path)?.stat()?.is_some() {
            return Err(Error::AlreadyExists);
        }
        let path_guard = self.shared().path_locks.lock(&[&slot.path]);
        let lock_freeze = self.shared().locks.freeze();
        // Again under the commit lock: another client may have created or removed it.
        let stat = slot.stat()?;
        if stat.is_some() && mode.exclusive {
            return Err(Error::AlreadyExists);
        }
        self.check_create_or_replace(&slot, stat.as_ref(), conditions)?;
        // A write in place changes the file under all of its names, whose locks count too.
        if let Some(file) = stat.as_ref().filter(|stat| stat.kind == Some(EntryKind::File) && stat.link_count > 1) {
            self.check_hard_link_locks(file, &slot.path, conditions.lock_tokens)?;
        }
        self.check_name_type(&slot.name)?;
        let edits_copy = self.limits_types();
        // A type limit is checked over the whole content at CLOSE: the answer would reveal the old part.
        let is_unreadable = edits_copy && !slot.permission.allows(Permission::RW);
        if is_unreadable && !mode.truncate && stat.as_ref().is_some_and(|stat| stat.size > 0) {
            return Err(Error::Forbidden);
        }
        let open_mode = if mode.read || edits_copy { OpenMode::ReadWrite } else { OpenMode::Write };
        // The slot among the open files is reserved before the file is created: a refusal must leave nothing.
        let access = match edits_copy {
            true => None,
            false => {
                let needed = if mode.read { Permission::RW } else { Permission::W };
                Some(HandleAccess::new(self, slot.path.clone(), needed)?)
            }
        };
        let file = match stat.map(|stat| stat.kind) {
            Some(Some(EntryKind::File)) => slot.directory.open(&slot.name, open_mode)?,
            Some(Some(EntryKind::Directory | EntryKind::Symlink) | None) => return Err(Error::Forbidden),
            None if !mode.create => return Err(Error::Absent),
            None => {
                let file = slot.directory.create_file(&slot.name, self.fs().apply_umask(mode.mode.unwrap_or(0o666)))?;
                // The host's clock is too coarse for a tag of its own: a removed file may have had the same inode and
                // time.
                self.shared().etags.set_times(&file, Some(self.shared().etags.fresh_time(None)), None)?;
                self.sync_directory(&slot.directory)?;
                file
            }
        };
        let found = OpenEntry { stat: file.stat()?, file, path: slot.path.clone(), permission: slot.permission };
        if let Some(access) = access {
            return FileEditor::edit_in_place(self, path, (found, access), mode, conditions);
        }
        // Released before the copy is made, which may take long. CLOSE acquires them again.
        drop((lock_freeze, path_guard));
        // A file that was empty when it was checked may have content since, which must not be kept unread.
        let mode = EditMode { truncate: mode.truncate || is_unreadable, ..mode };
        FileEditor::edit_copy(self, path, &slot, found, mode, conditions)
    }

    /// Creates a directory.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::NoParent`], [`Error::Forbidden`], [`Error::Locked`].
    pub fn create_directory(
        &self,
        path: &TreePath,
        attributes: &AttributeChanges,
        conditions: &WriteConditions<'_>,
    ) -> Result<Entry> {
        self.with_directory_slot(path, conditions, |slot| {
            let mode = self.fs().apply_umask(attributes.mode.unwrap_or(0o777));
            let added = || Ok(vec![ByteChange::added_directory(&slot.path, 0)]);
            self.with_byte_changes(QuotaCheck::Recorded, &[slot.place()], added, || {
                slot.directory.create_directory(&slot.name, mode).map_err(Error::from_target_errno)
            })?;
            let created = slot.directory.open(&slot.name, OpenMode::DirectoryPath)?;
            if attributes.modified.is_some() || attributes.accessed.is_some() {
                // A time that can't be stored refuses the whole request, so nothing may be left.
                created.set_times_exactly(attributes.modified, attributes.accessed).inspect_err(|_| {
                    if let Err(error) = slot.directory.remove_directory(&slot.name) {
                        tracing::warn!(path = %slot.path, %error, "a directory without its times can't be removed");
                    }
                })?;
            }
            self.sync_directory(&slot.directory)?;
            Ok(self.entry(path, &created.stat()?, slot.permission))
        })
    }

    /// Checks that a directory may be created with these properties, and creates none.
    ///
    /// # Errors
    /// As [`View::create_directory`]; [`Error::TagNotAllowed`].
    pub fn check_create_directory(
        &self,
        path: &TreePath,
        changes: &[PropertyChange],
        conditions: &WriteConditions<'_>,
    ) -> Result<()> {
        self.with_directory_slot(path, conditions, |slot| match slot.stat()? {
            Some(_) => Err(Error::AlreadyExists),
            None => self.check_changed_tags(changes),
        })
    }

    /// Calls `create` under the commit lock, after permissions, locks and conditions were checked.
    fn with_directory_slot<T>(
        &self,
        path: &TreePath,
        conditions: &WriteConditions<'_>,
        create: impl FnOnce(&EntrySlot) -> Result<T>,
    ) -> Result<T> {
        let slot = match self.slot_with_permission(path, TreeOperation::Create.permission()) {
            // As mkdir(2): an existing entry is reported before the missing permission.
            Err(Error::Forbidden | Error::RefusedByHost(_)) if self.link_stat(path).is_ok() => {
                return Err(Error::AlreadyExists);
            }
            Err(error) => {
                self.audit_denial(TreeOperation::Create, path);
                return Err(error);
            }
            Ok(slot) => slot,
        };
        let _guards = self.lock_names(&[&slot.path])?;
        self.check_create_or_replace(&slot, None, conditions)?;
        create(&slot)
    }

    /// Removes a file or a symbolic link (not its target).
    ///
    /// # Errors
    /// [`Error::Absent`], [`Error::IsADirectory`], [`Error::Forbidden`], [`Error::Locked`].
    pub fn remove_file(&self, path: &TreePath, conditions: &WriteConditions<'_>) -> Result<()> {
        self.remove_entry(path, conditions, |slot, stat| match stat.kind {
            Some(EntryKind::Directory) => Err(Error::IsADirectory),
            Some(EntryKind::File | EntryKind::Symlink) | None => self.unlink(slot),
        })
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// As [`View::remove_file`]; [`Error::NotADirectory`], [`Error::DirectoryNotEmpty`].
    pub fn remove_directory(&self, path: &TreePath, conditions: &WriteConditions<'_>) -> Result<()> {
        self.remove_entry(path, conditions, |slot, stat| match stat.kind {
            Some(EntryKind::Directory) => {
                let remove = || Ok(slot.directory.remove_directory(&slot.name)?);
                // No upload begins in the directory while it is removed, or its commit would find no parent.
                self.shared().upload_registry.remove_empty(stat, remove)
            }
            Some(EntryKind::File | EntryKind::Symlink) | None => Err(Error::NotADirectory),
        })
    }

    /// Removes a file, a link, or a directory with everything below it, in one step.
    ///
    /// # Errors
    /// [`Error::Absent`]; [`Error::Locked`], also for a lock below it; [`Error::Forbidden`], also when a file system is
    /// mounted in it.
    pub fn remove_all(&self, path: &TreePath, conditions: &WriteConditions<'_>) -> Result<()> {
        self.remove_entry(path, conditions, |slot, stat| match stat.kind {
            // The mount would have to be unmounted first.
            Some(EntryKind::Directory) if self.fs().contains_mounts(&slot.path)? => Err(Error::Forbidden),
            Some(EntryKind::Directory) => {
                let staging = self.staging(slot)?;
                // One rename removes the whole subtree at once; its content is deleted in the background.
                let move_out = || Ok(staging.move_in(&slot.directory, &slot.name)?);
                let open = self.begin_byte_changes(&[&slot.path])?;
                let staged = self.shared().upload_registry.remove_all(self.fs(), &slot.path, move_out)?;
                self.finish_removal(open, slot, &staged);
                self.shared().background_deletes.enqueue(staged);
                Ok(())
            }
            Some(EntryKind::File | EntryKind::Symlink) | None => self.unlink(slot),
        })
    }

    /// Removes the name of a file or link.
    fn unlink(&self, slot: &EntrySlot) -> Result<()> {
        let bytes = || Ok(vec![ByteChange::file(&slot.path, file_bytes(slot.stat()?.as_ref()), 0)]);
        self.with_byte_changes(QuotaCheck::Recorded, &[slot.place()], bytes, || {
            Ok(slot.directory.unlink(&slot.name)?)
        })
    }

    fn remove_entry(
        &self,
        path: &TreePath,
        conditions: &WriteConditions<'_>,
        effect: impl FnOnce(&EntrySlot, &Stat) -> Result<()>,
    ) -> Result<()> {
        let (slot, _) = self.removal_slot(TreeOperation::Delete, path)?;
        self.check_may_count(&slot.path)?;
        // The locks of what is removed end in the store.
        if !self.shared().locks.is_empty() {
            self.check_may_wait()?;
        }
        // Held until the index has followed: nothing new gets the name before the old node ends.
        let _guards = self.lock_names(&[&slot.path])?;
        self.check_locks(&slot.directory_path(), conditions.lock_tokens)?;
        self.check_subtree_locks(&slot.path, conditions.lock_tokens)?;
        (conditions.evaluate)()?;
        let stat = slot.stat()?.ok_or(Error::Absent)?;
        // Logged before the effect where the entry has a node: a kill in between is completed at the next start.
        let index = &self.shared().index;
        let change = match index.try_begin_remove(&slot.path)? {
            Some(change) => change,
            None => self.check_may_wait().and_then(|()| index.begin_remove(&slot.path))?,
        };
        effect(&slot, &stat)?;
        // Before the index: a power cut must not bring the entry back without its node.
        self.sync_directory(&slot.directory)?;
        change.finish()?;
        self.shared().locks.remove_subtree(&slot.path);
        Ok(())
    }

    /// Sets attributes; a symbolic link is followed where `follow` is true. A size is on disk where durability demands
    /// it, times and mode are not synced: SFTP clients set them on every file, and send FSYNC where it matters.
    ///
    /// # Errors
    /// [`Error::Absent`], [`Error::Forbidden`], [`Error::Locked`], [`Error::TooLarge`];
    /// [`Error::Unsupported`] for what a link itself doesn't have.
    pub fn set_attributes(
        &self,
        path: &TreePath,
        attributes: &AttributeChanges,
        follow: bool,
        conditions: &WriteConditions<'_>,
    ) -> Result<()> {
        if !follow && self.link_stat(path)?.kind == EntryKind::Symlink {
            return self.set_link_attributes(path, attributes, conditions);
        }
        let found = self.open_authorized(TreeOperation::Write, path, OpenMode::Path)?;
        self.change_properties_and_attributes(&found.path, &[], attributes, conditions).map(drop)
    }

    fn set_link_attributes(
        &self,
        path: &TreePath,
        attributes: &AttributeChanges,
        conditions: &WriteConditions<'_>,
    ) -> Result<()> {
        let slot = self.create_slot(path)?;
        let _path_guard = self.shared().path_locks.lock(&[&slot.path]);
        let _lock_freeze = self.shared().locks.freeze();
        self.check_locks(&slot.path, conditions.lock_tokens)?;
        (conditions.evaluate)()?;
        // Links have no mode on Linux, and their size is that of the text.
        if attributes.mode.is_some() || attributes.size.is_some() {
            return Err(Error::Unsupported);
        }
        let link = slot.directory.open(&slot.name, OpenMode::PathNoFollow)?;
        Ok(link.set_path_times(attributes.modified, attributes.accessed)?)
    }

    /// Sets attributes of an open entry. Setting a time keeps the entity tag, unless the size changes too.
    pub(in crate::tree) fn apply_attributes(&self, found: &OpenEntry, attributes: &AttributeChanges) -> Result<()> {
        // Size, mode, times: truncating moves the time, and a new mode may forbid the open for it.
        let mut stat = found.stat.clone();
        if let Some(size) = attributes.size {
            // Only growth: a file that is over the limit already may be made smaller.
            if size > stat.size {
                self.check_size(size)?;
            }
            let limits_types = self.limits_types();
            let open_mode = if limits_types { OpenMode::ReadWrite } else { OpenMode::Write };
            let reopened = self.open_entry(&found.path, Permission::W, open_mode)?;
            if limits_types && size > 0 && !reopened.permission.allows(Permission::RW) {
                return Err(Error::Forbidden);
            }
            // Opened again by its path, where another file may be by now.
            if !reopened.stat.is_same_file(&stat) {
                return Err(Error::Absent);
            }
            if let (true, Some(name)) = (limits_types, found.path.name()) {
                self.check_content_type(&name, &reopened.file, size)?;
            }
            // A file that has the size already keeps its content, and so its entity tag.
            if reopened.stat.size != size {
                let file = Arc::new(reopened.file);
                let bytes = || {
                    let before = file.stat()?;
                    Ok(vec![ByteChange::file(&found.path, before.size, size).of_names(before.link_count)])
                };
                let place = ChangedPlace::of_file(&found.path, &file);
                stat = self.with_byte_changes(QuotaCheck::Enforced, &[place], bytes, || {
                    self.truncate_file(&file, &stat, size)
                })?;
            }
        }
        if let Some(mode) = attributes.mode {
            // A directory keeps the set-group-ID bit by which its group is inherited; files never get such bits.
            let special_bits = if stat.is_directory() { stat.mode & 0o7000 } else { 0 };
            found.file.set_path_mode(mode & 0o777 | special_bits)?;
        }
        if attributes.modified.is_some() || attributes.accessed.is_some() {
            // Not while a CLOSE gives the file its tag, which would overwrite the time.
            self.shared().etags.with_settle_lock(&stat, || {
                let etags = &self.shared().etags;
                let now = etags.modified_time(&found.file.stat()?)?;
                let with_mark = |wanted| if stat.is_directory() { wanted } else { keep_mark(now, wanted) };
                let modified = attributes.modified.map(with_mark);
                found.file.set_times_exactly(modified, attributes.accessed)?;
                etags.record_time(&found.file, modified.filter(|_| !stat.is_directory()))
            })?;
        }
        Ok(())
    }

    fn truncate_file(&self, file: &Arc<FileFd>, stat: &Stat, size: u64) -> Result<Stat> {
        let edit = self.shared().etags.begin_edit(file, stat);
        // The tag moves before and after the content, as for any write in place.
        edit.write_content(|| Ok(()), || file.truncate(size))?;
        edit.settle()?;
        if self.is_synced() {
            file.sync()?;
        }
        Ok(file.stat()?)
    }

    /// Creates a hard link to a file.
    ///
    /// # Errors
    /// [`Error::Absent`], [`Error::NoParent`], [`Error::AlreadyExists`], [`Error::IsADirectory`], [`Error::Locked`];
    /// [`Error::Forbidden`], also when source and new directory are not under one grant.
    pub fn hard_link(&self, from: &TreePath, to: &TreePath, conditions: &WriteConditions<'_>) -> Result<()> {
        let source = self.open_authorized(TreeOperation::Link, from, OpenMode::Path)?;
        let slot = self.check_hard_link(&source.path, &source.stat, to, conditions)?;
        if self.limits_types() {
            self.check_file(&slot.name, &self.open_entry(from, Permission::RW, OpenMode::Read)?.file)?;
        }
        let _path_guards = self.shared().path_locks.lock(&[&source.path, &slot.path]);
        let _lock_freeze = self.shared().locks.freeze();
        self.check_locks(&source.path, conditions.lock_tokens)?;
        self.check_create_or_replace(&slot, None, conditions)?;
        // Each name of a file counts.
        let bytes = || Ok(vec![ByteChange::file(&slot.path, 0, file_bytes(Some(&source.file.stat()?)))]);
        self.with_byte_changes(QuotaCheck::Enforced, &[slot.place()], bytes, || {
            source.file.hard_link(&slot.directory, &slot.name).map_err(Error::from_target_errno)
        })?;
        self.sync_directory(&slot.directory)
    }

    /// Checks that a file at a canonical path, or one that will be committed there, may get another name.
    ///
    /// # Errors
    /// As [`View::hard_link`].
    pub(in crate::tree) fn check_hard_link(
        &self,
        from: &TreePath,
        source: &Stat,
        to: &TreePath,
        conditions: &WriteConditions<'_>,
    ) -> Result<EntrySlot> {
        if source.is_directory() {
            return Err(Error::IsADirectory);
        }
        let slot = self.create_slot(to)?;
        // One grant for both: with two joined, a token could carry content from one scope into another.
        if !self.permissions_at(from)?.single_grant_covers(&slot.path, Permission::RW) {
            return Err(Error::Forbidden);
        }
        self.check_size(source.size)?;
        self.check_locks(from, conditions.lock_tokens)?;
        self.check_create_or_replace_locks(&slot, None, conditions)?;
        if slot.stat()?.is_some() { Err(Error::AlreadyExists) } else { Ok(slot) }
    }

    /// Creates a symbolic link whose target is relative, ascends first and stays inside (see [`super::links`]).
    ///
    /// # Errors
    /// [`Error::Forbidden`] when the target does not, or nothing may be created there; [`Error::NoParent`],
    /// [`Error::AlreadyExists`], [`Error::Locked`].
    pub fn symlink(&self, target: &[u8], path: &TreePath, conditions: &WriteConditions<'_>) -> Result<()> {
        let slot = self.create_slot(path)?;
        self.check_new_link(&slot, target)?;
        let _path_guard = self.shared().path_locks.lock(&[&slot.path]);
        let _lock_freeze = self.shared().locks.freeze();
        self.check_name_type(&slot.name)?;
        self.check_create_or_replace(&slot, None, conditions)?;
        self.create_link(&slot, target)?;
        self.sync_directory(&slot.directory)
    }

    /// Checks that an entry may be created at a slot or replace the one there, where `replaced` is the entry that exists there: called under the
    /// commit lock of the name, just before the effect.
    pub(in crate::tree) fn check_create_or_replace(
        &self,
        slot: &EntrySlot,
        replaced: Option<&Stat>,
        conditions: &WriteConditions<'_>,
    ) -> Result<()> {
        match replaced.map(|stat| stat.kind) {
            Some(Some(EntryKind::Directory)) => return Err(Error::IsADirectory),
            Some(None) => return Err(Error::Forbidden),
            // Granted as a file, in a directory that is not: it can be replaced, but not created anew.
            None if slot.existing_only => return Err(Error::Absent),
            Some(Some(EntryKind::File | EntryKind::Symlink)) | None => {}
        }
        self.check_create_or_replace_locks(slot, replaced, conditions)?;
        (conditions.evaluate)()
    }

    /// Checks that locks allow an entry to be created at a slot or to replace the one there.
    pub(in crate::tree) fn check_create_or_replace_locks(
        &self,
        slot: &EntrySlot,
        replaced: Option<&Stat>,
        conditions: &WriteConditions<'_>,
    ) -> Result<()> {
        // Without any lock, the usual case, the paths below need not be made.
        if self.shared().locks.is_empty() {
            return Ok(());
        }
        // A new member needs the directory's lock token, a replaced one does not (RFC 4918 section 7.4).
        if replaced.is_none() {
            self.check_locks(&slot.directory_path(), conditions.lock_tokens)?;
        }
        self.check_locks(&slot.path, conditions.lock_tokens)
    }
}
