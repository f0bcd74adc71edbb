//! `kill -9` during an upload, move or copy: the old content remains or the new one is complete, and a restart removes
//! leftovers. Every single crash point is tested in `src/tree/view/tests/killed.rs`, unfinished HTTP uploads in
//! `upload_persistence.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustix::fs::inotify;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::support::server::{self, ServerProcess, create_token, run_cli};
use crate::support::{DavClient, LOCK_BODY, SftpClient};

fn staged_count(folder: &Path) -> usize {
    server::staged_entries(&folder.join("files")).len()
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_during_upload_keeps_old_content_and_leaves_no_debris() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    std::fs::create_dir(folder.join("files")).expect("a folder");
    let server = ServerProcess::start(folder);
    run_cli(folder, &["admin", "user", "create", "alice", "--no-home", "--grant", "/:rw"]);
    let token = create_token(folder, "alice");
    let dav = DavClient::new(server.http, "alice", &token);
    for name in ["over-webdav", "over-sftp"] {
        assert_eq!(dav.put(&format!("/dav/{name}"), "old content").await.status, 201);
    }

    let mut sftp = SftpClient::connect(server.sftp, "alice", &token).await.expect("logged in");
    let handle = sftp.open_file(b"/over-sftp", 2 | 8 | 16).await.expect("opened");
    sftp.write_at(&handle, 0, &[b'n'; 30_000]).await.expect("written");
    let mut stream = TcpStream::connect(server.http).await.expect("connected");
    let head = format!(
        "PUT /dav/over-webdav HTTP/1.1\r\nhost: {}\r\nauthorization: {}\r\ncontent-length: 9000000\r\n\r\n",
        server.http,
        dav.authorization()
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream.write_all(&vec![b'n'; 4_000_000]).await.expect("sent");
    while staged_count(folder) < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    server.kill();
    for name in ["over-webdav", "over-sftp"] {
        assert_eq!(std::fs::read(folder.join("files").join(name)).expect("there"), b"old content");
    }

    let server = ServerProcess::start(folder);
    assert_eq!(staged_count(folder), 0, "a restart sweeps what was staged");
    let dav = DavClient::new(server.http, "alice", &token);
    assert_eq!(dav.get("/dav/over-webdav").await.text(), "old content");
    assert_eq!(dav.put("/dav/over-webdav", "new content").await.status, 204);
    server.kill();
    assert_eq!(std::fs::read(folder.join("files/over-webdav")).expect("there"), b"new content");
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_properties_and_tokens_survive_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    std::fs::create_dir(folder.join("files")).expect("a folder");
    let server = ServerProcess::start(folder);
    run_cli(folder, &["admin", "user", "create", "alice", "--no-home", "--grant", "/:rw"]);
    let token = create_token(folder, "alice");
    let dead = create_token(folder, "alice");
    let dav = DavClient::new(server.http, "alice", &token);
    assert_eq!(dav.put("/dav/file", "content").await.status, 201);
    let lock = dav.send("LOCK", "/dav/file", &[("depth", "0"), ("timeout", "Second-600")], LOCK_BODY).await;
    assert_eq!(lock.status, 200, "{}", lock.text());
    let lock_token = lock.header("lock-token").to_owned();
    let condition = format!("({lock_token})");
    let patched = dav.send("PROPPATCH", "/dav/file", &[("if", &condition)], PROPPATCH_BODY).await;
    assert_eq!(patched.status, 207, "{}", patched.text());
    run_cli(folder, &["apitoken", "revoke", crate::support::token_id(&dead)]);
    server.kill();

    let server = ServerProcess::start(folder);
    let dav = DavClient::new(server.http, "alice", &token);
    assert_eq!(DavClient::new(server.http, "alice", &dead).status("PROPFIND", "/dav/").await, 401);
    assert_eq!(dav.put("/dav/file", "unlocked").await.status, 423);
    let properties = dav.send("PROPFIND", "/dav/file", &[("depth", "0")], "").await.text();
    assert!(properties.contains(">red<"), "{properties}");
    assert_eq!(dav.send("UNLOCK", "/dav/file", &[("lock-token", &lock_token)], "").await.status, 204);
    assert_eq!(dav.put("/dav/file", "unlocked").await.status, 204);
    server.kill();
}

/// Contents of the files in the directories `a`, `b` and `c`; `None` for an empty directory.
type DirectoryContents = BTreeMap<String, Option<String>>;

/// Contents before the last change and after it.
type BeforeAndAfter = Arc<Mutex<(DirectoryContents, DirectoryContents)>>;

fn read_directories(directory: &Path) -> DirectoryContents {
    let entry = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        (name, fs::read_to_string(path.join("f")).ok())
    };
    fs::read_dir(directory).expect("listed").map(entry).collect()
}

