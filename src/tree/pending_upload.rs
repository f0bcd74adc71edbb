//! Uploads that take more than one request: their content is kept in staging until the rest arrives, also over a
//! restart.
//!
//! The store records each of them, with its token and the request that began it. Under full durability the content, its
//! name and its row are on disk before a client is told that they are; if the process ends before that, the next start
//! sweeps the content. A recorded upload belongs to a token and is discarded with it.

use std::collections::HashSet;

use super::authorize::OpenEntry;
use super::fs::{Errno, FileFd, OpenMode, RetainedEntry, StagedEntry};
use super::{EditMode, EntryKind, Error, Result, StagedUpload, Tree, TreeOutage, View, WriteConditions};
use crate::domain::{Login, Permission, TokenId, TreeOperation, TreePath, UnixMillis};
use crate::store::{self, StoreError, UploadPart};

/// Content that is being received and is not recorded yet; dropping it discards it.
#[derive(Debug)]
pub struct IncomingPart {
    file: FileFd,
    staged: StagedEntry,
    size: u64,
}

/// A received part that was synced to disk, where durability asks for that; dropping it discards it.
#[derive(Debug)]
pub struct SyncedPart {
    staged: StagedEntry,
    size: u64,
}

/// A recorded part in staging: it is not visible in the tree, survives a restart, and holds no file open.
#[derive(Clone, Debug)]
pub struct StagedPart(RetainedEntry);

/// An unfinished upload, as the store has it.
#[derive(Debug)]
pub struct PendingUpload {
    /// Id of the row.
    pub id: i64,
    /// Token that began the upload.
    pub token: TokenId,
    /// Owner of that token.
    pub login: Login,
    /// Name that its client gave it.
    pub name: Vec<u8>,
    /// The request that began it; `None` for an upload in parts.
    pub request: Option<Vec<u8>>,
    /// Time of its last progress.
    pub updated_at: UnixMillis,
    /// Name, length in bytes and content of each part that was received; an upload that is not in parts has one without
    /// a name.
    pub parts: Vec<(Vec<u8>, u64, StagedPart)>,
}

impl Tree {
    /// Returns the uploads that earlier runs of the server left unfinished; called at the start. Uploads of inactive
    /// tokens and those without progress since `since` are discarded, and so are parts that are incomplete or can't be
    /// opened. An upload that fails is logged and left out.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn pending_uploads(&self, since: UnixMillis) -> Result<Vec<PendingUpload>> {
        let rows = self.shared.index.store().uploads()?;
        let left = rows.into_iter().filter_map(|row| {
            let id = row.id;
            self.resumable_or_discard(row, since).unwrap_or_else(|error| {
                tracing::warn!(%error, upload = id, "an unfinished upload can't be resumed for now");
                None
            })
        });
        Ok(left.collect())
    }

    /// Returns an upload that can be resumed; discards any other.
    fn resumable_or_discard(&self, row: store::UploadRow, since: UnixMillis) -> Result<Option<PendingUpload>> {
        let store::UploadRow { id, token, login, name, request, updated_at, token_inactive } = row;
        if token_inactive || updated_at < since {
            let parts = self.shared.index.store().upload_parts(id)?;
            let retained = parts
                .iter()
                .filter_map(|part| self.shared.fs.retained_entry(&part.staging_directory, &part.staged_name).ok());
            return self.discard_upload(id, &retained.map(StagedPart).collect::<Vec<_>>()).map(|()| None);
        }
        let parts = self.load_parts(id, request.is_some())?;
        // A single-request upload without its content has nothing to resume: the client begins anew.
        if request.is_some() && parts.is_empty() {
            return self.discard_upload(id, []).map(|()| None);
        }
        Ok(Some(PendingUpload { id, token, login, name, request, updated_at, parts }))
    }

    /// Returns the usable parts of an upload. The single part of one that `grows` may be shorter or longer than its row
    /// says.
    fn load_parts(&self, upload: i64, grows: bool) -> Result<Vec<(Vec<u8>, u64, StagedPart)>> {
        let store = self.shared.index.store();
        let mut parts = Vec::new();
        for UploadPart { name, staging_directory, staged_name, size } in store.upload_parts(upload)? {
            let retained = match self.shared.fs.retained_entry(&staging_directory, &staged_name) {
                Ok(retained) => retained,
                // Its file system may only be unmounted at present: its row must not be deleted.
                Err(Errno::NOMEDIUM | Errno::IO | Errno::STALE | Errno::NOTCONN) => {
                    return Err(TreeOutage::Missing.into());
                }
                Err(_) => {
                    store.delete_upload_part(upload, &name)?;
                    continue;
                }
            };
            let length = usable_length(&retained, size, grows).unwrap_or_else(|error| {
                tracing::warn!(%error, upload, "a part of an unfinished upload can't be read and is discarded");
                None
            });
            match length {
                Some(length) => parts.push((name, length, StagedPart(retained))),
                None => {
                    store.delete_upload_part(upload, &name)?;
                    // The row is gone, so the next start sweeps the file if it can't be removed now.
                    if let Err(error) = retained.discard() {
                        tracing::warn!(%error, upload, "an upload's part stays in staging until the next start");
                    }
                }
            }
        }
        Ok(parts)
    }

    /// Returns the ids of the unfinished uploads whose tokens are active.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn live_upload_ids(&self) -> Result<HashSet<i64>> {
        let rows = self.shared.index.store().uploads()?;
        Ok(rows.into_iter().filter(|row| !row.token_inactive).map(|row| row.id).collect())
    }

    /// Returns a number that changes whenever a token is revoked or removed: while it stays, the set of active tokens
    /// changes only by expiration.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn revocation_epoch(&self) -> Result<i64> {
        Ok(self.shared.index.store().epoch()?)
    }

    /// Discards an unfinished upload with all its parts.
    ///
    /// # Errors
    /// [`Error::Store`]: nothing is discarded, and the next start finds it again. [`Error::Filesystem`]: the upload is
    /// discarded, and the next start sweeps what is left in staging.
    pub fn discard_upload<'a>(&self, upload: i64, parts: impl IntoIterator<Item = &'a StagedPart>) -> Result<()> {
        // The row first: after a kill in between, the next start sweeps the files. A row without files would be offered
        // again.
        self.shared.index.store().delete_upload(upload)?;
        parts.into_iter().try_for_each(|StagedPart(retained)| Ok(retained.discard()?))
    }

    /// Discards one part of an unfinished upload.
    ///
    /// # Errors
    /// As [`Tree::discard_upload`].
    pub fn discard_part(&self, upload: i64, name: &[u8], StagedPart(retained): &StagedPart) -> Result<()> {
        self.shared.index.store().delete_upload_part(upload, name)?;
        Ok(retained.discard()?)
    }

    /// Returns the number of bytes that are free on the file system of the served directory.
    ///
    /// # Errors
    /// [`Error::Filesystem`].
    pub fn free_bytes(&self) -> Result<u64> {
        Ok(self.shared.fs.root()?.space()?.available)
    }
}

