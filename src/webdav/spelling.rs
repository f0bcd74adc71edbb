//! Names that a client spells in another form of Unicode than the tree has them.

use crate::domain::TreePath;
use crate::tree::{self, View};

/// Tells whether another spelling of a path could be there.
pub(super) fn is_ambiguous(below: &TreePath) -> bool {
    !below.as_bytes().is_ascii() && below.names().any(|name| !name.other_spellings().is_empty())
}

/// Returns the path by which the tree has what a client names: name by name as it is spelled where that exists, else in
/// the one other spelling that does. A name that exists in no spelling, or in several others, stays as it was sent.
pub(super) fn existing(view: &View, root: &TreePath, below: &TreePath) -> TreePath {
    let sent = root.join(below);
    if !is_ambiguous(below) || is_there(view, &sent) {
        return sent;
    }
    let mut found = root.clone();
    let mut rest = below.names();
    for name in rest.by_ref() {
        let spelled = found.child(&name);
        if is_there(view, &spelled) {
            found = spelled;
            continue;
        }
        let others = name.other_spellings().into_iter().map(|other| found.child(&other));
        let others: Vec<TreePath> = others.filter(|other| is_there(view, other)).collect();
        match <[TreePath; 1]>::try_from(others) {
            Ok([other]) => found = other,
            Err(_) => {
                // Nothing is below what does not exist.
                found = spelled;
                break;
            }
        }
    }
    rest.fold(found, |folder, name| folder.child(&name))
}

fn is_there(view: &View, path: &TreePath) -> bool {
    !matches!(
        view.link_stat(path),
        Err(tree::Error::Absent | tree::Error::NoParent | tree::Error::NotFolder | tree::Error::BadName)
    )
}
