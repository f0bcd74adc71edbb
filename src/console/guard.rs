//! Authentication and protection against cross-site requests, which every request passes first.

use std::sync::{Arc, OnceLock};

use axum::extract::{Form, FromRequest, FromRequestParts, Request};
use http::request::Parts;
use http::{Extensions, HeaderMap, Method, header};

use super::ConsoleState;
use super::blocking::run_with_permit;
use super::browser_sessions::BrowserSession;
use super::error::{ConsoleError, Result};
use crate::auth::{Session, TooMuchWork, WorkPermit};
use crate::domain::{Peer, Protocol, Role};
use crate::http::{ConnectionHandle, PublicAddress, RequestBodyError, RequestSource, is_cross_origin, user_agent};
use crate::tokens::Principal;
use crate::tree::View;

/// Returns name and path of the session cookie. Over TLS the name has the prefix `__Host-`, which browsers accept only
/// from this very host over TLS and with the path `/` (RFC 6265bis section 4.1.3.2).
pub(super) fn session_cookie_name(encrypted: bool) -> (&'static str, &'static str) {
    if encrypted { ("__Host-patgate_console", "/") } else { ("patgate_console", "/console") }
}

/// Extension of a request: session of the caller, once it is authenticated.
#[derive(Clone, Debug, Default)]
pub(super) struct CallerSession(Arc<OnceLock<Session>>);

impl CallerSession {
    /// Returns the session of the caller; `None` for one who is not signed in.
    pub(super) fn get(&self) -> Option<&Session> {
        self.0.get()
    }

    fn set(&self, session: &Session) {
        // It is set already where a handler authenticates its caller twice.
        let _ = self.0.set(session.clone());
    }
}

/// A caller who is signed in, and whose token is valid at this moment.
pub(super) struct ConsoleCaller {
    /// The browser session.
    pub(super) browser_session: Arc<BrowserSession>,
    /// State that all pages share.
    pub(super) state: Arc<ConsoleState>,
    /// Public address of the server, as the browser knows it.
    pub(super) public_address: PublicAddress,
    /// Whether the browser's connection is encrypted.
    pub(super) is_encrypted: bool,
}

impl ConsoleCaller {
    /// Returns the authenticated session.
    pub(super) fn session(&self) -> &Session {
        self.browser_session.session()
    }

    /// Returns the principal that the `tokens` module authorizes.
    pub(super) fn principal(&self) -> Principal {
        Principal::Session(self.session().clone())
    }

    /// Waits for a permit for a call of the store.
    pub(super) fn light_permit(&self) -> impl Future<Output = std::result::Result<WorkPermit, TooMuchWork>> + use<> {
        let session = self.session().clone();
        async move { session.acquire_light_permit().await }
    }

    /// Waits for a permit for revoking, narrowing or disabling, which no other work delays.
    pub(super) fn revocation_permit(
        &self,
    ) -> impl Future<Output = std::result::Result<WorkPermit, TooMuchWork>> + use<> {
        let session = self.session().clone();
        async move { session.acquire_revocation_permit().await }
    }

    /// Tells whether the caller has a role, to decide what a page offers. Authorization itself is up to `tokens`.
    pub(super) fn has_role(&self, role: Role) -> bool {
        self.session().roles().is_ok_and(|roles| roles.includes(role))
    }

    /// Returns the view of the tree with the caller's access.
    pub(super) fn view(&self) -> View {
        self.state.tree.view(self.session().clone())
    }
}

/// A form with a valid CSRF token, submitted by a caller who is signed in.
pub(super) struct SubmittedForm {
    /// The caller.
    pub(super) caller: ConsoleCaller,
    /// The fields of the form.
    pub(super) fields: FormFields,
}

/// A request of this console's script with a valid CSRF token, by a caller who is signed in.
pub(super) struct ScriptRequest(pub(super) ConsoleCaller);

/// The fields of a form; empty ones count as absent.
#[derive(Clone, Debug, Default)]
pub(super) struct FormFields(Vec<(String, String)>);

