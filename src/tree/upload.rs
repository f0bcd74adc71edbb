//! A staged upload.

mod commit;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

#[cfg(doc)]
use super::Error;
use super::check::{Found, Spot};
use super::cut_uploads::CutUpload;
use super::handle_access::{Anchor, HandleAccess, HandleLocks};
use super::host::{File, Folder, How, Kept, Staged, Stat};
use super::media::HEAD;
use super::upload_registry::RegisteredUpload;
use super::{Attributes, Claim, EditMode, Entry, Etag, Kind, Result, View};
use crate::domain::{EntryName, FileTag, Permission, TreePath};

/// How much is copied between two looks at whether the session lives.
const BLOCK: usize = 8 << 20;

/// A staged upload: nobody sees it under its name before it is committed; dropping it discards it, unless it goes on
/// with what waits.
pub struct Upload {
    asked: TreePath,
    /// The directory that it is for, whatever its path is now.
    directory: Folder,
    name: EntryName,
    /// What stood at the name when the upload began.
    replaces: Option<Recorded>,
    base: Option<Base>,
    file: Arc<File>,
    staged: Staged,
    finish: Finish,
    wanted: Mutex<Attributes>,
    tags: Mutex<Option<Vec<FileTag>>>,
    /// How many bytes from the start are written without a gap.
    beginning: AtomicU64,
    /// Whether a write was refused.
    spoilt: AtomicBool,
    /// Whether its name was removed by its own session.
    detached: bool,
    /// When its connection was lost, for one that nobody has gone on with since.
    cut_at: Option<Duration>,
    access: HandleAccess,
    locks: HandleLocks,
    /// Its place among the uploads of its directory, as long as it is for a name there.
    registered: Option<RegisteredUpload>,
}

/// A name in a directory of the host, whatever path leads there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SlotId {
    device: u64,
    inode: u64,
    name: EntryName,
}

impl SlotId {
    /// Returns the name in a directory of which the host says `directory`.
    pub(super) fn new(directory: &Stat, name: &EntryName) -> Self {
        Self { device: directory.device, inode: directory.inode, name: name.clone() }
    }

    /// Returns the name.
    pub(super) fn name(&self) -> &EntryName {
        &self.name
    }

    /// Tells whether it is in a directory.
    pub(super) fn is_in(&self, device: u64, inode: u64) -> bool {
        (self.device, self.inode) == (device, inode)
    }
}

/// An entry as it stood under a name: which one, and with which content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Recorded {
    device: u64,
    inode: u64,
    born: Option<i64>,
    tag: Etag,
}

