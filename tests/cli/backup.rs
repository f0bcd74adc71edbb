//! `patgate admin backup` and `restore`: what they write, refuse and keep. A whole drill, with a server and another disk, is
//! in `tests/gateway/backup_drill.rs`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::{CliFixture, CommandOutput, command_output};

fn backup(fixture: &CliFixture, name: &str) -> PathBuf {
    let file = fixture.folder.path().join(name);
    fixture.run_ok(&format!("admin backup {}", file.display()));
    file
}

fn refused(fixture: &CliFixture, line: &str, why: &str) {
    let CommandOutput { code, stderr, .. } = fixture.run(line);
    assert!(code == 1 && stderr.contains(why) && stderr.contains("hint: "), "{line}: {stderr}");
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory").flatten();
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

#[test]
fn backup_is_private_complete_and_replaces_nothing() {
    let fixture = CliFixture::with_alice();
    fixture.create_user_and_token("bob");
    fs::write(fixture.folder.path().join(".patgate-backup-999999999.db"), "of a killed one").expect("written");
    let file = backup(&fixture, "backup.tar");
    assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
    assert_eq!(names(fixture.folder.path()), ["backup.tar", "files", "state"], "no draft is left");
    refused(&fixture, &format!("admin backup {}", file.display()), "exists already");
    let overwritten = fixture.run_json(&format!("admin backup {} --overwrite", file.display()));
    assert_eq!(
        (overwritten["holds"]["users"].as_u64(), overwritten["holds"]["live_tokens"].as_u64()),
        (Some(2), Some(1))
    );
    assert_eq!(overwritten["parts"][1]["name"], "pepper");
    refused(&fixture, &format!("admin backup {}", fixture.root().join("b.tar").display()), "in the served folder");
    assert!(fixture.run_ok("audit --event state.backed_up").contains("backup.tar"));
    let streamed = fixture.command().args(["admin", "backup", "-"]).output().expect("runs");
    assert!(streamed.status.success() && streamed.stdout.starts_with(b"manifest.json\0"));
}

#[test]
fn restore_checks_all_before_it_changes_anything() {
    let fixture = CliFixture::with_alice();
    let file = backup(&fixture, "backup.tar");
    refused(&fixture, &format!("admin restore {}", file.display()), "holds a state already");
    let before = (names(&fixture.state()), fs::read(fixture.state().join("patgate.db")).expect("read"));
    let content = fs::read(&file).expect("read");
    let damaged = fixture.folder.path().join("damaged.tar");
    let cut = &content[..content.len() / 2];
    let mut changed = content.clone();
    let middle = changed.len() - 4096;
    changed[middle] ^= 1;
    let empty: &[u8] = b"";
    for bytes in [cut, &changed, empty, b"no archive at all"] {
        fs::write(&damaged, bytes).expect("written");
        refused(&fixture, &format!("admin restore {} --replace", damaged.display()), "damaged");
        assert_eq!(fs::read(fixture.state().join("patgate.db")).expect("read"), before.1);
        let now: Vec<_> = names(&fixture.state()).into_iter().filter(|name| name != "serve.lock").collect();
        assert_eq!(now, before.0);
    }
    refused(&fixture, "admin restore /nowhere --replace", "can't be read");
    let remote = fixture
        .command()
        .env_remove("PATGATE_STATE")
        .args(["admin", "backup", "-", "--server", "http://127.0.0.1:1"])
        .output();
    let remote = remote.expect("runs");
    assert!(remote.status.code() == Some(2) && remote.stdout.is_empty(), "not over the network");
    let other = CliFixture::new();
    refused(&other, &format!("admin restore {}", damaged.display()), "damaged");
    assert!(!other.state().exists(), "a refused command creates nothing");
}

#[test]
fn restored_state_is_that_of_the_backup_and_the_former_one_is_kept() {
    let fixture = CliFixture::with_alice();
    let token = fixture.create_user_and_token("bob");
    let sliding = fixture.run_ok("admin user token -u bob -a 1h -q");
    let (token, sliding) = (&token[4..12], &sliding.trim()[4..12]);
    let file = backup(&fixture, "backup.tar");
    fixture.run_ok(&format!("apitoken revoke {token}"));
    fixture.run_ok("admin user create carol");
    let report = fixture.run_ok(&format!("admin restore {} --replace --revoke-sliding", file.display()));
    assert!(report.contains("revoked now:") && report.contains("is as it was before: 1 tokens"), "{report}");
    assert!(report.contains("state directory") && report.contains("CHECK"), "doctor: {report}");
    assert_eq!(fixture.run_json("admin user list").as_array().map(Vec::len), Some(2));
    assert_eq!(fixture.run_json(&format!("apitoken show {token}"))["state"], "live");
    assert_eq!(fixture.run_json(&format!("apitoken show {sliding}"))["state"], "revoked");
    assert!(fixture.run_ok("audit verify").contains("ok"));
    assert!(fixture.run_ok("audit --event state.restored").contains("a backup of"));
    let replaced = names(&fixture.state()).into_iter().find(|name| name.starts_with("replaced-")).expect("kept");
    let replaced = fixture.state().join(replaced);
    assert_eq!(fs::metadata(&replaced).expect("there").permissions().mode() & 0o777, 0o700);
    fixture.run_ok(&format!("admin restore {} --replace", replaced.display()));
    assert_eq!(
        fixture.run_json("admin user list").as_array().map(Vec::len),
        Some(3),
        "the replaced state is a source, too"
    );
    assert_eq!(fixture.run_json(&format!("apitoken show {token}"))["state"], "revoked");
    fixture.run_ok(&format!("admin restore {} --replace --revoke-all", file.display()));
    assert_eq!(fixture.run_json("apitoken list --status live").as_array().map(Vec::len), Some(0));
}

#[test]
fn newer_database_names_the_copy_to_go_back_to_and_restore_takes_it() {
    let fixture = CliFixture::with_alice();
    let token = fixture.create_user_and_token("bob");
    let database = fixture.state().join("patgate.db");
    let open = |path: &Path| rusqlite::Connection::open(path).expect("opens");
    let schema: i64 = open(&database).query_row("PRAGMA user_version", [], |row| row.get(0)).expect("read");
    let copy = fixture.state().join(format!("patgate.db.schema-{schema}.backup"));
    open(&database).execute("VACUUM INTO ?1", [copy.display().to_string()]).expect("copied");
    open(&database)
        .execute_batch(&format!("DELETE FROM users; PRAGMA user_version = {}", schema + 1))
        .expect("as a newer version would");
    let refusal = fixture.run_refused("apitoken list", 1);
    let command = format!("admin restore {} --replace", copy.display());
    assert!(refusal.contains("newer patgate") && refusal.contains(&command), "{refusal}");
    fixture.run_ok(&command);
    assert_eq!(fixture.run_json("admin user list").as_array().map(Vec::len), Some(2));
    assert_eq!(fixture.run_json(&format!("apitoken show {}", &token[4..12]))["state"], "live");
}

/// Puts a program `age` into a directory that stands for the real one: it prefixes what it encrypts, and knows one key.
fn put_age(directory: &Path) {
    let script = "#!/bin/sh
case $1 in
--encrypt) [ \"$2 $3\" = '--recipient age1known' ] || { echo 'age: error: unknown recipient' >&2; exit 1; }
    echo age-encryption.org/v1; cat ;;
--decrypt) [ \"$2\" = --identity ] && grep -q known \"$3\" || { echo 'age: error: no identity matched' >&2; exit 1; }
    read -r magic; cat; [ ! -e \"$3.cut\" ] || { echo 'age: error: the end was changed' >&2; exit 1; } ;;
esac
";
    fs::create_dir(directory).expect("a directory");
    fs::write(directory.join("age"), script).expect("written");
    fs::set_permissions(directory.join("age"), fs::Permissions::from_mode(0o755)).expect("set");
}

#[test]
fn backup_is_encrypted_and_decrypted_by_the_program_age() {
    let fixture = CliFixture::with_alice();
    let folder = fixture.folder.path();
    let (file, key, bin) = (folder.join("backup.age"), folder.join("key"), folder.join("bin"));
    let run =
        |path: &str, line: &str| command_output(fixture.command().env("PATH", path).args(line.split_whitespace()));
    let backup = |recipient: &str| format!("admin backup {} --age-recipient {recipient}", file.display());
    let missing = run("/nowhere", &backup("age1known"));
    assert!(missing.code == 1 && missing.stderr.contains("age is not installed"), "{}", missing.stderr);
    put_age(&bin);
    let path = format!("{}:/bin:/usr/bin", bin.display());
    let refused = run(&path, &backup("age1other"));
    assert!(
        refused.code == 1 && refused.stderr.contains("encrypt the backup: unknown recipient"),
        "{}",
        refused.stderr
    );
    assert_eq!(names(folder), ["bin", "files", "state"], "nothing is left");
    assert_eq!(run(&path, &backup("age1known")).code, 0);
    let content = fs::read(&file).expect("read");
    assert!(content.starts_with(b"age-encryption.org/v1\nmanifest.json\0"));
    assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
    let arguments = ["admin", "backup", "-", "--age-recipient", "age1known"];
    let streamed = fixture.command().env("PATH", &path).args(arguments).output().expect("runs");
    assert!(streamed.stdout.starts_with(b"age-encryption.org/v1\nmanifest.json\0"));

    fs::write(&key, "known").expect("written");
    let other = folder.join("other-key");
    fs::write(&other, "other").expect("written");
    let before = fs::read(fixture.state().join("patgate.db")).expect("read");
    let restore = |rest: &str| run(&path, &format!("admin restore {} --replace {rest}", file.display()));
    let refused = |output: CommandOutput, why: &str| {
        assert!(output.code == 1 && output.stderr.contains(why), "{why}: {}", output.stderr);
        assert_eq!(fs::read(fixture.state().join("patgate.db")).expect("read"), before, "{why}");
    };
    refused(restore(""), "hint: give --age-identity");
    refused(restore(&format!("--age-identity {}", other.display())), "decrypt the backup: no identity matched");
    fs::write(folder.join("key.cut"), "").expect("written");
    refused(restore(&format!("--age-identity {}", key.display())), "decrypt the backup: the end was changed");
    fs::remove_file(folder.join("key.cut")).expect("removed");
    let restored = restore(&format!("--age-identity {}", key.display()));
    assert!(restored.code == 0 && restored.stdout.contains("users:"), "{} {}", restored.stdout, restored.stderr);
}
