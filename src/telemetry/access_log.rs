//! The access log: one line an operation, written by a thread of its own.
//!
//! Whoever reports an operation puts its line into a bounded queue and never waits. When the queue is full, as with a disk
//! that hangs, lines are dropped and counted.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::access_log_line::{AccessLogFormat, LoginResult, OperationDetails, format_line, is_change};
use super::operation::FinishedOperation;

/// Maximum number of lines in the queue.
const MAX_QUEUED_LINES: usize = 8192;
/// Maximum number of bytes of the lines in the queue.
const MAX_QUEUED_BYTES: usize = 8 << 20;
/// Number of bytes that are written at once.
const WRITE_BYTES: usize = 64 << 10;
/// Time between two warnings of dropped lines.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);
/// Time after which the thread looks for a request to open the file anew.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);
/// Mode of a new file: whoever may read logs, and nobody else.
const FILE_MODE: u32 = 0o640;

/// Place that the lines are written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogTarget {
    /// A file, which is created where it does not exist.
    File(PathBuf),
    /// Standard error, among the lines of the log.
    Stderr,
}

/// Settings of an access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogSettings {
    /// Place that the lines are written to.
    pub target: AccessLogTarget,
    /// Format of the lines.
    pub format: AccessLogFormat,
    /// Whether only operations that may change something are logged, and refused logins.
    pub writes_only: bool,
}

