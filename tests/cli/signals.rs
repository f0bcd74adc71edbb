//! Signals to `patgate serve` and `quickstart`: which ones stop it, what SIGHUP reloads, and which ones have no effect.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::ChildStderr;

use crate::CliFixture;
use crate::serving::{ServerProcess, patgate_command, send_request_head};

/// A server that reads `patgate.toml`, and its log.
struct ConfiguredServer {
    server: ServerProcess,
    log: BufReader<ChildStderr>,
    file: PathBuf,
    /// Address of the HTTP listener.
    http: String,
}

impl ConfiguredServer {
    fn start(fixture: &CliFixture, settings: &str) -> Self {
        let file = fixture.state().with_extension("toml");
        std::fs::write(&file, settings).expect("written");
        let mut command = patgate_command();
        command.args(["serve", "--http", "127.0.0.1:0", "--sftp", "off", "--config"]).arg(&file);
        command.env("PATGATE_STATE", fixture.state()).env("PATGATE_ROOT", fixture.root());
        let mut server = ServerProcess::start(&mut command);
        let line = server.wait_until_ready().remove(0);
        let http = line.rsplit_once("://").expect("an address").1.to_owned();
        Self { log: BufReader::new(server.stderr()), server, file, http }
    }

    fn signal(&self, name: &str) {
        self.server.signal(name);
    }

    /// Replaces the configuration file, sends SIGHUP and returns all lines of the log up to the one with the outcome.
    fn reload(&mut self, settings: &str) -> String {
        std::fs::write(&self.file, settings).expect("written");
        self.signal("HUP");
        self.read_log_until("reload")
    }

    /// Returns all lines of the log up to the first that contains `words`.
    fn read_log_until(&mut self, words: &str) -> String {
        let mut text = String::new();
        while !text.lines().last().is_some_and(|line| line.contains(words)) {
            assert_ne!(self.log.read_line(&mut text).expect("text"), 0, "the log ended: {text}");
        }
        text
    }

    /// Sends a preflight request of `https://app.example` on an open connection.
    fn allows_cors_origin(connection: &mut TcpStream) -> bool {
        let request = "OPTIONS /dav/ HTTP/1.1\r\nHost: x\r\nOrigin: https://app.example\r\n\
                       Access-Control-Request-Method: GET\r\n\r\n";
        connection.write_all(request.as_bytes()).expect("sent");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            connection.read_exact(&mut byte).expect("an answer");
            head.extend(byte);
        }
        String::from_utf8(head).expect("text").to_ascii_lowercase().contains("access-control-allow-origin")
    }
}

fn certificate_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gateway/tls").join(format!("{name}.pem"))
}

#[test]
fn sighup_applies_settings_to_new_requests_and_keeps_open_connections() {
    let fixture = CliFixture::new();
    let mut server = ConfiguredServer::start(&fixture, "");
    let mut open = TcpStream::connect(&server.http).expect("it listens");
    assert!(!ConfiguredServer::allows_cors_origin(&mut open));

    let log = server.reload("cors_origins = [\"https://app.example\"]\n");
    assert!(log.contains("the configuration was reloaded"), "{log}");
    let mut new = TcpStream::connect(&server.http).expect("it listens");
    assert!(ConfiguredServer::allows_cors_origin(&mut new));
    assert!(!ConfiguredServer::allows_cors_origin(&mut open), "it keeps the settings that it began with");

    let log = server.reload("cors_origins = [\"https://other.example\"]\nhttp_connections = 99\n");
    assert!(log.contains("a restart is needed before these settings change: http_connections"), "{log}");
    let mut newer = TcpStream::connect(&server.http).expect("it listens");
    assert!(!ConfiguredServer::allows_cors_origin(&mut newer));
}

#[test]
fn sighup_reloads_the_log_filter() {
    let fixture = CliFixture::new();
    let mut server = ConfiguredServer::start(&fixture, "log = \"error\"\n");
    server.signal("USR1");
    let log = server.reload("log = \"info\"\n");
    assert!(!log.contains("SIGUSR1"), "{log}");
    server.signal("USR1");
    server.read_log_until("SIGUSR1 has no effect");
}

