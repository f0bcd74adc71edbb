//! The commands that need no server, as other programs see them: output, exit codes, and what is kept.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use assert_cmd::Command;
use tempfile::TempDir;

/// A state directory and a folder with `/alice/below/file` and `/bob`.
struct Site {
    folder: TempDir,
}

/// What a command answered.
struct Answer {
    code: i32,
    out: String,
    err: String,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let root = folder.path().join("files");
        fs::create_dir_all(root.join("alice/below")).expect("folders");
        fs::create_dir_all(root.join("bob")).expect("folders");
        fs::write(root.join("alice/below/file"), "x").expect("file");
        Self { folder }
    }

    /// A site with the user alice, who has her home.
    fn with_alice() -> Self {
        let site = Self::new();
        site.done("admin user create alice");
        site
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("files")
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn command(&self) -> Command {
        let mut command = Command::cargo_bin("patgate").expect("the program");
        command.env_clear().env("PATGATE_STATE", self.state()).env("PATGATE_ROOT", self.root());
        command
    }

    fn run(&self, line: &str) -> Answer {
        answer(self.command().args(line.split_whitespace()))
    }

    /// Runs a command that is expected to do what it is told, and returns what it prints.
    fn done(&self, line: &str) -> String {
        let Answer { code, out, err } = self.run(line);
        assert_eq!((code, err.as_str()), (0, ""), "{line}");
        out
    }

    /// Runs a command that is expected to be refused, and returns why.
    fn refused(&self, line: &str, wanted: i32) -> String {
        let Answer { code, out, err } = self.run(line);
        assert_eq!((code, out.as_str()), (wanted, ""), "{line}: {err}");
        let lines: Vec<_> = err.lines().collect();
        assert!(
            lines.len() == 2 && lines[0].starts_with("error: ") && lines[1].starts_with("hint: "),
            "{line}: one line and a hint, not {err}"
        );
        err
    }

    fn json(&self, line: &str) -> serde_json::Value {
        serde_json::from_str(&self.done(&format!("{line} --json"))).expect(line)
    }

    fn tokens(&self) -> usize {
        self.json("apitoken list").as_array().expect("a list").len()
    }
}

fn answer(command: &mut Command) -> Answer {
    let output = command.output().expect("the program runs");
    Answer {
        code: output.status.code().expect("a code"),
        out: String::from_utf8(output.stdout).expect("text"),
        err: String::from_utf8(output.stderr).expect("text"),
    }
}

fn is_token(text: &str) -> bool {
    text.len() == 51 && text.starts_with("pgt_") && text.as_bytes()[12] == b'.'
}

/// A server that this test started; ended with it.
struct Server {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Server {
    fn start(command: &mut std::process::Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
        let out = BufReader::new(child.stdout.take().expect("stdout"));
        Self { child, out }
    }

    /// Returns all lines up to the one that says that it is ready.
    fn ready(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        for line in self.out.by_ref().lines() {
            lines.push(line.expect("text"));
            if lines.last().is_some_and(|line| line.starts_with("patgate ready")) {
                return lines;
            }
        }
        let mut err = String::new();
        self.child.stderr.take().expect("stderr").read_to_string(&mut err).expect("text");
        panic!("it never got ready: {lines:?} {err}");
    }

