//! Peers that send or read too slowly: they get 408 or are disconnected, leave nothing behind, and those above the
//! minimum rate continue. The rate is 256 bytes per second over a window, which is two minutes by default and two
//! seconds here.

use std::time::Duration;

use h2::Reason;
use patgate::auth::Clock;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::support::browser::Browser;
use crate::support::http2::{connect, request};
use crate::support::{DavClient, Fixture};

const WINDOW: Duration = Duration::from_secs(2);
/// Time between two pieces that are sent or read.
const PAUSE: Duration = Duration::from_millis(100);
/// Size of a piece that keeps a transfer below the minimum rate, and of one eight times above it.
const BYTES_BELOW_MINIMUM_RATE: usize = 8;
const BYTES_ABOVE_MINIMUM_RATE: usize = 200;
/// Far longer than any event in these tests takes.
const EVENT_TIMEOUT: Duration = Duration::from_secs(60);
/// More than the buffers of both sockets hold.
const LARGE_FILE_BYTES: u64 = 64 << 20;

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

async fn start_gateway(tls: bool) -> (Fixture, DavClient) {
    let pem = |name: &str| format!("{}/tests/gateway/tls/{name}.pem", env!("CARGO_MANIFEST_DIR")).into();
    let gateway = Fixture::start_with(Clock::system(), |settings| {
        settings.http_transfer_rate_window = WINDOW;
        settings.tls = tls.then(|| (pem("server"), pem("key")));
    });
    let gateway = gateway.await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let dav = gateway.dav("alice", &token);
    (gateway, dav)
}

/// Connects, over TLS where the gateway takes nothing else.
async fn socket(gateway: &Fixture, tls: bool) -> Box<dyn Socket> {
    let stream = TcpStream::connect(gateway.http).await.expect("a connection");
    if !tls {
        return Box::new(stream);
    }
    use rustls::pki_types::pem::PemObject;
    let path = format!("{}/tests/gateway/tls/ca.pem", env!("CARGO_MANIFEST_DIR"));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_file(path).expect("a certificate")).expect("a root");
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let name = rustls::pki_types::ServerName::IpAddress(gateway.http.ip().into());
    Box::new(connector.connect(name, stream).await.expect("TLS"))
}

/// Sends the head of a request and what comes at once of its body, then pieces of this size until something is answered;
/// returns the line of the status.
async fn upload_in_pieces(mut socket: Box<dyn Socket>, head: String, body: &[u8], piece: &[u8]) -> String {
    socket.write_all(head.as_bytes()).await.expect("sent");
    socket.write_all(body).await.expect("sent");
    let (mut from, mut to) = tokio::io::split(socket);
    let sending = tokio::spawn({
        let piece = piece.to_vec();
        async move {
            while to.write_all(&piece).await.is_ok() && to.flush().await.is_ok() {
                sleep(PAUSE).await;
            }
        }
    });
    let mut answer = vec![0; 12];
    tokio::time::timeout(EVENT_TIMEOUT, from.read_exact(&mut answer)).await.expect("in time").expect("an answer");
    sending.abort();
    String::from_utf8(answer).expect("text")
}

