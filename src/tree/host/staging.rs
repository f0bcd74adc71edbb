//! Where things wait that have no name yet, or none any more: `.patgate` at the root of a file system.
//!
//! It is the server's alone (0700), absent to clients, and emptied from start on of all but what is kept ([`Kept`]) and
//! what this run has put there: the rest belongs to nobody then.

use std::collections::HashSet;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::claims::{Claim, Claims, check_owner};
use super::open::{How, plain};
use super::{Errno, File, Folder, Host, Locked, Mount, Result, Stat, marker};
use crate::domain::{EntryName, RESERVED_DIRECTORY, TreePath};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Mode, RawDir, fchmod, mkdirat, renameat, unlinkat};

/// The staging folder of one file system.
#[derive(Debug)]
pub(crate) struct Staging {
    /// The folder of the tree that holds it.
    top: TreePath,
    folder: Folder,
    run: u64,
    /// Held so that no other server sweeps what waits here.
    #[allow(dead_code, reason = "holds the lock while it lives")]
    held: Option<Arc<Locked>>,
}

/// Something that waits in staging; it is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Staged {
    staging: Arc<Staging>,
    name: EntryName,
    pub(super) waits: bool,
}

/// Something that waits in staging until it is discarded, also over a restart: somebody keeps its name.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    staging: Arc<Staging>,
    name: EntryName,
}

/// The mode of a file that only the server can read.
const OWN: u32 = 0o600;

static SERIAL: AtomicU64 = AtomicU64::new(0);

impl Host {
    /// Returns the staging folder from which a rename reaches an open folder of the tree on a
    /// mount; makes it when there is none.
    pub(crate) fn staging(&self, beside: &Folder, mount: Mount) -> Result<Arc<Staging>> {
        let served = self.served()?;
        if let Some(staging) = served.stagings.read().get(&mount) {
            return Ok(Arc::clone(staging));
        }
        let mut top = self.whereabouts(beside).ok_or(Errno::NOENT)?;
        while let Some(parent) = top.parent() {
            if self.folder(&parent)?.stat()?.mount() != mount {
                break;
            }
            top = parent;
        }
        let mut stagings = served.stagings.write();
        if let Some(staging) = stagings.get(&mount) {
            return Ok(Arc::clone(staging));
        }
        let (staging, debris) = Staging::open(&self.folder(&top)?, top, self.run, self.claims.as_ref())?;
        let staging = Arc::new(staging);
        stagings.insert(mount, Arc::clone(&staging));
        if let Some(claims) = &self.claims {
            let staged = |name| Staged { staging: Arc::clone(&staging), name, waits: true };
            claims.leave(debris.into_iter().map(staged).collect());
        }
        Ok(staging)
    }

    /// Finds again what is kept in the staging that a folder of the tree holds.
    ///
    /// # Errors
    /// `ENOENT` when it is not there.
    pub(crate) fn kept(&self, place: &TreePath, name: &[u8]) -> Result<Kept> {
        let top = self.folder(place)?;
        let staging = self.staging(&top, top.stat()?.mount())?;
        let name = EntryName::new(name).map_err(|_| Errno::INVAL)?;
        if staging.top != *place {
            return Err(Errno::NOENT);
        }
        staging.folder.stat_entry(&name)?;
        Ok(Kept { staging, name })
    }
}

