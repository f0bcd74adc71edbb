//! Pages of sync-collection reports (RFC 6578): the members of a directory that have changed since a client's sync
//! token.
//!
//! Each member is looked up again just before it is reported. One that differs from its journal entry by then, because
//! the comparison was a while ago, is reported as it is now, and its journal entry gets a number behind the page, so
//! that the next report contains it again: a client never has a state that is newer than the journal.
//!
//! **Cost.** A page that the journal can fill is read from it alone. Only the last page, which says that there is no
//! more, compares the directory first. Each page continues in the journal, and a report reads at most
//! [`JOURNAL_ROWS_PER_REPORT`] of its rows, so that it ends whatever they contain.

use super::View;
use super::initial_sync::{InitialStep, InitialSync};
use super::member_walk::{ChangedMember, MemberLookup};
use super::sync::{SYNC_BATCH_MEMBERS, SyncPoint};
use crate::domain::{TreePath, UnixMillis};
use crate::store::{NumberedSyncEntry, SyncEntry, SyncJournal};
use crate::tree::sync_fingerprints::member_state;
use crate::tree::{Entry, Result};

/// Maximum number of journal rows that one report reads; the page is truncated there (RFC 6578 section 3.6).
const JOURNAL_ROWS_PER_REPORT: usize = if cfg!(test) { 600 } else { 100_000 };

/// Item of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncItem {
    /// Member that has changed.
    Member(ChangedMember),
    /// End of the page.
    PageEnd {
        /// Point of the next sync token: the client knows every change up to it.
        point: SyncPoint,
        /// Whether there are more changes (RFC 6578 section 3.6).
        truncated: bool,
    },
}

/// Changes of a directory that are still to be reported on one page.
pub struct SyncChanges {
    view: View,
    directory: TreePath,
    depth_infinity: bool,
    now: UnixMillis,
    member_lookup: MemberLookup,
    /// Point up to which changes have been reported.
    point: SyncPoint,
    /// Number of the last change of this page.
    last_number: i64,
    /// Whether this is the first page of an initial synchronization.
    is_initial: bool,
    /// Whether the directory has been compared, so that the page contains every change.
    is_compared: bool,
    /// Whether the page contains a member already.
    has_reported: bool,
    /// Number of members that may still be reported.
    members_left: usize,
    /// Number of journal rows that may still be read.
    rows_left: usize,
    batch: std::vec::IntoIter<NumberedSyncEntry>,
    /// First report of the directory, where this is one.
    initial: Option<Box<InitialSync>>,
}

