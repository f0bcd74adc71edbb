//! The key that was meant where one was mistyped.

use super::KEYS;

/// Returns the fault of a key that does not exist, with the key that was probably meant.
pub(super) fn unknown(name: &str) -> String {
    let near = KEYS.iter().map(|key| (distance(name, key.name), key.name)).min();
    match near {
        Some((steps, key)) if steps <= 1 + key.len() / 4 => format!("unknown key {name:?}, did you mean {key}?"),
        _ => format!("unknown key {name:?}"),
    }
}

/// Counts the characters to add, drop or change between two names (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut corner = i;
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
        for (j, b) in other.chars().enumerate() {
            let changed = corner + usize::from(a != b);
            corner = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(corner + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}
