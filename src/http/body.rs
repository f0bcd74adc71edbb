//! Response bodies.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};

use crate::auth::Session;
use crate::domain::QuotaReservation;

/// Reason why a response body ended early; the connection is closed without its end, so that the client notices.
#[derive(Debug, thiserror::Error)]
#[error("the response was cut short: {0}")]
pub struct BodyError(pub String);

/// Body of a response: empty, whole, or streamed.
pub type ResponseBody = UnsyncBoxBody<Bytes, BodyError>;

/// Returns an empty body.
pub fn empty() -> ResponseBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Returns a body of these bytes.
pub fn full(bytes: impl Into<Bytes>) -> ResponseBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Returns bytes that keep a reservation for as long as anybody holds them: the HTTP library keeps those that it was given
/// until the client has taken them, also when their body is gone.
pub fn bytes_with_reservation(bytes: Bytes, reservation: Option<&Arc<QuotaReservation>>) -> Bytes {
    struct BytesWithReservation {
        bytes: Bytes,
        _reservation: Arc<QuotaReservation>,
    }
    impl AsRef<[u8]> for BytesWithReservation {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    match reservation {
        Some(reservation) => Bytes::from_owner(BytesWithReservation { bytes, _reservation: Arc::clone(reservation) }),
        None => bytes,
    }
}

/// Returns a plain-text response of one line, to which a line feed is added.
pub fn text_response(status: StatusCode, line: impl Into<String>) -> Response<ResponseBody> {
    let mut line = line.into();
    line.push('\n');
    let mut response = Response::new(full(line));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Returns the current time as the value of a `Date` header (RFC 9110 section 6.6.1).
pub fn current_date_header() -> HeaderValue {
    let text = httpdate::fmt_http_date(SystemTime::now());
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Extension of a response to an authenticated request. By it the connection stops counting as unauthenticated and is
/// reset when the session ends before the response does; it is removed before the response is sent.
#[derive(Clone, Debug)]
pub struct AuthenticatedSession(pub Session);

/// Extension of a response: session of the user who made the request, for the record of operations. Unlike
/// [`AuthenticatedSession`] it does not end the response, which may be that to a sign-out.
#[derive(Clone, Debug)]
pub struct RequestingSession(pub Session);
