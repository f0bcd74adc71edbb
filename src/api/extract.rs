//! Extractors of body, form, query and path parameters, each with a readable error.

use axum::Form;
use axum::body::{Bytes, HttpBody};
use axum::extract::rejection::{FormRejection, JsonRejection};
use axum::extract::{FromRequest, FromRequestParts, OptionalFromRequest, Path, Query, Request};
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;

use super::{Error, Result};
use crate::domain::JsonObject;
use crate::http::RequestBodyError;

/// A JSON body.
pub(super) struct JsonBody<T>(pub(super) T);

/// A URL-encoded form body.
pub(super) struct FormBody<T>(pub(super) T);

/// The query parameters.
pub(super) struct QueryParams<T>(pub(super) T);

/// The path parameters; invalid ones are answered with 404.
pub(super) struct PathParam<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        match <axum::Json<JsonObject<T>> as FromRequest<S>>::from_request(request, state).await {
            Ok(axum::Json(JsonObject(value))) => Ok(Self(value)),
            Err(JsonRejection::MissingJsonContentType(_)) => Err(Error::UnsupportedMediaType("application/json")),
            // Well-formed JSON with a wrong value is 422, anything that does not parse is 400.
            Err(JsonRejection::JsonDataError(error)) => {
                Err(Error::InvalidValue(strip_error_prefix(&error.body_text())))
            }
            Err(other) if RequestBodyError::is_too_slow(&other) => Err(Error::TooSlow),
            Err(other) => Err(unreadable_body(other.status(), &other.body_text())),
        }
    }
}

/// A JSON body that may be left out.
impl<T: DeserializeOwned, S: Send + Sync> OptionalFromRequest<S> for JsonBody<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Option<Self>> {
        // A request that announces a media type but has no body is an error, and not one with defaults.
        let empty = request.body().is_end_stream() && !request.headers().contains_key(header::CONTENT_TYPE);
        if empty { Ok(None) } else { <Self as FromRequest<S>>::from_request(request, state).await.map(Some) }
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for FormBody<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        match Form::from_request(request, state).await {
            Ok(Form(value)) => Ok(Self(value)),
            Err(FormRejection::InvalidFormContentType(_)) => {
                Err(Error::UnsupportedMediaType("application/x-www-form-urlencoded"))
            }
            Err(other) if RequestBodyError::is_too_slow(&other) => Err(Error::TooSlow),
            Err(other) => Err(unreadable_body(other.status(), &other.body_text())),
        }
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for QueryParams<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(error) => Err(Error::InvalidValue(strip_error_prefix(&error.body_text()))),
        }
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for PathParam<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            // An invalid id can't exist, so it is answered like an unknown one, in the same words as an unknown path.
            Err(_) => Err(Error::RouteNotFound),
        }
    }
}

fn unreadable_body(status: StatusCode, text: &str) -> Error {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => Error::BodyTooLarge,
        _ => Error::Malformed(strip_error_prefix(text)),
    }
}

/// Strips the prefix and the position from an error message of `serde`.
fn strip_error_prefix(text: &str) -> String {
    // The prefix is that of the library: "Failed to deserialize the JSON body into the target type".
    let reason = text.split_once(": ").map_or(text, |(_, reason)| reason);
    reason.split(" at line ").next().unwrap_or(reason).to_owned()
}

/// Tells whether the `Accept` headers (RFC 9110 section 12.5.1) accept JSON; a request without one accepts everything.
pub(super) fn accepts_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::ACCEPT).iter().peekable();
    if values.peek().is_none() {
        return true;
    }
    let ranges = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    ranges.map(str::trim).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
        let matches = ["*/*", "application/*", "application/json", "application/problem+json"].contains(&&*media_type);
        // A weight of zero excludes a range (RFC 9110 section 12.4.2); other weights don't matter with a single
        // representation.
        let refused = parts.any(|part| {
            let quality = part.strip_prefix("q=").or_else(|| part.strip_prefix("Q="));
            quality.is_some_and(|quality| quality.parse() == Ok(0.0))
        });
        matches && !refused
    })
}

/// Returns a response with a serialized JSON body.
pub(super) fn json_response(text: Bytes) -> Response {
    let mut response = Response::new(text.into());
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_header_with_json_range_is_accepted() {
        let accepts = |accept: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in accept {
                headers.append(header::ACCEPT, value.parse().expect("a value"));
            }
            accepts_json(&headers)
        };
        assert!(accepts(&[]) && accepts(&["*/*"]) && accepts(&["text/html", "Application/JSON;q=0.1"]));
        assert!(accepts(&["text/html, application/*; q=0.5"]));
        assert!(!accepts(&["text/html"]) && !accepts(&["application/json;q=0"]) && !accepts(&[""]));
    }
}
