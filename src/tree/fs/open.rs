//! Path resolution: the kernel resolves every path beneath an open directory (openat2(2)).
//!
//! A path is opened with symbolic links refused first: if that works, the path as written is the canonical one, and one
//! system call was enough. Only where a link is on the way (`ELOOP`) is it opened again with links followed, still
//! beneath the directory, and the kernel is asked which path the descriptor has.

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2, readlinkat};

use super::proc_path::proc_path;
use super::{Errno, FileFd, Result, ServedFs, Stat};
use crate::domain::TreePath;

/// Purpose that an entry is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenMode {
    /// `O_PATH`: metadata, attributes, or a start for resolution.
    Path,
    /// `O_PATH` of the entry itself, also where it is a symbolic link.
    PathNoFollow,
    /// `O_PATH` of a directory; any other entry is `ENOTDIR`.
    DirectoryPath,
    /// A directory in which names are changed, and then synced to disk; `EACCES` where it may not be read.
    DirectoryToSync,
    /// Listing of a directory.
    ReadDirectory,
    /// Reading of a file.
    Read,
    /// Reading of a file, with `EAGAIN` where the path is not in the dentry cache.
    ReadCached,
    /// Writing of a file.
    Write,
    /// Reading and writing of a file.
    ReadWrite,
}

impl OpenMode {
    fn open_flags(self) -> OFlags {
        // A FIFO must not block the open, nor a terminal become the controlling one.
        let file = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
        OFlags::CLOEXEC
            | match self {
                OpenMode::Path => OFlags::PATH,
                OpenMode::PathNoFollow => OFlags::PATH | OFlags::NOFOLLOW,
                OpenMode::DirectoryPath => OFlags::PATH | OFlags::DIRECTORY,
                OpenMode::ReadDirectory | OpenMode::DirectoryToSync => OFlags::RDONLY | OFlags::DIRECTORY,
                OpenMode::Read | OpenMode::ReadCached => OFlags::RDONLY | file,
                OpenMode::Write => OFlags::WRONLY | file,
                OpenMode::ReadWrite => OFlags::RDWR | file,
            }
    }
}

/// Whether a call may wait for a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResolveMode {
    /// It waits where it has to.
    Blocking,
    /// It fails with `EAGAIN` instead of waiting.
    Cached,
}

/// Location of an open entry in relation to the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FdLocation {
    /// It has this path.
    Linked(TreePath),
    /// It has no path any more, because it was removed or replaced; this was the last one. A file may have other names.
    Unlinked(TreePath),
    /// It is in the reserved directory: staged, or about to be removed.
    Reserved,
    /// It has no path any more, and the last one was in the reserved directory: it was staged and never committed, or
    /// removed.
    Discarded,
    /// It is outside of the tree.
    Outside,
}

// Bounded: constant renames on the host must end in an error, not in a busy thread.
const OPENAT2_RETRIES: u32 = 64;

fn open_beneath(directory: impl AsFd, path: &[u8], flags: OFlags, extra_flags: ResolveFlags) -> Result<OwnedFd> {
    // openat2(2) refuses an empty path.
    let path = if path.is_empty() { b"." } else { path };
    // BENEATH implies NO_MAGICLINKS today; openat2(2) says not to rely on it. A /proc link could lead anywhere.
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | extra_flags;
    let mut attempts = 0;
    loop {
        #[cfg(test)]
        super::fault_injection::count_syscall(|counts| &mut counts.opens);
        match openat2(directory.as_fd(), path, flags, Mode::empty(), resolve) {
            // EAGAIN: a rename somewhere on the host raced with a `..` in a link; openat2(2) says to try again.
            Err(Errno::AGAIN | Errno::INTR)
                if attempts < OPENAT2_RETRIES && !extra_flags.contains(ResolveFlags::CACHED) =>
            {
                attempts += 1
            }
            result => return result,
        }
    }
}

/// Opens a path below a directory; a symbolic link anywhere in it is an error (`ELOOP`).
pub(super) fn open_no_symlinks(directory: impl AsFd, path: &[u8], mode: OpenMode) -> Result<OwnedFd> {
    let cached = if mode == OpenMode::ReadCached { ResolveFlags::CACHED } else { ResolveFlags::empty() };
    open_beneath(directory, path, mode.open_flags(), ResolveFlags::NO_SYMLINKS | cached).map_err(|error| match error {
        // No link and no `..` led out of the directory: the entry was renamed out of it while it was opened.
        Errno::XDEV => Errno::NOENT,
        other => other,
    })
}

/// Opens a directory below a directory from the dentry cache alone; `EAGAIN` otherwise.
pub(super) fn open_directory_cached(directory: impl AsFd, path: &[u8]) -> Result<OwnedFd> {
    open_beneath(
        directory,
        path,
        OpenMode::DirectoryPath.open_flags(),
        ResolveFlags::NO_SYMLINKS | ResolveFlags::CACHED,
    )
}