    /// Tells it to stop, and returns its exit code and what it printed since.
    fn stop(mut self) -> (Option<i32>, String) {
        let told = std::process::Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(told.expect("kill runs").success());
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).expect("text");
        (self.child.wait().expect("it ends").code(), rest)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> std::process::Command {
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("patgate"));
    command.env_clear().env("USER", "zoe");
    command
}

/// Asks for a path over HTTP with a user's token and returns the whole answer.
fn get(address: &str, path: &str, login: &str, token: &str) -> String {
    use base64::Engine;
    let credential = base64::engine::general_purpose::STANDARD.encode(format!("{login}:{token}"));
    let mut stream = TcpStream::connect(address).expect("it listens");
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Basic {credential}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn serve_says_where_it_listens_in_one_line_and_ends_when_told() {
    let site = Site::new();
    let mut command = program();
    command.args(["serve", "--http", "127.0.0.1:0", "--sftp=127.0.0.1:0", "--set", "drain_seconds=5"]);
    let mut server = Server::start(command.env("PATGATE_STATE", site.state()).env("PATGATE_ROOT", site.root()));
    let lines = server.ready();
    let (http, sftp) = lines[0]
        .strip_prefix("patgate ready http=http://127.0.0.1:")
        .and_then(|rest| rest.split_once(" sftp=127.0.0.1:"))
        .expect("the line");
    assert!(lines.len() == 1 && http.parse::<u16>().is_ok() && sftp.parse::<u16>().is_ok(), "{lines:?}");

    let health = format!("http://127.0.0.1:{http}/healthz");
    let beside = |line: &str| {
        let output = program().env("PATGATE_STATE", site.state()).args(line.split_whitespace()).output();
        let output = output.expect("the program runs");
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    };
    assert_eq!(beside(&format!("doctor --health {health}")), "healthy");
    beside("admin user create alice");
    let token = beside("admin user token -u alice -q");
    let address = format!("127.0.0.1:{http}");
    let answer = get(&address, "/dav/alice/below/file", "alice", &token);
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nx"), "{answer}");
    beside(&format!("apitoken revoke {}", &token[4..12]));
    assert!(get(&address, "/dav/alice/below/file", "alice", &token).starts_with("HTTP/1.1 401 "));

    assert_eq!(server.stop(), (Some(0), String::new()));
}

#[test]
fn an_absent_door_is_left_out_of_the_line() {
    let site = Site::new();
    let mut command = program();
    command.args(["serve", "--http", "127.0.0.1:0", "--sftp", "off"]);
    let mut server = Server::start(command.env("PATGATE_STATE", site.state()).env("PATGATE_ROOT", site.root()));
    let line = server.ready().remove(0);
    assert!(line.starts_with("patgate ready http=") && !line.contains("sftp"), "{line}");
    assert_eq!(server.stop().0, Some(0));
}

#[test]
fn quickstart_serves_a_new_folder_at_once_and_reuses_it() {
    let folder = tempfile::tempdir().expect("folder");
    let start = |more: &[&str]| {
        let mut command = program();
        command.current_dir(folder.path()).args(["quickstart", "--http", "127.0.0.1:0", "--sftp", "127.0.0.1:0"]);
        Server::start(command.args(more))
    };
    let value = |lines: &[String], name: &str| {
        let line = lines.iter().find_map(|line| line.trim().strip_prefix(name)).expect(name);
        line.trim().to_owned()
    };
    let mut server = start(&[]);
    let lines = server.ready();
    let token = value(&lines, "password ");
    assert!(is_token(&token) && value(&lines, "user name") == "zoe", "{lines:?}");
    assert!(value(&lines, "host key").starts_with("ssh-ed25519 SHA256:"), "{lines:?}");
    for client in ["curl", "rclone", "davfs2", "sftp", "sshfs"] {
        assert!(lines.iter().any(|line| line.trim().starts_with(client)), "{client}");
    }
    let url = value(&lines, "WebDAV");
    let address = url.strip_prefix("http://").and_then(|rest| rest.strip_suffix("/dav/")).expect("an address");
    let answer = get(address, "/dav/welcome.txt", "zoe", &token);
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("served by patgate"), "{answer}");
    assert_eq!(server.stop().0, Some(0));
    assert!(folder.path().join("files.patgate/patgate.db").exists());

    let mut again = start(&[]);
    let lines = again.ready();
    assert_eq!(value(&lines, "password "), "TOKEN");
    let url = value(&lines, "WebDAV");
    let address = url.strip_prefix("http://").and_then(|rest| rest.strip_suffix("/dav/")).expect("an address");
    assert!(get(address, "/dav/welcome.txt", "zoe", &token).starts_with("HTTP/1.1 200 "), "the first token lives on");
    assert_eq!(again.stop().0, Some(0));

    let mut another = start(&["--new-token"]);
    let new = value(&another.ready(), "password ");
    assert!(is_token(&new) && new != token);
    assert_eq!(another.stop().0, Some(0));
}

#[test]
fn quiet_prints_the_token_and_nothing_else() {
    let site = Site::with_alice();
    for line in ["admin user token -u alice -e 24h -q", "apitoken create --owner alice -q"] {
        let out = site.done(line);
        assert!(is_token(out.strip_suffix('\n').expect("a line")), "{out:?}");
    }
    let id = site.json("apitoken list")[0]["id"].as_str().expect("an id").to_owned();
    assert!(is_token(site.done(&format!("apitoken rotate {id} -q")).trim_end()));
}

#[test]
fn a_new_token_is_shown_with_its_id_reach_and_end() {
    let site = Site::with_alice();
    let out = site.done("admin user token --user alice --expire 24h --auto 600 --scope path:/alice/below:r");
    let token = out.lines().find_map(|line| line.strip_prefix("token:")).expect("a token").trim();
    assert!(is_token(token), "{out}");
    assert!(out.contains(&format!("id:      {}", &token[4..12])), "{out}");
    assert!(out.contains("reaches: r /alice/below"), "{out}");
    let expires = out.lines().find(|line| line.starts_with("expires:")).expect("an end");
    assert!(expires.contains("T") && expires.contains("Z (each use moves it 10m ahead, up to 2"), "{out}");
    assert!(out.contains("only time"), "{out}");
    let wide = site.done("admin user token -u alice -e 1h");
    assert!(wide.contains("reaches: rw /alice\n"), "{wide}");
}

#[test]
fn apitoken_create_says_it_in_one_sentence() {
    let site = Site::with_alice();
    let out = site.done("apitoken create --owner alice --expiry-date 30d");
    let rest = out.strip_prefix("ApiToken with id: ").expect("the sentence");
    let (id, rest) = rest.split_once(" has been created, your token is: ").expect("the sentence");
    let token = rest.strip_suffix(" please keep it safe\n").expect("the sentence");
    assert!(is_token(token) && &token[4..12] == id, "{out}");
    assert_eq!(site.json(&format!("apitoken show {id}"))["name"], "alice_api_token");
}

#[test]
fn what_is_wrong_with_a_request_is_said_and_no_token_made() {
    let site = Site::with_alice();
    let cases = [
        ("-u alice -e 0h", 2, "is zero"),
        ("-u alice -e 24", 2, "s (seconds), m (minutes), h, d (days)"),
        ("-u alice -e=-1h", 2, "no whole number"),
        ("-u alice -e 99999999999Y", 2, "too long"),
        ("-u alice -a 0", 2, "is zero"),
        ("-u alice -a 10x", 2, "unknown unit"),
        ("-u nobody -e 1h", 1, "there is no user nobody"),
        ("-u alice -s node:5:r", 2, "is no node id"),
        ("-u alice -s path:/alice", 2, "malformed"),
        ("-u alice -s path:/alice:x", 2, "give r, w or rw"),
        ("-u alice -s path:/../alice:r", 2, ".."),
        ("-u alice -s path:/alice/none:r", 1, "nothing is at /alice/none"),
        ("-u alice -s path:/alice:r,path:/bob:r", 1, "path:/bob:r is outside what alice may reach"),
        ("-u alice -s node:6f1c2c5e-8a55-4f0e-9d3c-0f4b6a2f7a11:r", 1, "does not exist"),
        ("-u alice -e 2Y", 1, "max-lifetime"),
        ("-u alice -e never", 1, "allow-never"),
        ("-u alice --protocol ftp", 2, "webdav, sftp or api"),
        ("-u alice --ip 300.0.0.1", 2, "is no network"),
        ("-u alice --max-file-size 1PB", 2, "is malformed"),
        ("-e 1h", 2, "--user"),
    ];
    for (flags, code, why) in cases {
        let err = site.refused(&format!("admin user token {flags}"), code);
        assert!(err.contains(why), "{flags}: {err}");
    }
    assert_eq!(site.tokens(), 0);
}

#[test]
fn a_scope_outside_the_owners_reach_is_told_with_what_he_reaches() {
    let site = Site::with_alice();
    let node = site.done("node id /bob");
    let err = site.refused(&format!("admin user token -u alice -s node:{}:r", node.trim()), 1);
    assert!(err.contains("outside what alice may reach") && err.contains("hint: alice reaches rw /alice"), "{err}");
    assert_eq!(site.tokens(), 0);
}

#[test]
fn no_secret_is_left_in_the_state_directory() {
    let site = Site::with_alice();
    let token = site.done("admin user token -u alice -e 24h -q");
    let secret = &token.trim()[13..45];
    let mut files = 0;
    for entry in fs::read_dir(site.state()).expect("state") {
        let path = entry.expect("entry").path();
        let bytes = fs::read(&path).expect("file");
        assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{}", path.display());
        files += 1;
    }
    assert!(files >= 2, "database and pepper");
    let told = site.done("apitoken list --json") + &site.done("apitoken list");
    assert!(!told.contains(secret));
}

#[test]
fn the_state_directory_is_for_its_owner_alone() {
    let site = Site::with_alice();
    site.done("admin user token -u alice -q");
    let mode = |path: PathBuf| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(site.state()), 0o700);
    for entry in fs::read_dir(site.state()).expect("state") {
        let path = entry.expect("entry").path();
        assert_eq!(mode(path.clone()), 0o600, "{}", path.display());
    }
}

