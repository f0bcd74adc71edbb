//! A state directory of an older version is migrated by `serve` alone, after a backup; one whose files don't belong
//! together is refused.

use std::fs;
use std::path::Path;

use rusqlite::Connection;

use crate::support::patgate_command;
use crate::support::server::{ServerProcess, run_cli};

const OLD_SCHEMAS: [&str; 8] = [
    include_str!("../../src/store/schema.sql"),
    include_str!("../../src/store/schema_2.sql"),
    include_str!("../../src/store/schema_3.sql"),
    include_str!("../../src/store/schema_4.sql"),
    include_str!("../../src/store/schema_5.sql"),
    include_str!("../../src/store/schema_6.sql"),
    include_str!("../../src/store/schema_7.sql"),
    include_str!("../../src/store/schema_8.sql"),
];

fn state_fixture() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("files")).expect("a folder");
    folder
}

/// Runs a command that is refused, and returns why.
fn run_refused(folder: &Path, arguments: &[&str]) -> String {
    let output = patgate_command(&folder.join("state")).args(arguments).output().expect("the program runs");
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8(output.stderr).expect("text")
}

fn serve_arguments(folder: &Path) -> [&str; 7] {
    ["serve", "--http", "127.0.0.1:0", "--sftp", "off", "--root", folder.to_str().expect("text")]
}

#[test]
fn only_serve_migrates_an_older_state_directory_and_keeps_a_backup() {
    let folder = state_fixture();
    let state = folder.path().join("state");
    fs::create_dir(&state).expect("a folder");
    let old = Connection::open(state.join("patgate.db")).expect("opens");
    OLD_SCHEMAS.iter().for_each(|schema| old.execute_batch(schema).expect("made"));
    old.execute_batch(
        "INSERT INTO meta (only, epoch, etag_key) VALUES (1, 1, zeroblob(32));
         INSERT INTO users (login, created_at) VALUES ('alice', 1);
         PRAGMA user_version = 8;",
    )
    .expect("made");
    drop(old);
    let before = fs::read(state.join("patgate.db")).expect("read");
    for command in [&["apitoken", "list"][..], &["admin", "user", "disable", "alice"], &["policy", "show"]] {
        let why = run_refused(folder.path(), command);
        assert!(why.contains("older patgate") && why.contains("patgate serve"), "{why}");
    }
    let doctor = patgate_command(&state).arg("doctor").output().expect("the program runs");
    let doctor = String::from_utf8(doctor.stdout).expect("text");
    assert!(doctor.contains("older patgate"), "{doctor}");
    let names = |ends: &str| {
        let names = fs::read_dir(&state).expect("folder").flatten().map(|entry| entry.file_name());
        names.filter_map(|name| name.into_string().ok()).filter(|name| name.ends_with(ends)).collect::<Vec<_>>()
    };
    assert_eq!((names(".backup").len(), fs::read(state.join("patgate.db")).expect("read").len()), (0, before.len()));

    let log = folder.path().join("log");
    let server = ServerProcess::start_logging(folder.path(), &log);
    assert_eq!(names(".backup"), ["patgate.db.schema-8.backup"]);
    let log_text = fs::read_to_string(&log).expect("read");
    assert!(log_text.contains("patgate.db.schema-8.backup"), "{log_text}");
    assert!(run_cli(folder.path(), &["admin", "user", "list"]).contains("alice"));
    server.stop();
}

#[test]
fn mismatched_state_files_are_refused_with_a_hint() {
    let (first, second) = (state_fixture(), state_fixture());
    for folder in [&first, &second] {
        run_cli(folder.path(), &["admin", "user", "create", "alice", "--no-home"]);
        run_cli(folder.path(), &["admin", "user", "token", "-u", "alice", "-q"]);
    }
    let state = first.path().join("state");
    let own_pepper = fs::read(state.join("pepper")).expect("read");
    fs::copy(second.path().join("state/pepper"), state.join("pepper")).expect("copied");
    let files = first.path().join("files");
    for command in [&serve_arguments(&files)[..], &["admin", "user", "token", "-u", "alice"]] {
        let why = run_refused(first.path(), command);
        assert!(why.contains("not the one") && why.contains("same backup"), "{why}");
    }
    let doctor = patgate_command(&state).arg("doctor").output().expect("the program runs");
    let doctor = String::from_utf8(doctor.stdout).expect("text");
    assert!(doctor.contains("not the one"), "{doctor}");
    fs::write(state.join("pepper"), own_pepper).expect("restored");
    run_cli(first.path(), &["admin", "user", "token", "-u", "alice", "-q"]);

    fs::rename(state.join("patgate.db"), state.join("away")).expect("moved");
    for command in [&serve_arguments(&files)[..], &["apitoken", "list"], &["admin", "user", "create", "bob"]] {
        let why = run_refused(first.path(), command);
        assert!(why.contains("patgate.db is missing") && why.contains("backup"), "{why}");
    }
    let doctor = patgate_command(&state).arg("doctor").output().expect("the program runs");
    let doctor = String::from_utf8(doctor.stdout).expect("text");
    assert!(doctor.contains("patgate.db is missing"), "{doctor}");
    assert!(!state.join("patgate.db").exists(), "nobody makes an empty one in its place");
}
