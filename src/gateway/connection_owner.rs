//! Owner of a connection: the user that authenticated on it last. The connection ends with that user's token.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::auth::{CredentialId, Session};
use crate::domain::Login;

/// Time that a client has for another request, which is answered with 401, after its token has become invalid.
const REVOKED_TOKEN_GRACE_PERIOD: Duration = Duration::from_secs(5);

/// User and token that authenticated last on a connection.
#[derive(Debug, Default)]
pub(super) struct ConnectionOwner {
    identity: Mutex<Option<OwnerIdentity>>,
    token_ended_notify: Arc<Notify>,
    authenticated_notify: Notify,
}

#[derive(Debug)]
struct OwnerIdentity {
    credential: CredentialId,
    login: Login,
    /// Task that waits until the token is not valid any more.
    token_watch: AbortHandle,
}

impl ConnectionOwner {
    /// Tells whether a session was opened with the credential that authenticated last.
    pub(super) fn is_credential_of(&self, session: &Session) -> bool {
        self.identity.lock().as_ref().is_some_and(|identity| identity.credential == session.credential_id())
    }

    /// Makes the session's token and user the owner of the connection.
    pub(super) fn set(&self, session: &Session) {
        let (invalidated, token_ended_notify) =
            (session.credential_invalidated(), Arc::clone(&self.token_ended_notify));
        let watch = tokio::spawn(async move {
            invalidated.await;
            // A request that is on its way gets its 401, and not a reset.
            tokio::time::sleep(REVOKED_TOKEN_GRACE_PERIOD).await;
            token_ended_notify.notify_one();
        });
        let (credential, login) = (session.credential_id(), session.login().clone());
        let identity = OwnerIdentity { credential, login, token_watch: watch.abort_handle() };
        // The drop of the identity before aborts its watch: the end of a token that is no longer used here must not
        // close the connection.
        drop(self.identity.lock().replace(identity));
        self.authenticated_notify.notify_one();
    }

    /// Waits until a client has authenticated; returns its user.
    pub(super) async fn authenticated(&self) -> Login {
        loop {
            let login = self.identity.lock().as_ref().map(|identity| identity.login.clone());
            match login {
                Some(login) => return login,
                // `notify_one` is remembered: a login between the look and the wait is not missed.
                None => self.authenticated_notify.notified().await,
            }
        }
    }

    /// Waits until the token of the owner has been invalid for [`REVOKED_TOKEN_GRACE_PERIOD`].
    pub(super) async fn token_ended(&self) {
        self.token_ended_notify.notified().await;
    }
}

impl Drop for OwnerIdentity {
    fn drop(&mut self) {
        self.token_watch.abort();
    }
}
