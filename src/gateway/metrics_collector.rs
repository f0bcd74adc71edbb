//! The page of metrics, put together for each request for it from the figures of all modules. Whatever costs more than
//! a look at memory is read on a blocking thread, by one request at a time, and counts of rows are kept for some seconds.
//!
//! To add a metric: its entry in `telemetry/metric_catalog.rs`, and here the line that adds its samples.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::reload::LiveSettings;
use crate::auth::Authenticator;
use crate::net::ConnectionLimiter;
use crate::store::{NoticeReceiverState, RowCounts, Store};
use crate::telemetry::metric_catalog as metrics;
use crate::telemetry::{
    MAX_COUNTED_USERS, MetricsPage, OperationRecorder, UserOperationCounts, add_process_metrics, unix_seconds,
};
use crate::tree::Tree;
use crate::webdav::Webdav;

/// Time for which counts of rows are good.
const ROW_COUNTS_LIFETIME: Duration = Duration::from_secs(10);

/// Collector of all metrics. Clones share it.
#[derive(Clone)]
pub(super) struct MetricsCollector(Arc<CollectorInner>);

/// Modules that the metrics are read from.
pub(super) struct MetricSources {
    pub(super) recorder: Arc<OperationRecorder>,
    pub(super) store: Store,
    pub(super) auth: Authenticator,
    pub(super) tree: Tree,
    pub(super) webdav: Webdav,
    /// Limiters of connections, by the name of their listener.
    pub(super) limiters: Vec<(&'static str, ConnectionLimiter)>,
    pub(super) live_settings: Arc<ArcSwap<LiveSettings>>,
}

struct CollectorInner {
    sources: MetricSources,
    started_at: SystemTime,
    /// Held while a page is made: readers of metrics that come meanwhile wait, and take one thread each.
    row_counts: Mutex<Option<(Instant, RowCounts)>>,
}

impl MetricsCollector {
    pub(super) fn new(sources: MetricSources) -> Self {
        let started_at = SystemTime::now();
        Self(Arc::new(CollectorInner { sources, started_at, row_counts: Mutex::default() }))
    }

    /// Returns the page in Prometheus' text format. May block.
    pub(super) fn page(&self) -> String {
        let CollectorInner { sources, started_at, row_counts } = &*self.0;
        let mut page = MetricsPage::default();
        let mut row_counts = row_counts.lock();
        sources.add_operations(&mut page);
        sources.add_connections(&mut page);
        sources.add_authentication(&mut page);
        sources.add_store(&mut page);
        if let Some(rows) = sources.current_row_counts(&mut row_counts) {
            sources.add_rows(&mut page, &rows);
        }
        sources.add_notices(&mut page);
        sources.add_tree(&mut page);
        if let Some(counts) = sources.recorder.user_operation_counts() {
            sources.add_users(&mut page, &counts);
        }
        page.add(&metrics::BUILD_INFO, [(&[env!("CARGO_PKG_VERSION")][..], 1.0)]);
        add_process_metrics(&mut page, *started_at);
        page.into_text()
    }
}

impl MetricSources {
    fn add_operations(&self, page: &mut MetricsPage) {
        let counts = self.recorder.operation_counts();
        let labels: Vec<_> = counts.iter().map(|counts| [counts.kind.protocol(), counts.kind.operation()]).collect();
        let by_status = counts.iter().flat_map(|counts| {
            let (protocol, operation) = (counts.kind.protocol(), counts.kind.operation());
            counts.by_status.iter().map(move |(status, count)| ([protocol, operation, *status], *count as f64))
        });
        let by_status: Vec<_> = by_status.collect();
        page.add(&metrics::REQUESTS, by_status.iter().map(|(labels, count)| (&labels[..], *count)));
        let durations = labels.iter().zip(&counts).map(|(labels, counts)| (&labels[..], &counts.durations));
        page.add_histogram(&metrics::REQUEST_DURATION, durations);
        let received = labels.iter().zip(&counts).filter(|(_, counts)| counts.received_bytes > 0);
        page.add(
            &metrics::RECEIVED_BYTES,
            received.map(|(labels, counts)| (&labels[..], counts.received_bytes as f64)),
        );
        let sent = labels.iter().zip(&counts).filter(|(_, counts)| counts.sent_bytes > 0);
        page.add(&metrics::SENT_BYTES, sent.map(|(labels, counts)| (&labels[..], counts.sent_bytes as f64)));
        if let Some((written, dropped)) = self.recorder.access_log_lines() {
            page.add_value(&metrics::ACCESS_LOG_LINES, written as f64);
            page.add_value(&metrics::ACCESS_LOG_DROPPED, dropped as f64);
        }
        let events: Vec<_> = self.recorder.audit_event_counts();
        let events: Vec<_> = events.iter().map(|(kind, count)| ([kind.as_str()], *count as f64)).collect();
        page.add(&metrics::AUDIT_EVENTS, events.iter().map(|(labels, count)| (&labels[..], *count)));
    }

