//! What is served at present: the folder, and the file systems in it that nodes were named in, each as long as its path
//! shows it.
//!
//! Everything is resolved from the root that is held open here, never by the folder's path: where that shows something
//! else, because the file system was unmounted or another mounted over it, no request sees it. [`Host::look`] compares
//! both; what it finds to be gone is let go of, so that the kernel can be done with it, and opened anew once it is back.
//! A mount below the root is compared by its number on each resolution that leads into it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;
use rustix::fd::AsFd;
use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags, fstatvfs, openat};

use super::open::{How, host_path, plain};
use super::{Errno, Folder, Host, Mount, Result, Staging, Stat, marker, mounts};
use crate::domain::TreePath;
use crate::store::TreeMarker;
use crate::tree::Outage;

/// A file system below the root in which nodes were named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnownMount {
    /// Where it is to be.
    pub(crate) path: TreePath,
    /// Its marker.
    pub(crate) marker: TreeMarker,
    /// The inode of its root.
    pub(crate) inode: u64,
}

/// What the served folder is recognised by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KnownTree {
    /// Its marker; `None` where it has none, because nothing can be written there.
    pub(crate) marker: Option<TreeMarker>,
    /// The file systems below it.
    pub(crate) mounts: Vec<KnownMount>,
}

/// The root and what is mounted in it, open.
pub(super) struct Served {
    pub(super) root: Folder,
    stat: Stat,
    /// The known mounts, the deepest first.
    watched: Vec<Watched>,
    /// Where each mount is by its number: that of the root, and all below it.
    live: HashMap<u64, TreePath>,
    pub(super) stagings: RwLock<HashMap<Mount, Arc<Staging>>>,
}

/// A known mount, and what stands in its place.
#[derive(Clone)]
struct Watched {
    known: KnownMount,
    held: std::result::Result<Held, Outage>,
}

/// The root of a known mount, held open: its number can't become that of another meanwhile.
#[derive(Clone)]
struct Held {
    mount: u64,
    writable: bool,
    _root: Folder,
}

/// What is known of the tree, beside what is open.
pub(super) struct Watch {
    known: KnownTree,
    device: u64,
    inode: u64,
    born: Option<i64>,
    writable: bool,
}

impl Served {
    /// Opens what stands at the path of the served folder for the first time.
    pub(super) fn first(place: &Path) -> Result<(Self, Watch)> {
        let root = open(place)?;
        let stat = root.stat()?;
        let watch = Watch {
            known: KnownTree::default(),
            device: stat.device,
            inode: stat.inode,
            born: stat.born(),
            writable: is_writable(&root)?,
        };
        let live = live(&root, &stat);
        Ok((Self { root, stat, watched: Vec::new(), live, stagings: RwLock::default() }, watch))
    }

    /// Looks at a path again.
    fn again(place: &Path, watch: &mut Watch, old: Option<&Self>) -> std::result::Result<Self, Outage> {
        let root = open(place).map_err(outage)?;
        let (stat, marker) = (root.stat().map_err(outage)?, marker::read(&root).map_err(outage)?);
        let same = old.is_some_and(|old| old.is_at(&root, &stat));
        let known = match watch.known.marker {
            Some(known) => marker == Some(known) && stat.inode == watch.inode,
            None => (stat.device, stat.inode, stat.born()) == (watch.device, watch.inode, watch.born),
        };
        if !(same || known) {
            return Err(Outage::Replaced);
        }
        let writable = is_writable(&root).map_err(outage)?;
        if watch.writable && !writable {
            return Err(Outage::ReadOnly);
        }
        watch.writable = writable;
        let live = live(&root, &stat);
        let held = |known: &KnownMount| {
            let old = old.filter(|_| same).and_then(|old| old.watched.iter().find(|w| w.known == *known));
            Watched { known: known.clone(), held: hold(&root, known, old) }
        };
        let mut watched: Vec<_> = watch.known.mounts.iter().map(held).collect();
        watched.sort_by_key(|watched| std::cmp::Reverse(watched.known.path.depth()));
        let stagings = old.map(|old| old.stagings.read().clone()).unwrap_or_default();
        let stagings = stagings.into_iter().filter(|((mount, _), _)| *mount == 0 || live.contains_key(mount)).collect();
        Ok(Self { root, stat, watched, live, stagings: RwLock::new(stagings) })
    }

