//! A WebDAV client: reqwest for valid requests, a plain socket for malformed ones.

use std::net::{IpAddr, SocketAddr};
use std::sync::Once;

use base64::Engine;
use reqwest::{Method, header::HeaderMap};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Body of a LOCK request for an exclusive lock.
pub(crate) const LOCK_BODY: &str =
    r#"<lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope><locktype><write/></locktype></lockinfo>"#;

/// A WebDAV client of one user.
#[derive(Clone)]
pub(crate) struct DavClient {
    client: reqwest::Client,
    address: SocketAddr,
    authorization: String,
}

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HttpResponse {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl HttpResponse {
    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's value, empty when it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    /// The answer without what tells nothing: its date.
    pub(crate) fn without_date(mut self) -> Self {
        self.headers.remove("date");
        self
    }
}

impl DavClient {
    pub(crate) fn new(address: SocketAddr, login: &str, token: &str) -> Self {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        });
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{login}:{token}"));
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build();
        let client = client.expect("a client");
        Self { client, address, authorization: format!("Basic {pair}") }
    }

    /// Connects from another loopback address: failures are counted by address.
    pub(crate) fn with_local_address(self, address: IpAddr) -> Self {
        let client = reqwest::Client::builder().no_proxy().local_address(address).build().expect("a client");
        Self { client, ..self }
    }

    /// Speaks HTTP/2 from the first byte on, without TLS.
    #[allow(dead_code, reason = "for tests/soak")]
    pub(crate) fn with_http2(self) -> Self {
        let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().expect("a client");
        Self { client, ..self }
    }

    /// Sends the token as Bearer, which programs do and browsers never do by themselves.
    pub(crate) fn with_bearer_token(self, token: &str) -> Self {
        Self { authorization: format!("Bearer {token}"), ..self }
    }

    /// The authorization header's value.
    pub(crate) fn authorization(&self) -> &str {
        &self.authorization
    }

    /// The absolute URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Sends a request for an absolute path such as `/dav/a`.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> HttpResponse {
        let response = self.send_streaming(method, path, headers, body).await;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        HttpResponse { status, headers, body: response.bytes().await.expect("a whole body").to_vec() }
    }

    /// Sends a request and returns the response before its body was read.
    pub(crate) async fn send_streaming(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> reqwest::Response {
        self.try_send(method, path, headers, body).await.expect("an answer")
    }

    /// Sends a request to a server that may be killed meanwhile.
    pub(crate) async fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> reqwest::Result<reqwest::Response> {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = self.client.request(method, self.url(path)).header("authorization", &self.authorization);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(body).send().await
    }

    /// Sends a request without headers and body and returns its status.
    pub(crate) async fn status(&self, method: &str, path: &str) -> u16 {
        self.send(method, path, &[], "").await.status
    }

    /// Reads a file.
    pub(crate) async fn get(&self, path: &str) -> HttpResponse {
        self.send("GET", path, &[], "").await
    }

    /// Writes a file.
    pub(crate) async fn put(&self, path: &str, content: impl Into<reqwest::Body>) -> HttpResponse {
        self.send("PUT", path, &[], content).await
    }

    /// Lists a folder: the paths of all hrefs, without the folder's own, still percent-encoded.
    pub(crate) async fn list_hrefs(&self, path: &str) -> Result<Vec<String>, u16> {
        let answer = self.send("PROPFIND", path, &[("depth", "1")], "").await;
        if answer.status == 207 { Ok(answer.hrefs(path)) } else { Err(answer.status) }
    }
}

impl HttpResponse {
    /// The paths in a listing of a folder, without the folder's own, still percent-encoded.
    pub(crate) fn hrefs(&self, path: &str) -> Vec<String> {
        let text = self.text();
        let mut hrefs: Vec<String> = text
            .split("href>")
            .skip(1)
            .step_by(2)
            .map(|part| part.split('<').next().unwrap_or_default().to_owned())
            .collect();
        hrefs.retain(|href| href.trim_end_matches('/') != path.trim_end_matches('/'));
        hrefs.sort();
        hrefs
    }
}

/// Sends bytes on a new connection and returns all bytes received until the server closes it.
pub(crate) async fn send_raw(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(request).await.expect("sent");
    let mut answer = Vec::new();
    // A server may reset a connection whose request it refused to read whole.
    let _ = stream.read_to_end(&mut answer).await;
    answer
}
