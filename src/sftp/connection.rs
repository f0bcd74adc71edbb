//! One connection from accept to end, supervised from outside russh's loop.

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

/// Maximum time for sending SSH_MSG_DISCONNECT before the connection is aborted.
const DISCONNECT_TIMEOUT: Duration = Duration::from_millis(300);

/// Time for which channels go on with requests that were received before the client disconnected. A commit that has
/// begun is completed even later; hashes that nobody reads are cancelled.
const CHANNEL_DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Time without a reply after which a login request is taken for one that russh ignores.
const UNANSWERED_REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// Disconnect message, in one line, for a client whose login request russh leaves unanswered.
const UNANSWERED_REQUEST_MESSAGE: &str = "this server can't answer a second request for the login service, which paramiko sends \
    after a key: offer the token alone, as password (paramiko, fsspec: look_for_keys=False, allow_agent=False and no \
    key; duplicity: pexpect+sftp://; see `patgate client`)";

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A running connection, and everything that may end it.
struct ConnectionSupervisor {
    control: ConnectionControl,
    signals: ShutdownSignals,
    channels: TaskTracker,
    running_session: RunningSession<SshHandler>,
    options: SftpOptions,
    /// Publishes to the channels how the connection ended.
    disconnect_kind: watch::Sender<Option<DisconnectKind>>,
}

/// Serves one connection to its end, on a thread of its own.
///
/// A request and its reply then cost no thread switch in the server: handing a request to another thread takes longer
/// than reading a small file. A slow disk blocks the threads of the connections that use it, and no others.
pub(super) async fn serve(sftp: Sftp, connection: AcceptedConnection, stop: CancellationToken) {
    let (peer, closing) = (connection.peer, CancellationToken::new());
    let (disconnect_kind, disconnect_kind_receiver) = watch::channel(None);
    let signals = ShutdownSignals {
        closing: closing.clone(),
        stop,
        client_timeout: sftp.options().client_timeout,
        blocking_work: TaskTracker::new(),
        disconnect_kind: disconnect_kind_receiver,
    };
    let main_runtime = tokio::runtime::Handle::current();
    let (done_sender, done_receiver) = oneshot::channel::<()>();
    let AcceptedConnection { stream, permit, .. } = connection;
    // Else the kernel would reset the connection of a suspended laptop long before `client_timeout`.
    if let Err(error) = net::set_peer_timeout(&stream, sftp.options().client_timeout) {
        return tracing::debug!(%peer, %error, "connection lost before it began");
    }
    let thread = stream.into_std().and_then(|stream| {
        thread::Builder::new().name("sftp".to_owned()).spawn(move || {
            // Dropped last, when nothing of the connection is left: `serve` returns on it.
            let _done_sender = done_sender;
            let runtime = match runtime::Builder::new_current_thread().enable_io().enable_time().build() {
                Ok(runtime) => runtime,
                Err(error) => return tracing::warn!(%peer, %error, "can't create a runtime for an SFTP connection"),
            };
            runtime.block_on(async move {
                match TcpStream::from_std(stream) {
                    Ok(stream) => {
                        let connection = AcceptedConnection { stream, peer, encrypted: true, permit };
                        run(sftp, connection, (signals, disconnect_kind), main_runtime).await;
                    }
                    Err(error) => tracing::debug!(%peer, %error, "connection lost before it began"),
                }
            });
        })
    });
    if let Err(error) = thread {
        return tracing::warn!(%peer, %error, "can't start a thread for an SFTP connection");
    }
    let _closing_guard = closing.drop_guard();
    // Completes with an error: nothing is ever sent, the sender is only dropped.
    let _ = done_receiver.await;
}