#[test]
fn json_keeps_its_shape() {
    let site = Site::with_alice();
    let line = "admin user token -u alice -e 24h -a 10m -s path:/alice:rw --protocol sftp --ip 192.0.2.7 \
                --user-agent rclone/* --max-file-size 10MiB --name laptop";
    let token = site.json(line);
    let keys: Vec<_> = token.as_object().expect("an object").keys().cloned().collect();
    let mut wanted = vec![
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
    wanted.sort_unstable();
    assert_eq!(keys, wanted);
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

    let shown = site.json(&format!("apitoken show {}", token["id"].as_str().expect("an id")));
    assert!(shown.get("token").is_none() && shown["name"] == "laptop");
    let user = site.json("admin user show alice");
    assert_eq!((&user["login"], &user["live_tokens"]), (&"alice".into(), &1.into()));
    assert_eq!(user["grants"][0]["path"], "/alice");
    let node = site.json("node id /alice");
    assert_eq!((&node["path"], &node["node"]), (&"/alice".into(), &user["grants"][0]["node"]));
    assert_eq!(site.json("policy show")["max-tokens-per-user"], 5);
}

#[test]
fn tokens_are_listed_by_owner_and_state() {
    let site = Site::with_alice();
    site.done("admin user create bob");
    let of = |login: &str| site.json(&format!("admin user token -u {login} -e 1h -s path:/{login}:r"))["id"].clone();
    let (first, second, third) = (of("alice"), of("alice"), of("bob"));
    let first = first.as_str().expect("an id");
    assert_eq!(site.done(&format!("apitoken revoke {first}")), format!("ApiToken with id: {first} has been revoked\n"));
    let ids = |line: &str| {
        let list = site.json(line);
        let ids = list.as_array().expect("a list").iter().map(|token| token["id"].clone());
        ids.collect::<Vec<_>>()
    };
    assert_eq!(ids("apitoken list --owner bob"), std::slice::from_ref(&third));
    assert_eq!(ids("apitoken list --state revoked"), [first]);
    assert_eq!(ids("apitoken list --owner alice --state live"), [second]);
    assert_eq!(ids("apitoken list --state expired").len(), 0);
    assert!(site.refused("apitoken list --owner nobody", 1).contains("no user nobody"));

    fs::remove_dir(site.root().join("bob")).expect("removed");
    site.done("node repair");
    assert_eq!(ids("apitoken list --state dangling"), [third]);
}

#[test]
fn tokens_are_revoked_one_by_one_or_all_of_a_user() {
    let site = Site::with_alice();
    let id = |token: String| token[4..12].to_owned();
    let one = id(site.done("admin user token -u alice -q"));
    site.done("admin user token -u alice -q");
    assert!(site.refused(&format!("apitoken revoke {one} 00000000"), 1).contains("no token 00000000"));
    assert_eq!(site.json("apitoken list --state live").as_array().map(Vec::len), Some(2));
    assert_eq!(site.done("apitoken revoke --all --owner alice"), "2 tokens of alice have been revoked\n");
    assert_eq!(site.json("apitoken list --state live").as_array().map(Vec::len), Some(0));
    for line in ["apitoken revoke", "apitoken revoke --all", "apitoken revoke --owner alice", "apitoken revoke x"] {
        site.refused(line, 2);
    }
    assert!(site.refused(&format!("apitoken rotate {one}"), 1).contains("is revoked"));
    assert!(site.refused(&format!("apitoken rotate {one} --grace 25h"), 1).contains("24h"));
}

#[test]
fn users_are_made_with_a_home_or_with_grants() {
    let site = Site::new();
    assert_eq!(site.done("admin user create carol"), "User carol has been created and reaches rw /carol\n");
    assert!(site.root().join("carol").is_dir());
    assert!(site.done("admin user create bob").contains("was there before"));
    site.done("admin user create backup --grant /alice:r --grant /bob:rw --role audit.read");
    assert!(!site.root().join("backup").exists());
    let backup = site.json("admin user show backup");
    assert_eq!(backup["grants"].as_array().map(Vec::len), Some(2));
    assert_eq!(backup["roles"], serde_json::json!(["audit.read"]));
    site.done("admin user create nothing --no-home");
    assert_eq!(site.json("admin user show nothing")["grants"].as_array().map(Vec::len), Some(0));

    assert!(site.refused("admin user create carol", 1).contains("already exists"));
    assert!(site.refused("admin user create erin --grant /none:r", 1).contains("nothing is at /none"));
    for line in ["create ../x", "create a/b", "create x --role king", "create x --grant /alice", "show"] {
        site.refused(&format!("admin user {line}"), 2);
    }
    let logins = site.json("admin user list");
    let logins: Vec<_> = logins.as_array().expect("a list").iter().map(|user| user["login"].clone()).collect();
    assert_eq!(logins, ["backup", "bob", "carol", "nothing"]);
}

#[test]
fn users_are_changed_and_deleted() {
    let site = Site::with_alice();
    site.done("admin user token -u alice -q");
    site.done("admin user disable alice");
    assert!(site.done("admin user show alice").contains("disabled since 2"));
    assert!(site.refused("admin user token -u alice", 1).contains("hint: patgate admin user enable alice"));
    site.done("admin user enable alice");
    site.done("admin user grant alice /bob:r");
    assert!(site.done("admin user show alice").contains("r /bob"));
    site.done("admin user revoke-grant alice /bob");
    assert!(site.refused("admin user revoke-grant alice /bob", 1).contains("no grant on /bob"));
    site.done("admin user delete alice");
    assert_eq!(site.tokens(), 0);
    assert!(site.root().join("alice/below/file").exists());
    for command in ["show", "disable", "enable", "delete"] {
        assert!(site.refused(&format!("admin user {command} alice"), 1).contains("there is no user alice"));
    }
}

#[test]
fn nodes_are_named_once_and_found_again() {
    let site = Site::with_alice();
    let id = site.done("node id /alice/below/file");
    assert_eq!(site.done("node id alice/below/file"), id);
    assert_eq!(site.done(&format!("node show {id}")), "/alice/below/file\n");
    let listed = site.done("node list /alice");
    assert!(listed.contains(id.trim()) && !listed.contains("/bob"), "{listed}");
    assert!(site.refused("node id /none", 1).contains("nothing is at /none"));
    site.refused("node id /../etc", 2);
    site.refused("node show 6f1c2c5e-8a55-4f0e-9d3c-0f4b6a2f7a11", 1);
    site.refused("node show 5", 2);
}

#[test]
fn the_policy_is_shown_and_set() {
    let site = Site::new();
    let set = site.done("policy set max-tokens-per-user 1");
    assert!(set.contains("max-tokens-per-user: 1\n"), "{set}");
    site.done("admin user create alice");
    site.done("admin user token -u alice -q");
    assert!(site.refused("admin user token -u alice", 1).contains("max-tokens-per-user"));
    site.done("policy set allow-never true");
    site.done("policy set max-tokens-per-user 2");
    assert!(site.done("admin user token -u alice -e never").contains("expires: never"));
    assert!(site.refused("policy set default-lifetime 2Y", 1).contains("may not exceed"));
    assert!(site.refused("policy set max-token 3", 1).contains("unknown"));
}

#[test]
fn a_state_that_is_not_there_is_not_made_by_looking() {
    let site = Site::new();
    for line in ["apitoken list", "admin user list", "policy show", "node list", "apitoken revoke 00000000"] {
        assert!(site.refused(line, 1).contains("no patgate state in"), "{line}");
    }
    assert!(!site.state().exists());
    let doctor = site.done("doctor");
    assert!(doctor.contains("there is none yet") && !site.state().exists(), "{doctor}");
}

#[test]
fn the_doctor_finds_a_state_directory_open_to_others_and_a_lost_pepper() {
    let site = Site::with_alice();
    site.done("admin user token -u alice -q");
    assert!(!site.done("doctor").contains("BAD"));
    fs::remove_file(site.state().join("pepper")).expect("removed");
    let Answer { code, out, err } = site.run("doctor");
    assert!(code == 1 && out.contains("pepper") && out.contains("BAD") && err.contains("hint: "), "{out}{err}");
    let refused = site.run("admin user token -u alice");
    assert!(refused.code == 1 && refused.err.contains("the pepper"), "{}", refused.err);
}

#[test]
fn misuse_is_told_in_a_line_with_a_hint() {
    let site = Site::new();
    for line in [
        "serve --http nope",
        "nonsense",
        "admin",
        "admin user tken",
        "apitoken list --state some",
        "serve --nonsense",
        "serve --set x",
        "admin user token -u alice -e -1h",
    ] {
        site.refused(line, 2);
    }
    assert!(site.refused("apitoken create", 2).contains("--owner LOGIN"));
    assert!(site.refused("admin user token -u alice -e x", 2).contains("hint: patgate admin user token --help"));
    let bare = site.run("");
    assert!(bare.code == 2 && bare.err.contains("Examples:"), "{}", bare.err);
}

#[test]
fn every_fault_of_a_configuration_is_told_at_once() {
    let site = Site::new();
    let file = site.folder.path().join("patgate.toml");
    fs::write(&file, "root = \"/nowhere\"\nhtpp = \"off\"\nsftp = 22\n").expect("file");
    let mut command = site.command();
    command.env_remove("PATGATE_ROOT").env("PATGATE_DURABILITY", "some").env("PATGATE_CONFIG", &file);
    let Answer { code, out, err } = answer(command.args(["serve", "--tls-cert", "x", "--strangers", "0"]));
    assert_eq!((code, out.as_str()), (1, ""));
    let file = file.display();
    let wanted = [
        format!("error: {file}:2: unknown key \"htpp\", did you mean http?"),
        format!("error: {file}:3: sftp: give a text in quotation marks"),
        "error: PATGATE_DURABILITY: durability = \"some\": give full or fast".to_owned(),
        "error: --strangers: strangers = \"0\": give a whole number from 1 to 1000000".to_owned(),
        format!("error: {file}:1: root: /nowhere is no folder"),
        "error: --tls-cert: tls_cert needs tls_key".to_owned(),
    ];
    let lines: Vec<_> = err.lines().collect();
    assert_eq!(lines[..lines.len() - 1], wanted, "{err}");
    assert!(lines[lines.len() - 1].starts_with("hint: "), "{err}");
}

#[test]
fn completions_and_manual_pages_are_written() {
    let site = Site::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(site.done(&format!("completions {shell}")).contains("apitoken"), "{shell}");
    }
    let man = site.folder.path().join("man");
    site.done(&format!("man {}", man.display()));
    let page = fs::read_to_string(man.join("patgate-admin-user-token.1")).expect("a page");
    assert!(page.contains("24h"), "{page}");
}
