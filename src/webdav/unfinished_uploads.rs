//! The unfinished uploads that wait for more requests: bounded in number for each token and user, in age, and in what
//! all of them hold. They belong to the token that began them: to others of the same user they are as if not there.
//!
//! What is known of them is written down by the tree, so that they outlive a restart; memory holds the same, and which
//! of them a request works on. Changes of the two are made one at a time, so that they agree.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::error::{Error, Result, run_blocking};
use super::headers;
use super::request_context::RequestContext;
use super::saved_request::SavedRequest;
use super::upload_quota::{UploadQuota, UploadReservation};
use crate::auth::{Clock, Session};
use crate::domain::{EntryName, Login, TokenId, UnixMillis, UploadSpaces};
use crate::tree::{PendingUpload, StagedPart, StagedUpload, SyncedPart, Tree, View};

/// How many may wait for one token.
const MAX_UPLOADS_PER_TOKEN: usize = 64;
/// How many may wait for all tokens of one user.
const MAX_UPLOADS_PER_USER: usize = 4 * MAX_UPLOADS_PER_TOKEN;
/// How many parts all uploads of one token may have.
const MAX_CHUNKS_PER_TOKEN: usize = 10_000;
/// How long one may wait for its next request.
pub(super) const UPLOAD_MAX_IDLE: Duration = Duration::from_secs(24 * 3600);
/// How often those that waited too long, or whose tokens have died, are looked for, besides whenever one begins.
const EXPIRATION_INTERVAL: Duration = Duration::from_secs(60);
/// How long a request waits for another one that works on the same upload and was told to stop.
const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(5);

/// All unfinished uploads; clones share them.
#[derive(Clone)]
pub(super) struct UnfinishedUploads(Arc<UploadsInner>);

struct UploadsInner {
    tree: Tree,
    quota: UploadQuota,
    clock: Clock,
    table: Mutex<UnfinishedUploadTable>,
    /// Held while table and store change together: the epoch at which dead tokens were last looked for.
    update_lock: Mutex<Option<i64>>,
}

#[derive(Default)]
struct UnfinishedUploadTable {
    resumable: HashMap<Uuid, Arc<ResumableUpload>>,
    chunked: HashMap<(TokenId, EntryName), Arc<ChunkedUpload>>,
}

/// An upload that goes on where the last request ended.
pub(super) struct ResumableUpload {
    id: i64,
    token: TokenId,
    login: Login,
    /// The request that began it: where it goes, under which conditions, and what was announced of it.
    pub(super) saved_request: SavedRequest,
    /// How long all of it will be, where that was announced.
    pub(super) length: Option<u64>,
    /// Its content.
    pub(super) staged_part: StagedPart,
    state: Mutex<ResumableState>,
    released: Notify,
}

struct ResumableState {
    progress: Option<ResumableProgress>,
    cancel_request: CancellationToken,
    last_used: UnixMillis,
    deleted: bool,
}

/// How far an upload has come.
pub(super) struct ResumableProgress {
    /// How many bytes have come.
    pub(super) offset: u64,
    /// How many of them are written down.
    recorded_offset: u64,
    /// The weight of them, and of what is announced.
    pub(super) reservation: UploadReservation,
}

/// An upload in parts, each sent under a name of its own and put together in the order of their names.
pub(super) struct ChunkedUpload {
    id: i64,
    login: Login,
    state: Mutex<(BTreeMap<ChunkName, Arc<UploadChunk>>, UnixMillis)>,
}

/// A part.
pub(super) struct UploadChunk {
    /// How long it is.
    pub(super) size: u64,
    /// Its content.
    pub(super) staged_part: StagedPart,
    _reservation: UploadReservation,
}

/// The name of a part: a number, if it begins with one, and then by its bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ChunkName(u64, EntryName);

impl ChunkName {
    /// Takes the last part of a path.
    pub(super) fn new(name: &EntryName) -> Self {
        let bytes = name.as_bytes();
        let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number = std::str::from_utf8(&bytes[..digits]).ok().and_then(|digits| digits.parse().ok());
        Self(number.unwrap_or(u64::MAX), name.clone())
    }

    /// Returns it as it was sent.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.1.as_bytes()
    }
}

