//! The report of an HTTP request to the record of operations: made once, when the body of its response has ended or was
//! dropped, or when the request was dropped before there was a response.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::http_service::area_of_path;
use crate::http::{BodyError, ReceivedBytes, RequestBody, ResponseBody, UnreadBody};
use crate::telemetry::{FinishedOperation, HttpMethodName, OperationKind, OperationRecorder, OperationStatus};

/// A request under way; reported when it is dropped.
pub(super) struct OperationReport {
    recorder: Arc<OperationRecorder>,
    kind: OperationKind,
    status: OperationStatus,
    started_at: Instant,
    received: ReceivedBytes,
    sent_bytes: u64,
}

impl OperationReport {
    /// Begins the report of a request whose target is normalized.
    pub(super) fn begin(
        recorder: &Arc<OperationRecorder>,
        request: &Request<RequestBody>,
        unread_body: &UnreadBody,
    ) -> Self {
        let area = area_of_path(request.uri().path());
        Self {
            recorder: Arc::clone(recorder),
            kind: OperationKind::Http(area, HttpMethodName::from_http(request.method().as_str())),
            status: OperationStatus::Aborted,
            started_at: Instant::now(),
            received: unread_body.received_bytes(),
            sent_bytes: 0,
        }
    }

    /// Returns the response with a body that completes the report.
    pub(super) fn follow(mut self, response: Response<ResponseBody>) -> Response<ResponseBody> {
        self.status = OperationStatus::Http(response.status().as_u16());
        response.map(|body| ReportedBody { body, report: self }.boxed_unsync())
    }
}

impl Drop for OperationReport {
    fn drop(&mut self) {
        let status = match self.status {
            // Without a response because its work panicked, and not because its client has gone.
            OperationStatus::Aborted if std::thread::panicking() => OperationStatus::Http(500),
            status => status,
        };
        self.recorder.record(&FinishedOperation {
            kind: self.kind,
            status,
            received_bytes: self.received.get(),
            sent_bytes: self.sent_bytes,
            duration: self.started_at.elapsed(),
        });
    }
}

/// Body that counts what is sent of it.
struct ReportedBody {
    body: ResponseBody,
    report: OperationReport,
}

impl HttpBody for ReportedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            self.report.sent_bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
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
