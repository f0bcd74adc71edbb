//! When a failed attempt is repeated: after three times as long each time, by chance a little sooner or later.

use std::time::Duration;

/// Factor by which each wait is longer than the one before.
const RETRY_FACTOR: u32 = 3;
/// Maximum number of attempts: with ten seconds after the first, the last one comes after nine hours.
pub(super) const MAX_ATTEMPTS: u32 = 9;

/// Returns the wait after a failed attempt, of which there were `failed` before; `None` after the last one. `jitter`, from
/// 0 to 1, keeps servers that failed at once from coming back at once.
pub(super) fn retry_delay(first: Duration, failed: u32, jitter: f64) -> Option<Duration> {
    (failed + 1 < MAX_ATTEMPTS).then(|| first.saturating_mul(RETRY_FACTOR.pow(failed)).mul_f64(0.8 + 0.4 * jitter))
}

/// Returns the longest wait.
pub(super) fn max_retry_delay(first: Duration) -> Duration {
    first.saturating_mul(RETRY_FACTOR.pow(MAX_ATTEMPTS)).saturating_mul(2)
}

/// Draws a jitter.
pub(super) fn draw_jitter() -> f64 {
    f64::from(uuid::Uuid::new_v4().as_fields().0) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_repeated_for_nine_hours() {
        let delays: Vec<_> = (0..).map_while(|failed| retry_delay(Duration::from_secs(10), failed, 0.5)).collect();
        let seconds: Vec<_> = delays.iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [10, 30, 90, 270, 810, 2430, 7290, 21_870]);
        assert_eq!(delays.iter().sum::<Duration>().as_secs() / 3600, 9);
        assert!(delays.iter().all(|delay| *delay < max_retry_delay(Duration::from_secs(10))));
        let with = |jitter| retry_delay(Duration::from_secs(10), 0, jitter).expect("a wait").as_secs();
        assert_eq!((with(0.0), with(1.0)), (8, 12));
    }
}
