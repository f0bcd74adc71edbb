//! The commands as other programs see them: output, exit codes, and what is kept.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

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
struct Site {
    folder: TempDir,
}

/// What a command answered.
struct Answer {
    code: i32,
    out: String,
    err: String,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let root = folder.path().join("files");
        fs::create_dir_all(root.join("alice/below")).expect("folders");
        fs::create_dir_all(root.join("bob")).expect("folders");
        fs::write(root.join("alice/below/file"), "x").expect("file");
        Self { folder }
    }

    /// A site with the user alice, who has her home.
    fn with_alice() -> Self {
        let site = Self::new();
        site.done("admin user create alice");
        site
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

    fn run(&self, line: &str) -> Answer {
        answer(self.command().args(line.split_whitespace()))
    }

    /// Runs a command that is expected to do what it is told, and returns what it prints.
    fn done(&self, line: &str) -> String {
        let Answer { code, out, err } = self.run(line);
        assert_eq!((code, err.as_str()), (0, ""), "{line}");
        out
    }

    /// Runs a command that is expected to be refused, and returns why.
    fn refused(&self, line: &str, wanted: i32) -> String {
        let Answer { code, out, err } = self.run(line);
        assert_eq!((code, out.as_str()), (wanted, ""), "{line}: {err}");
        let lines: Vec<_> = err.lines().collect();
        assert!(
            lines.len() == 2 && lines[0].starts_with("error: ") && lines[1].starts_with("hint: "),
            "{line}: one line and a hint, not {err}"
        );
        err
    }

    fn json(&self, line: &str) -> serde_json::Value {
        serde_json::from_str(&self.done(&format!("{line} --json"))).expect(line)
    }

    /// Makes a user and returns a new token of theirs.
    fn token_of(&self, login: &str) -> String {
        self.done(&format!("admin user create {login}"));
        self.done(&format!("admin user token -u {login} -q")).trim().to_owned()
    }

    fn tokens(&self) -> usize {
        self.json("apitoken list").as_array().expect("a list").len()
    }
}

fn answer(command: &mut Command) -> Answer {
    let output = command.output().expect("the program runs");
    Answer {
        code: output.status.code().expect("a code"),
        out: String::from_utf8(output.stdout).expect("text"),
        err: String::from_utf8(output.stderr).expect("text"),
    }
}

fn is_token(text: &str) -> bool {
    text.len() == 51 && text.starts_with("pgt_") && text.as_bytes()[12] == b'.'
}
