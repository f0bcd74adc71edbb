//! Staging: the directory `.patgate` at the root of each file system, for entries that have no name in the tree yet, or
//! none any more.
//!
//! Only the server can access it (0700), and clients can't see it. Opening it marks as debris every entry that is not
//! kept ([`RetainedEntry`]) and was not created by this run: it belongs to nobody then.

use std::collections::HashSet;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::open::{OpenMode, open_no_symlinks};
use super::server_locks::{ServerLocks, StagingLock, ensure_private};
use super::{DirectoryFd, Errno, FileFd, FlockGuard, MountKey, Result, ServedFs, Stat, marker};
use crate::domain::{EntryName, RESERVED_DIRECTORY, TreePath};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Mode, RawDir, fchmod, mkdirat, renameat, unlinkat};

/// Staging directory of one file system.
#[derive(Debug)]
pub(crate) struct StagingDirectory {
    /// Path of the directory of the tree that holds it.
    mount_path: TreePath,
    directory: DirectoryFd,
    run_id: u64,
    /// Lock that keeps other servers from sweeping this directory.
    #[allow(dead_code, reason = "held for its lock, never read")]
    lock: Option<Arc<FlockGuard>>,
}

/// Entry in staging, removed when this is dropped.
#[derive(Debug)]
pub(crate) struct StagedEntry {
    staging: Arc<StagingDirectory>,
    name: EntryName,
    pub(super) remove_on_drop: bool,
}

/// Entry in staging that stays until it is discarded, also over a restart: the store keeps its name.
#[derive(Clone, Debug)]
pub(crate) struct RetainedEntry {
    staging: Arc<StagingDirectory>,
    name: EntryName,
}

/// Mode of a staged file: only the server can read it.
const STAGED_FILE_MODE: u32 = 0o600;

// One counter for all file systems, so that a name is unique in the process.
static NEXT_SERIAL: AtomicU64 = AtomicU64::new(0);

impl ServedFs {
    /// Returns the staging directory from which a rename reaches an open directory of the tree, which is on the mount
    /// `mount_key`. Creates it when there is none.
    pub(crate) fn staging(&self, directory: &DirectoryFd, mount_key: MountKey) -> Result<Arc<StagingDirectory>> {
        let snapshot = self.snapshot()?;
        if let Some(staging) = snapshot.stagings.read().get(&mount_key) {
            return Ok(Arc::clone(staging));
        }
        let mut mount_path = self.path_of_fd(directory).ok_or(Errno::NOENT)?;
        // The topmost directory of the same mount: from there a rename reaches every directory of the file system.
        while let Some(parent) = mount_path.parent() {
            if self.open_directory(&parent)?.stat()?.mount_key() != mount_key {
                break;
            }
            mount_path = parent;
        }
        let mut stagings = snapshot.stagings.write();
        // Again under the write lock: another thread may have opened it meanwhile.
        if let Some(staging) = stagings.get(&mount_key) {
            return Ok(Arc::clone(staging));
        }
        let (staging, debris) = StagingDirectory::open(
            &self.open_directory(&mount_path)?,
            mount_path,
            self.run_id,
            self.server_locks.as_ref(),
        )?;
        let staging = Arc::new(staging);
        stagings.insert(mount_key, Arc::clone(&staging));
        let staged = |name| StagedEntry { staging: Arc::clone(&staging), name, remove_on_drop: true };
        self.debris.lock().extend(debris.into_iter().map(staged));
        Ok(staging)
    }

    /// Returns the retained entry `name` of the staging directory that the directory `path` of the tree holds.
    ///
    /// # Errors
    /// `ENOENT` when it does not exist.
    pub(crate) fn retained_entry(&self, path: &TreePath, name: &[u8]) -> Result<RetainedEntry> {
        let mount_root = self.open_directory(path)?;
        let staging = self.staging(&mount_root, mount_root.stat()?.mount_key())?;
        let name = EntryName::new(name).map_err(|_| Errno::INVAL)?;
        // The file system that held the entry is not mounted there now.
        if staging.mount_path != *path {
            return Err(Errno::NOENT);
        }
        staging.directory.stat_entry(&name)?;
        Ok(RetainedEntry { staging, name })
    }

    /// Returns the entries that earlier runs left in staging, to be removed.
    pub(crate) fn take_debris(&self) -> Vec<StagedEntry> {
        std::mem::take(&mut *self.debris.lock())
    }
}

