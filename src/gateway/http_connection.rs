//! One HTTP connection: TLS, the cleartext rule, and which room answers a path.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::connection_owner::ConnectionOwner;
use super::disconnect_probe::{DisconnectProbe, ProbedStream, run_with_disconnect_probe};
use super::http2::Http2Budgets;
use super::malformed::reject_malformed;
use super::readiness::ReadinessCheck;
use super::reload::LiveSettings;
use super::{abort_on_revocation, cors, cross_origin, http2};
use crate::api::Api;
use crate::auth::Session;
use crate::console::Console;
use crate::domain::AllowedOrigins;
use crate::http::{
    AuthenticatedConnection, AuthenticatedSession, ConnectionHandle, RequestBody, RequestSource, ResponseBody,
    TrustedProxies, UnreadBody, UnreadBodyRest, empty, full, has_content_coding, is_path_within, set_retry_after,
    text_response,
};
use crate::net::{
    AcceptedConnection, ConnectionPermit, DrainLimits, LingeringStream, PeerShutdown, RewindStream, TooManyConnections,
    UnreadInput, WriteTimeoutStream,
};
use crate::tree::{OUTAGE_RETRY_AFTER, Tree};
use crate::webdav::Webdav;

const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Bounds on discarding a refused body whose sender has shown no valid credential: clients that upload before they are
/// asked who they are (okhttp, sardine) see the 401 only once all that they send was read.
const UNAUTHENTICATED_DRAIN_LIMITS: DrainLimits = DrainLimits {
    idle_timeout: Duration::from_secs(30),
    max_bytes: 256 << 20,
    total_timeout: Duration::from_secs(15 * 60),
};
/// Bounds on discarding a refused body of an authenticated caller, who could as well send one that is accepted.
const AUTHENTICATED_DRAIN_LIMITS: DrainLimits = DrainLimits {
    idle_timeout: Duration::from_secs(30),
    max_bytes: u64::MAX,
    total_timeout: Duration::from_secs(24 * 3600),
};
/// Bounds on discarding what comes after the sending side of a connection was closed.
const LINGERING_CLOSE_LIMITS: DrainLimits = DrainLimits {
    idle_timeout: Duration::from_secs(10),
    max_bytes: 256 << 20,
    total_timeout: Duration::from_secs(5 * 60),
};
/// Methods that change nothing, or nothing before their very end: nobody needs them once their client is gone.
const CANCELLABLE_METHODS: [&str; 7] = ["GET", "HEAD", "OPTIONS", "PROPFIND", "REPORT", "TRACE", "COPY"];
const CLEARTEXT_REFUSAL: &str = "This address answers only over TLS: a token must not travel in the clear. \
    Connect with https://, through a trusted proxy that says so, or from this machine.";
const ABOUT_PAGE: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>patgate</title>\
    <h1>patgate</h1><p>A folder behind one door. Mount <code>/dav/</code> as WebDAV, with your user name and a \
    personal access token as the password. Manage tokens in the <a href=\"/console/\">console</a>.</p></html>\n";

/// What answers HTTP; clones share all state.
#[derive(Clone)]
pub(super) struct HttpService {
    pub(super) webdav: Webdav,
    pub(super) api: Api,
    pub(super) console: Console,
    pub(super) readiness: ReadinessCheck,
    pub(super) tree: Tree,
    pub(super) live_settings: Arc<ArcSwap<LiveSettings>>,
    pub(super) proxies: Arc<TrustedProxies>,
    pub(super) allow_cleartext: bool,
    pub(super) idle_timeout: Duration,
    pub(super) pace_window: Duration,
    pub(super) http2_budgets: Http2Budgets,
}

