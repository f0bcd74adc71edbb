//! A staged upload.

mod commit;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

#[cfg(doc)]
use super::Error;
use super::authorize::{EntrySlot, OpenEntry};
use super::fs::{DirectoryFd, FileFd, OpenMode, RetainedEntry, StagedEntry, Stat};
use super::handle_access::{HandleAccess, HandleAnchor, HandleLocks};
use super::interrupted_uploads::InterruptedUpload;
use super::media::SNIFF_BYTES;
use super::upload_registry::RegisteredUpload;
use super::{AttributeChanges, EditMode, Entry, EntryKind, Etag, Result, View, WriteConditions};
use crate::domain::{EntryName, FileTag, Permission, TreePath};

/// How much is copied between two looks at whether the session lives.
const COPY_BLOCK_BYTES: usize = 8 << 20;

/// A staged upload: nobody sees it under its name before it is committed; dropping it discards it, unless it goes on
/// with what waits.
pub struct StagedUpload {
    requested_path: TreePath,
    /// The directory that it is for, whatever its path is now.
    directory: DirectoryFd,
    name: EntryName,
    /// What stood at the name when the upload began.
    replaced_entry: Option<ReplacedEntry>,
    copy_source: Option<CopySource>,
    file: Arc<FileFd>,
    staged: StagedEntry,
    final_attributes: FinalAttributes,
    requested_attributes: Mutex<AttributeChanges>,
    tags: Mutex<Option<Vec<FileTag>>>,
    /// How many bytes from the start are written without a gap.
    contiguous_bytes: AtomicU64,
    /// Whether a write was refused.
    write_failed: AtomicBool,
    /// Whether its name was removed by its own session.
    detached: bool,
    /// When its connection was lost, for one that nobody has gone on with since.
    interrupted_at: Option<Duration>,
    access: HandleAccess,
    locks: HandleLocks,
    /// Its place among the uploads of its directory, as long as it is for a name there.
    registration: Option<RegisteredUpload>,
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
struct ReplacedEntry {
    device: u64,
    inode: u64,
    birth_time: Option<i64>,
    etag: Etag,
}

/// What is edited as a copy.
struct CopySource {
    /// Its content as it was copied; none where it counts for nothing.
    etag: Option<Etag>,
    append: bool,
    /// Whether there is anything to commit.
    changed: AtomicBool,
    /// The file that was copied, open to be written: its mode may not let it be opened so again.
    original: Option<Arc<FileFd>>,
}

/// What a file becomes when it is put in its place, unless the client wanted otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FinalAttributes {
    mode: u32,
    uid: Option<u32>,
    gid: Option<u32>,
}

/// What a commit put in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedUpload {
    /// The file.
    pub entry: Entry,
    /// Whether a file stood there; a link that led nowhere is none.
    pub replaced: bool,
}

impl StagedUpload {
    /// Begins an upload to a spot that the check let through.
    pub(super) fn begin(
        view: &View,
        requested_path: &TreePath,
        slot: &EntrySlot,
        replaced: Option<&Stat>,
        conditions: &WriteConditions<'_>,
    ) -> Result<Self> {
        let content = view.staging(slot)?.create_file()?;
        Self::with_content(content, view, requested_path, (slot, replaced), conditions)
    }

    /// Goes on with what waits, for a spot that the check let through; it stays when this is dropped.
    pub(super) fn resume(
        view: &View,
        requested_path: &TreePath,
        slot: &EntrySlot,
        replaced: Option<&Stat>,
        retained: &RetainedEntry,
        conditions: &WriteConditions<'_>,
    ) -> Result<Self> {
        Self::with_content(
            (retained.open(OpenMode::ReadWrite)?, retained.to_staged()),
            view,
            requested_path,
            (slot, replaced),
            conditions,
        )
    }

    fn with_content(
        (file, staged): (FileFd, StagedEntry),
        view: &View,
        requested_path: &TreePath,
        (slot, replaced): (&EntrySlot, Option<&Stat>),
        conditions: &WriteConditions<'_>,
    ) -> Result<Self> {
        Ok(Self {
            requested_path: requested_path.clone(),
            directory: slot.directory.clone(),
            name: slot.name.clone(),
            replaced_entry: replaced.map(|stat| ReplacedEntry::from_stat(view, stat)),
            copy_source: None,
            file: Arc::new(file),
            staged,
            final_attributes: FinalAttributes::for_slot(view, slot, replaced),
            requested_attributes: Mutex::default(),
            tags: Mutex::default(),
            contiguous_bytes: AtomicU64::new(0),
            write_failed: AtomicBool::new(false),
            detached: false,
            interrupted_at: None,
            access: authorize_slot(view, slot, Permission::W)?,
            locks: HandleLocks::new(conditions.lock_tokens),
            registration: Some(view.shared().upload_registry.register(&slot.directory, &slot.directory_stat)),
        })
    }

