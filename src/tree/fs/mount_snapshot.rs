//! Mount snapshot: the served directory and the file systems in it that nodes were named in, each as long as its path
//! still leads to it.
//!
//! Every path is resolved from the root descriptor that is held open here, never by the host path of the served
//! directory: where that path leads to something else, because the file system was unmounted or another was mounted
//! over it, no request sees it. [`ServedFs::check_mounts`] compares both. It closes the descriptor of a file system
//! that is gone, so that the unmount can end, and opens it anew once it is back. A mount below the root is compared by
//! its mount id on each resolution that leads into it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;
use rustix::fd::AsFd;
use rustix::fs::{StatVfsMountFlags, fstatvfs};

use super::directory::open_root_path;
use super::open::{OpenMode, host_path, open_directory_cached, open_no_symlinks};
use super::{DirectoryFd, Errno, MountKey, Result, ServedFs, StagingDirectory, Stat, marker, mounts};
use crate::domain::{NodeIdentity, TreePath};
use crate::store::TreeMarker;
use crate::tree::TreeOutage;

/// File system below the root in which nodes were named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnownMount {
    /// Path of its mount point.
    pub(crate) path: TreePath,
    /// Its tree marker.
    pub(crate) marker: TreeMarker,
    /// Inode number of its top directory.
    pub(crate) inode: u64,
}

/// Identity of the served directory and of the file systems mounted in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KnownTree {
    /// Its tree marker; `None` where it has none, because nothing can be written there.
    pub(crate) marker: Option<TreeMarker>,
    /// File systems below the root in which nodes were named.
    pub(crate) mounts: Vec<KnownMount>,
}

/// Open root of the tree, and the mounts in it.
pub(super) struct MountSnapshot {
    pub(super) root: DirectoryFd,
    /// Metadata of the root when it was opened, read after the mount table: on overlayfs without a birth time. What
    /// identifies the root stays the same for as long as it is held open.
    stat: Stat,
    /// Known mounts, the deepest first.
    known_mounts: Vec<WatchedMount>,
    /// Mount points by mount id: of the root, and of every mount below it.
    mount_paths: HashMap<u64, TreePath>,
    pub(super) stagings: RwLock<HashMap<MountKey, Arc<StagingDirectory>>>,
}

/// Known mount, and its open root or the reason for which it is not available.
#[derive(Clone)]
struct WatchedMount {
    known: KnownMount,
    opened: std::result::Result<OpenMount, TreeOutage>,
}

/// Open root of a known mount. It is held open so that the kernel gives its mount id to no other mount.
#[derive(Clone)]
struct OpenMount {
    mount_id: u64,
    writable: bool,
    _root: DirectoryFd,
}

/// Identity of the root, kept between the checks.
pub(super) struct RootWatch {
    known: KnownTree,
    device: u64,
    inode: u64,
    birth_time: Option<i64>,
    writable: bool,
}

impl MountSnapshot {
    /// Opens the served directory for the first time, and records its identity.
    pub(super) fn open_first(root_path: &Path) -> Result<(Self, RootWatch)> {
        let root = open_root_path(root_path)?;
        let stat = root.stat()?;
        // Whatever is there at start is taken as the tree; `availability::verify_root` then compares it with the store.
        let watch = RootWatch {
            known: KnownTree::default(),
            device: stat.device,
            inode: stat.inode,
            birth_time: stat.birth_time(),
            writable: is_writable(&root)?,
        };
        let mount_paths = mount_paths_by_id(&root, &stat);
        let stat = root.stat()?;
        Ok((Self { root, stat, known_mounts: Vec::new(), mount_paths, stagings: RwLock::default() }, watch))
    }

