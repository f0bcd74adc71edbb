//! The ballast: space on the disk of the state directory that is reserved for revoking, disabling and narrowing.
//!
//! It is a file of allocated blocks without meaning. When such a write finds the disk full, the ballast releases as
//! much of it as the write needs, a step at a time; all other writes that would make the store grow are refused from
//! then on, so that the rest is kept for the next one. A server restores it once there is space.
//!
//! Only a server creates it: a state directory that none has served has no ballast and no such rule.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::{Result, StoreError};

const BALLAST_FILE_NAME: &str = "patgate.ballast";
/// Size of the ballast on all but small file systems. Revoking 1,000 tokens of one user in one go takes about 3 MiB of
/// the write-ahead log and of the audit trail; disabling the user takes a few pages.
const MAX_BALLAST_BYTES: u64 = 16 << 20;
/// Size of the ballast on the smallest file systems.
const MIN_BALLAST_BYTES: u64 = 1 << 20;
/// Divisor of a file system's size that gives the largest ballast on it.
const DISK_FRACTION_DIVISOR: u64 = 8;
/// Number of bytes that are released at once: somewhat more than one revocation needs. Another program may take the
/// rest.
const RELEASE_STEP_BYTES: u64 = 128 << 10;
/// Free space beside the ballast below which the disk counts as full.
const MIN_FREE_BYTES: u64 = 256 << 10;

/// Share of the ballast that a write may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BallastShare {
    /// All of it: for writes that revoke tokens or grants, or disable or delete users.
    Revocation,
    /// Half of it: for writes that a token's own holder can repeat at will, and that record an effect that already
    /// happened.
    Narrowing,
}

/// Fault of the disk of the state directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// Less than the minimum is free.
    Full,
    /// A part of the ballast was released, and there is no space to restore it yet.
    BallastInUse,
    /// There is no ballast: it did not fit when a server started, or it was removed.
    BallastMissing,
}

impl DiskFault {
    /// Returns a message with the fault and its remedy, without the path of the state directory.
    pub fn message(self) -> &'static str {
        match self {
            DiskFault::Full => "the disk of the state directory is full: free some space",
            DiskFault::BallastInUse => {
                "the disk of the state directory is full: until there is space, only revoking, disabling and narrowing \
                 are possible"
            }
            DiskFault::BallastMissing => {
                "the disk of the state directory has no space for the reserve that revocations need when it is full: \
                 free some space"
            }
        }
    }
}

/// The file that reserves the space.
pub(super) struct BallastFile {
    state_dir: PathBuf,
    path: PathBuf,
}

impl BallastFile {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self { state_dir: state_dir.to_owned(), path: state_dir.join(BALLAST_FILE_NAME) }
    }

    /// Tells whether a part of the ballast is released: no other write may make the database grow then.
    pub(super) fn is_in_use(&self) -> bool {
        self.allocated_bytes().is_some_and(|allocated| allocated < self.target_bytes())
    }

    /// Returns the fault of the disk, if it has one.
    pub(super) fn disk_fault(&self) -> Option<DiskFault> {
        match self.allocated_bytes() {
            None => Some(DiskFault::BallastMissing),
            Some(allocated) if allocated < self.target_bytes() => Some(DiskFault::BallastInUse),
            Some(_) if self.free_bytes() < MIN_FREE_BYTES => Some(DiskFault::Full),
            Some(_) => None,
        }
    }

    /// Releases one more step of the ballast; tells whether there was one that this share includes.
    pub(super) fn release(&self, share: BallastShare) -> Result<bool> {
        let allocated = self.allocated_bytes().unwrap_or(0);
        // The second half is for revocations only, so that narrowing a token again and again can't use it up.
        let minimum = if share == BallastShare::Revocation { 0 } else { self.target_bytes() / 2 };
        if allocated <= minimum {
            return Ok(false);
        }
        let left = allocated.saturating_sub(RELEASE_STEP_BYTES).max(minimum);
        let ballast_error = |source| StoreError::StateDirectory { path: self.path.clone(), source };
        let file = OpenOptions::new().write(true).open(&self.path).map_err(ballast_error)?;
        file.set_len(left).map_err(ballast_error)?;
        #[cfg(test)]
        super::testing::crash_point();
        tracing::warn!(left, "the disk of the state directory is full: a part of the reserve is used");
        Ok(true)
    }

    /// Creates the ballast or restores it to its full size where there is space. Tells whether it has its full size.
    pub(super) fn restore(&self) -> Result<bool> {
        let (target, allocated) = (self.target_bytes(), self.allocated_bytes());
        if allocated.is_some_and(|allocated| allocated >= target) {
            return Ok(true);
        }
        // Some space stays free for other writes: otherwise the ballast would be released again at once.
        if self.free_bytes() < target - allocated.unwrap_or(0) + 4 * MIN_FREE_BYTES {
            return Ok(false);
        }
        let ballast_error = |source| StoreError::StateDirectory { path: self.path.clone(), source };
        // Not truncated: the blocks that it still has must not be released.
        let mut options = OpenOptions::new();
        let file =
            options.write(true).create(true).truncate(false).mode(0o600).open(&self.path).map_err(ballast_error)?;
        match allocate(&file, allocated.unwrap_or(0), target) {
            Ok(()) => {
                if allocated.is_some() {
                    tracing::info!("the reserve on the disk of the state directory has its full size again");
                }
                Ok(true)
            }
            Err(error) => {
                // The length of the file tells how many bytes are allocated, so a partial allocation is undone.
                let _ = file.set_len(allocated.unwrap_or(0));
                if error.kind() == io::ErrorKind::StorageFull { Ok(false) } else { Err(ballast_error(error)) }
            }
        }
    }

    /// Returns the present size of the ballast; `None` where there is none.
    pub(super) fn allocated_bytes(&self) -> Option<u64> {
        fs::metadata(&self.path).ok().map(|allocated| allocated.size())
    }

    /// Returns the full size of the ballast: less on a small file system.
    pub(super) fn target_bytes(&self) -> u64 {
        let share = statvfs(&self.state_dir)
            .map_or(MAX_BALLAST_BYTES, |disk| disk.f_blocks * disk.f_frsize / DISK_FRACTION_DIVISOR);
        // In whole steps, so that two processes agree on the size while the file system grows by less than one.
        (share / RELEASE_STEP_BYTES * RELEASE_STEP_BYTES).clamp(MIN_BALLAST_BYTES, MAX_BALLAST_BYTES)
    }

    /// Tells whether the disk has too little free space for a number of bytes.
    pub(super) fn lacks_room(&self, bytes: u64) -> bool {
        self.free_bytes() < bytes.saturating_add(MIN_FREE_BYTES)
    }

    /// Returns the number of free bytes for the user of this process.
    pub(super) fn free_bytes(&self) -> u64 {
        statvfs(&self.state_dir).map_or(u64::MAX, |disk| disk.f_bavail * disk.f_frsize)
    }
}

