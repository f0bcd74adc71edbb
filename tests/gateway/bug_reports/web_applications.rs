//! Reports about web applications of another origin (CORS): answers carry no CORS header by default, and all that the
//! browser needs once the origin is configured.
//!
//! The reports are from users of rclone, KeeWeb, TiddlyWiki, a manga reader and Obsidian on a phone: the browser sends
//! a preflight request, whose answer decides whether the application can read a file. Requests without permission are
//! in `../cross_origin.rs`.

use patgate::auth::Clock;

use super::send_unauthenticated;
use crate::support::server::{ServerProcess, create_token, run_cli};
use crate::support::{DavClient, Fixture, HttpResponse, patgate_command};

const APP_ORIGIN: &str = "https://app.example";

async fn start_with_cors_origins(origins: &str) -> (Fixture, DavClient) {
    let gateway = Fixture::start_with(Clock::system(), |settings| {
        settings.cors_origins = origins.parse().expect("origins");
    })
    .await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let client = gateway.dav("alice", &token);
    (gateway, client)
}

/// Sends what a browser asks before it lets a page of an origin send PROPFIND: without credentials.
async fn preflight(gateway: &Fixture, path: &str, origin: &str) -> HttpResponse {
    let asks = [
        ("origin", origin),
        ("access-control-request-method", "PROPFIND"),
        ("access-control-request-headers", "authorization,content-type,depth"),
    ];
    send_unauthenticated(gateway, "OPTIONS", path, &asks).await
}

/// rclone's and KeeWeb's users: the question comes without credentials, since browsers send none with it, and a challenge
/// ended it. Whatever the path, the answer names the methods and headers of WebDAV.
#[tokio::test(flavor = "multi_thread")]
async fn preflight_of_a_configured_origin_is_answered_without_credentials() {
    let (gateway, _client) = start_with_cors_origins(APP_ORIGIN).await;
    let node = gateway.node_id("/");
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
        let answer = preflight(&gateway, path, APP_ORIGIN).await;
        assert_eq!(answer.status, 204, "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), APP_ORIGIN, "{path}");
        assert!(answer.header("vary").contains("Origin"), "{path}");
        for method in ["PROPFIND", "MOVE", "PUT", "LOCK", "PATCH", "REPORT"] {
            assert!(answer.header("access-control-allow-methods").split(", ").any(|item| item == method), "{method}");
        }
        for name in ["Authorization", "Depth", "Destination", "Overwrite", "If", "Lock-Token", "If-Match", "X-OC-Mtime"]
        {
            assert!(answer.header("access-control-allow-headers").split(", ").any(|item| item == name), "{name}");
        }
        assert_eq!(answer.header("access-control-allow-credentials"), "");
    }
    for path in ["/console/", "/healthz", "/"] {
        assert_eq!(preflight(&gateway, path, APP_ORIGIN).await.header("access-control-allow-origin"), "", "{path}");
    }
}

/// TiddlyWiki's and sabre's users: the answers themselves have to name the origin as well, refusals included, and let the
/// ETag be read, or the application sees a network error.
#[tokio::test(flavor = "multi_thread")]
async fn error_responses_carry_cors_headers() {
    let (gateway, client) = start_with_cors_origins(APP_ORIGIN).await;
    gateway.write_host_file("a", "a");
    let unauthenticated = gateway.dav("alice", "pgt_wrong");
    for (client, method, path, status) in [
        (&client, "GET", "/dav/a", 200),
        (&client, "GET", "/dav/missing", 404),
        (&client, "BREW", "/dav/a", 501),
        (&unauthenticated, "GET", "/dav/a", 401),
        (&unauthenticated, "GET", "/api/v1/tokens/self", 401),
        (&client, "GET", "/api/v1/none", 404),
    ] {
        let answer = client.send(method, path, &[("origin", APP_ORIGIN)], "").await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), APP_ORIGIN, "{path}");
        assert!(answer.headers.get_all("vary").iter().any(|vary| vary == "Origin"), "{path}");
        for name in ["ETag", "DAV", "Lock-Token", "Location", "OC-ETag", "Content-Range", "WWW-Authenticate"] {
            assert!(answer.header("access-control-expose-headers").split(", ").any(|one| one == name), "{name}");
        }
    }
}

/// What must not come of it: a page of any other site that reads the files.
#[tokio::test(flavor = "multi_thread")]
async fn other_origins_and_unconfigured_servers_get_no_cors_headers() {
    let (gateway, client) = start_with_cors_origins("https://app.example, http://localhost:3000").await;
    for origin in ["https://evil.example", "http://app.example", "https://app.example.evil", "null"] {
        assert_eq!(preflight(&gateway, "/dav/", origin).await.header("access-control-allow-origin"), "", "{origin}");
        let answer = client.send("GET", "/dav/", &[("origin", origin)], "").await;
        assert_eq!(answer.header("access-control-allow-origin"), "", "{origin}");
        assert!(answer.headers.get_all("vary").iter().any(|vary| vary == "Origin"), "{origin}");
    }
    let (gateway, client) = start_with_cors_origins("").await;
    let response = preflight(&gateway, "/dav/", APP_ORIGIN).await;
    let answer = client.send("GET", "/dav/", &[("origin", APP_ORIGIN)], "").await;
    for answer in [response, answer] {
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, ""));
        assert_eq!(answer.header("vary"), "");
    }
}

/// Where the origin is configured for the program itself, as those do who start it.
#[tokio::test(flavor = "multi_thread")]
async fn cors_origins_can_be_set_on_the_command_line() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("files")).expect("a folder");
    let help = patgate_command(folder.path()).args(["serve", "--help"]).output().expect("the program runs").stdout;
    assert!(String::from_utf8_lossy(&help).contains("--cors-origins"));
    let mut command = patgate_command(&folder.path().join("state"));
    command.env("PATGATE_CORS_ORIGINS", APP_ORIGIN);
    let server = ServerProcess::start_with_command(command, folder.path());
    run_cli(folder.path(), &["admin", "user", "create", "alice"]);
    let token = create_token(folder.path(), "alice");
    let client = DavClient::new(server.http, "alice", &token);
    for (origin, shared) in [(APP_ORIGIN, APP_ORIGIN), ("https://evil.example", "")] {
        let answer = client.send("PROPFIND", "/dav/", &[("origin", origin), ("depth", "0")], "").await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (207, shared));
    }
    server.stop();
}
