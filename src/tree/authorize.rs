//! The authorization check: what a session may do at a path, and where the resolution of the path starts.
//!
//! A grant or scope counts only while its node is where it was recorded: for each request the file system is
//! asked for the inode and birth time of every granted and scoped directory above the path. A directory that
//! was swapped behind the gateway's back therefore grants nothing, and everything below it is absent.
//!
//! An authorized operation gets an open entry ([`OpenEntry`]) or an open directory with a name in it
//! ([`EntrySlot`]). Both are resolved beneath the topmost directory at which the operation is allowed, so that
//! the operation is allowed wherever a symbolic link leads. Nothing else reaches the file system.

mod cached_file;
mod entry_slot;

use std::sync::Arc;
use std::time::Instant;

use super::fs::{DirectoryFd, Errno, FileFd, OpenMode, ResolveMode, ServedFs, StagingDirectory, Stat};
use super::{EntryKind, Error, Result, View};
use crate::domain::{
    EffectiveGrant, NodeIdentity, PathAccess, Permission, ResolvedScope, TreeAccess, TreeOperation, TreePath,
};

pub use cached_file::CachedFile;
pub(super) use entry_slot::EntrySlot;

/// Maximum number of dangling symbolic links that are followed to where a file is created or staged; the kernel's own
/// limit.
pub(super) const MAX_SYMLINKS: usize = 40;

/// An open entry on which an operation is authorized.
pub(super) struct OpenEntry {
    /// Descriptor, in the mode that was requested.
    pub(super) file: FileFd,
    /// Metadata of the open file.
    pub(super) stat: Stat,
    /// Canonical path, without symbolic links.
    pub(super) path: TreePath,
    /// All permissions of the session on the entry.
    pub(super) permission: Permission,
}

/// The grants that give a session permissions at a path, each verified against the file system.
pub(super) struct PermissionSet {
    access: Arc<TreeAccess>,
    grants: VerifiedGrants,
}

/// Grants that cover one path, each verified against the file system.
struct VerifiedGrants(Vec<VerifiedGrant>);

struct VerifiedGrant {
    path: TreePath,
    permission: Permission,
    anchor: GrantAnchor,
}

enum GrantAnchor {
    /// The granted directory, and its metadata unless it is the root, whose identity is known while it is held open.
    Directory(DirectoryFd, Option<Stat>),
    /// The parent directory of the granted file.
    ParentDirectory(DirectoryFd),
}

impl View {
    /// Returns the staging directory from which a rename reaches a slot.
    pub(super) fn staging(&self, slot: &EntrySlot) -> Result<Arc<StagingDirectory>> {
        Ok(self.fs().staging(&slot.directory, slot.directory_stat.mount_key())?)
    }

    /// Returns the verified grants that cover a path.
    pub(super) fn permissions_at(&self, path: &TreePath) -> Result<PermissionSet> {
        // The session comes first: a revoked token is refused as such even while the tree is not served.
        let access = self.session().access()?;
        let grants = self.verify_grants(&access, path, ResolveMode::Blocking)?;
        Ok(PermissionSet { access, grants })
    }

    /// Verifies the grants of an access that cover a path.
    fn verify_grants(&self, access: &TreeAccess, path: &TreePath, resolve_mode: ResolveMode) -> Result<VerifiedGrants> {
        self.fs().check_available()?;
        let mut grants = Vec::new();
        // Verified for every request: a remembered result would go on serving a directory that was swapped since.
        for grant in access.grants_covering(path) {
            if let Some(anchor) = verify_grant(self.fs(), grant, resolve_mode)? {
                grants.push(VerifiedGrant { path: grant.path.clone(), permission: grant.permission, anchor });
            }
        }
        Ok(VerifiedGrants(grants))
    }

