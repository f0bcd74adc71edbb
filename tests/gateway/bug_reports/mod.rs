//! Bugs that people have reported in public against WebDAV and SFTP servers, each replayed as the requests that showed
//! it, with the answers that the client needs.
//!
//! The documentation of a test names the software and the kind of report. Tests of one theme share a file; rules of the
//! same theme that no report was about are tested outside of this directory. `cargo test --locked --test gateway
//! bug_reports::` runs all of them.

mod git_push;
mod sftp_connections;
mod sftp_listings;
mod sftp_login;
mod sftp_paths;
mod sftp_transfers;
mod sftp_uploads;
mod unicode_names;
mod web_applications;
mod webdav_bodies;
mod webdav_early_close;
mod webdav_editors;
mod webdav_listings;
mod webdav_logins;
mod webdav_proxies;
mod webdav_sync;
mod webdav_urls;
mod webdav_validators;

use crate::support::open_flags::{APPEND, CREATE, EXCLUSIVE, READ, REPLACE, TRUNCATE, WRITE};
use crate::support::{DavClient, Fixture, HttpResponse, status_code};

/// SSH_FX_ codes of STATUS.
const STATUS_EOF: u32 = 1;
const NO_SUCH_FILE: u32 = 2;
const PERMISSION_DENIED: u32 = 3;
const FAILURE: u32 = 4;
const UNSUPPORTED: u32 = 8;

const LOCK_BODY: &str = "<D:lockinfo xmlns:D='DAV:'><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/>\
                    </D:locktype><D:owner>someone</D:owner></D:lockinfo>";

/// A gateway, and a WebDAV client of a user who may write everywhere.
async fn start_with_alice() -> (Fixture, DavClient) {
    let gateway = Fixture::start().await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let dav = gateway.dav("alice", &token);
    (gateway, dav)
}

/// Sends a request without credentials.
async fn send_unauthenticated(gateway: &Fixture, method: &str, path: &str, headers: &[(&str, &str)]) -> HttpResponse {
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build();
    let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
    let mut request = client.expect("a client").request(method, format!("http://{}{path}", gateway.http));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.expect("an answer");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    HttpResponse { status, headers, body: response.bytes().await.expect("a body").to_vec() }
}

/// Requests properties of one resource, given as XML elements.
async fn propfind(dav: &DavClient, path: &str, names: &str) -> String {
    let body = format!("<propfind xmlns='DAV:'><prop>{names}</prop></propfind>");
    let answer = dav.send("PROPFIND", path, &[("depth", "0")], body).await;
    assert_eq!(answer.status, 207, "{path}: {}", answer.text());
    answer.text()
}

/// The text of the first element of a name, whatever its prefix, with `&quot;` as it reads.
fn element(xml: &str, name: &str) -> String {
    let rest = xml.split_once(&format!("{name}>")).map(|(_, rest)| rest).unwrap_or_default();
    rest.split('<').next().unwrap_or_default().replace("&quot;", "\"")
}