    /// Opens the served directory again, and checks that it is the one that was served before.
    fn reopen(root_path: &Path, watch: &mut RootWatch, old: Option<&Self>) -> std::result::Result<Self, TreeOutage> {
        let root = open_root_path(root_path).map_err(outage_from_errno)?;
        let (stat, marker) = (root.stat().map_err(outage_from_errno)?, marker::read(&root).map_err(outage_from_errno)?);
        let is_same_root = old.is_some_and(|old| old.is_same_root(&root, &stat));
        let is_known = match watch.known.marker {
            // The inode too: a copy of the tree on another disk has the same marker, but other inodes.
            Some(known) => marker == Some(known) && stat.inode == watch.inode,
            // Without a marker a remount under another device number is not recognised: that needs a restart.
            None => (stat.device, stat.inode, stat.birth_time()) == (watch.device, watch.inode, watch.birth_time),
        };
        if !(is_same_root || is_known) {
            return Err(TreeOutage::Replaced);
        }
        let writable = is_writable(&root).map_err(outage_from_errno)?;
        // ext4 remounts itself read-only after an I/O error: an outage, on which clients retry, and no refusal of each
        // write. A tree that was read-only from the start is served.
        if watch.writable && !writable {
            return Err(TreeOutage::ReadOnly);
        }
        watch.writable = writable;
        let mount_paths = mount_paths_by_id(&root, &stat);
        let stat = root.stat().map_err(outage_from_errno)?;
        let watch_mount = |known: &KnownMount| {
            // In another root the kernel may have reused the mount id.
            let old = old.filter(|_| is_same_root).and_then(|old| old.known_mounts.iter().find(|w| w.known == *known));
            WatchedMount { known: known.clone(), opened: open_known_mount(&root, known, old) }
        };
        let mut known_mounts: Vec<_> = watch.known.mounts.iter().map(watch_mount).collect();
        // `MountSnapshot::verify_mount` takes the first mount that contains a path: it must be the innermost.
        known_mounts.sort_by_key(|watched| std::cmp::Reverse(watched.known.path.depth()));
        // Staging of a mount that is gone is dropped, and its lock with it, so that it can be unmounted. Mount id 0:
        // the kernel reports none.
        let stagings = old.map(|old| old.stagings.read().clone()).unwrap_or_default();
        let stagings =
            stagings.into_iter().filter(|((mount, _), _)| *mount == 0 || mount_paths.contains_key(mount)).collect();
        Ok(Self { root, stat, known_mounts, mount_paths, stagings: RwLock::new(stagings) })
    }

    /// Tells whether a root that was just opened by its path is the same directory in the same mount as the one that is
    /// held open.
    fn is_same_root(&self, root: &DirectoryFd, stat: &Stat) -> bool {
        self.stat.is_same_file(stat)
            && self.stat.mount_key() == stat.mount_key()
            && host_path(&self.root) == host_path(root)
    }

    /// Returns the known mounts that are not available, with the reason.
    fn missing_mounts(&self) -> Vec<(TreePath, TreeOutage)> {
        let outage_of =
            |watched: &WatchedMount| Some((watched.known.path.clone(), watched.opened.as_ref().err()?.clone()));
        self.known_mounts.iter().filter_map(outage_of).collect()
    }

    /// Tells whether root, mounts and known mounts are the same as in an earlier snapshot.
    fn is_unchanged_from(&self, old: &Self) -> bool {
        let state = |watched: &WatchedMount| {
            (watched.known.clone(), watched.opened.as_ref().map(|mount| mount.mount_id).map_err(TreeOutage::clone))
        };
        let states = |snapshot: &Self| snapshot.known_mounts.iter().map(state).collect::<Vec<_>>();
        old.is_same_root(&self.root, &self.stat) && self.mount_paths == old.mount_paths && states(self) == states(old)
    }

    /// Checks that an entry found at a path belongs to the file system that is known to be mounted there.
    fn verify_mount(&self, path: &TreePath, stat: impl FnOnce() -> Result<Stat>) -> Result<()> {
        let Some(watched) = self.known_mounts.iter().find(|watched| path.starts_with(&watched.known.path)) else {
            return Ok(());
        };
        let Ok(open_mount) = &watched.opened else { return Err(Errno::NOMEDIUM) };
        let mount_id = stat()?.mount_id;
        // A mount within the known one belongs to it.
        let is_nested = |path_of_mount: &TreePath| {
            path_of_mount.starts_with(&watched.known.path) && *path_of_mount != watched.known.path
        };
        if mount_id == open_mount.mount_id || self.mount_paths.get(&mount_id).is_some_and(is_nested) {
            Ok(())
        } else {
            Err(Errno::NOMEDIUM)
        }
    }
}

impl ServedFs {
    /// Returns the root of the tree.
    ///
    /// # Errors
    /// `ENOMEDIUM` while it is not available.
    pub(crate) fn root(&self) -> Result<DirectoryFd> {
        let current = self.current_snapshot.load();
        current.as_ref().as_ref().map(|snapshot| snapshot.root.clone()).map_err(|_| Errno::NOMEDIUM)
    }

