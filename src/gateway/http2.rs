//! HTTP/2 connections, served with the h2 library itself: hyper's server sends no `100 Continue` over HTTP/2, and
//! leaves a client that waits for it waiting for ever (RFC 9110 section 10.1.1).
//!
//! The memory that a client can occupy is small until it is authenticated, and bounded for each user and in total after
//! that: windows that are open to uploads, and bytes of responses that the client has not taken yet.

use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::http2_budgets::{MAX_STREAMS, UNAUTHENTICATED_WINDOW_BYTES};
use super::request_handler::{HttpConnection, WriteSlot, internal_error};
use crate::auth::Session;
use crate::domain::{Login, QuotaReservation, UserQuotas};
use crate::http::{
    AuthenticatedSession, RequestBody, ResponseBody, UnreadBody, bytes_with_reservation, current_date_header,
    set_retry_after, text_response,
};
use crate::net::{DeferredEofStream, EofGate, GatheredWrites, MinTransferRate, WriteFlusher};

/// Connection preface of a client that uses HTTP/2 (RFC 9113 section 3.4).
pub(super) const CONNECTION_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const MAX_HEADER_BYTES: u32 = 64 * 1024;
/// Windows of each stream and of the connection, of an authenticated client.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Maximum number of bytes of a response that are buffered ahead of its client.
const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// Time after which widening the windows is tried again, where the client has not acknowledged the settings before.
const WINDOW_RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// Duration above which a change that the connection carries out itself delays the other streams too much.
const INLINE_CHANGE_LIMIT: Duration = Duration::from_micros(100);
/// Number of changes that get a task each, after one that was above [`INLINE_CHANGE_LIMIT`].
const CHANGES_IN_TASKS: u32 = 64;
/// Time between two pings of the client, and time in which it has to acknowledge one.
const PING_INTERVAL_AND_TIMEOUT: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));

/// Header fields that belong to a connection of HTTP/1.1 (RFC 9113 section 8.2.2).
const CONNECTION_SPECIFIC_FIELDS: [HeaderName; 5] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Serves a connection to its end. It is closed when no request has come by `deadline`.
pub(super) async fn serve<S>(http_connection: &Arc<HttpConnection>, stream: S, deadline: Instant)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let peer = http_connection.peer;
    let eof_gate = EofGate::default();
    let stream = GatheredWrites::new(DeferredEofStream::new(stream, eof_gate.clone()));
    let flusher = stream.flusher();
    let handshake = server_builder().handshake(stream);
    let Ok(Ok(mut connection)) = tokio::time::timeout_at(deadline, handshake).await else {
        tracing::debug!(%peer, "the HTTP/2 handshake failed");
        return;
    };
    let mut ping_timeout = pin!(ping_until_unanswered(connection.ping_pong()));
    let mut first_request_deadline = pin!(tokio::time::sleep_until(deadline));
    let (mut awaiting_first_request, mut stopping, mut pings_answered) = (true, false, true);
    let streams = TaskTracker::new();
    // A closed tracker still takes tasks, and only a closed one reports that it is empty.
    streams.close();
    let (mut window, mut inline_changes) = (ReceiveWindow::Initial, InlineChanges::default());
    loop {
        tokio::select! {
            accepted = accept_stream(&mut connection, &eof_gate, &flusher) => match accepted {
                Some(Ok(accepted)) => start_stream(http_connection, accepted, &streams, &mut inline_changes).await,
                Some(Err(error)) => {
                    tracing::debug!(%peer, %error, "connection ended early");
                    return;
                }
                None => return,
            },
            () = first_request_deadline.as_mut(), if awaiting_first_request => {
                awaiting_first_request = false;
                if !http_connection.request_received.load(Ordering::Relaxed) {
                    tracing::debug!(%peer, "no request came");
                    return;
                }
            }
            // GOAWAY names the last request that is answered only after a round trip: those on their way are, too.
            () = http_connection.drain.draining.cancelled(), if !stopping => {
                stopping = true;
                connection.graceful_shutdown();
            }
            // A connection without a request has nothing to lose, whether or not its client has acknowledged that.
            () = http_connection.drain.end.cancelled(), if !http_connection.request_received.load(Ordering::Relaxed) => {
                return;
            }
            // Wide windows are memory that a client can fill: they need a user in whose budget they count.
            login = http_connection.owner.authenticated(), if matches!(window, ReceiveWindow::Initial) => {
                window = ReceiveWindow::reserve(&login, &http_connection.service.http2_budgets.windows);
            }
            () = tokio::time::sleep(WINDOW_RETRY_INTERVAL), if matches!(window, ReceiveWindow::Granted(_)) => {}
            // Made anew in each round, so that every event of the connection restarts the idle time.
            () = idle_timeout(&streams, http_connection.service.idle_timeout), if !stopping => {
                stopping = true;
                connection.graceful_shutdown();
            }
            () = http_connection.owner.token_ended(), if !stopping => {
                stopping = true;
                connection.graceful_shutdown();
            }
            // TCP alone notices a vanished client only after minutes, with windows and buffers reserved until then.
            () = ping_timeout.as_mut(), if pings_answered => {
                pings_answered = false;
                connection.abrupt_shutdown(Reason::NO_ERROR);
            }
        }
        // After every event, since the acknowledgement of the settings may have been among the frames that were read.
        window = window.widen(&mut connection);
    }
}

