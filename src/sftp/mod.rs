//! SFTP version 3 (draft-ietf-secsh-filexfer-02) over russh, in terms of a [`crate::tree::View`].
//!
//! russh is the transport; the loop over SFTP packets is ours. From the outside in: `connection` gives
//! each socket a thread, watches it (`wire`, `answer_monitor`) and ends it in time, and `turns` bounds what strangers have
//! computed; `door` answers what russh asks; `channel`
//! moves bytes; `input`, `request` and `reply` are the packets; `worker` answers them, by theme in `files`,
//! `hashes`, `folders` and `names`, over what the session has open ([`crate::tree::SessionFiles`]).

mod algorithms;
mod attributes;
mod channel;
mod check_file;
mod connection;
mod directory_requests;
mod error;
mod file_requests;
mod handler;
mod handles;
mod hash_limit;
mod host_keys;
mod login_reply_monitor;
mod monitored_stream;
mod open_directory;
mod packet_input;
mod path_requests;
mod path_resolution;
mod preauth_slots;
mod reply;
mod request;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::auth::Authenticator;
use crate::domain::{UserQuotaLimits, UserQuotas};
use crate::net::AcceptedConnection;
use crate::tree::Tree;

pub use host_keys::HostKeys;

use hash_limit::HashLimiter;
use preauth_slots::PreauthSlots;

/// What one client may take, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SftpOptions {
    /// From accept to authenticated.
    pub login_timeout: Duration,
    /// Refused tokens after which a connection ends.
    pub max_login_attempts: usize,
    /// Channels of one connection at once.
    pub max_channels: usize,
    /// Open files and folders of one connection at once.
    pub max_handles: usize,
    /// Connections of one user at once.
    pub max_connections_per_user: usize,
    /// Silence after which a client is asked whether it is there; zero for never. It counts from `authentication` on.
    pub keepalive_interval: Duration,
    /// How long a client may leave that question unanswered, or an answer untaken.
    pub client_timeout: Duration,
    /// How long a session may go on without a request; zero for any time.
    pub idle_timeout: Duration,
    /// Time for which what a lost connection has left of an upload to a new name is kept for its token; zero: not at all.
    pub upload_retention: Duration,
    /// Bytes in one direction after which keys are exchanged anew; 1 GiB at most.
    pub rekey_bytes: usize,
    /// Time after which keys are exchanged anew.
    pub rekey_after: Duration,
}

impl Default for SftpOptions {
    fn default() -> Self {
        Self {
            login_timeout: Duration::from_secs(120),
            max_login_attempts: 6,
            max_channels: 10,
            max_handles: 1024,
            max_connections_per_user: 64,
            keepalive_interval: Duration::from_secs(300),
            client_timeout: Duration::from_secs(3600),
            idle_timeout: Duration::ZERO,
            upload_retention: Duration::from_secs(86_400),
            rekey_bytes: 1 << 30,
            rekey_after: Duration::from_secs(3600),
        }
    }
}

/// Serves SSH connections; clones share all state.
#[derive(Clone)]
pub struct Sftp(Arc<SftpInner>);

struct SftpInner {
    tree: Tree,
    auth: Authenticator,
    config: Arc<russh::server::Config>,
    connections: UserQuotas,
    hash_limiter: HashLimiter,
    preauth_slots: PreauthSlots,
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
        let config = Arc::new(algorithms::server_config(&keys, &options));
        let per_user = u64::try_from(options.max_connections_per_user).unwrap_or(u64::MAX);
        let connections = UserQuotas::new(UserQuotaLimits { per_user, total: u64::MAX });
        Self(Arc::new(SftpInner {
            tree,
            auth,
            config,
            connections,
            hash_limiter: HashLimiter::new(),
            preauth_slots: PreauthSlots::for_half_the_cpus(),
            options,
        }))
    }

    /// Serves one connection to its end; when `stop` is cancelled, ends it once what is under way is done:
    /// requests that have come in, and files that are open.
    pub async fn serve(&self, connection: AcceptedConnection, stop: CancellationToken) {
        connection::serve(self.clone(), connection, stop).await;
    }

    fn tree(&self) -> &Tree {
        &self.0.tree
    }

    fn auth(&self) -> &Authenticator {
        &self.0.auth
    }

    fn connections(&self) -> &UserQuotas {
        &self.0.connections
    }

    fn hash_limiter(&self) -> &HashLimiter {
        &self.0.hash_limiter
    }

    fn preauth_slots(&self) -> &PreauthSlots {
        &self.0.preauth_slots
    }

    fn options(&self) -> &SftpOptions {
        &self.0.options
    }

    fn config(&self) -> Arc<russh::server::Config> {
        self.0.config.clone()
    }
}
