//! russh's callbacks: authentication, opening of channels, the subsystem.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use russh::client::GexParams;
use russh::kex::dh::groups::DhGroup;
use russh::keys::{Algorithm, Certificate, PublicKey};
use russh::server::{
    Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Response, Session as Ssh, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelOpenFailure, Disconnect, Pty};
use tokio::runtime;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use zeroize::Zeroizing;

use crate::auth::{AuthError, Authenticator, Credential, Session};
use crate::domain::{Peer, Protocol, QuotaReservation, SshPublicKey};
use crate::net::{ActiveRequest, ConnectionPermit};
use crate::tree::SessionFiles;

use super::access_log::{SessionLog, record_login};
use super::channel::{self, ShutdownSignals};
use super::error::SftpStatus;
use super::monitored_stream::ConnectionControl;
use super::worker::{ChannelWorker, SftpSession};
use super::{Sftp, algorithms};

/// Minimum time until a token is rejected, whatever was wrong with it.
const MIN_REJECTION_TIME: Duration = Duration::from_millis(500);
/// Maximum time for which the rejection of a throttled client is delayed; no thread is held meanwhile.
const MAX_THROTTLE_DELAY: Duration = Duration::from_secs(5);
/// Prompt of keyboard-interactive. Programs that enter a password automatically look for the word "password".
const TOKEN_PROMPT: &str = "Token as password: ";
/// Delay of the rejection when the queue for argon2 is full.
const BUSY_DELAY: Duration = Duration::from_secs(1);
/// Maximum number of attempts without a token per connection: more than any agent holds keys.
const MAX_LOGIN_PROBES: usize = 100;
/// Round trip above which the channel window is widened.
const LONG_ROUND_TRIP: Duration = Duration::from_millis(5);
/// Channel window of a distant client.
const WIDE_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// State of one connection behind russh's callbacks.
pub(super) struct SshHandler {
    pub(super) sftp: Sftp,
    pub(super) control: ConnectionControl,
    pub(super) peer: SocketAddr,
    pub(super) permit: ConnectionPermit,
    pub(super) signals: ShutdownSignals,
    pub(super) channels: TaskTracker,
    pub(super) channel_permits: Arc<Semaphore>,
    /// Hands the session to the connection's supervisor after the login.
    pub(super) session_sender: Option<oneshot::Sender<Session>>,
    /// Asks the connection's supervisor to disconnect; taken by the first request, so that it is made once.
    pub(super) disconnect_sender: Option<oneshot::Sender<DisconnectMessage>>,
    pub(super) login_attempts: LoginAttempts,
    pub(super) authenticated: Option<LoggedInConnection>,
    /// Channels on which no subsystem was started yet.
    pub(super) unstarted_channels: HashMap<ChannelId, oneshot::Sender<Box<ChannelWorker>>>,
    pub(super) round_trip: RoundTripTimer,
    /// The program's own runtime: tasks that may outlive this connection's thread are spawned on it.
    pub(super) main_runtime: runtime::Handle,
}

/// Reason code and description of an SSH_MSG_DISCONNECT (RFC 4253 section 11.1).
pub(super) type DisconnectMessage = (Disconnect, String);

/// Counters of a connection's login attempts.
#[derive(Debug)]
pub(super) struct LoginAttempts {
    limit: usize,
    rejected_tokens: usize,
    probes: usize,
}

impl LoginAttempts {
    /// Returns counters that allow `limit` rejected tokens.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, rejected_tokens: 0, probes: 0 }
    }

    /// Counts a rejected token; returns the disconnect message after the last one allowed.
    fn count_rejected_token(&mut self) -> Option<DisconnectMessage> {
        self.rejected_tokens += 1;
        let message = || format!("{} wrong tokens: reconnect to try another", self.rejected_tokens);
        (self.rejected_tokens >= self.limit).then(|| (Disconnect::NoMoreAuthMethodsAvailable, message()))
    }

    /// Counts an attempt without a token (`none`, a key, a prompt); returns the disconnect message after the last one
    /// allowed.
    fn count_probe(&mut self) -> Option<DisconnectMessage> {
        self.probes += 1;
        let message = "too many attempts without a token: give it as password, or the SSH key of one";
        (self.probes >= MAX_LOGIN_PROBES).then(|| (Disconnect::NoMoreAuthMethodsAvailable, message.to_owned()))
    }
}

