//! Reports about reverse proxies that send their own `Host`: Destination and If headers may name the public address.

use patgate::auth::Clock;

use super::LOCK_BODY;
use crate::support::{DavClient, Fixture};

/// Headers that a proxy adds.
type ProxyHeaders<'a> = &'a [(&'a str, &'a str)];

/// A gateway behind a proxy on this machine, and a client of a user who may write everywhere.
async fn behind_proxy(public_url: Option<&str>) -> (Fixture, DavClient) {
    let gateway = Fixture::start_with(Clock::system(), |settings| {
        settings.trusted_proxies = vec!["127.0.0.1/32".parse().expect("a network")];
        settings.public_url = public_url.map(|url| url.parse().expect("a URL"));
    })
    .await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let client = gateway.dav("alice", &token);
    (gateway, client)
}

async fn move_status(client: &DavClient, forwarded: ProxyHeaders<'_>, destination: &str) -> u16 {
    client.put("/dav/a", "a").await;
    let headers = [forwarded, &[("x-forwarded-proto", "https"), ("destination", destination)]].concat();
    client.send("MOVE", "/dav/a", &headers, "").await.status
}

/// Users of nginx, Apache, Traefik and Caddy in front of ownCloud, Nextcloud, Radicale, Cells, tracim, Seafile and others:
/// renaming a file said 502 or 400, since `Destination` named the public address and `Host` the server's own. What a
/// trusted proxy says of the public address counts, and of nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn destination_may_name_the_forwarded_public_address() {
    let (gateway, client) = behind_proxy(None).await;
    let cases: [(ProxyHeaders<'_>, &str, u16); 10] = [
        (&[("x-forwarded-host", "files.example.org")], "https://files.example.org/dav/b", 201),
        (&[("x-forwarded-host", "files.example.org:8443")], "https://files.example.org:8443/dav/b", 204),
        (
            &[("x-forwarded-host", "files.example.org"), ("x-forwarded-port", "8443")],
            "https://files.example.org:8443/dav/b",
            204,
        ),
        (&[("x-forwarded-host", "a.example, files.example.org")], "https://files.example.org/dav/b", 204),
        // A proxy that hands on the public name without its port.
        (
            &[("x-forwarded-host", "files.example.org:8443"), ("host", "files.example.org")],
            "https://files.example.org:8443/dav/b",
            204,
        ),
        (&[("forwarded", "for=192.0.2.7;host=\"files.example.org\"")], "https://files.example.org/dav/b", 502),
        (&[("x-forwarded-host", "files.example.org")], "https://evil.example/dav/b", 502),
        (&[("x-forwarded-host", "files.example.org"), ("x-forwarded-prefix", "/cloud")], "/cloud/dav/b", 204),
        (&[("x-forwarded-prefix", "/cloud/")], "/dav/b", 204),
        (&[], "/cloud/dav/b", 502),
    ];
    for (forwarded, destination, expected_status) in cases {
        assert_eq!(move_status(&client, forwarded, destination).await, expected_status, "{forwarded:?} {destination}");
    }
    let copied = [("x-forwarded-host", "files.example.org"), ("x-forwarded-proto", "https")];
    client.put("/dav/a", "a").await;
    for (destination, expected_status) in
        [("https://files.example.org/dav/c", 201), ("https://evil.example/dav/d", 502)]
    {
        let headers = [&copied[..], &[("destination", destination)]].concat();
        assert_eq!(client.send("COPY", "/dav/a", &headers, "").await.status, expected_status, "COPY {destination}");
    }
    drop(gateway);
    let direct_gateway = Fixture::start().await;
    let token = direct_gateway.create_user_and_token("alice", "/:rw");
    let forwarded = [("x-forwarded-host", "files.example.org")];
    let status = move_status(&direct_gateway.dav("alice", &token), &forwarded, "https://files.example.org/dav/b").await;
    assert_eq!(status, 502, "nobody believes a stranger");
}

/// The same users, saving from an editor that names the file's public address in `If` beside its lock.
#[tokio::test(flavor = "multi_thread")]
async fn if_header_tag_may_name_the_public_address() {
    let (_gateway, client) = behind_proxy(None).await;
    let public = ("x-forwarded-host", "files.example.org");
    let lock = client.send("LOCK", "/dav/l", &[public], LOCK_BODY).await;
    let condition = format!("<https://files.example.org/dav//l> ({})", lock.header("lock-token"));
    assert_eq!(client.send("PUT", "/dav/l", &[public, ("if", &condition)], "z").await.status, 204);
    assert_eq!(client.send("PUT", "/dav/l", &[("if", &condition)], "z").await.status, 412);
}

/// Users whose proxy says nothing of the public address, or cuts off a path in front: the setting `public_url` says it.
#[tokio::test(flavor = "multi_thread")]
async fn public_url_sets_host_and_path_prefix() {
    let (_gateway, client) = behind_proxy(Some("https://files.example.org/cloud")).await;
    assert_eq!(move_status(&client, &[], "https://files.example.org/cloud/dav/b").await, 201);
    assert_eq!(move_status(&client, &[], &client.url("/dav/b")).await, 204, "its own name counts as well");
    assert_eq!(move_status(&client, &[], "https://files.example.org:8443/cloud/dav/b").await, 502);
    let body = "<propfind xmlns='DAV:'><prop><current-user-principal/></prop></propfind>";
    let listing = client.send("PROPFIND", "/dav/", &[("depth", "1")], body).await.text();
    for href in ["/cloud/dav/", "/cloud/dav/b", "/cloud/remote.php/dav/principals/users/alice/"] {
        assert!(listing.contains(&format!("<D:href>{href}</D:href>")), "{href} in {listing}");
    }
    let page = client.send("GET", "/dav/", &[("accept", "text/html")], "").await.text();
    assert!(!page.contains("\"/dav/"), "{page}");
    let created = client.send("PUT", "/dav/u", &[("upload-complete", "?0")], "part").await;
    assert!(created.header("location").starts_with("/cloud/upload/"), "{created:?}");
}
