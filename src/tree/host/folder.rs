//! An open folder and what can be done with the names in it. No link is ever followed here.

use std::mem::MaybeUninit;
use std::sync::Arc;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    Access, AtFlags, FileType, Mode, OFlags, RawDir, RenameFlags, accessat, fchmod, fstatvfs, mkdirat, openat,
    readlinkat, renameat, renameat_with, symlinkat, unlinkat,
};

use super::file::sync;
use super::open::{How, plain};
use super::{Errno, File, Result, Stat};
use crate::domain::{EntryName, TreePath};
use crate::tree::Space;

/// An open folder: a place to start from, whatever happens to the names above it. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Folder(Arc<OwnedFd>);

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Folder {
    fn from(fd: OwnedFd) -> Self {
        Self(Arc::new(fd))
    }
}

impl From<File> for Folder {
    fn from(place: File) -> Self {
        OwnedFd::from(place).into()
    }
}

impl Folder {
    /// Asks about the folder itself.
    pub(crate) fn stat(&self) -> Result<Stat> {
        Stat::of(self, b"")
    }

    /// Asks about an entry.
    pub(crate) fn stat_entry(&self, name: &EntryName) -> Result<Stat> {
        Stat::of(self, name.as_bytes())
    }

    /// Opens a folder below; a link on the way is an error.
    pub(crate) fn folder(&self, path: &TreePath) -> Result<Folder> {
        plain(self, path.as_bytes(), How::Folder).map(Folder::from)
    }

    /// Opens an entry; a link is an error.
    pub(crate) fn open(&self, name: &EntryName, how: How) -> Result<File> {
        plain(self, name.as_bytes(), how).map(File::from)
    }

    /// Makes a file where nothing is, to be read and written.
    pub(crate) fn make_file(&self, name: &EntryName, mode: u32) -> Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(self, name.as_bytes(), flags, Mode::from_raw_mode(mode)).map(File::from)
    }

    /// Makes a folder where nothing is.
    pub(crate) fn make_folder(&self, name: &EntryName, mode: u32) -> Result<()> {
        mkdirat(self, name.as_bytes(), Mode::from_raw_mode(mode))
    }

    /// Removes an entry that is no folder.
    pub(crate) fn unlink(&self, name: &EntryName) -> Result<()> {
        change(|| unlinkat(self, name.as_bytes(), AtFlags::empty()))
    }

    /// Removes an empty folder.
    pub(crate) fn remove_folder(&self, name: &EntryName) -> Result<()> {
        change(|| unlinkat(self, name.as_bytes(), AtFlags::REMOVEDIR))
    }

    /// Moves an entry, replacing as POSIX does.
    pub(crate) fn rename(&self, name: &EntryName, to: &Folder, target: &EntryName) -> Result<()> {
        change(|| renameat(self, name.as_bytes(), to, target.as_bytes()))
    }

    /// Moves an entry to where nothing is.
    pub(crate) fn rename_new(&self, name: &EntryName, to: &Folder, target: &EntryName) -> Result<()> {
        match change(|| renameat_with(self, name.as_bytes(), to, target.as_bytes(), RenameFlags::NOREPLACE)) {
            // The file system has no such rename: look first, under the caller's lock.
            Err(Errno::INVAL | Errno::NOSYS) => match to.stat_entry(target) {
                Ok(_) => Err(Errno::EXIST),
                Err(Errno::NOENT) => self.rename(name, to, target),
                Err(error) => Err(error),
            },
            result => result,
        }
    }

    /// Lets two entries change places in one step.
    pub(crate) fn exchange(&self, name: &EntryName, to: &Folder, target: &EntryName) -> Result<()> {
        #[cfg(test)]
        super::doom::exchanges()?;
        change(|| renameat_with(self, name.as_bytes(), to, target.as_bytes(), RenameFlags::EXCHANGE))
    }

    /// Tells whether the host lets this process change names in the folder.
    pub(crate) fn may_change_names(&self) -> Result<()> {
        accessat(self, b".".as_slice(), Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
    }

    /// Makes a symbolic link.
    pub(crate) fn symlink(&self, target: &[u8], name: &EntryName) -> Result<()> {
        change(|| symlinkat(target, self, name.as_bytes()))
    }

    /// Returns what a symbolic link says.
    pub(crate) fn read_link(&self, name: &EntryName) -> Result<Vec<u8>> {
        readlinkat(self, name.as_bytes(), Vec::new()).map(|target| target.into_bytes())
    }

    /// Writes the names in the folder, and its own attributes, to disk.
    pub(crate) fn sync(&self) -> Result<()> {
        sync(plain(self, b"", How::List)?)
    }

    /// Sets permission bits.
    pub(crate) fn set_mode(&self, mode: u32) -> Result<()> {
        fchmod(plain(self, b"", How::List)?, Mode::from_raw_mode(mode))
    }

    /// Returns the room on the folder's file system.
    pub(crate) fn space(&self) -> Result<Space> {
        space(self)
    }

    /// Shows every entry below: the folder that holds it, the way down to that, its name, and what it is. `go_on` is
    /// asked before every block of names.
    pub(crate) fn each_below<E: From<Errno>>(
        &self,
        mut go_on: impl FnMut() -> std::result::Result<(), E>,
        mut show: impl FnMut(&Folder, &TreePath, &EntryName, &Stat) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let mut left = vec![TreePath::root()];
        while let Some(below) = left.pop() {
            let folder = self.folder(&below)?;
            let mut names = folder.names()?;
            loop {
                let block = names.block()?;
                if block.is_empty() {
                    break;
                }
                go_on()?;
                for name in block {
                    let stat = match folder.stat_entry(&name) {
                        Err(Errno::NOENT) => continue,
                        stat => stat?,
                    };
                    if stat.is_folder() {
                        left.push(below.child(&name));
                    }
                    show(&folder, &below, &name, &stat)?;
                }
            }
        }
        Ok(())
    }

    /// Opens the folder to be listed.
    pub(crate) fn names(&self) -> Result<Names> {
        plain(self, b"", How::List).map(Names::from)
    }

    /// Opens the folder to be listed by one who needs all that is in it: what listings leave out is `EOPNOTSUPP`.
    pub(crate) fn all_names(&self) -> Result<Names> {
        self.names().map(|names| Names { all: true, ..names })
    }

    /// Tells whether nothing at all is in the folder.
    pub(crate) fn is_empty(&self) -> Result<bool> {
        match self.all_names()?.block() {
            Err(Errno::OPNOTSUPP) => Ok(false),
            block => Ok(block?.is_empty()),
        }
    }
}