/// Waits for the next stream; the end of the connection is reported once all streams before it were accepted.
async fn accept_stream<S>(
    connection: &mut server::Connection<GatheredWrites<S>, Bytes>,
    eof_gate: &EofGate,
    flusher: &WriteFlusher<S>,
) -> Option<io::Result<(Request<RecvStream>, SendResponse<Bytes>)>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    poll_fn(|cx| {
        if let Poll::Ready(accepted) = connection.poll_accept(cx) {
            return Poll::Ready(accepted.map(|accepted| accepted.map_err(io::Error::other)));
        }
        // h2 has taken up all that was read. Together with the end of the connection, it would forget the last
        // requests.
        eof_gate.allow_eof();
        // All streams that were ready have written: their responses leave together.
        match flusher.poll_flush(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(error))),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Stream that a client has opened, with all that was taken of it before anything is awaited.
struct AcceptedStream {
    request: Box<Request<RequestBody>>,
    unread: UnreadBody,
    write_slot: WriteSlot,
    continue_requested: oneshot::Receiver<()>,
    respond: SendResponse<Bytes>,
}

impl AcceptedStream {
    fn new(http_connection: &HttpConnection, request: Request<RecvStream>, respond: SendResponse<Bytes>) -> Self {
        http_connection.request_received.store(true, Ordering::Relaxed);
        // Now, before the end of the connection is read: h2 then no longer knows that a request had no body.
        let (continue_sender, continue_requested) = oneshot::channel();
        let write_slot = http_connection.try_reserve_write(request.method());
        let (request, unread) =
            RequestBody::from_http2(request, continue_sender, http_connection.service.transfer_rate_window);
        Self { request, unread, write_slot, continue_requested, respond }
    }
}

/// Choice of where the changes of a connection are carried out: one after the other by the connection, while each is
/// short, or at the same time by tasks.
#[derive(Default)]
struct InlineChanges {
    changes_in_tasks: u32,
}

impl InlineChanges {
    fn is_next_inline(&mut self) -> bool {
        let is_inline = self.changes_in_tasks == 0;
        self.changes_in_tasks = self.changes_in_tasks.saturating_sub(1);
        is_inline
    }

    fn record_duration(&mut self, duration: Duration) {
        if duration > INLINE_CHANGE_LIMIT {
            self.changes_in_tasks = CHANGES_IN_TASKS;
        }
    }
}

/// Answers a stream: at once where nothing has to be waited for, otherwise in a task of its own.
async fn start_stream(
    http_connection: &Arc<HttpConnection>,
    (request, respond): (Request<RecvStream>, SendResponse<Bytes>),
    streams: &TaskTracker,
    inline_changes: &mut InlineChanges,
) {
    let accepted = AcceptedStream::new(http_connection, request, respond);
    let is_change = !matches!(accepted.write_slot, WriteSlot::NotNeeded);
    let mut answering = Box::pin(handle_stream(Arc::clone(http_connection), accepted));
    if is_change && !inline_changes.is_next_inline() {
        streams.spawn(answering);
        return;
    }
    // A task costs more than the response to a small GET, and those of one connection contend for the locks of h2. The
    // connection waits no longer than it would for such a response over HTTP/1. A panic ends this stream alone.
    let started = is_change.then(Instant::now);
    let first_poll = poll_fn(|cx| {
        let poll = AssertUnwindSafe(|| answering.as_mut().poll(cx).is_ready());
        Poll::Ready(catch_unwind(poll))
    });
    let is_done = first_poll.await;
    if let Some(started) = started {
        inline_changes.record_duration(started.elapsed());
    }
    if matches!(is_done, Ok(false)) {
        streams.spawn(answering);
    }
}

/// Receive windows of a connection.
enum ReceiveWindow {
    /// Small: the client is not authenticated.
    Initial,
    /// As small, for good: the user's share is used up.
    Refused,
    /// Reserved, to be widened once the client has acknowledged the settings before.
    Granted(QuotaReservation),
    Widened {
        _reservation: QuotaReservation,
    },
}

impl ReceiveWindow {
    fn reserve(login: &Login, windows: &UserQuotas) -> Self {
        windows
            .try_reserve(login, u64::from(CONNECTION_WINDOW_BYTES - UNAUTHENTICATED_WINDOW_BYTES))
            .map_or(Self::Refused, Self::Granted)
    }

    /// Widens granted windows, where the client has acknowledged the settings before (RFC 9113 section 6.5.3).
    fn widen<S>(self, connection: &mut server::Connection<S, Bytes>) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match self {
            Self::Granted(reservation) => match connection.set_initial_window_size(STREAM_WINDOW_BYTES) {
                Ok(()) => {
                    connection.set_target_window_size(CONNECTION_WINDOW_BYTES);
                    Self::Widened { _reservation: reservation }
                }
                Err(_) => Self::Granted(reservation),
            },
            other => other,
        }
    }
}

