//! Unfinished uploads that wait for more requests: limited in number per token and user, in age, and in bytes. They
//! belong to the token that created them: for other tokens of the same user they don't exist.
//!
//! The tree stores their state, so that they survive a restart; memory holds the same state, and which uploads a
//! request is using. Changes of both are serialized, so that they agree.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use uuid::Uuid;

use super::error::{Error, Result, run_blocking};
use super::request_context::RequestContext;
use super::saved_request::SavedRequest;
use super::upload_progress::{ResumableProgress, ResumableUpload, UPLOAD_MAX_IDLE, is_expired};
use super::upload_quota::{UploadQuota, UploadReservation};
use crate::auth::{Clock, Session};
use crate::domain::{EntryName, Login, TokenId, UnixMillis, UploadSpaceLimits};
use crate::tree::{PendingUpload, StagedPart, StagedUpload, SyncedPart, Tree, View};

/// Maximum number of unfinished uploads of one token.
const MAX_UPLOADS_PER_TOKEN: usize = 64;
/// Maximum number of unfinished uploads of all tokens of a user.
const MAX_UPLOADS_PER_USER: usize = 4 * MAX_UPLOADS_PER_TOKEN;
/// Maximum number of chunks in all uploads of one token.
const MAX_CHUNKS_PER_TOKEN: usize = 10_000;
/// Interval at which uploads that expired, or whose tokens are not valid any more, are removed.
const EXPIRATION_INTERVAL: Duration = Duration::from_secs(60);

/// Table of all unfinished uploads; clones share it.
#[derive(Clone)]
pub(super) struct UnfinishedUploads(Arc<UploadsInner>);

struct UploadsInner {
    tree: Tree,
    quota: UploadQuota,
    clock: Clock,
    table: Mutex<UnfinishedUploadTable>,
    /// Held while table and store change together. Holds the epoch of the last sweep for invalid tokens.
    update_lock: Mutex<Option<i64>>,
}

#[derive(Default)]
struct UnfinishedUploadTable {
    resumable: HashMap<Uuid, Arc<ResumableUpload>>,
    chunked: HashMap<(TokenId, EntryName), Arc<ChunkedUpload>>,
}

/// Chunked upload: each chunk has a name, and they are assembled in the order of their names.
pub(super) struct ChunkedUpload {
    id: i64,
    login: Login,
    state: Mutex<(BTreeMap<ChunkName, Arc<UploadChunk>>, UnixMillis)>,
}

/// Chunk of an upload.
pub(super) struct UploadChunk {
    /// Size in bytes.
    pub(super) size: u64,
    /// Content in staging.
    pub(super) staged_part: StagedPart,
    _reservation: UploadReservation,
}

/// Name of a chunk, ordered by the number that it starts with, if any, and then by its bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ChunkName(u64, EntryName);

impl ChunkName {
    /// Parses the last component of a path.
    pub(super) fn new(name: &EntryName) -> Self {
        let bytes = name.as_bytes();
        let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
        // Names without a number, or with one that is too large, come last.
        let number = std::str::from_utf8(&bytes[..digits]).ok().and_then(|digits| digits.parse().ok());
        Self(number.unwrap_or(u64::MAX), name.clone())
    }

    /// Returns the name as it was sent.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.1.as_bytes()
    }
}

impl UnfinishedUploads {
    /// Restores the uploads that were unfinished when the server last stopped; they expire by `clock`.
    pub(super) fn new(tree: Tree, limits: UploadSpaceLimits, clock: Clock) -> Self {
        let quota = UploadQuota::new(tree.clone(), limits);
        let pending = tree.pending_uploads(clock.retention_time().saturating_sub(UPLOAD_MAX_IDLE));
        let pending =
            pending.inspect_err(|error| tracing::error!(%error, "unfinished uploads of the last run can't be resumed"));
        let mut table = UnfinishedUploadTable::default();
        for upload in pending.unwrap_or_default() {
            let id = upload.id;
            // Discarded, since it would use space without a way to complete it.
            if table.restore(upload, &quota).is_none()
                && let Err(error) = tree.discard_upload(id, [])
            {
                tracing::warn!(%error, "an unfinished upload that can't be restored could not be removed");
            }
        }
        Self(Arc::new(UploadsInner { tree, quota, clock, table: Mutex::new(table), update_lock: Mutex::default() }))
    }

