//! Things are done by a server, over its REST API, in the name of the token in `PATGATE_TOKEN`.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderValue, LINK};
use reqwest::{Certificate, Method, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

use super::super::{Failure, Result};
use super::{Desk, PAGE, nothing_at};
use crate::api::types::{
    CreateGrantRequest, CreateTokenRequest, CreateUserRequest, CreatedUserResponse, EventResponse, ExplainRequest,
    ExplainResponse, NodePermission, NodeResponse, PolicyResponse, ProblemDetails, RevokeTokensRequest,
    RevokedTokensResponse, RotateTokenRequest, TextValue, TokenResponse, TokenWithSecret, UpdatePolicyRequest,
    UpdateTokenRequest, UpdateUserRequest, UserResponse,
};
use crate::domain::{AccessQuery, Lifetime, Login, NodeId, PolicySetting, Roles, TokenId, TreePath};
use crate::net::{self, TlsFailure};
use crate::store::{EventCursor, EventFilter};
use crate::tokens::{self, Grant, GrantTarget, NarrowRequest, StateFilter, TokenRequest, UserRequest};

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server.
pub(in crate::cli) struct There {
    client: reqwest::Client,
    runtime: Runtime,
    base: Url,
    token: Zeroizing<String>,
}

/// How a server is reached.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::cli) struct Way<'a> {
    /// The authority that is trusted for it, and no other; unless told, those that this machine trusts.
    pub(in crate::cli) ca_file: Option<&'a Path>,
    /// Whether the token may travel unencrypted.
    pub(in crate::cli) cleartext: bool,
}

impl There {
    /// Takes a server's address (`https://host:port`) and a token. Over cleartext nothing is sent to another
    /// machine unless that is asked for.
    pub(in crate::cli) fn new(server: &str, token: Option<String>, way: Way<'_>) -> Result<Self> {
        let base = address(server, way.cleartext)?;
        let token = token.map(|token| Zeroizing::new(token.trim().to_owned())).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| {
            Failure::new("PATGATE_TOKEN is not set")
                .hint("set it to a token of the server's: export PATGATE_TOKEN=pgt_…")
        })?;
        net::install_default_crypto_provider();
        let agent = concat!("patgate/", env!("CARGO_PKG_VERSION"));
        let client = reqwest::Client::builder().user_agent(agent).timeout(PATIENCE).no_proxy();
        let client = match way.ca_file {
            Some(file) => client.tls_certs_only(authorities(file)?),
            // Where nothing is encrypted no authority is needed, and a machine may have none.
            None if base.scheme() == "http" => client.tls_certs_only([]),
            None => client,
        };
        let client = client.redirect(reqwest::redirect::Policy::none()).build().map_err(|error| {
            Failure::new(format!("TLS can't be used here: {}", innermost(&error))).hint(
                "install the authorities that the system trusts (ca-certificates), or name the server's: --ca-file FILE",
            )
        })?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { client, runtime, base, token })
    }

    /// Sends a request and returns the answer, or the problem that the server has with it.
    fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<std::result::Result<Answer, ProblemDetails>> {
        let url = format!("{}/api/v1{path}", self.base.as_str().trim_end_matches('/'));
        let mut request = self.client.request(method, url).bearer_auth(self.token.as_str());
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        self.runtime.block_on(async {
            let response = request.send().await.map_err(|error| self.unanswered(&error))?;
            let (status, next) = (response.status(), next_page(&response));
            let json = response.headers().get(CONTENT_TYPE).is_some_and(is_json);
            let body = response.bytes().await.map_err(|error| self.unanswered(&error))?;
            if status.is_success() {
                return Ok(Ok(Answer { body: body.to_vec(), next }));
            }
            match serde_json::from_slice(&body) {
                Ok(problem) if json => Ok(Err(problem)),
                _ => {
                    Err(Failure::new(format!("{} answered {status}", self.base))
                        .hint("is it a patgate server's address?"))
                }
            }
        })
    }

    /// Sends a request and returns the answer, when it is a good one.
    fn send(&self, method: Method, path: &str, body: Option<String>) -> Result<Answer> {
        self.ask(method, path, body)?.map_err(|problem| Failure::from(&problem))
    }

    /// Returns one thing; `None` where there is no such node, or none that may be seen.
    fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>> {
        match self.ask(Method::GET, path, None)? {
            Ok(answer) => answer.read().map(Some),
            Err(problem) if problem.type_name() == "unknown-node" => Ok(None),
            Err(problem) => Err(Failure::from(&problem)),
        }
    }

    /// Says why there was no answer; nothing of it holds a secret.
    fn unanswered(&self, error: &reqwest::Error) -> Failure {
        let base = &self.base;
        if let Some(TlsFailure { problem: fault, remedy }) = TlsFailure::find_in(error) {
            return Failure::new(format!("{base} {fault}")).hint(remedy);
        }
        if error.is_timeout() {
            return Failure::new(format!("{base} did not answer within {} s", PATIENCE.as_secs())).hint("try again");
        }
        if error.is_connect() {
            return Failure::new(format!("{base} can't be reached: {}", innermost(error)))
                .hint("is the server running, and is this its address? (--server URL)");
        }
        Failure::new(format!("{base} does not answer as HTTP has it: {}", innermost(error)))
            .hint("a server with certificates is asked at https://")
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.send(Method::GET, path, None)?.read()
    }

    fn tell<T: DeserializeOwned>(&self, method: Method, path: &str, body: &impl Serialize) -> Result<T> {
        let body = serde_json::to_string(body).map_err(|error| Failure::new(error.to_string()))?;
        self.send(method, path, Some(body))?.read()
    }

    fn change_user(&self, login: &Login, change: &UpdateUserRequest) -> Result {
        self.tell::<UserResponse>(Method::PATCH, &at(login), change).map(drop)
    }

    fn delete(&self, path: &str) -> Result {
        self.send(Method::DELETE, path, None).map(drop)
    }

    /// Reads a list to its end.
    fn all<T: DeserializeOwned>(&self, path: &str, query: &[(&str, String)]) -> Result<Vec<T>> {
        let mut whole = Vec::new();
        let mut next = Some(format!("{path}{}", asked(query)));
        while let Some(path) = next {
            let mut answer = self.send(Method::GET, &path, None)?;
            next = answer.next.take();
            whole.extend(answer.read::<Vec<T>>()?);
        }
        Ok(whole)
    }
}