/// Waits until no stream has been open for as long as a connection may be idle.
async fn idle_timeout(streams: &TaskTracker, timeout: Duration) {
    streams.wait().await;
    tokio::time::sleep(timeout).await;
}

fn server_builder() -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .initial_window_size(UNAUTHENTICATED_WINDOW_BYTES)
        .initial_connection_window_size(UNAUTHENTICATED_WINDOW_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES);
    builder
}

/// Pings the client at intervals; returns once it does not acknowledge a ping.
async fn ping_until_unanswered(ping_pong: Option<PingPong>) {
    let Some(mut ping_pong) = ping_pong else { return std::future::pending().await };
    loop {
        tokio::time::sleep(PING_INTERVAL_AND_TIMEOUT.0).await;
        if !matches!(tokio::time::timeout(PING_INTERVAL_AND_TIMEOUT.1, ping_pong.ping(Ping::opaque())).await, Ok(Ok(_)))
        {
            return;
        }
    }
}

/// Answers one stream. The work on a request whose stream is reset is dropped, unless it changes something and has its
/// slot: then it is carried out to its end, since a change must not stop half-way.
async fn handle_stream(http_connection: Arc<HttpConnection>, stream: AcceptedStream) {
    let AcceptedStream { request, unread, write_slot, mut continue_requested, mut respond } = stream;
    let is_head = request.method() == Method::HEAD;
    let write_permit = tokio::select! {
        // The slot first: a change has to begin although its stream has ended by now.
        biased;
        permit = http_connection.acquire_write(write_slot) => permit,
        _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
    };
    let mut work = pin!(http_connection.handle(request, unread));
    // A panic is answered, as that of a task is.
    let mut work = poll_fn(move |cx| {
        let poll = AssertUnwindSafe(|| work.as_mut().poll(cx));
        catch_unwind(poll).unwrap_or_else(|_| Poll::Ready(internal_error()))
    });
    let mut may_send_continue = true;
    let response = loop {
        tokio::select! {
            // The work first, for the same reason.
            biased;
            response = &mut work => break response,
            requested = &mut continue_requested, if may_send_continue => {
                may_send_continue = false;
                if requested.is_ok() {
                    send_continue(&mut respond);
                }
            }
            _ = poll_fn(|cx| respond.poll_reset(cx)) => {
                drop(respond);
                if write_permit.is_some() {
                    work.await;
                }
                return;
            }
        }
    };
    // The slot is that of the change, which is done, and not of the response.
    drop(write_permit);
    let service = &http_connection.service;
    let limits = (&service.http2_budgets.responses, service.transfer_rate_window);
    pin!(send_response(response, is_head, respond, limits)).await;
}

