//! The backend that calls the REST API of a server with the token in `PATGATE_TOKEN`.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use percent_encoding::{AsciiSet, utf8_percent_encode};
use reqwest::header::{CONTENT_TYPE, HeaderValue, LINK};
use reqwest::{Certificate, Method, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

use super::super::{CommandError, Result};
use super::{ENTRIES_PER_REQUEST, ManagementBackend, no_such_path};
use crate::api::types::{
    BanResponse, CreateBanRequest, CreateGrantRequest, CreateUserRequest, CreatedUserResponse, EventResponse,
    ExplainRequest, ExplainResponse, NodeResponse, PolicyResponse, ProblemDetails, RevokeTokensRequest,
    RevokedTokensResponse, RotateTokenRequest, TokenWithSecret, UpdatePolicyRequest, UpdateUserRequest, UserResponse,
};
use crate::domain::{
    ALL_BUT_UNRESERVED, AccessQuery, BannedNetwork, ByteSize, Login, NodeId, PolicySetting, Roles, TokenId, TreePath,
};
use crate::net::{self, TlsFailure};
use crate::store::{ChainPage, EventCursor, EventFilter, LocatedScope, TokenRecord};
use crate::tokens::{
    self, BanRequest, Grant, GrantTarget, NarrowRequest, Rotation, StateFilter, TokenRequest, UserRequest,
};

/// Timeout of a request.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// The backend of a server.
pub(in crate::cli) struct RemoteBackend {
    client: reqwest::Client,
    runtime: Runtime,
    base: Url,
    token: Zeroizing<String>,
}

/// Options of the connection to a server.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::cli) struct RemoteOptions<'a> {
    /// File with the only certificate authority to trust; by default those that the system trusts.
    pub(in crate::cli) ca_file: Option<&'a Path>,
    /// Whether the token may be sent unencrypted.
    pub(in crate::cli) allow_cleartext: bool,
}

