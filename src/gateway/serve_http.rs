//! One HTTP connection: TLS, the cleartext rule, and which room answers a path.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::front::Front;
use super::{cors, cut};
use crate::api::Api;
use crate::console::Console;
use crate::http::{Body, Origin, Proven, TrustedProxies, empty, full, text};
use crate::net::{Connection, Pass, Unstalled};
use crate::store::Store;
use crate::webdav::Webdav;

const HANDSHAKE: Duration = Duration::from_secs(10);
const FIRST_REQUEST: Duration = Duration::from_secs(30);
const NEXT_REQUEST: Duration = Duration::from_secs(75);
const STALLED: Duration = Duration::from_secs(120);
const CLEARTEXT: &str = "This address answers only over TLS: a token must not travel in the clear. \
    Connect with https://, through a trusted proxy that says so, or from this machine.";
const ABOUT: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>patgate</title>\
    <h1>patgate</h1><p>A folder behind one door. Mount <code>/dav/</code> as WebDAV, with your user name and a \
    personal access token as the password. Manage tokens in the <a href=\"/console/\">console</a>.</p></html>\n";

/// What answers HTTP; clones share all state.
#[derive(Clone)]
pub(super) struct HttpDoor {
    pub(super) webdav: Webdav,
    pub(super) api: Api,
    pub(super) console: Console,
    pub(super) store: Store,
    pub(super) tls: Option<Arc<rustls::ServerConfig>>,
    pub(super) proxies: Arc<TrustedProxies>,
    pub(super) front: Front,
    pub(super) insecure: bool,
}

impl HttpDoor {
    /// Serves one connection to its end.
    pub(super) async fn serve(self, connection: Connection, stop: CancellationToken) {
        let Connection { stream, peer, encrypted, pass } = connection;
        let cut = CancellationToken::new();
        let stream = Unstalled::new(stream, STALLED).reset_by(cut.clone());
        let tls = self.tls.clone();
        let caller = Caller {
            door: self,
            peer: peer.ip(),
            encrypted: encrypted || tls.is_some(),
            pass,
            greeted: AtomicBool::new(false),
            cut,
        };
        match tls {
            None => caller.converse(stream, stop).await,
            Some(config) => {
                let handshake = TlsAcceptor::from(config).accept(stream);
                match tokio::time::timeout(HANDSHAKE, handshake).await {
                    Ok(Ok(stream)) => caller.converse(stream, stop).await,
                    Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                    Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
                }
            }
        }
    }

    async fn route(&self, request: Request<Incoming>, origin: Origin) -> Response<Body> {
        if let Some(response) = cors::preflight(&self.front.cors_origins, &request) {
            return response;
        }
        let path = request.uri().path();
        if Webdav::serves(path) {
            return self.webdav.answer(request, origin).await;
        }
        if within(path, "/api") || within(path, "/auth") {
            return self.api.answer(request, origin).await;
        }
        if within(path, "/console") {
            return self.console.answer(request, origin).await;
        }
        let read = matches!(*request.method(), Method::GET | Method::HEAD);
        match path {
            _ if request.method() == Method::OPTIONS && matches!(path, "/" | "*") => options(),
            "/" if read => about(),
            "/healthz" if read => text(StatusCode::OK, "ok"),
            "/readyz" if read => self.ready().await,
            "/" | "/healthz" | "/readyz" => text(StatusCode::METHOD_NOT_ALLOWED, "this page can only be read"),
            _ => text(StatusCode::NOT_FOUND, "nothing is here: the tree is at /dav/"),
        }
    }

    async fn ready(&self) -> Response<Body> {
        let store = self.store.clone();
        match tokio::task::spawn_blocking(move || store.version()).await {
            Ok(Ok(_)) => text(StatusCode::OK, "ready"),
            _ => text(StatusCode::SERVICE_UNAVAILABLE, "the store can't be read"),
        }
    }
}

/// One connection: who is at its other end, and its place at the gate.
struct Caller {
    door: HttpDoor,
    peer: IpAddr,
    encrypted: bool,
    pass: Pass,
    greeted: AtomicBool,
    cut: CancellationToken,
}

