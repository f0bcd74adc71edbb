//! An authenticated request: its session, its path, and its conditions.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, Uri};

use super::client_root::{ClientRoot, UrlPrefix};
use super::conditions::{IfContext, RequestConditions};
use super::error::{Error, Result, run_blocking};
use super::headers;
use super::method::DavMethod;
use super::resource_url::{self, ResourceUrl};
use crate::auth::{AuthError, Authenticator, Session};
use crate::domain::{Peer, Protocol, TreePath, UnixMillis};
use crate::http::{ConnectionHandle, FileTransfer, PublicAddress, RequestSource, parse_credential, user_agent};
use crate::tree::{self, LockToken, Tree, View, WriteConditions};

/// Authenticates a request.
///
/// # Errors
/// [`Error::AuthenticationFailed`]; the same one for a credential that is missing, malformed or wrong.
pub(super) async fn authenticate(auth: &Authenticator, head: &Parts, source: RequestSource) -> Result<Session> {
    let headers = &head.headers;
    let last_session = head.extensions.get::<ConnectionHandle>().map(|handle| handle.connection.last_session());
    let session = match last_session.and_then(|last| last.get(headers, Protocol::Webdav, source.address)) {
        Some(session) => session,
        None => {
            let credential = parse_credential(headers).ok_or(AuthError::Denied)?;
            let user_agent = user_agent(headers).map(str::to_owned);
            let peer = Peer { protocol: Protocol::Webdav, address: source.address, user_agent };
            // In a box, since it is rare and its future is large.
            let session = Box::pin(auth.authenticate(credential, peer)).await?;
            if let Some(last_session) = last_session {
                last_session.set(headers, &session);
            }
            session
        }
    };
    // Before the request is carried out: the limit of connections per user must hold for its first request too.
    ConnectionHandle::notify_authenticated(&head.extensions, &session)?;
    Ok(session)
}

/// An authenticated request, with everything that all methods need of it parsed.
pub(super) struct RequestContext {
    /// Method of the request.
    pub(super) method: DavMethod,
    /// Tree as the session may see it.
    pub(super) view: View,
    /// Path in the tree that the client's URL prefix stands for.
    pub(super) client_root: ClientRoot,
    /// Path in the tree of the resource that the request names.
    pub(super) path: TreePath,
    /// Whether the URL path ends with a slash.
    pub(super) has_trailing_slash: bool,
    /// Request target as it was sent.
    pub(super) uri: Uri,
    /// Headers of the request.
    pub(super) headers: HeaderMap,
    /// Parsed conditional headers, `If` included.
    pub(super) conditions: RequestConditions,
    /// Current time, on the clock by which expiration is judged.
    pub(super) now: UnixMillis,
    url_prefix: UrlPrefix,
    /// Address of the server as the client knows it.
    pub(super) server: PublicAddress,
    lock_tokens: Vec<LockToken>,
    /// Files that the connection sends by itself, where it can.
    pub(super) file_transfer: Option<FileTransfer>,
}

impl RequestContext {
    /// Parses a request and resolves its root.
    ///
    /// # Errors
    /// Any fault of the path or headers; [`tree::Error::Absent`] for a node that was removed or that the session may
    /// not access.
    pub(super) async fn new(
        method: DavMethod,
        head: Box<Parts>,
        tree: &Tree,
        session: Session,
        now: UnixMillis,
    ) -> Result<Arc<Self>> {
        let url = ResourceUrl::parse(head.uri.path().as_bytes())?;
        // 404, not 403: whether another user exists must not be visible.
        if url.user.is_some_and(|user| user != session.login().as_str().as_bytes()) {
            return Err(Error::NotFound);
        }
        // Malformed headers are refused before the tree is touched.
        let conditions = RequestConditions::parse(&head.headers)?;
        let server = head.extensions.get::<PublicAddress>().cloned().unwrap_or_default();
        let view = tree.view(session);
        // A node is looked up in the store on every request: its directory may have been moved.
        let root = match url.prefix {
            UrlPrefix::Tree | UrlPrefix::Nextcloud | UrlPrefix::NextcloudFiles => TreePath::root(),
            UrlPrefix::Node(node) => {
                let view = view.clone();
                run_blocking(move || Ok(view.node_root(node)?)).await?
            }
        };
        let relative_path = url.path;
        // A name that exists only in another Unicode normalization stands for that entry, so that macOS creates no
        // duplicate. Paths without such a name, nearly all, skip the blocking lookup.
        let path = match relative_path.has_alternate_normalizations() {
            true => {
                let (view, root) = (view.clone(), root.clone());
                run_blocking(move || Ok(view.existing_spelling(&root, &relative_path))).await?
            }
            false => root.join(&relative_path),
        };
        let client_root = ClientRoot::new(&server, url.prefix, root, view.session().login());
        Ok(Arc::new(Self {
            method,
            view,
            path,
            client_root,
            has_trailing_slash: url.has_trailing_slash,
            lock_tokens: collect_lock_tokens(method, &conditions, &head.headers),
            conditions,
            file_transfer: head.extensions.get().and_then(|handle: &ConnectionHandle| handle.file_transfer.clone()),
            now,
            url_prefix: url.prefix,
            server,
            uri: head.uri,
            headers: head.headers,
        }))
    }

