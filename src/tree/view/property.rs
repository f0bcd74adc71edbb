//! Dead properties (RFC 4918 section 4), checksums and tags as one session may see and change them.

use super::View;
use crate::domain::{FileTag, Permission, TreeOperation, TreePath};
use crate::tree::authorize::{EntrySlot, OpenEntry};
use crate::tree::fs::{FileFd, OpenMode, Stat};
use crate::tree::tags::{parse_tags, set_tags_change, tags_property};
use crate::tree::{AttributeChanges, DeadProperty, Entry, EntryKind, Error, PropertyChange, Result, WriteConditions};

impl View {
    /// Returns the dead properties of an entry that the session may read.
    pub fn properties(&self, path: &TreePath) -> Result<Vec<DeadProperty>> {
        self.resolve(path)?.properties()
    }

    /// Stores the checksum of a file's content, of which `entry` is the metadata; it is lost when the content changes.
    /// An entry that the session may not read has no entity tag, and nothing is stored.
    pub fn keep_checksum(&self, entry: &Entry, checksum: &str) -> Result<()> {
        // Keyed by the entity tag, so that a checksum is lost with the content it is of.
        match entry.etag {
            Some(etag) => Ok(self.shared().index.store().put_checksum(&etag.to_bytes(), checksum)?),
            None => Ok(()),
        }
    }

    /// Returns the stored checksum of a file's content, of which `entry` is the metadata.
    pub fn checksum(&self, entry: &Entry) -> Result<Option<String>> {
        match entry.etag {
            Some(etag) => Ok(self.shared().index.store().checksum(&etag.to_bytes())?),
            None => Ok(None),
        }
    }

    /// Changes dead properties and attributes together: all or none, and on disk where durability demands it.
    ///
    /// # Errors
    /// [`Error::NoSpace`] when a value has more than 64 KiB, or the entry would have more
    /// than 1000 properties or 1 MiB of them; [`Error::TagNotAllowed`].
    pub fn set_properties(
        &self,
        path: &TreePath,
        changes: &[PropertyChange],
        attributes: &AttributeChanges,
        conditions: &WriteConditions<'_>,
    ) -> Result<()> {
        let found = self.open_authorized(TreeOperation::Write, path, OpenMode::Path)?;
        self.set_properties_at(&found.path, changes, attributes, conditions)
    }

    /// Changes properties and attributes as [`View::set_properties`] does, of an entry that was authorized already, by
    /// its canonical path.
    pub(super) fn set_properties_at(
        &self,
        canonical_path: &TreePath,
        changes: &[PropertyChange],
        attributes: &AttributeChanges,
        conditions: &WriteConditions<'_>,
    ) -> Result<()> {
        let file = self.change_properties_and_attributes(canonical_path, changes, attributes, conditions)?;
        // After the locks are released: the file's content is synced with it, which may take long.
        if self.is_synced() && *attributes != AttributeChanges::default() {
            file.reopen_and_sync()?;
        }
        Ok(())
    }

    /// Changes properties and attributes as [`View::set_properties`] does, but does not sync the attributes. Returns
    /// the file, to be synced. The entry was authorized already.
    pub(super) fn change_properties_and_attributes(
        &self,
        canonical_path: &TreePath,
        changes: &[PropertyChange],
        attributes: &AttributeChanges,
        conditions: &WriteConditions<'_>,
    ) -> Result<FileFd> {
        self.with_property_target(canonical_path, changes, attributes, conditions, |found| {
            let (index, writer) = (&self.shared().index, self.session().login());
            // The attributes are set within the store's transaction: it is rolled back where that fails.
            index.change_properties(&found.path, writer, changes, || self.apply_attributes(&found, attributes))?;
            Ok(found.file)
        })
    }

