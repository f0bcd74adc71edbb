//! Request bodies whose unread rest stays known, so that a refused upload can be drained.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Version, header};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::net::DrainLimits;

/// Body of a request. Dropped before its end, it leaves the rest to the [`UnreadBody`] that was made with it.
pub struct RequestBody {
    source: Option<Incoming>,
    progress: Arc<Progress>,
}

/// What is known of a body once the request was answered.
#[derive(Default)]
struct Progress {
    /// Whether anything of it was asked for: hyper then sends `100 Continue` to a client that waits for it.
    requested: AtomicBool,
    rest: Mutex<Option<Incoming>>,
}

/// Handle on what a request's answer leaves unread of its body.
pub struct UnreadBody {
    awaits_continue: bool,
    progress: Arc<Progress>,
}

/// Rest of a body that nobody will read.
pub struct BodyRest {
    source: Incoming,
    /// Whether the client still waits for `100 Continue` before it sends the body (RFC 9110 section 10.1.1).
    pub awaits_continue: bool,
}

impl RequestBody {
    /// Splits a request into itself and the handle on what will be left of its body.
    pub fn track(request: Request<Incoming>) -> (Request<Self>, UnreadBody) {
        let progress = Arc::<Progress>::default();
        let expects = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
        let awaits_continue =
            request.version() >= Version::HTTP_11 && request.headers().get(header::EXPECT).is_some_and(expects);
        let unread = UnreadBody { awaits_continue, progress: Arc::clone(&progress) };
        (request.map(|source| Self { source: Some(source), progress }), unread)
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.progress.requested.store(true, Ordering::Relaxed);
        let Some(source) = &mut self.source else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(source).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.source = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.source.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.source.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(source) = self.source.take().filter(|source| !source.is_end_stream()) {
            *self.progress.rest.lock() = Some(source);
        }
    }
}

impl UnreadBody {
    /// Returns what the answer has left of the body; none where that was read whole.
    pub fn into_rest(self) -> Option<BodyRest> {
        let source = self.progress.rest.lock().take()?;
        let requested = self.progress.requested.load(Ordering::Relaxed);
        Some(BodyRest { source, awaits_continue: self.awaits_continue && !requested })
    }
}

impl BodyRest {
    /// Tells whether the rest is known to be no longer than a number of bytes.
    pub fn fits(&self, bytes: u64) -> bool {
        self.source.size_hint().upper().is_some_and(|length| length <= bytes)
    }

    /// Reads the rest to its end, within bounds, and discards it; tells whether it came to its end.
    pub async fn drain(mut self, limits: DrainLimits) -> bool {
        let (mut left, start) = (limits.bytes, Instant::now());
        loop {
            let patience = limits.silence.min(limits.total.saturating_sub(start.elapsed()));
            let Ok(frame) = tokio::time::timeout(patience, self.source.frame()).await else { return false };
            match frame {
                None => return true,
                Some(Err(_)) => return false,
                Some(Ok(frame)) => left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len) as u64),
            }
            if left == 0 || patience == Duration::ZERO {
                return false;
            }
        }
    }
}
