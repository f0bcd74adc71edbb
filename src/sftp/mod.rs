//! SFTP version 3 (draft-ietf-secsh-filexfer-02) over russh, on top of a [`crate::tree::View`].
//!
//! russh is the transport; the loop over SFTP packets is ours. From the outside in: `connection` gives each socket a
//! thread, supervises it (`monitored_stream`, `login_reply_monitor`) and ends it in time, and `preauth_slots` bounds
//! the key exchanges of unauthenticated clients; `handler` answers russh's callbacks; `channel` moves bytes;
//! `packet_input`, `request` and `reply` are the packets; `worker` dispatches requests, which are implemented by theme
//! in `file_requests`, `check_file`, `directory_requests` and `path_requests`, on the session's open files
//! ([`crate::tree::SessionFiles`]).

mod access_log;
mod algorithms;
mod attributes;
mod certificates;
mod channel;
mod check_file;
mod connection;
mod directory_requests;
mod error;
mod file_requests;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod handler;
mod handles;
mod hash_limit;
mod host_keys;
mod logged_request;
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
use crate::telemetry::OperationRecorder;
use crate::tree::Tree;

pub use certificates::{CertificateFileError, SshCertificates};
pub use host_keys::HostKeys;

use hash_limit::HashLimiter;
use preauth_slots::PreauthSlots;

/// Limits and timeouts of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SftpOptions {
    /// Maximum time from accept to a successful login.
    pub login_timeout: Duration,
    /// Number of rejected tokens after which a connection is closed.
    pub max_login_attempts: usize,
    /// Maximum number of open channels of one connection.
    pub max_channels: usize,
    /// Maximum number of open files and directories of one connection.
    pub max_handles: usize,
    /// Maximum number of concurrent connections of one user.
    pub max_connections_per_user: usize,
    /// Idle time after which a keepalive is sent; zero disables keepalives. At least `login_timeout` is used.
    pub keepalive_interval: Duration,
    /// Maximum time for which a client may leave a keepalive unanswered or a reply unread.
    pub client_timeout: Duration,
    /// Maximum time without an SFTP request; zero disables the limit.
    pub idle_timeout: Duration,
    /// Time for which an upload to a new name is kept for its token after its connection was lost; zero discards it.
    pub upload_retention: Duration,
    /// Number of bytes in one direction after which keys are exchanged again; at most 1 GiB (RFC 4253 section 9).
    pub rekey_bytes: usize,
    /// Time after which keys are exchanged again (RFC 4253 section 9).
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

/// SFTP server; clones share all state.
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
    certificates: SshCertificates,
    recorder: Arc<OperationRecorder>,
}

impl Sftp {
    /// Returns a server of `tree` for clients that `auth` authenticates, with the default options.
    pub fn new(tree: Tree, auth: Authenticator, keys: HostKeys) -> Self {
        Self::with_options(tree, auth, keys, SftpOptions::default(), &SshCertificates::default())
    }

    /// Returns a server of `tree` with the given options; `rekey_bytes` above 1 GiB is reduced to it.
    pub fn with_options(
        tree: Tree,
        auth: Authenticator,
        keys: HostKeys,
        options: SftpOptions,
        certificates: &SshCertificates,
    ) -> Self {
        let options = SftpOptions { rekey_bytes: options.rekey_bytes.min(1 << 30), ..options };
        let config = Arc::new(algorithms::server_config(&keys, certificates, &options));
        let per_user = u64::try_from(options.max_connections_per_user).unwrap_or(u64::MAX);
        // Their total is bounded by the listener's connection limit.
        let connections = UserQuotas::new(UserQuotaLimits { per_user, total: u64::MAX });
        Self(Arc::new(SftpInner {
            tree,
            auth,
            config,
            connections,
            // One for all connections: CPUs are shared by all of them.
            hash_limiter: HashLimiter::new(),
            preauth_slots: PreauthSlots::for_half_the_cpus(),
            options,
            certificates: certificates.clone(),
            recorder: Arc::default(),
        }))
    }

    /// Returns the server with the record to which it reports its operations. Call it before the first clone.
    #[must_use]
    pub fn with_recorder(mut self, recorder: Arc<OperationRecorder>) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.recorder = recorder;
        }
        self
    }

    /// Serves one connection until it ends. After `stop` is cancelled, it ends as soon as the requests that were
    /// received are answered and the files that are open are closed.
    pub async fn serve(&self, connection: AcceptedConnection, stop: CancellationToken) {
        // Before the key exchange, which costs more than everything else that a stranger may ask for.
        if let Some(refusal) = self.auth().address_refusal(connection.peer.ip()) {
            tracing::debug!(peer = %connection.peer, "an SFTP connection was refused: {refusal}");
            return;
        }
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

    fn recorder(&self) -> Arc<OperationRecorder> {
        Arc::clone(&self.0.recorder)
    }

    fn options(&self) -> &SftpOptions {
        &self.0.options
    }

    /// Returns the certificates that are accepted and shown.
    fn certificates(&self) -> &SshCertificates {
        &self.0.certificates
    }

    fn config(&self) -> Arc<russh::server::Config> {
        self.0.config.clone()
    }
}
