//! When a certificate is ordered: at once where there is none, when a third of its lifetime is left, and not before a
//! failed order may be repeated.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::gateway::settings::AcmeSettings;
use crate::net::CertificateValidity;

/// Time after the first failure until the next order: Let's Encrypt allows five failed validations of a domain an hour.
const FIRST_RETRY_DELAY: Duration = Duration::from_secs(15 * 60);
/// Maximum time between two orders, and the time after an authority says that there were too many.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(12 * 3600);

/// State of the orders, kept over restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::gateway) struct AcmeStatus {
    /// Authority and domains of the certificate that is in use.
    issued_for: Option<String>,
    /// Authority and domains of the last order that failed.
    failed_for: Option<String>,
    /// Number of orders that have failed since the last one that did not.
    failures: u32,
    /// Seconds since 1970 before which nothing is ordered for `failed_for`.
    retry_at: u64,
}

impl AcmeStatus {
    /// Returns the time until a certificate is to be ordered. `jitter`, from 0 to 1, is drawn for each certificate: not all
    /// servers that were set up at once may renew at once.
    pub(super) fn time_until_order(
        &self,
        settings: &AcmeSettings,
        validity: Option<CertificateValidity>,
        jitter: f64,
    ) -> Duration {
        self.time_until_order_at(settings, validity, jitter, SystemTime::now())
    }

    fn time_until_order_at(
        &self,
        settings: &AcmeSettings,
        validity: Option<CertificateValidity>,
        jitter: f64,
        now: SystemTime,
    ) -> Duration {
        let subject = order_subject(settings);
        let renewal = match validity.filter(|_| self.issued_for.as_ref() == Some(&subject)) {
            Some(validity) => {
                let lifetime = validity.lifetime();
                validity.not_after - lifetime / 3 - (lifetime / 30).mul_f64(jitter)
            }
            None => now,
        };
        let until = |moment: SystemTime| moment.duration_since(now).unwrap_or_default();
        let retry = match self.failed_for.as_ref() == Some(&subject) {
            // A clock that was set back must not put it off for ever.
            true => until(UNIX_EPOCH + Duration::from_secs(self.retry_at)).min(MAX_RETRY_DELAY),
            false => Duration::ZERO,
        };
        until(renewal).max(retry)
    }

    pub(super) fn record_success(&mut self, settings: &AcmeSettings) {
        *self = Self { issued_for: Some(order_subject(settings)), ..Self::default() };
    }

    /// Records a failure, and returns the time until the next order.
    pub(super) fn record_failure(
        &mut self,
        settings: &AcmeSettings,
        is_rate_limited: bool,
        now: SystemTime,
    ) -> Duration {
        let subject = order_subject(settings);
        self.failures = if self.failed_for.as_ref() == Some(&subject) { self.failures.saturating_add(1) } else { 1 };
        self.failed_for = Some(subject);
        let delay = match is_rate_limited {
            true => MAX_RETRY_DELAY,
            false => FIRST_RETRY_DELAY.saturating_mul(1 << (self.failures - 1).min(16)).min(MAX_RETRY_DELAY),
        };
        self.retry_at = now.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_add(delay).as_secs();
        delay
    }
}

/// Returns what a certificate is ordered for, and from whom.
fn order_subject(settings: &AcmeSettings) -> String {
    let mut domains = settings.domains.clone();
    domains.sort();
    format!("{} {}", settings.directory, domains.join(" "))
}

/// Number from 0 to 1 that is drawn for each certificate.
#[derive(Clone, Copy, Debug)]
pub(super) struct RenewalJitter(f64);

impl RenewalJitter {
    pub(super) fn new() -> Self {
        let random = uuid::Uuid::new_v4();
        Self(f64::from(random.as_fields().0) / f64::from(u32::MAX))
    }

    pub(super) fn fraction(self) -> f64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn settings(domain: &str) -> AcmeSettings {
        AcmeSettings {
            domains: vec![domain.to_owned()],
            contact: None,
            directory: "https://ca.example/".to_owned(),
            ca_file: None,
            http: None,
        }
    }

    #[test]
    fn certificate_is_renewed_when_a_third_of_its_lifetime_is_left() {
        let now = UNIX_EPOCH + 20_000 * DAY;
        let validity = CertificateValidity { not_before: now, not_after: now + 90 * DAY };
        let (mut status, wanted) = (AcmeStatus::default(), settings("a.example"));
        assert_eq!(status.time_until_order_at(&wanted, None, 0.5, now), Duration::ZERO, "there is none");
        assert_eq!(status.time_until_order_at(&wanted, Some(validity), 0.5, now), Duration::ZERO, "for other domains");
        status.record_success(&wanted);
        assert_eq!(status.time_until_order_at(&wanted, Some(validity), 0.0, now), 60 * DAY);
        assert_eq!(status.time_until_order_at(&wanted, Some(validity), 1.0, now), 57 * DAY, "earlier, by chance");
        assert_eq!(status.time_until_order_at(&wanted, Some(validity), 0.0, now + 61 * DAY), Duration::ZERO);
        assert_eq!(status.time_until_order_at(&settings("b.example"), Some(validity), 0.0, now), Duration::ZERO);
    }

    #[test]
    fn failed_orders_wait_longer_each_time_also_after_a_restart() {
        let now = UNIX_EPOCH + 20_000 * DAY;
        let (mut status, wanted) = (AcmeStatus::default(), settings("a.example"));
        let minutes = |delay: Duration| delay.as_secs() / 60;
        let mut waits = Vec::new();
        for _ in 0..8 {
            let delay = status.record_failure(&wanted, false, now);
            let text = serde_json::to_string(&status).expect("written");
            status = serde_json::from_str(&text).expect("read");
            assert_eq!(status.time_until_order_at(&wanted, None, 0.0, now), delay);
            waits.push(minutes(delay));
        }
        assert_eq!(waits, [15, 30, 60, 120, 240, 480, 720, 720]);
        assert_eq!(status.time_until_order_at(&settings("b.example"), None, 0.0, now), Duration::ZERO, "another one");
        assert_eq!(status.time_until_order_at(&wanted, None, 0.0, now - 400 * DAY), MAX_RETRY_DELAY, "clock set back");
        let mut status = AcmeStatus::default();
        assert_eq!(status.record_failure(&wanted, true, now), MAX_RETRY_DELAY);
    }
}
