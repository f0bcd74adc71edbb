//! Sync journals (RFC 6578): the changes of a directory since a token's last report, for clients that keep a copy.
//!
//! Nothing is recorded when something changes: uploads would pay for it, and changes of the host could not be seen at
//! all. Instead the directory is compared with a journal of the state that was last reported to the token. Differences
//! are recorded in the journal as new changes, in batches, and a report contains those since its sync token
//! ([`super::changes`]). So an upload costs the same whether anybody syncs or not, changes behind the gateway's back
//! are found, and the comparison sees what the session sees: an entry that it can't see any more counts as removed, and
//! one that it never saw is in no journal.
//!
//! The members of a journal are the entries that [`View::list`] lists, in the directory itself and, at infinite depth,
//! in every directory below that PROPFIND walks through: those on the way to a granted node and drop boxes with
//! something readable in them, but no symbolic links.
//!
//! A journal belongs to one token and survives a restart. Memory is bounded: the directory and the journal are read in
//! batches.
//!
//! Each comparison looks at every member, since a file that the host changes in place leaves no trace in its directory. It
//! does not read the journal for that: hashes of the members that the journal has are kept in memory
//! ([`crate::tree::sync_fingerprints`]), and only members that differ are looked up in it and written to it.

use super::View;
use super::member_walk::{MemberLookup, MemberWalk};
use crate::domain::{TreePath, UnixMillis};
use crate::store::{SyncChunk, SyncEntry, SyncJournal};
use crate::tree::sync_fingerprints::{SyncFingerprints, member_state};
use crate::tree::{Entry, Error, Result};

/// Number of members that are compared, or read from a journal, at once.
pub(super) const SYNC_BATCH_MEMBERS: usize = 512;
/// Maximum number of members of a directory that can be synchronized.
const SYNC_MAX_MEMBERS: usize = if cfg!(test) { 2_000 } else { 1_000_000 };
/// Maximum number of removed members that a journal keeps.
const JOURNAL_MAX_REMOVED_MEMBERS: u32 = if cfg!(test) { 20 } else { 50_000 };

/// Point in the journal of a token, directory and depth: the client knows every change up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncPoint {
    /// Id of the journal.
    pub journal: i64,
    /// Number of the last change up to it.
    pub number: i64,
    /// Number of the last change before the client's initial synchronization, which must not report removed members
    /// (RFC 6578 section 3.4): removals up to this number are left out. At most `number` once the initial
    /// synchronization is complete.
    pub base: i64,
}

impl View {
    /// Returns the monotonic time by which unused journals expire, so that a jump of the clock expires none.
    pub fn monotonic_now(&self) -> UnixMillis {
        self.shared().clock.steady_time()
    }

    /// Compares a directory with the state that was last reported to the session's token, of its direct members or
    /// (`depth_infinity`) of everything below. Returns the point up to which changes can be reported now. It is on disk
    /// then: a client must never hold a number that a power cut takes back, and that is assigned to another change
    /// later.
    ///
    /// # Errors
    /// [`Error::NotADirectory`], and as [`View::list`]; [`Error::NoSpace`] for more than a million members;
    /// [`Error::SessionEnded`] once it was cancelled.
    pub fn compare_with_journal(
        &self,
        directory: &TreePath,
        depth_infinity: bool,
        now: UnixMillis,
    ) -> Result<SyncPoint> {
        self.list(directory, true)?;
        // One comparison at a time: two would record each other's differences as changes.
        let _journal_guard = self.shared().journal_locks.lock(&[&self.journal_lock_path(directory)]);
        self.compare_locked(directory, depth_infinity, now)
    }

    /// Returns a point from which a client that lists a directory afterwards can continue (RFC 6578 section 4), for its
    /// direct members. While a comparison of the directory is under way it is an earlier point, from which some of the
    /// listing is reported again: a listing does not wait for a comparison.
    ///
    /// # Errors
    /// As [`View::compare_with_journal`].
    pub fn sync_point(&self, directory: &TreePath, now: UnixMillis) -> Result<SyncPoint> {
        self.list(directory, true)?;
        let Some(_journal_guard) = self.shared().journal_locks.try_lock(&self.journal_lock_path(directory)) else {
            let store = self.shared().index.store();
            let journal = store.ensure_sync_journal(self.session().token(), directory, false, now)?;
            store.flush_sync_journal(journal.id)?;
            return Ok(SyncPoint { journal: journal.id, number: journal.last_number, base: journal.last_number });
        };
        self.compare_locked(directory, false, now)
    }