    /// Tells whether the request names the client's root itself.
    pub(super) fn is_root(&self) -> bool {
        self.path == *self.client_root.root()
    }

    /// Parses `Destination` (RFC 4918 section 10.3): returns the path below the client's root, in the spelling that was
    /// sent.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::ForeignDestination`]; [`Error::RootProtected`] when it is the client's root, and
    /// [`Error::InvalidDestination`] when no entry can have that path.
    pub(super) fn destination(&self) -> Result<TreePath> {
        let value =
            headers::single_value(&self.headers, "destination")?.ok_or(Error::Malformed("Destination is missing"))?;
        let url = resource_url::resolve_in_prefix(value.as_bytes().trim_ascii(), &self.server, self.url_prefix)?;
        if url.user.is_some_and(|user| user != self.view.session().login().as_str().as_bytes()) {
            return Err(Error::ForeignDestination);
        }
        if url.path.is_root() {
            return Err(Error::RootProtected);
        }
        Ok(url.path)
    }

    /// Returns the context in which the resource tags of an `If` header are resolved.
    pub(super) fn if_context(&self) -> IfContext<'_> {
        IfContext {
            view: &self.view,
            client_root: &self.client_root,
            url_prefix: self.url_prefix,
            server: &self.server,
        }
    }

    /// Evaluates the conditions of a change now; they are evaluated again at the commit.
    ///
    /// # Errors
    /// [`tree::Error::PreconditionFailed`] when one is false.
    pub(super) fn evaluate_conditions(&self) -> tree::Result<()> {
        self.conditions.evaluate_write(self.if_context(), &self.path)
    }

    /// Runs an operation with the lock tokens and conditions of the request. Permissions are checked first (RFC 4918
    /// section 8.1); then a false condition takes precedence over a conflicting lock.
    ///
    /// # Errors
    /// [`tree::Error::PreconditionFailed`], and the errors of the operation.
    pub(super) fn with_preconditions<T>(
        &self,
        operation: impl FnOnce(&WriteConditions<'_>) -> tree::Result<T>,
    ) -> Result<T> {
        let evaluate = || self.evaluate_conditions();
        match operation(&WriteConditions { lock_tokens: &self.lock_tokens, evaluate: &evaluate }) {
            // The tree reports the lock without evaluating the conditions; a client that sent a false one expects 412
            // (litmus).
            Err(locked @ tree::Error::Locked { .. }) => {
                evaluate()?;
                Err(locked.into())
            }
            result => Ok(result?),
        }
    }

    /// As [`RequestContext::with_preconditions`], for an upload that is only staged: conditions are evaluated now, and
    /// again when it is committed.
    ///
    /// # Errors
    /// As [`RequestContext::with_preconditions`].
    pub(super) fn stage_with_preconditions<T>(
        &self,
        operation: impl FnOnce(&WriteConditions<'_>) -> tree::Result<T>,
    ) -> Result<T> {
        let staged = self.with_preconditions(operation)?;
        // Not left to the commit alone: a client that waits for `100 Continue` must get the 412 before it sends the
        // body.
        self.evaluate_conditions()?;
        Ok(staged)
    }

    /// Tells whether the root of the conflicting lock that an error names is a directory.
    pub(super) async fn is_lock_root_directory(&self, error: &Error) -> bool {
        let Error::Tree(tree::Error::Locked { root, .. }) = error else { return false };
        let (view, root) = (self.view.clone(), root.clone());
        // A root that the session can't see is shown as a file: the href must not reveal what it is.
        run_blocking(move || Ok(view.stat(&root)?.is_directory())).await.unwrap_or(false)
    }

    /// Returns the outage that is behind a refusal of the host, if there is one, or else the refusal.
    pub(super) async fn explain_refusal(&self, refusal: tree::Error) -> tree::Error {
        let (view, path) = (self.view.clone(), self.path.clone());
        // A panic on the way leaves it a refusal.
        run_blocking(move || Ok(view.explain_refusal(refusal, Some(&path)))).await.unwrap_or(tree::Error::Forbidden)
    }

    /// Returns the lock tokens that the request submits.
    pub(super) fn submitted_lock_tokens(&self) -> &[LockToken] {
        &self.lock_tokens
    }
}

/// Returns the lock tokens that a request submits: those of its `If` header (RFC 4918 section 10.4), and that of the
/// `Lock-Token` header in which Word 2016 sends it with PUT (sabre-io/dav issue 980).
fn collect_lock_tokens(method: DavMethod, conditions: &RequestConditions, headers: &HeaderMap) -> Vec<LockToken> {
    let mut tokens = conditions.lock_tokens();
    if method == DavMethod::Put {
        // `extend` of an error adds nothing: `Lock-Token` isn't defined for PUT, so a malformed one is no fault.
        tokens.extend(headers::lock_token(headers));
    }
    tokens
}
