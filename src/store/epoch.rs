//! The published epoch: lets a process cache a token's row, and never for a moment too long.
//!
//! The *epoch* is advanced, by triggers in the schema, by every write that may change what a caller may do. Beside the
//! database, a file of 16 bytes holds the epoch up to which writes may have been committed. Every writer writes the new
//! epoch to it *before* it commits, while it holds SQLite's write lock: one at a time, and in the order of the commits.
//!
//! So rows that were read from the database at epoch `e` are current as long as the file holds `e`: a later change that
//! is committed would have published its epoch first. Using the cached rows then gives what reading the database at
//! this moment would give. Any other content of the file proves nothing, and the database is read.
//!
//! * *Published and not committed* (killed in between, or SQLite refused): the file is ahead, every process reads the
//!   database, and the next write of any process, alone by its lock, sets the file to the epoch of the database.
//! * *Read during a write*: the number is stored twice, once inverted, so that a torn value matches nothing.
//! * *Changed by another program* (`sqlite3`), which publishes nothing: the store watcher notices it as it does for
//!   open sessions, within a second, and publishes it late.
//! * *A lost or outdated file* is like a lost journal: the state directory belongs to patgate alone while it runs. The
//!   next opening of the store writes the file again.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rusqlite::Connection;

use super::{Result, Store, StoreError, WriteDurability};

const EPOCH_FILE_NAME: &str = "patgate.epoch";

/// Whether a write had to publish another epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EpochChange {
    /// Another epoch was published: what a session may do may have changed.
    Published,
    /// The published epoch was that of the write already.
    Unchanged,
}

/// The file that holds the published epoch.
pub(super) struct EpochFile(File);

impl EpochFile {
    /// Opens the file in a state directory; creates it (0600) where there is none.
    pub(super) fn open(state_dir: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(state_dir.join(EPOCH_FILE_NAME))
            .map(Self)
    }

    /// Tells whether the file holds exactly this epoch.
    fn matches(&self, epoch: i64) -> bool {
        // One positioned read without a lock: a torn value mismatches by its inverted half.
        let mut content = [0; 16];
        matches!(self.0.read_at(&mut content, 0), Ok(16)) && content == encode_epoch(epoch)
    }

    /// Writes the epoch that a transaction is about to commit to the file. The transaction must hold the write lock.
    pub(super) fn publish(&self, transaction: &Connection, state_dir: &Path) -> Result<EpochChange> {
        let epoch = read_epoch(transaction)?;
        // Most writes don't advance the epoch and leave the file as it is.
        if self.matches(epoch) {
            return Ok(EpochChange::Unchanged);
        }
        // Not synced: after a power cut, opening the store publishes the epoch again.
        let written = self.0.write_all_at(&encode_epoch(epoch), 0);
        written
            .map(|()| EpochChange::Published)
            .map_err(|source| StoreError::StateDirectory { path: state_dir.join(EPOCH_FILE_NAME), source })
    }
}

impl Store {
    /// Returns the epoch: a number that every write advances that may change what a caller may do.
    pub(crate) fn epoch(&self) -> Result<i64> {
        self.read(read_epoch)
    }

    /// Tells whether rows that were read at an epoch are still current. Costs one read of a file in the page cache;
    /// returns false when in doubt.
    pub(crate) fn is_current_epoch(&self, epoch: i64) -> bool {
        self.inner.epoch_file.matches(epoch)
    }

    /// Publishes the epoch of the database where the file holds another one: a process was killed before its commit,
    /// or another program changed the database. May have to wait for another writer.
    pub(crate) fn republish_epoch(&self) -> Result<()> {
        if self.is_current_epoch(self.epoch()?) {
            Ok(())
        } else {
            // An empty write: its commit publishes the epoch of the database under the write lock.
            self.write_shrinking(WriteDurability::Lazy, |_| Ok(()))
        }
    }
}

fn read_epoch(c: &Connection) -> Result<i64> {
    Ok(c.prepare_cached("SELECT epoch FROM meta")?.query_row([], |row| row.get(0))?)
}

