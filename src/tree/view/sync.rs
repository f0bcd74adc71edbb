//! What has changed in a directory since a token was last told of it, for clients that keep a copy (RFC 6578).
//!
//! Nothing is written down when something changes: not by uploads, and the host's own changes could not be seen at
//! all. Instead the directory is compared with a journal of what the token was told of: what differs is noted there as
//! one more change, in batches, and the answer is what was noted since ([`super::changes`]). So an upload costs
//! the same whether anybody syncs or not, whatever changed behind the gateway's back is found, and the comparison goes
//! by the session's view: what it can't see any more counts as removed, and what it never saw is in no journal.
//!
//! A member of the journal is what [`View::list`] lists, in the directory itself and, at infinite depth, in every
//! directory below that PROPFIND walks through: those in the way down to what is granted, drop boxes with something
//! readable in them, and no symbolic links.
//!
//! The journal is the token's own, and survives a restart. Memory is bounded: a directory is listed, and the journal
//! read, in batches.

use std::collections::{BTreeSet, HashSet};

use super::View;
use crate::domain::{EntryName, TreePath, UnixMillis};
use crate::store::{SyncEntry, SyncJournal};
use crate::tree::{Entry, Error, Kind, Result};

/// Number of members that are compared, or read from a journal, at once.
pub(super) const BATCH: usize = 512;
/// Maximum number of members of a directory that is kept in step.
const MAX_MEMBERS: usize = if cfg!(test) { 2_000 } else { 1_000_000 };
/// Maximum number of removed members that a journal remembers.
const MAX_REMOVED: u32 = if cfg!(test) { 20 } else { 50_000 };

/// A point in the journal of a token, directory and depth: what a client was told of up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// The journal.
    pub journal: i64,
    /// The number of the last change before it.
    pub number: i64,
    /// The number of the last change before the client's initial synchronization, which must not tell of removed
    /// members (RFC 6578 section 3.4): none up to this number are told. At most `number` once that is complete.
    pub base: i64,
}

impl View {
    /// Returns the time by which a journal has rested for too long: a jump of the clock ends none.
    pub fn steady_now(&self) -> UnixMillis {
        self.shared().clock.steady_time()
    }

    /// Compares a directory with what the session's token was told of it, directly in it or (`deep`) anywhere below.
    /// Returns the point up to which changes can be told now; it is on disk when it is returned, so that a client
    /// never holds a number that a power cut takes back and that is given again to another change.
    ///
    /// # Errors
    /// [`Error::NotFolder`], and as [`View::list`]; [`Error::NoSpace`] for more than a million members;
    /// [`Error::SessionEnded`] once it was cancelled.
    pub fn compare(&self, folder: &TreePath, deep: bool, now: UnixMillis) -> Result<Point> {
        self.list(folder, true)?;
        let _alone = self.shared().journals.hold(&[&self.journal_name(folder)]);
        self.compare_alone(folder, deep, now)
    }

    /// Returns a point from which a client that lists a directory afterwards can go on (RFC 6578 section 4), for changes
    /// directly in it. While the directory is being compared that is an earlier one, from which some of the listing
    /// is told again: a listing waits for nobody's comparison.
    ///
    /// # Errors
    /// As [`View::compare`].
    pub fn sync_point(&self, folder: &TreePath, now: UnixMillis) -> Result<Point> {
        self.list(folder, true)?;
        let Some(_alone) = self.shared().journals.try_hold(&self.journal_name(folder)) else {
            let store = self.shared().index.store();
            let journal = store.ensure_sync_journal(self.session().token(), folder, false, now)?;
            store.flush_sync_journal(journal.id)?;
            return Ok(Point { journal: journal.id, number: journal.last_number, base: journal.last_number });
        };
        self.compare_alone(folder, false, now)
    }

    /// Returns the name of the lock on the journals of the session's token for a directory: nobody waits for another
    /// token's comparison.
    fn journal_name(&self, folder: &TreePath) -> TreePath {
        TreePath::parse(self.session().token().as_str().as_bytes()).unwrap_or_default().join(folder)
    }