    /// Returns the lock name for the journals of the session's token and a directory: tokens do not wait for each
    /// other's comparisons.
    pub(super) fn journal_lock_path(&self, directory: &TreePath) -> TreePath {
        TreePath::parse(self.session().token().as_str().as_bytes()).unwrap_or_default().join(directory)
    }

    fn compare_locked(&self, directory: &TreePath, depth_infinity: bool, now: UnixMillis) -> Result<SyncPoint> {
        let token = self.session().token();
        let (store, cache) = (self.shared().index.store(), &self.shared().sync_fingerprints);
        let journal = store.ensure_sync_journal(token, directory, depth_infinity, now)?;
        let mut comparison = JournalComparison::new(self, journal, directory, depth_infinity, cache.take(journal.id));
        // Before the walk adds members: only a walk that finds fewer of the known ones has to look for removed members.
        let known_count = comparison.count_known()?;
        comparison.walk()?;
        if comparison.known_seen < known_count {
            comparison.record_removed()?;
            store.purge_removed_sync_entries(journal.id, JOURNAL_MAX_REMOVED_MEMBERS)?;
        }
        let updated = store.find_sync_journal(token, directory, depth_infinity, now)?.ok_or(Error::Absent)?;
        // On disk before the number is given out: another change must not get it after a power cut. Also where this
        // comparison recorded nothing: the number may be of one that was cancelled before it came here.
        store.flush_sync_journal(updated.id)?;
        // Only of a complete comparison, and under its lock: nothing else records members of the journal meanwhile.
        if updated.id == journal.id {
            cache.put(journal.id, self.session().login(), comparison.found, now);
        }
        Ok(SyncPoint { journal: updated.id, number: updated.last_number, base: updated.last_number })
    }
}

/// Comparison under way.
struct JournalComparison<'a> {
    view: &'a View,
    journal: SyncJournal,
    directory: &'a TreePath,
    depth_infinity: bool,
    /// Fingerprints of the members that the journal has; `None` where they are not known, and the journal is asked.
    known: Option<SyncFingerprints>,
    /// Fingerprints of the members found.
    found: SyncFingerprints,
    /// Members found that may have to be recorded.
    batch: Vec<SyncEntry>,
    /// Members found of a journal that had none when the comparison began.
    chunk: SyncChunk,
    /// Number of the last member of the chunks that were recorded.
    packed_through: i64,
    /// Number of members found that the journal contains.
    known_seen: u64,
    /// Number of members found.
    seen: usize,
}

impl<'a> JournalComparison<'a> {
    fn new(
        view: &'a View,
        journal: SyncJournal,
        directory: &'a TreePath,
        depth_infinity: bool,
        known: Option<SyncFingerprints>,
    ) -> Self {
        let found = SyncFingerprints::with_capacity(known.as_ref().map_or(0, SyncFingerprints::len));
        Self {
            view,
            journal,
            directory,
            depth_infinity,
            known,
            found,
            batch: Vec::new(),
            chunk: SyncChunk::default(),
            packed_through: 0,
            known_seen: 0,
            seen: 0,
        }
    }

    /// Returns the number of members that the journal has.
    fn count_known(&mut self) -> Result<u64> {
        if let Some(known) = &self.known {
            return Ok(known.len() as u64);
        }
        let store = self.view.shared().index.store();
        // Each member is looked up by its path now.
        store.unpack_sync_chunks(self.journal.id)?;
        let mut known_count = store.count_sync_entries(self.journal.id)?;
        if known_count > SYNC_MAX_MEMBERS as u64 {
            // An earlier comparison that failed for too many members has recorded them, but did not look for removed
            // ones.
            self.record_removed()?;
            known_count = store.count_sync_entries(self.journal.id)?;
            if known_count > SYNC_MAX_MEMBERS as u64 {
                return Err(Error::NoSpace);
            }
            self.found = SyncFingerprints::default();
        }
        Ok(known_count)
    }

    /// Walks through all entries that a PROPFIND of the same depth lists.
    fn walk(&mut self) -> Result<()> {
        let mut walk = MemberWalk::new(self.view, self.directory, self.depth_infinity);
        while let Some(entry) = walk.next_entry()? {
            self.add_member(walk.path(), &entry)?;
        }
        self.record_batch()
    }