#[test]
fn renamed_access_log_is_opened_anew_on_sighup_and_sigusr1_and_loses_no_line() {
    let fixture = CliFixture::new();
    let log = fixture.state().with_extension("access");
    let mut server = ConfiguredServer::start(&fixture, &format!("access_log = {:?}\n", log.display().to_string()));
    let mut connection = TcpStream::connect(&server.http).expect("it listens");
    // Even where the file of settings is broken by then.
    let signals = [("USR1", "", "was opened anew"), ("HUP", "no_such_setting = 1\n", "was not reloaded")];
    for (round, (signal, settings, outcome)) in signals.into_iter().enumerate() {
        for _ in 0..20 {
            ConfiguredServer::allows_cors_origin(&mut connection);
        }
        std::fs::rename(&log, log.with_extension(round.to_string())).expect("renamed");
        for _ in 0..20 {
            ConfiguredServer::allows_cors_origin(&mut connection);
        }
        if !settings.is_empty() {
            std::fs::write(&server.file, settings).expect("written");
        }
        server.signal(signal);
        server.read_log_until(outcome);
        // The thread that writes opens it when it is woken.
        while !log.exists() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
    ConfiguredServer::allows_cors_origin(&mut connection);
    drop(connection);
    server.signal("TERM");
    assert_eq!(server.server.wait_for_exit(), Some(0));
    let lines = |path: &Path| std::fs::read_to_string(path).expect("a log").lines().count();
    let (first, second) = (lines(&log.with_extension("0")), lines(&log.with_extension("1")));
    assert_eq!((first + second + lines(&log), lines(&log)), (81, 1));
    assert!(first >= 20 && second >= 20, "{first} and {second}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&log).expect("there").permissions());
    assert_eq!(mode & 0o137, 0, "whoever may read logs, and nobody else");
}

#[test]
fn invalid_configuration_is_rejected_on_sighup_as_a_whole() {
    let fixture = CliFixture::new();
    let mut server = ConfiguredServer::start(&fixture, "cors_origins = [\"https://app.example\"]\n");
    for (settings, reason) in [
        ("cors_origins = []\ndrain_seconds = \"soon\"\n", "drain_seconds"),
        ("cors_origins = []\nno_such_setting = 1\n", "no_such_setting"),
        ("cors_origins = []\nlog = \"patgate=[\"\n", "give off, error, warn"),
        ("cors_origins = []\ntls_cert = \"/none\"\ntls_key = \"/none\"\n", "/none can't be read"),
    ] {
        let log = server.reload(settings);
        assert!(log.contains("the configuration was not reloaded, the old one stays: "), "{log}");
        assert!(log.contains(reason), "{log}");
        let mut connection = TcpStream::connect(&server.http).expect("it listens");
        assert!(ConfiguredServer::allows_cors_origin(&mut connection), "{settings}");
    }
}

#[test]
fn sighup_replaces_the_certificate() {
    let fixture = CliFixture::new();
    let certificate = fixture.state().with_extension("pem");
    std::fs::copy(certificate_path("elsewhere"), &certificate).expect("copied");
    let (certificate_text, key) = (certificate.display(), certificate_path("key"));
    let settings = format!("tls_cert = \"{certificate_text}\"\ntls_key = \"{}\"\n", key.display());
    let mut server = ConfiguredServer::start(&fixture, &settings);
    let ask = |http: &str| {
        let mut command = patgate_command();
        command
            .env("SSL_CERT_FILE", certificate_path("stranger"))
            .env("PATGATE_TOKEN", "none")
            .arg("--ca-file")
            .arg(certificate_path("ca"));
        let output = command.args(["policy", "show", "--server", &format!("https://{http}")]).output();
        String::from_utf8(output.expect("the program runs").stderr).expect("text")
    };
    let text = ask(&server.http);
    assert!(text.contains("presents a certificate for another host name"), "{text}");

    std::fs::copy(certificate_path("server"), &certificate).expect("copied");
    let log = server.reload(&settings);
    assert!(log.contains("the configuration was reloaded"), "{log}");
    let text = ask(&server.http);
    assert!(!text.contains("certificate"), "{text}");

    std::fs::write(&certificate, "no certificate").expect("written");
    let log = server.reload(&settings);
    assert!(log.contains("it holds no certificate"), "{log}");
    assert!(!ask(&server.http).contains("certificate"), "the last one that could be used stays");

    let log = server.reload("");
    assert!(log.contains("HTTP can't be switched to or from TLS while it runs"), "{log}");
}

#[test]
fn sandbox_keeps_a_certificate_elsewhere_out_of_reach_of_a_reload() {
    let fixture = CliFixture::new();
    let doctor = fixture.run("doctor").stdout;
    let sandbox = doctor.lines().find(|line| line.starts_with("sandbox")).expect("the check");
    if sandbox.contains("Landlock (Linux") {
        return println!("not tried: {sandbox}");
    }
    let elsewhere = tempfile::tempdir().expect("a folder");
    let settings = |certificate: &Path, more: &str| {
        let (certificate, key) = (certificate.display(), certificate_path("key"));
        format!("tls_cert = \"{certificate}\"\ntls_key = \"{}\"\n{more}", key.display())
    };
    let certificate = elsewhere.path().join("cert.pem");
    std::fs::copy(certificate_path("server"), &certificate).expect("copied");
    for (sandbox, reloads) in [("strict", false), ("off", true)] {
        let sandbox = format!("sandbox = \"{sandbox}\"\n");
        let mut server = ConfiguredServer::start(&fixture, &settings(&certificate_path("elsewhere"), &sandbox));
        let log = server.reload(&settings(&certificate, &sandbox));
        assert_eq!(log.contains("the configuration was reloaded"), reloads, "{log}");
        let reason = format!("sandbox keeps {} out of its reach: restart it", elsewhere.path().display());
        assert_eq!(log.contains("Permission denied") && log.contains(&reason), !reloads, "{log}");
    }
}

#[test]
fn sigint_and_sigquit_drain_like_sigterm_and_user_signals_are_ignored() {
    for stop in ["QUIT", "INT", "TERM"] {
        let fixture = CliFixture::new();
        let mut server = ConfiguredServer::start(&fixture, "drain_seconds = 30\n");
        for harmless in ["USR1", "USR2", "HUP"] {
            server.signal(harmless);
        }
        // An upload under way is carried out and answered before the server ends.
        let token = fixture.create_user_and_token("alice");
        let headers = "Content-Length: 2\r\nExpect: 100-continue\r\n";
        let mut upload = send_request_head(&server.http, "PUT /dav/alice/new", "alice", &token, headers);
        let mut interim = [0; 25];
        upload.read_exact(&mut interim).expect("an answer");
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
        upload.write_all(b"a").expect("sent");
        server.signal(stop);
        while TcpStream::connect(&server.http).is_ok() {
            std::thread::yield_now();
        }
        upload.write_all(b"b").expect("sent");
        let mut answer = String::new();
        upload.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 201 "), "{stop}: {answer}");
        assert_eq!(server.server.wait_for_exit(), Some(0), "{stop}");
        assert_eq!(std::fs::read(fixture.root().join("alice/new")).expect("the file"), b"ab");
    }
}

#[test]
fn quickstart_ignores_user_signals_and_drains_on_sigterm_and_when_its_terminal_closes() {
    for stop in ["TERM", "HUP"] {
        let folder = tempfile::tempdir().expect("folder");
        let mut command = patgate_command();
        command.current_dir(folder.path()).args(["quickstart", "--http", "127.0.0.1:0", "--sftp", "127.0.0.1:0"]);
        let mut server = ServerProcess::start(&mut command);
        server.wait_until_ready();
        for name in ["USR1", "USR2"] {
            server.signal(name);
        }
        server.signal(stop);
        assert_eq!(server.wait_for_exit(), Some(0), "no signal has killed it before {stop}");
    }
}