impl StagingDirectory {
    /// Opens the reserved directory of a file system, and creates it where there is none. Returns also the entries that
    /// earlier runs left there, where this acquired its lock.
    fn open(
        mount_root: &DirectoryFd,
        mount_path: TreePath,
        run_id: u64,
        server_locks: Option<&ServerLocks>,
    ) -> Result<(Self, Vec<EntryName>)> {
        match mkdirat(mount_root, RESERVED_DIRECTORY, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        let directory = DirectoryFd::from(open_no_symlinks(mount_root, RESERVED_DIRECTORY, OpenMode::DirectoryPath)?);
        // Whoever can write to it could have files renamed into the tree.
        if let Err(fault) = ensure_private(&directory) {
            tracing::error!(%mount_path, "nothing can be staged on a file system: its directory .patgate {fault}");
            return Err(Errno::PERM);
        }
        let mut staging = Self { mount_path, directory, run_id, lock: None };
        let mut debris = Vec::new();
        if let Some(server_locks) = server_locks {
            staging.lock = match server_locks.lock_staging(mount_root, &staging.directory)? {
                StagingLock::Acquired(lock) => {
                    // Early commits first: they free the names to which backups are restored.
                    let mut retained = staging.undo_early_commits(mount_root)?;
                    retained.extend(staging.restore_backups(mount_root)?);
                    debris = staging.find_debris(server_locks, &retained)?;
                    Some(lock)
                }
                // Opened by this process through another mount: its entries are in use, and no debris.
                StagingLock::AlreadyHeld(lock) => Some(lock),
                StagingLock::Unsupported => None,
            };
        }
        Ok((staging, debris))
    }

    /// Tells whether this is on a file system in memory, which has no disk to sync to.
    pub(crate) fn is_in_memory(&self) -> Result<bool> {
        super::file::is_in_memory(&self.directory)
    }

    /// Creates an empty staged file that only the server can read.
    pub(crate) fn create_file(self: &Arc<Self>) -> Result<(FileFd, StagedEntry)> {
        self.create_file_with_mode(STAGED_FILE_MODE)
    }

    /// Creates an empty staged file with the mode of its target, less the umask, for one that is committed at once.
    /// The directory is private to the server, whatever the mode of its files.
    pub(crate) fn create_file_with_mode(self: &Arc<Self>, mode: u32) -> Result<(FileFd, StagedEntry)> {
        let mut staged = self.reserve_name()?;
        let file = self.directory.create_file(&staged.name, mode)?;
        // Only now: an error before must not remove an entry that this has not created.
        staged.remove_on_drop = true;
        Ok((file, staged))
    }

    /// Creates an empty staged directory that only the server can enter.
    pub(crate) fn create_directory(self: &Arc<Self>) -> Result<StagedEntry> {
        let mut staged = self.reserve_name()?;
        self.directory.create_directory(&staged.name, 0o700)?;
        staged.remove_on_drop = true;
        Ok(staged)
    }

    /// Creates a staged symbolic link.
    pub(crate) fn create_symlink(self: &Arc<Self>, target: &[u8]) -> Result<StagedEntry> {
        let mut staged = self.reserve_name()?;
        self.directory.symlink(target, &staged.name)?;
        staged.remove_on_drop = true;
        Ok(staged)
    }

    /// Moves an entry of a directory into staging.
    pub(crate) fn move_in(self: &Arc<Self>, directory: &DirectoryFd, name: &EntryName) -> Result<StagedEntry> {
        self.reserve_name()?.move_in(directory, name)
    }

    /// Returns the path of the directory of the tree that holds it.
    pub(super) fn mounted_at(&self) -> &TreePath {
        &self.mount_path
    }

    /// Returns the open staging directory.
    pub(super) fn directory_fd(&self) -> &DirectoryFd {
        &self.directory
    }

    /// Returns a staged entry with a name that is not in use; nothing is created.
    pub(super) fn reserve_name(self: &Arc<Self>) -> Result<StagedEntry> {
        let name = EntryName::new(&self.fresh_name()).map_err(|_| Errno::INVAL)?;
        Ok(StagedEntry { staging: Arc::clone(self), name, remove_on_drop: false })
    }

    fn fresh_name(&self) -> Vec<u8> {
        format!("{:016x}-{:x}", self.run_id, NEXT_SERIAL.fetch_add(1, Ordering::Relaxed)).into_bytes()
    }

    /// Returns the entries that earlier runs left: those that are neither kept nor of this run.
    fn find_debris(&self, server_locks: &ServerLocks, retained: &HashSet<Vec<u8>>) -> Result<Vec<EntryName>> {
        // The store can't say which uploads wait to be resumed: sweeping could lose them.
        let Some(kept_names) = server_locks.list_kept_names() else { return Ok(Vec::new()) };
        let own_prefix = format!("{:016x}-", self.run_id).into_bytes();
        let debris = read_raw_names(&open_no_symlinks(&self.directory, b"", OpenMode::ReadDirectory)?)?
            .into_iter()
            .filter(|name| {
                !(kept_names.contains(name)
                    || retained.contains(name)
                    || name.starts_with(&own_prefix)
                    || name == marker::MARKER_FILE_NAME)
            });
        Ok(debris.filter_map(|name| EntryName::new(&name).ok()).collect())
    }

    /// Removes an entry of staging with everything below it. A nested directory is moved up into staging first, so that
    /// no depth needs more than two open directories. An entry that can't be removed stays, and the others are removed.
    fn remove_entry(&self, name: Vec<u8>) -> Result<()> {
        let mut pending = vec![name];
        let mut result = Ok(());
        while let Some(name) = pending.pop() {
            // unlink(2) without a stat before: most entries are files. A directory is EISDIR on Linux, EPERM by POSIX.
            let removed = match unlinkat(&self.directory, &name, AtFlags::empty()) {
                Err(Errno::ISDIR | Errno::PERM) => self.remove_directory(&name, &mut pending),
                Err(Errno::NOENT) => Ok(()),
                removed => removed,
            };
            result = result.and(removed);
        }
        result
    }

    fn remove_directory(&self, name: &[u8], pending: &mut Vec<Vec<u8>>) -> Result<()> {
        let directory = match open_no_symlinks(&self.directory, name, OpenMode::ReadDirectory) {
            // A client may have set a mode by which the server can't list its own directory.
            Err(Errno::ACCESS) => {
                grant_owner_access(open_no_symlinks(&self.directory, name, OpenMode::DirectoryPath)?)?;
                open_no_symlinks(&self.directory, name, OpenMode::ReadDirectory)?
            }
            opened => opened?,
        };
        let mut result = Ok(());
        for entry in read_raw_names(&directory)? {
            let removed = match unlinkat(&directory, &entry, AtFlags::empty()) {
                Err(Errno::ISDIR | Errno::PERM) => self.move_up(&directory, &entry, pending),
                Err(Errno::NOENT) => Ok(()),
                Err(Errno::ACCESS) => {
                    // Not writable for its owner. Made writable on the first refusal; this entry is removed from
                    // staging.
                    fchmod(&directory, Mode::RWXU).and_then(|()| self.move_up(&directory, &entry, pending))
                }
                removed => removed,
            };
            result = result.and(removed);
        }
        result.and(unlinkat(&self.directory, name, AtFlags::REMOVEDIR))
    }

    fn move_up(&self, directory: &OwnedFd, entry: &[u8], pending: &mut Vec<Vec<u8>>) -> Result<()> {
        // An empty directory needs no move.
        if unlinkat(directory, entry, AtFlags::REMOVEDIR).is_ok() {
            return Ok(());
        }
        let staged_name = self.fresh_name();
        match renameat(directory, entry, &self.directory, &staged_name) {
            // Another parent means another `..`, for which rename(2) needs write permission on the directory itself.
            Err(Errno::ACCESS) => {
                grant_owner_access(open_no_symlinks(directory, entry, OpenMode::Path)?)?;
                renameat(directory, entry, &self.directory, &staged_name)?;
            }
            moved => moved?,
        }
        pending.push(staged_name);
        Ok(())
    }
}

/// Gives the server all permissions on an entry that was opened with `O_PATH`.
fn grant_owner_access(entry: OwnedFd) -> Result<()> {
    FileFd::from(entry).set_path_mode(0o700)
}

/// Returns every name in a directory but `.` and `..`, of entries of any kind.
pub(super) fn read_raw_names(directory: &OwnedFd) -> Result<Vec<Vec<u8>>> {
    let mut buffer = vec![MaybeUninit::uninit(); 32 << 10];
    let mut raw = RawDir::new(directory, &mut buffer);
    // All names before the first change: the order of a directory that changes while it is read is undefined.
    let mut names = Vec::new();
    while let Some(entry) = raw.next() {
        match entry?.file_name().to_bytes() {
            b"." | b".." => {}
            name => names.push(name.to_vec()),
        }
    }
    Ok(names)
}

impl StagedEntry {
    /// Returns the staging directory and the name of the entry in it.
    pub(crate) fn directory_and_name(&self) -> (&DirectoryFd, &EntryName) {
        (&self.staging.directory, &self.name)
    }

