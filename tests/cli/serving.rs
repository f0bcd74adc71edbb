//! The servers that `serve` and `quickstart` start: the line that they print when ready, and a clean exit on SIGTERM.
//! Other signals are in `signals.rs`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use crate::{CliFixture, is_token};

/// A server that this test started; ended with it.
pub(crate) struct ServerProcess {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl ServerProcess {
    pub(crate) fn start(command: &mut std::process::Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
        let out = BufReader::new(child.stdout.take().expect("stdout"));
        Self { child, out }
    }

    /// Returns all lines up to the one that says that it is ready.
    pub(crate) fn wait_until_ready(&mut self) -> Vec<String> {
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

    /// Stops it with SIGTERM, and returns its exit code and what it printed since.
    fn stop(mut self) -> (Option<i32>, String) {
        self.signal("TERM");
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).expect("text");
        (self.wait_for_exit(), rest)
    }

    /// Sends it a signal, named without `SIG`.
    pub(crate) fn signal(&self, name: &str) {
        let sent =
            std::process::Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Returns its log.
    pub(crate) fn stderr(&mut self) -> std::process::ChildStderr {
        self.child.stderr.take().expect("stderr")
    }

    /// Waits for its end and returns its exit code.
    pub(crate) fn wait_for_exit(&mut self) -> Option<i32> {
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn patgate_command() -> std::process::Command {
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("patgate"));
    command.env_clear().env("USER", "zoe");
    command
}

/// Sends the head of an HTTP request (`target` is method and path; `headers` end in CR LF each) with a user's token.
pub(crate) fn send_request_head(address: &str, target: &str, login: &str, token: &str, headers: &str) -> TcpStream {
    use base64::Engine;
    let credential = base64::engine::general_purpose::STANDARD.encode(format!("{login}:{token}"));
    let mut stream = TcpStream::connect(address).expect("it listens");
    let head = format!(
        "{target} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Basic {credential}\r\nConnection: close\r\n{headers}\r\n"
    );
    stream.write_all(head.as_bytes()).expect("sent");
    stream
}

/// Sends GET with a user's token and returns the whole response.
fn get(address: &str, path: &str, login: &str, token: &str) -> String {
    let mut stream = send_request_head(address, &format!("GET {path}"), login, token, "");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn serve_prints_its_addresses_on_one_line_and_stops_on_sigterm() {
    let fixture = CliFixture::new();
    let mut command = patgate_command();
    command.args(["serve", "--http", "127.0.0.1:0", "--sftp=127.0.0.1:0", "--set", "drain_seconds=5"]);
    let mut server =
        ServerProcess::start(command.env("PATGATE_STATE", fixture.state()).env("PATGATE_ROOT", fixture.root()));
    let lines = server.wait_until_ready();
    let (http, sftp) = lines[0]
        .strip_prefix("patgate ready http=http://127.0.0.1:")
        .and_then(|rest| rest.split_once(" sftp=127.0.0.1:"))
        .expect("the line");
    assert!(lines.len() == 1 && http.parse::<u16>().is_ok() && sftp.parse::<u16>().is_ok(), "{lines:?}");

    let health = format!("http://127.0.0.1:{http}/healthz");
    let run_beside = |line: &str| {
        let output = patgate_command().env("PATGATE_STATE", fixture.state()).args(line.split_whitespace()).output();
        let output = output.expect("the program runs");
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    };
    assert_eq!(run_beside(&format!("doctor --health {health}")), "healthy");
    run_beside("admin user create alice");
    let token = run_beside("admin user token -u alice -q");
    let address = format!("127.0.0.1:{http}");
    let answer = get(&address, "/dav/alice/below/file", "alice", &token);
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nx"), "{answer}");
    run_beside(&format!("apitoken revoke {}", &token[4..12]));
    assert!(get(&address, "/dav/alice/below/file", "alice", &token).starts_with("HTTP/1.1 401 "));

    let second = patgate_command()
        .args(["serve", "--http", "127.0.0.1:0", "--sftp", "off"])
        .env("PATGATE_STATE", fixture.state())
        .env("PATGATE_ROOT", fixture.root())
        .output();
    let stderr = String::from_utf8(second.expect("the program runs").stderr).expect("text");
    assert!(stderr.contains(": another server ") && stderr.contains("hint: stop that one first"), "{stderr}");
    assert!(!stderr.contains("the file system failed"), "{stderr}");

    assert_eq!(server.stop(), (Some(0), String::new()));
}

#[test]
fn disabled_listener_is_omitted_from_the_ready_line() {
    let fixture = CliFixture::new();
    let mut command = patgate_command();
    command.args(["serve", "--http", "127.0.0.1:0", "--sftp", "off"]);
    let mut server =
        ServerProcess::start(command.env("PATGATE_STATE", fixture.state()).env("PATGATE_ROOT", fixture.root()));
    let line = server.wait_until_ready().remove(0);
    assert!(line.starts_with("patgate ready http=") && !line.contains("sftp"), "{line}");
    assert_eq!(server.stop().0, Some(0));
}

#[test]
fn quickstart_creates_a_directory_and_reuses_it() {
    let folder = tempfile::tempdir().expect("folder");
    let start = |more: &[&str]| {
        let mut command = patgate_command();
        command.current_dir(folder.path()).args(["quickstart", "--http", "127.0.0.1:0", "--sftp", "127.0.0.1:0"]);
        ServerProcess::start(command.args(more))
    };
    let value = |lines: &[String], name: &str| {
        let line = lines.iter().find_map(|line| line.trim().strip_prefix(name)).expect(name);
        line.trim().to_owned()
    };
    let mut server = start(&[]);
    let lines = server.wait_until_ready();
    let token = value(&lines, "password ");
    assert!(is_token(&token) && value(&lines, "user name") == "zoe", "{lines:?}");
    assert!(value(&lines, "host key").starts_with("ssh-ed25519 SHA256:"), "{lines:?}");
    for client in ["curl", "rclone", "davfs2", "sftp", "sshfs"] {
        assert!(lines.iter().any(|line| line.trim().starts_with(client)), "{client}");
    }
    let sshfs = lines.iter().find(|line| line.trim().starts_with("sshfs")).expect("the line");
    assert!(sshfs.contains("StrictHostKeyChecking=accept-new"), "it has no terminal to ask at: {sshfs}");
    let url = value(&lines, "WebDAV");
    let address = url.strip_prefix("http://").and_then(|rest| rest.strip_suffix("/dav/")).expect("an address");
    let answer = get(address, "/dav/welcome.txt", "zoe", &token);
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("served by patgate"), "{answer}");
    assert_eq!(server.stop().0, Some(0));
    assert!(folder.path().join("files.patgate/patgate.db").exists());

    let mut second_server = start(&[]);
    let lines = second_server.wait_until_ready();
    assert_eq!(value(&lines, "password "), "TOKEN");
    let url = value(&lines, "WebDAV");
    let address = url.strip_prefix("http://").and_then(|rest| rest.strip_suffix("/dav/")).expect("an address");
    assert!(get(address, "/dav/welcome.txt", "zoe", &token).starts_with("HTTP/1.1 200 "), "the first token lives on");
    assert_eq!(second_server.stop().0, Some(0));

    let mut another = start(&["--new-token"]);
    let new = value(&another.wait_until_ready(), "password ");
    assert!(is_token(&new) && new != token);
    assert_eq!(another.stop().0, Some(0));
}
