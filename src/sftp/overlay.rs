//! Uploads that are not committed yet, as the session that makes them sees them.
//!
//! A program that opens a file to replace it expects to find it at once: it stats it, sets its times,
//! renames it, removes it, all before CLOSE. The tree shows staged bytes to nobody; so the session lays
//! its own uploads over the tree, by canonical path, for all its channels.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::domain::{Name, TreePath};
use crate::tree::{self, Attributes, Claim, EditMode, Editor, Entry, Upload, View};

use super::error::{Error, Result};

/// A file opened to be replaced, until its handle is closed.
pub(super) struct Staged {
    readable: bool,
    state: RwLock<State>,
}

enum State {
    /// In staging; others see what was there before.
    Uploading(Upload),
    /// Removed or replaced under its name; lives until its handle is closed, then is gone.
    Unlinked(Upload),
    /// Committed before its handle was closed; what is still written goes in place.
    Committed { path: TreePath, editor: Option<Editor> },
    /// Its early commit was refused.
    Lost,
    /// Its handle is closed.
    Closed,
}

impl Staged {
    /// Takes an upload; `readable` tells whether its handle may read too.
    pub(super) fn new(upload: Upload, readable: bool) -> Self {
        Self { readable, state: RwLock::new(State::Uploading(upload)) }
    }

    /// Reads at an offset.
    pub(super) fn read_at(&self, view: &View, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let buffer = Mutex::new(buffer);
        self.with(view, |u| u.read_at(&mut buffer.lock(), offset), |e| e.read_at(&mut buffer.lock(), offset))
    }

    /// Writes at an offset.
    pub(super) fn write_at(&self, view: &View, data: &[u8], offset: u64) -> Result<()> {
        self.with(view, |upload| upload.write_at(data, offset), |editor| editor.write_at(data, offset))
    }

    /// Returns what the file is, or would be if it were committed now.
    pub(super) fn stat(&self, view: &View) -> Result<Entry> {
        self.with(view, Upload::stat, Editor::stat)
    }

    /// Sets attributes, now or with the commit.
    pub(super) fn set_attributes(&self, view: &View, attributes: &Attributes) -> Result<()> {
        self.with(view, |upload| upload.set_attributes(attributes), |editor| editor.set_attributes(attributes))
    }

    /// Writes to disk what is in place; what is staged is written with its commit.
    pub(super) fn sync(&self, view: &View) -> Result<()> {
        self.with(view, |_| Ok(()), Editor::sync)
    }

    /// Commits now, before CLOSE, because somebody else wants the file under its name.
    pub(super) fn settle(&self, path: &TreePath) -> Result<()> {
        let mut state = self.state.write();
        match std::mem::replace(&mut *state, State::Lost) {
            State::Uploading(upload) => {
                upload.commit(&Claim::none())?;
                *state = State::Committed { path: path.clone(), editor: None };
            }
            other => *state = other,
        }
        Ok(())
    }

    /// Notes that what was at `from` is now at `to`.
    pub(super) fn moved(&self, from: &TreePath, to: &TreePath) {
        if let State::Committed { path, editor } = &mut *self.state.write()
            && let Some(rest) = path.below(from)
        {
            *path = to.join(&rest);
            *editor = None;
        }
    }

    /// Notes that its name is gone, or another's.
    pub(super) fn unlink(&self) {
        let mut state = self.state.write();
        *state = match std::mem::replace(&mut *state, State::Closed) {
            State::Uploading(upload) => State::Unlinked(upload),
            other => other,
        };
    }

    /// Ends it: commits what is staged, syncs what is in place.
    pub(super) fn close(&self) -> Result<()> {
        match std::mem::replace(&mut *self.state.write(), State::Closed) {
            State::Uploading(upload) => upload.commit(&Claim::none()).map(drop)?,
            State::Committed { editor: Some(editor), .. } => editor.close()?,
            State::Lost => return Err(Error::Lost),
            State::Unlinked(_) | State::Committed { editor: None, .. } | State::Closed => {}
        }
        Ok(())
    }

    /// Ends it without a commit: the old content stands.
    pub(super) fn abandon(&self) {
        *self.state.write() = State::Closed;
    }

