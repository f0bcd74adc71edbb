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
use crate::net::{self, AcceptedConnection};

use super::channel::{DisconnectKind, ShutdownSignals};
use super::handler::{DisconnectMessage, LoginAttempts, RoundTripTimer, SshHandler};
use super::monitored_stream::{ConnectionControl, MonitoredStream};
use super::{Sftp, SftpOptions, algorithms};

/// How long a client is given to take the farewell before the connection is cut.
const DISCONNECT_TIMEOUT: Duration = Duration::from_millis(300);

/// How long the channels of a client that has taken leave go on with what it sent before. A commit that has begun is
/// not cut; hashes that nobody reads are.
const CHANNEL_DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a request of a login may go without an answer before the client is told that none will come.
const UNANSWERED_REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// What a client is told of which russh left a request unanswered, in one line.
const UNANSWERED_REQUEST_MESSAGE: &str = "this server can't answer a second request for the login service, which paramiko sends \
    after a key: offer the token alone, as password (paramiko, fsspec: look_for_keys=False, allow_agent=False and no \
    key; duplicity: pexpect+sftp://; see `patgate client`)";

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Holds a running connection.
struct ConnectionSupervisor {
    control: ConnectionControl,
    signals: ShutdownSignals,
    channels: TaskTracker,
    running_session: RunningSession<SshHandler>,
    options: SftpOptions,
    /// Tells the channels how the connection has ended.
    disconnect_kind: watch::Sender<Option<DisconnectKind>>,
}