async fn run(
    sftp: Sftp,
    connection: AcceptedConnection,
    (signals, disconnect_kind): (ShutdownSignals, watch::Sender<Option<DisconnectKind>>),
    main_runtime: runtime::Handle,
) {
    let options = *sftp.options();
    let deadline = Instant::now() + options.login_timeout;
    let AcceptedConnection { stream, peer, permit, .. } = connection;
    // The first key exchange needs a slot already, so that the claim has to precede the first read.
    let (stream, control) = MonitoredStream::new(stream, sftp.preauth_slots().claim(peer.ip()));
    let channels = TaskTracker::new();
    let (session_sender, session_receiver) = oneshot::channel();
    let (disconnect_sender, disconnect_receiver) = oneshot::channel();
    // Taken here since the permit moves into the handler.
    let mut evicted: BoxFuture<()> = Box::pin(permit.evicted());
    let handler = SshHandler {
        channel_permits: Arc::new(Semaphore::new(options.max_channels)),
        control: control.clone(),
        peer,
        permit,
        signals: signals.clone(),
        channels: channels.clone(),
        session_sender: Some(session_sender),
        disconnect_sender: Some(disconnect_sender),
        login_attempts: LoginAttempts::new(options.max_login_attempts),
        authenticated: None,
        unstarted_channels: HashMap::new(),
        round_trip: RoundTripTimer::default(),
        sftp: sftp.clone(),
        main_runtime,
    };
    // `run_stream` waits for the client's identification string. No session exists yet that could disconnect.
    let started = tokio::select! {
        () = signals.stop.cancelled() => return,
        () = signals.closing.cancelled() => return,
        () = tokio::time::sleep_until(deadline) => return,
        () = &mut evicted => return,
        started = run_stream(sftp.config(), stream, handler) => started,
    };
    let running_session = match started {
        Ok(running_session) => running_session,
        Err(error) => return tracing::debug!(%peer, %error, "SSH connection refused"),
    };
    let mut supervisor = ConnectionSupervisor { control, signals, channels, running_session, options, disconnect_kind };
    if let Some(session) = supervisor.wait_for_login(session_receiver, disconnect_receiver, (deadline, evicted)).await {
        supervisor.supervise_session(session).await;
    }
    supervisor.close().await;
}

impl ConnectionSupervisor {
    /// Waits for the login and returns its session; disconnects with a reason when the login fails for good.
    async fn wait_for_login(
        &mut self,
        mut session_receiver: oneshot::Receiver<Session>,
        disconnect_receiver: oneshot::Receiver<DisconnectMessage>,
        (deadline, evicted): (Instant, BoxFuture<()>),
    ) -> Option<Session> {
        let handle = self.running_session.handle();
        let (reason, message) = tokio::select! {
            // When russh ends without a login, both senders are dropped, which disables their branches; the next branch
            // then reports the end.
            Ok(session) = &mut session_receiver => return Some(session),
            result = &mut self.running_session => {
                self.log_lost_login(result);
                return None;
            }
            Ok(message) = disconnect_receiver => message,
            () = self.control.wait_until_unanswered(UNANSWERED_REQUEST_TIMEOUT) => self.unanswered_request_message(),
            () = tokio::time::sleep_until(deadline) => {
                let message = format!("no login within {} s", self.options.login_timeout.as_secs_f32());
                (Disconnect::ByApplication, message)
            }
            () = evicted => {
                let message = "too many connections wait for a login: try again".to_owned();
                (Disconnect::TooManyConnections, message)
            }
            () = self.signals.stop.cancelled() => (Disconnect::ByApplication, "the server is stopping".to_owned()),
            // `serve` itself was dropped: the gateway waits for no disconnect message.
            () = self.signals.closing.cancelled() => return None,
        };
        self.disconnect(&handle, reason, &message).await;
        None
    }

    /// Returns the message for a client that waits for a reply that russh will not send.
    fn unanswered_request_message(&self) -> DisconnectMessage {
        let client = self.control.client_identification().unwrap_or_default();
        tracing::info!(client, "SSH login ended: russh leaves a request of this client unanswered");
        (Disconnect::ServiceNotAvailable, UNANSWERED_REQUEST_MESSAGE.to_owned())
    }

    /// Logs why a connection ended before its login. The client gets no message: russh's session held the keys.
    fn log_lost_login(&self, result: Result<(), russh::Error>) {
        let client = self.control.client_identification().unwrap_or_default();
        match result {
            Ok(()) => {}
            Err(error @ (russh::Error::Keys(_) | russh::Error::SshKey(_))) => {
                tracing::info!(client, %error, "SSH login failed: russh can't parse the client's key")
            }
            Err(error) => tracing::debug!(client, %error, "SSH connection lost before the login"),
        }
    }

