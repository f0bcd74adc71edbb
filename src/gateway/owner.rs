//! The user whom a connection belongs to: whoever has proven himself on it last. When his token dies, it ends.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::auth::{CredentialId, Session};
use crate::domain::Login;

/// Time that a caller has for another request after his token's death, which is answered with 401.
const LAST_REQUEST: Duration = Duration::from_secs(5);

/// The last proven caller of a connection.
#[derive(Debug, Default)]
pub(super) struct Owner {
    known: Mutex<Option<Known>>,
    gone: Arc<Notify>,
    introduced: Notify,
}

#[derive(Debug)]
struct Known {
    credential: CredentialId,
    login: Login,
    /// Waits for the end of the token.
    watch: AbortHandle,
}

impl Owner {
    /// Tells whether a session was opened by what was shown last.
    pub(super) fn is(&self, session: &Session) -> bool {
        self.known.lock().as_ref().is_some_and(|known| known.credential == session.credential_id())
    }

    /// Hands the connection over to a session's token.
    pub(super) fn set(&self, session: &Session) {
        let (ended, gone) = (session.credential_invalidated(), Arc::clone(&self.gone));
        let watch = tokio::spawn(async move {
            ended.await;
            // A request that is on its way is told so itself.
            tokio::time::sleep(LAST_REQUEST).await;
            gone.notify_one();
        });
        let (credential, login) = (session.credential_id(), session.login().clone());
        let known = Known { credential, login, watch: watch.abort_handle() };
        drop(self.known.lock().replace(known));
        self.introduced.notify_one();
    }

    /// Waits until a caller has proven himself; returns his user.
    pub(super) async fn proven(&self) -> Login {
        loop {
            let login = self.known.lock().as_ref().map(|known| known.login.clone());
            match login {
                Some(login) => return login,
                None => self.introduced.notified().await,
            }
        }
    }

    /// Waits until the token that was shown last is dead.
    pub(super) async fn gone(&self) {
        self.gone.notified().await;
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        self.watch.abort();
    }
}
