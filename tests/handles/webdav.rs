//! The model of the WebDAV client that works beside the SFTP sessions and sees committed files alone.

use crate::file_system::{InodeContent, InodeNumber, OperationRefused, PathLocation, Result};
use crate::handle_requests::UMASK;
use crate::locks::ModelLock;
use crate::model::{HandleModel, StepOutcome};
use crate::rules::PatgateRule;
use crate::steps::{PutCondition, WebDavRequest};
use crate::uploads::UploadState;

impl HandleModel {
    /// Carries a request out; `None` where it is left out, because its answer is not about files.
    pub(crate) fn web_dav(&mut self, request: &WebDavRequest) -> Option<Result<StepOutcome>> {
        let done = |result: Result<()>| Some(result.map(|()| StepOutcome::Done));
        match request {
            WebDavRequest::Put { path, data, condition } => done(self.put_content(path, data, *condition)),
            WebDavRequest::Move { from, to, overwrite } => done(self.move_entry(from, to, *overwrite)),
            WebDavRequest::Copy { from, to, overwrite } => done(self.copy_entry(from, to, *overwrite)),
            WebDavRequest::Delete { path } => done(self.delete(path)),
            WebDavRequest::Lock { path, deep } => done(self.lock(path, *deep)),
            WebDavRequest::Unlock { lock } => {
                let locks = &mut self.locks.0;
                if locks.is_empty() {
                    return None;
                }
                locks.remove(lock % locks.len());
                done(Ok(()))
            }
            WebDavRequest::Get { path } | WebDavRequest::Etag { path } => {
                let found = self.locate(None, path, true).and_then(|location| location.existing());
                if found.is_ok_and(|file| self.files.is_directory(file)) {
                    return None;
                }
                let etag = matches!(request, WebDavRequest::Etag { .. });
                Some(found.map(|file| match etag {
                    true => StepOutcome::Etag(file, self.files.inode(file).version),
                    false => StepOutcome::Data(self.files.content(file).to_vec()),
                }))
            }
        }
    }

    fn put_content(&mut self, path: &str, data: &str, condition: PutCondition) -> Result<()> {
        let location = self.locate(None, path, true)?;
        let condition_holds = match condition {
            PutCondition::None => true,
            PutCondition::Current => location.entry.is_some_and(|file| self.files.is_file(file)),
            PutCondition::Stale => false,
            PutCondition::Absent => location.entry.is_none(),
        };
        if !condition_holds || location.entry.is_some_and(|entry| self.files.is_directory(entry)) {
            return Err(OperationRefused);
        }
        self.may_put(&location)?;
        let replaced = location.entry.filter(|entry| self.files.is_file(*entry));
        let mode = replaced.map_or(0o666 & !UMASK, |file| self.files.inode(file).mode);
        let file = self.files.create(InodeContent::File(data.as_bytes().to_vec()), mode);
        self.replace_entry(&location, file);
        Ok(())
    }

    /// Checks that a MOVE or COPY may put something at a location.
    fn may_overwrite(&self, to: &PathLocation, overwrite: bool) -> Result<()> {
        self.may_change_entry(to.directory, &to.name)?;
        match to.entry {
            Some(_) if !overwrite => Err(OperationRefused),
            Some(replaced) => self.may_remove_all(replaced),
            None => Ok(()),
        }
    }

    /// Checks that no upload is under way in or below what is removed.
    fn may_remove_all(&self, number: InodeNumber) -> Result<()> {
        let mut named = self.uploads.iter().filter(|upload| upload.state == UploadState::Named);
        let busy = self.files.is_directory(number)
            && named.any(|upload| self.files.is_within(upload.location.directory, number));
        if busy && self.has(PatgateRule::BusyDirectory) { Err(OperationRefused) } else { Ok(()) }
    }

