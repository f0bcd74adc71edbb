//! WebDAV (RFC 4918, class 1, 2 and 3): HTTP methods in terms of a [`crate::tree::View`].
//!
//! Every request passes one guard first: [`request_context`] authenticates it and parses the path, the destination, the
//! conditions and the lock tokens. Each method has a file that turns them into one operation of the view. [`error`]
//! maps a refusal to a status, as the last step. Blocking work runs off the runtime, in one step where one is enough,
//! and long responses are produced while they are sent ([`crate::http::streamed_body`], and
//! [`crate::http::queued_body`] for listings).

mod adaptive_blocking;
mod checksum;
mod chunked_upload;
mod client_root;
mod collection;
mod conditions;
mod copy_move;
mod date;
mod directory_index;
mod error;
mod etag;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod get;
mod headers;
mod if_header;
mod lock;
mod method;
mod multistatus;
mod principal;
mod propfind;
mod proppatch;
mod put;
mod range;
mod receive_body;
mod report;
mod request_context;
mod resource_url;
mod response;
mod resumable_upload;
mod saved_request;
mod structured_field;
mod sync_token;
mod unfinished_uploads;
mod upload_progress;
mod upload_quota;
mod write_range;
mod xml;

use std::pin::pin;
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use http_body_util::BodyExt;
use hyper::body::Body as _;

use self::adaptive_blocking::AdaptiveBlocking;
use self::chunked_upload::UnfinishedUploadContext;
use self::error::{DavErrorContext, Error, Result};
use self::method::DavMethod;
use self::propfind::PropfindLimits;
use self::request_context::RequestContext;
use self::resource_url::OutsideTreeResource;
use self::response::set_header;
use self::unfinished_uploads::UnfinishedUploads;
use crate::auth::{Authenticator, Session};
use crate::domain::UploadSpaceLimits;
use crate::http::{
    AuthenticatedSession, PublicAddress, RequestBody, RequestSource, ResponseBody, empty, has_content_coding,
    is_path_within,
};
use crate::tree::{self, Tree};

/// Limits of the WebDAV service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WebdavOptions {
    /// Maximum number of entries in a PROPFIND response of infinite depth.
    pub propfind_infinity_entries: usize,
    /// Maximum bytes that unfinished uploads hold, per user and in total.
    pub upload_space: UploadSpaceLimits,
}

impl Default for WebdavOptions {
    fn default() -> Self {
        Self { propfind_infinity_entries: 10_000, upload_space: UploadSpaceLimits::default() }
    }
}

/// Answers `/dav/` and `/node/UUID/`; clones share all state.
#[derive(Clone)]
pub struct Webdav {
    tree: Tree,
    auth: Authenticator,
    propfind_limits: PropfindLimits,
    uploads: UnfinishedUploads,
    adaptive_blocking: AdaptiveBlocking,
    /// Of MKCOL, DELETE and MOVE.
    name_changes: AdaptiveBlocking,
    /// Of GET and HEAD.
    file_lookups: AdaptiveBlocking,
}

impl Webdav {
    /// Creates the service for a tree, with sessions that `auth` authenticates. Restores the unfinished uploads of the
    /// last run and starts the task that expires them.
    pub fn new(tree: Tree, auth: Authenticator, options: WebdavOptions) -> Self {
        let uploads = UnfinishedUploads::new(tree.clone(), options.upload_space, auth.clock().clone());
        uploads.spawn_expiration_task();
        Self {
            tree,
            auth,
            propfind_limits: PropfindLimits::new(options),
            uploads,
            adaptive_blocking: AdaptiveBlocking::default(),
            name_changes: AdaptiveBlocking::default(),
            file_lookups: AdaptiveBlocking::default(),
        }
    }

    /// Tells whether WebDAV serves a path: one of the tree, or of an upload into it. `/davx` is not served.
    pub fn serves_path(path: &str) -> bool {
        // Must stay in step with `split_prefix` and `OutsideTreeResource::parse`: other paths never reach them.
        let prefixes = ["/dav", "/node", "/upload", "/remote.php/dav", "/remote.php/webdav"];
        prefixes.into_iter().any(|prefix| is_path_within(path, prefix))
    }

    /// Returns the number of uploads that wait for more requests.
    pub fn unfinished_upload_count(&self) -> usize {
        self.uploads.count()
    }

    /// Handles one request; errors are part of the response.
    pub async fn handle(&self, request: Box<Request<RequestBody>>, source: RequestSource) -> Response<ResponseBody> {
        let (head, mut body) = request.into_parts();
        // In a box again: it is passed on to its method.
        let head = Box::new(head);
        let method = DavMethod::from_http(&head.method);
        // Before authentication: the response is constant, and a probe must not count as a failed login.
        let mut response = if is_unauthenticated_probe(method, &head.headers) {
            options_response()
        } else {
            match request_context::authenticate(&self.auth, &head, source).await {
                Ok(session) => {
                    let mut response = pin!(self.dispatch(method, head, &mut body, session.clone())).await;
                    // The gateway takes it out again, and resets the connection if the session ends before the response
                    // does.
                    response.extensions_mut().insert(AuthenticatedSession(session));
                    response
                }
                Err(error) => error.into_response(DavErrorContext::without_target(method)),
            }
        };
        // Last, so that error responses carry them too.
        set_security_headers(response.headers_mut());
        response
    }