impl SyncedPart {
    /// Returns the size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl StagedPart {
    /// Discards a part without a row, which another part of the same name has replaced.
    ///
    /// # Errors
    /// [`Error::Filesystem`].
    pub fn discard(&self) -> Result<()> {
        Ok(self.0.discard()?)
    }
}

impl StagedUpload {
    /// Leaves the content in staging for later requests of the session's token, and records the client's name for it
    /// and the request that began it. Returns the id of the upload.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Filesystem`]; it is discarded then.
    pub fn suspend(self, name: &[u8], request: &[u8], now: UnixMillis) -> Result<(i64, StagedPart)> {
        self.persist_with(|view, retained| {
            // Recorded with length 0: bytes count only once `record_progress` has synced them.
            let part = upload_part(&retained, b"", 0);
            if view.is_synced() {
                retained.sync_directory()?;
            }
            let (store, token) = (view.shared().index.store(), view.session().token());
            let id = store.insert_upload(token, name, Some((request, &part)), now, view.store_durability())?;
            Ok((id, StagedPart(retained)))
        })
    }

    /// Copies a part of `size` bytes to an offset; returns the offset at which it ends.
    ///
    /// # Errors
    /// As [`StagedUpload::write_at`].
    pub fn copy_part(&self, StagedPart(retained): &StagedPart, size: u64, offset: u64) -> Result<u64> {
        self.copy_retained(retained, size, offset)
    }
}

impl View {
    /// Begins an upload that replaces a file by a partly changed copy. Returns also the file's size; 0 if it does not
    /// exist. A client could guess content that the copy keeps and compare, so an existing file must be readable.
    ///
    /// # Errors
    /// As for [`View::stage`]; [`Error::Forbidden`] also for a file that may not be read. Its commit fails with
    /// [`Error::PreconditionFailed`] when the file has changed meanwhile.
    pub fn stage_existing(&self, path: &TreePath, conditions: &WriteConditions<'_>) -> Result<(StagedUpload, u64)> {
        let (slot, stat) = self.write_slot(path)?;
        self.check_create_or_replace_locks(&slot, stat.as_ref(), conditions)?;
        let Some(stat) = stat.filter(|stat| stat.kind == Some(EntryKind::File)) else {
            return Ok((StagedUpload::begin(self, path, &slot, None, conditions)?, 0));
        };
        if !slot.permission.allows(Permission::RW) {
            self.audit_denial(TreeOperation::Read, path);
            return Err(Error::Forbidden);
        }
        let (file, permission) = (slot.directory.open(&slot.name, OpenMode::Read)?, slot.permission);
        let source = OpenEntry { stat: file.stat()?, file, path: slot.path.clone(), permission };
        Ok((StagedUpload::from_copy(self, path, &slot, &source, EditMode::default(), conditions)?, stat.size))
    }

    /// Resumes a pending upload. Rights and locks are checked again for this session, which may be another than began
    /// it. The part stays in staging until it is committed.
    ///
    /// # Errors
    /// As for [`View::stage`].
    pub fn resume_upload(
        &self,
        StagedPart(retained): &StagedPart,
        path: &TreePath,
        conditions: &WriteConditions<'_>,
    ) -> Result<StagedUpload> {
        let (slot, stat) = self.write_slot(path)?;
        self.check_create_or_replace_locks(&slot, stat.as_ref(), conditions)?;
        StagedUpload::resume(self, path, &slot, stat.as_ref(), retained, conditions)
    }

