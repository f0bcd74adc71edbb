//! Changes of files under the storage quotas of the session and of everybody whose files they are.

use super::View;
use crate::domain::{QuotaSpace, StorageAccount, TreePath};
use crate::tree::authorize::EntrySlot;
use crate::tree::byte_change::ByteChange;
use crate::tree::fs::{DirectoryFd, FileFd, ServedFs, StagedEntry, Stat};
use crate::tree::storage_ledger::{ChargedSession, OpenChange};
use crate::tree::{EntryKind, Error, FilesystemSpace, Result};

/// Whether a change is refused where it would exceed a quota of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tree) enum QuotaCheck {
    /// It is refused.
    Enforced,
    /// It is recorded only: it takes back an earlier change.
    Recorded,
}

/// A path where files change, and an open entry by which it is known whether the change was made there: another session
/// may have moved or removed a directory above meanwhile.
#[derive(Clone, Copy)]
pub(in crate::tree) struct ChangedPlace<'a> {
    path: &'a TreePath,
    anchor: PlaceAnchor<'a>,
}

#[derive(Clone, Copy)]
enum PlaceAnchor<'a> {
    /// Directory that has the changed entry.
    Parent(&'a DirectoryFd),
    /// The changed file itself.
    File(&'a FileFd),
}

impl<'a> ChangedPlace<'a> {
    /// Returns the place of an entry in an open directory.
    pub(in crate::tree) fn in_directory(path: &'a TreePath, directory: &'a DirectoryFd) -> Self {
        Self { path, anchor: PlaceAnchor::Parent(directory) }
    }

    /// Returns the place of an open file.
    pub(in crate::tree) fn of_file(path: &'a TreePath, file: &'a FileFd) -> Self {
        Self { path, anchor: PlaceAnchor::File(file) }
    }

    /// Tells whether the open entry is at this path.
    fn is_current(&self, fs: &ServedFs) -> bool {
        match self.anchor {
            PlaceAnchor::Parent(directory) => {
                fs.path_of_fd(directory).is_some_and(|found| found == self.path.parent().unwrap_or_default())
            }
            PlaceAnchor::File(file) => fs.path_of_fd(file).is_some_and(|found| found == *self.path),
        }
    }
}

impl EntrySlot {
    /// Returns the place of the slot's entry.
    pub(in crate::tree) fn place(&self) -> ChangedPlace<'_> {
        ChangedPlace::in_directory(&self.path, &self.directory)
    }
}

impl View {
    /// Carries out a change of files: what grows is charged before, what shrinks after the effect. Without a quota on
    /// any of the paths, this is the effect alone. `changes` looks at the sizes, which stay the same until the effect.
    ///
    /// # Errors
    /// [`Error::StorageQuotaExceeded`], without the effect; and those of the effect.
    pub(in crate::tree) fn with_byte_changes<'p, T>(
        &self,
        check: QuotaCheck,
        places: &[ChangedPlace<'_>],
        changes: impl FnOnce() -> Result<Vec<ByteChange<'p>>>,
        effect: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let paths: Vec<_> = places.iter().map(|place| place.path).collect();
        match self.begin_byte_changes(&paths)? {
            None => effect(),
            Some(open) => self.apply_byte_changes(&open, check, places, &changes()?, effect),
        }
    }

    /// Records a change that has happened at a slot.
    pub(super) fn record_bytes(&self, slot: &EntrySlot, change: ByteChange<'_>) -> Result<()> {
        self.with_byte_changes(QuotaCheck::Recorded, &[slot.place()], || Ok(vec![change]), || Ok(()))
    }

