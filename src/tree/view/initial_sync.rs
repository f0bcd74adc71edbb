//! First page of a report without a sync token: the members of a directory are compared with the journal, recorded in it
//! and reported in one walk.
//!
//! Every other report compares the directory first, and then looks each member that it reports up again. Here all members
//! are reported, so each is reported as the walk finds it. The walk goes on as the client takes the response, without the
//! lock of the journal: where something else is recorded meanwhile, the page ends as a truncated one, and the next page
//! compares the directory.

use super::View;
use super::member_walk::{ChangedMember, MemberWalk};
use super::sync::{SYNC_BATCH_MEMBERS, SyncPoint};
use crate::domain::{TreePath, UnixMillis};
use crate::store::{SyncChunk, SyncEntry};
use crate::tree::sync_fingerprints::{SyncFingerprints, member_state};
use crate::tree::{Entry, Result};

/// Walk through a directory for a client that knows none of its members.
pub(super) struct InitialSync {
    directory: TreePath,
    depth_infinity: bool,
    walk: MemberWalk,
    /// Fingerprints of the members that the journal had when the walk began.
    known: SyncFingerprints,
    /// Number of members found that the journal had.
    known_seen: usize,
    found: SyncFingerprints,
    /// Members of the next batch, where the journal had none.
    chunk: SyncChunk,
    /// Members of the next batch that are new or different, where the journal had some.
    changed: Vec<SyncEntry>,
    /// Whether the journal had no members. The numbers of those that are recorded are then in the order of the walk.
    is_first: bool,
    /// Members that are recorded, and are still to be reported.
    recorded: std::vec::IntoIter<ChangedMember>,
    /// End of the page once all members are recorded.
    ended: Option<InitialStep>,
    now: UnixMillis,
}

/// Next step of an initial report.
pub(super) enum InitialStep {
    /// Reports a member.
    Report(ChangedMember),
    /// Ends the page, which is truncated or complete.
    End {
        /// Whether members may be missing.
        truncated: bool,
    },
}

impl InitialSync {
    /// Begins the walk of a directory, for its direct members or (`depth_infinity`) for everything below, and returns it with
    /// the point that the journal has reached. `None` where a comparison is under way, or for more members than one page
    /// reports: the pages are then read from the journal.
    ///
    /// # Errors
    /// Errors of the store.
    pub(super) fn begin(
        view: &View,
        directory: &TreePath,
        depth_infinity: bool,
        max_members: usize,
        now: UnixMillis,
    ) -> Result<Option<(Self, SyncPoint)>> {
        let Some(_journal_guard) = view.shared().journal_locks.try_lock(&view.journal_lock_path(directory)) else {
            return Ok(None);
        };
        let (token, store) = (view.session().token(), view.shared().index.store());
        let journal = store.ensure_sync_journal(token, directory, depth_infinity, now)?;
        let known = view.shared().sync_fingerprints.take_or_read(journal.id, store)?;
        if known.len() > max_members {
            view.shared().sync_fingerprints.put(journal.id, view.session().login(), known, now);
            return Ok(None);
        }
        let point = SyncPoint { journal: journal.id, number: journal.last_number, base: journal.last_number };
        let initial = Self {
            directory: directory.clone(),
            depth_infinity,
            walk: MemberWalk::new(view, directory, depth_infinity),
            found: SyncFingerprints::with_capacity(known.len()),
            known,
            known_seen: 0,
            chunk: SyncChunk::default(),
            changed: Vec::new(),
            is_first: journal.last_number == 0,
            recorded: Vec::new().into_iter(),
            ended: None,
            now,
        };
        Ok(Some((initial, point)))
    }

    /// Returns the next step, after at most `rows_left` more members were recorded. `point` follows the recorded ones.
    ///
    /// # Errors
    /// As [`View::compare_with_journal`].
    pub(super) fn next_step(
        &mut self,
        view: &View,
        point: &mut SyncPoint,
        rows_left: &mut usize,
    ) -> Result<InitialStep> {
        if let Some(member) = self.recorded.next() {
            return Ok(InitialStep::Report(member));
        }
        if let Some(end) = self.ended.take() {
            return Ok(end);
        }
        if *rows_left == 0 {
            let truncated = self.walk.next_entry()?.is_some();
            return self.end(view, point, truncated);
        }
        let members = self.read_members(view, SYNC_BATCH_MEMBERS.min(*rows_left))?;
        if members.is_empty() {
            return self.end(view, point, false);
        }
        *rows_left -= members.len();
        if !self.record(view, point)? {
            // Members that were read and not recorded: the fingerprints are not those of the journal.
            self.found = SyncFingerprints::default();
            return self.end(view, point, true);
        }
        self.recorded = members.into_iter();
        Ok(self.recorded.next().map_or(InitialStep::End { truncated: true }, InitialStep::Report))
    }

