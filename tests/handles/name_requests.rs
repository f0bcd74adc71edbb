//! The model of SFTP requests that change names, or attributes by name.

use crate::file_system::{InodeContent, InodeNumber, ModificationTime, OperationRefused, PathLocation, Result};
use crate::handle_requests::UMASK;
use crate::model::HandleModel;
use crate::rules::PatgateRule;
use crate::steps::AttributeChange;

impl HandleModel {
    pub(crate) fn set_attributes(&mut self, session: usize, path: &str, change: AttributeChange) -> Result<()> {
        let file = self.locate(Some(session), path, true)?.existing()?;
        let resizable = self.files.is_file(file) && (self.upload_of(file).is_some() || self.may_write(file));
        let result = if change.size.is_some() && !resizable { Err(OperationRefused) } else { Ok(()) };
        self.may_change_file(file)?;
        if let Some(size) = change.size.filter(|_| resizable) {
            let same = size == self.files.size(file);
            let modified = self.files.inode(file).modified;
            self.files.truncate(file, size);
            if !same {
                self.bump_etag(file);
            }
            if same && modified != ModificationTime::Recent {
                // truncate(2) that changes nothing moves the time on some file systems.
                self.files.inode_mut(file).modified = ModificationTime::Unknown;
            }
        }
        self.set_mode_and_time(file, change);
        result
    }

    pub(crate) fn set_link_attributes(&mut self, session: usize, path: &str, change: AttributeChange) -> Result<()> {
        let file = self.locate(Some(session), path, false)?.existing()?;
        let is_link = matches!(self.files.inode(file).content, InodeContent::Link(_));
        let result = if change.mode.is_some() && is_link { Err(OperationRefused) } else { Ok(()) };
        self.may_change_file(file)?;
        self.set_mode_and_time(file, change);
        result
    }

    pub(crate) fn rename(&mut self, session: usize, from: &str, to: &str) -> Result<()> {
        let from = self.locate(Some(session), from, false)?;
        let entry = from.existing()?;
        // OpenSSH links and unlinks a file; for anything else it asks whether the new path leads somewhere.
        let target = self.locate(Some(session), to, false)?;
        if self.files.is_file(entry) || self.has(PatgateRule::RenameNeverReplaces) {
            if target.entry.is_some() {
                return Err(OperationRefused);
            }
        } else if self.locate(Some(session), to, true).is_ok_and(|target| target.entry.is_some()) {
            return Err(OperationRefused);
        }
        self.relocate(session, &from, &target)
    }

    pub(crate) fn posix_rename(&mut self, session: usize, from: &str, to: &str) -> Result<()> {
        let from = self.locate(Some(session), from, false)?;
        let to = self.locate(Some(session), to, false)?;
        self.relocate(session, &from, &to)
    }

    /// Renames as rename(2) does.
    fn relocate(&mut self, session: usize, from: &PathLocation, to: &PathLocation) -> Result<()> {
        let entry = from.existing()?;
        if (from.directory, &from.name) == (to.directory, &to.name) {
            return Ok(());
        }
        if to.entry == Some(entry) {
            // Two names of one file stay, but a lock on either refuses the request all the same.
            return self.may_relocate_locked(from, to);
        }
        let is_directory = self.files.is_directory(entry);
        if is_directory && self.files.is_within(to.directory, entry) {
            return Err(OperationRefused);
        }
        if let Some(replaced) = to.entry {
            self.may_replace(session, replaced, is_directory)?;
        }
        self.may_relocate_locked(from, to)?;
        self.commit_early(session, from)?;
        self.drop_name_of_upload(session, to);
        // A copy that had nothing to commit is the file that was copied.
        let entry = self.files.remove(from.directory, &from.name).ok_or(OperationRefused)?;
        self.rename_handles(to, None);
        self.rename_handles(from, Some(to));
        self.files.insert(to.directory, &to.name, entry);
        Ok(())
    }

    /// Checks that a rename may put something in the place of an entry.
    fn may_replace(&self, session: usize, replaced: InodeNumber, by_directory: bool) -> Result<()> {
        let fits = by_directory == self.files.is_directory(replaced);
        let empty = self.visible_names(Some(session), replaced).is_empty() && self.files.entries(replaced).is_empty();
        if !fits || !empty || self.has_open_upload(replaced) {
            return Err(OperationRefused);
        }
        Ok(())
    }

    pub(crate) fn hard_link(&mut self, session: usize, from: &str, to: &str) -> Result<()> {
        let from = self.locate(Some(session), from, self.has(PatgateRule::HardLinkFollows))?;
        let to = self.locate(Some(session), to, false)?;
        let entry = from.existing()?;
        if to.entry.is_some() || self.files.is_directory(entry) {
            return Err(OperationRefused);
        }
        if self.is_covered(from.directory, &from.name) {
            return Err(OperationRefused);
        }
        self.may_change_entry(to.directory, &to.name)?;
        self.commit_early(session, &from)?;
        let entry = self.files.entry(from.directory, &from.name).ok_or(OperationRefused)?;
        self.files.insert(to.directory, &to.name, entry);
        Ok(())
    }

    pub(crate) fn symbolic_link(&mut self, session: usize, target: &str, path: &str) -> Result<()> {
        let location = self.locate(Some(session), path, false)?;
        if location.entry.is_some() {
            return Err(OperationRefused);
        }
        if target.starts_with('/') && self.has(PatgateRule::LinksCannotEscape) {
            return Err(OperationRefused);
        }
        self.may_change_entry(location.directory, &location.name)?;
        let link = self.files.create(InodeContent::Link(target.to_owned()), 0o777);
        self.files.insert(location.directory, &location.name, link);
        Ok(())
    }

    pub(crate) fn remove(&mut self, session: usize, path: &str) -> Result<()> {
        let location = self.locate(Some(session), path, false)?;
        if self.files.is_directory(location.existing()?) {
            return Err(OperationRefused);
        }
        // What only the session itself sees is in nobody's directory yet: no lock binds it.
        if self.files.entry(location.directory, &location.name).is_some() {
            self.may_change_entry(location.directory, &location.name)?;
        }
        self.drop_name_of_upload(session, &location);
        self.rename_handles(&location, None);
        self.files.remove(location.directory, &location.name);
        Ok(())
    }

    pub(crate) fn make_directory(&mut self, session: usize, path: &str, mode: Option<u32>) -> Result<()> {
        let location = self.locate(Some(session), path, false)?;
        if location.entry.is_some() {
            return Err(OperationRefused);
        }
        self.may_change_entry(location.directory, &location.name)?;
        let content = InodeContent::Directory { entries: Default::default(), parent: location.directory };
        let directory = self.files.create(content, mode.unwrap_or(0o777) & 0o777 & !UMASK);
        self.files.insert(location.directory, &location.name, directory);
        Ok(())
    }

    pub(crate) fn remove_directory(&mut self, session: usize, path: &str) -> Result<()> {
        let location = self.locate(Some(session), path, false)?;
        let directory = location.existing()?;
        let empty = self.files.entries(directory).is_empty();
        if !self.files.is_directory(directory) || !empty || self.has_open_upload(directory) {
            return Err(OperationRefused);
        }
        self.may_change_entry(location.directory, &location.name)?;
        self.files.remove(location.directory, &location.name);
        Ok(())
    }
}
