//! A missing, repeated or malformed Host is refused over HTTP/1 and HTTP/2, as two programs may read it differently.

use http::Request;

use crate::support::{Fixture, http2, send_raw};

async fn http1_response(gateway: &Fixture, target: &str, version: &str, hosts: &[&str]) -> String {
    let hosts: String = hosts.iter().map(|host| format!("Host: {host}\r\n")).collect();
    let request = format!("GET {target} HTTP/{version}\r\n{hosts}Connection: close\r\n\r\n");
    let answer = String::from_utf8_lossy(&send_raw(gateway.http, request.as_bytes()).await).into_owned();
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_host_is_refused_over_http1() {
    let gateway = Fixture::start().await;
    let cases: [(&str, &str, &[&str], &str); 16] = [
        ("/healthz", "1.1", &["files.example:8443"], "200"),
        ("/healthz", "1.1", &["[::1]:80"], "200"),
        ("/healthz", "1.0", &[], "200"),
        ("http://files.example/healthz", "1.1", &["files.example"], "200"),
        ("/healthz", "1.1", &[], "400"),
        ("/healthz", "1.1", &[""], "400"),
        ("/healthz", "1.1", &["a", "a"], "400"),
        ("/healthz", "1.1", &["a", "b"], "400"),
        ("/healthz", "1.1", &["user@files.example"], "400"),
        ("/healthz", "1.1", &["files.example evil.example"], "400"),
        ("/healthz", "1.1", &["files.example:http"], "400"),
        ("/healthz", "1.1", &["files.example:65536"], "400"),
        ("/healthz", "1.0", &["files.example/dav"], "400"),
        ("http://files.example/healthz", "1.1", &[""], "400"),
        ("http://user@files.example/healthz", "1.1", &["files.example"], "400"),
        ("http://files.example:99999/healthz", "1.1", &["files.example"], "400"),
    ];
    for (target, version, hosts, expected_status) in cases {
        assert_eq!(
            http1_response(&gateway, target, version, hosts).await,
            expected_status,
            "{target} {version} {hosts:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_host_is_refused_over_http2() {
    let gateway = Fixture::start().await;
    let mut requests = http2::connect(&gateway).await;
    for (target, host, expected_status) in [
        ("http://files.example/healthz", None, 200),
        ("http://files.example/healthz", Some("files.example"), 200),
        ("http://user@files.example/healthz", None, 400),
        ("http://files.example:99999/healthz", None, 400),
        ("http://files.example/healthz", Some("evil.example"), 400),
        ("http://files.example/healthz", Some("user@files.example"), 400),
        ("http://files.example/healthz", Some("files.example:80"), 200),
        ("http://files.example/healthz", Some("files.example b"), 400),
        ("http://files.example/healthz", Some(""), 400),
    ] {
        let mut request = Request::builder().uri(target);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let request = request.body(()).expect("a request");
        let (answer, _) = requests.send_request(request, true).expect("sent");
        assert_eq!(answer.await.expect("an answer").status().as_u16(), expected_status, "{target} {host:?}");
    }
}
