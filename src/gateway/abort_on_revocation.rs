//! Responses over HTTP/1 that are aborted when their session ends, also while the client reads slowly.
//!
//! A body is polled only once the socket takes more, so a body alone can't notice that its session has ended while the
//! client reads nothing. Bytes that the kernel has buffered by then would reach the client all the same. So the
//! connection itself is reset.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::auth::Session;
use crate::http::{BodyError, ResponseBody};

/// Maximum size of a response that is not watched: the kernel's send buffer takes it at once.
const UNWATCHED_RESPONSE_MAX_BYTES: u64 = 64 * 1024;

/// Body that aborts its connection when it fails, and ends its watch when it is dropped.
struct AbortOnErrorBody {
    body: ResponseBody,
    abort: CancellationToken,
    _finished: DropGuard,
}

/// Cancels `abort` when the session ends before the response does, or when the response fails.
pub(super) fn abort_on_session_end(
    response: Response<ResponseBody>,
    session: Session,
    abort: &CancellationToken,
) -> Response<ResponseBody> {
    if response.body().size_hint().upper().is_some_and(|max_bytes| max_bytes <= UNWATCHED_RESPONSE_MAX_BYTES) {
        return response;
    }
    let (finished, abort) = (CancellationToken::new(), abort.clone());
    let (body_abort, response_finished) = (abort.clone(), finished.clone());
    // A task, because nothing polls the body while the client reads nothing.
    tokio::spawn(async move {
        tokio::select! {
            () = response_finished.cancelled() => {}
            () = session.closed() => abort.cancel(),
        }
    });
    response.map(|body| AbortOnErrorBody { body, abort: body_abort, _finished: finished.drop_guard() }.boxed_unsync())
}

impl HttpBody for AbortOnErrorBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        // A body that fails half-way must not look complete to the client: the connection is reset.
        if matches!(frame, Some(Err(_))) {
            self.abort.cancel();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
