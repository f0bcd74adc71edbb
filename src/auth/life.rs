//! The life of a token in this process, shared by all its sessions: what it may do as of an epoch,
//! and whether it has ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::Clock;
use super::proof::{self, Print};
use super::uses::{UsePoint, Uses};
use crate::domain::{Login, Peer, Privileges, TokenExpiry, TokenId, TokenLimits, TreeAccess, UnixMillis, UploadRule};
use crate::store::{CredentialRow, EffectiveAccess, SecretHash, Store, StoreError};

/// How long a life without sessions is kept for the next request.
const IDLE: Duration = Duration::from_secs(60);

/// What a token may do, and until when, as of one epoch.
pub(super) struct Standing {
    epoch: i64,
    pub(super) access: Arc<TreeAccess>,
    pub(super) limits: Arc<TokenLimits>,
    pub(super) uploads: Arc<UploadRule>,
    pub(super) width: Arc<Privileges>,
    /// The token's own row.
    pub(super) row: Row,
    /// The token itself, and those above it.
    bounds: Vec<Bound>,
    refused: bool,
}

/// What a token's row says of who shows it.
pub(super) struct Row {
    pub(super) login: Login,
    /// Whether the owner or the token itself is dead whatever else holds.
    pub(super) refused: bool,
    sealed: Arc<Seal>,
    /// The secret before it, and until when.
    grace: Option<(Arc<Seal>, UnixMillis)>,
}

/// What is kept of a secret, and what stands for its hash.
pub(super) struct Seal {
    pub(super) sealed: SecretHash,
    pub(super) print: Print,
}

impl From<SecretHash> for Seal {
    fn from(sealed: SecretHash) -> Self {
        Self { print: proof::print(&sealed.phc), sealed }
    }
}

impl From<CredentialRow> for Row {
    fn from(caller: CredentialRow) -> Self {
        let seal = |sealed| Arc::new(Seal::from(sealed));
        Self {
            login: caller.login,
            refused: caller.revoked_or_disabled,
            sealed: seal(caller.secret_hash),
            grace: caller.previous_secret.map(|grace| (seal(grace.secret_hash), grace.valid_until)),
        }
    }
}

impl Row {
    /// Returns what was kept of the present secret, and of the one before it while that is accepted beside it.
    pub(super) fn seals(&self, now: UnixMillis) -> impl Iterator<Item = &Arc<Seal>> {
        let old = self.grace.as_ref().filter(|(_, until)| now < *until).map(|(seal, _)| seal);
        [Some(&self.sealed), old].into_iter().flatten()
    }
}

/// What one token of a chain adds to what bounds the caller's life.
struct Bound {
    expiry: TokenExpiry,
    used: Arc<UsePoint>,
}

impl Bound {
    fn deadline(&self) -> UnixMillis {
        if self.used.is_expired() { UnixMillis::EARLIEST } else { self.expiry.deadline(self.used.last()) }
    }
}

impl Standing {
    fn new(reached: EffectiveAccess, uses: &Uses) -> Self {
        let EffectiveAccess { credentials: caller, chain, .. } = &reached;
        let refused = caller.revoked_or_disabled || chain.iter().any(|link| link.revoked);
        let bounds = chain.iter().map(|link| Bound { used: uses.point(link), expiry: link.expiry }).collect();
        let caller = caller.clone();
        let width = reached.into_privileges();
        let limits = width.limits.first().cloned().unwrap_or_default();
        Self {
            epoch: caller.epoch,
            access: width.access.clone(),
            limits: Arc::new(limits),
            uploads: Arc::new(UploadRule::intersect(&width.limits)),
            width: Arc::new(width),
            row: Row::from(caller),
            refused,
            bounds,
        }
    }

    /// Returns the instant at which the first token of the chain dies if none is used any more.
    pub(super) fn deadline(&self) -> UnixMillis {
        self.bounds.iter().map(Bound::deadline).min().unwrap_or(UnixMillis::MAX)
    }

    /// Ends the tokens of the chain for good that have expired by an instant.
    fn expire(&self, steady: UnixMillis) {
        self.bounds.iter().filter(|bound| bound.deadline() <= steady).for_each(|bound| bound.used.expire());
    }

    /// Returns the instant at which a session that was proven of a hash ends by itself.
    pub(super) fn end_of(&self, proven: &Print) -> UnixMillis {
        match &self.row.grace {
            Some((old, until)) if old.print == *proven => self.deadline().min(*until),
            _ => self.deadline(),
        }
    }

