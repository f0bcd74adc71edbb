//! Every operation of both protocols, with every permission, at every kind of path: the answer is the one that the
//! documented rule gives.
//!
//! The expectations are computed from the wording of the rule by code that shares nothing with the gateway's own.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::support::{DavClient, Fixture, LOCK_BODY, SftpClient, SftpError};

/// Outcome of an operation, in terms that both protocols have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OperationOutcome {
    Done,
    Forbidden,
    Absent,
    /// Two rules refuse it, each with its own answer.
    Refused,
    Other(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AccessLevel {
    NoRight,
    VisibleOnly,
    Read,
    Write,
    ReadWrite,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MatrixOperation {
    List,
    Read,
    Stat,
    Replace,
    Append,
    CreateIn,
    MakeDirectoryIn,
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

use MatrixOperation::*;

const OPERATIONS: [MatrixOperation; 16] = [
    List,
    Read,
    Stat,
    Replace,
    Append,
    CreateIn,
    MakeDirectoryIn,
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
const DIRECTORY: &str = "/t/scope/dir";
const ROOT: &str = "/t/scope";
const PARENT: &str = "/t";
const SIBLING: &str = "/t/sibling";
const PATHS: [&str; 5] = [FILE, DIRECTORY, ROOT, PARENT, SIBLING];

/// The rights that a level gives at a path: (visible, read, write).
fn rights_at(level: AccessLevel, path: &str) -> (bool, bool, bool) {
    let inside = path == ROOT || path.starts_with("/t/scope/");
    let above = path == "/" || path == PARENT;
    match level {
        AccessLevel::NoRight => (path == "/", false, false),
        AccessLevel::VisibleOnly => (above || path == ROOT || path == DIRECTORY, false, false),
        AccessLevel::Read => (above || inside, inside, false),
        AccessLevel::Write => (above || inside, false, inside),
        AccessLevel::ReadWrite => (above || inside, inside, inside),
    }
}

fn parent(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) | None => "/",
        Some(at) => &path[..at],
    }
}

/// Returns the outcome of an operation that needs read or write permission at a path.
fn outcome_of_need(level: AccessLevel, path: &str, read: bool, write: bool) -> OperationOutcome {
    let (visible, may_read, may_write) = rights_at(level, path);
    match () {
        () if !visible => OperationOutcome::Absent,
        () if (read && !may_read) || (write && !may_write) => OperationOutcome::Forbidden,
        () => OperationOutcome::Done,
    }
}

fn combined_outcome(first: OperationOutcome, second: OperationOutcome) -> OperationOutcome {
    match (first, second) {
        (OperationOutcome::Done, second) => second,
        (first, OperationOutcome::Done) => first,
        (first, second) if first == second => first,
        _ => OperationOutcome::Refused,
    }
}

/// Returns the expected outcome of an operation, by the table of required permissions; `None` if it makes no sense there.
fn expected(operation: MatrixOperation, level: AccessLevel, path: &str) -> Option<OperationOutcome> {
    let is_file = path == FILE;
    let seen = outcome_of_need(level, path, false, false);
    let removable =
        if seen == OperationOutcome::Absent { seen } else { outcome_of_need(level, parent(path), false, true) };
    let fits = match operation {
        Read | Replace | Append => is_file,
        List | CreateIn | MakeDirectoryIn | RenameInto | CopyInto | HardLinkInto | SymlinkInto => !is_file,
        CopyFrom => path != ROOT && path != PARENT,
        Stat | Remove | RenameAway | SetAttributes | Lock => true,
    };
    fits.then(|| match operation {
        List | Stat => seen,
        Read => outcome_of_need(level, path, true, false),
        // A hidden target would be created, and is refused like any other creation there.
        Replace | Lock if seen == OperationOutcome::Absent => outcome_of_need(level, parent(path), false, true),
        Replace | Append | SetAttributes | Lock => outcome_of_need(level, path, false, true),
        CreateIn | MakeDirectoryIn | SymlinkInto => outcome_of_need(level, path, false, true),
        Remove | RenameAway => removable,
        RenameInto => {
            let source =
                combined_outcome(outcome_of_need(level, FILE, false, false), outcome_of_need(level, ROOT, false, true));
            combined_outcome(source, outcome_of_need(level, path, false, true))
        }
        CopyFrom => {
            combined_outcome(outcome_of_need(level, path, true, false), outcome_of_need(level, ROOT, false, true))
        }
        CopyInto => {
            combined_outcome(outcome_of_need(level, FILE, true, false), outcome_of_need(level, path, false, true))
        }
        HardLinkInto => {
            combined_outcome(outcome_of_need(level, FILE, true, true), outcome_of_need(level, path, false, true))
        }
    })
}

async fn over_webdav(dav: &DavClient, operation: MatrixOperation, place: &str) -> Option<OperationOutcome> {
    let at = |path: &str| format!("/dav{path}");
    let target = |path: &str| ("destination".to_owned(), dav.url(&at(path)));
    let inside = |name: &str| format!("{place}/{name}");
    let (method, path, header, body) = match operation {
        List => ("PROPFIND", at(place), ("depth".to_owned(), "1".to_owned()), ""),
        Read => ("GET", at(place), Default::default(), ""),
        Stat => ("PROPFIND", at(place), ("depth".to_owned(), "0".to_owned()), ""),
        Replace => ("PUT", at(place), Default::default(), "replaced"),
        CreateIn => ("PUT", at(&inside("made")), Default::default(), "made"),
        MakeDirectoryIn => ("MKCOL", at(&inside("made")), Default::default(), ""),
        Remove => ("DELETE", at(place), Default::default(), ""),
        RenameAway => ("MOVE", at(place), target(&format!("{place}-moved")), ""),
        RenameInto => ("MOVE", at(FILE), target(&inside("moved")), ""),
        CopyFrom => ("COPY", at(place), target("/t/scope/copy"), ""),
        CopyInto => ("COPY", at(FILE), target(&inside("copied")), ""),
        SetAttributes => ("PROPPATCH", at(place), Default::default(), PROPPATCH_BODY),
        Lock => ("LOCK", at(place), ("depth".to_owned(), "0".to_owned()), LOCK_BODY),
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
        207 if inner.contains("HTTP/1.1 403") => OperationOutcome::Forbidden,
        200 | 201 | 204 | 207 => OperationOutcome::Done,
        403 => OperationOutcome::Forbidden,
        404 | 409 => OperationOutcome::Absent,
        status => OperationOutcome::Other(u32::from(status)),
    })
}

const PROPPATCH_BODY: &str =
    r#"<propertyupdate xmlns="DAV:"><set><prop><c xmlns="urn:x">red</c></prop></set></propertyupdate>"#;
async fn over_sftp(sftp: &mut SftpClient, operation: MatrixOperation, path: &str) -> Option<OperationOutcome> {
    let inside = |name: &str| format!("{path}/{name}");
    let result = match operation {
        List => sftp.list(path).await.map(drop),
        Read => sftp.get(path).await.map(drop),
        Stat => sftp.stat(path).await.map(drop),
        Replace => sftp.put(path, b"replaced").await,
        Append => append(sftp, path).await,
        CreateIn => sftp.put(&inside("made"), b"made").await,
        MakeDirectoryIn => sftp.mkdir(&inside("made")).await,
        Remove if path == FILE => sftp.remove(path).await,
        Remove => sftp.rmdir(path).await,
        RenameAway => sftp.rename(path, &format!("{path}-moved")).await,
        RenameInto => sftp.posix_rename(FILE, &inside("moved")).await,
        SetAttributes => sftp.chmod(path, if path == FILE { 0o600 } else { 0o700 }).await,
        HardLinkInto => sftp.hard_link(FILE, &inside("hard")).await,
        SymlinkInto => sftp.symlink("somewhere", &inside("soft")).await,
        CopyFrom | CopyInto | Lock => return None,
    };
    Some(match result {
        Ok(()) => OperationOutcome::Done,
        Err(SftpError::Status(2, _)) => OperationOutcome::Absent,
        Err(SftpError::Status(3, _)) => OperationOutcome::Forbidden,
        Err(error) => OperationOutcome::Other(error.code()),
    })
}

async fn append(sftp: &mut SftpClient, path: &str) -> Result<(), SftpError> {
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
        for entry in fs::read_dir(gateway.host_path(folder)).expect("a folder").flatten() {
            let path = entry.path();
            if entry.file_type().expect("a type").is_dir() {
                fs::remove_dir_all(path).expect("removed");
            } else {
                fs::remove_file(path).expect("removed");
            }
        }
    }
    gateway.write_host_file(FILE, "content");
    gateway.create_host_directory(DIRECTORY);
    fs::set_permissions(gateway.host_path(ROOT), fs::Permissions::from_mode(0o755)).expect("set");
}