/// State of a connection after its login; held until the connection ends.
pub(super) struct LoggedInConnection {
    sftp_session: Arc<SftpSession>,
    _reservation: QuotaReservation,
    _active_request: ActiveRequest,
}

/// Shortest time between a reply and the request that a client sends on it without user input.
#[derive(Default)]
pub(super) struct RoundTripTimer {
    replied_at: Option<Instant>,
    shortest: Option<Duration>,
}

impl RoundTripTimer {
    fn record_reply(&mut self) {
        self.replied_at = Some(Instant::now());
    }

    fn record_request(&mut self) {
        if let Some(replied_at) = self.replied_at.take() {
            let elapsed = replied_at.elapsed();
            // The shortest time is the one without a user who types a password in between.
            self.shortest = Some(self.shortest.map_or(elapsed, |shortest| shortest.min(elapsed)));
        }
    }

    /// Returns the size of the channel window.
    fn window_bytes(&self, current: u32) -> u32 {
        if self.shortest.is_some_and(|shortest| shortest > LONG_ROUND_TRIP) { WIDE_WINDOW_BYTES } else { current }
    }
}

impl SshHandler {
    /// Authenticates a login and its token; white space around either, as pasting leaves it, is ignored.
    async fn check_token(&mut self, login: &str, token: &[u8]) -> Auth {
        if self.disconnect_sender.is_none() {
            // The disconnect message is on its way: a client that pipelines attempts gets no more guesses.
            return self.reject_auth();
        }
        let control = self.control.clone();
        // The queue for argon2 bounds the check; the slot is for other clients' key exchanges.
        control.release_preauth_slot();
        let _check = control.reply_monitor().pause_for_token_check();
        // Before the check: the time of the reply must not tell an unknown login from a wrong secret.
        let earliest_reply = Instant::now() + MIN_REJECTION_TIME;
        let login_started_at = std::time::Instant::now();
        let peer = self.client();
        let token = Zeroizing::new(token.trim_ascii().to_vec());
        let credential = Credential { login: Some(login.trim().to_owned()), token };
        let client = (peer.address, peer.user_agent.clone());
        let auth = self.sftp.auth().clone();
        // Aborts on drop: a lost connection takes its attempt out of the queue for argon2.
        let authentication =
            AbortOnDropHandle::new(self.main_runtime.spawn(async move { auth.authenticate(credential, peer).await }));
        // While the check runs, the connection is not evicted in favour of new ones.
        let active_request = self.permit.begin_request();
        let outcome = authentication.await;
        // Before the delay below: a client that was rejected is an idle unauthenticated connection again.
        drop(active_request);
        let (delay, is_rejection) = match outcome {
            Ok(Ok(session)) => {
                record_login(&self.sftp.recorder(), client, Ok(&session), login_started_at);
                self.start_session(session);
                return Auth::Accept;
            }
            Ok(Err(AuthError::Throttled(wait))) => (wait.min(MAX_THROTTLE_DELAY), true),
            // Not the token's fault, so not counted as a wrong one. It counts as a probe, which bounds retries.
            Ok(Err(AuthError::Busy | AuthError::TooManyConnections)) => (BUSY_DELAY, false),
            Ok(Err(AuthError::Denied)) => (Duration::ZERO, true),
            Ok(Err(AuthError::Store(error))) => {
                tracing::error!(%error, "the store failed");
                (Duration::ZERO, false)
            }
            Err(error) => {
                tracing::warn!(%error, "authentication task failed");
                (Duration::ZERO, false)
            }
        };
        let status = if is_rejection { SftpStatus::PermissionDenied } else { SftpStatus::Failure };
        record_login(&self.sftp.recorder(), client, Err(status), login_started_at);
        tokio::time::sleep_until(earliest_reply.max(Instant::now() + delay)).await;
        let disconnect =
            if is_rejection { self.login_attempts.count_rejected_token() } else { self.login_attempts.count_probe() };
        self.request_disconnect(disconnect).await;
        self.reject_auth()
    }

    /// Returns the peer as limits and the audit trail see it.
    fn client(&self) -> Peer {
        Peer {
            protocol: Protocol::Sftp,
            // A token's address limits name IPv4 addresses, which a dual-stack listener reports as mapped IPv6.
            address: self.peer.ip().to_canonical(),
            user_agent: self.control.client_identification(),
        }
    }

