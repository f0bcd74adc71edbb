//! The ballast: space on the disk of the state directory that nothing but revoking, disabling and narrowing may use.
//!
//! It is a file of blocks that are allocated and say nothing. When such a write finds the disk full, the ballast gives up
//! as much of it as the write needs, a step at a time; all other writes that would make the store grow are refused from
//! then on, so that what is left stays for the next one. It comes back by itself once there is room.
//!
//! Only a server makes it: a state that none has served has no reserve and no such rule.

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
/// Size of the ballast on the smallest.
const MIN_BALLAST_BYTES: u64 = 1 << 20;
/// Largest part of a file system that the ballast takes.
const DISK_FRACTION_DIVISOR: u64 = 8;
/// How much is given up at once: what one revocation needs, and some more. Another program may take what it leaves.
const RELEASE_STEP_BYTES: u64 = 128 << 10;
/// Space beside the ballast below which the disk counts as full.
const MIN_FREE_BYTES: u64 = 256 << 10;

/// What a write may take of the ballast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BallastShare {
    /// All: what ends tokens and users.
    Revocation,
    /// Half: what a token's own holder can do again and again, and what concludes an effect that is there already.
    Narrowing,
}

/// What is wrong with the disk of the state directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// Next to nothing is free.
    Full,
    /// A part of the ballast was given up, and there is no room for it yet.
    BallastInUse,
    /// There is no ballast: none fitted when a server started, or somebody removed it.
    BallastMissing,
}

impl DiskFault {
    /// Says what is wrong, and what to do, without telling where the state is.
    pub fn message(self) -> &'static str {
        match self {
            DiskFault::Full => "the disk of the state directory is full: make room",
            DiskFault::BallastInUse => {
                "the disk of the state directory is full: until there is room, only revoking, disabling and narrowing \
                 are written down"
            }
            DiskFault::BallastMissing => {
                "the disk of the state directory has no room for the reserve that revocations need when it is full: \
                 make room"
            }
        }
    }
}

/// The file that holds the space.
pub(super) struct BallastFile {
    state_dir: PathBuf,
    path: PathBuf,
}

impl BallastFile {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self { state_dir: state_dir.to_owned(), path: state_dir.join(BALLAST_FILE_NAME) }
    }

    /// Tells whether a part of it is given up: nothing else may grow then.
    pub(super) fn is_in_use(&self) -> bool {
        self.allocated_bytes().is_some_and(|allocated| allocated < self.target_bytes())
    }

    /// Returns what is wrong with the disk, if anything is.
    pub(super) fn disk_fault(&self) -> Option<DiskFault> {
        match self.allocated_bytes() {
            None => Some(DiskFault::BallastMissing),
            Some(allocated) if allocated < self.target_bytes() => Some(DiskFault::BallastInUse),
            Some(_) if self.free_bytes() < MIN_FREE_BYTES => Some(DiskFault::Full),
            Some(_) => None,
        }
    }

    /// Gives up one more step of it; tells whether there was one that this reserve may have.
    pub(super) fn release(&self, share: BallastShare) -> Result<bool> {
        let allocated = self.allocated_bytes().unwrap_or(0);
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

    /// Makes it, or makes it whole again, where there is room. Tells whether it is whole.
    pub(super) fn restore(&self) -> Result<bool> {
        let (target, allocated) = (self.target_bytes(), self.allocated_bytes());
        if allocated.is_some_and(|allocated| allocated >= target) {
            return Ok(true);
        }
        // Room for what is written meanwhile is left: else this would be given up again at once.
        if self.free_bytes() < target - allocated.unwrap_or(0) + 4 * MIN_FREE_BYTES {
            return Ok(false);
        }
        let ballast_error = |source| StoreError::StateDirectory { path: self.path.clone(), source };
        let mut options = OpenOptions::new();
        let file =
            options.write(true).create(true).truncate(false).mode(0o600).open(&self.path).map_err(ballast_error)?;
        match allocate(&file, allocated.unwrap_or(0), target) {
            Ok(()) => {
                if allocated.is_some() {
                    tracing::info!("the reserve on the disk of the state directory is whole again");
                }
                Ok(true)
            }
            Err(error) => {
                let _ = file.set_len(allocated.unwrap_or(0));
                if error.kind() == io::ErrorKind::StorageFull { Ok(false) } else { Err(ballast_error(error)) }
            }
        }
    }

    /// Returns how much of it there is; `None` where it was never made.
    fn allocated_bytes(&self) -> Option<u64> {
        fs::metadata(&self.path).ok().map(|allocated| allocated.size())
    }

    /// Returns how much there is to be: less on a small file system.
    fn target_bytes(&self) -> u64 {
        let share = statvfs(&self.state_dir)
            .map_or(MAX_BALLAST_BYTES, |disk| disk.f_blocks * disk.f_frsize / DISK_FRACTION_DIVISOR);
        // In whole steps, so that two processes agree on it while the file system grows by less.
        (share / RELEASE_STEP_BYTES * RELEASE_STEP_BYTES).clamp(MIN_BALLAST_BYTES, MAX_BALLAST_BYTES)
    }

    /// Tells whether so many bytes don't fit on the disk beside it.
    pub(super) fn lacks_room(&self, bytes: u64) -> bool {
        self.free_bytes() < bytes.saturating_add(MIN_FREE_BYTES)
    }

    /// Returns how many bytes are free for this user.
    fn free_bytes(&self) -> u64 {
        statvfs(&self.state_dir).map_or(u64::MAX, |disk| disk.f_bavail * disk.f_frsize)
    }
}

/// Allocates the blocks of a file between two offsets.
fn allocate(file: &File, start: u64, end: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), start, end - start) {
        Err(rustix::io::Errno::OPNOTSUPP) => write_incompressible(file, start, end),
        result => Ok(result?),
    }
}

/// Writes a file between two offsets, with what no file system can compress.
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
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ballast_is_released_in_steps_and_half_reserved_for_revocations() {
        let temp_dir = tempfile::tempdir().expect("folder");
        let ballast = BallastFile::new(temp_dir.path());
        assert!(!ballast.is_in_use() && ballast.disk_fault() == Some(DiskFault::BallastMissing));
        assert!(!ballast.release(BallastShare::Revocation).expect("nothing there"));
        assert!(ballast.restore().expect("made") && ballast.restore().expect("there"));
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
        let temp_dir = tempfile::tempdir().expect("folder");
        let file = File::create(temp_dir.path().join("file")).expect("file");
        write_incompressible(&file, 100, 200_000).expect("filled");
        assert_eq!(file.metadata().expect("there").len(), 200_000);
        assert!(file.metadata().expect("there").blocks() * 512 >= 196_000);
    }
}
