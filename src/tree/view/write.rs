//! Operations that make, change and remove.

use std::sync::Arc;

use super::{EditMode, View, WriteConditions};
use crate::domain::{Permission, TreeOperation, TreePath};
use crate::tree::authorize::{EntrySlot, OpenEntry};
use crate::tree::etag::keep_mark;
use crate::tree::fs::{FileFd, OpenMode, Stat};
use crate::tree::handle_access::HandleAccess;
use crate::tree::{AttributeChanges, Entry, EntryKind, Error, FileEditor, PropertyChange, Result, StagedUpload};

impl View {
    /// Begins an upload that will replace or make a file when it is committed. `size` is the length
    /// that was announced, if any: too large and no space are refused at once.
    ///
    /// # Errors
    /// [`Error::NoParent`], [`Error::Forbidden`], [`Error::IsADirectory`], [`Error::Locked`],
    /// [`Error::TooLarge`], [`Error::TypeNotAllowed`] for the name alone, [`Error::NoSpace`].
    pub fn stage(&self, path: &TreePath, size: Option<u64>, claim: &WriteConditions<'_>) -> Result<StagedUpload> {
        let (spot, stat) = self.write_slot(path)?;
        self.check_create_locks(&spot, stat.as_ref(), claim)?;
        self.check_name_type(&spot.name)?;
        // The commit is a rename in this folder: better refused now than when all has been sent.
        spot.directory.check_write_access()?;
        if let Some(size) = size {
            self.check_size(size)?;
            if size > 0 && size > spot.directory.space()?.available {
                return Err(Error::NoSpace);
            }
        }
        StagedUpload::begin(self, path, &spot, stat.as_ref(), claim)
    }

    /// Opens a file to be written: in place, or, where the token limits types, as a copy that takes its
    /// place when it is closed. Whether that fits would tell of content that is kept: it has to be one that may be
    /// read, so that a drop box takes whole files alone from such a token.
    ///
    /// # Errors
    /// As [`View::stage`]; [`Error::Forbidden`] for content that may not be read; [`Error::Absent`] unless it may be made, [`Error::AlreadyExists`] where it must be.
    pub fn edit(&self, path: &TreePath, mode: EditMode, claim: &WriteConditions<'_>) -> Result<FileEditor> {
        let (spot, stat) = match self.write_slot(path) {
            Err(Error::NoParent) if !mode.create => return Err(Error::Absent),
            // Where nothing may be made, what is not there is missing rather than forbidden.
            Err(Error::Forbidden) if !mode.create => {
                return Err(self.link_stat(path).err().unwrap_or(Error::Forbidden));
            }
            place => place?,
        };
        let is_file = |stat: &Option<Stat>| stat.as_ref().is_some_and(|stat| stat.kind == Some(EntryKind::File));
        if !mode.create && !is_file(&stat) {
            return Err(Error::Absent);
        }
        if mode.read && !spot.permission.allows(Permission::RW) {
            return Err(Error::Forbidden);
        }
        // A link that leads nowhere exists, too (open(2), O_EXCL).
        if mode.exclusive && self.create_slot(path)?.stat()?.is_some() {
            return Err(Error::AlreadyExists);
        }
        let name = self.shared().path_locks.lock(&[&spot.path]);
        let steady = self.shared().locks.freeze();
        let stat = spot.stat()?;
        if stat.is_some() && mode.exclusive {
            return Err(Error::AlreadyExists);
        }
        self.check_create(&spot, stat.as_ref(), claim)?;
        if let Some(file) = stat.as_ref().filter(|stat| stat.kind == Some(EntryKind::File) && stat.link_count > 1) {
            self.check_hard_link_locks(file, &spot.path, claim.lock_tokens)?;
        }
        self.check_name_type(&spot.name)?;
        let copies = self.limits_types();
        let blind = copies && !spot.permission.allows(Permission::RW);
        if blind && !mode.truncate && stat.as_ref().is_some_and(|stat| stat.size > 0) {
            return Err(Error::Forbidden);
        }
        let how = if mode.read || copies { OpenMode::ReadWrite } else { OpenMode::Write };
        // Its place among open files comes before the file is made.
        let access = match copies {
            true => None,
            false => {
                let needed = if mode.read { Permission::RW } else { Permission::W };
                Some(HandleAccess::new(self, spot.path.clone(), needed)?)
            }
        };
        let file = match stat.map(|stat| stat.kind) {
            Some(Some(EntryKind::File)) => spot.directory.open(&spot.name, how)?,
            Some(Some(EntryKind::Directory | EntryKind::Symlink) | None) => return Err(Error::Forbidden),
            None if !mode.create => return Err(Error::Absent),
            None => {
                let file = spot.directory.create_file(&spot.name, self.fs().apply_umask(mode.mode.unwrap_or(0o666)))?;
                self.shared().etags.set_times(&file, Some(self.shared().etags.fresh_time(None)), None)?;
                self.sync_directory(&spot.directory)?;
                file
            }
        };
        let found = OpenEntry { stat: file.stat()?, file, path: spot.path.clone(), permission: spot.permission };
        if let Some(access) = access {
            return FileEditor::edit_in_place(self, path, (found, access), mode, claim);
        }
        drop((steady, name));
        // Nothing is kept of what came into an empty file meanwhile.
        let mode = EditMode { truncate: mode.truncate || blind, ..mode };
        FileEditor::edit_copy(self, path, &spot, found, mode, claim)
    }

