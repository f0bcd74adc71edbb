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

use std::collections::{BTreeSet, HashSet};

use super::View;
use crate::domain::{EntryName, TreePath, UnixMillis};
use crate::store::{SyncEntry, SyncJournal};
use crate::tree::{Entry, EntryKind, Error, Result};

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
    fn journal_lock_path(&self, directory: &TreePath) -> TreePath {
        TreePath::parse(self.session().token().as_str().as_bytes()).unwrap_or_default().join(directory)
    }

    fn compare_locked(&self, directory: &TreePath, depth_infinity: bool, now: UnixMillis) -> Result<SyncPoint> {
        let token = self.session().token();
        let store = self.shared().index.store();
        let journal = store.ensure_sync_journal(token, directory, depth_infinity, now)?;
        let members = MemberLookup::new(self, directory, depth_infinity);
        let mut comparison =
            JournalComparison { view: self, journal, directory, members, batch: Vec::new(), known_seen: 0, seen: 0 };
        // Before the walk adds members: only a walk that finds fewer of the known ones has to look for removed members.
        let mut known_count = store.count_sync_entries(journal.id)?;
        if known_count > SYNC_MAX_MEMBERS as u64 {
            // An earlier comparison that failed for too many members has recorded them, but did not look for removed
            // ones.
            comparison.record_removed()?;
            known_count = store.count_sync_entries(journal.id)?;
            if known_count > SYNC_MAX_MEMBERS as u64 {
                return Err(Error::NoSpace);
            }
        }
        comparison.walk(depth_infinity)?;
        if comparison.known_seen < known_count {
            comparison.record_removed()?;
        }
        store.purge_removed_sync_entries(journal.id, JOURNAL_MAX_REMOVED_MEMBERS)?;
        let updated = store.find_sync_journal(token, directory, depth_infinity, now)?.ok_or(Error::Absent)?;
        // On disk before the number is given out: another change must not get it after a power cut. Also where this
        // comparison recorded nothing: the number may be of one that was cancelled before it came here.
        store.flush_sync_journal(updated.id)?;
        Ok(SyncPoint { journal: updated.id, number: updated.last_number, base: updated.last_number })
    }
}

/// Comparison under way.
struct JournalComparison<'a> {
    view: &'a View,
    journal: SyncJournal,
    directory: &'a TreePath,
    members: MemberLookup,
    batch: Vec<SyncEntry>,
    /// Number of members found that the journal contains.
    known_seen: u64,
    /// Number of members found.
    seen: usize,
}

