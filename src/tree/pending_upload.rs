//! Uploads that take more than one request: content that waits in staging for the rest of it, also over a restart.
//!
//! What waits is written down in the store, with whose it is and the request that began it. Under full durability it is
//! on disk, with its name and its row, before anybody is told that it is there; where the process ends before that, the
//! next start sweeps it. What is written down belongs to a token and ends with it.

use std::collections::HashSet;

use super::authorize::OpenEntry;
use super::fs::{Errno, FileFd, OpenMode, RetainedEntry, StagedEntry};
use super::{EditMode, EntryKind, Error, Result, StagedUpload, Tree, TreeOutage, View, WriteConditions};
use crate::domain::{Login, Permission, TokenId, TreeOperation, TreePath, UnixMillis};
use crate::store::{self, StoreError, UploadPart};

/// Content that comes in and has no place yet; dropping it discards it.
#[derive(Debug)]
pub struct IncomingPart {
    file: FileFd,
    staged: StagedEntry,
    size: u64,
}

/// A deposit whose content is on disk, where durability asks for that.
#[derive(Debug)]
pub struct SyncedPart {
    staged: StagedEntry,
    size: u64,
}

/// Content that waits in staging for the rest of its upload: it has no place, nobody sees it, and it holds no file open.
#[derive(Clone, Debug)]
pub struct StagedPart(RetainedEntry);

/// An upload that is not finished, as it was written down.
#[derive(Debug)]
pub struct PendingUpload {
    /// Its number.
    pub id: i64,
    /// Whose it is.
    pub token: TokenId,
    /// The owner of that token.
    pub login: Login,
    /// What its client calls it.
    pub name: Vec<u8>,
    /// The request that began it; `None` where it comes in parts.
    pub request: Option<Vec<u8>>,
    /// When it last went on.
    pub updated_at: UnixMillis,
    /// What has come of it: the names, lengths and contents of its parts. Where there are none: one without a name.
    pub parts: Vec<(Vec<u8>, u64, StagedPart)>,
}

impl Tree {
    /// Returns the uploads that earlier runs of the server left unfinished; for its start. Those of dead tokens and
    /// those that did not go on `since` then are discarded, and so is what is not whole or can't be opened. What fails
    /// of one is no matter of the others: the log tells it.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn pending_uploads(&self, since: UnixMillis) -> Result<Vec<PendingUpload>> {
        let rows = self.shared.index.store().uploads()?;
        let left = rows.into_iter().filter_map(|row| {
            let id = row.id;
            self.resumable_or_discard(row, since).unwrap_or_else(|error| {
                tracing::warn!(%error, upload = id, "an unfinished upload can't be gone on with for now");
                None
            })
        });
        Ok(left.collect())
    }

    /// Returns an upload that can be gone on with; discards any other.
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
        if request.is_some() && parts.is_empty() {
            return self.discard_upload(id, []).map(|()| None);
        }
        Ok(Some(PendingUpload { id, token, login, name, request, updated_at, parts }))
    }

    /// Returns what is there of an upload. One that `grows` is as long as what is there of it.
    fn load_parts(&self, upload: i64, grows: bool) -> Result<Vec<(Vec<u8>, u64, StagedPart)>> {
        let store = self.shared.index.store();
        let mut parts = Vec::new();
        for UploadPart { name, staging_directory, staged_name, size } in store.upload_parts(upload)? {
            let retained = match self.shared.fs.retained_entry(&staging_directory, &staged_name) {
                Ok(retained) => retained,
                // It may be there once its file system is.
                Err(Errno::NOMEDIUM | Errno::IO | Errno::STALE | Errno::NOTCONN) => {
                    return Err(TreeOutage::Missing.into());
                }
                Err(_) => {
                    store.delete_upload_part(upload, &name)?;
                    continue;
                }
            };
            let length = usable_length(&retained, size, grows).unwrap_or_else(|error| {
                tracing::warn!(%error, upload, "a part of an unfinished upload is given up");
                None
            });
            match length {
                Some(length) => parts.push((name, length, StagedPart(retained))),
                None => {
                    store.delete_upload_part(upload, &name)?;
                    // What can't be removed now is debris at the next start.
                    if let Err(error) = retained.discard() {
                        tracing::warn!(%error, upload, "a part of an unfinished upload stays for now");
                    }
                }
            }
        }
        Ok(parts)
    }

    /// Returns the numbers of the unfinished uploads whose tokens live.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn live_upload_ids(&self) -> Result<HashSet<i64>> {
        let rows = self.shared.index.store().uploads()?;
        Ok(rows.into_iter().filter(|row| !row.token_inactive).map(|row| row.id).collect())
    }

    /// Returns a number that moves whenever a token is taken back or removed: what lives is the same while it stays, but
    /// for tokens that expire.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn revocation_epoch(&self) -> Result<i64> {
        Ok(self.shared.index.store().epoch()?)
    }

    /// Ends an unfinished upload, with all that waits of it.
    ///
    /// # Errors
    /// [`Error::Store`]: it stays then, and the next start finds it again. [`Error::Filesystem`]: it has ended, and the next
    /// start removes what is left in staging.
    pub fn discard_upload<'a>(&self, upload: i64, parts: impl IntoIterator<Item = &'a StagedPart>) -> Result<()> {
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

    /// Returns how many bytes are free on the file system of the served folder.
    ///
    /// # Errors
    /// [`Error::Filesystem`].
    pub fn free_bytes(&self) -> Result<u64> {
        Ok(self.shared.fs.root()?.space()?.available)
    }
}

