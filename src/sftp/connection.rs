//! One connection from accept to end, watched from outside russh's loop.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use russh::Disconnect;
use russh::server::{Handle, RunningSession, run_stream};
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::Session;
use crate::net::Connection;

use super::Sftp;
use super::channel::{Orders, Parting};
use super::door::{Door, RoundTrip};
use super::wire::{Line, Wire};

/// How long a client is given to take the farewell before the connection is cut.
const FAREWELL: Duration = Duration::from_millis(300);

/// How long the channels of a client that has taken leave go on with what it sent before. A commit that has begun is
/// not cut; hashes that nobody reads are.
const PARTING: Duration = Duration::from_secs(1);

/// Holds a running connection.
struct Watch {
    line: Line,
    orders: Orders,
    channels: TaskTracker,
    running: RunningSession<Door>,
    /// Tells the channels how the connection has ended.
    parted: watch::Sender<Option<Parting>>,
}

/// Serves one connection to its end, on a thread of its own.
///
/// A request and its answer then cost one change of threads, the client's: whatever hands requests to
/// other threads takes longer for it than for a small file. What a slow disk holds up is this thread.
pub(super) async fn serve(sftp: Sftp, connection: Connection, stop: CancellationToken) {
    let (peer, over) = (connection.peer, CancellationToken::new());
    let (parted, parting) = watch::channel(None);
    let orders = Orders { over: over.clone(), stop, patience: sftp.options().patience, parting };
    let home = tokio::runtime::Handle::current();
    let (done, finished) = oneshot::channel::<()>();
    let Connection { stream, pass, .. } = connection;
    let thread = stream.into_std().and_then(|stream| {
        thread::Builder::new().name("sftp".to_owned()).spawn(move || {
            // Dropped at the very end, when nothing of the connection is left.
            let _done = done;
            let runtime = match runtime::Builder::new_current_thread().enable_io().enable_time().build() {
                Ok(runtime) => runtime,
                Err(error) => return tracing::warn!(%peer, %error, "no resources for an SFTP connection"),
            };
            runtime.block_on(async move {
                match TcpStream::from_std(stream) {
                    Ok(stream) => {
                        let connection = Connection { stream, peer, encrypted: true, pass };
                        run(sftp, connection, (orders, parted), home).await;
                    }
                    Err(error) => tracing::debug!(%peer, %error, "connection lost before it began"),
                }
            });
        })
    });
    if let Err(error) = thread {
        return tracing::warn!(%peer, %error, "no thread for an SFTP connection");
    }
    let _over = over.drop_guard();
    // An error is the sign: the sender is only ever dropped.
    let _ = finished.await;
}

async fn run(
    sftp: Sftp,
    connection: Connection,
    (orders, parted): (Orders, watch::Sender<Option<Parting>>),
    home: runtime::Handle,
) {
    let deadline = Instant::now() + sftp.options().authentication;
    let Connection { stream, peer, pass, .. } = connection;
    let (wire, line) = Wire::new(stream);
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
        home,
    };
    let running = tokio::select! {
        () = orders.stop.cancelled() => return,
        () = orders.over.cancelled() => return,
        () = tokio::time::sleep_until(deadline) => return,
        running = run_stream(sftp.config(), wire, door) => running,
    };
    let running = match running {
        Ok(running) => running,
        Err(error) => return tracing::debug!(%peer, %error, "SSH connection refused"),
    };
    let mut watch = Watch { line, orders, channels, running, parted };
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
            () = self.orders.over.cancelled() => None,
        }
    }

    /// Waits for whatever ends the connection first.
    async fn attend(&mut self, session: Session) {
        let handle = self.running.handle();
        let (reason, words) = tokio::select! {
            result = &mut self.running => return self.part(result, &session).await,
            () = session.ended() => (Disconnect::ByApplication, "the token is no longer valid"),
            () = self.line.stalled(self.orders.patience) => return,
            () = self.orders.over.cancelled() => (Disconnect::ProtocolError, "the session can't go on"),
            () = drained(&self.orders.stop, &self.channels) => (Disconnect::ByApplication, "the server is stopping"),
        };
        self.say_farewell(&handle, reason, words).await;
    }

    /// Tells the channels how the connection has ended, and where the client took leave lets them do what it sent before.
    async fn part(&self, result: Result<(), russh::Error>, session: &Session) {
        let parting = match result {
            Ok(()) => Parting::Orderly,
            Err(error) => {
                tracing::debug!(%error, "SSH connection lost");
                Parting::Lost
            }
        };
        self.parted.send_replace(Some(parting));
        if parting == Parting::Orderly {
            self.channels.close();
            tokio::select! {
                () = self.channels.wait() => {}
                () = tokio::time::sleep(PARTING) => {}
                () = session.ended() => {}
                () = self.orders.over.cancelled() => {}
            }
        }
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
