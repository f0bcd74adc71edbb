//! An open directory, and the operations on the names in it. No symbolic link is followed here.

use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::Arc;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    Access, AtFlags, CWD, FileType, Mode, OFlags, RawDir, RenameFlags, accessat, fchmod, fstatvfs, mkdirat, openat,
    readlinkat, renameat, renameat_with, symlinkat, unlinkat,
};
use rustix::io::fcntl_dupfd_cloexec;

use super::file::sync;
use super::open::{OpenMode, open_no_symlinks};
use super::{Errno, FileFd, Result, Stat};
use crate::domain::{EntryName, TreePath};
use crate::tree::FilesystemSpace;

/// Open directory: resolution starts from it whatever happens to the names above it. Clones share the descriptor.
#[derive(Clone, Debug)]
pub(crate) struct DirectoryFd(Arc<OwnedFd>);

impl AsFd for DirectoryFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for DirectoryFd {
    fn from(fd: OwnedFd) -> Self {
        Self(Arc::new(fd))
    }
}

impl From<FileFd> for DirectoryFd {
    fn from(file: FileFd) -> Self {
        OwnedFd::from(file).into()
    }
}

impl DirectoryFd {
    /// Returns the metadata of the directory itself.
    pub(crate) fn stat(&self) -> Result<Stat> {
        Stat::stat_at(self, b"")
    }

    /// Returns the metadata of an entry.
    pub(crate) fn stat_entry(&self, name: &EntryName) -> Result<Stat> {
        Stat::stat_at(self, name.as_bytes())
    }

    /// Opens a directory at a relative path; `ELOOP` where a symbolic link is on the way.
    pub(crate) fn open_directory(&self, path: &TreePath) -> Result<DirectoryFd> {
        open_no_symlinks(self, path.as_bytes(), OpenMode::DirectoryPath).map(DirectoryFd::from)
    }

    /// Opens an entry; `ELOOP` where it is a symbolic link.
    pub(crate) fn open(&self, name: &EntryName, mode: OpenMode) -> Result<FileFd> {
        open_no_symlinks(self, name.as_bytes(), mode).map(FileFd::from)
    }

    /// Creates a file, open for reading and writing; `EEXIST` where the name is taken.
    pub(crate) fn create_file(&self, name: &EntryName, mode: u32) -> Result<FileFd> {
        #[cfg(test)]
        super::fault_injection::count_syscall(|counts| &mut counts.opens);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(self, name.as_bytes(), flags, Mode::from_raw_mode(mode)).map(FileFd::from)
    }

    /// Creates a directory; `EEXIST` where the name is taken.
    pub(crate) fn create_directory(&self, name: &EntryName, mode: u32) -> Result<()> {
        mkdirat(self, name.as_bytes(), Mode::from_raw_mode(mode))
    }

    /// Removes an entry that is not a directory.
    pub(crate) fn unlink(&self, name: &EntryName) -> Result<()> {
        run_step(|| unlinkat(self, name.as_bytes(), AtFlags::empty()))
    }

    /// Removes an empty directory.
    pub(crate) fn remove_directory(&self, name: &EntryName) -> Result<()> {
        run_step(|| unlinkat(self, name.as_bytes(), AtFlags::REMOVEDIR))
    }

    /// Renames an entry and replaces the target as rename(2) does.
    pub(crate) fn rename(&self, name: &EntryName, to: &DirectoryFd, target: &EntryName) -> Result<()> {
        run_step(|| renameat(self, name.as_bytes(), to, target.as_bytes()))
    }

    /// Renames an entry to a name that is free; `EEXIST` otherwise.
    pub(crate) fn rename_noreplace(&self, name: &EntryName, to: &DirectoryFd, target: &EntryName) -> Result<()> {
        match run_step(|| renameat_with(self, name.as_bytes(), to, target.as_bytes(), RenameFlags::NOREPLACE)) {
            // The file system has no RENAME_NOREPLACE. Looking first is no race between clients: the caller holds the
            // commit lock.
            Err(Errno::INVAL | Errno::NOSYS) => match to.stat_entry(target) {
                Ok(_) => Err(Errno::EXIST),
                Err(Errno::NOENT) => self.rename(name, to, target),
                Err(error) => Err(error),
            },
            result => result,
        }
    }

