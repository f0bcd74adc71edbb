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

use super::begun::Begun;
use super::call::Call;
use super::error::{Error, Result, blocking};
use super::weight::{Scales, Weight};
use crate::auth::{Clock, Session};
use crate::domain::{EntryName, Login, TokenId, UnixMillis, UploadSpaces};
use crate::tree::{PendingUpload, StagedPart, StagedUpload, SyncedPart, Tree, View};

/// How many may wait for one token.
const MOST: usize = 64;
/// How many may wait for all tokens of one user.
const MOST_OF_USER: usize = 4 * MOST;
/// How many parts all uploads of one token may have.
const MOST_CHUNKS: usize = 10_000;
/// How long one may wait for its next request.
pub(super) const LIFE: Duration = Duration::from_secs(24 * 3600);
/// How often those that waited too long, or whose tokens have died, are looked for, besides whenever one begins.
const SWEEP: Duration = Duration::from_secs(60);
/// How long a request waits for another one that works on the same upload and was told to stop.
const PATIENCE: Duration = Duration::from_secs(5);

/// All unfinished uploads; clones share them.
#[derive(Clone)]
pub(super) struct Uploads(Arc<Inner>);

struct Inner {
    tree: Tree,
    scales: Scales,
    clock: Clock,
    table: Mutex<Table>,
    /// Held while table and store change together: the epoch at which dead tokens were last looked for.
    order: Mutex<Option<i64>>,
}

#[derive(Default)]
struct Table {
    open: HashMap<Uuid, Arc<Open>>,
    chunked: HashMap<(TokenId, EntryName), Arc<Chunked>>,
}

/// An upload that goes on where the last request ended.
pub(super) struct Open {
    id: i64,
    token: TokenId,
    login: Login,
    /// The request that began it: where it goes, under which conditions, and what was announced of it.
    pub(super) begun: Begun,
    /// How long all of it will be, where that was announced.
    pub(super) length: Option<u64>,
    /// Its content.
    pub(super) waiting: StagedPart,
    state: Mutex<State>,
    returned: Notify,
}

struct State {
    content: Option<Content>,
    stop: CancellationToken,
    touched: UnixMillis,
    ended: bool,
}

/// How far an upload has come.
pub(super) struct Content {
    /// How many bytes have come.
    pub(super) offset: u64,
    /// How many of them are written down.
    noted: u64,
    /// The weight of them, and of what is announced.
    pub(super) weight: Weight,
}

/// An upload in parts, each sent under a name of its own and put together in the order of their names.
pub(super) struct Chunked {
    id: i64,
    login: Login,
    state: Mutex<(BTreeMap<ChunkName, Arc<Chunk>>, UnixMillis)>,
}

/// A part.
pub(super) struct Chunk {
    /// How long it is.
    pub(super) size: u64,
    /// Its content.
    pub(super) waiting: StagedPart,
    _weight: Weight,
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

impl Uploads {
    /// Finds the uploads that were left unfinished when the server last stopped; they grow old by `clock`.
    pub(super) fn new(tree: Tree, most: UploadSpaces, clock: Clock) -> Self {
        let scales = Scales::new(tree.clone(), most);
        let left = tree.pending_uploads(clock.retention_time().saturating_sub(LIFE));
        let left = left.inspect_err(|error| tracing::error!(%error, "unfinished uploads can't be gone on with"));
        let mut table = Table::default();
        for upload in left.unwrap_or_default() {
            let id = upload.id;
            if table.take_back(upload, &scales).is_none()
                && let Err(error) = tree.discard_upload(id, [])
            {
                tracing::warn!(%error, "an unfinished upload that can't be read stays");
            }
        }
        Self(Arc::new(Inner { tree, scales, clock, table: Mutex::new(table), order: Mutex::default() }))
    }