    /// Returns the number of unfinished uploads.
    pub(super) fn count(&self) -> usize {
        let table = self.0.table.lock();
        table.resumable.len() + table.chunked.len()
    }

    /// Spawns the task that removes expired uploads, and those of invalid tokens, until the last clone is dropped.
    pub(super) fn spawn_expiration_task(&self) {
        // Weak: the task must not keep the tree open after shutdown.
        let inner: Weak<UploadsInner> = Arc::downgrade(&self.0);
        // Without a runtime (in unit tests) only `check_limits` sweeps.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(EXPIRATION_INTERVAL).await;
                let Some(inner) = inner.upgrade() else { return };
                drop(tokio::task::spawn_blocking(move || Self(inner).delete_expired()).await);
            }
        });
    }

    /// Checks that one more upload is within the limits, of so many bytes where that is known; may block.
    ///
    /// # Errors
    /// [`Error::TooManyUploads`] when the token or its user has too many, [`Error::UploadSpaceExhausted`] when those of
    /// the user, or all, hold too many bytes.
    pub(super) fn check_limits(&self, session: &Session, length: Option<u64>) -> Result<()> {
        let epoch = self.0.tree.revocation_epoch()?;
        // A sweep reads the rows of all users: only if an upload has expired or a token may have become invalid.
        let old = self.0.table.lock().has_expired(self.0.clock.retention_time());
        // Copied, since `delete_expired` takes the same lock.
        let swept_at = *self.0.update_lock.lock();
        if old || swept_at != Some(epoch) {
            self.delete_expired();
        }
        self.0.table.lock().check_counts(session)?;
        self.0.quota.check_available(session.login(), length)
    }

    /// Creates an empty resumable upload; may block.
    ///
    /// # Errors
    /// [`Error::TooManyUploads`]; the errors of the tree.
    pub(super) fn create(&self, context: &RequestContext, upload: StagedUpload) -> Result<UnacknowledgedUpload> {
        let (uuid, session, saved_request) =
            (Uuid::new_v4(), context.view.session(), SavedRequest::from_context(context));
        let _update_guard = self.0.update_lock.lock();
        // Again, under the lock: two requests may both have passed `check_limits`.
        self.0.table.lock().check_counts(session)?;
        // The row is written before the table knows the upload: none in memory lacks its row.
        let (id, staged_part) = upload.suspend(uuid.as_bytes(), &saved_request.to_bytes(), context.now)?;
        let owner = (session.token(), session.login().clone());
        let content = (staged_part, ResumableProgress::recorded(&self.0.quota, &owner.1, 0));
        // Can't fail here: the caller has parsed the same header, and the row is already written.
        let resumable = ResumableUpload::new(id, owner, saved_request, content, context.now)?;
        self.0.table.lock().resumable.insert(uuid, Arc::new(resumable));
        Ok(UnacknowledgedUpload { uploads: self.clone(), id: uuid, acknowledged: false })
    }

    /// Returns a resumable upload; `None` where it doesn't exist, has expired, or belongs to another token.
    pub(super) fn find(&self, id: Uuid, token: TokenId) -> Option<Arc<ResumableUpload>> {
        let resumable = self.0.table.lock().resumable.get(&id).cloned()?;
        // Another token of the same user must not find it: it may have other scopes.
        (resumable.token == token && !resumable.is_expired(self.0.clock.retention_time())).then_some(resumable)
    }

    /// Deletes a resumable upload and cancels a request that is using it; may block.
    ///
    /// # Errors
    /// The errors of the tree.
    pub(super) fn delete(&self, id: Uuid) -> Result<()> {
        let _update_guard = self.0.update_lock.lock();
        let Some(resumable) = self.0.table.lock().resumable.remove(&id) else { return Ok(()) };
        // Ends a request that is writing before its file is removed.
        resumable.mark_deleted();
        Ok(self.0.tree.discard_upload(resumable.id, [&resumable.staged_part])?)
    }

    /// Creates a chunked upload, of so many bytes where that is known; false when one of that name exists. May block.
    ///
    /// # Errors
    /// As [`UnfinishedUploads::check_limits`], and the errors of the tree.
    pub(super) fn create_chunked(
        &self,
        view: &View,
        name: &EntryName,
        length: Option<u64>,
        now: UnixMillis,
    ) -> Result<bool> {
        let session = view.session();
        let key = (session.token(), name.clone());
        if self.find_chunked(key.0, name, now).is_some() {
            return Ok(false);
        }
        // Not under the update lock, which a sweep takes.
        self.check_limits(session, length)?;
        let _update_guard = self.0.update_lock.lock();
        let table = self.0.table.lock();
        if table.chunked.contains_key(&key) {
            return Ok(false);
        }
        table.check_counts(session)?;
        // Requests for other uploads need not wait for the store.
        drop(table);
        let id = view.begin_pending_upload(name.as_bytes(), now)?;
        let chunked = ChunkedUpload { id, login: session.login().clone(), state: Mutex::new((BTreeMap::new(), now)) };
        self.0.table.lock().chunked.insert(key, Arc::new(chunked));
        Ok(true)
    }

    /// Returns a chunked upload of a token, and records that it was used.
    pub(super) fn find_chunked(&self, token: TokenId, name: &EntryName, now: UnixMillis) -> Option<Arc<ChunkedUpload>> {
        let found = self.0.table.lock().chunked.get(&(token, name.clone())).cloned()?;
        let mut state = found.state.lock();
        if is_expired(state.1, self.0.clock.retention_time()) {
            return None;
        }
        // In memory only: the store learns of it with the next chunk.
        state.1 = now;
        drop(state);
        Some(found)
    }

    /// Deletes a chunked upload; may block.
    ///
    /// # Errors
    /// The errors of the tree.
    pub(super) fn delete_chunked(&self, token: TokenId, name: &EntryName) -> Result<()> {
        let _update_guard = self.0.update_lock.lock();
        let removed = self.0.table.lock().chunked.remove(&(token, name.clone()));
        removed.map_or(Ok(()), |chunked| self.discard_chunked(&chunked))
    }

    fn discard_chunked(&self, chunked: &ChunkedUpload) -> Result<()> {
        let parts = chunked.chunks();
        Ok(self.0.tree.discard_upload(chunked.id, parts.iter().map(|(_, chunk)| &chunk.staged_part))?)
    }

    /// Returns the reservation of a chunk of which nothing was received yet.
    pub(super) fn empty_reservation(&self, login: &Login) -> UploadReservation {
        self.0.quota.reserve_written(login, 0)
    }

    /// Stores a chunk of an upload, and returns whether it replaced one of the same name. May block.
    ///
    /// # Errors
    /// [`Error::TooManyUploads`] when the uploads of the token together have too many chunks; the errors of the tree.
    pub(super) fn store_chunk(
        &self,
        view: &View,
        chunked: &ChunkedUpload,
        name: ChunkName,
        (synced_part, reservation): (SyncedPart, UploadReservation),
        now: UnixMillis,
    ) -> Result<bool> {
        let _update_guard = self.0.update_lock.lock();
        // A replaced chunk doesn't raise the number.
        if !chunked.contains(&name) && self.0.table.lock().chunk_count(view.session().token()) >= MAX_CHUNKS_PER_TOKEN {
            return Err(Error::TooManyUploads);
        }
        let size = synced_part.size();
        // The row first, then memory, and the replaced content last: at no moment does a row name a missing file.
        let staged_part = view.keep_part(chunked.id, name.as_bytes(), synced_part, now)?;
        let chunk = Arc::new(UploadChunk { size, staged_part, _reservation: reservation });
        match chunked.state.lock().0.entry(name) {
            Entry::Occupied(mut occupied) => {
                occupied.insert(chunk).staged_part.discard()?;
                Ok(true)
            }
            Entry::Vacant(vacant) => {
                vacant.insert(chunk);
                Ok(false)
            }
        }
    }

    /// Removes a chunk; false when there was none. May block.
    ///
    /// # Errors
    /// The errors of the tree.
    pub(super) fn remove_chunk(&self, chunked: &ChunkedUpload, name: &ChunkName) -> Result<bool> {
        let _update_guard = self.0.update_lock.lock();
        let Some(chunk) = chunked.state.lock().0.remove(name) else { return Ok(false) };
        self.0.tree.discard_part(chunked.id, name.as_bytes(), &chunk.staged_part)?;
        Ok(true)
    }

    /// Deletes uploads that expired, and those of invalid tokens.
    fn delete_expired(&self) {
        let mut update_guard = self.0.update_lock.lock();
        // Read before the rows: a token that is revoked in between is found by the next sweep.
        let epoch = self.0.tree.revocation_epoch().ok();
        // Without an answer of the store nothing is deleted: an outage must not cost uploads.
        let Ok(live_ids) = self
            .0
            .tree
            .live_upload_ids()
            .inspect_err(|error| tracing::warn!(%error, "unfinished uploads could not be checked for expiration"))
        else {
            return;
        };
        *update_guard = epoch;
        let (resumable, chunked) = self.0.table.lock().take_expired(&live_ids, self.0.clock.retention_time());
        for resumable in resumable {
            resumable.mark_deleted();
            log_discard_failure(
                self.0.tree.discard_upload(resumable.id, [&resumable.staged_part]).map_err(Error::from),
            );
        }
        chunked.iter().for_each(|chunked| log_discard_failure(self.discard_chunked(chunked)));
    }
}

