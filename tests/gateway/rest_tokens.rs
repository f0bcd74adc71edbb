//! What the calls that manage tokens promise to scripts: roles that are enough by themselves, lifetimes, and
//! what other services' clients send.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::{Fixture, id_of};

const NOTHING: Value = Value::Null;

/// Runs the command line over the network with a token.
fn over_network(gateway: &Fixture, token: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_patgate"));
    command.env_clear().env("PATGATE_SERVER", format!("http://{}", gateway.http)).env("PATGATE_TOKEN", token);
    command.args(arguments).output().expect("the program runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn role_to_revoke_tokens_needs_no_role_to_look_them_up() {
    let gateway = Fixture::start().await;
    gateway.user("alice", &["/:rw"]);
    gateway.patgate(&["admin", "user", "create", "guard", "--role", "security.revoke_tokens", "--no-home"]);
    gateway.patgate(&["policy", "set", "max-tokens-per-user", "20"]);
    let token = gateway.token("guard", &["-e", "1h", "--role", "security.revoke_tokens"]);
    let guard = gateway.rest("guard", &token);
    let ids: Vec<String> =
        (0..6).map(|_| id_of(&gateway.token("alice", &["-e", "1h", "--tag", "x"])).to_owned()).collect();
    let state = |id: &str| {
        let shown: Value =
            serde_json::from_str(&gateway.patgate(&["apitoken", "show", id, "--json"])).expect("a token in JSON");
        shown["state"].clone()
    };

    assert_eq!(guard.get(&format!("/api/v1/tokens/{}", ids[0])).await.status, 404, "it can't be looked up");
    let dropped = guard.send("DELETE", &format!("/auth/token/{}", ids[0]), NOTHING).await;
    assert_eq!((dropped.status, &dropped.json()["tokenId"]), (200, &json!(ids[0])), "{}", dropped.text());
    assert_eq!(guard.send("DELETE", &format!("/api/v1/tokens/{}", ids[1]), NOTHING).await.status, 204);
    let revoked = over_network(&gateway, &token, &["apitoken", "revoke", &ids[2]]);
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));

    let none = over_network(&gateway, &token, &["apitoken", "revoke", &ids[3], "00000000"]);
    assert_eq!(none.status.code(), Some(1), "one of them is unknown");
    assert_eq!(state(&ids[3]), "live", "so none is revoked");
    let both = over_network(&gateway, &token, &["apitoken", "revoke", &ids[3], &ids[4]]);
    assert!(both.status.success(), "{}", String::from_utf8_lossy(&both.stderr));
    assert_eq!(ids.iter().map(|id| state(id)).collect::<Vec<_>>(), [&["revoked"; 5][..], &["live"]].concat());

    let powerless = gateway.rest("guard", &gateway.token("guard", &["-e", "1h"]));
    for path in ["/auth/token", "/api/v1/tokens"] {
        let refused = powerless.send("DELETE", &format!("{path}/{}", ids[5]), NOTHING).await;
        assert_eq!(refused.status, 404, "{path}: hidden without the role");
    }
}