    /// Checks that dead properties and attributes may be changed, and changes nothing. For a request that is invalid
    /// for another reason: a session without the permission must get the refusal, not that reason.
    ///
    /// # Errors
    /// As [`View::set_properties`], without errors of the disk and the store.
    pub(super) fn check_set_properties_at(
        &self,
        canonical_path: &TreePath,
        changes: &[PropertyChange],
        attributes: &AttributeChanges,
        conditions: &WriteConditions<'_>,
    ) -> Result<()> {
        self.with_property_target(canonical_path, changes, attributes, conditions, |_| Ok(()))
    }

    /// Runs a change of the properties of an entry that was authorized already, under the commit lock and after
    /// permissions, locks and conditions were checked.
    fn with_property_target<T>(
        &self,
        canonical_path: &TreePath,
        changes: &[PropertyChange],
        attributes: &AttributeChanges,
        conditions: &WriteConditions<'_>,
        change: impl FnOnce(OpenEntry) -> Result<T>,
    ) -> Result<T> {
        // After the permission: a client without `w` learns nothing of the allowed tags.
        self.check_changed_tags(changes)?;
        let _path_guard = self.shared().path_locks.lock(&[canonical_path]);
        (conditions.evaluate)()?;
        // Opened again under the commit lock: another entry may have the name by now.
        let found = self.open_entry(canonical_path, Permission::W, OpenMode::Path)?;
        let _lock_freeze = self.shared().locks.freeze();
        self.check_locks(&found.path, conditions.lock_tokens)?;
        // Attributes belong to the inode, and so to each of its names; dead properties belong to one name.
        if found.stat.kind == Some(EntryKind::File)
            && found.stat.link_count > 1
            && *attributes != AttributeChanges::default()
        {
            self.check_hard_link_locks(&found.stat, &found.path, conditions.lock_tokens)?;
        }
        change(found)
    }

    /// Puts a file at a slot with exactly these tags: both, or neither.
    ///
    /// # Errors
    /// [`Error::TagNotAllowed`], [`Error::NoSpace`] as for [`View::set_properties`], and the errors of `put`.
    pub(in crate::tree) fn put_with_tags(
        &self,
        slot: &EntrySlot,
        replaced: Option<&Stat>,
        tags: &[FileTag],
        put: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        self.check_tags(tags)?;
        let (index, change) = (&self.shared().index, [set_tags_change(tags)]);
        if replaced.is_some_and(|stat| stat.kind == Some(EntryKind::File)) {
            // The rename runs within the transaction: it is rolled back where that fails, and the old tags stay.
            return index.change_properties(&slot.path, self.session().login(), &change, put);
        }
        // A file that does not exist yet has no node that could have tags.
        put()?;
        index.change_properties(&slot.path, self.session().login(), &change, || Ok(())).inspect_err(|_| {
            if let Err(error) = slot.directory.unlink(&slot.name) {
                tracing::warn!(path = %slot.path, %error, "a file whose tags could not be set can't be removed");
            }
        })
    }

    /// Checks that the tags of an entry (and of those below it, where `depth_infinity`) may be copied.
    ///
    /// # Errors
    /// [`Error::TagNotAllowed`].
    pub(in crate::tree) fn check_copied_tags(&self, path: &TreePath, depth_infinity: bool) -> Result<()> {
        if !self.limits_tags() {
            return Ok(());
        }
        // A copy would give content a tag that the token may not set itself.
        for tags in self.shared().index.tags_in(path, depth_infinity)? {
            self.check_tags(&tags)?;
        }
        Ok(())
    }

    /// Checks the tags among changed properties against the tags that the token allows.
    pub(in crate::tree) fn check_changed_tags(&self, changes: &[PropertyChange]) -> Result<()> {
        for change in changes {
            if let PropertyChange::Set(DeadProperty { name, value }) = change
                && *name == tags_property()
            {
                // A value that can't be parsed could hide a tag from this check, and is refused.
                self.check_tags(&parse_tags(value).ok_or(Error::Unsupported)?)?;
            }
        }
        Ok(())
    }
}