impl FormFields {
    /// Returns the first non-empty value of a field, trimmed.
    pub(super) fn text<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.values(name).next()
    }

    /// Returns all non-empty values of a field, trimmed.
    pub(super) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, value)| key == name && !value.trim().is_empty()).map(|(_, value)| value.trim())
    }

    /// Returns all values of a field unchanged, empty ones too.
    pub(super) fn raw_values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Parses a field; `None` if it is absent.
    ///
    /// # Errors
    /// [`ConsoleError::InvalidForm`] with the message of the value's own parser.
    pub(super) fn parse<T>(&self, name: &str) -> Result<Option<T>>
    where
        T: std::str::FromStr,
        T::Err: std::fmt::Display,
    {
        self.text(name)
            .map(|text| text.parse().map_err(|error: T::Err| ConsoleError::InvalidForm(error.to_string())))
            .transpose()
    }
}

impl From<Vec<(String, String)>> for FormFields {
    fn from(pairs: Vec<(String, String)>) -> Self {
        Self(pairs)
    }
}

impl FromRequestParts<Arc<ConsoleState>> for ConsoleCaller {
    type Rejection = ConsoleError;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<ConsoleState>) -> Result<Self> {
        let source = request_origin(parts)?;
        let not_signed_in = || match (parts.method == Method::GET).then(|| parts.uri.clone()) {
            // Only a GET can be repeated after sign-in or from our own page; the content of a form would be lost.
            Some(next) if is_cross_site_link(&parts.headers) => ConsoleError::CrossSiteLink { next },
            next => ConsoleError::NotSignedIn { next },
        };
        let browser_session = find_browser_session(state, source, &parts.headers).await?.ok_or_else(not_signed_in)?;
        // The connection counts against its user from here on, and no longer as unauthenticated.
        ConnectionHandle::notify_authenticated(&parts.extensions, browser_session.session())?;
        browser_session.session().record_use();
        if let Some(caller_session) = parts.extensions.get::<CallerSession>() {
            caller_session.set(browser_session.session());
        }
        Ok(Self {
            public_address: public_address(&parts.extensions),
            is_encrypted: source.encrypted,
            browser_session,
            state: state.clone(),
        })
    }
}

impl FromRequestParts<Arc<ConsoleState>> for ScriptRequest {
    type Rejection = ConsoleError;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<ConsoleState>) -> Result<Self> {
        // Checked first, so that a forged request touches no session.
        require_same_origin(&parts.extensions, &parts.headers)?;
        let caller = ConsoleCaller::from_request_parts(parts, state).await?;
        let csrf_token = parts.headers.get("x-csrf-token").and_then(|value| value.to_str().ok()).unwrap_or_default();
        if caller.browser_session.is_csrf_token(csrf_token) { Ok(Self(caller)) } else { Err(ConsoleError::CrossSite) }
    }
}

impl FromRequest<Arc<ConsoleState>> for SubmittedForm {
    type Rejection = ConsoleError;

    async fn from_request(request: Request, state: &Arc<ConsoleState>) -> Result<Self> {
        require_same_origin(request.extensions(), request.headers())?;
        let (mut parts, body) = request.into_parts();
        // Before the body is read: an unauthenticated client can't make the server buffer a form.
        let caller = ConsoleCaller::from_request_parts(&mut parts, state).await?;
        let fields = read_form(Request::from_parts(parts, body)).await?;
        if caller.browser_session.is_csrf_token(fields.text("csrf").unwrap_or_default()) {
            Ok(Self { caller, fields })
        } else {
            Err(ConsoleError::CrossSite)
        }
    }
}

/// Parses a form without files.
///
/// # Errors
/// [`ConsoleError::InvalidForm`], [`ConsoleError::TooSlow`].
pub(super) async fn read_form(request: Request) -> Result<FormFields> {
    match Form::<Vec<(String, String)>>::from_request(request, &()).await {
        Ok(Form(pairs)) => Ok(FormFields(pairs)),
        Err(rejection) if RequestBodyError::is_too_slow(&rejection) => Err(ConsoleError::TooSlow),
        Err(rejection) => Err(ConsoleError::InvalidForm(rejection.body_text())),
    }
}

