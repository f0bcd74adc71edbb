//! An open file: positional reads and writes, copies, attributes, sync.

use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, CWD, FsWord, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, chmodat, copy_file_range, fchmod,
    fchown, fcntl_getfl, fcntl_setfl, fstat, fstatfs, fsync, ftruncate, futimens, linkat, openat, utimensat,
};
use rustix::io::{IoSlice, IoSliceMut, ReadWriteFlags, pread, preadv2, pwrite, pwritev, pwritev2};

use super::proc_path::proc_path;
use super::{Errno, Result, Stat};
use crate::domain::EntryName;
use crate::tree::Timestamp;

/// Magic number of tmpfs in statfs(2).
const TMPFS_MAGIC: FsWord = 0x0102_1994;

/// Maximum number of buffers of one system call (`IOV_MAX`).
const MAX_IO_SLICES: usize = 1024;

/// Open file, or an `O_PATH` descriptor of any entry of which only the attributes are used.
#[derive(Debug)]
pub(crate) struct FileFd {
    fd: OwnedFd,
    /// Set once the file is known to be on a file system in memory, which never waits for a disk.
    is_in_memory: AtomicBool,
}

impl AsFd for FileFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<OwnedFd> for FileFd {
    fn from(fd: OwnedFd) -> Self {
        Self { fd, is_in_memory: AtomicBool::new(false) }
    }
}

impl From<FileFd> for OwnedFd {
    fn from(file: FileFd) -> Self {
        file.fd
    }
}

impl FileFd {
    /// Returns the metadata of the file.
    pub(crate) fn stat(&self) -> Result<Stat> {
        Stat::stat_at(self, b"")
    }

