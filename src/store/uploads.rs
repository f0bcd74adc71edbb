//! Unfinished uploads and their staged parts, stored so that they survive a restart.
//!
//! A row is inserted after its staged file is written, and deleted before that is removed: a staged file without a row
//! is debris, and a row without a staged file is deleted when it is found. The caller chooses the durability of a row.

use std::collections::HashSet;

use rusqlite::{Transaction, params};

use super::columns::parse_stored_path;
use super::token_chain::inactive_token_sql;
use super::{Result, Store, StoreError, WriteDurability};
use crate::domain::{Login, TokenId, TreePath, UnixMillis};

/// The row of an unfinished upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UploadRow {
    /// Id of the upload, never used again.
    pub(crate) id: i64,
    /// The token that began the upload.
    pub(crate) token: TokenId,
    /// The owner of that token.
    pub(crate) login: Login,
    /// Name of the upload, chosen by the client or the protocol.
    pub(crate) name: Vec<u8>,
    /// The encoded request that began it; `None` for an upload in parts.
    pub(crate) request: Option<Vec<u8>>,
    /// Time of the last part or request.
    pub(crate) updated_at: UnixMillis,
    /// Whether its token, or one above it, is revoked or recorded as expired.
    pub(crate) token_inactive: bool,
}

/// A staged part of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UploadPart {
    /// Name of the part; empty for an upload that is not in parts.
    pub(crate) name: Vec<u8>,
    /// Directory that holds the staging area: the root of a file system.
    pub(crate) staging_directory: TreePath,
    /// Name of the file in the staging area.
    pub(crate) staged_name: Vec<u8>,
    /// Number of its bytes that were received and kept.
    pub(crate) size: u64,
}

