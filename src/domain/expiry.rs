//! Expiration of tokens, and the policy that bounds it.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Lifetime, UnixMillis};

/// Expiration of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenExpiry {
    /// At a fixed time.
    Hard(UnixMillis),
    /// A window after its last use, and at `cap` at the latest.
    Sliding {
        /// Time after the last use at which it expires, in milliseconds.
        window_ms: u64,
        /// The hard limit, which no use extends.
        cap: UnixMillis,
    },
    /// No expiration.
    Never,
}

impl TokenExpiry {
    /// Maximum time before an expiration at which the token counts as expiring soon.
    pub const EXPIRES_SOON_WINDOW: Duration = Duration::from_secs(7 * 86_400);

    /// Returns the time at which a token expires that was last used (or else created) at `last_use`.
    pub fn deadline(self, last_use: UnixMillis) -> UnixMillis {
        match self {
            TokenExpiry::Hard(at) => at,
            TokenExpiry::Sliding { window_ms, cap } => {
                last_use.saturating_add(Duration::from_millis(window_ms)).min(cap)
            }
            TokenExpiry::Never => UnixMillis::MAX,
        }
    }

    /// Returns the hard limit, which no use extends.
    pub fn hard_limit(self) -> UnixMillis {
        match self {
            TokenExpiry::Hard(at) => at,
            TokenExpiry::Sliding { cap, .. } => cap,
            TokenExpiry::Never => UnixMillis::MAX,
        }
    }

    /// Tells whether a token expires soon, if it is not used or in any case: within a week, and in the last quarter of
    /// its lifetime, or of its sliding window where that is longer than a day.
    pub fn expires_soon(self, created_at: UnixMillis, last_used_at: Option<UnixMillis>, now: UnixMillis) -> bool {
        let is_near = |begin: UnixMillis, end: UnixMillis| {
            now < end
                && end.saturating_duration_since(now) <= Self::EXPIRES_SOON_WINDOW
                && end.saturating_duration_since(now) * 4 < end.saturating_duration_since(begin)
        };
        let idle_since = last_used_at.unwrap_or(created_at);
        let idle_expires_soon = match self {
            // Shorter windows would be reported all the time.
            TokenExpiry::Sliding { window_ms, .. } => {
                window_ms > 86_400_000 && is_near(idle_since, self.deadline(idle_since))
            }
            TokenExpiry::Hard(_) | TokenExpiry::Never => false,
        };
        idle_expires_soon || is_near(created_at, self.hard_limit())
    }

    /// Returns this expiration with `cap` as its hard limit, where that is earlier.
    #[must_use]
    pub fn capped_at(self, cap: UnixMillis) -> Self {
        match self {
            TokenExpiry::Sliding { window_ms, cap: current_cap } => {
                TokenExpiry::Sliding { window_ms, cap: current_cap.min(cap) }
            }
            TokenExpiry::Never if cap == UnixMillis::MAX => TokenExpiry::Never,
            TokenExpiry::Hard(_) | TokenExpiry::Never => TokenExpiry::Hard(self.hard_limit().min(cap)),
        }
    }
}

/// The policy that bounds tokens; stored, and changed at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Maximum number of live tokens of a user.
    pub max_tokens_per_user: NonZeroU32,
    /// Lifetime of a token that requests none.
    pub default_lifetime: Lifetime,
    /// Maximum lifetime of a token, also of a sliding one.
    pub max_lifetime: Lifetime,
    /// Whether tokens without expiration are allowed.
    pub allow_never: bool,
    /// Time that expired and revoked tokens are kept.
    pub token_retention: Lifetime,
    /// Time that events of the audit trail are kept.
    pub audit_retention: Lifetime,
}

impl Default for Policy {
    /// Returns five tokens for each user, 90 days by default, one year at most, no unlimited tokens; inactive tokens
    /// are kept for 30 days, events for 90.
    fn default() -> Self {
        let days = |n: u64| Lifetime::from_secs(n * 86_400);
        let (Some(default_lifetime), Some(max_lifetime), Some(token_retention), Some(max_tokens_per_user)) =
            (days(90), days(365), days(30), NonZeroU32::new(5))
        else {
            unreachable!("all are between a second and a thousand years, and five is not none")
        };
        Self {
            max_tokens_per_user,
            default_lifetime,
            max_lifetime,
            allow_never: false,
            token_retention,
            audit_retention: default_lifetime,
        }
    }
}

impl Policy {
    /// Returns the expiration of a new token from the requested lifetimes.
    ///
    /// A hard limit and a window together make a sliding expiry capped by the hard limit; a window
    /// alone is capped by the maximum lifetime; neither means the default lifetime.
    ///
    /// # Errors
    /// [`PolicyViolation`] when a lifetime is longer than the policy allows.
    pub fn token_expiry(
        &self,
        now: UnixMillis,
        hard: Option<Lifetime>,
        window: Option<Lifetime>,
    ) -> Result<TokenExpiry, PolicyViolation> {
        // Each by itself: a window may be longer than the hard limit, which then bounds it.
        for asked in [hard, window].into_iter().flatten() {
            if asked > self.max_lifetime {
                return Err(PolicyViolation::LifetimeTooLong { asked, max: self.max_lifetime });
            }
        }
        Ok(match (hard, window) {
            (hard, Some(window)) => TokenExpiry::Sliding {
                window_ms: window.as_secs() * 1000,
                cap: now.saturating_add(hard.unwrap_or(self.max_lifetime).as_duration()),
            },
            (Some(hard), None) => TokenExpiry::Hard(now.saturating_add(hard.as_duration())),
            (None, None) => TokenExpiry::Hard(now.saturating_add(self.default_lifetime.as_duration())),
        })
    }

