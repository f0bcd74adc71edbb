//! SFTP version 3 (draft-ietf-secsh-filexfer-02) over russh, in terms of a [`crate::tree::View`].
//!
//! russh is the transport; the loop over SFTP packets is ours. From the outside in: `connection` gives
//! each socket a thread, watches it (`wire`, `answer_monitor`) and ends it in time, and `turns` bounds what strangers have
//! computed; `door` answers what russh asks; `channel`
//! moves bytes; `input`, `request` and `reply` are the packets; `worker` answers them, by theme in `files`,
//! `hashes`, `folders` and `names`, over what the session has open ([`crate::tree::SessionFiles`]).

mod algorithms;
mod answer_monitor;
mod attributes;
mod channel;
mod connection;
mod door;
mod error;
mod files;
mod folders;
mod handles;
mod hashes;
mod hashing;
mod host_keys;
mod input;
mod names;
mod paths;
mod reply;
mod request;
mod turns;
mod wire;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::auth::Authenticator;
use crate::domain::{ShareLimits, Shares};
use crate::net::Connection;
use crate::tree::Tree;

pub use host_keys::HostKeys;

use hashing::Hashing;
use turns::LoginTurns;

/// What one client may take, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SftpOptions {
    /// From accept to authenticated.
    pub authentication: Duration,
    /// Refused tokens after which a connection ends.
    pub login_attempts: usize,
    /// Channels of one connection at once.
    pub channels: usize,
    /// Open files and folders of one connection at once.
    pub handles: usize,
    /// Connections of one user at once.
    pub connections_per_user: usize,
    /// Silence after which a client is asked whether it is there; zero for never. It counts from `authentication` on.
    pub keepalive: Duration,
    /// How long a client may leave that question unanswered, or an answer untaken.
    pub patience: Duration,
    /// How long a session may go on without a request; zero for any time.
    pub idle: Duration,
    /// Time for which what a lost connection has left of an upload to a new name is kept for its token; zero: not at all.
    pub resume: Duration,
    /// Bytes in one direction after which keys are exchanged anew; 1 GiB at most.
    pub rekey_bytes: usize,
    /// Time after which keys are exchanged anew.
    pub rekey_after: Duration,
}

impl Default for SftpOptions {
    fn default() -> Self {
        Self {
            authentication: Duration::from_secs(120),
            login_attempts: 6,
            channels: 10,
            handles: 1024,
            connections_per_user: 64,
            keepalive: Duration::from_secs(300),
            patience: Duration::from_secs(3600),
            idle: Duration::ZERO,
            resume: Duration::from_secs(86_400),
            rekey_bytes: 1 << 30,
            rekey_after: Duration::from_secs(3600),
        }
    }
}

/// Serves SSH connections; clones share all state.
#[derive(Clone)]
pub struct Sftp(Arc<Inner>);

struct Inner {
    tree: Tree,
    auth: Authenticator,
    config: Arc<russh::server::Config>,
    connections: Shares,
    hashing: Hashing,
    turns: LoginTurns,
    options: SftpOptions,
}

impl Sftp {
    /// Serves a tree to callers that `auth` proves.
    pub fn new(tree: Tree, auth: Authenticator, keys: HostKeys) -> Self {
        Self::with_options(tree, auth, keys, SftpOptions::default())
    }

    /// Serves a tree, with limits of one's own.
    pub fn with_options(tree: Tree, auth: Authenticator, keys: HostKeys, options: SftpOptions) -> Self {
        let options = SftpOptions { rekey_bytes: options.rekey_bytes.min(1 << 30), ..options };
        let config = Arc::new(algorithms::config(&keys, &options));
        let per_user = u64::try_from(options.connections_per_user).unwrap_or(u64::MAX);
        let connections = Shares::new(ShareLimits { per_user, in_all: u64::MAX });
        Self(Arc::new(Inner {
            tree,
            auth,
            config,
            connections,
            hashing: Hashing::new(),
            turns: LoginTurns::of_half_the_processors(),
            options,
        }))
    }

    /// Serves one connection to its end; when `stop` is cancelled, ends it once what is under way is done:
    /// requests that have come in, and files that are open.
    pub async fn serve(&self, connection: Connection, stop: CancellationToken) {
        connection::serve(self.clone(), connection, stop).await;
    }

    fn tree(&self) -> &Tree {
        &self.0.tree
    }

    fn auth(&self) -> &Authenticator {
        &self.0.auth
    }

    fn connections(&self) -> &Shares {
        &self.0.connections
    }

    fn hashing(&self) -> &Hashing {
        &self.0.hashing
    }

    fn turns(&self) -> &LoginTurns {
        &self.0.turns
    }

    fn options(&self) -> &SftpOptions {
        &self.0.options
    }

    fn config(&self) -> Arc<russh::server::Config> {
        self.0.config.clone()
    }
}
