//! The model of WebDAV locks and of the requests that they refuse.

use crate::file_system::{InodeNumber, OperationRefused, PathLocation, ROOT, Result};
use crate::model::HandleModel;
use crate::rules::PatgateRule;
use crate::uploads::UploadState;

/// An exclusive lock on a location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelLock {
    pub(crate) directory: InodeNumber,
    pub(crate) name: String,
    pub(crate) deep: bool,
}

/// The locks in force, in the order in which they were taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct ModelLocks(pub(crate) Vec<ModelLock>);

impl HandleModel {
    fn binding_locks(&self) -> &[ModelLock] {
        if self.has(PatgateRule::LocksApplyToSftp) { &self.locks.0 } else { &[] }
    }

    /// Tells whether a lock covers a location: its own, or a deep one above.
    pub(crate) fn is_covered(&self, directory: InodeNumber, name: &str) -> bool {
        let covers = |lock: &ModelLock| {
            let is_own_lock = lock.directory == directory && lock.name == name;
            let root = self.files.entry(lock.directory, &lock.name);
            is_own_lock || lock.deep && root.is_some_and(|root| self.files.is_within(directory, root))
        };
        self.binding_locks().iter().any(covers)
    }

    /// Tells whether a directory is locked itself, at any depth.
    fn is_locked_directory(&self, directory: InodeNumber) -> bool {
        let locks_it = |lock: &ModelLock| {
            let root = self.files.entry(lock.directory, &lock.name);
            root.is_some_and(|root| root == directory || lock.deep && self.files.is_within(directory, root))
        };
        self.binding_locks().iter().any(locks_it)
    }

    /// Tells whether a lock is on something below a directory.
    pub(crate) fn contains_lock(&self, directory: InodeNumber) -> bool {
        self.binding_locks().iter().any(|lock| self.files.is_within(lock.directory, directory))
    }

    /// Checks that an entry may be made or removed.
    pub(crate) fn may_change_entry(&self, directory: InodeNumber, name: &str) -> Result<()> {
        let below = self.files.entry(directory, name).filter(|entry| self.files.is_directory(*entry));
        let locked = self.is_covered(directory, name)
            || self.is_locked_directory(directory)
            || below.is_some_and(|below| self.contains_lock(below));
        if locked { Err(OperationRefused) } else { Ok(()) }
    }

    /// Checks that an upload may go to a location: one that is free, or where there is a file.
    pub(crate) fn may_put(&self, location: &PathLocation) -> Result<()> {
        let entry = self.files.entry(location.directory, &location.name);
        let locked = self.is_covered(location.directory, &location.name)
            || entry.is_none() && self.is_locked_directory(location.directory);
        if locked { Err(OperationRefused) } else { Ok(()) }
    }

    /// Checks that both ends of a rename may change.
    pub(crate) fn may_relocate_locked(&self, from: &PathLocation, to: &PathLocation) -> Result<()> {
        self.may_change_entry(from.directory, &from.name)?;
        self.may_change_entry(to.directory, &to.name)
    }

    /// Checks that a file may be changed: no lock covers one of its names, or the location of the upload that it is.
    pub(crate) fn may_change_file(&self, file: InodeNumber) -> Result<()> {
        if let Some(upload) = self.upload_of(file) {
            let upload = &self.uploads[upload];
            let refused = match upload.state {
                UploadState::Named => self.is_covered(upload.location.directory, &upload.location.name),
                UploadState::Superseded => true,
                UploadState::Nameless | UploadState::Ended => false,
            };
            return if refused { Err(OperationRefused) } else { Ok(()) };
        }
        let mut directories = vec![ROOT];
        while let Some(directory) = directories.pop() {
            for (name, entry) in self.files.entries(directory) {
                if entry == file && self.is_covered(directory, &name) {
                    return Err(OperationRefused);
                }
                if self.files.is_directory(entry) {
                    directories.push(entry);
                }
            }
        }
        Ok(())
    }
}