    /// Opens an entry for an operation; symbolic links are followed. A denial is recorded in the audit trail.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when the entry is visible but the operation is not allowed, [`Error::Absent`] otherwise.
    pub(super) fn open_authorized(
        &self,
        operation: TreeOperation,
        path: &TreePath,
        mode: OpenMode,
    ) -> Result<OpenEntry> {
        self.open_entry(path, operation.permission(), mode).inspect_err(|_| self.audit_denial(operation, path))
    }

    /// Records a refused operation in the audit trail if access rules denied it, and not because the entry is missing:
    /// the rule is evaluated again to tell the two apart. Walking a visible directory above a grant is no denial.
    pub(super) fn audit_denial(&self, operation: TreeOperation, path: &TreePath) {
        let is_read = matches!(operation, TreeOperation::Stat | TreeOperation::List | TreeOperation::Read);
        if let Ok(access) = self.session().access()
            && !(is_read && access.path_access(path) == PathAccess::Visible)
            && let Err(denial) = operation.authorize(&access, path)
        {
            self.session().record_denial(&format!("{operation}: {denial}"), Some(path));
        }
    }

    /// Opens an entry on which `needed` is allowed; symbolic links are followed.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when the entry is visible but the operation is not allowed, [`Error::Absent`] otherwise.
    pub(super) fn open_entry(&self, path: &TreePath, needed: Permission, mode: OpenMode) -> Result<OpenEntry> {
        let permissions = self.permissions_at(path)?;
        self.open_with_permissions(&permissions, path, needed, mode)
    }

    /// Opens an entry as [`View::open_entry`] does, with permissions that were looked up before.
    pub(super) fn open_with_permissions(
        &self,
        permissions: &PermissionSet,
        path: &TreePath,
        needed: Permission,
        mode: OpenMode,
    ) -> Result<OpenEntry> {
        let Some(grant) = permissions.topmost_grant(needed) else {
            return Err(self.absent_or_forbidden(permissions, path, None));
        };
        let (file, resolved_path) = match grant.open(self.fs(), path, mode) {
            Ok(opened) => opened,
            // Missing beneath this grant. Another, without `needed`, may still show the entry: then it is forbidden.
            Err(error) if is_missing(error) => {
                return Err(self.absent_or_forbidden(permissions, path, Some((grant, mode))));
            }
            Err(error) => return Err(error.into()),
        };
        let stat = file.stat()?;
        // Sockets, pipes and devices have no kind and are absent. A granted file is a regular file, or absent.
        let has_expected_kind = match grant.anchor {
            GrantAnchor::Directory(..) => stat.kind.is_some(),
            GrantAnchor::ParentDirectory(_) => stat.kind == Some(EntryKind::File),
        };
        if !has_expected_kind {
            return Err(Error::Absent);
        }
        let mut permission = permissions.permission();
        // Reached through a link: only what is allowed both at the link and at its target.
        if resolved_path != *path {
            permission = permission & self.permissions_at(&resolved_path)?.permission();
        }
        Ok(OpenEntry { file, stat, path: resolved_path, permission })
    }

    /// Returns the slot for creating an entry at a path.
    ///
    /// # Errors
    /// [`Error::NoParent`] when the parent directory is absent, [`Error::Forbidden`] when it is visible but may not
    /// be changed, or the path is the root.
    pub(super) fn create_slot(&self, path: &TreePath) -> Result<EntrySlot> {
        self.slot_for_operation(TreeOperation::Create, path)
            .inspect_err(|_| self.audit_denial(TreeOperation::Create, path))
    }

    fn slot_for_operation(&self, operation: TreeOperation, path: &TreePath) -> Result<EntrySlot> {
        self.slot_with_permission(path, operation.permission())
    }

