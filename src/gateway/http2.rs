//! HTTP/2 connections, served with the h2 library itself: hyper's server sends no `100 Continue` over HTTP/2, and leaves
//! a client that waits for it waiting for ever (RFC 9110 section 10.1.1).

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Ping, PingPong, Reason, SendStream};
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::serve_http::Caller;
use crate::http::{Body, RequestBody, UnreadBody, date_now};
use crate::net::{DeferredEndStream, EndGate};

/// Bytes with which a client begins that speaks HTTP/2 (RFC 9113 section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Maximum number of streams of a connection, and of changes under way on it.
pub(super) const MAX_STREAMS: u32 = 64;

const MAX_HEADER_BYTES: u32 = 64 * 1024;
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
const SEND_BUFFER_BYTES: usize = 400 * 1024;
/// Time between two questions whether the client is still there, and time that it has to answer.
const PING: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));

/// Header fields that belong to a connection of HTTP/1.1 (RFC 9113 section 8.2.2).
const CONNECTION_FIELDS: [HeaderName; 5] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Serves a connection to its end. It is given up when no request has come by `deadline`.
pub(super) async fn serve<S>(caller: &Arc<Caller>, stream: S, deadline: Instant)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let peer = caller.peer;
    let gate = EndGate::default();
    let handshake = builder().handshake(DeferredEndStream::new(stream, gate.clone()));
    let Ok(Ok(mut connection)) = tokio::time::timeout_at(deadline, handshake).await else {
        tracing::debug!(%peer, "HTTP/2 did not begin");
        return;
    };
    let mut vanished = pin!(watch(connection.ping_pong()));
    let mut greeting = pin!(tokio::time::sleep_until(deadline));
    let (mut waiting, mut stopping, mut alive) = (true, false, true);
    loop {
        tokio::select! {
            accepted = poll_fn(|cx| {
                let accepted = pin!(connection.accept()).poll(cx);
                if accepted.is_pending() {
                    gate.open();
                }
                accepted
            }) => match accepted {
                Some(Ok((request, respond))) => {
                    caller.greeted.store(true, Ordering::Relaxed);
                    // Before the connection's end can come: h2 then forgets that a request had no body.
                    let (proceed, proceeding) = oneshot::channel();
                    let tracked = RequestBody::of_http2(request, proceed);
                    tokio::spawn(answer(Arc::clone(caller), tracked, proceeding, respond));
                }
                Some(Err(error)) => {
                    tracing::debug!(%peer, %error, "connection ended early");
                    return;
                }
                None => return,
            },
            () = greeting.as_mut(), if waiting => {
                waiting = false;
                if !caller.greeted.load(Ordering::Relaxed) {
                    tracing::debug!(%peer, "no request came");
                    return;
                }
            }
            () = caller.stop.cancelled(), if !stopping => {
                stopping = true;
                if !caller.greeted.load(Ordering::Relaxed) {
                    return;
                }
                connection.graceful_shutdown();
            }
            () = vanished.as_mut(), if alive => {
                alive = false;
                connection.abrupt_shutdown(Reason::NO_ERROR);
            }
        }
    }
}

fn builder() -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER_BYTES);
    builder
}

/// Asks now and then whether the client is still there; returns once it does not answer.
async fn watch(pings: Option<PingPong>) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        tokio::time::sleep(PING.0).await;
        if !matches!(tokio::time::timeout(PING.1, pings.ping(Ping::opaque())).await, Ok(Ok(_))) {
            return;
        }
    }
}

/// Answers one stream. What waits for a request whose stream is reset is dropped.
async fn answer(
    caller: Arc<Caller>,
    (request, unread): (Request<RequestBody>, UnreadBody),
    mut proceeding: oneshot::Receiver<()>,
    mut respond: SendResponse<Bytes>,
) {
    let is_head = request.method() == Method::HEAD;
    let mut work = pin!(caller.carry_out(request, unread));
    let mut awaited = true;
    let response = loop {
        tokio::select! {
            // A change whose stream has ended by now must begin all the same.
            biased;
            response = work.as_mut() => break response,
            asked = &mut proceeding, if awaited => {
                awaited = false;
                if asked.is_ok() {
                    proceed_with(&mut respond);
                }
            }
            _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
        }
    };
    send(response, is_head, respond).await;
}

fn proceed_with(respond: &mut SendResponse<Bytes>) {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::CONTINUE;
    if let Err(error) = respond.send_informational(response) {
        tracing::debug!(%error, "100 Continue was not sent");
    }
}

async fn send(response: Response<Body>, is_head: bool, mut respond: SendResponse<Bytes>) {
    let (mut parts, body) = response.into_parts();
    complete(&mut parts.headers, &body);
    let ends = is_head || body.is_end_stream();
    match respond.send_response(Response::from_parts(parts, ()), ends) {
        Ok(stream) if !ends => send_body(body, stream).await,
        Ok(_) => {}
        Err(error) => {
            tracing::debug!(%error, "the response was not sent");
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}

/// Takes out header fields that HTTP/2 does not have, and adds those that are the server's to add.
fn complete(headers: &mut HeaderMap, body: &Body) {
    for name in CONNECTION_FIELDS {
        headers.remove(name);
    }
    headers.entry(header::DATE).or_insert_with(date_now);
    if let Some(length) = body.size_hint().exact().filter(|_| !body.is_end_stream()) {
        headers.entry(header::CONTENT_LENGTH).or_insert_with(|| length.into());
    }
}

async fn send_body(mut body: Body, mut stream: SendStream<Bytes>) {
    loop {
        // A block is asked for only once the client has room for some of it.
        stream.reserve_capacity(1);
        while stream.capacity() == 0 {
            if !matches!(poll_fn(|cx| stream.poll_capacity(cx)).await, Some(Ok(_))) {
                return;
            }
        }
        let frame = tokio::select! {
            frame = body.frame() => frame,
            _ = poll_fn(|cx| stream.poll_reset(cx)) => return,
        };
        let (data, ends) = match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => (data, body.is_end_stream()),
                Err(_) => continue,
            },
            Some(Err(_)) => return stream.send_reset(Reason::INTERNAL_ERROR),
            None => (Bytes::new(), true),
        };
        if stream.send_data(data, ends).is_err() || ends {
            return;
        }
    }
}
