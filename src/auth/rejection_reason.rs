//! Reasons why credentials are rejected.

use crate::domain::EventKind;

/// Reason why a credential was rejected. Only the log and the audit trail see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RejectionReason {
    Malformed,
    Unknown,
    UnknownKey,
    WrongSecret,
    RetiredSecret,
    WrongLogin,
    Revoked,
    Expired,
    Disabled,
    DeniedByLimits,
    Throttled,
}

impl RejectionReason {
    /// Returns the reason as text for the audit trail.
    pub(super) fn describe(self) -> &'static str {
        match self {
            RejectionReason::Malformed => "the text presented is not a token",
            RejectionReason::Unknown => "there is no such token",
            RejectionReason::UnknownKey => "the SSH key proves no live token of the user",
            RejectionReason::WrongSecret => "the secret is wrong",
            RejectionReason::RetiredSecret => "the secret was replaced by a rotation",
            RejectionReason::WrongLogin => "the token belongs to another user",
            RejectionReason::Revoked => "the token, or one above it, was revoked",
            RejectionReason::Expired => "the token, or one above it, has expired",
            RejectionReason::Disabled => "the user is disabled",
            RejectionReason::DeniedByLimits => "the token's limits exclude the protocol, address or program",
            RejectionReason::Throttled => "too many failed attempts from this address",
        }
    }

    /// Tells whether the attempt may be a guess. One with a secret that is or was valid is not, whatever else is wrong:
    /// the user name, an expired or revoked token, limits.
    pub(super) fn is_guess(self) -> bool {
        match self {
            // No wildcard: a new reason has to decide here. A sync client that retries with a revoked token for days
            // must not fill the bucket, or a mistyped token from the same address would be throttled.
            RejectionReason::Malformed | RejectionReason::Unknown | RejectionReason::WrongSecret => true,
            // Public, and proven by a signature: nobody guesses one.
            RejectionReason::UnknownKey
            | RejectionReason::RetiredSecret
            | RejectionReason::WrongLogin
            | RejectionReason::Revoked
            | RejectionReason::Expired
            | RejectionReason::Disabled
            | RejectionReason::DeniedByLimits
            | RejectionReason::Throttled => false,
        }
    }

    pub(super) fn event_kind(self) -> EventKind {
        match self {
            // These need a secret that was valid once. The administrator has to see them apart from guesses: the token
            // may have leaked.
            RejectionReason::RetiredSecret | RejectionReason::Revoked | RejectionReason::Expired => {
                EventKind::DeadSecretUsed
            }
            _ => EventKind::AttemptRefused,
        }
    }
}