/// What is edited as a copy.
struct Base {
    /// Its content as it was copied; none where it counts for nothing.
    tag: Option<Etag>,
    append: bool,
    /// Whether there is anything to commit.
    changed: AtomicBool,
    /// The file that was copied, open to be written: its mode may not let it be opened so again.
    original: Option<Arc<File>>,
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
            directory: spot.folder.clone(),
            name: spot.name.clone(),
            replaces: replaced.map(|stat| Recorded::of(view, stat)),
            base: None,
            file: Arc::new(file),
            staged,
            finish: Finish::of(view, spot, replaced),
            wanted: Mutex::default(),
            tags: Mutex::default(),
            beginning: AtomicU64::new(0),
            spoilt: AtomicBool::new(false),
            detached: false,
            cut_at: None,
            access: authorize(view, spot, Permission::W)?,
            locks: HandleLocks::new(claim.tokens),
            registered: Some(view.shared().uploads.register(&spot.folder, &spot.holder)),
        })
    }

    /// Goes on with an upload that was cut, for a slot that the check let through and where nothing stands.
    ///
    /// # Errors
    /// [`super::Error::Host`] when its content can't be opened; it is discarded then.
    pub(super) fn resume_cut(view: &View, spot: &Spot, cut: CutUpload) -> Result<Option<Self>> {
        let (mode, cut_at) = (cut.mode, Some(cut.since));
        let Some(content) = cut.into_content() else { return Ok(None) };
        let file = content.open(How::Both)?;
        let upload = Self::of((file, content.take()), view, &spot.path, (spot, None), &Claim::none())?;
        let upload = Self { cut_at, ..upload };
        upload.wanted.lock().mode = mode;
        // What is there was judged when it came.
        upload.beginning.store(u64::MAX, Ordering::Release);
        Ok(Some(upload))
    }

    /// Goes on with it through a handle, every write of which goes to the end where it `appends`.
    pub(super) fn go_on(&mut self, appends: bool) {
        self.cut_at = None;
        if appends {
            self.base = Some(Base { tag: None, append: true, changed: AtomicBool::new(true), original: None });
        }
    }

    /// Keeps what a lost connection has left of an upload to a new name, for its token; anything else is discarded.
    pub(super) fn keep_cut(self) {
        let view = self.access.view().clone();
        let cut_uploads = &view.shared().cut_uploads;
        let whole = self.replaces.is_none() && !self.detached && !self.spoilt.load(Ordering::Acquire);
        let resumable = whole && self.base.as_ref().is_none_or(|base| base.tag.is_none());
        if !resumable || view.session().access().is_err() {
            return;
        }
        let (token, login) = (view.session().token(), view.session().login().clone());
        let (Ok(stat), Ok(directory), Ok(free)) = (self.file.stat(), self.directory.stat(), self.directory.space())
        else {
            return;
        };
        if !cut_uploads.admits(token, &login, stat.size, free.available) {
            return;
        }
        let mode = self.wanted.lock().mode;
        let slot = SlotId::new(&directory, &self.name);
        let since = self.cut_at;
        let kept = self.leave(|_, content| Ok(cut_uploads.cut(content, (mode, stat.size), login, since)));
        match kept {
            Ok(cut) => cut_uploads.keep(token, slot, cut),
            Err(error) => tracing::warn!(%error, "a cut upload is not kept"),
        }
    }

    /// Leaves the content in staging, to be taken up by later requests, also after a restart; what was asked of its
    /// attributes is forgotten. `keep` has to write it down: where that fails, it is discarded.
    pub(super) fn leave<T>(self, keep: impl FnOnce(&View, Kept) -> Result<T>) -> Result<T> {
        let kept = keep(self.access.view(), self.staged.to_keep())?;
        self.staged.leave();
        Ok(kept)
    }

    /// Copies all of what waits, which is `size` bytes, to an offset; returns where it ends.
    pub(super) fn take_in(&self, kept: &Kept, size: u64, offset: u64) -> Result<u64> {
        let from = kept.open(How::Read)?;
        self.access.view().may_hold(offset.saturating_add(size))?;
        let mut done = 0;
        while done < size {
            self.access.view().cancellation().check()?;
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
            upload.access = authorize(view, spot, Permission::RW)?;
            upload.fill(found)?;
            if found.stat.size > 0 {
                // What is changed in the middle of a file is judged when the file is whole again.
                upload.beginning = AtomicU64::new(u64::MAX);
            }
            tag = Some(view.shared().tags.of(&found.stat));
        }
        let changed = AtomicBool::new(mode.truncate);
        upload.base = Some(Base { tag, append: mode.append, changed, original: None });
        Ok(upload)
    }

    /// Keeps the descriptor of the file that was copied: an early commit of a copy in which nothing was changed goes on
    /// in that file.
    pub(super) fn keep_original(&mut self, original: File) {
        if let Some(base) = &mut self.base {
            base.original = Some(Arc::new(original));
        }
    }

    fn fill(&self, found: &Found) -> Result<()> {
        let mut offset = 0;
        loop {
            self.access.view().cancellation().check()?;
            self.access.check(&*self.file)?;
            self.access.view().may_hold(found.stat.size.max(offset))?;
            match found.file.copy_to(&self.file, offset, BLOCK)? {
                // Until it is written, a copy is as old as what it was made of.
                0 => return Ok(self.file.set_times(Some(found.stat.modified), Some(found.stat.accessed))?),
                count => offset += count as u64,
            }
        }
    }

    /// Writes all of `data` at an offset, or at the end of a copy that was opened to append. Once a write was
    /// refused the upload can't be committed any more.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::NoSpace`], [`Error::Locked`], [`Error::SessionEnded`]; [`Error::WrongType`] as
    /// soon as the first bytes tell.
    pub fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.write(data, offset).inspect_err(|_| self.spoilt.store(true, Ordering::Release))
    }

    fn write(&self, data: &[u8], offset: u64) -> Result<()> {
        self.ready()?;
        let appends = self.base.as_ref().is_some_and(|base| base.append);
        let start = if appends { self.file.stat()?.size } else { offset };
        let end = start.saturating_add(data.len() as u64);
        self.access.view().may_hold(end)?;
        self.change();
        self.file.write_at(data, start)?;
        self.judge_beginning(start, end)
    }

    /// Judges the type of the content as soon as its first bytes tell: many clients don't look at what CLOSE says.
    /// Blocks may come in any order, so only what is there without a gap counts.
    fn judge_beginning(&self, start: u64, end: u64) -> Result<()> {
        let known = self.beginning.load(Ordering::Acquire);
        if known >= HEAD as u64 || start > known || end <= known {
            return Ok(());
        }
        self.beginning.store(end, Ordering::Release);
        self.access.view().fits_so_far(&self.name, &self.file, end)
    }

    /// Reads back at an offset.
    ///
    /// # Errors
    /// [`Error::SessionEnded`].
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.access.check(&*self.file)?;
        Ok(self.file.read_at(buffer, offset)?)
    }

    /// Returns what the file would be if it were committed now, but for its tag.
    ///
    /// # Errors
    /// [`Error::SessionEnded`].
    pub fn stat(&self) -> Result<Entry> {
        self.access.check(&*self.file)?;
        let mode = self.wanted.lock().mode.unwrap_or(self.finish.mode);
        let stat = Stat { mode, ..self.file.stat()? };
        // Where its directory is now.
        let path = self.access.place().path;
        let permission = self.access.view().session().access()?.permission_at(&path);
        Ok(Entry { etag: None, ..self.access.view().entry(&path, &stat, permission) })
    }

    /// Sets attributes of what will be committed; times set here survive the commit.
    ///
    /// # Errors
    /// As [`Upload::write_at`].
    pub fn set_attributes(&self, attributes: &Attributes) -> Result<()> {
        self.ready()?;
        if let Some(size) = attributes.size {
            self.access.view().may_hold(size)?;
            self.file.truncate(size)?;
        }
        self.change();
        let mut wanted = self.wanted.lock();
        // On the staged file itself, so that a later write moves it as it moves any file's.
        self.file.set_times_exactly(attributes.modified, attributes.accessed)?;
        wanted.mode = attributes.mode.map(|mode| mode & 0o777).or(wanted.mode);
        wanted.modified = attributes.modified.or(wanted.modified);
        wanted.accessed = attributes.accessed.or(wanted.accessed);
        Ok(())
    }

    /// Labels what will be committed with these tags, in place of those that stand there.
    ///
    /// # Errors
    /// [`Error::WrongTag`].
    pub fn label(&self, tags: Vec<FileTag>) -> Result<()> {
        self.access.view().may_label(&tags)?;
        *self.tags.lock() = Some(tags);
        Ok(())
    }

    /// Tells whether a write was refused: it is not whole.
    pub(super) fn is_spoilt(&self) -> bool {
        self.spoilt.load(Ordering::Acquire)
    }

    /// Tells whether it is a copy in which nothing was changed, nor was to be.
    pub(super) fn is_untouched(&self) -> bool {
        let unchanged = self.base.as_ref().is_some_and(|base| !base.changed.load(Ordering::Acquire));
        unchanged && !self.is_spoilt()
    }

    fn change(&self) {
        if let Some(base) = &self.base {
            base.changed.store(true, Ordering::Release);
        }
    }

    fn ready(&self) -> Result<()> {
        self.access.check(&*self.file)?;
        if self.detached { Ok(()) } else { self.locks.check(&self.access, || self.file.stat()) }
    }
}

impl Recorded {
    fn of(view: &View, stat: &Stat) -> Self {
        let (device, inode, born) = (stat.device, stat.inode, stat.born());
        Self { device, inode, born, tag: view.shared().tags.of(stat) }
    }

    /// Tells whether this is the same entry, whatever its content is now.
    fn is_entry(&self, now: &Stat) -> bool {
        (self.device, self.inode, self.born) == (now.device, now.inode, now.born())
    }
}

/// Authorizes an upload by the directory that it is for.
fn authorize(view: &View, spot: &Spot, needed: Permission) -> Result<HandleAccess> {
    HandleAccess::anchored(view, spot.path.clone(), needed, Anchor::Slot(spot.folder.clone(), spot.name.clone()))
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
