//! Locks of a server on the trees that it serves: each file system is locked while the server runs, so that no other
//! server sweeps its staging, and the reserved directory must be writable by the server alone.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::{fs, io};

use parking_lot::Mutex;
use rustix::fs::{Mode, unlinkat};

use super::directory::open_root_path;
use super::open::{OpenMode, host_path, open_no_symlinks};
use super::{DirectoryFd, Errno, FlockGuard, Result, ServedFs, Stat, marker, mounts};
use crate::domain::RESERVED_DIRECTORY;

/// Function that returns the names of the staged entries to keep; `None` where they can't be read: nothing is swept
/// then.
pub(crate) type KeptNamesFn = Box<dyn Fn() -> Option<HashSet<Vec<u8>>> + Send + Sync>;

/// Permission bits by which other users could put entries into the reserved directory.
const GROUP_OTHER_WRITE_BITS: u32 = 0o022;
/// Name of a file that is created to see which owner the file system gives it.
const OWNER_PROBE_NAME: &[u8] = b"tree.id.probe";

/// Locks of a server that serves a tree.
pub(super) struct ServerLocks {
    kept_names: KeptNamesFn,
    /// Locks that are held, by device and inode of the locked file: a file system that is mounted twice has one lock.
    locks: Mutex<HashMap<(u64, u64), Weak<FlockGuard>>>,
}

/// Result of locking a staging directory.
pub(super) enum StagingLock {
    /// The lock was acquired now: entries in staging are those of earlier runs.
    Acquired(Arc<FlockGuard>),
    /// This process holds it already, through another mount of the same file system.
    AlreadyHeld(Arc<FlockGuard>),
    /// The file system has no locks: entries in staging may be those of a running server, so they stay.
    Unsupported,
}

impl ServerLocks {
    pub(super) fn new(kept_names: KeptNamesFn) -> Self {
        Self { kept_names, locks: Mutex::default() }
    }

    /// Locks a reserved directory by its marker file, or by the directory itself where it can't have one.
    ///
    /// # Errors
    /// `EBUSY` when another server holds the lock.
    pub(super) fn lock_staging(&self, mount_root: &DirectoryFd, reserved: &DirectoryFd) -> Result<StagingLock> {
        // A full disk has no space for a marker, but must be served all the same.
        let marker = marker::read_or_create(mount_root, reserved);
        let file = match &marker {
            Ok(_) => open_no_symlinks(reserved, marker::MARKER_FILE_NAME, OpenMode::Path)?,
            Err(error) => {
                tracing::warn!(%error, "a file system gets no marker: it is recognised by device and inode");
                open_no_symlinks(reserved, b"", OpenMode::Path)?
            }
        };
        let stat = Stat::stat_at(&file, b"")?;
        // Held until the new lock is in the table: two mounts of one file system must not take each other for another
        // server.
        let mut locks = self.locks.lock();
        if let Some(lock) = locks.get(&(stat.device, stat.inode)).and_then(Weak::upgrade) {
            return Ok(StagingLock::AlreadyHeld(lock));
        }
        let locked = match &marker {
            Ok(_) => marker::lock(reserved),
            // flock(2) works on directories, too, but not over NFS.
            Err(_) => FlockGuard::try_exclusive(open_no_symlinks(reserved, b"", OpenMode::ReadDirectory)?)
                .map(|lock| (lock, true)),
        };
        match locked {
            Ok((lock, true)) => {
                let lock = Arc::new(lock);
                // Locks of file systems that were unmounted since. The table holds them weakly: they end with their
                // staging.
                locks.retain(|_, lock| lock.strong_count() > 0);
                locks.insert((stat.device, stat.inode), Arc::downgrade(&lock));
                Ok(StagingLock::Acquired(lock))
            }
            // Only a lock that is held refuses the start; without locks the tree is served, and not swept.
            Err(Errno::BUSY | Errno::WOULDBLOCK) => Err(Errno::BUSY),
            Ok((_, false)) | Err(_) => {
                tracing::warn!(
                    "locks don't work on a file system of the served directory: another server is not detected, and entries \
                     that earlier runs left in staging are not removed"
                );
                Ok(StagingLock::Unsupported)
            }
        }
    }

