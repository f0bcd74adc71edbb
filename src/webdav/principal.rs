//! Principal of the user, at the URL that `current-user-principal` names and that sync clients construct themselves.

use http::Response;

use super::client_root::ClientRoot;
use super::error::Result;
use super::{multistatus, read_small_body, xml};
use crate::domain::Login;
use crate::http::{PublicAddress, RequestBody, ResponseBody, full};

/// Handles PROPFIND on the principal of the user (RFC 3744 section 4), always with all its properties.
///
/// # Errors
/// As [`read_small_body`].
pub(super) async fn propfind_principal(
    server: &PublicAddress,
    login: &Login,
    body: &mut RequestBody,
) -> Result<Response<ResponseBody>> {
    // Read for its limit only: the few properties are always all sent.
    read_small_body(body, xml::XML_BODY_MAX_BYTES).await?;
    let href = ClientRoot::principal_href(server, login);
    let mut out = multistatus::start();
    out += &format!("<D:response><D:href>{href}</D:href><D:propstat><D:prop><D:displayname>");
    xml::escape(login.as_str(), &mut out);
    out += &format!(
        "</D:displayname><D:resourcetype><D:principal/></D:resourcetype>\
         <D:principal-URL><D:href>{href}</D:href></D:principal-URL>\
         <D:current-user-principal><D:href>{href}</D:href></D:current-user-principal>\
         </D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>\n"
    );
    out.push_str(multistatus::MULTISTATUS_END);
    Ok(multistatus::response(full(out)))
}