    /// Reads the next members into the chunk; none at the end of the walk.
    fn read_members(&mut self, view: &View, count: usize) -> Result<Vec<ChangedMember>> {
        let cache = &view.shared().sync_fingerprints;
        let mut members = Vec::with_capacity(count);
        self.chunk.clear();
        self.changed.clear();
        while members.len() < count
            && let Some(entry) = self.walk.next_entry()?
        {
            let path = self.walk.path();
            // Too long to be asked for.
            let Ok(relative_path) = TreePath::parse(path) else { continue };
            // A directory that changes while it is read may return a name twice.
            let (path_hash, state_hash) = (cache.hash_path(path), cache.hash_state(&entry));
            if !self.found.insert(path_hash, state_hash) {
                continue;
            }
            let known_state = self.known.state_of(path_hash);
            self.known_seen += usize::from(known_state.is_some());
            if self.is_first {
                self.chunk.push(path, entry.is_directory(), &member_state(&entry));
            } else if known_state != Some(state_hash) {
                let (path, content_tag) = (path.to_vec(), Some(member_state(&entry)));
                self.changed.push(SyncEntry { path, is_directory: entry.is_directory(), content_tag });
            }
            let (path, is_directory) = (self.directory.join(&relative_path), entry.is_directory());
            members.push(ChangedMember { path, is_directory, entry: Some(entry) });
        }
        Ok(members)
    }

    /// Records what is new or different in a batch; returns false where something else was recorded since the walk began.
    fn record(&mut self, view: &View, point: &mut SyncPoint) -> Result<bool> {
        if self.chunk.len() == 0 && self.changed.is_empty() {
            return Ok(true);
        }
        // A comparison under way would record the same members once more.
        let Some(_journal_guard) = view.shared().journal_locks.try_lock(&view.journal_lock_path(&self.directory))
        else {
            return Ok(false);
        };
        // Recorded before it is reported: a member that only the client knows would never be reported as removed.
        let store = view.shared().index.store();
        if self.is_first {
            let Some(number) = store.append_sync_chunk(point.journal, point.number, &self.chunk)? else {
                return Ok(false);
            };
            (point.number, point.base) = (number, number);
            return Ok(true);
        }
        if !self.is_journal_at(view, *point)? {
            return Ok(false);
        }
        store.record_sync_entries(point.journal, &self.changed)?;
        self.follow_journal(view, point)
    }

    /// Tells whether a point is the last of the journal.
    fn is_journal_at(&self, view: &View, point: SyncPoint) -> Result<bool> {
        let (token, store) = (view.session().token(), view.shared().index.store());
        let journal = store.find_sync_journal(token, &self.directory, self.depth_infinity, self.now)?;
        Ok(journal.is_some_and(|journal| (journal.id, journal.last_number) == (point.journal, point.number)))
    }

    /// Moves a point to the last of the journal, after changes were recorded; returns false where the journal is gone.
    fn follow_journal(&self, view: &View, point: &mut SyncPoint) -> Result<bool> {
        let (token, store) = (view.session().token(), view.shared().index.store());
        let journal = store.find_sync_journal(token, &self.directory, self.depth_infinity, self.now)?;
        let Some(journal) = journal.filter(|journal| journal.id == point.journal) else { return Ok(false) };
        (point.number, point.base) = (journal.last_number, journal.last_number);
        Ok(true)
    }

    /// Ends the page, after the members that the walk has missed. What was recorded is synced to disk before the client is
    /// given its number.
    fn end(&mut self, view: &View, point: &mut SyncPoint, truncated: bool) -> Result<InitialStep> {
        let store = view.shared().index.store();
        let guard = view.shared().journal_locks.try_lock(&view.journal_lock_path(&self.directory));
        // Under the lock: what another comparison has recorded since is not among the fingerprints.
        let mut is_current = guard.is_some() && self.is_journal_at(view, *point)?;
        let mut truncated = truncated;
        if !truncated && self.known_seen < self.known.len() {
            // Removed, or renamed during the walk: that can be told while nothing else is recorded.
            let missed = if is_current { self.record_removed(view, point)? } else { None };
            is_current &= missed.is_some();
            truncated = missed.is_none();
            self.recorded = missed.unwrap_or_default().into_iter();
        }
        store.flush_sync_journal(point.journal)?;
        let found = std::mem::take(&mut self.found);
        // Those of a walk that is not complete are all that the journal has only where it had none.
        if is_current && (!truncated || self.is_first && found.len() > 0) {
            view.shared().sync_fingerprints.put(point.journal, view.session().login(), found, self.now);
        }
        // The numbers of a journal that had members are not in the order of the walk: the next page has all of them.
        if truncated && !self.is_first {
            point.number = 0;
        }
        self.ended = Some(InitialStep::End { truncated });
        let next = self.recorded.next().map(InitialStep::Report).or_else(|| self.ended.take());
        Ok(next.unwrap_or(InitialStep::End { truncated: true }))
    }

    /// Records the members of the journal that were removed, and returns those that the walk has missed; `None` where the
    /// journal is gone.
    fn record_removed(&mut self, view: &View, point: &mut SyncPoint) -> Result<Option<Vec<ChangedMember>>> {
        let (directory, mut missed) = (self.directory.clone(), Vec::new());
        let add_missed = |path: &[u8], entry: Entry| {
            if let Ok(relative_path) = TreePath::parse(path) {
                let (path, is_directory) = (directory.join(&relative_path), entry.is_directory());
                missed.push(ChangedMember { path, is_directory, entry: Some(entry) });
            }
        };
        view.record_removed(point.journal, &self.directory, self.depth_infinity, &mut self.found, add_missed)?;
        Ok(self.follow_journal(view, point)?.then_some(missed))
    }
}
