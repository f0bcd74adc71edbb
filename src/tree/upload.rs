//! Staged uploads: content that is written in staging and committed to its name in one step.

mod commit;

use std::io::IoSlice;
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
use super::slot_id::SlotId;
use super::upload_budget::UploadBudget;
use super::upload_registry::RegisteredUpload;
use super::view::file_bytes;
use super::{AttributeChanges, EditMode, Entry, EntryKind, Etag, Result, View, WriteConditions};
use crate::domain::{EntryName, FileTag, Permission, TreePath};

/// Number of bytes that are copied between two checks that the session is still valid.
const COPY_BLOCK_BYTES: usize = 8 << 20;

/// A staged upload: it is not visible under its name before it is committed. Dropping it discards the content, unless
/// that is a part of a pending upload.
pub struct StagedUpload {
    requested_path: TreePath,
    /// Target directory, whatever its path is now.
    directory: DirectoryFd,
    name: EntryName,
    /// Entry at the name when the upload began.
    replaced_entry: Option<ReplacedEntry>,
    copy_source: Option<CopySource>,
    file: Arc<FileFd>,
    staged: StagedEntry,
    final_attributes: FinalAttributes,
    requested_attributes: Mutex<AttributeChanges>,
    tags: Mutex<Option<Vec<FileTag>>>,
    /// Number of bytes from the start that are written without a gap.
    contiguous_bytes: AtomicU64,
    /// Whether a write was refused: the content is incomplete and must not be committed.
    write_failed: AtomicBool,
    /// Whether its own session has removed or replaced its name.
    detached: bool,
    /// Boot time at which the connection was lost; `None` once the upload was resumed.
    interrupted_at: Option<Duration>,
    access: HandleAccess,
    budget: UploadBudget,
    locks: HandleLocks,
    /// Registration of the target directory, until the upload is detached from its name.
    registration: Option<RegisteredUpload>,
}

/// Identity and content of the entry that was under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ReplacedEntry {
    device: u64,
    inode: u64,
    birth_time: Option<i64>,
    etag: Etag,
}

/// The file that an upload began as a copy of.
struct CopySource {
    /// Entity tag of the copied content; `None` where changes of it meanwhile don't matter.
    etag: Option<Etag>,
    append: bool,
    /// Whether the copy was changed, so that there is something to commit.
    changed: AtomicBool,
    /// The copied file, open to write. Kept because its mode may not allow opening it again.
    original: Option<Arc<FileFd>>,
}

/// Mode and owner of a file once it is committed, unless the client sets others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FinalAttributes {
    mode: u32,
    uid: Option<u32>,
    gid: Option<u32>,
}

/// Result of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedUpload {
    /// Metadata of the committed file.
    pub entry: Entry,
    /// Whether a file was replaced; a dangling link does not count as one.
    pub replaced: bool,
}

impl StagedUpload {
    /// Begins an upload to an authorized slot.
    pub(super) fn begin(
        view: &View,
        requested_path: &TreePath,
        slot: &EntrySlot,
        replaced: Option<&Stat>,
        conditions: &WriteConditions<'_>,
    ) -> Result<Self> {
        // Staged on the file system of the target, since the commit is a rename.
        let content = view.staging(slot)?.create_file()?;
        Self::with_content(content, view, requested_path, (slot, replaced), conditions)
    }

    /// Begins as [`StagedUpload::begin`] does an upload that is committed at once.
    pub(super) fn begin_whole(
        view: &View,
        requested_path: &TreePath,
        slot: &EntrySlot,
        replaced: Option<&Stat>,
        conditions: &WriteConditions<'_>,
    ) -> Result<Self> {
        let mode = FinalAttributes::for_slot(view, slot, replaced).mode;
        let content = view.staging(slot)?.create_file_with_mode(mode)?;
        Self::with_content(content, view, requested_path, (slot, replaced), conditions)
    }