    /// Begins a change of files at these paths; `None` where no quota is on any of them.
    pub(in crate::tree) fn begin_byte_changes(&self, paths: &[&TreePath]) -> Result<Option<OpenChange<'_>>> {
        self.shared().storage_ledger.begin(self.session().access_epoch(), paths)
    }

    /// Carries out a change that was begun, as [`View::with_byte_changes`] does.
    pub(in crate::tree) fn apply_byte_changes<T>(
        &self,
        open: &OpenChange<'_>,
        check: QuotaCheck,
        places: &[ChangedPlace<'_>],
        changes: &[ByteChange<'_>],
        effect: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let session = match check {
            QuotaCheck::Enforced => Some(self.charged_session()?),
            QuotaCheck::Recorded => None,
        };
        if let Some((account, max)) = open.charge_growth(session.as_ref(), changes)? {
            return Err(self.quota_exceeded(account, max));
        }
        match effect() {
            Ok(done) => {
                self.finish_byte_changes(open, places, changes);
                Ok(done)
            }
            Err(error) => {
                open.undo_growth(changes);
                Err(error)
            }
        }
    }

    /// Follows the effect of changes at places. Where another session has moved or removed a directory above one of them
    /// meanwhile, that one may have counted the effect or not: nothing is subtracted, and the files are counted anew.
    fn finish_byte_changes(&self, open: &OpenChange<'_>, places: &[ChangedPlace<'_>], changes: &[ByteChange<'_>]) {
        if places.iter().all(|place| place.is_current(self.fs())) {
            open.finish(changes);
        } else {
            changes.iter().for_each(|change| open.mark_covering(change.path));
        }
    }

    /// Follows the removal of a directory that is in staging now, for a change that was begun before.
    pub(super) fn finish_removal(&self, open: Option<OpenChange<'_>>, slot: &EntrySlot, staged: &StagedEntry) {
        let Some(open) = open else { return };
        let path = &slot.path;
        let (staging, name) = staged.directory_and_name();
        let removed = || {
            let stat = staging.stat_entry(name)?;
            if !stat.is_directory() {
                return Ok(ByteChange::file(path, file_bytes(Some(&stat)), 0));
            }
            let directory = staging.open_directory(&TreePath::root().child(name))?;
            Ok::<_, Error>(ByteChange::removed_directory(path, self.bytes_below(&directory)?))
        };
        match removed() {
            Ok(removed) => self.finish_byte_changes(&open, &[slot.place()], &[removed]),
            Err(error) => {
                tracing::warn!(%path, %error, "the files of users with a quota are counted anew: a removal was not");
                open.mark_covering(path);
            }
        }
    }

    /// Follows the replacement of a directory, which is in staging now; what else is replaced is counted elsewhere.
    pub(super) fn count_replaced_directory(&self, slot: &EntrySlot, old: Option<&StagedEntry>) -> Result<()> {
        let Some(old) = old else { return Ok(()) };
        if old.stat()?.is_directory() {
            self.count_replaced(slot, old)?;
        }
        Ok(())
    }

    /// Follows the replacement of an entry, which is in staging now, as a part of another change.
    pub(super) fn count_replaced(&self, slot: &EntrySlot, old: &StagedEntry) -> Result<()> {
        let open = self.shared().storage_ledger.begin_within(self.session().access_epoch(), &[&slot.path])?;
        self.finish_removal(open, slot, old);
        Ok(())
    }

    /// Refuses to wait for the store, to those who can't, where a change at a path counts for a quota.
    pub(super) fn check_may_count(&self, path: &TreePath) -> Result<()> {
        if self.shared().storage_ledger.is_counted(self.session().access_epoch(), &[path])? {
            self.check_may_wait()?;
        }
        Ok(())
    }

    /// Returns the bytes of all files below a directory, if a path counts for a quota.
    pub(super) fn counted_bytes(&self, path: &TreePath, directory: &DirectoryFd) -> Result<u64> {
        let is_counted = self.shared().storage_ledger.is_counted(self.session().access_epoch(), &[path])?;
        if is_counted { self.bytes_below(directory) } else { Ok(0) }
    }

    /// Returns the bytes of an entry that is to be moved. Those of a directory are counted only where one of its paths
    /// counts for an account that the other one does not count for, whose files are then counted anew: what is in it
    /// may change meanwhile.
    pub(super) fn moved_bytes(&self, source: &EntrySlot, target: &EntrySlot, moved: &Stat) -> Result<u64> {
        if !moved.is_directory() {
            return Ok(file_bytes(Some(moved)));
        }
        let ledger = &self.shared().storage_ledger;
        let paths = [&source.path, &target.path];
        let Some(open) = ledger.begin_within(self.session().access_epoch(), &paths)? else {
            return Ok(0);
        };
        open.restart_recount(&source.path, &target.path);
        if open.counts_alike(&source.path, &target.path) {
            return Ok(0);
        }
        open.mark_differing(&source.path, &target.path);
        self.bytes_below(&source.directory.open_directory(&TreePath::root().child(&source.name))?)
    }

    /// Returns the bytes of all files below a directory.
    pub(super) fn bytes_below(&self, directory: &DirectoryFd) -> Result<u64> {
        let mut bytes = 0u64;
        // Without a look at the session: what has happened is to be recorded.
        directory.walk(
            || Ok::<_, Error>(()),
            |_, _, _, stat| {
                bytes = bytes.saturating_add(file_bytes(Some(stat)));
                Ok(())
            },
        )?;
        Ok(bytes)
    }

    /// Checks that a file of `size` bytes may be written in place of one of `replaced` bytes.
    ///
    /// # Errors
    /// [`Error::StorageQuotaExceeded`].
    pub(in crate::tree) fn check_quota(&self, path: &TreePath, replaced: u64, size: u64) -> Result<()> {
        match self.quota_space(path)? {
            Some((account, space)) if size > replaced && size - replaced > space.available() => {
                Err(self.quota_exceeded(account, space.max))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Checks that an upload of `size` bytes, whose target is not known yet, may fit somewhere.
    ///
    /// # Errors
    /// [`Error::StorageQuotaExceeded`].
    pub fn check_upload_quota(&self, size: u64) -> Result<()> {
        let paths = self.session().access()?.writable_paths();
        paths.iter().take(1).try_for_each(|path| self.check_quota(path, 0, size))
    }

    /// Returns the account of the session with the least space at a path.
    pub(in crate::tree) fn quota_space(&self, path: &TreePath) -> Result<Option<(StorageAccount, QuotaSpace)>> {
        let ledger = &self.shared().storage_ledger;
        if !ledger.is_counted(self.session().access_epoch(), &[path])? {
            return Ok(None);
        }
        ledger.space(&self.charged_session()?, path)
    }

    /// Returns the space of a file system as the quotas of the session leave it.
    pub(in crate::tree) fn bound_space(&self, path: &TreePath, space: FilesystemSpace) -> Result<FilesystemSpace> {
        let Some((_, quota)) = self.quota_space(path)? else { return Ok(space) };
        let available = space.available.min(quota.available());
        Ok(FilesystemSpace { total: quota.used.saturating_add(available), available, free: available, ..space })
    }

    fn quota_exceeded(&self, account: StorageAccount, max: crate::domain::ByteSize) -> Error {
        self.audit_refused_upload(Error::StorageQuotaExceeded { account, max })
    }

    fn charged_session(&self) -> Result<ChargedSession<'_>> {
        let access = self.session().access()?;
        Ok(ChargedSession {
            login: self.session().login(),
            tokens: access.chain_tokens().collect(),
            epoch: self.session().access_epoch(),
        })
    }
}

/// Returns the bytes of a file, and none of any other entry.
pub(in crate::tree) fn file_bytes(stat: Option<&Stat>) -> u64 {
    stat.filter(|stat| stat.kind == Some(EntryKind::File)).map_or(0, |stat| stat.size)
}