    /// Tells whether a root that was opened by the path just now is the one that is held, and no other mount of it.
    fn is_at(&self, root: &Folder, stat: &Stat) -> bool {
        self.stat.is_same(stat) && self.stat.mount() == stat.mount() && host_path(&self.root) == host_path(root)
    }

    /// Returns the known mounts that are not there, with the reason.
    fn missing(&self) -> Vec<(TreePath, Outage)> {
        let out = |watched: &Watched| Some((watched.known.path.clone(), watched.held.as_ref().err()?.clone()));
        self.watched.iter().filter_map(out).collect()
    }

    /// Tells whether nothing differs from what was found before.
    fn is_like(&self, old: &Self) -> bool {
        let state =
            |watched: &Watched| (watched.known.clone(), watched.held.as_ref().map(|h| h.mount).map_err(Outage::clone));
        let states = |served: &Self| served.watched.iter().map(state).collect::<Vec<_>>();
        old.is_at(&self.root, &self.stat) && self.live == old.live && states(self) == states(old)
    }

    /// Tells that what was found at a path belongs to the file system that is known to be there.
    fn verify(&self, path: &TreePath, stat: impl FnOnce() -> Result<Stat>) -> Result<()> {
        let Some(watched) = self.watched.iter().find(|watched| path.starts_with(&watched.known.path)) else {
            return Ok(());
        };
        let Ok(held) = &watched.held else { return Err(Errno::NOMEDIUM) };
        let mount = stat()?.mount;
        let within = |place: &TreePath| place.starts_with(&watched.known.path) && *place != watched.known.path;
        if mount == held.mount || self.live.get(&mount).is_some_and(within) { Ok(()) } else { Err(Errno::NOMEDIUM) }
    }
}

impl Host {
    /// Returns the served folder.
    ///
    /// # Errors
    /// `ENOMEDIUM` while it is not there.
    pub(crate) fn root(&self) -> Result<Folder> {
        let present = self.present.load();
        present.as_ref().as_ref().map(|served| served.root.clone()).map_err(|_| Errno::NOMEDIUM)
    }

    pub(super) fn served(&self) -> Result<Arc<Served>> {
        self.present.load().as_ref().as_ref().map(Arc::clone).map_err(|_| Errno::NOMEDIUM)
    }

    /// Tells that the served folder is there.
    ///
    /// # Errors
    /// Why it is not.
    pub(crate) fn available(&self) -> std::result::Result<(), Outage> {
        self.present.load().as_ref().as_ref().map(drop).map_err(Outage::clone)
    }

    /// Tells that what was found at a path belongs to the file system that is known to be there.
    ///
    /// # Errors
    /// `ENOMEDIUM` where that is not mounted now.
    pub(super) fn verify(&self, path: &TreePath, stat: impl FnOnce() -> Result<Stat>) -> Result<()> {
        match self.present.load().as_ref().as_ref() {
            Ok(served) => served.verify(path, stat),
            Err(_) => Err(Errno::NOMEDIUM),
        }
    }

    /// Returns what an error on the way to a path comes from: that a file system on the way is not mounted, or itself.
    pub(super) fn judge(&self, path: &TreePath, error: Errno) -> Errno {
        let is_on_way = |served: &Served| served.watched.iter().any(|watched| path.starts_with(&watched.known.path));
        match self.served() {
            Ok(served) if error != Errno::NOMEDIUM && is_on_way(&served) => {
                let mut above = served.watched.iter().filter(|watched| path.starts_with(&watched.known.path));
                let stands = above.try_for_each(|Watched { known, .. }| {
                    let found = served.root.folder(&known.path)?;
                    served.verify(&known.path, || found.stat())
                });
                stands.map_or(Errno::NOMEDIUM, |()| error)
            }
            Ok(_) => error,
            Err(gone) => gone,
        }
    }

    /// Tells that every known file system at and below a path is mounted there.
    ///
    /// # Errors
    /// `ENOMEDIUM` where one is not.
    pub(crate) fn verify_below(&self, path: &TreePath) -> Result<()> {
        let served = self.served()?;
        let mut below = served.watched.iter().filter(|watched| watched.known.path.starts_with(path));
        below.try_for_each(|watched| self.folder(&watched.known.path).map(drop))
    }