/// A good answer.
struct Answer {
    body: Vec<u8>,
    /// Where the next page of a list is, below the base.
    next: Option<String>,
}

impl Answer {
    fn read<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Failure::new(format!("the server's answer can't be read: {error}")).hint("is it of the same version?")
        })
    }
}

impl Desk for There {
    fn caller(&self) -> Result<Option<Login>> {
        Ok(Some(self.get::<TokenResponse>("/tokens/self")?.owner))
    }

    fn create_token(&self, request: TokenRequest) -> Result<TokenWithSecret> {
        self.tell(Method::POST, "/tokens", &CreateTokenRequest::from_token_request(&request))
    }

    fn token(&self, id: TokenId) -> Result<TokenResponse> {
        self.get(&format!("/tokens/{id}"))
    }

    fn tokens(&self, owner: Option<&Login>, state: Option<StateFilter>) -> Result<Vec<TokenResponse>> {
        let state = state.map(|state| match state {
            StateFilter::Live => "live",
            StateFilter::Expired => "expired",
            StateFilter::Revoked => "revoked",
            StateFilter::Dangling => "dangling",
        });
        let mut query = vec![("limit", PAGE.to_string())];
        query.extend(owner.map(|owner| ("owner", owner.to_string())));
        query.extend(state.map(|state| ("state", state.to_owned())));
        self.all("/tokens", &query)
    }

    fn revoke(&self, ids: &[TokenId]) -> Result {
        // Not looked up first: the role to revoke tokens is enough without the one to look them up.
        match ids {
            [id] => self.delete(&format!("/tokens/{id}")),
            ids => {
                let order = RevokeTokensRequest { ids: ids.to_vec() };
                let body = serde_json::to_string(&order).map_err(|error| Failure::new(error.to_string()))?;
                self.send(Method::POST, "/tokens/revoke", Some(body)).map(drop)
            }
        }
    }

