//! The model of the WebDAV client that works beside the sessions, and sees what everybody sees.

use crate::descriptions::UMASK;
use crate::file_system::{Content, InodeNumber, Location, Refused, Result};
use crate::locks::Lock;
use crate::model::{Model, Outcome};
use crate::operations::{Condition, WebDav};
use crate::rules::Rule;
use crate::uploads::UploadState;

impl Model {
    /// Carries a request out; `None` where it is left out, because its answer is not about files.
    pub(crate) fn web_dav(&mut self, request: &WebDav) -> Option<Result<Outcome>> {
        let done = |result: Result<()>| Some(result.map(|()| Outcome::Done));
        match request {
            WebDav::Put { path, data, condition } => done(self.put_content(path, data, *condition)),
            WebDav::Move { from, to, overwrite } => done(self.move_entry(from, to, *overwrite)),
            WebDav::Copy { from, to, overwrite } => done(self.copy_entry(from, to, *overwrite)),
            WebDav::Delete { path } => done(self.delete(path)),
            WebDav::Lock { path, deep } => done(self.lock(path, *deep)),
            WebDav::Unlock { lock } => {
                let locks = &mut self.locks.0;
                if locks.is_empty() {
                    return None;
                }
                locks.remove(lock % locks.len());
                done(Ok(()))
            }
            WebDav::Get { path } | WebDav::Etag { path } => {
                let found = self.locate(None, path, true).and_then(|location| location.existing());
                if found.is_ok_and(|file| self.files.is_directory(file)) {
                    return None;
                }
                let etag = matches!(request, WebDav::Etag { .. });
                Some(found.map(|file| match etag {
                    true => Outcome::Etag(file, self.files.inode(file).version),
                    false => Outcome::Data(self.files.content(file).to_vec()),
                }))
            }
        }
    }

    fn put_content(&mut self, path: &str, data: &str, condition: Condition) -> Result<()> {
        let location = self.locate(None, path, true)?;
        let holds = match condition {
            Condition::None => true,
            Condition::Current => location.entry.is_some_and(|file| self.files.is_file(file)),
            Condition::Stale => false,
            Condition::Absent => location.entry.is_none(),
        };
        if !holds || location.entry.is_some_and(|entry| self.files.is_directory(entry)) {
            return Err(Refused);
        }
        self.may_put(&location)?;
        let replaced = location.entry.filter(|entry| self.files.is_file(*entry));
        let mode = replaced.map_or(0o666 & !UMASK, |file| self.files.inode(file).mode);
        let file = self.files.create(Content::File(data.as_bytes().to_vec()), mode);
        self.put(&location, file);
        Ok(())
    }

    /// Checks that a MOVE or COPY may put something at a location.
    fn may_overwrite(&self, to: &Location, overwrite: bool) -> Result<()> {
        self.may_change_entry(to.directory, &to.name)?;
        match to.entry {
            Some(_) if !overwrite => Err(Refused),
            Some(replaced) => self.may_remove_all(replaced),
            None => Ok(()),
        }
    }

    /// Checks that no upload is under way in or below what is removed.
    fn may_remove_all(&self, number: InodeNumber) -> Result<()> {
        let mut named = self.uploads.iter().filter(|upload| upload.state == UploadState::Named);
        let busy = self.files.is_directory(number)
            && named.any(|upload| self.files.is_within(upload.location.directory, number));
        if busy && self.has(Rule::BusyDirectory) { Err(Refused) } else { Ok(()) }
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
    fn may_not_overlap(&self, from: &Location, source: InodeNumber, to: &Location) -> Result<()> {
        let same = from.directory == to.directory && from.name == to.name;
        let into_itself = self.files.is_within(to.directory, source);
        let replaces_above = to.entry.is_some_and(|target| self.files.is_within(from.directory, target));
        if same || into_itself || replaces_above { Err(Refused) } else { Ok(()) }
    }

    /// Removes an entry with all that is in it.
    fn unlink_all(&mut self, location: &Location) {
        self.rename_handles(location, None);
        let Some(entry) = self.files.remove(location.directory, &location.name) else { return };
        for name in self.files.entries(entry).into_keys() {
            self.unlink_all(&Location { directory: entry, name, entry: None });
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
        self.put(&to, copy);
        Ok(())
    }

    /// Copies an inode, and what is below it but for links that lead out of the copy.
    fn copy_below(&mut self, source: InodeNumber, depth: usize) -> InodeNumber {
        let inode = self.files.inode(source).clone();
        let Content::Directory { entries, parent } = inode.content else {
            return self.files.create(inode.content, inode.mode);
        };
        let empty = Content::Directory { entries: Default::default(), parent };
        let copy = self.files.create(empty, inode.mode);
        for (name, entry) in entries {
            let leads_out = match &self.files.inode(entry).content {
                Content::Link(target) => target.starts_with("..") && depth == 0,
                Content::File(_) | Content::Directory { .. } => false,
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

    /// Takes an exclusive lock; makes an empty file where nothing is.
    fn lock(&mut self, path: &str, deep: bool) -> Result<()> {
        let location = self.locate(None, path, true)?;
        let Location { directory, name, entry } = &location;
        let below = entry.filter(|entry| deep && self.files.is_directory(*entry));
        let conflicts = self.is_covered(*directory, name) || below.is_some_and(|below| self.holds_locked(below));
        if conflicts {
            return Err(Refused);
        }
        // What an edit wrote before the lock has its ETag from then on.
        for number in 0..self.files.count() {
            self.finish_edit(number);
        }
        if entry.is_none() {
            self.may_change_entry(*directory, name)?;
            let file = self.files.create(Content::File(Vec::new()), 0o666 & !UMASK);
            self.files.insert(*directory, name, file);
        }
        self.locks.0.push(Lock { directory: *directory, name: name.clone(), deep });
        Ok(())
    }
}
