//! The command line with `--server`: it prints and refuses the same as on a state directory. Certificates are in
//! `remote_tls.rs`.

use std::ffi::OsStr;
use std::process::{Command, Output};

use crate::support::{Fixture, token_id};

/// Runs the program against the gateway's address with a token.
fn run_remote<S: AsRef<OsStr>>(gateway: &Fixture, token: &str, arguments: &[S]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_patgate"));
    command.env_clear().env("PATGATE_SERVER", format!("http://{}", gateway.http)).env("PATGATE_TOKEN", token);
    command.args(arguments).output().expect("the program runs")
}

fn output_text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("text").trim().to_owned()
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

async fn start_gateway() -> (Fixture, String) {
    let gateway = Fixture::start().await;
    gateway.create_host_directory("/projects");
    gateway.run_cli(&["admin", "user", "create", "root", "--grant", "/:rw", "--role", "admin"]);
    gateway.run_cli(&["policy", "set", "max-tokens-per-user", "20"]);
    let token = gateway.create_token("root", &["-e", "1h", "--role", "admin"]);
    // Used once, so that its last use changes no more while both are asked.
    output_text(&run_remote(&gateway, &token, &["policy", "show"]));
    (gateway, token)
}

#[tokio::test(flavor = "multi_thread")]
async fn remote_output_equals_local_output() {
    let (gateway, token) = start_gateway().await;
    gateway.create_user("alice", &["/projects:rw"]);
    let other =
        gateway.create_token("alice", &["-e", "2h", "-a", "10m", "-s", "path:/projects:r", "--protocol", "sftp"]);
    let (id, node) = (token_id(&other), gateway.node_id("/projects"));
    for line in [
        format!("apitoken show {id}"),
        "apitoken list --owner alice".to_owned(),
        "apitoken list --owner alice --status dangling".to_owned(),
        "admin user list".to_owned(),
        "admin user show alice".to_owned(),
        "node id /projects".to_owned(),
        format!("node show {node}"),
        "node list".to_owned(),
        "policy show".to_owned(),
        "audit --event token.created".to_owned(),
        "audit --user alice --limit 2".to_owned(),
        "audit verify".to_owned(),
        "audit --export".to_owned(),
        format!("explain --token {id} write /projects/x"),
    ] {
        for json in ["", " --json"] {
            let line = format!("{line}{json}");
            let (local, remote) =
                (gateway.run_cli(&words(&line)), output_text(&run_remote(&gateway, &token, &words(&line))));
            assert_eq!(local, remote, "{line}");
            assert!(!remote.contains(&other[13..]), "{line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_tokens_are_managed_over_the_network() {
    let (gateway, token) = start_gateway().await;
    let run = |line: &str| output_text(&run_remote(&gateway, &token, &words(line)));
    assert_eq!(run("admin user create eve"), "User eve has been created with access rw /eve");
    assert_eq!(run("admin user grant eve /projects:r"), "User eve may read /projects");
    let secret = run("admin user token -u eve -e 1h -s path:/projects:r -q");
    assert_eq!(gateway.dav("eve", &secret).status("PROPFIND", "/dav/projects/").await, 207);
    let shown = run("admin user token -u eve -a 10m");
    assert!(shown.contains("rw /eve") && shown.contains("r /projects"), "{shown}");
    assert_eq!(run("admin user revoke-grant eve /projects"), "User eve has no grant on /projects any more");
    assert_eq!(gateway.dav("eve", &secret).status("PROPFIND", "/dav/projects/").await, 404);
    let edited = run(&format!("apitoken edit {} --name narrow --tag x --expiry-date 30m", token_id(&secret)));
    assert!(edited.contains("narrow") && edited.contains("tagged x"), "{edited}");
    let rotated = run(&format!("apitoken rotate {} -q", token_id(&secret)));
    assert!(token_id(&rotated) == token_id(&secret) && rotated != secret);
    assert_eq!(
        run(&format!("apitoken revoke {}", token_id(&secret))),
        format!("ApiToken with id: {} has been revoked", token_id(&secret))
    );
    assert_eq!(run("apitoken revoke --all --owner eve"), "1 token of eve has been revoked");
    let child = run("admin user token -u root -e 10m");
    let parent = format!("parent:  {}: this token never has more access, and expires with it", token_id(&token));
    assert!(child.contains(&parent), "{child}");
    let own_token = run("apitoken create --name laptop");
    assert!(own_token.starts_with("ApiToken with id: ") && own_token.ends_with(" please keep it safe"), "{own_token}");
    assert!(run("apitoken list --owner root").contains("laptop"), "the caller owns what no owner is named for");
    assert!(run("policy set max-tokens-per-user 21").contains("21"));
    assert_eq!(run("admin user roles eve audit.read"), "User eve has the role audit.read now");
    assert!(run("admin user disable eve").contains("is disabled"));
    assert!(run("admin user enable eve").contains("is enabled"));
    assert!(run("admin user delete eve").contains("has been deleted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn remote_refusal_is_one_line_and_a_hint() {
    let (gateway, token) = start_gateway().await;
    gateway.create_user("alice", &["/projects:r"]);
    let weak = gateway.create_token("alice", &["-e", "1h"]);
    let longer = gateway.create_token("root", &["-e", "2h", "--role", "admin"]);
    let rotation = format!("apitoken rotate {}", token_id(&longer));
    let expires_later = "error: a token can only be rotated with one that has all of its privileges: it expires later\n\
        hint: use a token with at least the same access and lifetime";
    for (token, line, message, code) in [
        (&token, rotation.as_str(), expires_later, 1),
        (&token, "apitoken show 00000000", "error: there is no token 00000000", 1),
        (&weak, "admin user list", "error: this needs the role users.manage", 1),
        (&weak, "policy set allow-never true", "error: this needs the role policy.manage", 1),
        (&token, "policy set allow-never perhaps", "error: \"perhaps\" is not a value for allow-never", 2),
        (&token, "policy set default-lifetime 2Y", "error: default-lifetime may not exceed max-lifetime", 1),
        (&token, "apitoken revoke 00000000", "error: there is no token 00000000", 1),
        (&token, "node id /nothing", "error: ", 1),
        (&token, "node repair", "error: repairing works on the state directory, not over the network", 2),
        (
            &token,
            "--state x policy show --server http://127.0.0.1:1",
            "error: --server and --state exclude each other",
            2,
        ),
        (&"pgt_nobody".to_owned(), "policy show", "error: the user name or token is wrong", 1),
        (&String::new(), "policy show", "error: PATGATE_TOKEN is not set", 1),
        (&token, "--server http://192.0.2.1 policy show", "error: http://192.0.2.1/ is not encrypted", 1),
    ] {
        let output = run_remote(&gateway, token, &words(line));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{line}: {stderr}");
        assert!(stderr.starts_with(message), "{line}: {stderr}");
        assert_eq!(stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{line}: {stderr}");
        assert!(!stderr.contains(token.as_str()) || token.is_empty(), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn remote_refusals_equal_local_refusals() {
    let (gateway, token) = start_gateway().await;
    gateway.run_cli(&["policy", "set", "max-tokens-per-user", "2"]);
    gateway.create_user("alice", &["/projects:r"]);
    std::os::unix::fs::symlink("nowhere", gateway.root().join("projects/link")).expect("a link");
    gateway.create_user("off", &[]);
    gateway.run_cli(&["admin", "user", "disable", "off"]);
    gateway.create_user("full", &[]);
    let dead = gateway.create_token("alice", &["-e", "1h"]);
    let dead = token_id(&dead);
    gateway.run_cli(&["apitoken", "revoke", dead]);
    let live = gateway.create_token("full", &["-e", "1h"]);
    let live = token_id(&live);
    gateway.create_token("full", &["-e", "1h"]);
    for line in [
        "admin user create alice",
        "admin user create eve --grant /none:r",
        "admin user show nobody",
        "admin user grant alice /none:r",
        "admin user grant nobody /projects:r",
        "admin user revoke-grant alice /",
        "admin user token -u nobody",
        "admin user token -u off",
        "admin user token -u full",
        "admin user token -u alice -e 2Y",
        "admin user token -u alice -e never",
        "admin user token -u alice -e never -a 1h",
        "admin user token -u alice -s path:/projects/link:r",
        "admin user token -u alice --role audit.read",
        "admin user token -u alice -s path:/none:r",
        "admin user token -u alice -s path:/projects:rw",
        "admin user token -u off -s path:/projects:r",
        "admin user token -u alice -s node:6f1c2c5e-8a55-4f0e-9d3c-0f4b6a2f7a11:r",
        "apitoken show 00000000",
        "apitoken list --owner nobody",
        &format!("apitoken revoke {live} 00000000"),
        &format!("apitoken rotate {dead}"),
        &format!("apitoken rotate {live} --grace 25h"),
        "node id /none",
        "node show 6f1c2c5e-8a55-4f0e-9d3c-0f4b6a2f7a11",
        "policy set default-lifetime 2Y",
        "policy set nothing 1",
        "explain --token 00000000 read /",
        "explain --token 00000000 move /",
    ] {
        let (local, remote) = (gateway.try_run_cli(&words(line)), run_remote(&gateway, &token, &words(line)));
        let stderr = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((stderr(&local), local.status.code()), (stderr(&remote), remote.status.code()), "{line}");
        assert!(
            stderr(&local).starts_with("error: ") && stderr(&local).contains("\nhint: "),
            "{line}: {}",
            stderr(&local)
        );
        for (end, error, hint) in [
            ("-e never -a 1h", "leave one of the two out", "give -e never alone"),
            ("/projects/link:r", "neither a file nor a directory", "give the path of a file or directory"),
        ] {
            let fits = stderr(&local).contains(error) && stderr(&local).contains(&format!("\nhint: {hint}"));
            assert!(fits || !line.ends_with(end), "{line}: {}", stderr(&local));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn local_commands_refuse_the_server_flag() {
    let (gateway, token) = start_gateway().await;
    for line in ["serve --root .", "quickstart", "client", "doctor", "completions bash", "man /nowhere"] {
        let output = run_remote(&gateway, &token, &words(&format!("--server http://127.0.0.1:1 {line}")));
        let (code, text) = (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned());
        let name = line.split(' ').next().expect("a word");
        let message = format!("error: patgate {name} works on this machine, not over the network\nhint: ");
        assert!(code == Some(2) && text.starts_with(&message) && output.stdout.is_empty(), "{line}: {text}");
    }
    assert!(
        output_text(&run_remote(&gateway, &token, &["client"])).contains("rclone"),
        "one in the environment is for others"
    );
}
