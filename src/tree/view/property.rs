//! Dead properties and node ids as one session may see and change them.

use std::collections::HashMap;

use super::View;
use crate::domain::{EntryName, FileTag, Permission, TreeOperation, TreePath};
use crate::tree::check::{Found, Spot};
use crate::tree::host::{File, How, Stat};
use crate::tree::label::{label, tags_of, tags_property};
use crate::tree::{Attributes, Claim, Entry, Error, Kind, Property, PropertyChange, Result};

impl View {
    /// Returns the dead properties of an entry that the session may read.
    pub fn properties(&self, path: &TreePath) -> Result<Vec<Property>> {
        let found = self.open(path, Permission::R, How::Place)?;
        self.shared().index.properties(&found.path)
    }

    /// Returns the dead properties of all entries of a folder that have some, in one read.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when that is more than 16 MiB: ask for each entry then.
    pub fn properties_in(&self, folder: &TreePath) -> Result<HashMap<EntryName, Vec<Property>>> {
        let found = self.open(folder, Permission::R, How::Folder)?;
        self.shared().index.properties_in(&found.path)
    }

    /// Keeps the checksum of a file's content as `entry` shows it; it is lost when the content changes. What the
    /// session may not read has none.
    pub fn keep_checksum(&self, entry: &Entry, checksum: &str) -> Result<()> {
        match entry.etag {
            Some(etag) => Ok(self.shared().index.store().put_checksum(&etag.bytes(), checksum)?),
            None => Ok(()),
        }
    }

    /// Returns the checksum of a file's content as `entry` shows it, where one was given for it.
    pub fn checksum(&self, entry: &Entry) -> Result<Option<String>> {
        match entry.etag {
            Some(etag) => Ok(self.shared().index.store().checksum(&etag.bytes())?),
            None => Ok(None),
        }
    }

    /// Changes dead properties and attributes together: all or nothing, and on disk where durability asks for it.
    ///
    /// # Errors
    /// [`Error::NoSpace`] when a value has more than 64 KiB, or the entry would have more
    /// than 1000 properties or 1 MiB of them; [`Error::WrongTag`].
    pub fn set_properties(
        &self,
        path: &TreePath,
        changes: &[PropertyChange],
        attributes: &Attributes,
        claim: &Claim<'_>,
    ) -> Result<()> {
        let file = self.change_together(path, changes, attributes, claim)?;
        // Not under the locks: its content goes to disk with it, which may take long.
        if self.is_full() && *attributes != Attributes::default() {
            file.sync_place()?;
        }
        Ok(())
    }

    /// As [`View::set_properties`], with attributes on disk when the host likes; returns what they were set of.
    pub(super) fn change_together(
        &self,
        path: &TreePath,
        changes: &[PropertyChange],
        attributes: &Attributes,
        claim: &Claim<'_>,
    ) -> Result<File> {
        self.with_changeable(path, changes, attributes, claim, |found| {
            let (index, writer) = (&self.shared().index, self.session().login());
            index.change_properties(&found.path, writer, changes, || self.apply(&found, attributes))?;
            Ok(found.file)
        })
    }

    /// Lets dead properties and attributes be changed, and changes nothing: for a change that has a fault of its own,
    /// which whoever may not make it does not hear of.
    ///
    /// # Errors
    /// As [`View::set_properties`], but for what the disk or the store says.
    pub fn may_set_properties(
        &self,
        path: &TreePath,
        changes: &[PropertyChange],
        attributes: &Attributes,
        claim: &Claim<'_>,
    ) -> Result<()> {
        self.with_changeable(path, changes, attributes, claim, |_| Ok(()))
    }

    /// Runs a change of an entry's properties while its rights, locks and conditions allow it.
    fn with_changeable<T>(
        &self,
        path: &TreePath,
        changes: &[PropertyChange],
        attributes: &Attributes,
        claim: &Claim<'_>,
        change: impl FnOnce(Found) -> Result<T>,
    ) -> Result<T> {
        let place = self.open_for(TreeOperation::Write, path, How::Place)?.path;
        self.may_change(changes)?;
        let _held = self.shared().names.hold(&[&place]);
        (claim.judge)()?;
        let found = self.open(&place, Permission::W, How::Place)?;
        let _steady = self.shared().locks.steady();
        self.unlocked(&found.path, claim.tokens)?;
        if found.stat.kind == Some(Kind::File) && found.stat.links > 1 && *attributes != Attributes::default() {
            self.unlocked_links(&found.stat, &found.path, claim.tokens)?;
        }
        change(found)
    }

    /// Puts a file at a spot, labelled with these tags and no others: both, or neither.
    ///
    /// # Errors
    /// [`Error::WrongTag`], [`Error::NoSpace`] as for [`View::set_properties`], and what `put` says.
    pub(in crate::tree) fn put_labelled(
        &self,
        spot: &Spot,
        replaced: Option<&Stat>,
        tags: &[FileTag],
        put: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        self.may_label(tags)?;
        let (index, change) = (&self.shared().index, [label(tags)]);
        if replaced.is_some_and(|stat| stat.kind == Some(Kind::File)) {
            return index.change_properties(&spot.path, self.session().login(), &change, put);
        }
        // What is not there yet has no node to be labelled.
        put()?;
        index.change_properties(&spot.path, self.session().login(), &change, || Ok(())).inspect_err(|_| {
            if let Err(error) = spot.folder.unlink(&spot.name) {
                tracing::warn!(path = %spot.path, %error, "a file that could not be labelled is left");
            }
        })
    }

    /// Lets what is at a path (and below it, where `deep`) be copied with its tags.
    ///
    /// # Errors
    /// [`Error::WrongTag`].
    pub(in crate::tree) fn may_copy_tags(&self, path: &TreePath, deep: bool) -> Result<()> {
        if !self.limits_tags() {
            return Ok(());
        }
        for tags in self.shared().index.tags(path, deep)? {
            self.may_label(&tags)?;
        }
        Ok(())
    }

    /// Lets properties be changed as far as the tags go that the session is limited to.
    pub(in crate::tree) fn may_change(&self, changes: &[PropertyChange]) -> Result<()> {
        for change in changes {
            if let PropertyChange::Set(Property { name, value }) = change
                && *name == tags_property()
            {
                self.may_label(&tags_of(value).ok_or(Error::Unsupported)?)?;
            }
        }
        Ok(())
    }
}
