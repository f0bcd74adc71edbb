//! A caller proven to be a user with a live token.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use super::Core;
use super::life::{Life, Standing};
use super::proof::Print;
use super::trail::Source;
use super::turns::{TooMuchWork, Turn};
use crate::domain::{
    Actor, AuditEvent, EventKind, Login, Peer, Privileges, Roles, TokenId, TokenLimits, TreeAccess, TreePath,
    UnixMillis, UploadRule, UsageKind,
};

/// How many names of a path tell refused operations apart.
const DENIED_DEPTH: usize = 3;

/// The session's token is dead, no longer admits this peer, or no longer reaches what is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session has ended, or may not do this here any more")]
pub struct Ended;

/// What tells a token and one of its secrets from others, without showing anything of the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CredentialId(TokenId, Print);

/// A caller proven to be a user with a live token; only [`super::Authenticator`] makes one.
///
/// Clones share one life: all end together, within a second of the token's death.
#[derive(Clone)]
pub struct Session {
    seat: Arc<Seat>,
}

/// What clones of a session share; open until the last of them is dropped.
struct Seat {
    core: Arc<Core>,
    life: Arc<Life>,
    peer: Arc<Peer>,
    proven: Print,
    number: u64,
    over: Arc<AtomicBool>,
    /// The hour in which it was last counted as used.
    counted: AtomicI64,
}

impl Session {
    /// Opens a session for a caller whose proof was checked against the hash `proven` stands for.
    pub(super) fn open(core: Arc<Core>, life: Arc<Life>, peer: Peer, proven: Print) -> Self {
        let peer = Arc::new(peer);
        let number = core.next_number();
        let over = life.sit(number, peer.clone(), core.clock.now());
        let counted = AtomicI64::new(i64::MIN);
        Self { seat: Arc::new(Seat { core, life, peer, proven, number, over, counted }) }
    }

    /// Returns the user.
    pub fn login(&self) -> &Login {
        &self.seat.life.login
    }

    /// Returns the token's id.
    pub fn token(&self) -> TokenId {
        self.seat.life.token
    }

    /// Returns what tells the token and the secret that were shown from others.
    pub fn credential_id(&self) -> CredentialId {
        CredentialId(self.token(), self.seat.proven)
    }

    /// Returns what tells it apart from the other sessions of this process.
    pub fn number(&self) -> u64 {
        self.seat.number
    }

    /// Returns who is at the door.
    pub fn peer(&self) -> &Peer {
        &self.seat.peer
    }

    /// Returns what may be reached at this moment. What this process changed counts at once, and is
    /// read again only then; otherwise this costs no I/O.
    ///
    /// # Errors
    /// [`Ended`] once the token is dead, or when the store can't tell.
    pub fn access(&self) -> Result<Arc<TreeAccess>, Ended> {
        self.seat.standing().map(|standing| standing.access.clone())
    }

    /// Returns the roles at this moment: those that the owner and every token of the chain have.
    ///
    /// # Errors
    /// As [`Session::access`].
    pub fn roles(&self) -> Result<Roles, Ended> {
        self.seat.standing().map(|standing| standing.width.roles.clone())
    }

    /// Returns how wide the token is at this moment, over its whole chain.
    ///
    /// # Errors
    /// As [`Session::access`].
    pub fn width(&self) -> Result<Arc<Privileges>, Ended> {
        self.seat.standing().map(|standing| standing.width.clone())
    }

    /// Returns what may be reached, as a new request is judged: the store is asked whether anything has
    /// changed, by whichever process. May block.
    ///
    /// # Errors
    /// As [`Session::access`].
    pub fn confirm(&self) -> Result<Arc<TreeAccess>, Ended> {
        let Seat { core, life, .. } = &*self.seat;
        let reviewed = core.store.epoch().and_then(|epoch| life.review(epoch, &core.store, &core.uses));
        if let Err(error) = reviewed {
            tracing::error!(token = %life.token, %error, "a session ends: the store can't tell whether its token lives");
            return Err(Ended);
        }
        self.access()
    }

    /// Returns the token's own limits at this moment. Costs no I/O.
    pub fn limits(&self) -> Arc<TokenLimits> {
        self.seat.life.standing().limits.clone()
    }

    /// Returns what uploads must fit, by the token and all above it, as of the last [`Session::access`].
    pub fn upload_rule(&self) -> Arc<UploadRule> {
        self.seat.life.standing().uploads.clone()
    }

    /// Returns the instant at which the session ends unless it is used before.
    pub fn deadline(&self) -> UnixMillis {
        self.seat.life.standing().end_of(&self.seat.proven)
    }

    /// Notes a use: an accepted request or a block transferred. Moves a sliding window; the first of an hour is
    /// counted.
    pub fn used(&self) {
        let Seat { core, life, peer, proven, .. } = &*self.seat;
        let (standing, now) = (life.standing(), core.clock.now());
        if !life.is_over() && now < standing.end_of(proven) {
            standing.touch(now, peer);
            self.seat.count(now);
        }
    }

