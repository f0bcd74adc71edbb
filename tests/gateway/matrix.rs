//! Who may reach what: every operation of both protocols, with every right, at every kind of place.
//!
//! What is expected is worked out here from the words of the rule, by code that shares nothing with
//! the gateway's own.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::support::{Dav, Fixture, Sftp, SftpError};

/// What came of an operation, in words that both protocols have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Forbidden,
    Absent,
    /// Two rules refuse it, each with its own answer.
    Refused,
    Other(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    NoRight,
    VisibleOnly,
    Read,
    Write,
    ReadWrite,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    List,
    Read,
    Stat,
    Replace,
    Append,
    CreateIn,
    MakeFolderIn,
    Remove,
    RenameAway,
    RenameInto,
    CopyFrom,
    CopyInto,
    SetAttributes,
    Lock,
    HardLinkInto,
    SymlinkInto,
}

use Operation::*;

const OPERATIONS: [Operation; 16] = [
    List,
    Read,
    Stat,
    Replace,
    Append,
    CreateIn,
    MakeFolderIn,
    Remove,
    RenameAway,
    RenameInto,
    CopyFrom,
    CopyInto,
    SetAttributes,
    Lock,
    HardLinkInto,
    SymlinkInto,
];
const FILE: &str = "/t/scope/file";
const FOLDER: &str = "/t/scope/dir";
const ROOT: &str = "/t/scope";
const PARENT: &str = "/t";
const SIBLING: &str = "/t/sibling";
const PLACES: [&str; 5] = [FILE, FOLDER, ROOT, PARENT, SIBLING];

/// The rights that a level gives at a path: (visible, read, write).
fn rights(level: Level, path: &str) -> (bool, bool, bool) {
    let inside = path == ROOT || path.starts_with("/t/scope/");
    let above = path == "/" || path == PARENT;
    match level {
        Level::NoRight => (path == "/", false, false),
        Level::VisibleOnly => (above || path == ROOT || path == FOLDER, false, false),
        Level::Read => (above || inside, inside, false),
        Level::Write => (above || inside, false, inside),
        Level::ReadWrite => (above || inside, inside, inside),
    }
}

fn parent(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) | None => "/",
        Some(at) => &path[..at],
    }
}

/// What a need for read or write at a path comes to.
fn need(level: Level, path: &str, read: bool, write: bool) -> Outcome {
    let (visible, may_read, may_write) = rights(level, path);
    match () {
        () if !visible => Outcome::Absent,
        () if (read && !may_read) || (write && !may_write) => Outcome::Forbidden,
        () => Outcome::Done,
    }
}

fn both(one: Outcome, other: Outcome) -> Outcome {
    match (one, other) {
        (Outcome::Done, other) => other,
        (one, Outcome::Done) => one,
        (one, other) if one == other => one,
        _ => Outcome::Refused,
    }
}

/// What must come of an operation, by the table of who needs what; `None` where it makes no sense.
fn expected(operation: Operation, level: Level, place: &str) -> Option<Outcome> {
    let is_file = place == FILE;
    let seen = need(level, place, false, false);
    let removable = if seen == Outcome::Absent { seen } else { need(level, parent(place), false, true) };
    let fits = match operation {
        Read | Replace | Append => is_file,
        List | CreateIn | MakeFolderIn | RenameInto | CopyInto | HardLinkInto | SymlinkInto => !is_file,
        CopyFrom => place != ROOT && place != PARENT,
        Stat | Remove | RenameAway | SetAttributes | Lock => true,
    };
    fits.then(|| match operation {
        List | Stat => seen,
        Read => need(level, place, true, false),
        // What is absent would be made, and is refused as making anything else there is.
        Replace | Lock if seen == Outcome::Absent => need(level, parent(place), false, true),
        Replace | Append | SetAttributes | Lock => need(level, place, false, true),
        CreateIn | MakeFolderIn | SymlinkInto => need(level, place, false, true),
        Remove | RenameAway => removable,
        RenameInto => {
            let source = both(need(level, FILE, false, false), need(level, ROOT, false, true));
            both(source, need(level, place, false, true))
        }
        CopyFrom => both(need(level, place, true, false), need(level, ROOT, false, true)),
        CopyInto => both(need(level, FILE, true, false), need(level, place, false, true)),
        HardLinkInto => both(need(level, FILE, true, true), need(level, place, false, true)),
    })
}