/// Allocates the blocks of a file between two offsets.
fn allocate(file: &File, start: u64, end: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), start, end - start) {
        // NFS before version 4.2, for example.
        Err(rustix::io::Errno::OPNOTSUPP) => write_incompressible(file, start, end),
        result => Ok(result?),
    }
}

/// Writes random bytes, which no file system can compress, between two offsets of a file.
fn write_incompressible(file: &File, start: u64, end: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let mut block = vec![0; 64 << 10];
    let mut offset = start;
    while offset < end {
        getrandom::fill(&mut block).map_err(io::Error::other)?;
        let length = block.len().min(usize::try_from(end - offset).unwrap_or(usize::MAX));
        file.write_all_at(&block[..length], offset)?;
        offset += length as u64;
    }
    // Only the sync makes a file system with delayed allocation reserve the blocks, or report that it can't.
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ballast_is_released_in_steps_and_half_reserved_for_revocations() {
        let temp_dir = tempfile::tempdir().expect("directory");
        let ballast = BallastFile::new(temp_dir.path());
        assert!(!ballast.is_in_use() && ballast.disk_fault() == Some(DiskFault::BallastMissing));
        assert!(!ballast.release(BallastShare::Revocation).expect("none"));
        assert!(ballast.restore().expect("created") && ballast.restore().expect("there"));
        let blocks = || fs::metadata(&ballast.path).expect("there").blocks() * 512;
        assert!(
            blocks() >= ballast.target_bytes() && ballast.disk_fault().is_none(),
            "{} of {}",
            blocks(),
            ballast.target_bytes()
        );
        let mut steps = 0;
        while ballast.release(BallastShare::Narrowing).expect("released") {
            steps += 1;
            assert!(ballast.is_in_use() && ballast.disk_fault() == Some(DiskFault::BallastInUse));
        }
        assert_eq!(ballast.allocated_bytes(), Some(ballast.target_bytes() / 2));
        while ballast.release(BallastShare::Revocation).expect("released") {
            steps += 1;
        }
        assert_eq!((ballast.allocated_bytes(), steps), (Some(0), ballast.target_bytes() / RELEASE_STEP_BYTES));
        assert!(ballast.restore().expect("made whole") && !ballast.is_in_use());
    }

    #[test]
    fn ballast_is_written_where_fallocate_is_unsupported() {
        let temp_dir = tempfile::tempdir().expect("directory");
        let file = File::create(temp_dir.path().join("file")).expect("file");
        write_incompressible(&file, 100, 200_000).expect("filled");
        assert_eq!(file.metadata().expect("there").len(), 200_000);
        assert!(file.metadata().expect("there").blocks() * 512 >= 196_000);
    }
}
