//! Notification of a connection that one of its requests has authenticated, before that request is carried out.

use std::sync::Arc;

use http::Extensions;

use super::last_session::LastSession;
use crate::auth::{AuthError, Session};
use crate::net::{FileTransfer, TooManyConnections};

/// A connection that counts towards the limit of its user.
pub trait AuthenticatedConnection: Send + Sync {
    /// Records the session that a request has authenticated.
    ///
    /// # Errors
    /// [`TooManyConnections`] when the user has as many connections as the limit allows; the request must not be
    /// carried out.
    fn on_authenticated(&self, session: &Session) -> Result<(), TooManyConnections>;

    /// Returns the session of its last authenticated request.
    fn last_session(&self) -> &LastSession;
}

/// Extension of a request: the connection on which it arrived.
#[derive(Clone)]
pub struct ConnectionHandle {
    /// The connection.
    pub connection: Arc<dyn AuthenticatedConnection>,
    /// Files that the connection sends by itself; only where it writes the bytes of a body as they are.
    pub file_transfer: Option<FileTransfer>,
}

impl ConnectionHandle {
    /// Notifies the connection of a request that it is authenticated. A request without a connection (in tests) passes.
    ///
    /// # Errors
    /// [`AuthError::TooManyConnections`] when the user has as many connections as the limit allows.
    pub fn notify_authenticated(extensions: &Extensions, session: &Session) -> Result<(), AuthError> {
        match extensions.get::<Self>() {
            Some(Self { connection, .. }) => {
                connection.on_authenticated(session).map_err(|_| AuthError::TooManyConnections)
            }
            None => Ok(()),
        }
    }
}