    /// Sweeps now and then what waited too long or belongs to a dead token, as long as anybody shares it.
    pub(super) fn sweep_now_and_then(&self) {
        let inner: Weak<Inner> = Arc::downgrade(&self.0);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                let Some(inner) = inner.upgrade() else { return };
                drop(tokio::task::spawn_blocking(move || Self(inner).sweep()).await);
            }
        });
    }

    /// Lets one more upload begin, of so many bytes where that is known; may block.
    ///
    /// # Errors
    /// [`Error::Crowded`] when the token or its user has too many, [`Error::Full`] when the user's, or all, hold too much.
    pub(super) fn admit(&self, session: &Session, length: Option<u64>) -> Result<()> {
        let epoch = self.0.tree.revocation_epoch()?;
        let old = self.0.table.lock().holds_old(self.0.clock.retention_time());
        let swept_at = *self.0.order.lock();
        if old || swept_at != Some(epoch) {
            self.sweep();
        }
        self.0.table.lock().room(session)?;
        self.0.scales.admit(session.login(), length)
    }

    /// Begins an upload of which nothing has come yet; may block.
    ///
    /// # Errors
    /// [`Error::Crowded`]; what the tree says.
    pub(super) fn begin(&self, call: &Call, length: Option<u64>, upload: StagedUpload) -> Result<Unknown> {
        let (uuid, session, begun) = (Uuid::new_v4(), call.view.session(), Begun::of(call));
        let _order = self.0.order.lock();
        self.0.table.lock().room(session)?;
        let (id, waiting) = upload.suspend(uuid.as_bytes(), &begun.to_bytes(), call.now)?;
        let (token, login) = (session.token(), session.login().clone());
        let content = Content { offset: 0, noted: 0, weight: self.0.scales.hold(session.login(), 0) };
        let state = State::new(content, call.now);
        let open = Open { id, token, login, begun, length, waiting, state, returned: Notify::new() };
        self.0.table.lock().open.insert(uuid, Arc::new(open));
        Ok(Unknown { uploads: self.clone(), id: uuid, known: false })
    }

    /// Returns an upload of a token.
    pub(super) fn find(&self, id: Uuid, token: TokenId) -> Option<Arc<Open>> {
        let open = self.0.table.lock().open.get(&id).cloned()?;
        (open.token == token && !open.is_old(self.0.clock.retention_time())).then_some(open)
    }

    /// Ends an upload, also for a request that works on it; may block.
    ///
    /// # Errors
    /// What the tree says.
    pub(super) fn end(&self, id: Uuid) -> Result<()> {
        let _order = self.0.order.lock();
        let Some(open) = self.0.table.lock().open.remove(&id) else { return Ok(()) };
        open.cancel();
        Ok(self.0.tree.discard_upload(open.id, [&open.waiting])?)
    }

    /// Begins an upload in parts, of so many bytes where that is known; false when there is one of that name. May block.
    ///
    /// # Errors
    /// As [`Uploads::admit`], and what the tree says.
    pub(super) fn begin_chunked(
        &self,
        view: &View,
        name: &EntryName,
        length: Option<u64>,
        now: UnixMillis,
    ) -> Result<bool> {
        let session = view.session();
        let key = (session.token(), name.clone());
        if self.chunked(key.0, name, now).is_some() {
            return Ok(false);
        }
        self.admit(session, length)?;
        let _order = self.0.order.lock();
        let table = self.0.table.lock();
        if table.chunked.contains_key(&key) {
            return Ok(false);
        }
        table.room(session)?;
        drop(table);
        let id = view.begin_pending_upload(name.as_bytes(), now)?;
        let chunked = Chunked { id, login: session.login().clone(), state: Mutex::new((BTreeMap::new(), now)) };
        self.0.table.lock().chunked.insert(key, Arc::new(chunked));
        Ok(true)
    }

    /// Returns a token's upload in parts.
    pub(super) fn chunked(&self, token: TokenId, name: &EntryName, now: UnixMillis) -> Option<Arc<Chunked>> {
        let found = self.0.table.lock().chunked.get(&(token, name.clone())).cloned()?;
        let mut state = found.state.lock();
        if is_old(state.1, self.0.clock.retention_time()) {
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
    pub(super) fn end_chunked(&self, token: TokenId, name: &EntryName) -> Result<()> {
        let _order = self.0.order.lock();
        let gone = self.0.table.lock().chunked.remove(&(token, name.clone()));
        gone.map_or(Ok(()), |chunked| self.discard(&chunked))
    }

    fn discard(&self, chunked: &Chunked) -> Result<()> {
        let parts = chunked.parts();
        Ok(self.0.tree.discard_upload(chunked.id, parts.iter().map(|(_, chunk)| &chunk.waiting))?)
    }

    /// Returns the weight of a part that has not come yet.
    pub(super) fn weight(&self, login: &Login) -> Weight {
        self.0.scales.hold(login, 0)
    }

    /// Keeps a part of an upload, in place of one of the same name; true when there was one. May block.
    ///
    /// # Errors
    /// [`Error::Crowded`] when all uploads of the token together have too many; what the tree says.
    pub(super) fn keep(
        &self,
        view: &View,
        chunked: &Chunked,
        name: ChunkName,
        (deposit, weight): (SyncedPart, Weight),
        now: UnixMillis,
    ) -> Result<bool> {
        let _order = self.0.order.lock();
        if !chunked.has(&name) && self.0.table.lock().parts(view.session().token()) >= MOST_CHUNKS {
            return Err(Error::Crowded);
        }
        let size = deposit.size();
        let waiting = view.keep_part(chunked.id, name.as_bytes(), deposit, now)?;
        let chunk = Arc::new(Chunk { size, waiting, _weight: weight });
        match chunked.state.lock().0.entry(name) {
            Entry::Occupied(mut there) => {
                there.insert(chunk).waiting.discard()?;
                Ok(true)
            }
            Entry::Vacant(free) => {
                free.insert(chunk);
                Ok(false)
            }
        }
    }

    /// Removes a part; false when there was none. May block.
    ///
    /// # Errors
    /// What the tree says.
    pub(super) fn remove(&self, chunked: &Chunked, name: &ChunkName) -> Result<bool> {
        let _order = self.0.order.lock();
        let Some(chunk) = chunked.state.lock().0.remove(name) else { return Ok(false) };
        self.0.tree.discard_part(chunked.id, name.as_bytes(), &chunk.waiting)?;
        Ok(true)
    }

    /// Discards what waited too long, and what belongs to a dead token.
    fn sweep(&self) {
        let mut order = self.0.order.lock();
        let epoch = self.0.tree.revocation_epoch().ok();
        let Ok(live) = self.0.tree.live_upload_ids().inspect_err(|error| tracing::warn!(%error, "no sweep")) else {
            return;
        };
        *order = epoch;
        let (open, chunked) = self.0.table.lock().sweep(&live, self.0.clock.retention_time());
        for open in open {
            open.cancel();
            told(self.0.tree.discard_upload(open.id, [&open.waiting]).map_err(Error::from));
        }
        chunked.iter().for_each(|chunked| told(self.discard(chunked)));
    }
}

/// An upload that its client does not know of yet: it ends when this is dropped.
pub(super) struct Unknown {
    uploads: Uploads,
    id: Uuid,
    known: bool,
}

impl Unknown {
    /// Returns its name.
    pub(super) fn id(&self) -> Uuid {
        self.id
    }

    /// Lets it go on: its client is told of it.
    pub(super) fn told(mut self) {
        self.known = true;
    }

    /// Ends it.
    ///
    /// # Errors
    /// What the tree says.
    pub(super) async fn end(mut self) -> Result<()> {
        self.known = true;
        let (uploads, id) = (self.uploads.clone(), self.id);
        blocking(move || uploads.end(id)).await
    }
}

impl Drop for Unknown {
    fn drop(&mut self) {
        if self.known {
            return;
        }
        let (uploads, id) = (self.uploads.clone(), self.id);
        let end = move || told(uploads.end(id));
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(end)),
            Err(_) => end(),
        }
    }
}