/// An open access log.
pub(super) struct AccessLog {
    settings: AccessLogSettings,
    shared: Arc<WriterState>,
    sender: Mutex<Option<SyncSender<QueueItem>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// State that the thread shares with those who report.
#[derive(Default)]
struct WriterState {
    queued_bytes: AtomicUsize,
    must_reopen: AtomicBool,
    written_lines: AtomicU64,
    dropped_lines: AtomicU64,
}

enum QueueItem {
    Line(Vec<u8>),
    /// Wakes the thread.
    Wake,
}

impl AccessLog {
    /// Opens the target and starts the thread.
    ///
    /// # Errors
    /// The error of the file, or that no thread can be started.
    pub(super) fn open(settings: AccessLogSettings) -> io::Result<Self> {
        let output = LogOutput::open(&settings.target)?;
        let (sender, receiver) = mpsc::sync_channel(MAX_QUEUED_LINES);
        let shared = Arc::<WriterState>::default();
        let writer = AccessLogWriter {
            target: settings.target.clone(),
            output: Some(output),
            shared: Arc::clone(&shared),
            warned: None,
            is_line_open: false,
        };
        let thread =
            thread::Builder::new().name("patgate-access-log".to_owned()).spawn(move || writer.run(&receiver))?;
        Ok(Self { settings, shared, sender: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)) })
    }

    /// Writes the line of an operation, unless it is of a kind that is not logged.
    pub(super) fn log(&self, operation: &FinishedOperation, details: &OperationDetails) {
        let is_refused = details.login == Some(LoginResult::Refused);
        if self.settings.writes_only && !is_refused && !is_change(operation.kind) {
            return;
        }
        self.enqueue(format_line(self.settings.format, operation, details));
    }

    fn enqueue(&self, line: Vec<u8>) {
        let length = line.len();
        let queued = self.shared.queued_bytes.fetch_add(length, Ordering::AcqRel);
        let send = |sender: &SyncSender<QueueItem>| sender.try_send(QueueItem::Line(line)).is_ok();
        let is_queued =
            queued.saturating_add(length) <= MAX_QUEUED_BYTES && self.sender.lock().as_ref().is_some_and(send);
        if !is_queued {
            self.shared.queued_bytes.fetch_sub(length, Ordering::AcqRel);
            self.shared.dropped_lines.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Has the file opened anew, before the next line is written: it was renamed.
    pub(super) fn reopen(&self) {
        self.shared.must_reopen.store(true, Ordering::Release);
        // A full queue needs no waking.
        let _ = self.sender.lock().as_ref().map(|sender| sender.try_send(QueueItem::Wake));
    }

    /// Returns how many lines were written, and how many were dropped.
    pub(super) fn line_counts(&self) -> (u64, u64) {
        (self.shared.written_lines.load(Ordering::Relaxed), self.shared.dropped_lines.load(Ordering::Relaxed))
    }

    /// Writes what is in the queue and ends the thread. May block.
    pub(super) fn close(&self) {
        drop(self.sender.lock().take());
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

/// Open target of the lines.
enum LogOutput {
    File(File),
    Stderr,
}

impl LogOutput {
    fn open(target: &AccessLogTarget) -> io::Result<Self> {
        match target {
            AccessLogTarget::File(path) => {
                let file = OpenOptions::new().create(true).append(true).mode(FILE_MODE).open(path)?;
                Ok(Self::File(file))
            }
            AccessLogTarget::Stderr => Ok(Self::Stderr),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.write_all(bytes),
            Self::Stderr => io::stderr().lock().write_all(bytes),
        }
    }
}

/// The thread that writes.
struct AccessLogWriter {
    target: AccessLogTarget,
    /// `None` after the file could not be opened anew.
    output: Option<LogOutput>,
    shared: Arc<WriterState>,
    /// Instant of the last warning of dropped lines, and how many had been dropped by then.
    warned: Option<(Instant, u64)>,
    /// Whether the last write has left a part of a line behind.
    is_line_open: bool,
}

impl AccessLogWriter {
    fn run(mut self, receiver: &Receiver<QueueItem>) {
        loop {
            let first = receiver.recv_timeout(IDLE_INTERVAL);
            // Before the line that was just taken. Others may be written to the old file for a moment, which is there still.
            if self.shared.must_reopen.swap(false, Ordering::AcqRel) {
                self.reopen();
            }
            match first {
                Ok(item) => self.write_batch(item, receiver),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.warn_of_dropped_lines();
        }
    }

    /// Writes an item and those that wait behind it.
    fn write_batch(&mut self, first: QueueItem, receiver: &Receiver<QueueItem>) {
        let (mut bytes, mut lines) = (Vec::new(), 0);
        let mut next = Some(first);
        while let Some(item) = next {
            if let QueueItem::Line(line) = item {
                self.shared.queued_bytes.fetch_sub(line.len(), Ordering::AcqRel);
                bytes.extend_from_slice(&line);
                lines += 1;
            }
            next = if bytes.len() < WRITE_BYTES { receiver.try_recv().ok() } else { None };
        }
        if bytes.is_empty() {
            return;
        }
        // After a write that failed half-way, so that the next line is one of its own.
        if self.is_line_open {
            bytes.insert(0, b'\n');
        }
        if self.output.is_none() {
            self.reopen();
        }
        let written = self.output.as_mut().is_some_and(|output| output.write_all(&bytes).is_ok());
        self.is_line_open = !written;
        let counter = if written { &self.shared.written_lines } else { &self.shared.dropped_lines };
        counter.fetch_add(lines, Ordering::Relaxed);
    }

    fn reopen(&mut self) {
        match LogOutput::open(&self.target) {
            Ok(output) => {
                self.output = Some(output);
                self.is_line_open = false;
            }
            // The old file stays in use: its lines are not lost.
            Err(error) => tracing::error!(%error, "the access log can't be opened anew"),
        }
    }

    fn warn_of_dropped_lines(&mut self) {
        let dropped = self.shared.dropped_lines.load(Ordering::Relaxed);
        let (is_due, before) = match self.warned {
            Some((at, before)) => (at.elapsed() >= WARNING_INTERVAL, before),
            None => (true, 0),
        };
        if is_due && dropped > before {
            tracing::warn!(
                "{} lines of the access log were dropped: its queue is full, or it can't be written",
                dropped - before
            );
            self.warned = Some((Instant::now(), dropped));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn settings(path: PathBuf) -> AccessLogSettings {
        AccessLogSettings { target: AccessLogTarget::File(path), format: AccessLogFormat::Json, writes_only: false }
    }

    fn line(number: usize) -> Vec<u8> {
        format!("{number}\n").into_bytes()
    }

    #[test]
    fn rotation_loses_no_line_and_repeats_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("access.log");
        let log = AccessLog::open(settings(path.clone())).expect("opened");
        assert_eq!(std::fs::metadata(&path).expect("created").permissions().mode() & 0o777 & !0o640, 0);
        for round in 0..5 {
            for number in 0..1000 {
                log.enqueue(line(round * 1000 + number));
            }
            // Goes on in the renamed file until the request is seen.
            std::fs::rename(&path, folder.path().join(format!("access.log.{round}"))).expect("renamed");
            log.reopen();
            while !path.exists() {
                thread::yield_now();
            }
        }
        log.close();
        let mut all = Vec::new();
        for entry in std::fs::read_dir(folder.path()).expect("a folder") {
            let text = std::fs::read_to_string(entry.expect("an entry").path()).expect("text");
            all.extend(text.lines().map(|line| line.parse::<usize>().expect("a whole line")));
        }
        all.sort_unstable();
        assert_eq!(all, (0..5000).collect::<Vec<_>>());
        assert_eq!(log.line_counts(), (5000, 0));
    }

    #[test]
    fn full_queue_drops_lines_and_waits_for_nobody() {
        let folder = tempfile::tempdir().expect("a folder");
        // A pipe that nobody reads, and so a disk that hangs.
        let path = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo runs");
        assert!(made.success());
        let _reader = OpenOptions::new().read(true).write(true).open(&path).expect("opened");
        let log = AccessLog::open(settings(path)).expect("opened");
        let large = vec![b'x'; 4096];
        for _ in 0..3 * MAX_QUEUED_BYTES / large.len() {
            log.enqueue(large.clone());
        }
        let (_, dropped) = log.line_counts();
        assert!(dropped > 0, "the queue is bounded by bytes");
        assert!(log.shared.queued_bytes.load(Ordering::Acquire) <= MAX_QUEUED_BYTES);
        for number in 0..2 * MAX_QUEUED_LINES {
            log.enqueue(line(number));
        }
        assert!(log.line_counts().1 > dropped);
        // Not closed: its thread waits for the pipe, for ever.
        std::mem::forget(log);
    }

    #[test]
    fn line_after_a_failed_write_is_one_of_its_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("access.log");
        std::fs::write(&path, "a part of a li").expect("written");
        let shared = Arc::<WriterState>::default();
        let target = AccessLogTarget::File(path.clone());
        let output = LogOutput::open(&target).expect("opened");
        let mut writer = AccessLogWriter {
            target,
            output: Some(output),
            shared: Arc::clone(&shared),
            warned: None,
            is_line_open: true,
        };
        let (_sender, receiver) = mpsc::sync_channel(1);
        shared.queued_bytes.store(2, Ordering::Release);
        writer.write_batch(QueueItem::Line(line(1)), &receiver);
        assert_eq!(std::fs::read_to_string(path).expect("text"), "a part of a li\n1\n");
    }
}