    /// Exchanges two entries in one step.
    pub(crate) fn exchange(&self, name: &EntryName, to: &DirectoryFd, target: &EntryName) -> Result<()> {
        #[cfg(test)]
        super::fault_injection::check_exchange_supported()?;
        run_step(|| renameat_with(self, name.as_bytes(), to, target.as_bytes(), RenameFlags::EXCHANGE))
    }

    /// Checks that this process may create and remove names in the directory; `EACCES` or `EROFS` otherwise.
    pub(crate) fn check_write_access(&self) -> Result<()> {
        #[cfg(test)]
        super::fault_injection::count_syscall(|counts| &mut counts.stats);
        // AT_EACCESS: by the effective ids, by which the kernel will check the later rename.
        accessat(self, b".".as_slice(), Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
    }

    /// Creates a symbolic link.
    pub(crate) fn symlink(&self, target: &[u8], name: &EntryName) -> Result<()> {
        run_step(|| symlinkat(target, self, name.as_bytes()))
    }

    /// Returns the target text of a symbolic link.
    pub(crate) fn read_link(&self, name: &EntryName) -> Result<Vec<u8>> {
        readlinkat(self, name.as_bytes(), Vec::new()).map(|target| target.into_bytes())
    }

    /// Syncs the names in the directory, and its own attributes, to disk.
    pub(crate) fn sync(&self) -> Result<()> {
        match sync(self) {
            // fsync(2) refuses O_PATH descriptors: opened again for reading.
            Err(Errno::BADF) => sync(open_no_symlinks(self, b"", OpenMode::ReadDirectory)?),
            synced => synced,
        }
    }

    /// Sets the permission bits of the directory.
    pub(crate) fn set_mode(&self, mode: u32) -> Result<()> {
        // fchmod(2) refuses O_PATH descriptors, as this one mostly is: opened again for reading.
        fchmod(open_no_symlinks(self, b"", OpenMode::ReadDirectory)?, Mode::from_raw_mode(mode))
    }

    /// Returns the total and free space of the directory's file system.
    pub(crate) fn space(&self) -> Result<FilesystemSpace> {
        filesystem_space(self)
    }

    /// Calls `visit` for every entry below: with the directory that holds it, the relative path of that directory, the
    /// name, and the metadata. Entries that vanish during the walk are left out, directories with all that was in them.
    /// `check_continue` is called once for each batch of names; an error of either ends the walk.
    pub(crate) fn walk<E: From<Errno>>(
        &self,
        mut check_continue: impl FnMut() -> std::result::Result<(), E>,
        mut visit: impl FnMut(&DirectoryFd, &TreePath, &EntryName, &Stat) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        // A list of paths in place of recursion: depth costs neither stack nor descriptors.
        let mut pending = vec![TreePath::root()];
        while let Some(relative_path) = pending.pop() {
            let opened = self.open_directory(&relative_path).and_then(|found| Ok((found.read_names()?, found)));
            // Removed since it was listed, as any entry may be that a client or the host removes.
            let Some((mut names, directory)) = none_if_vanished(opened)? else { continue };
            loop {
                let batch = names.next_batch()?;
                if batch.is_empty() {
                    break;
                }
                check_continue()?;
                for name in batch {
                    let stat = match directory.stat_entry(&name) {
                        // Removed since the names of the batch were read.
                        Err(Errno::NOENT) => continue,
                        stat => stat?,
                    };
                    if stat.is_directory() {
                        pending.push(relative_path.child(&name));
                    }
                    visit(&directory, &relative_path, &name, &stat)?;
                }
            }
        }
        Ok(())
    }

    /// Returns a descriptor of the directory for changes of its attributes.
    pub(crate) fn to_file(&self) -> Result<FileFd> {
        // Duplicated, not opened again: a directory without `x` can't be opened, and its mode is to be changed.
        fcntl_dupfd_cloexec(self, 0).map(FileFd::from)
    }

    /// Opens the directory to read the names in it.
    pub(crate) fn read_names(&self) -> Result<DirectoryStream> {
        open_no_symlinks(self, b"", OpenMode::ReadDirectory).map(DirectoryStream::from)
    }

    /// Opens the directory to read all names in it: an entry that listings leave out is the error `EOPNOTSUPP`.
    pub(crate) fn read_names_strict(&self) -> Result<DirectoryStream> {
        self.read_names().map(|names| DirectoryStream { strict: true, ..names })
    }

    /// Tells whether the directory is empty; entries that listings leave out count.
    pub(crate) fn is_empty(&self) -> Result<bool> {
        match self.read_names_strict()?.next_batch() {
            // A socket, device or `.patgate` in it makes rmdir(2) fail as well.
            Err(Errno::OPNOTSUPP) => Ok(false),
            batch => Ok(batch?.is_empty()),
        }
    }
}

/// Returns `None` in place of the error of opening a directory that was listed and is not there any more: its name is
/// gone, or another kind of entry has it.
pub(crate) fn none_if_vanished<T>(opened: Result<T>) -> Result<Option<T>> {
    match opened {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        opened => opened.map(Some),
    }
}

/// Runs one system call that changes names. Tests make it fail, or kill the process just before and just after it.
fn run_step(step: impl FnOnce() -> Result<()>) -> Result<()> {
    #[cfg(test)]
    super::fault_injection::before_step()?;
    let result = step();
    #[cfg(test)]
    super::fault_injection::crash_point();
    result
}

/// Returns the total and free space of the file system of an open entry.
pub(crate) fn filesystem_space(fd: impl AsFd) -> Result<FilesystemSpace> {
    #[cfg(test)]
    super::fault_injection::count_syscall(|counts| &mut counts.stats);
    let stats = fstatvfs(fd)?;
    Ok(FilesystemSpace {
        total: stats.f_blocks.saturating_mul(stats.f_frsize),
        // `available` leaves out the reserve of root, `free` includes it.
        available: stats.f_bavail.saturating_mul(stats.f_frsize),
        free: stats.f_bfree.saturating_mul(stats.f_frsize),
        inodes: stats.f_files,
        inodes_free: stats.f_ffree,
        block_size: stats.f_frsize,
        name_max_bytes: stats.f_namemax,
    })
}

const GETDENTS_BUFFER_BYTES: usize = 64 << 10;

/// Names in a directory, read in batches.
pub(crate) struct DirectoryStream {
    directory: DirectoryFd,
    buffer: Box<[MaybeUninit<u8>]>,
    done: bool,
    strict: bool,
}

impl From<OwnedFd> for DirectoryStream {
    fn from(fd: OwnedFd) -> Self {
        Self {
            directory: fd.into(),
            buffer: Box::new([MaybeUninit::uninit(); GETDENTS_BUFFER_BYTES]),
            done: false,
            strict: false,
        }
    }
}

impl AsFd for DirectoryStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl DirectoryStream {
    /// Returns the next batch of names, empty at the end. `.`, `..`, the reserved directory `.patgate`, sockets and
    /// devices are left out.
    pub(crate) fn next_batch(&mut self) -> Result<Vec<EntryName>> {
        self.next_batch_with(|name, _| name)
    }

