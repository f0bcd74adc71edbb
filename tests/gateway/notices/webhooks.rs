//! A receiver of webhooks: it keeps what it is sent, and answers as a test says.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Long enough for any machine.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Secret that the receiver shares with the gateway.
pub(crate) const WEBHOOK_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A request that the receiver has got.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedWebhook {
    pub(crate) id: String,
    pub(crate) timestamp: String,
    pub(crate) signature: String,
    /// The body as it came.
    pub(crate) text: String,
    pub(crate) body: Value,
}

/// What the receiver does with a request.
#[derive(Clone, Debug)]
pub(crate) enum WebhookAnswer {
    /// Answers with a head, such as `204 No Content`, and further header fields.
    Status(&'static str),
    /// Never answers.
    Silence,
    /// Answers 200 with a body that never ends.
    EndlessBody,
    /// Sends headers that never end.
    EndlessHead,
}

/// The receiver; stopped when dropped.
pub(crate) struct WebhookServer {
    pub(crate) port: u16,
    received: Arc<Mutex<Vec<ReceivedWebhook>>>,
    answer: Arc<Mutex<WebhookAnswer>>,
    task: tokio::task::JoinHandle<()>,
}

impl WebhookServer {
    pub(crate) async fn start(answer: WebhookAnswer) -> Self {
        Self::start_with(answer, None).await
    }

    /// Starts a receiver that is reached over TLS alone.
    pub(crate) async fn start_tls(answer: WebhookAnswer, acceptor: TlsAcceptor) -> Self {
        Self::start_with(answer, Some(acceptor)).await
    }

    async fn start_with(answer: WebhookAnswer, acceptor: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (received, answer) = (Arc::<Mutex<Vec<_>>>::default(), Arc::new(Mutex::new(answer)));
        let (to_keep, to_give) = (Arc::clone(&received), Arc::clone(&answer));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, to_keep, to_give) = (acceptor.clone(), Arc::clone(&to_keep), Arc::clone(&to_give));
                tokio::spawn(async move {
                    match acceptor {
                        None => serve(stream, to_keep, to_give).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(stream, to_keep, to_give).await;
                            }
                        }
                    }
                });
            }
        });
        Self { port, received, answer, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook?key=value", self.port)
    }

    /// Answers otherwise from now on.
    pub(crate) fn set_answer(&self, answer: WebhookAnswer) {
        *self.answer.lock().expect("no panic") = answer;
    }

    pub(crate) fn received(&self) -> Vec<ReceivedWebhook> {
        self.received.lock().expect("no panic").clone()
    }

    /// Waits for a request whose body has this type, and returns its data.
    pub(crate) async fn wait_for(&self, kind: &str) -> ReceivedWebhook {
        let wait = async {
            loop {
                if let Some(found) = self.received().into_iter().find(|received| received.body["type"] == kind) {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let found = tokio::time::timeout(TIMEOUT, wait).await;
        found.unwrap_or_else(|_| panic!("no {kind} in {:#?}", self.received()))
    }

    /// Waits for a number of requests.
    pub(crate) async fn wait_for_count(&self, count: usize) -> Vec<ReceivedWebhook> {
        let wait = async {
            while self.received().len() < count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(TIMEOUT, wait).await;
        assert!(waited.is_ok(), "{} of {count}", self.received().len());
        self.received()
    }
}

impl Drop for WebhookServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    received: Arc<Mutex<Vec<ReceivedWebhook>>>,
    answer: Arc<Mutex<WebhookAnswer>>,
) {
    let Some((head, body)) = read_request(&mut stream).await else { return };
    received.lock().expect("no panic").push(verified(&head, &body));
    let answer = answer.lock().expect("no panic").clone();
    match answer {
        WebhookAnswer::Status(status) => {
            let _ = stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).await;
        }
        WebhookAnswer::Silence => tokio::time::sleep(TIMEOUT).await,
        WebhookAnswer::EndlessBody => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n").await;
            while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
        }
        WebhookAnswer::EndlessHead => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
            while stream.write_all(b"X-More: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n").await.is_ok() {}
        }
    }
}

async fn read_request<S: AsyncRead + Unpin>(stream: &mut S) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
        bytes.extend(&buffer[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        if body.len() >= header(head, "content-length").parse::<usize>().expect("a length") {
            return Some((head.to_owned(), body.to_owned()));
        }
    }
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let found = head.lines().find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then_some(value)
    });
    found.unwrap_or_else(|| panic!("no {name} in {head}"))
}

/// Checks a request as a receiver must, and returns what it says.
fn verified(head: &str, body: &str) -> ReceivedWebhook {
    assert!(head.starts_with("POST /hook?key=value HTTP/1.1"), "{head}");
    assert_eq!(header(head, "content-type"), "application/json");
    let (id, timestamp) = (header(head, "webhook-id"), header(head, "webhook-timestamp"));
    let sent_at: u64 = timestamp.parse().expect("a time");
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    assert!(now.abs_diff(sent_at) < 300, "as receivers refuse it: {timestamp}");
    let secret = BASE64.decode(WEBHOOK_SECRET.trim_start_matches("whsec_")).expect("Base64");
    let mut mac = Hmac::<Sha256>::new_from_slice(&secret).expect("a key");
    mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    let signature = format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()));
    assert_eq!(header(head, "webhook-signature"), signature);
    ReceivedWebhook {
        id: id.to_owned(),
        timestamp: timestamp.to_owned(),
        signature,
        text: body.to_owned(),
        body: serde_json::from_str(body).expect("JSON"),
    }
}