    /// Tells whether a key that a client offers proves a token of the login.
    fn proves_token(&self, login: &str, key: &SshPublicKey) -> bool {
        // The disconnect message is on its way: nothing is looked up any more.
        if self.disconnect_sender.is_none() {
            return false;
        }
        self.sftp.auth().accepts_ssh_key(login.trim(), key).unwrap_or_else(|error| {
            tracing::error!(%error, "an SSH key can't be looked up");
            false
        })
    }

    /// Authenticates a login by a key whose signature was verified.
    async fn check_key(&mut self, login: &str, key: &SshPublicKey) -> Auth {
        if self.disconnect_sender.is_none() {
            return self.reject_auth();
        }
        self.check_proof(|auth, peer| auth.authenticate_ssh_key(login.trim(), key, peer)).await
    }

    /// Authenticates a login by a certificate, of whose key a signature was verified.
    async fn check_certificate(&mut self, login: &str, certificate: &Certificate) -> Auth {
        if self.disconnect_sender.is_none() {
            return self.reject_auth();
        }
        // By the clock that expirations are judged by.
        let millis = u64::try_from(self.sftp.auth().now().as_millis()).unwrap_or(0);
        let now = std::time::UNIX_EPOCH + Duration::from_millis(millis);
        let client = self.peer.ip().to_canonical();
        match self.sftp.certificates().judge(certificate, client, now) {
            Ok(certified) => {
                self.check_proof(|auth, peer| {
                    auth.authenticate_certified(login.trim(), &certified.tokens, certified.valid_until, peer)
                })
                .await
            }
            Err(reason) => {
                tracing::info!(address = %client, id = certificate.key_id(), "a certificate was rejected: {reason}");
                self.reject_probe().await
            }
        }
    }

    /// Opens a session by what a caller has shown.
    async fn check_proof(
        &mut self,
        authenticate: impl FnOnce(&Authenticator, Peer) -> Result<Session, AuthError>,
    ) -> Auth {
        self.control.release_preauth_slot();
        let (peer, login_started_at) = (self.client(), std::time::Instant::now());
        let client = (peer.address, peer.user_agent.clone());
        match authenticate(self.sftp.auth(), peer) {
            Ok(session) => {
                record_login(&self.sftp.recorder(), client, Ok(&session), login_started_at);
                self.start_session(session);
                return Auth::Accept;
            }
            Err(AuthError::Store(error)) => tracing::error!(%error, "the store failed"),
            Err(_) => {}
        }
        record_login(&self.sftp.recorder(), client, Err(SftpStatus::PermissionDenied), login_started_at);
        self.reject_probe().await
    }

    /// Rejects an attempt that carries no token.
    async fn reject_probe(&mut self) -> Auth {
        let disconnect = self.login_attempts.count_probe();
        self.request_disconnect(disconnect).await;
        self.reject_auth()
    }

    fn reject_auth(&self) -> Auth {
        // Where no token has a key, clients are not asked for theirs: one of a type that russh can't parse ends the
        // connection, also of a client that would give a token next.
        let has_keys = self.sftp.certificates().accepts_users() || self.sftp.auth().has_ssh_keys();
        Auth::Reject { proceed_with_methods: Some(algorithms::auth_methods(has_keys)), partial_success: false }
    }

    /// Asks the supervisor to disconnect with a message, after the reply to the current request.
    async fn request_disconnect(&mut self, message: Option<DisconnectMessage>) {
        let Some(message) = message else { return };
        if let Some(sender) = self.disconnect_sender.take() {
            // The receiver is gone when the connection is ending already.
            let _ = sender.send(message);
            // Lets the supervisor queue the message before russh reads the client's next attempt.
            tokio::task::yield_now().await;
        }
    }

