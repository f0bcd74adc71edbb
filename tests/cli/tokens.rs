//! Commands for tokens: create, show, list, edit and revoke.

use std::fs;

use crate::{CliFixture, is_token};
#[test]
fn quiet_prints_only_the_token() {
    let fixture = CliFixture::with_alice();
    for line in ["admin user token -u alice -e 24h -q", "apitoken create --owner alice -q"] {
        let out = fixture.run_ok(line);
        assert!(is_token(out.strip_suffix('\n').expect("a line")), "{out:?}");
    }
    let id = fixture.run_json("apitoken list")[0]["id"].as_str().expect("an id").to_owned();
    assert!(is_token(fixture.run_ok(&format!("apitoken rotate {id} -q")).trim_end()));
}

/// Unit tests hash with less memory: this is the program as it is.
#[test]
fn stored_secret_hash_is_argon2id_with_19_mib_and_two_passes() {
    let fixture = CliFixture::with_alice();
    fixture.run_ok("admin user token -u alice -e 24h -q");
    let store = rusqlite::Connection::open(fixture.state().join("patgate.db")).expect("opens");
    let phc: String = store.query_row("SELECT phc FROM tokens", [], |row| row.get(0)).expect("a token");
    assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
}

#[test]
fn created_token_is_printed_with_id_access_and_expiration() {
    let fixture = CliFixture::with_alice();
    let out = fixture.run_ok("admin user token --user alice --expire 24h --auto 600 --scope path:/alice/below:r");
    let token = out.lines().find_map(|line| line.strip_prefix("token:")).expect("a token").trim();
    assert!(is_token(token), "{out}");
    assert!(out.contains(&format!("id:      {}", &token[4..12])), "{out}");
    assert!(out.contains("access:  r /alice/below"), "{out}");
    let expires = out.lines().find(|line| line.starts_with("expires:")).expect("an end");
    assert!(expires.contains("T") && expires.contains("Z (each use moves it 10m ahead, up to 2"), "{out}");
    assert!(out.contains("shown only now"), "{out}");
    let wide = fixture.run_ok("admin user token -u alice -e 1h");
    assert!(wide.contains("access:  rw /alice\n"), "{wide}");
}

#[test]
fn apitoken_create_prints_one_sentence() {
    let fixture = CliFixture::with_alice();
    let out = fixture.run_ok("apitoken create --owner alice --expiry-date 30d");
    let rest = out.strip_prefix("ApiToken with id: ").expect("the sentence");
    let (id, rest) = rest.split_once(" has been created, your token is: ").expect("the sentence");
    let token = rest.strip_suffix(" please keep it safe\n").expect("the sentence");
    assert!(is_token(token) && &token[4..12] == id, "{out}");
    assert_eq!(fixture.run_json(&format!("apitoken show {id}"))["name"], "alice_api_token");
}

#[test]
fn invalid_token_request_is_explained_and_creates_nothing() {
    let fixture = CliFixture::with_alice();
    let cases = [
        ("-u alice -e 0h", 2, "is zero"),
        ("-u alice -e 24", 2, "s (seconds), m (minutes), h, d (days)"),
        ("-u alice -e=-1h", 2, "is not a whole number"),
        ("-u alice -e 99999999999Y", 2, "too long"),
        ("-u alice -a 0", 2, "is zero"),
        ("-u alice -a 10x", 2, "unknown unit"),
        ("-u nobody -e 1h", 1, "there is no user nobody"),
        ("-u alice -s node:5:r", 2, "is not a node id"),
        ("-u alice -s path:/alice", 2, "malformed"),
        ("-u alice -s path:/alice:x", 2, "give r, w or rw"),
        ("-u alice -s path:/../alice:r", 2, ".."),
        ("-u alice -s path:/alice/none:r", 1, "nothing is at /alice/none"),
        ("-u alice -s path:/alice:r,path:/bob:r", 1, "path:/bob:r is outside of what alice may access"),
        ("-u alice -s node:6f1c2c5e-8a55-4f0e-9d3c-0f4b6a2f7a11:r", 1, "does not exist"),
        ("-u alice -e 2Y", 1, "max-lifetime"),
        ("-u alice -e never", 1, "allow-never"),
        ("-u alice --protocol ftp", 2, "webdav, sftp or api"),
        ("-u alice --ip 300.0.0.1", 2, "is not a network"),
        ("-u alice --max-file-size 1PB", 2, "is malformed"),
        ("-e 1h", 2, "--user"),
    ];
    for (flags, code, why) in cases {
        let err = fixture.run_refused(&format!("admin user token {flags}"), code);
        assert!(err.contains(why), "{flags}: {err}");
    }
    assert_eq!(fixture.token_count(), 0);
}

