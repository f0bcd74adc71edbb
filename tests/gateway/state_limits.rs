//! Limits on what users can make the state directory hold: locks, named nodes, tokens, audit events, unfinished uploads
//! and dead properties. Each has a limit per user and in total, is refused with a reason at the limit, and is released
//! when its file, lock, token or user is gone. Limits on connections are in `connection_limits.rs`, on the uploads of
//! one token in `upload_isolation.rs`.

use std::time::Duration;

use patgate::auth::Clock;
use patgate::domain::{PropertyQuota, StateLimits, UploadSpace, UserQuotaLimits};
use serde_json::{Value, json};

use crate::support::{DavClient, Fixture, HttpResponse, LOCK_BODY, token_id};

/// Starts a gateway with these limits.
async fn start_with_limits(clock: Clock, limits: StateLimits) -> Fixture {
    Fixture::start_with(clock, |settings| settings.state_limits = limits).await
}

fn limits(per_user: u64, total: u64) -> UserQuotaLimits {
    UserQuotaLimits { per_user, total }
}

/// Tells whether a response is 507 with a text.
fn is_no_space(answer: &HttpResponse, reason: &str) -> bool {
    answer.status == 507 && answer.text().contains(reason)
}

/// Asserts that another user can still write, and that a revocation applies to the next request.
async fn assert_others_unaffected(gateway: &Fixture, bob: &DavClient) {
    assert_eq!(bob.put("/dav/of-bob", "content").await.status, 204);
    let revoked = gateway.create_token("bob", &["-e", "1h"]);
    let dav = gateway.dav("bob", &revoked);
    assert_eq!(dav.status("PROPFIND", "/dav/of-bob").await, 207);
    gateway.run_cli(&["apitoken", "revoke", token_id(&revoked)]);
    assert_eq!(dav.status("PROPFIND", "/dav/of-bob").await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_are_limited_per_user_and_in_total_and_released() {
    let clock = Clock::manual(Clock::system().now());
    let gateway = start_with_limits(clock, StateLimits { locks: limits(2, 3), ..StateLimits::default() }).await;
    let [alice, bob] = ["alice", "bob"].map(|login| gateway.dav(login, &gateway.create_user_and_token(login, "/:rw")));
    for name in ["a", "b", "c", "d", "of-bob"] {
        gateway.write_host_file(name, "content");
    }
    let lock = async |dav: &DavClient, path: &str, seconds: &str| {
        dav.send("LOCK", path, &[("timeout", seconds)], LOCK_BODY).await
    };
    let first = lock(&alice, "/dav/a", "Second-3600").await;
    assert_eq!(first.status, 200);
    assert_eq!(lock(&alice, "/dav/b", "Second-60").await.status, 200);
    let refused = lock(&alice, "/dav/c", "Second-60").await;
    assert!(is_no_space(&refused, "the user holds as many locks as may be"), "{}", refused.text());
    assert_eq!(lock(&bob, "/dav/c", "Second-3600").await.status, 200);
    let refused = lock(&bob, "/dav/d", "Second-60").await;
    assert!(is_no_space(&refused, "all users together hold as many locks as may be"), "{}", refused.text());
    assert_others_unaffected(&gateway, &bob).await;
    // UNLOCK, and the end of a lock's time.
    let token = first.header("lock-token").to_owned();
    assert_eq!(alice.send("UNLOCK", "/dav/a", &[("lock-token", &token)], "").await.status, 204);
    assert_eq!(lock(&bob, "/dav/d", "Second-3600").await.status, 200);
    assert_eq!(lock(&alice, "/dav/a", "Second-60").await.status, 507);
    gateway.clock.advance(Duration::from_secs(61));
    assert_eq!(lock(&alice, "/dav/a", "Second-60").await.status, 200);
    // The user who is removed holds none any more, and binds nobody.
    gateway.run_cli(&["admin", "user", "delete", "bob"]);
    let lock_released = async {
        while lock(&alice, "/dav/d", "Second-60").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), lock_released).await.expect("released");
}

#[tokio::test(flavor = "multi_thread")]
async fn named_nodes_are_limited_per_user_and_in_total_and_released() {
    let named_nodes = limits(3, 9);
    let clock = Clock::manual(Clock::system().now());
    let gateway = start_with_limits(clock, StateLimits { named_nodes, ..StateLimits::default() }).await;
    // The root is named for the grants, by somebody at the command line.
    let [alice, bob] = ["alice", "bob"].map(|login| (login, gateway.create_user_and_token(login, "/:rw")));
    let rest = gateway.rest("alice", &alice.1);
    let [alice, bob] = [alice, bob].map(|(login, token)| gateway.dav(login, &token));
    for name in ["a", "b", "c", "d", "deep/er/f", "of-bob"] {
        gateway.write_host_file(name, "content");
    }
    // A property, a look-up, a scope.
    assert_eq!(set_property_refusal(&alice, "/dav/a", "p", 10).await, None);
    assert_eq!(rest.get("/api/v1/nodes?path=/b").await.status, 200);
    let scoped = |path: &str| json!({ "lifetime": "1h", "scopes": [format!("path:{path}:r")] });
    assert_eq!(rest.send("POST", "/api/v1/tokens", scoped("/c")).await.status, 201);
    let words = "the user has the maximum number of named files and directories";
    let refused = set_property_refusal(&alice, "/dav/d", "p", 10).await.expect("the fourth");
    assert!(refused.contains("507") && refused.contains(words), "{refused}");
    for refused in [rest.get("/api/v1/nodes?path=/d").await, rest.send("POST", "/api/v1/tokens", scoped("/d")).await] {
        assert!(refused.problem_kind() == "no-space" && refused.text().contains(words), "{}", refused.text());
    }
    // A named node can't move to where more directories would have to be named, and can move to where they are.
    let to = alice.url("/dav/deep/er/a");
    let moved = alice.send("MOVE", "/dav/a", &[("destination", &to)], "").await;
    assert!(is_no_space(&moved, words) && gateway.host_path("/a").exists(), "{}", moved.text());
    let to = alice.url("/dav/a2");
    assert_eq!(alice.send("MOVE", "/dav/a", &[("destination", &to)], "").await.status, 201);
    // Others have their own, within what all may.
    assert_eq!(set_property_refusal(&bob, "/dav/d", "p", 10).await, None);
    assert_eq!(set_property_refusal(&bob, "/dav/deep/er", "p", 10).await, None);
    assert_others_unaffected(&gateway, &bob).await;
    // Eight of nine: the root, three of alice's, three of bob's, and a grant's.
    gateway.run_cli(&["admin", "user", "grant", "bob", "/of-bob:r"]);
    gateway.run_cli(&["node", "id", "/deep/er/f"]);
    gateway.write_host_file("x", "content");
    let refused = gateway.try_run_cli(&["node", "id", "/x"]);
    assert!(refused.status.success(), "the command line has the default bounds");
    let carol = gateway.dav("carol", &gateway.create_user_and_token("carol", "/:rw"));
    gateway.write_host_file("y", "content");
    let refused = set_property_refusal(&carol, "/dav/y", "p", 10).await.expect("more than all may");
    assert!(refused.contains("the maximum number of named files and directories is reached"), "{refused}");
    // With its file a node is released, for its user and for all.
    assert_eq!(alice.status("DELETE", "/dav/a2").await, 204);
    assert_eq!(alice.status("DELETE", "/dav/b").await, 204);
    assert_eq!(set_property_refusal(&alice, "/dav/of-bob", "p", 10).await, None, "named already");
    assert_eq!(set_property_refusal(&carol, "/dav/y", "p", 10).await, None);
    // A user who comes after one of the same name begins anew.
    gateway.run_cli(&["admin", "user", "delete", "bob"]);
    let bob = gateway.dav("bob", &gateway.create_user_and_token("bob", "/:rw"));
    for name in ["x", "y", "c"] {
        assert_eq!(alice.status("DELETE", &format!("/dav/{name}")).await, 204);
    }
    gateway.write_host_file("z", "content");
    let named = async {
        while set_property_refusal(&bob, "/dav/z", "p", 10).await.is_some() {
            gateway.clock.advance(Duration::from_secs(11));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), named).await.expect("released");
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_tokens_are_limited_and_inactive_ones_deleted_first() {
    let gateway =
        start_with_limits(Clock::system(), StateLimits { tokens: limits(3, 100), ..StateLimits::default() }).await;
    let [alice, bob] = ["alice", "bob"].map(|login| (login, gateway.create_user_and_token(login, "/:rw")));
    gateway.write_host_file("of-bob", "content");
    let rest = gateway.rest("alice", &alice.1);
    let bob = gateway.dav("bob", &bob.1);
    let mut created = Vec::new();
    for _ in 0..6 {
        let token = rest.send("POST", "/api/v1/tokens", json!({ "lifetime": "30m" })).await;
        assert_eq!(token.status, 201, "{}", token.text());
        let id = token.json()["id"].as_str().expect("an id").to_owned();
        assert_eq!(rest.send("DELETE", &format!("/api/v1/tokens/{id}"), json!(null)).await.status, 204);
        created.push(id);
    }
    let kept: Vec<String> = rest
        .get("/api/v1/tokens?state=revoked")
        .await
        .json()
        .as_array()
        .expect("a list")
        .iter()
        .map(|token| token["id"].as_str().expect("an id").to_owned())
        .collect();
    assert!(
        kept.len() == 2 && created[4..].iter().all(|id| kept.contains(id)),
        "the last ones: {kept:?} of {created:?}"
    );
    for _ in 0..2 {
        assert_eq!(rest.send("POST", "/api/v1/tokens", json!({ "lifetime": "30m" })).await.status, 201);
    }
    let refused = rest.send("POST", "/api/v1/tokens", json!({ "lifetime": "30m" })).await;
    assert!(
        refused.problem_kind() == "no-space"
            && refused.text().contains("the maximum number of stored tokens is reached")
    );
    assert_others_unaffected(&gateway, &bob).await;
    gateway.run_cli(&["apitoken", "revoke", token_id(&alice.1)]);
    let next = gateway.create_token("alice", &["-e", "1h"]);
    let listed = gateway.rest("alice", &next).get("/api/v1/tokens").await;
    assert_eq!(listed.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_events_are_limited_per_user_without_delaying_revocations() {
    let clock = Clock::manual(Clock::system().now());
    let gateway =
        start_with_limits(clock, StateLimits { audit_rows: limits(40, 1000), ..StateLimits::default() }).await;
    gateway.create_host_directory("own");
    let mallory = gateway.dav("mallory", &gateway.create_user_and_token("mallory", "/own:r"));
    let bob = gateway.dav("bob", &gateway.create_user_and_token("bob", "/:rw"));
    gateway.write_host_file("of-bob", "content");
    for number in 0..120 {
        assert_eq!(mallory.put(&format!("/dav/own/{number}"), "x").await.status, 403);
    }
    assert_others_unaffected(&gateway, &bob).await;
    let rows = |login: &str, kind: &str| {
        let listed = gateway.run_cli(&["audit", "--user", login, "--event", kind, "--limit", "500", "--json"]);
        serde_json::from_str::<Value>(&listed).expect("JSON").as_array().expect("a list").len()
    };
    let trimmed = async {
        loop {
            gateway.clock.advance(Duration::from_secs(11));
            tokio::time::sleep(Duration::from_millis(50)).await;
            let denied = rows("mallory", "access.denied");
            if (1..=40).contains(&denied) {
                return denied;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), trimmed).await.expect("the bound is kept");
    assert_eq!(rows("mallory", "token.created"), 1, "what was done to the token stays");
    assert_eq!((rows("bob", "token.created"), rows("bob", "token.revoked")), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_uploads_of_one_user_leave_space_for_other_users() {
    let gateway = Fixture::start_with(Clock::system(), |settings| {
        settings.webdav_options.upload_space.per_user = UploadSpace::Bytes(600_000);
        settings.webdav_options.upload_space.total = UploadSpace::Bytes(1_000_000);
    });
    let gateway = gateway.await;
    let [alice, bob] = ["alice", "bob"].map(|login| gateway.dav(login, &gateway.create_user_and_token(login, "/:rw")));
    gateway.write_host_file("of-bob", "content");
    let begin = async |dav: &DavClient, path: &str, length: usize| {
        dav.send("PUT", path, &[("upload-complete", "?0")], vec![b'x'; length]).await
    };
    let first = begin(&alice, "/dav/a", 500_000).await;
    assert_eq!(first.status, 201);
    let refused = begin(&alice, "/dav/b", 200_000).await;
    assert!(is_no_space(&refused, "space for unfinished uploads is used up"), "{}", refused.text());
    assert_eq!(begin(&bob, "/dav/c", 400_000).await.status, 201);
    assert_others_unaffected(&gateway, &bob).await;
    assert_eq!(alice.status("DELETE", first.header("location")).await, 204);
    assert_eq!(begin(&alice, "/dav/b", 600_000).await.status, 201);
}

/// Sets a property; returns the response if it was refused.
async fn set_property_refusal(dav: &DavClient, path: &str, name: &str, size: usize) -> Option<String> {
    let value = "x".repeat(size);
    let set = format!("<set><prop><{name} xmlns='u:'>{value}</{name}></prop></set>");
    let body = format!("<propertyupdate xmlns='DAV:'>{set}</propertyupdate>");
    let answer = dav.send("PROPPATCH", path, &[], body).await;
    let text = answer.text();
    assert_eq!(answer.status, 207, "{text}");
    (!text.contains("200 OK")).then_some(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn property_space_is_limited_per_user_and_in_total_and_released() {
    let space = PropertyQuota { per_user: 40_000, total: 66_000 };
    let gateway = Fixture::start_with(Clock::system(), |settings| settings.property_space = space).await;
    let [alice, bob] = ["alice", "bob"].map(|login| (login, gateway.create_user_and_token(login, "/:rw")));
    let [alice, bob] = [alice, bob].map(|(login, token)| gateway.dav(login, &token));
    for name in ["a", "b", "c", "d", "e", "target"] {
        assert_eq!(alice.put(&format!("/dav/{name}"), "x").await.status, 201);
    }
    for name in ["a", "b", "c"] {
        assert_eq!(set_property_refusal(&alice, &format!("/dav/{name}"), "p", 10_000).await, None);
    }
    let refused = set_property_refusal(&alice, "/dav/d", "p", 10_000).await.expect("the fourth");
    assert!(refused.contains("507 Insufficient Storage") && refused.contains("quota-not-exceeded"), "{refused}");
    assert!(refused.contains("the properties that the user has set have reached their maximum size"), "{refused}");
    let properties = alice.send("PROPFIND", "/dav/d", &[("depth", "0")], "").await.text();
    assert!(!properties.contains("xxxx"), "not half kept");

    // A copy is refused before anything is copied; a move takes what is there with it.
    let to = alice.url("/dav/copy");
    let copied = alice.send("COPY", "/dav/a", &[("destination", &to)], "").await;
    assert!(copied.status == 507 && copied.text().contains("their maximum size"), "{}", copied.text());
    assert_eq!(alice.status("HEAD", "/dav/copy").await, 404);
    let to = alice.url("/dav/moved");
    assert_eq!(alice.send("MOVE", "/dav/a", &[("destination", &to)], "").await.status, 201);

    // Others have their own, within what all may.
    for name in ["d", "e"] {
        assert_eq!(set_property_refusal(&bob, &format!("/dav/{name}"), "p", 12_000).await, None);
    }
    let refused = set_property_refusal(&bob, "/dav/target", "p", 13_000).await.expect("more than all may");
    assert!(refused.contains("all properties together have reached their maximum size"), "{refused}");

    // A smaller value is never refused; removed, replaced and deleted properties free their space.
    assert_eq!(set_property_refusal(&alice, "/dav/b", "p", 9_000).await, None);
    assert_eq!(alice.status("DELETE", "/dav/moved").await, 204);
    assert_eq!(set_property_refusal(&alice, "/dav/target", "p", 10_000).await, None);
    assert!(set_property_refusal(&alice, "/dav/target", "q", 10_000).await.is_some());
    let remove = "<propertyupdate xmlns='DAV:'><remove><prop><p xmlns='u:'/></prop></remove></propertyupdate>";
    assert_eq!(alice.send("PROPPATCH", "/dav/c", &[], remove).await.status, 207);
    assert_eq!(set_property_refusal(&alice, "/dav/target", "q", 10_000).await, None);
    assert!(set_property_refusal(&alice, "/dav/c", "p", 10_000).await.is_some());
    // A property counts for the user who set it last.
    assert_eq!(set_property_refusal(&bob, "/dav/target", "q", 10_000).await, None);
    assert_eq!(set_property_refusal(&alice, "/dav/c", "p", 1_000).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_with_tags_beyond_property_space_leaves_no_file() {
    let space = PropertyQuota { per_user: 300, total: 1 << 20 };
    let gateway = Fixture::start_with(Clock::system(), |settings| settings.property_space = space).await;
    let dav = gateway.dav("alice", &gateway.create_user_and_token("alice", "/:rw"));
    let refused = dav.send("PUT", "/dav/a", &[("x-patgate-tags", "draft")], "x").await;
    assert!(refused.status == 507 && refused.text().contains("their maximum size"), "{}", refused.text());
    assert_eq!(gateway.all_paths(), [".patgate"].map(str::to_owned)[..], "neither file nor debris");
    gateway.write_host_file("b", "old");
    assert_eq!(dav.send("PUT", "/dav/b", &[("x-patgate-tags", "draft")], "new").await.status, 507);
    assert_eq!(dav.get("/dav/b").await.text(), "old");
    assert_eq!(dav.put("/dav/b", "new").await.status, 204, "without tags");
}
