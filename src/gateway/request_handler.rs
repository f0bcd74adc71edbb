//! One HTTP request of any version: the checks before it is routed, and the drain of its unread body after.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::abort_on_revocation;
use super::connection_owner::ConnectionOwner;
use super::disconnect_probe::DisconnectProbe;
use super::drain::DrainSignals;
use super::http_service::HttpService;
use super::last_host::LastHost;
use super::malformed::reject_malformed;
use super::operation_report::OperationReport;
use super::reload::LiveSettings;
use crate::auth::{AddressRefusal, Session};
use crate::http::{
    AuthenticatedConnection, AuthenticatedSession, ConnectionHandle, LastSession, RequestBody, RequestSource,
    RequestingSession, ResponseBody, UnreadBody, UnreadBodyRest, set_retry_after, text_response,
};
use crate::net::{ConnectionPermit, DrainLimits, FileTransfer, PeerShutdown, TooManyConnections, UnreadInput};

/// Bounds on discarding a refused body whose sender is not authenticated: clients that upload before they are asked for
/// a credential (okhttp, sardine) see the 401 only once all that they send was read.
const UNAUTHENTICATED_DRAIN_LIMITS: DrainLimits = DrainLimits {
    idle_timeout: Duration::from_secs(30),
    max_bytes: 256 << 20,
    total_timeout: Duration::from_secs(15 * 60),
};
/// Bounds on discarding a refused body of an authenticated client, which could as well send one that is accepted.
const AUTHENTICATED_DRAIN_LIMITS: DrainLimits = DrainLimits {
    idle_timeout: Duration::from_secs(30),
    max_bytes: u64::MAX,
    total_timeout: Duration::from_secs(24 * 3600),
};
/// Methods that change nothing, or nothing before their very end: they are cancelled when their client disconnects.
const CANCELLABLE_METHODS: [&str; 7] = ["GET", "HEAD", "OPTIONS", "PROPFIND", "REPORT", "TRACE", "COPY"];
const CLEARTEXT_REFUSAL: &str = "This address answers only over TLS: a token must not travel in the clear. \
    Connect with https://, through a trusted proxy that says so, or from this machine.";

/// State of one connection: its peer, its permit of the connection limiter, and its shutdown signals.
pub(super) struct HttpConnection {
    pub(super) service: HttpService,
    /// Settings that were in force when the connection began.
    pub(super) settings: Arc<LiveSettings>,
    pub(super) peer: IpAddr,
    pub(super) encrypted: bool,
    pub(super) permit: ConnectionPermit,
    pub(super) owner: ConnectionOwner,
    pub(super) last_session: LastSession,
    pub(super) last_host: LastHost,
    pub(super) peer_shutdown: PeerShutdown,
    pub(super) disconnect_probe: DisconnectProbe,
    /// Whether a request was refused because its user has too many open connections.
    pub(super) user_limit_reached: AtomicBool,
    pub(super) request_received: AtomicBool,
    pub(super) abort: CancellationToken,
    pub(super) unread_input: UnreadInput,
    pub(super) drain: DrainSignals,
    /// Whether the connection is closed after the next response, because the server stops. Of HTTP/1 alone.
    pub(super) last_request: AtomicBool,
    /// Files that go to the socket directly; none over TLS.
    pub(super) file_transfer: Option<FileTransfer>,
    /// Permits for changing requests under way over HTTP/2.
    pub(super) write_permits: Arc<Semaphore>,
}

/// Slot of a request over HTTP/2 among those that may change something.
///
/// Streams that were reset no longer count against the limit of h2; their changes, which go on, do here. Otherwise a rapid
/// reset (CVE-2023-44487) would start any number of them.
pub(super) enum WriteSlot {
    /// The request changes nothing.
    NotNeeded,
    Reserved(OwnedSemaphorePermit),
    /// The request has to wait for the end of another.
    AllTaken,
}