    fn compare_alone(&self, folder: &TreePath, deep: bool, now: UnixMillis) -> Result<Point> {
        let token = self.session().token();
        let store = self.shared().index.store();
        let journal = store.ensure_sync_journal(token, folder, deep, now)?;
        let members = Members::new(self, folder, deep);
        let mut comparison = Comparison { view: self, journal, folder, members, batch: Vec::new(), met: 0, listed: 0 };
        let mut known = store.count_sync_entries(journal.id)?;
        if known > MAX_MEMBERS as u64 {
            // One that failed for too many members has noted them and looked for none that had gone.
            comparison.find_removed()?;
            known = store.count_sync_entries(journal.id)?;
            if known > MAX_MEMBERS as u64 {
                return Err(Error::NoSpace);
            }
        }
        comparison.walk(deep)?;
        if comparison.met < known {
            comparison.find_removed()?;
        }
        store.purge_removed_sync_entries(journal.id, MAX_REMOVED)?;
        let noted = store.find_sync_journal(token, folder, deep, now)?.ok_or(Error::Absent)?;
        if noted.last_number != journal.last_number {
            store.flush_sync_journal(noted.id)?;
        }
        Ok(Point { journal: noted.id, number: noted.last_number, base: noted.last_number })
    }
}

/// A comparison under way.
struct Comparison<'a> {
    view: &'a View,
    journal: SyncJournal,
    folder: &'a TreePath,
    members: Members,
    batch: Vec<SyncEntry>,
    /// Number of members that the journal knows and that were met.
    met: u64,
    /// Number of members that were met.
    listed: usize,
}

impl Comparison<'_> {
    /// Walks through all that PROPFIND of the same depth lists.
    fn walk(&mut self, deep: bool) -> Result<()> {
        let mut left = vec![TreePath::root()];
        while let Some(below) = left.pop() {
            self.view.cancellation().check()?;
            let listing = match self.view.list(&self.folder.join(&below), true) {
                Err(Error::Absent | Error::Forbidden | Error::NotFolder) if !below.is_root() => continue,
                listing => listing?,
            };
            for entry in listing {
                let entry = match entry {
                    Err(Error::Absent) => continue,
                    entry => entry?,
                };
                let Some(name) = entry.name() else { continue };
                let place = below.child(&name);
                self.meet(SyncEntry {
                    path: place.as_bytes().to_vec(),
                    is_directory: entry.is_folder(),
                    content_tag: Some(mark(&entry)),
                })?;
                if deep && entry.is_folder() && self.members.is_own(&place) {
                    left.push(place);
                }
            }
        }
        self.note()
    }

    fn meet(&mut self, mark: SyncEntry) -> Result<()> {
        self.listed += 1;
        if self.listed > MAX_MEMBERS {
            return Err(Error::NoSpace);
        }
        self.batch.push(mark);
        if self.batch.len() < BATCH { Ok(()) } else { self.note() }
    }

    /// Notes those of a batch that are new or different.
    fn note(&mut self) -> Result<()> {
        self.view.cancellation().check()?;
        let store = self.view.shared().index.store();
        let mut seen = HashSet::new();
        self.batch.retain(|mark| seen.insert(mark.path.clone()));
        let paths: Vec<&[u8]> = self.batch.iter().map(|mark| mark.path.as_slice()).collect();
        let known = store.sync_entry_tags(self.journal.id, &paths)?;
        self.met += known.iter().filter(|mark| mark.is_some()).count() as u64;
        let changed =
            self.batch.drain(..).zip(known).filter(|(mark, known)| mark.content_tag != *known).map(|(mark, _)| mark);
        let changed: Vec<SyncEntry> = changed.collect();
        Ok(store.record_sync_entries(self.journal.id, &changed)?)
    }

    /// Notes as removed those that the journal knows and no listing shows any more.
    fn find_removed(&mut self) -> Result<()> {
        let store = self.view.shared().index.store();
        let mut last = Vec::new();
        loop {
            self.view.cancellation().check()?;
            let batch = store.sync_entries_after(self.journal.id, &last, BATCH)?;
            let Some(end) = batch.last() else { return Ok(()) };
            last.clone_from(&end.path);
            let mut removed = Vec::new();
            for mark in batch {
                if self.members.find(&mark.path)?.is_none() {
                    removed.push(SyncEntry { content_tag: None, ..mark });
                }
            }
            store.record_sync_entries(self.journal.id, &removed)?;
        }
    }
}

