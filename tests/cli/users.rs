//! Commands for users, grants, nodes and the policy.

use crate::CliFixture;
#[test]
fn users_are_created_with_a_home_or_with_grants() {
    let fixture = CliFixture::new();
    assert_eq!(fixture.run_ok("admin user create carol"), "User carol has been created with access rw /carol\n");
    assert!(fixture.root().join("carol").is_dir());
    assert!(fixture.run_ok("admin user create bob").contains("existed before"));
    fixture.run_ok("admin user create backup --grant /alice:r --grant /bob:rw --role audit.read");
    assert!(!fixture.root().join("backup").exists());
    let backup = fixture.run_json("admin user show backup");
    assert_eq!(backup["grants"].as_array().map(Vec::len), Some(2));
    assert_eq!(backup["roles"], serde_json::json!(["audit.read"]));
    fixture.run_ok("admin user create nothing --no-home");
    assert_eq!(fixture.run_json("admin user show nothing")["grants"].as_array().map(Vec::len), Some(0));

    assert!(fixture.run_refused("admin user create carol", 1).contains("already exists"));
    assert!(fixture.run_refused("admin user create erin --grant /none:r", 1).contains("nothing is at /none"));
    for line in ["create ../x", "create a/b", "create x --role king", "create x --grant /alice", "show"] {
        fixture.run_refused(&format!("admin user {line}"), 2);
    }
    let logins = fixture.run_json("admin user list");
    let logins: Vec<_> = logins.as_array().expect("a list").iter().map(|user| user["login"].clone()).collect();
    assert_eq!(logins, ["backup", "bob", "carol", "nothing"]);
}

#[test]
fn users_are_changed_and_deleted() {
    let fixture = CliFixture::with_alice();
    fixture.run_ok("admin user token -u alice -q");
    fixture.run_ok("admin user disable alice");
    assert!(fixture.run_ok("admin user show alice").contains("disabled since 2"));
    assert!(fixture.run_refused("admin user token -u alice", 1).contains("hint: patgate admin user enable alice"));
    fixture.run_ok("admin user enable alice");
    fixture.run_ok("admin user grant alice /bob:r");
    assert!(fixture.run_ok("admin user show alice").contains("r /bob"));
    assert_eq!(
        fixture.run_ok("admin user roles alice audit.read users.manage"),
        "User alice has the roles users.manage, audit.read now\n"
    );
    let token = fixture.run_ok("admin user token -u alice -e 1h --role audit.read --protocol api");
    assert!(token.contains("roles:   audit.read") && token.contains("limits:  by api"), "{token}");
    assert_eq!(fixture.run_json("admin user roles alice audit.read")["roles"], serde_json::json!(["audit.read"]));
    assert_eq!(fixture.run_ok("admin user roles alice --none"), "User alice has no roles now\n");
    assert!(
        fixture.run_refused("admin user token -u alice --role audit.read", 1).contains("admin user roles alice ROLE")
    );
    for line in ["roles alice", "roles alice king", "roles alice admin --none"] {
        fixture.run_refused(&format!("admin user {line}"), 2);
    }
    fixture.run_ok("admin user revoke-grant alice /bob");
    assert!(fixture.run_refused("admin user revoke-grant alice /bob", 1).contains("no grant on /bob"));
    fixture.run_ok("admin user delete alice");
    assert_eq!(fixture.token_count(), 0);
    assert!(fixture.root().join("alice/below/file").exists());
    for command in ["show", "disable", "enable", "roles --none", "delete"] {
        assert!(fixture.run_refused(&format!("admin user {command} alice"), 1).contains("there is no user alice"));
    }
}

#[test]
fn node_id_of_a_path_is_stable() {
    let fixture = CliFixture::with_alice();
    let id = fixture.run_ok("node id /alice/below/file");
    assert_eq!(fixture.run_ok("node id alice/below/file"), id);
    assert_eq!(fixture.run_ok(&format!("node show {id}")), "/alice/below/file\n");
    let listed = fixture.run_ok("node list /alice");
    assert!(listed.contains(id.trim()) && !listed.contains("/bob"), "{listed}");
    assert!(fixture.run_refused("node id /none", 1).contains("nothing is at /none"));
    fixture.run_refused("node id /../etc", 2);
    fixture.run_refused("node show 6f1c2c5e-8a55-4f0e-9d3c-0f4b6a2f7a11", 1);
    fixture.run_refused("node show 5", 2);
}

#[test]
fn policy_is_shown_and_changed() {
    let fixture = CliFixture::new();
    let set = fixture.run_ok("policy set max-tokens-per-user 1");
    assert!(set.contains("max-tokens-per-user: 1\n"), "{set}");
    fixture.run_ok("admin user create alice");
    fixture.run_ok("admin user token -u alice -q");
    assert!(fixture.run_refused("admin user token -u alice", 1).contains("max-tokens-per-user"));
    fixture.run_ok("policy set allow-never true");
    fixture.run_ok("policy set max-tokens-per-user 2");
    assert!(fixture.run_ok("admin user token -u alice -e never").contains("expires: never"));
    assert!(fixture.run_refused("policy set default-lifetime 2Y", 1).contains("may not exceed"));
    for (setting, why) in
        [("max-token 3", "unknown"), ("allow-never yes", "true or false"), ("max-tokens-per-user 0", "from 1")]
    {
        assert!(fixture.run_refused(&format!("policy set {setting}"), 2).contains(why), "{setting}");
    }
}