/// Tells the log of what could not be swept: the next start does it.
fn told(swept: Result<()>) {
    if let Err(error) = swept {
        tracing::warn!(%error, "what is left of an upload stays for now");
    }
}

impl Table {
    /// Takes in what was written down; none for what can't be read.
    fn take_back(&mut self, left: PendingUpload, scales: &Scales) -> Option<()> {
        let PendingUpload { id, token, login, name, request, updated_at: touched, parts } = left;
        let Some(request) = request else {
            let key = (token, EntryName::new(&name).ok()?);
            let parts = parts.into_iter().filter_map(|(name, size, waiting)| {
                let name = ChunkName::new(&EntryName::new(&name).ok()?);
                Some((name, Arc::new(Chunk { size, waiting, _weight: scales.hold(&login, size) })))
            });
            let state = Mutex::new((parts.collect(), touched));
            self.chunked.insert(key, Arc::new(Chunked { id, login, state }));
            return Some(());
        };
        let (_, offset, waiting) = parts.into_iter().next()?;
        let content = Content { offset, noted: offset, weight: scales.hold(&login, offset) };
        let state = State::new(content, touched);
        let (uuid, begun) = (Uuid::from_slice(&name).ok()?, Begun::parse(&request)?);
        let length = super::resume::length(begun.headers()).ok()?;
        let open = Open { id, token, login, begun, length, waiting, state, returned: Notify::new() };
        self.open.insert(uuid, Arc::new(open));
        Some(())
    }

    fn room(&self, session: &Session) -> Result<()> {
        let open = self.open.values().map(|open| (open.token, &open.login));
        let chunked = self.chunked.iter().map(|((token, _), chunked)| (*token, &chunked.login));
        let of_user = open.chain(chunked).filter(|(_, login)| *login == session.login());
        let (mut all, mut own) = (0, 0);
        for (token, _) in of_user {
            all += 1;
            own += usize::from(token == session.token());
        }
        if own < MOST && all < MOST_OF_USER { Ok(()) } else { Err(Error::Crowded) }
    }