    /// Tells whether it is committed, and under which name.
    pub(super) fn committed(&self) -> bool {
        matches!(&*self.state.read(), State::Committed { .. } | State::Closed)
    }

    fn with<T>(
        &self,
        view: &View,
        staged: impl FnOnce(&Upload) -> tree::Result<T>,
        in_place: impl FnOnce(&Editor) -> tree::Result<T>,
    ) -> Result<T> {
        match &*self.state.read() {
            State::Uploading(upload) | State::Unlinked(upload) => return Ok(staged(upload)?),
            State::Committed { editor: Some(editor), .. } => return Ok(in_place(editor)?),
            State::Committed { editor: None, .. } => {}
            State::Lost => return Err(Error::Lost),
            State::Closed => return Err(Error::NoHandle),
        }
        match &mut *self.state.write() {
            State::Committed { path, editor } => {
                let editor = match editor {
                    Some(editor) => editor,
                    none => none.insert(view.edit(path, self.edit_mode(), &Claim::none())?),
                };
                Ok(in_place(editor)?)
            }
            // What is committed never goes back to staging; it can only end.
            State::Uploading(_) | State::Unlinked(_) | State::Lost | State::Closed => Err(Error::NoHandle),
        }
    }

    fn edit_mode(&self) -> EditMode {
        EditMode { read: self.readable, ..EditMode::default() }
    }
}

/// The uploads of a session that are not committed yet, by canonical path.
#[derive(Default)]
pub(super) struct Overlay(Mutex<HashMap<TreePath, Arc<Staged>>>);

impl Overlay {
    /// Lays an upload over the tree.
    pub(super) fn insert(&self, path: TreePath, staged: Arc<Staged>) {
        self.0.lock().insert(path, staged);
    }

    /// Takes an upload away, unless another has taken its place.
    pub(super) fn remove(&self, path: &TreePath, staged: &Arc<Staged>) {
        let mut entries = self.0.lock();
        if entries.get(path).is_some_and(|found| Arc::ptr_eq(found, staged)) {
            entries.remove(path);
        }
    }

    /// Returns the upload at a path and its canonical path; a link is followed.
    pub(super) fn find(&self, view: &View, path: &TreePath) -> Option<(TreePath, Arc<Staged>)> {
        if self.0.lock().is_empty() {
            return None;
        }
        self.at(view.canonical(path).ok()?)
    }

    /// Returns the upload at a path and its canonical path; a link is itself.
    pub(super) fn find_entry(&self, view: &View, path: &TreePath) -> Option<(TreePath, Arc<Staged>)> {
        if self.0.lock().is_empty() {
            return None;
        }
        self.at(place(view, path)?)
    }

    /// Returns all uploads at or below a path.
    pub(super) fn within(&self, view: &View, path: &TreePath) -> Vec<(TreePath, Arc<Staged>)> {
        if self.0.lock().is_empty() {
            return Vec::new();
        }
        let Some(top) = place(view, path) else { return Vec::new() };
        let entries = self.0.lock();
        entries.iter().filter(|(at, _)| at.is_within(&top)).map(|(at, staged)| (at.clone(), staged.clone())).collect()
    }

    /// Returns the uploads that are entries of a folder.
    pub(super) fn children(&self, view: &View, folder: &TreePath) -> Vec<(Name, Arc<Staged>)> {
        if self.0.lock().is_empty() {
            return Vec::new();
        }
        let Ok(folder) = view.canonical(folder) else { return Vec::new() };
        let entries = self.0.lock();
        let split = entries.iter().filter_map(|(at, staged)| at.split().map(|(parent, name)| (parent, name, staged)));
        split.filter(|(parent, ..)| *parent == folder).map(|(_, name, staged)| (name, staged.clone())).collect()
    }

    fn at(&self, path: TreePath) -> Option<(TreePath, Arc<Staged>)> {
        let staged = self.0.lock().get(&path)?.clone();
        Some((path, staged))
    }
}

/// Returns the canonical place of an entry that is not followed.
pub(super) fn place(view: &View, path: &TreePath) -> Option<TreePath> {
    match path.split() {
        Some((parent, name)) => Some(view.canonical(&parent).ok()?.child(&name)),
        None => Some(TreePath::root()),
    }
}
