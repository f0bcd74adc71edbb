//! Errors of WebDAV requests, and their mapping to a status and body, which is the last step of a request.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use http::{HeaderValue, Response, StatusCode, header};

use super::client_root::ClientRoot;
use super::method::DavMethod;
use super::response::set_header;
use super::xml;
use crate::auth::{AuthError, TooMuchWork};
use crate::domain::{PathError, TreePath};
use crate::http::{
    BlockProducer, BodyStart, RequestBodyError, ResponseBody, add_challenges, full, queued_body, set_retry_after,
    text_response,
};
use crate::store::{ClientStoreError, StoreError};
use crate::tree::{self, View};

/// Result of handling a method.
pub(super) type Result<T> = std::result::Result<T, Error>;

/// A refusal of a WebDAV request.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Error of the tree.
    #[error(transparent)]
    Tree(#[from] tree::Error),
    /// The request is not authenticated, or the session is over a limit.
    #[error(transparent)]
    AuthenticationFailed(#[from] AuthError),
    /// Syntax error in the request; the message is sent to the client.
    #[error("{0}")]
    Malformed(&'static str),
    /// The path is in no part of the tree that WebDAV serves.
    #[error("no such file or directory")]
    NotFound,
    /// A path that no entry can have, because of its last component or an earlier one.
    #[error("the name can't be used: {error}")]
    InvalidName {
        /// Whether only the last component is at fault.
        last: bool,
        /// Rule that the component violates.
        error: PathError,
    },
    /// Error that concerns the destination of COPY or MOVE, not the source.
    #[error("the destination can't be used: {0}")]
    InvalidDestination(#[source] Box<Error>),
    /// `Destination` is on another server or has another URL prefix than the request.
    #[error("the destination is on another server or outside of this directory")]
    ForeignDestination,
    /// Attempt to delete, move or overwrite the root of the client.
    #[error("the root can't be deleted, moved or overwritten")]
    RootProtected,
    /// PROPFIND of infinite depth with more entries than the limit.
    #[error(
        "the directory tree has too many entries for Depth: infinity: list it with Depth: 1, directory by directory"
    )]
    InfiniteDepth,
    /// XML body with a document type declaration, which could define entities.
    #[error("the body has a document type declaration, which is not allowed: remove it")]
    DoctypeForbidden,
    /// Report that is unknown, or not supported for this kind of entry.
    #[error("the report is not supported for this resource")]
    UnsupportedReport,
    /// Sync token that is unknown or has expired.
    #[error("the sync token is unknown or has expired: synchronize again without a token")]
    InvalidSyncToken,
    /// Directory with more members than can be synchronized (RFC 6578 section 3.2,
    /// DAV:number-of-matches-within-limits).
    #[error("the directory has too many members to be synchronized")]
    TooManyMembers,
    /// The queue of CPU-bound requests is full.
    #[error("too many requests of this kind are in progress: try again soon")]
    Busy,
    /// Lock token that matches no lock on this resource.
    #[error("the lock token matches no lock on this resource")]
    NoSuchLock,
    /// XML body, or a value in it, that is too large.
    #[error("the body is too large")]
    BodyTooLarge,
    /// Media type of the body that the method does not accept.
    #[error("{0}")]
    UnsupportedMediaType(&'static str),
    /// Body with a content coding: none is supported.
    #[error("a body in a content coding is not supported: send it without Content-Encoding")]
    UnsupportedContentCoding,
    /// Body whose checksum differs from the announced one.
    #[error("the content does not match the announced checksum: send it again")]
    ChecksumMismatch,
    /// Range that starts after the end of a file of so many bytes.
    #[error("the range starts after the end of the file")]
    RangeNotSatisfiable(u64),
    /// Append to an upload at another offset than its current one.
    #[error("the upload continues at another offset")]
    OffsetMismatch {
        /// Current offset of the upload.
        expected: u64,
        /// Offset in the request.
        provided: u64,
    },
    /// Upload whose length differs from the announced one.
    #[error("the upload does not have the announced length")]
    LengthMismatch,
    /// Upload that another request is still writing to.
    #[error("another request is writing to this upload: try again soon")]
    UploadInUse,
    /// The token or its user has reached the maximum number of unfinished uploads or of their parts.
    #[error("too many unfinished uploads: finish or cancel one")]
    TooManyUploads,
    /// The unfinished uploads of the user, or of all users, have reached the maximum of space.
    #[error("the space for unfinished uploads is used up: finish or cancel one, or try again later")]
    UploadSpaceExhausted,
    /// Body that ended early: the client closed the connection, or sent less than it announced.
    #[error("the body was cut short")]
    Truncated,
    /// Body below the minimum transfer rate.
    #[error("the body arrived too slowly")]
    TooSlow,
    /// Known method that this resource does not support; holds the supported ones.
    #[error("the method is not allowed for this resource")]
    MethodNotAllowed(&'static str),
    /// Unknown method.
    #[error("the method is unknown")]
    UnknownMethod,
    /// Task that panicked inside the server.
    #[error("internal server error")]
    TaskPanicked,
}

impl From<RequestBodyError> for Error {
    fn from(error: RequestBodyError) -> Self {
        match error {
            RequestBodyError::TooSlow => Self::TooSlow,
            RequestBodyError::Http1(_) | RequestBodyError::Http2(_) => Self::Truncated,
        }
    }
}

/// Runs blocking work on a thread where blocking is allowed.
///
/// # Errors
/// The error of the work; [`Error::TaskPanicked`] when it panicked.
pub(super) async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Error::TaskPanicked))
}