/// Members of a directory, looked up one by one: each is found exactly when a walk through the listings meets it.
///
/// That something can be asked for by name is not enough: what is in a drop box can, and what is behind a symbolic link
/// that has taken the place of a directory. So each directory on the way counts, too. What was found of those
/// is kept while paths below them are asked for.
pub(super) struct Members {
    view: View,
    folder: TreePath,
    deep: bool,
    /// The directories on the way to the last member, the topmost first, each with what its listing shows.
    holders: Vec<(TreePath, Shown)>,
}

/// Entries that the listing of a directory shows.
enum Shown {
    /// All that can be seen.
    All,
    /// Those of these names that can be seen: the way down to what is granted.
    Names(BTreeSet<EntryName>),
    /// None: it is not walked through.
    Nothing,
}

impl Members {
    /// Looks for members directly in a directory or (`deep`) anywhere below.
    pub(super) fn new(view: &View, folder: &TreePath, deep: bool) -> Self {
        Self { view: view.clone(), folder: folder.clone(), deep, holders: Vec::new() }
    }

    /// Returns a member as its listing shows it now, none where it is not listed.
    pub(super) fn find(&mut self, below: &[u8]) -> Result<Option<Entry>> {
        let Some((parent, name)) = TreePath::parse(below).ok().and_then(|below| below.split_last()) else {
            return Ok(None);
        };
        self.enter(&parent)?;
        self.member(&parent.child(&name), &name)
    }

    /// Tells whether a listed directory is one itself, and no link to one.
    fn is_own(&self, below: &TreePath) -> bool {
        self.view.link_stat(&self.folder.join(below)).is_ok_and(|own| own.is_folder())
    }

    /// Makes a directory the last of the holders.
    fn enter(&mut self, parent: &TreePath) -> Result<()> {
        while self.holders.last().is_some_and(|(holder, _)| !parent.starts_with(holder)) {
            self.holders.pop();
        }
        if self.holders.is_empty() {
            let shown = self.listed(&TreePath::root())?;
            self.holders.push((TreePath::root(), shown));
        }
        while let Some(name) =
            self.holders.last().and_then(|(holder, _)| parent.strip_prefix(holder)).and_then(|rest| rest.names().next())
        {
            let holder = self.holders.last().map(|(holder, _)| holder.child(&name)).unwrap_or_default();
            let walked = self.deep
                && self.member(&holder, &name)?.is_some_and(|entry| entry.is_folder())
                && self.is_own(&holder);
            let shown = if walked { self.listed(&holder)? } else { Shown::Nothing };
            self.holders.push((holder, shown));
        }
        Ok(())
    }

    /// Returns an entry of the last of the holders.
    fn member(&self, below: &TreePath, name: &EntryName) -> Result<Option<Entry>> {
        let shown = match self.holders.last() {
            Some((_, Shown::All)) => true,
            Some((_, Shown::Names(names))) => names.contains(name),
            Some((_, Shown::Nothing)) | None => false,
        };
        if !shown {
            return Ok(None);
        }
        match self.view.stat(&self.folder.join(below)) {
            Ok(entry) => Ok(Some(entry)),
            Err(Error::Absent | Error::NoParent | Error::NotFolder | Error::Forbidden | Error::BadName) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn listed(&self, below: &TreePath) -> Result<Shown> {
        match self.view.list(&self.folder.join(below), true) {
            Ok(listing) => Ok(listing.into_way_down().map_or(Shown::All, Shown::Names)),
            Err(Error::Absent | Error::Forbidden | Error::NotFolder) => Ok(Shown::Nothing),
            Err(error) => Err(error),
        }
    }
}

/// Returns what tells apart two states of a member: a file's entity tag, or what a file that can't be read shows; and
/// when a directory was made. The forms differ in their lengths.
pub(super) fn mark(entry: &Entry) -> Vec<u8> {
    let time = |time: crate::tree::Timestamp| [&time.seconds.to_be_bytes()[..], &time.nanos.to_be_bytes()].concat();
    match (entry.etag, entry.kind) {
        (Some(etag), _) => etag.bytes().to_vec(),
        (None, Kind::Folder) => entry.created.map_or_else(|| vec![0], time),
        (None, Kind::File | Kind::Link) => {
            let created = time(entry.created.unwrap_or_default());
            [&[1][..], &created, &time(entry.modified), &entry.size.to_be_bytes()].concat()
        }
    }
}
