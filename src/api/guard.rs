//! What every request passes first: the caller is proven, and noted on the answer.
//!
//! Nothing is told to one who is not proven, not even which addresses there are.

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
use crate::http::{AuthenticatedSession, ConnectionHandle, RequestSource, parse_credential};
use crate::tokens::Principal;

/// The proven caller of a request.
#[derive(Clone)]
pub(super) struct ApiCaller(pub(super) Session);

impl ApiCaller {
    /// Returns whom `tokens` is to ask what is allowed.
    pub(super) fn principal(&self) -> Principal {
        Principal::Session(self.0.clone())
    }

    /// Waits for a turn of a call of the store.
    pub(super) fn light_permit(&self) -> impl Future<Output = Result<WorkPermit>> + use<> {
        let session = self.0.clone();
        async move { Ok(session.light_turn().await?) }
    }

    /// Waits for a turn of work that keeps a processor busy for long.
    pub(super) fn heavy_permit(&self) -> impl Future<Output = Result<WorkPermit>> + use<> {
        let session = self.0.clone();
        async move { Ok(session.acquire_work_permit().await?) }
    }

    /// Waits for a turn of ending what lets somebody in.
    pub(super) fn revocation_permit(&self) -> impl Future<Output = Result<WorkPermit>> + use<> {
        let session = self.0.clone();
        async move { Ok(session.revoking_turn().await?) }
    }

    /// Returns the user.
    pub(super) fn login(&self) -> &Login {
        self.0.login()
    }

    /// Returns the token's id.
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

/// Where the calls that take JSON and nothing else begin; those below `/auth/` are asked by programs that
/// pass on what somebody else accepts.
const REST_PATH_PREFIX: &str = "/api/";
/// Where web servers ask whether a request may pass.
const VERIFY_PATH: &str = "/auth/verify";
/// Where the upload service's calls begin.
const UPLOAD_SERVICE_PATH_PREFIX: &str = "/auth/token/";

/// Proves the caller, or refuses.
pub(super) async fn authenticate(
    State(state): State<ApiState>,
    Extension(source): Extension<RequestSource>,
    mut request: Request,
    next: Next,
) -> Result<Response> {
    let verifies = request.uri().path() == VERIFY_PATH;
    let session = match authenticate_request(&state, &mut request, source).await {
        Err(Error::Authentication(AuthError::Throttled(wait))) if verifies => return Err(Error::VerifyThrottled(wait)),
        result => result?,
    };
    if request.uri().path().starts_with(REST_PATH_PREFIX) && !extract::accepts_json(request.headers()) {
        return Err(Error::NotAcceptable);
    }
    request.extensions_mut().insert(session.clone());
    let mut response = next.run(request).await;
    if !response.status().is_client_error() {
        session.record_use();
    }
    response.extensions_mut().insert(AuthenticatedSession(session));
    Ok(response)
}

/// Keeps answers from being kept, and a browser from guessing types.
pub(super) async fn set_security_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Proves the caller of a request.
///
/// # Errors
/// [`super::Error::Authentication`]; the same for a credential that is missing, unreadable or wrong.
async fn authenticate_request(state: &ApiState, request: &mut Request, source: RequestSource) -> Result<Session> {
    let from_query = take_query_token(request.uri_mut()).filter(|_| state.options.query_token);
    let headers = request.headers();
    let credential = parse_credential(headers).or(from_query).ok_or(AuthError::Denied)?;
    let user_agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let peer = Peer { protocol: Protocol::Api, address: source.address, user_agent };
    let session = state.auth.authenticate(credential, peer).await?;
    ConnectionHandle::notify_authenticated(request.extensions(), &session)?;
    Ok(session)
}

/// Takes `?_token=` out of the address of one of the upload service's calls, so that nothing that comes
/// later sees it.
fn take_query_token(uri: &mut Uri) -> Option<Credential> {
    let (path, query) = (uri.path(), uri.query()?);
    if !path.starts_with(UPLOAD_SERVICE_PATH_PREFIX) {
        return None;
    }
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
