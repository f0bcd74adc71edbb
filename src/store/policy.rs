//! The policy, one row a key; a key without a row has its default.

use std::str::FromStr;

use rusqlite::{Connection, params};

use super::{Durability, Result, Store, StoreError};
use crate::domain::{EventKind, Lifetime, Policy};

const MAX_TOKENS: &str = "max-tokens-per-user";
const DEFAULT_LIFETIME: &str = "default-lifetime";
const MAX_LIFETIME: &str = "max-lifetime";
const ALLOW_NEVER: &str = "allow-never";
const TOKEN_RETENTION: &str = "token-retention";
const AUDIT_RETENTION: &str = "audit-retention";
const KEYS: [&str; 6] = [MAX_TOKENS, DEFAULT_LIFETIME, MAX_LIFETIME, ALLOW_NEVER, TOKEN_RETENTION, AUDIT_RETENTION];

impl Store {
    /// Returns the policy.
    pub fn policy(&self) -> Result<Policy> {
        self.read(policy)
    }

    /// Changes one key of the policy, as it is typed, and returns what holds then.
    ///
    /// # Errors
    /// [`StoreError::Setting`] for an unknown key, a bad value, or a default lifetime above the maximum.
    pub fn set_policy(&self, key: &str, value: &str) -> Result<Policy> {
        self.write(Durability::Synced, |t| {
            let mut policy = policy(t)?;
            apply(&mut policy, key, value).map_err(StoreError::Setting)?;
            if policy.default_lifetime > policy.max_lifetime {
                let Policy { default_lifetime, max_lifetime, .. } = policy;
                return Err(StoreError::Setting(format!(
                    "default-lifetime may not exceed max-lifetime: they would be {default_lifetime} and {max_lifetime}"
                )));
            }
            t.execute(
                "INSERT INTO policy (key, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value",
                params![key, value],
            )?;
            self.note(t, EventKind::PolicyChanged, |event| event.detail(format!("{key} {value}")))?;
            Ok(policy)
        })
    }
}

/// Reads the policy within a transaction.
pub(super) fn policy(c: &Connection) -> Result<Policy> {
    let mut policy = Policy::default();
    let mut select = c.prepare_cached("SELECT key, value FROM policy")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let (key, value): (String, String) = (row.get(0)?, row.get(1)?);
        apply(&mut policy, &key, &value).map_err(StoreError::Damaged)?;
    }
    Ok(policy)
}

fn apply(policy: &mut Policy, key: &str, value: &str) -> Result<(), String> {
    match key {
        MAX_TOKENS => policy.max_tokens_per_user = parse(key, value, "a whole number")?,
        DEFAULT_LIFETIME => policy.default_lifetime = lifetime(key, value)?,
        MAX_LIFETIME => policy.max_lifetime = lifetime(key, value)?,
        ALLOW_NEVER => policy.allow_never = parse(key, value, "true or false")?,
        TOKEN_RETENTION => policy.token_retention = lifetime(key, value)?,
        AUDIT_RETENTION => policy.audit_retention = lifetime(key, value)?,
        _ => {
            let known = KEYS.join(", ");
            return Err(format!("the policy key {key:?} is unknown: give one of {known}"));
        }
    }
    Ok(())
}

fn parse<T: FromStr>(key: &str, value: &str, form: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{value:?} is no value for {key}: give {form}"))
}

fn lifetime(key: &str, value: &str) -> Result<Lifetime, String> {
    value.parse().map_err(|error| format!("{key}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_outlives_the_process_and_refuses_what_it_cannot_hold() {
        let state = tempfile::tempdir().expect("folder");
        let store = Store::open(state.path()).expect("opens");
        assert_eq!(store.policy().expect("read"), Policy::default());
        for (key, value) in [
            ("max-tokens", "5"),
            ("max-tokens-per-user", "-1"),
            ("max-tokens-per-user", "many"),
            ("allow-never", "yes"),
            ("default-lifetime", "0d"),
            ("default-lifetime", "2Y"),
            ("max-lifetime", "30d"),
        ] {
            let refused = store.set_policy(key, value);
            assert!(matches!(refused, Err(StoreError::Setting(_))), "{key} {value}: {refused:?}");
        }
        assert_eq!(store.policy().expect("read"), Policy::default());
        store.set_policy("max-tokens-per-user", "7").expect("set");
        store.set_policy("default-lifetime", "10d").expect("set");
        store.set_policy("max-lifetime", "30d").expect("set");
        store.set_policy("allow-never", "true").expect("set");
        drop(store);
        let policy = Store::open(state.path()).expect("opens").policy().expect("read");
        assert_eq!(policy.max_tokens_per_user, 7);
        assert_eq!(
            (policy.default_lifetime.to_string(), policy.max_lifetime.to_string()),
            ("10d".into(), "30d".into())
        );
        assert!(policy.allow_never);
    }
}