impl View {
    /// Returns the changes of a directory since a point, of its direct members or (`depth_infinity`) of everything
    /// below; without a point, all members. Reports at most `limit` members. Returns `None` where the changes since the
    /// point are not known any more: it belongs to another token, directory or depth, or is too old (RFC 6578 section
    /// 3.2, DAV:valid-sync-token).
    ///
    /// # Errors
    /// As [`View::compare_with_journal`].
    pub fn changes_since(
        &self,
        directory: &TreePath,
        depth_infinity: bool,
        since: Option<SyncPoint>,
        limit: usize,
        now: UnixMillis,
    ) -> Result<Option<SyncChanges>> {
        // For its refusals alone: permission and kind of the directory come before any answer from the journal.
        self.list(directory, true)?;
        let store = self.shared().index.store();
        let journal = store.find_sync_journal(self.session().token(), directory, depth_infinity, now)?;
        if since.is_some_and(|since| !journal.is_some_and(|journal| is_point_known(journal, since))) {
            return Ok(None);
        }
        let mut changes = SyncChanges {
            view: self.clone(),
            directory: directory.clone(),
            depth_infinity,
            now,
            member_lookup: MemberLookup::new(self, directory, depth_infinity),
            is_initial: since.is_none(),
            // Placeholders of an initial page: the journal is known further down.
            point: since.unwrap_or(SyncPoint { journal: 0, number: 0, base: 0 }),
            last_number: 0,
            is_compared: false,
            has_reported: false,
            members_left: limit,
            rows_left: JOURNAL_ROWS_PER_REPORT,
            batch: Vec::new().into_iter(),
            initial: None,
        };
        // Without a limit of the client: a page that it limits is cheap, and the next ones continue in the journal.
        if since.is_none()
            && limit >= JOURNAL_ROWS_PER_REPORT
            && let Some((initial, point)) =
                InitialSync::begin(self, directory, depth_infinity, JOURNAL_ROWS_PER_REPORT, now)?
        {
            (changes.point, changes.initial) = (point, Some(Box::new(initial)));
            return Ok(Some(changes));
        }
        if let Some(journal) = journal {
            store.unpack_sync_chunks_after(journal.id, changes.point.number)?;
        }
        let journal = match journal {
            Some(journal) if self.journal_fills_page(journal, since, limit.min(JOURNAL_ROWS_PER_REPORT))? => {
                // Marks the journal as used, so that it does not expire, and syncs it: a comparison under way may just
                // have written what this page reports.
                let ensured = store.ensure_sync_journal(self.session().token(), directory, depth_infinity, now)?;
                store.flush_sync_journal(ensured.id)?;
                Some(journal).filter(|journal| journal.id == ensured.id)
            }
            _ => None,
        };
        match journal {
            Some(SyncJournal { id, last_number, .. }) => {
                // An initial synchronization starts here: the client knows none of the members removed before.
                changes.point =
                    SyncPoint { journal: id, base: since.map_or(last_number, |since| since.base), ..changes.point };
                changes.last_number = last_number;
            }
            None => {
                let end_point = self.compare_with_journal(directory, depth_infinity, now)?;
                // Looked up again: it may have expired and a new one begun, or have purged removals after the point.
                let journal = store.find_sync_journal(self.session().token(), directory, depth_infinity, now)?;
                if since.is_some_and(|since| !journal.is_some_and(|journal| is_point_known(journal, since))) {
                    return Ok(None);
                }
                changes.set_range(end_point, since.map_or(end_point.base, |since| since.base));
            }
        }
        Ok(Some(changes))
    }

    /// Tells whether a journal holds more changes than fit on a page.
    fn journal_fills_page(&self, journal: SyncJournal, since: Option<SyncPoint>, limit: usize) -> Result<bool> {
        // Removals up to the base are not reported to this client, so they must not count.
        let (number, base) = since.map_or((0, journal.last_number), |since| (since.number, since.base));
        Ok(self.shared().index.store().has_more_sync_changes(journal.id, number, base, limit)?)
    }
}

impl SyncChanges {
    /// Returns the next changed member, or the end of the page. Nothing follows the end.
    ///
    /// # Errors
    /// As [`View::compare_with_journal`].
    pub fn next_item(&mut self) -> Result<SyncItem> {
        if let Some(initial) = &mut self.initial {
            self.view.cancellation().check()?;
            return match initial.next_step(&self.view, &mut self.point, &mut self.rows_left)? {
                InitialStep::Report(member) => Ok(SyncItem::Member(member)),
                InitialStep::End { truncated } => Ok(self.page_end(truncated)),
            };
        }
        loop {
            // At each item: a report over a large journal ends with the client's connection.
            self.view.cancellation().check()?;
            let batch = std::mem::take(&mut self.batch);
            if let Some(change) = self.next_in_batch(batch)? {
                return Ok(change);
            }
            let store = self.view.shared().index.store();
            let SyncPoint { journal, number, base } = self.point;
            // Truncated and not complete: the client continues with the token of this page.
            if self.rows_left == 0 {
                return Ok(self.page_end(true));
            }
            store.unpack_sync_chunks_after(journal, number)?;
            // `None`: removals up to the purge limit are forgotten, or the journal has expired. The page ends as
            // truncated, and its token is refused next time.
            let Some(rows) = store.changed_sync_entries(
                journal,
                number,
                self.last_number,
                number.max(base),
                self.rows_left.min(SYNC_BATCH_MEMBERS),
            )?
            else {
                return Ok(self.page_end(true));
            };
            self.rows_left -= rows.len();
            // Its knowledge of directories is as old as the previous batch.
            self.member_lookup = MemberLookup::new(&self.view, &self.directory, self.depth_infinity);
            match (rows.is_empty(), self.is_compared) {
                (false, _) => self.batch = rows.into_iter(),
                // Compared, and no row left: the client knows every change up to the last number.
                (true, true) => {
                    self.point.number = self.last_number;
                    return Ok(self.page_end(false));
                }
                (true, false) if !self.compare_unless_reported()? => return Ok(self.page_end(true)),
                (true, false) => {}
            }
        }
    }