    /// Returns the slot of a path if `needed` is allowed in its directory; [`Permission::NONE`] asks for any
    /// permission.
    pub(super) fn slot_with_permission(&self, path: &TreePath, needed: Permission) -> Result<EntrySlot> {
        let Some((parent, name)) = path.split_last() else { return Err(Error::Forbidden) };
        let permissions = self.permissions_at(&parent)?;
        let requested_parent = parent.clone();
        let (directory, directory_stat, parent, permission) = match permissions.open_directory_at(&parent, needed) {
            Some((directory, stat)) => {
                let stat = stat.map_or_else(|| directory.stat(), Ok)?;
                (directory, stat, parent, permissions.permission())
            }
            None => match self.open_slot_directory(&permissions, &parent, needed) {
                Ok(OpenEntry { file, stat, path, permission }) => (file.into(), stat, path, permission),
                // Not `Absent`: a PUT below a missing collection is 409 (RFC 4918 section 9.7.1), not 404.
                Err(Error::Absent) => return Err(Error::NoParent),
                Err(error) => return Err(error),
            },
        };
        let path = parent.child(&name);
        // The entry may be granted itself, with more than its directory allows.
        let permission = permission | self.permission_granted_at(&permissions.access, &path)?;
        // The grants are those of the requested directory; over a link it is another one.
        let topmost_writable = permissions.topmost_path(Permission::W).filter(|_| parent == requested_parent).cloned();
        let access = permissions.access;
        let resolved_at = Instant::now();
        Ok(EntrySlot {
            directory,
            directory_stat,
            name,
            path,
            permission,
            existing_only: false,
            topmost_writable,
            access,
            resolved_at,
        })
    }

    /// Opens the directory of a slot, so that a change of its names can be synced with the same descriptor.
    fn open_slot_directory(
        &self,
        permissions: &PermissionSet,
        directory: &TreePath,
        needed: Permission,
    ) -> Result<OpenEntry> {
        if self.is_synced() && needed.allows(Permission::W) {
            match self.open_with_permissions(permissions, directory, needed, OpenMode::DirectoryToSync) {
                // Opened by its path alone below: the operation may need no sync, and finds its own error if it does.
                Err(Error::RefusedByHost(_)) => {}
                opened => return opened,
            }
        }
        self.open_with_permissions(permissions, directory, needed, OpenMode::DirectoryPath)
    }

    /// Returns the permissions of verified grants on exactly this path.
    fn permission_granted_at(&self, access: &TreeAccess, path: &TreePath) -> Result<Permission> {
        let mut permission = Permission::NONE;
        for grant in access.effective_grants().iter().filter(|grant| grant.path == *path) {
            if verify_grant(self.fs(), grant, ResolveMode::Blocking)?.is_some() {
                permission = permission | grant.permission;
            }
        }
        Ok(permission)
    }

    /// Returns the slot of an entry that the session may remove or move away, with the entry's metadata.
    ///
    /// # Errors
    /// [`Error::Absent`] when the entry is not visible, [`Error::Forbidden`] when it is but may not be removed.
    pub(super) fn removal_slot(&self, operation: TreeOperation, path: &TreePath) -> Result<(EntrySlot, Stat)> {
        self.resolve_removal_slot(operation, path).inspect_err(|_| self.audit_denial(operation, path))
    }

    fn resolve_removal_slot(&self, operation: TreeOperation, path: &TreePath) -> Result<(EntrySlot, Stat)> {
        let slot = match self.slot_for_operation(operation, path) {
            // Without a directory there is nothing to remove: missing, where creating would say 409.
            Err(Error::NoParent) => return Err(Error::Absent),
            // The directory may be visible while the entry is not: a 403 would tell that a hidden entry exists.
            Err(Error::Forbidden) => return Err(self.absent_or_forbidden(&self.permissions_at(path)?, path, None)),
            slot => slot?,
        };
        match self.visible_stat(&slot, path)? {
            Some(stat) => {
                if stat.is_directory() {
                    // With a file system of the tree unmounted, this would remove the bare mount point, and end nodes
                    // in it.
                    self.fs().verify_mounts_below(&slot.path)?;
                }
                Ok((slot, stat))
            }
            None => Err(Error::Absent),
        }
    }