    /// Opens a directory of the tree from the dentry cache alone, without a count of references to the root, which all
    /// requests would write.
    ///
    /// # Errors
    /// `EAGAIN` where it would have to wait for a disk; errors are not classified, since that would read the disk: the
    /// caller repeats the call as a blocking one.
    pub(super) fn open_directory_cached(&self, path: &TreePath) -> Result<DirectoryFd> {
        let current = self.current_snapshot.load();
        let snapshot = current.as_ref().as_ref().map_err(|_| Errno::NOMEDIUM)?;
        if path.is_root() {
            return Ok(snapshot.root.clone());
        }
        let directory = DirectoryFd::from(open_directory_cached(&snapshot.root, path.as_bytes())?);
        snapshot.verify_mount(path, || directory.stat())?;
        Ok(directory)
    }

    /// Returns the root of the tree with its identity, without asking the file system.
    ///
    /// # Errors
    /// As [`ServedFs::root`].
    pub(crate) fn root_and_identity(&self) -> Result<(DirectoryFd, NodeIdentity)> {
        let current = self.current_snapshot.load();
        let found =
            current.as_ref().as_ref().map(|snapshot| (snapshot.root.clone(), snapshot.stat.directory_identity()));
        found.map_err(|_| Errno::NOMEDIUM)
    }

    pub(super) fn snapshot(&self) -> Result<Arc<MountSnapshot>> {
        self.current_snapshot.load().as_ref().as_ref().map(Arc::clone).map_err(|_| Errno::NOMEDIUM)
    }

    /// Checks that the served directory is available.
    ///
    /// # Errors
    /// The reason for which it is not.
    pub(crate) fn check_available(&self) -> std::result::Result<(), TreeOutage> {
        self.current_snapshot.load().as_ref().as_ref().map(drop).map_err(TreeOutage::clone)
    }

    /// Checks that an entry found at a path belongs to the file system that is known to be mounted there.
    ///
    /// # Errors
    /// `ENOMEDIUM` where that file system is not mounted now.
    pub(super) fn verify_mount(&self, path: &TreePath, stat: impl FnOnce() -> Result<Stat>) -> Result<()> {
        match self.current_snapshot.load().as_ref().as_ref() {
            Ok(snapshot) => snapshot.verify_mount(path, stat),
            Err(_) => Err(Errno::NOMEDIUM),
        }
    }

    /// Returns `ENOMEDIUM` where a known file system on the way to a path is not mounted, and otherwise the error
    /// itself.
    pub(super) fn classify_error(&self, path: &TreePath, error: Errno) -> Errno {
        let is_on_way = |snapshot: &MountSnapshot| {
            snapshot.known_mounts.iter().any(|watched| path.starts_with(&watched.known.path))
        };
        match self.snapshot() {
            // The entry may be missing only because its file system is: absent would make sync clients delete their
            // copies.
            Ok(snapshot) if error != Errno::NOMEDIUM && is_on_way(&snapshot) => {
                let mut on_way = snapshot.known_mounts.iter().filter(|watched| path.starts_with(&watched.known.path));
                let mounted = on_way.try_for_each(|WatchedMount { known, .. }| {
                    let found = snapshot.root.open_directory(&known.path)?;
                    snapshot.verify_mount(&known.path, || found.stat())
                });
                mounted.map_or(Errno::NOMEDIUM, |()| error)
            }
            Ok(_) => error,
            Err(outage) => outage,
        }
    }

    /// Checks that every known file system at and below a path is mounted.
    ///
    /// # Errors
    /// `ENOMEDIUM` where one is not.
    pub(crate) fn verify_mounts_below(&self, path: &TreePath) -> Result<()> {
        let snapshot = self.snapshot()?;
        let mut below = snapshot.known_mounts.iter().filter(|watched| watched.known.path.starts_with(path));
        below.try_for_each(|watched| self.open_directory(&watched.known.path).map(drop))
    }

    /// Tells whether an open entry belongs to a mount that is not in the tree any more.
    pub(crate) fn is_detached(&self, fd: impl AsFd) -> bool {
        let (Ok(snapshot), Ok(stat)) = (self.snapshot(), Stat::stat_at(fd, b"")) else { return true };
        // The mounts as they are now: the snapshot may be from before the file system was unmounted, and the entry would
        // seem to be one that was moved out of the session's reach. Mount id 0: the kernel reports none, and nothing can
        // be said.
        stat.mount_id != 0 && !mount_paths_by_id(&snapshot.root, &snapshot.stat).contains_key(&stat.mount_id)
    }

    /// Returns the mounts below the root, with the metadata of their top directories.
    pub(crate) fn mounts_below_root(&self) -> Vec<(TreePath, Stat)> {
        let Ok(snapshot) = self.snapshot() else { return Vec::new() };
        let below = snapshot.mount_paths.values().filter(|path| !path.is_root());
        below.filter_map(|path| Some((path.clone(), self.open_directory(path).ok()?.stat().ok()?))).collect()
    }

