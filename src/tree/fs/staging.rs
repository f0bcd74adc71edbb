//! Where things wait that have no name yet, or none any more: `.patgate` at the root of a file system.
//!
//! It is the server's alone (0700), absent to clients, and emptied from start on of all but what is kept ([`RetainedEntry`]) and
//! what this run has put there: the rest belongs to nobody then.

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

/// The staging folder of one file system.
#[derive(Debug)]
pub(crate) struct StagingDirectory {
    /// The folder of the tree that holds it.
    mount_path: TreePath,
    directory: DirectoryFd,
    run_id: u64,
    /// Held so that no other server sweeps what waits here.
    #[allow(dead_code, reason = "holds the lock while it lives")]
    lock: Option<Arc<FlockGuard>>,
}

/// Something that waits in staging; it is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct StagedEntry {
    staging: Arc<StagingDirectory>,
    name: EntryName,
    pub(super) remove_on_drop: bool,
}

/// Something that waits in staging until it is discarded, also over a restart: somebody keeps its name.
#[derive(Clone, Debug)]
pub(crate) struct RetainedEntry {
    staging: Arc<StagingDirectory>,
    name: EntryName,
}

/// The mode of a file that only the server can read.
const STAGED_FILE_MODE: u32 = 0o600;

static NEXT_SERIAL: AtomicU64 = AtomicU64::new(0);

impl ServedFs {
    /// Returns the staging folder from which a rename reaches an open folder of the tree on a
    /// mount; makes it when there is none.
    pub(crate) fn staging(&self, beside: &DirectoryFd, mount: MountKey) -> Result<Arc<StagingDirectory>> {
        let served = self.snapshot()?;
        if let Some(staging) = served.stagings.read().get(&mount) {
            return Ok(Arc::clone(staging));
        }
        let mut top = self.path_of_fd(beside).ok_or(Errno::NOENT)?;
        while let Some(parent) = top.parent() {
            if self.open_directory(&parent)?.stat()?.mount_key() != mount {
                break;
            }
            top = parent;
        }
        let mut stagings = served.stagings.write();
        if let Some(staging) = stagings.get(&mount) {
            return Ok(Arc::clone(staging));
        }
        let (staging, debris) =
            StagingDirectory::open(&self.open_directory(&top)?, top, self.run_id, self.server_locks.as_ref())?;
        let staging = Arc::new(staging);
        stagings.insert(mount, Arc::clone(&staging));
        if let Some(claims) = &self.server_locks {
            let staged = |name| StagedEntry { staging: Arc::clone(&staging), name, remove_on_drop: true };
            claims.add_debris(debris.into_iter().map(staged).collect());
        }
        Ok(staging)
    }

    /// Finds again what is kept in the staging that a folder of the tree holds.
    ///
    /// # Errors
    /// `ENOENT` when it is not there.
    pub(crate) fn retained_entry(&self, place: &TreePath, name: &[u8]) -> Result<RetainedEntry> {
        let top = self.open_directory(place)?;
        let staging = self.staging(&top, top.stat()?.mount_key())?;
        let name = EntryName::new(name).map_err(|_| Errno::INVAL)?;
        if staging.mount_path != *place {
            return Err(Errno::NOENT);
        }
        staging.directory.stat_entry(&name)?;
        Ok(RetainedEntry { staging, name })
    }
}