    /// Makes a folder.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::NoParent`], [`Error::Forbidden`], [`Error::Locked`].
    pub fn create_directory(
        &self,
        path: &TreePath,
        attributes: &AttributeChanges,
        claim: &WriteConditions<'_>,
    ) -> Result<Entry> {
        self.with_directory_slot(path, claim, |spot| {
            let mode = self.fs().apply_umask(attributes.mode.unwrap_or(0o777));
            spot.directory.create_directory(&spot.name, mode).map_err(Error::from_target_errno)?;
            let place = spot.directory.open(&spot.name, OpenMode::DirectoryPath)?;
            if attributes.modified.is_some() || attributes.accessed.is_some() {
                place.set_times_exactly(attributes.modified, attributes.accessed).inspect_err(|_| {
                    if let Err(error) = spot.directory.remove_directory(&spot.name) {
                        tracing::warn!(path = %spot.path, %error, "a folder whose times could not be kept is left");
                    }
                })?;
            }
            self.sync_directory(&spot.directory)?;
            Ok(self.entry(path, &place.stat()?, spot.permission))
        })
    }

    /// Lets a folder be made and its properties be set, and makes none.
    ///
    /// # Errors
    /// As [`View::create_directory`]; [`Error::TagNotAllowed`].
    pub fn check_create_directory(
        &self,
        path: &TreePath,
        changes: &[PropertyChange],
        claim: &WriteConditions<'_>,
    ) -> Result<()> {
        self.with_directory_slot(path, claim, |spot| match spot.stat()? {
            Some(_) => Err(Error::AlreadyExists),
            None => self.check_changed_tags(changes),
        })
    }

    /// Runs the making of a folder while rights, locks and conditions allow it.
    fn with_directory_slot<T>(
        &self,
        path: &TreePath,
        claim: &WriteConditions<'_>,
        make: impl FnOnce(&EntrySlot) -> Result<T>,
    ) -> Result<T> {
        let spot = match self.slot_with_permission(path, TreeOperation::Create.permission()) {
            // As mkdir(2): that something is there is told before that nothing may be made.
            Err(Error::Forbidden) if self.link_stat(path).is_ok() => return Err(Error::AlreadyExists),
            Err(error) => {
                self.audit_denial(TreeOperation::Create, path);
                return Err(error);
            }
            Ok(spot) => spot,
        };
        let _name = self.shared().path_locks.lock(&[&spot.path]);
        let _steady = self.shared().locks.freeze();
        self.check_create(&spot, None, claim)?;
        make(&spot)
    }

    /// Removes a file or link (not what the link leads to).
    ///
    /// # Errors
    /// [`Error::Absent`], [`Error::IsADirectory`], [`Error::Forbidden`], [`Error::Locked`].
    pub fn remove_file(&self, path: &TreePath, claim: &WriteConditions<'_>) -> Result<()> {
        self.remove_entry(path, claim, |spot, stat| match stat.kind {
            Some(EntryKind::Directory) => Err(Error::IsADirectory),
            Some(EntryKind::File | EntryKind::Symlink) | None => Ok(spot.directory.unlink(&spot.name)?),
        })
    }

    /// Removes an empty folder.
    ///
    /// # Errors
    /// As [`View::remove_file`]; [`Error::NotADirectory`], [`Error::DirectoryNotEmpty`].
    pub fn remove_directory(&self, path: &TreePath, claim: &WriteConditions<'_>) -> Result<()> {
        self.remove_entry(path, claim, |spot, stat| match stat.kind {
            Some(EntryKind::Directory) => {
                let remove = || Ok(spot.directory.remove_directory(&spot.name)?);
                self.shared().upload_registry.remove_empty(stat, remove)
            }
            Some(EntryKind::File | EntryKind::Symlink) | None => Err(Error::NotADirectory),
        })
    }

