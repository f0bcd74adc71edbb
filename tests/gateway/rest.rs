//! The REST API as scripts use it: tokens, users, nodes, policy, and which roles a call needs. Creation of tokens in
//! detail is in `rest_tokens.rs`, calls of other servers in `rest_integrations.rs`.

use serde_json::{Value, json};

use crate::support::{Fixture, RestClient, token_id};

const NO_BODY: Value = Value::Null;

/// A gateway with an administrator, alice, who may read and write `/alice`, and bob.
async fn start_gateway() -> (Fixture, RestClient, RestClient, RestClient) {
    let gateway = Fixture::start().await;
    for folder in ["/alice/docs", "/bob"] {
        gateway.create_host_directory(folder);
    }
    gateway.run_cli(&["admin", "user", "create", "root", "--grant", "/:rw", "--role", "admin"]);
    gateway.run_cli(&["policy", "set", "max-tokens-per-user", "20"]);
    let alice = gateway.create_user_and_token("alice", "/alice:rw");
    let bob = gateway.create_user_and_token("bob", "/bob:rw");
    let root = gateway.create_token("root", &["-e", "1h", "--role", "admin"]);
    let (root, alice, bob) = (gateway.rest("root", &root), gateway.rest("alice", &alice), gateway.rest("bob", &bob));
    (gateway, root, alice, bob)
}