    /// Tells whether something open belongs to a mount that is not in the tree any more.
    pub(crate) fn is_detached(&self, fd: impl AsFd) -> bool {
        let (Ok(served), Ok(stat)) = (self.served(), Stat::of(fd, b"")) else { return true };
        stat.mount != 0 && !served.live.contains_key(&stat.mount)
    }

    /// Returns the mounts below the root, with what the root of each is.
    pub(crate) fn live_mounts(&self) -> Vec<(TreePath, Stat)> {
        let Ok(served) = self.served() else { return Vec::new() };
        let below = served.live.values().filter(|place| !place.is_root());
        below.filter_map(|place| Some((place.clone(), self.folder(place).ok()?.stat().ok()?))).collect()
    }

    /// Returns where in the tree file systems are mounted, in order.
    pub(crate) fn mount_places(&self) -> Vec<TreePath> {
        let mut places: Vec<_> =
            self.served().map(|served| served.live.values().cloned().collect()).unwrap_or_default();
        places.sort();
        places
    }

    /// Returns the marker of the file system that is mounted at a path of the tree, or of the tree itself; `None` where it
    /// has none.
    pub(crate) fn marker_at(&self, path: &TreePath) -> Result<Option<TreeMarker>> {
        marker::read(&self.folder(path)?)
    }

    /// Sets what the tree is recognised by from now on.
    pub(crate) fn expect(&self, known: KnownTree) {
        self.watch.lock().known = known;
    }

    /// Looks whether the paths still show what is served. Returns what is not, with the reason.
    pub(crate) fn look(&self) -> Vec<(TreePath, Outage)> {
        // Held throughout: an older look never overwrites a newer one.
        let mut watch = self.watch.lock();
        let old = self.served().ok();
        // Without a free descriptor it can't be told what is there: what was found last holds.
        if let (Some(old), Err(Errno::MFILE | Errno::NFILE)) = (&old, open(&self.place)) {
            return old.missing();
        }
        match Served::again(&self.place, &mut watch, old.as_deref()) {
            Err(outage) => {
                // What was held open is let go of: an unmount can end then.
                self.present.store(Arc::new(Err(outage.clone())));
                vec![(TreePath::root(), outage)]
            }
            Ok(new) => {
                let found = new.missing();
                // It may have been suspended meanwhile.
                if !self.served().is_ok_and(|current| new.is_like(&current)) {
                    self.present.store(Arc::new(Ok(Arc::new(new))));
                }
                found
            }
        }
    }

    /// Lets nothing be served for a reason until the next look.
    pub(crate) fn suspend(&self, outage: Outage) {
        self.present.store(Arc::new(Err(outage)));
    }
}

pub(super) fn open(place: &Path) -> Result<Folder> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, place, flags, Mode::empty()).map(Folder::from)
}

fn live(root: &Folder, stat: &Stat) -> HashMap<u64, TreePath> {
    let below = mounts::table(root).into_iter().filter_map(|line| Some((line.id, line.place?)));
    below.chain([(stat.mount, TreePath::root())]).collect()
}

/// Opens what stands at the place of a known mount, if that is it.
fn hold(root: &Folder, known: &KnownMount, old: Option<&Watched>) -> std::result::Result<Held, Outage> {
    let folder = plain(root, known.path.as_bytes(), How::Folder).map(Folder::from).map_err(outage)?;
    let (stat, marker) = (folder.stat().map_err(outage)?, marker::read(&folder).map_err(outage)?);
    let old = old.and_then(|old| old.held.as_ref().ok()).filter(|held| held.mount == stat.mount);
    if old.is_none() && !(marker == Some(known.marker) && stat.inode == known.inode) {
        return Err(Outage::Replaced);
    }
    let writable = is_writable(&folder).map_err(outage)?;
    if old.is_some_and(|held| held.writable) && !writable {
        return Err(Outage::ReadOnly);
    }
    Ok(Held { mount: stat.mount, writable, _root: folder })
}

fn is_writable(folder: &Folder) -> Result<bool> {
    Ok(!fstatvfs(folder)?.f_flag.contains(StatVfsMountFlags::RDONLY))
}

fn outage(error: Errno) -> Outage {
    match error {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => Outage::Missing,
        error => Outage::Failing(std::io::Error::from(error).to_string()),
    }
}
