//! States that former versions wrote are migrated at start: users, grants and tokens are what they were, and a copy of the
//! former database stays beside the new one.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use rusqlite::Connection;

use crate::support::DavClient;
use crate::support::server::{ServerProcess, run_cli};

/// First schema in which directories have `is_directory` and `birth_time` in place of `folder` and `born`.
const FIRST_SCHEMA_WITH_BIRTH_TIME: usize = 15;
/// First schema with an audit trail.
const FIRST_SCHEMA_WITH_EVENTS: usize = 2;
const PEPPER: &str = "d6ab8e97d81d70786788d568520b68041b7dd3885fa68ae58b685111e384a914";
const LIVE: &str = "pgt_LTrjxjBL.fcpSdKHqICWHgJaztYniibRnrtSe4VGu1idnQF";
const SLIDING: &str = "pgt_MTR6JiEA.bugl8thodBv7gnxJWKhO1uWgMmCJab5k2etKZy";
const REVOKED: &str = "pgt_d10yApwk.BaRYCQxc97KRgTZwrsXNNm5sla7Wh0jF1OjCyL";
const SCOPED: &str = "pgt_AaNd4WQV.W5mTzuOwWQvqMLONzjUmvJGDzVs0VLyx0hubeE";

/// Returns the dumps of states, by their schemas.
fn dumps() -> Vec<(usize, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/states");
    let mut dumps = Vec::new();
    for entry in fs::read_dir(directory).expect("fixtures") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("text");
        let schema = name.strip_prefix("schema-").and_then(|name| name.strip_suffix(".sql"));
        if let Some(schema) = schema {
            dumps.push((schema.parse().expect("a number"), fs::read_to_string(entry.path()).expect("read")));
        }
    }
    dumps.sort();
    dumps
}

/// Writes a state of a former version, with a tree that its nodes belong to.
fn write_state(folder: &Path, schema: usize, dump: &str) {
    let (files, state) = (folder.join("files"), folder.join("state"));
    for directory in ["alice", "team/plans"] {
        fs::create_dir_all(files.join(directory)).expect("a folder");
        fs::write(files.join(directory).join("file"), "content").expect("a file");
    }
    fs::create_dir(&state).expect("a folder");
    let database = Connection::open(state.join("patgate.db")).expect("opens");
    // A dump is not in the order of references.
    database.execute_batch("PRAGMA foreign_keys = OFF").expect("set");
    database.execute_batch(dump).expect("loaded");
    let column = if schema < FIRST_SCHEMA_WITH_BIRTH_TIME { "born" } else { "birth_time" };
    for (number, path) in [(1u8, ""), (2, "alice"), (3, "team"), (4, "team/plans")] {
        let metadata = fs::metadata(files.join(path)).expect("there");
        let born = metadata.created().ok().map(|time| time.duration_since(UNIX_EPOCH).expect("later").as_nanos());
        let born = born.map(|nanos| i64::try_from(nanos).expect("this century"));
        let update = format!("UPDATE nodes SET inode = ?1, {column} = ?2 WHERE id = ?3");
        let row = (metadata.ino().cast_signed(), born, [number; 16]);
        assert_eq!(database.execute(&update, row).expect("set"), 1);
    }
    let pepper: Vec<u8> =
        (0..32).map(|at| u8::from_str_radix(&PEPPER[2 * at..2 * at + 2], 16).expect("hexadecimal")).collect();
    fs::write(state.join("pepper"), pepper).expect("written");
}

async fn check_access(server: &ServerProcess, schema: usize) {
    for (login, token, path, expected) in [
        ("alice", LIVE, "/dav/alice/file", 200),
        ("alice", LIVE, "/dav/team/plans/file", 404),
        ("alice", SLIDING, "/dav/alice/file", 200),
        ("alice", REVOKED, "/dav/alice/file", 401),
        ("bob", SCOPED, "/dav/team/plans/file", 200),
        ("bob", SCOPED, "/dav/team/file", 404),
        ("bob", SCOPED, "/dav/alice/file", 404),
        ("carol", LIVE, "/dav/alice/file", 401),
    ] {
        let status = DavClient::new(server.http, login, token).status("GET", path).await;
        assert_eq!(status, expected, "schema {schema}: {login} {path}");
    }
    let alice = DavClient::new(server.http, "alice", LIVE);
    assert_eq!(alice.put("/dav/alice/new", "x").await.status, 201, "schema {schema}");
    let properties = alice.send("PROPFIND", "/dav/alice/", &[("depth", "0")], "").await.text();
    assert!(properties.contains(">red<"), "schema {schema}: {properties}");
}

#[tokio::test(flavor = "multi_thread")]
async fn state_of_every_former_schema_keeps_users_grants_and_tokens() {
    let dumps = dumps();
    assert!(dumps.len() >= 16 && dumps.iter().map(|(schema, _)| *schema).eq(1..=dumps.len()), "a dump is missing");
    for (schema, dump) in dumps {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        write_state(folder, schema, &dump);
        let server = ServerProcess::start(folder);
        check_access(&server, schema).await;
        let users: serde_json::Value =
            serde_json::from_str(&run_cli(folder, &["admin", "user", "list", "--json"])).expect("JSON");
        assert_eq!(users.as_array().map(Vec::len), Some(3), "schema {schema}");
        let audit: serde_json::Value =
            serde_json::from_str(&run_cli(folder, &["audit", "verify", "--json"])).expect("JSON");
        assert_eq!(audit["verdict"], "ok", "schema {schema}: {audit}");
        let known = audit["head"]["number"].as_u64().unwrap_or_default();
        assert!(known >= if schema < FIRST_SCHEMA_WITH_EVENTS { 0 } else { 3 }, "schema {schema}: {audit}");
        server.stop();
        let copy = folder.join(format!("state/patgate.db.schema-{schema}.backup"));
        let copy = Connection::open(copy).expect("opens");
        let found: i64 = copy.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("read");
        assert_eq!(found, i64::try_from(schema).expect("small"));
    }
}