    /// Returns how many parts all uploads of a token have.
    fn parts(&self, token: TokenId) -> usize {
        let own = self.chunked.iter().filter(|((owner, _), _)| *owner == token);
        own.map(|(_, chunked)| chunked.state.lock().0.len()).sum()
    }

    fn holds_old(&self, now: UnixMillis) -> bool {
        let chunked = || self.chunked.values().any(|chunked| is_old(chunked.state.lock().1, now));
        self.open.values().any(|open| open.is_old(now)) || chunked()
    }

    /// Takes out what waited too long, and what does not live any more.
    fn sweep(&mut self, live: &HashSet<i64>, now: UnixMillis) -> (Vec<Arc<Open>>, Vec<Arc<Chunked>>) {
        let over = |open: &Open| open.is_old(now) || !live.contains(&open.id);
        let open = self.open.extract_if(|_, open| over(open)).map(|(_, open)| open).collect();
        let over = |chunked: &Chunked| is_old(chunked.state.lock().1, now) || !live.contains(&chunked.id);
        let chunked = self.chunked.extract_if(|_, chunked| over(chunked)).map(|(_, chunked)| chunked).collect();
        (open, chunked)
    }
}

fn is_old(touched: UnixMillis, now: UnixMillis) -> bool {
    now.saturating_duration_since(touched) > LIFE
}

impl State {
    fn new(content: Content, touched: UnixMillis) -> Mutex<Self> {
        Mutex::new(Self { content: Some(content), stop: CancellationToken::new(), touched, ended: false })
    }
}

impl Open {
    fn is_old(&self, now: UnixMillis) -> bool {
        let state = self.state.lock();
        state.content.is_some() && is_old(state.touched, now)
    }

    /// Takes hold of the content; a request that works on it is told to stop, and waited for.
    ///
    /// # Errors
    /// [`Error::InUse`] when that one does not stop in time; [`Error::Elsewhere`] when it has ended meanwhile.
    pub(super) async fn take(&self, now: UnixMillis) -> Result<(Content, CancellationToken)> {
        let taken = tokio::time::timeout(PATIENCE, async {
            loop {
                let returned = self.returned.notified();
                let mut returned = std::pin::pin!(returned);
                returned.as_mut().enable();
                {
                    let mut state = self.state.lock();
                    state.touched = now;
                    if state.ended {
                        return Err(Error::Elsewhere);
                    }
                    if let Some(content) = state.content.take() {
                        state.stop = CancellationToken::new();
                        return Ok((content, state.stop.clone()));
                    }
                    state.stop.cancel();
                }
                returned.await;
            }
        });
        taken.await.map_err(|_| Error::InUse)?
    }

    /// Puts the content back; what was announced of it and has not come weighs nothing any more.
    pub(super) fn put_back(&self, mut content: Content) {
        content.weight.shrink_to(content.offset);
        let mut state = self.state.lock();
        if !state.ended {
            state.content = Some(content);
        }
        drop(state);
        self.returned.notify_waiters();
    }

    /// Writes down how far the content has come, so that it can be told; may block.
    ///
    /// # Errors
    /// What the tree says.
    pub(super) fn note(&self, view: &View, content: &mut Content, now: UnixMillis) -> Result<()> {
        if content.noted != content.offset {
            view.record_progress(self.id, &self.waiting, content.offset, now)?;
            content.noted = content.offset;
        }
        Ok(())
    }

    /// Ends it for a request that works on it, and for those that wait.
    fn cancel(&self) {
        let mut state = self.state.lock();
        state.ended = true;
        state.stop.cancel();
        state.content = None;
        drop(state);
        self.returned.notify_waiters();
    }
}

impl Content {
    /// Returns how much has come since it was last written down.
    pub(super) fn loose(&self) -> u64 {
        self.offset.saturating_sub(self.noted)
    }
}

impl Chunked {
    fn has(&self, name: &ChunkName) -> bool {
        self.state.lock().0.contains_key(name)
    }

    /// Returns the parts in their order.
    pub(super) fn parts(&self) -> Vec<(ChunkName, Arc<Chunk>)> {
        self.state.lock().0.iter().map(|(name, chunk)| (name.clone(), Arc::clone(chunk))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_in_the_order_of_their_numbers() {
        let mut names = ["10", "9", "000000000000001-000000000000002", "00002", "x", ".file"]
            .map(|n| ChunkName::new(&EntryName::new(n.as_bytes()).expect(n)));
        names.sort();
        let order: Vec<_> = names.iter().map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned()).collect();
        assert_eq!(order, ["000000000000001-000000000000002", "00002", "9", "10", ".file", "x"]);
    }
}
