//! Why a request was refused, and the problem (RFC 9457) that says so.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::auth::Refusal;
use crate::tokens;

/// The result of answering a request.
pub(super) type Result<T> = std::result::Result<T, Error>;

/// A refusal, or a fault of this server.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The caller is not proven.
    #[error(transparent)]
    Denied(#[from] Refusal),
    /// What tokens and users say.
    #[error(transparent)]
    Tokens(#[from] tokens::Error),
    /// An address that nothing has.
    #[error("nothing is at this address")]
    NothingHere,
    /// A method that this address does not take.
    #[error("this address does not take the method")]
    NotAllowed,
    /// Work was lost inside the server.
    #[error("the server has a fault")]
    Lost,
}

/// A problem, as it is sent.
#[derive(Debug, Serialize)]
pub(super) struct Problem {
    #[serde(rename = "type")]
    kind: String,
    title: String,
    status: u16,
    detail: String,
}

impl Error {
    fn status(&self) -> StatusCode {
        match self {
            Self::Denied(Refusal::Denied) => StatusCode::UNAUTHORIZED,
            Self::Denied(Refusal::Throttled(_)) => StatusCode::TOO_MANY_REQUESTS,
            Self::Denied(Refusal::Busy) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Tokens(tokens::Error::UnknownToken(_)) | Self::NothingHere => StatusCode::NOT_FOUND,
            Self::NotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Tokens(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Denied(Refusal::Store(_)) | Self::Lost => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn wait(&self) -> Option<Duration> {
        match self {
            Self::Denied(Refusal::Throttled(wait)) => Some(*wait),
            Self::Denied(Refusal::Busy) => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = self.status();
        let problem = Problem {
            kind: format!("urn:patgate:problem:{}", status.as_u16()),
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            status: status.as_u16(),
            detail: self.to_string(),
        };
        let mut response = (status, axum::Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            let basic = HeaderValue::from_static("Basic realm=\"patgate\", charset=\"UTF-8\"");
            headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"patgate\""));
            headers.append(header::WWW_AUTHENTICATE, basic);
        }
        if let Some(wait) = self.wait() {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}
