//! The key that was meant where one is unknown: one that was renamed, or one that was mistyped.

use strsim::levenshtein;

use super::settings::CONFIG_KEYS;

/// A key that had another name once.
#[derive(Debug)]
pub struct RenamedKey {
    /// Its former name in the file.
    pub old: &'static str,
    /// Its former flag, without the hyphens in front.
    pub old_flag: &'static str,
    /// Its name now.
    pub new: &'static str,
}

/// All keys that were renamed.
pub const RENAMED_KEYS: &[RenamedKey] = &[
    RenamedKey { old: "strangers", old_flag: "strangers", new: "unauthenticated_connections" },
    RenamedKey {
        old: "strangers_per_address",
        old_flag: "strangers-per-address",
        new: "unauthenticated_connections_per_address",
    },
    RenamedKey { old: "deep_listing", old_flag: "deep-listing", new: "propfind_infinity_entries" },
    RenamedKey { old: "unfinished_uploads", old_flag: "unfinished-uploads", new: "unfinished_upload_space" },
];

/// Returns the fault of a key that has another name now. Where it counted for nothing, a bound would be lost in silence.
pub(super) fn renamed(name: &str) -> Option<String> {
    let RenamedKey { old, new, .. } = RENAMED_KEYS.iter().find(|key| key.old == name)?;
    Some(format!("{old} is called {new} now"))
}

/// Returns the fault of a key that does not exist, with the key that was probably meant.
pub(super) fn unknown_key_message(name: &str) -> String {
    if let Some(fault) = renamed(name) {
        return fault;
    }
    let near = CONFIG_KEYS.iter().map(|key| (levenshtein(name, key.name), key.name)).min();
    match near {
        Some((steps, key)) if steps <= 1 + key.len() / 4 => format!("unknown key {name:?}, did you mean {key}?"),
        _ => format!("unknown key {name:?}"),
    }
}
