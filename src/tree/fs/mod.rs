//! Host file system: the only module that names host paths, always relative to an open directory.
//!
//! The served directory is held open, and requests are answered from it while its host path still leads to it
//! ([`mount_snapshot`]). [`open`] resolves paths in it, [`DirectoryFd`] changes names in an open directory, [`FileFd`]
//! reads and writes content, and [`StagingDirectory`] holds entries that have no name in the tree yet, or none any
//! more.

mod backup;
mod directory;
mod early_note;
#[cfg(test)]
pub(super) mod fault_injection;
mod file;
mod marker;
mod mount_snapshot;
mod mounts;
mod open;
mod proc_path;
mod server_locks;
mod staging;
mod stat;

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, flock};

pub(crate) use backup::StagedBackup;
pub(crate) use directory::{DirectoryFd, DirectoryStream, filesystem_space, none_if_vanished};
pub(crate) use early_note::EarlyNote;
pub(crate) use file::FileFd;
pub(crate) use mount_snapshot::{KnownMount, KnownTree};
pub(crate) use open::{FdLocation, OpenMode, ResolveMode, host_path};
pub(crate) use server_locks::{KeptNamesFn, refuse_overlapping_root, reserved_directory_fault, supports_flock};
pub(crate) use staging::{RetainedEntry, StagedEntry, StagingDirectory};
pub(crate) use stat::{MountKey, Stat};

use super::{Error, TreeOutage};
use crate::domain::TreePath;
use mount_snapshot::{MountSnapshot, RootWatch};
use server_locks::ServerLocks;

/// Error number that a system call returned.
pub(crate) type Errno = rustix::io::Errno;

/// Result of a system call.
pub(crate) type Result<T> = std::result::Result<T, Errno>;

/// The served directory, held open while its host path leads to it.
pub(crate) struct ServedFs {
    root_path: PathBuf,
    umask: u32,
    run_id: u64,
    server_locks: Option<ServerLocks>,
    /// Entries that earlier runs left in staging, to be removed in the background.
    debris: Mutex<Vec<StagedEntry>>,
    current_snapshot: ArcSwap<std::result::Result<Arc<MountSnapshot>, TreeOutage>>,
    root_watch: Mutex<RootWatch>,
}

impl ServedFs {
    /// Opens the served directory. A server calls [`ServedFs::lock_for_serving`] next, and passes in `kept_names` the
    /// function that lists the staged entries to keep.
    ///
    /// # Errors
    /// The I/O error of the host; [`io::ErrorKind::Unsupported`] where the kernel has no `openat2` (before Linux 5.6).
    pub(crate) fn open(root: &Path, kept_names: Option<KeptNamesFn>) -> io::Result<Self> {
        // The path is not canonicalized: a symbolic link at its end is followed again on each check, so that a changed
        // link counts as another directory.
        let root_path = std::path::absolute(root)?;
        let (snapshot, watch) = MountSnapshot::open_first(&root_path)?;
        // Probes openat2(2) at start: on an older kernel every request would fail without a reason.
        snapshot.root.open_directory(&TreePath::root()).map_err(|error| match error {
            Errno::NOSYS => io::Error::new(io::ErrorKind::Unsupported, "this needs Linux 5.6 or later (openat2)"),
            other => other.into(),
        })?;
        // Random, so that names in staging of two runs never collide, and a run can tell its own from debris.
        let mut run_id = [0; 8];
        getrandom::fill(&mut run_id)?;
        Ok(Self {
            root_path,
            umask: umask(),
            run_id: u64::from_ne_bytes(run_id),
            server_locks: kept_names.map(ServerLocks::new),
            debris: Mutex::default(),
            current_snapshot: ArcSwap::new(Arc::new(Ok(Arc::new(snapshot)))),
            root_watch: Mutex::new(watch),
        })
    }

    /// Returns the permission bits of `mode` that the umask of the process leaves.
    pub(crate) fn apply_umask(&self, mode: u32) -> u32 {
        mode & 0o777 & !self.umask
    }

    /// Opens a directory of the tree. A symbolic link on the way is an error.
    pub(crate) fn open_directory(&self, path: &TreePath) -> Result<DirectoryFd> {
        self.open_directory_with(path, ResolveMode::Blocking)
    }

    /// Opens a directory as [`ServedFs::open_directory`] does, but with [`ResolveMode::Cached`] never waits for a disk.
    ///
    /// # Errors
    /// `EAGAIN` where [`ResolveMode::Cached`] would have to wait.
    pub(crate) fn open_directory_with(&self, path: &TreePath, mode: ResolveMode) -> Result<DirectoryFd> {
        if mode == ResolveMode::Cached {
            return self.open_directory_cached(path);
        }
        let root = self.root()?;
        // The root needs no check of its mount: `root()` fails while it is gone.
        if path.is_root() {
            return Ok(root);
        }
        let directory = root.open_directory(path).map_err(|error| self.classify_error(path, error))?;
        self.verify_mount(path, || directory.stat())?;
        Ok(directory)
    }