fn encode_epoch(epoch: i64) -> [u8; 16] {
    let mut text = [0; 16];
    text[..8].copy_from_slice(&epoch.to_le_bytes());
    text[8..].copy_from_slice(&(!epoch).to_le_bytes());
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::store::testing::{execute_externally, login, now, open_temp_store};

    fn published_epoch(state_dir: &Path) -> i64 {
        let content = fs::read(state_dir.join(EPOCH_FILE_NAME)).expect("there");
        i64::from_le_bytes(content[..8].try_into().expect("8 bytes"))
    }

    #[test]
    fn torn_epoch_write_matches_nothing() {
        let temp_dir = tempfile::tempdir().expect("directory");
        let epoch_file = EpochFile::open(temp_dir.path()).expect("opens");
        assert!(!epoch_file.matches(0), "an empty file matches nothing");
        let (old, new) = (encode_epoch(0x2ff), encode_epoch(0x300));
        for split in 0..=16 {
            for (front, back) in [(old, new), (new, old)] {
                let mixed: Vec<u8> = front[..split].iter().chain(&back[split..]).copied().collect();
                epoch_file.0.write_all_at(&mixed, 0).expect("written");
                let matching: Vec<i64> = (0..0x400).filter(|epoch| epoch_file.matches(*epoch)).collect();
                assert!(
                    matching.is_empty() || [encode_epoch(matching[0])] == [old] || [encode_epoch(matching[0])] == [new],
                    "{matching:x?}"
                );
            }
        }
    }

    #[test]
    fn epoch_is_published_before_commit() {
        let (_temp_dir, store) = open_temp_store();
        store.create_user(&login("alice"), &[], now()).expect("user");
        let other = Store::open(store.state_dir()).expect("opens");
        let writer = std::thread::spawn(move || {
            for _ in 0..2000 {
                other.write(WriteDurability::Lazy, |t| {
                    Ok(t.execute("UPDATE users SET login = login", []).map(drop)?)
                })?;
            }
            other.epoch()
        });
        while !writer.is_finished() {
            let committed = store.epoch().expect("read");
            assert!(published_epoch(store.state_dir()) >= committed);
        }
        let last = writer.join().expect("joined").expect("written");
        assert!(last > 2000 && store.is_current_epoch(last));
    }

    #[test]
    fn uncommitted_epoch_is_corrected_by_next_write() {
        let (_temp_dir, store) = open_temp_store();
        let epoch = store.epoch().expect("read");
        store.inner.epoch_file.0.write_all_at(&encode_epoch(epoch + 1), 0).expect("written");
        assert!(!store.is_current_epoch(epoch), "in doubt the database is read");
        Store::open(store.state_dir()).expect("opens").set_policy("allow-never", "true").expect("written");
        assert!(store.is_current_epoch(epoch));
        let failed: Result<()> = store.write(WriteDurability::Lazy, |t| {
            t.execute("UPDATE meta SET epoch = epoch + 1", [])?;
            Err(StoreError::NotFound("it".to_owned()))
        });
        assert!(failed.is_err() && store.is_current_epoch(epoch), "a rolled back epoch is not published");
    }

    #[test]
    fn external_change_is_published_by_watcher() {
        let (_temp_dir, store) = open_temp_store();
        store.create_user(&login("alice"), &[], now()).expect("user");
        let epoch = store.epoch().expect("read");
        execute_externally(&store, "UPDATE users SET disabled_at = 1");
        assert!(store.is_current_epoch(epoch), "not published yet");
        store.republish_epoch().expect("announced");
        assert!(!store.is_current_epoch(epoch) && store.is_current_epoch(store.epoch().expect("read")));
    }

    #[test]
    fn lost_or_stale_epoch_file_is_rewritten_at_open() {
        let (temp_dir, store) = open_temp_store();
        store.create_user(&login("alice"), &[], now()).expect("user");
        store.disable_user(&login("alice"), now()).expect("disabled");
        let (state_dir, epoch) = (store.state_dir().to_owned(), store.epoch().expect("read"));
        drop(store);
        for old in [None, Some(encode_epoch(epoch - 1)), Some(encode_epoch(epoch + 9))] {
            match old {
                None => fs::remove_file(state_dir.join(EPOCH_FILE_NAME)).expect("removed"),
                Some(old) => fs::write(state_dir.join(EPOCH_FILE_NAME), old).expect("written"),
            }
            assert!(Store::open(&state_dir).expect("opens").is_current_epoch(epoch));
        }
        drop(temp_dir);
    }
}
