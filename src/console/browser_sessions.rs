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
const SESSION_IDLE_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// How long a visit may last.
const SESSION_MAX_LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// How many visits a user may have; the one that rested longest makes room.
const MAX_SESSIONS_PER_USER: usize = 32;
/// How many visits there may be.
const MAX_SESSIONS: usize = 8192;
/// How many forms that make a secret are remembered as sent.
const MAX_REMEMBERED_FORMS: usize = 128;

type CookieHash = [u8; 32];

/// The visits that are open; clones share them.
#[derive(Clone)]
pub(super) struct BrowserSessions {
    clock: Clock,
    sessions: Arc<Mutex<HashMap<CookieHash, Arc<BrowserSession>>>>,
}

/// One browser that is signed in.
pub(super) struct BrowserSession {
    session: Session,
    csrf: String,
    created_at: UnixMillis,
    last_used: Mutex<UnixMillis>,
    submitted_forms: Mutex<VecDeque<String>>,
    closed: CancellationToken,
}

/// There are as many visits as there may be.
#[derive(Debug)]
pub(super) struct TooManyBrowserSessions;

impl BrowserSessions {
    /// Returns no visits.
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, sessions: Arc::default() }
    }

    /// Opens a visit and returns what its cookie holds; nothing of that is kept but a hash.
    ///
    /// # Errors
    /// [`StoreError::Random`].
    pub(super) fn open(&self, session: Session) -> Result<Result<String, TooManyBrowserSessions>, StoreError> {
        let cookie = random_token()?;
        let now = self.clock.now();
        let browser_session = Arc::new(BrowserSession {
            session,
            csrf: random_token()?,
            created_at: now,
            last_used: Mutex::new(now),
            submitted_forms: Mutex::default(),
            closed: CancellationToken::new(),
        });
        let cookie_hash = hash_cookie(&cookie);
        let mut open = self.sessions.lock();
        evict_oldest_of_user(&mut open, &browser_session);
        if open.len() >= MAX_SESSIONS {
            return Ok(Err(TooManyBrowserSessions));
        }
        open.insert(cookie_hash, browser_session.clone());
        drop(open);
        tokio::spawn(self.clone().remove_when_closed(cookie_hash, browser_session));
        Ok(Ok(cookie))
    }

    /// Finds the visit that a cookie stands for, and notes that it was seen.
    pub(super) fn find(&self, cookie: &str) -> Option<Arc<BrowserSession>> {
        let browser_session = self.sessions.lock().get(&hash_cookie(cookie)).cloned()?;
        let now = self.clock.now();
        if browser_session.closed.is_cancelled() || browser_session.expires_at() <= now {
            return None;
        }
        *browser_session.last_used.lock() = now;
        Some(browser_session)
    }

    /// Waits for the end of a visit, and forgets it then.
    async fn remove_when_closed(self, cookie_hash: CookieHash, browser_session: Arc<BrowserSession>) {
        loop {
            tokio::select! {
                () = browser_session.session.closed() => break,
                () = browser_session.closed.cancelled() => break,
                () = self.clock.sleep_until(browser_session.expires_at()) => {
                    if browser_session.expires_at() <= self.clock.now() {
                        break;
                    }
                }
            }
        }
        browser_session.closed.cancel();
        self.sessions.lock().remove(&cookie_hash);
    }
}

impl BrowserSession {
    /// Returns the session.
    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// Returns what the forms of this visit carry.
    pub(super) fn csrf_token(&self) -> &str {
        &self.csrf
    }

    /// Tells whether a form carries what the forms of this visit do.
    pub(super) fn is_csrf_token(&self, csrf: &str) -> bool {
        self.csrf.as_bytes().ct_eq(csrf.as_bytes()).into()
    }

    /// Notes that a form was sent; `None` when it was before.
    pub(super) fn start_submission(self: &Arc<Self>, form_id: &str) -> Option<FormSubmission> {
        let form_id: String = form_id.chars().take(64).collect();
        let mut submitted = self.submitted_forms.lock();
        if submitted.contains(&form_id) {
            return None;
        }
        if submitted.len() == MAX_REMEMBERED_FORMS {
            submitted.pop_front();
        }
        submitted.push_back(form_id.clone());
        Some(FormSubmission { browser_session: self.clone(), form_id, accepted: false })
    }

    /// Ends the visit.
    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    fn expires_at(&self) -> UnixMillis {
        self.last_used
            .lock()
            .saturating_add(SESSION_IDLE_TIMEOUT)
            .min(self.created_at.saturating_add(SESSION_MAX_LIFETIME))
    }
}

/// A form that is being done; it may be sent again when this is dropped before anything was done.
pub(super) struct FormSubmission {
    browser_session: Arc<BrowserSession>,
    form_id: String,
    accepted: bool,
}

impl FormSubmission {
    /// Notes that what it asks for is being done.
    pub(super) fn accept(&mut self) {
        self.accepted = true;
    }
}

impl Drop for FormSubmission {
    fn drop(&mut self) {
        if !self.accepted {
            self.browser_session.submitted_forms.lock().retain(|submitted| *submitted != self.form_id);
        }
    }
}

/// Draws 256 random bits, as text.
///
/// # Errors
/// [`StoreError::Random`].
pub(super) fn random_token() -> Result<String, StoreError> {
    let mut bytes = [0; 32];
    fill_random(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

fn hash_cookie(cookie: &str) -> CookieHash {
    *blake3::hash(cookie.as_bytes()).as_bytes()
}

/// Closes the visit of the same user that rested longest where there are too many.
fn evict_oldest_of_user(open: &mut HashMap<CookieHash, Arc<BrowserSession>>, new_session: &BrowserSession) {
    let login = new_session.session.login();
    let sessions_of_user = open.iter().filter(|(_, browser_session)| browser_session.session.login() == login);
    let sessions_of_user: Vec<(CookieHash, UnixMillis)> = sessions_of_user
        .map(|(cookie_hash, browser_session)| (*cookie_hash, *browser_session.last_used.lock()))
        .collect();
    if sessions_of_user.len() >= MAX_SESSIONS_PER_USER
        && let Some((cookie_hash, _)) = sessions_of_user.iter().min_by_key(|(_, last_used)| *last_used)
        && let Some(browser_session) = open.remove(cookie_hash)
    {
        browser_session.close();
    }
}
