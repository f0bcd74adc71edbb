//! Removal of the source of a move to another file system: of what its copy has, and of nothing else.
//!
//! A rename by another process that has looked its target directory up before the source was moved into staging still
//! ends in it, also after the source was compared with its copy for the last time. What came so has no copy.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::View;
use crate::domain::{EntryName, TreePath};
use crate::tree::authorize::EntrySlot;
use crate::tree::fs::{DirectoryFd, Errno, StagedEntry, Stat};

/// Names under which late arrivals may be put back where the name of the source is taken again.
const MAX_RESTORE_NAMES: u32 = 100;

/// Entries below the source that its copy has too, by path and inode.
#[derive(Default)]
pub(super) struct CopiedEntries(Vec<u64>);

impl CopiedEntries {
    /// Adds an entry.
    pub(super) fn add(&mut self, path: &TreePath, stat: &Stat) {
        self.0.push(hash_of(path, stat));
    }

    /// Makes the entries ready to be looked up.
    pub(super) fn sorted(mut self) -> Self {
        self.0.sort_unstable();
        self
    }

    fn contains(&self, path: &TreePath, stat: &Stat) -> bool {
        self.0.binary_search(&hash_of(path, stat)).is_ok()
    }
}

/// Returns a hash of path and inode; eight bytes an entry, since a directory may have millions.
fn hash_of(path: &TreePath, stat: &Stat) -> u64 {
    let mut hasher = DefaultHasher::new();
    (path.as_bytes(), stat.inode).hash(&mut hasher);
    hasher.finish()
}

impl View {
    /// Removes a moved entry from staging. Where something arrived in it that was not copied, that goes back to the path
    /// of the source, with the directories that hold it.
    pub(super) fn remove_moved_source(&self, mut staged: StagedEntry, copied: &CopiedEntries, source: &EntrySlot) {
        let (staging, name) = staged.directory_and_name();
        let is_directory = staged.stat().is_ok_and(|stat| stat.is_directory());
        if !is_directory {
            self.shared().background_deletes.enqueue(staged);
            return;
        }
        let outcome = staging.open_directory(&TreePath::root().child(name)).and_then(|top| {
            remove_copied(&top, copied)?;
            match staging.remove_directory(name) {
                Ok(()) => Ok(SourceRest::None),
                Err(_) if has_late_arrivals(&top, copied)? => Ok(SourceRest::LateArrivals),
                // In a directory that denies its owner to write: removal in the background can grant it.
                Err(_) => Ok(SourceRest::Copied),
            }
        });
        match outcome {
            Ok(SourceRest::None) => staged.persist(),
            Ok(SourceRest::Copied) => self.shared().background_deletes.enqueue(staged),
            // What can't be read is not removed unseen.
            Ok(SourceRest::LateArrivals) | Err(_) => match restore(&mut staged, source) {
                Ok(name) => tracing::warn!(
                    path = %source.directory_path().child(&name),
                    "entries came into a directory while it was moved to another file system: they stay here"
                ),
                Err(error) => {
                    tracing::error!(path = %source.path, %error, "entries that came into a moved directory are in staging");
                    staged.persist();
                }
            },
        }
    }
}

/// What is left of a source after the removal of what was copied.
enum SourceRest {
    None,
    Copied,
    LateArrivals,
}

/// Removes entries that were copied, as far as that is possible.
fn remove_copied(top: &DirectoryFd, copied: &CopiedEntries) -> Result<(), Errno> {
    let mut directories = Vec::new();
    top.walk(
        || Ok(()),
        |parent, parent_path, name, stat| {
            let path = parent_path.child(name);
            if !copied.contains(&path, stat) {
                return Ok(());
            }
            match stat.is_directory() {
                true => directories.push(path),
                // An error is seen by the removal of the directory that holds it.
                false => drop(parent.unlink(name)),
            }
            Ok::<_, Errno>(())
        },
    )?;
    // Those below come behind those above. Removal takes empty directories alone, and no rename ends in a removed one.
    for path in directories.iter().rev() {
        if let Some((parent, name)) = path.split_last() {
            let _ = top.open_directory(&parent).and_then(|parent| parent.remove_directory(&name));
        }
    }
    Ok(())
}

fn has_late_arrivals(top: &DirectoryFd, copied: &CopiedEntries) -> Result<bool, Errno> {
    let mut found = false;
    top.walk(
        || Ok(()),
        |_, parent_path, name, stat| {
            found |= !copied.contains(&parent_path.child(name), stat);
            Ok::<_, Errno>(())
        },
    )?;
    Ok(found)
}

/// Moves what is left back to the name of the source, or to that with a number where it is taken again.
fn restore(staged: &mut StagedEntry, source: &EntrySlot) -> Result<EntryName, Errno> {
    let mut outcome = staged.rename_to_new(&source.directory, &source.name).map(|()| source.name.clone());
    for number in 1..=MAX_RESTORE_NAMES {
        if !matches!(outcome, Err(Errno::EXIST)) {
            break;
        }
        let text = [source.name.as_bytes(), format!(" ({number})").as_bytes()].concat();
        let name = EntryName::new(&text).map_err(|_| Errno::NAMETOOLONG)?;
        outcome = staged.rename_to_new(&source.directory, &name).map(|()| name);
    }
    outcome
}