    /// Returns the mount points in the tree, in order.
    pub(crate) fn mount_points(&self) -> Vec<TreePath> {
        let mut points: Vec<_> =
            self.snapshot().map(|snapshot| snapshot.mount_paths.values().cloned().collect()).unwrap_or_default();
        points.sort();
        points
    }

    /// Returns the tree marker of the file system that is mounted at a path, or of the tree itself; `None` where it has
    /// none.
    pub(crate) fn marker_at(&self, path: &TreePath) -> Result<Option<TreeMarker>> {
        marker::read(&self.open_directory(path)?)
    }

    /// Sets the identity by which the tree is recognised from now on.
    pub(crate) fn set_known_tree(&self, known: KnownTree) {
        self.root_watch.lock().known = known;
    }

    /// Checks that root and known mounts are still at their paths. Returns those that are not, with the reason.
    pub(crate) fn check_mounts(&self) -> Vec<(TreePath, TreeOutage)> {
        // Held throughout, so that an older check never overwrites the result of a newer one.
        let mut watch = self.root_watch.lock();
        let old = self.snapshot().ok();
        // Without a free descriptor nothing can be said about the paths: the last result stays.
        if let (Some(old), Err(Errno::MFILE | Errno::NFILE)) = (&old, open_root_path(&self.root_path)) {
            return old.missing_mounts();
        }
        match MountSnapshot::reopen(&self.root_path, &mut watch, old.as_deref()) {
            Err(outage) => {
                // Dropping the snapshot closes its descriptors, so that an unmount can complete.
                self.current_snapshot.store(Arc::new(Err(outage.clone())));
                vec![(TreePath::root(), outage)]
            }
            Ok(new) => {
                let missing = new.missing_mounts();
                // Compared with the present snapshot and not with `old`: it may have been suspended meanwhile.
                if !self.snapshot().is_ok_and(|current| new.is_unchanged_from(&current)) {
                    self.current_snapshot.store(Arc::new(Ok(Arc::new(new))));
                }
                missing
            }
        }
    }

    /// Makes every request fail with this reason until the next check.
    pub(crate) fn suspend(&self, outage: TreeOutage) {
        self.current_snapshot.store(Arc::new(Err(outage)));
    }
}

fn mount_paths_by_id(root: &DirectoryFd, stat: &Stat) -> HashMap<u64, TreePath> {
    let below = mounts::read_mountinfo(root).into_iter().filter_map(|line| Some((line.id, line.tree_path?)));
    // Added by itself: the mount of the root may begin above the tree, and has no path in it then.
    below.chain([(stat.mount_id, TreePath::root())]).collect()
}

/// Opens the directory at the path of a known mount, and checks that it is that mount.
fn open_known_mount(
    root: &DirectoryFd,
    known: &KnownMount,
    old: Option<&WatchedMount>,
) -> std::result::Result<OpenMount, TreeOutage> {
    let directory = open_no_symlinks(root, known.path.as_bytes(), OpenMode::DirectoryPath)
        .map(DirectoryFd::from)
        .map_err(outage_from_errno)?;
    let (stat, marker) =
        (directory.stat().map_err(outage_from_errno)?, marker::read(&directory).map_err(outage_from_errno)?);
    let old = old.and_then(|old| old.opened.as_ref().ok()).filter(|open| open.mount_id == stat.mount_id);
    // While the old root is held open, its mount id can't belong to another mount: the marker need not match, as after
    // its file was deleted by hand.
    if old.is_none() && !(marker == Some(known.marker) && stat.inode == known.inode) {
        return Err(TreeOutage::Replaced);
    }
    let writable = is_writable(&directory).map_err(outage_from_errno)?;
    if old.is_some_and(|open| open.writable) && !writable {
        return Err(TreeOutage::ReadOnly);
    }
    Ok(OpenMount { mount_id: stat.mount_id, writable, _root: directory })
}

fn is_writable(directory: &DirectoryFd) -> Result<bool> {
    // The mount's flag and no test write, which would change times, and fail on a full disk.
    Ok(!fstatvfs(directory)?.f_flag.contains(StatVfsMountFlags::RDONLY))
}

fn outage_from_errno(error: Errno) -> TreeOutage {
    match error {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => TreeOutage::Missing,
        error => TreeOutage::Failing(std::io::Error::from(error).to_string()),
    }
}