/// Opens a path below a directory, following links that stay beneath it.
fn open_following_symlinks(directory: impl AsFd, path: &[u8], mode: OpenMode) -> Result<OwnedFd> {
    open_beneath(directory, path, mode.open_flags() - OFlags::NOFOLLOW, ResolveFlags::empty())
}

impl ServedFs {
    /// Opens `relative_path` beneath `anchor`, whose path in the tree is `anchor_path`. Symbolic links are followed as
    /// long as they stay beneath the anchor. Returns the file and its canonical path.
    ///
    /// # Errors
    /// `EXDEV` for a path that leads out of the anchor or into the reserved directory.
    pub(crate) fn resolve(
        &self,
        anchor: impl AsFd,
        anchor_path: &TreePath,
        relative_path: &TreePath,
        mode: OpenMode,
    ) -> Result<(FileFd, TreePath)> {
        match open_no_symlinks(anchor.as_fd(), relative_path.as_bytes(), mode) {
            // No link on the way: the path as written is the canonical one.
            Ok(fd) => {
                let path = anchor_path.join(relative_path);
                self.verify_mount(&path, || Stat::stat_at(&fd, b""))?;
                Ok((fd.into(), path))
            }
            // Neither followed nor classified, which may wait for a disk: the blocking call decides.
            Err(error) if mode == OpenMode::ReadCached => Err(error),
            Err(Errno::LOOP) => {
                // A link may lead anywhere in the tree: while a known file system is missing, its target may be there.
                let classify = |error| self.verify_mounts_below(&TreePath::root()).err().unwrap_or(error);
                let fd = open_following_symlinks(anchor, relative_path.as_bytes(), mode).map_err(classify)?;
                // Asked of the kernel: resolving link texts here could be raced. `None`: the target is in `.patgate`,
                // or was just removed.
                let path = self.path_of_fd(&fd).ok_or(Errno::XDEV)?;
                self.verify_mount(&path, || Stat::stat_at(&fd, b""))?;
                Ok((fd.into(), path))
            }
            Err(error) => Err(self.classify_error(&anchor_path.join(relative_path), error)),
        }
    }

    /// Returns the present path of an open entry; `None` when it was removed, or is outside of the tree or in the
    /// reserved directory.
    pub(crate) fn path_of_fd(&self, fd: impl AsFd) -> Option<TreePath> {
        match self.locate_fd(fd) {
            FdLocation::Linked(path) => Some(path),
            FdLocation::Unlinked(_) | FdLocation::Reserved | FdLocation::Discarded | FdLocation::Outside => None,
        }
    }

    /// Returns the present location of an open entry, or its last one.
    pub(crate) fn locate_fd(&self, fd: impl AsFd) -> FdLocation {
        let Some(path) = host_path(fd.as_fd()) else { return FdLocation::Outside };
        match self.unlinked_path(fd, &path) {
            Some(last_path) => match self.tree_path(last_path) {
                Ok(path) => FdLocation::Unlinked(path),
                Err(FdLocation::Reserved) => FdLocation::Discarded,
                Err(location) => location,
            },
            None => self.tree_path(&path).map_or_else(|error| error, FdLocation::Linked),
        }
    }

    /// Returns the last path of an entry that has no name any more: the kernel appends ` (deleted)` to it. A name may
    /// end in the same word; such an entry still has its path.
    fn unlinked_path<'a>(&self, fd: impl AsFd, path: &'a [u8]) -> Option<&'a [u8]> {
        let last_path = path.strip_suffix(b" (deleted)")?;
        let stat = Stat::stat_at(fd, b"").ok()?;
        // Only the same inode under that very name proves that ` (deleted)` belongs to the name.
        let is_linked = stat.link_count > 0
            && self.tree_path(path).is_ok_and(|path| self.stat(&path).is_ok_and(|found| found.is_same_file(&stat)));
        (!is_linked).then_some(last_path)
    }

    /// Returns the path in the tree of a host path.
    ///
    /// # Errors
    /// [`FdLocation::Reserved`] or [`FdLocation::Outside`], as a location.
    fn tree_path(&self, path: &[u8]) -> std::result::Result<TreePath, FdLocation> {
        let root = self.root().ok().and_then(host_path).ok_or(FdLocation::Outside)?;
        let relative_path = match root.as_slice() {
            // Stripping `/` would take the first slash of the path.
            b"/" => path,
            root => path.strip_prefix(root).ok_or(FdLocation::Outside)?,
        };
        // A sibling with the same prefix: `/srv/tree2` beside `/srv/tree`.
        if !(relative_path.is_empty() || relative_path.starts_with(b"/")) {
            return Err(FdLocation::Outside);
        }
        TreePath::parse(relative_path).map_err(|_| FdLocation::Reserved)
    }
}

/// Returns the host path of an open entry, as the kernel knows it.
pub(crate) fn host_path(fd: impl AsFd) -> Option<Vec<u8>> {
    readlinkat(CWD, proc_path(fd), Vec::new()).ok().map(|path| path.into_bytes())
}