    /// Returns the slot into which a file written at a path goes, with the metadata of the entry there. A symbolic link
    /// is followed, also to a target that does not exist yet; one that is absolute or leads out is replaced itself.
    ///
    /// # Errors
    /// [`Error::IsADirectory`]; [`Error::Forbidden`] when the entry or its directory is visible but not writable,
    /// [`Error::NoParent`] when the directory is absent.
    pub(super) fn write_slot(&self, path: &TreePath) -> Result<(EntrySlot, Option<Stat>)> {
        self.resolve_write_slot(path, MAX_SYMLINKS).inspect_err(|_| self.audit_denial(TreeOperation::Write, path))
    }

    /// Implements [`View::write_slot`], following at most `links_left` dangling links.
    fn resolve_write_slot(&self, path: &TreePath, links_left: usize) -> Result<(EntrySlot, Option<Stat>)> {
        let slot = match self.slot_for_operation(TreeOperation::Create, path) {
            Ok(slot) => slot,
            Err(error @ (Error::Forbidden | Error::RefusedByHost(_) | Error::NoParent)) => {
                return self.granted_file_slot(path, error);
            }
            Err(error) => return Err(error),
        };
        match slot.stat()? {
            Some(stat) if stat.kind == Some(EntryKind::Directory) => Err(Error::IsADirectory),
            Some(stat) if stat.kind == Some(EntryKind::Symlink) => {
                match self.open_entry(path, TreeOperation::Write.permission(), OpenMode::Path) {
                    Ok(entry) if entry.stat.is_directory() => Err(Error::IsADirectory),
                    // The link was followed beneath one grant: the directory of its target is authorized on its own.
                    Ok(entry) if entry.path != slot.path => self.resolve_write_slot(&entry.path, links_left),
                    Err(Error::Absent) => self.resolve_dangling_link_slot(slot, stat, path, links_left),
                    // The target may not be written: the link itself is replaced, and the target keeps its content.
                    Ok(_) | Err(Error::Forbidden | Error::RefusedByHost(_)) => Ok((slot, Some(stat))),
                    Err(error) => Err(error),
                }
            }
            // Sockets, pipes and devices are never replaced.
            Some(stat) if stat.kind.is_none() => Err(Error::Forbidden),
            stat => Ok((slot, stat)),
        }
    }

    /// Resolves a dangling link as open(2) does: the file is created where the link leads.
    fn resolve_dangling_link_slot(
        &self,
        slot: EntrySlot,
        link: Stat,
        path: &TreePath,
        links_left: usize,
    ) -> Result<(EntrySlot, Option<Stat>)> {
        match (self.dangling_link_target(&slot, path)?, links_left.checked_sub(1)) {
            (None, _) => Ok((slot, Some(link))),
            // More links than the kernel follows, mostly a loop: open(2) fails with ELOOP.
            (Some(_), None) => Err(Error::Absent),
            (Some(target), Some(links_left)) => self.resolve_write_slot(&target, links_left),
        }
    }

    /// Returns the target path of a dangling link; `None` when the link leads out of the session's tree.
    ///
    /// # Errors
    /// [`Error::Absent`] for a target with `..` after a name, which can't be resolved without following that name.
    pub(super) fn dangling_link_target(&self, slot: &EntrySlot, path: &TreePath) -> Result<Option<TreePath>> {
        let Some(target) = self.contained_link_target(slot, path)? else { return Ok(None) };
        let mut segments =
            target.split(|&byte| byte == b'/').skip_while(|segment| matches!(*segment, b"" | b"." | b".."));
        if segments.any(|segment| segment == b"..") {
            return Err(Error::Absent);
        }
        Ok(slot.directory_path().resolve(&target).ok())
    }