impl AuthenticatedConnection for HttpConnection {
    fn on_authenticated(&self, session: &Session) -> Result<(), TooManyConnections> {
        // Nearly every request repeats the credential before it: there is nothing to count, and no watch to replace.
        if self.owner.is_credential_of(session) {
            return Ok(());
        }
        // The limit before the ownership: a refused connection stays unauthenticated, or with its last user.
        self.permit
            .assign_user(session.login().as_str())
            .inspect_err(|_| self.user_limit_reached.store(true, Ordering::Relaxed))?;
        self.owner.set(session);
        Ok(())
    }

    fn last_session(&self) -> &LastSession {
        &self.last_session
    }
}

impl HttpConnection {
    /// Reserves a slot for a request over HTTP/2 that may change something.
    ///
    /// Call it when the stream is accepted, before anything is awaited. Once the connection has ended, all slots are
    /// acquired to wait for the changes under way: a request that asked for its slot only then would be behind that, be
    /// found without a client, and be lost.
    pub(super) fn try_reserve_write(&self, method: &Method) -> WriteSlot {
        match is_cancellable(method) {
            true => WriteSlot::NotNeeded,
            false => {
                Arc::clone(&self.write_permits).try_acquire_owned().map_or(WriteSlot::AllTaken, WriteSlot::Reserved)
            }
        }
    }

    /// Waits for a slot, where all were taken.
    pub(super) async fn acquire_write(&self, slot: WriteSlot) -> Option<OwnedSemaphorePermit> {
        match slot {
            WriteSlot::NotNeeded => None,
            WriteSlot::Reserved(permit) => Some(permit),
            // The semaphore is never closed.
            WriteSlot::AllTaken => Arc::clone(&self.write_permits).acquire_owned().await.ok(),
        }
    }

    pub(super) async fn handle(
        self: &Arc<Self>,
        mut request: Box<Request<RequestBody>>,
        unread_body: UnreadBody,
    ) -> Response<ResponseBody> {
        // Until the response is ready the limiter doesn't evict the connection in favour of another.
        let _answering = self.permit.begin_request();
        let connection: Arc<dyn AuthenticatedConnection> = Arc::clone(self) as _;
        // HTTP/2 copies bodies into its frames.
        let file_transfer = self.file_transfer.clone().filter(|_| request.version() < Version::HTTP_2);
        request.extensions_mut().insert(ConnectionHandle { connection, file_transfer });
        // The middleware runs first: every check below sees the normalized target.
        // Pinned, here and wherever the rest of a request is awaited: a future that is passed on by value is copied.
        let next = async |request| pin!(self.handle_normalized(request, unread_body)).await;
        pin!(self.settings.middleware.handle(self.peer, &self.last_host, request, next)).await
    }