fn send_continue(respond: &mut SendResponse<Bytes>) {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::CONTINUE;
    if let Err(error) = respond.send_informational(response) {
        tracing::debug!(%error, "100 Continue was not sent");
    }
}

async fn send_response(
    mut response: Response<ResponseBody>,
    is_head: bool,
    mut respond: SendResponse<Bytes>,
    (responses, transfer_rate_window): (&UserQuotas, Duration),
) {
    let session = response.extensions_mut().remove().map(|AuthenticatedSession(session)| session);
    let held_bytes = response.body().size_hint().upper().unwrap_or(u64::MAX).min(SEND_BUFFER_BYTES as u64);
    // Responses to unauthenticated clients are short, and their connections bounded: they reserve nothing.
    let reservation = match session
        .as_ref()
        .filter(|_| held_bytes > 0)
        .map(|session| responses.try_reserve(session.login(), held_bytes))
    {
        Some(None) => {
            response = response_budget_exhausted();
            None
        }
        reservation => reservation.flatten(),
    };
    let (mut parts, body) = response.into_parts();
    finish_headers(&mut parts.headers, &body);
    let is_last = is_head || body.is_end_stream();
    match respond.send_response(Response::from_parts(parts, ()), is_last) {
        Ok(stream) if !is_last => {
            let reservation = reservation.map(Arc::new);
            pin!(send_body(body, BodyStream { stream, session, reservation, transfer_rate_window })).await;
        }
        Ok(_) => {}
        Err(error) => {
            tracing::debug!(%error, "the response was not sent");
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}

/// Refuses a request whose response would exceed the user's budget of buffered responses.
fn response_budget_exhausted() -> Response<ResponseBody> {
    let mut response = text_response(
        StatusCode::SERVICE_UNAVAILABLE,
        "too many responses of this user are waiting to be read: read some, and try again",
    );
    set_retry_after(response.headers_mut(), Duration::from_secs(1));
    response
}

/// Removes header fields that HTTP/2 forbids, and adds those that the server has to add.
fn finish_headers(headers: &mut HeaderMap, body: &ResponseBody) {
    for name in CONNECTION_SPECIFIC_FIELDS {
        headers.remove(name);
    }
    // hyper adds it over HTTP/1, h2 does not (RFC 9110 section 6.6.1).
    headers.entry(header::DATE).or_insert_with(current_date_header);
    if let Some(length) = body.size_hint().exact().filter(|_| !body.is_end_stream()) {
        headers.entry(header::CONTENT_LENGTH).or_insert_with(|| length.into());
    }
}

/// Stream of a response to which a body is sent.
struct BodyStream {
    stream: SendStream<Bytes>,
    /// Session whose end resets the stream.
    session: Option<Session>,
    /// Share of the user's budget of buffered responses.
    reservation: Option<Arc<QuotaReservation>>,
    transfer_rate_window: Duration,
}

/// Sends a body as fast as its client takes it. Resets the stream when the session has ended, and when the client takes
/// less than [`MinTransferRate`] asks for in a `transfer_rate_window` of waiting.
///
/// No more is handed to h2 than the client has window for, so that the rest stays here, where session and rate are
/// watched: h2 keeps what it was given, however long the client leaves its window closed.
async fn send_body(mut body: ResponseBody, to: BodyStream) {
    let BodyStream { mut stream, session, reservation, transfer_rate_window } = to;
    let session_closed = async {
        match session {
            Some(session) => session.closed().await,
            None => std::future::pending().await,
        }
    };
    let (mut session_closed, mut transfer_rate) = (pin!(session_closed), MinTransferRate::new(transfer_rate_window));
    loop {
        // A block is read only once the client has window for a part of it: a stalled download holds none.
        let Some(_) = wait_for_capacity(&mut stream, 1, &mut transfer_rate, session_closed.as_mut()).await else {
            return;
        };
        let frame = tokio::select! {
            frame = body.frame() => frame,
            // The client may give up while the body waits for the disk.
            _ = poll_fn(|cx| stream.poll_reset(cx)) => return,
        };
        let (mut data, is_last) = match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => (data, body.is_end_stream()),
                Err(_) => continue,
            },
            Some(Err(_)) => return stream.send_reset(Reason::INTERNAL_ERROR),
            None => (Bytes::new(), true),
        };
        // An empty frame needs no window, and may be the one that ends the stream.
        if data.is_empty() && (stream.send_data(data.clone(), is_last).is_err() || is_last) {
            return;
        }
        while !data.is_empty() {
            let capacity =
                wait_for_capacity(&mut stream, data.len(), &mut transfer_rate, session_closed.as_mut()).await;
            let Some(capacity) = capacity else { return };
            let part = data.split_to(capacity.min(data.len()));
            transfer_rate.record_transferred(part.len());
            let ends = is_last && data.is_empty();
            // h2 holds the last bytes of a body after its stream was handed over, until the connection has taken them.
            if stream.send_data(bytes_with_reservation(part, reservation.as_ref()), ends).is_err() || ends {
                return;
            }
        }
    }
}

