//! Requests on folders: listed, made, removed.

use std::collections::VecDeque;

use crate::domain::TreePath;
use crate::tree::{self, Attributes, Entry, SessionListing};

use super::attributes::Change;
use super::error::{Error, Result};
use super::handles::What;
use super::reply::{Names, Replies};
use super::request::HandleId;
use super::worker::Worker;

/// A directory that is being listed.
pub(super) struct Folder {
    path: TreePath,
    /// `.` and `..`, then what did not fit into the answer before.
    first: VecDeque<(Vec<u8>, Entry)>,
    listing: SessionListing,
}

impl Folder {
    /// Returns where it was opened.
    pub(super) fn path(&self) -> &TreePath {
        &self.path
    }

    fn fill(&mut self, names: &mut Names<'_>) -> Result<()> {
        // Asked before `.` and `..` are told, which are known already.
        self.listing.check()?;
        while !names.is_full() {
            match self.next() {
                Some(Ok((name, entry))) => names.push(&name, &entry),
                // Removed between being read and being looked at.
                Some(Err(tree::Error::Absent)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => break,
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Option<tree::Result<(Vec<u8>, Entry)>> {
        if let Some(first) = self.first.pop_front() {
            return Some(Ok(first));
        }
        self.listing.next().map(|entry| entry.map(|entry| (entry.name.clone(), entry)))
    }
}

impl Worker {
    /// Opens a directory to be listed.
    pub(super) fn open_folder(&mut self, path: &[u8]) -> Result<HandleId> {
        let place = self.handles.place()?;
        let path = self.path(path)?;
        let shared = &self.shared;
        let listing = shared.files.list(&path)?;
        let here = shared.view().stat(&path)?;
        let above = path.parent().and_then(|parent| shared.view().stat(&parent).ok()).unwrap_or_else(|| here.clone());
        let first = VecDeque::from([(b".".to_vec(), here), (b"..".to_vec(), above)]);
        let folder = Folder { path, first, listing };
        Ok(self.handles.insert(place, What::Folder(Box::new(folder))))
    }

    /// Answers the next names of a folder.
    pub(super) fn read_folder(&mut self, id: u32, handle: HandleId, out: &mut Replies) -> Result<()> {
        let shared = self.shared.clone();
        let What::Folder(folder) = &mut self.handles.get(handle)?.what else { return Err(Error::WrongHandle) };
        let mut names = out.names(id, shared.login(), shared.auth.now());
        let filled = folder.fill(&mut names);
        match (filled, names.finish()) {
            (Err(error), Err(_)) => Err(error),
            (_, finished) => finished,
        }
    }

    /// Makes a directory.
    pub(super) fn make_folder(&mut self, path: &[u8], change: &Change) -> Result<()> {
        let path = self.entry_path(path)?.path;
        let attributes = Attributes { mode: change.new_mode(), ..Attributes::default() };
        Ok(self.shared.files.make_folder(&path, &attributes)?)
    }

    /// Removes an empty directory.
    pub(super) fn remove_folder(&mut self, path: &[u8]) -> Result<()> {
        let path = self.entry_path(path)?.path;
        Ok(self.shared.files.remove_folder(&path)?)
    }
}
