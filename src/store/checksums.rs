//! Checksums of file contents, by their ETags: a checksum is found as long as the content is unchanged, wherever the
//! file is moved to, and without a node.

use std::sync::atomic::Ordering;

use rusqlite::{OptionalExtension, params};

use super::{Result, Store, WriteDurability};

/// Maximum number of stored checksums; the oldest are deleted.
const MAX_CHECKSUM_ROWS: i64 = 1_000_000;

impl Store {
    /// Returns the checksum of the content with an ETag.
    pub(crate) fn checksum(&self, etag: &[u8; 16]) -> Result<Option<String>> {
        // Only a server stores checksums, so no other process makes this flag outdated.
        if !self.inner.has_checksums.load(Ordering::Acquire) {
            return Ok(None);
        }
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT value FROM checksums WHERE etag = ?1")?;
            Ok(statement.query_row([etag], |row| row.get(0)).optional()?)
        })
    }

    /// Stores the checksum of the content with an ETag.
    pub(crate) fn put_checksum(&self, etag: &[u8; 16], value: &str) -> Result<()> {
        self.write(WriteDurability::Lazy, |connection| {
            // Deleted and not updated: with a new `number`, a checksum that is stored again counts as the newest.
            connection.prepare_cached("DELETE FROM checksums WHERE etag = ?1")?.execute([etag])?;
            let sql = "INSERT INTO checksums (etag, value) VALUES (?1, ?2)";
            connection.prepare_cached(sql)?.execute(params![etag, value])?;
            let sql = "DELETE FROM checksums WHERE number <= (SELECT max(number) FROM checksums) - ?1";
            connection.prepare_cached(sql)?.execute([MAX_CHECKSUM_ROWS])?;
            Ok(())
        })?;
        self.inner.has_checksums.store(true, Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::open_temp_store;

    #[test]
    fn checksum_stored_again_counts_as_newest() {
        let (_temp_dir, store) = open_temp_store();
        for (etag, value) in [([1; 16], "MD5:1"), ([2; 16], "MD5:2"), ([1; 16], "MD5:3")] {
            store.put_checksum(&etag, value).expect("stored");
        }
        let newest = "SELECT value FROM checksums ORDER BY number DESC";
        let newest: String = store.read(|c| Ok(c.query_row(newest, [], |row| row.get(0))?)).expect("read");
        assert_eq!(newest, "MD5:3");
        let found = [[1; 16], [2; 16], [3; 16]].map(|etag| store.checksum(&etag).expect("read"));
        assert_eq!(found, [Some("MD5:3".to_owned()), Some("MD5:2".to_owned()), None]);
    }
}
