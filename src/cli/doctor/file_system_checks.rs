//! Checks of the file systems that hold the state and the served folder.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{StatVfs, StatVfsMountFlags, statfs, statvfs};

use super::check::{CheckStatus, DoctorCheck, check};

/// Free bytes below which uploads are about to fail.
const FREE_BYTES_WARNING: u64 = 256 * 1024 * 1024;
/// Number of files that can still be created below which uploads are about to fail.
const FREE_FILES_WARNING: u64 = 1000;

/// What to know of a type of file systems.
struct FileSystemType {
    /// Number by which statfs(2) tells the type.
    magic: u32,
    name: &'static str,
    traits: FileSystemTraits,
}

/// Traits of a type that matter here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FileSystemTraits {
    /// A local file system as of Linux.
    Local,
    /// The content is gone after a restart of the machine.
    InMemory,
    /// Other machines may change files, and see changes late.
    Network,
    /// It depends on the program behind it.
    UserSpace,
    /// One of other systems: without owners, modes or names that differ in case.
    Foreign,
}

impl FileSystemType {
    const fn new(magic: u32, name: &'static str, traits: FileSystemTraits) -> Self {
        Self { magic, name, traits }
    }
}

/// Types of file systems, by the numbers in linux/magic.h and, for those outside of the kernel, of their projects.
const FILE_SYSTEM_TYPES: [FileSystemType; 17] = [
    FileSystemType::new(0xEF53, "ext4", FileSystemTraits::Local),
    FileSystemType::new(0x5846_5342, "xfs", FileSystemTraits::Local),
    FileSystemType::new(0x9123_683E, "btrfs", FileSystemTraits::Local),
    FileSystemType::new(0x2FC1_2FC1, "zfs", FileSystemTraits::Local),
    FileSystemType::new(0xF2F5_2010, "f2fs", FileSystemTraits::Local),
    FileSystemType::new(0xCA45_1A4E, "bcachefs", FileSystemTraits::Local),
    FileSystemType::new(0x794C_7630, "overlayfs", FileSystemTraits::Local),
    FileSystemType::new(0x0102_1994, "tmpfs", FileSystemTraits::InMemory),
    FileSystemType::new(0x8584_58F6, "ramfs", FileSystemTraits::InMemory),
    FileSystemType::new(0x6969, "nfs", FileSystemTraits::Network),
    FileSystemType::new(0xFF53_4D42, "cifs", FileSystemTraits::Network),
    FileSystemType::new(0xFE53_4D42, "smb3", FileSystemTraits::Network),
    FileSystemType::new(0x00C3_6400, "ceph", FileSystemTraits::Network),
    FileSystemType::new(0x0102_1997, "9p", FileSystemTraits::Network),
    FileSystemType::new(0x6573_5546, "fuse", FileSystemTraits::UserSpace),
    FileSystemType::new(0x4D44, "vfat", FileSystemTraits::Foreign),
    FileSystemType::new(0x2011_BAB0, "exfat", FileSystemTraits::Foreign),
];

/// Checks the file system of the state directory.
pub(super) fn check_state_file_system(state: &Path) -> Option<DoctorCheck> {
    let name = "state file system";
    let (type_name, traits) = file_system_type(state)?;
    Some(match traits {
        FileSystemTraits::Local => check(name, CheckStatus::Ok, format!("{type_name}, on this machine")),
        FileSystemTraits::InMemory => {
            let detail =
                format!("{type_name} is in memory: users and tokens are gone after a restart; set state to a disk");
            check(name, CheckStatus::Warning, detail)
        }
        FileSystemTraits::Network | FileSystemTraits::UserSpace | FileSystemTraits::Foreign => {
            let detail = format!(
                "{type_name}: a SQLite database needs locks and shared memory that this may not offer; set state to a \
                 local disk (ext4, xfs, btrfs, zfs)"
            );
            check(name, CheckStatus::Warning, detail)
        }
    })
}