    /// Waits until the session ends for any reason, and disconnects with that reason where the client still reads.
    async fn supervise_session(&mut self, session: Session) {
        let handle = self.running_session.handle();
        let (reason, message) = tokio::select! {
            result = &mut self.running_session => return self.drain_channels(result, &session).await,
            // Revocation and expiration of the token, in any process, end the session here.
            () = session.closed() => (Disconnect::ByApplication, "the token is no longer valid"),
            // No message: it would wait behind the bytes that the client doesn't read.
            () = self.control.wait_until_write_stalled(self.options.client_timeout) => return,
            () = wait_for_keepalive_timeout(&self.control, &self.options) => {
                (Disconnect::ConnectionLost, "no answer to keepalives")
            }
            () = wait_for_idle_timeout(&self.control, &self.options, &self.signals.blocking_work) => {
                (Disconnect::ByApplication, "no request within sftp_idle_seconds")
            }
            () = self.signals.closing.cancelled() => (Disconnect::ProtocolError, "the session ended after an error"),
            () = wait_for_drain(&self.signals.stop, &self.channels) => {
                (Disconnect::ByApplication, "the server is stopping")
            }
        };
        self.disconnect(&handle, reason, message).await;
    }

    /// Tells the channels how the connection ended; where the client disconnected, lets them finish its earlier
    /// requests.
    async fn drain_channels(&self, result: Result<(), russh::Error>, session: &Session) {
        let kind = match result {
            Ok(()) => DisconnectKind::ByClient,
            Err(error) => {
                tracing::debug!(%error, "SSH connection lost");
                DisconnectKind::Lost
            }
        };
        // Before the wait: channels need it to decide between commit and discard, and end only then.
        self.disconnect_kind.send_replace(Some(kind));
        if kind == DisconnectKind::ByClient {
            self.channels.close();
            tokio::select! {
                () = self.channels.wait() => {}
                () = tokio::time::sleep(CHANNEL_DRAIN_TIMEOUT) => {}
                // A revoked token commits nothing more, even if the client has left in order.
                () = session.closed() => {}
                () = self.signals.closing.cancelled() => {}
            }
        }
    }

    async fn disconnect(&mut self, handle: &Handle, reason: Disconnect, message: &str) {
        let disconnecting = async {
            // A loop that is stuck sends no message; the caller aborts it.
            let _ = handle.disconnect(reason, message.to_owned(), String::new()).await;
            // Until russh has written the message: `close` then aborts the socket.
            let _ = (&mut self.running_session).await;
        };
        let _ = tokio::time::timeout(DISCONNECT_TIMEOUT, disconnecting).await;
    }

    /// Aborts the connection and waits for its channels to end.
    async fn close(self) {
        // First: channels whose read fails would otherwise wait for a `disconnect_kind` that is never sent, while this
        // function waits for the channels.
        self.signals.closing.cancel();
        self.control.abort();
        self.channels.close();
        // The thread's runtime ends after this, and would drop channels in the middle of their shutdown.
        self.channels.wait().await;
    }
}

/// Waits until a client has not answered a keepalive in time; for ever if keepalives are disabled.
async fn wait_for_keepalive_timeout(control: &ConnectionControl, options: &SftpOptions) {
    match algorithms::keepalive_interval(options) {
        // russh sends a keepalive after each `interval` of silence; any byte of the client counts as an answer.
        Some(interval) => control.wait_until_silent(interval + options.client_timeout).await,
        None => std::future::pending().await,
    }
}

/// Waits until a session has been idle for `idle_timeout`; for ever if there is no limit.
async fn wait_for_idle_timeout(control: &ConnectionControl, options: &SftpOptions, blocking_work: &TaskTracker) {
    if options.idle_timeout.is_zero() {
        return std::future::pending().await;
    }
    // Copying or hashing a large file is one request that may take longer than the timeout.
    control.wait_until_idle(options.idle_timeout, || !blocking_work.is_empty()).await;
}

/// Waits until the server stops and no channel is open.
async fn wait_for_drain(stop: &CancellationToken, channels: &TaskTracker) {
    stop.cancelled().await;
    channels.close();
    channels.wait().await;
}