/// Changes names in one step; a test may refuse it, or kill the process just before and just after it.
fn change(step: impl FnOnce() -> Result<()>) -> Result<()> {
    #[cfg(test)]
    super::doom::before()?;
    let done = step();
    #[cfg(test)]
    super::doom::mortal();
    done
}

/// Returns the room on the file system of an open entry.
pub(crate) fn space(fd: impl AsFd) -> Result<Space> {
    let v = fstatvfs(fd)?;
    Ok(Space {
        total: v.f_blocks.saturating_mul(v.f_frsize),
        available: v.f_bavail.saturating_mul(v.f_frsize),
        free: v.f_bfree.saturating_mul(v.f_frsize),
        files: v.f_files,
        files_free: v.f_ffree,
        block: v.f_frsize,
        name_max: v.f_namemax,
    })
}

const BLOCK: usize = 64 << 10;

/// The names in a folder, read a block at a time.
pub(crate) struct Names {
    fd: OwnedFd,
    buffer: Box<[MaybeUninit<u8>]>,
    done: bool,
    all: bool,
}

impl From<OwnedFd> for Names {
    fn from(fd: OwnedFd) -> Self {
        Self { fd, buffer: Box::new([MaybeUninit::uninit(); BLOCK]), done: false, all: false }
    }
}

impl AsFd for Names {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Names {
    /// Reads the next block of names; empty at the end. `.`, `..`, the gateway's own folder, sockets
    /// and devices are left out.
    pub(crate) fn block(&mut self) -> Result<Vec<EntryName>> {
        let mut names = Vec::new();
        while names.is_empty() && !self.done {
            self.done = !fill(&self.fd, &mut self.buffer, self.all, &mut names)?;
        }
        Ok(names)
    }

    /// Asks about an entry.
    pub(crate) fn stat_entry(&self, name: &EntryName) -> Result<Stat> {
        Stat::of(&self.fd, name.as_bytes())
    }
}

fn fill(fd: &OwnedFd, buffer: &mut [MaybeUninit<u8>], all: bool, names: &mut Vec<EntryName>) -> Result<bool> {
    let mut raw = RawDir::new(fd, buffer);
    while let Some(entry) = raw.next() {
        let entry = match entry {
            Err(Errno::INTR) => continue,
            entry => entry?,
        };
        let shown = matches!(
            entry.file_type(),
            FileType::RegularFile | FileType::Directory | FileType::Symlink | FileType::Unknown
        );
        let name = entry.file_name().to_bytes();
        match EntryName::new(name) {
            Ok(name) if shown => names.push(name),
            Ok(_) | Err(_) if all && !matches!(name, b"." | b"..") => return Err(Errno::OPNOTSUPP),
            Ok(_) | Err(_) => {}
        }
        if raw.is_buffer_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}