    /// Goes on with an upload that was cut, for a slot that the check let through and where nothing stands.
    ///
    /// # Errors
    /// [`super::Error::Filesystem`] when its content can't be opened; it is discarded then.
    pub(super) fn resume_interrupted(
        view: &View,
        slot: &EntrySlot,
        interrupted: InterruptedUpload,
    ) -> Result<Option<Self>> {
        let (mode, interrupted_at) = (interrupted.mode, Some(interrupted.interrupted_at));
        let Some(content) = interrupted.into_content() else { return Ok(None) };
        let file = content.open(OpenMode::ReadWrite)?;
        let upload = Self::with_content(
            (file, content.into_staged()),
            view,
            &slot.path,
            (slot, None),
            &WriteConditions::none(),
        )?;
        let upload = Self { interrupted_at, ..upload };
        upload.requested_attributes.lock().mode = mode;
        // What is there was judged when it came.
        upload.contiguous_bytes.store(u64::MAX, Ordering::Release);
        Ok(Some(upload))
    }

    /// Goes on with it through a handle, every write of which goes to the end where it `appends`.
    pub(super) fn continue_writing(&mut self, appends: bool) {
        self.interrupted_at = None;
        if appends {
            self.copy_source =
                Some(CopySource { etag: None, append: true, changed: AtomicBool::new(true), original: None });
        }
    }

    /// Keeps what a lost connection has left of an upload to a new name, for its token; anything else is discarded.
    pub(super) fn keep_interrupted(self) {
        let view = self.access.view().clone();
        let interrupted_uploads = &view.shared().interrupted_uploads;
        let is_whole = self.replaced_entry.is_none() && !self.detached && !self.write_failed.load(Ordering::Acquire);
        let resumable = is_whole && self.copy_source.as_ref().is_none_or(|copy_source| copy_source.etag.is_none());
        if !resumable || view.session().access().is_err() {
            return;
        }
        let (token, login) = (view.session().token(), view.session().login().clone());
        let (Ok(stat), Ok(directory), Ok(free)) = (self.file.stat(), self.directory.stat(), self.directory.space())
        else {
            return;
        };
        if !interrupted_uploads.admits(token, &login, stat.size, free.available) {
            return;
        }
        let mode = self.requested_attributes.lock().mode;
        let slot_id = SlotId::new(&directory, &self.name);
        let interrupted_at = self.interrupted_at;
        let retained = self.persist_with(|_, content| {
            Ok(interrupted_uploads.interrupted_upload(content, (mode, stat.size), login, interrupted_at))
        });
        match retained {
            Ok(interrupted) => interrupted_uploads.keep(token, slot_id, interrupted),
            Err(error) => tracing::warn!(%error, "a cut upload is not kept"),
        }
    }

    /// Leaves the content in staging, to be taken up by later requests, also after a restart; what was asked of its
    /// attributes is forgotten. `keep` has to write it down: where that fails, it is discarded.
    pub(super) fn persist_with<T>(self, record: impl FnOnce(&View, RetainedEntry) -> Result<T>) -> Result<T> {
        let recorded = record(self.access.view(), self.staged.to_retained())?;
        self.staged.persist();
        Ok(recorded)
    }

    /// Copies all of what waits, which is `size` bytes, to an offset; returns where it ends.
    pub(super) fn copy_retained(&self, retained: &RetainedEntry, size: u64, offset: u64) -> Result<u64> {
        let from = retained.open(OpenMode::Read)?;
        self.access.view().check_size(offset.saturating_add(size))?;
        let mut copied = 0;
        while copied < size {
            self.access.view().cancellation().check()?;
            self.check_writable()?;
            let block = usize::try_from(size - copied).map_or(COPY_BLOCK_BYTES, |left| left.min(COPY_BLOCK_BYTES));
            match from.copy_range(copied, &self.file, offset.saturating_add(copied), block)? {
                0 => break,
                count => copied += count as u64,
            }
        }
        Ok(offset.saturating_add(copied))
    }

