//! Metadata of an entry, from statx(2).

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustix::fd::AsFd;
use rustix::fs::{AtFlags, FileType, Statx, StatxFlags, StatxTimestamp, statx};

use super::Result;
use crate::domain::NodeIdentity;
use crate::store::EntryIdentity;
use crate::tree::{EntryKind, Timestamp};

/// Mount id and device: rename(2) works only between directories with the same pair.
pub(crate) type MountKey = (u64, u64);

/// Ids of the overlayfs mounts, in which the birth time of a directory may change; none where there are none.
static OVERLAY_MOUNTS: ArcSwapOption<BTreeSet<u64>> = ArcSwapOption::const_empty();
/// Ids of the mounts of file systems in memory, which never wait for a disk.
static MEMORY_MOUNTS: ArcSwapOption<BTreeSet<u64>> = ArcSwapOption::const_empty();

/// Records the overlayfs mounts, whose birth times are not used: overlayfs gives a directory a new one when something
/// in it is changed for the first time.
pub(super) fn set_overlay_mounts(mounts: BTreeSet<u64>) {
    set_mounts(&OVERLAY_MOUNTS, mounts);
}

/// Records the mounts of file systems in memory.
pub(super) fn set_memory_mounts(mounts: BTreeSet<u64>) {
    set_mounts(&MEMORY_MOUNTS, mounts);
}

fn set_mounts(known: &ArcSwapOption<BTreeSet<u64>>, mounts: BTreeSet<u64>) {
    known.store((!mounts.is_empty()).then(|| Arc::new(mounts)));
}

fn is_overlay_mount(mount_id: u64) -> bool {
    OVERLAY_MOUNTS.load().as_ref().is_some_and(|mounts| mounts.contains(&mount_id))
}

/// Metadata of an entry.
#[derive(Clone, Debug)]
pub(crate) struct Stat {
    /// Kind of entry; `None` for sockets, devices and pipes, which are never shown.
    pub(crate) kind: Option<EntryKind>,
    /// Inode number.
    pub(crate) inode: u64,
    /// Device number of the file system.
    pub(crate) device: u64,
    /// Id of the mount that it was reached by; 0 where the kernel does not report one.
    pub(crate) mount_id: u64,
    /// Birth time, where the file system has one that does not change.
    pub(crate) created: Option<Timestamp>,
    /// Time of the last change of content or metadata (ctime), which nobody can set.
    pub(crate) changed: Timestamp,
    /// Time of the last change of content (mtime).
    pub(crate) modified: Timestamp,
    /// Time of the last read (atime).
    pub(crate) accessed: Timestamp,
    /// Size in bytes.
    pub(crate) size: u64,
    /// Permission bits, with the set-ID and sticky bits.
    pub(crate) mode: u32,
    /// Number of hard links.
    pub(crate) link_count: u32,
    /// User id of the owner.
    pub(crate) uid: u32,
    /// Group id of the owner.
    pub(crate) gid: u32,
}

impl Stat {
    /// Returns the metadata of an entry of a directory, or of the open entry itself where `name` is empty. Symbolic
    /// links are not followed.
    pub(super) fn stat_at(fd: impl AsFd, name: &[u8]) -> Result<Self> {
        // MNT_ID needs Linux 5.8: before, `mount_id` is 0 and the device alone tells file systems apart.
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME | StatxFlags::MNT_ID;
        #[cfg(test)]
        {
            super::fault_injection::count_syscall(|counts| &mut counts.stats);
            super::fault_injection::before_read()?;
        }
        // NO_AUTOMOUNT: looking at a name must mount nothing.
        let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        Ok(Self::from(&statx(fd, name, flags, wanted)?))
    }

    /// Returns the birth time in nanoseconds since 1970; `None` where it is not known, or beyond 64 bits.
    pub(crate) fn birth_time(&self) -> Option<i64> {
        self.created.and_then(unix_nanos)
    }

    /// Tells whether content or metadata of the entry changed (ctime) at or after an instant in nanoseconds since 1970.
    pub(crate) fn changed_since(&self, instant: i64) -> bool {
        // A time beyond 64 bits counts as changed: the caller removes entries that have not changed.
        unix_nanos(self.changed).is_none_or(|changed| changed >= instant)
    }

    /// Tells whether the content of a file, or the names in a directory, changed (mtime) at or after an instant, as
    /// [`Stat::changed_since`].
    pub(crate) fn modified_since(&self, instant: i64) -> bool {
        unix_nanos(self.modified).is_none_or(|modified| modified >= instant)
    }

    /// Returns the identity by which a directory is recognised.
    pub(crate) fn directory_identity(&self) -> NodeIdentity {
        NodeIdentity::Directory { inode: self.inode, birth_time: self.birth_time() }
    }

    /// Returns the identity of the entry itself, a file's too.
    pub(crate) fn entry_identity(&self) -> EntryIdentity {
        EntryIdentity { is_directory: self.is_directory(), inode: self.inode, birth_time: self.birth_time() }
    }

    /// Tells whether this is a directory.
    pub(crate) fn is_directory(&self) -> bool {
        self.kind == Some(EntryKind::Directory)
    }

    /// Tells whether both are the same inode of the same file system.
    pub(crate) fn is_same_file(&self, other: &Stat) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Tells whether the entry was found on a file system in memory at the last look at the mounts.
    pub(crate) fn is_in_memory(&self) -> bool {
        MEMORY_MOUNTS.load().as_ref().is_some_and(|mounts| mounts.contains(&self.mount_id))
    }

    /// Returns the mount and device that a rename can't leave.
    pub(crate) fn mount_key(&self) -> MountKey {
        (self.mount_id, self.device)
    }
}

impl From<&Statx> for Stat {
    fn from(raw: &Statx) -> Self {
        let has = |flag: StatxFlags| raw.stx_mask & flag.bits() != 0;
        // Sockets, devices and FIFOs get no kind: clients can neither see nor open them.
        let kind = match FileType::from_raw_mode(u32::from(raw.stx_mode)) {
            FileType::RegularFile => Some(EntryKind::File),
            FileType::Directory => Some(EntryKind::Directory),
            FileType::Symlink => Some(EntryKind::Symlink),
            _ => None,
        };
        let mount_id = if has(StatxFlags::MNT_ID) { raw.stx_mnt_id } else { 0 };
        Self {
            kind,
            inode: raw.stx_ino,
            device: u64::from(raw.stx_dev_major) << 32 | u64::from(raw.stx_dev_minor),
            mount_id,
            created: (has(StatxFlags::BTIME) && !is_overlay_mount(mount_id))
                .then(|| timestamp_from_statx(&raw.stx_btime)),
            changed: timestamp_from_statx(&raw.stx_ctime),
            modified: timestamp_from_statx(&raw.stx_mtime),
            accessed: timestamp_from_statx(&raw.stx_atime),
            size: raw.stx_size,
            mode: u32::from(raw.stx_mode) & 0o7777,
            link_count: raw.stx_nlink,
            uid: raw.stx_uid,
            gid: raw.stx_gid,
        }
    }
}

/// Returns a time in nanoseconds since 1970; `None` where 64 bits are not enough.
fn unix_nanos(time: Timestamp) -> Option<i64> {
    time.seconds.checked_mul(1_000_000_000)?.checked_add(i64::from(time.nanos))
}

fn timestamp_from_statx(time: &StatxTimestamp) -> Timestamp {
    Timestamp { seconds: time.tv_sec, nanos: time.tv_nsec }
}
