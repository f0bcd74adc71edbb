//! One page of a folder: folders first, then by name, in memory for one page however long the folder is.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::super::fault::{Fault, Result};
use crate::tree::{DirectoryListing, Entry};

/// Where an entry stands: folders before files, then by the name without regard to case, then by its bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    file: bool,
    lower: Vec<u8>,
    name: Vec<u8>,
}

impl Key {
    fn new(file: bool, name: Vec<u8>) -> Self {
        Self { file, lower: name.to_ascii_lowercase(), name }
    }
}

/// From where on entries are shown.
#[derive(Clone, Debug)]
pub(super) enum From {
    /// The first.
    Start,
    /// Those after one.
    After(Key),
    /// The last ones before one.
    Before(Key),
}

/// One page of a folder.
#[derive(Debug)]
pub(super) struct Block {
    /// Its entries, in order.
    pub(super) entries: Vec<Entry>,
    /// How many there are in all.
    pub(super) count: usize,
    /// Whether there are any before these.
    pub(super) earlier: bool,
    /// Whether there are any after these.
    pub(super) later: bool,
}

impl Block {
    /// Reads a folder and keeps one page of the entries whose name holds `find`.
    ///
    /// # Errors
    /// What the tree says.
    pub(super) fn of(listing: DirectoryListing, from: &From, find: &str, page: usize) -> Result<Self> {
        let find = find.to_lowercase();
        let mut kept: BTreeMap<Key, Entry> = BTreeMap::new();
        let (mut count, mut earlier, mut later) = (0, false, false);
        for entry in listing {
            let entry = entry?;
            if !find.is_empty() && !String::from_utf8_lossy(&entry.name).to_lowercase().contains(&find) {
                continue;
            }
            count += 1;
            let key = key(&entry);
            match from {
                From::After(after) if key <= *after => earlier = true,
                From::Before(before) if key >= *before => later = true,
                From::Start | From::After(_) | From::Before(_) => {
                    kept.insert(key, entry);
                }
            }
            if kept.len() > page {
                match from {
                    From::Before(_) => (earlier, _) = (true, kept.pop_first()),
                    From::Start | From::After(_) => (later, _) = (true, kept.pop_last()),
                }
            }
        }
        Ok(Self { entries: kept.into_values().collect(), count, earlier, later })
    }
}

fn key(entry: &Entry) -> Key {
    Key::new(!entry.is_directory(), entry.name.clone())
}

/// Writes where an entry stands, for an address.
pub(super) fn cursor(entry: &Entry) -> String {
    let kind = if entry.is_directory() { 'd' } else { 'f' };
    format!("{kind}{}", URL_SAFE_NO_PAD.encode(&entry.name))
}

/// Reads what [`cursor`] wrote.
///
/// # Errors
/// [`Fault::Nothing`].
pub(super) fn key_of(cursor: &str) -> Result<Key> {
    let (file, rest) = match cursor.split_at_checked(1) {
        Some(("d", rest)) => (false, rest),
        Some(("f", rest)) => (true, rest),
        _ => return Err(Fault::Nothing),
    };
    Ok(Key::new(file, URL_SAFE_NO_PAD.decode(rest).map_err(|_| Fault::Nothing)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_stand_before_files_and_case_comes_last() {
        let key = |file, name: &str| Key::new(file, name.as_bytes().to_vec());
        let sorted = [key(false, "b"), key(false, "Z"), key(true, "A"), key(true, "a"), key(true, "B")];
        assert!(sorted.is_sorted());
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        for text in ["", "x", "d*", "fYQ=", "ä"] {
            assert!(key_of(text).is_err(), "{text}");
        }
        assert_eq!(key_of("fYQ").ok(), Some(Key::new(true, b"a".to_vec())));
    }
}
