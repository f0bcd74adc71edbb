//! The page of metrics in Prometheus' text format (version 0.0.4), built anew for each request for it.
//!
//! The library's own counters are not used: all requests would share an atomic for each, and with it a cache line.

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{TEXT_FORMAT, TextEncoder};

use super::metric_catalog::{MetricDescription, MetricKind};
use crate::domain::{DURATION_BUCKET_BOUNDS, DurationCounts};

/// Media type of the page.
pub const METRICS_MEDIA_TYPE: &str = TEXT_FORMAT;

/// Page of metrics under construction.
#[derive(Default)]
pub struct MetricsPage {
    families: Vec<MetricFamily>,
}

impl MetricsPage {
    /// Adds a counter or gauge with its samples, each the values of its labels and its value. One without samples is left
    /// out.
    pub fn add<'a>(
        &mut self,
        description: &MetricDescription,
        samples: impl IntoIterator<Item = (&'a [&'a str], f64)>,
    ) {
        let metric = |(labels, value): (&[&str], f64)| {
            let mut metric = Metric::from_label(label_pairs(description, labels));
            match description.kind {
                MetricKind::Counter => {
                    let mut counter = Counter::default();
                    counter.set_value(value);
                    metric.set_counter(counter);
                }
                MetricKind::Gauge | MetricKind::Histogram => {
                    let mut gauge = Gauge::default();
                    gauge.set_value(value);
                    metric.set_gauge(gauge);
                }
            }
            metric
        };
        self.push(description, samples.into_iter().map(metric).collect());
    }

    /// Adds a counter or gauge without labels.
    pub fn add_value(&mut self, description: &MetricDescription, value: f64) {
        self.add(description, [(&[][..], value)]);
    }

    /// Adds a histogram with its samples.
    pub fn add_histogram<'a>(
        &mut self,
        description: &MetricDescription,
        samples: impl IntoIterator<Item = (&'a [&'a str], &'a DurationCounts)>,
    ) {
        let metric = |(labels, counts): (&[&str], &DurationCounts)| {
            let mut metric = Metric::from_label(label_pairs(description, labels));
            metric.set_histogram(histogram(counts));
            metric
        };
        self.push(description, samples.into_iter().map(metric).collect());
    }

    /// Returns the page as text.
    pub fn into_text(self) -> String {
        // It fails for a family without name or samples alone, and there is none.
        TextEncoder::new().encode_to_string(&self.families).unwrap_or_default()
    }

    fn push(&mut self, description: &MetricDescription, metrics: Vec<Metric>) {
        if metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(description.name.to_owned());
        family.set_help(description.help.to_owned());
        family.set_field_type(match description.kind {
            MetricKind::Counter => MetricType::COUNTER,
            MetricKind::Gauge => MetricType::GAUGE,
            MetricKind::Histogram => MetricType::HISTOGRAM,
        });
        family.set_metric(metrics);
        self.families.push(family);
    }
}

fn label_pairs(description: &MetricDescription, values: &[&str]) -> Vec<LabelPair> {
    debug_assert_eq!(description.labels.len(), values.len(), "{}", description.name);
    let pair = |(name, value): (&&str, &&str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    description.labels.iter().zip(values).map(pair).collect()
}

fn histogram(counts: &DurationCounts) -> Histogram {
    let (mut histogram, mut cumulated) = (Histogram::default(), 0);
    let bucket = |(bound, count): (f64, &u64)| {
        cumulated += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(cumulated);
        bucket
    };
    // The encoder adds the bucket without a bound, which has all.
    histogram.set_bucket(DURATION_BUCKET_BOUNDS.into_iter().zip(&counts.buckets).map(bucket).collect());
    histogram.set_sample_count(counts.buckets.iter().sum());
    histogram.set_sample_sum(counts.total_seconds);
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metric_catalog::{BUILD_INFO, REQUEST_DURATION, REQUESTS, SESSIONS, TREE_OUTAGES};

    #[test]
    fn page_has_the_text_format() {
        let mut page = MetricsPage::default();
        page.add(&REQUESTS, [(&["sftp", "READ", "ok"][..], 2.0), (&["webdav", "GET", "2xx"], 1e15)]);
        page.add(&SESSIONS, []);
        page.add_value(&TREE_OUTAGES, 0.0);
        page.add(&BUILD_INFO, [(&["1\"\\\n"][..], 1.0)]);
        let counts = DurationCounts { buckets: vec![3, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2], total_seconds: 121.5 };
        page.add_histogram(&REQUEST_DURATION, [(&["sftp", "READ"][..], &counts)]);
        let text = page.into_text();
        for line in [
            "# TYPE patgate_requests_total counter",
            "patgate_requests_total{protocol=\"sftp\",operation=\"READ\",status=\"ok\"} 2",
            "patgate_requests_total{protocol=\"webdav\",operation=\"GET\",status=\"2xx\"} 1000000000000000",
            "# TYPE patgate_tree_outages gauge",
            "patgate_tree_outages 0",
            "patgate_build_info{version=\"1\\\"\\\\\\n\"} 1",
            "patgate_request_duration_seconds_bucket{protocol=\"sftp\",operation=\"READ\",le=\"0.0001\"} 3",
            "patgate_request_duration_seconds_bucket{protocol=\"sftp\",operation=\"READ\",le=\"0.001\"} 4",
            "patgate_request_duration_seconds_bucket{protocol=\"sftp\",operation=\"READ\",le=\"60\"} 4",
            "patgate_request_duration_seconds_bucket{protocol=\"sftp\",operation=\"READ\",le=\"+Inf\"} 6",
            "patgate_request_duration_seconds_sum{protocol=\"sftp\",operation=\"READ\"} 121.5",
            "patgate_request_duration_seconds_count{protocol=\"sftp\",operation=\"READ\"} 6",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}:\n{text}");
        }
        assert!(!text.contains("patgate_sessions"), "one without samples is left out");
    }
}