    async fn handle_normalized(
        self: &Arc<Self>,
        request: Box<Request<RequestBody>>,
        unread_body: UnreadBody,
    ) -> Response<ResponseBody> {
        self.request_received.store(true, Ordering::Relaxed);
        let version = request.version();
        let report = OperationReport::begin(&self.service, (self.peer, self.encrypted), &request, &unread_body);
        let mut response = pin!(self.route_checked(request)).await;
        let session = response.extensions_mut().remove().map(|AuthenticatedSession(session)| session);
        match unread_body.into_unread() {
            Some(unread_rest) => self.drain_unread_body(unread_rest, version, session.clone(), &mut response),
            None => self.unread_input.clear(),
        }
        // Its user has too many connections, and closing this one lets the next attempt succeed; or the server stops.
        let closes = self.user_limit_reached.load(Ordering::Relaxed) || self.last_request.load(Ordering::Relaxed);
        if version < Version::HTTP_2 && closes {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let requesting = response.extensions_mut().remove().map(|RequestingSession(session)| session);
        let mut response = report.follow(response, session.as_ref().or(requesting.as_ref()));
        match session {
            Some(session) if version >= Version::HTTP_2 => {
                // `http2.rs` takes the session out again, and resets the stream when it ends: one revoked token must
                // not end the other streams of the connection.
                response.extensions_mut().insert(AuthenticatedSession(session));
                response
            }
            Some(session) => abort_on_revocation::abort_on_session_end(response, session, &self.abort),
            None => response,
        }
    }

    async fn route_checked(&self, request: Box<Request<RequestBody>>) -> Response<ResponseBody> {
        // First: nothing below may read a host or a credential that a proxy in front has understood differently.
        let is_known_host = self.last_host.address(&request).is_some();
        if let Some(rejection) = reject_malformed(&request, is_known_host) {
            return rejection;
        }
        if !is_known_host
            && !self.service.proxies.is_trusted(self.peer)
            && let Some(address) = request.extensions().get()
        {
            self.last_host.set(&request, address);
        }
        let origin = self.service.proxies.request_source(self.peer, self.encrypted, request.headers());
        if let Some(refusal) = self.service.auth.address_refusal(origin.address) {
            return refused_address_response(refusal);
        }
        // Before any credential is read: a token that was sent in the clear must not work, or nobody notices.
        if !self.is_transport_allowed(origin) {
            return text_response(StatusCode::FORBIDDEN, CLEARTEXT_REFUSAL);
        }
        let routed = pin!(self.service.route(request, origin, &self.settings.middleware.cors_origins));
        let mut response = routed.await;
        if origin.encrypted {
            set_hsts_header(response.headers_mut());
        }
        response
    }

    /// Discards the part of a request's body that was left unread, so that the client sees the response and not a
    /// reset. Where the connection can't be reused, the response says so (RFC 9112 section 9.6).
    fn drain_unread_body(
        self: &Arc<Self>,
        unread_rest: UnreadBodyRest,
        version: Version,
        session: Option<Session>,
        response: &mut Response<ResponseBody>,
    ) {
        let limits = if session.is_some() { AUTHENTICATED_DRAIN_LIMITS } else { UNAUTHENTICATED_DRAIN_LIMITS };
        // A client that waits for 100 may send its body or not (RFC 9110 section 10.1.1): over HTTP/1.1, the body and
        // the next request can't be told apart.
        let must_close = unread_rest.awaits_continue || !unread_rest.is_at_most(limits.max_bytes);
        if must_close && version < Version::HTTP_2 {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if unread_rest.awaits_continue {
            // Not drained: such a client sends no body after the final response, or the lingering close discards it.
            self.unread_input.set();
            return;
        }
        let (unread_input, stop) = (self.unread_input.clone(), self.drain.end.clone());
        // In a task: the response must not wait for the upload that it refuses.
        tokio::spawn(async move {
            let session_closed = async {
                match session {
                    Some(session) => session.closed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                is_drained = unread_rest.drain(limits) => if is_drained { unread_input.clear() },
                () = session_closed => {}
                () = stop.cancelled() => {}
            }
        });
    }

    /// Enforces the cleartext rule: from a remote address only over TLS, the gateway's own or a trusted proxy's.
    fn is_transport_allowed(&self, origin: RequestSource) -> bool {
        // Both have to be local: a trusted proxy on this machine connects from loopback for a remote client.
        let is_local = self.peer.to_canonical().is_loopback() && origin.is_confidential();
        self.service.allow_cleartext || origin.encrypted || is_local
    }
}

/// Refuses a request because of its address. A ban for failed logins is answered as guesses that come too fast are; where
/// an administrator refuses the address, the connection ends.
fn refused_address_response(refusal: AddressRefusal) -> Response<ResponseBody> {
    let message = refusal.to_string();
    match refusal {
        AddressRefusal::TooManyFailures { remaining, .. } => {
            let mut response = text_response(StatusCode::TOO_MANY_REQUESTS, message);
            set_retry_after(response.headers_mut(), remaining);
            response
        }
        AddressRefusal::Denied | AddressRefusal::Banned(_) => {
            let mut response = text_response(StatusCode::FORBIDDEN, message);
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
    }
}

/// Tells whether a request of this method is cancelled when its client disconnects.
pub(super) fn is_cancellable(method: &Method) -> bool {
    CANCELLABLE_METHODS.contains(&method.as_str())
}

/// Has browsers that received a page over TLS use only TLS from then on (RFC 6797 section 7.1).
fn set_hsts_header(headers: &mut HeaderMap) {
    let is_page = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    if is_page {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
}

pub(super) fn internal_error() -> Response<ResponseBody> {
    text_response(StatusCode::INTERNAL_SERVER_ERROR, "internal server error")
}