    /// Returns the names of the staged entries to keep; `None` where they can't be read.
    pub(super) fn list_kept_names(&self) -> Option<HashSet<Vec<u8>>> {
        (self.kept_names)()
    }
}

impl ServedFs {
    /// Locks the served directory and the file systems mounted in it. [`ServedFs::take_debris`] returns the entries
    /// that earlier runs left in staging, but for those that are kept.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when another server serves the directory, one below it, or one above it;
    /// [`io::ErrorKind::PermissionDenied`] with the reason when other users can write to a reserved directory.
    pub(crate) fn lock_for_serving(&self) -> io::Result<()> {
        let root = self.root()?;
        for mount in mounts::mount_points(&root) {
            // A mount that can't be opened, as one that is hidden under another, can't be reached by clients either.
            let Ok(directory) = self.open_directory(&mount) else { continue };
            // Before anything in it is trusted: the sweep would rename another user's files into the tree by their
            // notes.
            if let Ok(reserved) = open_no_symlinks(&directory, RESERVED_DIRECTORY, OpenMode::DirectoryPath) {
                let location = if mount.is_root() { String::new() } else { format!(" at {mount}") };
                ensure_private(&reserved.into()).map_err(|fault| {
                    io::Error::new(io::ErrorKind::PermissionDenied, format!("its directory .patgate{location} {fault}"))
                })?;
            }
            // A file system that can't be written to holds no debris that could be removed.
            match directory.stat().and_then(|stat| self.staging(&directory, stat.mount_key())) {
                Ok(_) | Err(Errno::ROFS | Errno::ACCESS | Errno::PERM) => {}
                Err(Errno::BUSY) if mount.is_root() => {
                    return Err(would_block_error("another server serves this directory".into()));
                }
                Err(Errno::BUSY) => return Err(would_block_error(format!("another server serves {mount} in it"))),
                Err(error) => return Err(error.into()),
            }
        }
        // After the own lock: of two servers that start at once, at least one sees the other.
        refuse_overlap(&root)
    }
}

/// Checks that no running server serves a directory above or below this one.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`], with the directory.
fn refuse_overlap(root: &DirectoryFd) -> io::Result<()> {
    if let Some(ancestor) = serving_ancestor(root) {
        return Err(would_block_error(format!("it lies in {ancestor}, which another server serves")));
    }
    match serving_descendant(root) {
        Some(descendant) => Err(would_block_error(format!("another server serves {descendant} in it"))),
        None => Ok(()),
    }
}

/// As [`refuse_overlap`], for a path; one that can't be opened is served by nobody.
pub(crate) fn refuse_overlapping_root(root: &Path) -> io::Result<()> {
    open_root_path(root).map_or(Ok(()), |root| refuse_overlap(&root))
}

fn would_block_error(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::WouldBlock, message)
}

/// Returns the path of an ancestor directory that a running server serves.
fn serving_ancestor(root: &DirectoryFd) -> Option<String> {
    let path = host_path(root)?;
    let ancestors = Path::new(std::ffi::OsStr::from_bytes(&path)).ancestors().skip(1);
    // A marker alone proves nothing: a server that has ended leaves it.
    let is_locked = |path: &&Path| open_root_path(path).is_ok_and(|directory| marker::is_locked(&directory));
    ancestors.into_iter().find(is_locked).map(|path| path.display().to_string())
}

/// Returns the path of a descendant directory that a running server on this machine serves, as far as `/proc/locks`
/// shows it: searching every directory would take too long.
fn serving_descendant(root: &DirectoryFd) -> Option<String> {
    let marker_suffix = [b"/", RESERVED_DIRECTORY, b"/", marker::MARKER_FILE_NAME].concat();
    let root = host_path(root)?;
    let own_process = std::process::id().to_string();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    // Fields of a line: its number, the type (`FLOCK`), mode and access, and the process id.
    let holders = locks.lines().filter_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        // The own locks are those on file systems mounted in the tree.
        [_, "FLOCK", _, _, process, ..] if process != own_process => Some(process),
        _ => None,
    });
    let served_below = |path: &[u8]| {
        let served_root = path.strip_suffix(&marker_suffix[..])?;
        let relative_path = if root == b"/" { Some(served_root) } else { served_root.strip_prefix(&root[..]) }?;
        relative_path.starts_with(b"/").then(|| String::from_utf8_lossy(served_root).into_owned())
    };
    // Descriptors of another user's process can't be read without privileges: such a server is not detected.
    let files = |process: &str| fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let mut open_files = holders.collect::<BTreeSet<_>>().into_iter().flat_map(files);
    open_files.find_map(|file| served_below(fs::read_link(file.path()).ok()?.as_os_str().as_bytes()))
}

