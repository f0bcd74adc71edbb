//! The listener for metrics alone: `GET /metrics` without a credential, over HTTP/1.1, for few connections at once.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::metrics_collector::MetricsCollector;
use crate::http::{ResponseBody, full, text_response};
use crate::net::{self, AcceptedConnection, ConnectionLimiter, ConnectionLimits, WriteTimeoutStream};
use crate::telemetry::METRICS_MEDIA_TYPE;

/// Maximum number of connections, all of which are unauthenticated.
const MAX_CONNECTIONS: usize = 16;
/// Maximum number of pages that are made at once; further requests wait.
const MAX_PAGES_AT_ONCE: usize = 2;
/// Maximum time for the head of a request, and between two requests: longer than Prometheus' usual interval of a minute.
const HEAD_TIMEOUT: Duration = Duration::from_secs(90);
/// Window of waiting for a client in which it has to take 256 bytes for each second.
const TRANSFER_RATE_WINDOW: Duration = Duration::from_secs(30);

/// Listener for metrics that is bound and does not serve yet.
pub(super) struct MetricsListener {
    listener: TcpListener,
    collector: MetricsCollector,
}

impl MetricsListener {
    pub(super) fn new(listener: TcpListener, collector: MetricsCollector) -> Self {
        Self { listener, collector }
    }

    /// Returns the address that it listens on.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Serves until `stop` is cancelled.
    pub(super) async fn run(self, connections: TaskTracker, stop: CancellationToken) {
        let limiter = ConnectionLimiter::new(ConnectionLimits {
            connections: MAX_CONNECTIONS,
            per_user: MAX_CONNECTIONS,
            unauthenticated: MAX_CONNECTIONS,
            unauthenticated_per_address: MAX_CONNECTIONS,
        });
        let (collector, pages) = (self.collector, Arc::new(Semaphore::new(MAX_PAGES_AT_ONCE)));
        let serve = {
            let stop = stop.clone();
            move |connection| {
                let serving = serve_connection(connection, collector.clone(), Arc::clone(&pages));
                let stop = stop.clone();
                connections.spawn(async move {
                    // A page that is being sent when the server stops is of no use to anybody.
                    stop.run_until_cancelled(serving).await;
                });
            }
        };
        net::accept(self.listener, limiter, stop, serve).await;
    }
}

async fn serve_connection(connection: AcceptedConnection, collector: MetricsCollector, pages: Arc<Semaphore>) {
    let AcceptedConnection { stream, peer, permit, .. } = connection;
    let stream = WriteTimeoutStream::new(stream, TRANSFER_RATE_WINDOW);
    let service = service_fn(|request: Request<Incoming>| {
        let (collector, pages) = (collector.clone(), Arc::clone(&pages));
        let _answering = permit.begin_request();
        async move {
            let _answering = _answering;
            Ok::<_, Infallible>(answer(&request, &collector, &pages).await)
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        result = serving => {
            if let Err(error) = result {
                tracing::debug!(%peer, %error, "a connection for metrics ended early");
            }
        }
        () = permit.evicted() => {}
    }
}

async fn answer(
    request: &Request<Incoming>,
    collector: &MetricsCollector,
    pages: &Semaphore,
) -> Response<ResponseBody> {
    if request.uri().path() != "/metrics" {
        return text_response(StatusCode::NOT_FOUND, "this address has /metrics and nothing else");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text_response(StatusCode::METHOD_NOT_ALLOWED, "metrics can only be read");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let collector = collector.clone();
    // The semaphore is never closed.
    let Ok(_permit) = pages.acquire().await else { return text_response(StatusCode::SERVICE_UNAVAILABLE, "stopping") };
    match tokio::task::spawn_blocking(move || collector.page()).await {
        Ok(page) => {
            let mut response = Response::new(full(page));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(METRICS_MEDIA_TYPE));
            response
        }
        Err(error) => {
            tracing::error!(%error, "the page of metrics was not made");
            text_response(StatusCode::INTERNAL_SERVER_ERROR, "internal server error")
        }
    }
}