    /// Resumes a part of a pending upload, for an authorized slot. The part is kept when the upload is dropped.
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
            budget: UploadBudget::new(view, &slot.path, file_bytes(replaced))?,
            locks: HandleLocks::new(conditions.lock_tokens),
            // From here on the directory counts as in use: it can't be removed before the commit.
            registration: Some(view.shared().upload_registry.register(&slot.directory, &slot.directory_stat)),
        })
    }

    /// Resumes an interrupted upload, for an authorized slot without an entry.
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
        // The type of the content that is there was checked when it was written.
        upload.contiguous_bytes.store(u64::MAX, Ordering::Release);
        Ok(Some(upload))
    }

    /// Continues a resumed upload through a handle; with `appends`, every write goes to the end.
    pub(super) fn continue_writing(&mut self, appends: bool) {
        self.interrupted_at = None;
        if appends {
            self.copy_source =
                Some(CopySource { etag: None, append: true, changed: AtomicBool::new(true), original: None });
        }
    }

    /// Keeps an upload to a new name whose connection was lost, for its token; any other upload is discarded.
    pub(super) fn keep_interrupted(self) {
        let view = self.access.view().clone();
        let interrupted_uploads = &view.shared().interrupted_uploads;
        // Only new names: over an existing file, the old content is still there and the client sends the new one again.
        let is_whole = self.replaced_entry.is_none() && !self.detached && !self.write_failed.load(Ordering::Acquire);
        let resumable = is_whole && self.copy_source.as_ref().is_none_or(|copy_source| copy_source.etag.is_none());
        // Of a revoked token nothing is kept, since no later session could take it.
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
            Err(error) => tracing::warn!(%error, "an interrupted upload is not kept"),
        }
    }

    /// Leaves the content in staging for later requests, also after a restart; requested attributes are dropped.
    /// `record` stores where it is: if that fails, the content is discarded.
    pub(super) fn persist_with<T>(self, record: impl FnOnce(&View, RetainedEntry) -> Result<T>) -> Result<T> {
        // Recorded before it is persisted: on an error, the drop removes a file that no row refers to.
        let recorded = record(self.access.view(), self.staged.to_retained())?;
        self.staged.persist();
        Ok(recorded)
    }

    /// Copies a retained part of `size` bytes to an offset; returns the offset at which it ends.
    pub(super) fn copy_retained(&self, retained: &RetainedEntry, size: u64, offset: u64) -> Result<u64> {
        let from = retained.open(OpenMode::Read)?;
        // The whole size before the first block: a refusal must not leave half a part.
        self.access.view().check_size(offset.saturating_add(size))?;
        self.check_budget(offset.saturating_add(size))?;
        let mut copied = 0;
        while copied < size {
            // Again for each block: a part of many gigabytes takes minutes, in which a token may be revoked.
            self.access.view().cancellation().check()?;
            self.check_writable()?;
            let block = usize::try_from(size - copied).map_or(COPY_BLOCK_BYTES, |left| left.min(COPY_BLOCK_BYTES));
            match from.copy_range(copied, &self.file, offset.saturating_add(copied), block)? {
                // The file is shorter than its record. The caller sees that by the offset that is returned.
                0 => break,
                count => copied += count as u64,
            }
        }
        Ok(offset.saturating_add(copied))
    }

    /// Begins an upload as a copy of the file at the slot, which is open to read. Its commit fails once another client
    /// has changed that file.
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
            // Answers reveal the copied content (checksums, its type), so reading it has to stay allowed to the end.
            upload.access = authorize_slot(view, slot, Permission::RW)?;
            upload.copy_content(source)?;
            if source.stat.size > 0 {
                // The type is checked at the commit: a file that is being changed in the middle is not whole.
                upload.contiguous_bytes = AtomicU64::new(u64::MAX);
            }
            // The commit compares it: what was copied must not overwrite a change that came later.
            etag = Some(view.shared().etags.etag_of(&source.stat));
        }
        let changed = AtomicBool::new(mode.truncate);
        upload.copy_source = Some(CopySource { etag, append: mode.append, changed, original: None });
        Ok(upload)
    }

    /// Keeps the descriptor of the copied file, since an early commit of an unchanged copy continues in that file.
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
            // By the offset, too: the source may grow while it is copied.
            self.access.view().check_size(source.stat.size.max(offset))?;
            self.check_budget(source.stat.size.max(offset))?;
            match source.file.copy_to(&self.file, offset, COPY_BLOCK_BYTES)? {
                // Until the first write, a copy shows the times of its source.
                0 => return Ok(self.file.set_times(Some(source.stat.modified), Some(source.stat.accessed))?),
                count => offset += count as u64,
            }
        }
    }

    /// Writes all of `data` at an offset, or at the end of a copy that was opened to append. Once a write was
    /// refused, the upload can't be committed any more.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::StorageQuotaExceeded`], [`Error::NoSpace`], [`Error::Locked`],
    /// [`Error::SessionEnded`]; [`Error::TypeNotAllowed`]
    /// as soon as the first bytes show the type.
    pub fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.write_checked(data, offset).inspect_err(|_| self.write_failed.store(true, Ordering::Release))
    }

    fn write_checked(&self, data: &[u8], offset: u64) -> Result<()> {
        self.check_writable()?;
        let appends = self.copy_source.as_ref().is_some_and(|copy_source| copy_source.append);
        let start = if appends { self.file.stat()?.size } else { offset };
        let end = start.saturating_add(data.len() as u64);
        self.access.view().check_size(end)?;
        self.check_budget(end)?;
        // Before the write, which may change bytes and then fail: the copy then no longer counts as unchanged.
        self.mark_changed();
        self.file.write_at(data, start)?;
        self.check_leading_type(start, end)
    }

    /// Writes at an offset as much of the blocks as takes no wait for a disk; returns the number of bytes written. None
    /// are where a check would have to read the file, or to look for locks.
    ///
    /// # Errors
    /// As [`StagedUpload::write_at`].
    pub fn write_cached_at(&self, blocks: &[impl AsRef<[u8]>], offset: u64) -> Result<usize> {
        let view = self.access.view();
        if self.copy_source.is_some() || view.limits_types() || !view.shared().locks.is_empty() {
            return Ok(0);
        }
        let blocks: Vec<IoSlice<'_>> = blocks.iter().map(|block| IoSlice::new(block.as_ref())).collect();
        let length: usize = blocks.iter().map(|block| block.len()).sum();
        if !self.budget.allows_at_once(offset.saturating_add(length as u64)) {
            return Ok(0);
        }
        let write = || {
            self.check_writable()?;
            view.check_size(offset.saturating_add(length as u64))?;
            Ok(self.file.write_cached_at(&blocks, offset)?)
        };
        write().inspect_err(|_| self.write_failed.store(true, Ordering::Release))
    }

    /// Checks the type of the content as soon as its first bytes show it, since many clients ignore the status of
    /// CLOSE. Blocks may come in any order, so only content without a gap counts.
    fn check_leading_type(&self, start: u64, end: u64) -> Result<()> {
        let known = self.contiguous_bytes.load(Ordering::Acquire);
        // A later rewrite of the start is left to the commit, which checks the type once more.
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

    /// Returns the metadata that the file would have if it were committed now, without an entity tag.
    ///
    /// # Errors
    /// [`Error::SessionEnded`].
    pub fn stat(&self) -> Result<Entry> {
        self.access.authorize_use(&*self.file)?;
        let mode = self.requested_attributes.lock().mode.unwrap_or(self.final_attributes.mode);
        let stat = Stat { mode, ..self.file.stat()? };
        // The path of its directory now, which another client may have renamed.
        let path = self.access.last_location().path;
        let permission = self.access.view().session().access()?.permission_at(&path);
        Ok(Entry { etag: None, ..self.access.view().entry(&path, &stat, permission) })
    }

    /// Sets attributes of the file to commit; times that are set here are kept by the commit.
    ///
    /// # Errors
    /// As [`StagedUpload::write_at`].
    pub fn set_attributes(&self, attributes: &AttributeChanges) -> Result<()> {
        self.check_writable()?;
        if let Some(size) = attributes.size {
            self.access.view().check_size(size)?;
            self.check_budget(size)?;
            self.file.truncate(size)?;
        }
        self.mark_changed();
        let mut requested = self.requested_attributes.lock();
        // Set on the staged file itself, so that a later write changes the time as it does for any file.
        self.file.set_times_exactly(attributes.modified, attributes.accessed)?;
        requested.mode = attributes.mode.map(|mode| mode & 0o777).or(requested.mode);
        requested.modified = attributes.modified.or(requested.modified);
        requested.accessed = attributes.accessed.or(requested.accessed);
        Ok(())
    }

    /// Sets the tags of the file to commit, which replace those of the old file.
    ///
    /// # Errors
    /// [`Error::TagNotAllowed`].
    pub fn set_tags(&self, tags: Vec<FileTag>) -> Result<()> {
        self.access.view().check_tags(&tags)?;
        *self.tags.lock() = Some(tags);
        Ok(())
    }

    /// Tells whether a write was refused, so that the content is incomplete.
    pub(super) fn has_failed_write(&self) -> bool {
        self.write_failed.load(Ordering::Acquire)
    }

    /// Tells whether this is a copy without changes, and without refused ones.
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

    /// Checks that the storage quotas allow the content to have `size` bytes.
    fn check_budget(&self, size: u64) -> Result<()> {
        self.budget.check(self.access.view(), || self.last_path(), size)
    }

    fn check_writable(&self) -> Result<()> {
        self.access.authorize_use(&*self.file)?;
        // Locks cover names, and this file will never have one.
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

/// Authorizes an upload by its target directory.
fn authorize_slot(view: &View, slot: &EntrySlot, needed: Permission) -> Result<HandleAccess> {
    HandleAccess::with_anchor(
        view,
        slot.path.clone(),
        needed,
        HandleAnchor::Slot(slot.directory.clone(), slot.name.clone()),
    )
}

impl CopySource {
    /// Tells whether the entry at the slot is still the content that was copied.
    fn is_current(&self, view: &View, current: Option<&Stat>) -> bool {
        self.etag.is_none_or(|etag| current.is_some_and(|stat| view.shared().etags.etag_of(stat) == etag))
    }
}

impl FinalAttributes {
    /// Returns the attributes for a slot: a replaced file keeps its mode and owner; a new one gets those of new files
    /// of the process, and the group of a set-group-ID directory.
    fn for_slot(view: &View, slot: &EntrySlot, replaced: Option<&Stat>) -> Self {
        if let Some(old) = replaced.filter(|stat| stat.kind == Some(EntryKind::File)) {
            // Without set-user-ID and set-group-ID bits: they were given to the old content.
            return Self { mode: old.mode & 0o777, uid: Some(old.uid), gid: Some(old.gid) };
        }
        let gid = (slot.directory_stat.mode & 0o2000 != 0).then_some(slot.directory_stat.gid);
        Self { mode: view.fs().apply_umask(0o666), uid: None, gid }
    }

    /// Gives a file with the metadata `now` these attributes. Returns its permission bits.
    fn apply(&self, file: &FileFd, now: &Stat, requested: &AttributeChanges) -> Result<u32> {
        // The owner before the mode: otherwise the mode would let the wrong group in for a moment.
        let (uid, gid) = (self.uid.filter(|uid| *uid != now.uid), self.gid.filter(|gid| *gid != now.gid));
        if uid.is_some() || gid.is_some() {
            file.set_owner(uid, gid);
        }
        let mode = requested.mode.unwrap_or(self.mode);
        if mode != now.mode {
            file.set_mode(mode)?;
        }
        Ok(mode)
    }
}