impl UnfinishedUploads {
    /// Finds the uploads that were left unfinished when the server last stopped; they grow old by `clock`.
    pub(super) fn new(tree: Tree, limits: UploadSpaces, clock: Clock) -> Self {
        let quota = UploadQuota::new(tree.clone(), limits);
        let pending = tree.pending_uploads(clock.retention_time().saturating_sub(UPLOAD_MAX_IDLE));
        let pending = pending.inspect_err(|error| tracing::error!(%error, "unfinished uploads can't be gone on with"));
        let mut table = UnfinishedUploadTable::default();
        for upload in pending.unwrap_or_default() {
            let id = upload.id;
            if table.restore(upload, &quota).is_none()
                && let Err(error) = tree.discard_upload(id, [])
            {
                tracing::warn!(%error, "an unfinished upload that can't be read stays");
            }
        }
        Self(Arc::new(UploadsInner { tree, quota, clock, table: Mutex::new(table), update_lock: Mutex::default() }))
    }

    /// Sweeps now and then what waited too long or belongs to a dead token, as long as anybody shares it.
    pub(super) fn spawn_expiration_task(&self) {
        let inner: Weak<UploadsInner> = Arc::downgrade(&self.0);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(EXPIRATION_INTERVAL).await;
                let Some(inner) = inner.upgrade() else { return };
                drop(tokio::task::spawn_blocking(move || Self(inner).delete_expired()).await);
            }
        });
    }

    /// Lets one more upload begin, of so many bytes where that is known; may block.
    ///
    /// # Errors
    /// [`Error::TooManyUploads`] when the token or its user has too many, [`Error::TooManyBrowserSessions`] when the user's, or all, hold too much.
    pub(super) fn check_limits(&self, session: &Session, length: Option<u64>) -> Result<()> {
        let epoch = self.0.tree.revocation_epoch()?;
        let old = self.0.table.lock().has_expired(self.0.clock.retention_time());
        let swept_at = *self.0.update_lock.lock();
        if old || swept_at != Some(epoch) {
            self.delete_expired();
        }
        self.0.table.lock().check_counts(session)?;
        self.0.quota.check_available(session.login(), length)
    }

    /// Begins an upload of which nothing has come yet; may block.
    ///
    /// # Errors
    /// [`Error::TooManyUploads`]; what the tree says.
    pub(super) fn create(&self, context: &RequestContext, upload: StagedUpload) -> Result<UnacknowledgedUpload> {
        let (uuid, session, saved_request) =
            (Uuid::new_v4(), context.view.session(), SavedRequest::from_context(context));
        let _update_guard = self.0.update_lock.lock();
        self.0.table.lock().check_counts(session)?;
        let (id, staged_part) = upload.suspend(uuid.as_bytes(), &saved_request.to_bytes(), context.now)?;
        let owner = (session.token(), session.login().clone());
        let content = (staged_part, ResumableProgress::recorded(&self.0.quota, &owner.1, 0));
        let resumable = ResumableUpload::new(id, owner, saved_request, content, context.now)?;
        self.0.table.lock().resumable.insert(uuid, Arc::new(resumable));
        Ok(UnacknowledgedUpload { uploads: self.clone(), id: uuid, acknowledged: false })
    }

    /// Returns an upload of a token.
    pub(super) fn find(&self, id: Uuid, token: TokenId) -> Option<Arc<ResumableUpload>> {
        let resumable = self.0.table.lock().resumable.get(&id).cloned()?;
        (resumable.token == token && !resumable.is_expired(self.0.clock.retention_time())).then_some(resumable)
    }

    /// Ends an upload, also for a request that works on it; may block.
    ///
    /// # Errors
    /// What the tree says.
    pub(super) fn delete(&self, id: Uuid) -> Result<()> {
        let _update_guard = self.0.update_lock.lock();
        let Some(resumable) = self.0.table.lock().resumable.remove(&id) else { return Ok(()) };
        resumable.mark_deleted();
        Ok(self.0.tree.discard_upload(resumable.id, [&resumable.staged_part])?)
    }

    /// Begins an upload in parts, of so many bytes where that is known; false when there is one of that name. May block.
    ///
    /// # Errors
    /// As [`UnfinishedUploads::check_limits`], and what the tree says.
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
        self.check_limits(session, length)?;
        let _update_guard = self.0.update_lock.lock();
        let table = self.0.table.lock();
        if table.chunked.contains_key(&key) {
            return Ok(false);
        }
        table.check_counts(session)?;
        drop(table);
        let id = view.begin_pending_upload(name.as_bytes(), now)?;
        let chunked = ChunkedUpload { id, login: session.login().clone(), state: Mutex::new((BTreeMap::new(), now)) };
        self.0.table.lock().chunked.insert(key, Arc::new(chunked));
        Ok(true)
    }

    /// Returns a token's upload in parts.
    pub(super) fn find_chunked(&self, token: TokenId, name: &EntryName, now: UnixMillis) -> Option<Arc<ChunkedUpload>> {
        let found = self.0.table.lock().chunked.get(&(token, name.clone())).cloned()?;
        let mut state = found.state.lock();
        if is_expired(state.1, self.0.clock.retention_time()) {
            return None;
        }
        state.1 = now;
        drop(state);
        Some(found)
    }

    /// Ends an upload in parts; may block.
    ///
    /// # Errors
    /// What the tree says.
    pub(super) fn delete_chunked(&self, token: TokenId, name: &EntryName) -> Result<()> {
        let _update_guard = self.0.update_lock.lock();
        let removed = self.0.table.lock().chunked.remove(&(token, name.clone()));
        removed.map_or(Ok(()), |chunked| self.discard_chunked(&chunked))
    }

    fn discard_chunked(&self, chunked: &ChunkedUpload) -> Result<()> {
        let parts = chunked.chunks();
        Ok(self.0.tree.discard_upload(chunked.id, parts.iter().map(|(_, chunk)| &chunk.staged_part))?)
    }

    /// Returns the weight of a part that has not come yet.
    pub(super) fn empty_reservation(&self, login: &Login) -> UploadReservation {
        self.0.quota.reserve_written(login, 0)
    }

    /// Keeps a part of an upload, in place of one of the same name; true when there was one. May block.
    ///
    /// # Errors
    /// [`Error::TooManyUploads`] when all uploads of the token together have too many; what the tree says.
    pub(super) fn store_chunk(
        &self,
        view: &View,
        chunked: &ChunkedUpload,
        name: ChunkName,
        (synced_part, reservation): (SyncedPart, UploadReservation),
        now: UnixMillis,
    ) -> Result<bool> {
        let _update_guard = self.0.update_lock.lock();
        if !chunked.contains(&name) && self.0.table.lock().chunk_count(view.session().token()) >= MAX_CHUNKS_PER_TOKEN {
            return Err(Error::TooManyUploads);
        }
        let size = synced_part.size();
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

    /// Removes a part; false when there was none. May block.
    ///
    /// # Errors
    /// What the tree says.
    pub(super) fn remove_chunk(&self, chunked: &ChunkedUpload, name: &ChunkName) -> Result<bool> {
        let _update_guard = self.0.update_lock.lock();
        let Some(chunk) = chunked.state.lock().0.remove(name) else { return Ok(false) };
        self.0.tree.discard_part(chunked.id, name.as_bytes(), &chunk.staged_part)?;
        Ok(true)
    }

    /// Discards what waited too long, and what belongs to a dead token.
    fn delete_expired(&self) {
        let mut update_guard = self.0.update_lock.lock();
        let epoch = self.0.tree.revocation_epoch().ok();
        let Ok(live_ids) = self.0.tree.live_upload_ids().inspect_err(|error| tracing::warn!(%error, "no sweep")) else {
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

/// An upload that its client does not know of yet: it ends when this is dropped.
pub(super) struct UnacknowledgedUpload {
    uploads: UnfinishedUploads,
    id: Uuid,
    acknowledged: bool,
}

impl UnacknowledgedUpload {
    /// Returns its name.
    pub(super) fn id(&self) -> Uuid {
        self.id
    }

    /// Lets it go on: its client is told of it.
    pub(super) fn acknowledge(mut self) {
        self.acknowledged = true;
    }

    /// Ends it.
    ///
    /// # Errors
    /// What the tree says.
    pub(super) async fn delete(mut self) -> Result<()> {
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
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(delete)),
            Err(_) => delete(),
        }
    }
}

/// Tells the log of what could not be swept: the next start does it.
fn log_discard_failure(result: Result<()>) {
    if let Err(error) = result {
        tracing::warn!(%error, "what is left of an upload stays for now");
    }
}

impl UnfinishedUploadTable {
    /// Takes in what was written down; none for what can't be read.
    fn restore(&mut self, pending: PendingUpload, quota: &UploadQuota) -> Option<()> {
        let PendingUpload { id, token, login, name, request, updated_at: last_used, parts } = pending;
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

    /// Returns how many parts all uploads of a token have.
    fn chunk_count(&self, token: TokenId) -> usize {
        let uploads_of_token = self.chunked.iter().filter(|((owner, _), _)| *owner == token);
        uploads_of_token.map(|(_, chunked)| chunked.state.lock().0.len()).sum()
    }

    fn has_expired(&self, now: UnixMillis) -> bool {
        let chunked = || self.chunked.values().any(|chunked| is_expired(chunked.state.lock().1, now));
        self.resumable.values().any(|resumable| resumable.is_expired(now)) || chunked()
    }

    /// Takes out what waited too long, and what does not live any more.
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

fn is_expired(last_used: UnixMillis, now: UnixMillis) -> bool {
    now.saturating_duration_since(last_used) > UPLOAD_MAX_IDLE
}

impl ResumableUpload {
    /// Builds an upload from what the store keeps of it, just after its creation as well as after a restart.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the saved request announces a length that is not a number.
    fn new(
        id: i64,
        (token, login): (TokenId, Login),
        saved_request: SavedRequest,
        (staged_part, progress): (StagedPart, ResumableProgress),
        last_used: UnixMillis,
    ) -> Result<Self> {
        let length = headers::upload_length(saved_request.headers())?;
        let state = ResumableState {
            progress: Some(progress),
            cancel_request: CancellationToken::new(),
            last_used,
            deleted: false,
        };
        let (state, released) = (Mutex::new(state), Notify::new());
        Ok(Self { id, token, login, saved_request, length, staged_part, state, released })
    }

    fn is_expired(&self, now: UnixMillis) -> bool {
        let state = self.state.lock();
        state.progress.is_some() && is_expired(state.last_used, now)
    }

    /// Takes hold of the content; a request that works on it is told to stop, and waited for.
    ///
    /// # Errors
    /// [`Error::UploadInUse`] when that one does not stop in time; [`Error::NotFound`] when it has ended meanwhile.
    pub(super) async fn take_over(&self, now: UnixMillis) -> Result<(ResumableProgress, CancellationToken)> {
        let takeover = tokio::time::timeout(TAKEOVER_TIMEOUT, async {
            loop {
                let released = self.released.notified();
                let mut released = std::pin::pin!(released);
                released.as_mut().enable();
                {
                    let mut state = self.state.lock();
                    state.last_used = now;
                    if state.deleted {
                        return Err(Error::NotFound);
                    }
                    if let Some(progress) = state.progress.take() {
                        state.cancel_request = CancellationToken::new();
                        return Ok((progress, state.cancel_request.clone()));
                    }
                    state.cancel_request.cancel();
                }
                released.await;
            }
        });
        takeover.await.map_err(|_| Error::UploadInUse)?
    }

    /// Puts the content back; what was announced of it and has not come weighs nothing any more.
    pub(super) fn release(&self, mut progress: ResumableProgress) {
        progress.reservation.shrink_to(progress.offset);
        let mut state = self.state.lock();
        if !state.deleted {
            state.progress = Some(progress);
        }
        drop(state);
        self.released.notify_waiters();
    }

    /// Writes down how far the content has come, so that it can be told; may block.
    ///
    /// # Errors
    /// What the tree says.
    pub(super) fn record_offset(&self, view: &View, progress: &mut ResumableProgress, now: UnixMillis) -> Result<()> {
        if progress.recorded_offset != progress.offset {
            view.record_progress(self.id, &self.staged_part, progress.offset, now)?;
            progress.recorded_offset = progress.offset;
        }
        Ok(())
    }

    /// Ends it for a request that works on it, and for those that wait.
    fn mark_deleted(&self) {
        let mut state = self.state.lock();
        state.deleted = true;
        state.cancel_request.cancel();
        state.progress = None;
        drop(state);
        self.released.notify_waiters();
    }
}

impl ResumableProgress {
    /// Returns the progress of an upload all of which is recorded.
    fn recorded(quota: &UploadQuota, login: &Login, offset: u64) -> Self {
        Self { offset, recorded_offset: offset, reservation: quota.reserve_written(login, offset) }
    }

    /// Returns how much has come since it was last written down.
    pub(super) fn unrecorded_bytes(&self) -> u64 {
        self.offset.saturating_sub(self.recorded_offset)
    }
}

impl ChunkedUpload {
    fn contains(&self, name: &ChunkName) -> bool {
        self.state.lock().0.contains_key(name)
    }

    /// Returns the parts in their order.
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
        let update_guard: Vec<_> =
            names.iter().map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned()).collect();
        assert_eq!(update_guard, ["000000000000001-000000000000002", "00002", "9", "10", ".file", "x"]);
    }
}
