//! Packed members of sync journals: what the first report of a directory records is written in chunks, since a row for
//! each member would take longer than the report itself.
//!
//! A member that changes later gets a row of its own, which takes precedence over the chunk. Whatever needs the members
//! one by one unpacks the chunks first ([`Store::unpack_sync_chunks`]); a report of the changes since then does not.

use rusqlite::{Connection, OptionalExtension, params};

use super::{Result, Store, StoreError, SyncEntry, WriteDurability};

/// Number of rows that are read at once.
const VISITED_ROWS: i64 = 512;
/// Flag of a directory.
const DIRECTORY_FLAG: u8 = 1;

/// Members that are recorded at once, in the form of the table: of each member the lengths of path and content tag, flags,
/// path and content tag.
#[derive(Default)]
pub(crate) struct SyncChunk {
    bytes: Vec<u8>,
    count: i64,
}

impl SyncChunk {
    /// Adds a member.
    pub(crate) fn push(&mut self, path: &[u8], is_directory: bool, content_tag: &[u8]) {
        // A path has at most 4095 bytes, a content tag at most 33.
        self.bytes.extend_from_slice(&u16::try_from(path.len()).unwrap_or(u16::MAX).to_le_bytes());
        self.bytes.push(u8::try_from(content_tag.len()).unwrap_or(u8::MAX));
        self.bytes.push(if is_directory { DIRECTORY_FLAG } else { 0 });
        self.bytes.extend_from_slice(path);
        self.bytes.extend_from_slice(content_tag);
        self.count += 1;
    }

    /// Returns the number of members.
    pub(crate) fn len(&self) -> usize {
        usize::try_from(self.count).unwrap_or(usize::MAX)
    }

    /// Removes all members.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.count = 0;
    }
}

/// A member of a packed chunk.
struct PackedMember<'a> {
    path: &'a [u8],
    is_directory: bool,
    content_tag: &'a [u8],
}

