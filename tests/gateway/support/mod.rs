//! The fixture: a gateway on port 0 with its own state and served directory, and clients to talk to it with.
//! `server.rs` starts the program as a process instead.

pub(crate) mod browser;
mod dav;
pub(crate) mod http1;
pub(crate) mod http2;
mod rest;
pub(crate) mod server;
mod sftp;
pub(crate) mod ssh;
pub(crate) mod ssh_packets;

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use patgate::auth::Clock;
use patgate::gateway::{Gateway, GatewayDependencies, GatewaySettings};
use patgate::sftp::HostKeys;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) use dav::{DavClient, HttpResponse, LOCK_BODY, send_raw};
pub(crate) use rest::RestClient;
pub(crate) use sftp::{
    SftpAttributes, SftpClient, SftpError, encode_packet, encode_string, open_flags, status_code, take_attrs,
    take_string, take_u32,
};

/// A running gateway; stopped when dropped.
pub(crate) struct Fixture {
    folder: TempDir,
    pub(crate) clock: Clock,
    pub(crate) http: SocketAddr,
    pub(crate) sftp: SocketAddr,
    /// Address of the listener for metrics, where the settings ask for one.
    #[allow(dead_code, reason = "for tests/gateway")]
    pub(crate) metrics: Option<SocketAddr>,
    stop: CancellationToken,
    running: Option<JoinHandle<()>>,
}

impl Fixture {
    /// Starts a gateway over an empty folder, with the system's clock.
    pub(crate) async fn start() -> Self {
        Self::start_with(Clock::system(), |_| {}).await
    }

    /// Starts a gateway whose clock stands at the present until it is turned.
    pub(crate) async fn with_manual_clock() -> Self {
        Self::start_with(Clock::manual(Clock::system().now()), |_| {}).await
    }

    /// Starts a gateway with settings of its own.
    pub(crate) async fn start_with(clock: Clock, adapt: impl FnOnce(&mut GatewaySettings)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("files")).expect("a folder");
        let mut fixture = Self {
            folder,
            clock,
            http: ([127, 0, 0, 1], 0).into(),
            sftp: ([127, 0, 0, 1], 0).into(),
            metrics: None,
            stop: CancellationToken::new(),
            running: None,
        };
        fixture.run(adapt).await;
        fixture
    }

    /// Stops the gateway as SIGTERM does, and starts another over the same folders.
    pub(crate) async fn restart(&mut self) {
        self.restart_with(|_| {}).await;
    }

    /// Stops the gateway as SIGTERM does, and starts another over the same folders with settings of its own.
    pub(crate) async fn restart_with(&mut self, adapt: impl FnOnce(&mut GatewaySettings)) {
        self.stop().await;
        self.run(adapt).await;
    }

    /// Stops the gateway as SIGTERM does and waits for its end.
    pub(crate) async fn stop(&mut self) {
        self.stop.cancel();
        if let Some(running) = self.running.take() {
            running.await.expect("the gateway ends without a panic");
        }
    }

    async fn run(&mut self, adapt: impl FnOnce(&mut GatewaySettings)) {
        let mut settings = GatewaySettings::new(self.root(), self.state());
        settings.http = Some(([127, 0, 0, 1], 0).into());
        settings.sftp = Some(([127, 0, 0, 1], 0).into());
        adapt(&mut settings);
        let parts = GatewayDependencies {
            clock: self.clock.clone(),
            host_keys: Some(HostKeys::ephemeral()),
            ..GatewayDependencies::default()
        };
        let gateway = Gateway::open(settings, parts).await.expect("the gateway starts");
        self.http = gateway.http_address().expect("HTTP");
        self.sftp = gateway.sftp_address().expect("SFTP");
        self.metrics = gateway.metrics_address();
        self.stop = CancellationToken::new();
        self.running = Some(tokio::spawn(gateway.run(self.stop.clone())));
    }

    /// The served folder.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("files")
    }

    /// The state directory.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// A path of the host below the served folder.
    pub(crate) fn host_path(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    /// Writes a file on the host, with the folders above it.
    pub(crate) fn write_host_file(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.host_path(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        std::fs::write(path, content).expect("a file");
    }

    /// Makes a folder on the host.
    pub(crate) fn create_host_directory(&self, path: &str) {
        std::fs::create_dir_all(self.host_path(path)).expect("a folder");
    }

    /// Runs the program on the state directory as another process and returns what it printed.
    pub(crate) fn run_cli<S: AsRef<OsStr>>(&self, arguments: &[S]) -> String {
        let output = self.try_run_cli(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    /// Runs a command and returns its output, whether it succeeds or not.
    pub(crate) fn try_run_cli<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Output {
        patgate_command(&self.state()).args(arguments).output().expect("the program runs")
    }

    /// Makes a user without a home and with these grants (`/path:rw`).
    pub(crate) fn create_user(&self, login: &str, grants: &[&str]) {
        let mut arguments = vec!["admin", "user", "create", login, "--no-home"];
        for grant in grants {
            arguments.extend(["--grant", grant]);
        }
        self.run_cli(&arguments);
    }

    /// Creates a token with these options and returns it.
    pub(crate) fn create_token(&self, login: &str, options: &[&str]) -> String {
        let mut arguments = vec!["admin", "user", "token", "-u", login, "-q"];
        arguments.extend(options);
        self.run_cli(&arguments)
    }

    /// Creates a user with one grant, and returns a token without scopes, valid for an hour.
    pub(crate) fn create_user_and_token(&self, login: &str, grant: &str) -> String {
        self.create_user(login, &[grant]);
        self.create_token(login, &["-e", "1h"])
    }

    /// Returns the node id of a path.
    pub(crate) fn node_id(&self, path: &str) -> String {
        self.run_cli(&["node", "id", path])
    }

    /// Returns a WebDAV client with a user's token.
    pub(crate) fn dav(&self, login: &str, token: &str) -> DavClient {
        DavClient::new(self.http, login, token)
    }

    /// Returns a REST client with a user's token.
    pub(crate) fn rest(&self, login: &str, token: &str) -> RestClient {
        RestClient::new(self.dav(login, token))
    }

    /// Opens an SFTP session with a user's token.
    pub(crate) async fn sftp(&self, login: &str, token: &str) -> SftpClient {
        SftpClient::connect(self.sftp, login, token).await.expect("the login is accepted")
    }

    /// Returns the paths in the staging directory.
    pub(crate) fn staged_entries(&self) -> Vec<PathBuf> {
        server::staged_entries(&self.root())
    }

    /// Returns all paths below the served directory, relative and sorted; with the reserved directory, and without the
    /// tree's marker.
    pub(crate) fn all_paths(&self) -> Vec<String> {
        let mut found = Vec::new();
        collect_paths(&self.root(), &self.root(), &mut found);
        found.retain(|path| path != ".patgate/tree.id");
        found.sort();
        found
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Returns a command that runs the program on a state directory.
pub(crate) fn patgate_command(state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_patgate"));
    command.env_clear().env("PATGATE_STATE", state);
    command
}

/// Returns the id in a token's text.
pub(crate) fn token_id(token: &str) -> &str {
    &token[4..12]
}

fn collect_paths(root: &Path, folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        found.push(path.strip_prefix(root).expect("below").display().to_string());
        if entry.file_type().expect("a type").is_dir() {
            collect_paths(root, &path, found);
        }
    }
}