#[test]
fn scope_outside_the_owners_grants_is_refused_with_the_grants_listed() {
    let fixture = CliFixture::with_alice();
    let node = fixture.run_ok("node id /bob");
    let err = fixture.run_refused(&format!("admin user token -u alice -s node:{}:r", node.trim()), 1);
    assert!(
        err.contains("outside of what alice may access") && err.contains("hint: alice has access to rw /alice"),
        "{err}"
    );
    assert_eq!(fixture.token_count(), 0);
}

#[test]
fn json_output_keeps_its_fields() {
    let fixture = CliFixture::with_alice();
    let line = "admin user token -u alice -e 24h -a 10m -s path:/alice:rw --protocol sftp --ip 192.0.2.7 \
                --user-agent rclone/* --max-file-size 10MiB --name laptop";
    let token = fixture.run_json(line);
    let keys: Vec<_> = token.as_object().expect("an object").keys().cloned().collect();
    let mut expected_fields = vec![
        "token",
        "id",
        "owner",
        "name",
        "description",
        "state",
        "dangling",
        "created_at",
        "expires_at",
        "hard_limit",
        "window_seconds",
        "revoked_at",
        "old_secret_until",
        "parent",
        "last_use",
        "scopes",
        "limits",
        "roles",
    ];
    expected_fields.sort_unstable();
    assert_eq!(keys, expected_fields);
    assert!(is_token(token["token"].as_str().expect("a token")));
    assert_eq!(
        (&token["owner"], &token["state"], &token["window_seconds"]),
        (&"alice".into(), &"live".into(), &600.into())
    );
    assert_eq!(token["scopes"][0]["path"], "/alice");
    assert_eq!(token["scopes"][0]["permission"], "rw");
    let limits = serde_json::json!({
        "protocols": ["sftp"], "ips": ["192.0.2.7/32"], "user_agents": ["rclone/*"], "max_file_size": 10 << 20
    });
    assert_eq!(token["limits"], limits);

    let shown = fixture.run_json(&format!("apitoken show {}", token["id"].as_str().expect("an id")));
    assert!(shown.get("token").is_none() && shown["name"] == "laptop");
    let user = fixture.run_json("admin user show alice");
    assert_eq!((&user["login"], &user["live_tokens"]), (&"alice".into(), &1.into()));
    assert_eq!(user["grants"][0]["path"], "/alice");
    let node = fixture.run_json("node id /alice");
    assert_eq!((&node["path"], &node["node"]), (&"/alice".into(), &user["grants"][0]["node"]));
    assert_eq!(fixture.run_json("policy show")["max-tokens-per-user"], 5);
}

#[test]
fn tokens_are_listed_by_owner_and_state() {
    let fixture = CliFixture::with_alice();
    fixture.run_ok("admin user create bob");
    let of =
        |login: &str| fixture.run_json(&format!("admin user token -u {login} -e 1h -s path:/{login}:r"))["id"].clone();
    let (first, second, third) = (of("alice"), of("alice"), of("bob"));
    let first = first.as_str().expect("an id");
    assert_eq!(
        fixture.run_ok(&format!("apitoken revoke {first}")),
        format!("ApiToken with id: {first} has been revoked\n")
    );
    let ids = |line: &str| {
        let list = fixture.run_json(line);
        let ids = list.as_array().expect("a list").iter().map(|token| token["id"].clone());
        ids.collect::<Vec<_>>()
    };
    assert_eq!(ids("apitoken list --owner bob"), std::slice::from_ref(&third));
    assert_eq!(ids("apitoken list --status revoked"), [first]);
    assert_eq!(ids("apitoken list --owner alice --status live"), [second]);
    assert_eq!(ids("apitoken list --status expired").len(), 0);
    assert!(fixture.run_refused("apitoken list --owner nobody", 1).contains("no user nobody"));

    fs::remove_dir(fixture.root().join("bob")).expect("removed");
    fixture.run_ok("node repair");
    assert_eq!(ids("apitoken list --status dangling"), [third]);
}

