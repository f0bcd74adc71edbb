//! Response bodies.

use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};

use crate::auth::Session;

/// Why a body ended before its end; the connection is cut, so that the client notices.
#[derive(Debug, thiserror::Error)]
#[error("the answer was cut: {0}")]
pub struct BodyError(pub String);

/// A response body: empty, whole, or a stream.
pub type ResponseBody = UnsyncBoxBody<Bytes, BodyError>;

/// Returns an empty body.
pub fn empty() -> ResponseBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Returns a body of these bytes.
pub fn full(bytes: impl Into<Bytes>) -> ResponseBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Returns a plain-text answer of one line.
pub fn text_response(status: StatusCode, line: impl Into<String>) -> Response<ResponseBody> {
    let mut line = line.into();
    line.push('\n');
    let mut response = Response::new(full(line));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Returns the present as the value of a `Date` header (RFC 9110 section 6.6.1).
pub fn current_date_header() -> HeaderValue {
    let text = httpdate::fmt_http_date(SystemTime::now());
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Set as an extension of a response whose request proved its caller, so that the connection no
/// longer counts as a stranger's and is reset when the session ends before the answer does; taken out
/// before it is sent.
#[derive(Clone, Debug)]
pub struct AuthenticatedSession(pub Session);
