//! Usage errors and the help against them: hints, configuration errors, completions and manual pages.

use std::fs;

use crate::{CliFixture, CommandOutput, command_output};
#[test]
fn usage_errors_are_one_line_with_a_hint() {
    let fixture = CliFixture::new();
    for line in [
        "serve --http nope",
        "nonsense",
        "admin",
        "admin user tken",
        "apitoken list --status some",
        "serve --nonsense",
        "serve --set x",
        "admin user token -u alice -e -1h",
    ] {
        fixture.run_refused(line, 2);
    }
    assert!(fixture.run_refused("apitoken create", 2).contains("--owner LOGIN"));
    assert!(fixture.run_refused("admin user token -u alice -e x", 2).contains("hint: patgate admin user token --help"));
    let bare = fixture.run("");
    assert!(bare.code == 2 && bare.stderr.contains("Examples:"), "{}", bare.stderr);
}

#[test]
fn all_configuration_errors_are_reported_at_once() {
    let fixture = CliFixture::new();
    let file = fixture.folder.path().join("patgate.toml");
    fs::write(&file, "root = \"/nowhere\"\nhtpp = \"off\"\nsftp = 22\n").expect("file");
    let mut command = fixture.command();
    command.env_remove("PATGATE_ROOT").env("PATGATE_DURABILITY", "some").env("PATGATE_CONFIG", &file);
    let CommandOutput { code, stdout: out, stderr: err } =
        command_output(command.args(["serve", "--tls-cert", "x", "--unauthenticated-connections", "0"]));
    assert_eq!((code, out.as_str()), (1, ""));
    let file = file.display();
    let expected_lines = [
        format!("error: {file}:2: unknown key \"htpp\", did you mean http?"),
        format!("error: {file}:3: sftp: give a text in quotation marks"),
        "error: PATGATE_DURABILITY: durability = \"some\": give full or fast".to_owned(),
        "error: --unauthenticated-connections: unauthenticated_connections = \"0\": give a whole number from 1 to 1000000".to_owned(),
        format!("error: {file}:1: root: /nowhere is not a directory"),
        "error: --tls-cert: tls_cert needs tls_key".to_owned(),
    ];
    let lines: Vec<_> = err.lines().collect();
    assert_eq!(lines[..lines.len() - 1], expected_lines, "{err}");
    assert!(lines[lines.len() - 1].starts_with("hint: "), "{err}");
}

#[test]
fn empty_environment_variable_counts_as_unset() {
    let fixture = CliFixture::with_alice();
    for variable in ["PATGATE_CA_FILE", "PATGATE_CONFIG", "PATGATE_SERVER", "PATGATE_TOKEN"] {
        let CommandOutput { code, stdout: out, stderr: err } =
            command_output(fixture.command().env(variable, "").args(["admin", "user", "list"]));
        assert_eq!((code, err.as_str()), (0, ""), "{variable}");
        assert!(out.contains("alice"), "{variable}: {out}");
    }
}

#[test]
fn completions_and_manual_pages_are_written() {
    let fixture = CliFixture::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(fixture.run_ok(&format!("completions {shell}")).contains("apitoken"), "{shell}");
    }
    let man = fixture.folder.path().join("man");
    fixture.run_ok(&format!("man {}", man.display()));
    let page = fs::read_to_string(man.join("patgate-admin-user-token.1")).expect("a page");
    assert!(page.contains("24h"), "{page}");
}
