//! Who a caller is, at the address that `current-user-principal` names and that sync clients build themselves.

use http::Response;

use super::address::Mount;
use super::error::Result;
use super::{multistatus, small_body, xml};
use crate::domain::Login;
use crate::http::{PublicAddress, RequestBody, ResponseBody, full};

/// Answers PROPFIND on a caller's own principal (RFC 3744 section 4), always with all there is to tell.
///
/// # Errors
/// As [`small_body`].
pub(super) async fn principal(
    server: &PublicAddress,
    login: &Login,
    body: &mut RequestBody,
) -> Result<Response<ResponseBody>> {
    small_body(body, xml::MAX_BODY).await?;
    let href = Mount::principal(server, login);
    let mut out = String::from(multistatus::HEAD);
    out += &format!("<D:response><D:href>{href}</D:href><D:propstat><D:prop><D:displayname>");
    xml::escape(login.as_str(), &mut out);
    out += &format!(
        "</D:displayname><D:resourcetype><D:principal/></D:resourcetype>\
         <D:principal-URL><D:href>{href}</D:href></D:principal-URL>\
         <D:current-user-principal><D:href>{href}</D:href></D:current-user-principal>\
         </D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>\n"
    );
    out.push_str(multistatus::TAIL);
    Ok(multistatus::response(full(out)))
}
