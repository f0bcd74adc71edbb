//! What the host says of an entry (statx).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use rustix::fd::AsFd;
use rustix::fs::{AtFlags, FileType, Statx, StatxFlags, StatxTimestamp, statx};

use super::Result;
use crate::domain::NodeIdentity;
use crate::store::EntryIdentity;
use crate::tree::{EntryKind, Timestamp};

/// A mount and a file system on it: what one rename can't cross.
pub(crate) type MountKey = (u64, u64);

/// Numbers of the mounts in which a directory may get another birth time.
static OVERLAY_MOUNTS: RwLock<BTreeSet<u64>> = RwLock::new(BTreeSet::new());
static HAS_OVERLAY_MOUNTS: AtomicBool = AtomicBool::new(false);

/// Notes the mounts whose birth times say nothing: overlayfs gives a directory another one when something is changed in
/// it for the first time.
pub(super) fn set_overlay_mounts(mounts: BTreeSet<u64>) {
    let mut overlay_mounts = OVERLAY_MOUNTS.write();
    HAS_OVERLAY_MOUNTS.store(!mounts.is_empty(), Ordering::Release);
    *overlay_mounts = mounts;
}

fn is_overlay_mount(mount_id: u64) -> bool {
    HAS_OVERLAY_MOUNTS.load(Ordering::Acquire) && OVERLAY_MOUNTS.read().contains(&mount_id)
}

/// What the host says of an entry.
#[derive(Clone, Debug)]
pub(crate) struct Stat {
    /// What it is; `None` for sockets, devices and the like, which are never shown.
    pub(crate) kind: Option<EntryKind>,
    /// Its inode number.
    pub(crate) inode: u64,
    /// The device of its file system.
    pub(crate) device: u64,
    /// The mount it was reached by; 0 where the kernel does not tell.
    pub(crate) mount_id: u64,
    /// When it was made, where the file system knows and that does not change.
    pub(crate) created: Option<Timestamp>,
    /// The last change of anything about it, which nobody can set.
    pub(crate) changed: Timestamp,
    /// The last change of content.
    pub(crate) modified: Timestamp,
    /// The last read.
    pub(crate) accessed: Timestamp,
    /// Bytes.
    pub(crate) size: u64,
    /// Permission bits, with set-id and sticky bits.
    pub(crate) mode: u32,
    /// Hard links.
    pub(crate) link_count: u32,
    /// The owning user.
    pub(crate) uid: u32,
    /// The owning group.
    pub(crate) gid: u32,
}

impl Stat {
    /// Asks about a name in a folder, or about the open entry itself when it is empty. No link is followed.
    pub(super) fn stat_at(fd: impl AsFd, name: &[u8]) -> Result<Self> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME | StatxFlags::MNT_ID;
        let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        Ok(Self::from(&statx(fd, name, flags, wanted)?))
    }

    /// Returns the birth time in nanoseconds since 1970.
    pub(crate) fn birth_time(&self) -> Option<i64> {
        self.created.and_then(unix_nanos)
    }

    /// Tells whether anything about the entry has changed at or after an instant, in nanoseconds since 1970.
    pub(crate) fn changed_since(&self, instant: i64) -> bool {
        unix_nanos(self.changed).is_none_or(|changed| changed >= instant)
    }

    /// Tells whether the content, in a folder the names, has changed at or after an instant, as [`Stat::changed_since`].
    pub(crate) fn modified_since(&self, instant: i64) -> bool {
        unix_nanos(self.modified).is_none_or(|modified| modified >= instant)
    }

    /// Returns what a folder is recognised by.
    pub(crate) fn directory_identity(&self) -> NodeIdentity {
        NodeIdentity::Directory { inode: self.inode, birth_time: self.birth_time() }
    }

    /// Returns what the entry is recognised by itself.
    pub(crate) fn entry_identity(&self) -> EntryIdentity {
        EntryIdentity { is_directory: self.is_directory(), inode: self.inode, birth_time: self.birth_time() }
    }

    /// Tells whether this is a folder.
    pub(crate) fn is_directory(&self) -> bool {
        self.kind == Some(EntryKind::Directory)
    }

    /// Tells whether both are the same entry of the host.
    pub(crate) fn is_same_file(&self, other: &Stat) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Returns what one rename can't leave.
    pub(crate) fn mount_key(&self) -> MountKey {
        (self.mount_id, self.device)
    }
}

impl From<&Statx> for Stat {
    fn from(raw: &Statx) -> Self {
        let has = |flag: StatxFlags| raw.stx_mask & flag.bits() != 0;
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

/// Returns an instant in nanoseconds since 1970, where these can say it.
fn unix_nanos(time: Timestamp) -> Option<i64> {
    time.seconds.checked_mul(1_000_000_000)?.checked_add(i64::from(time.nanos))
}

fn timestamp_from_statx(time: &StatxTimestamp) -> Timestamp {
    Timestamp { seconds: time.tv_sec, nanos: time.tv_nsec }
}
