//! Web applications of other origins (CORS): nothing by default, and what they need once an origin is configured.

use patgate::auth::Clock;

use crate::support::{Answer, Dav, Fixture};

const APP: &str = "https://app.example";

async fn sharing(origins: &str) -> (Fixture, Dav) {
    let gateway = Fixture::start_with(Clock::system(), |settings| {
        settings.cors_origins = origins.parse().expect("origins");
    })
    .await;
    let token = gateway.login("alice", "/:rw");
    let client = gateway.dav("alice", &token);
    (gateway, client)
}

/// Sends what a browser asks before it lets a page of an origin send PROPFIND: without credentials.
async fn preflight(gateway: &Fixture, path: &str, origin: &str) -> Answer {
    let url = format!("http://{}{path}", gateway.http);
    let response = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("a client")
        .request(reqwest::Method::OPTIONS, url)
        .header("origin", origin)
        .header("access-control-request-method", "PROPFIND")
        .header("access-control-request-headers", "authorization,depth")
        .send()
        .await
        .expect("an answer");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, body: response.bytes().await.expect("a body").to_vec() }
}

#[tokio::test(flavor = "multi_thread")]
async fn preflight_of_a_configured_origin_is_answered_without_credentials() {
    let (gateway, _client) = sharing(APP).await;
    let node = gateway.node("/");
    for path in [
        "/dav/",
        "/dav/not/there",
        &format!("/node/{node}/"),
        "/remote.php/dav/",
        "/remote.php/webdav/x",
        "/upload/x",
        "/api/v1/tokens",
        "/auth/verify",
    ] {
        let answer = preflight(&gateway, path, APP).await;
        assert_eq!(answer.status, 204, "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), APP, "{path}");
        assert!(answer.header("vary").contains("Origin"), "{path}");
        for method in ["PROPFIND", "MOVE", "PUT", "LOCK", "PATCH", "REPORT"] {
            assert!(answer.header("access-control-allow-methods").split(", ").any(|one| one == method), "{method}");
        }
        for name in ["Authorization", "Depth", "Destination", "Overwrite", "If", "Lock-Token", "If-Match", "X-OC-Mtime"]
        {
            assert!(answer.header("access-control-allow-headers").split(", ").any(|one| one == name), "{name}");
        }
        assert_eq!(answer.header("access-control-allow-credentials"), "");
    }
    for path in ["/console/", "/healthz", "/"] {
        assert_eq!(preflight(&gateway, path, APP).await.header("access-control-allow-origin"), "", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_name_the_origin_also_where_they_refuse() {
    let (gateway, client) = sharing(APP).await;
    gateway.write("a", "a");
    let stranger = gateway.dav("alice", "pgt_wrong");
    for (client, method, path, status) in [
        (&client, "GET", "/dav/a", 200),
        (&client, "GET", "/dav/missing", 404),
        (&client, "BREW", "/dav/a", 501),
        (&stranger, "GET", "/dav/a", 401),
        (&stranger, "GET", "/api/v1/tokens/self", 401),
        (&client, "GET", "/api/v1/none", 404),
    ] {
        let answer = client.send(method, path, &[("origin", APP)], "").await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), APP, "{path}");
        assert!(answer.headers.get_all("vary").iter().any(|vary| vary == "Origin"), "{path}");
        for name in ["ETag", "DAV", "Lock-Token", "Location", "OC-ETag", "Content-Range", "WWW-Authenticate"] {
            assert!(answer.header("access-control-expose-headers").split(", ").any(|one| one == name), "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_origins_and_unconfigured_servers_share_nothing() {
    let (gateway, client) = sharing("https://app.example, http://localhost:3000").await;
    for origin in ["https://evil.example", "http://app.example", "https://app.example.evil", "null"] {
        assert_eq!(preflight(&gateway, "/dav/", origin).await.header("access-control-allow-origin"), "", "{origin}");
        let answer = client.send("GET", "/dav/", &[("origin", origin)], "").await;
        assert_eq!(answer.header("access-control-allow-origin"), "", "{origin}");
        assert!(answer.headers.get_all("vary").iter().any(|vary| vary == "Origin"), "{origin}");
    }
    let (gateway, client) = sharing("").await;
    let asked = preflight(&gateway, "/dav/", APP).await;
    let answer = client.send("GET", "/dav/", &[("origin", APP)], "").await;
    for answer in [asked, answer] {
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, ""));
        assert_eq!(answer.header("vary"), "");
    }
}
