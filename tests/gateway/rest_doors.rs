//! What other servers ask: introspection, `/auth/verify`, and the upload service's calls.

use serde_json::{Value, json};

use patgate::auth::Clock;

use crate::support::{Fixture, Rest, id_of};

const NOTHING: Value = Value::Null;

async fn introspected(who: &Rest, token: &str) -> Value {
    let answer = who.form("/api/v1/oauth/introspect", format!("token={token}&token_type_hint=access_token")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_dead_unknown_mistyped_or_hidden_is_not_active_and_no_more_is_told() {
    let gateway = Fixture::start().await;
    let alice = gateway.login("alice", "/:rw");
    let bob = gateway.login("bob", "/:r");
    gateway.patgate(&["admin", "user", "create", "lookup", "--role", "security.authentication_lookup", "--no-home"]);
    let lookup = gateway.token("lookup", &["-e", "1h", "--role", "security.authentication_lookup"]);
    let (own, all) = (gateway.rest("bob", &bob), gateway.rest("lookup", &lookup));
    let seen = introspected(&all, &alice).await;
    assert_eq!(
        (&seen["active"], &seen["username"], &seen["jti"]),
        (&json!(true), &json!("alice"), &json!(id_of(&alice)))
    );
    assert!(seen["exp"].as_i64() > seen["iat"].as_i64());
    assert_eq!(introspected(&own, &bob).await["active"], true);

    let dead = gateway.token("alice", &["-e", "1h"]);
    gateway.patgate(&["apitoken", "revoke", id_of(&dead)]);
    let wrong = format!("{}{}", &alice[..45], &dead[45..]);
    let other = format!("pgt_{}{}", id_of(&alice), &bob[12..]);
    let inactive = json!({ "active": false });
    for token in [&dead, &wrong, &other, "pgt_JhxND7ci.x", "nothing"] {
        assert_eq!(introspected(&all, token).await, inactive, "{token}");
    }
    assert_eq!(introspected(&own, &alice).await, inactive, "hidden from one without the role");
    assert_eq!(all.form("/api/v1/oauth/introspect", String::new()).await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn introspection_tells_what_a_token_may_do_and_not_what_it_was_given() {
    let gateway = Fixture::start().await;
    gateway.folder("/a/b");
    let (a, b) = (gateway.node("/a"), gateway.node("/a/b"));
    gateway.patgate(&["admin", "user", "create", "root", "--grant", "/:rw", "--role", "admin"]);
    gateway.patgate(&[
        "admin",
        "user",
        "create",
        "help",
        "--grant",
        "/:rw",
        "--role",
        "audit.read",
        "--role",
        "policy.manage",
    ]);
    let root = gateway.rest("root", &gateway.token("root", &["-e", "1h", "--role", "admin"]));
    let parent = gateway.token("help", &["-e", "1h", "-s", "path:/a:r", "--role", "audit.read,policy.manage"]);
    let parent_rest = gateway.rest("help", &parent);
    let order = json!({ "roles": ["audit.read", "policy.manage"] });
    let child = parent_rest.send("POST", "/api/v1/tokens", order).await.json()["token"].clone();
    let child = child.as_str().expect("a token").to_owned();
    let scope = async |token: &str| introspected(&root, token).await["scope"].clone();
    assert_eq!(scope(&parent).await, format!("node:{a}:r policy.manage audit.read"));
    assert_eq!(scope(&child).await, format!("node:{a}:r policy.manage audit.read"), "those of its parent");

    let narrower = json!({ "scopes": ["path:/a/b:r"], "roles": ["audit.read"] });
    let path = format!("/api/v1/tokens/{}", id_of(&parent));
    assert_eq!(root.send("PATCH", &path, narrower).await.status, 200);
    assert_eq!(scope(&child).await, format!("node:{b}:r audit.read"));
    assert_eq!(root.send("PATCH", "/api/v1/users/help", json!({ "roles": [] })).await.status, 200);
    assert_eq!(scope(&child).await, format!("node:{b}:r"), "roles count only while the owner has them");
    gateway.patgate(&["admin", "user", "revoke-grant", "help", "/"]);
    assert_eq!(scope(&child).await, "", "nothing is left, which is not the same as no scopes");
    let whole = gateway.token("help", &["-e", "1h"]);
    assert_eq!(scope(&whole).await, NOTHING);
    let scopes = async |token: &str| introspected(&root, token).await["scopes"].clone();
    assert_eq!((scopes(&child).await, scopes(&whole).await), (json!([]), NOTHING));
    let ended = gateway.token("root", &["-e", "1h", "--role", "admin", "-s", "path:/a:r"]);
    assert_eq!(scopes(&ended).await, json!([format!("node:{a}:r")]), "roles are no scopes");
    gateway.patgate(&["admin", "user", "revoke-grant", "root", "/"]);
    let admin = gateway.token("root", &["-e", "1h", "--role", "admin"]);
    assert_eq!((scope(&ended).await, scope(&admin).await), (json!("admin"), json!("admin")));
    assert_eq!((scopes(&ended).await, scopes(&admin).await), (json!([]), NOTHING), "nothing, and all that there is");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_holds_a_token_may_revoke_it() {
    let gateway = Fixture::start().await;
    let alice = gateway.login("alice", "/:rw");
    let bob = gateway.login("bob", "/:r");
    let (finder, owner) = (gateway.rest("bob", &bob), gateway.rest("alice", &alice));
    for token in ["pgt_JhxND7ci.x", &alice, &alice] {
        assert_eq!(finder.form("/api/v1/oauth/revoke", format!("token={token}")).await.status, 200, "{token}");
    }
    assert_eq!(owner.get("/api/v1/tokens/self").await.status, 401);
    assert_eq!(finder.get("/api/v1/tokens/self").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_server_is_told_whose_a_request_is_and_whether_it_may_reach_a_node() {
    let gateway = Fixture::start().await;
    gateway.write("/alice/docs/x", "x");
    gateway.user("alice", &["/alice:rw"]);
    let token = gateway.token("alice", &["-e", "1h", "-s", "path:/alice/docs:r"]);
    let alice = gateway.rest("alice", &token);
    let passed = alice.with("GET", "/auth/verify", &[("accept", "text/html")], NOTHING).await;
    assert_eq!((passed.status, passed.body.len()), (200, 0));
    let told = ["x-patgate-user", "remote-user", "x-patgate-token"].map(|name| passed.header(name).to_owned());
    assert_eq!(told, ["alice", "alice", id_of(&token)]);
    for (query, status) in [
        ("?op=read&path=/alice/docs/x", 200),
        ("?op=stat&path=/alice", 200),
        ("?op=write&path=/alice/docs/x", 403),
        ("?op=read&path=/alice", 403),
        ("?op=read&path=/elsewhere", 403),
        ("?op=read", 422),
        ("?op=eat&path=/", 422),
    ] {
        assert_eq!(alice.get(&format!("/auth/verify{query}")).await.status, status, "{query}");
    }
    for (login, options) in [("alice", ["--protocol", "sftp"]), ("alice", ["--ip", "192.0.2.1"])] {
        let limited = gateway.token(login, &[&["-e", "1h"], &options[..]].concat());
        assert_eq!(gateway.rest(login, &limited).get("/auth/verify").await.status, 401, "{options:?}");
    }
    gateway.patgate(&["apitoken", "revoke", id_of(&token)]);
    assert_eq!(alice.get("/auth/verify").await.problem(), "denied");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_to_wait_is_refused_in_words_that_a_web_server_takes() {
    let gateway = Fixture::with_clock_by_hand().await;
    let stranger = gateway.rest("alice", "pgt_nobody");
    let mut refused = stranger.get("/auth/verify").await;
    assert_eq!(refused.problem(), "denied");
    for _ in 0..50 {
        refused = stranger.get("/auth/verify").await;
        assert_eq!(refused.status, 401);
    }
    assert!(refused.problem() == "throttled" && !refused.header("retry-after").is_empty(), "{}", refused.text());
    assert_eq!(stranger.get("/api/v1/tokens").await.status, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upload_services_calls_mean_what_its_clients_know() {
    let gateway = Fixture::start().await;
    gateway.patgate(&["policy", "set", "max-lifetime", "100Y"]);
    gateway.patgate(&["policy", "set", "max-tokens-per-user", "20"]);
    let alice = gateway.rest("alice", &gateway.login("alice", "/:rw"));
    gateway.patgate(&["policy", "set", "allow-never", "true"]);
    let order = json!({
        "roles": [],
        "data": {
            "tags": ["holiday"], "allowedMimeTypes": ["image/*"], "maxAllowedFileSize": 1000,
            "allowedUserAgents": ["curl/*"], "allowedIpAddresses": ["192.0.2.1"]
        },
        "expires": "auto"
    });
    let made = alice.send("POST", "/auth/token/generate", order).await;
    assert_eq!(made.status, 200, "{}", made.text());
    let (id, token) = (made.json()["tokenId"].clone(), made.json()["token"].clone());
    assert_eq!(token.as_str().map(id_of), id.as_str());
    let path = format!("/auth/token/{}", id.as_str().expect("an id"));
    let fields = alice.get(&path).await.json();
    let wanted = json!({
        "tokenId": id, "expires": made.json()["expires"], "roles": [], "tags": ["holiday"], "mimes": ["image/*"],
        "max_file_size": 1000
    });
    assert_eq!(fields, wanted);
    let shown = alice.get(&format!("/api/v1/tokens/{}", id.as_str().expect("an id"))).await.json();
    assert_eq!(
        (&shown["limits"]["user_agents"], &shown["limits"]["ips"]),
        (&json!(["curl/*"]), &json!(["192.0.2.1/32"]))
    );
    let mut revoked = wanted;
    revoked["revoked"] = json!(true);
    assert_eq!(alice.send("DELETE", &path, NOTHING).await.json(), revoked);
    assert_eq!(gateway.patgate(&["apitoken", "list", "--status", "revoked"]).lines().count(), 2);
    let refused = [json!({ "expires": "soon" }), json!({ "expires": "2001-01-01 00:00:00" }), json!({ "expire": "" })];
    for order in refused {
        assert_eq!(alice.send("POST", "/auth/token/generate", order.clone()).await.status, 422, "{order}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upload_services_times_are_exact_and_in_utc() {
    let gateway = Fixture::start().await;
    gateway.user("alice", &["/:rw"]);
    for (key, value) in [("max-lifetime", "900Y"), ("allow-never", "true"), ("max-tokens-per-user", "20")] {
        gateway.patgate(&["policy", "set", key, value]);
    }
    let alice = gateway.rest("alice", &gateway.token("alice", &["-e", "never"]));
    let usual = alice.send("POST", "/auth/token/generate", json!({})).await.json()["expires"].clone();
    for (asked, answered) in [("2099-05-05 08:00:00", json!("2099-05-05 08:00:00")), ("never", json!("never"))] {
        let made = alice.send("POST", "/auth/token/generate", json!({ "expires": asked })).await;
        assert_eq!((made.status, &made.json()["expires"]), (200, &answered), "{}", made.text());
    }
    for asked in ["auto", "automatic", ""] {
        let made = alice.send("POST", "/auth/token/generate", json!({ "expires": asked })).await.json();
        assert_eq!(made["expires"].as_str().map(|at| &at[..10]), usual.as_str().map(|at| &at[..10]), "{asked}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_the_address_counts_where_it_is_allowed_and_on_these_calls_alone() {
    for allowed in [false, true] {
        let gateway = Fixture::start_with(Clock::system(), |settings| settings.api_options.query_token = allowed).await;
        let token = gateway.login("alice", "/:rw");
        let id = id_of(&token);
        let get = async |path: &str| reqwest::get(format!("http://{}{path}", gateway.http)).await.expect("sent");
        gateway.dav("alice", &token); // readies the crypto library
        let expected = if allowed { 200 } else { 401 };
        assert_eq!(get(&format!("/auth/token/{id}?_token={token}")).await.status(), expected, "{allowed}");
        for path in ["/api/v1/tokens/self", "/auth/verify", "/dav/", "/api/v1/tokens"] {
            assert_eq!(get(&format!("{path}?_token={token}")).await.status(), 401, "{path}");
        }
    }
}
