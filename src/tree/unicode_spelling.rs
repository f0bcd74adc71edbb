//! Names that a client sends in another Unicode normalization form than the tree has: one rule for every protocol.
//!
//! A name is looked up as it was sent first, so that each form is found if both exist. Only if the name that was sent
//! is missing, and exactly one other form exists, is that one used. A name that is not UTF-8 has one form.

use super::{Error, Result, SessionFiles, View};
use crate::domain::TreePath;

impl View {
    /// Returns the path in the tree of an entry that a client names by `below`, relative to a path that the tree itself
    /// has returned. Each name is kept if it exists, else replaced by its one other normalization form that does. A
    /// name that exists in no form, or in several others, stays as it was sent.
    pub fn existing_spelling(&self, root: &TreePath, below: &TreePath) -> TreePath {
        resolve_spelling(root, below, |path| exists(&self.link_stat(path)))
    }
}

impl SessionFiles {
    /// Returns a path as [`View::existing_spelling`] does, from the root; staged uploads of the session count as
    /// existing.
    pub fn existing_spelling(&self, path: &TreePath) -> TreePath {
        resolve_spelling(&TreePath::root(), path, |path| exists(&self.link_stat(path)))
    }
}

/// Returns the destination of a move: `existing`, which is `sent` in the form that the tree has. If that is the source
/// itself, the name is taken as it was sent, so that a move can change the normalization form of a name.
pub fn move_destination(from: &TreePath, existing: TreePath, sent: &TreePath) -> TreePath {
    match (existing.parent(), sent.name()) {
        (Some(directory), Some(name)) if existing == *from => directory.child(&name),
        _ => existing,
    }
}

fn resolve_spelling(root: &TreePath, below: &TreePath, is_there: impl Fn(&TreePath) -> bool) -> TreePath {
    let sent = root.join(below);
    // Checked as a whole first: most paths have one form only, or exist as they were sent.
    if !below.has_alternate_normalizations() || is_there(&sent) {
        return sent;
    }
    let mut resolved = root.clone();
    let mut rest = below.names();
    for name in rest.by_ref() {
        let as_sent = resolved.child(&name);
        if is_there(&as_sent) {
            resolved = as_sent;
            continue;
        }
        let others = name.alternate_normalizations().into_iter().map(|other| resolved.child(&other));
        let others: Vec<TreePath> = others.filter(|other| is_there(other)).collect();
        match <[TreePath; 1]>::try_from(others) {
            Ok([other]) => resolved = other,
            Err(_) => {
                // Missing, or ambiguous between two other forms: never guessed, so the rest stays as it was sent.
                resolved = as_sent;
                break;
            }
        }
    }
    rest.fold(resolved, |directory, name| directory.child(&name))
}

fn exists<T>(stat: &Result<T>) -> bool {
    !matches!(stat, Err(Error::Absent | Error::NoParent | Error::NotADirectory | Error::InvalidName))
}
