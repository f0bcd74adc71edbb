//! The keys of the policy, each with its value: as they are typed, told and kept.

use std::num::NonZeroU32;
use std::str::FromStr;

use super::{Lifetime, Policy};

/// One key of the policy and its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// How many live tokens a user may own.
    MaxTokensPerUser(NonZeroU32),
    /// How long a token lives that asks for nothing.
    DefaultLifetime(Lifetime),
    /// How long a token may live.
    MaxLifetime(Lifetime),
    /// Whether a token may live until it is revoked.
    AllowNever(bool),
    /// How long a token is kept that has expired or was revoked.
    TokenRetention(Lifetime),
    /// How long an event of the audit trail is kept.
    AuditRetention(Lifetime),
}

const MAX_TOKENS: &str = "max-tokens-per-user";
const DEFAULT_LIFETIME: &str = "default-lifetime";
const MAX_LIFETIME: &str = "max-lifetime";
const ALLOW_NEVER: &str = "allow-never";
const TOKEN_RETENTION: &str = "token-retention";
const AUDIT_RETENTION: &str = "audit-retention";
const KEYS: [&str; 6] = [MAX_TOKENS, DEFAULT_LIFETIME, MAX_LIFETIME, ALLOW_NEVER, TOKEN_RETENTION, AUDIT_RETENTION];

impl Setting {
    /// Reads a key and its value as they are typed.
    ///
    /// # Errors
    /// A sentence that says what may be given.
    pub fn parse(key: &str, value: &str) -> Result<Self, String> {
        let lifetime = || value.parse().map_err(|error| format!("{key}: {error}"));
        match key {
            MAX_TOKENS => parse(key, value, "a whole number from 1").map(Self::MaxTokensPerUser),
            DEFAULT_LIFETIME => lifetime().map(Self::DefaultLifetime),
            MAX_LIFETIME => lifetime().map(Self::MaxLifetime),
            ALLOW_NEVER => parse(key, value, "true or false").map(Self::AllowNever),
            TOKEN_RETENTION => lifetime().map(Self::TokenRetention),
            AUDIT_RETENTION => lifetime().map(Self::AuditRetention),
            _ => Err(format!("the policy key {key:?} is unknown: give one of {}", KEYS.join(", "))),
        }
    }

    /// Returns the key.
    pub fn key(self) -> &'static str {
        match self {
            Self::MaxTokensPerUser(_) => MAX_TOKENS,
            Self::DefaultLifetime(_) => DEFAULT_LIFETIME,
            Self::MaxLifetime(_) => MAX_LIFETIME,
            Self::AllowNever(_) => ALLOW_NEVER,
            Self::TokenRetention(_) => TOKEN_RETENTION,
            Self::AuditRetention(_) => AUDIT_RETENTION,
        }
    }

    /// Writes the value as [`Setting::parse`] reads it.
    pub fn value(self) -> String {
        match self {
            Self::MaxTokensPerUser(count) => count.to_string(),
            Self::AllowNever(allow) => allow.to_string(),
            Self::DefaultLifetime(lifetime)
            | Self::MaxLifetime(lifetime)
            | Self::TokenRetention(lifetime)
            | Self::AuditRetention(lifetime) => lifetime.to_string(),
        }
    }
}

fn parse<T: FromStr>(key: &str, value: &str, form: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{value:?} is no value for {key}: give {form}"))
}

impl Policy {
    /// Returns every key with its value.
    pub fn settings(&self) -> [Setting; 6] {
        [
            Setting::MaxTokensPerUser(self.max_tokens_per_user),
            Setting::DefaultLifetime(self.default_lifetime),
            Setting::MaxLifetime(self.max_lifetime),
            Setting::AllowNever(self.allow_never),
            Setting::TokenRetention(self.token_retention),
            Setting::AuditRetention(self.audit_retention),
        ]
    }

    /// Returns this policy with another value for one key.
    #[must_use]
    pub fn with(mut self, setting: Setting) -> Self {
        match setting {
            Setting::MaxTokensPerUser(count) => self.max_tokens_per_user = count,
            Setting::DefaultLifetime(lifetime) => self.default_lifetime = lifetime,
            Setting::MaxLifetime(lifetime) => self.max_lifetime = lifetime,
            Setting::AllowNever(allow) => self.allow_never = allow,
            Setting::TokenRetention(lifetime) => self.token_retention = lifetime,
            Setting::AuditRetention(lifetime) => self.audit_retention = lifetime,
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read_as_it_is_written() {
        let policy = Policy::default();
        for (key, setting) in KEYS.into_iter().zip(policy.settings()) {
            assert_eq!(setting.key(), key);
            assert_eq!(Setting::parse(key, &setting.value()), Ok(setting));
            assert_eq!(policy.with(setting), policy);
        }
        let changed = policy.with(Setting::AllowNever(true));
        assert!(changed.allow_never && changed != policy);
    }

    #[test]
    fn no_tokens_at_all_is_no_setting() {
        let refused = Setting::parse(MAX_TOKENS, "0").expect_err("refused");
        assert!(refused.contains("from 1"), "{refused}");
    }
}
