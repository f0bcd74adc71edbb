//! PROXY headers of the connections that a trusted proxy forwards.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::http::TrustedProxies;
use crate::net::AcceptedConnection;

/// Maximum time until a proxy has sent its header, which comes before anything else.
const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Reader of the PROXY headers of one listener.
#[derive(Clone, Debug)]
pub(super) struct ProxyProtocolReader {
    enabled: bool,
    proxies: Arc<TrustedProxies>,
}

impl ProxyProtocolReader {
    /// Creates a reader that expects headers of these proxies where `enabled`.
    pub(super) fn new(enabled: bool, proxies: &Arc<TrustedProxies>) -> Self {
        Self { enabled, proxies: Arc::clone(proxies) }
    }

    /// Returns a connection with the address of its client; `None` for one of a trusted proxy without a valid header.
    /// The connection of any other peer is returned unread, whatever it begins with.
    pub(super) async fn read_header(
        &self,
        connection: AcceptedConnection,
        stop: &CancellationToken,
    ) -> Option<AcceptedConnection> {
        let peer = connection.peer;
        // Anybody else could claim any address. A header from such a peer is left to the protocol, which refuses it.
        if !self.enabled || !self.proxies.is_trusted(peer.ip()) {
            return Some(connection);
        }
        let header = tokio::select! {
            header = connection.read_proxy_header(PROXY_HEADER_TIMEOUT) => header,
            () = stop.cancelled() => return None,
        };
        header
            .inspect_err(|error| tracing::debug!(%peer, %error, "a connection of a proxy was closed: no valid PROXY header came, or too many connections of its client are open"))
            .ok()
    }
}