    fn add_connections(&self, page: &mut MetricsPage) {
        let (mut open, mut bounds) = (Vec::new(), Vec::new());
        for (listener, limiter) in &self.limiters {
            let (usage, limits) = (limiter.usage(), limiter.limits());
            for (state, count) in [
                ("authenticated", usage.authenticated),
                ("unauthenticated", usage.unauthenticated),
                ("closing", usage.closing),
                ("waiting", usage.waiting),
            ] {
                open.push(([*listener, state], count as f64));
            }
            for (state, bound) in [
                ("open", limits.connections),
                ("unauthenticated", limits.unauthenticated),
                ("waiting", usage.max_waiting),
            ] {
                bounds.push(([*listener, state], bound as f64));
            }
        }
        page.add(&metrics::CONNECTIONS, open.iter().map(|(labels, count)| (&labels[..], *count)));
        page.add(&metrics::CONNECTIONS_MAX, bounds.iter().map(|(labels, bound)| (&labels[..], *bound)));
    }

    fn add_authentication(&self, page: &mut MetricsPage) {
        let statistics = self.auth.statistics();
        let sessions: Vec<_> =
            statistics.sessions.iter().map(|(protocol, count)| (protocol.to_string(), *count as f64)).collect();
        let sessions: Vec<_> = sessions.iter().map(|(protocol, count)| ([protocol.as_str()], *count)).collect();
        page.add(&metrics::SESSIONS, sessions.iter().map(|(labels, count)| (&labels[..], *count)));
        let outcomes = statistics.authentications.iter();
        let outcomes: Vec<_> =
            outcomes.map(|(protocol, outcome, count)| (protocol.to_string(), *outcome, *count as f64)).collect();
        let outcomes: Vec<_> =
            outcomes.iter().map(|(protocol, outcome, count)| ([protocol.as_str(), *outcome], *count)).collect();
        page.add(&metrics::AUTHENTICATIONS, outcomes.iter().map(|(labels, count)| (&labels[..], *count)));
        page.add_value(&metrics::ARGON2_QUEUE, statistics.queued_hashing_jobs as f64);
        page.add_value(&metrics::ARGON2_QUEUE_MAX, statistics.max_queued_hashing_jobs as f64);
        page.add_value(&metrics::ARGON2_THREADS, statistics.hashing_threads as f64);
        let (verified, created) = (self.auth.verification_runs() as f64, self.auth.secret_hash_runs() as f64);
        page.add(&metrics::ARGON2_RUNS, [(&["verify"][..], verified), (&["create"], created)]);
    }

    fn add_store(&self, page: &mut MetricsPage) {
        let statistics = self.store.statistics();
        page.add_histogram(&metrics::STORE_WRITE_DURATION, [(&[][..], &statistics.write_durations)]);
        if let Some(duration) = statistics.read_duration {
            page.add_value(&metrics::STORE_READ_DURATION, duration.as_secs_f64());
        }
        let (database, log) = (statistics.database_bytes as f64, statistics.log_bytes as f64);
        page.add(&metrics::STORE_SIZE, [(&["database"][..], database), (&["log"], log)]);
        page.add_value(&metrics::STORE_FREE, statistics.free_bytes as f64);
        let is_healthy = statistics.read_duration.is_some() && !statistics.has_disk_fault;
        page.add_value(&metrics::STORE_HEALTHY, f64::from(u8::from(is_healthy)));
        page.add_value(&metrics::BALLAST, statistics.ballast_bytes as f64);
        page.add_value(&metrics::BALLAST_TARGET, statistics.ballast_target_bytes as f64);
    }

    /// Returns counts of rows that are at most [`ROW_COUNTS_LIFETIME`] old; `None` where the store can't be read.
    fn current_row_counts(&self, cached: &mut Option<(Instant, RowCounts)>) -> Option<RowCounts> {
        if let Some((counted_at, rows)) = cached
            && counted_at.elapsed() < ROW_COUNTS_LIFETIME
        {
            return Some(*rows);
        }
        let rows = self.store.row_counts(self.auth.now()).inspect_err(|error| {
            tracing::warn!(%error, "rows can't be counted for metrics");
        });
        *cached = rows.ok().map(|rows| (Instant::now(), rows));
        cached.map(|(_, rows)| rows)
    }

