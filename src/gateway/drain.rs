//! The end of a server's connections, in two steps, so that a request that is on its way when the server stops is
//! answered: a restart behind a socket that the service manager holds then refuses and cuts nothing.
//!
//! At first nothing is closed: clients are told that their connection ends (`Connection: close` on the next response,
//! GOAWAY over HTTP/2), and connections that were accepted just before get to send their first request or to log in.
//! Then what is idle is closed, and the rest ends with the request that it is in.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Maximum time for which idle connections stay open once the server stops: what a client has sent by then arrives.
const IDLE_CLOSE_DELAY: Duration = Duration::from_secs(2);

/// Signals that end the connections of a server.
#[derive(Clone, Debug)]
pub(super) struct DrainSignals {
    /// Cancelled when the server stops: no connection is to be used for more than the next request.
    pub(super) draining: CancellationToken,
    /// Cancelled at most [`IDLE_CLOSE_DELAY`] later: idle connections end, all others with the request that they are in.
    pub(super) end: CancellationToken,
}

impl DrainSignals {
    /// Creates the signals of a server that `stop` stops.
    pub(super) fn new(stop: CancellationToken) -> Self {
        Self { draining: stop, end: CancellationToken::new() }
    }

    /// Returns signals for one connection, cancelled with these: each poll of a wait takes the lock of its token, which
    /// all connections would share.
    pub(super) fn for_connection(&self) -> Self {
        Self { draining: self.draining.child_token(), end: self.end.child_token() }
    }
}

/// Waits until all connections have ended, at most for `timeout` since the server has stopped.
pub(super) async fn drain_connections(connections: &TaskTracker, signals: &DrainSignals, timeout: Duration) {
    let deadline = Instant::now() + timeout;
    connections.close();
    // Half of a short time-out is left for the requests that are under way.
    let idle_close_delay = IDLE_CLOSE_DELAY.min(timeout / 2);
    let _ = tokio::time::timeout(idle_close_delay, connections.wait()).await;
    signals.end.cancel();
    if tokio::time::timeout_at(deadline, connections.wait()).await.is_err() {
        tracing::warn!("{} connections were closed after {} s", connections.len(), timeout.as_secs());
    }
}
