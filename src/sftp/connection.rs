//! One connection from accept to end, watched from outside russh's loop.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use russh::Disconnect;
use russh::server::{Handle, RunningSession, run_stream};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::Session;
use crate::net::Connection;

use super::Sftp;
use super::channel::Orders;
use super::door::{Door, RoundTrip};
use super::wire::{CutOnDrop, Line, Wire};

/// How long a client is given to take the farewell before the connection is cut.
const FAREWELL: Duration = Duration::from_millis(300);

/// Holds a running connection.
struct Watch {
    line: Line,
    orders: Orders,
    channels: TaskTracker,
    running: RunningSession<Door>,
    /// Ends all that the connection holds, however this is left.
    _cut: CutOnDrop,
    _over: tokio_util::sync::DropGuard,
}

/// Serves one connection to its end.
pub(super) async fn serve(sftp: Sftp, connection: Connection, stop: CancellationToken) {
    let deadline = Instant::now() + sftp.options().authentication;
    let Connection { stream, peer, pass } = connection;
    let (wire, line) = Wire::new(stream);
    let cut = CutOnDrop(line.clone());
    let orders = Orders { over: CancellationToken::new(), stop, patience: sftp.options().patience };
    let over = orders.over.clone().drop_guard();
    let channels = TaskTracker::new();
    let (proven, who) = oneshot::channel();
    let door = Door {
        places: Arc::new(Semaphore::new(sftp.options().channels)),
        line: line.clone(),
        peer,
        pass,
        orders: orders.clone(),
        channels: channels.clone(),
        proven: Some(proven),
        inside: None,
        waiting: HashMap::new(),
        round_trip: RoundTrip::default(),
        sftp: sftp.clone(),
    };
    let running = tokio::select! {
        () = orders.stop.cancelled() => return,
        () = tokio::time::sleep_until(deadline) => return,
        running = run_stream(sftp.config(), wire, door) => running,
    };
    let running = match running {
        Ok(running) => running,
        Err(error) => return tracing::debug!(%peer, %error, "SSH connection refused"),
    };
    let mut watch = Watch { line, orders, channels, running, _cut: cut, _over: over };
    if let Some(session) = watch.admit(who, deadline).await {
        watch.attend(session).await;
    }
    watch.end().await;
}

impl Watch {
    /// Waits until the caller has proven himself; none when that takes too long.
    async fn admit(&mut self, mut who: oneshot::Receiver<Session>, deadline: Instant) -> Option<Session> {
        tokio::select! {
            session = &mut who => session.ok(),
            _ = &mut self.running => None,
            () = tokio::time::sleep_until(deadline) => None,
            () = self.orders.stop.cancelled() => None,
        }
    }

    /// Waits for whatever ends the connection first.
    async fn attend(&mut self, session: Session) {
        let handle = self.running.handle();
        let (reason, words) = tokio::select! {
            result = &mut self.running => {
                if let Err(error) = result {
                    tracing::debug!(%error, "SSH connection ended");
                }
                return;
            }
            () = session.ended() => (Disconnect::ByApplication, "the token is no longer valid"),
            () = self.line.stalled(self.orders.patience) => return,
            () = self.orders.over.cancelled() => (Disconnect::ProtocolError, "the session can't go on"),
            () = drained(&self.orders.stop, &self.channels) => (Disconnect::ByApplication, "the server is stopping"),
        };
        self.say_farewell(&handle, reason, words).await;
    }

    async fn say_farewell(&mut self, handle: &Handle, reason: Disconnect, words: &str) {
        let farewell = async {
            // A loop that is stuck takes no farewell; it is cut.
            let _ = handle.disconnect(reason, words.to_owned(), String::new()).await;
            let _ = (&mut self.running).await;
        };
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
    }

    /// Cuts the connection and waits for what its channels still do.
    async fn end(self) {
        self.orders.over.cancel();
        self.line.cut();
        self.channels.close();
        self.channels.wait().await;
    }
}

/// Waits until the server is to stop and no channel is left.
async fn drained(stop: &CancellationToken, channels: &TaskTracker) {
    stop.cancelled().await;
    channels.close();
    channels.wait().await;
}