impl JournalComparison<'_> {
    /// Walks through all entries that a PROPFIND of the same depth lists.
    fn walk(&mut self, depth_infinity: bool) -> Result<()> {
        let mut pending = vec![TreePath::root()];
        while let Some(relative_path) = pending.pop() {
            self.view.cancellation().check()?;
            let listing = match self.view.list(&self.directory.join(&relative_path), true) {
                // Removed, replaced or hidden since it was listed. For the directory itself that is an error of the
                // report.
                Err(Error::Absent | Error::Forbidden | Error::RefusedByHost(_) | Error::NotADirectory)
                    if !relative_path.is_root() =>
                {
                    continue;
                }
                listing => listing?,
            };
            for entry in listing {
                // Any error fails the comparison: members that were not listed would be recorded as removed.
                let entry = entry?;
                let Some(name) = entry.valid_name() else { continue };
                let member_path = relative_path.child(&name);
                self.add_member(SyncEntry {
                    path: member_path.as_bytes().to_vec(),
                    is_directory: entry.is_directory(),
                    content_tag: Some(member_state(&entry)),
                })?;
                // Links to directories are listed, but not walked: they could form a loop.
                if depth_infinity && entry.is_directory() && self.members.is_real_directory(&member_path)? {
                    pending.push(member_path);
                }
            }
        }
        self.record_batch()
    }

    fn add_member(&mut self, sync_entry: SyncEntry) -> Result<()> {
        self.seen += 1;
        // Batches recorded before stay in the journal; the next comparison removes those that are gone.
        if self.seen > SYNC_MAX_MEMBERS {
            return Err(Error::NoSpace);
        }
        self.batch.push(sync_entry);
        if self.batch.len() < SYNC_BATCH_MEMBERS { Ok(()) } else { self.record_batch() }
    }

    /// Records the members of a batch that are new or different.
    fn record_batch(&mut self) -> Result<()> {
        self.view.cancellation().check()?;
        let store = self.view.shared().index.store();
        let mut seen_paths = HashSet::new();
        // A directory that changes while it is read may return a name twice.
        self.batch.retain(|sync_entry| seen_paths.insert(sync_entry.path.clone()));
        let paths: Vec<&[u8]> = self.batch.iter().map(|sync_entry| sync_entry.path.as_slice()).collect();
        let known_tags = store.sync_entry_tags(self.journal.id, &paths)?;
        self.known_seen += known_tags.iter().filter(|tag| tag.is_some()).count() as u64;
        let changed = self
            .batch
            .drain(..)
            .zip(known_tags)
            .filter(|(sync_entry, known_tag)| sync_entry.content_tag != *known_tag)
            .map(|(sync_entry, _)| sync_entry);
        let changed: Vec<SyncEntry> = changed.collect();
        Ok(store.record_sync_entries(self.journal.id, &changed)?)
    }

    /// Records as removed the members of the journal that no listing shows any more.
    fn record_removed(&mut self) -> Result<()> {
        let store = self.view.shared().index.store();
        let mut last = Vec::new();
        loop {
            self.view.cancellation().check()?;
            // By the last path and not by an offset: rows that are recorded meanwhile shift nothing.
            let batch = store.sync_entries_after(self.journal.id, &last, SYNC_BATCH_MEMBERS)?;
            let Some(end) = batch.last() else { return Ok(()) };
            last.clone_from(&end.path);
            let mut removed = Vec::new();
            for sync_entry in batch {
                // Looked up by name: the walk may have missed an entry that was renamed during it.
                if self.members.find(&sync_entry.path)?.is_none() {
                    removed.push(SyncEntry { content_tag: None, ..sync_entry });
                }
            }
            store.record_sync_entries(self.journal.id, &removed)?;
        }
    }
}

/// Lookup of single members of a directory: finds a member exactly when a walk through the listings finds it.
///
/// A stat by name is not enough: it finds entries in a drop box, and entries behind a symbolic link that has taken the
/// place of a directory. So each directory on the way is checked as well, and the result is kept while paths below it
/// are looked up.
pub(super) struct MemberLookup {
    view: View,
    directory: TreePath,
    depth_infinity: bool,
    /// Directories on the way to the last member, the topmost first, each with the names that its listing shows.
    ancestors: Vec<(TreePath, ListedNames)>,
}

/// Names that the listing of a directory shows.
enum ListedNames {
    /// All that can be seen.
    All,
    /// Only these, as far as they can be seen: the children on the way to a granted node.
    Only(BTreeSet<EntryName>),
    /// None: it is not listed.
    NotListed,
}

impl MemberLookup {
    /// Creates a lookup of direct members of a directory, or (`depth_infinity`) of everything below.
    pub(super) fn new(view: &View, directory: &TreePath, depth_infinity: bool) -> Self {
        Self { view: view.clone(), directory: directory.clone(), depth_infinity, ancestors: Vec::new() }
    }

    /// Returns the metadata of a member as its listing shows it now; `None` where it is not listed.
    pub(super) fn find(&mut self, relative_path: &[u8]) -> Result<Option<Entry>> {
        let Some((parent, name)) =
            TreePath::parse(relative_path).ok().and_then(|relative_path| relative_path.split_last())
        else {
            return Ok(None);
        };
        // Every directory on the way has to list the next one, or a walk would not come here.
        self.load_ancestors(&parent)?;
        self.listed_member(&parent.child(&name), &name)
    }