    /// Returns the slot of a file that is granted itself, in a directory that is not.
    fn granted_file_slot(&self, path: &TreePath, fallback: Error) -> Result<(EntrySlot, Option<Stat>)> {
        let permissions = self.permissions_at(path)?;
        let permission = permissions.permission();
        let Some(grant) = permissions.topmost_grant(TreeOperation::Write.permission()) else {
            // The caller's error stands, unless the entry itself is visible: then it is forbidden rather than missing.
            let is_visible = matches!(self.absent_or_forbidden(&permissions, path, None), Error::Forbidden);
            return Err(if is_visible { Error::Forbidden } else { fallback });
        };
        match (&grant.anchor, path.name()) {
            (GrantAnchor::ParentDirectory(directory), Some(name)) if grant.path == *path => {
                let directory_stat = directory.stat()?;
                let slot = EntrySlot {
                    directory: directory.clone(),
                    directory_stat,
                    name,
                    path: path.clone(),
                    permission,
                    // Its directory is not granted: once the file is gone, nothing may be created in its place.
                    existing_only: true,
                    topmost_writable: None,
                    access: Arc::clone(&permissions.access),
                    resolved_at: Instant::now(),
                };
                match slot.stat()? {
                    Some(stat) if stat.kind == Some(EntryKind::File) => Ok((slot, Some(stat))),
                    Some(_) | None => Err(Error::Absent),
                }
            }
            (GrantAnchor::Directory(..), _) if grant.path == *path => Err(Error::IsADirectory),
            (GrantAnchor::Directory(..) | GrantAnchor::ParentDirectory(_), _) => Err(fallback),
        }
    }

    /// Returns the metadata of the entry at a slot; `None` for entries that are never shown: special files, and links
    /// that are absolute, lead out, or lead to the gateway's reserved directory.
    pub(super) fn visible_stat(&self, slot: &EntrySlot, path: &TreePath) -> Result<Option<Stat>> {
        let Some(stat) = slot.stat()? else { return Ok(None) };
        let is_shown = match stat.kind {
            None => false,
            Some(EntryKind::File | EntryKind::Directory) => true,
            Some(EntryKind::Symlink) => self.contained_link_target(slot, path)?.is_some(),
        };
        Ok(is_shown.then_some(stat))
    }

    /// Returns the text of a link; `None` when it is absolute, leads out or leads to the gateway's reserved directory.
    pub(super) fn contained_link_target(&self, slot: &EntrySlot, path: &TreePath) -> Result<Option<Vec<u8>>> {
        let target = slot.directory.read_link(&slot.name)?;
        let permissions = self.permissions_at(path)?;
        let Some(grant) = permissions.topmost_grant(Permission::NONE) else { return Ok(None) };
        // By the text first, since a dangling link can't be resolved by the kernel.
        if !link_stays_within(&slot.path, &target, &grant.path) {
            return Ok(None);
        }
        match grant.open(self.fs(), path, OpenMode::Path) {
            // The text stays within, but another link on its way leads out.
            Err(Errno::XDEV) => Ok(None),
            Ok(_) | Err(_) => Ok(Some(target)),
        }
    }