    /// Removes a file, a link, or a folder with all in it, in one step.
    ///
    /// # Errors
    /// [`Error::Absent`]; [`Error::Locked`], with a lock anywhere in it; [`Error::Forbidden`], also when a
    /// file system is mounted in it.
    pub fn remove_all(&self, path: &TreePath, claim: &WriteConditions<'_>) -> Result<()> {
        self.remove_entry(path, claim, |spot, stat| match stat.kind {
            Some(EntryKind::Directory) if self.fs().contains_mounts(&spot.path)? => Err(Error::Forbidden),
            Some(EntryKind::Directory) => {
                let staging = self.staging(spot)?;
                let take = || Ok(staging.move_in(&spot.directory, &spot.name)?);
                let staged = self.shared().upload_registry.remove_all(self.fs(), &spot.path, take)?;
                self.shared().background_deletes.enqueue(staged);
                Ok(())
            }
            Some(EntryKind::File | EntryKind::Symlink) | None => Ok(spot.directory.unlink(&spot.name)?),
        })
    }

    fn remove_entry(
        &self,
        path: &TreePath,
        claim: &WriteConditions<'_>,
        effect: impl FnOnce(&EntrySlot, &Stat) -> Result<()>,
    ) -> Result<()> {
        let (spot, _) = self.removal_slot(TreeOperation::Delete, path)?;
        let _name = self.shared().path_locks.lock(&[&spot.path]);
        let _steady = self.shared().locks.freeze();
        self.check_locks(&spot.directory_path(), claim.lock_tokens)?;
        self.check_subtree_locks(&spot.path, claim.lock_tokens)?;
        (claim.evaluate)()?;
        let stat = spot.stat()?.ok_or(Error::Absent)?;
        let change = self.shared().index.begin_remove(&spot.path)?;
        effect(&spot, &stat)?;
        self.sync_directory(&spot.directory)?;
        change.finish()?;
        self.shared().locks.remove_subtree(&spot.path);
        Ok(())
    }

    /// Sets attributes; a link is followed unless `move_nodes` is false. A size is on disk where durability asks for it, times
    /// and mode when the host likes: SFTP clients set them of every file, and ask for FSYNC where it matters.
    ///
    /// # Errors
    /// [`Error::Absent`], [`Error::Forbidden`], [`Error::Locked`], [`Error::TooLarge`];
    /// [`Error::Unsupported`] for what a link itself doesn't have.
    pub fn set_attributes(
        &self,
        path: &TreePath,
        attributes: &AttributeChanges,
        follow: bool,
        claim: &WriteConditions<'_>,
    ) -> Result<()> {
        if !follow && self.link_stat(path)?.kind == EntryKind::Symlink {
            return self.set_link_attributes(path, attributes, claim);
        }
        self.change_together(path, &[], attributes, claim).map(drop)
    }

    fn set_link_attributes(
        &self,
        path: &TreePath,
        attributes: &AttributeChanges,
        claim: &WriteConditions<'_>,
    ) -> Result<()> {
        let spot = self.create_slot(path)?;
        let _name = self.shared().path_locks.lock(&[&spot.path]);
        let _steady = self.shared().locks.freeze();
        self.check_locks(&spot.path, claim.lock_tokens)?;
        (claim.evaluate)()?;
        if attributes.mode.is_some() || attributes.size.is_some() {
            return Err(Error::Unsupported);
        }
        let link = spot.directory.open(&spot.name, OpenMode::PathNoFollow)?;
        Ok(link.set_path_times(attributes.modified, attributes.accessed)?)
    }

    /// Sets the attributes of what was found. A time that is set keeps the tag, unless the size changes too.
    pub(super) fn apply_attributes(&self, found: &OpenEntry, attributes: &AttributeChanges) -> Result<()> {
        let mut stat = found.stat.clone();
        if let Some(size) = attributes.size {
            if size > stat.size {
                self.check_size(size)?;
            }
            let judged = self.limits_types();
            let how = if judged { OpenMode::ReadWrite } else { OpenMode::Write };
            let again = self.open_entry(&found.path, Permission::W, how)?;
            if judged && size > 0 && !again.permission.allows(Permission::RW) {
                return Err(Error::Forbidden);
            }
            if !again.stat.is_same_file(&stat) {
                return Err(Error::Absent);
            }
            if let (true, Some(name)) = (judged, found.path.name()) {
                self.check_content_type(&name, &again.file, size)?;
            }
            // What has the size already keeps its content, and so its tag.
            if again.stat.size != size {
                stat = self.truncate_file(&Arc::new(again.file), &stat, size)?;
            }
        }
        if let Some(mode) = attributes.mode {
            let kept = if stat.is_directory() { stat.mode & 0o7000 } else { 0 };
            found.file.set_path_mode(mode & 0o777 | kept)?;
        }
        if attributes.modified.is_some() || attributes.accessed.is_some() {
            self.shared().etags.with_settle_lock(&stat, || {
                let tags = &self.shared().etags;
                let now = tags.modified_time(&found.file.stat()?)?;
                let tagged = |wanted| if stat.is_directory() { wanted } else { keep_mark(now, wanted) };
                let modified = attributes.modified.map(tagged);
                found.file.set_times_exactly(modified, attributes.accessed)?;
                tags.record_time(&found.file, modified.filter(|_| !stat.is_directory()))
            })?;
        }
        Ok(())
    }

