//! What files must fit: the limits of the session's token and of all above it, asked wherever a file gets
//! content, a size or a name, whichever protocol it comes by.

use std::sync::Arc;

use super::View;
use crate::domain::{EntryName, FileTag, Permission, TreePath, UploadRule};
use crate::tree::authorize::EntrySlot;
use crate::tree::fs::{DirectoryFd, FileFd, OpenMode, Stat};
use crate::tree::media::{self, SNIFF_BYTES};
use crate::tree::{EntryKind, Error, Result};

impl View {
    /// Lets a file become `size` bytes large.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub fn check_size(&self, size: u64) -> Result<()> {
        match self.upload_rule().max_file_size() {
            Some(limit) if size > limit.bytes() => Err(self.audit_refused_upload(Error::TooLarge(limit))),
            Some(_) | None => Ok(()),
        }
    }

    /// Lets files be labelled with tags.
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

    /// Lets a name be given to a file that has no content yet, or to a link.
    ///
    /// # Errors
    /// [`Error::TypeNotAllowed`].
    pub(in crate::tree) fn check_name_type(&self, name: &EntryName) -> Result<()> {
        let rule = self.upload_rule();
        if rule.restricts_mime_types() {
            self.check_type_allowed(media::refused_type(&rule, name, &[]))
        } else {
            Ok(())
        }
    }

    /// Lets a file be called `name` as it is.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::TypeNotAllowed`].
    pub(in crate::tree) fn check_file(&self, name: &EntryName, file: &FileFd) -> Result<()> {
        if !self.limits_size() && !self.limits_types() {
            return Ok(());
        }
        let size = file.stat()?.size;
        self.check_size(size)?;
        self.check_content_type(name, file, size)
    }

    /// Lets a file be called `name` by its type, as it is with its first `size` bytes, or padded to that.
    ///
    /// # Errors
    /// [`Error::TypeNotAllowed`].
    pub(in crate::tree) fn check_content_type(&self, name: &EntryName, file: &FileFd, size: u64) -> Result<()> {
        let rule = self.upload_rule();
        if !rule.restricts_mime_types() {
            return Ok(());
        }
        let mut head = vec![0; usize::try_from(size).unwrap_or(SNIFF_BYTES).min(SNIFF_BYTES)];
        file.read_at(&mut head, 0)?;
        self.check_type_allowed(media::refused_type(&rule, name, &head))
    }

    /// Lets a file go on that has its first `size` bytes, though it is not whole.
    ///
    /// # Errors
    /// [`Error::TypeNotAllowed`].
    pub(in crate::tree) fn check_content_type_early(&self, name: &EntryName, file: &FileFd, size: u64) -> Result<()> {
        let rule = self.upload_rule();
        if !rule.restricts_mime_types() {
            return Ok(());
        }
        let mut head = vec![0; usize::try_from(size).unwrap_or(SNIFF_BYTES).min(SNIFF_BYTES)];
        file.read_at(&mut head, 0)?;
        self.check_type_allowed(media::refused_type_early(&rule, name, &head))
    }

    /// Lets what stands at a spot be called `name`, and all in it stay. Of what may not be read nothing is
    /// told, neither of its content nor of what is in it: there the new name is judged alone. Whatever
    /// was uploaded under the limits fitted by its content already.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::TypeNotAllowed`].
    pub(in crate::tree) fn check_move_limits(&self, source: &EntrySlot, stat: &Stat, name: &EntryName) -> Result<()> {
        if !self.limits_size() && !self.limits_types() {
            return Ok(());
        }
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
            Some(EntryKind::Symlink) => self.check_name_type(name),
            Some(EntryKind::Directory) | None => Ok(()),
        }
    }

    fn check_limits_below(&self, top: &DirectoryFd) -> Result<()> {
        self.walk_below(top, |directory, _, name, stat| self.check_entry_limits(directory, name, stat, name))
    }

    /// Shows each entry below a folder, as long as the session lives and the request was not cancelled: the folder that
    /// holds it, where that is from the top, its name and what it is.
    pub(super) fn walk_below(
        &self,
        top: &DirectoryFd,
        visit: impl FnMut(&DirectoryFd, &TreePath, &EntryName, &Stat) -> Result<()>,
    ) -> Result<()> {
        top.walk(|| self.cancellation().check().and_then(|()| Ok(self.session().access().map(drop)?)), visit)
    }

    fn check_type_allowed(&self, refused_type: Option<&'static str>) -> Result<()> {
        refused_type.map_or(Ok(()), |media_type| Err(self.audit_refused_upload(Error::TypeNotAllowed(media_type))))
    }

    /// Tells the audit trail of what does not fit.
    fn audit_refused_upload(&self, error: Error) -> Error {
        self.session().record_denial(&format!("upload: {error}"), None);
        error
    }

    fn upload_rule(&self) -> Arc<UploadRule> {
        self.session().upload_rule()
    }
}