/// Refuses a request that a page of another origin sent.
///
/// # Errors
/// [`ConsoleError::CrossSite`].
pub(super) fn require_same_origin(extensions: &Extensions, headers: &HeaderMap) -> Result<()> {
    let source = extensions.get::<RequestSource>().copied().ok_or(ConsoleError::NotFound)?;
    if is_cross_origin(&public_address(extensions), source.encrypted, headers) {
        Err(ConsoleError::CrossSite)
    } else {
        Ok(())
    }
}

/// Tells whether a link on another site led here, in which case browsers don't send a `SameSite=Strict` cookie.
fn is_cross_site_link(headers: &HeaderMap) -> bool {
    let is = |name: &str, value: &str| headers.get(name).is_some_and(|given| given == value);
    is("sec-fetch-site", "cross-site") && is("sec-fetch-mode", "navigate") && is("sec-fetch-dest", "document")
}

/// Returns the browser session of a request's cookie, if its token is still valid.
///
/// # Errors
/// [`ConsoleError::TooMuchWork`].
pub(super) async fn find_browser_session(
    state: &ConsoleState,
    source: RequestSource,
    headers: &HeaderMap,
) -> Result<Option<Arc<BrowserSession>>> {
    let found = session_cookie(headers, source.encrypted).and_then(|cookie| state.browser_sessions.find(cookie));
    // A stolen cookie must not be worth more than the token: limits on address and user agent were checked for the peer
    // that signed in, so any other peer has to sign in itself.
    let Some(browser_session) =
        found.filter(|browser_session| peer(source, headers) == *browser_session.session().peer())
    else {
        return Ok(None);
    };
    let session = browser_session.session().clone();
    let permit_session = browser_session.session().clone();
    // The permit is one for revocations, because the form that revokes a token passes here first and must not wait for
    // other work.
    match run_with_permit(async move { permit_session.acquire_revocation_permit().await }, move || {
        Ok(session.revalidate())
    })
    .await
    {
        Ok(Ok(_)) => Ok(Some(browser_session)),
        Err(ConsoleError::TooMuchWork(error)) => Err(error.into()),
        // The token was revoked or has expired, or the store can't tell: fail closed, and end the browser session with
        // it.
        Ok(Err(_)) | Err(_) => {
            browser_session.close();
            Ok(None)
        }
    }
}

/// Returns the peer of a request, as sessions record it.
pub(super) fn peer(source: RequestSource, headers: &HeaderMap) -> Peer {
    let user_agent = user_agent(headers).map(str::to_owned);
    Peer { protocol: Protocol::Api, address: source.address, user_agent }
}

/// Returns the source of a request.
///
/// # Errors
/// [`ConsoleError::NotFound`] if the gateway did not attach it.
pub(super) fn request_origin(parts: &Parts) -> Result<RequestSource> {
    parts.extensions.get::<RequestSource>().copied().ok_or(ConsoleError::NotFound)
}

/// Returns the public address of the server.
pub(super) fn public_address(extensions: &Extensions) -> PublicAddress {
    extensions.get::<PublicAddress>().cloned().unwrap_or_default()
}

fn session_cookie(headers: &HeaderMap, encrypted: bool) -> Option<&str> {
    let (name, _) = session_cookie_name(encrypted);
    let cookie_headers = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    // HTTP/2 clients may split cookies over several header fields (RFC 9113 section 8.2.3).
    cookie_headers.flat_map(|line| line.split(';')).find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value"))).collect()
    }

    #[test]
    fn session_cookie_is_found_among_others() {
        let both = headers(&[("cookie", "a=b; patgate_console=xyz; c=d; __Host-patgate_console=abc")]);
        assert_eq!(session_cookie(&both, false), Some("xyz"));
        assert_eq!(session_cookie(&both, true), Some("abc"), "what came in the clear counts for nothing over TLS");
        assert_eq!(session_cookie(&headers(&[("cookie", "patgate_consolex=xyz; patgate=1")]), false), None);
        assert_eq!(session_cookie(&headers(&[("cookie", "patgate_console=xyz")]), true), None);
    }
}
