//! The gateway as a process that is killed and started again, on a small disk and with a clock that is set.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::mounts::{MountGuard, can_mount};
use crate::support::patgate_command;

/// Time from the start of the program to its first line, on a machine that others use as well.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Room on the disk for folder and state: enough for all that the clients have at once.
const DISK_OPTION: &str = "size=256m";
/// Where Debian has the library that shifts a program's time of day.
const CLOCK_LIBRARIES: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1"];

/// Resources that the process has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ResourceSample {
    pub(crate) resident_kib: u64,
    pub(crate) descriptors: usize,
    pub(crate) threads: u64,
}

/// The process, its folders, and where it listens: at the same ports after each start.
pub(crate) struct GatewayProcess {
    folder: tempfile::TempDir,
    disk: Option<MountGuard>,
    clock_library: Option<&'static str>,
    running: Mutex<Option<Child>>,
    pub(crate) http: SocketAddr,
    pub(crate) sftp: SocketAddr,
}

impl GatewayProcess {
    /// Prepares the folders and starts the gateway for the first time.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = can_mount().then(|| {
            MountGuard::with_arguments(&["-t", "tmpfs", "-o", DISK_OPTION, "tmpfs"], &folder.path().join("disk"))
        });
        fs::create_dir_all(folder.path().join("disk/files")).expect("a folder");
        let clock_library = CLOCK_LIBRARIES.into_iter().find(|library| Path::new(library).exists());
        let anywhere: SocketAddr = ([127, 0, 0, 1], 0).into();
        let mut gateway =
            Self { folder, disk, clock_library, running: Mutex::default(), http: anywhere, sftp: anywhere };
        gateway.shift_clock(0);
        let line = gateway.spawn().expect("the gateway starts");
        let address = |key: &str| {
            let rest = line.split(key).nth(1).expect("the address");
            rest.split_whitespace().next().expect("the address").parse().expect("an address")
        };
        (gateway.http, gateway.sftp) = (address("http=http://"), address("sftp="));
        gateway
    }

    /// Starts the gateway again; returns how long it took until it was ready, or why it never was.
    pub(crate) fn restart(&self) -> Result<Duration, String> {
        let start = Instant::now();
        self.spawn().map(|_| start.elapsed())
    }

    fn spawn(&self) -> Result<String, String> {
        let log = File::options().create(true).append(true).open(self.log_path()).expect("a file");
        let mut command = self.command();
        command.args(["serve", "--http", &self.http.to_string(), "--sftp", &self.sftp.to_string()]);
        // Dead tokens are tried on purpose, all from one address.
        command.args(["--ban-after", "0", "--root"]).arg(self.root());
        let mut process = command.stdout(Stdio::piped()).stderr(log).spawn().map_err(|error| error.to_string())?;
        let output = process.stdout.take().expect("piped");
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(output).read_line(&mut line);
            sender.send(line)
        });
        let line = receiver.recv_timeout(READY_TIMEOUT).unwrap_or_default();
        if line.contains(" ready ") {
            *self.running.lock().expect("no panic") = Some(process);
            return Ok(line);
        }
        let _ = process.kill();
        let status = process.wait();
        Err(format!("not ready within {READY_TIMEOUT:?}: {status:?}, {line:?}"))
    }

    /// Returns the program with the state and the clock of the gateway.
    pub(crate) fn command(&self) -> Command {
        let mut command = patgate_command(&self.folder.path().join("disk/state"));
        if let Some(library) = self.clock_library {
            command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", self.clock_path());
            // The time of day alone: nobody can set the time since the start of the machine.
            command.env("DONT_FAKE_MONOTONIC", "1").env("FAKETIME_CACHE_DURATION", "1");
        }
        command
    }

    /// Runs a command; its output if it has succeeded.
    pub(crate) fn run_cli(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.command().args(arguments).stdin(Stdio::null()).output().expect("the program runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&[output.stdout, output.stderr].concat()))
        }
    }

    /// Ends the process as a power cut does.
    pub(crate) fn kill(&self) {
        if let Some(mut process) = self.running.lock().expect("no panic").take() {
            process.kill().expect("killed");
            process.wait().expect("it ends");
        }
    }

    /// Ends the process as a service manager does.
    pub(crate) fn terminate(&self) {
        if let Some(mut process) = self.running.lock().expect("no panic").take() {
            kill_process(Pid::from_child(&process), Signal::TERM).expect("told");
            process.wait().expect("it ends");
        }
    }

    /// Has the process read its configuration again; false if it has ended.
    pub(crate) fn reload(&self) -> bool {
        let mut running = self.running.lock().expect("no panic");
        let Some(process) = running.as_mut() else { return false };
        kill_process(Pid::from_child(process), Signal::HUP).is_ok() && matches!(process.try_wait(), Ok(None))
    }

    pub(crate) fn has_small_disk(&self) -> bool {
        self.disk.is_some()
    }

    pub(crate) fn has_clock(&self) -> bool {
        self.clock_library.is_some()
    }

    /// Sets the clock so many seconds ahead of the machine's, or behind it.
    pub(crate) fn shift_clock(&self, seconds: i64) {
        // By a rename: a program that reads the file meanwhile has one or the other.
        let new = self.clock_path().with_extension("new");
        fs::write(&new, format!("{seconds:+}s\n")).expect("written");
        fs::rename(new, self.clock_path()).expect("renamed");
    }

    /// Takes all that is free on the disk.
    pub(crate) fn fill_disk(&self) {
        let mut file = File::options().create(true).append(true).open(self.filler_path()).expect("a file");
        for size in [1 << 20, 4096] {
            let block = vec![0x5a; size];
            while file.write_all(&block).is_ok() {}
        }
    }

    pub(crate) fn empty_disk(&self) {
        let _ = fs::remove_file(self.filler_path());
    }

    pub(crate) fn sample(&self) -> Option<ResourceSample> {
        let pid = self.running.lock().expect("no panic").as_ref()?.id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
        Some(ResourceSample { resident_kib: number("VmRSS:")?, descriptors, threads: number("Threads:")? })
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("disk/files")
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn clock_path(&self) -> PathBuf {
        self.folder.path().join("clock")
    }

    fn filler_path(&self) -> PathBuf {
        self.folder.path().join("disk/filler")
    }
}

impl Drop for GatewayProcess {
    fn drop(&mut self) {
        self.kill();
    }
}
