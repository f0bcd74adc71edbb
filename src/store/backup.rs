//! Copies of the database for backups, and what has to change in a copy before it is used again.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::audit_chain::ChainHead;
use super::audit_export::read_chain_head;
use super::{DATABASE_FILE_NAME, Result, Store, StoreError, WriteDurability, sqlite};
use crate::domain::{Actor, AuditEvent, EventKind, UnixMillis};

/// What a state holds at a time, for the manifest of a backup and the report of a restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateSummary {
    /// Schema version of the database.
    pub schema: usize,
    /// Number of users, disabled ones included.
    pub users: u64,
    /// Number of grants.
    pub grants: u64,
    /// Number of tokens that are neither revoked nor expired.
    pub live_tokens: u64,
    /// Number of those whose expiration moves with each use.
    pub sliding_tokens: u64,
    /// Last row of the audit trail.
    pub audit_head: ChainHead,
}

impl Store {
    /// Copies the database to a new file (0600) as it is at one moment, and syncs it. Nobody waits for that: writes go on.
    ///
    /// # Errors
    /// [`StoreError::StateDirectory`] where the file exists already or can't be created.
    pub fn copy_to(&self, target: &Path, now: UnixMillis) -> Result<StateSummary> {
        let target_error = |source| StoreError::StateDirectory { path: target.to_owned(), source };
        // SQLite accepts an existing empty file as the target: created here, nobody else can read it at any moment.
        let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(target).map_err(target_error)?;
        // A connection of its own: readers refuse to write, and writers are waited for.
        let source = sqlite::open_writer(&self.state_dir().join(DATABASE_FILE_NAME), WriteDurability::Lazy)?;
        sqlite::copy_database(&source, target)?;
        file.sync_all().map_err(target_error)?;
        let copy = sqlite::open_copy(target)?;
        sqlite::check_integrity(&copy)?;
        read_summary(&copy, now)
    }

    /// Returns what the state holds.
    pub fn summary(&self, now: UnixMillis) -> Result<StateSummary> {
        self.snapshot(|c| read_summary(c, now))
    }

    /// Makes a copy of the database ready to be used in place of the original: sync tokens that clients have from the time
    /// after the copy was made are never taken for new ones. Records that it was restored.
    pub fn adopt_restored(&self, actor: Actor, detail: &str, now: UnixMillis) -> Result<()> {
        self.write(WriteDurability::Synced, |t| {
            t.execute("DELETE FROM journals", [])?;
            // Journals get one number each, and never one in each millisecond.
            sqlite::raise_last_drawn_id(t, "journals", now.as_millis())?;
            let event = AuditEvent::new(now, EventKind::StateRestored).with_actor(actor.clone()).with_detail(detail);
            super::audit::insert_event(t, &event)
        })
    }
}

fn read_summary(c: &Connection, now: UnixMillis) -> Result<StateSummary> {
    let count = |query: &str, at: Option<UnixMillis>| -> Result<u64> {
        let rows: i64 = match at {
            Some(at) => c.query_row(query, [at], |row| row.get(0))?,
            None => c.query_row(query, [], |row| row.get(0))?,
        };
        Ok(rows.unsigned_abs())
    };
    const LIVE_TOKENS: &str = "SELECT count(*) FROM tokens
         WHERE revoked_at IS NULL AND expiry_recorded = 0 AND (expires_at IS NULL OR expires_at > ?1)";
    Ok(StateSummary {
        schema: sqlite::schema_version(c)?,
        users: count("SELECT count(*) FROM users", None)?,
        grants: count("SELECT count(*) FROM grants", None)?,
        live_tokens: count(LIVE_TOKENS, Some(now))?,
        sliding_tokens: count(&format!("{LIVE_TOKENS} AND window_ms IS NOT NULL"), Some(now))?,
        audit_head: read_chain_head(c)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{login, new_token, now, open_temp_store};

    #[test]
    fn copy_is_complete_and_independent_of_the_original() {
        let (temp_dir, store) = open_temp_store();
        store.create_user(&login("alice"), &[], now()).expect("user");
        store.add_token(&new_token("aaaaaaaa", "alice", crate::domain::TokenExpiry::Never)).expect("token");
        let target = temp_dir.path().join("copy/patgate.db");
        std::fs::create_dir(temp_dir.path().join("copy")).expect("directory");
        let summary = store.copy_to(&target, now()).expect("copied");
        assert_eq!((summary.users, summary.live_tokens, summary.sliding_tokens), (1, 1, 0));
        assert!(store.copy_to(&target, now()).is_err(), "nothing is replaced");
        store.revoke_tokens(&["aaaaaaaa".parse().expect("id")], now()).expect("revoked");
        let copy = Store::open(&temp_dir.path().join("copy")).expect("opens");
        assert_eq!(copy.summary(now()).expect("read"), summary);
        assert_eq!(store.summary(now()).expect("read").live_tokens, 0);
        copy.adopt_restored(Actor::Server, "why", now()).expect("adopted");
        assert!(copy.verify_audit_chain(vec![summary.audit_head]).expect("read").is_intact());
    }

    #[test]
    fn restored_store_draws_no_journal_number_that_clients_may_know() {
        let (_temp_dir, store) = open_temp_store();
        store.create_user(&login("alice"), &[], now()).expect("user");
        store.add_token(&new_token("aaaaaaaa", "alice", crate::domain::TokenExpiry::Never)).expect("token");
        store.adopt_restored(Actor::Server, "why", now()).expect("adopted");
        let insert = "INSERT INTO journals (token, path, depth_infinity, purged_through, last_number, used_at)
            VALUES ('aaaaaaaa', ?1, 0, 0, 0, 0) RETURNING id";
        let journal = |path: &[u8]| -> i64 {
            store.write(WriteDurability::Lazy, |t| Ok(t.query_row(insert, [path], |row| row.get(0))?)).expect("written")
        };
        let first = journal(b"a");
        assert!(first > now().as_millis());
        store.adopt_restored(Actor::Server, "why", now()).expect("adopted");
        assert!(journal(b"b") > first, "also where the clock was set back");
    }
}
