//! A plain HTTP/1.1 connection that is kept open, so that a test decides about each request of a client's pool.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// One connection.
pub(crate) struct PersistentConnection {
    stream: TcpStream,
    host: SocketAddr,
    authorization: String,
}

/// A response.
pub(crate) struct RawHttpResponse {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl PersistentConnection {
    /// Connects from one address of this machine to another, to call with a token.
    pub(crate) async fn open(from: &str, to: SocketAddr, token: &str) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(format!("{from}:0").parse().expect("an address")).expect("bound");
        let stream = socket.connect(to).await.expect("connects");
        Self { stream, host: to, authorization: format!("Bearer {token}") }
    }

    /// Uses another token from now on.
    pub(crate) fn set_token(&mut self, token: &str) {
        self.authorization = format!("Bearer {token}");
    }

    /// Sends a request with a body of JSON, and reads the whole answer.
    pub(crate) async fn send(&mut self, method: &str, path: &str, body: &str) -> RawHttpResponse {
        let Self { host, authorization, .. } = self;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: {authorization}\r\n\
             content-type: application/json\r\ndepth: 0\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await.expect("sent");
        let mut received = Vec::new();
        let end = loop {
            if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(self.stream.read_buf(&mut received).await.expect("an answer") > 0, "closed: {method} {path}");
        };
        let mut body = received.split_off(end);
        let head = String::from_utf8(received).expect("text").to_ascii_lowercase();
        let chunked = head.contains("\r\ntransfer-encoding: chunked\r\n");
        let length = head.split("\r\ncontent-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse().ok());
        let length: usize = length.unwrap_or(0);
        while if chunked { !body.ends_with(b"0\r\n\r\n") } else { body.len() < length } {
            assert!(self.stream.read_buf(&mut body).await.expect("the rest") > 0, "cut: {method} {path}");
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        RawHttpResponse { status, head, body }
    }
}
