//! Replacing where the host can't exchange two entries: what stands there is taken aside first, with a note of
//! where it was. The next sweep puts it back unless something came in its place.

use std::collections::HashSet;
use std::sync::Arc;

use super::open::{How, plain};
use super::staging::names;
use super::{Errno, Folder, Result, Staged, Staging};
use crate::domain::{EntryName, TreePath};

/// What the name of a note ends in; before that stands the name of what was taken aside.
const NOTE: &[u8] = b".back";

/// What was taken aside, with a note of where it was: the next sweep puts it back there unless it is let go before.
#[derive(Debug)]
pub(crate) struct Aside {
    staged: Staged,
    note: EntryName,
}

impl Aside {
    /// Returns the staging folder and the name in it, to reach what waits there.
    pub(crate) fn place(&self) -> (&Folder, &EntryName) {
        self.staged.place()
    }

    /// Lets it go: nobody wants it back.
    pub(crate) fn let_go(self) -> Staged {
        let Self { mut staged, note } = self;
        staged.waits = true;
        if let Err(error) = staged.place().0.unlink(&note) {
            tracing::warn!(%error, "a note of something replaced stays in staging until the next start");
        }
        staged
    }

    /// Moves it back to where it was. Where that fails it stays with its note.
    pub(crate) fn put_back(self, folder: &Folder, name: &EntryName) -> Result<()> {
        let staging = self.staged.place().0.clone();
        self.staged.give_back(folder, name)?;
        staging.unlink(&self.note)
    }
}

impl Staging {
    /// Takes aside what stands at a name of a folder, which is at `place`.
    pub(crate) fn set_aside(self: &Arc<Self>, folder: &Folder, name: &EntryName, place: &TreePath) -> Result<Aside> {
        let slot = self.slot()?;
        let note = EntryName::new(&[slot.place().1.as_bytes(), NOTE].concat()).map_err(|_| Errno::INVAL)?;
        let below = place.strip_prefix(self.top()).ok_or(Errno::XDEV)?;
        self.folder().symlink(below.as_bytes(), &note)?;
        match slot.take(folder, name) {
            Ok(mut staged) => {
                staged.waits = false;
                Ok(Aside { staged, note })
            }
            Err(error) => {
                self.folder().unlink(&note)?;
                Err(error)
            }
        }
    }

    /// Takes aside what stands at a name of a folder, which is at `place`, and lets `put` put something there.
    /// Returns what stood there; it is back where it was when `put` fails.
    pub(crate) fn replace(
        self: &Arc<Self>,
        folder: &Folder,
        name: &EntryName,
        place: &TreePath,
        put: impl FnOnce() -> Result<()>,
    ) -> Result<Staged> {
        let old = self.set_aside(folder, name, place)?;
        match put() {
            Ok(()) => Ok(old.let_go()),
            Err(error) => {
                old.put_back(folder, name)?;
                Err(error)
            }
        }
    }

    /// Puts back what was taken aside and not replaced. `holder` is the folder that holds the staging. Returns the
    /// names in staging of what the host refuses to put back now, and of its notes: the next sweep tries again.
    pub(super) fn bring_back(&self, holder: &Folder) -> Result<HashSet<Vec<u8>>> {
        let mut stay = HashSet::new();
        for note in names(&plain(self.folder(), b"", How::List)?)? {
            let Some(old) = note.strip_suffix(NOTE) else { continue };
            let (Ok(old), Ok(note)) = (EntryName::new(old), EntryName::new(&note)) else { continue };
            let place = self.folder().read_link(&note)?;
            let Some((parent, name)) = TreePath::parse(&place).ok().and_then(|place| place.split_last()) else {
                continue;
            };
            let folder = if parent.is_root() { Ok(holder.clone()) } else { holder.folder(&parent) };
            match folder.and_then(|folder| self.folder().rename_new(&old, &folder, &name)) {
                Ok(()) | Err(Errno::EXIST | Errno::NOENT) => {}
                Err(error) => {
                    tracing::warn!(place = %String::from_utf8_lossy(&place), %error, "what stood here can't be put back");
                    stay.extend([old, note].map(|name| name.as_bytes().to_vec()));
                }
            }
        }
        Ok(stay)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::Host;
    use super::*;

    #[test]
    fn what_can_not_be_put_back_is_when_the_host_lets_it_at_a_later_start() {
        let folder = tempfile::tempdir().expect("a folder");
        let (holder, elsewhere) = (folder.path().join("d"), folder.path().join("e"));
        let (place, at) = (holder.join("a"), TreePath::parse(b"/d/a").expect("a path"));
        let open = || {
            let host = Host::open(folder.path(), Some(Box::new(|| Some(HashSet::new())))).expect("opened");
            host.claim().expect("claimed");
            host
        };
        fs::create_dir(&holder).expect("made");
        fs::write(&place, "old").expect("written");
        let host = open();
        let d = host.folder(&TreePath::parse(b"/d").expect("a path")).expect("there");
        let staging = host.staging(&d, d.stat().expect("there").mount()).expect("staging");
        let put = || {
            fs::write(&place, "in its way").expect("written");
            Err(Errno::IO)
        };
        let name = EntryName::new(b"a").expect("a name");
        assert!(staging.replace(&d, &name, &at, put).is_err());
        fs::remove_file(&place).expect("removed");
        fs::rename(&holder, &elsewhere).expect("renamed");
        fs::write(&holder, "no folder").expect("written");
        drop((d, staging, host));
        drop(open());
        fs::remove_file(&holder).expect("removed");
        fs::rename(&elsewhere, &holder).expect("renamed");
        open();
        assert_eq!(fs::read(&place).expect("there"), b"old");
    }
}