    /// Begins an upload that starts as a copy of what stands at the spot, open to be read; it takes that
    /// one's place only while nobody else has changed it.
    pub(super) fn from_copy(
        view: &View,
        requested_path: &TreePath,
        slot: &EntrySlot,
        source: &OpenEntry,
        mode: EditMode,
        conditions: &WriteConditions<'_>,
    ) -> Result<Self> {
        let mut upload = Self::begin(view, requested_path, slot, Some(&source.stat), conditions)?;
        let mut etag = None;
        if !mode.truncate {
            // What is kept is told of to the end: by checksums, by its type.
            upload.access = authorize_slot(view, slot, Permission::RW)?;
            upload.copy_content(source)?;
            if source.stat.size > 0 {
                // What is changed in the middle of a file is judged when the file is whole again.
                upload.contiguous_bytes = AtomicU64::new(u64::MAX);
            }
            etag = Some(view.shared().etags.etag_of(&source.stat));
        }
        let changed = AtomicBool::new(mode.truncate);
        upload.copy_source = Some(CopySource { etag, append: mode.append, changed, original: None });
        Ok(upload)
    }

    /// Keeps the descriptor of the file that was copied: an early commit of a copy in which nothing was changed goes on
    /// in that file.
    pub(super) fn keep_original(&mut self, original: FileFd) {
        if let Some(copy_source) = &mut self.copy_source {
            copy_source.original = Some(Arc::new(original));
        }
    }

    fn copy_content(&self, source: &OpenEntry) -> Result<()> {
        let mut offset = 0;
        loop {
            self.access.view().cancellation().check()?;
            self.access.authorize_use(&*self.file)?;
            self.access.view().check_size(source.stat.size.max(offset))?;
            match source.file.copy_to(&self.file, offset, COPY_BLOCK_BYTES)? {
                // Until it is written, a copy is as old as what it was made of.
                0 => return Ok(self.file.set_times(Some(source.stat.modified), Some(source.stat.accessed))?),
                count => offset += count as u64,
            }
        }
    }

    /// Writes all of `data` at an offset, or at the end of a copy that was opened to append. Once a write was
    /// refused the upload can't be committed any more.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::NoSpace`], [`Error::Locked`], [`Error::SessionEnded`]; [`Error::TypeNotAllowed`] as
    /// soon as the first bytes tell.
    pub fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.write_checked(data, offset).inspect_err(|_| self.write_failed.store(true, Ordering::Release))
    }

    fn write_checked(&self, data: &[u8], offset: u64) -> Result<()> {
        self.check_writable()?;
        let appends = self.copy_source.as_ref().is_some_and(|copy_source| copy_source.append);
        let start = if appends { self.file.stat()?.size } else { offset };
        let end = start.saturating_add(data.len() as u64);
        self.access.view().check_size(end)?;
        self.mark_changed();
        self.file.write_at(data, start)?;
        self.check_leading_type(start, end)
    }

    /// Judges the type of the content as soon as its first bytes tell: many clients don't look at what CLOSE says.
    /// Blocks may come in any order, so only what is there without a gap counts.
    fn check_leading_type(&self, start: u64, end: u64) -> Result<()> {
        let known = self.contiguous_bytes.load(Ordering::Acquire);
        if known >= SNIFF_BYTES as u64 || start > known || end <= known {
            return Ok(());
        }
        self.contiguous_bytes.store(end, Ordering::Release);
        self.access.view().check_content_type_early(&self.name, &self.file, end)
    }

    /// Reads back at an offset.
    ///
    /// # Errors
    /// [`Error::SessionEnded`].
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.access.authorize_use(&*self.file)?;
        Ok(self.file.read_at(buffer, offset)?)
    }

    /// Returns what the file would be if it were committed now, but for its tag.
    ///
    /// # Errors
    /// [`Error::SessionEnded`].
    pub fn stat(&self) -> Result<Entry> {
        self.access.authorize_use(&*self.file)?;
        let mode = self.requested_attributes.lock().mode.unwrap_or(self.final_attributes.mode);
        let stat = Stat { mode, ..self.file.stat()? };
        // Where its directory is now.
        let path = self.access.last_location().path;
        let permission = self.access.view().session().access()?.permission_at(&path);
        Ok(Entry { etag: None, ..self.access.view().entry(&path, &stat, permission) })
    }

    /// Sets attributes of what will be committed; times set here survive the commit.
    ///
    /// # Errors
    /// As [`StagedUpload::write_at`].
    pub fn set_attributes(&self, attributes: &AttributeChanges) -> Result<()> {
        self.check_writable()?;
        if let Some(size) = attributes.size {
            self.access.view().check_size(size)?;
            self.file.truncate(size)?;
        }
        self.mark_changed();
        let mut requested = self.requested_attributes.lock();
        // On the staged file itself, so that a later write moves it as it moves any file's.
        self.file.set_times_exactly(attributes.modified, attributes.accessed)?;
        requested.mode = attributes.mode.map(|mode| mode & 0o777).or(requested.mode);
        requested.modified = attributes.modified.or(requested.modified);
        requested.accessed = attributes.accessed.or(requested.accessed);
        Ok(())
    }

    /// Labels what will be committed with these tags, in place of those that stand there.
    ///
    /// # Errors
    /// [`Error::TagNotAllowed`].
    pub fn set_tags(&self, tags: Vec<FileTag>) -> Result<()> {
        self.access.view().check_tags(&tags)?;
        *self.tags.lock() = Some(tags);
        Ok(())
    }

    /// Tells whether a write was refused: it is not whole.
    pub(super) fn has_failed_write(&self) -> bool {
        self.write_failed.load(Ordering::Acquire)
    }

    /// Tells whether it is a copy in which nothing was changed, nor was to be.
    pub(super) fn is_unchanged_copy(&self) -> bool {
        let unchanged =
            self.copy_source.as_ref().is_some_and(|copy_source| !copy_source.changed.load(Ordering::Acquire));
        unchanged && !self.has_failed_write()
    }

    fn mark_changed(&self) {
        if let Some(copy_source) = &self.copy_source {
            copy_source.changed.store(true, Ordering::Release);
        }
    }

    fn check_writable(&self) -> Result<()> {
        self.access.authorize_use(&*self.file)?;
        if self.detached { Ok(()) } else { self.locks.check(&self.access, || self.file.stat()) }
    }
}

