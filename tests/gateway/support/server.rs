//! The program serving in a separate process, so that a test can kill it or measure its memory.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};

use super::patgate_command;

/// A gateway in a process of its own.
pub(crate) struct ServerProcess {
    process: Child,
    pub(crate) http: SocketAddr,
    pub(crate) sftp: SocketAddr,
}

impl ServerProcess {
    /// Serves `files` below a folder, with the state beside it.
    pub(crate) fn start(folder: &Path) -> Self {
        Self::start_with_command(patgate_command(&folder.join("state")), folder)
    }

    /// Serves, and writes the whole log to a file, as JSON lines.
    pub(crate) fn start_logging(folder: &Path, log: &Path) -> Self {
        let mut command = patgate_command(&folder.join("state"));
        command.env("PATGATE_LOG", "trace").env("PATGATE_LOG_FORMAT", "json");
        command.stderr(std::fs::File::create(log).expect("a file"));
        Self::start_with_command(command, folder)
    }

    /// Serves with a command to which the arguments of `serve` are added.
    pub(crate) fn start_with_command(mut command: std::process::Command, folder: &Path) -> Self {
        command.args(["serve", "--http", "127.0.0.1:0", "--sftp", "127.0.0.1:0", "--root"]).arg(folder.join("files"));
        let mut process = command.stdout(Stdio::piped()).spawn().expect("the program runs");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let address = |key: &str| {
            let rest = line.split(key).nth(1).expect("the address");
            rest.split_whitespace().next().expect("the address").parse().expect("an address")
        };
        Self { http: address("http=http://"), sftp: address("sftp="), process }
    }

    /// Returns its log, if the command pipes standard error.
    #[allow(dead_code, reason = "for tests/handles")]
    pub(crate) fn take_stderr(&mut self) -> Option<std::process::ChildStderr> {
        self.process.stderr.take()
    }

    /// Returns the peak resident memory, in KiB.
    pub(crate) fn peak_kib(&self) -> u64 {
        self.memory_kib("VmHWM:")
    }

    /// Returns the resident memory, in KiB.
    #[allow(dead_code, reason = "for tests/resilience")]
    pub(crate) fn resident_kib(&self) -> u64 {
        self.memory_kib("VmRSS:")
    }

    fn memory_kib(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("the line");
        line.split_whitespace().next().expect("a number").parse().expect("a number")
    }

    /// Returns `/proc/PID/task/TID/status` of each thread.
    #[allow(dead_code, reason = "for tests/handles")]
    pub(crate) fn thread_statuses(&self) -> Vec<String> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).expect("it runs");
        // One that has ended meanwhile has none.
        threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("status")).ok()).collect()
    }

    /// Returns the soft and the hard limit on open files.
    pub(crate) fn open_file_limits(&self) -> (String, String) {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", self.process.id())).expect("it runs");
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("the line");
        let mut numbers = line.split_whitespace().map(str::to_owned);
        (numbers.next().expect("a number"), numbers.next().expect("a number"))
    }

    /// Returns the number of open descriptors.
    #[allow(dead_code, reason = "for tests/gateway")]
    pub(crate) fn open_descriptor_count(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).expect("it runs").count()
    }

    /// Sets the limit on open files while the server runs.
    #[allow(dead_code, reason = "for tests/gateway")]
    pub(crate) fn limit_descriptors(&self, most: usize) {
        use rustix::process::{Pid, Resource, Rlimit, prlimit};
        let process = Some(Pid::from_child(&self.process));
        let (_, maximum) = self.open_file_limits();
        let limit = Rlimit { current: Some(u64::try_from(most).expect("a number")), maximum: maximum.parse().ok() };
        prlimit(process, Resource::Nofile, limit).expect("set");
    }

    /// Stops the process with SIGTERM.
    pub(crate) fn stop(mut self) {
        let process = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(process, rustix::process::Signal::TERM).expect("told");
        self.process.wait().expect("ended");
    }

    /// Returns a function that kills the process with SIGKILL.
    pub(crate) fn killer(&self) -> impl FnOnce() + use<> {
        let process = rustix::process::Pid::from_child(&self.process);
        move || rustix::process::kill_process(process, rustix::process::Signal::KILL).expect("it runs")
    }

    /// Kills the process with SIGKILL.
    pub(crate) fn kill(self) {
        drop(self);
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the paths in the staging directory of a served directory, without the marker of the tree.
pub(crate) fn staged_entries(root: &Path) -> Vec<std::path::PathBuf> {
    let Ok(staging) = std::fs::read_dir(root.join(".patgate")) else { return Vec::new() };
    let entries = staging.map(|entry| entry.expect("an entry"));
    entries.filter(|entry| entry.file_name() != "tree.id").map(|entry| entry.path()).collect()
}

/// Creates a token of a user, valid for an hour, in the state below a folder.
pub(crate) fn create_token(folder: &Path, login: &str) -> String {
    run_cli(folder, &["admin", "user", "token", "-u", login, "-e", "1h", "-q"])
}

/// Runs the program on the state below a folder and returns what it printed.
pub(crate) fn run_cli(folder: &Path, arguments: &[&str]) -> String {
    let output = patgate_command(&folder.join("state")).args(arguments).output().expect("the program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}
