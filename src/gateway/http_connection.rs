//! One HTTP connection: TLS, the version of HTTP, and when the connection ends.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Request, Version};
use hyper::body::Incoming;
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
use super::drain::DrainSignals;
use super::http_service::HttpService;
use super::http2;
use super::http2_budgets::MAX_STREAMS;
use super::last_host::LastHost;
use super::request_handler::{HttpConnection, is_cancellable};
use crate::http::{LastSession, RequestBody};
use crate::net::{
    AcceptedConnection, DrainLimits, FileTransfer, FileTransferStream, LingeringStream, PeerShutdown, RewindStream,
    UnreadInput, WriteTimeoutStream,
};

const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum size of the future of a request over HTTP/1: it is copied several times on its way.
const MAX_REQUEST_FUTURE_BYTES: usize = 8 * 1024;
/// Bounds on discarding what comes after the sending side of a connection was closed.
const LINGERING_CLOSE_LIMITS: DrainLimits = DrainLimits {
    idle_timeout: Duration::from_secs(10),
    max_bytes: 256 << 20,
    total_timeout: Duration::from_secs(5 * 60),
};

impl HttpService {
    /// Serves one connection to its end.
    pub(super) async fn serve(self, connection: AcceptedConnection, drain: DrainSignals) {
        let AcceptedConnection { stream, peer, encrypted, permit } = connection;
        let drain = drain.for_connection();
        let abort = CancellationToken::new();
        let (peer_shutdown, disconnect_probe) = (PeerShutdown::default(), DisconnectProbe::default());
        let file_transfer = FileTransfer::default();
        let stream = FileTransferStream::new(stream, file_transfer.clone());
        // From the socket outwards: time-out and abort, then the lingering close, which discards raw bytes, then TLS.
        let stream = WriteTimeoutStream::new(stream, self.transfer_rate_window)
            .abort_on(abort.clone())
            .watch_peer_shutdown(peer_shutdown.clone());
        let unread_input = UnreadInput::default();
        let stream = LingeringStream::new(stream, LINGERING_CLOSE_LIMITS, unread_input.clone(), drain.end.clone());
        // Once for the whole connection: a reload must not change rules between two of its requests.
        let settings = self.live_settings.load_full();
        let tls = settings.tls.as_ref().map(|tls| Arc::clone(&tls.config));
        let evicted = permit.evicted();
        let connection = HttpConnection {
            service: self,
            settings,
            peer: peer.ip(),
            encrypted: encrypted || tls.is_some(),
            permit,
            owner: ConnectionOwner::default(),
            last_session: LastSession::default(),
            last_host: LastHost::default(),
            peer_shutdown,
            disconnect_probe,
            user_limit_reached: AtomicBool::new(false),
            request_received: AtomicBool::new(false),
            abort,
            unread_input,
            drain,
            last_request: AtomicBool::new(false),
            // What goes through TLS is copied, and so are placeholders.
            file_transfer: tls.is_none().then_some(file_transfer),
            write_permits: Arc::new(Semaphore::new(MAX_STREAMS as usize)),
        };
        let serving = async {
            match tls {
                None => connection.serve_requests(stream).await,
                Some(config) => {
                    let handshake = TlsAcceptor::from(config).accept(stream);
                    match tokio::time::timeout(TLS_HANDSHAKE_TIMEOUT, handshake).await {
                        Ok(Ok(stream)) => connection.serve_requests(stream).await,
                        Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                        Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
                    }
                }
            }
        };
        tokio::select! {
            () = serving => {}
            // Drops the connection wherever it is. The limiter evicts only those that wait for their client, or whose
            // unauthenticated request takes long.
            () = evicted => tracing::debug!(%peer, "the connection is evicted in favour of another"),
        }
    }
}