fn head(dav: &DavClient, method: &str, path: &str, lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\n{lines}\r\n", dav.authorization())
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_below_the_minimum_rate_gets_408_and_leaves_nothing() {
    for tls in [false, true] {
        let (gateway, dav) = start_gateway(tls).await;
        gateway.write_host_file("/old", "old");
        // So much that a part of it stands in staging when the rest fails to come.
        let partial_body = vec![b'x'; 2 << 20];
        for (path, framing) in [("/dav/old", "Content-Length: 9000000"), ("/dav/new", "Transfer-Encoding: chunked")] {
            let chunked = framing.starts_with('T');
            let (body, piece) = match chunked {
                true => ([b"200000\r\n", &partial_body[..], b"\r\n"].concat(), b"8\r\nxxxxxxxx\r\n".to_vec()),
                false => (partial_body.clone(), vec![b'x'; BYTES_BELOW_MINIMUM_RATE]),
            };
            let head = head(&dav, "PUT", path, &[framing]);
            let status = upload_in_pieces(socket(&gateway, tls).await, head, &body, &piece).await;
            assert_eq!(status, "HTTP/1.1 408", "{path}, TLS: {tls}");
        }
        assert_eq!(gateway.all_paths(), [".patgate", "old"], "neither file nor debris");
        assert_eq!(std::fs::read(gateway.host_path("/old")).expect("a file"), b"old");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_upload_above_the_minimum_rate_completes() {
    for tls in [false, true] {
        let (gateway, dav) = start_gateway(tls).await;
        let pieces = usize::try_from(WINDOW.as_millis() / PAUSE.as_millis() * 3).expect("few");
        let mut socket = socket(&gateway, tls).await;
        let length = format!("Content-Length: {}", pieces * BYTES_ABOVE_MINIMUM_RATE);
        socket.write_all(head(&dav, "PUT", "/dav/slow", &[&length]).as_bytes()).await.expect("sent");
        for _ in 0..pieces {
            socket.write_all(&[b'x'; BYTES_ABOVE_MINIMUM_RATE]).await.expect("sent");
            socket.flush().await.expect("sent");
            sleep(PAUSE).await;
        }
        let mut answer = vec![0; 12];
        socket.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(answer, b"HTTP/1.1 201", "TLS: {tls}");
        assert_eq!(
            std::fs::metadata(gateway.host_path("/slow")).expect("a file").len(),
            (pieces * BYTES_ABOVE_MINIMUM_RATE) as u64
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_upload_below_the_minimum_rate_gets_408_and_a_faster_one_completes() {
    let (gateway, dav) = start_gateway(false).await;
    let mut requests = connect(&gateway).await;
    let headers = [("authorization", dav.authorization())];
    let mut sent = Vec::new();
    for (path, size) in [("/dav/slow", BYTES_BELOW_MINIMUM_RATE), ("/dav/fast", BYTES_ABOVE_MINIMUM_RATE)] {
        let (response, body) = requests.send_request(request(&gateway, "PUT", path, &headers), false).expect("sent");
        sent.push((tokio::spawn(response), body, size));
    }
    let until = Instant::now() + 3 * WINDOW;
    while Instant::now() < until {
        for (_, body, size) in &mut sent {
            // Once it is refused, no more is taken of it.
            let _ = body.send_data(vec![b'x'; *size].into(), false);
        }
        sleep(PAUSE).await;
    }
    let _ = sent[1].1.send_data(bytes::Bytes::new(), true);
    let mut statuses = Vec::new();
    for (response, ..) in sent {
        statuses.push(response.await.expect("joined").expect("an answer").status().as_u16());
    }
    assert_eq!(statuses, [408, 201]);
    assert_eq!(gateway.all_paths(), [".patgate", "fast"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_bodies_of_rest_and_console_requests_get_408() {
    let (gateway, dav) = start_gateway(false).await;
    let browser = Browser::sign_in_new(&gateway, "alice", &gateway.create_token("alice", &["-e", "1h"])).await;
    let cookie = browser.identifying_headers();
    let rest = ["Content-Type: application/json", "Content-Length: 9000"];
    let form_headers = ["Content-Type: application/x-www-form-urlencoded", "Content-Length: 9000"];
    let form = format!(
        "POST /console/folder HTTP/1.1\r\nHost: localhost\r\n{cookie}{}\r\n{}\r\n\r\n",
        form_headers[0], form_headers[1]
    );
    for (what, head) in [
        ("JSON", head(&dav, "POST", "/api/v1/tokens", &rest)),
        ("a form", head(&dav, "POST", "/api/v1/oauth/introspect", &form_headers)),
        ("XML", head(&dav, "PROPFIND", "/dav/", &["Content-Length: 9000"])),
        ("a page's form", form),
    ] {
        let status =
            upload_in_pieces(socket(&gateway, false).await, head, b"", &[b' '; BYTES_BELOW_MINIMUM_RATE]).await;
        assert_eq!(status, "HTTP/1.1 408", "{what}");
    }
}

/// Reads pieces of an answer of [`LARGE_FILE_BYTES`] bytes for three windows, then all that comes at once; returns how much came.
async fn download_in_pieces(mut socket: Box<dyn Socket>, dav: &DavClient, piece: usize) -> u64 {
    socket.write_all(head(dav, "GET", "/dav/large", &[]).as_bytes()).await.expect("sent");
    let (until, mut block, mut received) = (Instant::now() + 3 * WINDOW, vec![0; piece.max(1)], 0);
    while Instant::now() < until {
        if piece > 0 {
            received += socket.read(&mut block).await.expect("more") as u64;
        }
        sleep(PAUSE).await;
    }
    let mut block = vec![0; 1 << 20];
    while received < LARGE_FILE_BYTES {
        match tokio::time::timeout(EVENT_TIMEOUT, socket.read(&mut block)).await.expect("more, or its end") {
            Ok(0) | Err(_) => break,
            Ok(more) => received += more as u64,
        }
    }
    received
}

#[tokio::test(flavor = "multi_thread")]
async fn download_below_the_minimum_rate_is_aborted_and_a_faster_one_completes() {
    for tls in [false, true] {
        let (gateway, dav) = start_gateway(tls).await;
        std::fs::File::create(gateway.host_path("/large"))
            .and_then(|file| file.set_len(LARGE_FILE_BYTES))
            .expect("a file");
        let connect = async |_| socket(&gateway, tls).await;
        let (none, little, enough) = tokio::join!(
            async { download_in_pieces(connect(0).await, &dav, 0).await },
            async { download_in_pieces(connect(1).await, &dav, BYTES_BELOW_MINIMUM_RATE).await },
            async { download_in_pieces(connect(2).await, &dav, 64 << 10).await },
        );
        assert!(none < LARGE_FILE_BYTES && little < LARGE_FILE_BYTES, "{none} and {little} bytes came, TLS: {tls}");
        assert!(enough >= LARGE_FILE_BYTES, "{enough} bytes came, TLS: {tls}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_http2_download_is_reset_and_its_connection_stays_open() {
    let (gateway, dav) = start_gateway(false).await;
    std::fs::File::create(gateway.host_path("/large")).and_then(|file| file.set_len(LARGE_FILE_BYTES)).expect("a file");
    let mut requests = connect(&gateway).await;
    let headers = [("authorization", dav.authorization())];
    let (response, _) = requests.send_request(request(&gateway, "GET", "/dav/large", &headers), true).expect("sent");
    let mut body = response.await.expect("an answer").into_body();
    // No window is given back for what has come.
    let reset = async {
        loop {
            match body.data().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return error.reason(),
                None => return None,
            }
        }
    };
    assert_eq!(tokio::time::timeout(EVENT_TIMEOUT, reset).await.expect("in time"), Some(Reason::CANCEL));
    let (response, _) = requests.send_request(request(&gateway, "HEAD", "/dav/large", &headers), true).expect("sent");
    assert_eq!(response.await.expect("an answer").status(), 200);
}