    async fn dispatch(
        &self,
        method: Option<DavMethod>,
        head: Box<Parts>,
        body: &mut RequestBody,
        session: Session,
    ) -> Response<ResponseBody> {
        let Some(method) = method else {
            return unsupported_method(&head).into_response(DavErrorContext::without_target(None));
        };
        // Before anything is stored: a PUT would otherwise keep the encoded bytes as the file (RFC 9110 section 8.4).
        if !body.is_end_stream() && has_content_coding(&head.headers) {
            return Error::UnsupportedContentCoding.into_response(DavErrorContext::without_target(Some(method)));
        }
        if method == DavMethod::Options {
            session.record_use();
            return options_response();
        }
        // Before the path is parsed as one of the tree: uploads and principals are not entries of it.
        let head = if may_be_outside_tree(head.uri.path()) {
            match Box::pin(self.handle_outside_tree(method, head, body, &session)).await {
                Ok(OutsideTreeOutcome::Handled(response)) => {
                    session.record_use();
                    return response;
                }
                Ok(OutsideTreeOutcome::InTree(head)) => head,
                Err(error) => {
                    return error.into_response(DavErrorContext::without_target(Some(method)));
                }
            }
        } else {
            head
        };
        let context = match RequestContext::new(method, head, &self.tree, session.clone(), self.auth.now()).await {
            Ok(context) => context,
            Err(error) => {
                return error.into_response(DavErrorContext::without_target(Some(method)));
            }
        };
        // Only a request that succeeds is recorded as a use: a refused one must not extend a sliding expiration.
        let result = pin!(self.handle_in_tree(method, &context, body)).await;
        match result {
            Ok(response) => {
                session.record_use();
                response
            }
            Err(error) => {
                let error = match error {
                    Error::Tree(refused @ tree::Error::RefusedByHost(_)) => {
                        Error::Tree(context.explain_refusal(refused).await)
                    }
                    other => other,
                };
                // Looked up on errors only: the href of a locked directory needs its trailing slash.
                let names_directory = context.is_lock_root_directory(&error).await;
                error.into_response(DavErrorContext {
                    method: Some(method),
                    target: Some((&context.client_root, &context.path)),
                    names_directory,
                })
            }
        }
    }

    /// Dispatches a request for the tree to the file of its method.
    async fn handle_in_tree(
        &self,
        method: DavMethod,
        context: &Arc<RequestContext>,
        body: &mut RequestBody,
    ) -> Result<Response<ResponseBody>> {
        match method {
            // Handled in `dispatch`, whatever the path is: the response must reveal nothing of it.
            DavMethod::Options => Ok(options_response()),
            DavMethod::Get | DavMethod::Head => pin!(get::handle(context, &self.file_lookups)).await,
            // In boxes but for GET: otherwise its future, which is copied, has room for the largest of these.
            // `Upload-Complete` alone makes a PUT or POST a resumable upload, whatever its value.
            DavMethod::Put | DavMethod::Post if context.headers.contains_key("upload-complete") => {
                Box::pin(resumable_upload::create(context, body, &self.uploads, &self.adaptive_blocking)).await
            }
            DavMethod::Put => Box::pin(put::handle(context, body, &self.adaptive_blocking)).await,
            DavMethod::Post => Err(Error::MethodNotAllowed(method::TREE_METHODS)),
            DavMethod::Patch => Box::pin(put::patch(context, body)).await,
            DavMethod::Delete => Box::pin(collection::delete(context, &self.name_changes)).await,
            DavMethod::Mkcol => Box::pin(collection::mkcol(context, body, &self.name_changes)).await,
            DavMethod::Propfind => Box::pin(propfind::handle(context, body, &self.propfind_limits)).await,
            DavMethod::Report => Box::pin(report::handle(context, body)).await,
            DavMethod::Proppatch => Box::pin(proppatch::handle(context, body)).await,
            DavMethod::Copy | DavMethod::Move => Box::pin(copy_move::handle(context, &self.name_changes)).await,
            DavMethod::Lock => Box::pin(lock::lock(context, body)).await,
            DavMethod::Unlock => Box::pin(lock::unlock(context)).await,
        }
    }
}

/// Prefix of the URL paths of resumable uploads.
const UPLOAD_PREFIX: &str = "/upload/";

/// Tells whether a URL path may name a resource outside the tree.
fn may_be_outside_tree(path: &str) -> bool {
    path.starts_with(UPLOAD_PREFIX) || OutsideTreeResource::has_prefix(path.as_bytes())
}

/// Outcome of routing a request that may be for a resource outside the tree.
enum OutsideTreeOutcome {
    /// A resource outside the tree, with its response.
    Handled(Response<ResponseBody>),
    /// A resource of the tree: the request is still to be handled.
    InTree(Box<Parts>),
}

