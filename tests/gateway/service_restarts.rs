//! Restarts behind sockets that a service manager holds: no client is refused, and no request is cut. And what the
//! service manager is told (`sd_notify(3)`).

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixSocketAddr, UnixDatagram};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::server::{create_token, run_cli};
use crate::support::{SftpClient, patgate_command};

/// Restarts in the test; `PATGATE_TEST_RESTARTS` asks for more.
const RESTARTS: usize = 3;
/// Time in which the service manager is told what it waits for, on any machine.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(60);

/// What a service manager has: the sockets, and the socket at which it is told of the service.
struct ServiceManager {
    folder: tempfile::TempDir,
    listeners: Vec<(&'static str, TcpListener)>,
    notifications: UnixDatagram,
    notify_name: String,
}

impl ServiceManager {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("files")).expect("a folder");
        let listeners = ["http", "sftp"].map(|name| (name, TcpListener::bind("127.0.0.1:0").expect("a port")));
        // Abstract: a name that is in no file system, and that is written with `@`.
        let notify_name = format!("patgate-test/{}", folder.path().display());
        let address = UnixSocketAddr::from_abstract_name(&notify_name).expect("a name");
        let notifications = UnixDatagram::bind_addr(&address).expect("bound");
        notifications.set_read_timeout(Some(NOTIFY_TIMEOUT)).expect("set");
        Self { folder, listeners: listeners.into(), notifications, notify_name }
    }

    fn address(&self, name: &str) -> SocketAddr {
        let (_, listener) = self.listeners.iter().find(|(found, _)| *found == name).expect("the socket");
        listener.local_addr().expect("an address")
    }

    fn start(&self, names: &str) -> Service {
        let (mut command, _copies) = self.command(names);
        Service(Some(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program runs")))
    }

    /// Returns a command that serves with the sockets as descriptors 3 and 4, as `sd_listen_fds(3)` says, and what has to
    /// be open when it is started.
    fn command(&self, names: &str) -> (Command, Vec<OwnedFd>) {
        // High numbers, so that no redirection below replaces what a later one copies.
        let copy = |(_, listener): &(_, TcpListener)| fcntl_dupfd_cloexec(listener, 600).expect("a copy");
        let copies: Vec<OwnedFd> = self.listeners.iter().map(copy).collect();
        let redirect = |(at, copy): (usize, &OwnedFd)| {
            fcntl_setfd(copy, FdFlags::empty()).expect("inherited");
            format!("exec {}<&{number} {number}<&-; ", at + 3, number = copy.as_raw_fd())
        };
        let redirects: String = copies.iter().enumerate().map(redirect).collect();
        let program = patgate_command(&self.folder.path().join("state"));
        let script = format!("{redirects} export LISTEN_PID=$$; exec {} serve", program.get_program().display());
        let mut command = Command::new("bash");
        command.args(["-c", &script]).env_clear();
        command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("LISTEN_FDS", copies.len().to_string()).env("LISTEN_FDNAMES", names);
        command.env("NOTIFY_SOCKET", format!("@{}", self.notify_name)).env("WATCHDOG_USEC", "1000000");
        command.env("PATGATE_ROOT", self.folder.path().join("files"));
        (command, copies)
    }

    fn start_and_wait(&self) -> Service {
        let process = self.start("http:sftp");
        self.wait_for("READY=1");
        process
    }

    /// Waits until a message says `line`, and returns the message.
    fn wait_for(&self, line: &str) -> String {
        loop {
            let mut buffer = [0; 4096];
            let length = self.notifications.recv(&mut buffer).expect("told in time");
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if message.lines().any(|found| found == line) {
                return message;
            }
        }
    }
}

/// A server that is killed with its test.
struct Service(Option<Child>);

impl Service {
    fn signal(&self, signal: Signal) {
        let process = self.0.as_ref().expect("it runs");
        kill_process(Pid::from_child(process), signal).expect("told");
    }

    /// Waits for its end; returns its exit code and its log.
    fn wait(mut self) -> (Option<i32>, String) {
        let output = self.0.take().expect("it runs").wait_with_output().expect("it ends");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    }

    /// Stops it as `systemctl restart` does, and returns its log.
    fn stop(self) -> String {
        self.signal(Signal::TERM);
        let (code, log) = self.wait();
        assert_eq!(code, Some(0), "{log}");
        log
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(process) = &mut self.0 {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Clients that go on until they are stopped, and count what was answered.
#[derive(Clone, Default)]
struct LoadControl {
    stopped: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
}

impl LoadControl {
    fn continues(&self) -> bool {
        self.answered.fetch_add(1, Ordering::Relaxed);
        !self.stopped.load(Ordering::Relaxed)
    }
}

fn http_request(method: &str, path: &str, token: &str, more: &str, body: &str) -> String {
    let credential = STANDARD.encode(format!("alice:{token}"));
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {credential}\r\n{more}\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

/// Reads one response, and tells whether its connection goes on.
async fn read_response(stream: &mut TcpStream, expected: &str) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("an answer, not the end of the connection"));
    }
    let head = String::from_utf8(head).expect("text").to_ascii_lowercase();
    assert!(head.starts_with(&format!("http/1.1 {expected}")), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a number"))];
    stream.read_exact(&mut body).await.expect("the whole body");
    !head.contains("connection: close")
}

/// Writes and reads a file over connections that are used until the server says that it closes them.
async fn load_http1(address: SocketAddr, token: String, file: String, control: LoadControl, reuse: bool) {
    let close = if reuse { "" } else { "Connection: close\r\n" };
    let put = http_request("PUT", &file, &token, close, "content");
    let get = http_request("GET", &file, &token, close, "");
    let mut open: Option<TcpStream> = None;
    while control.continues() {
        for (request, expected) in [(&put, "20"), (&get, "200")] {
            let mut stream = match open.take() {
                Some(stream) => stream,
                None => TcpStream::connect(address).await.expect("not refused"),
            };
            stream.write_all(request.as_bytes()).await.expect("sent");
            let goes_on = read_response(&mut stream, expected).await;
            open = Some(stream).filter(|_| goes_on);
        }
    }
}

async fn load_http2(address: SocketAddr, token: String, control: LoadControl) {
    patgate::net::install_default_crypto_provider();
    let client = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().expect("a client");
    let url = format!("http://{address}/dav/http2");
    while control.continues() {
        let put = client.put(&url).basic_auth("alice", Some(&token)).body("content").send();
        assert!(put.await.expect("an answer").status().is_success());
        let get = client.get(&url).basic_auth("alice", Some(&token)).send().await.expect("an answer");
        assert_eq!(get.bytes().await.expect("the whole body"), "content");
    }
}

async fn load_sftp(address: SocketAddr, token: String, file: String, control: LoadControl) {
    while control.continues() {
        let mut sftp = SftpClient::connect(address, "alice", &token).await.expect("logged in");
        sftp.put(&file, b"content").await.expect("written");
        assert_eq!(sftp.get(&file).await.expect("read"), b"content");
        sftp.disconnect().await;
    }
}

fn create_alice(folder: &Path) -> String {
    run_cli(folder, &["admin", "user", "create", "alice", "--no-home", "--grant", "/:rw"]);
    create_token(folder, "alice")
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_behind_held_sockets_refuses_and_cuts_no_request() {
    let restarts = std::env::var("PATGATE_TEST_RESTARTS").ok().and_then(|text| text.parse().ok()).unwrap_or(RESTARTS);
    let manager = ServiceManager::new();
    let (http, sftp) = (manager.address("http"), manager.address("sftp"));
    let mut process = manager.start_and_wait();
    let token = create_alice(manager.folder.path());
    let controls: [LoadControl; 4] = Default::default();
    let [fresh, reused, http2, ssh] = controls.clone();
    let mut load = tokio::task::JoinSet::new();
    load.spawn(load_http1(http, token.clone(), "/dav/fresh".to_owned(), fresh, false));
    load.spawn(load_http1(http, token.clone(), "/dav/reused".to_owned(), reused, true));
    load.spawn(load_http2(http, token.clone(), http2));
    load.spawn(load_sftp(sftp, token.clone(), "/sftp".to_owned(), ssh));
    for _ in 0..restarts {
        // Every kind of client has been answered by this server.
        let before = controls.each_ref().map(|control| control.answered.load(Ordering::Relaxed));
        while controls.iter().zip(before).any(|(control, before)| {
            assert!(load.try_join_next().is_none_or(|ended| ended.is_ok()), "a client has failed");
            control.answered.load(Ordering::Relaxed) < before + 2
        }) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        process = tokio::task::block_in_place(|| {
            let log = process.stop();
            assert!(!log.contains("connections were closed after"), "{log}");
            manager.start_and_wait()
        });
    }
    controls.iter().for_each(|control| control.stopped.store(true, Ordering::Relaxed));
    while let Some(ended) = load.join_next().await {
        ended.expect("every request was answered");
    }
    tokio::task::block_in_place(|| process.stop());
}

#[test]
fn service_manager_is_told_of_readiness_reloads_watchdog_and_stop() {
    let manager = ServiceManager::new();
    let process = manager.start_and_wait();
    manager.wait_for("WATCHDOG=1");
    manager.wait_for("WATCHDOG=1");
    process.signal(Signal::HUP);
    let reloading = manager.wait_for("RELOADING=1");
    assert!(reloading.lines().any(|line| line.starts_with("MONOTONIC_USEC=")), "{reloading}");
    manager.wait_for("READY=1");
    let log = process.stop();
    let stopping = manager.wait_for("STOPPING=1");
    assert!(stopping.lines().any(|line| line == "EXTEND_TIMEOUT_USEC=30000000"), "{stopping} {log}");
}

#[test]
fn socket_of_an_unknown_name_or_for_a_disabled_protocol_is_refused() {
    let manager = ServiceManager::new();
    let process = manager.start("http:other");
    let (code, text) = process.wait();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("a socket named \"other\": FileDescriptorName= must be http, sftp or metrics"), "{text}");

    let process = manager.start("sftp:sftp");
    let (_, text) = process.wait();
    assert!(text.contains("two sockets named sftp"), "{text}");

    let (mut command, _copies) = manager.command("http:sftp");
    let output = command.env("PATGATE_SFTP", "off").output().expect("it ends");
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(text.contains("passes a socket for sftp, which is off: turn sftp on, or stop that socket unit"), "{text}");
    assert_eq!(output.status.code(), Some(1), "{text}");
}
