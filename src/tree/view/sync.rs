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
//! ([`crate::tree::sync_fingerprints`]), and only members that differ are written to it.

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
        let mut known = cache.take_or_read(journal.id, store)?;
        if known.len() > SYNC_MAX_MEMBERS {
            // An earlier comparison that failed for too many members has recorded them, but did not look for removed ones.
            let mut none_found = SyncFingerprints::default();
            self.record_removed(journal.id, directory, depth_infinity, &mut none_found, |_, _| ())?;
            known = cache.take_or_read(journal.id, store)?;
            if known.len() > SYNC_MAX_MEMBERS {
                return Err(Error::NoSpace);
            }
        }
        let mut comparison = JournalComparison::new(self, journal, directory, depth_infinity, known);
        comparison.walk()?;
        // Only a walk that finds fewer of the known members has to look for removed ones.
        if comparison.known_seen < comparison.known.len() {
            self.record_removed(journal.id, directory, depth_infinity, &mut comparison.found, |_, _| ())?;
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
    /// Fingerprints of the members that the journal has.
    known: SyncFingerprints,
    /// Fingerprints of the members found.
    found: SyncFingerprints,
    /// Members found that may have to be recorded.
    batch: Vec<SyncEntry>,
    /// Members found of a journal that had none when the comparison began.
    chunk: SyncChunk,
    /// Number of the last member of the chunks that were recorded.
    packed_through: i64,
    /// Number of members found that the journal contains.
    known_seen: usize,
    /// Number of members found.
    seen: usize,
}

impl<'a> JournalComparison<'a> {
    fn new(
        view: &'a View,
        journal: SyncJournal,
        directory: &'a TreePath,
        depth_infinity: bool,
        known: SyncFingerprints,
    ) -> Self {
        let found = SyncFingerprints::with_capacity(known.len());
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
        let known_state = self.known.state_of(path_hash);
        self.known_seen += usize::from(known_state.is_some());
        if known_state == Some(state_hash) {
            return Ok(());
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
        let changed = std::mem::take(&mut self.batch);
        Ok(store.record_sync_entries(self.journal.id, &changed)?)
    }
}

impl View {
    /// Records as removed the members of a journal that are not among those found, and that no listing shows any more.
    /// Those that the walk has missed go to `add_missed` and to those found. The caller holds the lock of the journal.
    pub(super) fn record_removed(
        &self,
        journal: i64,
        directory: &TreePath,
        depth_infinity: bool,
        found: &mut SyncFingerprints,
        mut add_missed: impl FnMut(&[u8], Entry),
    ) -> Result<()> {
        let (store, cache) = (self.shared().index.store(), &self.shared().sync_fingerprints);
        let mut last = Vec::new();
        loop {
            // By the last path and not by an offset: rows that are recorded meanwhile shift nothing.
            let mut batch = store.sync_entries_after(journal, &last, SYNC_BATCH_MEMBERS)?;
            let Some(end) = batch.last() else { break };
            last.clone_from(&end.path);
            batch.retain(|sync_entry| found.state_of(cache.hash_path(&sync_entry.path)).is_none());
            let mut lookup = MemberLookup::new(self, directory, depth_infinity);
            self.record_removed_of(journal, &mut lookup, found, batch, &mut add_missed)?;
        }
        // Those without a row. One that is recorded as removed gets a row, which takes precedence.
        let mut after = 0;
        let is_missing = |path: &[u8], found: &SyncFingerprints| found.state_of(cache.hash_path(path)).is_none();
        while let Some((last_number, batch)) =
            store.packed_sync_entries(journal, after, |path| is_missing(path, found))?
        {
            after = last_number;
            let mut lookup = MemberLookup::new(self, directory, depth_infinity);
            self.record_removed_of(journal, &mut lookup, found, batch, &mut add_missed)?;
        }
        Ok(store.purge_removed_sync_entries(journal, JOURNAL_MAX_REMOVED_MEMBERS)?)
    }

    fn record_removed_of(
        &self,
        journal: i64,
        lookup: &mut MemberLookup,
        found: &mut SyncFingerprints,
        missing: Vec<SyncEntry>,
        add_missed: &mut impl FnMut(&[u8], Entry),
    ) -> Result<()> {
        self.cancellation().check()?;
        let cache = &self.shared().sync_fingerprints;
        let mut removed = Vec::new();
        for sync_entry in missing {
            // Looked up by name: the walk may have missed an entry that was renamed during it.
            match lookup.find(&sync_entry.path)? {
                None => removed.push(SyncEntry { content_tag: None, ..sync_entry }),
                Some(entry) => {
                    let state_hash = cache.hash_state(&entry);
                    // What differs is recorded by the next comparison, for which it must not be the known state.
                    let is_recorded = sync_entry.content_tag.as_deref() == Some(&*member_state(&entry));
                    let known_state = if is_recorded { state_hash } else { !state_hash };
                    found.insert(cache.hash_path(&sync_entry.path), known_state);
                    add_missed(&sync_entry.path, entry);
                }
            }
        }
        Ok(self.shared().index.store().record_sync_entries(journal, &removed)?)
    }
}
