//! The table `meta`: one row with facts about the store itself.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{Result, Store, WriteDurability};

impl Store {
    /// Returns the served directory of the last `serve`; `None` before the first one.
    pub fn served_root(&self) -> Result<Option<PathBuf>> {
        let root: Option<Vec<u8>> =
            self.read(|c| Ok(c.prepare_cached("SELECT root FROM meta")?.query_row([], |row| row.get(0))?))?;
        Ok(root.map(|bytes| PathBuf::from(OsStr::from_bytes(&bytes))))
    }

    /// Tells whether a server has ever used this store.
    pub fn has_been_served(&self) -> Result<bool> {
        Ok(self.served_root()?.is_some())
    }

    /// Records the served directory, for commands that run beside the server.
    pub fn set_served_root(&self, root: &Path) -> Result<()> {
        if self.served_root()?.as_deref() == Some(root) {
            return Ok(());
        }
        let bytes = root.as_os_str().as_bytes();
        self.write(WriteDurability::Synced, |t| Ok(t.execute("UPDATE meta SET root = ?1", [bytes]).map(drop)?))
    }

    /// Returns the value that identifies the pepper; `None` where none was recorded yet.
    pub(crate) fn pepper_check_value(&self) -> Result<Option<[u8; 16]>> {
        self.read(|c| Ok(c.query_row("SELECT pepper_check_value FROM meta", [], |row| row.get(0))?))
    }

    /// Records the value that identifies the pepper.
    pub(crate) fn set_pepper_check_value(&self, check_value: &[u8; 16]) -> Result<()> {
        let update = "UPDATE meta SET pepper_check_value = ?1";
        self.write_shrinking(WriteDurability::Synced, |t| Ok(t.execute(update, [check_value]).map(drop)?))
    }

    /// Returns the key of ETags: drawn once when the store was created, and never changed.
    pub fn etag_key(&self) -> Result<[u8; 32]> {
        self.read(|c| Ok(c.query_row("SELECT etag_key FROM meta", [], |row| row.get(0))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn served_root_and_etag_key_persist() {
        let state = tempfile::tempdir().expect("directory");
        let store = Store::open(state.path()).expect("opens");
        assert_eq!(store.served_root().expect("read"), None);
        store.set_served_root(Path::new("/srv/files")).expect("written");
        let key = store.etag_key().expect("read");
        drop(store);
        let store = Store::open(state.path()).expect("opens again");
        assert_eq!(store.served_root().expect("read").as_deref(), Some(Path::new("/srv/files")));
        assert_eq!(store.etag_key().expect("read"), key);
    }
}
