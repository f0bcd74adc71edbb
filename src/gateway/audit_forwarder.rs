//! Forwarding of audit events to a file and to a syslog receiver, for a collector. Each has a thread and a bounded queue of its
//! own, so that a slow one delays neither the other nor the gateway. What finds its queue full is dropped, counted, and
//! reported to the receiver and to the log; the rows stay in the store, by whose numbers a collector sees what it lacks.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::domain::SyslogTarget;
use crate::net::SyslogSender;
use crate::store::{AuditRow, ChainItem, Store, StoreError};

/// Maximum number of events that wait for one receiver.
const QUEUED_EVENTS: usize = 4096;
/// Number of rows that are read from the store at once.
const ROWS_PER_READ: usize = 500;
/// Time between two attempts to deliver an event.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum time for which a stopping server waits for receivers.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Facility "log audit" and severity "informational" of RFC 5424.
const SYSLOG_PRIORITY: u32 = 13 * 8 + 6;

/// Where audit events are forwarded to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditForwardingSettings {
    /// File to which they are appended, as JSON lines.
    pub file: Option<PathBuf>,
    /// Syslog receiver.
    pub syslog: Option<SyslogTarget>,
}

/// Receiver of audit events.
trait AuditSink: Send {
    /// Delivers an event.
    fn deliver(&mut self, event: &ForwardedEvent) -> io::Result<()>;
    /// Opens its file again.
    fn reopen(&mut self);
}

/// Event on its way to a receiver.
struct ForwardedEvent {
    /// The row as JSON.
    json: String,
    /// Time of the event, and its kind.
    at: String,
    kind: String,
}

/// Flags and counts that the thread of a receiver shares with the gateway.
#[derive(Default)]
struct ForwarderState {
    dropped: AtomicU64,
    must_reopen: AtomicBool,
    is_closing: AtomicBool,
}

/// Queue of one receiver.
struct ForwarderQueue {
    name: &'static str,
    sender: SyncSender<ForwardedEvent>,
    state: Arc<ForwarderState>,
    thread: JoinHandle<()>,
}

/// Handle by which a reload makes receivers open their files again.
#[derive(Clone, Default)]
pub(super) struct ForwarderReloader(Arc<[Arc<ForwarderState>]>);

/// Forwarding of audit events to all receivers.
#[derive(Default)]
pub(super) struct AuditForwarder {
    queues: Vec<ForwarderQueue>,
    /// Number of the last row that was forwarded; unknown until the store could be read.
    last_forwarded: Option<u64>,
}

impl AuditForwarder {
    /// Starts the threads of the receivers. Rows from now on are forwarded.
    ///
    /// # Errors
    /// Those of starting a thread.
    pub(super) fn start(settings: &AuditForwardingSettings, store: &Store) -> io::Result<Self> {
        let mut queues = Vec::new();
        if let Some(path) = &settings.file {
            queues.push(ForwarderQueue::start("audit_file", FileSink { path: path.clone(), file: None })?);
        }
        if let Some(target) = &settings.syslog {
            let sink = SyslogSink { sender: SyslogSender::new(target.clone()), host: host_name() };
            queues.push(ForwarderQueue::start("audit_syslog", sink)?);
        }
        let last_forwarded = if queues.is_empty() { None } else { store.latest_event_id().ok() };
        Ok(Self { queues, last_forwarded })
    }

    /// Returns the handle of a reload.
    pub(super) fn reloader(&self) -> ForwarderReloader {
        ForwarderReloader(self.queues.iter().map(|queue| Arc::clone(&queue.state)).collect())
    }

    /// Queues the rows that were recorded since the last call, by whichever process.
    pub(super) fn forward_new_events(&mut self, store: &Store) -> Result<(), StoreError> {
        if self.queues.is_empty() {
            return Ok(());
        }
        let mut last = match self.last_forwarded {
            Some(last) => last,
            // Unknown after a failed read at the start.
            None => store.latest_event_id()?,
        };
        loop {
            let items = store.audit_chain(last, ROWS_PER_READ)?.items;
            items.iter().for_each(|item| self.enqueue(item));
            last = items.last().map_or(last, ChainItem::number);
            // After each page, so that a failure later on forwards no row twice.
            self.last_forwarded = Some(last);
            if items.len() < ROWS_PER_READ {
                return Ok(());
            }
        }
    }

