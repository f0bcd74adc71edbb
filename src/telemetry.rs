//! What the gateway says of itself: the log, counts of finished operations ([`operation`]) with their metrics,
//! and the access log ([`access_log`]).
//!
//! The log is tracing to stderr, as text or JSON lines, and among it the audit trail, under the target `patgate::audit`. No secret is ever an argument of an event, and of a token that somebody put
//! into a path or a name the secret is struck from what is written, whoever logs it.

mod access_log;
mod access_log_line;
pub mod metric_catalog;
mod metrics_page;
mod operation;
mod operation_counters;
mod process_usage;
mod user_counters;

use std::hash::{BuildHasher, RandomState};
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::MakeWriterExt;
use tracing_subscriber::reload::Handle;

use crate::domain::{AuditEvent, EventKind, Login, StripedCounters, escape_for_terminal, redact_tokens_in_bytes};

use access_log::AccessLog;
pub use access_log::{AccessLogSettings, AccessLogTarget};
pub use access_log_line::{AccessLogFormat, LoginResult, OperationDetails, decoded_path};
pub use metrics_page::{METRICS_MEDIA_TYPE, MetricsPage};
pub use operation::{FinishedOperation, HttpArea, HttpMethodName, OperationKind, OperationStatus, SftpRequestName};
use operation_counters::OperationCounters;
pub use operation_counters::OperationCounts;
pub use process_usage::{add_process_metrics, unix_seconds};
use user_counters::UserCounters;
pub use user_counters::{MAX_COUNTED_USERS, UserOperationCounts, UserOperations};

/// Record of what was done since the start. Every operation is reported to it once, when it has ended.
pub struct OperationRecorder {
    operations: OperationCounters,
    audit_events: StripedCounters,
    /// Counts by user; `None` where they aren't asked for.
    users: Option<UserCounters>,
    access_log: Option<AccessLog>,
    /// Differs from process to process, so that ids of requests do.
    id_prefix: u32,
    last_id: AtomicU64,
}

impl Default for OperationRecorder {
    fn default() -> Self {
        Self {
            operations: OperationCounters::default(),
            audit_events: StripedCounters::new(EventKind::ALL.len()),
            users: None,
            access_log: None,
            // The keys of the hasher are random; ids need be no secret.
            id_prefix: (RandomState::new().hash_one(()) >> 32) as u32,
            last_id: AtomicU64::new(0),
        }
    }
}

impl OperationRecorder {
    /// Returns the record with an access log.
    ///
    /// # Errors
    /// The error of the log's file.
    pub fn with_access_log(self, settings: AccessLogSettings) -> io::Result<Self> {
        Ok(Self { access_log: Some(AccessLog::open(settings)?), ..self })
    }

    /// Returns the record with counts of operations by user.
    #[must_use]
    pub fn with_user_counts(self) -> Self {
        Self { users: Some(UserCounters::default()), ..self }
    }

    /// Tells whether there is an access log, for which details are needed.
    pub fn is_logging(&self) -> bool {
        self.access_log.is_some()
    }

    /// Returns a new id of a request: 16 hexadecimal digits.
    pub fn next_request_id(&self) -> String {
        let number = self.last_id.fetch_add(1, Ordering::Relaxed);
        format!("{:08x}{number:08x}", self.id_prefix)
    }

    /// Writes the line of an operation to the access log.
    pub fn log(&self, operation: &FinishedOperation, details: &OperationDetails) {
        if let Some(log) = &self.access_log {
            log.log(operation, details);
        }
    }

    /// Has the access log opened anew, after its file was renamed; returns whether there is one.
    pub fn reopen_access_log(&self) -> bool {
        self.access_log.as_ref().map(AccessLog::reopen).is_some()
    }

    /// Writes the lines of the access log that wait, and closes it. May block.
    pub fn close_access_log(&self) {
        if let Some(log) = &self.access_log {
            log.close();
        }
    }

    /// Returns how many lines of the access log were written and dropped; `None` where there is none.
    pub fn access_log_lines(&self) -> Option<(u64, u64)> {
        self.access_log.as_ref().map(AccessLog::line_counts)
    }

    /// Records an operation that has ended.
    pub fn record(&self, operation: &FinishedOperation) {
        self.operations.count(operation);
    }

