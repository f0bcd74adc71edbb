//! Parts of responses that several methods share.

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use crate::http::{ResponseBody, empty};

/// Returns an answer without a body.
pub(super) fn empty_response(status: StatusCode) -> Response<ResponseBody> {
    let mut response = Response::new(empty());
    *response.status_mut() = status;
    response
}

/// Sets a header to text that was made here; text that no header can hold is left out.
pub(super) fn set_header(headers: &mut HeaderMap, name: HeaderName, text: String) {
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(name, value);
    }
}
