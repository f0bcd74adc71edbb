//! One connection from accept to end, watched from outside russh's loop.

use std::collections::HashMap;
use std::pin::Pin;
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
use crate::net::{self, Connection};

use super::channel::{Orders, Parting};
use super::door::{Door, Farewell, LoginAttempts, RoundTrip};
use super::wire::{Line, Wire};
use super::{Sftp, SftpOptions, algorithms};

/// How long a client is given to take the farewell before the connection is cut.
const FAREWELL: Duration = Duration::from_millis(300);

/// How long the channels of a client that has taken leave go on with what it sent before. A commit that has begun is
/// not cut; hashes that nobody reads are.
const PARTING: Duration = Duration::from_secs(1);

/// How long a request of a login may go without an answer before the client is told that none will come.
const UNANSWERED_LIMIT: Duration = Duration::from_secs(1);

/// What a client is told of which russh left a request unanswered, in one line.
const UNANSWERED_WORDS: &str = "this server can't answer a second request for the login service, which paramiko sends \
    after a key: offer the token alone, as password (paramiko, fsspec: look_for_keys=False, allow_agent=False and no \
    key; duplicity: pexpect+sftp://; see `patgate client`)";

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Holds a running connection.
struct Watch {
    line: Line,
    orders: Orders,
    channels: TaskTracker,
    running: RunningSession<Door>,
    options: SftpOptions,
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
    let heavy_work = TaskTracker::new();
    let orders = Orders { over: over.clone(), stop, patience: sftp.options().patience, heavy_work, parting };
    let home = tokio::runtime::Handle::current();
    let (done, finished) = oneshot::channel::<()>();
    let Connection { stream, pass, .. } = connection;
    if let Err(error) = net::tolerate_silence(&stream, sftp.options().patience) {
        return tracing::debug!(%peer, %error, "connection lost before it began");
    }
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
    let options = *sftp.options();
    let deadline = Instant::now() + options.authentication;
    let Connection { stream, peer, pass, .. } = connection;
    let (wire, line) = Wire::new(stream, sftp.turns().claim(peer.ip()));
    let channels = TaskTracker::new();
    let (proven, who) = oneshot::channel();
    let (farewell, refused) = oneshot::channel();
    let mut displaced: BoxFuture<()> = Box::pin(pass.displaced());
    let door = Door {
        places: Arc::new(Semaphore::new(options.channels)),
        line: line.clone(),
        peer,
        pass,
        orders: orders.clone(),
        channels: channels.clone(),
        proven: Some(proven),
        farewell: Some(farewell),
        attempts: LoginAttempts::new(options.login_attempts),
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
        () = &mut displaced => return,
        running = run_stream(sftp.config(), wire, door) => running,
    };
    let running = match running {
        Ok(running) => running,
        Err(error) => return tracing::debug!(%peer, %error, "SSH connection refused"),
    };
    let mut watch = Watch { line, orders, channels, running, options, parted };
    if let Some(session) = watch.admit(who, refused, (deadline, displaced)).await {
        watch.attend(session).await;
    }
    watch.end().await;
}

impl Watch {
    /// Waits until the caller has proven himself; tells him where that won't come to pass.
    async fn admit(
        &mut self,
        mut who: oneshot::Receiver<Session>,
        refused: oneshot::Receiver<Farewell>,
        (deadline, displaced): (Instant, BoxFuture<()>),
    ) -> Option<Session> {
        let handle = self.running.handle();
        let (reason, words) = tokio::select! {
            Ok(session) = &mut who => return Some(session),
            result = &mut self.running => {
                self.note_lost_login(result);
                return None;
            }
            Ok(farewell) = refused => farewell,
            () = self.line.unanswered(UNANSWERED_LIMIT) => self.unanswered(),
            () = tokio::time::sleep_until(deadline) => {
                let words = format!("no login within {} s", self.options.authentication.as_secs_f32());
                (Disconnect::ByApplication, words)
            }
            () = displaced => (Disconnect::TooManyConnections, "others wait to log in".to_owned()),
            () = self.orders.stop.cancelled() => (Disconnect::ByApplication, "the server is stopping".to_owned()),
            () = self.orders.over.cancelled() => return None,
        };
        self.say_farewell(&handle, reason, &words).await;
        None
    }

    /// Returns what to tell a client that waits for an answer which russh will not send.
    fn unanswered(&self) -> Farewell {
        let client = self.line.client().unwrap_or_default();
        tracing::info!(client, "SSH login ended: a request that russh leaves unanswered");
        (Disconnect::ServiceNotAvailable, UNANSWERED_WORDS.to_owned())
    }

    /// Notes why a connection ended before its login; the client can't be told any more, since the keys went with it.
    fn note_lost_login(&self, result: Result<(), russh::Error>) {
        let client = self.line.client().unwrap_or_default();
        match result {
            Ok(()) => {}
            Err(error @ (russh::Error::Keys(_) | russh::Error::SshKey(_))) => {
                tracing::info!(client, %error, "SSH login lost: a key that russh can't read")
            }
            Err(error) => tracing::debug!(client, %error, "SSH login lost"),
        }
    }

    /// Waits for whatever ends the connection first.
    async fn attend(&mut self, session: Session) {
        let handle = self.running.handle();
        let (reason, words) = tokio::select! {
            result = &mut self.running => return self.part(result, &session).await,
            () = session.ended() => (Disconnect::ByApplication, "the token is no longer valid"),
            () = self.line.stalled(self.options.patience) => return,
            () = silent(&self.line, &self.options) => (Disconnect::ConnectionLost, "no answer to keepalives"),
            () = idle(&self.line, &self.options, &self.orders.heavy_work) => {
                (Disconnect::ByApplication, "no request for as long as sftp_idle_seconds allows")
            }
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

/// Waits until a client has left unanswered for too long whether it is there; for ever where it is never asked.
async fn silent(line: &Line, options: &SftpOptions) {
    match algorithms::keepalive_interval(options) {
        Some(interval) => line.silent(interval + options.patience).await,
        None => std::future::pending().await,
    }
}

/// Waits until a session has gone without a request for longer than it may; for ever where it may for any time.
async fn idle(line: &Line, options: &SftpOptions, heavy_work: &TaskTracker) {
    if options.idle.is_zero() {
        return std::future::pending().await;
    }
    line.idle(options.idle, || !heavy_work.is_empty()).await;
}

/// Waits until the server is to stop and no channel is left.
async fn drained(stop: &CancellationToken, channels: &TaskTracker) {
    stop.cancelled().await;
    channels.close();
    channels.wait().await;
}