    /// Tells the audit trail of an operation on the tree that was refused; those in one place are counted.
    pub fn denied(&self, why: &str, path: Option<&TreePath>) {
        let Seat { core, life, peer, .. } = &*self.seat;
        let by = Actor::Bearer { login: life.login.clone(), token: life.token };
        let event =
            AuditEvent::new(core.clock.now(), EventKind::AccessDenied).with_user(&life.login).with_token(life.token);
        let event = event.with_actor(by).with_peer(peer).with_detail(why);
        core.tally.count(event.at, peer.protocol, UsageKind::Refusal);
        let event = match path {
            Some(path) => event.with_path(&path.prefix(DENIED_DEPTH)),
            None => event,
        };
        core.trail.note(Source::Known, event);
    }

    /// Waits for a turn of work that keeps a processor busy for long; it ends when what is returned is dropped.
    ///
    /// # Errors
    /// [`TooMuchWork`].
    pub async fn turn(&self) -> Result<Turn, TooMuchWork> {
        self.seat.core.turns.heavy.take(self.login()).await
    }

    /// Waits for a turn of a call of the store, which waits for none of the user's longer work.
    ///
    /// # Errors
    /// [`TooMuchWork`].
    pub async fn light_turn(&self) -> Result<Turn, TooMuchWork> {
        self.seat.core.turns.light.take(self.login()).await
    }

    /// Waits for another such turn of work that has begun.
    ///
    /// # Errors
    /// [`TooMuchWork`] where all users together have too much waiting.
    pub async fn light_turn_again(&self) -> Result<Turn, TooMuchWork> {
        self.seat.core.turns.light.take_again(self.login()).await
    }

    /// Waits for a turn of ending what lets somebody in: tokens, grants, roles, users. It waits for no other work, and
    /// for no other token.
    ///
    /// # Errors
    /// [`TooMuchWork`].
    pub async fn revoking_turn(&self) -> Result<Turn, TooMuchWork> {
        self.seat.core.turns.revoking.take(&self.token()).await
    }

    /// Waits for another turn of work that has begun.
    ///
    /// # Errors
    /// [`TooMuchWork`] where all users together have too much waiting.
    pub async fn turn_again(&self) -> Result<Turn, TooMuchWork> {
        self.seat.core.turns.heavy.take_again(self.login()).await
    }

    /// Waits until the token lets nobody in any more who shows this secret here. Unlike [`Session::ended`] it keeps no
    /// session open.
    pub fn token_ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let Seat { core, life, peer, proven, .. } = &*self.seat;
        let (core, life, peer, proven) = (Arc::clone(core), Arc::clone(life), Arc::clone(peer), *proven);
        async move {
            loop {
                let told = life.told();
                let Some(standing) = standing(&core, &life, &peer, &proven) else { return };
                tokio::select! {
                    () = told => {}
                    () = core.clock.sleep_until(standing.end_of(&proven)) => {}
                }
            }
        }
    }

    /// Waits until the session has ended.
    pub async fn ended(&self) {
        loop {
            let told = self.seat.life.told();
            let Ok(standing) = self.seat.standing() else { return self.seat.note_end() };
            tokio::select! {
                () = told => {}
                () = self.seat.core.clock.sleep_until(standing.end_of(&self.seat.proven)) => {}
            }
        }
    }
}

impl Seat {
    /// Returns what holds at this moment.
    fn standing(&self) -> Result<Arc<Standing>, Ended> {
        if self.over.load(Ordering::Acquire) {
            return Err(Ended);
        }
        standing(&self.core, &self.life, &self.peer, &self.proven).ok_or(Ended)
    }
}

/// Returns what holds at this moment for a caller who has shown a secret; none once the token lets him in no more.
fn standing(core: &Core, life: &Life, peer: &Peer, proven: &Print) -> Option<Arc<Standing>> {
    if life.is_over() {
        return None;
    }
    let now = core.clock.now();
    let checked =
        life.refresh(&core.store, &core.uses).and_then(|()| life.is_live(&core.clock, &core.store, &core.uses));
    if let Err(error) = &checked {
        tracing::error!(token = %life.token, %error, "a session ends: the store can't tell whether its token lives");
    }
    let standing = life.standing();
    let holds = checked.unwrap_or(false) && standing.accepts(proven, now) && standing.admits(peer);
    holds.then_some(standing)
}

impl Seat {
    /// Counts the session as one in use, once an hour.
    fn count(&self, now: UnixMillis) {
        let hour = now.start_of_hour().as_millis();
        let known = self.counted.load(Ordering::Relaxed) == hour;
        if !known && self.counted.swap(hour, Ordering::Relaxed) != hour {
            self.core.tally.count(now, self.peer.protocol, UsageKind::Use);
        }
    }

    /// Notes that the session was ended, and why.
    fn note_end(&self) {
        let Self { core, life, peer, proven, .. } = self;
        let (standing, now) = (life.standing(), core.clock.now());
        let why = if standing.deadline() <= now {
            "the token, or one above it, has expired"
        } else if standing.is_refused() {
            "the token, or one above it, was revoked, or the user disabled"
        } else if !standing.accepts(proven, now) {
            "the secret was replaced by a rotation"
        } else if !standing.admits(peer) {
            "the token's limits don't admit protocol, address or program any more"
        } else {
            "the token is gone, or the store can't tell whether it lives"
        };
        let event = AuditEvent::new(now, EventKind::SessionEnded).with_user(&life.login).with_token(life.token);
        core.trail.note(Source::Known, event.with_actor(Actor::Server).with_peer(peer).with_detail(why));
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("login", self.login()).field("token", &self.token()).finish_non_exhaustive()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.life.leave(self.number);
    }
}
