//! Until when a token lives, and what the policy lets it ask for.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Lifetime, Time};

/// When a token dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expiry {
    /// At an instant, whatever happens.
    Hard(Time),
    /// A while after its last use, and at the latest at `cap`.
    Sliding {
        /// How long it may rest, in milliseconds.
        window_ms: u64,
        /// The instant that no use moves it past.
        cap: Time,
    },
    /// Only when it is revoked.
    Never,
}

impl Expiry {
    /// How near an end is that is told of.
    pub const SOON: Duration = Duration::from_secs(7 * 86_400);

    /// Returns the instant at which a token last used (or else made) at `last_use` dies.
    pub fn deadline(self, last_use: Time) -> Time {
        match self {
            Expiry::Hard(at) => at,
            Expiry::Sliding { window_ms, cap } => last_use.after(Duration::from_millis(window_ms)).min(cap),
            Expiry::Never => Time::MAX,
        }
    }

    /// Returns the instant that no use moves the token past.
    pub fn cap(self) -> Time {
        match self {
            Expiry::Hard(at) => at,
            Expiry::Sliding { cap, .. } => cap,
            Expiry::Never => Time::MAX,
        }
    }

    /// Tells whether a token ends soon unless it is used, or whatever happens: within a week, and in the last quarter of
    /// its life, or of its rest where that is longer than a day.
    pub fn ends_soon(self, made: Time, used: Option<Time>, now: Time) -> bool {
        let near =
            |begin: Time, end: Time| now < end && end.since(now) <= Self::SOON && end.since(now) * 4 < end.since(begin);
        let rested = used.unwrap_or(made);
        let of_rest = match self {
            Expiry::Sliding { window_ms, .. } => window_ms > 86_400_000 && near(rested, self.deadline(rested)),
            Expiry::Hard(_) | Expiry::Never => false,
        };
        of_rest || near(made, self.cap())
    }

    /// Returns this expiry, moved ahead where it would end after `cap`.
    #[must_use]
    pub fn no_later_than(self, cap: Time) -> Self {
        match self {
            Expiry::Sliding { window_ms, cap: own } => Expiry::Sliding { window_ms, cap: own.min(cap) },
            Expiry::Never if cap == Time::MAX => Expiry::Never,
            Expiry::Hard(_) | Expiry::Never => Expiry::Hard(self.cap().min(cap)),
        }
    }
}

/// What tokens may ask for; kept in the store, changed at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How many live tokens a user may own.
    pub max_tokens_per_user: NonZeroU32,
    /// How long a token lives that asks for nothing.
    pub default_lifetime: Lifetime,
    /// How long a token may live, sliding ones included.
    pub max_lifetime: Lifetime,
    /// Whether a token may live until it is revoked.
    pub allow_never: bool,
    /// How long a token is kept that has expired or was revoked.
    pub token_retention: Lifetime,
    /// How long an event of the audit trail is kept.
    pub audit_retention: Lifetime,
}

impl Default for Policy {
    /// Five tokens, 90 days, one year, no `never`; dead tokens are kept 30 days, events 90.
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
    /// Turns what a new token asks for into its expiry.
    ///
    /// A hard limit and a window together make a sliding expiry capped by the hard limit; a window
    /// alone is capped by the maximum lifetime; neither means the default lifetime.
    ///
    /// # Errors
    /// [`PolicyFault`] when more is asked for than the policy gives.
    pub fn expiry(&self, now: Time, hard: Option<Lifetime>, window: Option<Lifetime>) -> Result<Expiry, PolicyFault> {
        for asked in [hard, window].into_iter().flatten() {
            if asked > self.max_lifetime {
                return Err(PolicyFault::TooLong { asked, max: self.max_lifetime });
            }
        }
        Ok(match (hard, window) {
            (hard, Some(window)) => Expiry::Sliding {
                window_ms: window.as_secs() * 1000,
                cap: now.after(hard.unwrap_or(self.max_lifetime).duration()),
            },
            (Some(hard), None) => Expiry::Hard(now.after(hard.duration())),
            (None, None) => Expiry::Hard(now.after(self.default_lifetime.duration())),
        })
    }

