//! The one row of facts about the store itself.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{Durability, Result, Store};

impl Store {
    /// Returns the served folder, as `serve` was last told; `None` before the first time.
    pub fn root(&self) -> Result<Option<PathBuf>> {
        let root: Option<Vec<u8>> =
            self.read(|c| Ok(c.prepare_cached("SELECT root FROM meta")?.query_row([], |row| row.get(0))?))?;
        Ok(root.map(|bytes| PathBuf::from(OsStr::from_bytes(&bytes))))
    }

    /// Tells whether a server has used this store.
    pub fn has_been_served(&self) -> Result<bool> {
        Ok(self.root()?.is_some())
    }

    /// Notes the served folder, for commands that run beside the server.
    pub fn set_root(&self, root: &Path) -> Result<()> {
        if self.root()?.as_deref() == Some(root) {
            return Ok(());
        }
        let bytes = root.as_os_str().as_bytes();
        self.write(Durability::Synced, |t| Ok(t.execute("UPDATE meta SET root = ?1", [bytes]).map(drop)?))
    }

    /// Returns what the pepper is recognised by; `None` where it was not looked at yet.
    pub(crate) fn pepper_mark(&self) -> Result<Option<[u8; 16]>> {
        self.read(|c| Ok(c.query_row("SELECT pepper_mark FROM meta", [], |row| row.get(0))?))
    }

    /// Notes what the pepper is recognised by.
    pub(crate) fn set_pepper_mark(&self, mark: &[u8; 16]) -> Result<()> {
        let update = "UPDATE meta SET pepper_mark = ?1";
        self.write_freeing(Durability::Synced, |t| Ok(t.execute(update, [mark]).map(drop)?))
    }

    /// Returns the key that entity tags are made with: made once, the same ever after.
    pub fn etag_key(&self) -> Result<[u8; 32]> {
        self.read(|c| Ok(c.query_row("SELECT etag_key FROM meta", [], |row| row.get(0))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_served_folder_and_the_etag_key_outlive_the_process() {
        let state = tempfile::tempdir().expect("folder");
        let store = Store::open(state.path()).expect("opens");
        assert_eq!(store.root().expect("read"), None);
        store.set_root(Path::new("/srv/files")).expect("written");
        let key = store.etag_key().expect("read");
        drop(store);
        let store = Store::open(state.path()).expect("opens again");
        assert_eq!(store.root().expect("read").as_deref(), Some(Path::new("/srv/files")));
        assert_eq!(store.etag_key().expect("read"), key);
    }
}
