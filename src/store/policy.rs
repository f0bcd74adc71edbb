//! The policy: one row for each key; a key without a row has its default.

use rusqlite::{Connection, params};

use super::{Result, Store, StoreError, WriteDurability};
use crate::domain::{EventKind, Policy, PolicySetting};

impl Store {
    /// Returns the policy.
    pub fn policy(&self) -> Result<Policy> {
        self.read(read_policy)
    }

    /// Sets one key of the policy from its text form, and returns the new policy.
    ///
    /// # Errors
    /// [`StoreError::InvalidSetting`] for an unknown key or an invalid value, and as [`Store::change_policy`].
    pub fn set_policy(&self, key: &str, value: &str) -> Result<Policy> {
        self.change_policy(&[PolicySetting::parse(key, value).map_err(StoreError::InvalidSetting)?])
    }

    /// Sets keys of the policy, all of them or none, and returns the new policy.
    ///
    /// # Errors
    /// [`StoreError::InvalidSetting`] when the default lifetime would be above the maximum.
    pub fn change_policy(&self, settings: &[PolicySetting]) -> Result<Policy> {
        self.write(WriteDurability::Synced, |t| {
            let before = read_policy(t)?;
            let after = settings.iter().fold(before, |policy, setting| policy.with_setting(*setting));
            // Judged once, with all settings applied: their order in the request must not matter.
            if after.default_lifetime > after.max_lifetime {
                let Policy { default_lifetime, max_lifetime, .. } = after;
                return Err(StoreError::InvalidSetting(format!(
                    "default-lifetime may not exceed max-lifetime: they would be {default_lifetime} and {max_lifetime}"
                )));
            }
            let pairs = before.settings().into_iter().zip(after.settings());
            for (_, setting) in pairs.filter(|(before, after)| before != after) {
                let (key, value) = (setting.key(), setting.value());
                let sql = "INSERT INTO policy (key, value) VALUES (?1, ?2) \
                     ON CONFLICT (key) DO UPDATE SET value = excluded.value";
                t.execute(sql, params![key, value])?;
                self.record_change(t, EventKind::PolicyChanged, |event| event.with_detail(format!("{key} {value}")))?;
            }
            Ok(after)
        })
    }
}

/// Reads the policy within a transaction.
pub(super) fn read_policy(c: &Connection) -> Result<Policy> {
    let mut policy = Policy::default();
    let mut select = c.prepare_cached("SELECT key, value FROM policy")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let (key, value): (String, String) = (row.get(0)?, row.get(1)?);
        policy = policy.with_setting(PolicySetting::parse(&key, &value).map_err(StoreError::Corrupt)?);
    }
    Ok(policy)
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn inconsistent_policy_change_is_refused_as_a_whole() {
        let state = tempfile::tempdir().expect("directory");
        let store = Store::open(state.path()).expect("opens");
        let setting = |key, value| PolicySetting::parse(key, value).expect("a setting");
        let (long, short) = (setting("default-lifetime", "60d"), setting("max-lifetime", "30d"));
        let refused = store.change_policy(&[setting("allow-never", "true"), long, short]);
        assert!(matches!(refused, Err(StoreError::InvalidSetting(_))), "{refused:?}");
        assert_eq!(store.policy().expect("read"), Policy::default());
        for (default, max) in [("20d", "30d"), ("60d", "60d")] {
            let both = [setting("default-lifetime", default), setting("max-lifetime", max)];
            let policy = store.change_policy(&both).expect("whatever the order, the resulting policy is judged");
            assert_eq!(
                (policy.default_lifetime.to_string(), policy.max_lifetime.to_string()),
                (default.into(), max.into())
            );
        }
    }

    #[test]
    fn migration_raises_zero_max_tokens_to_one() {
        for (stored, becomes) in [("0", 1), ("7", 7)] {
            let temp_dir = testing::older_state_dir(6);
            let connection = rusqlite::Connection::open(temp_dir.path().join("patgate.db")).expect("opens");
            connection.execute("INSERT INTO policy VALUES ('max-tokens-per-user', ?1)", [stored]).expect("set");
            drop(connection);
            let store = Store::open(temp_dir.path()).expect("opens");
            assert_eq!(store.policy().expect("read").max_tokens_per_user.get(), becomes);
            store.set_policy("max-tokens-per-user", "5").expect("set");
        }
    }

    #[test]
    fn policy_persists_and_refuses_invalid_values() {
        let state = tempfile::tempdir().expect("directory");
        let store = Store::open(state.path()).expect("opens");
        assert_eq!(store.policy().expect("read"), Policy::default());
        for (key, value) in [
            ("max-tokens", "5"),
            ("max-tokens-per-user", "-1"),
            ("max-tokens-per-user", "many"),
            ("max-tokens-per-user", "0"),
            ("allow-never", "yes"),
            ("default-lifetime", "0d"),
            ("default-lifetime", "2Y"),
            ("max-lifetime", "30d"),
        ] {
            let refused = store.set_policy(key, value);
            assert!(matches!(refused, Err(StoreError::InvalidSetting(_))), "{key} {value}: {refused:?}");
        }
        assert_eq!(store.policy().expect("read"), Policy::default());
        store.set_policy("max-tokens-per-user", "7").expect("set");
        store.set_policy("default-lifetime", "10d").expect("set");
        store.set_policy("max-lifetime", "30d").expect("set");
        store.set_policy("allow-never", "true").expect("set");
        drop(store);
        let policy = Store::open(state.path()).expect("opens").policy().expect("read");
        assert_eq!(policy.max_tokens_per_user.get(), 7);
        assert_eq!(
            (policy.default_lifetime.to_string(), policy.max_lifetime.to_string()),
            ("10d".into(), "30d".into())
        );
        assert!(policy.allow_never);
    }
}
