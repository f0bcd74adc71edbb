//! Counts of authentications by protocol and outcome, for metrics.

use super::AuthError;
use super::rejection_reason::RejectionReason;
use crate::domain::{Protocol, StripedCounters};

/// Names of all outcomes; the index of each is that of its counter.
const OUTCOMES: [&str; 14] = [
    "accepted",
    "malformed",
    "unknown",
    "unknown_key",
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

/// Outcome of an authentication, by its name.
#[derive(Clone, Copy)]
pub(super) struct AuthOutcome(&'static str);

impl AuthOutcome {
    pub(super) const ACCEPTED: Self = Self("accepted");

    /// Returns the outcome of a rejected credential, for which the caller was given an error.
    pub(super) fn rejected(reason: RejectionReason, error: &AuthError) -> Self {
        if matches!(error, AuthError::Throttled(_)) {
            return Self("throttled");
        }
        Self(match reason {
            RejectionReason::Malformed => "malformed",
            RejectionReason::Unknown => "unknown",
            RejectionReason::UnknownKey => "unknown_key",
            RejectionReason::WrongSecret => "wrong_secret",
            RejectionReason::RetiredSecret => "retired_secret",
            RejectionReason::WrongLogin => "wrong_login",
            RejectionReason::Revoked => "revoked",
            RejectionReason::Expired => "expired",
            RejectionReason::Disabled => "disabled",
            RejectionReason::DeniedByLimits => "denied_by_limits",
            RejectionReason::Throttled => "throttled",
        })
    }

    /// Returns the outcome of an attempt that was not judged.
    pub(super) fn failed(error: &AuthError) -> Self {
        match error {
            AuthError::Busy | AuthError::TooManyConnections => Self("busy"),
            AuthError::Denied | AuthError::Throttled(_) | AuthError::Store(_) => Self("error"),
        }
    }
}

/// Counts of all authentications since the start.
pub(super) struct AuthenticationCounters(StripedCounters);

impl Default for AuthenticationCounters {
    fn default() -> Self {
        Self(StripedCounters::new(Protocol::ALL.len() * OUTCOMES.len()))
    }
}

impl AuthenticationCounters {
    pub(super) fn count(&self, protocol: Protocol, outcome: AuthOutcome) {
        let indexes = (
            Protocol::ALL.iter().position(|known| *known == protocol),
            OUTCOMES.iter().position(|name| *name == outcome.0),
        );
        if let (Some(of_protocol), Some(of_outcome)) = indexes {
            self.0.add(of_protocol * OUTCOMES.len() + of_outcome, 1);
        }
    }

    /// Returns the counts that are not zero.
    pub(super) fn counts(&self) -> Vec<(Protocol, &'static str, u64)> {
        let names = Protocol::ALL.into_iter().flat_map(|protocol| OUTCOMES.map(|outcome| (protocol, outcome)));
        let counts = names.zip(self.0.sums()).map(|((protocol, outcome), count)| (protocol, outcome, count));
        counts.filter(|(_, _, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_a_counter() {
        let reasons = [
            RejectionReason::Malformed,
            RejectionReason::Unknown,
            RejectionReason::UnknownKey,
            RejectionReason::WrongSecret,
            RejectionReason::RetiredSecret,
            RejectionReason::WrongLogin,
            RejectionReason::Revoked,
            RejectionReason::Expired,
            RejectionReason::Disabled,
            RejectionReason::DeniedByLimits,
            RejectionReason::Throttled,
        ];
        let rejected = reasons.map(|reason| AuthOutcome::rejected(reason, &AuthError::Denied));
        let others =
            [AuthOutcome::ACCEPTED, AuthOutcome::failed(&AuthError::Busy), AuthOutcome::failed(&AuthError::Denied)];
        let counters = AuthenticationCounters::default();
        for protocol in Protocol::ALL {
            rejected.iter().chain(&others).for_each(|outcome| counters.count(protocol, *outcome));
        }
        let counts = counters.counts();
        assert_eq!(counts.len(), Protocol::ALL.len() * OUTCOMES.len());
        assert!(counts.iter().all(|(.., count)| *count == 1), "{counts:?}");
    }
}
