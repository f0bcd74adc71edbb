//! The keys of the policy with their values, in the form of commands, output and the store.

use std::num::NonZeroU32;
use std::str::FromStr;

use super::{Lifetime, Policy};

/// One key of the policy and its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicySetting {
    /// Maximum number of live tokens of a user.
    MaxTokensPerUser(NonZeroU32),
    /// Lifetime of a token that requests none.
    DefaultLifetime(Lifetime),
    /// Maximum lifetime of a token.
    MaxLifetime(Lifetime),
    /// Whether tokens without expiration are allowed.
    AllowNever(bool),
    /// Time that expired and revoked tokens are kept.
    TokenRetention(Lifetime),
    /// Time that events of the audit trail are kept.
    AuditRetention(Lifetime),
}

const MAX_TOKENS_PER_USER_KEY: &str = "max-tokens-per-user";
const DEFAULT_LIFETIME_KEY: &str = "default-lifetime";
const MAX_LIFETIME_KEY: &str = "max-lifetime";
const ALLOW_NEVER_KEY: &str = "allow-never";
const TOKEN_RETENTION_KEY: &str = "token-retention";
const AUDIT_RETENTION_KEY: &str = "audit-retention";
const POLICY_KEYS: [&str; 6] = [
    MAX_TOKENS_PER_USER_KEY,
    DEFAULT_LIFETIME_KEY,
    MAX_LIFETIME_KEY,
    ALLOW_NEVER_KEY,
    TOKEN_RETENTION_KEY,
    AUDIT_RETENTION_KEY,
];

impl PolicySetting {
    /// Parses a key and its value from their text forms.
    ///
    /// # Errors
    /// A message with the allowed keys or values.
    pub fn parse(key: &str, value: &str) -> Result<Self, String> {
        let lifetime = || value.parse().map_err(|error| format!("{key}: {error}"));
        match key {
            MAX_TOKENS_PER_USER_KEY => parse_value(key, value, "a whole number from 1").map(Self::MaxTokensPerUser),
            DEFAULT_LIFETIME_KEY => lifetime().map(Self::DefaultLifetime),
            MAX_LIFETIME_KEY => lifetime().map(Self::MaxLifetime),
            ALLOW_NEVER_KEY => parse_value(key, value, "true or false").map(Self::AllowNever),
            TOKEN_RETENTION_KEY => lifetime().map(Self::TokenRetention),
            AUDIT_RETENTION_KEY => lifetime().map(Self::AuditRetention),
            _ => Err(format!("the policy key {key:?} is unknown: give one of {}", POLICY_KEYS.join(", "))),
        }
    }

    /// Returns the key.
    pub fn key(self) -> &'static str {
        match self {
            Self::MaxTokensPerUser(_) => MAX_TOKENS_PER_USER_KEY,
            Self::DefaultLifetime(_) => DEFAULT_LIFETIME_KEY,
            Self::MaxLifetime(_) => MAX_LIFETIME_KEY,
            Self::AllowNever(_) => ALLOW_NEVER_KEY,
            Self::TokenRetention(_) => TOKEN_RETENTION_KEY,
            Self::AuditRetention(_) => AUDIT_RETENTION_KEY,
        }
    }

    /// Returns the value in the form that [`PolicySetting::parse`] reads.
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

fn parse_value<T: FromStr>(key: &str, value: &str, form: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{value:?} is not a value for {key}: give {form}"))
}

impl Policy {
    /// Returns every key with its value.
    pub fn settings(&self) -> [PolicySetting; 6] {
        [
            PolicySetting::MaxTokensPerUser(self.max_tokens_per_user),
            PolicySetting::DefaultLifetime(self.default_lifetime),
            PolicySetting::MaxLifetime(self.max_lifetime),
            PolicySetting::AllowNever(self.allow_never),
            PolicySetting::TokenRetention(self.token_retention),
            PolicySetting::AuditRetention(self.audit_retention),
        ]
    }

    /// Returns this policy with another value for one key.
    #[must_use]
    pub fn with_setting(mut self, setting: PolicySetting) -> Self {
        match setting {
            PolicySetting::MaxTokensPerUser(count) => self.max_tokens_per_user = count,
            PolicySetting::DefaultLifetime(lifetime) => self.default_lifetime = lifetime,
            PolicySetting::MaxLifetime(lifetime) => self.max_lifetime = lifetime,
            PolicySetting::AllowNever(allow) => self.allow_never = allow,
            PolicySetting::TokenRetention(lifetime) => self.token_retention = lifetime,
            PolicySetting::AuditRetention(lifetime) => self.audit_retention = lifetime,
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_settings_roundtrip() {
        let policy = Policy::default();
        for (key, setting) in POLICY_KEYS.into_iter().zip(policy.settings()) {
            assert_eq!(setting.key(), key);
            assert_eq!(PolicySetting::parse(key, &setting.value()), Ok(setting));
            assert_eq!(policy.with_setting(setting), policy);
        }
        let changed = policy.with_setting(PolicySetting::AllowNever(true));
        assert!(changed.allow_never && changed != policy);
    }

    #[test]
    fn zero_max_tokens_per_user_is_refused() {
        let refused = PolicySetting::parse(MAX_TOKENS_PER_USER_KEY, "0").expect_err("refused");
        assert!(refused.contains("from 1"), "{refused}");
    }
}