impl RemoteBackend {
    /// Creates the backend of the server at a URL (`https://host:port`). Without `allow_cleartext`, `http://` is
    /// accepted for loopback addresses only.
    pub(in crate::cli) fn new(server: &str, token: Option<String>, options: RemoteOptions<'_>) -> Result<Self> {
        let base = parse_server_url(server, options.allow_cleartext)?;
        // White space around a pasted token is ignored, as the server does.
        let token = token.map(|token| Zeroizing::new(token.trim().to_owned())).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| {
            CommandError::new("PATGATE_TOKEN is not set")
                .with_hint("set it to a token of the server: export PATGATE_TOKEN=pgt_…")
        })?;
        net::install_default_crypto_provider();
        let agent = concat!("patgate/", env!("CARGO_PKG_VERSION"));
        // No proxy from the environment: it would receive the token of cleartext requests.
        let client = reqwest::Client::builder().user_agent(agent).timeout(RESPONSE_TIMEOUT).no_proxy();
        let client = match options.ca_file {
            Some(file) => client.tls_certs_only(read_ca_certificates(file)?),
            // Cleartext needs no authorities, and loading those of the system fails on a machine that has none.
            None if base.scheme() == "http" => client.tls_certs_only([]),
            None => client,
        };
        // No redirects: requests and their token go to the named server only.
        let client = client.redirect(reqwest::redirect::Policy::none()).build().map_err(|error| {
            CommandError::new(format!("TLS can't be used here: {}", root_cause(&error))).with_hint(
                "install the certificate authorities of the system (ca-certificates), or name that of the server: --ca-file FILE",
            )
        })?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { client, runtime, base, token })
    }

    /// Sends a request, and returns the response or the problem that the server reports.
    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<std::result::Result<RestResponse, ProblemDetails>> {
        let url = format!("{}/api/v1{path}", self.base.as_str().trim_end_matches('/'));
        let mut request = self.client.request(method, url).bearer_auth(self.token.as_str());
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        self.runtime.block_on(async {
            let response = request.send().await.map_err(|error| self.connection_error(&error))?;
            let (status, next) = (response.status(), next_page_path(&response));
            let json = response.headers().get(CONTENT_TYPE).is_some_and(is_json);
            let body = response.bytes().await.map_err(|error| self.connection_error(&error))?;
            if status.is_success() {
                return Ok(Ok(RestResponse { body: body.to_vec(), next_page: next }));
            }
            match serde_json::from_slice(&body) {
                // Anything else is not an answer of patgate, such as the error page of a proxy.
                Ok(problem) if json => Ok(Err(problem)),
                _ => Err(CommandError::new(format!("{} answered {status}", self.base))
                    .with_hint("check that this is the address of a patgate server")),
            }
        })
    }

    /// Sends a request, and returns the response; a problem becomes an error.
    fn request_success(&self, method: Method, path: &str, body: Option<String>) -> Result<RestResponse> {
        self.request(method, path, body)?.map_err(|problem| CommandError::from(&problem))
    }

    /// Returns a resource; `None` if the node does not exist or may not be seen.
    fn get_optional<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>> {
        match self.request(Method::GET, path, None)? {
            Ok(answer) => answer.parse_json().map(Some),
            Err(problem) if problem.type_name() == "unknown-node" => Ok(None),
            Err(problem) => Err(CommandError::from(&problem)),
        }
    }

    /// Converts an error of the connection. Its message holds no secret.
    fn connection_error(&self, error: &reqwest::Error) -> CommandError {
        let base = &self.base;
        if let Some(TlsFailure { problem: tls_problem, remedy }) = TlsFailure::find_in(error) {
            return CommandError::new(format!("{base} {tls_problem}")).with_hint(remedy);
        }
        if error.is_timeout() {
            return CommandError::new(format!("{base} did not answer within {} s", RESPONSE_TIMEOUT.as_secs()))
                .with_hint("try again");
        }
        if error.is_connect() {
            return CommandError::new(format!("{base} can't be reached: {}", root_cause(error)))
                .with_hint("check that the server is running and that this is its address (--server URL)");
        }
        CommandError::new(format!("{base} does not answer with HTTP: {}", root_cause(error)))
            .with_hint("a server with certificates is reached at https://")
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.request_success(Method::GET, path, None)?.parse_json()
    }

    fn send_json<T: DeserializeOwned>(&self, method: Method, path: &str, body: &impl Serialize) -> Result<T> {
        let body = serde_json::to_string(body).map_err(|error| CommandError::new(error.to_string()))?;
        self.request_success(method, path, Some(body))?.parse_json()
    }

    fn change_user(&self, login: &Login, change: &UpdateUserRequest) -> Result {
        self.send_json::<UserResponse>(Method::PATCH, &user_path(login), change).map(drop)
    }

    fn delete(&self, path: &str) -> Result {
        self.request_success(Method::DELETE, path, None).map(drop)
    }

    /// Reads all pages of a list.
    fn get_all_pages<T: DeserializeOwned>(&self, path: &str, query: &[(&str, String)]) -> Result<Vec<T>> {
        let mut entries = Vec::new();
        let mut next = Some(format!("{path}{}", query_string(query)));
        while let Some(path) = next {
            let mut answer = self.request_success(Method::GET, &path, None)?;
            next = answer.next_page.take();
            entries.extend(answer.parse_json::<Vec<T>>()?);
        }
        Ok(entries)
    }
}

/// A successful response.
struct RestResponse {
    body: Vec<u8>,
    /// Path of the next page of a list, below `/api/v1`.
    next_page: Option<String>,
}

impl RestResponse {
    fn parse_json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            CommandError::new(format!("the server's response can't be parsed: {error}"))
                .with_hint("check that server and command have the same version")
        })
    }
}

impl ManagementBackend for RemoteBackend {
    fn create_token(&self, request: TokenRequest) -> Result<TokenWithSecret> {
        self.send_json(Method::POST, "/tokens", &request)
    }

    fn token(&self, id: TokenId) -> Result<TokenRecord> {
        self.get(&format!("/tokens/{id}"))
    }

    fn list_tokens(&self, owner: Option<&Login>, state: Option<StateFilter>) -> Result<Vec<TokenRecord>> {
        let state = state.map(|state| match state {
            StateFilter::Live => "live",
            StateFilter::Expired => "expired",
            StateFilter::Revoked => "revoked",
            StateFilter::Dangling => "dangling",
        });
        let mut query = vec![("limit", ENTRIES_PER_REQUEST.to_string())];
        query.extend(owner.map(|owner| ("owner", owner.to_string())));
        query.extend(state.map(|state| ("state", state.to_owned())));
        self.get_all_pages("/tokens", &query)
    }

    fn revoke(&self, ids: &[TokenId]) -> Result {
        // The tokens are not looked up first: the role to revoke tokens must be enough, without the one to look them
        // up.
        match ids {
            [id] => self.delete(&format!("/tokens/{id}")),
            ids => {
                let request = RevokeTokensRequest { ids: ids.to_vec() };
                let body = serde_json::to_string(&request).map_err(|error| CommandError::new(error.to_string()))?;
                self.request_success(Method::POST, "/tokens/revoke", Some(body)).map(drop)
            }
        }
    }

