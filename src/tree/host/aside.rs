//! Replacing where the host can't exchange two entries: what stands there is taken aside first, with a note of
//! where it was. The next sweep puts it back unless something came in its place.

use std::sync::Arc;

use super::open::{How, plain};
use super::staging::names;
use super::{Errno, Folder, Result, Staged, Staging};
use crate::domain::{Name, TreePath};

/// What the name of a note ends in; before that stands the name of what was taken aside.
const NOTE: &[u8] = b".back";

impl Staging {
    /// Takes aside what stands at a name of a folder, which is at `place`, and lets `put` put something there.
    /// Returns what stood there; it is back where it was when `put` fails.
    pub(crate) fn replace(
        self: &Arc<Self>,
        folder: &Folder,
        name: &Name,
        place: &TreePath,
        put: impl FnOnce() -> Result<()>,
    ) -> Result<Staged> {
        let old = self.slot()?;
        let note = Name::new(&[old.place().1.as_bytes(), NOTE].concat()).map_err(|_| Errno::INVAL)?;
        let below = place.below(self.top()).ok_or(Errno::XDEV)?;
        self.folder().symlink(below.as_bytes(), &note)?;
        let done = old.take(folder, name).and_then(|old| match put() {
            Ok(()) => Ok(old),
            Err(error) => old.give_back(folder, name).and(Err(error)),
        });
        self.folder().unlink(&note)?;
        done
    }

    /// Puts back what was taken aside and not replaced. `holder` is the folder that holds the staging.
    pub(super) fn bring_back(&self, holder: &Folder) -> Result<()> {
        for note in names(&plain(self.folder(), b"", How::List)?)? {
            let Some(old) = note.strip_suffix(NOTE) else { continue };
            let (Ok(old), Ok(note)) = (Name::new(old), Name::new(&note)) else { continue };
            let place = self.folder().read_link(&note)?;
            let Some((parent, name)) = TreePath::parse(&place).ok().and_then(|place| place.split()) else { continue };
            let folder = if parent.is_root() { Ok(holder.clone()) } else { holder.folder(&parent) };
            match folder.and_then(|folder| self.folder().rename_new(&old, &folder, &name)) {
                Ok(()) | Err(Errno::EXIST | Errno::NOENT) => {}
                Err(error) => tracing::warn!(%error, "what was to be replaced can't be put back"),
            }
        }
        Ok(())
    }
}