/// Runs work that keeps a processor busy for long, under a work permit of its user. When the request's future is
/// dropped, because its connection was closed, the work is cancelled; a change that already took effect is completed.
///
/// # Errors
/// As [`run_blocking`]; [`Error::Busy`] when the queue for permits is full.
pub(super) async fn run_cpu_bound<T: Send + 'static>(
    view: &View,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    // Waits on the runtime: a queued request holds no thread.
    let permit = view.session().acquire_heavy_permit().await.map_err(|TooMuchWork| Error::Busy)?;
    // Only now: a request that is dropped in the queue has started no work.
    let cancel_guard = view.cancellation().cancel_on_drop();
    let result = run_blocking(move || {
        // Held until the work ends, even if the request was dropped: the thread is busy until then.
        let _permit = permit;
        work()
    });
    let result = result.await;
    // A streamed response goes on using this view: an armed guard would cancel it here.
    cancel_guard.disarm();
    result
}

/// Produces a body as [`run_cpu_bound`] runs work: `start` produces the first block, and the same thread goes on with the
/// next ones. What was `begun` without a permit is handed to it if there is a permit at once; a request that waits for
/// one holds nothing.
///
/// # Errors
/// As [`run_cpu_bound`].
pub(super) async fn run_streamed<B: Send + 'static, S: BlockProducer>(
    view: &View,
    begun: Option<B>,
    start: impl FnOnce(Option<B>) -> Result<BodyStart<S>> + Send + 'static,
) -> Result<ResponseBody> {
    let mut permit = pin!(view.session().acquire_heavy_permit());
    let (permit, begun) = match poll_fn(|cx| Poll::Ready(permit.as_mut().poll(cx))).await {
        Poll::Ready(permit) => (permit, begun),
        Poll::Pending => {
            drop(begun);
            (permit.await, None)
        }
    };
    let permit = permit.map_err(|TooMuchWork| Error::Busy)?;
    let cancel_guard = view.cancellation().cancel_on_drop();
    let body = queued_body(view.session(), permit, move || start(begun)).await;
    cancel_guard.disarm();
    body.unwrap_or(Err(Error::TaskPanicked))
}

/// Request that an error is the response to.
#[derive(Clone, Copy, Debug)]
pub(super) struct DavErrorContext<'a> {
    /// Method, where it is known.
    pub(super) method: Option<DavMethod>,
    /// Root of the client and path of the request, once they are known.
    pub(super) target: Option<(&'a ClientRoot, &'a TreePath)>,
    /// Whether the path that the error names is a directory.
    pub(super) names_directory: bool,
}

impl DavErrorContext<'_> {
    /// Returns the context of a request that was refused before its target was resolved.
    pub(super) fn without_target(method: Option<DavMethod>) -> Self {
        Self { method, target: None, names_directory: false }
    }
}

impl Error {
    /// Returns the error for an XML body that could not be parsed: its document type, or `what`.
    pub(super) fn from_unreadable_xml(body: &[u8], what: &'static str) -> Self {
        if xml::has_doctype(body) { Self::DoctypeForbidden } else { Self::Malformed(what) }
    }

    /// Turns "not supported" into an error that names the time as the reason; leaves other errors unchanged.
    pub(super) fn from_time_error(error: impl Into<Self>) -> Self {
        match error.into() {
            Self::Tree(tree::Error::Unsupported) => Self::Malformed("the file system can't keep that time"),
            other => other,
        }
    }