impl Caller {
    async fn converse<S>(self, stream: S, stop: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (peer, caller) = (self.peer, Arc::new(self));
        let service = service_fn({
            let caller = caller.clone();
            move |request| {
                let caller = caller.clone();
                async move {
                    let front = &caller.door.front;
                    Ok::<_, Infallible>(front.answer(peer, request, async |request| caller.answer(request).await).await)
                }
            }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(NEXT_REQUEST)
            .max_buf_size(512 * 1024)
            .half_close(false);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(60))
            .max_concurrent_streams(64)
            .max_header_list_size(64 * 1024)
            .initial_stream_window_size(1024 * 1024)
            .initial_connection_window_size(4 * 1024 * 1024);
        let conversation = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(conversation);
        let greeting = tokio::time::sleep(FIRST_REQUEST);
        tokio::pin!(greeting);
        let (mut waiting, mut stopping) = (true, false);
        loop {
            tokio::select! {
                ended = conversation.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%peer, %error, "connection ended early");
                    }
                    return;
                }
                () = greeting.as_mut(), if waiting => {
                    waiting = false;
                    if !caller.greeted.load(Ordering::Relaxed) {
                        tracing::debug!(%peer, "no request came");
                        return;
                    }
                }
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    if !caller.greeted.load(Ordering::Relaxed) {
                        return;
                    }
                    conversation.as_mut().graceful_shutdown();
                }
            }
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        self.greeted.store(true, Ordering::Relaxed);
        if let Some(refused) = amiss(&request) {
            return refused;
        }
        let origin = match self.door.proxies.origin(self.peer, self.encrypted, request.headers()) {
            Ok(origin) => origin,
            Err(contradiction) => return text(StatusCode::BAD_REQUEST, contradiction.to_string()),
        };
        if !self.may_speak(origin) {
            return text(StatusCode::FORBIDDEN, CLEARTEXT);
        }
        let version = request.version();
        let mut response = self.door.route(request, origin).await;
        match response.extensions_mut().remove() {
            Some(Proven(session)) => {
                self.pass.proven();
                cut::with_session(response, version, session, &self.cut)
            }
            None => response,
        }
    }

    /// Holds the cleartext rule: from afar only over TLS, ours or a trusted proxy's.
    fn may_speak(&self, origin: Origin) -> bool {
        let here = self.peer.to_canonical().is_loopback() && origin.is_private();
        self.door.insecure || origin.encrypted || here
    }
}

/// Refuses what HTTP/1.1 has every server refuse, and hyper passes on: a host that is missing or named twice (RFC 9112
/// section 3.2), and a coding of the body that nobody here can undo (section 6.1).
fn amiss(request: &Request<Incoming>) -> Option<Response<Body>> {
    if request.version() != Version::HTTP_11 {
        return None;
    }
    let headers = request.headers();
    let mut hosts = headers.get_all(header::HOST).iter();
    if hosts.next().is_none() || hosts.next().is_some() {
        return Some(text(StatusCode::BAD_REQUEST, "a request names one host"));
    }
    let coded = headers
        .get_all(header::TRANSFER_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    coded.then(|| text(StatusCode::NOT_IMPLEMENTED, "no transfer coding but chunked is known"))
}

/// Tells whether a path is the prefix or lies below it: `/davx` is not within `/dav`.
pub(super) fn within(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Answers OPTIONS at the host's root, which some clients ask before they ask for their own path.
fn options() -> Response<Body> {
    let mut response = Response::new(empty());
    let headers = response.headers_mut();
    headers.insert("dav", HeaderValue::from_static("1, 2, 3"));
    headers.insert("ms-author-via", HeaderValue::from_static("DAV"));
    headers.insert(header::ALLOW, HeaderValue::from_static("OPTIONS, GET, HEAD"));
    response
}

fn about() -> Response<Body> {
    let mut response = Response::new(full(ABOUT));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