    /// Tells whether a path is an ancestor of a verified grant of the session.
    pub(super) fn is_visible(&self, access: &TreeAccess, path: &TreePath) -> Result<bool> {
        // The root is visible to every session, also to one whose grants all dangle.
        if path.is_root() {
            return Ok(true);
        }
        // Only a verified grant makes its ancestors visible: a dangling one must not show that they exist.
        for grant in access.effective_grants().iter().filter(|grant| grant.path.starts_with(path)) {
            if verify_grant(self.fs(), grant, ResolveMode::Blocking)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the error for an entry that is not allowed, or was not found by the grant that was tried: `Forbidden` if
    /// the entry is visible to the session, else `Absent`.
    fn absent_or_forbidden(
        &self,
        permissions: &PermissionSet,
        path: &TreePath,
        tried: Option<(&VerifiedGrant, OpenMode)>,
    ) -> Error {
        // A file where a directory is needed is missing, whichever grant shows it.
        let open_mode = match tried {
            Some((_, OpenMode::DirectoryPath | OpenMode::DirectoryToSync)) => OpenMode::DirectoryPath,
            Some(_) | None => OpenMode::Path,
        };
        let is_visible = match permissions.topmost_grant(Permission::NONE) {
            // The same grant has just not found the entry: looking again would only add a race.
            Some(grant) if tried.is_some_and(|(tried, _)| tried.path == grant.path) => return Error::Absent,
            Some(grant) => match grant.open(self.fs(), path, open_mode) {
                Ok((file, _)) => file.stat().map(|stat| stat.kind.is_some()).map_err(Error::from),
                Err(error) if is_missing(error) => Ok(false),
                Err(error) => Err(error.into()),
            },
            None => self.is_visible(&permissions.access, path),
        };
        match is_visible {
            Ok(true) => Error::Forbidden,
            Ok(false) => Error::Absent,
            Err(error) => error,
        }
    }
}

impl PermissionSet {
    /// Returns the union of the permissions of all grants.
    pub(super) fn permission(&self) -> Permission {
        self.grants.permission()
    }

    /// Tells whether one grant alone, and not two together, allows `needed` both here and at another path.
    pub(super) fn single_grant_covers(&self, other: &TreePath, needed: Permission) -> bool {
        let mut covering_both = self.grants.0.iter().filter(|grant| other.starts_with(&grant.path));
        covering_both.any(|grant| grant.permission.allows(needed))
    }

    /// Returns the topmost granted path at which all of `needed` is allowed.
    pub(super) fn topmost_path(&self, needed: Permission) -> Option<&TreePath> {
        self.topmost_grant(needed).map(|grant| &grant.path)
    }

    /// Returns the access of the session at the time of the look-up.
    pub(super) fn access(&self) -> &Arc<TreeAccess> {
        &self.access
    }

    /// Returns the directory at a path if it is open already, as the topmost grant that allows all of `needed`.
    fn open_directory_at(&self, path: &TreePath, needed: Permission) -> Option<(DirectoryFd, Option<Stat>)> {
        match self.topmost_grant(needed)? {
            VerifiedGrant { path: grant_path, anchor: GrantAnchor::Directory(directory, stat), .. }
                if grant_path == path =>
            {
                Some((directory.clone(), stat.clone()))
            }
            VerifiedGrant { anchor: GrantAnchor::Directory(..) | GrantAnchor::ParentDirectory(_), .. } => None,
        }
    }

    fn topmost_grant(&self, needed: Permission) -> Option<&VerifiedGrant> {
        self.grants.topmost_grant(needed)
    }
}

impl VerifiedGrants {
    /// Returns the union of the permissions of all grants.
    fn permission(&self) -> Permission {
        self.0.iter().fold(Permission::NONE, |sum, grant| sum | grant.permission)
    }

    /// Returns the topmost grant at whose path all of `needed` is allowed.
    fn topmost_grant(&self, needed: Permission) -> Option<&VerifiedGrant> {
        // Permissions add up on the way down: a grant of `w` below one of `r` gives `rw`.
        let sum = |path: &TreePath| {
            let above = self.0.iter().filter(|grant| path.starts_with(&grant.path));
            above.fold(Permission::NONE, |sum, grant| sum | grant.permission)
        };
        let candidates = self.0.iter().filter(|grant| sum(&grant.path).allows(needed));
        // All candidates are ancestors of one path, so the shortest is the topmost.
        candidates.min_by_key(|grant| grant.path.as_bytes().len())
    }
}

impl VerifiedGrant {
    fn open(&self, fs: &ServedFs, path: &TreePath, mode: OpenMode) -> super::fs::Result<(FileFd, TreePath)> {
        let rest = path.strip_prefix(&self.path).ok_or(Errno::NOENT)?;
        match &self.anchor {
            GrantAnchor::Directory(directory, _) => fs.resolve(directory, &self.path, &rest, mode),
            GrantAnchor::ParentDirectory(directory) => match path.name() {
                Some(name) if rest.is_root() => directory.open(&name, mode).map(|file| (file, path.clone())),
                Some(_) | None => Err(Errno::NOENT),
            },
        }
    }
}

/// Opens the node of a grant; `None` unless all nodes that the grant comes from are still where they were recorded.
fn verify_grant(fs: &ServedFs, grant: &EffectiveGrant, resolve_mode: ResolveMode) -> Result<Option<GrantAnchor>> {
    let mut anchor = None;
    for scope in &grant.sources {
        // The intersection of the user's grant and one scope of each token in the chain: if one dangles, it is void.
        match verify_grant_location(fs, scope, resolve_mode) {
            Ok(Some(found)) if scope.path == grant.path => anchor = Some(found),
            Ok(Some(_)) => {}
            Ok(None) => return Ok(None),
            Err(error) if is_missing(error) || error == Errno::ACCESS => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(anchor)
}

fn verify_grant_location(
    fs: &ServedFs,
    scope: &ResolvedScope,
    resolve_mode: ResolveMode,
) -> super::fs::Result<Option<GrantAnchor>> {
    match scope.identity {
        // The descriptor that is held open can't become another directory.
        NodeIdentity::Directory { .. } if scope.path.is_root() => {
            let (root, identity) = fs.root_and_identity()?;
            Ok(scope.identity.matches(identity).then_some(GrantAnchor::Directory(root, None)))
        }
        NodeIdentity::Directory { .. } => {
            let directory = fs.open_directory_with(&scope.path, resolve_mode)?;
            let stat = directory.stat()?;
            Ok(scope
                .identity
                .matches(stat.directory_identity())
                .then_some(GrantAnchor::Directory(directory, Some(stat))))
        }
        // Opening its parent directory may wait for a disk.
        NodeIdentity::File { .. } if resolve_mode == ResolveMode::Cached => Err(Errno::AGAIN),
        NodeIdentity::File { inode, birth_time } => {
            let Some((parent, name)) = scope.path.split_last() else { return Ok(None) };
            let directory = fs.open_directory(&parent)?;
            // A file is recognised by its directory and its name, so that replacing it by a rename keeps the grant.
            let same_directory =
                (NodeIdentity::Directory { inode, birth_time }).matches(directory.stat()?.directory_identity());
            let is_file = same_directory && directory.stat_entry(&name)?.kind == Some(EntryKind::File);
            Ok(is_file.then_some(GrantAnchor::ParentDirectory(directory)))
        }
    }
}

/// Tells whether an error means that the entry is missing, or is none that a session could be shown.
fn is_missing(error: Errno) -> bool {
    matches!(Error::from(error), Error::Absent)
}

/// Tells whether the text of a link, resolved from the directory of the link, stays at or below `boundary`.
pub(super) fn link_stays_within(link: &TreePath, target: &[u8], boundary: &TreePath) -> bool {
    if target.starts_with(b"/") || target.is_empty() || target.contains(&0) {
        return false;
    }
    let mut depth = link.depth().saturating_sub(1).checked_sub(boundary.depth());
    for segment in target.split(|&b| b == b'/') {
        depth = match (segment, depth) {
            // Above the boundary once is out for good, even if later names lead back inside.
            (_, None) => return false,
            (b"" | b".", depth) => depth,
            (b"..", Some(depth)) => depth.checked_sub(1),
            // A link into `.patgate` would show staged content of other users.
            (crate::domain::RESERVED_DIRECTORY, _) => return false,
            (_, Some(depth)) => depth.checked_add(1),
        };
    }
    depth.is_some()
}

#[cfg(test)]
mod tests;
