//! The served directory, or a file system in it, is unmounted while the server runs: requests are refused instead of
//! showing an empty tree, until it is back.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::mounts::{MountGuard, can_mount, create_image, wait_until};
use crate::support::server::{ServerProcess, create_token, run_cli};
use crate::support::{DavClient, HttpResponse, SftpClient, SftpError, patgate_command};

/// A folder whose `files` are served once they are mounted.
struct MountFixture(tempfile::TempDir);

impl MountFixture {
    /// Makes one; none where nothing can be mounted.
    fn new() -> Option<Self> {
        can_mount().then(|| {
            let folder = tempfile::tempdir().expect("a folder");
            for name in ["files", "disk"] {
                std::fs::create_dir(folder.path().join(name)).expect("a folder");
            }
            Self(folder)
        })
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    /// Mounts what is served.
    fn mount(&self) -> MountGuard {
        MountGuard::bind(&self.path("disk"), &self.path("files"))
    }

    fn run(&self, arguments: &[&str]) -> String {
        run_cli(self.0.path(), arguments)
    }

    /// Makes a user and returns her token.
    fn create_user_and_token(&self, login: &str, grant: &str) -> String {
        self.run(&["admin", "user", "create", login, "--no-home", "--grant", grant]);
        self.run(&["admin", "user", "token", "-u", login, "-e", "1h", "-q"])
    }

    /// Runs the server on a folder until it refuses; returns what it says.
    fn startup_refusal(&self, root: &Path) -> String {
        let mut command = patgate_command(&self.path("state"));
        command.args(["serve", "--http", "127.0.0.1:0", "--sftp", "off", "--root"]).arg(root);
        let output = command.stdin(Stdio::null()).output().expect("the program runs");
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

async fn readiness(dav: &DavClient) -> (u16, String) {
    let answer = dav.get("/readyz").await;
    assert_eq!(answer.status == 503, !answer.header("retry-after").is_empty());
    (answer.status, answer.text().trim_end().to_owned())
}

async fn wait_for_readiness(dav: &DavClient, expected_status: u16) -> String {
    wait_until(&format!("readyz says {expected_status}"), async || readiness(dav).await.0 == expected_status).await;
    readiness(dav).await.1
}

#[track_caller]
fn error_message<T: std::fmt::Debug>(answer: Result<T, SftpError>) -> String {
    match answer {
        Err(SftpError::Status(4, text)) => text,
        other => panic!("no failure: {other:?}"),
    }
}

/// Sends a request; a response that can't be completed is aborted.
async fn try_request(dav: &DavClient, method: &str, path: &str, depth: &str) -> Option<HttpResponse> {
    let response = dav.try_send(method, path, &[("depth", depth)], "").await.ok()?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Some(HttpResponse { status, headers, body: response.bytes().await.ok()?.to_vec() })
}

/// Walks down as a mirror does; the files, or the status that stops it (0: cut).
async fn list_recursively(dav: &DavClient, top: &str) -> Result<Vec<String>, u16> {
    let (mut unvisited, mut files) = (vec![top.to_owned()], Vec::new());
    while let Some(folder) = unvisited.pop() {
        let answer = try_request(dav, "PROPFIND", &folder, "1").await.ok_or(0_u16)?;
        if answer.status != 207 {
            return Err(answer.status);
        }
        for href in answer.hrefs(&folder) {
            if href.ends_with('/') { unvisited.push(href) } else { files.push(href) }
        }
    }
    files.sort();
    Ok(files)
}

/// Responses that clients which repeat their requests have received.
#[derive(Default)]
struct ResponseCounts {
    stop: AtomicBool,
    complete: AtomicUsize,
    refused: AtomicUsize,
}

impl ResponseCounts {
    fn record(&self, complete: bool) {
        if complete { &self.complete } else { &self.refused }.fetch_add(1, Ordering::Relaxed);
    }

    fn is_running(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

/// Clients that mirror, read and list over and over; every answer must be a whole one or a refusal.
struct ClientLoad {
    counts: Arc<ResponseCounts>,
    running: Vec<tokio::task::JoinHandle<()>>,
}

impl ClientLoad {
    async fn start(server: &ServerProcess, token: &str, top: &'static str) -> Self {
        let (dav, counts) = (DavClient::new(server.http, "alice", token), Arc::<ResponseCounts>::default());
        let files = list_recursively(&dav, top).await.expect("mirrored");
        assert!(!files.is_empty());
        let mut sftp = SftpClient::connect(server.sftp, "alice", token).await.expect("logged in");
        let path = top.trim_start_matches("/dav");
        let names = sftp.list(path).await.expect("listed");
        let running = vec![
            tokio::spawn(mirror_repeatedly(dav.clone(), top, files.clone(), Arc::clone(&counts))),
            tokio::spawn(read_repeatedly(dav, files[0].clone(), Arc::clone(&counts))),
            tokio::spawn(list_repeatedly(sftp, path, names, Arc::clone(&counts))),
        ];
        Self { counts, running }
    }

    /// Waits until more of both kinds of answers have come.
    async fn wait_for_more(&self, refused: bool) {
        let count = || if refused { &self.counts.refused } else { &self.counts.complete }.load(Ordering::Relaxed);
        let before = count();
        wait_until("clients go on", async || {
            count() > before + 20 || self.running.iter().any(|task| task.is_finished())
        })
        .await;
    }

    async fn stop(self) {
        self.counts.stop.store(true, Ordering::Relaxed);
        for task in self.running {
            task.await.expect("no answer was half of one");
        }
    }
}

async fn mirror_repeatedly(dav: DavClient, top: &str, expected: Vec<String>, counts: Arc<ResponseCounts>) {
    while counts.is_running() {
        let found = list_recursively(&dav, top).await;
        counts.record(found.is_ok());
        match found {
            Ok(files) => assert_eq!(files, expected, "a mirror would delete the rest"),
            Err(status) => assert!([0, 503].contains(&status), "{status}"),
        }
    }
}

async fn read_repeatedly(dav: DavClient, path: String, counts: Arc<ResponseCounts>) {
    while counts.is_running() {
        let Some(answer) = try_request(&dav, "GET", &path, "0").await else { continue };
        match answer.status {
            200 => assert_eq!(answer.text(), "content"),
            status => assert_eq!((status, answer.header("retry-after")), (503, "5")),
        }
        counts.record(answer.status == 200);
    }
}

async fn list_repeatedly(mut sftp: SftpClient, path: &str, wanted: Vec<String>, counts: Arc<ResponseCounts>) {
    while counts.is_running() {
        let found = sftp.list(path).await;
        counts.record(found.is_ok());
        match found {
            Ok(found) => assert_eq!(found.len(), wanted.len(), "{found:?}"),
            refused => {
                let message = error_message(refused);
                // The latter where the directory was opened just before.
                let expected = ["not available at present", "was unmounted since this was opened"];
                assert!(expected.iter().any(|text| message.contains(text)), "{message}");
            }
        }
    }
}

/// Asserts that every request is refused while the root is missing.
async fn assert_all_requests_are_refused(dav: &DavClient, bob: &DavClient) {
    let requests =
        [("PROPFIND", "/dav/"), ("GET", "/dav/a"), ("PUT", "/dav/c"), ("DELETE", "/dav/a"), ("MKCOL", "/dav/d")];
    for (method, path) in requests {
        assert_eq!(dav.status(method, path).await, 503, "{method} {path}");
    }
    assert_eq!(dav.send("MOVE", "/dav/a", &[("destination", "/dav/z")], "").await.status, 503);
    assert_eq!(bob.status("PROPFIND", "/dav/team/").await, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn unmounted_root_is_refused_until_it_is_back_and_never_listed_as_empty() {
    let Some(fixture) = MountFixture::new() else { return };
    let mounted = fixture.mount();
    let server = ServerProcess::start(fixture.0.path());
    let token = fixture.create_user_and_token("alice", "/:rw");
    let dav = DavClient::new(server.http, "alice", &token);
    assert_eq!(dav.status("MKCOL", "/dav/team").await, 201);
    for path in ["/dav/a", "/dav/team/b"] {
        assert_eq!(dav.put(path, "content").await.status, 201);
    }
    let team = fixture.create_user_and_token("bob", "/team:rw");
    let nodes = fixture.run(&["node", "list"]);
    let mut session = SftpClient::connect(server.sftp, "alice", &token).await.expect("logged in");
    let reading = session.open_file(b"/a", 1).await.expect("opened");
    let writing = session.open_file(b"/new", 2 | 8 | 16).await.expect("opened");
    let closing = session.open_file(b"/other", 2 | 8 | 16).await.expect("opened");
    for handle in [&writing, &closing] {
        session.write_at(handle, 0, b"half").await.expect("written");
    }
    wait_for_readiness(&dav, 200).await;
    let busy = mounted.try_unmount();
    assert!(!busy.status.success() && String::from_utf8_lossy(&busy.stderr).contains("busy"), "as of any server");

    let load = ClientLoad::start(&server, &token, "/dav/").await;
    load.wait_for_more(false).await;
    mounted.unmount();
    let why = wait_for_readiness(&dav, 503).await;
    assert_eq!(
        why,
        "the served folder is not available: another directory is in its place: its file system may not be mounted"
    );
    load.wait_for_more(true).await;
    assert_all_requests_are_refused(&dav, &DavClient::new(server.http, "bob", &team)).await;
    for answer in [session.read_at(&reading, 0, 9).await.map(drop), session.write_at(&writing, 4, b"rest").await] {
        assert!(error_message(answer).contains("another directory is in its place"), "the session goes on");
    }
    assert!(error_message(session.list("/").await).contains("not available at present"));
    assert!(error_message(session.close(&closing).await).contains("not available"), "it is not committed anywhere");
    let refused = patgate_command(&fixture.path("state")).args(["node", "list"]).output().expect("it runs");
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && message.contains("is not the directory that grants and scopes were made for"),
        "{message}"
    );
    assert_eq!(std::fs::read_dir(fixture.path("files")).expect("there").count(), 0, "nothing was made there");

    let mounted = fixture.mount();
    wait_for_readiness(&dav, 200).await;
    load.wait_for_more(false).await;
    load.stop().await;
    assert_eq!(fixture.run(&["node", "list"]), nodes, "no node has ended");
    assert_eq!(list_recursively(&dav, "/dav/").await, Ok(vec!["/dav/a".to_owned(), "/dav/team/b".to_owned()]));
    assert_eq!(DavClient::new(server.http, "bob", &team).get("/dav/team/b").await.text(), "content");
    assert!(error_message(session.read_at(&reading, 0, 9).await).contains("open it again"));
    assert_eq!(session.get("/a").await.as_deref(), Ok(&b"content"[..]), "in the same session");
    assert!(error_message(session.close(&writing).await).contains("open it again"));
    session.put("/new", b"whole").await.expect("written");
    assert_eq!(dav.put("/dav/a", "changed").await.status, 204);
    drop((server, mounted));
}

#[tokio::test(flavor = "multi_thread")]
async fn tree_is_recognised_by_its_marker_on_another_device() {
    let Some(fixture) = MountFixture::new() else { return };
    let Some(image) = create_image(fixture.0.path(), 16, &["mkfs.ext4", "-q"]) else { return };
    let mounted = MountGuard::image_file(&image, &fixture.path("files"));
    let server = ServerProcess::start(fixture.0.path());
    let token = fixture.create_user_and_token("alice", "/:rw");
    let dav = DavClient::new(server.http, "alice", &token);
    assert_eq!(dav.put("/dav/a", "content").await.status, 201);
    wait_for_readiness(&dav, 200).await;
    let loops = || {
        let output = Command::new("losetup").arg("-j").arg(&image).output().expect("it runs");
        String::from_utf8(output.stdout).expect("text")
    };
    let first = loops();
    assert!(!first.is_empty());
    mounted.unmount();
    wait_for_readiness(&dav, 503).await;
    wait_until("the server lets go of the file system", async || loops().is_empty()).await;
    // Another device has the number that it had.
    let other = create_separate_image(&fixture);
    let _other = MountGuard::image_file(&other, &fixture.path("disk"));
    let _mounted = MountGuard::image_file(&image, &fixture.path("files"));
    wait_for_readiness(&dav, 200).await;
    assert_eq!(dav.get("/dav/a").await.text(), "content");
    assert_ne!(loops(), first);
    drop(server);
}

fn create_separate_image(fixture: &MountFixture) -> std::path::PathBuf {
    let folder = fixture.path("other");
    std::fs::create_dir(&folder).expect("a folder");
    create_image(&folder, 16, &["mkfs.ext4", "-q"]).expect("as before")
}

fn assert_doctor_names_missing_mount(fixture: &MountFixture) {
    let output = patgate_command(&fixture.path("state")).arg("doctor").output().expect("it runs");
    let found = String::from_utf8(output.stdout).expect("text");
    let mount = "/data (another directory is in its place";
    assert!(found.contains(mount) && !found.contains("nothing is at"), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_mount_inside_the_tree_refuses_only_its_paths() {
    let Some(fixture) = MountFixture::new() else { return };
    let at = fixture.path("files/data");
    let mount = || MountGuard::bind(&fixture.path("disk"), &at);
    let mounted = mount();
    let log = fixture.path("log");
    let server = ServerProcess::start_logging(fixture.0.path(), &log);
    let token = fixture.create_user_and_token("alice", "/:rw");
    let dav = DavClient::new(server.http, "alice", &token);
    assert_eq!(dav.status("MKCOL", "/dav/data/team").await, 201);
    for path in ["/dav/beside", "/dav/data/team/b"] {
        assert_eq!(dav.put(path, "content").await.status, 201);
    }
    let team = fixture.create_user_and_token("bob", "/data/team:rw");
    let bob = DavClient::new(server.http, "bob", &team);
    let nodes = fixture.run(&["node", "list"]);
    let logged = || std::fs::read_to_string(&log).expect("a log");
    wait_until("the mount is known", async || logged().contains("is mounted in the tree has nodes")).await;
    let mut session = SftpClient::connect(server.sftp, "alice", &token).await.expect("logged in");
    let reading = session.open_file(b"/data/team/b", 1).await.expect("opened");

    let load = ClientLoad::start(&server, &token, "/dav/data/").await;
    load.wait_for_more(false).await;
    mounted.unmount();
    assert_eq!(dav.status("PROPFIND", "/dav/data/").await, 503, "at once, whoever has noticed");
    let why = wait_for_readiness(&dav, 503).await;
    assert!(why.starts_with("a file system in the served folder is not available: another directory"), "{why}");
    load.wait_for_more(true).await;
    load.stop().await;
    assert_doctor_names_missing_mount(&fixture);
    let check = async |dav: &DavClient, bob: &DavClient| {
        assert_eq!(dav.list_hrefs("/dav/").await, Ok(vec!["/dav/beside".to_owned(), "/dav/data/".to_owned()]));
        assert_eq!(dav.get("/dav/beside").await.text(), "content");
        for (method, path) in [
            ("PROPFIND", "/dav/data/"),
            ("GET", "/dav/data/team/b"),
            ("PUT", "/dav/data/c"),
            ("DELETE", "/dav/data/"),
            ("MKCOL", "/dav/data/d"),
        ] {
            assert_eq!(dav.status(method, path).await, 503, "{method} {path}");
        }
        for method in ["MOVE", "COPY"] {
            let answer = dav.send(method, "/dav/data/", &[("destination", "/dav/z/")], "").await;
            assert_eq!(answer.status, 503, "{method}");
        }
        assert_eq!(bob.list_hrefs("/dav/").await, Err(503), "missing on the way down is no reason to delete it");
    };
    check(&dav, &bob).await;
    assert!(error_message(session.rmdir("/data").await).contains("not available"));
    assert!(error_message(session.read_at(&reading, 0, 9).await).contains("open it again"));
    assert_eq!(std::fs::read_dir(&at).expect("there").count(), 0);

    server.stop();
    let server = ServerProcess::start(fixture.0.path());
    let (dav, bob) = (DavClient::new(server.http, "alice", &token), DavClient::new(server.http, "bob", &team));
    check(&dav, &bob).await;
    let _mounted = mount();
    wait_for_readiness(&dav, 200).await;
    assert_eq!(fixture.run(&["node", "list"]), nodes);
    assert_eq!(bob.get("/dav/data/team/b").await.text(), "content");
    assert_eq!(bob.put("/dav/data/team/c", "new").await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_or_shadowed_root_is_refused_until_restored() {
    let Some(fixture) = MountFixture::new() else { return };
    let mounted = MountGuard::tmpfs(&fixture.path("files"));
    let server = ServerProcess::start(fixture.0.path());
    let token = fixture.create_user_and_token("alice", "/:rw");
    let dav = DavClient::new(server.http, "alice", &token);
    assert_eq!(dav.put("/dav/a", "content").await.status, 201);
    mounted.remount("ro");
    assert_eq!(
        wait_for_readiness(&dav, 503).await,
        "the served folder is not available: its file system has become read-only"
    );
    assert_eq!((dav.status("GET", "/dav/a").await, dav.status("PUT", "/dav/a").await), (503, 503));
    mounted.remount("rw");
    wait_for_readiness(&dav, 200).await;
    assert_eq!(dav.put("/dav/a", "changed").await.status, 204);

    let above = MountGuard::tmpfs(&fixture.path("files"));
    wait_for_readiness(&dav, 503).await;
    assert_eq!(dav.status("PROPFIND", "/dav/").await, 503);
    drop(above);
    wait_for_readiness(&dav, 200).await;
    assert_eq!(dav.get("/dav/a").await.text(), "changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_read_only_at_start_is_served_for_reading() {
    let Some(fixture) = MountFixture::new() else { return };
    std::fs::write(fixture.path("disk/a"), "content").expect("written");
    let mounted = fixture.mount();
    mounted.remount("bind,ro");
    let server = ServerProcess::start(fixture.0.path());
    let token = fixture.create_user_and_token("alice", "/:rw");
    let dav = DavClient::new(server.http, "alice", &token);
    wait_for_readiness(&dav, 200).await;
    assert_eq!(dav.get("/dav/a").await.text(), "content");
    assert_eq!(dav.put("/dav/a", "changed").await.status, 403);
    mounted.remount("bind,rw");
    wait_until("it can be written to", async || dav.put("/dav/a", "changed").await.status == 204).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn renamed_root_is_refused_until_it_is_renamed_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let (files, away) = (folder.path().join("files"), folder.path().join("away"));
    std::fs::create_dir(&files).expect("a folder");
    let server = ServerProcess::start(folder.path());
    run_cli(folder.path(), &["admin", "user", "create", "alice", "--no-home", "--grant", "/:rw"]);
    let token = create_token(folder.path(), "alice");
    let dav = DavClient::new(server.http, "alice", &token);
    assert_eq!(dav.put("/dav/a", "content").await.status, 201);
    std::fs::rename(&files, &away).expect("renamed");
    let why = wait_for_readiness(&dav, 503).await;
    assert_eq!(why, "the served folder is not available: it is not there: its file system may not be mounted");
    std::fs::create_dir(&files).expect("a folder");
    wait_until("the other one is seen", async || readiness(&dav).await.1.contains("another directory")).await;
    assert_eq!(dav.status("PROPFIND", "/dav/").await, 503);
    std::fs::remove_dir(&files).expect("removed: nothing was made in it");
    std::fs::rename(&away, &files).expect("renamed");
    wait_for_readiness(&dav, 200).await;
    assert_eq!(dav.get("/dav/a").await.text(), "content");
}

#[tokio::test(flavor = "multi_thread")]
async fn different_tree_is_refused_at_start_until_reattached() {
    let folder = tempfile::tempdir().expect("a folder");
    let fixture = MountFixture(folder);
    for name in ["files", "other"] {
        std::fs::create_dir_all(fixture.path(name).join("team")).expect("a folder");
    }
    std::fs::write(fixture.path("other/team/b"), "restored").expect("written");
    let server = ServerProcess::start(fixture.0.path());
    let token = fixture.create_user_and_token("alice", "/team:rw");
    server.stop();
    let message = fixture.startup_refusal(&fixture.path("other"));
    assert!(message.contains("is not the directory that grants and scopes were made for"), "{message}");
    assert!(message.contains("patgate node reattach"), "{message}");
    assert!(!fixture.path("other/.patgate").exists(), "nothing was made there");
    // As an administrator who restores a backup: the tree, and its marker with it.
    std::fs::remove_dir_all(fixture.path("files")).expect("removed");
    std::fs::rename(fixture.path("other"), fixture.path("files")).expect("renamed");
    let message = fixture.startup_refusal(&fixture.path("files"));
    assert!(message.contains("patgate node reattach"), "{message}");
    let report = fixture.run(&["node", "reattach"]);
    assert!(report.contains("/team") && report.contains("another"), "{report}");
    assert!(fixture.startup_refusal(&fixture.path("files")).contains("reattach"), "a report changes nothing");
    fixture.run(&["node", "reattach", "--yes"]);
    let server = ServerProcess::start(fixture.0.path());
    let dav = DavClient::new(server.http, "alice", &token);
    assert_eq!(dav.get("/dav/team/b").await.text(), "restored");
    let running =
        patgate_command(&fixture.path("state")).args(["node", "reattach", "--yes"]).output().expect("it runs");
    let message = String::from_utf8_lossy(&running.stderr).into_owned();
    assert!(!running.status.success() && message.contains("another server uses this state directory"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes long: cargo test --test resilience -- --ignored"]
async fn failed_file_system_is_refused_until_remounted() {
    let Some(fixture) = MountFixture::new() else { return };
    let Some(image) = create_image(fixture.0.path(), 16, &["mkfs.ext4", "-q"]) else { return };
    let files = fixture.path("files");
    let mounted = MountGuard::image_file(&image, &files);
    let server = ServerProcess::start(fixture.0.path());
    let token = fixture.create_user_and_token("alice", "/:rw");
    let dav = DavClient::new(server.http, "alice", &token);
    assert_eq!(dav.put("/dav/a", "content").await.status, 201);
    // EXT4_IOC_SHUTDOWN, as after an error of the disk: every call fails from now on.
    let script = "import fcntl, os, struct, sys\n\
        fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 1))";
    match Command::new("python3").args(["-c", script]).arg(&files).output() {
        Ok(output) if output.status.success() => {}
        other => return eprintln!("not tested: the file system can't be made to fail: {other:?}"),
    }
    let why = wait_for_readiness(&dav, 503).await;
    assert!(why.contains("its file system fails: Input/output error") || why.contains("read-only"), "{why}");
    for (method, path) in [("GET", "/dav/a"), ("PROPFIND", "/dav/"), ("PUT", "/dav/b")] {
        assert_eq!(dav.status(method, path).await, 503, "{method} {path}");
    }
    mounted.unmount();
    let loops = || Command::new("losetup").arg("-j").arg(&image).output().expect("it runs").stdout;
    wait_until("the server lets go of the file system", async || loops().is_empty()).await;
    let _mounted = MountGuard::image_file(&image, &files);
    wait_for_readiness(&dav, 200).await;
    assert_eq!(dav.get("/dav/a").await.text(), "content");
    drop(server);
}