    /// Returns the next batch as [`DirectoryStream::next_batch`] does, each name with whether it was that of a regular file
    /// when it was read. False also where the file system reports no types.
    pub(crate) fn next_batch_with_files(&mut self) -> Result<Vec<(EntryName, bool)>> {
        self.next_batch_with(|name, file_type| (name, file_type == FileType::RegularFile))
    }

    fn next_batch_with<T>(&mut self, make: impl Fn(EntryName, FileType) -> T) -> Result<Vec<T>> {
        let mut batch = Vec::new();
        while batch.is_empty() && !self.done {
            let add = |name, file_type| batch.push(make(name, file_type));
            self.done = !read_batch(&self.directory, &mut self.buffer, self.strict, add)?;
        }
        Ok(batch)
    }

    /// Returns the metadata of an entry.
    pub(crate) fn stat_entry(&self, name: &EntryName) -> Result<Stat> {
        self.directory.stat_entry(name)
    }

    /// Returns the directory whose names are read, by the same descriptor.
    pub(crate) fn directory(&self) -> &DirectoryFd {
        &self.directory
    }
}

fn read_batch(
    directory: &DirectoryFd,
    buffer: &mut [MaybeUninit<u8>],
    strict: bool,
    mut add: impl FnMut(EntryName, FileType),
) -> Result<bool> {
    #[cfg(test)]
    super::fault_injection::before_read()?;
    let mut raw = RawDir::new(directory, buffer);
    while let Some(entry) = raw.next() {
        let entry = match entry {
            Err(Errno::INTR) => continue,
            // getdents64(2) of a directory that was removed while it is open: it is empty, and POSIX has readdir(3)
            // report its end.
            Err(Errno::NOENT) => return Ok(false),
            entry => entry?,
        };
        // Unknown: the file system reports no types here; whoever uses the name asks with statx(2).
        let is_listed = matches!(
            entry.file_type(),
            FileType::RegularFile | FileType::Directory | FileType::Symlink | FileType::Unknown
        );
        let name = entry.file_name().to_bytes();
        // `EntryName` refuses `.`, `..` and `.patgate`.
        match EntryName::new(name) {
            Ok(name) if is_listed => add(name, entry.file_type()),
            // A strict caller removes the directory afterwards, and with it entries that it never saw.
            Ok(_) | Err(_) if strict && !matches!(name, b"." | b"..") => return Err(Errno::OPNOTSUPP),
            Ok(_) | Err(_) => {}
        }
        // Ends with the buffer, before another getdents64(2): callers check the session between batches.
        if raw.is_buffer_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Opens the served directory at its path on the host; a symbolic link at its end is followed.
pub(super) fn open_root_path(root_path: &Path) -> Result<DirectoryFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, root_path, flags, Mode::empty()).map(DirectoryFd::from)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;

    fn open(path: &Path) -> DirectoryFd {
        OwnedFd::from(fs::File::open(path).expect("a directory")).into()
    }

    /// Walks through `/b/c`, `/d/c` and `/f`, with a change at the first visit, and returns the paths of the visits.
    fn walk_with_change(change: impl Fn(&Path)) -> BTreeSet<String> {
        let temp_dir = tempfile::tempdir().expect("directory");
        for path in ["b/c", "d/c"] {
            fs::create_dir_all(temp_dir.path().join(path)).expect("created");
        }
        fs::write(temp_dir.path().join("f"), "content").expect("written");
        let mut visited = BTreeSet::new();
        let walked = open(temp_dir.path()).walk(
            || Ok::<(), Errno>(()),
            |_, parent, name, _| {
                visited.insert(parent.child(name).to_string());
                // After the last of the top: the directories are listed by then, and not opened.
                if visited.len() == 3 {
                    change(temp_dir.path());
                }
                Ok(())
            },
        );
        walked.expect("walked");
        visited
    }

    #[test]
    fn directory_that_vanishes_during_walk_is_left_out() {
        let left = BTreeSet::from(["/b", "/d", "/d/c", "/f"].map(str::to_owned));
        assert_eq!(walk_with_change(|root| fs::remove_dir_all(root.join("b")).expect("removed")), left);
        let replaced_by_file = walk_with_change(|root| {
            fs::remove_dir_all(root.join("b")).expect("removed");
            fs::write(root.join("b"), "content").expect("written");
        });
        assert_eq!(replaced_by_file, left);
        let replaced_by_link = walk_with_change(|root| {
            fs::remove_dir_all(root.join("b")).expect("removed");
            std::os::unix::fs::symlink("d", root.join("b")).expect("linked");
        });
        assert_eq!(replaced_by_link, left);
    }

    #[test]
    fn directory_removed_while_it_is_read_ends() {
        let temp_dir = tempfile::tempdir().expect("directory");
        let path = temp_dir.path().join("a");
        fs::create_dir(&path).expect("created");
        let mut names = open(&path).read_names().expect("opened");
        fs::remove_dir(&path).expect("removed");
        assert_eq!(names.next_batch(), Ok(Vec::new()));
    }
}
