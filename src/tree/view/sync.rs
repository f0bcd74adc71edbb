//! What has changed in a folder since a token was last told of it, for clients that keep a copy (RFC 6578).
//!
//! Nothing is written down when something changes: not by uploads, and the host's own changes could not be seen at
//! all. Instead the folder is compared, each time somebody asks, with a journal of what the token was told of: what
//! differs is noted there as one more change, in batches, and the answer is what was noted since. So an upload costs
//! the same whether anybody syncs or not, whatever changed behind the gateway's back is found, and the comparison goes
//! by the session's view: what it can't see any more counts as removed, and what it never saw is in no journal.
//!
//! The journal is the token's own, and survives a restart. Memory is bounded: a folder is listed, and the journal read,
//! in blocks.

use std::collections::HashSet;

use super::View;
use crate::domain::{Permission, Time, TreePath};
use crate::store::{Journal, Mark};
use crate::tree::{Entry, Error, Result};

/// As many members are compared, or told of, at once.
const BLOCK: usize = 512;
/// The most members of a folder that is kept in step.
const MOST: usize = 1_000_000;
/// As many members that have gone are remembered.
const GONE: u32 = 50_000;

/// A point in the journal of a token, folder and depth: what a client was told of up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// The journal.
    pub journal: i64,
    /// The number of the last change before it.
    pub number: i64,
}

/// A member of a folder that has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The number of its last change.
    pub number: i64,
    /// Where it is, or was.
    pub path: TreePath,
    /// Whether it is, or was, a folder.
    pub folder: bool,
    /// Whether it has gone.
    pub gone: bool,
}

impl View {
    /// Compares a folder with what the session's token was told of it, directly in it or (`deep`) anywhere below.
    /// Returns the point up to which changes can be told now.
    ///
    /// # Errors
    /// [`Error::NotFolder`], and as [`View::list`]; [`Error::NoSpace`] for more than a million members.
    pub fn compare(&self, folder: &TreePath, deep: bool, now: Time) -> Result<Point> {
        let token = self.session().token();
        self.list(folder, true)?;
        let _alone = self.shared().journals.hold(&[folder]);
        let store = self.shared().index.store();
        let journal = store.journal(token, folder, deep, now)?;
        let known = store.count_marks(journal.id)?;
        let mut comparison = Comparison { view: self, journal, folder, block: Vec::new(), met: 0, members: 0 };
        comparison.walk(deep)?;
        if comparison.met < known {
            comparison.find_gone()?;
        }
        store.forget_gone(journal.id, GONE)?;
        let journal = store.find_journal(token, folder, deep, now)?.ok_or(Error::Absent)?;
        Ok(Point { journal: journal.id, number: journal.last })
    }

    /// Tells whether a point is one of the journal of the session's token for this folder and depth, and all that
    /// changed since is still known.
    pub fn is_point(&self, folder: &TreePath, deep: bool, point: Point, now: Time) -> Result<bool> {
        let journal = self.shared().index.store().find_journal(self.session().token(), folder, deep, now)?;
        let known =
            |journal: Journal| journal.id == point.journal && (journal.floor..=journal.last).contains(&point.number);
        Ok(journal.is_some_and(known))
    }

    /// Returns the next members of a folder that changed after one number and up to a point; none at the end.
    pub fn changed(&self, folder: &TreePath, after: i64, to: Point) -> Result<Vec<Changed>> {
        let rows = self.shared().index.store().changed_marks(to.journal, after, to.number, BLOCK)?;
        let shown = rows.into_iter().filter_map(|(number, Mark { path, folder: is_folder, mark })| {
            let path = folder.join(&TreePath::parse(&path).ok()?);
            Some(Changed { number, path, folder: is_folder, gone: mark.is_none() })
        });
        Ok(shown.collect())
    }
}

/// A comparison under way.
struct Comparison<'a> {
    view: &'a View,
    journal: Journal,
    folder: &'a TreePath,
    block: Vec<Mark>,
    /// How many of those that the journal knows were met.
    met: u64,
    members: usize,
}

impl Comparison<'_> {
    fn walk(&mut self, deep: bool) -> Result<()> {
        let mut left = vec![TreePath::root()];
        while let Some(below) = left.pop() {
            let listing = match self.view.list(&self.folder.join(&below), true) {
                Err(Error::Absent | Error::Forbidden | Error::NotFolder) if !below.is_root() => continue,
                listing => listing?,
            };
            for entry in listing {
                let entry = match entry {
                    Err(Error::Absent) => continue,
                    entry => entry?,
                };
                let Some(name) = entry.name().filter(|_| is_told(&entry)) else { continue };
                let place = below.child(&name);
                self.meet(Mark {
                    path: place.as_bytes().to_vec(),
                    folder: entry.is_folder(),
                    mark: Some(mark(&entry)),
                })?;
                let own =
                    |place: &TreePath| self.view.link_stat(&self.folder.join(place)).is_ok_and(|own| own.is_folder());
                if deep && entry.is_folder() && own(&place) {
                    left.push(place);
                }
            }
        }
        self.note()
    }

    fn meet(&mut self, mark: Mark) -> Result<()> {
        self.members += 1;
        if self.members > MOST {
            return Err(Error::NoSpace);
        }
        self.block.push(mark);
        if self.block.len() < BLOCK { Ok(()) } else { self.note() }
    }

    /// Notes those of a block that are new or different.
    fn note(&mut self) -> Result<()> {
        let store = self.view.shared().index.store();
        let mut seen = HashSet::new();
        self.block.retain(|mark| seen.insert(mark.path.clone()));
        let paths: Vec<&[u8]> = self.block.iter().map(|mark| mark.path.as_slice()).collect();
        let known = store.marks(self.journal.id, &paths)?;
        self.met += known.iter().filter(|mark| mark.is_some()).count() as u64;
        let changed = self.block.drain(..).zip(known).filter(|(mark, known)| mark.mark != *known).map(|(mark, _)| mark);
        let changed: Vec<Mark> = changed.collect();
        Ok(store.note_marks(self.journal.id, &changed)?)
    }

    /// Notes those that the journal knows and the session can't see any more.
    fn find_gone(&self) -> Result<()> {
        let store = self.view.shared().index.store();
        let mut last = Vec::new();
        loop {
            let block = store.marks_behind(self.journal.id, &last, BLOCK)?;
            let Some(end) = block.last() else { return Ok(()) };
            last.clone_from(&end.path);
            let mut gone = Vec::new();
            for mark in block {
                if !self.is_there(&mark)? {
                    gone.push(Mark { mark: None, ..mark });
                }
            }
            store.note_marks(self.journal.id, &gone)?;
        }
    }

    fn is_there(&self, mark: &Mark) -> Result<bool> {
        let Ok(below) = TreePath::parse(&mark.path) else { return Ok(false) };
        match self.view.stat(&self.folder.join(&below)) {
            Ok(entry) => Ok(is_told(&entry)),
            Err(Error::Absent | Error::NoParent | Error::NotFolder | Error::Forbidden | Error::BadName) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Tells whether a member is told of: what is in a drop box is not.
fn is_told(entry: &Entry) -> bool {
    entry.permission == Permission::NONE || entry.permission.allows(Permission::R)
}

/// Returns what tells a member's content apart: a file's tag, and when a folder was made.
fn mark(entry: &Entry) -> Vec<u8> {
    match (entry.etag, entry.created) {
        (Some(etag), _) => etag.bytes().to_vec(),
        (None, Some(made)) => [&made.seconds.to_be_bytes()[..], &made.nanos.to_be_bytes()].concat(),
        (None, None) => vec![0],
    }
}