    /// Returns the next item of a batch; `None` once it has no more, or has to be read again.
    fn next_in_batch(&mut self, mut batch: std::vec::IntoIter<NumberedSyncEntry>) -> Result<Option<SyncItem>> {
        while let Some((number, recorded)) = batch.next() {
            // Removed before the client's initial synchronization, so it never had the member (RFC 6578 section 3.4).
            if recorded.content_tag.is_none() && number <= self.point.base {
                // Skipped rows move the point too, or a page of removals alone would begin at the same row for ever.
                self.point.number = number;
                continue;
            }
            if self.members_left == 0 {
                return Ok(Some(self.page_end(true)));
            }
            let entry = self.member_lookup.find(&recorded.path)?;
            let is_unchanged = entry.as_ref().map(member_state) == recorded.content_tag;
            // The journal is outdated here: comparing first gives this change and all others their numbers.
            if !is_unchanged && !self.is_compared {
                return if self.compare_unless_reported()? { Ok(None) } else { Ok(Some(self.page_end(true))) };
            }
            if !is_unchanged {
                // Moved behind the page: the reported state is not the journal's, so the next report contains the
                // member again.
                self.view.shared().index.store().defer_sync_entry(self.point.journal, &recorded.path, number)?;
            }
            self.point.number = number;
            // A member that was removed since is reported once the journal has it, together with everything that was
            // below it.
            if let Some(changed) = self.changed_member(recorded, entry, is_unchanged) {
                (self.members_left, self.has_reported) = (self.members_left - 1, true);
                self.batch = batch;
                return Ok(Some(SyncItem::Member(changed)));
            }
        }
        Ok(None)
    }

    fn changed_member(&self, recorded: SyncEntry, entry: Option<Entry>, is_unchanged: bool) -> Option<ChangedMember> {
        if entry.is_none() && !is_unchanged {
            return None;
        }
        let path = self.directory.join(&TreePath::parse(&recorded.path).ok()?);
        let is_directory = entry.as_ref().map_or(recorded.is_directory, Entry::is_directory);
        Some(ChangedMember { path, is_directory, entry })
    }

    /// Compares the directory, so that the page may contain every change; returns false where that is not possible on
    /// this page. After a member was reported it is not: the member could be reported a second time, and a multistatus
    /// has one response for each.
    fn compare_unless_reported(&mut self) -> Result<bool> {
        if self.has_reported {
            return Ok(false);
        }
        let end_point = self.view.compare_with_journal(&self.directory, self.depth_infinity, self.now)?;
        // The journal expired during the page: the numbers of a new one mean nothing to this client.
        if end_point.journal != self.point.journal {
            return Ok(false);
        }
        self.set_range(end_point, if self.is_initial { end_point.base } else { self.point.base });
        Ok(true)
    }

    fn set_range(&mut self, end_point: SyncPoint, base: i64) {
        self.point = SyncPoint { journal: end_point.journal, base, ..self.point };
        (self.last_number, self.is_compared) = (end_point.number, true);
    }

    fn page_end(&self, truncated: bool) -> SyncItem {
        SyncItem::PageEnd { point: self.point, truncated }
    }
}

/// Tells whether the journal still holds every change since a point.
fn is_point_known(journal: SyncJournal, point: SyncPoint) -> bool {
    // The point is a client's input: a number that the journal has not given out is refused.
    let reached = 0..=journal.last_number;
    journal.id == point.journal
        && reached.contains(&point.number)
        && reached.contains(&point.base)
        && journal.purged_through <= point.number.max(point.base)
}
