//! WebDAV (RFC 4918, class 1, 2 and 3): HTTP verbs in terms of a [`crate::tree::View`].
//!
//! Every request passes one guard first: [`call`] proves the caller and reads the path, the destination,
//! the conditions and the lock tokens; a verb is a file that turns them into one operation of the view;
//! [`error`] turns what was refused into a status, last. What blocks runs off the runtime, in one step
//! where one is enough, and long answers are made while they are sent ([`crate::http::streamed`]).

mod address;
mod begun;
mod call;
mod checksum;
mod chunks;
mod cloud;
mod conditions;
mod date;
mod error;
mod etag;
mod fields;
mod folder;
mod get;
mod if_header;
mod lock;
mod multistatus;
mod page;
mod part;
mod pour;
mod propfind;
mod proppatch;
mod put;
mod range;
mod report;
mod resume;
mod streak;
mod transfer;
mod uploads;
mod verb;
mod weight;
mod xml;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use http_body_util::BodyExt;
use hyper::body::Body as _;

use self::address::Other;
use self::call::Call;
use self::chunks::Around;
use self::error::{Asked, Error, Result};
use self::streak::Streak;
use self::uploads::Uploads;
use self::verb::Verb;
use crate::auth::{Authenticator, Session};
use crate::domain::UploadSpaces;
use crate::http::{
    AuthenticatedSession, PublicAddress, RequestBody, RequestSource, ResponseBody, empty, has_content_coding,
};
use crate::tree::Tree;

/// What clients may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WebdavOptions {
    /// The most entries of a listing of infinite depth.
    pub deep_listing: usize,
    /// How much unfinished uploads may hold.
    pub uploads: UploadSpaces,
}

impl Default for WebdavOptions {
    fn default() -> Self {
        Self { deep_listing: 10_000, uploads: UploadSpaces::default() }
    }
}

/// Answers `/dav/` and `/node/UUID/`; clones share all state.
#[derive(Clone)]
pub struct Webdav {
    tree: Tree,
    auth: Authenticator,
    options: WebdavOptions,
    uploads: Uploads,
    streak: Streak,
}

impl Webdav {
    /// Serves a tree to callers that `auth` proves.
    pub fn new(tree: Tree, auth: Authenticator, options: WebdavOptions) -> Self {
        let uploads = Uploads::new(tree.clone(), options.uploads, auth.clock().clone());
        uploads.sweep_now_and_then();
        Self { tree, auth, options, uploads, streak: Streak::default() }
    }

    /// Tells whether a path belongs to this room: to the tree, or to an upload into it. `/davx` does not.
    pub fn serves(path: &str) -> bool {
        let within =
            |prefix| path.strip_prefix(prefix).is_some_and(|rest: &str| rest.is_empty() || rest.starts_with('/'));
        ["/dav", "/node", "/upload", "/remote.php/dav", "/remote.php/webdav"].into_iter().any(within)
    }

    /// Answers one request.
    pub async fn answer(&self, request: Request<RequestBody>, origin: RequestSource) -> Response<ResponseBody> {
        let (head, mut body) = request.into_parts();
        let verb = Verb::of(&head.method);
        let mut response = if is_asked_by_strangers(verb, &head.headers) {
            options()
        } else {
            match call::admit(&self.auth, &head, origin).await {
                Ok(session) => {
                    let mut response = self.serve(verb, head, &mut body, session.clone()).await;
                    response.extensions_mut().insert(AuthenticatedSession(session));
                    response
                }
                Err(error) => error.into_response(Asked { verb, place: None, folder: false }),
            }
        };
        stamp(response.headers_mut());
        response
    }

    async fn serve(
        &self,
        verb: Option<Verb>,
        head: Parts,
        body: &mut RequestBody,
        session: Session,
    ) -> Response<ResponseBody> {
        let Some(verb) = verb else {
            return unanswered(&head).into_response(Asked { verb, place: None, folder: false });
        };
        if !body.is_end_stream() && has_content_coding(&head.headers) {
            return Error::Encoded.into_response(Asked { verb: Some(verb), place: None, folder: false });
        }
        if verb == Verb::Options {
            session.record_use();
            return options();
        }
        let head = match self.beside(verb, head, body, &session).await {
            Ok(Beside::Answered(response)) => {
                session.record_use();
                return response;
            }
            Ok(Beside::Tree(head)) => head,
            Err(error) => return error.into_response(Asked { verb: Some(verb), place: None, folder: false }),
        };
        let call = match Call::new(verb, head, &self.tree, session.clone(), self.auth.now()).await {
            Ok(call) => call,
            Err(error) => return error.into_response(Asked { verb: Some(verb), place: None, folder: false }),
        };
        let result = match verb {
            // Answered above, whatever the path is: the answer tells nothing of it.
            Verb::Options => Ok(options()),
            Verb::Get | Verb::Head => get::answer(&call).await,
            Verb::Put if call.headers.contains_key("upload-complete") => {
                resume::begin(&call, body, &self.uploads, &self.streak).await
            }
            Verb::Post if !call.headers.contains_key("upload-complete") => Err(Error::NotAllowed(verb::IN_TREE)),
            Verb::Post => resume::begin(&call, body, &self.uploads, &self.streak).await,
            Verb::Put => put::answer(&call, body, &self.streak).await,
            Verb::Patch => put::patch(&call, body).await,
            Verb::Delete => folder::delete(&call).await,
            Verb::Mkcol => folder::make(&call, body).await,
            Verb::Propfind => propfind::answer(&call, body, self.options).await,
            Verb::Report => report::answer(&call, body).await,
            Verb::Proppatch => proppatch::answer(&call, body).await,
            Verb::Copy | Verb::Move => transfer::answer(&call).await,
            Verb::Lock => lock::lock(&call, body).await,
            Verb::Unlock => lock::unlock(&call).await,
        };
        match result {
            Ok(response) => {
                session.record_use();
                response
            }
            Err(error) => {
                let folder = call.names_folder(&error).await;
                error.into_response(Asked { verb: Some(verb), place: Some((&call.mount, &call.path)), folder })
            }
        }
    }
}

