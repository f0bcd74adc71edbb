//! A state directory that a command creates: it is removed again if the command fails.

use std::fs;
use std::path::{Path, PathBuf};

/// Files of a state directory that no server has used.
const STATE_FILES: [&str; 7] =
    ["patgate.db", "patgate.db-wal", "patgate.db-shm", "patgate.epoch", "patgate.ballast", "pepper", "serve.lock"];

/// Prefix of the names of SSH host keys.
const HOST_KEY_PREFIX: &str = "ssh_host_";

/// A state directory before a command initializes it.
#[derive(Debug)]
pub(super) struct FreshState {
    directory: PathBuf,
    /// Topmost missing parent, which initialization creates as well.
    topmost_created: Option<PathBuf>,
}

impl FreshState {
    /// Inspects a state directory; returns `None` if it has been initialized already.
    pub(super) fn detect(directory: &Path) -> Option<Self> {
        let is_state = |name: &str| STATE_FILES.contains(&name) || name.starts_with(HOST_KEY_PREFIX);
        let mut entries = fs::read_dir(directory).into_iter().flatten().flatten();
        if entries.any(|entry| entry.file_name().to_str().is_some_and(is_state)) {
            return None;
        }
        let missing = directory.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists());
        Some(Self { directory: directory.to_owned(), topmost_created: missing.last().map(Path::to_owned) })
    }

    /// Returns the topmost directory that initialization creates.
    pub(super) fn topmost_created(&self) -> Option<&Path> {
        self.topmost_created.as_deref()
    }

    /// Removes all files that were created since. Spares files that existed before, and a state that a server uses.
    pub(super) fn discard(self) {
        let names = fs::read_dir(&self.directory).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let names: Vec<_> = names.collect();
        // A server uses the state, as its socket shows: nothing of it may be removed.
        if names.iter().any(|name| name.as_encoded_bytes().ends_with(b".sock")) {
            return;
        }
        for name in names {
            let text = name.to_string_lossy();
            if STATE_FILES.contains(&&*text) || text.starts_with(HOST_KEY_PREFIX) {
                // Errors are ignored: the command has failed already, and its own message is the one that matters.
                let _ = fs::remove_file(self.directory.join(&name));
            }
        }
        let Some(topmost) = self.topmost_created else { return };
        // `remove_dir` removes empty directories only, which is all that may go.
        for directory in self.directory.ancestors().take_while(|path| path.starts_with(&topmost)) {
            if fs::remove_dir(directory).is_err() {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discard_removes_only_what_was_created() {
        let folder = tempfile::tempdir().expect("folder");
        let state = folder.path().join("a/b/state");
        let fresh = FreshState::detect(&state).expect("nothing is there");
        fs::create_dir_all(&state).expect("made");
        fs::write(state.join("patgate.db"), "x").expect("made");
        assert!(FreshState::detect(&state).is_none());
        fresh.discard();
        assert!(folder.path().exists() && !folder.path().join("a").exists());

        fs::create_dir_all(&state).expect("made");
        fs::write(state.join("notes"), "x").expect("made");
        let fresh = FreshState::detect(&state).expect("no state is there");
        fs::write(state.join("pepper"), "x").expect("made");
        fresh.discard();
        assert!(state.join("notes").exists() && !state.join("pepper").exists());
    }
}
