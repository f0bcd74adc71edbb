//! What the index has the host do: look, and end what was cut off.

use std::sync::Arc;

use super::host::{Folder, Host};
use super::index::{Facts, Hands};
use super::removals::Removals;
use super::{Error, Result};
use crate::domain::{EntryName, TreePath};

/// The hands that reach the served folder.
pub(super) struct HostHands {
    host: Arc<Host>,
    removals: Removals,
}

impl HostHands {
    /// Lends hands to a host.
    pub(super) fn new(host: Arc<Host>, removals: Removals) -> Self {
        Self { host, removals }
    }

    fn place(&self, path: &TreePath) -> Result<(Folder, EntryName)> {
        let (parent, name) = path.split_last().ok_or(Error::Forbidden)?;
        Ok((self.host.folder(&parent)?, name))
    }
}

impl Hands for HostHands {
    fn ask(&self, path: &TreePath) -> Result<Facts> {
        self.host.available()?;
        let stat = self.host.stat(path)?;
        let kind = stat.kind.ok_or(Error::Absent)?;
        Ok(Facts { kind, inode: stat.inode, born: stat.born() })
    }

    fn changed_since(&self, path: &TreePath, instant: i64) -> Result<bool> {
        self.host.verify_below(path)?;
        let (folder, name) = self.place(path)?;
        let top = folder.stat_entry(&name)?;
        if !top.is_folder() {
            return Ok(top.changed_since(instant));
        }
        // It may have been taken aside and put back, which changes it.
        let mut changed = top.modified_since(instant);
        folder.folder(&TreePath::root().child(&name))?.each_below(
            || Ok::<(), Error>(()),
            |_, _, _, stat| {
                changed |= stat.changed_since(instant);
                Ok(())
            },
        )?;
        Ok(changed)
    }

    fn clear(&self, path: &TreePath) -> Result<()> {
        self.host.verify_below(path)?;
        let (folder, name) = self.place(path)?;
        let staged = self.host.staging(&folder, folder.stat()?.mount())?.take(&folder, &name)?;
        folder.sync()?;
        self.removals.begin(staged);
        Ok(())
    }
}
