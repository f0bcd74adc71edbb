//! The unfinished uploads that wait for more requests: bounded in number for each token and user, and in age. They
//! belong to the token that began them: to others of the same user they are as if not there.
//!
//! Their content waits in staging ([`Deposit`]), so that a restart sweeps it: a client is then told that the upload
//! is unknown, and begins anew. What is known of them is in memory alone.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::call::Call;
use super::error::{Error, Result};
use crate::auth::Session;
use crate::domain::{Login, Name, Time, TokenId};
use crate::tree::Deposit;

/// How many may wait for one token.
const MOST: usize = 64;
/// How many may wait for all tokens of one user.
const MOST_OF_USER: usize = 4 * MOST;
/// How many parts all uploads of one token may have.
const MOST_CHUNKS: usize = 10_000;
/// How long one may wait for its next request.
pub(super) const LIFE: Duration = Duration::from_secs(24 * 3600);
/// How often those that waited too long are looked for, besides whenever one begins.
const SWEEP: Duration = Duration::from_secs(600);
/// How long a request waits for another one that works on the same upload and was told to stop.
const PATIENCE: Duration = Duration::from_secs(5);

/// All unfinished uploads; clones share them.
#[derive(Clone, Default)]
pub(super) struct Uploads(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    open: HashMap<Uuid, Arc<Open>>,
    chunked: HashMap<(TokenId, Name), Arc<Chunked>>,
}

/// An upload that goes on where the last request ended.
pub(super) struct Open {
    /// The request that began it: where it goes, under which conditions, and what was announced of it.
    pub(super) begun: Arc<Call>,
    /// How long all of it will be, where that was announced.
    pub(super) length: Option<u64>,
    state: Mutex<State>,
    returned: Notify,
}

struct State {
    content: Option<(Deposit, u64)>,
    stop: CancellationToken,
    touched: Time,
    cancelled: bool,
}

/// An upload in parts, each sent under a name of its own and put together in the order of their names.
pub(super) struct Chunked {
    login: Login,
    state: Mutex<(BTreeMap<ChunkName, Arc<Deposit>>, Time)>,
}

/// The name of a part: a number, if it begins with one, and then by its bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ChunkName(u64, Name);

impl ChunkName {
    /// Takes the last part of a path.
    pub(super) fn new(name: &Name) -> Self {
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
    /// Sweeps now and then what waited too long, as long as anybody shares it; `now` tells the time.
    pub(super) fn sweep_by(&self, now: impl Fn() -> Time + Send + 'static) {
        let table: Weak<Mutex<Table>> = Arc::downgrade(&self.0);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                let Some(table) = table.upgrade() else { return };
                let swept = table.lock().sweep(now());
                drop(tokio::task::spawn_blocking(move || drop(swept)).await);
            }
        });
    }

    /// Begins an upload with what has come of it so far; may block. Returns its name.
    ///
    /// # Errors
    /// [`Error::Crowded`] when the token or its user has too many.
    pub(super) fn begin(&self, begun: &Arc<Call>, length: Option<u64>, content: (Deposit, u64)) -> Result<Uuid> {
        let now = begun.now;
        let state = State { content: Some(content), stop: CancellationToken::new(), touched: now, cancelled: false };
        let open = Open { begun: Arc::clone(begun), length, state: Mutex::new(state), returned: Notify::new() };
        let id = Uuid::new_v4();
        let mut table = self.0.lock();
        let swept = table.sweep(now);
        table.room(begun.view.session())?;
        table.open.insert(id, Arc::new(open));
        drop(table);
        drop(swept);
        Ok(id)
    }

    /// Returns an upload of a token.
    pub(super) fn find(&self, id: Uuid, token: TokenId, now: Time) -> Option<Arc<Open>> {
        let open = self.0.lock().open.get(&id).cloned()?;
        let known = open.begun.view.session().token() == token && !open.is_old(now);
        known.then_some(open)
    }

    /// Forgets an upload.
    pub(super) fn forget(&self, id: Uuid) {
        self.0.lock().open.remove(&id);
    }

    /// Begins an upload in parts; false when there is one of that name.
    ///
    /// # Errors
    /// [`Error::Crowded`] when the token or its user has too many.
    pub(super) fn begin_chunked(&self, session: &Session, name: &Name, now: Time) -> Result<bool> {
        let key = (session.token(), name.clone());
        let mut table = self.0.lock();
        let swept = table.sweep(now);
        if table.chunked.contains_key(&key) {
            return Ok(false);
        }
        table.room(session)?;
        let state = Mutex::new((BTreeMap::new(), now));
        table.chunked.insert(key, Arc::new(Chunked { login: session.login().clone(), state }));
        drop(table);
        drop(swept);
        Ok(true)
    }

    /// Returns a token's upload in parts.
    pub(super) fn chunked(&self, token: TokenId, name: &Name, now: Time) -> Option<Arc<Chunked>> {
        let found = self.0.lock().chunked.get(&(token, name.clone())).cloned()?;
        let mut state = found.state.lock();
        if is_old(state.1, now) {
            return None;
        }
        state.1 = now;
        drop(state);
        Some(found)
    }

    /// Forgets an upload in parts; its content goes with the last who holds it.
    pub(super) fn forget_chunked(&self, token: TokenId, name: &Name) -> Option<Arc<Chunked>> {
        self.0.lock().chunked.remove(&(token, name.clone()))
    }

    /// Keeps a part of an upload of a token, in place of one of the same name; true when there was one.
    ///
    /// # Errors
    /// [`Error::Crowded`] when all uploads of the token together have too many.
    pub(super) fn keep(&self, token: TokenId, chunked: &Chunked, name: ChunkName, chunk: Deposit) -> Result<bool> {
        // Held to the end, so that two can't pass the limit together.
        let table = self.0.lock();
        let parts = table.chunked.iter().filter(|((owner, _), _)| *owner == token);
        let parts: usize = parts.map(|(_, chunked)| chunked.state.lock().0.len()).sum();
        let chunk = Arc::new(chunk);
        let old = match chunked.state.lock().0.entry(name) {
            Entry::Occupied(mut there) => Some(there.insert(chunk)),
            Entry::Vacant(_) if parts >= MOST_CHUNKS => return Err(Error::Crowded),
            Entry::Vacant(free) => {
                free.insert(chunk);
                None
            }
        };
        drop(table);
        Ok(old.is_some())
    }
}

