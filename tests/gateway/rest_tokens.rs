//! REST calls that manage tokens: roles that suffice by themselves, lifetimes, and request bodies as the clients of
//! other token services send them. The other calls are in `rest.rs`.

use std::process::{Command, Output};

use patgate::domain::UnixMillis;
use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::{Fixture, token_id};

const NO_BODY: Value = Value::Null;

/// Runs the command line over the network with a token.
fn run_remote(gateway: &Fixture, token: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_patgate"));
    command.env_clear().env("PATGATE_SERVER", format!("http://{}", gateway.http)).env("PATGATE_TOKEN", token);
    command.args(arguments).output().expect("the program runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_role_suffices_to_revoke_tokens_it_cannot_look_up() {
    let gateway = Fixture::start().await;
    gateway.create_user("alice", &["/:rw"]);
    gateway.run_cli(&["admin", "user", "create", "guard", "--role", "security.revoke_tokens", "--no-home"]);
    gateway.run_cli(&["policy", "set", "max-tokens-per-user", "20"]);
    let token = gateway.create_token("guard", &["-e", "1h", "--role", "security.revoke_tokens"]);
    let guard = gateway.rest("guard", &token);
    let ids: Vec<String> =
        (0..6).map(|_| token_id(&gateway.create_token("alice", &["-e", "1h", "--tag", "x"])).to_owned()).collect();
    let state = |id: &str| {
        let record: Value =
            serde_json::from_str(&gateway.run_cli(&["apitoken", "show", id, "--json"])).expect("a token in JSON");
        record["state"].clone()
    };

    assert_eq!(guard.get(&format!("/api/v1/tokens/{}", ids[0])).await.status, 404, "it can't be looked up");
    let dropped = guard.send("DELETE", &format!("/auth/token/{}", ids[0]), NO_BODY).await;
    assert_eq!((dropped.status, &dropped.json()["tokenId"]), (200, &json!(ids[0])), "{}", dropped.text());
    assert_eq!(guard.send("DELETE", &format!("/api/v1/tokens/{}", ids[1]), NO_BODY).await.status, 204);
    let revoked = run_remote(&gateway, &token, &["apitoken", "revoke", &ids[2]]);
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));

    let none = run_remote(&gateway, &token, &["apitoken", "revoke", &ids[3], "00000000"]);
    assert_eq!(none.status.code(), Some(1), "one of them is unknown");
    assert_eq!(state(&ids[3]), "live", "so none is revoked");
    let both = run_remote(&gateway, &token, &["apitoken", "revoke", &ids[3], &ids[4]]);
    assert!(both.status.success(), "{}", String::from_utf8_lossy(&both.stderr));
    assert_eq!(ids.iter().map(|id| state(id)).collect::<Vec<_>>(), [&["revoked"; 5][..], &["live"]].concat());

    let powerless = gateway.rest("guard", &gateway.create_token("guard", &["-e", "1h", "--role", "none"]));
    for path in ["/auth/token", "/api/v1/tokens"] {
        let refused = powerless.send("DELETE", &format!("{path}/{}", ids[5]), NO_BODY).await;
        assert_eq!(refused.status, 404, "{path}: hidden without the role");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lifetime_beyond_the_calling_token_is_refused_with_the_longest_allowed() {
    let gateway = Fixture::with_manual_clock().await;
    gateway.create_user("alice", &["/:rw"]);
    gateway.run_cli(&["policy", "set", "max-tokens-per-user", "20"]);
    let token = gateway.create_token("alice", &["-e", "1h"]);
    let alice = gateway.rest("alice", &token);
    let expires = gateway.rest("alice", &token).get("/api/v1/tokens/self").await.json()["expires_at"].clone();
    // The command line has created it by the system's clock, and the gateway's stands still.
    let expires_at: UnixMillis = expires.as_str().expect("a time").parse().expect("a time");
    // The answer has no fractions of seconds.
    let until_expiration = expires_at.saturating_duration_since(gateway.clock.now()).as_secs();
    let allowed = until_expiration..=until_expiration + 1;
    for request in [
        json!({ "lifetime": "2h" }),
        json!({ "lifetime": "30d", "window": "1m" }),
        json!({ "window": "2h" }),
        json!({ "expires_at": "2099-01-01T00:00:00Z" }),
    ] {
        let refused = alice.send("POST", "/api/v1/tokens", request.clone()).await;
        assert_eq!((refused.status, refused.problem_kind()), (422, "outlives".to_owned()), "{request}");
        let (most, detail) = (refused.json()["most"].clone(), refused.json()["detail"].clone());
        let longest = most.as_str().and_then(|most| patgate::domain::Lifetime::parse_window(most).ok());
        assert!(longest.is_some_and(|longest| allowed.contains(&longest.as_secs())), "{most}, not {allowed:?}");
        let message = detail.as_str().is_some_and(|detail| detail.contains(expires.as_str().unwrap_or("?")));
        assert!(message, "{detail} tells until when: {expires}");
    }
    let refused = alice.send("POST", "/auth/token/generate", json!({ "expires": "2099-01-01 00:00:00" })).await;
    assert_eq!((refused.status, refused.problem_kind()), (422, "outlives".to_owned()));
    for request in
        [json!({}), json!({ "lifetime": "default" }), json!({ "window": "10m" }), json!({ "lifetime": "10m" })]
    {
        let created = alice.send("POST", "/api/v1/tokens", request.clone()).await;
        assert_eq!(created.status, 201, "{request}: {}", created.text());
        assert!(created.json()["hard_limit"].as_str() <= expires.as_str(), "{request}: the default is bounded");
    }
    let output = run_remote(&gateway, &token, &["admin", "user", "token", "-u", "alice", "-e", "2h"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && message.contains("2h is longer than") && message.contains("hint: ask for "),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_service_roles_and_empty_values_are_accepted() {
    let gateway = Fixture::start().await;
    gateway.run_cli(&["admin", "user", "create", "carol", "--grant", "/:rw", "--role", "audit.read"]);
    gateway.run_cli(&["policy", "set", "max-tokens-per-user", "30"]);
    let carol = gateway.rest("carol", &gateway.create_token("carol", &["-e", "1d", "--role", "audit.read"]));
    for request in [
        json!({ "data": [] }),
        json!({ "data": null }),
        json!({ "expires": null }),
        json!({ "roles": null, "expires": "" }),
        json!({ "data": { "tags": null, "allowedMimeTypes": null, "allowedUserAgents": null, "allowedIpAddresses": null,
            "maxAllowedFileSize": null }, "expires": "automatic" }),
    ] {
        let created = carol.send("POST", "/auth/token/generate", request.clone()).await;
        assert_eq!(created.status, 200, "{request}: {}", created.text());
    }
    let request = json!({ "roles": ["upload.images", "audit.read", "collections.create_new"], "data": [] });
    let created = carol.send("POST", "/auth/token/generate", request).await.json();
    let (id, secret) = (created["tokenId"].as_str().expect("an id"), created["token"].as_str().expect("a token"));
    let fields = carol.get(&format!("/auth/token/{id}")).await.json();
    assert_eq!(fields["roles"], json!(["audit.read", "collections.create_new", "upload.images"]));
    assert_eq!(fields["revoked"], NO_BODY, "only where it is");
    let shown = carol.get(&format!("/api/v1/tokens/{id}")).await.json();
    assert_eq!(shown["roles"], json!(["audit.read"]));
    assert_eq!(shown["foreign_roles"], json!(["collections.create_new", "upload.images"]));
    assert!(gateway.run_cli(&["apitoken", "show", id]).contains("collections.create_new, upload.images"));
    let created = gateway.rest("carol", secret);
    let verified = created.get("/auth/verify").await;
    assert_eq!(verified.header("x-patgate-foreign-roles"), "collections.create_new,upload.images");
    assert_eq!(carol.get("/auth/verify").await.header("x-patgate-foreign-roles"), "");
    assert_eq!(created.get("/api/v1/users").await.status, 403, "they grant nothing");

    let dropped = carol.send("DELETE", &format!("/auth/token/{id}"), NO_BODY).await.json();
    assert_eq!(dropped["revoked"], true);
    assert_eq!(carol.get(&format!("/auth/token/{id}")).await.json()["revoked"], true);
    assert_eq!(carol.get(&format!("/api/v1/tokens/{id}")).await.json()["state"], "revoked");
    let many: Vec<_> = (0..65).map(|n| format!("upload.kind_{n}")).collect();
    for request in [
        json!({ "roles": ["uploads"] }),
        json!({ "roles": ["policy.manage"] }),
        json!({ "roles": many }),
        json!({ "data": ["tags"] }),
        json!({ "data": "none" }),
        json!({ "expires": 5 }),
    ] {
        assert_eq!(carol.send("POST", "/auth/token/generate", request.clone()).await.status, 422, "{request}");
    }
    let refused = carol.send("POST", "/api/v1/tokens", json!({ "roles": ["upload.images"] })).await;
    assert_eq!(refused.status, 422, "other calls know our roles alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn permission_letters_in_any_order_and_lists_with_spaces_are_accepted() {
    let gateway = Fixture::start().await;
    gateway.create_host_directory("/a");
    gateway.create_host_directory("/b");
    gateway.run_cli(&["admin", "user", "create", "dora", "--grant", "/:wr", "--role", "audit.read"]);
    let (a, b) = (gateway.node_id("/a"), gateway.node_id("/b"));
    let scopes = format!(" node:{a}:wr , path:/b:r");
    let options =
        ["-e", "1h", "-s", &scopes, "--protocol", "api, webdav", "--ip", "127.0.0.0/8, ::1", "--mime", "image/* , a/b"];
    let token = gateway.create_token("dora", &[&options[..], &["--tag", "x, y", "--role", "audit.read "]].concat());
    let dora = gateway.rest("dora", &token);
    let record = dora.get("/api/v1/tokens/self").await.json();
    let mut reached: Vec<_> = record["scopes"]
        .as_array()
        .expect("scopes")
        .iter()
        .map(|scope| (scope["node"].as_str().unwrap_or_default(), scope["permission"].as_str().unwrap_or_default()))
        .collect();
    reached.sort_unstable();
    let mut expected = vec![(a.as_str(), "rw"), (b.as_str(), "r")];
    expected.sort_unstable();
    assert_eq!(reached, expected);
    let request = json!({ "scopes": [" path:/a:wr"], "limits": { "protocols": ["api"] }, "lifetime": "10m" });
    let created = dora.send("POST", "/api/v1/tokens", request).await;
    assert_eq!(created.json()["scopes"][0]["permission"], "rw", "{}", created.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn last_use_buffered_by_the_server_is_shown_everywhere() {
    let gateway = Fixture::start().await;
    gateway.create_user("alice", &["/:rw"]);
    let (sliding, plain) =
        (gateway.create_token("alice", &["-e", "1d", "-a", "10m"]), gateway.create_token("alice", &["-e", "1d"]));
    let alice = gateway.rest("alice", &plain);
    let browser = Browser::sign_in_new(&gateway, "alice", &plain).await;
    let (dav, id) = (gateway.dav("alice", &sliding), token_id(&sliding));
    let shown_by = async |reader: &str| {
        let record: Value = match reader {
            "apitoken show" => {
                serde_json::from_str(&gateway.run_cli(&["apitoken", "show", id, "--json"])).expect("JSON")
            }
            "apitoken list" => {
                let all: Value = serde_json::from_str(&gateway.run_cli(&["apitoken", "list", "--json"])).expect("JSON");
                all.as_array().expect("a list").iter().find(|token| token["id"] == id).expect("listed").clone()
            }
            "REST" => alice.get(&format!("/api/v1/tokens/{id}")).await.json(),
            "REST list" => {
                let all = alice.get("/api/v1/tokens").await.json();
                all.as_array().expect("a list").iter().find(|token| token["id"] == id).expect("listed").clone()
            }
            _ => {
                let page = browser.get(&format!("/console/tokens/{id}")).await.text();
                let at = page.split("<time datetime=\"").skip(1).map(|rest| rest.split('"').next().unwrap_or_default());
                return at.map(str::to_owned).collect::<Vec<_>>();
            }
        };
        [&record["last_use"]["at"], &record["expires_at"]].map(|at| at.as_str().unwrap_or_default().to_owned()).to_vec()
    };
    assert_eq!(dav.status("PROPFIND", "/dav/").await, 207, "the first use, which is written down");
    for reader in ["apitoken show", "apitoken list", "REST", "REST list", "console"] {
        // Uses within half a minute stay in memory, and what is shown is in whole seconds.
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        let before = patgate::auth::Clock::system().now();
        assert_eq!(dav.status("PROPFIND", "/dav/").await, 207);
        let after = patgate::auth::Clock::system().now();
        let window = std::time::Duration::from_secs(600);
        let record = shown_by(reader).await;
        for (least, most) in [(before, after), (before.saturating_add(window), after.saturating_add(window))] {
            let (least, most) = (least.to_string(), most.to_string());
            assert!(
                record.iter().any(|at| (&least..=&most).contains(&at)),
                "{reader}: {least} to {most}, not {record:?}"
            );
        }
    }
}
