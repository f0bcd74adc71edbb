//! SFTP version 3 (draft-ietf-secsh-filexfer-02) over russh, in terms of a [`crate::tree::View`].

use std::path::Path;

use tokio_util::sync::CancellationToken;

use crate::auth::Authenticator;
use crate::net::Connection;
use crate::tree::Tree;

/// The server's identity: its host keys.
#[derive(Clone)]
pub struct HostKeys {}

impl HostKeys {
    /// Reads the keys in the state directory; makes them (0600) when they are not there.
    ///
    /// # Errors
    /// What the host says when they can't be read or written.
    pub fn open(_state: &Path) -> std::io::Result<Self> {
        todo!()
    }

    /// Makes an ed25519 key that is kept nowhere, for tests.
    pub fn throwaway() -> Self {
        todo!()
    }
}

/// Serves SSH connections; clones share all state.
#[derive(Clone)]
pub struct Sftp {}

impl Sftp {
    /// Serves a tree to callers that `auth` proves.
    pub fn new(_tree: Tree, _auth: Authenticator, _keys: HostKeys) -> Self {
        todo!()
    }

    /// Serves one connection to its end; when `stop` is cancelled, ends it once what is under way is done.
    pub async fn serve(&self, _connection: Connection, _stop: CancellationToken) {
        todo!()
    }
}
