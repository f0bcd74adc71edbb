//! Requests on folders: listed, made, removed.

use std::collections::{HashMap, VecDeque};

use crate::domain::Permission;
use crate::tree::{self, Attributes, Claim, Entry, Listing};

use super::attributes::Change;
use super::error::{Error, Result};
use super::handles::What;
use super::reply::{Names, Replies};
use super::request::HandleId;
use super::worker::Worker;

/// A folder that is being listed.
pub(super) struct Folder {
    /// `.` and `..`, then what did not fit into the answer before.
    first: VecDeque<(Vec<u8>, Entry)>,
    listing: Listing,
    /// The session's own uploads in it, shown in place of what they replace.
    staged: HashMap<Vec<u8>, Entry>,
    /// Whether uploads that replace nothing are shown: not where the listing shows nothing either.
    adds: bool,
}

impl Folder {
    fn fill(&mut self, names: &mut Names<'_>) -> Result<()> {
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
        match self.listing.next() {
            Some(Ok(entry)) => {
                let entry = self.staged.remove(&entry.name).unwrap_or(entry);
                Some(Ok((entry.name.clone(), entry)))
            }
            Some(Err(error)) => Some(Err(error)),
            None if self.adds => {
                let name = self.staged.keys().next()?.clone();
                let entry = self.staged.remove(&name)?;
                Some(Ok((name, entry)))
            }
            None => None,
        }
    }
}

impl Worker {
    /// Opens a folder to be listed.
    pub(super) fn open_folder(&mut self, path: &[u8]) -> Result<HandleId> {
        let place = self.handles.place()?;
        let path = self.path(path)?;
        let shared = &self.shared;
        let listing = shared.view.list(&path, false)?;
        let here = shared.view.stat(&path)?;
        let above = path.parent().and_then(|parent| shared.view.stat(&parent).ok()).unwrap_or_else(|| here.clone());
        let children = shared.overlay.children(&shared.view, &path).into_iter();
        let staged = children.filter_map(|(name, staged)| {
            let mut entry = staged.stat(&shared.view).ok()?;
            entry.name = name.as_bytes().to_vec();
            Some((entry.name.clone(), entry))
        });
        let folder = Folder {
            staged: staged.collect(),
            adds: here.permission.allows(Permission::R),
            first: VecDeque::from([(b".".to_vec(), here), (b"..".to_vec(), above)]),
            listing,
        };
        Ok(self.handles.insert(place, path, What::Folder(Box::new(folder))))
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

    /// Makes a folder.
    pub(super) fn make_folder(&mut self, path: &[u8], change: &Change) -> Result<()> {
        let path = self.path(path)?;
        if self.shared.overlay.find_entry(&self.shared.view, &path).is_some() {
            return Err(tree::Error::Exists.into());
        }
        let attributes = Attributes { mode: change.new_mode(), ..Attributes::default() };
        self.shared.view.make_folder(&path, &attributes, &Claim::none())?;
        Ok(())
    }

    /// Removes an empty folder; one with an upload in it is not empty.
    pub(super) fn remove_folder(&mut self, path: &[u8]) -> Result<()> {
        let path = self.path(path)?;
        if !self.shared.overlay.within(&self.shared.view, &path).is_empty() {
            let error = if self.shared.overlay.find_entry(&self.shared.view, &path).is_some() {
                tree::Error::NotFolder
            } else {
                tree::Error::NotEmpty
            };
            return Err(error.into());
        }
        Ok(self.shared.view.remove_folder(&path, &Claim::none())?)
    }
}
