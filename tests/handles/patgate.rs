//! The tested server patgate: three SSH connections of one user, two channels on the first, and a WebDAV client beside
//! them.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::chown;

use std::process::{ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::driver::{self, OpenHandles};
use crate::file_system::{BASE_NAME, InodeNumber};
use crate::model::StepOutcome;
use crate::runner::SftpTarget;
use crate::steps::{CHANNELS, PutCondition, SESSIONS, SftpRequest, WebDavRequest, session_of};
use std::path::PathBuf;

use crate::support::dav::{DavClient, HttpResponse, LOCK_BODY};
use crate::support::server::{ServerProcess, run_cli, staged_entries};
use crate::support::sftp::SftpClient;
use crate::support::{PROGRAM_COPY, patgate_command};

const ETAG_BODY: &str = r#"<propfind xmlns="DAV:"><prop><getetag/></prop></propfind>"#;
/// Time in which the server has to end a channel, or to remove what nobody needs any more.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(10);
/// Message that the server logs once a channel was lost and its open files are discarded.
const CHANNEL_ENDED_LOG_MESSAGE: &str = "SFTP channel ended";

/// A lock that was taken: the path that it is on, and its token.
struct TakenLock {
    url: String,
    token: String,
}

/// The program, and its clients.
pub(crate) struct PatgateTarget {
    folder: TempDir,
    server: ServerProcess,
    token: String,
    channels: Vec<SftpClient>,
    handles: OpenHandles,
    dav: DavClient,
    sequence: usize,
    locks: Vec<TakenLock>,
    /// The ETags of the sequence, by the content that they stand for.
    etags: HashMap<(InodeNumber, u64), String>,
    /// Number of channels that the server has ended without order.
    ended: Arc<AtomicUsize>,
}

impl PatgateTarget {
    /// Starts the program, as the user with this number where one is given, and a token of these options.
    pub(crate) async fn start(user: Option<u32>, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let files = folder.path().join("files");
        std::fs::create_dir(&files).expect("a directory");
        if let Some(user) = user {
            for path in [folder.path(), &files] {
                chown(path, Some(user), Some(user)).expect("given away");
            }
            // By another process: one that other threads start meanwhile would hold the copy open for writing (ETXTBSY).
            let copied =
                Command::new("cp").arg(env!("CARGO_BIN_EXE_patgate")).arg(folder.path().join(PROGRAM_COPY)).status();
            assert!(copied.expect("cp runs").success());
        }
        let mut command = patgate_command(&folder.path().join("state"));
        // Interrupted uploads are discarded here: tests/gateway/sftp_resume.rs tests their retention.
        command.env("PATGATE_SFTP_RESUME_SECONDS", "0");
        command.env("PATGATE_DURABILITY", "fast").env("PATGATE_LOG", "warn,patgate::sftp::channel=trace");
        command.stderr(Stdio::piped());
        let mut server = ServerProcess::start_with_command(command, folder.path());
        let ended = Arc::new(AtomicUsize::new(0));
        count_ended(server.take_stderr().expect("piped"), ended.clone());
        run_cli(folder.path(), &["admin", "user", "create", "alice", "--no-home", "--grant", "/:rw"]);
        let token =
            run_cli(folder.path(), &[&["admin", "user", "token", "-u", "alice", "-q", "-e", "7d"], options].concat());
        let dav = DavClient::new(server.http, "alice", &token);
        let mut target = Self {
            folder,
            server,
            token,
            channels: Vec::new(),
            handles: std::array::from_fn(|_| Vec::new()),
            dav,
            sequence: 0,
            locks: Vec::new(),
            etags: HashMap::new(),
            ended,
        };
        for session in 0..SESSIONS {
            let channels = target.connect(session).await;
            target.channels.extend(channels);
        }
        target
    }

    /// Connects a session, with all its channels.
    async fn connect(&self, session: usize) -> Vec<SftpClient> {
        let mut channels = Vec::new();
        channels
            .push(SftpClient::connect(self.server.sftp, "alice", &self.token).await.expect("the login is accepted"));
        for _ in (0..CHANNELS).filter(|channel| session_of(*channel) == session).skip(1) {
            let second_channel = channels[0].open_second_channel().await.expect("another channel");
            channels.push(second_channel);
        }
        channels
    }

    /// Waits until the server has ended so many channels in all.
    async fn wait_for_ends(&self, number: usize) -> Result<(), String> {
        let end = Instant::now() + CLEANUP_TIMEOUT;
        while self.ended.load(Ordering::Acquire) < number {
            if Instant::now() > end {
                return Err("the server does not end a channel".to_owned());
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        Ok(())
    }

    fn prefix(&self) -> String {
        format!("/{}/{BASE_NAME}/", self.sequence)
    }

    fn url(&self, path: &str) -> String {
        format!("/dav{}{path}", self.prefix())
    }

    async fn put(&self, url: &str, data: &str, condition: PutCondition) -> HttpResponse {
        const NEVER: &str = "\"never\"";
        let head = self.dav.send("HEAD", url, &[], "").await;
        let current = if head.header("etag").is_empty() { NEVER } else { head.header("etag") };
        let stale = self.etags.values().find(|etag| *etag != current).map_or(NEVER, String::as_str);
        let header = match condition {
            PutCondition::None => vec![],
            PutCondition::Current => vec![("if-match", current)],
            PutCondition::Stale => vec![("if-match", stale)],
            PutCondition::Absent => vec![("if-none-match", "*")],
        };
        self.dav.send("PUT", url, &header, data.to_owned()).await
    }

    async fn relocate(&self, method: &str, from: &str, to: &str, overwrite: bool) -> HttpResponse {
        let destination = self.url(to);
        let overwrite = if overwrite { "T" } else { "F" };
        self.dav.send(method, &self.url(from), &[("destination", &destination), ("overwrite", overwrite)], "").await
    }

    async fn lock(&mut self, path: &str, deep: bool) -> HttpResponse {
        let depth = if deep { "infinity" } else { "0" };
        let answer = self.dav.send("LOCK", &self.url(path), &[("depth", depth)], LOCK_BODY).await;
        if is_success(&answer) {
            let files = self.folder.path().join("files").canonicalize().expect("a directory");
            // What is locked stays where it is, but links that lead to it may change.
            let place = self.root().join(BASE_NAME).join(path).canonicalize().expect("it was made");
            let below = place.strip_prefix(&files).expect("inside").to_str().expect("text");
            self.locks.push(TakenLock { url: format!("/dav/{below}"), token: answer.header("lock-token").to_owned() });
        }
        answer
    }

    async fn unlock(&mut self, lock: usize) -> HttpResponse {
        let lock = self.locks.remove(lock % self.locks.len());
        self.dav.send("UNLOCK", &lock.url, &[("lock-token", &lock.token)], "").await
    }

    /// Asks for an ETag: one that stands for the same content as before has to be the same, and no other.
    async fn etag(&mut self, path: &str, expected: &StepOutcome) -> Result<StepOutcome, String> {
        let answer = self.dav.send("PROPFIND", &self.url(path), &[("depth", "0")], ETAG_BODY).await;
        if answer.status == 404 {
            return Ok(StepOutcome::Refused);
        }
        let text = answer.text();
        let etag = text.split("getetag>").nth(1).and_then(|rest| rest.split('<').next()).unwrap_or_default();
        let StepOutcome::Etag(file, version) = expected else { return Ok(StepOutcome::Target(etag.to_owned())) };
        let known = self.etags.entry((*file, *version)).or_insert_with(|| etag.to_owned());
        if known != etag {
            return Err(format!("the ETag of {path} was {known} and is {etag}, but its content is the same"));
        }
        let other = self.etags.iter().find(|(content, other)| **content != (*file, *version) && *other == etag);
        match other {
            Some(_) => Err(format!("the ETag of {path} is {etag}, as before its content changed")),
            None => Ok(expected.clone()),
        }
    }
}

fn is_success(answer: &HttpResponse) -> bool {
    (200..300).contains(&answer.status)
}

/// Counts the channels that the server ends; passes on whatever else it logs.
fn count_ended(errors: ChildStderr, ended: Arc<AtomicUsize>) {
    std::thread::spawn(move || {
        for line in BufReader::new(errors).lines().map_while(Result::ok) {
            if line.contains(CHANNEL_ENDED_LOG_MESSAGE) {
                ended.fetch_add(1, Ordering::AcqRel);
            } else if !line.contains("TRACE") && !line.contains("DEBUG") {
                eprintln!("{line}");
            }
        }
    });
}

impl SftpTarget for PatgateTarget {
    async fn reset(&mut self) -> Result<(), String> {
        while !self.locks.is_empty() {
            self.unlock(0).await;
        }
        self.etags.clear();
        let _ = std::fs::remove_dir_all(self.root());
        self.sequence += 1;
        let answer = self.dav.status("MKCOL", &format!("/dav/{}", self.sequence)).await;
        let base = self.dav.status("MKCOL", self.url("").trim_end_matches('/')).await;
        if (answer, base) == (201, 201) { Ok(()) } else { Err(format!("MKCOL: {answer}, {base}")) }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("files").join(self.sequence.to_string())
    }

    async fn request(&mut self, channel: usize, request: &SftpRequest) -> Result<StepOutcome, String> {
        let prefix = self.prefix();
        let sftp = &mut self.channels[channel];
        driver::outcome(driver::perform(sftp, &mut self.handles[channel], &prefix, request).await)
    }

    async fn drop_session(&mut self, session: usize) -> Result<(), String> {
        let mut ended_before = self.ended.load(Ordering::Acquire);
        let mut fresh = self.connect(session).await.into_iter();
        let mut old = Vec::new();
        for channel in (0..CHANNELS).filter(|channel| session_of(*channel) == session) {
            old.push(std::mem::replace(&mut self.channels[channel], fresh.next().expect("a channel")));
            self.handles[channel].clear();
            ended_before += 1;
        }
        old.remove(0).drop_connection();
        drop(old);
        self.wait_for_ends(ended_before).await
    }

    async fn end_channel(&mut self, channel: usize) -> Result<(), String> {
        let fresh = self.channels[channel].open_second_channel().await.map_err(|error| format!("{error:?}"))?;
        let old = std::mem::replace(&mut self.channels[channel], fresh);
        self.handles[channel].clear();
        // The server closes the channel when it has committed its uploads.
        old.close_channel().await;
        Ok(())
    }

    fn has_web_dav(&self) -> bool {
        true
    }

    async fn web_dav(&mut self, request: &WebDavRequest, expected: &StepOutcome) -> Result<StepOutcome, String> {
        let answer = match request {
            WebDavRequest::Put { path, data, condition } => self.put(&self.url(path), data, *condition).await,
            WebDavRequest::Move { from, to, overwrite } => self.relocate("MOVE", from, to, *overwrite).await,
            WebDavRequest::Copy { from, to, overwrite } => self.relocate("COPY", from, to, *overwrite).await,
            WebDavRequest::Delete { path } => self.dav.send("DELETE", &self.url(path), &[], "").await,
            WebDavRequest::Lock { path, deep } => self.lock(path, *deep).await,
            WebDavRequest::Unlock { lock } => self.unlock(*lock).await,
            WebDavRequest::Get { path } => {
                let answer = self.dav.get(&self.url(path)).await;
                let found = if is_success(&answer) { StepOutcome::Data(answer.body) } else { StepOutcome::Refused };
                return Ok(found);
            }
            WebDavRequest::Etag { path } => return self.etag(path, expected).await,
        };
        match answer.status {
            200..300 => Ok(StepOutcome::Done),
            500.. => Err(format!("{request:?}: {}", answer.status)),
            _ => Ok(StepOutcome::Refused),
        }
    }

    fn check_debris(&self) -> Result<(), String> {
        let root = self.folder.path().join("files");
        let end = Instant::now() + CLEANUP_TIMEOUT;
        loop {
            let leftovers = staged_entries(&root);
            if leftovers.is_empty() {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(format!("left in staging: {leftovers:?}"));
            }
            // Directories that were removed are emptied in the background.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