    fn revoke_all(&self, owner: &Login) -> Result<usize> {
        let answer =
            self.request_success(Method::DELETE, &format!("/users/{}/tokens", percent_encode(owner.as_str())), None)?;
        Ok(answer.parse_json::<RevokedTokensResponse>()?.revoked)
    }

    fn narrow(&self, id: TokenId, change: &NarrowRequest) -> Result<TokenRecord> {
        self.send_json(Method::PATCH, &format!("/tokens/{id}"), change)
    }

    fn rotate(&self, id: TokenId, rotation: Rotation) -> Result<TokenWithSecret> {
        let Rotation { grace, ssh_key } = rotation;
        self.send_json(Method::POST, &format!("/tokens/{id}/rotate"), &RotateTokenRequest { grace, ssh_key })
    }

    fn create_user(&self, request: &UserRequest) -> Result<CreatedUserResponse> {
        self.send_json(Method::POST, "/users", &CreateUserRequest::from_user_request(request))
    }

    fn list_users(&self) -> Result<Vec<UserResponse>> {
        self.get_all_pages("/users", &[("limit", ENTRIES_PER_REQUEST.to_string())])
    }

    fn user(&self, login: &Login) -> Result<UserResponse> {
        self.get(&user_path(login))
    }

    fn set_disabled(&self, login: &Login, disabled: bool) -> Result {
        self.change_user(login, &UpdateUserRequest { disabled: Some(disabled), ..UpdateUserRequest::default() })
    }

    fn set_roles(&self, login: &Login, roles: &Roles) -> Result {
        self.change_user(login, &UpdateUserRequest { roles: Some(roles.clone()), ..UpdateUserRequest::default() })
    }

    fn set_quota(&self, login: &Login, quota: Option<ByteSize>) -> Result {
        self.change_user(login, &UpdateUserRequest { quota: Some(quota), ..UpdateUserRequest::default() })
    }

    fn delete_user(&self, login: &Login) -> Result {
        self.delete(&user_path(login))
    }

    fn list_grants(&self, login: &Login) -> Result<Vec<LocatedScope>> {
        self.get(&format!("{}/grants", user_path(login)))
    }

    fn create_grant(&self, login: &Login, grant: &Grant) -> Result {
        let path = format!("{}/grants", user_path(login));
        self.send_json::<LocatedScope>(Method::POST, &path, &CreateGrantRequest::from(grant)).map(drop)
    }

    fn revoke_grant(&self, login: &Login, target: &GrantTarget) -> Result {
        // The API removes grants by node, so a path is looked up among the grants.
        let node = match target {
            GrantTarget::Node(node) => Some(*node),
            GrantTarget::Path(path) => {
                let grants = self.list_grants(login)?;
                grants.iter().find(|grant| grant.path.as_ref() == Some(path)).map(|grant| grant.node)
            }
        };
        let missing = || tokens::Error::GrantNotFound { login: login.clone(), place: target.to_string() };
        self.delete(&format!("{}/grants/{}", user_path(login), node.ok_or_else(missing)?))
    }

    fn node_at(&self, path: &TreePath) -> Result<NodeResponse> {
        let found =
            self.get_optional::<Vec<NodeResponse>>(&format!("/nodes{}", query_string(&[("path", path.to_string())])))?;
        found.into_iter().flatten().next().ok_or_else(|| no_such_path(path))
    }

    fn node(&self, id: NodeId) -> Result<NodeResponse> {
        Ok(self.get_optional(&format!("/nodes/{id}"))?.ok_or(tokens::Error::UnknownNode(id))?)
    }

    fn list_nodes(&self, under: &TreePath) -> Result<Vec<NodeResponse>> {
        self.get_all_pages("/nodes", &[("under", under.to_string()), ("limit", ENTRIES_PER_REQUEST.to_string())])
    }

    fn policy(&self) -> Result<PolicyResponse> {
        self.get("/policy")
    }

    fn set_policy(&self, setting: PolicySetting) -> Result<PolicyResponse> {
        self.send_json(Method::PATCH, "/policy", &UpdatePolicyRequest::from_setting(setting))
    }

    fn bans(&self) -> Result<Vec<BanResponse>> {
        self.get("/bans")
    }

    fn add_ban(&self, request: &BanRequest) -> Result<BanResponse> {
        self.send_json(Method::POST, "/bans", &CreateBanRequest::from(request))
    }

    fn remove_ban(&self, network: BannedNetwork) -> Result {
        self.delete(&format!("/bans/{}", percent_encode(&network.to_string())))
    }

