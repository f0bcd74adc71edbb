//! The state directory: its file modes, its contents, and the errors when something in it is wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::{CliFixture, CommandOutput};
#[test]
fn state_directory_contains_no_token_secret() {
    let fixture = CliFixture::with_alice();
    let token = fixture.run_ok("admin user token -u alice -e 24h -q");
    let secret = &token.trim()[13..45];
    let mut files = 0;
    for entry in fs::read_dir(fixture.state()).expect("state") {
        let path = entry.expect("entry").path();
        let bytes = fs::read(&path).expect("file");
        assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{}", path.display());
        files += 1;
    }
    assert!(files >= 2, "database and pepper");
    let output = fixture.run_ok("apitoken list --json") + &fixture.run_ok("apitoken list");
    assert!(!output.contains(secret));
}

#[test]
fn state_directory_is_accessible_to_its_owner_only() {
    let fixture = CliFixture::with_alice();
    fixture.run_ok("admin user token -u alice -q");
    let mode = |path: PathBuf| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(fixture.state()), 0o700);
    for entry in fs::read_dir(fixture.state()).expect("state") {
        let path = entry.expect("entry").path();
        assert_eq!(mode(path.clone()), 0o600, "{}", path.display());
    }
}

#[test]
fn read_only_commands_do_not_create_a_state_directory() {
    let fixture = CliFixture::new();
    for line in ["apitoken list", "admin user list", "policy show", "node list", "apitoken revoke 00000000"] {
        assert!(fixture.run_refused(line, 1).contains("no patgate state in"), "{line}");
    }
    assert!(!fixture.state().exists());
    let doctor = fixture.run_ok("doctor");
    assert!(doctor.contains("there is none yet") && !fixture.state().exists(), "{doctor}");
}

#[test]
fn doctor_reports_open_state_directory_and_missing_pepper() {
    let fixture = CliFixture::with_alice();
    fixture.run_ok("admin user token -u alice -q");
    assert!(!fixture.run_ok("doctor").contains("  fail  "));
    fs::remove_file(fixture.state().join("pepper")).expect("removed");
    let CommandOutput { code, stdout: out, stderr: err } = fixture.run("doctor");
    assert!(code == 1 && out.contains("pepper") && out.contains("  fail  ") && err.contains("hint: "), "{out}{err}");
    let refused = fixture.run("admin user token -u alice");
    assert!(refused.code == 1 && refused.stderr.contains("the pepper"), "{}", refused.stderr);
}

#[test]
fn doctor_checks_modes_of_secrets_and_the_certificate() {
    let fixture = CliFixture::with_alice();
    let empty = CliFixture::new();
    empty.run_ok("policy set allow-never true");
    let says = |line: &str, what: &str, verdict: &str, part: &str| {
        let (out, fixture) = (fixture.run(line).stdout, &fixture);
        let found = out.lines().find(|line| line.starts_with(what)).unwrap_or_default().to_owned();
        let mut words = found[what.len().min(found.len())..].split_whitespace();
        assert!(words.next() == Some(verdict) && found.contains(part), "{line}: {out}{}", fixture.state().display());
    };
    says("doctor", "SSH host keys", "warning", "next start");
    assert!(empty.run_ok("doctor").contains("holds no user yet"));
    for name in ["ssh_host_ed25519_key", "ssh_host_ecdsa_key", "ssh_host_rsa_key"] {
        fs::write(fixture.state().join(name), "bad").expect("written");
        fs::set_permissions(fixture.state().join(name), fs::Permissions::from_mode(0o600)).expect("mode");
    }
    says("doctor", "SSH host keys", "fail", "or remove it");
    fs::set_permissions(fixture.state().join("ssh_host_rsa_key"), fs::Permissions::from_mode(0o640)).expect("mode");
    says("doctor", "secrets", "fail", "ssh_host_rsa_key: chmod 600");
    let (cert, key) = (fixture.root().join("cert.pem"), fixture.root().join("key.pem"));
    fs::write(&cert, "no certificate").expect("written");
    let config = fixture.folder.path().join("patgate.toml");
    fs::write(&config, format!("tls_cert = {cert:?}\ntls_key = {key:?}\n")).expect("written");
    says(&format!("doctor --config {}", config.display()), "certificate", "fail", "holds no certificate");
}

