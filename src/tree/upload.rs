//! A staged upload.

use parking_lot::Mutex;

use super::check::Spot;
use super::handles::{Hold, LockWatch};
use super::host::{File, Staged, Stat};
use super::{Attributes, Claim, Entry, Error, Kind, Result, View};
use crate::domain::{Permission, TreePath};

/// A staged upload: nobody sees it under its name before it is committed; dropping it discards it.
pub struct Upload {
    asked: TreePath,
    file: File,
    staged: Staged,
    finish: Finish,
    wanted: Mutex<Attributes>,
    hold: Hold,
    watch: LockWatch,
}

/// What a file becomes when it is put in its place, unless the client wanted otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Finish {
    mode: u32,
    uid: Option<u32>,
    gid: Option<u32>,
}

impl Upload {
    /// Begins an upload to a spot that the check let through.
    pub(super) fn begin(
        view: &View,
        asked: &TreePath,
        spot: &Spot,
        replaced: Option<&Stat>,
        claim: &Claim<'_>,
    ) -> Result<Self> {
        let finish = Finish::of(view, spot, replaced);
        let (file, staged) = view.host().staging(&spot.folder, spot.holder.mount())?.make_file()?;
        let hold = Hold::new(view, spot.path.clone(), Permission::W)?;
        let watch = LockWatch::new(spot.path.clone(), claim.tokens);
        Ok(Self { asked: asked.clone(), file, staged, finish, wanted: Mutex::default(), hold, watch })
    }

    /// Writes all of `data` at an offset.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::NoSpace`], [`Error::Locked`], [`Error::Ended`].
    pub fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.ready()?;
        self.hold.view().fits(offset.saturating_add(data.len() as u64))?;
        Ok(self.file.write_at(data, offset)?)
    }

    /// Reads back at an offset.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.hold.check(&self.file)?;
        Ok(self.file.read_at(buffer, offset)?)
    }

    /// Returns what the file would be if it were committed now, but for its tag.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub fn stat(&self) -> Result<Entry> {
        self.hold.check(&self.file)?;
        let wanted = *self.wanted.lock();
        let stat = self.file.stat()?;
        let stat = Stat {
            mode: wanted.mode.unwrap_or(self.finish.mode),
            modified: wanted.modified.unwrap_or(stat.modified),
            accessed: wanted.accessed.unwrap_or(stat.accessed),
            ..stat
        };
        let permission = self.hold.view().session().access()?.permission(&self.asked);
        Ok(Entry { etag: None, ..self.hold.view().entry(&self.asked, &stat, permission) })
    }

    /// Sets attributes of what will be committed; times set here survive the commit.
    ///
    /// # Errors
    /// As [`Upload::write_at`].
    pub fn set_attributes(&self, attributes: &Attributes) -> Result<()> {
        self.ready()?;
        if let Some(size) = attributes.size {
            self.hold.view().fits(size)?;
            self.file.truncate(size)?;
        }
        let mut wanted = self.wanted.lock();
        wanted.mode = attributes.mode.map(|mode| mode & 0o777).or(wanted.mode);
        wanted.modified = attributes.modified.or(wanted.modified);
        wanted.accessed = attributes.accessed.or(wanted.accessed);
        Ok(())
    }

    /// Puts the file in its place in one step, synced as the tree's durability asks. Rights, locks and
    /// the claim's judgement are asked again just before. On an error the old content stands.
    ///
    /// # Errors
    /// As for [`View::stage`] and what the claim's judgement says.
    pub fn commit(self, claim: &Claim<'_>) -> Result<Entry> {
        self.hold.check(&self.file)?;
        let view = self.hold.view().clone();
        let wanted = *self.wanted.lock();
        self.finish.apply(&self.file, &wanted)?;
        self.file.set_times(Some(view.shared().tags.fresh(wanted.modified)), wanted.accessed)?;
        if view.is_full() {
            self.file.sync()?;
        }
        let (spot, _) = view.writable(&self.asked)?;
        let permission = spot.permission;
        let names = view.shared().names.hold(&[&spot.path]);
        let steady = view.shared().locks.steady();
        let replaced = spot.stat()?;
        view.may_put(&spot, replaced.as_ref(), claim)?;
        if view.is_limited() {
            view.fits(self.file.stat()?.size)?;
        }
        let finish = Finish::of(&view, &spot, replaced.as_ref());
        if finish != self.finish {
            finish.apply(&self.file, &wanted)?;
        }
        self.staged.put(&spot.folder, &spot.name).map_err(Error::putting)?;
        drop((steady, names));
        view.sync_names(&spot.folder)?;
        Ok(view.entry(&self.asked, &self.file.stat()?, permission))
    }

    fn ready(&self) -> Result<()> {
        self.hold.check(&self.file)?;
        self.watch.check(self.hold.view())
    }
}

impl Finish {
    /// A replaced file keeps its mode and owner; a new one has what the process gives new files, and the
    /// group of a folder that hands its group down.
    fn of(view: &View, spot: &Spot, replaced: Option<&Stat>) -> Self {
        if let Some(old) = replaced.filter(|stat| stat.kind == Some(Kind::File)) {
            return Self { mode: old.mode & 0o777, uid: Some(old.uid), gid: Some(old.gid) };
        }
        let gid = (spot.holder.mode & 0o2000 != 0).then_some(spot.holder.gid);
        Self { mode: view.host().masked(0o666), uid: None, gid }
    }

    fn apply(&self, file: &File, wanted: &Attributes) -> Result<()> {
        if self.uid.is_some() || self.gid.is_some() {
            let now = file.stat()?;
            let (uid, gid) = (self.uid.filter(|uid| *uid != now.uid), self.gid.filter(|gid| *gid != now.gid));
            if uid.is_some() || gid.is_some() {
                file.set_owner(uid, gid);
            }
        }
        Ok(file.set_mode(wanted.mode.unwrap_or(self.mode))?)
    }
}
