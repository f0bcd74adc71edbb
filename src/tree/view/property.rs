//! Dead properties and node ids as one session may see and change them.

use std::collections::HashMap;

use super::View;
use crate::domain::{Name, Permission, TreePath};
use crate::tree::host::How;
use crate::tree::{Attributes, Claim, Property, PropertyChange, Result};

impl View {
    /// Returns the dead properties of an entry that the session may read.
    pub fn properties(&self, path: &TreePath) -> Result<Vec<Property>> {
        let found = self.open(path, Permission::R, How::Place)?;
        self.shared().index.properties(&found.path)
    }

    /// Returns the dead properties of all entries of a folder that have some, in one read.
    ///
    /// # Errors
    /// [`crate::tree::Error::Unsupported`] when that is more than 16 MiB: ask for each entry then.
    pub fn properties_in(&self, folder: &TreePath) -> Result<HashMap<Name, Vec<Property>>> {
        let found = self.open(folder, Permission::R, How::Folder)?;
        self.shared().index.properties_in(&found.path)
    }

    /// Changes dead properties and attributes together: all or nothing.
    ///
    /// # Errors
    /// [`crate::tree::Error::NoSpace`] when a value has more than 64 KiB, or the entry would have more
    /// than 1000 properties or 1 MiB of them.
    pub fn set_properties(
        &self,
        path: &TreePath,
        changes: &[PropertyChange],
        attributes: &Attributes,
        claim: &Claim<'_>,
    ) -> Result<()> {
        let place = self.open(path, Permission::W, How::Place)?.path;
        let _held = self.shared().names.hold(&[&place]);
        (claim.judge)()?;
        let found = self.open(&place, Permission::W, How::Place)?;
        let _steady = self.shared().locks.steady();
        self.unlocked(&found.path, claim.tokens)?;
        self.shared().index.change_properties(&found.path, changes, || self.apply(&found, attributes))
    }
}