#[test]
fn tokens_are_revoked_one_by_one_or_all_of_a_user() {
    let fixture = CliFixture::with_alice();
    let id = |token: String| token[4..12].to_owned();
    let one = id(fixture.run_ok("admin user token -u alice -q"));
    fixture.run_ok("admin user token -u alice -q");
    assert!(fixture.run_refused(&format!("apitoken revoke {one} 00000000"), 1).contains("no token 00000000"));
    assert_eq!(fixture.run_json("apitoken list --status live").as_array().map(Vec::len), Some(2));
    assert_eq!(fixture.run_ok("apitoken revoke --all --owner alice"), "2 tokens of alice have been revoked\n");
    assert_eq!(fixture.run_json("apitoken list --status live").as_array().map(Vec::len), Some(0));
    for line in ["apitoken revoke", "apitoken revoke --all", "apitoken revoke --owner alice", "apitoken revoke x"] {
        fixture.run_refused(line, 2);
    }
    assert!(fixture.run_refused(&format!("apitoken rotate {one}"), 1).contains("is revoked"));
    assert!(fixture.run_refused(&format!("apitoken rotate {one} --grace 25h"), 1).contains("24h"));
}

#[test]
fn edit_narrows_a_token_and_never_widens_it() {
    let fixture = CliFixture::with_alice();
    let created = fixture.run_json("admin user token -u alice -e 30d --protocol webdav,sftp");
    let id = created["id"].as_str().expect("an id");
    let edited = fixture.run_json(&format!(
        "apitoken edit {id} --name laptop -s path:/alice:r --protocol sftp --tag x,y --expiry-date 1d --role none"
    ));
    assert_eq!((&edited["name"], &edited["limits"]["protocols"]), (&"laptop".into(), &serde_json::json!(["sftp"])));
    assert_eq!(edited["scopes"][0]["permission"], "r");
    assert!(edited["expires_at"].as_str() < created["expires_at"].as_str(), "{edited}");
    assert!(fixture.run_ok(&format!("apitoken edit {id} --description office")).contains("office"));
    for (flags, message) in [
        ("--protocol webdav", "only be narrowed"),
        ("--expiry-date 30d", "can't be extended"),
        ("-s path:/alice:rw", "outside"),
    ] {
        assert!(fixture.run_refused(&format!("apitoken edit {id} {flags}"), 1).contains(message), "{flags}");
    }
    assert!(fixture.run_refused(&format!("apitoken edit {id}"), 2).contains("no change is given"));
    fixture.run_refused(&format!("apitoken edit {id} --role none,admin"), 2);
    assert_eq!(fixture.run_json(&format!("apitoken show {id}"))["limits"]["protocols"], serde_json::json!(["sftp"]));
}

#[test]
fn user_commands_work_without_admin_as_in_pydio_cells() {
    let fixture = CliFixture::with_alice();
    let token = fixture.run_ok("user token -u alice -a 10m -q");
    assert!(super::is_token(token.trim()), "{token}");
    assert!(fixture.run_ok("user show alice").contains("alice"));
}

#[test]
fn token_without_scope_or_limit_has_the_roles_of_its_owner_unless_told_otherwise() {
    let fixture = CliFixture::with_alice();
    fixture.run_ok("policy set max-tokens-per-user 50");
    fixture.run_ok("admin user create carol --role audit.read --role users.manage");
    let roles = |flags: &str| {
        let created = fixture.run_json(&format!("admin user token -u carol -e 1h {flags}"));
        let roles = created["roles"].as_array().expect("roles").clone();
        roles.iter().map(|role| role.as_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(roles(""), ["users.manage", "audit.read"]);
    for restricted in
        ["--role none", "-s path:/carol:r", "--protocol sftp,api", "--ip 192.0.2.0/24", "--max-file-size 1KiB"]
    {
        assert!(roles(restricted).is_empty(), "{restricted}");
    }
    assert_eq!(roles("--role audit.read"), ["audit.read"]);
    assert_eq!(roles("-s path:/carol:r --role audit.read"), ["audit.read"]);
    let printed = fixture.run_ok("admin user token -u carol -e 1h");
    assert!(
        printed.contains("roles:   users.manage, audit.read") || printed.contains("roles:   users.manage,audit.read"),
        "{printed}"
    );
    assert!(fixture.run_ok("admin user token -u carol -e 1h --role none").contains("roles:   none"));
    assert!(fixture.run_ok("admin user token -u alice -e 1h").contains("roles:   none"));
    let by_vcli = fixture.run_json("apitoken create --owner carol");
    assert_eq!(by_vcli["roles"], serde_json::json!([]), "there the default is none");
}
