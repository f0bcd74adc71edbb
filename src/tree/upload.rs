//! A staged upload.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::check::{Found, Spot};
use super::handles::{Hold, LockWatch};
use super::host::{File, How, Kept, Staged, Stat};
use super::media::HEAD;
use super::{Attributes, Claim, EditMode, Entry, Error, Etag, Kind, Result, View};
use crate::domain::{Name, Permission, Tag, TreePath};

/// How much is copied between two looks at whether the session lives.
const BLOCK: usize = 8 << 20;

/// A staged upload: nobody sees it under its name before it is committed; dropping it discards it, unless it goes on
/// with what waits.
pub struct Upload {
    asked: TreePath,
    name: Name,
    base: Option<Base>,
    file: File,
    staged: Staged,
    finish: Finish,
    wanted: Mutex<Attributes>,
    tags: Mutex<Option<Vec<Tag>>>,
    /// Whether a write was refused.
    spoilt: AtomicBool,
    hold: Hold,
    watch: LockWatch,
}

/// What is edited as a copy.
struct Base {
    /// Its content as it was copied; none where it counts for nothing.
    tag: Option<Etag>,
    append: bool,
    /// Whether there is anything to commit.
    changed: AtomicBool,
}

/// What a file becomes when it is put in its place, unless the client wanted otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Finish {
    mode: u32,
    uid: Option<u32>,
    gid: Option<u32>,
}