/// Upload whose URL the client does not know yet: dropping this deletes it.
pub(super) struct UnacknowledgedUpload {
    uploads: UnfinishedUploads,
    id: Uuid,
    acknowledged: bool,
}

impl UnacknowledgedUpload {
    /// Returns the identifier in the URL of the upload.
    pub(super) fn id(&self) -> Uuid {
        self.id
    }

    /// Keeps the upload: the response with its URL is about to be sent.
    pub(super) fn acknowledge(mut self) {
        self.acknowledged = true;
    }

    /// Deletes the upload.
    ///
    /// # Errors
    /// The errors of the tree.
    pub(super) async fn delete(mut self) -> Result<()> {
        // Keeps `drop` from deleting it a second time.
        self.acknowledged = true;
        let (uploads, id) = (self.uploads.clone(), self.id);
        run_blocking(move || uploads.delete(id)).await
    }
}

impl Drop for UnacknowledgedUpload {
    fn drop(&mut self) {
        if self.acknowledged {
            return;
        }
        let (uploads, id) = (self.uploads.clone(), self.id);
        let delete = move || log_discard_failure(uploads.delete(id));
        // Deleting blocks, and this may run on a thread of the runtime.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(delete)),
            Err(_) => delete(),
        }
    }
}

/// Logs a failure to discard an upload; the next start of the server tries again.
fn log_discard_failure(result: Result<()>) {
    if let Err(error) = result {
        tracing::warn!(
            %error,
            "the remains of an upload could not be removed: they stay until the server is restarted"
        );
    }
}