/// Waits until the client has window for a part of `wanted` bytes, and returns for how many; `None` once the stream was
/// reset, by the client, for its slowness, or because the session has ended.
async fn wait_for_capacity(
    stream: &mut SendStream<Bytes>,
    wanted: usize,
    transfer_rate: &mut MinTransferRate,
    mut session_closed: Pin<&mut impl Future<Output = ()>>,
) -> Option<usize> {
    stream.reserve_capacity(wanted.min(SEND_BUFFER_BYTES));
    while stream.capacity() == 0 {
        let capacity = poll_fn(|cx| match stream.poll_capacity(cx) {
            Poll::Pending => transfer_rate.poll_too_slow(cx).map(|()| None),
            ready => ready,
        });
        tokio::select! {
            capacity = capacity => match capacity {
                Some(Ok(_)) => {}
                Some(Err(_)) => return None,
                None => {
                    stream.send_reset(Reason::CANCEL);
                    return None;
                }
            },
            () = session_closed.as_mut() => {
                stream.send_reset(Reason::CANCEL);
                return None;
            }
        }
    }
    Some(stream.capacity())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_change_sends_the_next_ones_to_tasks() {
        let mut changes = InlineChanges::default();
        assert!(changes.is_next_inline());
        changes.record_duration(INLINE_CHANGE_LIMIT);
        assert!(changes.is_next_inline());
        changes.record_duration(2 * INLINE_CHANGE_LIMIT);
        assert_eq!((0..1000).position(|_| changes.is_next_inline()), Some(CHANGES_IN_TASKS as usize));
    }
}