/// Calls a function for each member of a packed chunk.
fn visit_packed(mut bytes: &[u8], mut visit: impl FnMut(PackedMember<'_>)) -> Result<()> {
    while let Some(([path_low, path_high, tag_length, flags], rest)) = bytes.split_first_chunk() {
        let path_length = usize::from(u16::from_le_bytes([*path_low, *path_high]));
        let end = path_length + usize::from(*tag_length);
        let (Some(path), Some(content_tag)) = (rest.get(..path_length), rest.get(path_length..end)) else { break };
        visit(PackedMember { path, is_directory: flags & DIRECTORY_FLAG != 0, content_tag });
        bytes = &rest[end..];
    }
    // Never an incomplete journal: the members that are missing would be taken for new ones.
    if bytes.is_empty() { Ok(()) } else { Err(StoreError::Corrupt("a chunk of a sync journal is cut off".into())) }
}

/// Returns the members of a packed chunk.
fn unpack(bytes: &[u8]) -> Result<Vec<SyncEntry>> {
    let mut members = Vec::new();
    visit_packed(bytes, |PackedMember { path, is_directory, content_tag }| {
        members.push(SyncEntry { path: path.to_vec(), is_directory, content_tag: Some(content_tag.to_vec()) });
    })?;
    Ok(members)
}

impl Store {
    /// Records new members of a journal, each with a number of its own, unless a change was recorded after
    /// `last_number`, or the journal was deleted. Returns the number of the last member.
    pub(crate) fn append_sync_chunk(&self, journal: i64, last_number: i64, chunk: &SyncChunk) -> Result<Option<i64>> {
        self.write(WriteDurability::Lazy, |connection| {
            self.count_journal_write();
            let appended = last_number.saturating_add(chunk.count);
            let sql = "UPDATE journals SET last_number = ?3 WHERE id = ?1 AND last_number = ?2";
            if connection.prepare_cached(sql)?.execute([journal, last_number, appended])? == 0 {
                return Ok(None);
            }
            let sql = "INSERT INTO journal_chunks (journal, last_number, members) VALUES (?1, ?2, ?3)";
            connection.prepare_cached(sql)?.execute(params![journal, appended, chunk.bytes])?;
            Ok(Some(appended))
        })
    }

    /// Calls a function with the path and the content tag of each member of a journal, `None` for those that were removed.
    /// A member that has changed since it was packed comes twice, first with its old tag. The journal must not change
    /// meanwhile.
    pub(crate) fn visit_sync_members(&self, journal: i64, mut visit: impl FnMut(&[u8], Option<&[u8]>)) -> Result<()> {
        let mut after = 0;
        while let Some((last_number, bytes)) = self.read(|connection| next_chunk(connection, journal, after))? {
            visit_packed(&bytes, |member| visit(member.path, Some(member.content_tag)))?;
            after = last_number;
        }
        let mut last = Vec::new();
        loop {
            let rows = self.read(|connection| {
                let sql = "SELECT path, content_tag FROM journal_entries WHERE journal = ?1 AND path > ?2 \
                     ORDER BY path LIMIT ?3";
                let mut select = connection.prepare_cached(sql)?;
                let rows =
                    select.query_map(params![journal, last, VISITED_ROWS], |row| Ok((row.get(0)?, row.get(1)?)))?;
                Ok(rows.collect::<rusqlite::Result<Vec<(Vec<u8>, Option<Vec<u8>>)>>>()?)
            })?;
            rows.iter().for_each(|(path, content_tag)| visit(path, content_tag.as_deref()));
            match rows.into_iter().next_back() {
                Some((path, _)) => last = path,
                None => return Ok(()),
            }
        }
    }

    /// Returns the packed members of the first chunk after a number that `is_wanted` selects by their paths, with the number
    /// of its last member, without those that have a row; `None` after the last chunk.
    pub(crate) fn packed_sync_entries(
        &self,
        journal: i64,
        after: i64,
        mut is_wanted: impl FnMut(&[u8]) -> bool,
    ) -> Result<Option<(i64, Vec<SyncEntry>)>> {
        self.read(|connection| {
            let Some((last_number, bytes)) = next_chunk(connection, journal, after)? else { return Ok(None) };
            let sql = "SELECT 1 FROM journal_entries WHERE journal = ?1 AND path = ?2";
            let mut select = connection.prepare_cached(sql)?;
            let mut wanted = Vec::new();
            visit_packed(&bytes, |PackedMember { path, is_directory, content_tag }| {
                if is_wanted(path) {
                    wanted.push(SyncEntry {
                        path: path.to_vec(),
                        is_directory,
                        content_tag: Some(content_tag.to_vec()),
                    });
                }
            })?;
            let mut without_row = Vec::new();
            for member in wanted {
                if !select.exists(params![journal, member.path])? {
                    without_row.push(member);
                }
            }
            Ok(Some((last_number, without_row)))
        })
    }

    /// Unpacks a journal as [`Store::unpack_sync_chunks`] does, if it has a packed member with a number after this one.
    pub(crate) fn unpack_sync_chunks_after(&self, journal: i64, number: i64) -> Result<()> {
        let last_packed = self.read(|connection| {
            let sql = "SELECT coalesce(max(last_number), 0) FROM journal_chunks WHERE journal = ?1";
            let last: i64 = connection.prepare_cached(sql)?.query_row([journal], |row| row.get(0))?;
            Ok(last)
        })?;
        if last_packed > number { self.unpack_sync_chunks(journal) } else { Ok(()) }
    }

    /// Gives each packed member of a journal a row of its own, with its number. Chunk by chunk, so that other writes need
    /// not wait for all of them: what is interrupted between two is completed by the next call.
    pub(crate) fn unpack_sync_chunks(&self, journal: i64) -> Result<()> {
        while self.read(|connection| Ok(next_chunk(connection, journal, 0)?.is_some()))? {
            self.write(WriteDurability::Lazy, |connection| {
                let Some((last_number, bytes)) = next_chunk(connection, journal, 0)? else { return Ok(()) };
                let members = unpack(&bytes)?;
                // The row of a member that has changed since is newer.
                let sql = "INSERT INTO journal_entries (journal, path, is_directory, content_tag, number) \
                     VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (journal, path) DO NOTHING";
                let mut insert = connection.prepare_cached(sql)?;
                let first_number = last_number - i64::try_from(members.len()).unwrap_or(i64::MAX) + 1;
                for (number, SyncEntry { path, is_directory, content_tag }) in (first_number..).zip(members) {
                    insert.execute(params![journal, path, is_directory, content_tag, number])?;
                }
                let sql = "DELETE FROM journal_chunks WHERE journal = ?1 AND last_number = ?2";
                connection.prepare_cached(sql)?.execute([journal, last_number])?;
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// Returns the first chunk of a journal after a number, with the number of its last member.
fn next_chunk(connection: &Connection, journal: i64, after: i64) -> Result<Option<(i64, Vec<u8>)>> {
    let sql = "SELECT last_number, members FROM journal_chunks WHERE journal = ?1 AND last_number > ?2 \
         ORDER BY last_number LIMIT 1";
    let mut select = connection.prepare_cached(sql)?;
    Ok(select.query_row([journal, after], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
}
