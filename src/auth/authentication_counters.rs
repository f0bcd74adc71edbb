//! Counts of authentications by protocol and outcome, for metrics.

use super::AuthError;
use super::rejection_reason::RejectionReason;
use crate::domain::{Protocol, StripedCounters};

const PROTOCOLS: [Protocol; 3] = [Protocol::Webdav, Protocol::Sftp, Protocol::Api];
/// All outcomes; the index of each is its counter.
const OUTCOMES: [&str; 13] = [
    "accepted",
    "malformed",
    "unknown",
    "wrong_secret",
    "retired_secret",
    "wrong_login",
    "revoked",
    "expired",
    "disabled",
    "denied_by_limits",
    "throttled",
    "busy",
    "error",
];

/// Outcome of an authentication.
#[derive(Clone, Copy)]
pub(super) struct AuthOutcome(usize);

impl AuthOutcome {
    pub(super) const ACCEPTED: Self = Self(0);

    /// Returns the outcome of a rejected credential, for which the caller was given an error.
    pub(super) fn rejected(reason: RejectionReason, error: &AuthError) -> Self {
        if matches!(error, AuthError::Throttled(_)) {
            return Self(10);
        }
        Self(match reason {
            RejectionReason::Malformed => 1,
            RejectionReason::Unknown => 2,
            RejectionReason::WrongSecret => 3,
            RejectionReason::RetiredSecret => 4,
            RejectionReason::WrongLogin => 5,
            RejectionReason::Revoked => 6,
            RejectionReason::Expired => 7,
            RejectionReason::Disabled => 8,
            RejectionReason::DeniedByLimits => 9,
            RejectionReason::Throttled => 10,
        })
    }

    /// Returns the outcome of an attempt that was not judged.
    pub(super) fn failed(error: &AuthError) -> Self {
        match error {
            AuthError::Busy | AuthError::TooManyConnections => Self(11),
            AuthError::Denied | AuthError::Throttled(_) | AuthError::Store(_) => Self(12),
        }
    }
}

/// Counts of all authentications since the start.
pub(super) struct AuthenticationCounters(StripedCounters);

impl Default for AuthenticationCounters {
    fn default() -> Self {
        Self(StripedCounters::new(PROTOCOLS.len() * OUTCOMES.len()))
    }
}

impl AuthenticationCounters {
    pub(super) fn count(&self, protocol: Protocol, outcome: AuthOutcome) {
        let of_protocol = PROTOCOLS.iter().position(|known| *known == protocol).unwrap_or(0);
        self.0.add(of_protocol * OUTCOMES.len() + outcome.0, 1);
    }

    /// Returns the counts that are not zero.
    pub(super) fn counts(&self) -> Vec<(Protocol, &'static str, u64)> {
        let names = PROTOCOLS.into_iter().flat_map(|protocol| OUTCOMES.map(|outcome| (protocol, outcome)));
        let counts = names.zip(self.0.sums()).map(|((protocol, outcome), count)| (protocol, outcome, count));
        counts.filter(|(_, _, count)| *count > 0).collect()
    }
}