async fn assert_matrix_at(level: AccessLevel) {
    let gateway = Fixture::start().await;
    gateway.create_host_directory("/t/scope/dir/deep");
    gateway.create_host_directory("/t/sibling");
    gateway.create_host_directory("/elsewhere");
    gateway.write_host_file(FILE, "content");
    gateway.write_host_file("/t/sibling/file", "content");
    gateway.create_user("alice", &["/:rw"]);
    let scope = match level {
        AccessLevel::NoRight => "path:/elsewhere:rw",
        AccessLevel::VisibleOnly => "path:/t/scope/dir/deep:rw",
        AccessLevel::Read => "path:/t/scope:r",
        AccessLevel::Write => "path:/t/scope:w",
        AccessLevel::ReadWrite => "path:/t/scope:rw",
    };
    let token = gateway.create_token("alice", &["-e", "1h", "-s", scope]);
    let dav = gateway.dav("alice", &token);
    let mut sftp = gateway.sftp("alice", &token).await;
    let changeable = matches!(level, AccessLevel::Read | AccessLevel::Write | AccessLevel::ReadWrite);
    let mut wrong = Vec::new();
    for operation in OPERATIONS {
        for path in PATHS {
            let Some(expected) = expected(operation, level, path) else { continue };
            for protocol in ["WebDAV", "SFTP"] {
                if changeable {
                    restore(&gateway);
                }
                let before = snapshot(&gateway.root());
                let found = match protocol {
                    "WebDAV" => over_webdav(&dav, operation, path).await,
                    _ => over_sftp(&mut sftp, operation, path).await,
                };
                let Some(found) = found else { continue };
                let refused = matches!(found, OperationOutcome::Forbidden | OperationOutcome::Absent);
                let as_expected = found == expected || (expected == OperationOutcome::Refused && refused);
                if !as_expected {
                    wrong.push(format!("{protocol} {operation:?} {path}: {found:?}, not {expected:?}"));
                }
                if refused && snapshot(&gateway.root()) != before {
                    wrong.push(format!("{protocol} {operation:?} {path}: refused, and yet something changed"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{level:?}:\n{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_without_permission_is_answered_as_missing() {
    assert_matrix_at(AccessLevel::NoRight).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn visible_directory_can_be_traversed_and_nothing_else() {
    assert_matrix_at(AccessLevel::VisibleOnly).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn read_permission_reads_and_changes_nothing() {
    assert_matrix_at(AccessLevel::Read).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn write_permission_alone_allows_uploads_but_no_reading() {
    assert_matrix_at(AccessLevel::Write).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn read_write_permission_covers_the_scope_but_not_its_root() {
    assert_matrix_at(AccessLevel::ReadWrite).await;
}
