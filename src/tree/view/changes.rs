//! The members of a directory that have changed since a client was last told of it, page by page (RFC 6578).
//!
//! Each member is looked up again just before it is told. One that differs from its journal by then (the comparison was
//! a while ago) is told as it is and keeps a number behind the page, so that the next report tells of it again: what
//! a client was told is never newer than what the journal remembers of it.
//!
//! **Cost.** A page that the journal can fill is taken from it alone; only the last one, which says that there is
//! no more, compares the directory first. Each step goes on in the journal, and a report reads at most
//! [`MAX_ROWS`] of its rows, so that it ends whatever they hold.

use super::View;
use super::sync::{BATCH, Members, Point, mark};
use crate::domain::{TreePath, UnixMillis};
use crate::store::{NumberedSyncEntry, SyncEntry, SyncJournal};
use crate::tree::{Entry, Result};

/// Maximum number of rows of a journal that one report reads; it is truncated there (RFC 6578 section 3.6).
const MAX_ROWS: usize = if cfg!(test) { 600 } else { 100_000 };

/// A member of a directory that has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Where it is, or was.
    pub path: TreePath,
    /// Whether it is, or was, a directory.
    pub folder: bool,
    /// What it shows of itself, none where it was removed or can't be seen any more.
    pub entry: Option<Entry>,
}

/// One step through the changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A member that has changed.
    Member(Changed),
    /// The end of the page.
    End {
        /// What the client was told of up to now.
        point: Point,
        /// Whether there is more to tell (RFC 6578 section 3.6).
        truncated: bool,
    },
}

/// Changes of a directory that are still to be told on one page.
pub struct Changes {
    view: View,
    folder: TreePath,
    deep: bool,
    now: UnixMillis,
    lookup: Members,
    /// Up to where the client has been told.
    point: Point,
    /// The number of the last change of this page.
    to: i64,
    /// Whether this is the first page of an initial synchronization.
    initial: bool,
    /// Whether the directory was compared, so that the page says all there is.
    compared: bool,
    /// Whether the page tells of a member already.
    told: bool,
    /// Number of members that may still be told.
    members: usize,
    /// Number of rows that may still be read.
    rows: usize,
    batch: std::vec::IntoIter<NumberedSyncEntry>,
}

impl View {
    /// Returns the changes of a directory since a point, directly in it or (`deep`) anywhere below; without a point, all
    /// that it holds. At most `limit` members are told. `None` where what has changed since is not known any more:
    /// the point is none of this token, directory and depth, or too old (RFC 6578 section 3.2, DAV:valid-sync-token).
    ///
    /// # Errors
    /// As [`View::compare`].
    pub fn changes(
        &self,
        folder: &TreePath,
        deep: bool,
        since: Option<Point>,
        limit: usize,
        now: UnixMillis,
    ) -> Result<Option<Changes>> {
        self.list(folder, true)?;
        let store = self.shared().index.store();
        let journal = store.find_sync_journal(self.session().token(), folder, deep, now)?;
        if since.is_some_and(|since| !journal.is_some_and(|journal| is_known(journal, since))) {
            return Ok(None);
        }
        let mut changes = Changes {
            view: self.clone(),
            folder: folder.clone(),
            deep,
            now,
            lookup: Members::new(self, folder, deep),
            initial: since.is_none(),
            point: since.unwrap_or(Point { journal: 0, number: 0, base: 0 }),
            to: 0,
            compared: false,
            told: false,
            members: limit,
            rows: MAX_ROWS,
            batch: Vec::new().into_iter(),
        };
        let journal = match journal {
            Some(journal) if self.fills(journal, since, limit.min(MAX_ROWS))? => {
                // Asked for, so that it rests no longer; and on disk, where a comparison under way has just noted it.
                let used = store.ensure_sync_journal(self.session().token(), folder, deep, now)?;
                store.flush_sync_journal(used.id)?;
                Some(journal).filter(|journal| journal.id == used.id)
            }
            _ => None,
        };
        match journal {
            Some(SyncJournal { id, last_number: last, .. }) => {
                changes.point = Point { journal: id, base: since.map_or(last, |since| since.base), ..changes.point };
                changes.to = last;
            }
            None => {
                let to = self.compare(folder, deep, now)?;
                // It may have ended meanwhile and another begun, or have forgotten what is too much.
                let journal = store.find_sync_journal(self.session().token(), folder, deep, now)?;
                if since.is_some_and(|since| !journal.is_some_and(|journal| is_known(journal, since))) {
                    return Ok(None);
                }
                changes.begin(to, since.map_or(to.base, |since| since.base));
            }
        }
        Ok(Some(changes))
    }

