//! One request past the guard: who, where, and under which conditions.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, Uri, header};

use super::conditions::{IfContext, RequestConditions};
use super::error::{Error, Result, run_blocking};
use super::headers;
use super::method::DavMethod;
use super::resource_url::{self, ClientRoot, ResourceUrl, UrlPrefix};
use crate::auth::{AuthError, Authenticator, Session};
use crate::domain::{Peer, Protocol, TreePath, UnixMillis};
use crate::http::{ConnectionHandle, PublicAddress, RequestSource, parse_credential};
use crate::tree::{self, LockToken, Tree, View, WriteConditions};

/// Proves the caller of a request.
///
/// # Errors
/// [`Error::AuthenticationFailed`]; the same for a credential that is missing, unreadable or wrong.
pub(super) async fn authenticate(auth: &Authenticator, head: &Parts, source: RequestSource) -> Result<Session> {
    let headers = &head.headers;
    let credential = parse_credential(headers).ok_or(AuthError::Denied)?;
    let user_agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let peer = Peer { protocol: Protocol::Webdav, address: source.address, user_agent };
    let session = auth.authenticate(credential, peer).await?;
    ConnectionHandle::notify_authenticated(&head.extensions, &session)?;
    Ok(session)
}

/// A request by a proven caller, with all that every verb needs of it already read.
pub(super) struct RequestContext {
    /// The method.
    pub(super) method: DavMethod,
    /// The tree as the caller may see it.
    pub(super) view: View,
    /// The client's root.
    pub(super) client_root: ClientRoot,
    /// The place that the request names.
    pub(super) path: TreePath,
    /// Whether the path was written with a slash at its end.
    pub(super) has_trailing_slash: bool,
    /// The target, as it was sent.
    pub(super) uri: Uri,
    /// The headers.
    pub(super) headers: HeaderMap,
    /// The conditions.
    pub(super) conditions: RequestConditions,
    /// The present instant, on the clock by which expiry is judged.
    pub(super) now: UnixMillis,
    url_prefix: UrlPrefix,
    /// The server as the client knows it.
    pub(super) server: PublicAddress,
    lock_tokens: Vec<LockToken>,
}

impl RequestContext {
    /// Reads a request; finds the place of its root.
    ///
    /// # Errors
    /// Whatever is wrong with path or headers; [`tree::Error::Absent`] for a node that has ended or that the
    /// caller may not reach.
    pub(super) async fn new(
        method: DavMethod,
        head: Parts,
        tree: &Tree,
        session: Session,
        now: UnixMillis,
    ) -> Result<Arc<Self>> {
        let url = ResourceUrl::parse(head.uri.path().as_bytes())?;
        if url.user.is_some_and(|user| user != session.login().as_str().as_bytes()) {
            return Err(Error::NotFound);
        }
        let conditions = RequestConditions::parse(&head.headers)?;
        let server = head.extensions.get::<PublicAddress>().cloned().unwrap_or_default();
        let login = session.login().clone();
        let view = tree.view(session);
        let root = match url.prefix {
            UrlPrefix::Tree | UrlPrefix::Nextcloud | UrlPrefix::NextcloudFiles => TreePath::root(),
            UrlPrefix::Node(node) => {
                let view = view.clone();
                run_blocking(move || Ok(view.node_root(node)?)).await?
            }
        };
        let relative_path = url.path;
        let path = match relative_path.has_alternate_normalizations() {
            true => {
                let (view, root) = (view.clone(), root.clone());
                run_blocking(move || Ok(view.existing_spelling(&root, &relative_path))).await?
            }
            false => root.join(&relative_path),
        };
        let client_root = ClientRoot::new(&server, url.prefix, root, &login);
        Ok(Arc::new(Self {
            method,
            view,
            path,
            client_root,
            has_trailing_slash: url.has_trailing_slash,
            lock_tokens: collect_lock_tokens(method, &conditions, &head.headers),
            conditions,
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

    /// Reads `Destination` (RFC 4918 section 10.3): what it names below the client's root, as it was sent.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::ForeignDestination`]; [`Error::EffectiveGrant`] when it is the client's root, and
    /// [`Error::InvalidDestination`] when nothing can be there.
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

    /// Returns what the tags of an `If` header are looked up by.
    pub(super) fn if_context(&self) -> IfContext<'_> {
        IfContext {
            view: &self.view,
            client_root: &self.client_root,
            url_prefix: self.url_prefix,
            server: &self.server,
        }
    }

    /// Judges the conditions of a change now; they are judged again at the commit.
    ///
    /// # Errors
    /// [`tree::Error::PreconditionFailed`] when one does not hold.
    pub(super) fn evaluate_conditions(&self) -> tree::Result<()> {
        self.conditions.evaluate_write(self.if_context(), &self.path)
    }

    /// Runs an operation with what the request brings against locks and conditions. Rights are asked first (RFC 4918
    /// section 8.1); then a condition that does not hold is told of before a lock that stands in the way.
    ///
    /// # Errors
    /// [`tree::Error::PreconditionFailed`], and what the operation says.
    pub(super) fn with_preconditions<T>(
        &self,
        operation: impl FnOnce(&WriteConditions<'_>) -> tree::Result<T>,
    ) -> Result<T> {
        let evaluate = || self.evaluate_conditions();
        match operation(&WriteConditions { lock_tokens: &self.lock_tokens, evaluate: &evaluate }) {
            Err(locked @ tree::Error::Locked { .. }) => {
                evaluate()?;
                Err(locked.into())
            }
            result => Ok(result?),
        }
    }

    /// As [`RequestContext::with_preconditions`], for what is only begun: conditions are judged now, and again when it is committed.
    ///
    /// # Errors
    /// As [`RequestContext::with_preconditions`].
    pub(super) fn stage_with_preconditions<T>(
        &self,
        operation: impl FnOnce(&WriteConditions<'_>) -> tree::Result<T>,
    ) -> Result<T> {
        let staged = self.with_preconditions(operation)?;
        self.evaluate_conditions()?;
        Ok(staged)
    }

    /// Tells whether an error names a folder: as the root of a lock.
    pub(super) async fn is_lock_root_directory(&self, error: &Error) -> bool {
        let Error::Tree(tree::Error::Locked { root, .. }) = error else { return false };
        let (view, root) = (self.view.clone(), root.clone());
        run_blocking(move || Ok(view.stat(&root)?.is_directory())).await.unwrap_or(false)
    }

    /// Returns the lock tokens that the request submits.
    pub(super) fn submitted_lock_tokens(&self) -> &[LockToken] {
        &self.lock_tokens
    }
}

/// Returns the lock tokens that a request submits: those of its `If` header (RFC 4918 section 10.4), and that of the
/// `Lock-Token` header in which Word 2016 hands it over with PUT (sabre-io/dav issue 980).
fn collect_lock_tokens(method: DavMethod, conditions: &RequestConditions, headers: &HeaderMap) -> Vec<LockToken> {
    let mut tokens = conditions.lock_tokens();
    if method == DavMethod::Put {
        tokens.extend(headers::lock_token(headers));
    }
    tokens
}
