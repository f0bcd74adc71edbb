//! Errors of the REST API, and the problem details (RFC 9457) that report them.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::{AuthError, SessionEnded, TooMuchWork};
use crate::domain::{Login, PolicyViolation, Role, redact_tokens_in_text, schema};
use crate::http::{add_challenges, set_retry_after};
use crate::store::{ClientStoreError, StoreError};
use crate::{tokens, tree};

/// The result of a handler.
pub(super) type Result<T> = std::result::Result<T, Error>;

/// Prefix of the `type` of every problem.
const PROBLEM_TYPE_PREFIX: &str = "urn:patgate:problem:";

/// The reason why a request failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The caller is not authenticated.
    #[error(transparent)]
    Authentication(#[from] AuthError),
    /// The caller is throttled, which the verify call reports as 401: web servers that delegate authentication treat no
    /// other status but 401 and 403 as a refusal.
    #[error("too many failed attempts: try again in {} s", .0.as_secs().max(1))]
    VerifyThrottled(Duration),
    /// The management of tokens and users refused the request.
    #[error(transparent)]
    Tokens(#[from] tokens::Error),
    /// The tree refused the request.
    #[error(transparent)]
    Tree(#[from] tree::Error),
    /// The caller's queue of work is full.
    #[error(transparent)]
    TooMuchWork(#[from] TooMuchWork),
    /// The caller is authenticated, but not authorized.
    #[error("{0}")]
    Forbidden(String),
    /// A state-changing request that a page of another origin sent.
    #[error("{0}")]
    CrossOrigin(String),
    /// No route has this path.
    #[error("no resource has this path")]
    RouteNotFound,
    /// The path does not support the method.
    #[error("this path does not support the method")]
    MethodNotAllowed,
    /// The `Accept` header excludes JSON.
    #[error("the answer is application/json, which the request does not accept")]
    NotAcceptable,
    /// The query or body can't be parsed.
    #[error("{0}")]
    Malformed(String),
    /// A value of the query or body is invalid.
    #[error("{0}")]
    InvalidValue(String),
    /// The body exceeds the maximum size.
    #[error("the body is larger than 64 KiB")]
    BodyTooLarge,
    /// The body arrived too slowly.
    #[error("the body came too slowly")]
    TooSlow,
    /// The body has another media type.
    #[error("the body must be {0}")]
    UnsupportedMediaType(&'static str),
    /// The version in `If-Match` is outdated.
    #[error("the version in If-Match is outdated: look the token up again")]
    PreconditionFailed,
    /// A task of the server panicked, or an invariant was broken.
    #[error("internal server error")]
    Internal,
}

impl From<SessionEnded> for Error {
    fn from(_: SessionEnded) -> Self {
        Self::Authentication(AuthError::Denied)
    }
}

/// Problem details of a failed request (RFC 9457).
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemDetails {
    /// Stable identifier of the kind of problem.
    #[serde(rename = "type")]
    #[schema(pattern = "^urn:patgate:problem:[a-z-]+$", example = "urn:patgate:problem:unknown-token")]
    pub kind: String,
    /// Short summary of the kind of problem.
    #[schema(example = "Not Found")]
    pub title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// Explanation of this occurrence, for people.
    #[schema(example = "there is no token JhxND7ci")]
    pub detail: String,
    /// The user that the problem concerns, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Login>)]
    pub user: Option<Login>,
    /// The role that the caller lacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Role>)]
    pub role: Option<Role>,
    /// Access that would be allowed instead, each a permission and a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reach: Option<Vec<String>>,
    /// The largest value that would be allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most: Option<String>,
}

impl ProblemDetails {
    fn new((status, name): (StatusCode, &str), detail: String) -> Self {
        Self {
            kind: format!("{PROBLEM_TYPE_PREFIX}{name}"),
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            status: status.as_u16(),
            // A client may have put a token into a wrong field, and messages quote invalid values.
            detail: redact_tokens_in_text(&detail).into_owned(),
            user: None,
            role: None,
            reach: None,
            most: None,
        }
    }

    /// Adds user, role and allowed values of a refusal.
    fn with_context(self, error: &tokens::Error) -> Self {
        use tokens::Error;
        match error {
            Error::UnknownUser(login) | Error::UserExists(login) | Error::UserDisabled(login) => {
                Self { user: Some(login.clone()), ..self }
            }
            Error::GrantNotFound { login, .. } => Self { user: Some(login.clone()), ..self },
            Error::RoleNotHeld { role, login } => Self { user: Some(login.clone()), role: Some(*role), ..self },
            Error::Forbidden(role) => Self { role: Some(*role), ..self },
            Error::OutsideAccess { login, reach, .. } => {
                Self { user: Some(login.clone()), reach: Some(reach.clone()), ..self }
            }
            Error::OutlivesParent { longest, .. } => Self { most: longest.map(|longest| longest.to_string()), ..self },
            Error::Policy(PolicyViolation::LifetimeTooLong { max, .. }) => Self { most: Some(max.to_string()), ..self },
            _ => self,
        }
    }

    /// Returns the type without its prefix.
    pub fn type_name(&self) -> &str {
        self.kind.strip_prefix(PROBLEM_TYPE_PREFIX).unwrap_or(&self.kind)
    }
}

impl From<&tokens::Error> for ProblemDetails {
    fn from(error: &tokens::Error) -> Self {
        Self::new(classify_token_error(error), error.to_string()).with_context(error)
    }
}

impl Error {
    /// Returns the status and the type of the problem.
    fn status_and_type(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Authentication(AuthError::Denied) => (StatusCode::UNAUTHORIZED, "denied"),
            Self::Authentication(AuthError::Throttled(_)) => (StatusCode::TOO_MANY_REQUESTS, "throttled"),
            Self::Authentication(AuthError::Busy) | Self::TooMuchWork(_) => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            Self::Authentication(AuthError::TooManyConnections) => {
                (StatusCode::SERVICE_UNAVAILABLE, "too-many-connections")
            }
            // The type is that of a 429, so that clients can still tell why.
            Self::VerifyThrottled(_) => (StatusCode::UNAUTHORIZED, "throttled"),
            Self::Tokens(error) => classify_token_error(error),
            Self::Tree(error) => classify_tree_error(error),
            Self::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden"),
            Self::CrossOrigin(_) => (StatusCode::FORBIDDEN, "cross-origin"),
            Self::RouteNotFound => (StatusCode::NOT_FOUND, "nothing-here"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed"),
            Self::NotAcceptable => (StatusCode::NOT_ACCEPTABLE, "not-acceptable"),
            Self::Malformed(_) => (StatusCode::BAD_REQUEST, "malformed"),
            Self::InvalidValue(_) => (StatusCode::UNPROCESSABLE_ENTITY, "unfit"),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, "too-slow"),
            Self::UnsupportedMediaType(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-type"),
            Self::PreconditionFailed => (StatusCode::PRECONDITION_FAILED, "changed"),
            Self::Authentication(AuthError::Store(error)) => classify_store_error(error),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "fault"),
        }
    }

    /// Returns the message for the caller. Details of the host and the store are for the log only.
    fn public_detail(&self, status: StatusCode) -> String {
        // Host paths and SQL in the message are for the log only.
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = %self, "a REST request failed");
            return Self::Internal.to_string();
        }
        if let Some(shortage) = self.store_shortage() {
            tracing::warn!(error = %self, "a REST request was refused");
            return shortage.message().to_owned();
        }
        self.to_string()
    }

    /// Returns the shortage of the store that caused the error, if any.
    fn store_shortage(&self) -> Option<ClientStoreError> {
        match self {
            Self::Authentication(AuthError::Store(error))
            | Self::Tokens(tokens::Error::Store(error) | tokens::Error::Tree(tree::Error::Store(error)))
            | Self::Tree(tree::Error::Store(error)) => error.client_error(),
            _ => None,
        }
    }

    fn retry_delay(&self) -> Option<Duration> {
        match self {
            Self::Authentication(AuthError::Throttled(delay)) | Self::VerifyThrottled(delay) => Some(*delay),
            Self::Authentication(AuthError::Busy | AuthError::TooManyConnections)
            | Self::TooMuchWork(_)
            | Self::Tokens(tokens::Error::Busy) => Some(Duration::from_secs(1)),
            Self::Tree(error) | Self::Tokens(tokens::Error::Tree(error)) if error.is_outage() => {
                Some(tree::OUTAGE_RETRY_AFTER)
            }
            Self::Tree(tree::Error::TooManyOpenFiles)
            | Self::Tokens(tokens::Error::Tree(tree::Error::TooManyOpenFiles)) => Some(Duration::from_secs(1)),
            _ => self
                .store_shortage()
                .filter(|shortage| *shortage == ClientStoreError::Busy)
                .map(|_| Duration::from_secs(1)),
        }
    }
}

fn classify_token_error(error: &tokens::Error) -> (StatusCode, &'static str) {
    use tokens::Error;
    match error {
        Error::SessionEnded => (StatusCode::UNAUTHORIZED, "denied"),
        Error::Forbidden(_) => (StatusCode::FORBIDDEN, "role-missing"),
        Error::ExceedsParent(_) | Error::ExceedsCaller(_) | Error::RestrictedToken => (StatusCode::FORBIDDEN, "wider"),
        Error::UnknownUser(_) => (StatusCode::NOT_FOUND, "unknown-user"),
        Error::UnknownToken(_) => (StatusCode::NOT_FOUND, "unknown-token"),
        Error::GrantNotFound { .. } => (StatusCode::NOT_FOUND, "no-grant"),
        Error::UnknownBan(_) => (StatusCode::NOT_FOUND, "unknown-ban"),
        Error::InvalidBan(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid-ban"),
        Error::UserExists(_) => (StatusCode::CONFLICT, "user-exists"),
        Error::UserDisabled(_) => (StatusCode::CONFLICT, "user-disabled"),
        Error::TokenInactive(..) => (StatusCode::CONFLICT, "dead-token"),
        Error::ChainTooLong(_) => (StatusCode::CONFLICT, "long-chain"),
        Error::SshKeyInUse(_) => (StatusCode::CONFLICT, "ssh-key-in-use"),
        Error::SshKeyMissing(_) => (StatusCode::CONFLICT, "ssh-key-missing"),
        Error::HomeNotDirectory(_) => (StatusCode::CONFLICT, "no-home"),
        Error::Policy(PolicyViolation::TooManyTokens(_)) => (StatusCode::CONFLICT, "too-many-tokens"),
        Error::VersionConflict(_) => (StatusCode::PRECONDITION_FAILED, "changed"),
        Error::Policy(PolicyViolation::LifetimeTooLong { .. }) => (StatusCode::UNPROCESSABLE_ENTITY, "too-long"),
        Error::OutlivesParent { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "outlives"),
        Error::Policy(PolicyViolation::NoExpirationNotAllowed) => (StatusCode::UNPROCESSABLE_ENTITY, "never"),
        Error::GraceTooLong(_) => (StatusCode::UNPROCESSABLE_ENTITY, "grace"),
        Error::UnknownNode(_) => (StatusCode::UNPROCESSABLE_ENTITY, "unknown-node"),
        Error::PathNotFound(_) => (StatusCode::UNPROCESSABLE_ENTITY, "no-path"),
        Error::UnsupportedNodeType(_) => (StatusCode::UNPROCESSABLE_ENTITY, "unnameable"),
        Error::OutsideAccess { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "outside-reach"),
        Error::RoleNotHeld { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "role-not-held"),
        Error::WidensToken(_) | Error::ExtendsLifetime(..) => (StatusCode::UNPROCESSABLE_ENTITY, "widens"),
        Error::WindowWithoutExpiration => (StatusCode::UNPROCESSABLE_ENTITY, "never-slides"),
        Error::OwnerMissing
        | Error::LifetimeAndExpiration
        | Error::ExpiresInPast(_)
        | Error::EmptyScopes
        | Error::Label(_)
        | Error::InvalidSetting(_) => (StatusCode::UNPROCESSABLE_ENTITY, "unfit"),
        Error::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
        Error::Store(error) => classify_store_error(error),
        Error::Tree(error @ (tree::Error::Unavailable(_) | tree::Error::TreeMismatch)) => classify_tree_error(error),
        Error::Tree(error) => classify_nested_tree_error(error),
        Error::NoServedRoot | Error::TaskPanicked => (StatusCode::INTERNAL_SERVER_ERROR, "fault"),
    }
}

fn classify_store_error(error: &StoreError) -> (StatusCode, &'static str) {
    match error.client_error() {
        Some(ClientStoreError::InsufficientStorage(_)) => (StatusCode::INSUFFICIENT_STORAGE, "no-space"),
        Some(ClientStoreError::Busy) => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
        None => (StatusCode::INTERNAL_SERVER_ERROR, "fault"),
    }
}

/// Classifies an error of the tree within an operation on tokens or users: only a shortage of the store is the caller's
/// concern, anything else is an internal error.
fn classify_nested_tree_error(error: &tree::Error) -> (StatusCode, &'static str) {
    match error {
        tree::Error::Store(error) => classify_store_error(error),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "fault"),
    }
}

fn classify_tree_error(error: &tree::Error) -> (StatusCode, &'static str) {
    match error {
        tree::Error::Forbidden | tree::Error::RefusedByHost(_) => (StatusCode::FORBIDDEN, "forbidden"),
        tree::Error::SessionEnded(_) => (StatusCode::UNAUTHORIZED, "denied"),
        tree::Error::Unavailable(_) | tree::Error::TreeMismatch => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        tree::Error::Store(error) => classify_store_error(error),
        tree::Error::Filesystem(_) => (StatusCode::INTERNAL_SERVER_ERROR, "fault"),
        tree::Error::TooManyOpenFiles => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
        // Whatever else keeps a node from being seen must look like a missing node: hidden can't be told from absent.
        _ => (StatusCode::NOT_FOUND, "unknown-node"),
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, name) = self.status_and_type();
        let problem = ProblemDetails::new((status, name), self.public_detail(status));
        let problem = if let Self::Tokens(error) = &self { problem.with_context(error) } else { problem };
        let mut response = (status, axum::Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        // RFC 9110 section 15.5.2 requires a challenge with every 401.
        if status == StatusCode::UNAUTHORIZED {
            add_challenges(headers);
        }
        if let Some(delay) = self.retry_delay() {
            set_retry_after(headers, delay);
        }
        response
    }
}