    /// Returns [`Expiry::Never`] where the policy allows it.
    ///
    /// # Errors
    /// [`PolicyFault::Never`] where it doesn't.
    pub fn never(&self) -> Result<Expiry, PolicyFault> {
        if self.allow_never { Ok(Expiry::Never) } else { Err(PolicyFault::Never) }
    }
}

/// What the policy refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyFault {
    /// Longer than the maximum lifetime.
    #[error("{asked} is longer than the policy's max-lifetime of {max}")]
    TooLong {
        /// What was asked for.
        asked: Lifetime,
        /// What the policy gives at most.
        max: Lifetime,
    },
    /// A life without end.
    #[error("the policy does not allow tokens that never expire (allow-never is false)")]
    Never,
    /// As many live tokens as a user may have.
    #[error("the policy allows a user {0} live tokens (max-tokens-per-user), and there are as many")]
    TooMany(u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_777_968_000_000;

    fn secs(n: u64) -> Lifetime {
        Lifetime::from_secs(n).expect("in range")
    }

    #[test]
    fn each_use_moves_a_sliding_expiry_up_to_its_cap() {
        let now = Time::from_millis(NOW);
        let expiry = Policy::default().expiry(now, Some(secs(100)), Some(secs(60))).expect("allowed");
        assert_eq!(expiry.deadline(now), now.after(secs(60).duration()));
        let later = now.after(secs(30).duration());
        assert_eq!(expiry.deadline(later), now.after(secs(90).duration()));
        let late = now.after(secs(80).duration());
        assert_eq!(expiry.deadline(late), now.after(secs(100).duration()));
    }

    #[test]
    fn an_end_is_soon_within_a_week_and_in_the_last_quarter() {
        let made = Time::from_millis(NOW);
        let at = |hours: u64| made.after(Duration::from_secs(hours * 3600));
        let soon = |expiry: Expiry, used: Option<u64>| {
            (0..10_000).filter(|hour| expiry.ends_soon(made, used.map(at), at(*hour))).collect::<Vec<u64>>()
        };
        let hours = |from: u64, to: u64| (from..to).collect::<Vec<u64>>();
        let sliding = |window: u64, cap: u64| Expiry::Sliding { window_ms: window * 3_600_000, cap: at(cap) };
        assert_eq!(soon(Expiry::Never, None), hours(0, 0));
        assert_eq!(soon(Expiry::Hard(at(100)), None), hours(76, 100), "the last quarter");
        assert_eq!(soon(Expiry::Hard(at(2000)), None), hours(2000 - 168, 2000), "a week");
        assert_eq!(soon(sliding(100, 5000), Some(1000)), [hours(1076, 1100), hours(5000 - 168, 5000)].concat());
        assert_eq!(soon(sliding(24, 5000), None), hours(5000 - 168, 5000), "a short rest is nothing to tell of");
    }

    #[test]
    fn use_does_not_move_a_hard_limit() {
        let now = Time::from_millis(NOW);
        let expiry = Policy::default().expiry(now, Some(secs(100)), None).expect("allowed");
        assert_eq!(expiry.deadline(now.after(secs(99).duration())), now.after(secs(100).duration()));
    }

    #[test]
    fn a_window_alone_is_capped_by_the_maximum_lifetime() {
        let now = Time::from_millis(NOW);
        let policy = Policy::default();
        let expiry = policy.expiry(now, None, Some(secs(60))).expect("allowed");
        assert_eq!(expiry.cap(), now.after(policy.max_lifetime.duration()));
    }

    #[test]
    fn more_than_the_policy_gives_is_refused() {
        let policy = Policy::default();
        let now = Time::from_millis(NOW);
        assert!(policy.expiry(now, Some(secs(366 * 86_400)), None).is_err());
        assert!(policy.expiry(now, None, Some(secs(366 * 86_400))).is_err());
        assert_eq!(policy.never(), Err(PolicyFault::Never));
    }
}