impl HttpService {
    /// Serves one connection to its end.
    pub(super) async fn serve(self, connection: AcceptedConnection, stop: CancellationToken) {
        let AcceptedConnection { stream, peer, encrypted, permit: pass } = connection;
        let cut = CancellationToken::new();
        let (peer_end, probe) = (PeerShutdown::default(), DisconnectProbe::default());
        let stream = WriteTimeoutStream::new(stream, self.pace_window)
            .abort_on(cut.clone())
            .watch_peer_shutdown(peer_end.clone());
        let unread = UnreadInput::default();
        let stream = LingeringStream::new(stream, LINGERING_CLOSE_LIMITS, unread.clone(), stop.clone());
        let settings = self.live_settings.load_full();
        let tls = settings.tls.clone();
        let displaced = pass.evicted();
        let caller = HttpConnection {
            service: self,
            settings,
            peer: peer.ip(),
            encrypted: encrypted || tls.is_some(),
            permit: pass,
            owner: ConnectionOwner::default(),
            peer_shutdown: peer_end,
            disconnect_probe: probe,
            user_limit_reached: AtomicBool::new(false),
            request_received: AtomicBool::new(false),
            abort: cut,
            unread_input: unread,
            stop,
            write_permits: Arc::new(Semaphore::new(http2::MAX_STREAMS as usize)),
        };
        let conversation = async {
            match tls {
                None => caller.serve_requests(stream).await,
                Some(config) => {
                    let handshake = TlsAcceptor::from(config).accept(stream);
                    match tokio::time::timeout(TLS_HANDSHAKE_TIMEOUT, handshake).await {
                        Ok(Ok(stream)) => caller.serve_requests(stream).await,
                        Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                        Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
                    }
                }
            }
        };
        tokio::select! {
            () = conversation => {}
            () = displaced => tracing::debug!(%peer, "another takes the place of this connection"),
        }
    }

    async fn route(
        &self,
        request: Request<RequestBody>,
        origin: RequestSource,
        allowed: &AllowedOrigins,
    ) -> Response<ResponseBody> {
        if let Some(response) = cors::preflight_response(allowed, &request) {
            return response;
        }
        let path = request.uri().path();
        let for_api = is_path_within(path, "/api") || is_path_within(path, "/auth");
        // The console judges its own forms, which have a secret besides.
        if !is_path_within(path, "/console") && cross_origin::is_refused(allowed, &request, origin) {
            let words = cross_origin::REFUSAL_MESSAGE;
            return if for_api {
                Api::cross_origin_response(words)
            } else {
                text_response(StatusCode::FORBIDDEN, words)
            };
        }
        if Webdav::serves_path(path) {
            return self.webdav.handle(request, origin).await;
        }
        if !request.body().is_end_stream() && has_content_coding(request.headers()) {
            return content_coding_unsupported();
        }
        if for_api {
            return self.api.handle(request, origin).await;
        }
        if is_path_within(path, "/console") {
            return self.console.handle(request, origin).await;
        }
        let read = matches!(*request.method(), Method::GET | Method::HEAD);
        match path {
            _ if request.method() == Method::OPTIONS && matches!(path, "/" | "*") => options_response(),
            "/" if read => about_response(),
            "/healthz" if read => text_response(StatusCode::OK, "ok"),
            "/readyz" if read => self.readiness_response().await,
            "/" => method_not_allowed("OPTIONS, GET, HEAD"),
            "/healthz" | "/readyz" => method_not_allowed("GET, HEAD"),
            _ => text_response(StatusCode::NOT_FOUND, "nothing is here: the tree is at /dav/"),
        }
    }

    async fn readiness_response(&self) -> Response<ResponseBody> {
        if let Some(fault) = self.readiness.problem().await {
            return text_response(StatusCode::SERVICE_UNAVAILABLE, fault);
        }
        // Whoever asks is not known: no path is named to them. The log names it.
        let Some((path, outage)) = self.tree.outages().into_iter().next() else {
            return text_response(StatusCode::OK, "ready");
        };
        let what = if path.is_root() { "the served folder" } else { "a file system in the served folder" };
        let mut response = text_response(StatusCode::SERVICE_UNAVAILABLE, format!("{what} is not available: {outage}"));
        set_retry_after(response.headers_mut(), OUTAGE_RETRY_AFTER);
        response
    }
}

/// One connection: who is at its other end, and its place at the gate.
pub(super) struct HttpConnection {
    pub(super) service: HttpService,
    /// Those that held when the connection began.
    settings: Arc<LiveSettings>,
    pub(super) peer: IpAddr,
    encrypted: bool,
    permit: ConnectionPermit,
    pub(super) owner: ConnectionOwner,
    peer_shutdown: PeerShutdown,
    disconnect_probe: DisconnectProbe,
    /// Whether a request was refused because its user has too many connections.
    user_limit_reached: AtomicBool,
    pub(super) request_received: AtomicBool,
    abort: CancellationToken,
    unread_input: UnreadInput,
    pub(super) stop: CancellationToken,
    /// Permits for changes under way over HTTP/2.
    write_permits: Arc<Semaphore>,
}

impl AuthenticatedConnection for HttpConnection {
    fn on_authenticated(&self, session: &Session) -> Result<(), TooManyConnections> {
        if self.owner.is_credential_of(session) {
            return Ok(());
        }
        self.permit
            .assign_user(session.login().as_str())
            .inspect_err(|_| self.user_limit_reached.store(true, Ordering::Relaxed))?;
        self.owner.set(session);
        Ok(())
    }
}