    fn revoke_all(&self, owner: &Login) -> Result<usize> {
        let answer = self.send(Method::DELETE, &format!("/users/{}/tokens", encoded(owner.as_str())), None)?;
        Ok(answer.read::<RevokedTokensResponse>()?.revoked)
    }

    fn narrow(&self, id: TokenId, change: &NarrowRequest) -> Result<TokenResponse> {
        self.tell(Method::PATCH, &format!("/tokens/{id}"), &UpdateTokenRequest::from_narrowing(change))
    }

    fn rotate(&self, id: TokenId, grace: Option<Lifetime>) -> Result<TokenWithSecret> {
        self.tell(Method::POST, &format!("/tokens/{id}/rotate"), &RotateTokenRequest { grace: grace.map(TextValue) })
    }

    fn create_user(&self, request: &UserRequest) -> Result<CreatedUserResponse> {
        self.tell(Method::POST, "/users", &CreateUserRequest::from_user_request(request))
    }

    fn users(&self) -> Result<Vec<UserResponse>> {
        self.all("/users", &[("limit", PAGE.to_string())])
    }

    fn user(&self, login: &Login) -> Result<UserResponse> {
        self.get(&at(login))
    }

    fn disable(&self, login: &Login, disabled: bool) -> Result {
        self.change_user(login, &UpdateUserRequest { disabled: Some(disabled), roles: None })
    }

    fn set_roles(&self, login: &Login, roles: &Roles) -> Result {
        self.change_user(login, &UpdateUserRequest { disabled: None, roles: Some(roles.clone()) })
    }

    fn delete_user(&self, login: &Login) -> Result {
        self.delete(&at(login))
    }

    fn grants(&self, login: &Login) -> Result<Vec<NodePermission>> {
        self.get(&format!("{}/grants", at(login)))
    }

    fn grant(&self, login: &Login, grant: &Grant) -> Result {
        let path = format!("{}/grants", at(login));
        self.tell::<NodePermission>(Method::POST, &path, &CreateGrantRequest::from(grant)).map(drop)
    }

    fn revoke_grant(&self, login: &Login, place: &GrantTarget) -> Result {
        let node = match place {
            GrantTarget::Node(node) => Some(*node),
            GrantTarget::Path(path) => {
                let path = path.to_string();
                let grants = self.grants(login)?;
                grants.iter().find(|grant| grant.path.as_ref() == Some(&path)).map(|grant| grant.node)
            }
        };
        let missing = || tokens::Error::GrantNotFound { login: login.clone(), place: place.to_string() };
        self.delete(&format!("{}/grants/{}", at(login), node.ok_or_else(missing)?))
    }

    fn node_at(&self, path: &TreePath) -> Result<NodeResponse> {
        let found = self.find::<Vec<NodeResponse>>(&format!("/nodes{}", asked(&[("path", path.to_string())])))?;
        found.into_iter().flatten().next().ok_or_else(|| nothing_at(path))
    }

    fn node(&self, id: NodeId) -> Result<NodeResponse> {
        Ok(self.find(&format!("/nodes/{id}"))?.ok_or(tokens::Error::UnknownNode(id))?)
    }

    fn nodes(&self, under: &TreePath) -> Result<Vec<NodeResponse>> {
        self.all("/nodes", &[("under", under.to_string()), ("limit", PAGE.to_string())])
    }

    fn policy(&self) -> Result<PolicyResponse> {
        self.get("/policy")
    }

    fn set_policy(&self, setting: PolicySetting) -> Result<PolicyResponse> {
        self.tell(Method::PATCH, "/policy", &UpdatePolicyRequest::from_setting(setting))
    }

    fn events(&self, filter: &EventFilter, cursor: EventCursor, limit: usize) -> Result<Vec<EventResponse>> {
        let mut query = vec![("limit", limit.to_string())];
        query.extend(filter.since.map(|since| ("since", since.to_string())));
        query.extend(filter.user.as_ref().map(|user| ("user", user.to_string())));
        query.extend(filter.token.map(|token| ("token", token.to_string())));
        query.extend(filter.kind.map(|kind| ("event", kind.to_string())));
        match cursor {
            EventCursor::Latest => {}
            EventCursor::Before(id) => query.push(("cursor", id.to_string())),
            EventCursor::After(id) => query.push(("after", id.to_string())),
        }
        self.get(&format!("/audit{}", asked(&query)))
    }

