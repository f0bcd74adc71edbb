//! Parts of responses that several methods share.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use crate::http::{ResponseBody, empty};
use crate::tree::Etag;

/// Returns a response without a body.
pub(super) fn empty_response(status: StatusCode) -> Response<ResponseBody> {
    let mut response = Response::new(empty());
    *response.status_mut() = status;
    response
}

/// Returns an entity tag as the value of a header, in its quotes.
pub(super) fn etag_value(etag: Etag) -> Option<HeaderValue> {
    // Room for two numbers of 16 digits: the text would grow three times.
    let mut text = String::with_capacity(36);
    write!(text, "\"{etag}\"").ok()?;
    HeaderValue::try_from(text).ok()
}

/// Sets a header to generated text; text that is not a valid header value is omitted.
pub(super) fn set_header(headers: &mut HeaderMap, name: HeaderName, text: String) {
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(name, value);
    }
}