impl StagingDirectory {
    /// Opens the reserved directory of a file system; makes it where there is none. Returns also what earlier runs left
    /// there, where this claims it.
    fn open(
        holder: &DirectoryFd,
        top: TreePath,
        run: u64,
        claims: Option<&ServerLocks>,
    ) -> Result<(Self, Vec<EntryName>)> {
        match mkdirat(holder, RESERVED_DIRECTORY, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        let folder = DirectoryFd::from(open_no_symlinks(holder, RESERVED_DIRECTORY, OpenMode::DirectoryPath)?);
        if let Err(fault) = ensure_private(&folder) {
            tracing::error!(%top, "nothing can be staged on a file system: its directory .patgate {fault}");
            return Err(Errno::PERM);
        }
        let mut staging = Self { mount_path: top, directory: folder, run_id: run, lock: None };
        let mut debris = Vec::new();
        if let Some(claims) = claims {
            staging.lock = match claims.lock_staging(holder, &staging.directory)? {
                StagingLock::Acquired(lock) => {
                    // First: what an unfinished upload stands in the place of can be put back then.
                    let mut stay = staging.take_early_back(holder)?;
                    stay.extend(staging.restore_backups(holder)?);
                    debris = staging.find_debris(claims, &stay)?;
                    Some(lock)
                }
                StagingLock::AlreadyHeld(lock) => Some(lock),
                StagingLock::Unsupported => None,
            };
        }
        Ok((staging, debris))
    }

    /// Makes an empty file that only the server can read.
    pub(crate) fn create_file(self: &Arc<Self>) -> Result<(FileFd, StagedEntry)> {
        let mut staged = self.reserve_name()?;
        let file = self.directory.create_file(&staged.name, STAGED_FILE_MODE)?;
        staged.remove_on_drop = true;
        Ok((file, staged))
    }

    /// Makes an empty folder that only the server can enter.
    pub(crate) fn create_directory(self: &Arc<Self>) -> Result<StagedEntry> {
        let mut staged = self.reserve_name()?;
        self.directory.create_directory(&staged.name, 0o700)?;
        staged.remove_on_drop = true;
        Ok(staged)
    }

    /// Makes a symbolic link.
    pub(crate) fn create_symlink(self: &Arc<Self>, target: &[u8]) -> Result<StagedEntry> {
        let mut staged = self.reserve_name()?;
        self.directory.symlink(target, &staged.name)?;
        staged.remove_on_drop = true;
        Ok(staged)
    }

    /// Moves an entry away from its folder.
    pub(crate) fn move_in(self: &Arc<Self>, folder: &DirectoryFd, name: &EntryName) -> Result<StagedEntry> {
        self.reserve_name()?.move_in(folder, name)
    }

    /// Returns the folder of the tree that holds it.
    pub(super) fn mounted_at(&self) -> &TreePath {
        &self.mount_path
    }

    /// Returns the folder in which things wait.
    pub(super) fn directory_fd(&self) -> &DirectoryFd {
        &self.directory
    }

    /// Returns a name at which nothing waits yet.
    pub(super) fn reserve_name(self: &Arc<Self>) -> Result<StagedEntry> {
        let name = EntryName::new(&self.fresh_name()).map_err(|_| Errno::INVAL)?;
        Ok(StagedEntry { staging: Arc::clone(self), name, remove_on_drop: false })
    }

    fn fresh_name(&self) -> Vec<u8> {
        format!("{:016x}-{:x}", self.run_id, NEXT_SERIAL.fetch_add(1, Ordering::Relaxed)).into_bytes()
    }

    /// Returns what earlier runs left: what is there now, is not kept, and is not of this run.
    fn find_debris(&self, claims: &ServerLocks, stay: &HashSet<Vec<u8>>) -> Result<Vec<EntryName>> {
        let Some(kept) = claims.list_kept_names() else { return Ok(Vec::new()) };
        let ours = format!("{:016x}-", self.run_id).into_bytes();
        let left = read_raw_names(&open_no_symlinks(&self.directory, b"", OpenMode::ReadDirectory)?)?
            .into_iter()
            .filter(|name| {
                !(kept.contains(name)
                    || stay.contains(name)
                    || name.starts_with(&ours)
                    || name == marker::MARKER_FILE_NAME)
            });
        Ok(left.filter_map(|name| EntryName::new(&name).ok()).collect())
    }

    /// Removes an entry of staging with all in it. A folder within is first moved up into staging, so
    /// that no depth needs more than two open folders. What can't be removed stays, and the rest goes.
    fn remove_entry(&self, name: Vec<u8>) -> Result<()> {
        let mut left = vec![name];
        let mut result = Ok(());
        while let Some(name) = left.pop() {
            let done = match unlinkat(&self.directory, &name, AtFlags::empty()) {
                Err(Errno::ISDIR | Errno::PERM) => self.remove_directory(&name, &mut left),
                Err(Errno::NOENT) => Ok(()),
                done => done,
            };
            result = result.and(done);
        }
        result
    }

    fn remove_directory(&self, name: &[u8], left: &mut Vec<Vec<u8>>) -> Result<()> {
        let folder = match open_no_symlinks(&self.directory, name, OpenMode::ReadDirectory) {
            Err(Errno::ACCESS) => {
                grant_owner_access(open_no_symlinks(&self.directory, name, OpenMode::DirectoryPath)?)?;
                open_no_symlinks(&self.directory, name, OpenMode::ReadDirectory)?
            }
            opened => opened?,
        };
        let mut result = Ok(());
        for entry in read_raw_names(&folder)? {
            let done = match unlinkat(&folder, &entry, AtFlags::empty()) {
                Err(Errno::ISDIR | Errno::PERM) => self.move_up(&folder, &entry, left),
                Err(Errno::NOENT) => Ok(()),
                Err(Errno::ACCESS) => fchmod(&folder, Mode::RWXU).and_then(|()| self.move_up(&folder, &entry, left)),
                done => done,
            };
            result = result.and(done);
        }
        result.and(unlinkat(&self.directory, name, AtFlags::REMOVEDIR))
    }

    fn move_up(&self, folder: &OwnedFd, entry: &[u8], left: &mut Vec<Vec<u8>>) -> Result<()> {
        if unlinkat(folder, entry, AtFlags::REMOVEDIR).is_ok() {
            return Ok(());
        }
        let fresh = self.fresh_name();
        match renameat(folder, entry, &self.directory, &fresh) {
            Err(Errno::ACCESS) => {
                grant_owner_access(open_no_symlinks(folder, entry, OpenMode::Path)?)?;
                renameat(folder, entry, &self.directory, &fresh)?;
            }
            moved => moved?,
        }
        left.push(fresh);
        Ok(())
    }
}

/// Gives the server all rights to an entry opened as a place.
fn grant_owner_access(place: OwnedFd) -> Result<()> {
    FileFd::from(place).set_path_mode(0o700)
}

/// Returns every name in a folder, whatever it is, but `.` and `..`.
pub(super) fn read_raw_names(folder: &OwnedFd) -> Result<Vec<Vec<u8>>> {
    let mut buffer = vec![MaybeUninit::uninit(); 32 << 10];
    let mut raw = RawDir::new(folder, &mut buffer);
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
    /// Returns the staging folder and the name in it, to reach what waits there.
    pub(crate) fn directory_and_name(&self) -> (&DirectoryFd, &EntryName) {
        (&self.staging.directory, &self.name)
    }

    /// Returns where it waits.
    pub(super) fn staging(&self) -> &Arc<StagingDirectory> {
        &self.staging
    }

    /// Moves an entry here from its folder.
    pub(super) fn move_in(mut self, folder: &DirectoryFd, name: &EntryName) -> Result<Self> {
        folder.rename_noreplace(name, &self.staging.directory, &self.name)?;
        self.remove_on_drop = true;
        Ok(self)
    }

    /// Moves it back to where it was. Where that fails it stays: the next start tries again.
    pub(super) fn restore_to(mut self, folder: &DirectoryFd, name: &EntryName) -> Result<()> {
        self.remove_on_drop = false;
        self.staging.directory.rename_noreplace(&self.name, folder, name)
    }

    /// Asks about it.
    pub(crate) fn stat(&self) -> Result<Stat> {
        self.staging.directory.stat_entry(&self.name)
    }

    /// Puts it where it belongs, in the place of a file if there is one.
    pub(crate) fn rename_to(&mut self, folder: &DirectoryFd, name: &EntryName) -> Result<()> {
        self.staging.directory.rename(&self.name, folder, name)?;
        self.remove_on_drop = false;
        Ok(())
    }

    /// Puts it where nothing is.
    pub(crate) fn rename_to_new(&mut self, folder: &DirectoryFd, name: &EntryName) -> Result<()> {
        self.staging.directory.rename_noreplace(&self.name, folder, name)?;
        self.remove_on_drop = false;
        Ok(())
    }

    /// Moves it back here from where it was just put.
    pub(crate) fn move_back(&mut self, folder: &DirectoryFd, name: &EntryName) -> Result<()> {
        folder.rename_noreplace(name, &self.staging.directory, &self.name)?;
        self.remove_on_drop = true;
        Ok(())
    }

    /// Lets it change places with what stands at a name: that waits here then.
    pub(crate) fn exchange(&self, folder: &DirectoryFd, name: &EntryName) -> Result<()> {
        self.staging.directory.exchange(&self.name, folder, name)
    }

    /// Removes it, with all in it.
    pub(crate) fn discard(mut self) -> Result<()> {
        self.remove_on_drop = false;
        self.staging.remove_entry(self.name.as_bytes().to_vec())
    }

    /// Returns it as something to be kept, though it is still removed when it is dropped.
    pub(crate) fn to_retained(&self) -> RetainedEntry {
        RetainedEntry { staging: Arc::clone(&self.staging), name: self.name.clone() }
    }

    /// Leaves it where it is.
    pub(crate) fn persist(mut self) {
        self.remove_on_drop = false;
    }
}

impl RetainedEntry {
    /// Returns the folder of the tree that holds the staging, and the name there.
    pub(crate) fn mount_path_and_name(&self) -> (&TreePath, &EntryName) {
        (&self.staging.mount_path, &self.name)
    }