impl Staging {
    /// Opens the reserved directory of a file system; makes it where there is none. Returns also what earlier runs left
    /// there, where this claims it.
    fn open(holder: &Folder, top: TreePath, run: u64, claims: Option<&Claims>) -> Result<(Self, Vec<EntryName>)> {
        match mkdirat(holder, RESERVED_DIRECTORY, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        let folder = Folder::from(plain(holder, RESERVED_DIRECTORY, How::Folder)?);
        if let Err(fault) = check_owner(&folder) {
            tracing::error!(%top, "nothing can be staged on a file system: its directory .patgate {fault}");
            return Err(Errno::PERM);
        }
        let mut staging = Self { top, folder, run, held: None };
        let mut debris = Vec::new();
        if let Some(claims) = claims {
            staging.held = match claims.lock(holder, &staging.folder)? {
                Claim::Taken(lock) => {
                    // First: what an unfinished upload stands in the place of can be put back then.
                    let mut stay = staging.take_early_back(holder)?;
                    stay.extend(staging.bring_back(holder)?);
                    debris = staging.debris(claims, &stay)?;
                    Some(lock)
                }
                Claim::Shared(lock) => Some(lock),
                Claim::None => None,
            };
        }
        Ok((staging, debris))
    }

    /// Makes an empty file that only the server can read.
    pub(crate) fn make_file(self: &Arc<Self>) -> Result<(File, Staged)> {
        let mut staged = self.slot()?;
        let file = self.folder.make_file(&staged.name, OWN)?;
        staged.waits = true;
        Ok((file, staged))
    }

    /// Makes an empty folder that only the server can enter.
    pub(crate) fn make_folder(self: &Arc<Self>) -> Result<Staged> {
        let mut staged = self.slot()?;
        self.folder.make_folder(&staged.name, 0o700)?;
        staged.waits = true;
        Ok(staged)
    }

    /// Makes a symbolic link.
    pub(crate) fn make_link(self: &Arc<Self>, target: &[u8]) -> Result<Staged> {
        let mut staged = self.slot()?;
        self.folder.symlink(target, &staged.name)?;
        staged.waits = true;
        Ok(staged)
    }

    /// Moves an entry away from its folder.
    pub(crate) fn take(self: &Arc<Self>, folder: &Folder, name: &EntryName) -> Result<Staged> {
        self.slot()?.take(folder, name)
    }

    /// Returns the folder of the tree that holds it.
    pub(super) fn top(&self) -> &TreePath {
        &self.top
    }

    /// Returns the folder in which things wait.
    pub(super) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Returns a name at which nothing waits yet.
    pub(super) fn slot(self: &Arc<Self>) -> Result<Staged> {
        let name = EntryName::new(&self.fresh()).map_err(|_| Errno::INVAL)?;
        Ok(Staged { staging: Arc::clone(self), name, waits: false })
    }

    fn fresh(&self) -> Vec<u8> {
        format!("{:016x}-{:x}", self.run, SERIAL.fetch_add(1, Ordering::Relaxed)).into_bytes()
    }

    /// Returns what earlier runs left: what is there now, is not kept, and is not of this run.
    fn debris(&self, claims: &Claims, stay: &HashSet<Vec<u8>>) -> Result<Vec<EntryName>> {
        let Some(kept) = claims.kept() else { return Ok(Vec::new()) };
        let ours = format!("{:016x}-", self.run).into_bytes();
        let left = names(&plain(&self.folder, b"", How::List)?)?.into_iter().filter(|name| {
            !(kept.contains(name) || stay.contains(name) || name.starts_with(&ours) || name == marker::MARKER)
        });
        Ok(left.filter_map(|name| EntryName::new(&name).ok()).collect())
    }

    /// Removes an entry of staging with all in it. A folder within is first moved up into staging, so
    /// that no depth needs more than two open folders. What can't be removed stays, and the rest goes.
    fn remove(&self, name: Vec<u8>) -> Result<()> {
        let mut left = vec![name];
        let mut result = Ok(());
        while let Some(name) = left.pop() {
            let done = match unlinkat(&self.folder, &name, AtFlags::empty()) {
                Err(Errno::ISDIR | Errno::PERM) => self.remove_folder(&name, &mut left),
                Err(Errno::NOENT) => Ok(()),
                done => done,
            };
            result = result.and(done);
        }
        result
    }

    fn remove_folder(&self, name: &[u8], left: &mut Vec<Vec<u8>>) -> Result<()> {
        let folder = match plain(&self.folder, name, How::List) {
            Err(Errno::ACCESS) => {
                unlock(plain(&self.folder, name, How::Folder)?)?;
                plain(&self.folder, name, How::List)?
            }
            opened => opened?,
        };
        let mut result = Ok(());
        for entry in names(&folder)? {
            let done = match unlinkat(&folder, &entry, AtFlags::empty()) {
                Err(Errno::ISDIR | Errno::PERM) => self.take_up(&folder, &entry, left),
                Err(Errno::NOENT) => Ok(()),
                Err(Errno::ACCESS) => fchmod(&folder, Mode::RWXU).and_then(|()| self.take_up(&folder, &entry, left)),
                done => done,
            };
            result = result.and(done);
        }
        result.and(unlinkat(&self.folder, name, AtFlags::REMOVEDIR))
    }

    fn take_up(&self, folder: &OwnedFd, entry: &[u8], left: &mut Vec<Vec<u8>>) -> Result<()> {
        if unlinkat(folder, entry, AtFlags::REMOVEDIR).is_ok() {
            return Ok(());
        }
        let fresh = self.fresh();
        match renameat(folder, entry, &self.folder, &fresh) {
            Err(Errno::ACCESS) => {
                unlock(plain(folder, entry, How::Place)?)?;
                renameat(folder, entry, &self.folder, &fresh)?;
            }
            moved => moved?,
        }
        left.push(fresh);
        Ok(())
    }
}

/// Gives the server all rights to an entry opened as a place.
fn unlock(place: OwnedFd) -> Result<()> {
    File::from(place).set_place_mode(0o700)
}

/// Returns every name in a folder, whatever it is, but `.` and `..`.
pub(super) fn names(folder: &OwnedFd) -> Result<Vec<Vec<u8>>> {
    let mut buffer = vec![MaybeUninit::uninit(); 32 << 10];
    let mut raw = RawDir::new(folder, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = raw.next() {
        match entry?.file_name().to_bytes() {
            b"." | b".." => {}
            name => names.push(name.to_vec()),
        }
    }
    Ok(names)
}

impl Staged {
    /// Returns the staging folder and the name in it, to reach what waits there.
    pub(crate) fn place(&self) -> (&Folder, &EntryName) {
        (&self.staging.folder, &self.name)
    }

    /// Returns where it waits.
    pub(super) fn staging(&self) -> &Arc<Staging> {
        &self.staging
    }

    /// Moves an entry here from its folder.
    pub(super) fn take(mut self, folder: &Folder, name: &EntryName) -> Result<Self> {
        folder.rename_new(name, &self.staging.folder, &self.name)?;
        self.waits = true;
        Ok(self)
    }

    /// Moves it back to where it was. Where that fails it stays: the next start tries again.
    pub(super) fn give_back(mut self, folder: &Folder, name: &EntryName) -> Result<()> {
        self.waits = false;
        self.staging.folder.rename_new(&self.name, folder, name)
    }

    /// Asks about it.
    pub(crate) fn stat(&self) -> Result<Stat> {
        self.staging.folder.stat_entry(&self.name)
    }

    /// Puts it where it belongs, in the place of a file if there is one.
    pub(crate) fn put(&mut self, folder: &Folder, name: &EntryName) -> Result<()> {
        self.staging.folder.rename(&self.name, folder, name)?;
        self.waits = false;
        Ok(())
    }

    /// Puts it where nothing is.
    pub(crate) fn put_new(&mut self, folder: &Folder, name: &EntryName) -> Result<()> {
        self.staging.folder.rename_new(&self.name, folder, name)?;
        self.waits = false;
        Ok(())
    }

    /// Moves it back here from where it was just put.
    pub(crate) fn take_back(&mut self, folder: &Folder, name: &EntryName) -> Result<()> {
        folder.rename_new(name, &self.staging.folder, &self.name)?;
        self.waits = true;
        Ok(())
    }

    /// Lets it change places with what stands at a name: that waits here then.
    pub(crate) fn exchange(&self, folder: &Folder, name: &EntryName) -> Result<()> {
        self.staging.folder.exchange(&self.name, folder, name)
    }

    /// Removes it, with all in it.
    pub(crate) fn discard(mut self) -> Result<()> {
        self.waits = false;
        self.staging.remove(self.name.as_bytes().to_vec())
    }

    /// Returns it as something to be kept, though it is still removed when it is dropped.
    pub(crate) fn to_keep(&self) -> Kept {
        Kept { staging: Arc::clone(&self.staging), name: self.name.clone() }
    }

    /// Leaves it where it is.
    pub(crate) fn leave(mut self) {
        self.waits = false;
    }
}

impl Kept {
    /// Returns the folder of the tree that holds the staging, and the name there.
    pub(crate) fn place(&self) -> (&TreePath, &EntryName) {
        (&self.staging.top, &self.name)
    }

    /// Opens it. What a commit that came to nothing made of its mode is undone: the server may read and write it.
    pub(crate) fn open(&self, how: How) -> Result<File> {
        let folder = &self.staging.folder;
        if folder.stat_entry(&self.name)?.mode & 0o777 != OWN {
            File::from(plain(folder, self.name.as_bytes(), How::Place)?).set_place_mode(OWN)?;
        }
        folder.open(&self.name, how)
    }

    /// Takes it to be put in its place; it is removed when that is dropped.
    pub(crate) fn take(self) -> Staged {
        Staged { staging: self.staging, name: self.name, waits: true }
    }

    /// Returns it as something to be put in its place; it stays when that is dropped.
    pub(crate) fn staged(&self) -> Staged {
        Staged { staging: Arc::clone(&self.staging), name: self.name.clone(), waits: false }
    }

    /// Writes the names in its staging to disk.
    pub(crate) fn sync_names(&self) -> Result<()> {
        self.staging.folder.sync()
    }

    /// Removes it.
    pub(crate) fn discard(&self) -> Result<()> {
        match self.staging.folder.unlink(&self.name) {
            Err(Errno::NOENT) => Ok(()),
            done => done,
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.waits {
            let _ = self.staging.remove(self.name.as_bytes().to_vec());
        }
    }
}