impl HttpConnection {
    /// Serves the connection in the version of HTTP with which it begins.
    async fn serve_requests<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let deadline = Instant::now() + FIRST_REQUEST_TIMEOUT;
        // By the preface, not ALPN: clients with prior knowledge send it over cleartext (RFC 9113 section 3.3).
        let detected = tokio::select! {
            detected = tokio::time::timeout_at(deadline, RewindStream::detect_preface(stream, http2::CONNECTION_PREFACE)) => detected,
            () = self.drain.end.cancelled() => return,
        };
        let connection = Arc::new(self);
        match detected {
            Ok(Ok((stream, true))) => {
                http2::serve(&connection, stream, deadline).await;
                // Changing requests outlive their connection. A shutdown waits for this task, and so for them.
                let _ = connection.write_permits.acquire_many(MAX_STREAMS).await;
            }
            Ok(Ok((stream, false))) => connection.serve_http1(stream, deadline).await,
            Ok(Err(_)) | Err(_) => tracing::debug!(peer = %connection.peer, "no request came"),
        }
    }

    async fn serve_http1<S>(self: &Arc<Self>, stream: S, deadline: Instant)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|request: Request<Incoming>| {
            let (request, unread_body) = RequestBody::from_http1(request, self.service.transfer_rate_window);
            // A request without an effect before its end is cancelled when its client disconnects, all others are
            // carried out. HTTP/1.0 has no interim responses to probe its clients with (RFC 9110 section 15.2).
            let cancellable = request.version() == Version::HTTP_11 && is_cancellable(request.method());
            async move {
                // Pinned here: a future that is passed on by value is copied, and this one is large.
                let mut response = pin!(self.handle(request, unread_body));
                debug_assert!(size_of_val(&*response) <= MAX_REQUEST_FUTURE_BYTES, "box what is rare in it");
                Ok::<_, Infallible>(match cancellable {
                    true => {
                        run_with_disconnect_probe(&self.disconnect_probe, &self.peer_shutdown, response.as_mut()).await
                    }
                    false => response.await,
                })
            }
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            // Also bounds the time between two requests, which hyper spends reading the next head.
            .header_read_timeout(self.service.idle_timeout)
            .max_buf_size(512 * 1024)
            // A request that arrived whole is carried out and answered although its sender has shut down its side
            // (RFC 9112 section 9.6), as ffmpeg does behind each segment.
            .half_close(true)
            .serve_connection(TokioIo::new(ProbedStream::new(stream, self.disconnect_probe.clone())), service);
        let mut serving = pin!(serving);
        let mut first_request_deadline = pin!(tokio::time::sleep_until(deadline));
        let (mut awaiting_first_request, mut draining, mut stopping) = (true, false, false);
        loop {
            tokio::select! {
                result = serving.as_mut() => {
                    if let Err(error) = result {
                        tracing::debug!(peer = %self.peer, %error, "connection ended early");
                    }
                    return;
                }
                // Against clients that send the head of their first request byte by byte: they hold a permit without
                // being authenticated.
                () = first_request_deadline.as_mut(), if awaiting_first_request => {
                    awaiting_first_request = false;
                    if !self.request_received.load(Ordering::Relaxed) {
                        tracing::debug!(peer = %self.peer, "no request came");
                        return;
                    }
                }
                // Nothing is closed yet: hyper would close a connection that is idle, whose client may be sending.
                () = self.drain.draining.cancelled(), if !draining => {
                    draining = true;
                    self.last_request.store(true, Ordering::Relaxed);
                }
                // A connection without a request yet has nothing to lose; any other finishes the one that it is in.
                () = self.drain.end.cancelled(), if draining && !stopping => {
                    stopping = true;
                    if !self.request_received.load(Ordering::Relaxed) {
                        return;
                    }
                    serving.as_mut().graceful_shutdown();
                }
                // The response under way is ended by `abort_on_revocation`. This closes a connection that is idle, or
                // sends a short response.
                () = self.owner.token_ended(), if !stopping => {
                    stopping = true;
                    serving.as_mut().graceful_shutdown();
                }
            }
        }
    }
}