async fn over_webdav(dav: &Dav, operation: Operation, place: &str) -> Option<Outcome> {
    let at = |path: &str| format!("/dav{path}");
    let target = |path: &str| ("destination".to_owned(), dav.url(&at(path)));
    let inside = |name: &str| format!("{place}/{name}");
    let (method, path, header, body) = match operation {
        List => ("PROPFIND", at(place), ("depth".to_owned(), "1".to_owned()), ""),
        Read => ("GET", at(place), Default::default(), ""),
        Stat => ("PROPFIND", at(place), ("depth".to_owned(), "0".to_owned()), ""),
        Replace => ("PUT", at(place), Default::default(), "replaced"),
        CreateIn => ("PUT", at(&inside("made")), Default::default(), "made"),
        MakeFolderIn => ("MKCOL", at(&inside("made")), Default::default(), ""),
        Remove => ("DELETE", at(place), Default::default(), ""),
        RenameAway => ("MOVE", at(place), target(&format!("{place}-moved")), ""),
        RenameInto => ("MOVE", at(FILE), target(&inside("moved")), ""),
        CopyFrom => ("COPY", at(place), target("/t/scope/copy"), ""),
        CopyInto => ("COPY", at(FILE), target(&inside("copied")), ""),
        SetAttributes => ("PROPPATCH", at(place), Default::default(), PROPPATCH),
        Lock => ("LOCK", at(place), ("depth".to_owned(), "0".to_owned()), LOCK),
        Append | HardLinkInto | SymlinkInto => return None,
    };
    let headers: Vec<(&str, &str)> =
        if header.0.is_empty() { Vec::new() } else { vec![(header.0.as_str(), header.1.as_str())] };
    let answer = dav.send(method, &path, &headers, body).await;
    if method == "LOCK" && answer.status == 200 {
        let token = answer.header("lock-token").to_owned();
        assert_eq!(dav.send("UNLOCK", &path, &[("lock-token", &token)], "").await.status, 204);
    }
    let inner = answer.text();
    Some(match answer.status {
        207 if inner.contains("HTTP/1.1 403") => Outcome::Forbidden,
        200 | 201 | 204 | 207 => Outcome::Done,
        403 => Outcome::Forbidden,
        404 | 409 => Outcome::Absent,
        status => Outcome::Other(u32::from(status)),
    })
}

const PROPPATCH: &str =
    r#"<propertyupdate xmlns="DAV:"><set><prop><c xmlns="urn:x">red</c></prop></set></propertyupdate>"#;
const LOCK: &str =
    r#"<lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope><locktype><write/></locktype></lockinfo>"#;

async fn over_sftp(sftp: &mut Sftp, operation: Operation, place: &str) -> Option<Outcome> {
    let inside = |name: &str| format!("{place}/{name}");
    let result = match operation {
        List => sftp.list(place).await.map(drop),
        Read => sftp.get(place).await.map(drop),
        Stat => sftp.stat(place).await.map(drop),
        Replace => sftp.put(place, b"replaced").await,
        Append => append(sftp, place).await,
        CreateIn => sftp.put(&inside("made"), b"made").await,
        MakeFolderIn => sftp.mkdir(&inside("made")).await,
        Remove if place == FILE => sftp.remove(place).await,
        Remove => sftp.rmdir(place).await,
        RenameAway => sftp.rename(place, &format!("{place}-moved")).await,
        RenameInto => sftp.posix_rename(FILE, &inside("moved")).await,
        SetAttributes => sftp.chmod(place, if place == FILE { 0o600 } else { 0o700 }).await,
        HardLinkInto => sftp.hard_link(FILE, &inside("hard")).await,
        SymlinkInto => sftp.symlink("somewhere", &inside("soft")).await,
        CopyFrom | CopyInto | Lock => return None,
    };
    Some(match result {
        Ok(()) => Outcome::Done,
        Err(SftpError::Status(2, _)) => Outcome::Absent,
        Err(SftpError::Status(3, _)) => Outcome::Forbidden,
        Err(error) => Outcome::Other(error.code()),
    })
}