    /// Tells whether the token is dead whatever the time.
    pub(super) fn is_refused(&self) -> bool {
        self.refused
    }

    /// Tells whether every token of the chain may be used by this peer.
    pub(super) fn admits(&self, peer: &Peer) -> bool {
        self.width.limits.iter().all(|limits| limits.allows_peer(peer))
    }

    /// Tells whether the secret of a hash is the present one, or still accepted beside it.
    pub(super) fn accepts(&self, proven: &Print, now: UnixMillis) -> bool {
        self.row.seals(now).any(|seal| seal.print == *proven)
    }

    /// Notes a use of the token itself.
    pub(super) fn touch(&self, now: UnixMillis, peer: &Arc<Peer>) {
        if let Some(own) = self.bounds.first() {
            own.used.touch(now, peer);
        }
    }
}

/// Where one session sits.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) peer: Arc<Peer>,
    pub(super) since: UnixMillis,
    over: Arc<AtomicBool>,
}

/// The life of one token in this process.
pub(super) struct Life {
    pub(super) token: TokenId,
    pub(super) login: Login,
    standing: ArcSwap<Standing>,
    /// The store's count of writes at which the standing was last known to hold.
    seen: AtomicU64,
    reloading: Mutex<()>,
    over: AtomicBool,
    told: Notify,
    seats: Mutex<HashMap<u64, Place>>,
    asked: AtomicI64,
}

impl Life {
    fn load(token: TokenId, store: &Store, uses: &Uses) -> Result<Option<Self>, StoreError> {
        let seen = store.write_count();
        let Some(reached) = store.effective_access(token)? else { return Ok(None) };
        let login = reached.credentials.login.clone();
        let standing = Standing::new(reached, uses);
        let over = AtomicBool::new(standing.refused);
        Ok(Some(Self {
            token,
            login,
            standing: ArcSwap::from_pointee(standing),
            seen: AtomicU64::new(seen),
            reloading: Mutex::default(),
            over,
            told: Notify::new(),
            seats: Mutex::default(),
            asked: AtomicI64::new(i64::MIN),
        }))
    }

    pub(super) fn standing(&self) -> Arc<Standing> {
        self.standing.load_full()
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Tells whether the token lives at this moment; ends it when it has expired. One that only a jump of the clock
    /// has expired may live again, in another life, once the clock is right.
    pub(super) fn is_live(&self, clock: &Clock, store: &Store, uses: &Uses) -> Result<bool, StoreError> {
        if self.is_over() {
            return Ok(false);
        }
        let now = clock.now();
        if now < self.standing.load().deadline() {
            return Ok(true);
        }
        // Another process may have written down a later use.
        self.reload(store, uses)?;
        let standing = self.standing.load();
        if standing.deadline() <= now {
            standing.expire(clock.steady());
            self.end();
        }
        Ok(!self.is_over())
    }

    /// Ends all sessions of this life, for good.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Release);
        self.told.notify_waiters();
    }

    /// Waits for the next change of this life after the call.
    pub(super) fn told(&self) -> Notified<'_> {
        self.told.notified()
    }

    /// Makes sure that what this process wrote is taken into account; reads only when it wrote.
    pub(super) fn refresh(&self, store: &Store, uses: &Uses) -> Result<(), StoreError> {
        let changes = store.write_count();
        if self.seen.load(Ordering::Acquire) == changes {
            return Ok(());
        }
        self.review(store.epoch()?, store, uses)?;
        self.seen.fetch_max(changes, Ordering::AcqRel);
        Ok(())
    }

    /// Makes sure that the standing is no older than an epoch that was just read.
    pub(super) fn review(&self, epoch: i64, store: &Store, uses: &Uses) -> Result<(), StoreError> {
        if self.standing.load().epoch == epoch { Ok(()) } else { self.reload(store, uses) }
    }

    /// Reads everything again.
    pub(super) fn reload(&self, store: &Store, uses: &Uses) -> Result<(), StoreError> {
        // One at a time, so that an older reading never replaces a newer one.
        let _reloading = self.reloading.lock();
        match store.effective_access(self.token)? {
            Some(reached) => {
                let standing = Standing::new(reached, uses);
                let refused = standing.refused;
                self.standing.store(Arc::new(standing));
                if refused {
                    self.over.store(true, Ordering::Release);
                }
            }
            None => self.over.store(true, Ordering::Release),
        }
        self.told.notify_waiters();
        Ok(())
    }

    /// Notes a session, and returns what tells it that it alone was ended.
    pub(super) fn sit(&self, number: u64, peer: Arc<Peer>, since: UnixMillis) -> Arc<AtomicBool> {
        let over = Arc::new(AtomicBool::new(false));
        self.seats.lock().insert(number, Place { peer, since, over: over.clone() });
        over
    }

    /// Ends one session; tells whether it was there.
    pub(super) fn unseat(&self, number: u64) -> bool {
        let place = self.seats.lock().get(&number).cloned();
        if let Some(place) = &place {
            place.over.store(true, Ordering::Release);
            self.told.notify_waiters();
        }
        place.is_some()
    }

    pub(super) fn leave(&self, number: u64) {
        self.seats.lock().remove(&number);
    }

    pub(super) fn seats(&self) -> Vec<(u64, Place)> {
        self.seats.lock().iter().map(|(number, place)| (*number, place.clone())).collect()
    }

    fn is_empty(&self) -> bool {
        self.seats.lock().is_empty()
    }
}

