//! What a connection learns of its caller as soon as he has proven himself: before his request is carried out.

use std::sync::Arc;

use http::Extensions;

use crate::auth::{AuthError, Session};
use crate::net::TooManyConnections;

/// A connection that counts as one of its caller's user.
pub trait AuthenticatedConnection: Send + Sync {
    /// Notes who the caller of a request has proven to be.
    ///
    /// # Errors
    /// [`TooManyConnections`]: the request is not to be carried out.
    fn on_authenticated(&self, session: &Session) -> Result<(), TooManyConnections>;
}

/// Extension of a request: the connection that it came by.
#[derive(Clone)]
pub struct ConnectionHandle(pub Arc<dyn AuthenticatedConnection>);

impl ConnectionHandle {
    /// Tells the connection of a request who its caller has proven to be. What came by no connection has none to tell.
    ///
    /// # Errors
    /// [`AuthError::TooManyConnections`].
    pub fn notify_authenticated(extensions: &Extensions, session: &Session) -> Result<(), AuthError> {
        match extensions.get::<Self>() {
            Some(Self(connection)) => connection.on_authenticated(session).map_err(|_| AuthError::TooManyConnections),
            None => Ok(()),
        }
    }
}