#[test]
fn startup_errors_have_a_reason_and_a_hint() {
    let fixture = CliFixture::with_alice();
    let state = fixture.state();
    let start = |flags: &str| fixture.run_refused(&format!("serve --http 127.0.0.1:0 {flags}"), 1);
    let err = start("--sftp off --tls-cert /nowhere --tls-key /nowhere");
    assert!(err.contains("/nowhere") && err.contains("hint: --tls-cert and --tls-key name files in PEM"), "{err}");
    let err = fixture.run_refused("serve --http 192.0.2.1:0 --sftp off --insecure-http --log error", 1);
    assert!(err.contains("can't listen on 192.0.2.1:0") && err.contains("does not have the address"), "{err}");
    fs::write(state.join("ssh_host_ed25519_key"), "bad").expect("written");
    fs::set_permissions(state.join("ssh_host_ed25519_key"), fs::Permissions::from_mode(0o600)).expect("mode");
    let err = start("--sftp 127.0.0.1:0");
    assert!(err.contains("ssh_host_ed25519_key") && err.contains("or remove it"), "{err}");
    fs::write(state.join("patgate.db"), "no database, and longer than a header of one hundred bytes ".repeat(4))
        .expect("written");
    for line in ["apitoken list", "serve --http 127.0.0.1:0 --sftp off"] {
        let err = fixture.run_refused(line, 1);
        assert!(err.contains("the database is damaged") && err.contains("hint: patgate doctor"), "{err}");
    }
}

#[test]
fn refused_command_leaves_no_state_behind() {
    let fixture = CliFixture::new();
    for (line, message) in [
        ("admin user create alice --grant /none:r", "nothing is at /none"),
        ("policy set default-lifetime 2Y", "may not exceed"),
        ("serve --http 127.0.0.1:0 --sftp off --root /proc", "/proc can't be served"),
    ] {
        let answer = fixture.run(line);
        assert!(answer.code == 1 && answer.stderr.contains(message), "{line}: {}", answer.stderr);
        assert!(!fixture.state().exists(), "{line}");
    }
    let file = fixture.folder.path().join("taken");
    fs::write(&file, "x").expect("written");
    let state = fixture.folder.path().join("new.patgate");
    let mut command = fixture.command();
    command.env_remove("PATGATE_STATE").env_remove("PATGATE_ROOT");
    command
        .args(["quickstart", "--http", "192.0.2.1:0", "--sftp", "127.0.0.1:0"])
        .arg(fixture.folder.path().join("new"));
    assert_eq!(super::command_output(&mut command).code, 1, "nobody has that address");
    assert!(!state.exists() && !fixture.folder.path().join("new").exists());
    fixture.run_ok("admin user create alice");
    assert!(fixture.state().join("patgate.db").exists());
    fixture.run_refused("policy set default-lifetime 2Y", 1);
    fixture.run_ok("admin user show alice");
}

#[test]
fn hints_repeat_the_given_state_directory() {
    let fixture = CliFixture::with_alice();
    let state = fixture.state().display().to_string();
    let named = |line: &str| {
        let mut command = fixture.command();
        command.env_remove("PATGATE_STATE").args(["--state", &state]).args(line.split_whitespace());
        super::command_output(&mut command).stderr
    };
    for (line, hint) in [
        ("admin user show nobody", "admin user list shows"),
        ("apitoken show 00000000", "apitoken list shows"),
        ("admin user token -u alice -e 2Y", "policy set max-lifetime"),
    ] {
        let err = named(line);
        assert!(err.contains(&format!("patgate --state {state} {hint}")), "{err}");
        assert!(
            fixture.run_refused(line, 1).contains(&format!("patgate {hint}")),
            "not where the environment names it"
        );
    }
    let mut command = fixture.command();
    command.args(["apitoken", "list", "--state", "live"]);
    assert!(super::command_output(&mut command).stderr.contains("--status"));
}
