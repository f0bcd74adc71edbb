//! Request bodies whose unread rest stays known, so that a refused upload can be drained.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, Request, Version, header};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::net::{DrainLimits, MinTransferRate};

/// Body of a request. It fails with [`RequestBodyError::TooSlow`] when it arrives more slowly than [`MinTransferRate`]
/// requires. Dropped before its end, it leaves the rest to the [`UnreadBody`] that was created with it.
pub struct RequestBody {
    source: Option<BodySource>,
    min_rate: MinTransferRate,
    state: Arc<BodyReadState>,
}

/// Error that ends the body of a request early.
#[derive(Debug, thiserror::Error)]
pub enum RequestBodyError {
    /// Failure of a body over HTTP/1.
    #[error(transparent)]
    Http1(#[from] hyper::Error),
    /// Failure of a body over HTTP/2.
    #[error(transparent)]
    Http2(#[from] h2::Error),
    /// Body below the minimum transfer rate.
    #[error("the body arrived too slowly")]
    TooSlow,
}

impl RequestBodyError {
    /// Tells whether an error, or one of its causes, is [`RequestBodyError::TooSlow`]: libraries that read a body wrap
    /// its errors.
    pub fn is_too_slow(error: &(dyn std::error::Error + 'static)) -> bool {
        let mut causes = std::iter::successors(Some(error), |error| error.source());
        causes.any(|cause| matches!(cause.downcast_ref(), Some(Self::TooSlow)))
    }
}

type PollFrame = Poll<Option<Result<Frame<Bytes>, RequestBodyError>>>;

/// Transport that a body is read from.
enum BodySource {
    Http1(Incoming),
    Http2(Http2Body),
}

/// Body of a request over HTTP/2.
struct Http2Body {
    stream: RecvStream,
    /// Number of bytes still to come according to `Content-Length`.
    remaining: Option<u64>,
    /// Triggers `100 Continue` for a client that waits for it.
    send_continue: Option<oneshot::Sender<()>>,
}

/// State of a body that outlives the response.
#[derive(Default)]
struct BodyReadState {
    /// Whether the body was polled: a client that waits for `100 Continue` has then been sent it.
    was_polled: AtomicBool,
    /// Number of bytes that were read of the body.
    received: AtomicU64,
    unread: Mutex<Option<BodySource>>,
}

/// Counter of the bytes that were read of a body; what is drained of it does not count.
pub struct ReceivedBytes(Arc<BodyReadState>);

impl ReceivedBytes {
    /// Returns the number of bytes that were read until now.
    pub fn get(&self) -> u64 {
        self.0.received.load(Ordering::Relaxed)
    }
}

/// Handle on the part of a body that the response leaves unread.
pub struct UnreadBody {
    awaits_continue: bool,
    state: Arc<BodyReadState>,
}

/// Rest of a body that no handler will read.
pub struct UnreadBodyRest {
    source: BodySource,
    /// Whether the client still waits for `100 Continue` before it sends the body (RFC 9110 section 10.1.1).
    pub awaits_continue: bool,
}

impl RequestBody {
    /// Wraps the body of a request over HTTP/1 and returns a handle on its unread rest. The transfer rate is measured
    /// in windows of `rate_window` spent waiting for the client. The request is in a box, since it is passed on many
    /// times, and would be copied each time.
    pub fn from_http1(request: Request<Incoming>, rate_window: Duration) -> (Box<Request<Self>>, UnreadBody) {
        // HTTP/1.0 has no `100 Continue`: its expectation is ignored (RFC 9110 section 10.1.1).
        let awaits_continue = request.version() == Version::HTTP_11 && expects_continue(request.headers());
        Self::track(request.map(BodySource::Http1), awaits_continue, rate_window)
    }

    /// Does the same for a request over HTTP/2. `send_continue` fires when the body is first polled and the client
    /// waits for `100 Continue`.
    pub fn from_http2(
        request: Request<RecvStream>,
        send_continue: oneshot::Sender<()>,
        rate_window: Duration,
    ) -> (Box<Request<Self>>, UnreadBody) {
        let awaits_continue = expects_continue(request.headers());
        let length = request.headers().get(header::CONTENT_LENGTH);
        let remaining = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let send_continue = awaits_continue.then_some(send_continue);
        let request = request.map(|stream| BodySource::Http2(Http2Body { stream, remaining, send_continue }));
        Self::track(request, awaits_continue, rate_window)
    }

    fn track(
        request: Request<BodySource>,
        awaits_continue: bool,
        rate_window: Duration,
    ) -> (Box<Request<Self>>, UnreadBody) {
        let state = Arc::<BodyReadState>::default();
        let unread = UnreadBody { awaits_continue, state: Arc::clone(&state) };
        // Decided now: once a connection is lost, h2 no longer knows whether there was a body.
        let tracked = |source: BodySource| Self {
            source: Some(source).filter(|source| !source.is_end_stream()),
            min_rate: MinTransferRate::new(rate_window),
            state,
        };
        (Box::new(request.map(tracked)), unread)
    }
}

fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> PollFrame {
        // hyper sends `100 Continue` at the first poll: a later drain must know.
        self.state.was_polled.store(true, Ordering::Relaxed);
        let Self { source: source_slot, min_rate, state } = &mut *self;
        let Some(source) = source_slot else { return Poll::Ready(None) };
        let Poll::Ready(frame) = source.poll_frame(cx) else {
            // Only time spent waiting for the client counts, not that of a slow disk.
            return min_rate.poll_too_slow(cx).map(|()| Some(Err(RequestBodyError::TooSlow)));
        };
        match &frame {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                min_rate.record_transferred(bytes);
                state.received.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            // Ended or failed: nothing is left to drain, and a finished transport must not be polled again.
            Some(Err(_)) | None => *source_slot = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.source.as_ref().is_none_or(BodySource::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.source.as_ref().map_or_else(|| SizeHint::with_exact(0), BodySource::size_hint)
    }
}

impl BodySource {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> PollFrame {
        match self {
            Self::Http1(body) => Pin::new(body).poll_frame(cx).map_err(RequestBodyError::from),
            Self::Http2(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) if body.stream.is_end_stream() => SizeHint::with_exact(0),
            Self::Http2(body) => body.remaining.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

impl Http2Body {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> PollFrame {
        // h2 leaves `100 Continue` to us; hyper sends it by itself over HTTP/1.
        if let Some(send_continue) = self.send_continue.take() {
            let _ = send_continue.send(());
        }
        match ready!(self.stream.poll_data(cx)) {
            Some(Ok(data)) => {
                // Released as soon as the data is taken: the window would otherwise close and the upload stop.
                self.stream.flow_control().release_capacity(data.len())?;
                self.remaining = self.remaining.map(|remaining| remaining.saturating_sub(data.len() as u64));
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            // The stream was reset or lost after all of the body had arrived: the request is still carried out.
            Some(Err(error)) if self.remaining == Some(0) && (error.is_io() || error.is_remote()) => Poll::Ready(None),
            Some(Err(error)) => Poll::Ready(Some(Err(error.into()))),
            None => Poll::Ready(None),
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        // Not drained here: `drop` can't wait. The gateway drains the rest after the response.
        if let Some(source) = self.source.take().filter(|source| !source.is_end_stream()) {
            *self.state.unread.lock() = Some(source);
        }
    }
}

impl UnreadBody {
    /// Returns the counter of the bytes that are read of the body.
    pub fn received_bytes(&self) -> ReceivedBytes {
        ReceivedBytes(Arc::clone(&self.state))
    }

    /// Returns the unread rest of the body; `None` where it was read to its end.
    pub fn into_unread(self) -> Option<UnreadBodyRest> {
        let source = self.state.unread.lock().take()?;
        let requested = self.state.was_polled.load(Ordering::Relaxed);
        Some(UnreadBodyRest { source, awaits_continue: self.awaits_continue && !requested })
    }
}

impl UnreadBodyRest {
    /// Tells whether the rest is known to be at most so many bytes long.
    pub fn is_at_most(&self, bytes: u64) -> bool {
        self.source.size_hint().upper().is_some_and(|length| length <= bytes)
    }

    /// Reads and discards the rest, within the limits; returns whether it reached the end of the body.
    pub async fn drain(mut self, limits: DrainLimits) -> bool {
        let (mut remaining, mut min_rate) = (limits.max_bytes, MinTransferRate::new(limits.idle_timeout));
        let discard = poll_fn(|cx| {
            loop {
                let Poll::Ready(frame) = self.source.poll_frame(cx) else {
                    return min_rate.poll_too_slow(cx).map(|()| false);
                };
                let Some(Ok(frame)) = frame else { return Poll::Ready(frame.is_none()) };
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                min_rate.record_transferred(bytes);
                remaining = remaining.saturating_sub(bytes as u64);
                // The limit of bytes is reached: the connection is closed instead.
                if remaining == 0 {
                    return Poll::Ready(false);
                }
            }
        });
        tokio::time::timeout(limits.total_timeout, discard).await.unwrap_or(false)
    }
}