    fn add_rows(&self, page: &mut MetricsPage, rows: &RowCounts) {
        let tokens = [("live", rows.live_tokens), ("expired", rows.expired_tokens), ("revoked", rows.revoked_tokens)];
        let tokens = tokens.map(|(status, count)| ([status], count as f64));
        page.add(&metrics::TOKENS, tokens.iter().map(|(labels, count)| (&labels[..], *count)));
        let (enabled, disabled) = (rows.enabled_users as f64, rows.disabled_users as f64);
        page.add(&metrics::USERS, [(&["enabled"][..], enabled), (&["disabled"], disabled)]);
        let (automatic, manual) = (rows.automatic_bans as f64, rows.manual_bans as f64);
        page.add(&metrics::BANS, [(&["automatic"][..], automatic), (&["manual"], manual)]);
        let stored_tokens = rows.live_tokens + rows.expired_tokens + rows.revoked_tokens;
        let mut quotas = vec![
            ("property_bytes", rows.property_bytes, rows.max_property_bytes),
            ("named_nodes", rows.named_nodes, rows.limits.named_nodes.total),
            ("tokens", stored_tokens, rows.limits.tokens.total),
            ("stored_bytes", rows.storage_quotas.used, rows.storage_quotas.max),
        ];
        quotas.extend(self.tree.open_file_usage().map(|(open, max)| ("open_files", open, max)));
        let labels: Vec<_> = quotas.iter().map(|(quota, ..)| [*quota]).collect();
        let used = labels.iter().zip(&quotas).map(|(labels, (_, used, _))| (&labels[..], *used as f64));
        page.add(&metrics::QUOTA_USED, used);
        let bounds = labels.iter().zip(&quotas).map(|(labels, (.., max))| (&labels[..], *max as f64));
        page.add(&metrics::QUOTA_MAX, bounds);
    }

    /// Adds nothing where no receiver of notices is configured, or the store can't be read.
    fn add_notices(&self, page: &mut MetricsPage) {
        let receivers = self.store.notice_receivers().unwrap_or_default();
        let (mut totals, mut queued) = (Vec::new(), Vec::new());
        for (name, is_mail) in [("mail", true), ("webhook", false)] {
            let of_kind: Vec<_> = receivers.iter().filter(|receiver| receiver.is_mail() == is_mail).collect();
            if of_kind.is_empty() {
                continue;
            }
            let sum = |count: fn(&NoticeReceiverState) -> u64| of_kind.iter().map(|r| count(r)).sum::<u64>() as f64;
            totals.push(([name, "delivered"], sum(|receiver| receiver.delivered)));
            totals.push(([name, "failed"], sum(|receiver| receiver.failed)));
            totals.push(([name, "dropped"], sum(|receiver| receiver.dropped)));
            queued.push(([name], sum(|receiver| receiver.queued)));
        }
        page.add(&metrics::NOTICES, totals.iter().map(|(labels, count)| (&labels[..], *count)));
        page.add(&metrics::NOTICES_QUEUED, queued.iter().map(|(labels, count)| (&labels[..], *count)));
    }

    /// Adds what has the name of a user as a label.
    fn add_users(&self, page: &mut MetricsPage, counts: &[UserOperationCounts]) {
        let labels: Vec<_> = counts.iter().map(|counts| [counts.user.as_str(), counts.protocol]).collect();
        let samples = |value: fn(&UserOperationCounts) -> u64| {
            labels.iter().zip(counts).map(move |(labels, counts)| (&labels[..], value(counts) as f64))
        };
        page.add(&metrics::USER_REQUESTS, samples(|counts| counts.operations));
        page.add(&metrics::USER_RECEIVED_BYTES, samples(|counts| counts.received_bytes));
        page.add(&metrics::USER_SENT_BYTES, samples(|counts| counts.sent_bytes));
        // Nothing where the store can't be read: another metric says that it can't.
        let storage = self.store.user_storage(MAX_COUNTED_USERS).unwrap_or_default();
        let labels: Vec<_> = storage.iter().map(|(login, ..)| [login.as_str()]).collect();
        let stored = labels.iter().zip(&storage).map(|(labels, (_, used, _))| (&labels[..], *used as f64));
        page.add(&metrics::USER_STORED_BYTES, stored);
        let quotas = labels.iter().zip(&storage).map(|(labels, (.., max))| (&labels[..], *max as f64));
        page.add(&metrics::USER_STORAGE_QUOTA, quotas);
    }

    fn add_tree(&self, page: &mut MetricsPage) {
        let (over_webdav, over_sftp) = (self.webdav.unfinished_upload_count(), self.tree.interrupted_upload_count());
        let uploads = [(&["webdav"][..], over_webdav as f64), (&["sftp"], over_sftp as f64)];
        page.add(&metrics::UNFINISHED_UPLOADS, uploads);
        let upload_bytes = self.tree.unfinished_upload_bytes().written();
        page.add_value(&metrics::UNFINISHED_UPLOAD_BYTES, upload_bytes as f64);
        if let Some(validity) = self.live_settings.load().certificate_validity() {
            page.add_value(&metrics::CERTIFICATE_EXPIRY, unix_seconds(validity.not_after));
        }
        let outages = self.tree.outages();
        let is_root_available = !outages.iter().any(|(path, _)| path.is_root());
        page.add_value(&metrics::ROOT_AVAILABLE, f64::from(u8::from(is_root_available)));
        page.add_value(&metrics::TREE_OUTAGES, outages.len() as f64);
        // Not asked while the root is away: its file system may hang.
        if is_root_available && let Ok(free) = self.tree.free_bytes() {
            page.add_value(&metrics::TREE_FREE, free as f64);
        }
    }
}
