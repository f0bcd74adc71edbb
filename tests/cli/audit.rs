//! `patgate audit verify` and `--export`: the hash chain of the audit trail as administrators use it.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::{CliFixture, CommandOutput};

/// Changes the database as somebody with access to the file would.
fn tamper(fixture: &CliFixture, statement: &str) {
    let connection = rusqlite::Connection::open(fixture.state().join("patgate.db")).expect("opens");
    connection.execute_batch(statement).expect("changed");
}

fn export(fixture: &CliFixture, name: &str) -> PathBuf {
    let file = fixture.folder.path().join(name);
    fs::write(&file, fixture.run_ok("audit --export")).expect("written");
    file
}

fn head(fixture: &CliFixture) -> String {
    let report = fixture.run_json("audit verify");
    assert_eq!(report["verdict"], "ok");
    format!("{}:{}", report["head"]["number"], report["head"]["hash"].as_str().expect("a hash"))
}

fn broken(fixture: &CliFixture, line: &str) -> CommandOutput {
    let output = fixture.run(line);
    assert_eq!(output.code, 1, "{line}: {}", output.stdout);
    assert!(output.stderr.contains("tampered with") && output.stderr.contains("hint: "), "{}", output.stderr);
    output
}

#[test]
fn audit_verify_names_changed_and_missing_rows() {
    let fixture = CliFixture::with_alice();
    fixture.create_user_and_token("bob");
    let (noted, rows) = (head(&fixture), fixture.run_json("audit verify")["rows"].as_u64().expect("a number"));
    assert!(rows >= 4, "{rows}");
    assert!(fixture.run_ok("audit verify").contains(&noted));
    assert!(fixture.run_ok(&format!("audit verify --head {noted}")).contains("verdict:"));
    let changed = broken(&fixture, &format!("audit verify --head {rows}:{}", "0".repeat(64)));
    assert!(changed.stdout.contains("was noted"), "{}", changed.stdout);
    tamper(&fixture, "UPDATE events SET \"user\" = 'mallory' WHERE id = 2");
    assert!(broken(&fixture, "audit verify").stdout.contains("row 2: "));
    let report: Value = serde_json::from_str(&fixture.run("audit verify --json").stdout).expect("JSON");
    assert_eq!((report["verdict"].as_str(), report["faults"][0]["row"].as_u64()), (Some("fail"), Some(2)));
    tamper(&fixture, "DELETE FROM events WHERE id >= 3");
    let cut = broken(&fixture, &format!("audit verify --head {noted}")).stdout;
    assert!(cut.contains("missing at the end") && cut.contains("was noted as the head"), "{cut}");
}

#[test]
fn exported_trail_is_verified_offline() {
    let fixture = CliFixture::with_alice();
    fixture.create_user_and_token("bob");
    let (file, noted) = (export(&fixture, "trail.jsonl"), head(&fixture));
    let elsewhere = CliFixture::new();
    let line = |file: &PathBuf| format!("audit verify {} --head {noted}", file.display());
    let report = elsewhere.run_ok(&line(&file));
    assert!(report.contains(&noted) && !elsewhere.state().exists(), "{report}");
    let text = fs::read_to_string(&file).expect("read");
    let lines: Vec<_> = text.lines().collect();
    let first: Value = serde_json::from_str(lines[0]).expect("JSON");
    assert_eq!((first["id"].as_u64(), first["event"].as_str()), (Some(1), Some("user.created")));
    let mut swapped = lines.clone();
    swapped.swap(1, 2);
    let changes = [
        text.replace("bob", "eve"),
        lines[1..].join("\n"),
        lines[..lines.len() - 1].join("\n"),
        [&lines[..1], &lines[2..]].concat().join("\n"),
        swapped.join("\n"),
        format!("{text}x\n"),
        text.replacen("\"at\":\"2", "\"at\":\"1", 1),
    ];
    for changed in changes {
        fs::write(&file, &changed).expect("written");
        broken(&elsewhere, &line(&file));
    }
    for wrong in
        ["audit verify --since 1d", "audit --since 1d verify", "audit --export --user alice", "audit verify --head 3"]
    {
        assert_eq!(fixture.run(wrong).code, 2, "{wrong}");
    }
}