    /// Checks that the session may write anywhere at all.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if it may write nowhere.
    pub fn check_write_anywhere(&self) -> Result<()> {
        let may = self.session().access()?.effective_grants().iter().any(|root| root.permission.allows(Permission::W));
        if may { Ok(()) } else { Err(Error::Forbidden) }
    }

    /// Begins an upload in parts, for a session that may write anywhere at all. Returns its id.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for a session that may write nowhere; [`Error::Store`].
    pub fn begin_pending_upload(&self, name: &[u8], now: UnixMillis) -> Result<i64> {
        self.check_write_anywhere()?;
        let (store, token) = (self.shared().index.store(), self.session().token());
        Ok(store.insert_upload(token, name, None, now, self.store_durability())?)
    }

    /// Begins a part whose target path is not known yet, for a session that may write anywhere at all.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for a session that may write nowhere.
    pub fn begin_part(&self) -> Result<IncomingPart> {
        // The target is checked by the assembly. Until then, a session that may write nowhere must not fill the disk.
        self.check_write_anywhere()?;
        self.fs().check_available()?;
        // On the file system of the root, since the target is not known: the assembly copies each part.
        let root = self.fs().root()?;
        let (file, staged) = self.fs().staging(&root, root.stat()?.mount_key())?.create_file()?;
        Ok(IncomingPart { file, staged, size: 0 })
    }

    /// Writes `data` at the end of a part.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::NoSpace`]; [`Error::SessionEnded`] once the session's token is no longer active.
    pub fn write_part(&self, part: &mut IncomingPart, data: &[u8]) -> Result<()> {
        self.session().access()?;
        self.session().record_use();
        let end = part.size.saturating_add(data.len() as u64);
        self.check_size(end)?;
        part.file.write_at(data, part.size)?;
        part.size = end;
        Ok(())
    }

    /// Syncs a part to disk, where durability asks for it.
    ///
    /// # Errors
    /// [`Error::Filesystem`].
    pub fn sync_part(&self, part: IncomingPart) -> Result<SyncedPart> {
        let IncomingPart { file, staged, size } = part;
        if self.is_synced() {
            file.sync()?;
            staged.to_retained().sync_directory()?;
        }
        Ok(SyncedPart { staged, size })
    }

    /// Records a part of an unfinished upload; it replaces an earlier part of the same name.
    ///
    /// # Errors
    /// [`Error::Store`]; [`Error::Absent`] when the upload was discarded. The part is discarded then.
    pub fn keep_part(&self, upload: i64, name: &[u8], part: SyncedPart, now: UnixMillis) -> Result<StagedPart> {
        let SyncedPart { staged, size } = part;
        let retained = staged.to_retained();
        // Recorded before it is persisted: on an error, the drop removes the file.
        self.record_part(upload, &upload_part(&retained, name, size), now)?;
        staged.persist();
        Ok(StagedPart(retained))
    }

    /// Records that the first `size` bytes of an upload were received.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Filesystem`]; [`Error::Absent`] when the upload was discarded.
    pub fn record_progress(
        &self,
        upload: i64,
        StagedPart(retained): &StagedPart,
        size: u64,
        now: UnixMillis,
    ) -> Result<()> {
        // The content before its record: a client skips the bytes that are recorded.
        if self.is_synced() {
            retained.open(OpenMode::Read)?.sync()?;
        }
        self.record_part(upload, &upload_part(retained, b"", size), now)
    }

    fn record_part(&self, upload: i64, part: &UploadPart, now: UnixMillis) -> Result<()> {
        let recorded = self.shared().index.store().put_upload_part(upload, part, now, self.store_durability());
        recorded.map_err(|error| match error {
            StoreError::NotFound(_) => Error::Absent,
            other => other.into(),
        })
    }

    /// Returns the durability of rows that record content.
    fn store_durability(&self) -> store::WriteDurability {
        self.shared().durability.of_rows()
    }
}

/// Returns the usable length of a part with `size` recorded bytes; `None` for an incomplete one.
fn usable_length(retained: &RetainedEntry, size: u64, grows: bool) -> super::fs::Result<Option<u64>> {
    let length = retained.open(OpenMode::Read)?.stat()?.size;
    if !grows {
        return Ok((length == size).then_some(length));
    }
    if length > size {
        // Bytes beyond the record are not counted in any quota, and the client sends them again.
        retained.open(OpenMode::ReadWrite)?.truncate(size)?;
    }
    Ok(Some(size.min(length)))
}

fn upload_part(retained: &RetainedEntry, name: &[u8], size: u64) -> UploadPart {
    let (staging_directory, staged_name) = retained.mount_path_and_name();
    UploadPart {
        name: name.to_vec(),
        staging_directory: staging_directory.clone(),
        staged_name: staged_name.as_bytes().to_vec(),
        size,
    }
}
