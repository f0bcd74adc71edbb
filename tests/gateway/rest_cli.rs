//! The command line over the network: it prints what it prints on the state directory.

use std::ffi::OsStr;
use std::process::{Command, Output};

use crate::support::{Fixture, id_of};

/// Runs the program against the gateway's address with a token.
fn remote<S: AsRef<OsStr>>(gateway: &Fixture, token: &str, arguments: &[S]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_patgate"));
    command.env_clear().env("PATGATE_SERVER", format!("http://{}", gateway.http)).env("PATGATE_TOKEN", token);
    command.args(arguments).output().expect("the program runs")
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("text").trim().to_owned()
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

async fn gateway() -> (Fixture, String) {
    let gateway = Fixture::start().await;
    gateway.folder("/projects");
    gateway.patgate(&["admin", "user", "create", "root", "--grant", "/:rw", "--role", "admin"]);
    gateway.patgate(&["policy", "set", "max-tokens-per-user", "20"]);
    let token = gateway.token("root", &["-e", "1h", "--role", "admin"]);
    // Used once, so that its last use changes no more while both are asked.
    text(&remote(&gateway, &token, &["policy", "show"]));
    (gateway, token)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shown_over_the_network_is_what_is_shown_on_the_state_directory() {
    let (gateway, token) = gateway().await;
    gateway.user("alice", &["/projects:rw"]);
    let other = gateway.token("alice", &["-e", "2h", "-a", "10m", "-s", "path:/projects:r", "--protocol", "sftp"]);
    let (id, node) = (id_of(&other), gateway.node("/projects"));
    for line in [
        format!("apitoken show {id}"),
        "apitoken list --owner alice".to_owned(),
        "apitoken list --owner alice --state dangling".to_owned(),
        "admin user list".to_owned(),
        "admin user show alice".to_owned(),
        "node id /projects".to_owned(),
        format!("node show {node}"),
        "node list".to_owned(),
        "policy show".to_owned(),
        "audit --event token.created".to_owned(),
        "audit --user alice --limit 2".to_owned(),
        format!("explain --token {id} write /projects/x"),
    ] {
        for json in ["", " --json"] {
            let line = format!("{line}{json}");
            let (here, there) = (gateway.patgate(&words(&line)), text(&remote(&gateway, &token, &words(&line))));
            assert_eq!(here, there, "{line}");
            assert!(!there.contains(&other[13..]), "{line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_tokens_are_managed_over_the_network() {
    let (gateway, token) = gateway().await;
    let run = |line: &str| text(&remote(&gateway, &token, &words(line)));
    assert_eq!(run("admin user create eve"), "User eve has been created and reaches rw /eve");
    assert_eq!(run("admin user grant eve /projects:r"), "User eve may read /projects");
    let secret = run("admin user token -u eve -e 1h -s path:/projects:r -q");
    assert_eq!(gateway.dav("eve", &secret).status("PROPFIND", "/dav/projects/").await, 207);
    let shown = run("admin user token -u eve -a 10m");
    assert!(shown.contains("rw /eve") && shown.contains("r /projects"), "{shown}");
    assert_eq!(run("admin user revoke-grant eve /projects"), "User eve has no grant on /projects any more");
    assert_eq!(gateway.dav("eve", &secret).status("PROPFIND", "/dav/projects/").await, 404);
    let rotated = run(&format!("apitoken rotate {} -q", id_of(&secret)));
    assert!(id_of(&rotated) == id_of(&secret) && rotated != secret);
    assert_eq!(
        run(&format!("apitoken revoke {}", id_of(&secret))),
        format!("ApiToken with id: {} has been revoked", id_of(&secret))
    );
    assert_eq!(run("apitoken revoke --all --owner eve"), "1 tokens of eve have been revoked");
    let mine = run("apitoken create --name laptop");
    assert!(mine.starts_with("ApiToken with id: ") && mine.ends_with(" please keep it safe"), "{mine}");
    assert!(run("apitoken list --owner root").contains("laptop"), "the caller owns what no owner is named for");
    assert!(run("policy set max-tokens-per-user 21").contains("21"));
    assert!(run("admin user disable eve").contains("is disabled"));
    assert!(run("admin user enable eve").contains("is enabled"));
    assert!(run("admin user delete eve").contains("has been deleted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_over_the_network_is_one_line_and_a_hint() {
    let (gateway, token) = gateway().await;
    gateway.user("alice", &["/projects:r"]);
    let weak = gateway.token("alice", &["-e", "1h"]);
    for (token, line, message, code) in [
        (&token, "apitoken show 00000000", "error: there is no token 00000000", 1),
        (&weak, "admin user list", "error: this needs the role users.manage", 1),
        (&weak, "policy set allow-never true", "error: this needs the role policy.manage", 1),
        (&token, "policy set allow-never perhaps", "error: \"perhaps\" is no value for allow-never", 2),
        (&token, "policy set default-lifetime 2Y", "error: default-lifetime may not exceed max-lifetime", 1),
        (&token, "apitoken revoke 00000000", "error: there is no token 00000000", 1),
        (&token, "node id /nothing", "error: ", 1),
        (&token, "node repair", "error: repairing works on the state directory, not over the network", 2),
        (&token, "--state x policy show --server http://127.0.0.1:1", "error: --server and --state name two places", 2),
        (&"pgt_nobody".to_owned(), "policy show", "error: the user name or token is wrong", 1),
        (&String::new(), "policy show", "error: PATGATE_TOKEN is not set", 1),
        (&token, "--server http://192.0.2.1 policy show", "error: http://192.0.2.1/ is not encrypted", 1),
    ] {
        let output = remote(&gateway, token, &words(line));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{line}: {stderr}");
        assert!(stderr.starts_with(message), "{line}: {stderr}");
        assert_eq!(stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{line}: {stderr}");
        assert!(!stderr.contains(token.as_str()) || token.is_empty(), "{line}");
    }
}
