//! Authentication, which every request passes first.
//!
//! An unauthenticated caller learns nothing, not even which paths exist.

use axum::Extension;
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderValue, Uri, header};
use zeroize::Zeroizing;

use super::{ApiState, Error, Result, extract};
use crate::auth::{AuthError, Credential, Session, WorkPermit};
use crate::domain::{Login, Peer, Protocol, TokenId};
use crate::http::{AuthenticatedSession, ConnectionHandle, RequestSource, parse_credential, user_agent};
use crate::tokens::Principal;

/// The authenticated caller of a request.
#[derive(Clone)]
pub(super) struct ApiCaller(pub(super) Session);

impl ApiCaller {
    /// Returns the principal that the `tokens` module authorizes.
    pub(super) fn principal(&self) -> Principal {
        Principal::Session(self.0.clone())
    }

    /// Waits for a permit for a call of the store.
    pub(super) fn light_permit(&self) -> impl Future<Output = Result<WorkPermit>> + use<> {
        let session = self.0.clone();
        async move { Ok(session.acquire_light_permit().await?) }
    }

    /// Waits for a permit for work that keeps a processor busy for long.
    pub(super) fn heavy_permit(&self) -> impl Future<Output = Result<WorkPermit>> + use<> {
        let session = self.0.clone();
        async move { Ok(session.acquire_heavy_permit().await?) }
    }

    /// Waits for a permit for revoking, narrowing or disabling, which no other work delays.
    pub(super) fn revocation_permit(&self) -> impl Future<Output = Result<WorkPermit>> + use<> {
        let session = self.0.clone();
        async move { Ok(session.acquire_revocation_permit().await?) }
    }

    /// Returns the login of the caller.
    pub(super) fn login(&self) -> &Login {
        self.0.login()
    }

    /// Returns the id of the caller's token.
    pub(super) fn token_id(&self) -> TokenId {
        self.0.token()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ApiCaller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        parts.extensions.get().cloned().map(Self).ok_or(Error::Internal)
    }
}

/// Prefix of the paths at which `Accept` is evaluated. Web servers that call `/auth/` forward the `Accept` header of
/// somebody else's request.
const REST_PATH_PREFIX: &str = "/api/";
/// Path of the verify call.
const VERIFY_PATH: &str = "/auth/verify";
/// Prefix of the calls of the upload service.
const UPLOAD_SERVICE_PATH_PREFIX: &str = "/auth/token/";

/// Authenticates the caller, or refuses the request.
pub(super) async fn authenticate(
    State(state): State<ApiState>,
    Extension(source): Extension<RequestSource>,
    mut request: Request,
    next: Next,
) -> Result<Response> {
    let verifies = request.uri().path() == VERIFY_PATH;
    // Before anything else is looked at, so that all answers to an unauthenticated caller are alike.
    let session = match authenticate_request(&state, &mut request, source).await {
        Err(Error::Authentication(AuthError::Throttled(wait))) if verifies => return Err(Error::VerifyThrottled(wait)),
        result => result?,
    };
    if request.uri().path().starts_with(REST_PATH_PREFIX) && !extract::accepts_json(request.headers()) {
        return Err(Error::NotAcceptable);
    }
    request.extensions_mut().insert(session.clone());
    let mut response = next.run(request).await;
    // Only an accepted request is a use: refused ones must not move the sliding window of a token.
    if !response.status().is_client_error() {
        session.record_use();
    }
    // Lets the connection reset the response when the session ends, and count against the user.
    response.extensions_mut().insert(AuthenticatedSession(session));
    Ok(response)
}

/// Adds headers that keep responses out of caches, and browsers from sniffing types.
pub(super) async fn set_security_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Authenticates the caller of a request.
///
/// # Errors
/// [`super::Error::Authentication`]; the same for a credential that is missing, unreadable or wrong.
async fn authenticate_request(state: &ApiState, request: &mut Request, source: RequestSource) -> Result<Session> {
    // The token is removed even where the option is off, because the URI is logged later.
    let from_query = take_query_token(request.uri_mut()).filter(|_| state.options.query_token);
    let headers = request.headers();
    // A missing credential is the same error as a wrong one: callers learn nothing from the difference.
    let credential = parse_credential(headers).or(from_query).ok_or(AuthError::Denied)?;
    let user_agent = user_agent(headers).map(str::to_owned);
    let peer = Peer { protocol: Protocol::Api, address: source.address, user_agent };
    let session = state.auth.authenticate(credential, peer).await?;
    ConnectionHandle::notify_authenticated(request.extensions(), &session)?;
    Ok(session)
}

/// Removes `?_token=` from the URI of a call of the upload service, so that no later step, handler or log sees it.
fn take_query_token(uri: &mut Uri) -> Option<Credential> {
    let (path, query) = (uri.path(), uri.query()?);
    if !path.starts_with(UPLOAD_SERVICE_PATH_PREFIX) {
        return None;
    }
    // All occurrences are removed, also repeated ones: only the first is used, but none may reach a log.
    let (tokens, rest): (Vec<&str>, Vec<&str>) = query.split('&').partition(|pair| pair.starts_with("_token="));
    let token = Zeroizing::new(tokens.first()?.strip_prefix("_token=")?.as_bytes().to_vec());
    let rest = rest.join("&");
    *uri = if rest.is_empty() { path.to_owned() } else { format!("{path}?{rest}") }.parse().ok()?;
    Some(Credential { login: None, token })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_token_is_removed_from_the_uri() {
        let take_token = |text: &str| {
            let mut uri: Uri = text.parse().expect("uri");
            let token =
                take_query_token(&mut uri).map(|credential| String::from_utf8_lossy(&credential.token).into_owned());
            (uri.to_string(), token)
        };
        let secret = Some("pgt_x.y".to_owned());
        assert_eq!(take_token("/auth/token/a?_token=pgt_x.y"), ("/auth/token/a".to_owned(), secret.clone()));
        assert_eq!(take_token("/auth/token/a?b=1&_token=pgt_x.y&_token=z"), ("/auth/token/a?b=1".to_owned(), secret));
        assert_eq!(take_token("/auth/token/a?b=1"), ("/auth/token/a?b=1".to_owned(), None));
        assert_eq!(take_token("/auth/verify?_token=x"), ("/auth/verify?_token=x".to_owned(), None));
    }
}