/// Checks the file system of the served folder: its type, the space that is left, and whether names differ in case.
pub(super) fn check_served_file_system(root: &Path) -> Vec<DoctorCheck> {
    let name = "file system";
    let mut checks = Vec::new();
    if let Some((type_name, traits)) = file_system_type(root) {
        let (status, detail) = match traits {
            FileSystemTraits::Local => (CheckStatus::Ok, "on this machine"),
            FileSystemTraits::InMemory => (CheckStatus::Warning, "in memory: the files are gone after a restart"),
            FileSystemTraits::Network => (
                CheckStatus::Warning,
                "over the network: what other machines change shows late, and nothing stops them from changing a file \
                 that is written here; serve the folder on the machine that has the disk if you can",
            ),
            FileSystemTraits::UserSpace => (
                CheckStatus::Warning,
                "served by a program: inodes, locks and syncs are as good as that program; try a restart and a power \
                 cut before you rely on it",
            ),
            FileSystemTraits::Foreign => (
                CheckStatus::Warning,
                "without owners and modes, and with limits on names and sizes: use a file system of Linux",
            ),
        };
        checks.push(check(name, status, format!("{type_name}, {detail}")));
    }
    if has_case_insensitive_names(root) {
        let detail = "names that differ only in case are the same file here: what one client uploads may replace what \
                      another one has; use a folder that distinguishes them";
        checks.push(check("names", CheckStatus::Warning, detail));
    }
    checks.extend(statvfs(root).ok().map(|space| check_space(&space)));
    checks
}

fn check_space(space: &StatVfs) -> DoctorCheck {
    let name = "space";
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let mebibytes = free / (1024 * 1024);
    if space.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return check(
            name,
            CheckStatus::Warning,
            "the file system is mounted read-only: uploads fail; mount it writable",
        );
    }
    if free < FREE_BYTES_WARNING {
        let detail = format!("{mebibytes} MiB are free for files: uploads fail soon; make room");
        return check(name, CheckStatus::Warning, detail);
    }
    // Some file systems have no fixed number, and say 0 of 0.
    if space.f_files > 0 && space.f_favail < FREE_FILES_WARNING {
        let detail = format!("only {} more files can be created (inodes): remove some", space.f_favail);
        return check(name, CheckStatus::Warning, detail);
    }
    check(name, CheckStatus::Ok, format!("{mebibytes} MiB are free for files"))
}

/// Tells whether the reserved directory is found by its name in capitals, too.
fn has_case_insensitive_names(root: &Path) -> bool {
    let inode =
        |name: &str| fs::symlink_metadata(root.join(name)).ok().map(|metadata| (metadata.dev(), metadata.ino()));
    inode(".patgate").is_some() && inode(".patgate") == inode(".PATGATE")
}

/// Returns name and traits of the type of a directory's file system; `None` where it can't be told.
fn file_system_type(directory: &Path) -> Option<(String, FileSystemTraits)> {
    // The field is signed or wider on some architectures; the numbers have 32 bits.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let magic = statfs(directory).ok()?.f_type as u32;
    let known = FILE_SYSTEM_TYPES.iter().find(|known| known.magic == magic);
    Some(known.map_or_else(
        || (format!("type {magic:#x}"), FileSystemTraits::Local),
        |known| (known.name.to_owned(), known.traits),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_space_few_files_and_read_only_mounts_are_warned_of() {
        let status = |change: &dyn Fn(&mut StatVfs)| {
            let mut space = statvfs("/").expect("read");
            (space.f_flag, space.f_frsize) = (StatVfsMountFlags::empty(), 4096);
            (space.f_bavail, space.f_files, space.f_favail) = (1 << 20, 1 << 20, 1 << 20);
            change(&mut space);
            check_space(&space).status
        };
        assert_eq!(status(&|_| {}), CheckStatus::Ok);
        assert_eq!(status(&|space| space.f_bavail = 100), CheckStatus::Warning);
        assert_eq!(status(&|space| space.f_favail = 3), CheckStatus::Warning);
        assert_eq!(status(&|space| (space.f_files, space.f_favail) = (0, 0)), CheckStatus::Ok, "btrfs");
        assert_eq!(status(&|space| space.f_flag = StatVfsMountFlags::RDONLY), CheckStatus::Warning);
    }

    #[test]
    fn directory_that_is_found_in_capitals_is_case_insensitive() {
        let folder = tempfile::tempdir().expect("folder");
        assert!(!has_case_insensitive_names(folder.path()));
        fs::create_dir(folder.path().join(".patgate")).expect("created");
        assert!(!has_case_insensitive_names(folder.path()));
        std::os::unix::fs::symlink(".patgate", folder.path().join(".PATGATE")).expect("linked");
        assert!(!has_case_insensitive_names(folder.path()), "an entry of its own");
    }

    #[test]
    fn memory_and_proc_are_told_apart() {
        let memory = file_system_type(Path::new("/dev/shm"));
        assert!(memory.is_none_or(|(name, traits)| name == "tmpfs" && traits == FileSystemTraits::InMemory));
        assert_eq!(file_system_type(Path::new("/proc")).map(|(name, _)| name), Some("type 0x9fa0".to_owned()));
    }
}