impl Table {
    fn room(&self, session: &Session) -> Result<()> {
        let open = self.open.values().map(|open| open.begun.view.session()).map(|owner| (owner.token(), owner.login()));
        let chunked = self.chunked.iter().map(|((token, _), chunked)| (*token, &chunked.login));
        let of_user = open.chain(chunked).filter(|(_, login)| *login == session.login());
        let (mut all, mut own) = (0, 0);
        for (token, _) in of_user {
            all += 1;
            own += usize::from(token == session.token());
        }
        if own < MOST && all < MOST_OF_USER { Ok(()) } else { Err(Error::Crowded) }
    }

    /// Takes out what waited too long. Removing its content takes time: let go of the table first.
    fn sweep(&mut self, now: Time) -> (Vec<Arc<Open>>, Vec<Arc<Chunked>>) {
        let open = self.open.extract_if(|_, open| open.is_old(now)).map(|(_, open)| open).collect();
        let old = |chunked: &Chunked| is_old(chunked.state.lock().1, now);
        let chunked = self.chunked.extract_if(|_, chunked| old(chunked)).map(|(_, chunked)| chunked).collect();
        (open, chunked)
    }
}

fn is_old(touched: Time, now: Time) -> bool {
    now.since(touched) > LIFE
}

impl Open {
    fn is_old(&self, now: Time) -> bool {
        let state = self.state.lock();
        state.content.is_some() && is_old(state.touched, now)
    }

    /// Takes the content, with where it goes on; a request that works on it is told to stop, and waited for.
    ///
    /// # Errors
    /// [`Error::InUse`] when that one does not stop in time.
    pub(super) async fn take(&self, now: Time) -> Result<(Deposit, u64, CancellationToken)> {
        let taken = tokio::time::timeout(PATIENCE, async {
            loop {
                let returned = self.returned.notified();
                let mut returned = std::pin::pin!(returned);
                returned.as_mut().enable();
                {
                    let mut state = self.state.lock();
                    state.touched = now;
                    if let Some((deposit, offset)) = state.content.take() {
                        state.stop = CancellationToken::new();
                        return (deposit, offset, state.stop.clone());
                    }
                    state.stop.cancel();
                }
                returned.await;
            }
        });
        taken.await.map_err(|_| Error::InUse)
    }

    /// Puts the content back; discards it where the upload was cancelled meanwhile.
    pub(super) fn put_back(&self, deposit: Deposit, offset: u64) {
        let mut state = self.state.lock();
        if !state.cancelled {
            state.content = Some((deposit, offset));
        }
        drop(state);
        self.returned.notify_waiters();
    }

    /// Ends it, also for a request that works on it.
    pub(super) fn cancel(&self) {
        let mut state = self.state.lock();
        state.cancelled = true;
        state.stop.cancel();
        let content = state.content.take();
        drop(state);
        drop(content);
    }
}

impl Chunked {
    /// Removes a part; false when there was none.
    pub(super) fn remove(&self, name: &ChunkName) -> bool {
        self.state.lock().0.remove(name).is_some()
    }

    /// Returns the parts in their order.
    pub(super) fn parts(&self) -> Vec<(ChunkName, Arc<Deposit>)> {
        self.state.lock().0.iter().map(|(name, chunk)| (name.clone(), Arc::clone(chunk))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_in_the_order_of_their_numbers() {
        let mut names = ["10", "9", "000000000000001-000000000000002", "00002", "x", ".file"]
            .map(|n| ChunkName::new(&Name::new(n.as_bytes()).expect(n)));
        names.sort();
        let order: Vec<_> = names.iter().map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned()).collect();
        assert_eq!(order, ["000000000000001-000000000000002", "00002", "9", "10", ".file", "x"]);
    }
}
