//! Histograms of durations.

use std::time::Duration;

use super::StripedCounters;

/// Upper bounds of the buckets, in seconds. The last bucket has none.
pub const DURATION_BUCKET_BOUNDS: [f64; 12] =
    [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0];
/// The same, in nanoseconds.
const BOUNDS_NANOS: [u64; 12] = [
    100_000,
    500_000,
    1_000_000,
    5_000_000,
    10_000_000,
    50_000_000,
    100_000_000,
    500_000_000,
    1_000_000_000,
    5_000_000_000,
    10_000_000_000,
    60_000_000_000,
];
/// Number of buckets, with the one that has no bound.
pub const DURATION_BUCKETS: usize = DURATION_BUCKET_BOUNDS.len() + 1;

/// Returns the index of the bucket of a duration, and the duration in nanoseconds.
pub fn duration_bucket(duration: Duration) -> (usize, u64) {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    (BOUNDS_NANOS.partition_point(|bound| *bound < nanos), nanos)
}

/// Histogram that many threads add to.
pub struct DurationHistogram(StripedCounters);

/// Counts of a histogram.
#[derive(Clone, Debug, PartialEq)]
pub struct DurationCounts {
    /// Counts by bucket, not cumulated.
    pub buckets: Vec<u64>,
    /// Sum of all durations.
    pub total_seconds: f64,
}

impl Default for DurationHistogram {
    fn default() -> Self {
        Self(StripedCounters::new(DURATION_BUCKETS + 1))
    }
}

impl DurationHistogram {
    /// Counts a duration.
    pub fn record(&self, duration: Duration) {
        let (bucket, nanos) = duration_bucket(duration);
        self.0.add(bucket, 1);
        self.0.add(DURATION_BUCKETS, nanos);
    }

    /// Returns the counts.
    pub fn counts(&self) -> DurationCounts {
        let mut buckets = self.0.sums();
        let nanos = buckets.pop().unwrap_or(0);
        DurationCounts { buckets, total_seconds: nanos as f64 / 1e9 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_counts_in_the_first_bucket_whose_bound_is_not_below_it() {
        for (seconds, nanos) in DURATION_BUCKET_BOUNDS.iter().zip(BOUNDS_NANOS) {
            assert_eq!((seconds * 1e9).round() as u64, nanos);
        }
        let histogram = DurationHistogram::default();
        for nanos in [0, 100_000, 100_001, 60_000_000_000, 60_000_000_001] {
            histogram.record(Duration::from_nanos(nanos));
        }
        let counts = histogram.counts();
        assert_eq!(counts.buckets, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert!((counts.total_seconds - 120.000_200_002).abs() < 1e-6, "{counts:?}");
    }
}
