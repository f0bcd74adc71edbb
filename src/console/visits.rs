//! Browsers that are signed in: a cookie stands for a visit, and a visit for a session.
//!
//! Memory alone holds them, under the hash of what the cookie holds. A visit ends with its session,
//! when it was idle for long, at the latest after half a day, and when its user signs out.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;

use crate::auth::{Clock, Session, fill_random};
use crate::domain::UnixMillis;
use crate::store::StoreError;

/// How long a visit may rest.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// How long a visit may last.
const LONGEST: Duration = Duration::from_secs(12 * 3600);
/// How many visits a user may have; the one that rested longest makes room.
const PER_USER: usize = 32;
/// How many visits there may be.
const ALL: usize = 8192;
/// How many forms that make a secret are remembered as sent.
const SENT: usize = 128;

type Key = [u8; 32];

/// The visits that are open; clones share them.
#[derive(Clone)]
pub(super) struct Visits {
    clock: Clock,
    open: Arc<Mutex<HashMap<Key, Arc<Visit>>>>,
}

/// One browser that is signed in.
pub(super) struct Visit {
    session: Session,
    csrf: String,
    since: UnixMillis,
    seen: Mutex<UnixMillis>,
    sent: Mutex<VecDeque<String>>,
    over: CancellationToken,
}

/// There are as many visits as there may be.
#[derive(Debug)]
pub(super) struct Full;

impl Visits {
    /// Returns no visits.
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, open: Arc::default() }
    }

    /// Opens a visit and returns what its cookie holds; nothing of that is kept but a hash.
    ///
    /// # Errors
    /// [`StoreError::Random`].
    pub(super) fn open(&self, session: Session) -> Result<Result<String, Full>, StoreError> {
        let cookie = draw()?;
        let now = self.clock.now();
        let visit = Arc::new(Visit {
            session,
            csrf: draw()?,
            since: now,
            seen: Mutex::new(now),
            sent: Mutex::default(),
            over: CancellationToken::new(),
        });
        let key = key(&cookie);
        let mut open = self.open.lock();
        make_room(&mut open, &visit);
        if open.len() >= ALL {
            return Ok(Err(Full));
        }
        open.insert(key, visit.clone());
        drop(open);
        tokio::spawn(self.clone().attend(key, visit));
        Ok(Ok(cookie))
    }

    /// Finds the visit that a cookie stands for, and notes that it was seen.
    pub(super) fn find(&self, cookie: &str) -> Option<Arc<Visit>> {
        let visit = self.open.lock().get(&key(cookie)).cloned()?;
        let now = self.clock.now();
        if visit.over.is_cancelled() || visit.end() <= now {
            return None;
        }
        *visit.seen.lock() = now;
        Some(visit)
    }

    /// Waits for the end of a visit, and forgets it then.
    async fn attend(self, key: Key, visit: Arc<Visit>) {
        loop {
            tokio::select! {
                () = visit.session.closed() => break,
                () = visit.over.cancelled() => break,
                () = self.clock.sleep_until(visit.end()) => {
                    if visit.end() <= self.clock.now() {
                        break;
                    }
                }
            }
        }
        visit.over.cancel();
        self.open.lock().remove(&key);
    }
}

impl Visit {
    /// Returns the session.
    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// Returns what the forms of this visit carry.
    pub(super) fn csrf(&self) -> &str {
        &self.csrf
    }

    /// Tells whether a form carries what the forms of this visit do.
    pub(super) fn fits(&self, csrf: &str) -> bool {
        self.csrf.as_bytes().ct_eq(csrf.as_bytes()).into()
    }

    /// Notes that a form was sent; `None` when it was before.
    pub(super) fn first(self: &Arc<Self>, form: &str) -> Option<SentForm> {
        let form: String = form.chars().take(64).collect();
        let mut sent = self.sent.lock();
        if sent.contains(&form) {
            return None;
        }
        if sent.len() == SENT {
            sent.pop_front();
        }
        sent.push_back(form.clone());
        Some(SentForm { visit: self.clone(), form, done: false })
    }

    /// Ends the visit.
    pub(super) fn close(&self) {
        self.over.cancel();
    }

    fn end(&self) -> UnixMillis {
        self.seen.lock().saturating_add(IDLE).min(self.since.saturating_add(LONGEST))
    }
}

/// A form that is being done; it may be sent again when this is dropped before anything was done.
pub(super) struct SentForm {
    visit: Arc<Visit>,
    form: String,
    done: bool,
}

impl SentForm {
    /// Notes that what it asks for is being done.
    pub(super) fn is_done(&mut self) {
        self.done = true;
    }
}

impl Drop for SentForm {
    fn drop(&mut self) {
        if !self.done {
            self.visit.sent.lock().retain(|known| *known != self.form);
        }
    }
}

/// Draws 256 random bits, as text.
///
/// # Errors
/// [`StoreError::Random`].
pub(super) fn draw() -> Result<String, StoreError> {
    let mut bytes = [0; 32];
    fill_random(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

fn key(cookie: &str) -> Key {
    *blake3::hash(cookie.as_bytes()).as_bytes()
}

/// Closes the visit of the same user that rested longest where there are too many.
fn make_room(open: &mut HashMap<Key, Arc<Visit>>, next: &Visit) {
    let login = next.session.login();
    let own = open.iter().filter(|(_, visit)| visit.session.login() == login);
    let own: Vec<(Key, UnixMillis)> = own.map(|(key, visit)| (*key, *visit.seen.lock())).collect();
    if own.len() >= PER_USER
        && let Some((key, _)) = own.iter().min_by_key(|(_, seen)| *seen)
        && let Some(visit) = open.remove(key)
    {
        visit.close();
    }
}
