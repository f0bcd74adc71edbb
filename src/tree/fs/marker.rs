//! Tree marker: a random id in a small file of the reserved directory, by which a tree is recognised when it is mounted
//! again. The lock on that file shows that a running server serves the tree.

use rustix::fs::{Mode, OFlags, openat, renameat, unlinkat};

use super::open::{OpenMode, open_no_symlinks};
use super::{DirectoryFd, Errno, FileFd, FlockGuard, Result};
use crate::domain::RESERVED_DIRECTORY;
use crate::store::TreeMarker;

/// Name of the marker file.
pub(super) const MARKER_FILE_NAME: &[u8] = b"tree.id";
/// Name of a marker file that is being written; the sweep removes one that a crash left.
const MARKER_DRAFT_NAME: &[u8] = b"tree.id.new";
/// Number of attempts to lock the marker, and the time between them: another process may hold the lock for a moment
/// only to see whether a server does.
const LOCK_ATTEMPTS: u32 = 5;
const LOCK_RETRY_INTERVAL: std::time::Duration = std::time::Duration::from_millis(20);

/// Reads the marker of the file system whose top directory is `mount_root`; `None` where there is none, or the file
/// does not hold a valid one.
pub(super) fn read(mount_root: &DirectoryFd) -> Result<Option<TreeMarker>> {
    let reserved = match open_no_symlinks(mount_root, RESERVED_DIRECTORY, OpenMode::DirectoryPath) {
        // Not served before, or an entry of another kind in its place.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        reserved => DirectoryFd::from(reserved?),
    };
    let file = match open_no_symlinks(&reserved, MARKER_FILE_NAME, OpenMode::Read) {
        Err(Errno::NOENT | Errno::LOOP) => return Ok(None),
        file => FileFd::from(file?),
    };
    // Longer than a marker, so that a file with more than one is refused as invalid.
    let mut text = [0; 64];
    let length = file.read_at(&mut text, 0)?;
    Ok(parse(&text[..length]))
}

/// Returns the marker in a reserved directory, and creates one where there is none.
pub(super) fn read_or_create(mount_root: &DirectoryFd, reserved: &DirectoryFd) -> Result<TreeMarker> {
    if let Some(marker) = read(mount_root)? {
        return Ok(marker);
    }
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|_| Errno::IO)?;
    write(reserved, TreeMarker(id))?;
    Ok(TreeMarker(id))
}

/// Writes a marker, and returns once it is on disk.
pub(super) fn write(reserved: &DirectoryFd, marker: TreeMarker) -> Result<()> {
    // Left by a crash, it would make O_EXCL fail.
    let _ = unlinkat(reserved, MARKER_DRAFT_NAME, rustix::fs::AtFlags::empty());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = FileFd::from(openat(reserved, MARKER_DRAFT_NAME, flags, Mode::from_raw_mode(0o600))?);
    file.write_at(format!("{:032x}\n", u128::from_be_bytes(marker.0)).as_bytes(), 0)?;
    // Content, then name, then directory: a power cut leaves a complete marker or none, never an empty file.
    file.sync()?;
    renameat(reserved, MARKER_DRAFT_NAME, reserved, MARKER_FILE_NAME)?;
    reserved.sync()
}

/// Locks the marker in a reserved directory. The second value tells whether a second lock was refused; it is false on a
/// file system that does not enforce locks.
///
/// # Errors
/// `EBUSY` when another process holds the lock; the error of a file system without locks.
pub(super) fn lock(reserved: &DirectoryFd) -> Result<(FlockGuard, bool)> {
    let try_lock = || match FlockGuard::try_exclusive(open_no_symlinks(reserved, MARKER_FILE_NAME, OpenMode::Read)?) {
        // NFS grants an exclusive lock only on a file open for writing. Elsewhere that would keep an administrator from
        // remounting the file system read-only.
        Err(Errno::BADF) => {
            FlockGuard::try_exclusive(open_no_symlinks(reserved, MARKER_FILE_NAME, OpenMode::ReadWrite)?)
        }
        result => result,
    };
    let mut attempt = 0;
    let lock = loop {
        attempt += 1;
        match try_lock() {
            Err(Errno::WOULDBLOCK) if attempt < LOCK_ATTEMPTS => std::thread::sleep(LOCK_RETRY_INTERVAL),
            Err(Errno::WOULDBLOCK) => return Err(Errno::BUSY),
            lock => break lock?,
        }
    };
    // Through another descriptor the lock must be refused. Where it is granted, locks do nothing on this file system,
    // and sweeping could remove the files of a running server.
    let is_enforced = matches!(try_lock(), Err(Errno::WOULDBLOCK));
    Ok((lock, is_enforced))
}

/// Tells whether a running server has locked the marker below this directory.
pub(super) fn is_locked(mount_root: &DirectoryFd) -> bool {
    let Ok(reserved) = open_no_symlinks(mount_root, RESERVED_DIRECTORY, OpenMode::DirectoryPath) else { return false };
    let Ok(file) = open_no_symlinks(&reserved, MARKER_FILE_NAME, OpenMode::Read) else { return false };
    // Shared and for a moment only: two observers must not take each other for a server.
    matches!(FlockGuard::try_shared(file), Err(Errno::WOULDBLOCK))
}

fn parse(text: &[u8]) -> Option<TreeMarker> {
    let digits = std::str::from_utf8(text).ok()?.trim_end();
    let valid = digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    valid.then(|| u128::from_str_radix(digits, 16).ok()).flatten().map(|id| TreeMarker(id.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns an open temporary directory and its reserved directory.
    fn served_directory() -> (tempfile::TempDir, DirectoryFd, DirectoryFd) {
        let temporary = tempfile::tempdir().expect("temporary directory");
        std::fs::create_dir(temporary.path().join(".patgate")).expect("created");
        let served = super::super::ServedFs::open(temporary.path(), None).expect("opened");
        let mount_root = served.root().expect("there");
        let reserved = DirectoryFd::from(
            open_no_symlinks(&mount_root, RESERVED_DIRECTORY, OpenMode::DirectoryPath).expect("there"),
        );
        (temporary, mount_root, reserved)
    }

    #[test]
    fn marker_is_written_once_and_read_again() {
        let (temporary, mount_root, reserved) = served_directory();
        assert_eq!(read(&mount_root).expect("read"), None);
        let marker = read_or_create(&mount_root, &reserved).expect("created");
        assert_eq!(read_or_create(&mount_root, &reserved).expect("read"), marker);
        assert_eq!(read(&mount_root).expect("read"), Some(marker));
        std::fs::write(temporary.path().join(".patgate/tree.id"), "").expect("emptied");
        assert_eq!(read(&mount_root).expect("read"), None, "what a power cut left of one is none");
    }

    #[test]
    fn marker_lock_excludes_second_server() {
        let (_temporary, mount_root, reserved) = served_directory();
        read_or_create(&mount_root, &reserved).expect("created");
        assert!(!is_locked(&mount_root));
        let (lock, is_enforced) = lock(&reserved).expect("locked");
        assert!(is_enforced && is_locked(&mount_root));
        assert_eq!(super::lock(&reserved).err(), Some(Errno::BUSY));
        drop(lock);
        assert!(!is_locked(&mount_root));
    }
}