    /// Creates the session's view, unless the user is at the limit of connections: `auth_succeeded` then disconnects.
    fn start_session(&mut self, session: Session) {
        // After the login, messages need no reply, and key re-exchanges need no slot.
        self.control.reply_monitor().stop();
        self.control.mark_logged_in();
        let Some(reservation) = self.sftp.connections().try_reserve(session.login(), 1) else {
            tracing::info!(login = %session.login(), peer = %self.peer, "too many SFTP connections of one user");
            return;
        };
        let max_handles = self.sftp.options().max_handles;
        let sftp_session = SftpSession {
            files: SessionFiles::new(self.sftp.tree().view(session.clone())),
            auth: self.sftp.auth().clone(),
            handle_permits: Arc::new(Semaphore::new(max_handles)),
            max_handles,
            hash_limiter: self.sftp.hash_limiter().clone(),
            symlink_link_first: self
                .control
                .client_identification()
                .is_some_and(|client| sends_symlink_link_first(&client)),
            closing: self.signals.closing.clone(),
            access_log: SessionLog::new(&self.sftp.recorder(), &session),
            user_operations: self.sftp.recorder().user_operations(session.login()),
            recorder: self.sftp.recorder(),
        };
        // An idle session is not a pending login: as an active request it is never evicted for a new connection.
        let (sftp_session, active_request) = (Arc::new(sftp_session), self.permit.begin_request());
        // Not fatal: the connection stays under the limits of unauthenticated ones.
        if let Err(error) = self.permit.assign_user(session.login().as_str()) {
            tracing::warn!(login = %session.login(), %error, "the SFTP session counts as unauthenticated");
        }
        self.authenticated =
            Some(LoggedInConnection { sftp_session, _reservation: reservation, _active_request: active_request });
        if let Some(sender) = self.session_sender.take() {
            // The receiver is gone when the connection is ending already.
            let _ = sender.send(session);
        }
    }
}

/// Returns whether a client sends SYMLINK's arguments in the draft's order, the link first: of the clients that do so
/// unless the server is OpenSSH, these look for that name at the very start of the identification string only.
fn sends_symlink_link_first(client: &str) -> bool {
    ["SSH-2.0-ssh2js", "SSH-2.0-WinSCP", "SSH-2.0-phpseclib"].iter().any(|prefix| client.starts_with(prefix))
}

/// Returns a key that may prove a token; `None` for one that may not, or a signature with SHA-1.
fn accepted_key(key: &PublicKey, algorithm: &Algorithm) -> Option<SshPublicKey> {
    if matches!(algorithm, Algorithm::Rsa { hash: None }) {
        return None;
    }
    SshPublicKey::from_key(key).ok()
}

impl Handler for SshHandler {
    type Error = russh::Error;

    async fn authentication_banner(&mut self) -> Result<Option<String>, Self::Error> {
        self.round_trip.record_reply();
        self.control.reply_monitor().start();
        Ok(None)
    }

    async fn auth_none(&mut self, _user: &str) -> Result<Auth, Self::Error> {
        // Clients send `none` right after the service accept: a measurement without user input.
        self.round_trip.record_request();
        Ok(self.reject_probe().await)
    }

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Self::Error> {
        // Rejected at the offer: russh then doesn't verify the key's signature for an unauthenticated client.
        match accepted_key(offer.public_key, offer.algorithm) {
            // The key of a certificate is offered without it: whether it counts shows once its signature was verified.
            Some(_) if self.sftp.certificates().accepts_users() => Ok(Auth::Accept),
            Some(key) if self.proves_token(user, &key) => Ok(Auth::Accept),
            _ => Ok(self.reject_probe().await),
        }
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        match accepted_key(key.public_key, key.algorithm) {
            Some(key) => Ok(self.check_key(user, &key).await),
            None => Ok(self.reject_probe().await),
        }
    }

