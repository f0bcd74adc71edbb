//! Calls that other servers make: token introspection (RFC 7662), `/auth/verify` for reverse proxies, and the calls of
//! the upload service whose clients patgate accepts.

use serde_json::{Value, json};

use patgate::auth::Clock;

use crate::support::{Fixture, RestClient, token_id};

const NO_BODY: Value = Value::Null;

async fn introspect(who: &RestClient, token: &str) -> Value {
    let answer = who.post_form("/api/v1/oauth/introspect", format!("token={token}&token_type_hint=access_token")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn introspection_answers_only_inactive_for_inactive_unknown_or_hidden_tokens() {
    let gateway = Fixture::start().await;
    let alice = gateway.create_user_and_token("alice", "/:rw");
    let bob = gateway.create_user_and_token("bob", "/:r");
    gateway.run_cli(&["admin", "user", "create", "lookup", "--role", "security.authentication_lookup", "--no-home"]);
    let lookup = gateway.create_token("lookup", &["-e", "1h", "--role", "security.authentication_lookup"]);
    let (bob_client, lookup_client) = (gateway.rest("bob", &bob), gateway.rest("lookup", &lookup));
    let introspected = introspect(&lookup_client, &alice).await;
    assert_eq!(
        (&introspected["active"], &introspected["username"], &introspected["jti"]),
        (&json!(true), &json!("alice"), &json!(token_id(&alice)))
    );
    assert!(introspected["exp"].as_i64() > introspected["iat"].as_i64());
    assert_eq!(introspect(&bob_client, &bob).await["active"], true);

    let dead = gateway.create_token("alice", &["-e", "1h"]);
    gateway.run_cli(&["apitoken", "revoke", token_id(&dead)]);
    let wrong = format!("{}{}", &alice[..45], &dead[45..]);
    let other = format!("pgt_{}{}", token_id(&alice), &bob[12..]);
    let inactive = json!({ "active": false });
    for token in [&dead, &wrong, &other, "pgt_JhxND7ci.x", "nothing"] {
        assert_eq!(introspect(&lookup_client, token).await, inactive, "{token}");
    }
    assert_eq!(introspect(&bob_client, &alice).await, inactive, "hidden from one without the role");
    assert_eq!(lookup_client.post_form("/api/v1/oauth/introspect", String::new()).await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn introspection_returns_effective_scopes_and_roles() {
    let gateway = Fixture::start().await;
    gateway.create_host_directory("/a/b");
    let (a, b) = (gateway.node_id("/a"), gateway.node_id("/a/b"));
    gateway.run_cli(&["admin", "user", "create", "root", "--grant", "/:rw", "--role", "admin"]);
    gateway.run_cli(&[
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
    let root = gateway.rest("root", &gateway.create_token("root", &["-e", "1h", "--role", "admin"]));
    let parent = gateway.create_token("help", &["-e", "1h", "-s", "path:/a:r", "--role", "audit.read,policy.manage"]);
    let parent_rest = gateway.rest("help", &parent);
    let request = json!({ "roles": ["audit.read", "policy.manage"] });
    let child = parent_rest.send("POST", "/api/v1/tokens", request).await.json()["token"].clone();
    let child = child.as_str().expect("a token").to_owned();
    let scope = async |token: &str| introspect(&root, token).await["scope"].clone();
    assert_eq!(scope(&parent).await, format!("node:{a}:r policy.manage audit.read"));
    assert_eq!(scope(&child).await, format!("node:{a}:r policy.manage audit.read"), "those of its parent");

    let narrower = json!({ "scopes": ["path:/a/b:r"], "roles": ["audit.read"] });
    let path = format!("/api/v1/tokens/{}", token_id(&parent));
    assert_eq!(root.send("PATCH", &path, narrower).await.status, 200);
    assert_eq!(scope(&child).await, format!("node:{b}:r audit.read"));
    assert_eq!(root.send("PATCH", "/api/v1/users/help", json!({ "roles": [] })).await.status, 200);
    assert_eq!(scope(&child).await, format!("node:{b}:r"), "roles count only while the owner has them");
    gateway.run_cli(&["admin", "user", "revoke-grant", "help", "/"]);
    assert_eq!(scope(&child).await, "", "nothing is left, which is not the same as no scopes");
    let full_token = gateway.create_token("help", &["-e", "1h"]);
    assert_eq!(scope(&full_token).await, NO_BODY);
    let scopes = async |token: &str| introspect(&root, token).await["scopes"].clone();
    assert_eq!((scopes(&child).await, scopes(&full_token).await), (json!([]), NO_BODY));
    let admin_token = gateway.create_token("root", &["-e", "1h", "--role", "admin", "-s", "path:/a:r"]);
    assert_eq!(scopes(&admin_token).await, json!([format!("node:{a}:r")]), "roles are no scopes");
    gateway.run_cli(&["admin", "user", "revoke-grant", "root", "/"]);
    let admin = gateway.create_token("root", &["-e", "1h", "--role", "admin"]);
    assert_eq!((scope(&admin_token).await, scope(&admin).await), (json!("admin"), json!("admin")));
    assert_eq!(
        (scopes(&admin_token).await, scopes(&admin).await),
        (json!([]), NO_BODY),
        "nothing, and all that there is"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn any_holder_of_a_token_may_revoke_it() {
    let gateway = Fixture::start().await;
    let alice = gateway.create_user_and_token("alice", "/:rw");
    let bob = gateway.create_user_and_token("bob", "/:r");
    let (finder, owner) = (gateway.rest("bob", &bob), gateway.rest("alice", &alice));
    for token in ["pgt_JhxND7ci.x", &alice, &alice] {
        assert_eq!(finder.post_form("/api/v1/oauth/revoke", format!("token={token}")).await.status, 200, "{token}");
    }
    assert_eq!(owner.get("/api/v1/tokens/self").await.status, 401);
    assert_eq!(finder.get("/api/v1/tokens/self").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn auth_verify_returns_the_user_and_checks_node_access() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/alice/docs/x", "x");
    gateway.create_user("alice", &["/alice:rw"]);
    let token = gateway.create_token("alice", &["-e", "1h", "-s", "path:/alice/docs:r"]);
    let alice = gateway.rest("alice", &token);
    let passed = alice.send_with_headers("GET", "/auth/verify", &[("accept", "text/html")], NO_BODY).await;
    assert_eq!((passed.status, passed.body.len()), (200, 0));
    let identity_headers =
        ["x-patgate-user", "remote-user", "x-patgate-token"].map(|name| passed.header(name).to_owned());
    assert_eq!(identity_headers, ["alice", "alice", token_id(&token)]);
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
        let limited = gateway.create_token(login, &[&["-e", "1h"], &options[..]].concat());
        assert_eq!(gateway.rest(login, &limited).get("/auth/verify").await.status, 401, "{options:?}");
    }
    gateway.run_cli(&["apitoken", "revoke", token_id(&token)]);
    assert_eq!(alice.get("/auth/verify").await.problem_kind(), "denied");
}

#[tokio::test(flavor = "multi_thread")]
async fn throttled_auth_verify_answers_401_with_retry_after() {
    let gateway = Fixture::with_manual_clock().await;
    let wrong_token = gateway.rest("alice", "pgt_nobody");
    let mut refused = wrong_token.get("/auth/verify").await;
    assert_eq!(refused.problem_kind(), "denied");
    for _ in 0..50 {
        refused = wrong_token.get("/auth/verify").await;
        assert_eq!(refused.status, 401);
    }
    assert!(refused.problem_kind() == "throttled" && !refused.header("retry-after").is_empty(), "{}", refused.text());
    assert_eq!(wrong_token.get("/api/v1/tokens").await.status, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_service_calls_are_compatible_with_its_clients() {
    let gateway = Fixture::start().await;
    gateway.run_cli(&["policy", "set", "max-lifetime", "100Y"]);
    gateway.run_cli(&["policy", "set", "max-tokens-per-user", "20"]);
    let alice = gateway.rest("alice", &gateway.create_user_and_token("alice", "/:rw"));
    gateway.run_cli(&["policy", "set", "allow-never", "true"]);
    let request = json!({
        "roles": [],
        "data": {
            "tags": ["holiday"], "allowedMimeTypes": ["image/*"], "maxAllowedFileSize": 1000,
            "allowedUserAgents": ["curl/*"], "allowedIpAddresses": ["192.0.2.1"]
        },
        "expires": "auto"
    });
    let created = alice.send("POST", "/auth/token/generate", request).await;
    assert_eq!(created.status, 200, "{}", created.text());
    let (id, token) = (created.json()["tokenId"].clone(), created.json()["token"].clone());
    assert_eq!(token.as_str().map(token_id), id.as_str());
    let path = format!("/auth/token/{}", id.as_str().expect("an id"));
    let fields = alice.get(&path).await.json();
    let expected = json!({
        "tokenId": id, "expires": created.json()["expires"], "roles": [], "tags": ["holiday"], "mimes": ["image/*"],
        "max_file_size": 1000
    });
    assert_eq!(fields, expected);
    let record = alice.get(&format!("/api/v1/tokens/{}", id.as_str().expect("an id"))).await.json();
    assert_eq!(
        (&record["limits"]["user_agents"], &record["limits"]["ips"]),
        (&json!(["curl/*"]), &json!(["192.0.2.1/32"]))
    );
    let mut revoked = expected;
    revoked["revoked"] = json!(true);
    assert_eq!(alice.send("DELETE", &path, NO_BODY).await.json(), revoked);
    assert_eq!(gateway.run_cli(&["apitoken", "list", "--status", "revoked"]).lines().count(), 2);
    let refused = [json!({ "expires": "soon" }), json!({ "expires": "2001-01-01 00:00:00" }), json!({ "expire": "" })];
    for request in refused {
        assert_eq!(alice.send("POST", "/auth/token/generate", request.clone()).await.status, 422, "{request}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_service_times_are_exact_and_in_utc() {
    let gateway = Fixture::start().await;
    gateway.create_user("alice", &["/:rw"]);
    for (key, value) in [("max-lifetime", "900Y"), ("allow-never", "true"), ("max-tokens-per-user", "20")] {
        gateway.run_cli(&["policy", "set", key, value]);
    }
    let alice = gateway.rest("alice", &gateway.create_token("alice", &["-e", "never"]));
    let usual = alice.send("POST", "/auth/token/generate", json!({})).await.json()["expires"].clone();
    for (expires, answered) in [("2099-05-05 08:00:00", json!("2099-05-05 08:00:00")), ("never", json!("never"))] {
        let created = alice.send("POST", "/auth/token/generate", json!({ "expires": expires })).await;
        assert_eq!((created.status, &created.json()["expires"]), (200, &answered), "{}", created.text());
    }
    for expires in ["auto", "automatic", ""] {
        let created = alice.send("POST", "/auth/token/generate", json!({ "expires": expires })).await.json();
        assert_eq!(created["expires"].as_str().map(|at| &at[..10]), usual.as_str().map(|at| &at[..10]), "{expires}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn query_token_is_accepted_only_when_allowed_and_only_on_upload_calls() {
    for allowed in [false, true] {
        let gateway = Fixture::start_with(Clock::system(), |settings| settings.api_options.query_token = allowed).await;
        let token = gateway.create_user_and_token("alice", "/:rw");
        let id = token_id(&token);
        let get = async |path: &str| reqwest::get(format!("http://{}{path}", gateway.http)).await.expect("sent");
        gateway.dav("alice", &token); // readies the crypto library
        let expected = if allowed { 200 } else { 401 };
        assert_eq!(get(&format!("/auth/token/{id}?_token={token}")).await.status(), expected, "{allowed}");
        for path in ["/api/v1/tokens/self", "/auth/verify", "/dav/", "/api/v1/tokens"] {
            assert_eq!(get(&format!("{path}?_token={token}")).await.status(), 401, "{path}");
        }
    }
}