    /// Returns the staging directory.
    pub(super) fn staging(&self) -> &Arc<StagingDirectory> {
        &self.staging
    }

    /// Moves an entry of a directory to this name in staging.
    pub(super) fn move_in(mut self, directory: &DirectoryFd, name: &EntryName) -> Result<Self> {
        directory.rename_noreplace(name, &self.staging.directory, &self.name)?;
        self.remove_on_drop = true;
        Ok(self)
    }

    /// Moves the entry back to its name in the tree. On an error it stays in staging: the next start tries again.
    pub(super) fn restore_to(mut self, directory: &DirectoryFd, name: &EntryName) -> Result<()> {
        // Before the rename: where that fails, dropping this must not remove the entry.
        self.remove_on_drop = false;
        self.staging.directory.rename_noreplace(&self.name, directory, name)
    }

    /// Returns the metadata of the staged entry.
    pub(crate) fn stat(&self) -> Result<Stat> {
        self.staging.directory.stat_entry(&self.name)
    }

    /// Renames the entry into the tree, and replaces a file that has the name.
    pub(crate) fn rename_to(&mut self, directory: &DirectoryFd, name: &EntryName) -> Result<()> {
        self.staging.directory.rename(&self.name, directory, name)?;
        self.remove_on_drop = false;
        Ok(())
    }

