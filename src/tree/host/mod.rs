//! Host paths: the one place that names them, always beneath an open folder.
//!
//! The served folder is opened once; whatever its host path leads to later, the tree stays where it
//! was. [`open`] resolves paths in it, [`Folder`] changes names in a folder that is open, [`File`]
//! holds bytes, and [`Staging`] is where things wait that have no name yet, or none any more.

mod aside;
#[cfg(test)]
pub(super) mod doom;
mod file;
mod folder;
mod mounts;
mod open;
mod staging;
mod stat;

use std::collections::HashMap;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use parking_lot::RwLock;
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};

pub(crate) use aside::Aside;
pub(crate) use file::File;
pub(crate) use folder::{Folder, Names, space};
pub(crate) use open::{How, Location, Pace, host_path};
pub(crate) use staging::{Kept, KeptNames, Staged, Staging};
pub(crate) use stat::{Mount, Stat};

use super::Error;
use crate::domain::TreePath;

/// What the host says went wrong.
pub(crate) type Errno = rustix::io::Errno;

/// The result of a call to the host.
pub(crate) type Result<T> = std::result::Result<T, Errno>;

/// The served folder, open.
pub(crate) struct Host {
    root: Folder,
    umask: u32,
    run: u64,
    sweeps: Option<KeptNames>,
    stagings: RwLock<HashMap<Mount, Arc<Staging>>>,
}

impl Host {
    /// Opens the served folder. When it `sweeps`, what earlier runs left in staging is removed, here
    /// and on file systems mounted below, but for what is kept.
    ///
    /// # Errors
    /// What the host says; [`io::ErrorKind::WouldBlock`] when another server sweeps there.
    pub(crate) fn open(root: &Path, sweeps: Option<KeptNames>) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = Folder::from(openat(CWD, root, flags, Mode::empty())?);
        root.folder(&TreePath::root()).map_err(|error| match error {
            Errno::NOSYS => io::Error::new(io::ErrorKind::Unsupported, "this needs Linux 5.6 or later (openat2)"),
            other => other.into(),
        })?;
        let mut run = [0; 8];
        getrandom::fill(&mut run)?;
        let run = u64::from_ne_bytes(run);
        let host = Self { root, umask: umask(), run, sweeps, stagings: RwLock::default() };
        if host.sweeps.is_some() {
            host.sweep().map_err(|error| match error {
                Errno::BUSY => io::Error::new(io::ErrorKind::WouldBlock, "another server serves this folder"),
                other => other.into(),
            })?;
        }
        Ok(host)
    }

    /// Returns the served folder.
    pub(crate) fn root(&self) -> &Folder {
        &self.root
    }

    /// Returns the permission bits that the process's mask leaves of `mode`.
    pub(crate) fn masked(&self, mode: u32) -> u32 {
        mode & 0o777 & !self.umask
    }

    /// Opens a folder of the tree; a link on the way is an error.
    pub(crate) fn folder(&self, path: &TreePath) -> Result<Folder> {
        if path.is_root() { Ok(self.root.clone()) } else { self.root.folder(path) }
    }

    /// As [`Host::folder`], at a pace.
    ///
    /// # Errors
    /// `EAGAIN` where [`Pace::Cached`] would have to wait.
    pub(crate) fn folder_at(&self, path: &TreePath, pace: Pace) -> Result<Folder> {
        match pace {
            Pace::Cached if !path.is_root() => open::plain_cached(&self.root, path.as_bytes()).map(Folder::from),
            Pace::Cached | Pace::Patient => self.folder(path),
        }
    }

    /// Asks about an entry of the tree; a link on the way is an error, one at the end shows itself.
    pub(crate) fn stat(&self, path: &TreePath) -> Result<Stat> {
        match path.split() {
            None => self.root.stat(),
            Some((parent, name)) => self.folder(&parent)?.stat_entry(&name),
        }
    }

    /// Tells whether a file system is mounted below a folder of the tree.
    pub(crate) fn holds_mounts(&self, path: &TreePath) -> bool {
        mounts::below(&self.root).iter().any(|mount| !mount.is_root() && mount.is_within(path))
    }

    fn sweep(&self) -> Result<()> {
        for mount in mounts::below(&self.root) {
            let Ok(folder) = self.folder(&mount) else { continue };
            // A file system that can't be written to holds no debris of ours that could be removed.
            match folder.stat().and_then(|stat| self.staging(&folder, stat.mount())) {
                Ok(_) | Err(Errno::ROFS | Errno::ACCESS | Errno::PERM) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::STALE | Errno::NXIO => Error::Absent,
            Errno::EXIST => Error::Exists,
            Errno::ISDIR => Error::IsFolder,
            Errno::NOTEMPTY => Error::NotEmpty,
            Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::BUSY | Errno::TXTBSY => Error::Forbidden,
            Errno::NOSPC | Errno::DQUOT | Errno::FBIG => Error::NoSpace,
            Errno::NAMETOOLONG | Errno::ILSEQ => Error::BadName,
            Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK | Errno::OVERFLOW => Error::Unsupported,
            other => Error::Host(io::Error::from(other)),
        }
    }
}

impl Error {
    /// Says what went wrong when something was put under a name in an open folder: what is missing can
    /// only be the folder.
    pub(crate) fn putting(errno: Errno) -> Self {
        match errno {
            Errno::NOENT => Error::NoParent,
            Errno::XDEV => Error::Unsupported,
            other => other.into(),
        }
    }
}

/// A lock on a file or folder (flock(2)) that is let go when this is dropped: in so many words, because a process
/// that is just being started may still hold a copy of the descriptor.
#[derive(Debug)]
pub(crate) struct Locked(OwnedFd);

impl Locked {
    /// Locks, when nobody else holds the lock.
    pub(crate) fn take(file: OwnedFd) -> Result<Self> {
        flock(&file, FlockOperation::NonBlockingLockExclusive).map(|()| Self(file))
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Closing lets it go as well.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Keeps other servers off a state directory while it lives.
#[derive(Debug)]
pub(crate) struct Exclusive(#[allow(dead_code, reason = "holds the lock while it lives")] Locked);

impl Exclusive {
    /// Claims a state directory.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when another server holds it.
    pub(crate) fn claim(state: &Path) -> io::Result<Self> {
        let path = state.join("serve.lock");
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        match Locked::take(file.into()) {
            Ok(lock) => Ok(Self(lock)),
            Err(Errno::WOULDBLOCK) => {
                Err(io::Error::new(io::ErrorKind::WouldBlock, "another server uses this state directory"))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Reads the mask without setting it, which would race with other threads.
fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    mask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o022)
}