    fn list_events(&self, filter: &EventFilter, cursor: EventCursor, limit: usize) -> Result<Vec<EventResponse>> {
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
        self.get(&format!("/audit{}", query_string(&query)))
    }

    fn audit_chain(&self, after: u64, limit: usize) -> Result<ChainPage> {
        let query = [("cursor", after.to_string()), ("limit", limit.to_string())];
        let items = self.get(&format!("/audit/chain{}", query_string(&query)))?;
        Ok(ChainPage { items, last_number: None })
    }

    fn explain(&self, token: TokenId, query: &AccessQuery) -> Result<ExplainResponse> {
        self.send_json(Method::POST, "/explain", &ExplainRequest::from_query(token, query))
    }
}

fn user_path(login: &Login) -> String {
    format!("/users/{}", percent_encode(login.as_str()))
}

/// Formats a query, including the `?`.
fn query_string(query: &[(&str, String)]) -> String {
    let pairs: Vec<_> = query.iter().map(|(name, value)| format!("{name}={}", percent_encode(value))).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

/// Percent-encodes all but unreserved characters (RFC 3986 section 2.3) and the slash.
fn percent_encode(text: &str) -> String {
    const ENCODED: &AsciiSet = &ALL_BUT_UNRESERVED.remove(b'/');
    utf8_percent_encode(text, ENCODED).to_string()
}

fn next_page_path(response: &Response) -> Option<String> {
    let link = response.headers().get(LINK)?.to_str().ok()?;
    let (address, _) = link.strip_prefix('<')?.split_once(">; rel=\"next\"")?;
    // Only the path is taken from the link, so that all requests go to the server that the user has named.
    address.strip_prefix("/api/v1").map(str::to_owned)
}

fn is_json(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(|value| value.ends_with("json"))
}

/// Parses the URL of a server.
fn parse_server_url(server: &str, allow_cleartext: bool) -> Result<Url> {
    let example = "give one such as https://host:8443";
    let base: Url = server
        .parse()
        .map_err(|_| CommandError::usage(format!("{server:?} is not the address of a server")).with_hint(example))?;
    if !base.username().is_empty() || base.password().is_some() {
        return Err(CommandError::usage("the address of a server must not contain a user name or password")
            .with_hint("leave them out, and set PATGATE_TOKEN to a token of the server"));
    }
    let host = base.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    // Compared as a whole: `localhost.example.org` is not this machine.
    let is_loopback = host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match base.scheme() {
        "https" => Ok(base),
        "http" if is_loopback || allow_cleartext => Ok(base),
        "http" => {
            Err(CommandError::new(format!("{base} is not encrypted: anybody on the network path could read the token"))
                .with_hint("give an https:// address, or --cleartext if the network path is safe"))
        }
        _ => Err(CommandError::usage(format!("{base} is neither https:// nor http://")).with_hint(example)),
    }
}

/// Reads the certificate authorities to trust.
pub(in crate::cli) fn read_ca_certificates(file: &Path) -> Result<Vec<Certificate>> {
    let invalid_file = |why: String| {
        CommandError::new(format!("the certificate authority in {} can't be used: {why}", file.display()))
            .with_hint("--ca-file (PATGATE_CA_FILE) names a file of certificates in PEM: -----BEGIN CERTIFICATE-----")
    };
    let pem = fs::read(file).map_err(|error| invalid_file(error.to_string()))?;
    let found = Certificate::from_pem_bundle(&pem).map_err(|error| invalid_file(root_cause(&error)))?;
    if found.is_empty() { Err(invalid_file("it holds no certificate".to_owned())) } else { Ok(found) }
}

/// Returns the message of the innermost cause of an error.
pub(in crate::cli) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source()).last().unwrap_or(error).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_sent_in_cleartext_only_to_loopback() {
        let options = |allow_cleartext| RemoteOptions { allow_cleartext, ..RemoteOptions::default() };
        let refused = |server, allow_cleartext| {
            RemoteBackend::new(server, Some("pgt_x".to_owned()), options(allow_cleartext)).is_err()
        };
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
        assert!(RemoteBackend::new("http://127.0.0.1", None, options(false)).is_err());
    }

    #[test]
    fn reserved_characters_are_percent_encoded() {
        assert_eq!(query_string(&[("path", "/a b/é&?".to_owned())]), "?path=/a%20b/%C3%A9%26%3F");
        assert_eq!(query_string(&[]), "");
        assert_eq!(percent_encode("a@b+c"), "a%40b%2Bc");
        assert_eq!(percent_encode("-._~%\n"), "-._~%25%0A");
    }
}