    fn enqueue(&self, item: &ChainItem) {
        let ChainItem::Row(row) = item else { return };
        for queue in &self.queues {
            if queue.sender.try_send(ForwardedEvent::new(row)).is_err() {
                queue.state.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Lets the threads deliver what is queued, and waits for that for some seconds.
    pub(super) fn close(mut self) {
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        for ForwarderQueue { name, sender, state, thread } in std::mem::take(&mut self.queues) {
            // A failing receiver gets no further attempt; one that works is sent all that is queued.
            state.is_closing.store(true, Ordering::Relaxed);
            drop(sender);
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
            if !thread.is_finished() {
                tracing::warn!("{name} does not take events: those that are queued are not forwarded");
            }
        }
    }
}

impl Drop for AuditForwarder {
    fn drop(&mut self) {
        // Of a gateway that never ran: a thread whose receiver fails would go on trying.
        self.queues.iter().for_each(|queue| queue.state.is_closing.store(true, Ordering::Relaxed));
    }
}

impl ForwarderReloader {
    /// Makes receivers open their files again, before the next event.
    pub(super) fn reopen(&self) {
        self.0.iter().for_each(|state| state.must_reopen.store(true, Ordering::Relaxed));
    }
}

impl ForwarderQueue {
    fn start(name: &'static str, sink: impl AuditSink + 'static) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUED_EVENTS);
        let state = Arc::new(ForwarderState::default());
        let worker = ForwarderThread { name, sink, state: Arc::clone(&state), is_failing: false };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || worker.run(&receiver))?;
        Ok(Self { name, sender, state, thread })
    }
}

/// Thread of one receiver.
struct ForwarderThread<S> {
    name: &'static str,
    sink: S,
    state: Arc<ForwarderState>,
    is_failing: bool,
}

impl<S: AuditSink> ForwarderThread<S> {
    fn run(mut self, receiver: &Receiver<ForwardedEvent>) {
        loop {
            // With a timeout, so that dropped events are reported also where no further event comes.
            match receiver.recv_timeout(RETRY_INTERVAL) {
                Ok(event) => self.deliver(&event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.report_dropped();
        }
    }

    /// Delivers an event, and tries again until that succeeds or the server stops.
    fn deliver(&mut self, event: &ForwardedEvent) {
        loop {
            if self.state.must_reopen.swap(false, Ordering::Relaxed) {
                self.sink.reopen();
            }
            match self.sink.deliver(event) {
                Ok(()) => {
                    if std::mem::take(&mut self.is_failing) {
                        tracing::info!("{} takes audit events again", self.name);
                    }
                    return;
                }
                // Once, and not every second.
                Err(error) if !self.is_failing => {
                    tracing::warn!(%error, "{} takes no audit events: they are queued", self.name);
                    self.is_failing = true;
                }
                Err(_) => {}
            }
            if self.state.is_closing.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(RETRY_INTERVAL);
        }
    }

    fn report_dropped(&mut self) {
        let dropped = self.state.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            tracing::warn!("{dropped} audit events were not forwarded to {}: its queue was full", self.name);
            self.deliver(&ForwardedEvent::dropped(dropped));
        }
    }
}

impl ForwardedEvent {
    fn new(row: &AuditRow) -> Self {
        Self { json: row.to_json(), at: row.at.clone(), kind: row.event.clone() }
    }

    /// Returns the event that reports dropped ones.
    fn dropped(count: u64) -> Self {
        Self { json: format!("{{\"dropped\":{count}}}"), at: "-".to_owned(), kind: "dropped".to_owned() }
    }
}

/// File to which events are appended, as JSON lines.
struct FileSink {
    path: PathBuf,
    file: Option<File>,
}

impl AuditSink for FileSink {
    fn deliver(&mut self, event: &ForwardedEvent) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            closed => {
                let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
                closed.insert(opened)
            }
        };
        // In one write, so that lines of several servers in one file don't mix.
        let written = file.write_all(format!("{}\n", event.json).as_bytes());
        if written.is_err() {
            self.file = None;
        }
        written
    }

    fn reopen(&mut self) {
        self.file = None;
    }
}

/// Syslog receiver.
struct SyslogSink {
    sender: SyslogSender,
    host: String,
}

impl AuditSink for SyslogSink {
    fn deliver(&mut self, event: &ForwardedEvent) -> io::Result<()> {
        let ForwardedEvent { json, at, kind } = event;
        let (host, process) = (&self.host, std::process::id());
        let message = format!("<{SYSLOG_PRIORITY}>1 {at} {host} patgate {process} {kind} - {json}");
        self.sender.send(message.as_bytes())
    }

