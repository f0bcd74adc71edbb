//! Parts of responses that several methods share.

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use crate::http::{ResponseBody, empty};

/// Returns a response without a body.
pub(super) fn empty_response(status: StatusCode) -> Response<ResponseBody> {
    let mut response = Response::new(empty());
    *response.status_mut() = status;
    response
}

/// Sets a header to generated text; text that is not a valid header value is omitted.
pub(super) fn set_header(headers: &mut HeaderMap, name: HeaderName, text: String) {
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(name, value);
    }
}