impl UnfinishedUploadTable {
    /// Adds an upload from the store; `None` where it can't be parsed.
    fn restore(&mut self, pending: PendingUpload, quota: &UploadQuota) -> Option<()> {
        let PendingUpload { id, token, login, name, request, updated_at: last_used, parts } = pending;
        // No request: a chunked upload, whose destination comes with its MOVE.
        let Some(request) = request else {
            let key = (token, EntryName::new(&name).ok()?);
            let parts = parts.into_iter().filter_map(|(name, size, staged_part)| {
                let name = ChunkName::new(&EntryName::new(&name).ok()?);
                Some((
                    name,
                    Arc::new(UploadChunk { size, staged_part, _reservation: quota.reserve_written(&login, size) }),
                ))
            });
            let state = Mutex::new((parts.collect(), last_used));
            self.chunked.insert(key, Arc::new(ChunkedUpload { id, login, state }));
            return Some(());
        };
        let (_, offset, staged_part) = parts.into_iter().next()?;
        let content = (staged_part, ResumableProgress::recorded(quota, &login, offset));
        let (uuid, saved_request) = (Uuid::from_slice(&name).ok()?, SavedRequest::parse(&request)?);
        let resumable = ResumableUpload::new(id, (token, login), saved_request, content, last_used).ok()?;
        self.resumable.insert(uuid, Arc::new(resumable));
        Some(())
    }