    /// Returns the metadata of an entry of the tree. A symbolic link on the way is an error; a link at the end is not
    /// followed.
    pub(crate) fn stat(&self, path: &TreePath) -> Result<Stat> {
        let Some((parent, name)) = path.split_last() else { return self.root()?.stat() };
        let stat = self.open_directory(&parent)?.stat_entry(&name).map_err(|error| self.classify_error(path, error))?;
        self.verify_mount(path, || Ok(stat.clone()))?;
        Ok(stat)
    }

    /// Tells whether a file system is mounted below a directory of the tree.
    pub(crate) fn contains_mounts(&self, path: &TreePath) -> Result<bool> {
        Ok(mounts::mount_points(&self.root()?).iter().any(|mount| !mount.is_root() && mount.starts_with(path)))
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        match errno {
            // XDEV: the path leads out of the anchor, which a client must not be able to tell from a missing entry.
            // NXIO: a FIFO or socket opened for writing.
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NXIO => Error::Absent,
            // Returned by `mount_snapshot`, not by the kernel: the file system that belongs here is not mounted.
            Errno::NOMEDIUM => TreeOutage::Replaced.into(),
            // An outage and never "absent": a sync client would delete its copy of an absent file.
            Errno::IO | Errno::STALE | Errno::NOTCONN | Errno::SHUTDOWN | Errno::TIMEDOUT | Errno::HOSTDOWN => {
                let fault = io::Error::from(errno).to_string();
                tracing::error!(%fault, "a file system of the served directory returns I/O errors");
                TreeOutage::Failing(fault).into()
            }
            Errno::EXIST => Error::AlreadyExists,
            Errno::ISDIR => Error::IsADirectory,
            Errno::NOTEMPTY => Error::DirectoryNotEmpty,
            // BUSY: a mount point, which can't be renamed or removed. TXTBSY: a program that is running.
            Errno::BUSY | Errno::TXTBSY => Error::Forbidden,
            Errno::ACCESS | Errno::PERM | Errno::ROFS => Error::RefusedByHost(errno.into()),
            Errno::NOSPC | Errno::DQUOT | Errno::FBIG => Error::NoSpace,
            Errno::NAMETOOLONG | Errno::ILSEQ => Error::InvalidName,
            // MLINK: no more hard links to the file. OVERFLOW: a time that the file system can't store.
            Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK | Errno::OVERFLOW => Error::Unsupported,
            Errno::MFILE | Errno::NFILE => Error::TooManyOpenFiles,
            other => Error::Filesystem(io::Error::from(other)),
        }
    }
}

impl Error {
    /// Translates the error of a call that put an entry under a name in an open directory: `ENOENT` can only mean the
    /// directory itself.
    pub(crate) fn from_target_errno(errno: Errno) -> Self {
        match errno {
            Errno::NOENT => Error::NoParent,
            Errno::XDEV => Error::Unsupported,
            other => other.into(),
        }
    }
}

/// Lock on a file or directory (flock(2)), released explicitly when this is dropped: a child process that is just being
/// started may still hold a copy of the descriptor, and with it the lock.
#[derive(Debug)]
pub(crate) struct FlockGuard(OwnedFd);

impl FlockGuard {
    /// Acquires the lock exclusively without waiting; `EWOULDBLOCK` where another descriptor holds it.
    pub(crate) fn try_exclusive(file: OwnedFd) -> Result<Self> {
        flock(&file, FlockOperation::NonBlockingLockExclusive).map(|()| Self(file))
    }

    /// Acquires the lock shared without waiting; `EWOULDBLOCK` where another descriptor holds it exclusively.
    pub(crate) fn try_shared(file: OwnedFd) -> Result<Self> {
        flock(&file, FlockOperation::NonBlockingLockShared).map(|()| Self(file))
    }
}

impl Drop for FlockGuard {
    fn drop(&mut self) {
        // An error changes nothing: closing the descriptor releases the lock as well.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Lock on a state directory: no other server starts with it while this value exists.
#[derive(Debug)]
pub(crate) struct StateDirectoryLock(#[allow(dead_code, reason = "held for its lock, never read")] FlockGuard);

impl StateDirectoryLock {
    /// Locks a state directory.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when another server holds the lock.
    pub(crate) fn acquire(state_directory: &Path) -> io::Result<Self> {
        let path = state_directory.join("serve.lock");
        // The lock file is never removed: two servers could hold locks on two files of the same name.
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        match FlockGuard::try_exclusive(file.into()) {
            Ok(lock) => Ok(Self(lock)),
            Err(Errno::WOULDBLOCK) => {
                Err(io::Error::new(io::ErrorKind::WouldBlock, "another server uses this state directory"))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Returns the umask of the process from `/proc`: umask(2) can only be read by setting it, which would race with other
/// threads.
fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    // Without /proc the usual umask is assumed.
    mask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o022)
}