/// Checks that only this process can write to a reserved directory, and sets its mode where other users can read it.
///
/// # Errors
/// The reason, as the rest of a sentence.
pub(super) fn ensure_private(reserved: &DirectoryFd) -> std::result::Result<(), String> {
    // First, and not repaired: others may have put entries in already, which a chmod would hide.
    let mode = check_not_writable_by_others(reserved)?;
    if mode & 0o077 != 0
        && let Err(error) = reserved.set_mode(0o700)
    {
        tracing::warn!(%error, "other users can read staged content in .patgate: its mode can't be set to 0700");
    }
    Ok(())
}

/// Checks that other users can't put entries into a reserved directory; returns its mode.
fn check_not_writable_by_others(reserved: &DirectoryFd) -> std::result::Result<u32, String> {
    let stat = reserved.stat().map_err(|error| error.to_string())?;
    let own_uid = rustix::process::geteuid().as_raw();
    // vfat, FUSE and NFS with squashing show a fixed owner: the owner that new files get is as good as the own.
    if stat.uid != own_uid && owner_of_created_file(reserved) != Some(stat.uid) {
        return Err(format!(
            "belongs to the user id {}, not to {own_uid}: remove it, if it holds nothing of yours, or chown it to \
             {own_uid}",
            stat.uid
        ));
    }
    if stat.mode & GROUP_OTHER_WRITE_BITS != 0 {
        return Err(format!(
            "has mode {:03o}, so that other users may have put entries into it: check it, and chmod 700 it; mount a \
             file system without modes so that only {own_uid} may write to it",
            stat.mode & 0o777
        ));
    }
    Ok(stat.mode)
}

/// Returns the reason for which other users can put entries into the reserved directory below `mount_root`, as the rest
/// of a sentence; `None` where they can't, or there is none.
pub(crate) fn reserved_directory_fault(mount_root: &Path) -> Option<String> {
    let reserved =
        open_no_symlinks(open_root_path(mount_root).ok()?, RESERVED_DIRECTORY, OpenMode::DirectoryPath).ok()?;
    check_not_writable_by_others(&reserved.into()).err()
}

/// Returns the owner that the file system gives to files of this process; it may map user ids.
fn owner_of_created_file(reserved: &DirectoryFd) -> Option<u32> {
    use rustix::fs::{AtFlags, OFlags, openat};
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Left by a crash, it would make O_EXCL fail.
    let _ = unlinkat(reserved, OWNER_PROBE_NAME, AtFlags::empty());
    let probe = openat(reserved, OWNER_PROBE_NAME, flags, Mode::from_raw_mode(0o600)).ok()?;
    let owner = Stat::stat_at(&probe, b"").ok()?.uid;
    let _ = unlinkat(reserved, OWNER_PROBE_NAME, AtFlags::empty());
    Some(owner)
}

/// Tells whether locks work on the file system of a directory that is, or was, served; `None` where it never was.
pub(crate) fn supports_flock(mount_root: &Path) -> Option<bool> {
    let reserved =
        open_no_symlinks(open_root_path(mount_root).ok()?, RESERVED_DIRECTORY, OpenMode::DirectoryPath).ok()?;
    let open = || open_no_symlinks(&reserved, marker::MARKER_FILE_NAME, OpenMode::Read);
    match FlockGuard::try_shared(open().ok()?) {
        // A running server holds it.
        Err(Errno::WOULDBLOCK) => Some(true),
        Err(_) => Some(false),
        // By a second descriptor: through the same one flock(2) would convert the lock instead of refusing.
        Ok(_shared) => Some(matches!(FlockGuard::try_exclusive(open().ok()?), Err(Errno::WOULDBLOCK))),
    }
}
