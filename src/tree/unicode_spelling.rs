//! Names that a client spells in another form of Unicode than the tree has them: one rule for every protocol.
//!
//! A name is looked up as it was sent first, so that where both spellings exist each is itself. Only where the sent one
//! is missing and exactly one other spelling exists does that one stand for it. What is not UTF-8 has one spelling.

use super::{Error, Result, SessionFiles, View};
use crate::domain::TreePath;

impl View {
    /// Returns the path by which the tree has what a client names `below` a path that the tree itself has given: name by
    /// name as it is spelled where that exists, else in the one other spelling that does. A name that exists in no
    /// spelling, or in several others, stays as it was sent.
    pub fn existing_spelling(&self, root: &TreePath, below: &TreePath) -> TreePath {
        resolve_spelling(root, below, |path| exists(&self.link_stat(path)))
    }
}

impl SessionFiles {
    /// Returns a path as [`View::existing_spelling`] does, from the root; the session's own uploads are there.
    pub fn existing_spelling(&self, path: &TreePath) -> TreePath {
        resolve_spelling(&TreePath::root(), path, |path| exists(&self.link_stat(path)))
    }
}

/// Returns the path that an entry gets by a move: `existing`, which is `sent` as the tree spells it. Another spelling of
/// the entry's own name is a new name, so that a move may change the spelling.
pub fn move_destination(from: &TreePath, existing: TreePath, sent: &TreePath) -> TreePath {
    match (existing.parent(), sent.name()) {
        (Some(directory), Some(name)) if existing == *from => directory.child(&name),
        _ => existing,
    }
}

fn resolve_spelling(root: &TreePath, below: &TreePath, is_there: impl Fn(&TreePath) -> bool) -> TreePath {
    let sent = root.join(below);
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
                // Nothing is below what does not exist.
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