    /// Reads into the buffer from an offset. Returns fewer bytes than the buffer holds only at the end of the file.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match pread(&self.fd, &mut buffer[done..], offset.saturating_add(done as u64)) {
                // Only 0 means the end: network file systems may return less than was asked for.
                Ok(0) => break,
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Reads as [`FileFd::read_at`] does, but only from the page cache.
    ///
    /// # Errors
    /// `EAGAIN` where the read would have to wait for a disk.
    pub(crate) fn read_cached_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        if self.is_in_memory() {
            return self.read_at(buffer, offset);
        }
        let wanted = buffer.len();
        match preadv2(&self.fd, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT) {
            Ok(count) if count == wanted => Ok(count),
            // Only a part is in memory: the blocking call reads the whole block again.
            Ok(_) | Err(Errno::INTR) => Err(Errno::AGAIN),
            // tmpfs lacks RWF_NOWAIT on older kernels, and needs none: its content is in memory.
            Err(Errno::OPNOTSUPP) if is_in_memory(&self.fd)? => {
                self.is_in_memory.store(true, Ordering::Relaxed);
                self.read_at(buffer, offset)
            }
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Err(Errno::AGAIN),
            Err(error) => Err(error),
        }
    }

    /// Notes that the file is on a file system in memory: a read from the page cache, or a write into it, need not find out.
    pub(crate) fn set_in_memory(&self) {
        self.is_in_memory.store(true, Ordering::Relaxed);
    }

    /// Tells whether a read from the page cache, or a write into it, has found the file to be on a file system in memory.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.is_in_memory.load(Ordering::Relaxed)
    }

    /// Writes all of `data` at an offset, or at the end where the file was opened to append.
    pub(crate) fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        let mut done = 0;
        while done < data.len() {
            #[cfg(test)]
            super::fault_injection::count_syscall(|counts| &mut counts.writes);
            match pwrite(&self.fd, &data[done..], offset.saturating_add(done as u64)) {
                // Not expected of pwrite(2), but must not become an endless loop.
                Ok(0) => return Err(Errno::NOSPC),
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes blocks, one behind the other, from an offset, as far as that takes no wait for a disk. Returns the number of
    /// bytes written.
    pub(crate) fn write_cached_at(&self, blocks: &[IoSlice<'_>], offset: u64) -> Result<usize> {
        let blocks = &blocks[..blocks.len().min(MAX_IO_SLICES)];
        let written = match self.is_in_memory() {
            true => pwritev(&self.fd, blocks, offset),
            false => pwritev2(&self.fd, blocks, offset, ReadWriteFlags::NOWAIT),
        };
        match written {
            // Only a file system that never waits, or says when it would, is written to here: XFS and btrfs say so, and
            // tmpfs, which has no RWF_NOWAIT for writes, never waits.
            Err(Errno::OPNOTSUPP | Errno::INVAL) if !self.is_in_memory() && is_in_memory(&self.fd)? => {
                self.is_in_memory.store(true, Ordering::Relaxed);
                self.write_cached_at(blocks, offset)
            }
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS | Errno::AGAIN | Errno::INTR) => Ok(0),
            result => result,
        }
    }

    /// Sets `O_APPEND`: every write goes to the end of the file.
    pub(crate) fn set_append(&self) -> Result<()> {
        fcntl_setfl(&self.fd, fcntl_getfl(&self.fd)? | OFlags::APPEND)
    }

    /// Truncates the file, or extends it with zeros.
    pub(crate) fn truncate(&self, size: u64) -> Result<()> {
        ftruncate(&self.fd, size)
    }

    /// Copies at most `max_bytes` from an offset to the same offset of another file. Returns the number of bytes
    /// copied, 0 at the end.
    pub(crate) fn copy_to(&self, target: &FileFd, offset: u64, max_bytes: usize) -> Result<usize> {
        self.copy_range(offset, target, offset, max_bytes)
    }

    /// Copies at most `max_bytes` from `offset` to `target_offset` of another file. Returns the number of bytes copied,
    /// 0 at the end.
    pub(crate) fn copy_range(
        &self,
        offset: u64,
        target: &FileFd,
        target_offset: u64,
        max_bytes: usize,
    ) -> Result<usize> {
        // Explicit positions: descriptors that are clones share one file position.
        let (mut source_position, mut target_position) = (offset, target_offset);
        match copy_file_range(&self.fd, Some(&mut source_position), &target.fd, Some(&mut target_position), max_bytes) {
            // Unsupported between these file systems, or denied by a seccomp filter: the bytes go through memory.
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {
                let mut buffer = vec![0; max_bytes.min(1 << 20)];
                let count = self.read_at(&mut buffer, offset)?;
                target.write_at(&buffer[..count], target_offset)?;
                Ok(count)
            }
            Err(Errno::INTR) => self.copy_range(offset, target, target_offset, max_bytes),
            result => result,
        }
    }

    /// Syncs content and attributes to disk.
    pub(crate) fn sync(&self) -> Result<()> {
        sync(&self.fd)
    }

    /// Opens a file that was opened with `O_PATH` again, to be read: the same file, whatever has its name by now.
    pub(crate) fn reopen_to_read(&self) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        openat(CWD, proc_path(self), flags, Mode::empty()).map(Self::from)
    }

    /// Syncs content and attributes of an entry that was opened with `O_PATH`. An entry that this process may neither
    /// read nor write is not synced.
    pub(crate) fn reopen_and_sync(&self) -> Result<()> {
        let open = |access| openat(CWD, proc_path(self), access | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
        // fsync(2) works on any descriptor but O_PATH: one for writing does where the file is not readable.
        match open(OFlags::RDONLY)
            .or_else(|error| if error == Errno::ACCESS { open(OFlags::WRONLY) } else { Err(error) })
        {
            // EISDIR: a directory without read permission, tried for writing.
            Err(Errno::ACCESS | Errno::ISDIR) => Ok(()),
            opened => sync(opened?),
        }
    }

    /// Sets permission bits of a file opened to be read or written.
    pub(crate) fn set_mode(&self, mode: u32) -> Result<()> {
        #[cfg(test)]
        super::fault_injection::count_syscall(|counts| &mut counts.attribute_changes);
        fchmod(&self.fd, Mode::from_raw_mode(mode))
    }

    /// Clears the set-user-ID, set-group-ID and sticky bits of a file before it is written: the kernel does so for
    /// ordinary users, but not for root.
    pub(crate) fn clear_special_bits(&self) -> Result<()> {
        let mode = fstat(&self.fd)?.st_mode & 0o7777;
        if mode & 0o7000 == 0 {
            return Ok(());
        }
        match fchmod(&self.fd, Mode::from_raw_mode(mode & 0o777)) {
            // Another user's file: the kernel clears them with the write.
            Err(Errno::PERM) => Ok(()),
            result => result,
        }
    }

    /// Sets owner and group where the host allows it; errors are ignored.
    pub(crate) fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) {
        #[cfg(test)]
        super::fault_injection::count_syscall(|counts| &mut counts.attribute_changes);
        // Only root may give files away: an upload over another user's file becomes the server's, which is no reason to
        // refuse it.
        let _ = fchown(&self.fd, uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    }

    /// Sets times of a file opened to be read or written.
    pub(crate) fn set_times(&self, modified: Option<Timestamp>, accessed: Option<Timestamp>) -> Result<()> {
        #[cfg(test)]
        super::fault_injection::count_syscall(|counts| &mut counts.attribute_changes);
        futimens(&self.fd, &utimens_times(modified, accessed))
    }

    /// Sets times that a client asked for, exact to the second, also of an `O_PATH` descriptor.
    ///
    /// # Errors
    /// [`Errno::OVERFLOW`] for a time that the file system can't store: the kernel would store the nearest one without
    /// an error. The old times are restored.
    pub(crate) fn set_times_exactly(&self, modified: Option<Timestamp>, accessed: Option<Timestamp>) -> Result<()> {
        // Every file system stores seconds of 31 bits: nothing has to be read back for those.
        let always_fits = |time: &Timestamp| (0..1 << 31).contains(&time.seconds);
        if modified.iter().chain(&accessed).all(always_fits) {
            return self.set_path_times(modified, accessed);
        }
        // Read back, since the kernel clamps a time to the range of the file system without an error.
        let before = self.stat()?;
        self.set_path_times(modified, accessed)?;
        let after = self.stat()?;
        let kept =
            |wanted: Option<Timestamp>, found: Timestamp| wanted.is_none_or(|time| time.seconds == found.seconds);
        if kept(modified, after.modified) && kept(accessed, after.accessed) {
            return Ok(());
        }
        self.set_path_times(modified.and(Some(before.modified)), accessed.and(Some(before.accessed)))?;
        Err(Errno::OVERFLOW)
    }

    /// Creates another hard link to the file.
    pub(crate) fn hard_link(&self, to: impl AsFd, name: &EntryName) -> Result<()> {
        // By /proc, since AT_EMPTY_PATH needs CAP_DAC_READ_SEARCH. AT_SYMLINK_FOLLOW is for the /proc link alone.
        linkat(CWD, proc_path(self), to, name.as_bytes(), AtFlags::SYMLINK_FOLLOW)
    }

    /// Sets the permission bits of an entry that was opened with `O_PATH`.
    pub(crate) fn set_path_mode(&self, mode: u32) -> Result<()> {
        // By /proc, since fchmod(2) refuses O_PATH descriptors.
        chmodat(CWD, proc_path(self), Mode::from_raw_mode(mode), AtFlags::empty())
    }

    /// Sets the times of an entry that was opened with `O_PATH`, also of a symbolic link itself.
    pub(crate) fn set_path_times(&self, modified: Option<Timestamp>, accessed: Option<Timestamp>) -> Result<()> {
        // By /proc, since futimens(3) refuses O_PATH descriptors, and AT_EMPTY_PATH needs Linux 5.8.
        utimensat(CWD, proc_path(self), &utimens_times(modified, accessed), AtFlags::empty())
    }
}

/// Tells whether an open entry is on a file system in memory.
pub(super) fn is_in_memory(fd: impl AsFd) -> Result<bool> {
    Ok(fstatfs(fd)?.f_type == TMPFS_MAGIC)
}

/// Syncs an open file or directory to disk.
pub(super) fn sync(fd: impl AsFd) -> Result<()> {
    #[cfg(test)]
    super::fault_injection::count_syscall(|counts| &mut counts.syncs);
    fsync(&fd)?;
    #[cfg(test)]
    super::fault_injection::note_sync(&fd)?;
    Ok(())
}

fn utimens_times(modified: Option<Timestamp>, accessed: Option<Timestamp>) -> Timestamps {
    let timespec = |time: Option<Timestamp>| {
        time.map_or(Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, |time| Timespec {
            tv_sec: time.seconds,
            tv_nsec: i64::from(time.nanos),
        })
    };
    Timestamps { last_access: timespec(accessed), last_modification: timespec(modified) }
}