/// What a commit put in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The file.
    pub entry: Entry,
    /// Whether a file stood there; a link that led nowhere is none.
    pub replaced: bool,
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
        let content = view.staging(spot)?.make_file()?;
        Self::of(content, view, asked, (spot, replaced), claim)
    }

    /// Goes on with what waits, for a spot that the check let through; it stays when this is dropped.
    pub(super) fn resume(
        view: &View,
        asked: &TreePath,
        spot: &Spot,
        replaced: Option<&Stat>,
        kept: &Kept,
        claim: &Claim<'_>,
    ) -> Result<Self> {
        Self::of((kept.open(How::Both)?, kept.staged()), view, asked, (spot, replaced), claim)
    }

    fn of(
        (file, staged): (File, Staged),
        view: &View,
        asked: &TreePath,
        (spot, replaced): (&Spot, Option<&Stat>),
        claim: &Claim<'_>,
    ) -> Result<Self> {
        Ok(Self {
            asked: asked.clone(),
            name: spot.name.clone(),
            base: None,
            file,
            staged,
            finish: Finish::of(view, spot, replaced),
            wanted: Mutex::default(),
            tags: Mutex::default(),
            spoilt: AtomicBool::new(false),
            hold: Hold::new(view, spot.path.clone(), Permission::W)?,
            watch: LockWatch::new(spot.path.clone(), claim.tokens),
        })
    }

    /// Leaves the content in staging, to be taken up by later requests, also after a restart; what was asked of its
    /// attributes is forgotten. `keep` has to write it down: where that fails, it is discarded.
    pub(super) fn leave<T>(self, keep: impl FnOnce(&View, Kept) -> Result<T>) -> Result<T> {
        let kept = keep(self.hold.view(), self.staged.to_keep())?;
        self.staged.leave();
        Ok(kept)
    }

    /// Copies all of what waits, which is `size` bytes, to an offset; returns where it ends.
    pub(super) fn take_in(&self, kept: &Kept, size: u64, offset: u64) -> Result<u64> {
        let from = kept.open(How::Read)?;
        self.hold.view().may_hold(offset.saturating_add(size))?;
        let mut done = 0;
        while done < size {
            self.ready()?;
            let most = usize::try_from(size - done).map_or(BLOCK, |left| left.min(BLOCK));
            match from.copy_part(done, &self.file, offset.saturating_add(done), most)? {
                0 => break,
                count => done += count as u64,
            }
        }
        Ok(offset.saturating_add(done))
    }

    /// Begins an upload that starts as a copy of what stands at the spot, open to be read; it takes that
    /// one's place only while nobody else has changed it.
    pub(super) fn of_copy(
        view: &View,
        asked: &TreePath,
        spot: &Spot,
        found: &Found,
        mode: EditMode,
        claim: &Claim<'_>,
    ) -> Result<Self> {
        let mut upload = Self::begin(view, asked, spot, Some(&found.stat), claim)?;
        let mut tag = None;
        if !mode.truncate {
            // What is kept is told of to the end: by checksums, by its type.
            upload.hold = Hold::new(view, spot.path.clone(), Permission::RW)?;
            upload.fill(found)?;
            tag = Some(view.shared().tags.of(&found.stat));
        }
        let changed = AtomicBool::new(mode.truncate && found.stat.size > 0);
        upload.base = Some(Base { tag, append: mode.append, changed });
        Ok(upload)
    }

    fn fill(&self, found: &Found) -> Result<()> {
        let mut offset = 0;
        loop {
            self.hold.check(&self.file)?;
            self.hold.view().may_hold(found.stat.size.max(offset))?;
            match found.file.copy_to(&self.file, offset, BLOCK)? {
                0 => return Ok(()),
                count => offset += count as u64,
            }
        }
    }

    /// Writes all of `data` at an offset, or at the end of a copy that was opened to append. Once a write was
    /// refused the upload can't be committed any more.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::NoSpace`], [`Error::Locked`], [`Error::Ended`]; [`Error::WrongType`] as
    /// soon as the first bytes tell.
    pub fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.write(data, offset).inspect_err(|_| self.spoilt.store(true, Ordering::Release))
    }

    fn write(&self, data: &[u8], offset: u64) -> Result<()> {
        self.ready()?;
        let appends = self.base.as_ref().is_some_and(|base| base.append);
        let start = if appends { self.file.stat()?.size } else { offset };
        let end = start.saturating_add(data.len() as u64);
        self.hold.view().may_hold(end)?;
        self.change();
        self.file.write_at(data, start)?;
        if (start..end).contains(&(HEAD as u64 - 1)) {
            self.hold.view().fits_so_far(&self.name, &self.file)?;
        }
        Ok(())
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
            self.hold.view().may_hold(size)?;
            self.file.truncate(size)?;
        }
        self.change();
        let mut wanted = self.wanted.lock();
        wanted.mode = attributes.mode.map(|mode| mode & 0o777).or(wanted.mode);
        wanted.modified = attributes.modified.or(wanted.modified);
        wanted.accessed = attributes.accessed.or(wanted.accessed);
        Ok(())
    }

    /// Labels what will be committed with these tags, in place of those that stand there.
    ///
    /// # Errors
    /// [`Error::WrongTag`].
    pub fn label(&self, tags: Vec<Tag>) -> Result<()> {
        self.hold.view().may_label(&tags)?;
        *self.tags.lock() = Some(tags);
        Ok(())
    }

    /// Puts the file in its place in one step, synced as the tree's durability asks. Rights, locks and
    /// the claim's judgement are asked again just before. On an error the old content stands.
    ///
    /// # Errors
    /// As for [`View::stage`], and what the claim's judgement says; [`Error::Spoilt`], [`Error::WrongType`];
    /// [`Error::Precondition`] where somebody else has changed what was copied to be edited.
    pub fn commit(self, claim: &Claim<'_>) -> Result<Committed> {
        self.hold.check(&self.file)?;
        if self.is_untouched() {
            return Ok(Committed { entry: self.stat()?, replaced: true });
        }
        let view = self.hold.view().clone();
        view.fits(&self.name, &self.file)?;
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
        if self.spoilt.load(Ordering::Acquire) {
            return Err(Error::Spoilt);
        }
        if self.base.as_ref().is_some_and(|base| !base.holds(&view, replaced.as_ref())) {
            return Err(Error::Precondition);
        }
        view.fits(&spot.name, &self.file)?;
        let finish = Finish::of(&view, &spot, replaced.as_ref());
        if finish != self.finish {
            finish.apply(&self.file, &wanted)?;
        }
        let staged = self.staged;
        let put = || staged.put(&spot.folder, &spot.name).map_err(Error::putting);
        match self.tags.into_inner() {
            Some(tags) => view.put_labelled(&spot, replaced.as_ref(), &tags, put)?,
            None => put()?,
        }
        drop((steady, names));
        view.sync_names(&spot.folder)?;
        let replaced = replaced.is_some_and(|stat| stat.kind == Some(Kind::File));
        Ok(Committed { entry: view.entry(&self.asked, &self.file.stat()?, permission), replaced })
    }

    /// Tells whether it is a copy in which nothing was changed, nor was to be.
    fn is_untouched(&self) -> bool {
        let unchanged = self.base.as_ref().is_some_and(|base| !base.changed.load(Ordering::Acquire));
        unchanged && !self.spoilt.load(Ordering::Acquire)
    }

    fn change(&self) {
        if let Some(base) = &self.base {
            base.changed.store(true, Ordering::Release);
        }
    }

    fn ready(&self) -> Result<()> {
        self.hold.check(&self.file)?;
        self.watch.check(self.hold.view())
    }
}

impl Base {
    /// Tells whether what stands there is what was copied.
    fn holds(&self, view: &View, there: Option<&Stat>) -> bool {
        self.tag.is_none_or(|tag| there.is_some_and(|stat| view.shared().tags.of(stat) == tag))
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