    async fn auth_openssh_certificate(&mut self, user: &str, certificate: &Certificate) -> Result<Auth, Self::Error> {
        Ok(self.check_certificate(user, certificate).await)
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Self::Error> {
        Ok(self.check_token(user, password.as_bytes()).await)
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _submethods: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        // The first call has no response yet. It counts, or a client could request prompts without end.
        let Some(mut response) = response else {
            let disconnect = self.login_attempts.count_probe();
            self.request_disconnect(disconnect).await;
            let prompts = vec![(TOKEN_PROMPT.into(), false)].into();
            return Ok(Auth::Partial { name: "".into(), instructions: "".into(), prompts });
        };
        let token = response.next().unwrap_or_default();
        Ok(self.check_token(user, &token).await)
    }

    async fn auth_succeeded(&mut self, ssh: &mut Ssh) -> Result<(), Self::Error> {
        self.round_trip.record_reply();
        if self.authenticated.is_none() {
            // Not SSH_MSG_USERAUTH_FAILURE: it would call the token wrong, and the client would ask the user for
            // another.
            let limit = self.sftp.options().max_connections_per_user;
            let message = format!(
                "the token is valid, but its user has {limit} SFTP connections open, which is the limit: close one"
            );
            ssh.disconnect(Disconnect::TooManyConnections, &message, "")?;
            self.request_disconnect(Some((Disconnect::TooManyConnections, message))).await;
        }
        Ok(())
    }

    async fn lookup_dh_gex_group(&mut self, request: &GexParams) -> Result<Option<DhGroup>, Self::Error> {
        Ok(algorithms::gex_group(request))
    }

    async fn data(&mut self, _channel: ChannelId, _data: &[u8], _ssh: &mut Ssh) -> Result<(), Self::Error> {
        // Feeds the idle timeout only: russh has delivered the data to the channel already.
        self.control.record_request();
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _ssh: &mut Ssh,
    ) -> Result<(), Self::Error> {
        self.round_trip.record_request();
        let stopping = self.signals.stop.is_cancelled();
        let Ok(permit) = self.channel_permits.clone().try_acquire_owned() else {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        };
        // Authenticated for russh, but without a session: `auth_succeeded` is disconnecting a user over the limit.
        if stopping || self.authenticated.is_none() {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return Ok(());
        }
        // Everything is ready before the channel is accepted: clients send the subsystem request at once.
        let (worker_sender, worker_receiver) = oneshot::channel();
        self.unstarted_channels.insert(channel.id(), worker_sender);
        let signals = self.signals.clone();
        self.channels.spawn(async move {
            channel::serve(channel, worker_receiver, signals).await;
            drop(permit);
        });
        reply.accept().await;
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _ssh: &mut Ssh) -> Result<(), Self::Error> {
        // A client may open and close channels without starting anything: the map must not keep their entries.
        self.unstarted_channels.remove(&channel);
        Ok(())
    }

    async fn subsystem_request(&mut self, channel: ChannelId, name: &str, ssh: &mut Ssh) -> Result<(), Self::Error> {
        if name != "sftp" {
            return ssh.channel_failure(channel);
        }
        // Removed, so that a second request on this channel fails: only one may succeed (RFC 4254 section 6.5).
        let (Some(logged_in), Some(worker_sender)) = (&self.authenticated, self.unstarted_channels.remove(&channel))
        else {
            return ssh.channel_failure(channel);
        };
        match worker_sender.send(Box::new(ChannelWorker::new(logged_in.sftp_session.clone()))) {
            Ok(()) => ssh.channel_success(channel),
            Err(_) => ssh.channel_failure(channel),
        }
    }

    // russh's default for the following requests sends no reply, and a client that wants one would hang.
    async fn exec_request(&mut self, channel: ChannelId, _: &[u8], ssh: &mut Ssh) -> Result<(), Self::Error> {
        ssh.channel_failure(channel)
    }

    async fn shell_request(&mut self, channel: ChannelId, ssh: &mut Ssh) -> Result<(), Self::Error> {
        ssh.channel_failure(channel)
    }

    async fn env_request(&mut self, channel: ChannelId, _: &str, _: &str, ssh: &mut Ssh) -> Result<(), Self::Error> {
        ssh.channel_failure(channel)
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _term: &str,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(Pty, u32)],
        ssh: &mut Ssh,
    ) -> Result<(), Self::Error> {
        ssh.channel_failure(channel)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _single: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        ssh: &mut Ssh,
    ) -> Result<(), Self::Error> {
        ssh.channel_failure(channel)
    }

    fn adjust_window(&mut self, _channel: ChannelId, current: u32) -> u32 {
        self.round_trip.window_bytes(current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_consistently_distant_client_gets_wide_window() {
        let timer =
            |millis: Option<u64>| RoundTripTimer { replied_at: None, shortest: millis.map(Duration::from_millis) };
        assert_eq!(timer(None).window_bytes(7), 7);
        assert_eq!(timer(Some(5)).window_bytes(7), 7);
        assert_eq!(timer(Some(20)).window_bytes(7), WIDE_WINDOW_BYTES);
        let one_hour = Some(Duration::from_secs(3600));
        let mut nearby = timer(Some(3_600_000));
        nearby.record_request();
        assert_eq!(nearby.shortest, one_hour, "nothing was answered");
        nearby.record_reply();
        nearby.record_request();
        assert!(nearby.shortest < one_hour);
    }
}