    fn truncate_file(&self, file: &Arc<FileFd>, stat: &Stat, size: u64) -> Result<Stat> {
        let edit = self.shared().etags.begin_edit(file, stat);
        edit.write_content(|| Ok(()), || file.truncate(size))?;
        edit.settle()?;
        if self.is_synced() {
            file.sync()?;
        }
        Ok(file.stat()?)
    }

    /// Makes a hard link to a file.
    ///
    /// # Errors
    /// [`Error::Absent`], [`Error::NoParent`], [`Error::AlreadyExists`], [`Error::IsADirectory`], [`Error::Locked`];
    /// [`Error::Forbidden`], also when source and new folder are not under one grant.
    pub fn hard_link(&self, from: &TreePath, to: &TreePath, claim: &WriteConditions<'_>) -> Result<()> {
        let source = self.open_authorized(TreeOperation::Link, from, OpenMode::Path)?;
        let spot = self.check_hard_link(&source.path, &source.stat, to, claim)?;
        if self.limits_types() {
            self.check_file(&spot.name, &self.open_entry(from, Permission::RW, OpenMode::Read)?.file)?;
        }
        let _names = self.shared().path_locks.lock(&[&source.path, &spot.path]);
        let _steady = self.shared().locks.freeze();
        self.check_locks(&source.path, claim.lock_tokens)?;
        self.check_create(&spot, None, claim)?;
        source.file.hard_link(&spot.directory, &spot.name).map_err(Error::from_target_errno)?;
        self.sync_directory(&spot.directory)
    }

    /// Lets a file that stands at a canonical path, or will, get another name.
    ///
    /// # Errors
    /// As [`View::hard_link`].
    pub(in crate::tree) fn check_hard_link(
        &self,
        from: &TreePath,
        source: &Stat,
        to: &TreePath,
        claim: &WriteConditions<'_>,
    ) -> Result<EntrySlot> {
        if source.is_directory() {
            return Err(Error::IsADirectory);
        }
        let spot = self.create_slot(to)?;
        if !self.permissions_at(from)?.single_grant_covers(&spot.path, Permission::RW) {
            return Err(Error::Forbidden);
        }
        self.check_size(source.size)?;
        self.check_locks(from, claim.lock_tokens)?;
        self.check_create_locks(&spot, None, claim)?;
        if spot.stat()?.is_some() { Err(Error::AlreadyExists) } else { Ok(spot) }
    }

    /// Makes a symbolic link whose target is relative, climbs first and stays inside (see [`super::links`]).
    ///
    /// # Errors
    /// [`Error::Forbidden`] when it doesn't, or nothing may be made there; [`Error::NoParent`],
    /// [`Error::AlreadyExists`], [`Error::Locked`].
    pub fn symlink(&self, target: &[u8], path: &TreePath, claim: &WriteConditions<'_>) -> Result<()> {
        let spot = self.create_slot(path)?;
        self.check_new_link(&spot, target)?;
        let _name = self.shared().path_locks.lock(&[&spot.path]);
        let _steady = self.shared().locks.freeze();
        self.check_name_type(&spot.name)?;
        self.check_create(&spot, None, claim)?;
        self.create_link(&spot, target)?;
        self.sync_directory(&spot.directory)
    }

    /// Lets something be put at a spot, of which `replaced` stands there: to be asked under the name's
    /// commit lock, just before.
    pub(in crate::tree) fn check_create(
        &self,
        spot: &EntrySlot,
        replaced: Option<&Stat>,
        claim: &WriteConditions<'_>,
    ) -> Result<()> {
        match replaced.map(|stat| stat.kind) {
            Some(Some(EntryKind::Directory)) => return Err(Error::IsADirectory),
            Some(None) => return Err(Error::Forbidden),
            None if spot.existing_only => return Err(Error::Absent),
            Some(Some(EntryKind::File | EntryKind::Symlink)) | None => {}
        }
        self.check_create_locks(spot, replaced, claim)?;
        (claim.evaluate)()
    }

    /// Lets something be put at a spot as far as locks go.
    pub(in crate::tree) fn check_create_locks(
        &self,
        spot: &EntrySlot,
        replaced: Option<&Stat>,
        claim: &WriteConditions<'_>,
    ) -> Result<()> {
        if replaced.is_none() {
            self.check_locks(&spot.directory_path(), claim.lock_tokens)?;
        }
        self.check_locks(&spot.path, claim.lock_tokens)
    }
}
