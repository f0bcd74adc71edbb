//! Counts of finished operations, by kind and status, with a histogram of their duration. To count one takes five
//! additions to counters that few threads share, and neither a lock nor an allocation.

use super::operation::{FinishedOperation, OperationKind, STATUS_CLASSES, status_class_name};
use crate::domain::{DURATION_BUCKETS, DurationCounts, StripedCounters, duration_bucket};

/// Offsets of the counters of one kind of operation.
const FIRST_BUCKET: usize = STATUS_CLASSES;
const NANOS: usize = FIRST_BUCKET + DURATION_BUCKETS;
const RECEIVED_BYTES: usize = NANOS + 1;
const SENT_BYTES: usize = RECEIVED_BYTES + 1;
const COUNTERS_PER_KIND: usize = SENT_BYTES + 1;

/// Counts of all operations since the start.
pub(super) struct OperationCounters(StripedCounters);

impl Default for OperationCounters {
    fn default() -> Self {
        Self(StripedCounters::new(OperationKind::COUNT * COUNTERS_PER_KIND))
    }
}

/// Counts of the operations of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct OperationCounts {
    /// Protocol, and method or request.
    pub kind: OperationKind,
    /// Counts by status class, without those that are zero.
    pub by_status: Vec<(&'static str, u64)>,
    /// Their durations.
    pub durations: DurationCounts,
    /// Number of bytes of content that were received and read.
    pub received_bytes: u64,
    /// Number of bytes of content that were sent.
    pub sent_bytes: u64,
}

impl OperationCounters {
    /// Counts an operation.
    pub(super) fn count(&self, operation: &FinishedOperation) {
        let (first, stripe) = (operation.kind.index() * COUNTERS_PER_KIND, self.0.stripe());
        let (bucket, nanos) = duration_bucket(operation.duration);
        stripe.add(first + operation.status.class_index(), 1);
        stripe.add(first + FIRST_BUCKET + bucket, 1);
        stripe.add(first + NANOS, nanos);
        if operation.received_bytes > 0 {
            stripe.add(first + RECEIVED_BYTES, operation.received_bytes);
        }
        if operation.sent_bytes > 0 {
            stripe.add(first + SENT_BYTES, operation.sent_bytes);
        }
    }

    /// Returns the counts of all kinds of which there was one.
    pub(super) fn counts(&self) -> Vec<OperationCounts> {
        let sums = self.0.sums();
        let counts = |(kind, sums): (OperationKind, &[u64])| {
            let by_status = sums.iter().take(STATUS_CLASSES).enumerate().filter(|(_, count)| **count > 0);
            let by_status: Vec<_> = by_status.map(|(index, count)| (status_class_name(kind, index), *count)).collect();
            let at = |offset: usize| sums.get(offset).copied().unwrap_or(0);
            let durations = DurationCounts {
                buckets: sums.iter().skip(FIRST_BUCKET).take(DURATION_BUCKETS).copied().collect(),
                total_seconds: at(NANOS) as f64 / 1e9,
            };
            (!by_status.is_empty()).then(|| OperationCounts {
                kind,
                by_status,
                durations,
                received_bytes: at(RECEIVED_BYTES),
                sent_bytes: at(SENT_BYTES),
            })
        };
        OperationKind::all().zip(sums.chunks(COUNTERS_PER_KIND)).filter_map(counts).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::{HttpArea, HttpMethodName, OperationStatus, SftpRequestName};

    fn operation(kind: OperationKind, status: OperationStatus, micros: u64) -> FinishedOperation {
        let duration = Duration::from_micros(micros);
        FinishedOperation { kind, status, received_bytes: 10, sent_bytes: 0, duration }
    }

    #[test]
    fn operations_are_counted_by_kind_status_and_duration() {
        let counters = OperationCounters::default();
        let get = OperationKind::Http(HttpArea::Webdav, HttpMethodName::Get);
        let last = OperationKind::Sftp(SftpRequestName::Other);
        for micros in [0, 100, 101, 59_999_999, 60_000_001, 3_600_000_000] {
            counters.count(&operation(get, OperationStatus::Http(206), micros));
        }
        counters.count(&operation(get, OperationStatus::Aborted, 1));
        counters.count(&operation(last, OperationStatus::Sftp(8), 2_000_000));
        let [gets, others] = counters.counts().try_into().expect("two kinds");
        assert_eq!((gets.kind, gets.by_status), (get, vec![("2xx", 6), ("aborted", 1)]));
        assert_eq!(gets.durations.buckets, [3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!((gets.received_bytes, gets.sent_bytes), (70, 0));
        assert_eq!((others.kind, others.by_status), (last, vec![("op_unsupported", 1)]));
        assert!((others.durations.total_seconds - 2.0).abs() < 1e-9);
    }
}