/// Round and round: method, source, target, and what is answered.
const CHURN_STEPS: [(&str, &str, &str, u16); 6] = [
    ("MKCOL", "a", "a", 201),
    ("PUT", "a/f", "a", 201),
    ("COPY", "a", "b", 204),
    ("MOVE", "b", "c", 204),
    ("COPY", "a", "b", 201),
    ("MOVE", "a", "b", 204),
];

/// Makes, copies and moves folders until the server is gone.
async fn move_and_copy_directories(dav: DavClient, around: BeforeAndAfter) {
    for (number, (method, from, to, status)) in CHURN_STEPS.into_iter().cycle().enumerate() {
        let text = number.to_string();
        let mut after = around.lock().expect("alive").1.clone();
        let content = match method {
            "MKCOL" => None,
            "PUT" => Some(text.clone()),
            "COPY" => after[from].clone(),
            _ => after.remove(from).expect("there"),
        };
        after.insert(to.to_owned(), content);
        around.lock().expect("alive").1.clone_from(&after);
        let target = dav.url(&format!("/dav/w/{to}"));
        let body = if method == "PUT" { text } else { String::new() };
        let answer = dav.try_send(method, &format!("/dav/w/{from}"), &[("destination", &target)], body).await;
        let Ok(answer) = answer else { return };
        assert_eq!(answer.status(), status, "{method} {from} {to}");
        around.lock().expect("alive").0 = after;
    }
}

/// Serves a folder until so many entries of another were moved, and kills the server then: between two steps
/// of a change as likely as not, since it has one processor, shared with what waits for the move.
fn serve_and_kill_after_moves(moves: usize, folder: &Path, watched: &Path, tell: oneshot::Sender<ServerProcess>) {
    let allowed = sched_getaffinity(None).expect("processors");
    let mut one_cpu = CpuSet::new();
    one_cpu.set((0..CpuSet::MAX_CPU).find(|&number| allowed.is_set(number)).expect("a processor"));
    sched_setaffinity(None, &one_cpu).expect("set");
    let server = ServerProcess::start(folder);
    let kill = server.killer();
    let events = inotify::init(inotify::CreateFlags::CLOEXEC).expect("a watch");
    inotify::add_watch(&events, watched, inotify::WatchFlags::MOVE).expect("watched");
    assert!(tell.send(server).is_ok());
    let mut buffer = [MaybeUninit::uninit(); 512];
    let mut reader = inotify::Reader::new(&events, &mut buffer);
    for _ in 0..moves {
        reader.next().expect("an event");
    }
    kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_leaves_directory_move_and_copy_complete_or_undone() {
    let folder = tempfile::tempdir().expect("a folder");
    let directory = folder.path().join("files/w");
    fs::create_dir_all(&directory).expect("a folder");
    let server = ServerProcess::start(folder.path());
    run_cli(folder.path(), &["admin", "user", "create", "alice", "--no-home", "--grant", "/:rw"]);
    let token = create_token(folder.path(), "alice");
    server.kill();
    for round in 0..12 {
        let _ = fs::remove_dir_all(&directory);
        for name in ["b", "c"] {
            fs::create_dir_all(directory.join(name)).expect("a folder");
        }
        let start = read_directories(&directory);
        let around = BeforeAndAfter::new(Mutex::new((start.clone(), start)));
        let (moved_sender, moved_receiver) = oneshot::channel();
        let (served_folder, watched_directory) = (folder.path().to_owned(), directory.clone());
        let reaper = std::thread::spawn(move || {
            serve_and_kill_after_moves(20 + round, &served_folder, &watched_directory, moved_sender)
        });
        let server = moved_receiver.await.expect("started");
        move_and_copy_directories(DavClient::new(server.http, "alice", &token), Arc::clone(&around)).await;
        reaper.join().expect("killed");
        server.kill();
        ServerProcess::start(folder.path()).kill();
        let (before, after) = around.lock().expect("alive").clone();
        let found = read_directories(&directory);
        assert!(found == before || found == after, "{found:?} is neither {before:?} nor {after:?}");
    }
}

const PROPPATCH_BODY: &str =
    r#"<propertyupdate xmlns="DAV:"><set><prop><c xmlns="urn:x">red</c></prop></set></propertyupdate>"#;
