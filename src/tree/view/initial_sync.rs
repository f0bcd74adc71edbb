//! First page of the first report of a directory: its members are recorded in the journal and reported in one walk.
//!
//! Every other report compares the directory first, and then looks each member that it reports up again. Here nothing is
//! known before, so each member is reported as it is recorded. The walk goes on as the client takes the response, without
//! the lock of the journal: where something else is recorded meanwhile, the page ends as a truncated one, and the next page
//! compares the directory.

use super::View;
use super::member_walk::{ChangedMember, MemberWalk};
use super::sync::{SYNC_BATCH_MEMBERS, SyncPoint};
use crate::domain::{TreePath, UnixMillis};
use crate::store::SyncChunk;
use crate::tree::Result;
use crate::tree::sync_fingerprints::{SyncFingerprints, member_state};

/// Walk through a directory of which nothing was reported before.
pub(super) struct InitialSync {
    directory: TreePath,
    depth_infinity: bool,
    walk: MemberWalk,
    found: SyncFingerprints,
    chunk: SyncChunk,
    /// Members that are recorded, and are still to be reported.
    recorded: std::vec::IntoIter<ChangedMember>,
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
    /// Creates the walk of a directory, for its direct members or (`depth_infinity`) for everything below.
    pub(super) fn new(view: &View, directory: &TreePath, depth_infinity: bool, now: UnixMillis) -> Self {
        Self {
            directory: directory.clone(),
            depth_infinity,
            walk: MemberWalk::new(view, directory, depth_infinity),
            found: SyncFingerprints::default(),
            chunk: SyncChunk::default(),
            recorded: Vec::new().into_iter(),
            now,
        }
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
        if *rows_left == 0 {
            let truncated = self.walk.next_entry()?.is_some();
            return self.end(view, *point, truncated);
        }
        let members = self.read_members(view, SYNC_BATCH_MEMBERS.min(*rows_left))?;
        if members.is_empty() {
            return self.end(view, *point, false);
        }
        *rows_left -= members.len();
        if !self.record(view, point)? {
            // Members that were read and not recorded: the fingerprints are not those of the journal.
            self.found = SyncFingerprints::default();
            return self.end(view, *point, true);
        }
        self.recorded = members.into_iter();
        Ok(self.recorded.next().map_or(InitialStep::End { truncated: true }, InitialStep::Report))
    }

    /// Reads the next members into the chunk; none at the end of the walk.
    fn read_members(&mut self, view: &View, count: usize) -> Result<Vec<ChangedMember>> {
        let cache = &view.shared().sync_fingerprints;
        let mut members = Vec::with_capacity(count);
        self.chunk.clear();
        while members.len() < count
            && let Some(entry) = self.walk.next_entry()?
        {
            let path = self.walk.path();
            // Too long to be asked for.
            let Ok(relative_path) = TreePath::parse(path) else { continue };
            // A directory that changes while it is read may return a name twice.
            if !self.found.insert(cache.hash_path(path), cache.hash_state(&entry)) {
                continue;
            }
            self.chunk.push(path, entry.is_directory(), &member_state(&entry));
            let (path, is_directory) = (self.directory.join(&relative_path), entry.is_directory());
            members.push(ChangedMember { path, is_directory, entry: Some(entry) });
        }
        Ok(members)
    }

    /// Records the chunk; returns false where something else was recorded since the walk began.
    fn record(&mut self, view: &View, point: &mut SyncPoint) -> Result<bool> {
        // A comparison under way would record the same members once more.
        let Some(_journal_guard) = view.shared().journal_locks.try_lock(&view.journal_lock_path(&self.directory))
        else {
            return Ok(false);
        };
        // Recorded before it is reported: a member that only the client knows would never be reported as removed.
        let store = view.shared().index.store();
        let Some(number) = store.append_sync_chunk(point.journal, point.number, &self.chunk)? else {
            return Ok(false);
        };
        (point.number, point.base) = (number, number);
        Ok(true)
    }

    /// Ends the page. What was recorded is synced to disk before the client is given its number.
    fn end(&mut self, view: &View, point: SyncPoint, truncated: bool) -> Result<InitialStep> {
        let (token, store) = (view.session().token(), view.shared().index.store());
        store.flush_sync_journal(point.journal)?;
        let found = std::mem::take(&mut self.found);
        let guard = view.shared().journal_locks.try_lock(&view.journal_lock_path(&self.directory));
        if guard.is_some() && found.len() > 0 {
            // Under the lock: what another comparison has recorded since is not among the fingerprints.
            let journal = store.find_sync_journal(token, &self.directory, self.depth_infinity, self.now)?;
            if journal.is_some_and(|journal| (journal.id, journal.last_number) == (point.journal, point.number)) {
                view.shared().sync_fingerprints.put(point.journal, view.session().login(), found, self.now);
            }
        }
        Ok(InitialStep::End { truncated })
    }
}
