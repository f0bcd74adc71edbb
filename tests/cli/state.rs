//! The state directory: its file modes, its contents, and the errors when something in it is wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::{CliFixture, CommandOutput};
#[test]
fn state_directory_contains_no_token_secret() {
    let site = CliFixture::with_alice();
    let token = site.run_ok("admin user token -u alice -e 24h -q");
    let secret = &token.trim()[13..45];
    let mut files = 0;
    for entry in fs::read_dir(site.state()).expect("state") {
        let path = entry.expect("entry").path();
        let bytes = fs::read(&path).expect("file");
        assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{}", path.display());
        files += 1;
    }
    assert!(files >= 2, "database and pepper");
    let told = site.run_ok("apitoken list --json") + &site.run_ok("apitoken list");
    assert!(!told.contains(secret));
}

#[test]
fn state_directory_is_accessible_to_its_owner_only() {
    let site = CliFixture::with_alice();
    site.run_ok("admin user token -u alice -q");
    let mode = |path: PathBuf| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(site.state()), 0o700);
    for entry in fs::read_dir(site.state()).expect("state") {
        let path = entry.expect("entry").path();
        assert_eq!(mode(path.clone()), 0o600, "{}", path.display());
    }
}

#[test]
fn read_only_commands_do_not_create_a_state_directory() {
    let site = CliFixture::new();
    for line in ["apitoken list", "admin user list", "policy show", "node list", "apitoken revoke 00000000"] {
        assert!(site.run_refused(line, 1).contains("no patgate state in"), "{line}");
    }
    assert!(!site.state().exists());
    let doctor = site.run_ok("doctor");
    assert!(doctor.contains("there is none yet") && !site.state().exists(), "{doctor}");
}

#[test]
fn doctor_reports_open_state_directory_and_missing_pepper() {
    let site = CliFixture::with_alice();
    site.run_ok("admin user token -u alice -q");
    assert!(!site.run_ok("doctor").contains("  fail  "));
    fs::remove_file(site.state().join("pepper")).expect("removed");
    let CommandOutput { code, stdout: out, stderr: err } = site.run("doctor");
    assert!(code == 1 && out.contains("pepper") && out.contains("  fail  ") && err.contains("hint: "), "{out}{err}");
    let refused = site.run("admin user token -u alice");
    assert!(refused.code == 1 && refused.stderr.contains("the pepper"), "{}", refused.stderr);
}

#[test]
fn doctor_checks_modes_of_secrets_and_the_certificate() {
    let site = CliFixture::with_alice();
    let empty = CliFixture::new();
    empty.run_ok("policy set allow-never true");
    let says = |line: &str, what: &str, verdict: &str, part: &str| {
        let (out, site) = (site.run(line).stdout, &site);
        let found = out.lines().find(|line| line.starts_with(what)).unwrap_or_default().to_owned();
        let mut words = found[what.len().min(found.len())..].split_whitespace();
        assert!(words.next() == Some(verdict) && found.contains(part), "{line}: {out}{}", site.state().display());
    };
    says("doctor", "SSH host keys", "warning", "next start");
    assert!(empty.run_ok("doctor").contains("holds no user yet"));
    for name in ["ssh_host_ed25519_key", "ssh_host_ecdsa_key", "ssh_host_rsa_key"] {
        fs::write(site.state().join(name), "bad").expect("written");
        fs::set_permissions(site.state().join(name), fs::Permissions::from_mode(0o600)).expect("mode");
    }
    says("doctor", "SSH host keys", "fail", "or remove it");
    fs::set_permissions(site.state().join("ssh_host_rsa_key"), fs::Permissions::from_mode(0o640)).expect("mode");
    says("doctor", "secrets", "fail", "ssh_host_rsa_key: chmod 600");
    let (cert, key) = (site.root().join("cert.pem"), site.root().join("key.pem"));
    fs::write(&cert, "no certificate").expect("written");
    let config = site.folder.path().join("patgate.toml");
    fs::write(&config, format!("tls_cert = {cert:?}\ntls_key = {key:?}\n")).expect("written");
    says(&format!("doctor --config {}", config.display()), "certificate", "fail", "holds no certificate");
}

#[test]
fn startup_errors_have_a_reason_and_a_hint() {
    let site = CliFixture::with_alice();
    let state = site.state();
    let start = |flags: &str| site.run_refused(&format!("serve --http 127.0.0.1:0 {flags}"), 1);
    let err = start("--sftp off --tls-cert /nowhere --tls-key /nowhere");
    assert!(err.contains("/nowhere") && err.contains("hint: --tls-cert and --tls-key name files in PEM"), "{err}");
    let err = site.run_refused("serve --http 192.0.2.1:0 --sftp off --insecure-http --log error", 1);
    assert!(err.contains("can't listen on 192.0.2.1:0") && err.contains("does not have the address"), "{err}");
    fs::write(state.join("ssh_host_ed25519_key"), "bad").expect("written");
    fs::set_permissions(state.join("ssh_host_ed25519_key"), fs::Permissions::from_mode(0o600)).expect("mode");
    let err = start("--sftp 127.0.0.1:0");
    assert!(err.contains("ssh_host_ed25519_key") && err.contains("or remove it"), "{err}");
    fs::write(state.join("patgate.db"), "no database, and longer than a header of one hundred bytes ".repeat(4))
        .expect("written");
    for line in ["apitoken list", "serve --http 127.0.0.1:0 --sftp off"] {
        let err = site.run_refused(line, 1);
        assert!(err.contains("the database is damaged") && err.contains("hint: patgate doctor"), "{err}");
    }
}

#[test]
fn refused_command_leaves_no_state_behind() {
    let site = CliFixture::new();
    for (line, told) in [
        ("admin user create alice --grant /none:r", "nothing is at /none"),
        ("policy set default-lifetime 2Y", "may not exceed"),
        ("serve --http 127.0.0.1:0 --sftp off --root /proc", "/proc can't be served"),
    ] {
        let answer = site.run(line);
        assert!(answer.code == 1 && answer.stderr.contains(told), "{line}: {}", answer.stderr);
        assert!(!site.state().exists(), "{line}");
    }
    let file = site.folder.path().join("taken");
    fs::write(&file, "x").expect("written");
    let state = site.folder.path().join("new.patgate");
    let mut command = site.command();
    command.env_remove("PATGATE_STATE").env_remove("PATGATE_ROOT");
    command.args(["quickstart", "--http", "192.0.2.1:0", "--sftp", "127.0.0.1:0"]).arg(site.folder.path().join("new"));
    assert_eq!(super::command_output(&mut command).code, 1, "nobody has that address");
    assert!(!state.exists() && !site.folder.path().join("new").exists());
    site.run_ok("admin user create alice");
    assert!(site.state().join("patgate.db").exists());
    site.run_refused("policy set default-lifetime 2Y", 1);
    site.run_ok("admin user show alice");
}

#[test]
fn hints_repeat_the_given_state_directory() {
    let site = CliFixture::with_alice();
    let state = site.state().display().to_string();
    let named = |line: &str| {
        let mut command = site.command();
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
        assert!(site.run_refused(line, 1).contains(&format!("patgate {hint}")), "not where the environment names it");
    }
    let mut command = site.command();
    command.args(["apitoken", "list", "--state", "live"]);
    assert!(super::command_output(&mut command).stderr.contains("--status"));
}
