//! The command line as scripts and people use it: output, exit codes, and what each command changes. Commands over the
//! network are in `tests/gateway/rest_cli.rs` and `remote_tls.rs`.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod audit;
mod backup;
mod serving;
mod signals;
mod state;
mod tokens;
mod usage;
mod users;

use std::fs;
use std::path::PathBuf;

use assert_cmd::Command;
use tempfile::TempDir;

/// A state directory and a folder with `/alice/below/file` and `/bob`.
struct CliFixture {
    folder: TempDir,
}

/// Result of a command.
struct CommandOutput {
    code: i32,
    stdout: String,
    stderr: String,
}

impl CliFixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let root = folder.path().join("files");
        fs::create_dir_all(root.join("alice/below")).expect("folders");
        fs::create_dir_all(root.join("bob")).expect("folders");
        fs::write(root.join("alice/below/file"), "x").expect("file");
        Self { folder }
    }

    /// Returns a fixture with the user alice, who has a home.
    fn with_alice() -> Self {
        let fixture = Self::new();
        fixture.run_ok("admin user create alice");
        fixture
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("files")
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn command(&self) -> Command {
        let mut command = Command::cargo_bin("patgate").expect("the program");
        command.env_clear().env("PATGATE_STATE", self.state()).env("PATGATE_ROOT", self.root());
        command
    }

    fn run(&self, line: &str) -> CommandOutput {
        command_output(self.command().args(line.split_whitespace()))
    }

    /// Runs a command that must succeed, and returns its output.
    fn run_ok(&self, line: &str) -> String {
        let CommandOutput { code, stdout: out, stderr: err } = self.run(line);
        assert_eq!((code, err.as_str()), (0, ""), "{line}");
        out
    }

    /// Runs a command that must be refused, and returns the error.
    fn run_refused(&self, line: &str, expected_code: i32) -> String {
        let CommandOutput { code, stdout: out, stderr: err } = self.run(line);
        assert_eq!((code, out.as_str()), (expected_code, ""), "{line}: {err}");
        let lines: Vec<_> = err.lines().collect();
        assert!(
            lines.len() == 2 && lines[0].starts_with("error: ") && lines[1].starts_with("hint: "),
            "{line}: one line and a hint, not {err}"
        );
        err
    }

    fn run_json(&self, line: &str) -> serde_json::Value {
        serde_json::from_str(&self.run_ok(&format!("{line} --json"))).expect(line)
    }

    /// Creates a user and returns a new token of theirs.
    fn create_user_and_token(&self, login: &str) -> String {
        self.run_ok(&format!("admin user create {login}"));
        self.run_ok(&format!("admin user token -u {login} -q")).trim().to_owned()
    }

    fn token_count(&self) -> usize {
        self.run_json("apitoken list").as_array().expect("a list").len()
    }
}

fn command_output(command: &mut Command) -> CommandOutput {
    let output = command.output().expect("the program runs");
    CommandOutput {
        code: output.status.code().expect("a code"),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

fn is_token(text: &str) -> bool {
    text.len() == 51 && text.starts_with("pgt_") && text.as_bytes()[12] == b'.'
}