    fn check_counts(&self, session: &Session) -> Result<()> {
        let resumable = self.resumable.values().map(|resumable| (resumable.token, &resumable.login));
        let chunked = self.chunked.iter().map(|((token, _), chunked)| (*token, &chunked.login));
        let of_user = resumable.chain(chunked).filter(|(_, login)| *login == session.login());
        let (mut user_count, mut token_count) = (0, 0);
        for (token, _) in of_user {
            user_count += 1;
            token_count += usize::from(token == session.token());
        }
        if token_count < MAX_UPLOADS_PER_TOKEN && user_count < MAX_UPLOADS_PER_USER {
            Ok(())
        } else {
            Err(Error::TooManyUploads)
        }
    }

    /// Returns the number of chunks in all uploads of a token.
    fn chunk_count(&self, token: TokenId) -> usize {
        let uploads_of_token = self.chunked.iter().filter(|((owner, _), _)| *owner == token);
        uploads_of_token.map(|(_, chunked)| chunked.state.lock().0.len()).sum()
    }

    fn has_expired(&self, now: UnixMillis) -> bool {
        let chunked = || self.chunked.values().any(|chunked| is_expired(chunked.state.lock().1, now));
        self.resumable.values().any(|resumable| resumable.is_expired(now)) || chunked()
    }

    /// Removes and returns the uploads that expired, and those whose tokens are not valid any more.
    fn take_expired(
        &mut self,
        live_ids: &HashSet<i64>,
        now: UnixMillis,
    ) -> (Vec<Arc<ResumableUpload>>, Vec<Arc<ChunkedUpload>>) {
        let should_delete =
            |resumable: &ResumableUpload| resumable.is_expired(now) || !live_ids.contains(&resumable.id);
        let resumable = self
            .resumable
            .extract_if(|_, resumable| should_delete(resumable))
            .map(|(_, resumable)| resumable)
            .collect();
        let should_delete =
            |chunked: &ChunkedUpload| is_expired(chunked.state.lock().1, now) || !live_ids.contains(&chunked.id);
        let chunked =
            self.chunked.extract_if(|_, chunked| should_delete(chunked)).map(|(_, chunked)| chunked).collect();
        (resumable, chunked)
    }
}

impl ChunkedUpload {
    fn contains(&self, name: &ChunkName) -> bool {
        self.state.lock().0.contains_key(name)
    }

    /// Returns the chunks in their order.
    pub(super) fn chunks(&self) -> Vec<(ChunkName, Arc<UploadChunk>)> {
        self.state.lock().0.iter().map(|(name, chunk)| (name.clone(), Arc::clone(chunk))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_ordered_by_number() {
        let mut names = ["10", "9", "000000000000001-000000000000002", "00002", "x", ".file"]
            .map(|n| ChunkName::new(&EntryName::new(n.as_bytes()).expect(n)));
        names.sort();
        let order: Vec<_> = names.iter().map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned()).collect();
        assert_eq!(order, ["000000000000001-000000000000002", "00002", "9", "10", ".file", "x"]);
    }
}