    /// Opens it. What a commit that came to nothing made of its mode is undone: the server may read and write it.
    pub(crate) fn open(&self, how: OpenMode) -> Result<FileFd> {
        let folder = &self.staging.directory;
        if folder.stat_entry(&self.name)?.mode & 0o777 != STAGED_FILE_MODE {
            FileFd::from(open_no_symlinks(folder, self.name.as_bytes(), OpenMode::Path)?)
                .set_path_mode(STAGED_FILE_MODE)?;
        }
        folder.open(&self.name, how)
    }

    /// Takes it to be put in its place; it is removed when that is dropped.
    pub(crate) fn into_staged(self) -> StagedEntry {
        StagedEntry { staging: self.staging, name: self.name, remove_on_drop: true }
    }

    /// Returns it as something to be put in its place; it stays when that is dropped.
    pub(crate) fn to_staged(&self) -> StagedEntry {
        StagedEntry { staging: Arc::clone(&self.staging), name: self.name.clone(), remove_on_drop: false }
    }

    /// Writes the names in its staging to disk.
    pub(crate) fn sync_directory(&self) -> Result<()> {
        self.staging.directory.sync()
    }

    /// Removes it.
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
            let _ = self.staging.remove_entry(self.name.as_bytes().to_vec());
        }
    }
}