/// What a request is for that may lie beside the tree.
enum Beside {
    /// Something else, which was answered.
    Answered(Response<ResponseBody>),
    /// The tree.
    Tree(Parts),
}

impl Webdav {
    /// Answers what lies beside the tree: unfinished uploads, and who the caller is.
    async fn beside(&self, verb: Verb, head: Parts, body: &mut RequestBody, session: &Session) -> Result<Beside> {
        let (path, now) = (head.uri.path(), self.auth.now());
        let around = || Around { tree: &self.tree, uploads: &self.uploads, session: session.clone(), now };
        if path.starts_with("/upload/") {
            return resume::answer(verb, &head, body, around()).await.map(Beside::Answered);
        }
        match Other::parse(path.as_bytes(), session.login())? {
            Some(Other::Upload(place)) => {
                chunks::answer(verb, &place, head, body, around()).await.map(Beside::Answered)
            }
            Some(Other::Principal) if verb == Verb::Propfind => {
                let server = head.extensions.get::<PublicAddress>().cloned().unwrap_or_default();
                cloud::principal(&server, session.login(), body).await.map(Beside::Answered)
            }
            Some(Other::Principal) => Err(Error::NotAllowed(verb::FOR_PRINCIPAL)),
            None => Ok(Beside::Tree(head)),
        }
    }
}

/// Tells whether a request is one of those that clients make before they log in: OPTIONS, and the HEAD by which
/// Microsoft Office looks for a document that Explorer has opened. Office then sends no credential, or the word
/// `Bearer` and none behind it, and asks for a password where that is refused (nextcloud/server pull request 19180).
fn is_asked_by_strangers(verb: Option<Verb>, headers: &HeaderMap) -> bool {
    let said = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes().trim_ascii());
    let agent = headers.get(header::USER_AGENT).map(HeaderValue::as_bytes).unwrap_or_default();
    let asks = match verb {
        Some(Verb::Options) => true,
        Some(Verb::Head) => agent.starts_with(b"Microsoft Office"),
        _ => false,
    };
    asks && said.is_none_or(|said| said.eq_ignore_ascii_case(b"bearer"))
}

/// Returns the answer to OPTIONS: the same for every path and caller, so that it tells nothing.
fn options() -> Response<ResponseBody> {
    let mut response = Response::new(empty());
    let headers = response.headers_mut();
    headers.insert("dav", HeaderValue::from_static("1, 2, 3, extended-mkcol, sabredav-partialupdate"));
    headers.insert("ms-author-via", HeaderValue::from_static("DAV"));
    headers.insert(header::ALLOW, HeaderValue::from_static(verb::IN_TREE));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(
        "accept-patch",
        HeaderValue::from_static("application/x-sabredav-partialupdate, application/partial-upload"),
    );
    get::set(headers, HeaderName::from_static("upload-limit"), resume::limits(None));
    response
}

fn unanswered(head: &Parts) -> Error {
    let known = ["TRACE", "CONNECT", "SEARCH", "ACL", "BIND", "MKCALENDAR", "ORDERPATCH"];
    if known.contains(&head.method.as_str()) { Error::NotAllowed(verb::IN_TREE) } else { Error::UnknownMethod }
}

/// Keeps a stored page from acting in this server's name, and a browser from guessing types.
fn stamp(headers: &mut HeaderMap) {
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static("sandbox"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// Reads a body of XML; `limit` is as much as is taken of it.
///
/// # Errors
/// [`Error::TooLong`] past the limit, [`Error::Cut`] when it ends before its end, [`Error::TooSlow`].
async fn small_body(body: &mut RequestBody, limit: usize) -> Result<Vec<u8>> {
    if body.size_hint().lower() > limit as u64 {
        return Err(Error::TooLong);
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if bytes.len() + data.len() > limit {
            return Err(Error::TooLong);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}