    /// Returns [`TokenExpiry::Never`] where the policy allows it.
    ///
    /// # Errors
    /// [`PolicyViolation::NoExpirationNotAllowed`] where it doesn't.
    pub fn unlimited_expiry(&self) -> Result<TokenExpiry, PolicyViolation> {
        if self.allow_never { Ok(TokenExpiry::Never) } else { Err(PolicyViolation::NoExpirationNotAllowed) }
    }
}

/// A violation of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyViolation {
    /// The lifetime is longer than the maximum.
    #[error("{asked} is longer than the policy's max-lifetime of {max}")]
    LifetimeTooLong {
        /// The requested lifetime.
        asked: Lifetime,
        /// The maximum lifetime.
        max: Lifetime,
    },
    /// Tokens without expiration are not allowed.
    #[error("the policy does not allow tokens that never expire (allow-never is false)")]
    NoExpirationNotAllowed,
    /// The user has the maximum number of live tokens.
    #[error("the policy allows a user {0} live tokens (max-tokens-per-user), and there are as many")]
    TooManyTokens(u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_777_968_000_000;

    fn lifetime_secs(n: u64) -> Lifetime {
        Lifetime::from_secs(n).expect("in range")
    }

    #[test]
    fn use_extends_sliding_expiry_up_to_hard_limit() {
        let now = UnixMillis::from_millis(NOW_MS);
        let expiry =
            Policy::default().token_expiry(now, Some(lifetime_secs(100)), Some(lifetime_secs(60))).expect("allowed");
        assert_eq!(expiry.deadline(now), now.saturating_add(lifetime_secs(60).as_duration()));
        let later = now.saturating_add(lifetime_secs(30).as_duration());
        assert_eq!(expiry.deadline(later), now.saturating_add(lifetime_secs(90).as_duration()));
        let late = now.saturating_add(lifetime_secs(80).as_duration());
        assert_eq!(expiry.deadline(late), now.saturating_add(lifetime_secs(100).as_duration()));
    }

    #[test]
    fn token_expires_soon_within_a_week_and_last_quarter() {
        let created_at = UnixMillis::from_millis(NOW_MS);
        let at = |hours: u64| created_at.saturating_add(Duration::from_secs(hours * 3600));
        let soon = |expiry: TokenExpiry, last_used_at: Option<u64>| {
            (0..10_000)
                .filter(|hour| expiry.expires_soon(created_at, last_used_at.map(at), at(*hour)))
                .collect::<Vec<u64>>()
        };
        let hours = |from: u64, to: u64| (from..to).collect::<Vec<u64>>();
        let sliding = |window: u64, cap: u64| TokenExpiry::Sliding { window_ms: window * 3_600_000, cap: at(cap) };
        assert_eq!(soon(TokenExpiry::Never, None), hours(0, 0));
        assert_eq!(soon(TokenExpiry::Hard(at(100)), None), hours(76, 100), "the last quarter");
        assert_eq!(soon(TokenExpiry::Hard(at(2000)), None), hours(2000 - 168, 2000), "a week");
        assert_eq!(soon(sliding(100, 5000), Some(1000)), [hours(1076, 1100), hours(5000 - 168, 5000)].concat());
        assert_eq!(soon(sliding(24, 5000), None), hours(5000 - 168, 5000), "a short rest is nothing to tell of");
    }

    #[test]
    fn use_does_not_extend_hard_limit() {
        let now = UnixMillis::from_millis(NOW_MS);
        let expiry = Policy::default().token_expiry(now, Some(lifetime_secs(100)), None).expect("allowed");
        assert_eq!(
            expiry.deadline(now.saturating_add(lifetime_secs(99).as_duration())),
            now.saturating_add(lifetime_secs(100).as_duration())
        );
    }

    #[test]
    fn window_without_hard_limit_is_capped_by_max_lifetime() {
        let now = UnixMillis::from_millis(NOW_MS);
        let policy = Policy::default();
        let expiry = policy.token_expiry(now, None, Some(lifetime_secs(60))).expect("allowed");
        assert_eq!(expiry.hard_limit(), now.saturating_add(policy.max_lifetime.as_duration()));
    }

    #[test]
    fn lifetime_beyond_policy_is_refused() {
        let policy = Policy::default();
        let now = UnixMillis::from_millis(NOW_MS);
        assert!(policy.token_expiry(now, Some(lifetime_secs(366 * 86_400)), None).is_err());
        assert!(policy.token_expiry(now, None, Some(lifetime_secs(366 * 86_400))).is_err());
        assert_eq!(policy.unlimited_expiry(), Err(PolicyViolation::NoExpirationNotAllowed));
    }
}
