//! patgate: three SSH connections of one user, two channels on the first, and a WebDAV client beside them.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::chown;

use std::process::{ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::driver::{self, Handles};
use crate::file_system::{BASE_NAME, InodeNumber};
use crate::model::Outcome;
use crate::operations::{CHANNELS, Condition, Request, SESSIONS, WebDav, session_of};
use crate::runner::Target;
use std::path::PathBuf;

use crate::support::dav::{Answer, Dav};
use crate::support::server::{Server, run, staged};
use crate::support::sftp::Sftp;
use crate::support::{PROGRAM_COPY, program};

const LOCK_BODY: &str =
    r#"<lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope><locktype><write/></locktype></lockinfo>"#;
const ETAG_BODY: &str = r#"<propfind xmlns="DAV:"><prop><getetag/></prop></propfind>"#;
/// Time in which the server has to end a channel, or to remove what nobody needs any more.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the server logs once a channel has ended without order, and all that it had open is discarded.
const CHANNEL_ENDED: &str = "SFTP channel ended";

/// A lock that was taken: the path that it is on, and its token.
struct HeldLock {
    url: String,
    token: String,
}

/// The program, and its clients.
pub(crate) struct Patgate {
    folder: TempDir,
    server: Server,
    token: String,
    channels: Vec<Sftp>,
    handles: Handles,
    dav: Dav,
    sequence: usize,
    locks: Vec<HeldLock>,
    /// The ETags of the sequence, by the content that they stand for.
    etags: HashMap<(InodeNumber, u64), String>,
    /// Number of channels that the server has ended without order.
    ended: Arc<AtomicUsize>,
}

impl Patgate {
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
        let mut command = program(&folder.path().join("state"));
        // What is cut is discarded: what is kept of it is tried by tests of its own.
        command.env("PATGATE_SFTP_RESUME_SECONDS", "0");
        command.env("PATGATE_DURABILITY", "fast").env("PATGATE_LOG", "warn,patgate::sftp::channel=trace");
        command.stderr(Stdio::piped());
        let mut server = Server::start_by(command, folder.path());
        let ended = Arc::new(AtomicUsize::new(0));
        count_ended(server.errors().expect("piped"), ended.clone());
        run(folder.path(), &["admin", "user", "create", "alice", "--no-home", "--grant", "/:rw"]);
        let token =
            run(folder.path(), &[&["admin", "user", "token", "-u", "alice", "-q", "-e", "7d"], options].concat());
        let dav = Dav::new(server.http, "alice", &token);
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
    async fn connect(&self, session: usize) -> Vec<Sftp> {
        let mut channels = Vec::new();
        channels.push(Sftp::connect(self.server.sftp, "alice", &self.token).await.expect("the login is accepted"));
        for _ in (0..CHANNELS).filter(|channel| session_of(*channel) == session).skip(1) {
            let beside = channels[0].beside().await.expect("another channel");
            channels.push(beside);
        }
        channels
    }

    /// Waits until the server has ended so many channels in all.
    async fn wait_for_ends(&self, number: usize) -> Result<(), String> {
        let end = Instant::now() + PATIENCE;
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

    async fn put(&self, url: &str, data: &str, condition: Condition) -> Answer {
        const NEVER: &str = "\"never\"";
        let head = self.dav.send("HEAD", url, &[], "").await;
        let current = if head.header("etag").is_empty() { NEVER } else { head.header("etag") };
        let stale = self.etags.values().find(|etag| *etag != current).map_or(NEVER, String::as_str);
        let header = match condition {
            Condition::None => vec![],
            Condition::Current => vec![("if-match", current)],
            Condition::Stale => vec![("if-match", stale)],
            Condition::Absent => vec![("if-none-match", "*")],
        };
        self.dav.send("PUT", url, &header, data.to_owned()).await
    }

    async fn relocate(&self, method: &str, from: &str, to: &str, overwrite: bool) -> Answer {
        let destination = self.url(to);
        let overwrite = if overwrite { "T" } else { "F" };
        self.dav.send(method, &self.url(from), &[("destination", &destination), ("overwrite", overwrite)], "").await
    }

    async fn lock(&mut self, path: &str, deep: bool) -> Answer {
        let depth = if deep { "infinity" } else { "0" };
        let answer = self.dav.send("LOCK", &self.url(path), &[("depth", depth)], LOCK_BODY).await;
        if is_success(&answer) {
            let files = self.folder.path().join("files").canonicalize().expect("a directory");
            // What is locked stays where it is, but links that lead to it may change.
            let place = self.root().join(BASE_NAME).join(path).canonicalize().expect("it was made");
            let below = place.strip_prefix(&files).expect("inside").to_str().expect("text");
            self.locks.push(HeldLock { url: format!("/dav/{below}"), token: answer.header("lock-token").to_owned() });
        }
        answer
    }

    async fn unlock(&mut self, lock: usize) -> Answer {
        let lock = self.locks.remove(lock % self.locks.len());
        self.dav.send("UNLOCK", &lock.url, &[("lock-token", &lock.token)], "").await
    }

    /// Asks for an ETag: one that stands for the same content as before has to be the same, and no other.
    async fn etag(&mut self, path: &str, expected: &Outcome) -> Result<Outcome, String> {
        let answer = self.dav.send("PROPFIND", &self.url(path), &[("depth", "0")], ETAG_BODY).await;
        if answer.status == 404 {
            return Ok(Outcome::Refused);
        }
        let text = answer.text();
        let etag = text.split("getetag>").nth(1).and_then(|rest| rest.split('<').next()).unwrap_or_default();
        let Outcome::Etag(file, version) = expected else { return Ok(Outcome::Target(etag.to_owned())) };
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

fn is_success(answer: &Answer) -> bool {
    (200..300).contains(&answer.status)
}

/// Counts the channels that the server ends; passes on whatever else it logs.
fn count_ended(errors: ChildStderr, ended: Arc<AtomicUsize>) {
    std::thread::spawn(move || {
        for line in BufReader::new(errors).lines().map_while(Result::ok) {
            if line.contains(CHANNEL_ENDED) {
                ended.fetch_add(1, Ordering::AcqRel);
            } else if !line.contains("TRACE") && !line.contains("DEBUG") {
                eprintln!("{line}");
            }
        }
    });
}

impl Target for Patgate {
    async fn begin(&mut self) -> Result<(), String> {
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

    async fn request(&mut self, channel: usize, request: &Request) -> Result<Outcome, String> {
        let prefix = self.prefix();
        let sftp = &mut self.channels[channel];
        driver::outcome(driver::perform(sftp, &mut self.handles[channel], &prefix, request).await)
    }

    async fn cut(&mut self, session: usize) -> Result<(), String> {
        let mut ends = self.ended.load(Ordering::Acquire);
        let mut fresh = self.connect(session).await.into_iter();
        let mut old = Vec::new();
        for channel in (0..CHANNELS).filter(|channel| session_of(*channel) == session) {
            old.push(std::mem::replace(&mut self.channels[channel], fresh.next().expect("a channel")));
            self.handles[channel].clear();
            ends += 1;
        }
        old.remove(0).cut();
        drop(old);
        self.wait_for_ends(ends).await
    }

    async fn end_channel(&mut self, channel: usize) -> Result<(), String> {
        let fresh = self.channels[channel].beside().await.map_err(|error| format!("{error:?}"))?;
        let old = std::mem::replace(&mut self.channels[channel], fresh);
        self.handles[channel].clear();
        // The server closes the channel when it has committed its uploads.
        old.end().await;
        Ok(())
    }

    fn has_web_dav(&self) -> bool {
        true
    }

    async fn web_dav(&mut self, request: &WebDav, expected: &Outcome) -> Result<Outcome, String> {
        let answer = match request {
            WebDav::Put { path, data, condition } => self.put(&self.url(path), data, *condition).await,
            WebDav::Move { from, to, overwrite } => self.relocate("MOVE", from, to, *overwrite).await,
            WebDav::Copy { from, to, overwrite } => self.relocate("COPY", from, to, *overwrite).await,
            WebDav::Delete { path } => self.dav.send("DELETE", &self.url(path), &[], "").await,
            WebDav::Lock { path, deep } => self.lock(path, *deep).await,
            WebDav::Unlock { lock } => self.unlock(*lock).await,
            WebDav::Get { path } => {
                let answer = self.dav.get(&self.url(path)).await;
                let found = if is_success(&answer) { Outcome::Data(answer.body) } else { Outcome::Refused };
                return Ok(found);
            }
            WebDav::Etag { path } => return self.etag(path, expected).await,
        };
        match answer.status {
            200..300 => Ok(Outcome::Done),
            500.. => Err(format!("{request:?}: {}", answer.status)),
            _ => Ok(Outcome::Refused),
        }
    }

    fn check_debris(&self) -> Result<(), String> {
        let root = self.folder.path().join("files");
        let end = Instant::now() + PATIENCE;
        loop {
            let left = staged(&root);
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(format!("left in staging: {left:?}"));
            }
            // Directories that were removed are emptied in the background.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
