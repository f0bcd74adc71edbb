//! The report of an HTTP request to the record of operations: made once, when the body of its response has ended or was
//! dropped, or when the request was dropped before there was a response.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::http_service::{HttpService, area_of_path};
use crate::auth::Session;
use crate::http::{BodyError, ReceivedBytes, RequestBody, RequestSource, ResponseBody, UnreadBody, user_agent};
use crate::telemetry::{
    FinishedOperation, HttpArea, HttpMethodName, LoginResult, OperationDetails, OperationKind, OperationRecorder,
    OperationStatus, UserOperations, decoded_path,
};

/// A request under way; reported when it is dropped.
pub(super) struct OperationReport {
    recorder: Arc<OperationRecorder>,
    kind: OperationKind,
    status: OperationStatus,
    started_at: Instant,
    received: ReceivedBytes,
    sent_bytes: u64,
    /// Counters of its user; `None` without a session, or without metrics by user.
    user: Option<Arc<UserOperations>>,
    /// What the access log needs besides; `None` where there is none.
    details: Option<Box<RequestDetails>>,
}

/// Details of a request for the access log.
struct RequestDetails {
    operation: OperationDetails,
    /// Whether the client sent a credential, so that 401 refuses it.
    sends_credential: bool,
}

impl OperationReport {
    /// Begins the report of a request whose target is normalized.
    pub(super) fn begin(
        service: &HttpService,
        (peer, is_encrypted): (IpAddr, bool),
        request: &Request<RequestBody>,
        unread_body: &UnreadBody,
    ) -> Self {
        let recorder = &service.recorder;
        let area = area_of_path(request.uri().path());
        Self {
            recorder: Arc::clone(recorder),
            kind: OperationKind::Http(area, HttpMethodName::from_http(request.method().as_str())),
            status: OperationStatus::Aborted,
            started_at: Instant::now(),
            received: unread_body.received_bytes(),
            sent_bytes: 0,
            user: None,
            details: recorder.is_logging().then(|| {
                let source = service.proxies.request_source(peer, is_encrypted, request.headers());
                Box::new(RequestDetails::new(recorder, source, request, area))
            }),
        }
    }

    /// Returns the response with a body that completes the report.
    pub(super) fn follow(
        mut self,
        mut response: Response<ResponseBody>,
        session: Option<&Session>,
    ) -> Response<ResponseBody> {
        self.status = OperationStatus::Http(response.status().as_u16());
        self.user = session.and_then(|session| self.recorder.user_operations(session.login()));
        if let Some(details) = &mut self.details {
            details.complete(response.status(), session);
            if let Ok(id) = HeaderValue::try_from(&details.operation.request_id) {
                response.headers_mut().insert("x-request-id", id);
            }
        }
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
        let operation = FinishedOperation {
            kind: self.kind,
            status,
            received_bytes: self.received.get(),
            sent_bytes: self.sent_bytes,
            duration: self.started_at.elapsed(),
        };
        self.recorder.record(&operation);
        if let Some(user) = &self.user {
            user.count(&operation);
        }
        if let Some(details) = &self.details {
            self.recorder.log(&operation, &details.operation);
        }
    }
}

impl RequestDetails {
    fn new(
        recorder: &OperationRecorder,
        source: RequestSource,
        request: &Request<RequestBody>,
        area: HttpArea,
    ) -> Self {
        let headers = request.headers();
        // Without its query, which may hold a credential (`_token`), and so without that of the destination.
        let target = headers.get("destination").and_then(|target| target.to_str().ok()?.parse::<Uri>().ok());
        let is_sign_in = area == HttpArea::Console && request.method() == Method::POST;
        let operation = OperationDetails {
            started_at: SystemTime::now(),
            // Never that of the request: a client could have its lines taken for those of another.
            request_id: recorder.next_request_id(),
            address: source.address,
            user: None,
            token: None,
            login: None,
            path: Some(decoded_path(request.uri().path())),
            target: target.map(|target| decoded_path(target.path())),
            client: user_agent(headers).map(str::to_owned),
            version: match request.version() {
                Version::HTTP_2 => "HTTP/2.0",
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            },
        };
        Self { operation, sends_credential: is_sign_in || headers.contains_key(header::AUTHORIZATION) }
    }

    /// Adds what the response tells.
    fn complete(&mut self, status: StatusCode, session: Option<&Session>) {
        let is_refusal = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS);
        self.operation.login = match session {
            Some(_) => Some(LoginResult::Accepted),
            None if is_refusal && self.sends_credential => Some(LoginResult::Refused),
            None => None,
        };
        self.operation.user = session.map(|session| session.login().clone());
        self.operation.token = session.map(Session::token);
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