impl HttpConnection {
    /// Serves the connection in the version of HTTP with which it begins.
    async fn serve_requests<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let deadline = Instant::now() + FIRST_REQUEST_TIMEOUT;
        let begun = tokio::select! {
            begun = tokio::time::timeout_at(deadline, RewindStream::detect_preface(stream, http2::CONNECTION_PREFACE)) => begun,
            () = self.stop.cancelled() => return,
        };
        let caller = Arc::new(self);
        match begun {
            Ok(Ok((stream, true))) => {
                http2::serve(&caller, stream, deadline).await;
                // A gateway that stops waits for changes whose connection is lost, too.
                let _ = caller.write_permits.acquire_many(http2::MAX_STREAMS).await;
            }
            Ok(Ok((stream, false))) => caller.serve_http1(stream, deadline).await,
            Ok(Err(_)) | Err(_) => tracing::debug!(peer = %caller.peer, "no request came"),
        }
    }

    async fn serve_http1<S>(self: &Arc<Self>, stream: S, deadline: Instant)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|request: Request<Incoming>| {
            let (request, unread) = RequestBody::from_http1(request, self.service.pace_window);
            // What has no effect before its end is given up when nobody waits for it; all else is carried out.
            let is_awaited = request.version() == Version::HTTP_11 && is_cancellable(request.method());
            async move {
                let answer = self.handle(request, unread);
                Ok::<_, Infallible>(match is_awaited {
                    true => run_with_disconnect_probe(&self.disconnect_probe, &self.peer_shutdown, answer).await,
                    false => answer.await,
                })
            }
        });
        let conversation = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.service.idle_timeout)
            .max_buf_size(512 * 1024)
            // A request that arrived whole is carried out and answered although its sender has shut down its side
            // (RFC 9112 section 9.6), as ffmpeg does behind each segment.
            .half_close(true)
            .serve_connection(TokioIo::new(ProbedStream::new(stream, self.disconnect_probe.clone())), service);
        let mut conversation = pin!(conversation);
        let mut greeting = pin!(tokio::time::sleep_until(deadline));
        let (mut waiting, mut stopping) = (true, false);
        loop {
            tokio::select! {
                ended = conversation.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(peer = %self.peer, %error, "connection ended early");
                    }
                    return;
                }
                () = greeting.as_mut(), if waiting => {
                    waiting = false;
                    if !self.request_received.load(Ordering::Relaxed) {
                        tracing::debug!(peer = %self.peer, "no request came");
                        return;
                    }
                }
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    if !self.request_received.load(Ordering::Relaxed) {
                        return;
                    }
                    conversation.as_mut().graceful_shutdown();
                }
                () = self.owner.token_ended(), if !stopping => {
                    stopping = true;
                    conversation.as_mut().graceful_shutdown();
                }
            }
        }
    }

    /// Answers a request over HTTP/2. One that may change something is carried out to its end although its stream is
    /// reset or its connection lost.
    pub(super) async fn handle_http2(
        self: &Arc<Self>,
        request: Request<RequestBody>,
        unread: UnreadBody,
    ) -> Response<ResponseBody> {
        if is_cancellable(request.method()) {
            return self.handle(request, unread).await;
        }
        // Streams that were reset no longer count against the connection's limit; their work still does.
        let Ok(permit) = Arc::clone(&self.write_permits).acquire_owned().await else { return internal_error() };
        let caller = Arc::clone(self);
        let work = tokio::spawn(async move {
            let _permit = permit;
            caller.handle(request, unread).await
        });
        work.await.unwrap_or_else(|_| internal_error())
    }

    async fn handle(self: &Arc<Self>, mut request: Request<RequestBody>, unread: UnreadBody) -> Response<ResponseBody> {
        let _answering = self.permit.begin_request();
        let connection: Arc<dyn AuthenticatedConnection> = Arc::clone(self) as _;
        request.extensions_mut().insert(ConnectionHandle(connection));
        let next = async |request| self.handle_normalized(request, unread).await;
        self.settings.middleware.handle(self.peer, request, next).await
    }

    async fn handle_normalized(
        self: &Arc<Self>,
        request: Request<RequestBody>,
        unread: UnreadBody,
    ) -> Response<ResponseBody> {
        self.request_received.store(true, Ordering::Relaxed);
        let version = request.version();
        let mut response = self.route_checked(request).await;
        let session = response.extensions_mut().remove().map(|AuthenticatedSession(session)| session);
        match unread.into_unread() {
            Some(rest) => self.drain_unread_body(rest, version, session.clone(), &mut response),
            None => self.unread_input.clear(),
        }
        if version < Version::HTTP_2 && self.user_limit_reached.load(Ordering::Relaxed) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        match session {
            Some(session) if version >= Version::HTTP_2 => {
                // Its stream is cut with it.
                response.extensions_mut().insert(AuthenticatedSession(session));
                response
            }
            Some(session) => abort_on_revocation::abort_on_session_end(response, session, &self.abort),
            None => response,
        }
    }

    async fn route_checked(&self, request: Request<RequestBody>) -> Response<ResponseBody> {
        if let Some(refused) = reject_malformed(&request) {
            return refused;
        }
        let origin = self.service.proxies.request_source(self.peer, self.encrypted, request.headers());
        if !self.is_transport_allowed(origin) {
            return text_response(StatusCode::FORBIDDEN, CLEARTEXT_REFUSAL);
        }
        let mut response = self.service.route(request, origin, &self.settings.middleware.cors_origins).await;
        if origin.encrypted {
            set_hsts_header(response.headers_mut());
        }
        response
    }

    /// Discards what an answer leaves unread of its request, so that the client sees the answer and not a reset. Where
    /// the connection can't go on behind it, the answer says so (RFC 9112 section 9.6).
    fn drain_unread_body(
        self: &Arc<Self>,
        rest: UnreadBodyRest,
        version: Version,
        session: Option<Session>,
        response: &mut Response<ResponseBody>,
    ) {
        let limits = if session.is_some() { AUTHENTICATED_DRAIN_LIMITS } else { UNAUTHENTICATED_DRAIN_LIMITS };
        // A client that waits for 100 may send its body or not (RFC 9110 section 10.1.1): what comes next over
        // HTTP/1.1 is either that or another request, and can't be told apart.
        let ends = rest.awaits_continue || !rest.is_at_most(limits.max_bytes);
        if ends && version < Version::HTTP_2 {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if rest.awaits_continue {
            self.unread_input.set();
            return;
        }
        let (unread, stop) = (self.unread_input.clone(), self.stop.clone());
        tokio::spawn(async move {
            let ended = async {
                match session {
                    Some(session) => session.closed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                whole = rest.drain(limits) => if whole { unread.clear() },
                () = ended => {}
                () = stop.cancelled() => {}
            }
        });
    }

    /// Holds the cleartext rule: from afar only over TLS, ours or a trusted proxy's.
    fn is_transport_allowed(&self, origin: RequestSource) -> bool {
        let here = self.peer.to_canonical().is_loopback() && origin.is_confidential();
        self.service.allow_cleartext || origin.encrypted || here
    }
}

/// Tells whether a request of this method is given up when its caller is gone.
fn is_cancellable(method: &Method) -> bool {
    CANCELLABLE_METHODS.contains(&method.as_str())
}

/// Has browsers that were shown a page over TLS come back over TLS alone (RFC 6797 section 7.1).
fn set_hsts_header(headers: &mut HeaderMap) {
    let is_page = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    if is_page {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
}

/// Refuses a body in a content coding (RFC 9110 section 15.5.16).
fn content_coding_unsupported() -> Response<ResponseBody> {
    let mut response = text_response(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a body in a content coding is not supported");
    response.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    response
}

fn internal_error() -> Response<ResponseBody> {
    text_response(StatusCode::INTERNAL_SERVER_ERROR, "the server has a fault")
}

/// Refuses a method where only these are answered (RFC 9110 section 15.5.6).
fn method_not_allowed(others: &'static str) -> Response<ResponseBody> {
    let mut response = text_response(StatusCode::METHOD_NOT_ALLOWED, "this page can only be read");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(others));
    response
}

/// Answers OPTIONS at the host's root, which some clients ask before they ask for their own path.
fn options_response() -> Response<ResponseBody> {
    let mut response = Response::new(empty());
    let headers = response.headers_mut();
    headers.insert("dav", HeaderValue::from_static("1, 2, 3"));
    headers.insert("ms-author-via", HeaderValue::from_static("DAV"));
    headers.insert(header::ALLOW, HeaderValue::from_static("OPTIONS, GET, HEAD"));
    response
}

fn about_response() -> Response<ResponseBody> {
    let mut response = Response::new(full(ABOUT_PAGE));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
