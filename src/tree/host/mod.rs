//! Host paths: the one place that names them, always beneath an open folder.
//!
//! The served folder is held open and served while its host path shows it ([`served`]). [`open`] resolves paths in it,
//! [`Folder`] changes names in a folder that is open, [`File`] holds bytes, and [`Staging`] is where things wait that
//! have no name yet, or none any more.

mod aside;
mod claims;
#[cfg(test)]
pub(super) mod doom;
mod early_note;
mod file;
mod folder;
mod marker;
mod mounts;
mod open;
mod served;
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

pub(crate) use aside::Aside;
pub(crate) use claims::{KeptNames, locks_work, reserved_fault};
pub(crate) use early_note::EarlyNote;
pub(crate) use file::File;
pub(crate) use folder::{Folder, Names, space};
pub(crate) use open::{How, Location, Pace, host_path};
pub(crate) use served::{KnownMount, KnownTree};
pub(crate) use staging::{Kept, Staged, Staging};
pub(crate) use stat::{Mount, Stat};

use super::{Error, Outage};
use crate::domain::TreePath;
use claims::Claims;
use served::{Served, Watch};

/// What the host says went wrong.
pub(crate) type Errno = rustix::io::Errno;

/// The result of a call to the host.
pub(crate) type Result<T> = std::result::Result<T, Errno>;

/// The served folder, open while it is there.
pub(crate) struct Host {
    place: PathBuf,
    umask: u32,
    run: u64,
    claims: Option<Claims>,
    present: ArcSwap<std::result::Result<Arc<Served>, Outage>>,
    watch: Mutex<Watch>,
}

impl Host {
    /// Opens the served folder; to be claimed with [`Host::claim`] by the server that keeps these names in staging.
    ///
    /// # Errors
    /// What the host says.
    pub(crate) fn open(root: &Path, kept: Option<KeptNames>) -> io::Result<Self> {
        // A link at the end is followed each time: where it leads elsewhere, another folder is there.
        let place = std::path::absolute(root)?;
        let (served, watch) = Served::first(&place)?;
        served.root.folder(&TreePath::root()).map_err(|error| match error {
            Errno::NOSYS => io::Error::new(io::ErrorKind::Unsupported, "this needs Linux 5.6 or later (openat2)"),
            other => other.into(),
        })?;
        let mut run = [0; 8];
        getrandom::fill(&mut run)?;
        Ok(Self {
            place,
            umask: umask(),
            run: u64::from_ne_bytes(run),
            claims: kept.map(Claims::new),
            present: ArcSwap::new(Arc::new(Ok(Arc::new(served)))),
            watch: Mutex::new(watch),
        })
    }

    /// Returns the permission bits that the process's mask leaves of `mode`.
    pub(crate) fn masked(&self, mode: u32) -> u32 {
        mode & 0o777 & !self.umask
    }

    /// Opens a folder of the tree; a link on the way is an error.
    pub(crate) fn folder(&self, path: &TreePath) -> Result<Folder> {
        self.folder_at(path, Pace::Patient)
    }

    /// As [`Host::folder`], at a pace.
    ///
    /// # Errors
    /// `EAGAIN` where [`Pace::Cached`] would have to wait.
    pub(crate) fn folder_at(&self, path: &TreePath, pace: Pace) -> Result<Folder> {
        let root = self.root()?;
        let folder = match pace {
            _ if path.is_root() => return Ok(root),
            Pace::Cached => open::plain_cached(&root, path.as_bytes()).map(Folder::from)?,
            Pace::Patient => root.folder(path).map_err(|error| self.judge(path, error))?,
        };
        self.verify(path, || folder.stat())?;
        Ok(folder)
    }

    /// Asks about an entry of the tree; a link on the way is an error, one at the end shows itself.
    pub(crate) fn stat(&self, path: &TreePath) -> Result<Stat> {
        let Some((parent, name)) = path.split_last() else { return self.root()?.stat() };
        let stat = self.folder(&parent)?.stat_entry(&name).map_err(|error| self.judge(path, error))?;
        self.verify(path, || Ok(stat.clone()))?;
        Ok(stat)
    }

    /// Tells whether a file system is mounted below a folder of the tree.
    pub(crate) fn holds_mounts(&self, path: &TreePath) -> Result<bool> {
        Ok(mounts::below(&self.root()?).iter().any(|mount| !mount.is_root() && mount.starts_with(path)))
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NXIO => Error::Absent,
            Errno::NOMEDIUM => Outage::Replaced.into(),
            Errno::IO | Errno::STALE | Errno::NOTCONN | Errno::SHUTDOWN | Errno::TIMEDOUT | Errno::HOSTDOWN => {
                let fault = io::Error::from(errno).to_string();
                tracing::error!(%fault, "a file system of the served folder fails");
                Outage::Failing(fault).into()
            }
            Errno::EXIST => Error::Exists,
            Errno::ISDIR => Error::IsFolder,
            Errno::NOTEMPTY => Error::NotEmpty,
            Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::BUSY | Errno::TXTBSY => Error::Forbidden,
            Errno::NOSPC | Errno::DQUOT | Errno::FBIG => Error::NoSpace,
            Errno::NAMETOOLONG | Errno::ILSEQ => Error::BadName,
            Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK | Errno::OVERFLOW => Error::Unsupported,
            Errno::MFILE | Errno::NFILE => Error::TooManyOpenFiles,
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

    /// Locks together with others that share the lock.
    pub(crate) fn share(file: OwnedFd) -> Result<Self> {
        flock(&file, FlockOperation::NonBlockingLockShared).map(|()| Self(file))
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