    fn explain(&self, token: TokenId, question: &AccessQuery) -> Result<ExplainResponse> {
        self.tell(Method::POST, "/explain", &ExplainRequest::from_query(token, question))
    }
}

fn at(login: &Login) -> String {
    format!("/users/{}", encoded(login.as_str()))
}

/// Writes a query, the `?` included.
fn asked(query: &[(&str, String)]) -> String {
    let pairs: Vec<_> = query.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

/// Percent-encodes all that could mean something in an address (RFC 3986).
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~' | b'/' => out.push(byte.into()),
            other => {
                let _ = write!(out, "%{other:02X}");
            }
        }
        out
    })
}

fn next_page(response: &Response) -> Option<String> {
    let link = response.headers().get(LINK)?.to_str().ok()?;
    let (address, _) = link.strip_prefix('<')?.split_once(">; rel=\"next\"")?;
    address.strip_prefix("/api/v1").map(str::to_owned)
}

fn is_json(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(|value| value.ends_with("json"))
}

/// Reads a server's address.
fn address(server: &str, cleartext: bool) -> Result<Url> {
    let example = "give one such as https://host:8443";
    let base: Url =
        server.parse().map_err(|_| Failure::usage(format!("{server:?} is no address of a server")).hint(example))?;
    if !base.username().is_empty() || base.password().is_some() {
        return Err(Failure::usage("the address of a server holds no user name or password")
            .hint("leave them out, and set PATGATE_TOKEN to a token of the server's"));
    }
    let host = base.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let here = host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match base.scheme() {
        "https" => Ok(base),
        "http" if here || cleartext => Ok(base),
        "http" => Err(Failure::new(format!("{base} is not encrypted: anybody on the way could read the token"))
            .hint("give an https:// address, or --cleartext where the way is safe")),
        _ => Err(Failure::usage(format!("{base} is neither https:// nor http://")).hint(example)),
    }
}

/// Reads the authorities to trust.
pub(in crate::cli) fn authorities(file: &Path) -> Result<Vec<Certificate>> {
    let unusable = |why: String| {
        Failure::new(format!("the authority in {} can't be used: {why}", file.display()))
            .hint("--ca-file (PATGATE_CA_FILE) names a file of certificates in PEM: -----BEGIN CERTIFICATE-----")
    };
    let pem = fs::read(file).map_err(|error| unusable(error.to_string()))?;
    let found = Certificate::from_pem_bundle(&pem).map_err(|error| unusable(innermost(&error)))?;
    if found.is_empty() { Err(unusable("it holds no certificate".to_owned())) } else { Ok(found) }
}

/// Returns the cause at the bottom of an error.
pub(in crate::cli) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source()).last().unwrap_or(error).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_sent_in_the_clear_to_this_machine_alone() {
        let way = |cleartext| Way { cleartext, ..Way::default() };
        let refused = |server, cleartext| There::new(server, Some("pgt_x".to_owned()), way(cleartext)).is_err();
        for server in ["http://127.0.0.1:8080", "http://[::1]:8080", "http://localhost", "https://files.example.org"] {
            assert!(!refused(server, false), "{server}");
        }
        for server in [
            "http://192.0.2.1",
            "http://localhost.example.org",
            "ftp://127.0.0.1",
            "files.example.org",
            "http://u:p@localhost",
        ] {
            assert!(refused(server, false), "{server}");
        }
        assert!(!refused("http://192.0.2.1", true) && refused("ftp://127.0.0.1", true));
        assert!(There::new("http://127.0.0.1", None, way(false)).is_err());
    }

    #[test]
    fn what_means_something_in_an_address_is_encoded() {
        assert_eq!(asked(&[("path", "/a b/é&?".to_owned())]), "?path=/a%20b/%C3%A9%26%3F");
        assert_eq!(asked(&[]), "");
        assert_eq!(encoded("a@b+c"), "a%40b%2Bc");
    }
}