    /// Tells whether a journal has more to tell than a page may hold.
    fn fills(&self, journal: SyncJournal, since: Option<Point>, limit: usize) -> Result<bool> {
        let (number, base) = since.map_or((0, journal.last_number), |since| (since.number, since.base));
        Ok(self.shared().index.store().has_more_sync_changes(journal.id, number, base, limit)?)
    }
}

impl Changes {
    /// Returns the next change, or the end of the page. Nothing follows the end.
    ///
    /// # Errors
    /// As [`View::compare`].
    pub fn next_change(&mut self) -> Result<Change> {
        loop {
            self.view.cancellation().check()?;
            let batch = std::mem::take(&mut self.batch);
            if let Some(change) = self.tell(batch)? {
                return Ok(change);
            }
            let store = self.view.shared().index.store();
            let Point { journal, number, base } = self.point;
            if self.rows == 0 {
                return Ok(self.end(true));
            }
            // What was removed up to the floor is forgotten, and all of a journal that has ended: the token of this page
            // is refused next time.
            let Some(rows) =
                store.changed_sync_entries(journal, number, self.to, number.max(base), self.rows.min(BATCH))?
            else {
                return Ok(self.end(true));
            };
            self.rows -= rows.len();
            // What it found out about directories is as old as the batch before.
            self.lookup = Members::new(&self.view, &self.folder, self.deep);
            match (rows.is_empty(), self.compared) {
                (false, _) => self.batch = rows.into_iter(),
                (true, true) => {
                    self.point.number = self.to;
                    return Ok(self.end(false));
                }
                (true, false) if !self.compare()? => return Ok(self.end(true)),
                (true, false) => {}
            }
        }
    }

    /// Tells the next of a batch; none once it has no more, or has to be read anew.
    fn tell(&mut self, mut batch: std::vec::IntoIter<NumberedSyncEntry>) -> Result<Option<Change>> {
        while let Some((number, known)) = batch.next() {
            if known.content_tag.is_none() && number <= self.point.base {
                self.point.number = number;
                continue;
            }
            if self.members == 0 {
                return Ok(Some(self.end(true)));
            }
            let entry = self.lookup.find(&known.path)?;
            let same = entry.as_ref().map(mark) == known.content_tag;
            if !same && !self.compared {
                return if self.compare()? { Ok(None) } else { Ok(Some(self.end(true))) };
            }
            if !same {
                self.view.shared().index.store().defer_sync_entry(self.point.journal, &known.path, number)?;
            }
            self.point.number = number;
            // One that has gone since is told of when the journal knows, too, and with all that was below it.
            if let Some(changed) = self.changed(known, entry, same) {
                (self.members, self.told) = (self.members - 1, true);
                self.batch = batch;
                return Ok(Some(Change::Member(changed)));
            }
        }
        Ok(None)
    }

    fn changed(&self, known: SyncEntry, entry: Option<Entry>, same: bool) -> Option<Changed> {
        if entry.is_none() && !same {
            return None;
        }
        let path = self.folder.join(&TreePath::parse(&known.path).ok()?);
        let folder = entry.as_ref().map_or(known.is_directory, Entry::is_folder);
        Some(Changed { path, folder, entry })
    }

    /// Compares the directory, so that the page may go on to all there is. Not once it has told of a member: that could
    /// be told then a second time, and a response has one answer for each.
    fn compare(&mut self) -> Result<bool> {
        if self.told {
            return Ok(false);
        }
        let to = self.view.compare(&self.folder, self.deep, self.now)?;
        if to.journal != self.point.journal {
            return Ok(false);
        }
        self.begin(to, if self.initial { to.base } else { self.point.base });
        Ok(true)
    }

    fn begin(&mut self, to: Point, base: i64) {
        self.point = Point { journal: to.journal, base, ..self.point };
        (self.to, self.compared) = (to.number, true);
    }

    fn end(&self, truncated: bool) -> Change {
        Change::End { point: self.point, truncated }
    }
}

/// Tells whether all that changed since a point of a journal is still known.
fn is_known(journal: SyncJournal, point: Point) -> bool {
    let reached = 0..=journal.last_number;
    journal.id == point.journal
        && reached.contains(&point.number)
        && reached.contains(&point.base)
        && journal.purged_through <= point.number.max(point.base)
}
