//! Upload limits: the limits of the session's token and of its parents, checked wherever a file gets content, a size or
//! a name, over every protocol.

use std::sync::Arc;

use super::View;
use crate::domain::{EntryName, FileTag, Permission, TreePath, UploadRule};
use crate::tree::authorize::EntrySlot;
use crate::tree::fs::{DirectoryFd, FileFd, OpenMode, Stat};
use crate::tree::media::{self, SNIFF_BYTES};
use crate::tree::{EntryKind, Error, Result};

impl View {
    /// Checks a file's size against the limits.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub fn check_size(&self, size: u64) -> Result<()> {
        match self.upload_rule().max_file_size() {
            Some(limit) if size > limit.bytes() => Err(self.audit_refused_upload(Error::TooLarge(limit))),
            Some(_) | None => Ok(()),
        }
    }

    /// Checks tags against the limits.
    ///
    /// # Errors
    /// [`Error::TagNotAllowed`].
    pub fn check_tags(&self, tags: &[FileTag]) -> Result<()> {
        match self.upload_rule().first_denied_tag(tags) {
            Some(tag) => Err(self.audit_refused_upload(Error::TagNotAllowed(tag.clone()))),
            None => Ok(()),
        }
    }

    /// Tells whether the token limits the size of files.
    pub(in crate::tree) fn limits_size(&self) -> bool {
        self.upload_rule().max_file_size().is_some()
    }

    /// Tells whether the token limits the types of files.
    pub(in crate::tree) fn limits_types(&self) -> bool {
        self.upload_rule().restricts_mime_types()
    }

    /// Tells whether the token limits the tags of files.
    pub(in crate::tree) fn limits_tags(&self) -> bool {
        self.upload_rule().restricts_tags()
    }

    /// Checks a name, of a file without content or of a link, against the limits.
    ///
    /// # Errors
    /// [`Error::TypeNotAllowed`].
    pub(in crate::tree) fn check_name_type(&self, name: &EntryName) -> Result<()> {
        let rule = self.upload_rule();
        if rule.restricts_mime_types() {
            // No content yet: the name decides.
            self.check_type_allowed(media::refused_type(&rule, name, &[]))
        } else {
            Ok(())
        }
    }

    /// Checks size and type of a file that is to have the name `name`.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::TypeNotAllowed`].
    pub(in crate::tree) fn check_file(&self, name: &EntryName, file: &FileFd) -> Result<()> {
        // The usual token has no limits, and pays nothing.
        let rule = self.upload_rule();
        if rule.max_file_size().is_none() && !rule.restricts_mime_types() {
            return Ok(());
        }
        let size = file.stat()?.size;
        self.check_size(size)?;
        self.check_content_type(name, file, size)
    }

    /// Checks the type of a file that is to have the name `name`, by its first `size` bytes, or padded to that size.
    ///
    /// # Errors
    /// [`Error::TypeNotAllowed`].
    pub(in crate::tree) fn check_content_type(&self, name: &EntryName, file: &FileFd, size: u64) -> Result<()> {
        self.check_type_of_content(name, file, size, media::refused_type)
    }

    /// Checks the type of an incomplete file, of which the first `size` bytes are there.
    ///
    /// # Errors
    /// [`Error::TypeNotAllowed`].
    pub(in crate::tree) fn check_content_type_early(&self, name: &EntryName, file: &FileFd, size: u64) -> Result<()> {
        self.check_type_of_content(name, file, size, media::refused_type_early)
    }

    fn check_type_of_content(
        &self,
        name: &EntryName,
        file: &FileFd,
        size: u64,
        refused_type: fn(&UploadRule, &EntryName, &[u8]) -> Option<&'static str>,
    ) -> Result<()> {
        let rule = self.upload_rule();
        if !rule.restricts_mime_types() {
            return Ok(());
        }
        // Zeros where `size` is beyond the end, as truncate(2) will write them.
        let mut head = vec![0; usize::try_from(size).unwrap_or(SNIFF_BYTES).min(SNIFF_BYTES)];
        file.read_at(&mut head, 0)?;
        self.check_type_allowed(refused_type(&rule, name, &head))
    }

    /// Checks an entry that is to have the name `name`, and everything below it. For an entry that the session may not
    /// read, only size and new name of a file are checked: a refusal would reveal its content. Uploads under the limits
    /// were checked by content before.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::TypeNotAllowed`].
    pub(in crate::tree) fn check_move_limits(&self, source: &EntrySlot, stat: &Stat, name: &EntryName) -> Result<()> {
        if !self.limits_size() && !self.limits_types() {
            return Ok(());
        }
        // A refusal would tell of content: without `r` only what the client sees or chooses itself is checked.
        let readable = source.permission.allows(Permission::R);
        match stat.kind {
            Some(EntryKind::Directory) if readable => {
                self.check_limits_below(&source.directory.open_directory(&TreePath::root().child(&source.name))?)
            }
            Some(EntryKind::Directory) => Ok(()),
            Some(EntryKind::File) if !readable => self.check_size(stat.size).and_then(|()| self.check_name_type(name)),
            Some(EntryKind::File | EntryKind::Symlink) | None => {
                self.check_entry_limits(&source.directory, &source.name, stat, name)
            }
        }
    }

    fn check_entry_limits(
        &self,
        directory: &DirectoryFd,
        entry: &EntryName,
        stat: &Stat,
        name: &EntryName,
    ) -> Result<()> {
        match stat.kind {
            Some(EntryKind::File) if self.limits_types() => {
                self.check_file(name, &directory.open(entry, OpenMode::Read)?)
            }
            Some(EntryKind::File) => self.check_size(stat.size),
            // A link has no content, but its name decides what a client takes it for.
            Some(EntryKind::Symlink) => self.check_name_type(name),
            Some(EntryKind::Directory) | None => Ok(()),
        }
    }

    fn check_limits_below(&self, top: &DirectoryFd) -> Result<()> {
        self.walk_subtree(top, |directory, _, name, stat| match self.check_entry_limits(directory, name, stat, name) {
            // Removed since its metadata was read: it is not moved, so no limit applies.
            Err(Error::Absent) => Ok(()),
            checked => checked,
        })
    }

    fn check_type_allowed(&self, refused_type: Option<&'static str>) -> Result<()> {
        refused_type.map_or(Ok(()), |media_type| Err(self.audit_refused_upload(Error::TypeNotAllowed(media_type))))
    }

    /// Records a refused upload in the audit trail.
    pub(super) fn audit_refused_upload(&self, error: Error) -> Error {
        self.session().record_denial(&format!("upload: {error}"), None);
        error
    }

    fn upload_rule(&self) -> Arc<UploadRule> {
        self.session().upload_rule()
    }
}
