//! HTTP/1.1 requests written by hand on a connection that stays open.

use reqwest::header::HeaderMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{DavClient, Fixture, HttpResponse};

/// A connection on which requests are written by hand.
pub(crate) struct Http1Connection {
    pub(crate) stream: TcpStream,
    received: Vec<u8>,
}

impl Http1Connection {
    pub(crate) async fn open(gateway: &Fixture) -> Self {
        Self { stream: TcpStream::connect(gateway.http).await.expect("a connection"), received: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("sent");
    }

    /// Sends a request and reads its response.
    pub(crate) async fn send_request(&mut self, head: String, body: impl AsRef<[u8]>) -> HttpResponse {
        self.send([head.as_bytes(), b"\r\n", body.as_ref()].concat()).await;
        match head.starts_with("HEAD ") {
            true => self.read_response_head().await,
            false => self.read_response().await,
        }
    }

    /// Reads a response and its body.
    pub(crate) async fn read_response(&mut self) -> HttpResponse {
        let mut answer = self.read_response_head().await;
        if answer.header("transfer-encoding").eq_ignore_ascii_case("chunked") {
            loop {
                let line = self.take_line().await;
                let size = usize::from_str_radix(line.trim_end(), 16).expect("a chunk's size");
                answer.body.extend(self.take(size).await);
                self.take_line().await;
                if size == 0 {
                    return answer;
                }
            }
        }
        let length = answer.header("content-length").parse().unwrap_or(0);
        answer.body = self.take(length).await;
        answer
    }

    /// Reads a response that has no body whatever its head says: one to HEAD.
    pub(crate) async fn read_response_head(&mut self) -> HttpResponse {
        let status = self.take_line().await;
        let mut headers = HeaderMap::new();
        loop {
            let line = self.take_line().await;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            let name = reqwest::header::HeaderName::from_bytes(name.as_bytes()).expect("a name");
            headers.append(name, value.parse().expect("a value"));
        }
        HttpResponse { status: status[9..12].parse().expect("a status"), headers, body: Vec::new() }
    }

    async fn take_line(&mut self) -> String {
        let end = loop {
            if let Some(end) = self.received.windows(2).position(|window| window == b"\r\n") {
                break end + 2;
            }
            self.read_more().await;
        };
        String::from_utf8(self.received.drain(..end).collect()).expect("text")
    }

    async fn take(&mut self, length: usize) -> Vec<u8> {
        while self.received.len() < length {
            self.read_more().await;
        }
        self.received.drain(..length).collect()
    }

    async fn read_more(&mut self) {
        let mut block = [0; 16 * 1024];
        let count = self.stream.read(&mut block).await.expect("an answer and not a reset");
        assert_ne!(count, 0, "closed without an answer");
        self.received.extend_from_slice(&block[..count]);
    }
}

/// The head of a request, without the empty line behind it.
pub(crate) fn request_head(gateway: &Fixture, method: &str, path: &str, lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n{lines}", gateway.http)
}

/// The line that says who a client is.
pub(crate) fn authorization_line(dav: &DavClient) -> String {
    format!("Authorization: {}", dav.authorization())
}