    /// Tells whether a listed directory is a directory itself, and not a link to one.
    fn is_real_directory(&self, relative_path: &TreePath) -> Result<bool> {
        match self.view.link_stat(&self.directory.join(relative_path)) {
            Ok(own) => Ok(own.is_directory()),
            Err(Error::Absent | Error::Forbidden | Error::RefusedByHost(_) | Error::NotADirectory) => Ok(false),
            // Not false: everything below would be reported as removed.
            Err(error) => Err(error),
        }
    }

    /// Makes a directory the last of the ancestors.
    fn load_ancestors(&mut self, parent: &TreePath) -> Result<()> {
        // Neighbouring paths share their ancestors: only those that differ are looked up again.
        while self.ancestors.last().is_some_and(|(ancestor, _)| !parent.starts_with(ancestor)) {
            self.ancestors.pop();
        }
        if self.ancestors.is_empty() {
            let listed = self.listed_names(&TreePath::root())?;
            self.ancestors.push((TreePath::root(), listed));
        }
        while let Some(name) = self
            .ancestors
            .last()
            .and_then(|(ancestor, _)| parent.strip_prefix(ancestor))
            .and_then(|rest| rest.names().next())
        {
            let ancestor = self.ancestors.last().map(|(ancestor, _)| ancestor.child(&name)).unwrap_or_default();
            let is_walked = self.depth_infinity
                && self.listed_member(&ancestor, &name)?.is_some_and(|entry| entry.is_directory())
                && self.is_real_directory(&ancestor)?;
            let listed = if is_walked { self.listed_names(&ancestor)? } else { ListedNames::NotListed };
            self.ancestors.push((ancestor, listed));
        }
        Ok(())
    }

    /// Returns the metadata of an entry of the last ancestor; `None` where it is not listed.
    fn listed_member(&self, relative_path: &TreePath, name: &EntryName) -> Result<Option<Entry>> {
        let is_listed = match self.ancestors.last() {
            Some((_, ListedNames::All)) => true,
            Some((_, ListedNames::Only(names))) => names.contains(name),
            Some((_, ListedNames::NotListed)) | None => false,
        };
        if !is_listed {
            return Ok(None);
        }
        match self.view.stat(&self.directory.join(relative_path)) {
            Ok(entry) => Ok(Some(entry)),
            // Not listed, for whatever reason: removed as far as this session can tell.
            Err(
                Error::Absent
                | Error::NoParent
                | Error::NotADirectory
                | Error::Forbidden
                | Error::RefusedByHost(_)
                | Error::InvalidName,
            ) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn listed_names(&self, relative_path: &TreePath) -> Result<ListedNames> {
        match self.view.list(&self.directory.join(relative_path), true) {
            Ok(listing) => Ok(listing.into_visible_children().map_or(ListedNames::All, ListedNames::Only)),
            Err(Error::Absent | Error::Forbidden | Error::RefusedByHost(_) | Error::NotADirectory) => {
                Ok(ListedNames::NotListed)
            }
            Err(error) => Err(error),
        }
    }
}

/// Returns bytes that differ between two states of a member: of a file the entity tag, or kind, times and size where it
/// can't be read; of a directory its birth time. The forms have different lengths.
pub(super) fn member_state(entry: &Entry) -> Vec<u8> {
    let time = |time: crate::tree::Timestamp| [&time.seconds.to_be_bytes()[..], &time.nanos.to_be_bytes()].concat();
    // Not the times of a directory: they change with its members, which are reported themselves.
    match (entry.etag, entry.kind) {
        (Some(etag), _) => etag.to_bytes().to_vec(),
        (None, EntryKind::Directory) => entry.created.map_or_else(|| vec![0], time),
        (None, EntryKind::File | EntryKind::Symlink) => {
            let created = time(entry.created.unwrap_or_default());
            [&[1][..], &created, &time(entry.modified), &entry.size.to_be_bytes()].concat()
        }
    }
}