/// Serves one connection to its end, on a thread of its own.
///
/// A request and its answer then cost one change of threads, the client's: whatever hands requests to
/// other threads takes longer for it than for a small file. What a slow disk holds up is this thread.
pub(super) async fn serve(sftp: Sftp, connection: AcceptedConnection, stop: CancellationToken) {
    let (peer, over) = (connection.peer, CancellationToken::new());
    let (parted, parting) = watch::channel(None);
    let heavy_work = TaskTracker::new();
    let orders = ShutdownSignals {
        closing: over.clone(),
        stop,
        client_timeout: sftp.options().client_timeout,
        blocking_work: heavy_work,
        disconnect_kind: parting,
    };
    let home = tokio::runtime::Handle::current();
    let (done, finished) = oneshot::channel::<()>();
    let AcceptedConnection { stream, permit: pass, .. } = connection;
    if let Err(error) = net::set_peer_timeout(&stream, sftp.options().client_timeout) {
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
                        let connection = AcceptedConnection { stream, peer, encrypted: true, permit: pass };
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
    connection: AcceptedConnection,
    (orders, parted): (ShutdownSignals, watch::Sender<Option<DisconnectKind>>),
    home: runtime::Handle,
) {
    let options = *sftp.options();
    let deadline = Instant::now() + options.login_timeout;
    let AcceptedConnection { stream, peer, permit: pass, .. } = connection;
    let (wire, line) = MonitoredStream::new(stream, sftp.preauth_slots().claim(peer.ip()));
    let channels = TaskTracker::new();
    let (proven, who) = oneshot::channel();
    let (farewell, refused) = oneshot::channel();
    let mut displaced: BoxFuture<()> = Box::pin(pass.evicted());
    let door = SshHandler {
        channel_permits: Arc::new(Semaphore::new(options.max_channels)),
        control: line.clone(),
        peer,
        permit: pass,
        signals: orders.clone(),
        channels: channels.clone(),
        session_sender: Some(proven),
        disconnect_sender: Some(farewell),
        login_attempts: LoginAttempts::new(options.max_login_attempts),
        authenticated: None,
        unstarted_channels: HashMap::new(),
        round_trip: RoundTripTimer::default(),
        sftp: sftp.clone(),
        main_runtime: home,
    };
    let running = tokio::select! {
        () = orders.stop.cancelled() => return,
        () = orders.closing.cancelled() => return,
        () = tokio::time::sleep_until(deadline) => return,
        () = &mut displaced => return,
        running = run_stream(sftp.config(), wire, door) => running,
    };
    let running = match running {
        Ok(running) => running,
        Err(error) => return tracing::debug!(%peer, %error, "SSH connection refused"),
    };
    let mut watch = ConnectionSupervisor {
        control: line,
        signals: orders,
        channels,
        running_session: running,
        options,
        disconnect_kind: parted,
    };
    if let Some(session) = watch.wait_for_login(who, refused, (deadline, displaced)).await {
        watch.supervise_session(session).await;
    }
    watch.close().await;
}

impl ConnectionSupervisor {
    /// Waits until the caller has proven himself; tells him where that won't come to pass.
    async fn wait_for_login(
        &mut self,
        mut who: oneshot::Receiver<Session>,
        refused: oneshot::Receiver<DisconnectMessage>,
        (deadline, displaced): (Instant, BoxFuture<()>),
    ) -> Option<Session> {
        let handle = self.running_session.handle();
        let (reason, words) = tokio::select! {
            Ok(session) = &mut who => return Some(session),
            result = &mut self.running_session => {
                self.log_lost_login(result);
                return None;
            }
            Ok(farewell) = refused => farewell,
            () = self.control.wait_until_unanswered(UNANSWERED_REQUEST_TIMEOUT) => self.unanswered_request_message(),
            () = tokio::time::sleep_until(deadline) => {
                let words = format!("no login within {} s", self.options.login_timeout.as_secs_f32());
                (Disconnect::ByApplication, words)
            }
            () = displaced => (Disconnect::TooManyConnections, "others wait to log in".to_owned()),
            () = self.signals.stop.cancelled() => (Disconnect::ByApplication, "the server is stopping".to_owned()),
            () = self.signals.closing.cancelled() => return None,
        };
        self.disconnect(&handle, reason, &words).await;
        None
    }

    /// Returns what to tell a client that waits for an answer which russh will not send.
    fn unanswered_request_message(&self) -> DisconnectMessage {
        let client = self.control.client_identification().unwrap_or_default();
        tracing::info!(client, "SSH login ended: a request that russh leaves unanswered");
        (Disconnect::ServiceNotAvailable, UNANSWERED_REQUEST_MESSAGE.to_owned())
    }

    /// Notes why a connection ended before its login; the client can't be told any more, since the keys went with it.
    fn log_lost_login(&self, result: Result<(), russh::Error>) {
        let client = self.control.client_identification().unwrap_or_default();
        match result {
            Ok(()) => {}
            Err(error @ (russh::Error::Keys(_) | russh::Error::SshKey(_))) => {
                tracing::info!(client, %error, "SSH login lost: a key that russh can't read")
            }
            Err(error) => tracing::debug!(client, %error, "SSH login lost"),
        }
    }

    /// Waits for whatever ends the connection first.
    async fn supervise_session(&mut self, session: Session) {
        let handle = self.running_session.handle();
        let (reason, words) = tokio::select! {
            result = &mut self.running_session => return self.drain_channels(result, &session).await,
            () = session.closed() => (Disconnect::ByApplication, "the token is no longer valid"),
            () = self.control.wait_until_write_stalled(self.options.client_timeout) => return,
            () = wait_for_keepalive_timeout(&self.control, &self.options) => (Disconnect::ConnectionLost, "no answer to keepalives"),
            () = wait_for_idle_timeout(&self.control, &self.options, &self.signals.blocking_work) => {
                (Disconnect::ByApplication, "no request for as long as sftp_idle_seconds allows")
            }
            () = self.signals.closing.cancelled() => (Disconnect::ProtocolError, "the session can't go on"),
            () = wait_for_drain(&self.signals.stop, &self.channels) => (Disconnect::ByApplication, "the server is stopping"),
        };
        self.disconnect(&handle, reason, words).await;
    }

    /// Tells the channels how the connection has ended, and where the client took leave lets them do what it sent before.
    async fn drain_channels(&self, result: Result<(), russh::Error>, session: &Session) {
        let parting = match result {
            Ok(()) => DisconnectKind::ByClient,
            Err(error) => {
                tracing::debug!(%error, "SSH connection lost");
                DisconnectKind::Lost
            }
        };
        self.disconnect_kind.send_replace(Some(parting));
        if parting == DisconnectKind::ByClient {
            self.channels.close();
            tokio::select! {
                () = self.channels.wait() => {}
                () = tokio::time::sleep(CHANNEL_DRAIN_TIMEOUT) => {}
                () = session.closed() => {}
                () = self.signals.closing.cancelled() => {}
            }
        }
    }

    async fn disconnect(&mut self, handle: &Handle, reason: Disconnect, words: &str) {
        let farewell = async {
            // A loop that is stuck takes no farewell; it is cut.
            let _ = handle.disconnect(reason, words.to_owned(), String::new()).await;
            let _ = (&mut self.running_session).await;
        };
        let _ = tokio::time::timeout(DISCONNECT_TIMEOUT, farewell).await;
    }

    /// Cuts the connection and waits for what its channels still do.
    async fn close(self) {
        self.signals.closing.cancel();
        self.control.abort();
        self.channels.close();
        self.channels.wait().await;
    }
}

/// Waits until a client has left unanswered for too long whether it is there; for ever where it is never asked.
async fn wait_for_keepalive_timeout(line: &ConnectionControl, options: &SftpOptions) {
    match algorithms::keepalive_interval(options) {
        Some(interval) => line.wait_until_silent(interval + options.client_timeout).await,
        None => std::future::pending().await,
    }
}

/// Waits until a session has gone without a request for longer than it may; for ever where it may for any time.
async fn wait_for_idle_timeout(line: &ConnectionControl, options: &SftpOptions, heavy_work: &TaskTracker) {
    if options.idle_timeout.is_zero() {
        return std::future::pending().await;
    }
    line.wait_until_idle(options.idle_timeout, || !heavy_work.is_empty()).await;
}

/// Waits until the server is to stop and no channel is left.
async fn wait_for_drain(stop: &CancellationToken, channels: &TaskTracker) {
    stop.cancelled().await;
    channels.close();
    channels.wait().await;
}