/// All lives with a session, and those that had one lately: the next request finds them ready.
#[derive(Default)]
pub(super) struct Lives {
    lives: Mutex<HashMap<TokenId, Arc<Life>>>,
}

/// Tells whether anything but the table itself holds a life.
fn is_awaited(life: &Arc<Life>) -> bool {
    Arc::strong_count(life) > 1 || !life.is_empty()
}

impl Lives {
    /// Returns the life of a token that is in memory as the store has it at this moment.
    pub(super) fn current(&self, token: TokenId, now: UnixMillis, store: &Store) -> Option<Arc<Life>> {
        let life = self.known(token).filter(|life| store.is_current_epoch(life.standing.load().epoch))?;
        life.asked.store(now.as_millis(), Ordering::Relaxed);
        Some(life)
    }

    /// Returns the life of a token, as of an epoch that was just read with its row; `None` for a
    /// token that ended meanwhile.
    pub(super) fn at(
        &self,
        token: TokenId,
        epoch: i64,
        now: UnixMillis,
        store: &Store,
        uses: &Uses,
    ) -> Result<Option<Arc<Life>>, StoreError> {
        let life = match self.known(token) {
            Some(life) => life,
            None => match Life::load(token, store, uses)? {
                Some(life) => self.enter(life),
                None => return Ok(None),
            },
        };
        life.asked.store(now.as_millis(), Ordering::Relaxed);
        life.review(epoch, store, uses)?;
        Ok((!life.is_over()).then_some(life))
    }

    /// Returns the lives with an open session.
    pub(super) fn open(&self) -> Vec<Arc<Life>> {
        self.lives.lock().values().filter(|life| !life.is_empty()).cloned().collect()
    }

    /// Returns the lives whose end somebody waits for: with an open session, or held by a connection.
    pub(super) fn awaited(&self) -> Vec<Arc<Life>> {
        self.lives.lock().values().filter(|life| is_awaited(life)).cloned().collect()
    }

    /// Returns all lives in memory.
    pub(super) fn all(&self) -> Vec<Arc<Life>> {
        self.lives.lock().values().cloned().collect()
    }

    /// Forgets lives that have ended or had no session for a while.
    pub(super) fn sweep(&self, now: UnixMillis) {
        self.lives.lock().retain(|_, life| {
            if is_awaited(life) {
                life.asked.store(now.as_millis(), Ordering::Relaxed);
                return true;
            }
            now.saturating_duration_since(UnixMillis::from_millis(life.asked.load(Ordering::Relaxed))) < IDLE
                && !life.is_over()
        });
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.lives.lock().len()
    }

    /// Keeps a life that was just loaded, unless somebody was faster.
    fn enter(&self, life: Life) -> Arc<Life> {
        let mut lives = self.lives.lock();
        match lives.get(&life.token) {
            Some(known) if !known.is_over() => known.clone(),
            _ => {
                let life = Arc::new(life);
                lives.insert(life.token, life.clone());
                life
            }
        }
    }

    fn known(&self, token: TokenId) -> Option<Arc<Life>> {
        let life = self.lives.lock().get(&token).cloned()?;
        (!life.is_over()).then_some(life)
    }
}