#[tokio::test(flavor = "multi_thread")]
async fn secret_appears_only_in_the_response_that_creates_it() {
    let (_gateway, root, alice, _) = start_gateway().await;
    let created = alice.send("POST", "/api/v1/tokens", json!({ "name": "laptop", "window": "10m" })).await;
    assert_eq!((created.status, created.header("cache-control")), (201, "no-store"), "{}", created.text());
    let secret = created.json()["token"].as_str().expect("the secret").to_owned();
    let id = token_id(&secret).to_owned();
    assert_eq!(
        (created.json()["id"].as_str(), created.header("location")),
        (Some(&*id), &*format!("/api/v1/tokens/{id}"))
    );
    assert_eq!(
        (created.json()["window_seconds"].as_u64(), created.json()["name"].as_str()),
        (Some(600), Some("laptop"))
    );
    for path in [created.header("location"), "/api/v1/tokens", "/api/v1/audit", "/api/v1/tokens/self", "/auth/token/"] {
        let path = if path.ends_with("token/") { format!("{path}{id}") } else { path.to_owned() };
        let answer = root.get(&path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(!answer.text().contains(&secret[13..]), "{path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
    }
    let rotated = alice.send("POST", &format!("/api/v1/tokens/{id}/rotate"), NO_BODY).await;
    let new = rotated.json()["token"].as_str().expect("another secret").to_owned();
    assert!(rotated.status == 200 && new != secret && token_id(&new) == id);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_users_tokens_need_a_role_and_otherwise_answer_as_missing() {
    let (gateway, root, alice, bob) = start_gateway().await;
    let bob_token = gateway.create_token("bob", &["-e", "1h"]);
    for (method, path, body) in [
        ("GET", "", NO_BODY),
        ("PATCH", "", json!({ "name": "x" })),
        ("POST", "/rotate", NO_BODY),
        ("DELETE", "", NO_BODY),
    ] {
        let (hidden, missing) =
            (format!("/api/v1/tokens/{}{path}", token_id(&bob_token)), format!("/api/v1/tokens/00000000{path}"));
        let hidden = alice.send(method, &hidden, body.clone()).await;
        let missing = alice.send(method, &missing, body).await;
        assert_eq!((hidden.status, hidden.problem_kind()), (404, "unknown-token".to_owned()), "{method} {path}");
        let text = hidden.text().replace(token_id(&bob_token), "00000000");
        assert_eq!((text, hidden.status), (missing.text(), missing.status), "{method} {path}");
    }
    assert_eq!(bob.get(&format!("/api/v1/tokens/{}", token_id(&bob_token))).await.status, 200);
    for (method, path, body) in [
        ("GET", "/api/v1/users", NO_BODY),
        ("POST", "/api/v1/users", json!({ "login": "eve" })),
        ("PATCH", "/api/v1/users/bob", json!({ "disabled": true })),
        ("DELETE", "/api/v1/users/bob", NO_BODY),
        ("POST", "/api/v1/users/alice/grants", json!({ "path": "/bob", "permission": "r" })),
        ("GET", "/api/v1/policy", NO_BODY),
        ("PATCH", "/api/v1/policy", json!({ "allow-never": true })),
        ("GET", "/api/v1/audit", NO_BODY),
        ("GET", "/api/v1/audit/chain", NO_BODY),
        ("GET", "/api/v1/tokens?owner=bob", NO_BODY),
        ("POST", "/api/v1/tokens", json!({ "owner": "bob" })),
    ] {
        let refused = alice.send(method, path, body.clone()).await;
        assert_eq!((refused.status, refused.problem_kind()), (403, "role-missing".to_owned()), "{method} {path}");
        assert!(refused.json()["detail"].as_str().is_some_and(|detail| detail.contains("the role ")), "{path}");
        assert!(root.send(method, path, body).await.status < 300, "{method} {path}");
        if path == "/api/v1/users/bob" && method == "PATCH" {
            root.send(method, path, json!({ "disabled": false })).await;
        }
        if method == "DELETE" {
            gateway.create_user("bob", &["/bob:rw"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn token_pages_are_stable_while_tokens_are_created() {
    let (gateway, root, alice, _) = start_gateway().await;
    for _ in 0..6 {
        gateway.create_token("alice", &["-e", "1h"]);
    }
    let ids = |answer: &Value| -> Vec<String> {
        let tokens = answer.as_array().expect("a list").iter();
        tokens.map(|token| token["id"].as_str().expect("an id").to_owned()).collect()
    };
    let all = ids(&alice.get("/api/v1/tokens").await.json());
    assert_eq!(all.len(), 7);
    let mut seen = Vec::new();
    let mut path = "/api/v1/tokens?limit=2".to_owned();
    loop {
        let page = alice.get(&path).await;
        assert_eq!(page.status, 200, "{path}");
        seen.extend(ids(&page.json()));
        gateway.create_token("alice", &["-e", "1h"]);
        let link = page.header("link").to_owned();
        let Some(next) = link.strip_prefix('<').and_then(|link| link.split_once(">; rel=\"next\"")) else { break };
        path = next.0.to_owned();
    }
    let mut sorted = seen.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted, seen, "no token comes twice, and they come in order");
    assert!(all.iter().all(|id| seen.contains(id)), "{all:?} {seen:?}");
    let live_tokens = root.get("/api/v1/tokens?owner=alice&limit=500&state=live").await.json();
    assert!(live_tokens.as_array().expect("a list").iter().all(|token| token["owner"] == "alice"));
    for path in ["/api/v1/tokens?limit=0", "/api/v1/tokens?limit=501", "/api/v1/tokens?cursor=x", "/api/v1/tokens?x=1"]
    {
        assert!([400, 422].contains(&alice.get(path).await.status), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn if_match_with_an_outdated_version_is_refused() {
    let (gateway, _, alice, _) = start_gateway().await;
    let path = format!("/api/v1/tokens/{}", token_id(&gateway.create_token("alice", &["-e", "1h"])));
    let seen = alice.get(&path).await;
    let first = seen.header("etag").to_owned();
    assert!(first.starts_with('"'), "{first}");
    let change = |name: &str| json!({ "name": name });
    let changed = alice.send_with_headers("PATCH", &path, &[("if-match", &first)], change("one")).await;
    assert_eq!((changed.status, changed.json()["name"].as_str()), (200, Some("one")), "{}", changed.text());
    assert_ne!(changed.header("etag"), first);
    let late = alice.send_with_headers("PATCH", &path, &[("if-match", &first)], change("two")).await;
    assert_eq!((late.status, late.problem_kind()), (412, "changed".to_owned()));
    assert_eq!(alice.get(&path).await.json()["name"], "one");
    assert_eq!(alice.send_with_headers("PATCH", &path, &[("if-match", "*")], change("three")).await.status, 200);
    assert_eq!(alice.send_with_headers("PATCH", &path, &[], change("four")).await.status, 200);
    let wider = alice.send_with_headers("PATCH", &path, &[], json!({ "expires_at": "2999-01-01T00:00:00Z" })).await;
    assert_eq!((wider.status, wider.problem_kind()), (422, "widens".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_is_idempotent_and_applies_to_the_next_request() {
    let (gateway, _, alice, _) = start_gateway().await;
    let token = gateway.create_token("alice", &["-e", "1h"]);
    let other = gateway.rest("alice", &token);
    assert_eq!(other.get("/api/v1/tokens/self").await.status, 200);
    let path = format!("/api/v1/tokens/{}", token_id(&token));
    for _ in 0..2 {
        assert_eq!(alice.send("DELETE", &path, NO_BODY).await.status, 204);
    }
    let refused = other.get("/api/v1/tokens/self").await;
    assert_eq!((refused.status, refused.problem_kind()), (401, "denied".to_owned()));
    assert!(refused.headers.get_all("www-authenticate").iter().count() == 2);
    assert_eq!(alice.get(&path).await.json()["state"], "revoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_visible_nodes_are_listed() {
    let (gateway, root, alice, _) = start_gateway().await;
    let (alice_node, bob_node) = (gateway.node_id("/alice/docs"), gateway.node_id("/bob"));
    let found = alice.get("/api/v1/nodes?path=/alice/docs").await;
    assert_eq!(found.json(), json!([{ "node": alice_node, "path": "/alice/docs", "dangling": false }]));
    assert_eq!(alice.get(&format!("/api/v1/nodes/{alice_node}")).await.json()["path"], "/alice/docs");
    for path in ["/api/v1/nodes?path=/bob".to_owned(), format!("/api/v1/nodes/{bob_node}")] {
        let (hidden, missing) = (alice.get(&path).await, alice.get("/api/v1/nodes?path=/nothing").await);
        assert_eq!((hidden.status, hidden.text()), (404, missing.text()), "{path}");
        assert_eq!(root.get(&path).await.status, 200, "{path}");
    }
    let listed = alice.get("/api/v1/nodes").await.text();
    assert!(listed.contains(&alice_node) && !listed.contains(&bob_node), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_in_a_drop_box_are_not_listed() {
    let (gateway, root, ..) = start_gateway().await;
    gateway.create_host_directory("/drop/hidden/out/deep");
    gateway.create_host_directory("/drop/way/shut");
    let drop = gateway.node_id("/drop");
    let [parent, out, deep] =
        ["/drop/hidden", "/drop/hidden/out", "/drop/hidden/out/deep"].map(|path| gateway.node_id(path));
    let [other, shut] = ["/drop/way", "/drop/way/shut"].map(|path| gateway.node_id(path));
    let listed = async |rest: &RestClient, under: &str| {
        let answer = rest.get(&format!("/api/v1/nodes?under={under}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let of = |node: &Value| node["node"].as_str().expect("an id").to_owned();
        let mut nodes: Vec<String> = answer.json().as_array().expect("a list").iter().map(of).collect();
        nodes.sort();
        nodes
    };
    let sorted = |nodes: &[&String]| {
        let mut nodes: Vec<String> = nodes.iter().map(|node| (*node).clone()).collect();
        nodes.sort();
        nodes
    };
    let writer = gateway.rest("carol", &gateway.create_user_and_token("carol", "/drop:w"));
    assert_eq!(listed(&writer, "/drop").await, sorted(&[&drop]), "its root, and nothing in it");
    assert_eq!(writer.get("/api/v1/nodes?path=/drop/way").await.json()[0]["node"], *other, "by name it is found");
    gateway.create_user("dora", &["/drop:w", "/drop/hidden/out:r"]);
    let both = gateway.rest("dora", &gateway.create_token("dora", &["-e", "1h"]));
    assert_eq!(
        listed(&both, "/drop").await,
        sorted(&[&drop, &parent, &out, &deep]),
        "the way down to what can be read"
    );
    assert_eq!(listed(&root, "/drop").await, sorted(&[&drop, &parent, &out, &deep, &other, &shut]));
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_created_changed_and_deleted() {
    let (gateway, root, ..) = start_gateway().await;
    let created = root.send("POST", "/api/v1/users", json!({ "login": "eve" })).await;
    assert_eq!((created.status, created.header("location")), (201, "/api/v1/users/eve"), "{}", created.text());
    assert_eq!(created.json()["home"], "/eve");
    assert!(gateway.host_path("/eve").is_dir());
    let twice = root.send("POST", "/api/v1/users", json!({ "login": "eve" })).await;
    assert_eq!((twice.status, twice.problem_kind()), (409, "user-exists".to_owned()));
    let grant = json!({ "path": "/alice", "permission": "r" });
    let granted = root.send("POST", "/api/v1/users/eve/grants", grant).await;
    assert_eq!((granted.status, granted.json()["permission"].as_str()), (201, Some("r")), "{}", granted.text());
    let grant_url = granted.header("location").to_owned();
    assert_eq!(root.get(&grant_url).await.json(), granted.json());
    let token = gateway.create_token("eve", &["-e", "1h"]);
    assert_eq!(gateway.dav("eve", &token).status("PROPFIND", "/dav/alice/").await, 207);
    assert_eq!(root.send("DELETE", &grant_url, NO_BODY).await.status, 204);
    assert_eq!(gateway.dav("eve", &token).status("PROPFIND", "/dav/alice/").await, 404);
    assert_eq!((root.get(&grant_url).await.status, root.send("DELETE", &grant_url, NO_BODY).await.status), (404, 404));
    let disabled = root.send("PATCH", "/api/v1/users/eve", json!({ "disabled": true, "roles": ["audit.read"] })).await;
    assert!(disabled.json()["disabled_at"].is_string() && disabled.json()["roles"] == json!(["audit.read"]));
    assert_eq!(gateway.dav("eve", &token).status("PROPFIND", "/dav/eve/").await, 401);
    assert_eq!(root.send("DELETE", "/api/v1/users/eve", NO_BODY).await.status, 204);
    assert_eq!(root.get("/api/v1/users/eve").await.problem_kind(), "unknown-user");
    assert!(gateway.host_path("/eve").is_dir(), "its files stay");
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_lifetimes_are_changed_atomically() {
    let (_gateway, root, ..) = start_gateway().await;
    for (default, max) in [("1d", "2d"), ("30d", "60d"), ("1h", "1h")] {
        let change = json!({ "default-lifetime": default, "max-lifetime": max });
        let changed = root.send("PATCH", "/api/v1/policy", change).await;
        let found = (&changed.json()["default-lifetime"], &changed.json()["max-lifetime"]);
        assert_eq!((changed.status, found), (200, (&json!(default), &json!(max))), "{}", changed.text());
    }
    for change in [
        json!({ "default-lifetime": "2h" }),
        json!({ "max": 1 }),
        json!({ "max-lifetime": "soon" }),
        json!({ "max-tokens-per-user": 0 }),
        json!({ "allow-never": true, "max-tokens-per-user": 7, "default-lifetime": "2d", "max-lifetime": "1d" }),
    ] {
        let refused = root.send("PATCH", "/api/v1/policy", change.clone()).await;
        assert_eq!((refused.status, refused.problem_kind()), (422, "unfit".to_owned()), "{change}");
    }
    let policy = root.get("/api/v1/policy").await.json();
    let unchanged = (&policy["allow-never"], &policy["max-tokens-per-user"], &policy["max-lifetime"]);
    assert_eq!(unchanged, (&json!(false), &json!(20), &json!("1h")), "what is refused is refused whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn user_change_that_closes_the_callers_session_is_applied_and_answered() {
    let (gateway, root, ..) = start_gateway().await;
    gateway.run_cli(&["admin", "user", "create", "help", "--no-home", "--role", "users.manage"]);
    let help = gateway.rest("help", &gateway.create_token("help", &["-e", "1h", "--role", "users.manage"]));
    let refused = help.send("PATCH", "/api/v1/users/bob", json!({ "disabled": true, "roles": ["audit.read"] })).await;
    assert_eq!((refused.status, refused.problem_kind()), (403, "role-missing".to_owned()));
    let bob = root.get("/api/v1/users/bob").await.json();
    assert_eq!((&bob["disabled_at"], &bob["roles"]), (&NO_BODY, &json!([])), "what is refused is refused whole");
    let last = help.send("PATCH", "/api/v1/users/help", json!({ "disabled": true, "roles": [] })).await;
    assert_eq!((last.status, &last.json()["roles"]), (200, &json!([])), "{}", last.text());
    assert!(last.json()["disabled_at"].is_string());
    assert_eq!(help.get("/api/v1/users/help").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_get_the_http_status_for_their_fault() {
    let (gateway, root, ..) = start_gateway().await;
    let unauthenticated = gateway.rest("root", "pgt_nobody");
    for path in ["/api/v1/tokens", "/api", "/api/v1/nothing", "/auth/verify", "/auth/token/JhxND7ci"] {
        assert_eq!(unauthenticated.get(path).await.status, 401, "{path}");
    }
    let document = unauthenticated.get("/api/v1/openapi.json").await;
    assert_eq!((document.status, document.json()["openapi"].as_str()), (200, Some("3.1.0")));
    assert_eq!(root.get("/api/v1/nothing").await.problem_kind(), "nothing-here");
    let wrong = root.send("PUT", "/api/v1/policy", NO_BODY).await;
    assert_eq!((wrong.status, wrong.problem_kind()), (405, "method-not-allowed".to_owned()));
    assert!(wrong.header("allow").contains("PATCH"), "{}", wrong.header("allow"));
    let accept = root.send_with_headers("GET", "/api/v1/policy", &[("accept", "text/html")], NO_BODY).await;
    assert_eq!(accept.problem_kind(), "not-acceptable");
    assert_eq!(root.post_form("/api/v1/tokens", "name=x".to_owned()).await.problem_kind(), "unsupported-type");
    let large = json!({ "description": "x".repeat(70_000) });
    assert_eq!(root.send("POST", "/api/v1/tokens", large).await.problem_kind(), "too-large");
    for body in [json!({ "nmae": "x" }), json!([]), json!({ "limits": [] }), json!({ "scopes": ["path:/../x:r"] })] {
        let refused = root.send("POST", "/api/v1/tokens", body.clone()).await;
        assert_eq!((refused.status, refused.problem_kind()), (422, "unfit".to_owned()), "{body}");
    }
    let head = root.send("HEAD", "/api/v1/policy", NO_BODY).await;
    assert_eq!((head.status, head.body.len(), head.header("content-type")), (200, 0, "application/json"));
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_names_the_deciding_rule() {
    let (gateway, root, alice, _) = start_gateway().await;
    let scoped = gateway.create_token("alice", &["-e", "1h", "-s", "path:/alice/docs:r"]);
    let query =
        |operation: &str, path: &str| json!({ "token": token_id(&scoped), "operation": operation, "path": path });
    let allowed = alice.send("POST", "/api/v1/explain", query("read", "/alice/docs/x")).await.json();
    assert_eq!((&allowed["allowed"], &allowed["decided_by"]["rule"]), (&json!(true), &json!("granted")));
    let denied = alice.send("POST", "/api/v1/explain", query("write", "/alice/docs/x")).await.json();
    assert_eq!((&denied["allowed"], &denied["decided_by"]["rule"]), (&json!(false), &json!("out_of_scope")));
    let printed = gateway.run_cli(&["explain", "--token", token_id(&scoped), "write", "/alice/docs/x", "--json"]);
    let printed: Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(printed, denied);
    assert_eq!(root.send("POST", "/api/v1/explain", query("eat", "/")).await.status, 422);
    let aimed = |operation: &str, to: Value| json!({ "operation": operation, "path": "/alice/x", "to": to });
    for (operation, to, status) in [
        ("move", NO_BODY, 422),
        ("copy", NO_BODY, 422),
        ("link", NO_BODY, 422),
        ("read", json!("/alice/y"), 422),
        ("move", json!("/alice/y"), 200),
        ("read", NO_BODY, 200),
    ] {
        let answer = alice.send("POST", "/api/v1/explain", aimed(operation, to.clone())).await;
        assert_eq!(answer.status, status, "{operation} {to}: {}", answer.text());
    }
}