    /// Returns the counters to which the operations of a user are added; `None` where there are no counts by user.
    pub fn user_operations(&self, login: &Login) -> Option<Arc<UserOperations>> {
        self.users.as_ref().map(|users| users.of_user(login))
    }

    /// Returns the counts of operations by user; `None` where there are none.
    pub fn user_operation_counts(&self) -> Option<Vec<UserOperationCounts>> {
        self.users.as_ref().map(UserCounters::counts)
    }

    /// Counts an event of the audit trail.
    pub fn count_audit_event(&self, event: &AuditEvent) {
        if let Some(index) = EventKind::ALL.iter().position(|kind| *kind == event.kind) {
            self.audit_events.add(index, event.count);
        }
    }

    /// Returns the counts of operations, by kind.
    pub fn operation_counts(&self) -> Vec<OperationCounts> {
        self.operations.counts()
    }

    /// Returns the counts of all kinds of audit events.
    pub fn audit_event_counts(&self) -> Vec<(EventKind, u64)> {
        EventKind::ALL.iter().copied().zip(self.audit_events.sums()).collect()
    }
}

/// How events are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Filter of events that was parsed.
pub struct LogFilter(EnvFilter);

/// Handle by which the filter of a running log is replaced.
pub struct LogControl {
    replace_filter: Box<dyn Fn(EnvFilter) + Send + Sync>,
}

impl LogControl {
    fn new<S: 'static>(handle: Handle<EnvFilter, S>) -> Self {
        // The log outlives every handle: replacing its filter fails in no program that has begun to log.
        Self { replace_filter: Box::new(move |filter| drop(handle.reload(filter))) }
    }

    /// Parses a filter.
    ///
    /// # Errors
    /// A sentence that names the filter and says what is wrong with it.
    pub fn parse_log_filter(&self, filter: &str) -> Result<LogFilter, String> {
        parse_filter(filter)
    }

    /// Replaces the filter, for all events from now on.
    pub fn set_filter(&self, filter: LogFilter) {
        (self.replace_filter)(filter.0);
    }
}

fn parse_filter(filter: &str) -> Result<LogFilter, String> {
    // russh warns of channel requests that it doesn't know, in the client's own words; PuTTY makes one every time.
    let usual = format!("russh=error,{filter}");
    let parsed = EnvFilter::try_new(usual).map_err(|e| format!("the log filter {filter:?} can't be read: {e}"))?;
    Ok(LogFilter(parsed))
}

/// Starts writing events at `filter` (such as `info` or `patgate=debug`) and above to stderr.
///
/// # Errors
/// A sentence when the filter can't be read. A second call in one process changes nothing.
pub fn start_logging(filter: &str, format: LogFormat) -> Result<LogControl, String> {
    let LogFilter(filter) = parse_filter(filter)?;
    let writer = (|| RedactingWriter(std::io::stderr())).with_max_level(tracing::Level::TRACE);
    let colours = std::io::stderr().is_terminal();
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_target(false).with_ansi(colours);
    let (started, control) = match format {
        LogFormat::Text => {
            let builder = builder.with_filter_reloading();
            let control = LogControl::new(builder.reload_handle());
            (builder.try_init(), control)
        }
        LogFormat::Json => {
            let builder = builder.json().with_target(true).with_filter_reloading();
            let control = LogControl::new(builder.reload_handle());
            (builder.try_init(), control)
        }
    };
    if started.is_err() {
        tracing::debug!("events are already written elsewhere");
    }
    Ok(control)
}

/// Writer of whole events that strikes tokens from them: an event comes in one piece.
struct RedactingWriter<W>(W);

impl<W: Write> Write for RedactingWriter<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.write_all(&redact_tokens_in_bytes(event))?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Tells the log of an event of the audit trail.
pub fn log_audit_event(event: &AuditEvent) {
    let text = |text: &Option<String>| text.as_deref().map(escape_for_terminal);
    tracing::info!(
        target: "patgate::audit",
        event = event.kind.as_str(),
        at = display(event.at),
        user = event.user.as_ref().map(display),
        token = event.token.as_ref().map(display),
        by = event.by.as_ref().map(display),
        address = event.address.as_deref(),
        client = text(&event.client),
        protocol = event.protocol.as_ref().map(display),
        path = text(&event.path),
        count = event.count,
        detail = text(&event.detail),
    );
}