impl Webdav {
    /// Handles requests for resources outside the tree: unfinished uploads, and the principal of the user.
    async fn handle_outside_tree(
        &self,
        method: DavMethod,
        head: Box<Parts>,
        body: &mut RequestBody,
        session: &Session,
    ) -> Result<OutsideTreeOutcome> {
        let (path, now) = (head.uri.path(), self.auth.now());
        let upload_context =
            || UnfinishedUploadContext { tree: &self.tree, uploads: &self.uploads, session: session.clone(), now };
        // Not below `/dav`: an upload has no place in the tree until it is committed.
        if path.starts_with(UPLOAD_PREFIX) {
            // In boxes, as in `handle_in_tree`.
            return Box::pin(resumable_upload::handle(method, &head, body, upload_context()))
                .await
                .map(OutsideTreeOutcome::Handled);
        }
        match OutsideTreeResource::parse(path.as_bytes(), session.login())? {
            Some(OutsideTreeResource::ChunkedUpload(chunk_path)) => {
                Box::pin(chunked_upload::handle(method, &chunk_path, head, body, upload_context()))
                    .await
                    .map(OutsideTreeOutcome::Handled)
            }
            Some(OutsideTreeResource::Principal) if method == DavMethod::Propfind => {
                let server = head.extensions.get::<PublicAddress>().cloned().unwrap_or_default();
                Box::pin(principal::propfind_principal(&server, session.login(), body))
                    .await
                    .map(OutsideTreeOutcome::Handled)
            }
            Some(OutsideTreeResource::Principal) => Err(Error::MethodNotAllowed(method::PRINCIPAL_METHODS)),
            None => Ok(OutsideTreeOutcome::InTree(head)),
        }
    }
}

/// Tells whether a request is one that clients send before they log in: OPTIONS, and the HEAD by which Microsoft Office
/// probes for a document that Explorer has opened. Office then sends no credential, or the bare word `Bearer`, and
/// prompts for a password where that is refused (nextcloud/server pull request 19180).
fn is_unauthenticated_probe(method: Option<DavMethod>, headers: &HeaderMap) -> bool {
    let authorization = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes().trim_ascii());
    let user_agent = headers.get(header::USER_AGENT).map(HeaderValue::as_bytes).unwrap_or_default();
    let is_probe = match method {
        Some(DavMethod::Options) => true,
        Some(DavMethod::Head) => user_agent.starts_with(b"Microsoft Office"),
        _ => false,
    };
    // With a real credential it is authenticated like any other request, so that a wrong one is reported.
    is_probe && authorization.is_none_or(|authorization| authorization.eq_ignore_ascii_case(b"bearer"))
}

/// Returns the response to OPTIONS: the same for every path and client, so that it reveals nothing.
fn options_response() -> Response<ResponseBody> {
    let mut response = Response::new(empty());
    let headers = response.headers_mut();
    // Class 2 (locks): without it macOS mounts the server read-only.
    headers.insert("dav", HeaderValue::from_static("1, 2, 3, extended-mkcol, sabredav-partialupdate"));
    // Tells Microsoft's clients to use WebDAV rather than FrontPage extensions.
    headers.insert("ms-author-via", HeaderValue::from_static("DAV"));
    headers.insert(header::ALLOW, HeaderValue::from_static(method::TREE_METHODS));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(
        "accept-patch",
        HeaderValue::from_static("application/x-sabredav-partialupdate, application/partial-upload"),
    );
    // Without the limits of the token: they would make the response depend on who asks.
    set_header(headers, HeaderName::from_static("upload-limit"), resumable_upload::upload_limits(None));
    response
}

fn unsupported_method(head: &Parts) -> Error {
    // 405 for methods of other specifications, 501 for unknown ones (RFC 9110 section 9.1).
    let known = ["TRACE", "CONNECT", "SEARCH", "ACL", "BIND", "MKCALENDAR", "ORDERPATCH"];
    if known.contains(&head.method.as_str()) {
        Error::MethodNotAllowed(method::TREE_METHODS)
    } else {
        Error::UnknownMethod
    }
}

/// Sets headers that keep a stored page from running scripts with this server's origin, and a browser from sniffing
/// types.
fn set_security_headers(headers: &mut HeaderMap) {
    // The page of a directory has set a policy of its own, which allows downloads.
    if !headers.contains_key(header::CONTENT_SECURITY_POLICY) {
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// Reads a body of XML, of `limit` bytes at most.
///
/// # Errors
/// [`Error::BodyTooLarge`] past the limit, [`Error::Truncated`] when it ends early, [`Error::TooSlow`].
async fn read_small_body(body: &mut RequestBody, limit: usize) -> Result<Vec<u8>> {
    // A body that announces too much is refused before any of it is read.
    if body.size_hint().lower() > limit as u64 {
        return Err(Error::BodyTooLarge);
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        // A chunked body announces no length: the limit is enforced while it arrives.
        if bytes.len() + data.len() > limit {
            return Err(Error::BodyTooLarge);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}