    fn move_entry(&mut self, from: &str, to: &str, overwrite: bool) -> Result<()> {
        let from = self.locate(None, from, false)?;
        let to = self.locate(None, to, false)?;
        let moved = from.existing()?;
        self.may_not_overlap(&from, moved, &to)?;
        self.may_change_entry(from.directory, &from.name)?;
        self.may_overwrite(&to, overwrite)?;
        if to.entry == Some(moved) {
            self.rename_handles(&from, None);
            self.files.remove(from.directory, &from.name);
        } else {
            self.unlink_all(&to);
            self.files.remove(from.directory, &from.name);
            self.rename_handles(&from, Some(&to));
            self.files.insert(to.directory, &to.name, moved);
        }
        Ok(())
    }

    /// Checks that neither of two locations is, or lies within, the other.
    fn may_not_overlap(&self, from: &PathLocation, source: InodeNumber, to: &PathLocation) -> Result<()> {
        let same = from.directory == to.directory && from.name == to.name;
        let into_itself = self.files.is_within(to.directory, source);
        let replaces_above = to.entry.is_some_and(|target| self.files.is_within(from.directory, target));
        if same || into_itself || replaces_above { Err(OperationRefused) } else { Ok(()) }
    }

    /// Removes an entry with all that is in it.
    fn unlink_all(&mut self, location: &PathLocation) {
        self.rename_handles(location, None);
        let Some(entry) = self.files.remove(location.directory, &location.name) else { return };
        for name in self.files.entries(entry).into_keys() {
            self.unlink_all(&PathLocation { directory: entry, name, entry: None });
        }
    }

    fn copy_entry(&mut self, from: &str, to: &str, overwrite: bool) -> Result<()> {
        let from = self.locate(None, from, true)?;
        let to = self.locate(None, to, false)?;
        let source = from.existing()?;
        self.may_not_overlap(&from, source, &to)?;
        self.may_overwrite(&to, overwrite)?;
        let copy = self.copy_below(source, 0);
        if self.files.is_directory(copy) || to.entry.is_some_and(|entry| self.files.is_directory(entry)) {
            self.unlink_all(&to);
        }
        self.replace_entry(&to, copy);
        Ok(())
    }

    /// Copies an inode, and what is below it but for links that lead out of the copy.
    fn copy_below(&mut self, source: InodeNumber, depth: usize) -> InodeNumber {
        let inode = self.files.inode(source).clone();
        let InodeContent::Directory { entries, parent } = inode.content else {
            return self.files.create(inode.content, inode.mode);
        };
        let empty = InodeContent::Directory { entries: Default::default(), parent };
        let copy = self.files.create(empty, inode.mode);
        for (name, entry) in entries {
            let leads_out = match &self.files.inode(entry).content {
                InodeContent::Link(target) => target.starts_with("..") && depth == 0,
                InodeContent::File(_) | InodeContent::Directory { .. } => false,
            };
            if !leads_out {
                let below = self.copy_below(entry, depth + 1);
                self.files.insert(copy, &name, below);
            }
        }
        copy
    }

    fn delete(&mut self, path: &str) -> Result<()> {
        let location = self.locate(None, path, false)?;
        let entry = location.existing()?;
        self.may_change_entry(location.directory, &location.name)?;
        self.may_remove_all(entry)?;
        self.unlink_all(&location);
        Ok(())
    }

    /// Locks a path exclusively; creates an empty file if there is none.
    fn lock(&mut self, path: &str, deep: bool) -> Result<()> {
        let location = self.locate(None, path, true)?;
        let PathLocation { directory, name, entry } = &location;
        let below = entry.filter(|entry| deep && self.files.is_directory(*entry));
        let conflicts = self.is_covered(*directory, name) || below.is_some_and(|below| self.contains_lock(below));
        if conflicts {
            return Err(OperationRefused);
        }
        // What an edit wrote before the lock has its ETag from then on.
        for number in 0..self.files.inode_count() {
            self.bump_etag(number);
        }
        if entry.is_none() {
            self.may_change_entry(*directory, name)?;
            let file = self.files.create(InodeContent::File(Vec::new()), 0o666 & !UMASK);
            self.files.insert(*directory, name, file);
        }
        self.locks.0.push(ModelLock { directory: *directory, name: name.clone(), deep });
        Ok(())
    }
}
