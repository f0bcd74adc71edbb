//! One page of a directory listing, sorted: directories first, then by name. Memory holds one page however long the
//! directory is.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::super::error::{ConsoleError, Result};
use crate::tree::{DirectoryListing, Entry};

/// Sort key of an entry: directories before files, then by name ignoring ASCII case, then by bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EntrySortKey {
    is_file: bool,
    lowercase_name: Vec<u8>,
    name: Vec<u8>,
}

impl EntrySortKey {
    fn new(is_file: bool, name: Vec<u8>) -> Self {
        Self { is_file, lowercase_name: name.to_ascii_lowercase(), name }
    }
}

/// Position at which a page starts.
#[derive(Clone, Debug)]
pub(super) enum PageStart {
    /// At the first entry.
    Beginning,
    /// After this entry.
    After(EntrySortKey),
    /// With the entries that end just before this one.
    Before(EntrySortKey),
}

/// One page of a directory listing.
#[derive(Debug)]
pub(super) struct EntryPage {
    /// Entries of the page, sorted.
    pub(super) entries: Vec<Entry>,
    /// Number of matching entries on all pages.
    pub(super) total: usize,
    /// Whether there is a page before this one.
    pub(super) has_previous: bool,
    /// Whether there is a page after this one.
    pub(super) has_next: bool,
}

impl EntryPage {
    /// Reads a listing to its end and keeps one page of the entries whose name contains `find`, ignoring case.
    ///
    /// # Errors
    /// [`ConsoleError::Tree`] when the directory can't be read.
    pub(super) fn from_listing(
        listing: DirectoryListing,
        start: &PageStart,
        find: &str,
        page_size: usize,
    ) -> Result<Self> {
        let find = find.to_lowercase();
        let mut entries_by_key: BTreeMap<EntrySortKey, Entry> = BTreeMap::new();
        let (mut total, mut has_previous, mut has_next) = (0, false, false);
        for entry in listing {
            let entry = entry?;
            if !find.is_empty() && !String::from_utf8_lossy(&entry.name).to_lowercase().contains(&find) {
                continue;
            }
            total += 1;
            let key = sort_key(&entry);
            match start {
                PageStart::After(after) if key <= *after => has_previous = true,
                PageStart::Before(before) if key >= *before => has_next = true,
                PageStart::Beginning | PageStart::After(_) | PageStart::Before(_) => {
                    entries_by_key.insert(key, entry);
                }
            }
            // One entry too many tells that there is a further page; the one farthest from the cursor goes.
            if entries_by_key.len() > page_size {
                match start {
                    // Backwards, the page consists of the last entries before the cursor.
                    PageStart::Before(_) => (has_previous, _) = (true, entries_by_key.pop_first()),
                    PageStart::Beginning | PageStart::After(_) => (has_next, _) = (true, entries_by_key.pop_last()),
                }
            }
        }
        Ok(Self { entries: entries_by_key.into_values().collect(), total, has_previous, has_next })
    }
}

fn sort_key(entry: &Entry) -> EntrySortKey {
    EntrySortKey::new(!entry.is_directory(), entry.name.clone())
}

/// Encodes the sort key of an entry for a URL.
pub(super) fn write_cursor(entry: &Entry) -> String {
    let kind = if entry.is_directory() { 'd' } else { 'f' };
    format!("{kind}{}", URL_SAFE_NO_PAD.encode(&entry.name))
}

/// Decodes a cursor of [`write_cursor`].
///
/// # Errors
/// [`ConsoleError::NotFound`].
pub(super) fn parse_cursor(cursor: &str) -> Result<EntrySortKey> {
    let (is_file, rest) = match cursor.split_at_checked(1) {
        Some(("d", rest)) => (false, rest),
        Some(("f", rest)) => (true, rest),
        _ => return Err(ConsoleError::NotFound),
    };
    Ok(EntrySortKey::new(is_file, URL_SAFE_NO_PAD.decode(rest).map_err(|_| ConsoleError::NotFound)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_sort_before_files_and_case_breaks_ties() {
        let key = |is_file, name: &str| EntrySortKey::new(is_file, name.as_bytes().to_vec());
        let sorted = [key(false, "b"), key(false, "Z"), key(true, "A"), key(true, "a"), key(true, "B")];
        assert!(sorted.is_sorted());
    }

    #[test]
    fn malformed_cursor_is_refused() {
        for text in ["", "x", "d*", "fYQ=", "ä"] {
            assert!(parse_cursor(text).is_err(), "{text}");
        }
        assert_eq!(parse_cursor("fYQ").ok(), Some(EntrySortKey::new(true, b"a".to_vec())));
    }
}
