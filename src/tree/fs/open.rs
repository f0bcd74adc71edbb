//! Opening: every resolution is the kernel's, beneath an open folder (openat2).
//!
//! A path is first opened with links refused: then the path as written is the canonical one, and
//! costs nothing more. Only where a link stands in the way is it opened again with links followed,
//! still beneath the folder, and the kernel asked where that led.

use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2, readlinkat};

use super::{Errno, FileFd, Result, ServedFs, Stat};
use crate::domain::TreePath;

/// How an entry is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenMode {
    /// Only as a place: to ask about it or to start from.
    Path,
    /// As a place, a link itself included.
    PathNoFollow,
    /// As a place, which must be a folder.
    DirectoryPath,
    /// To list a folder.
    ReadDirectory,
    /// To read a file.
    Read,
    /// To read a file if the way to it is in memory; `EAGAIN` where it isn't.
    ReadCached,
    /// To write a file.
    Write,
    /// To read and write a file.
    ReadWrite,
}

impl OpenMode {
    fn open_flags(self) -> OFlags {
        let file = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
        OFlags::CLOEXEC
            | match self {
                OpenMode::Path => OFlags::PATH,
                OpenMode::PathNoFollow => OFlags::PATH | OFlags::NOFOLLOW,
                OpenMode::DirectoryPath => OFlags::PATH | OFlags::DIRECTORY,
                OpenMode::ReadDirectory => OFlags::RDONLY | OFlags::DIRECTORY,
                OpenMode::Read | OpenMode::ReadCached => OFlags::RDONLY | file,
                OpenMode::Write => OFlags::WRONLY | file,
                OpenMode::ReadWrite => OFlags::RDWR | file,
            }
    }
}

/// Whether a call may wait for a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResolveMode {
    /// It may.
    Blocking,
    /// It fails with `EAGAIN` where it would have to.
    Cached,
}

/// Where in the tree an open entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FdLocation {
    /// Under a name.
    Linked(TreePath),
    /// Nowhere any more: it was removed or replaced; this was its last path. A file may have other names.
    Unlinked(TreePath),
    /// In the gateway's own directory: staged, or on its way to be removed.
    Reserved,
    /// Nowhere any more, and last in the gateway's own directory: it was staged and never put in place, or removed.
    Discarded,
    /// Outside of the tree.
    Outside,
}

const OPENAT2_RETRIES: u32 = 64;

fn open_beneath(directory: impl AsFd, path: &[u8], flags: OFlags, extra_flags: ResolveFlags) -> Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | extra_flags;
    let mut attempts = 0;
    loop {
        match openat2(directory.as_fd(), path, flags, Mode::empty(), resolve) {
            // A rename somewhere on the host raced with a `..` in a link; asking again is the remedy.
            Err(Errno::AGAIN | Errno::INTR)
                if attempts < OPENAT2_RETRIES && !extra_flags.contains(ResolveFlags::CACHED) =>
            {
                attempts += 1
            }
            result => return result,
        }
    }
}

/// Opens a path below a folder; a link anywhere in it is an error (`ELOOP`).
pub(super) fn open_no_symlinks(directory: impl AsFd, path: &[u8], mode: OpenMode) -> Result<OwnedFd> {
    let cached = if mode == OpenMode::ReadCached { ResolveFlags::CACHED } else { ResolveFlags::empty() };
    open_beneath(directory, path, mode.open_flags(), ResolveFlags::NO_SYMLINKS | cached)
}

/// Opens a folder below a folder if the way to it is in memory.
pub(super) fn open_directory_cached(directory: impl AsFd, path: &[u8]) -> Result<OwnedFd> {
    open_beneath(
        directory,
        path,
        OpenMode::DirectoryPath.open_flags(),
        ResolveFlags::NO_SYMLINKS | ResolveFlags::CACHED,
    )
}

/// Opens a path below a folder, following links that stay beneath it.
fn open_following_symlinks(directory: impl AsFd, path: &[u8], mode: OpenMode) -> Result<OwnedFd> {
    open_beneath(directory, path, mode.open_flags() - OFlags::NOFOLLOW, ResolveFlags::empty())
}

impl ServedFs {
    /// Opens `rest` beneath `anchor`, which stands at `place`; links that stay beneath it are followed.
    /// Returns also where that is, without links.
    ///
    /// # Errors
    /// `EXDEV` for what leads out or to the gateway's own folder.
    pub(crate) fn resolve(
        &self,
        anchor: impl AsFd,
        anchor_path: &TreePath,
        relative_path: &TreePath,
        mode: OpenMode,
    ) -> Result<(FileFd, TreePath)> {
        match open_no_symlinks(anchor.as_fd(), relative_path.as_bytes(), mode) {
            Ok(fd) => {
                let path = anchor_path.join(relative_path);
                self.verify_mount(&path, || Stat::stat_at(&fd, b""))?;
                Ok((fd.into(), path))
            }
            Err(Errno::LOOP) => {
                // It may lead anywhere: where something of the tree is missing, it may lead there.
                let classify = |error| self.verify_mounts_below(&TreePath::root()).err().unwrap_or(error);
                let fd = open_following_symlinks(anchor, relative_path.as_bytes(), mode).map_err(classify)?;
                let path = self.path_of_fd(&fd).ok_or(Errno::XDEV)?;
                self.verify_mount(&path, || Stat::stat_at(&fd, b""))?;
                Ok((fd.into(), path))
            }
            Err(error) if mode == OpenMode::ReadCached => Err(error),
            Err(error) => Err(self.classify_error(&anchor_path.join(relative_path), error)),
        }
    }

    /// Returns where in the tree an open entry is now; `None` when it was removed, is outside or in
    /// the gateway's own folder.
    pub(crate) fn path_of_fd(&self, fd: impl AsFd) -> Option<TreePath> {
        match self.locate_fd(fd) {
            FdLocation::Linked(path) => Some(path),
            FdLocation::Unlinked(_) | FdLocation::Reserved | FdLocation::Discarded | FdLocation::Outside => None,
        }
    }

    /// Returns where in the tree an open entry is now, or was last.
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

    /// Returns the last path of an entry whose name is gone: the kernel marks it at the end of the path. A name may
    /// end in the same word; then the entry still stands under it.
    fn unlinked_path<'a>(&self, fd: impl AsFd, path: &'a [u8]) -> Option<&'a [u8]> {
        let last_path = path.strip_suffix(b" (deleted)")?;
        let stat = Stat::stat_at(fd, b"").ok()?;
        let is_linked = stat.link_count > 0
            && self.tree_path(path).is_ok_and(|path| self.stat(&path).is_ok_and(|found| found.is_same_file(&stat)));
        (!is_linked).then_some(last_path)
    }

    /// Returns the path in the tree of a path of the host.
    ///
    /// # Errors
    /// Where else it is: [`FdLocation::Reserved`] or [`FdLocation::Outside`].
    fn tree_path(&self, path: &[u8]) -> std::result::Result<TreePath, FdLocation> {
        let root = self.root().ok().and_then(host_path).ok_or(FdLocation::Outside)?;
        let relative_path = match root.as_slice() {
            b"/" => path,
            root => path.strip_prefix(root).ok_or(FdLocation::Outside)?,
        };
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

/// Returns the name by which the process itself can open or change exactly this entry.
pub(super) fn proc_path(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}