async fn append(sftp: &mut Sftp, path: &str) -> Result<(), SftpError> {
    let handle = sftp.open_file(path.as_bytes(), 2 | 4).await?;
    sftp.write_at(&handle, 0, b"more").await?;
    sftp.close(&handle).await
}

/// The whole tree with contents and modes; what a refusal must leave as it was.
fn snapshot(root: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    use std::os::unix::fs::PermissionsExt;
    let mut all = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").flatten() {
            let (path, kind) = (entry.path(), entry.file_type().expect("a type"));
            if entry.file_name() == ".patgate" {
                continue;
            }
            let content = if kind.is_file() { fs::read(&path).expect("a file") } else { Vec::new() };
            let mode = fs::symlink_metadata(&path).expect("there").permissions().mode();
            all.insert(path.display().to_string(), (mode, content));
            if kind.is_dir() {
                folders.push(path);
            }
        }
    }
    all
}

/// Puts everything back that an allowed operation may have changed; the scope's root stays the folder it is.
fn restore(gateway: &Fixture) {
    use std::os::unix::fs::PermissionsExt;
    for folder in [ROOT, SIBLING] {
        for entry in fs::read_dir(gateway.host(folder)).expect("a folder").flatten() {
            let path = entry.path();
            if entry.file_type().expect("a type").is_dir() {
                fs::remove_dir_all(path).expect("removed");
            } else {
                fs::remove_file(path).expect("removed");
            }
        }
    }
    gateway.write(FILE, "content");
    gateway.folder(FOLDER);
    fs::set_permissions(gateway.host(ROOT), fs::Permissions::from_mode(0o755)).expect("set");
}

async fn holds_at(level: Level) {
    let gateway = Fixture::start().await;
    gateway.folder("/t/scope/dir/deep");
    gateway.folder("/t/sibling");
    gateway.folder("/elsewhere");
    gateway.write(FILE, "content");
    gateway.write("/t/sibling/file", "content");
    gateway.user("alice", &["/:rw"]);
    let scope = match level {
        Level::NoRight => "path:/elsewhere:rw",
        Level::VisibleOnly => "path:/t/scope/dir/deep:rw",
        Level::Read => "path:/t/scope:r",
        Level::Write => "path:/t/scope:w",
        Level::ReadWrite => "path:/t/scope:rw",
    };
    let token = gateway.token("alice", &["-e", "1h", "-s", scope]);
    let dav = gateway.dav("alice", &token);
    let mut sftp = gateway.sftp("alice", &token).await;
    let changeable = matches!(level, Level::Read | Level::Write | Level::ReadWrite);
    let mut wrong = Vec::new();
    for operation in OPERATIONS {
        for place in PLACES {
            let Some(expected) = expected(operation, level, place) else { continue };
            for protocol in ["WebDAV", "SFTP"] {
                if changeable {
                    restore(&gateway);
                }
                let before = snapshot(&gateway.root());
                let found = match protocol {
                    "WebDAV" => over_webdav(&dav, operation, place).await,
                    _ => over_sftp(&mut sftp, operation, place).await,
                };
                let Some(found) = found else { continue };
                let refused = matches!(found, Outcome::Forbidden | Outcome::Absent);
                let as_expected = found == expected || (expected == Outcome::Refused && refused);
                if !as_expected {
                    wrong.push(format!("{protocol} {operation:?} {place}: {found:?}, not {expected:?}"));
                }
                if refused && snapshot(&gateway.root()) != before {
                    wrong.push(format!("{protocol} {operation:?} {place}: refused, and yet something changed"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{level:?}:\n{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_right_everything_is_as_if_it_were_not_there() {
    holds_at(Level::NoRight).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_merely_visible_can_be_walked_and_nothing_else() {
    holds_at(Level::VisibleOnly).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn read_reads_and_changes_nothing() {
    holds_at(Level::Read).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn write_is_a_drop_box() {
    holds_at(Level::Write).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn read_and_write_do_both_below_the_scope_and_never_to_its_root() {
    holds_at(Level::ReadWrite).await;
}