impl SyncedPart {
    /// Returns how many bytes it has.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl StagedPart {
    /// Discards a part of which nothing is written down any more: another has its name.
    ///
    /// # Errors
    /// [`Error::Filesystem`].
    pub fn discard(&self) -> Result<()> {
        Ok(self.0.discard()?)
    }
}

impl StagedUpload {
    /// Leaves the content in staging, to be taken up by later requests of the session's token, and writes down how the
    /// client calls it and which request began it. Returns the number of the upload.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Filesystem`]; it is discarded then.
    pub fn suspend(self, name: &[u8], request: &[u8], now: UnixMillis) -> Result<(i64, StagedPart)> {
        self.persist_with(|view, retained| {
            let part = upload_part(&retained, b"", 0);
            if view.is_synced() {
                retained.sync_directory()?;
            }
            let (store, token) = (view.shared().index.store(), view.session().token());
            let id = store.insert_upload(token, name, Some((request, &part)), now, view.store_durability())?;
            Ok((id, StagedPart(retained)))
        })
    }

    /// Copies all of a part, which is `size` bytes, to an offset; returns where it ends.
    ///
    /// # Errors
    /// As [`StagedUpload::write_at`].
    pub fn copy_part(&self, StagedPart(retained): &StagedPart, size: u64, offset: u64) -> Result<u64> {
        self.copy_retained(retained, size, offset)
    }
}

impl View {
    /// Begins an upload that replaces a file by a copy of which a part was changed. Returns also the file's size;
    /// 0 where there is none yet. What the copy keeps can be compared with what the client guesses of it: where a
    /// file is there, it has to be one that may be read.
    ///
    /// # Errors
    /// As for [`View::stage`]; [`Error::Forbidden`] also where what is there may not be read. Its commit fails with
    /// [`Error::PreconditionFailed`] when the file has changed meanwhile.
    pub fn stage_existing(&self, path: &TreePath, conditions: &WriteConditions<'_>) -> Result<(StagedUpload, u64)> {
        let (slot, stat) = self.write_slot(path)?;
        self.check_create_locks(&slot, stat.as_ref(), conditions)?;
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

    /// Goes on with an upload that was set aside. Rights and locks are asked anew, by whatever session this is. What
    /// waits stays where it is until it is committed.
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
        self.check_create_locks(&slot, stat.as_ref(), conditions)?;
        StagedUpload::resume(self, path, &slot, stat.as_ref(), retained, conditions)
    }

    /// Tells that the session may write anywhere at all.
    ///
    /// # Errors
    /// [`Error::Forbidden`] otherwise.
    pub fn check_write_anywhere(&self) -> Result<()> {
        let may = self.session().access()?.effective_grants().iter().any(|root| root.permission.allows(Permission::W));
        if may { Ok(()) } else { Err(Error::Forbidden) }
    }

    /// Begins an upload that comes in parts, for one who may write anywhere at all. Returns its number.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for one who may write nowhere; [`Error::Store`].
    pub fn begin_pending_upload(&self, name: &[u8], now: UnixMillis) -> Result<i64> {
        self.check_write_anywhere()?;
        let (store, token) = (self.shared().index.store(), self.session().token());
        Ok(store.insert_upload(token, name, None, now, self.store_durability())?)
    }

    /// Makes room for content whose place is not known yet, for one who may write anywhere at all.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for one who may write nowhere.
    pub fn begin_part(&self) -> Result<IncomingPart> {
        self.check_write_anywhere()?;
        self.fs().check_available()?;
        let root = self.fs().root()?;
        let (file, staged) = self.fs().staging(&root, root.stat()?.mount_key())?.create_file()?;
        Ok(IncomingPart { file, staged, size: 0 })
    }

    /// Writes `data` at the end of a deposit.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::NoSpace`]; [`Error::SessionEnded`] once the session's token is dead.
    pub fn write_part(&self, part: &mut IncomingPart, data: &[u8]) -> Result<()> {
        self.session().access()?;
        self.session().record_use();
        let end = part.size.saturating_add(data.len() as u64);
        self.check_size(end)?;
        part.file.write_at(data, part.size)?;
        part.size = end;
        Ok(())
    }

    /// Writes a deposit to disk, where durability asks for it.
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

    /// Keeps a deposit as a part of an unfinished upload, in place of one that is called alike.
    ///
    /// # Errors
    /// [`Error::Store`]; [`Error::Absent`] where the upload has ended. The deposit is discarded then.
    pub fn keep_part(&self, upload: i64, name: &[u8], part: SyncedPart, now: UnixMillis) -> Result<StagedPart> {
        let SyncedPart { staged, size } = part;
        let retained = staged.to_retained();
        self.record_part(upload, &upload_part(&retained, name, size), now)?;
        staged.persist();
        Ok(StagedPart(retained))
    }

    /// Writes down that the first `size` bytes of an upload are there.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Filesystem`]; [`Error::Absent`] where it has ended.
    pub fn record_progress(
        &self,
        upload: i64,
        StagedPart(retained): &StagedPart,
        size: u64,
        now: UnixMillis,
    ) -> Result<()> {
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

    /// Returns how soon what is written down of content is on disk.
    fn store_durability(&self) -> store::WriteDurability {
        self.shared().durability.of_rows()
    }
}

/// Returns how much is there of a part of which `size` bytes were written down; none where it is not whole.
fn usable_length(retained: &RetainedEntry, size: u64, grows: bool) -> super::fs::Result<Option<u64>> {
    let length = retained.open(OpenMode::Read)?.stat()?.size;
    if !grows {
        return Ok((length == size).then_some(length));
    }
    if length > size {
        // What was not written down is not counted: it takes no room either.
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
