//! Connections that a trusted proxy hands on with a PROXY header.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::http::TrustedProxies;
use crate::net::AcceptedConnection;

/// How long a proxy may take for its header; it sends it before anything else.
const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// What a listener expects of proxies.
#[derive(Clone, Debug)]
pub(super) struct ProxyProtocolReader {
    enabled: bool,
    proxies: Arc<TrustedProxies>,
}

impl ProxyProtocolReader {
    /// Expects headers of these proxies where that is `on`.
    pub(super) fn new(enabled: bool, proxies: &Arc<TrustedProxies>) -> Self {
        Self { enabled, proxies: Arc::clone(proxies) }
    }

    /// Returns a connection as that of its caller; none of a proxy that doesn't say whose it is. Whoever is
    /// no proxy speaks for himself, whatever he begins with.
    pub(super) async fn read_header(
        &self,
        connection: AcceptedConnection,
        stop: &CancellationToken,
    ) -> Option<AcceptedConnection> {
        let peer = connection.peer;
        if !self.enabled || !self.proxies.is_trusted(peer.ip()) {
            return Some(connection);
        }
        let header = tokio::select! {
            header = tokio::time::timeout(PROXY_HEADER_TIMEOUT, connection.read_proxy_header()) => header.unwrap_or(Err(std::io::ErrorKind::TimedOut.into())),
            () = stop.cancelled() => return None,
        };
        header.inspect_err(|error| tracing::debug!(%peer, %error, "no PROXY header came")).ok()
    }
}