    /// Attributes an error that concerns a path to the destination; leaves other errors unchanged.
    pub(super) fn into_destination_error(self) -> Self {
        match self {
            Self::Tree(
                tree::Error::Absent
                | tree::Error::NoParent
                | tree::Error::NotADirectory
                | tree::Error::IsADirectory
                | tree::Error::InvalidName
                | tree::Error::Forbidden
                | tree::Error::RefusedByHost(_),
            )
            | Self::InvalidName { .. }
            | Self::Malformed(_) => Self::InvalidDestination(Box::new(self)),
            other => other,
        }
    }

    /// Turns an error into a response. Details from the host or the store go to the log only.
    pub(super) fn into_response(self, context: DavErrorContext<'_>) -> Response<ResponseBody> {
        let status = self.status(context.method);
        if let Some(refusal) = self.host_refusal() {
            let operation = context.method.map_or_else(String::new, |method| format!("{method:?}").to_uppercase());
            tree::log_host_refusal(operation, context.target.map(|(_, path)| path), refusal);
        }
        // An XML condition says more to a client than a line of text, so it comes first.
        let mut response = match (self.condition_element(context), self.problem_response()) {
            (Some(element), _) => dav_error_response(status, &element),
            (None, Some(problem)) => problem,
            (None, None) => text_response(status, self.client_message(status)),
        };
        let headers = response.headers_mut();
        if let Self::RangeNotSatisfiable(size) = self {
            // The current length, from which the client can correct its range (RFC 9110 section 15.5.17).
            set_header(headers, header::CONTENT_RANGE, format!("bytes */{size}"));
        }
        if matches!(self, Self::UnsupportedContentCoding) {
            // RFC 9110 section 15.5.16.
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        if status == StatusCode::UNAUTHORIZED {
            add_challenges(headers);
        }
        if let Some(wait) = self.retry_delay() {
            set_retry_after(headers, wait);
        }
        if let Self::MethodNotAllowed(allowed_methods) = self {
            headers.insert(header::ALLOW, HeaderValue::from_static(allowed_methods));
        } else if status == StatusCode::METHOD_NOT_ALLOWED || status == StatusCode::NOT_IMPLEMENTED {
            // Without the refused method itself, which the resource doesn't support at present (RFC 9110 section
            // 15.5.6).
            set_header(headers, header::ALLOW, DavMethod::tree_methods_except(context.method));
        }
        response
    }

    fn status(&self, method: Option<DavMethod>) -> StatusCode {
        let creates = method.is_some_and(DavMethod::may_create);
        match self {
            Self::Tree(error) => tree_status(error, method),
            Self::AuthenticationFailed(AuthError::Denied) => StatusCode::UNAUTHORIZED,
            Self::AuthenticationFailed(AuthError::Throttled(_)) => StatusCode::TOO_MANY_REQUESTS,
            Self::AuthenticationFailed(AuthError::Busy | AuthError::TooManyConnections) | Self::Busy => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Malformed(_) | Self::ChecksumMismatch | Self::Truncated => StatusCode::BAD_REQUEST,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            // A method that creates: 403 for the name itself, 409 for a parent that can't exist. For others the entry
            // is missing.
            Self::InvalidName { last: true, .. } if creates => StatusCode::FORBIDDEN,
            Self::InvalidName { last: false, .. } if creates => StatusCode::CONFLICT,
            // Not found at a destination means that its parent is missing: 409 (RFC 4918 sections 9.8.5 and 9.9.4).
            Self::InvalidDestination(error) => match error.status(Some(DavMethod::Put)) {
                StatusCode::NOT_FOUND => StatusCode::CONFLICT,
                status => status,
            },
            Self::NotFound | Self::InvalidName { .. } => StatusCode::NOT_FOUND,
            Self::ForeignDestination => StatusCode::BAD_GATEWAY,
            Self::RootProtected
            | Self::InfiniteDepth
            | Self::DoctypeForbidden
            | Self::UnsupportedReport
            | Self::InvalidSyncToken => StatusCode::FORBIDDEN,
            // UNLOCK: 409 (RFC 4918 section 9.11.1). A refresh: 412 (section 9.10.6).
            Self::NoSuchLock if method == Some(DavMethod::Unlock) => StatusCode::CONFLICT,
            Self::NoSuchLock => StatusCode::PRECONDITION_FAILED,
            Self::RangeNotSatisfiable(_) => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::OffsetMismatch { .. } | Self::UploadInUse => StatusCode::CONFLICT,
            Self::LengthMismatch => StatusCode::BAD_REQUEST,
            Self::TooManyUploads | Self::UploadSpaceExhausted | Self::TooManyMembers => {
                StatusCode::INSUFFICIENT_STORAGE
            }
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType(_) | Self::UnsupportedContentCoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnknownMethod => StatusCode::NOT_IMPLEMENTED,
            Self::AuthenticationFailed(AuthError::Store(error)) => store_status(error),
            Self::TaskPanicked => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Returns the line of text sent to the client. An absent entry always gets the same text, however its absence was
    /// detected, so that hidden and missing entries can't be told apart.
    fn client_message(&self, status: StatusCode) -> String {
        if let Self::InvalidDestination(error) = self {
            let message = match error.as_ref() {
                Self::InvalidName { error, last: true } => error.to_string(),
                error => error.client_message(status),
            };
            return format!("the destination can't be used: {message}");
        }
        // The client gets a fixed text: details may concern other users, and go to the log.
        if let Some(shortage) = self.shortage() {
            tracing::warn!(error = %self, "a WebDAV request was refused");
            return shortage.message().to_owned();
        }
        // Before all other texts: hidden and missing entries must get the same one.
        if status == StatusCode::NOT_FOUND {
            return Self::NotFound.to_string();
        }
        // 409 mostly means a missing parent, and gets that text however it was detected; these have another cause.
        let has_own_message =
            matches!(self, Self::UploadInUse | Self::Tree(tree::Error::UploadInProgress | tree::Error::Replaced));
        if status == StatusCode::CONFLICT && !has_own_message {
            return tree::Error::NoParent.to_string();
        }
        // Errors of the host may contain its paths: they go to the log only.
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = %self, "a WebDAV request failed");
            return Self::TaskPanicked.to_string();
        }
        self.to_string()
    }

    /// Returns the precondition or postcondition element (RFC 4918 section 16) of the error, if it has one.
    fn condition_element(&self, context: DavErrorContext<'_>) -> Option<String> {
        match self {
            Self::Tree(tree::Error::Locked { root, .. }) => {
                // LOCK conflicts with another lock; any other method lacks a token (RFC 4918 section 16).
                let name = if context.method == Some(DavMethod::Lock) {
                    "no-conflicting-lock"
                } else {
                    "lock-token-submitted"
                };
                let (client_root, path) = context.target?;
                // A lock root above the path of the request is a directory, without a lookup.
                let is_directory = context.names_directory || (root != path && path.starts_with(root));
                Some(format!("<D:{name}><D:href>{}</D:href></D:{name}>", client_root.href(root, is_directory)))
            }
            // A condition of RFC 4331, for any method that needs space.
            Self::Tree(tree::Error::NoSpace) => Some("<D:sufficient-disk-space/>".to_owned()),
            // RFC 4331 section 6
            Self::Tree(error @ tree::Error::StorageQuotaExceeded { .. }) => {
                Some(format!("<D:quota-not-exceeded/><D:responsedescription>{error}</D:responsedescription>"))
            }
            Self::Tree(tree::Error::AlreadyExists) if context.method == Some(DavMethod::Mkcol) => {
                Some("<D:resource-must-be-null/>".to_owned())
            }
            Self::NoSuchLock => Some("<D:lock-token-matches-request-uri/>".to_owned()),
            Self::InfiniteDepth => Some("<D:propfind-finite-depth/>".to_owned()),
            Self::UnsupportedReport => Some("<D:supported-report/>".to_owned()),
            Self::InvalidSyncToken => Some("<D:valid-sync-token/>".to_owned()),
            Self::TooManyMembers => Some("<D:number-of-matches-within-limits/>".to_owned()),
            Self::DoctypeForbidden => Some("<D:no-external-entities/>".to_owned()),
            _ => None,
        }
    }

    /// Returns the response of those errors of an unfinished upload that have a problem type
    /// (draft-ietf-httpbis-resumable-upload section 7).
    fn problem_response(&self) -> Option<Response<ResponseBody>> {
        let base = "https://iana.org/assignments/http-problem-types#";
        let (status, body) = match self {
            Self::OffsetMismatch { expected, provided } => (
                StatusCode::CONFLICT,
                format!(
                    "{{\"type\":\"{base}mismatching-upload-offset\",\"title\":\"{self}\",\
                     \"expected-offset\":{expected},\"provided-offset\":{provided}}}\n"
                ),
            ),
            Self::LengthMismatch => (
                StatusCode::BAD_REQUEST,
                format!("{{\"type\":\"{base}inconsistent-upload-length\",\"title\":\"{self}\"}}\n"),
            ),
            _ => return None,
        };
        let mut response = Response::new(full(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Self::OffsetMismatch { expected, .. } = self {
            headers.insert("upload-complete", HeaderValue::from_static("?0"));
            headers.insert("upload-offset", HeaderValue::from(*expected));
        }
        Some(response)
    }

    /// Returns the shortage of the store that caused the error, if one did.
    pub(super) fn shortage(&self) -> Option<ClientStoreError> {
        match self {
            Self::Tree(tree::Error::Store(error)) | Self::AuthenticationFailed(AuthError::Store(error)) => {
                error.client_error()
            }
            _ => None,
        }
    }

    /// Returns the error of the host that refused the operation to the server's user, if one did.
    fn host_refusal(&self) -> Option<&std::io::Error> {
        match self {
            Self::Tree(tree::Error::RefusedByHost(error)) => Some(error),
            Self::InvalidDestination(error) => error.host_refusal(),
            _ => None,
        }
    }

    fn retry_delay(&self) -> Option<Duration> {
        match self {
            Self::AuthenticationFailed(AuthError::Throttled(wait)) => Some(*wait),
            // One second: these end soon by themselves. An outage of the served file system lasts longer.
            Self::AuthenticationFailed(AuthError::Busy | AuthError::TooManyConnections)
            | Self::Busy
            | Self::UploadInUse => Some(Duration::from_secs(1)),
            Self::Tree(tree::Error::TooManyOpenFiles) => Some(Duration::from_secs(1)),
            Self::Tree(tree::Error::Unavailable(_) | tree::Error::TreeMismatch) => Some(tree::OUTAGE_RETRY_AFTER),
            _ => self.shortage().filter(|shortage| *shortage == ClientStoreError::Busy).map(|_| Duration::from_secs(1)),
        }
    }
}

fn tree_status(error: &tree::Error, method: Option<DavMethod>) -> StatusCode {
    let creates = method.is_some_and(DavMethod::may_create);
    match error {
        // Hidden entries are `Absent` as well: no status may depend on why an entry can't be seen.
        tree::Error::Absent => StatusCode::NOT_FOUND,
        tree::Error::NoParent => StatusCode::CONFLICT,
        tree::Error::Forbidden
        | tree::Error::RefusedByHost(_)
        | tree::Error::Overlap
        | tree::Error::TagNotAllowed(_) => StatusCode::FORBIDDEN,
        // Not 414: the URI may be short; it is a descendant whose path would become too long.
        tree::Error::PathTooLong => StatusCode::FORBIDDEN,
        // MKCOL has a status of its own (RFC 4918 section 9.3.1); elsewhere it is `Overwrite: F` or `If-None-Match: *`.
        tree::Error::AlreadyExists if method == Some(DavMethod::Mkcol) => StatusCode::METHOD_NOT_ALLOWED,
        tree::Error::AlreadyExists | tree::Error::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        tree::Error::NotADirectory if creates => StatusCode::CONFLICT,
        tree::Error::NotADirectory => StatusCode::NOT_FOUND,
        tree::Error::IsADirectory => StatusCode::METHOD_NOT_ALLOWED,
        tree::Error::DirectoryNotEmpty => StatusCode::CONFLICT,
        tree::Error::Locked { .. } => StatusCode::LOCKED,
        tree::Error::WriteFailed => StatusCode::BAD_REQUEST,
        tree::Error::UploadInProgress | tree::Error::Replaced | tree::Error::Superseded => StatusCode::CONFLICT,
        tree::Error::WrongOpenMode => StatusCode::FORBIDDEN,
        tree::Error::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        tree::Error::TypeNotAllowed(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        tree::Error::NoSpace | tree::Error::StorageQuotaExceeded { .. } => StatusCode::INSUFFICIENT_STORAGE,
        tree::Error::TooManyOpenFiles => StatusCode::SERVICE_UNAVAILABLE,
        tree::Error::InvalidName if creates || matches!(method, Some(DavMethod::Copy | DavMethod::Move)) => {
            StatusCode::FORBIDDEN
        }
        tree::Error::InvalidName => StatusCode::NOT_FOUND,
        tree::Error::Unsupported => StatusCode::NOT_IMPLEMENTED,
        // Revoked or expired during the request: another credential would help.
        tree::Error::SessionEnded(_) => StatusCode::UNAUTHORIZED,
        tree::Error::Unavailable(_) | tree::Error::TreeMismatch => StatusCode::SERVICE_UNAVAILABLE,
        tree::Error::Store(error) => store_status(error),
        tree::Error::Filesystem(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn store_status(error: &StoreError) -> StatusCode {
    match error.client_error() {
        Some(ClientStoreError::InsufficientStorage(_)) => StatusCode::INSUFFICIENT_STORAGE,
        Some(ClientStoreError::Busy) => StatusCode::SERVICE_UNAVAILABLE,
        None => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Returns a response whose body is an error element (RFC 4918 section 14.5).
fn dav_error_response(status: StatusCode, element: &str) -> Response<ResponseBody> {
    let body = format!("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:error xmlns:D=\"DAV:\">{element}</D:error>\n");
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/xml; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::super::client_root::UrlPrefix;
    use super::*;
    use crate::http::PublicAddress;
    use http_body_util::BodyExt;

    const GET_CONTEXT: DavErrorContext<'static> =
        DavErrorContext { method: Some(DavMethod::Get), target: None, names_directory: false };

    async fn body_text(response: Response<ResponseBody>) -> String {
        String::from_utf8(response.into_body().collect().await.expect("body").to_bytes().to_vec()).expect("text")
    }

    #[tokio::test]
    async fn every_missing_resource_gets_the_same_response() {
        let missing = [
            Error::Tree(tree::Error::Absent),
            Error::Tree(tree::Error::NotADirectory),
            Error::Tree(tree::Error::InvalidName),
            Error::NotFound,
            Error::InvalidName { last: true, error: PathError::TooLong },
        ];
        for error in missing {
            let response = error.into_response(GET_CONTEXT);
            assert_eq!(response.status(), StatusCode::NOT_FOUND);
            assert_eq!(body_text(response).await, "no such file or directory\n");
        }
    }

    #[tokio::test]
    async fn host_errors_are_not_disclosed_to_client() {
        let response =
            Error::Tree(tree::Error::Filesystem(std::io::Error::other("/srv/secret"))).into_response(GET_CONTEXT);
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(body_text(response).await, "internal server error\n");
    }

    #[tokio::test]
    async fn refusal_by_host_names_the_server_and_not_the_token() {
        let refused = || Error::Tree(tree::Error::RefusedByHost(std::io::ErrorKind::PermissionDenied.into()));
        for (error, start) in [(refused(), ""), (refused().into_destination_error(), "the destination can't be used: ")]
        {
            let response = error.into_response(GET_CONTEXT);
            assert_eq!(response.status(), StatusCode::FORBIDDEN);
            let text = body_text(response).await;
            assert!(text.starts_with(&format!("{start}the server itself may not do this")), "{text}");
        }
    }

    #[tokio::test]
    async fn conflicting_lock_is_reported_by_client_visible_root() {
        let at = |text: &str| TreePath::parse(text.as_bytes()).expect("path");
        let client_root =
            ClientRoot::new(&PublicAddress::default(), UrlPrefix::Tree, at("team"), &"alice".parse().expect("login"));
        for (root, href) in [("/team/a", "/dav/a/"), ("/", "/dav/"), ("/team/a/b", "/dav/a/b")] {
            let error = Error::Tree(tree::Error::Locked { root: at(root), token: None });
            let path = at("team/a/b");
            let response = error.into_response(DavErrorContext {
                method: Some(DavMethod::Put),
                target: Some((&client_root, &path)),
                names_directory: false,
            });
            assert_eq!(response.status(), StatusCode::LOCKED);
            let expected = format!("<D:lock-token-submitted><D:href>{href}</D:href></D:lock-token-submitted>");
            assert!(body_text(response).await.contains(&expected), "{root}");
        }
    }

    #[test]
    fn unauthenticated_requests_get_challenge_and_retry_after() {
        let response = Error::AuthenticationFailed(AuthError::Denied).into_response(GET_CONTEXT);
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        let challenges: Vec<_> = response.headers().get_all(header::WWW_AUTHENTICATE).iter().collect();
        assert_eq!(challenges, ["Basic realm=\"patgate\", charset=\"UTF-8\"", "Bearer realm=\"patgate\""]);
        let response =
            Error::AuthenticationFailed(AuthError::Throttled(Duration::from_millis(2500))).into_response(GET_CONTEXT);
        assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (429, &HeaderValue::from(3)));
    }
}
