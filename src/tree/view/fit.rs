//! What files must fit: the limits of the session's token and of all above it, asked wherever a file gets
//! content, a size or a name, whichever protocol it comes by.

use std::sync::Arc;

use super::View;
use crate::domain::{EntryName, FileTag, Permission, TreePath, UploadRule};
use crate::tree::check::Spot;
use crate::tree::host::{File, Folder, How, Stat};
use crate::tree::media::{self, HEAD};
use crate::tree::{Error, Kind, Result};

impl View {
    /// Lets a file become `size` bytes large.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub fn may_hold(&self, size: u64) -> Result<()> {
        match self.rule().max_file_size() {
            Some(most) if size > most.bytes() => Err(self.refused(Error::TooLarge(most))),
            Some(_) | None => Ok(()),
        }
    }

    /// Lets files be labelled with tags.
    ///
    /// # Errors
    /// [`Error::WrongTag`].
    pub fn may_label(&self, tags: &[FileTag]) -> Result<()> {
        match self.rule().first_denied_tag(tags) {
            Some(tag) => Err(self.refused(Error::WrongTag(tag.clone()))),
            None => Ok(()),
        }
    }

    /// Tells whether the token limits the size of files.
    pub(in crate::tree) fn limits_size(&self) -> bool {
        self.rule().max_file_size().is_some()
    }

    /// Tells whether the token limits the types of files.
    pub(in crate::tree) fn limits_types(&self) -> bool {
        self.rule().restricts_mime_types()
    }

    /// Tells whether the token limits the tags of files.
    pub(in crate::tree) fn limits_tags(&self) -> bool {
        self.rule().restricts_tags()
    }

    /// Lets a name be given to a file that has no content yet, or to a link.
    ///
    /// # Errors
    /// [`Error::WrongType`].
    pub(in crate::tree) fn fits_name(&self, name: &EntryName) -> Result<()> {
        let rule = self.rule();
        if rule.restricts_mime_types() { self.allowed(media::refused(&rule, name, &[])) } else { Ok(()) }
    }

    /// Lets a file be called `name` as it is.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::WrongType`].
    pub(in crate::tree) fn fits(&self, name: &EntryName, file: &File) -> Result<()> {
        if !self.limits_size() && !self.limits_types() {
            return Ok(());
        }
        let size = file.stat()?.size;
        self.may_hold(size)?;
        self.fits_type(name, file, size)
    }

    /// Lets a file be called `name` by its type, as it is with its first `size` bytes, or padded to that.
    ///
    /// # Errors
    /// [`Error::WrongType`].
    pub(in crate::tree) fn fits_type(&self, name: &EntryName, file: &File, size: u64) -> Result<()> {
        let rule = self.rule();
        if !rule.restricts_mime_types() {
            return Ok(());
        }
        let mut head = vec![0; usize::try_from(size).unwrap_or(HEAD).min(HEAD)];
        file.read_at(&mut head, 0)?;
        self.allowed(media::refused(&rule, name, &head))
    }

    /// Lets a file go on that has its first `size` bytes, though it is not whole.
    ///
    /// # Errors
    /// [`Error::WrongType`].
    pub(in crate::tree) fn fits_so_far(&self, name: &EntryName, file: &File, size: u64) -> Result<()> {
        let rule = self.rule();
        if !rule.restricts_mime_types() {
            return Ok(());
        }
        let mut head = vec![0; usize::try_from(size).unwrap_or(HEAD).min(HEAD)];
        file.read_at(&mut head, 0)?;
        self.allowed(media::refused_early(&rule, name, &head))
    }

    /// Lets what stands at a spot be called `name`, and all in it stay. Of what may not be read nothing is
    /// told, neither of its content nor of what is in it: there the new name is judged alone. Whatever
    /// was uploaded under the limits fitted by its content already.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::WrongType`].
    pub(in crate::tree) fn fits_move(&self, source: &Spot, stat: &Stat, name: &EntryName) -> Result<()> {
        if !self.limits_size() && !self.limits_types() {
            return Ok(());
        }
        let readable = source.permission.allows(Permission::R);
        match stat.kind {
            Some(Kind::Folder) if readable => {
                self.fit_below(&source.folder.folder(&TreePath::root().child(&source.name))?)
            }
            Some(Kind::Folder) => Ok(()),
            Some(Kind::File) if !readable => self.may_hold(stat.size).and_then(|()| self.fits_name(name)),
            Some(Kind::File | Kind::Link) | None => self.fits_entry(&source.folder, &source.name, stat, name),
        }
    }

    fn fits_entry(&self, folder: &Folder, entry: &EntryName, stat: &Stat, name: &EntryName) -> Result<()> {
        match stat.kind {
            Some(Kind::File) if self.limits_types() => self.fits(name, &folder.open(entry, How::Read)?),
            Some(Kind::File) => self.may_hold(stat.size),
            Some(Kind::Link) => self.fits_name(name),
            Some(Kind::Folder) | None => Ok(()),
        }
    }

    fn fit_below(&self, top: &Folder) -> Result<()> {
        self.each_below(top, |folder, _, name, stat| self.fits_entry(folder, name, stat, name))
    }

    /// Shows each entry below a folder, as long as the session lives and the request was not cancelled: the folder that
    /// holds it, where that is from the top, its name and what it is.
    pub(super) fn each_below(
        &self,
        top: &Folder,
        show: impl FnMut(&Folder, &TreePath, &EntryName, &Stat) -> Result<()>,
    ) -> Result<()> {
        top.each_below(|| self.cancellation().check().and_then(|()| Ok(self.session().access().map(drop)?)), show)
    }

    fn allowed(&self, refused: Option<&'static str>) -> Result<()> {
        refused.map_or(Ok(()), |kind| Err(self.refused(Error::WrongType(kind))))
    }

    /// Tells the audit trail of what does not fit.
    fn refused(&self, error: Error) -> Error {
        self.session().record_denial(&format!("upload: {error}"), None);
        error
    }

    fn rule(&self) -> Arc<UploadRule> {
        self.session().upload_rule()
    }
}