impl ReplacedEntry {
    fn from_stat(view: &View, stat: &Stat) -> Self {
        let (device, inode, birth_time) = (stat.device, stat.inode, stat.birth_time());
        Self { device, inode, birth_time, etag: view.shared().etags.etag_of(stat) }
    }

    /// Tells whether this is the same entry, whatever its content is now.
    fn is_same_entry(&self, now: &Stat) -> bool {
        (self.device, self.inode, self.birth_time) == (now.device, now.inode, now.birth_time())
    }
}

/// Authorizes an upload by the directory that it is for.
fn authorize_slot(view: &View, slot: &EntrySlot, needed: Permission) -> Result<HandleAccess> {
    HandleAccess::with_anchor(
        view,
        slot.path.clone(),
        needed,
        HandleAnchor::Slot(slot.directory.clone(), slot.name.clone()),
    )
}

impl CopySource {
    /// Tells whether what stands there is what was copied.
    fn is_current(&self, view: &View, current: Option<&Stat>) -> bool {
        self.etag.is_none_or(|etag| current.is_some_and(|stat| view.shared().etags.etag_of(stat) == etag))
    }
}

impl FinalAttributes {
    /// A replaced file keeps its mode and owner; a new one has what the process gives new files, and the
    /// group of a folder that hands its group down.
    fn for_slot(view: &View, slot: &EntrySlot, replaced: Option<&Stat>) -> Self {
        if let Some(old) = replaced.filter(|stat| stat.kind == Some(EntryKind::File)) {
            return Self { mode: old.mode & 0o777, uid: Some(old.uid), gid: Some(old.gid) };
        }
        let gid = (slot.directory_stat.mode & 0o2000 != 0).then_some(slot.directory_stat.gid);
        Self { mode: view.fs().apply_umask(0o666), uid: None, gid }
    }

    fn apply(&self, file: &FileFd, requested: &AttributeChanges) -> Result<()> {
        if self.uid.is_some() || self.gid.is_some() {
            let now = file.stat()?;
            let (uid, gid) = (self.uid.filter(|uid| *uid != now.uid), self.gid.filter(|gid| *gid != now.gid));
            if uid.is_some() || gid.is_some() {
                file.set_owner(uid, gid);
            }
        }
        Ok(file.set_mode(requested.mode.unwrap_or(self.mode))?)
    }
}
