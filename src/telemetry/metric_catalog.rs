//! All metrics, declared once: the page of metrics, its help texts and the table in `docs/metrics.md` come from this list.
//!
//! A new metric needs an entry here and the line that adds its samples in `gateway/metrics_collector.rs`.

/// Type of a metric in Prometheus' sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows, until the server is restarted.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Counts by upper bound, with their number and sum.
    Histogram,
}

/// Declaration of a metric.
#[derive(Debug)]
pub struct MetricDescription {
    /// Name of the metric.
    pub name: &'static str,
    /// Its type.
    pub kind: MetricKind,
    /// Names of its labels, in the order in which samples give their values.
    pub labels: &'static [&'static str],
    /// Help text.
    pub help: &'static str,
}

macro_rules! declare_metrics {
    ($($constant:ident: $kind:ident $name:literal [$($label:literal),*] = $help:literal;)+) => {
        $(
            #[doc = $help]
            pub const $constant: MetricDescription = MetricDescription {
                name: $name,
                kind: MetricKind::$kind,
                labels: &[$($label),*],
                help: $help,
            };
        )+

        /// All metrics.
        pub const METRIC_CATALOG: &[MetricDescription] = &[$($constant,)+];
    };
}

declare_metrics! {
    REQUESTS: Counter "patgate_requests_total" ["protocol", "operation", "status"] =
        "Operations that have ended, by protocol (webdav, api, console, http, sftp), method or SFTP request, and status class.";
    REQUEST_DURATION: Histogram "patgate_request_duration_seconds" ["protocol", "operation"] =
        "Time from the head of a request to the end of its response.";
    RECEIVED_BYTES: Counter "patgate_received_bytes_total" ["protocol", "operation"] =
        "Bytes of content that clients sent: bodies of HTTP requests, data of SFTP writes.";
    SENT_BYTES: Counter "patgate_sent_bytes_total" ["protocol", "operation"] =
        "Bytes of content that clients were sent: bodies of HTTP responses, data of SFTP reads.";
    CONNECTIONS: Gauge "patgate_connections" ["listener", "state"] =
        "Open connections of a listener: authenticated, unauthenticated, waiting for a permit, or closing in favour of others.";
    CONNECTIONS_MAX: Gauge "patgate_connections_max" ["listener", "state"] =
        "Bounds on connections: all of a listener, those that are not authenticated, those that wait for a permit.";
    SESSIONS: Gauge "patgate_sessions" ["protocol"] =
        "Open sessions of authenticated clients.";
    AUTHENTICATIONS: Counter "patgate_authentications_total" ["protocol", "outcome"] =
        "Credentials that were verified, by outcome. A request that repeats the credential of the one before on its connection is not counted.";
    ARGON2_QUEUE: Gauge "patgate_argon2_queue_jobs" [] =
        "Secrets that wait to be hashed by argon2.";
    ARGON2_QUEUE_MAX: Gauge "patgate_argon2_queue_max_jobs" [] =
        "Bound on the secrets that wait to be hashed; at it, logins are answered with 503 or refused for now.";
    ARGON2_THREADS: Gauge "patgate_argon2_threads" [] =
        "Threads that run argon2.";
    ARGON2_RUNS: Counter "patgate_argon2_runs_total" ["purpose"] =
        "Runs of argon2, to verify a secret or to create one.";
    STORE_WRITE_DURATION: Histogram "patgate_store_write_duration_seconds" [] =
        "Time of writes to the store, with the wait for other writes.";
    STORE_READ_DURATION: Gauge "patgate_store_read_duration_seconds" [] =
        "Time of a small read of the store, measured when the metrics were read.";
    STORE_SIZE: Gauge "patgate_store_size_bytes" ["file"] =
        "Sizes of the store's files: the database and its write-ahead log.";
    STORE_FREE: Gauge "patgate_store_free_bytes" [] =
        "Free space on the disk of the state directory.";
    STORE_HEALTHY: Gauge "patgate_store_healthy" [] =
        "1 while the store can be read and its disk has space, else 0.";
    BALLAST: Gauge "patgate_ballast_bytes" [] =
        "Present size of the reserve on the disk of the state directory, from which revocations are written when it is full.";
    BALLAST_TARGET: Gauge "patgate_ballast_target_bytes" [] =
        "Full size of that reserve.";
    TOKENS: Gauge "patgate_tokens" ["status"] =
        "Stored tokens by their own status: live, expired or revoked. Those of disabled users count as they are stored.";
    USERS: Gauge "patgate_users" ["status"] =
        "Users, enabled or disabled.";
    BANS: Gauge "patgate_bans" ["origin"] =
        "Networks from which no login is accepted at this moment: banned automatically, or manually by an administrator.";
    AUDIT_EVENTS: Counter "patgate_audit_events_total" ["event"] =
        "Events of the audit trail since the start, of this process and of commands beside it; repeated ones count as often as they happened.";
    NOTICES: Counter "patgate_notices_total" ["receiver", "outcome"] =
        "Notices by kind of receiver (webhook, mail): delivered, attempts that failed, dropped at the bound or after the last attempt. Kept over restarts.";
    NOTICES_QUEUED: Gauge "patgate_notices_queued" ["receiver"] =
        "Notices that wait for their receivers.";
    UNFINISHED_UPLOADS: Gauge "patgate_unfinished_uploads" ["protocol"] =
        "Uploads that wait to be resumed or completed.";
    UNFINISHED_UPLOAD_BYTES: Gauge "patgate_unfinished_upload_bytes" [] =
        "Bytes of unfinished uploads on disk.";
    QUOTA_USED: Gauge "patgate_quota_used" ["quota"] =
        "Use of the quotas of all users together: bytes of dead properties, named nodes, stored tokens, stored bytes of users with a storage quota, open files.";
    QUOTA_MAX: Gauge "patgate_quota_max" ["quota"] =
        "Those quotas.";
    CERTIFICATE_EXPIRY: Gauge "patgate_certificate_expiry_timestamp_seconds" [] =
        "Time at which the TLS certificate expires; absent without TLS.";
    ROOT_AVAILABLE: Gauge "patgate_root_available" [] =
        "1 while the served folder is there, else 0.";
    TREE_OUTAGES: Gauge "patgate_tree_outages" [] =
        "Number of the served folder and of file systems mounted in it that are not available.";
    TREE_FREE: Gauge "patgate_tree_free_bytes" [] =
        "Free space on the file system of the served folder; absent while it is not available.";
    ACCESS_LOG_LINES: Counter "patgate_access_log_lines_total" [] =
        "Lines written to the access log; absent without one.";
    ACCESS_LOG_DROPPED: Counter "patgate_access_log_dropped_lines_total" [] =
        "Lines of the access log that were dropped, since its queue was full or it could not be written.";
    USER_REQUESTS: Counter "patgate_user_requests_total" ["user", "protocol"] =
        "Operations of a user that have ended; with metrics_per_user alone, as all metrics with this label.";
    USER_RECEIVED_BYTES: Counter "patgate_user_received_bytes_total" ["user", "protocol"] =
        "Bytes of content that a user sent.";
    USER_SENT_BYTES: Counter "patgate_user_sent_bytes_total" ["user", "protocol"] =
        "Bytes of content that a user was sent.";
    USER_STORED_BYTES: Gauge "patgate_user_stored_bytes" ["user"] =
        "Stored bytes that count for the storage quota of a user.";
    USER_STORAGE_QUOTA: Gauge "patgate_user_storage_quota_bytes" ["user"] =
        "Storage quota of a user; absent without one.";
    BUILD_INFO: Gauge "patgate_build_info" ["version"] =
        "Always 1; the version is a label.";
    PROCESS_START: Gauge "process_start_time_seconds" [] =
        "Time at which the server was started.";
    PROCESS_MEMORY: Gauge "process_resident_memory_bytes" [] =
        "Resident memory of the process.";
    PROCESS_FDS: Gauge "process_open_fds" [] =
        "Open file descriptors.";
    PROCESS_MAX_FDS: Gauge "process_max_fds" [] =
        "Limit on open file descriptors.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        for metric in METRIC_CATALOG {
            let name = metric.name;
            assert_eq!(metric.kind == MetricKind::Counter, name.ends_with("_total"), "{name}");
            assert!(metric.kind != MetricKind::Histogram || name.ends_with("_seconds"), "{name}");
            assert!(name.starts_with("patgate_") || name.starts_with("process_"), "{name}");
            assert_eq!(METRIC_CATALOG.iter().filter(|other| other.name == name).count(), 1, "{name}");
            assert!(metric.help.ends_with('.') && !metric.help.contains('|'), "{name}");
        }
    }

    /// Writes the table of all metrics, in Markdown.
    fn table() -> String {
        let mut table = String::from("| metric | type | labels | what it says |\n| --- | --- | --- | --- |\n");
        for MetricDescription { name, kind, labels, help } in METRIC_CATALOG {
            let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
            let kind = format!("{kind:?}").to_lowercase();
            table.push_str(&format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", ")));
        }
        table
    }

    /// `UPDATE_METRICS=1 cargo test --lib page_lists_every_metric` writes the table anew.
    #[test]
    fn page_lists_every_metric() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        let page = std::fs::read_to_string(path).expect("the page");
        let start = page.find("| metric | type |").expect("the table");
        let end = start + page[start..].find("\n\n").expect("text after the table") + 1;
        if std::env::var_os("UPDATE_METRICS").is_some() {
            let updated = format!("{}{}{}", &page[..start], table(), &page[end..]);
            std::fs::write(path, updated).expect("written");
        } else {
            assert_eq!(&page[start..end], table(), "write it anew with UPDATE_METRICS=1");
        }
    }
}