    fn reopen(&mut self) {}
}

/// Returns the name of this machine as syslog messages have it; `-` where it is unknown.
pub(super) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.trim().chars().filter(char::is_ascii_graphic).take(255).collect();
    if name.is_empty() { "-".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AuditEvent, EventKind};
    use crate::store::testing::{now, open_temp_store};

    fn record(store: &Store, count: usize) {
        let events: Vec<_> = (0..count).map(|_| AuditEvent::new(now(), EventKind::TokenCreated)).collect();
        store.record_events(&events).expect("recorded");
    }

    fn file_settings(path: PathBuf) -> AuditForwardingSettings {
        AuditForwardingSettings { file: Some(path), syslog: None }
    }

    fn ids(path: &std::path::Path) -> Vec<String> {
        let text = std::fs::read_to_string(path).expect("read");
        let id = |line: &str| line.trim_start_matches("{\"id\":").split(',').next().unwrap_or_default().to_owned();
        text.lines().map(id).collect()
    }

    #[test]
    fn new_events_are_appended_to_the_file_and_it_is_reopened() {
        let (temp_dir, store) = open_temp_store();
        record(&store, 2);
        let path = temp_dir.path().join("audit.jsonl");
        let mut forwarder = AuditForwarder::start(&file_settings(path.clone()), &store).expect("started");
        record(&store, 2);
        forwarder.forward_new_events(&store).expect("read");
        forwarder.forward_new_events(&store).expect("read");
        while !path.exists() || ids(&path).len() < 2 {
            std::thread::yield_now();
        }
        assert_eq!(ids(&path), ["3", "4"], "those from before the start are not among them");
        std::fs::rename(&path, temp_dir.path().join("rotated")).expect("rotated");
        forwarder.reloader().reopen();
        record(&store, 1);
        forwarder.forward_new_events(&store).expect("read");
        forwarder.close();
        assert_eq!(ids(&path), ["5"]);
        assert_eq!(ids(&temp_dir.path().join("rotated")), ["3", "4"]);
    }

    #[test]
    fn dropped_events_are_counted_and_reported_to_the_receiver() {
        let (temp_dir, store) = open_temp_store();
        let path = temp_dir.path().join("none/audit.jsonl");
        let mut forwarder = AuditForwarder::start(&file_settings(path.clone()), &store).expect("started");
        record(&store, QUEUED_EVENTS + 100);
        forwarder.forward_new_events(&store).expect("read");
        std::fs::create_dir(temp_dir.path().join("none")).expect("created");
        while !path.exists() || !std::fs::read_to_string(&path).expect("read").contains("dropped") {
            std::thread::yield_now();
        }
        forwarder.close();
        let lines = ids(&path);
        let dropped = lines.iter().find_map(|line| line.strip_prefix("{\"dropped\":")).expect("reported");
        let dropped: usize = dropped.trim_end_matches('}').parse().expect("a number");
        // One event has left the queue for the thread that tries to deliver it, or not yet.
        assert!((99..=100).contains(&dropped), "{dropped}");
        assert_eq!(lines.len() - 1 + dropped, QUEUED_EVENTS + 100);
    }

    #[test]
    fn syslog_message_has_the_header_of_rfc_5424() {
        let (temp_dir, store) = open_temp_store();
        let path = temp_dir.path().join("log");
        let receiver = std::os::unix::net::UnixDatagram::bind(&path).expect("bound");
        let settings = AuditForwardingSettings { file: None, syslog: Some(SyslogTarget::Unix(path)) };
        let mut forwarder = AuditForwarder::start(&settings, &store).expect("started");
        record(&store, 1);
        forwarder.forward_new_events(&store).expect("read");
        let mut buffer = [0; 2048];
        let length = receiver.recv(&mut buffer).expect("received");
        let text = String::from_utf8_lossy(&buffer[..length]);
        let words: Vec<_> = text.splitn(8, ' ').collect();
        assert_eq!(
            (words[0], words[1], words[3], words[5], words[6]),
            ("<110>1", "2026-05-05T08:00:00Z", "patgate", "token.created", "-")
        );
        assert!(words[7].starts_with("{\"id\":1,"), "{text}");
        forwarder.close();
    }
}
