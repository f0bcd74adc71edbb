//! Browser sessions: each maps a cookie to an authenticated [`Session`].
//!
//! They are kept in memory only, by the hash of the cookie's value. A browser session ends with its [`Session`], after
//! 30 minutes without a request, 12 hours after sign-in at the latest, and at sign-out. Times are the machine's running
//! time: a wall clock that is set back must not prolong a session that was left open.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;

use crate::auth::{Clock, Session, fill_random};
use crate::store::StoreError;

/// Time without a request after which a browser session ends.
const SESSION_IDLE_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// Maximum lifetime of a browser session.
const SESSION_MAX_LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// Maximum number of browser sessions of a user; a further sign-in closes the one that has been idle longest.
const MAX_SESSIONS_PER_USER: usize = 32;
/// Maximum number of browser sessions of all users; a further sign-in is refused.
const MAX_SESSIONS: usize = 8192;
/// Maximum number of ids of submitted forms that a browser session remembers.
const MAX_REMEMBERED_FORMS: usize = 128;

type CookieHash = [u8; 32];

/// The table of open browser sessions; clones share it.
#[derive(Clone)]
pub(super) struct BrowserSessions {
    clock: Clock,
    sessions: Arc<Mutex<HashMap<CookieHash, Arc<BrowserSession>>>>,
}

/// One browser that is signed in.
pub(super) struct BrowserSession {
    session: Session,
    csrf: String,
    created_at: Duration,
    last_used: Mutex<Duration>,
    submitted_forms: Mutex<VecDeque<String>>,
    closed: CancellationToken,
}

/// The table of browser sessions is full.
#[derive(Debug)]
pub(super) struct TooManyBrowserSessions;

impl BrowserSessions {
    /// Returns an empty table.
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, sessions: Arc::default() }
    }

    /// Opens a browser session and returns the value of its cookie, of which only a hash is kept.
    ///
    /// # Errors
    /// [`StoreError::Random`].
    pub(super) fn open(&self, session: Session) -> Result<Result<String, TooManyBrowserSessions>, StoreError> {
        let cookie = random_token()?;
        let now = self.clock.boottime();
        let browser_session = Arc::new(BrowserSession {
            session,
            csrf: random_token()?,
            created_at: now,
            last_used: Mutex::new(now),
            submitted_forms: Mutex::default(),
            closed: CancellationToken::new(),
        });
        let cookie_hash = hash_cookie(&cookie);
        // Eviction, check and insertion happen under one lock, so that concurrent sign-ins can't exceed the limits.
        let mut open = self.sessions.lock();
        // A user at the limit replaces a session of its own, and so never takes a slot from others.
        evict_oldest_of_user(&mut open, &browser_session);
        if open.len() >= MAX_SESSIONS {
            return Ok(Err(TooManyBrowserSessions));
        }
        open.insert(cookie_hash, browser_session.clone());
        drop(open);
        // Without this task the table would keep sessions that no request ever asks for again.
        tokio::spawn(self.clone().remove_when_closed(cookie_hash, browser_session));
        Ok(Ok(cookie))
    }

    /// Looks up the browser session of a cookie, and resets its idle timer.
    pub(super) fn find(&self, cookie: &str) -> Option<Arc<BrowserSession>> {
        let browser_session = self.sessions.lock().get(&hash_cookie(cookie)).cloned()?;
        let now = self.clock.boottime();
        // The task that removes the entry may not have run yet.
        if browser_session.closed.is_cancelled() || browser_session.expires_at() <= now {
            return None;
        }
        *browser_session.last_used.lock() = now;
        Some(browser_session)
    }

    /// Waits until a browser session ends, and removes it from the table.
    async fn remove_when_closed(self, cookie_hash: CookieHash, browser_session: Arc<BrowserSession>) {
        loop {
            tokio::select! {
                () = browser_session.session.closed() => break,
                () = browser_session.closed.cancelled() => break,
                // Requests have moved the idle timeout meanwhile: sleep again unless it has really passed.
                () = self.clock.sleep_until_boottime(browser_session.expires_at()) => {
                    if browser_session.expires_at() <= self.clock.boottime() {
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
    /// Returns the authenticated session.
    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// Returns the CSRF token of the forms.
    pub(super) fn csrf_token(&self) -> &str {
        &self.csrf
    }

    /// Compares a CSRF token in constant time.
    pub(super) fn is_csrf_token(&self, csrf: &str) -> bool {
        self.csrf.as_bytes().ct_eq(csrf.as_bytes()).into()
    }

    /// Records the id of a submitted form; returns `None` if the form was submitted before.
    pub(super) fn start_submission(self: &Arc<Self>, form_id: &str) -> Option<FormSubmission> {
        // The id comes back from the client, so its length is bounded before it is stored.
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

    /// Closes the browser session.
    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    fn expires_at(&self) -> Duration {
        (*self.last_used.lock() + SESSION_IDLE_TIMEOUT).min(self.created_at + SESSION_MAX_LIFETIME)
    }
}

/// A form under processing. Unless it was accepted, the form may be submitted again once this is dropped.
pub(super) struct FormSubmission {
    browser_session: Arc<BrowserSession>,
    form_id: String,
    accepted: bool,
}

impl FormSubmission {
    /// Marks the form as carried out: a second submission is refused from here on.
    pub(super) fn accept(&mut self) {
        self.accepted = true;
    }
}

impl Drop for FormSubmission {
    fn drop(&mut self) {
        // The handler failed or was cancelled before anything was created: the user may submit the same form again.
        if !self.accepted {
            self.browser_session.submitted_forms.lock().retain(|submitted| *submitted != self.form_id);
        }
    }
}

/// Returns 256 random bits in base64url.
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

/// Closes the browser session of the same user that has been idle longest, if the user has the maximum number.
fn evict_oldest_of_user(open: &mut HashMap<CookieHash, Arc<BrowserSession>>, new_session: &BrowserSession) {
    let login = new_session.session.login();
    let sessions_of_user = open.iter().filter(|(_, browser_session)| browser_session.session.login() == login);
    let sessions_of_user: Vec<(CookieHash, Duration)> = sessions_of_user
        .map(|(cookie_hash, browser_session)| (*cookie_hash, *browser_session.last_used.lock()))
        .collect();
    if sessions_of_user.len() >= MAX_SESSIONS_PER_USER
        && let Some((cookie_hash, _)) = sessions_of_user.iter().min_by_key(|(_, last_used)| *last_used)
        && let Some(browser_session) = open.remove(cookie_hash)
    {
        browser_session.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::testing::AuthEnv;
    use crate::domain::{TokenExpiry, UnixMillis};

    const ONE_DAY: Duration = Duration::from_secs(86_400);

    #[tokio::test]
    async fn clock_jump_neither_prolongs_nor_ends_browser_session() {
        let jumps: [fn(UnixMillis) -> UnixMillis; 2] =
            [|now| now.saturating_sub(ONE_DAY), |now| now.saturating_add(ONE_DAY)];
        for jump in jumps {
            let env = AuthEnv::new();
            let text = env.create_token(TokenExpiry::Never, |_| ());
            let sessions = BrowserSessions::new(env.clock.clone());
            let session = env.login(&text).await.expect("accepted");
            let cookie = sessions.open(session).expect("random").expect("not full");
            env.clock.set(jump(env.clock.now()));
            assert!(sessions.find(&cookie).is_some(), "no time has passed");
            env.clock.set(jump(env.clock.now()));
            env.clock.advance(SESSION_IDLE_TIMEOUT);
            assert!(sessions.find(&cookie).is_none(), "left open for half an hour");
        }
    }
}