    fn add_member(&mut self, path: &[u8], entry: &Entry) -> Result<()> {
        self.seen += 1;
        // Batches recorded before stay in the journal; the next comparison removes those that are gone.
        if self.seen > SYNC_MAX_MEMBERS {
            return Err(Error::NoSpace);
        }
        let cache = &self.view.shared().sync_fingerprints;
        let (path_hash, state_hash) = (cache.hash_path(path), cache.hash_state(entry));
        // A directory that changes while it is read may return a name twice.
        if !self.found.insert(path_hash, state_hash) {
            return Ok(());
        }
        if let Some(known) = &self.known {
            let known_state = known.state_of(path_hash);
            self.known_seen += u64::from(known_state.is_some());
            if known_state == Some(state_hash) {
                return Ok(());
            }
        }
        let content_tag = member_state(entry);
        if self.journal.last_number == 0 {
            self.chunk.push(path, entry.is_directory(), &content_tag);
        } else {
            let (path, is_directory) = (path.to_vec(), entry.is_directory());
            self.batch.push(SyncEntry { path, is_directory, content_tag: Some(content_tag) });
        }
        if self.batch.len() + self.chunk.len() < SYNC_BATCH_MEMBERS { Ok(()) } else { self.record_batch() }
    }

    /// Records the members of a batch that are new or different.
    fn record_batch(&mut self) -> Result<()> {
        self.view.cancellation().check()?;
        let store = self.view.shared().index.store();
        if self.chunk.len() > 0 {
            // The journal had no members when the comparison began: all are new.
            let appended = store.append_sync_chunk(self.journal.id, self.packed_through, &self.chunk)?;
            // The journal was deleted meanwhile.
            self.packed_through = appended.ok_or(Error::Absent)?;
            self.chunk.clear();
            return Ok(());
        }
        let changed = match self.known {
            // Fingerprints have told that already.
            Some(_) => std::mem::take(&mut self.batch),
            None => self.take_changed()?,
        };
        Ok(store.record_sync_entries(self.journal.id, &changed)?)
    }

    /// Takes the members of the batch that differ from those of the journal.
    fn take_changed(&mut self) -> Result<Vec<SyncEntry>> {
        let paths: Vec<&[u8]> = self.batch.iter().map(|sync_entry| sync_entry.path.as_slice()).collect();
        let known_tags = self.view.shared().index.store().sync_entry_tags(self.journal.id, &paths)?;
        self.known_seen += known_tags.iter().filter(|tag| tag.is_some()).count() as u64;
        let with_known_tags = self.batch.drain(..).zip(known_tags);
        let changed = with_known_tags.filter(|(sync_entry, known_tag)| sync_entry.content_tag != *known_tag);
        Ok(changed.map(|(sync_entry, _)| sync_entry).collect())
    }

    /// Records as removed the members of the journal that no listing shows any more.
    fn record_removed(&mut self) -> Result<()> {
        let store = self.view.shared().index.store();
        let mut last = Vec::new();
        loop {
            // By the last path and not by an offset: rows that are recorded meanwhile shift nothing.
            let batch = store.sync_entries_after(self.journal.id, &last, SYNC_BATCH_MEMBERS)?;
            let Some(end) = batch.last() else { break };
            last.clone_from(&end.path);
            self.record_removed_of(batch)?;
        }
        // Those without a row. One that is recorded as removed gets a row, which takes precedence.
        let mut after = 0;
        while let Some((last_number, batch)) = store.packed_sync_entries(self.journal.id, after)? {
            after = last_number;
            self.record_removed_of(batch)?;
        }
        Ok(())
    }

    fn record_removed_of(&mut self, batch: Vec<SyncEntry>) -> Result<()> {
        self.view.cancellation().check()?;
        let cache = &self.view.shared().sync_fingerprints;
        let mut lookup = MemberLookup::new(self.view, self.directory, self.depth_infinity);
        let mut removed = Vec::new();
        for sync_entry in batch {
            let path_hash = cache.hash_path(&sync_entry.path);
            if self.found.state_of(path_hash).is_some() {
                continue;
            }
            // Looked up by name: the walk may have missed an entry that was renamed during it.
            match lookup.find(&sync_entry.path)? {
                None => removed.push(SyncEntry { content_tag: None, ..sync_entry }),
                Some(entry) => {
                    let state_hash = cache.hash_state(&entry);
                    // What differs is recorded by the next comparison, for which it must not be the known state.
                    let is_recorded = sync_entry.content_tag.as_deref() == Some(&*member_state(&entry));
                    self.found.insert(path_hash, if is_recorded { state_hash } else { !state_hash });
                }
            }
        }
        Ok(self.view.shared().index.store().record_sync_entries(self.journal.id, &removed)?)
    }
}