    /// Renames the entry into the tree; `EEXIST` where the name is taken.
    pub(crate) fn rename_to_new(&mut self, directory: &DirectoryFd, name: &EntryName) -> Result<()> {
        self.staging.directory.rename_noreplace(&self.name, directory, name)?;
        self.remove_on_drop = false;
        Ok(())
    }

    /// Moves the entry back into staging from the name that it was just renamed to.
    pub(crate) fn move_back(&mut self, directory: &DirectoryFd, name: &EntryName) -> Result<()> {
        directory.rename_noreplace(name, &self.staging.directory, &self.name)?;
        self.remove_on_drop = true;
        Ok(())
    }

    /// Exchanges the entry with the one of a name in the tree, which is the staged one afterwards.
    pub(crate) fn exchange(&self, directory: &DirectoryFd, name: &EntryName) -> Result<()> {
        self.staging.directory.exchange(&self.name, directory, name)
    }

    /// Removes the entry with everything below it.
    pub(crate) fn discard(mut self) -> Result<()> {
        // Removed here and not by `drop`, which could only ignore an error.
        self.remove_on_drop = false;
        self.staging.remove_entry(self.name.as_bytes().to_vec())
    }

    /// Returns the entry as a retained one; dropping this still removes it.
    pub(crate) fn to_retained(&self) -> RetainedEntry {
        RetainedEntry { staging: Arc::clone(&self.staging), name: self.name.clone() }
    }

    /// Leaves the entry in staging.
    pub(crate) fn persist(mut self) {
        self.remove_on_drop = false;
    }
}

impl RetainedEntry {
    /// Returns the path of the directory of the tree that holds the staging, and the name there.
    pub(crate) fn mount_path_and_name(&self) -> (&TreePath, &EntryName) {
        (&self.staging.mount_path, &self.name)
    }

    /// Opens the file. The mode that an unfinished commit may have given it is reset first, so that the server can read
    /// and write it.
    pub(crate) fn open(&self, mode: OpenMode) -> Result<FileFd> {
        let directory = &self.staging.directory;
        // A commit that was refused or killed may have set the final mode, under which a server that is not root can't
        // write.
        if directory.stat_entry(&self.name)?.mode & 0o777 != STAGED_FILE_MODE {
            FileFd::from(open_no_symlinks(directory, self.name.as_bytes(), OpenMode::Path)?)
                .set_path_mode(STAGED_FILE_MODE)?;
        }
        directory.open(&self.name, mode)
    }

    /// Returns the entry as a staged one, removed when that is dropped.
    pub(crate) fn into_staged(self) -> StagedEntry {
        StagedEntry { staging: self.staging, name: self.name, remove_on_drop: true }
    }

    /// Returns the entry as a staged one that stays when it is dropped.
    pub(crate) fn to_staged(&self) -> StagedEntry {
        StagedEntry { staging: Arc::clone(&self.staging), name: self.name.clone(), remove_on_drop: false }
    }

    /// Syncs the names in its staging directory to disk.
    pub(crate) fn sync_directory(&self) -> Result<()> {
        self.staging.directory.sync()
    }

    /// Removes the entry; one that does not exist is no error.
    pub(crate) fn discard(&self) -> Result<()> {
        match self.staging.directory.unlink(&self.name) {
            Err(Errno::NOENT) => Ok(()),
            done => done,
        }
    }
}

impl Drop for StagedEntry {
    fn drop(&mut self) {
        if self.remove_on_drop {
            // An error leaves debris for the sweep of the next start.
            let _ = self.staging.remove_entry(self.name.as_bytes().to_vec());
        }
    }
}
