//! What the system says of this process.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use super::metric_catalog::{PROCESS_FDS, PROCESS_MAX_FDS, PROCESS_MEMORY, PROCESS_START};
use super::metrics_page::MetricsPage;

/// Returns the seconds since 1970 at a time.
pub fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
}

/// Adds start time, memory and descriptors of the process; what the system does not say is left out. May block.
pub fn add_process_metrics(page: &mut MetricsPage, started_at: SystemTime) {
    page.add_value(&PROCESS_START, unix_seconds(started_at));
    if let Some(kibibytes) = number_in("/proc/self/status", "VmRSS:") {
        page.add_value(&PROCESS_MEMORY, kibibytes * 1024.0);
    }
    // One of them is that of the directory that is read here.
    if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
        page.add_value(&PROCESS_FDS, descriptors.count().saturating_sub(1) as f64);
    }
    if let Some(limit) = number_in("/proc/self/limits", "Max open files") {
        page.add_value(&PROCESS_MAX_FDS, limit);
    }
}

/// Returns the first number behind a key at the start of a line.
fn number_in(file: &str, key: &str) -> Option<f64> {
    let text = fs::read_to_string(file).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_descriptors_of_the_process_are_read() {
        let mut page = MetricsPage::default();
        add_process_metrics(&mut page, SystemTime::now());
        let text = page.into_text();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the metric");
            line.trim().parse().expect("a number")
        };
        assert!(value("process_resident_memory_bytes ") > 1e6 && value("process_start_time_seconds ") > 1.7e9);
        assert!(value("process_open_fds ") >= 3.0 && value("process_open_fds ") < value("process_max_fds "));
    }
}
