//! Requests that a browser sends for a page of another origin: with credentials that the browser has stored they must
//! not change anything, unless the origin is configured. What CORS headers the answers carry is in
//! `bug_reports/web_applications.rs`, forms of the console in `console.rs`.

use patgate::auth::Clock;
use patgate::gateway::GatewaySettings;

use crate::support::{DavClient, Fixture, HttpResponse, token_id};

const ATTACKER_ORIGIN: &str = "https://evil.example";
const CROSS_ORIGIN_HEADERS: [&[(&str, &str)]; 5] = [
    &[("sec-fetch-site", "cross-site"), ("origin", ATTACKER_ORIGIN)],
    &[("sec-fetch-site", "same-site")],
    &[("origin", ATTACKER_ORIGIN)],
    &[("origin", "null")],
    &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")],
];

async fn start_gateway(adapt: impl FnOnce(&mut GatewaySettings)) -> (Fixture, DavClient, String) {
    let gateway = Fixture::start_with(Clock::system(), adapt).await;
    gateway.create_user("alice", &["/:rw"]);
    let token = gateway.create_token("alice", &["-e", "1h"]);
    gateway.write_host_file("a", "kept");
    let client = gateway.dav("alice", &token);
    (gateway, client, token)
}

/// A change by each method, at each prefix.
fn changing_requests(gateway: &Fixture, node: &str, token: &str) -> Vec<(&'static str, String)> {
    let url = |path: &str| format!("/dav/{path}");
    let mut changes = vec![
        ("PUT", "/remote.php/dav/files/alice/new".to_owned()),
        ("PUT", "/remote.php/webdav/new".to_owned()),
        ("MKCOL", "/remote.php/dav/uploads/alice/x".to_owned()),
        ("POST", url("new")),
        ("PUT", format!("/node/{node}/new")),
        ("DELETE", format!("/node/{node}/a")),
        ("PATCH", "/upload/x".to_owned()),
        ("DELETE", "/upload/x".to_owned()),
        ("POST", "/api/v1/tokens".to_owned()),
        ("PATCH", format!("/api/v1/tokens/{}", token_id(token))),
        ("DELETE", format!("/api/v1/tokens/{}", token_id(token))),
        ("POST", "/auth/token/generate".to_owned()),
        ("DELETE", format!("/auth/token/{}", token_id(token))),
    ];
    let in_tree = ["PUT", "DELETE", "PATCH", "PROPPATCH", "COPY", "MOVE", "LOCK", "UNLOCK", "BREW"];
    changes.extend(in_tree.map(|method| (method, url("a"))));
    changes.push(("MKCOL", url("folder")));
    assert!(gateway.host_path("/a").exists());
    changes
}

async fn send(client: &DavClient, method: &str, path: &str, headers: &[(&str, &str)]) -> HttpResponse {
    let destination = client.url("/dav/b");
    let headers = [headers, &[("destination", destination.as_str()), ("content-type", "application/json")]].concat();
    client.send(method, path, &headers, "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn cross_origin_changes_with_browser_credentials_are_refused() {
    let (gateway, client, token) = start_gateway(|_| {}).await;
    let node = gateway.node_id("/");
    for (method, path) in changing_requests(&gateway, &node, &token) {
        for headers in CROSS_ORIGIN_HEADERS {
            let answer = send(&client, method, &path, headers).await;
            assert_eq!(answer.status, 403, "{method} {path} {headers:?}");
            if path.starts_with("/api") || path.starts_with("/auth") {
                assert_eq!(answer.problem_kind(), "cross-origin", "{method} {path}");
            } else {
                assert!(answer.text().contains("another origin"), "{method} {path}: {}", answer.text());
            }
        }
    }
    assert_eq!(gateway.all_paths().into_iter().filter(|path| !path.starts_with(".patgate")).collect::<Vec<_>>(), ["a"]);
    assert_eq!(client.get("/dav/a").await.text(), "kept");
    assert_eq!(gateway.rest("alice", &token).get("/api/v1/tokens").await.json().as_array().map(Vec::len), Some(1));
}

/// Makes a token over REST, and revokes it.
async fn create_and_revoke_token(client: &DavClient, headers: &[(&str, &str)]) {
    let json_headers = [headers, &[("content-type", "application/json")]].concat();
    let created = client.send("POST", "/api/v1/tokens", &json_headers, "{}").await;
    assert_eq!(created.status, 201, "{headers:?}: {}", created.text());
    let path = format!("/api/v1/tokens/{}", created.json()["id"].as_str().expect("an id"));
    assert_eq!(client.send("DELETE", &path, headers, "").await.status, 204, "{headers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cross_origin_reads_and_bearer_requests_are_allowed() {
    let (gateway, client, token) = start_gateway(|_| {}).await;
    for headers in CROSS_ORIGIN_HEADERS {
        for (method, path, status) in [
            ("GET", "/dav/a", 200),
            ("HEAD", "/dav/a", 200),
            ("OPTIONS", "/dav/a", 200),
            ("PROPFIND", "/dav/a", 207),
            ("GET", "/api/v1/tokens/self", 200),
            ("GET", "/auth/verify", 200),
        ] {
            assert_eq!(client.send(method, path, headers, "").await.status, status, "{method} {path} {headers:?}");
        }
        let bearer = gateway.dav("alice", &token).with_bearer_token(&token);
        let put = bearer.send("PUT", "/dav/by-bearer", headers, "x").await;
        assert!(matches!(put.status, 201 | 204), "{headers:?}: {}", put.status);
        create_and_revoke_token(&bearer, headers).await;
    }
    let own_origin = client.url("");
    let programs_and_own_pages: [&[(&str, &str)]; 4] =
        [&[], &[("sec-fetch-site", "none")], &[("sec-fetch-site", "same-origin")], &[("origin", &own_origin)]];
    for headers in programs_and_own_pages {
        let put = client.send("PUT", "/dav/b", headers, "x").await;
        assert!(matches!(put.status, 201 | 204), "{headers:?}: {}", put.status);
        create_and_revoke_token(&client, headers).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_configured_cors_origins_may_make_changes() {
    let (_gateway, client, _) = start_gateway(|settings| {
        settings.cors_origins = "https://app.example".parse().expect("origins");
    })
    .await;
    for (origin, status) in [("https://app.example", 204), (ATTACKER_ORIGIN, 403), ("null", 403)] {
        let headers = [("origin", origin), ("sec-fetch-site", "cross-site")];
        assert_eq!(client.send("PUT", "/dav/a", &headers, "x").await.status, status, "{origin}");
    }
    let without = [("sec-fetch-site", "cross-site")];
    assert_eq!(client.send("PUT", "/dav/a", &without, "x").await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn public_url_counts_as_same_origin_behind_a_trusted_proxy() {
    let (_gateway, client, _) = start_gateway(|settings| {
        settings.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
        settings.public_url = Some("https://files.example".parse().expect("a URL"));
    })
    .await;
    for (origin, put, post) in [
        ("https://files.example", 204, 201),
        ("https://files.example:443", 204, 201),
        ("http://files.example", 403, 403),
        ("https://files.example:8443", 403, 403),
        ("https://files.example.evil", 403, 403),
    ] {
        let headers = [
            ("origin", origin),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-proto", "https"),
            ("content-type", "application/json"),
        ];
        assert_eq!(client.send("PUT", "/dav/a", &headers, "x").await.status, put, "{origin}");
        assert_eq!(client.send("POST", "/api/v1/tokens", &headers, "{}").await.status, post, "{origin}");
    }
}
