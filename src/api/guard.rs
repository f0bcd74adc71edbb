//! What every request passes first: the caller is proven, and noted on the answer.

use axum::Extension;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, header};

use super::{Result, Room};
use crate::auth::{Refusal, Session};
use crate::domain::{Peer, Protocol};
use crate::http::{Origin, Proven, credential};

/// Proves the caller, or refuses; whatever is answered is kept by nobody.
pub(super) async fn guard(
    State(room): State<Room>,
    Extension(origin): Extension<Origin>,
    mut request: Request,
    next: Next,
) -> Result<Response> {
    let session = admit(&room, request.headers(), origin).await?;
    request.extensions_mut().insert(session.clone());
    let mut response = next.run(request).await;
    if !response.status().is_client_error() {
        session.used();
    }
    response.extensions_mut().insert(Proven(session));
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

/// Proves the caller of a request.
///
/// # Errors
/// [`super::Error::Denied`]; the same for a credential that is missing, unreadable or wrong.
async fn admit(room: &Room, headers: &HeaderMap, origin: Origin) -> Result<Session> {
    let credential = credential(headers).ok_or(Refusal::Denied)?;
    let user_agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let peer = Peer { protocol: Protocol::Api, address: origin.address, user_agent };
    Ok(room.auth.authenticate(credential, peer).await?)
}
