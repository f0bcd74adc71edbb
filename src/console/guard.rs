//! What every request passes first: who asks, and whether a page of this console does.

use std::sync::Arc;

use axum::extract::{Form, FromRequest, FromRequestParts, Request};
use http::request::Parts;
use http::{Extensions, HeaderMap, Method, header};

use super::ConsoleState;
use super::blocking::run_with_permit;
use super::browser_sessions::BrowserSession;
use super::error::{ConsoleError, Result};
use crate::auth::{Session, TooMuchWork, WorkPermit};
use crate::domain::{Peer, Protocol, Role};
use crate::http::{ConnectionHandle, PublicAddress, RequestBodyError, RequestSource, is_cross_origin};
use crate::tokens::Principal;
use crate::tree::View;

/// Returns the name of the cookie that stands for a visit, and its path. Over TLS only an answer of this very host that
/// came over TLS can have set a cookie of this name (RFC 6265bis section 4.1.3.2), which asks for the root as its path.
pub(super) fn session_cookie_name(encrypted: bool) -> (&'static str, &'static str) {
    if encrypted { ("__Host-patgate_console", "/") } else { ("patgate_console", "/console") }
}

/// A caller who is signed in, and whose token lives at this moment.
pub(super) struct ConsoleCaller {
    /// The visit.
    pub(super) browser_session: Arc<BrowserSession>,
    /// What all pages share.
    pub(super) state: Arc<ConsoleState>,
    /// The server as the browser knows it.
    pub(super) public_address: PublicAddress,
    /// Whether the browser talks to it over TLS.
    pub(super) is_encrypted: bool,
}

impl ConsoleCaller {
    /// Returns the session.
    pub(super) fn session(&self) -> &Session {
        self.browser_session.session()
    }

    /// Returns who asks, for the rooms that decide what is theirs to ask.
    pub(super) fn principal(&self) -> Principal {
        Principal::Session(self.session().clone())
    }

    /// Waits for a turn of a call of the store.
    pub(super) fn light_permit(&self) -> impl Future<Output = std::result::Result<WorkPermit, TooMuchWork>> + use<> {
        let session = self.session().clone();
        async move { session.light_turn().await }
    }

    /// Waits for a turn of ending what lets somebody in.
    pub(super) fn revocation_permit(
        &self,
    ) -> impl Future<Output = std::result::Result<WorkPermit, TooMuchWork>> + use<> {
        let session = self.session().clone();
        async move { session.revoking_turn().await }
    }

    /// Tells whether a role is the caller's, so that a page offers what it may do; what it may do is decided
    /// elsewhere.
    pub(super) fn has_role(&self, role: Role) -> bool {
        self.session().roles().is_ok_and(|roles| roles.includes(role))
    }

    /// Returns the tree as the caller may see it.
    pub(super) fn view(&self) -> View {
        self.state.tree.view(self.session().clone())
    }
}

/// A form of this console, sent by a caller who is signed in.
pub(super) struct SubmittedForm {
    /// Who sent it.
    pub(super) caller: ConsoleCaller,
    /// What stands in it.
    pub(super) fields: FormFields,
}

/// A request of this console's script, by a caller who is signed in.
pub(super) struct ScriptRequest(pub(super) ConsoleCaller);

/// The fields of a form; those left empty count as not there.
#[derive(Clone, Debug, Default)]
pub(super) struct FormFields(Vec<(String, String)>);

impl FormFields {
    /// Returns the first value of a field.
    pub(super) fn text<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.values(name).next()
    }

    /// Returns all values of a field.
    pub(super) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, value)| key == name && !value.trim().is_empty()).map(|(_, value)| value.trim())
    }

    /// Returns all values of a field as they are, empty ones too.
    pub(super) fn raw_values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Reads a field.
    ///
    /// # Errors
    /// [`ConsoleError::InvalidForm`] with what the value's own reader says.
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
            Some(next) if is_cross_site_link(&parts.headers) => ConsoleError::CrossSiteLink { next },
            next => ConsoleError::NotSignedIn { next },
        };
        let browser_session = find_browser_session(state, source, &parts.headers).await?.ok_or_else(not_signed_in)?;
        ConnectionHandle::notify_authenticated(&parts.extensions, browser_session.session())?;
        browser_session.session().record_use();
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
        let caller = ConsoleCaller::from_request_parts(&mut parts, state).await?;
        let fields = read_form(Request::from_parts(parts, body)).await?;
        if caller.browser_session.is_csrf_token(fields.text("csrf").unwrap_or_default()) {
            Ok(Self { caller, fields })
        } else {
            Err(ConsoleError::CrossSite)
        }
    }
}

/// Reads a form.
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

/// Refuses what a page of another origin sent.
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

/// Tells whether a link on another site's page led here: browsers leave a `SameSite=Strict` cookie out then.
fn is_cross_site_link(headers: &HeaderMap) -> bool {
    let is = |name: &str, value: &str| headers.get(name).is_some_and(|given| given == value);
    is("sec-fetch-site", "cross-site") && is("sec-fetch-mode", "navigate") && is("sec-fetch-dest", "document")
}

/// Returns the visit that a request's cookie stands for, while its token lives.
///
/// # Errors
/// [`ConsoleError::TooMuchWork`].
pub(super) async fn find_browser_session(
    state: &ConsoleState,
    source: RequestSource,
    headers: &HeaderMap,
) -> Result<Option<Arc<BrowserSession>>> {
    let found = session_cookie(headers, source.encrypted).and_then(|cookie| state.browser_sessions.find(cookie));
    // The cookie stands for a token, and so holds only where the token was shown.
    let Some(browser_session) =
        found.filter(|browser_session| peer(source, headers) == *browser_session.session().peer())
    else {
        return Ok(None);
    };
    let session = browser_session.session().clone();
    let permit_session = browser_session.session().clone();
    // In a turn of revoking: the form that revokes passes here first.
    match run_with_permit(async move { permit_session.revoking_turn().await }, move || Ok(session.revalidate())).await {
        Ok(Ok(_)) => Ok(Some(browser_session)),
        Err(ConsoleError::TooMuchWork(error)) => Err(error.into()),
        Ok(Err(_)) | Err(_) => {
            browser_session.close();
            Ok(None)
        }
    }
}

/// Returns who is at the door.
pub(super) fn peer(source: RequestSource, headers: &HeaderMap) -> Peer {
    let user_agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Peer { protocol: Protocol::Api, address: source.address, user_agent }
}

/// Returns where a request came from.
///
/// # Errors
/// [`ConsoleError::NotFound`] when it did not come through the gateway.
pub(super) fn request_origin(parts: &Parts) -> Result<RequestSource> {
    parts.extensions.get::<RequestSource>().copied().ok_or(ConsoleError::NotFound)
}

/// Returns the server as the browser knows it.
pub(super) fn public_address(extensions: &Extensions) -> PublicAddress {
    extensions.get::<PublicAddress>().cloned().unwrap_or_default()
}

fn session_cookie(headers: &HeaderMap, encrypted: bool) -> Option<&str> {
    let (name, _) = session_cookie_name(encrypted);
    let cookie_headers = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
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