impl Store {
    /// Returns all unfinished uploads.
    pub(crate) fn uploads(&self) -> Result<Vec<UploadRow>> {
        let inactive = inactive_token_sql("u.token");
        let all = format!(
            "SELECT u.id, u.token, o.login, u.name, u.request, u.updated_at, {inactive}
             FROM uploads u JOIN tokens t ON t.id = u.token JOIN users o ON o.id = t.user_id ORDER BY u.id"
        );
        self.read(|connection| {
            let mut select = connection.prepare_cached(&all)?;
            let rows = select.query_map([], |row| {
                Ok(UploadRow {
                    id: row.get(0)?,
                    token: row.get(1)?,
                    login: row.get(2)?,
                    name: row.get(3)?,
                    request: row.get(4)?,
                    updated_at: row.get(5)?,
                    token_inactive: row.get(6)?,
                })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Returns the staged parts of an upload.
    pub(crate) fn upload_parts(&self, upload: i64) -> Result<Vec<UploadPart>> {
        self.read(|connection| {
            let sql = "SELECT name, staging_directory, staged_name, size FROM upload_parts WHERE upload = ?1";
            let mut select = connection.prepare_cached(sql)?;
            let mut rows = select.query([upload])?;
            let mut parts = Vec::new();
            while let Some(row) = rows.next()? {
                parts.push(UploadPart {
                    name: row.get(0)?,
                    staging_directory: parse_stored_path(&row.get::<_, Vec<u8>>(1)?)?,
                    staged_name: row.get(2)?,
                    size: row.get::<_, i64>(3)?.unsigned_abs(),
                });
            }
            Ok(parts)
        })
    }

    /// Returns the names of all staged files of uploads.
    pub(crate) fn staged_names(&self) -> Result<HashSet<Vec<u8>>> {
        self.read(|connection| {
            let mut select = connection.prepare_cached("SELECT staged_name FROM upload_parts")?;
            let names = select.query_map([], |row| row.get(0))?;
            Ok(names.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Inserts a new upload with its first request and staged file or, without these, an upload in parts. Returns its
    /// id.
    pub(crate) fn insert_upload(
        &self,
        token: TokenId,
        name: &[u8],
        first_request: Option<(&[u8], &UploadPart)>,
        now: UnixMillis,
        durability: WriteDurability,
    ) -> Result<i64> {
        self.write(durability, |t| {
            let sql = "INSERT INTO uploads (token, name, request, updated_at) VALUES (?1, ?2, ?3, ?4) RETURNING id";
            let row = params![token, name, first_request.map(|(request, _)| request), now];
            let id = t.prepare_cached(sql)?.query_row(row, |row| row.get(0))?;
            first_request.map_or(Ok(()), |(_, part)| insert_part(t, id, part))?;
            Ok(id)
        })
    }

    /// Stores a staged part of an upload, in place of the part with the same name.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the upload was finished or cancelled.
    pub(crate) fn put_upload_part(
        &self,
        upload: i64,
        part: &UploadPart,
        now: UnixMillis,
        durability: WriteDurability,
    ) -> Result<()> {
        self.write(durability, |t| {
            let update = "UPDATE uploads SET updated_at = ?2 WHERE id = ?1";
            if t.prepare_cached(update)?.execute(params![upload, now])? == 0 {
                return Err(StoreError::NotFound("the upload".to_owned()));
            }
            insert_part(t, upload, part)
        })
    }

    /// Deletes the part of an upload with a name.
    pub(crate) fn delete_upload_part(&self, upload: i64, name: &[u8]) -> Result<()> {
        self.write_shrinking(WriteDurability::Lazy, |t| {
            let sql = "DELETE FROM upload_parts WHERE upload = ?1 AND name = ?2";
            Ok(t.prepare_cached(sql)?.execute(params![upload, name]).map(drop)?)
        })
    }

    /// Deletes an upload with all its parts.
    pub(crate) fn delete_upload(&self, upload: i64) -> Result<()> {
        self.write_shrinking(WriteDurability::Lazy, |t| {
            Ok(t.prepare_cached("DELETE FROM uploads WHERE id = ?1")?.execute([upload]).map(drop)?)
        })
    }
}

fn insert_part(t: &Transaction<'_>, upload: i64, part: &UploadPart) -> Result<()> {
    let UploadPart { name, staging_directory, staged_name, size } = part;
    let sql = "INSERT INTO upload_parts (upload, name, staging_directory, staged_name, size) \
         VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (upload, name) DO UPDATE SET staging_directory = excluded.staging_directory, \
             staged_name = excluded.staged_name, size = excluded.size";
    let size = i64::try_from(*size).unwrap_or(i64::MAX);
    t.prepare_cached(sql)?.execute(params![upload, name, staging_directory.as_bytes(), staged_name, size])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::TokenExpiry;
    use crate::store::{NewTokenRow, testing};

    fn sample_part(name: &str, size: u64) -> UploadPart {
        UploadPart {
            name: name.as_bytes().to_vec(),
            staging_directory: TreePath::root(),
            staged_name: format!("staged-{name}").into_bytes(),
            size,
        }
    }

    fn begin_upload(store: &Store, token: &str, name: &str) -> i64 {
        let (token, name) = (testing::id(token), name.as_bytes());
        store.insert_upload(token, name, None, testing::now(), WriteDurability::Synced).expect("stored")
    }

    fn put_part(store: &Store, upload: i64, part: &UploadPart) -> Result<()> {
        store.put_upload_part(upload, part, testing::now(), WriteDurability::Synced)
    }

    fn store_with_tokens() -> (tempfile::TempDir, Store) {
        let (temp_dir, store) = testing::open_temp_store();
        store.create_user(&testing::login("alice"), &[], testing::now()).expect("user");
        for (name, parent) in [("aaaaaaaa", None), ("bbbbbbbb", Some("aaaaaaaa")), ("cccccccc", None)] {
            let new = testing::new_token(name, "alice", TokenExpiry::Never);
            store.add_token(&NewTokenRow { parent: parent.map(testing::id), ..new }).expect("stored");
        }
        (temp_dir, store)
    }

    #[test]
    fn deleting_upload_deletes_its_parts() {
        let (_temp_dir, store) = store_with_tokens();
        let upload = begin_upload(&store, "aaaaaaaa", "up");
        for (name, size) in [("1", 10), ("2", 20), ("1", 30)] {
            put_part(&store, upload, &sample_part(name, size)).expect("stored");
        }
        assert_eq!(store.upload_parts(upload).expect("read"), [sample_part("1", 30), sample_part("2", 20)]);
        assert_eq!(store.staged_names().expect("read").len(), 2);
        store.delete_upload_part(upload, b"2").expect("deleted");
        assert_eq!(store.upload_parts(upload).expect("read"), [sample_part("1", 30)]);
        store.delete_upload(upload).expect("deleted");
        assert!(store.uploads().expect("read").is_empty() && store.staged_names().expect("read").is_empty());
        assert!(matches!(put_part(&store, upload, &sample_part("1", 1)), Err(StoreError::NotFound(_))), "it has ended");
    }

    #[test]
    fn upload_is_inactive_with_its_token_or_ancestor() {
        let (_temp_dir, store) = store_with_tokens();
        for token in ["aaaaaaaa", "bbbbbbbb", "cccccccc"] {
            begin_upload(&store, token, "up");
        }
        let inactive = || store.uploads().expect("read").iter().map(|row| row.token_inactive).collect::<Vec<_>>();
        assert_eq!(inactive(), [false; 3]);
        store.revoke_tokens(&[testing::id("aaaaaaaa")], testing::now()).expect("revoked");
        assert_eq!(inactive(), [true, true, false]);
        store.delete_user(&testing::login("alice")).expect("deleted");
        assert_eq!(inactive(), [false; 0], "deleted with its owner");
    }
}
