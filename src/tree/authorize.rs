//! The one check: what a session may do at a path, and where resolution of it starts.
//!
//! A permission counts only while everything that gives it stands where it was recognised: each time,
//! the host is asked for the inode and birth time of every granted and scoped folder on the way. A
//! folder swapped behind the gateway's back so gives nothing, and what is below it is absent.
//!
//! What the check lets through is an open entry ([`OpenEntry`]) or an open folder with a name in it
//! ([`EntrySlot`]), reached beneath the topmost place at which the operation is allowed, so that the
//! operation is allowed wherever a link leads. Nothing else reaches the host.

use std::sync::Arc;

use super::fs::{DirectoryFd, Errno, FileFd, OpenMode, ResolveMode, ServedFs, Stat};
use super::{EntryKind, Error, Result, View};
use crate::domain::{
    EffectiveGrant, EntryName, NodeIdentity, PathAccess, Permission, ResolvedScope, TreeAccess, TreeOperation, TreePath,
};

/// How many links that lead to nothing in the tree are followed to where a file is made, or staged (as many as the kernel
/// follows).
pub(super) const MAX_SYMLINKS: usize = 40;

/// An open entry at which an operation is allowed.
pub(super) struct OpenEntry {
    /// The entry, open as it was asked for.
    pub(super) file: FileFd,
    /// What it is.
    pub(super) stat: Stat,
    /// Where it is, without links.
    pub(super) path: TreePath,
    /// All that the session may do with it.
    pub(super) permission: Permission,
}

/// A name in an open folder, at which an operation is allowed; something may stand there or not.
pub(super) struct EntrySlot {
    /// The folder.
    pub(super) directory: DirectoryFd,
    /// What the folder is.
    pub(super) directory_stat: Stat,
    /// The name.
    pub(super) name: EntryName,
    /// Where that is, without links above the name.
    pub(super) path: TreePath,
    /// All that the session may do there.
    pub(super) permission: Permission,
    /// Whether nothing may be made there: the file is granted, its folder is not.
    pub(super) existing_only: bool,
}

/// What gives a session permissions at a path, each found to stand.
pub(super) struct PermissionSet {
    access: Arc<TreeAccess>,
    grants: Vec<VerifiedGrant>,
}

struct VerifiedGrant {
    path: TreePath,
    permission: Permission,
    anchor: GrantAnchor,
}

enum GrantAnchor {
    /// The folder at the place, and what it is.
    Directory(DirectoryFd, Stat),
    /// The folder that holds the file at the place.
    ParentDirectory(DirectoryFd),
}

impl View {
    /// Returns what may be done at a path, and by what.
    pub(super) fn permissions_at(&self, path: &TreePath) -> Result<PermissionSet> {
        self.permissions_with_mode(path, ResolveMode::Blocking)
    }

    fn permissions_with_mode(&self, path: &TreePath, resolve_mode: ResolveMode) -> Result<PermissionSet> {
        let access = self.session().access()?;
        self.fs().check_available()?;
        let mut grants = Vec::new();
        for grant in access.grants_covering(path) {
            if let Some(anchor) = verify_grant(self.fs(), grant, resolve_mode)? {
                grants.push(VerifiedGrant { path: grant.path.clone(), permission: grant.permission, anchor });
            }
        }
        Ok(PermissionSet { access, grants })
    }

    /// Opens an entry to do something with it; links are followed. A refusal is told to the audit trail.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when it can be seen but that is not allowed, [`Error::Absent`] when it can't.
    pub(super) fn open_authorized(
        &self,
        operation: TreeOperation,
        path: &TreePath,
        mode: OpenMode,
    ) -> Result<OpenEntry> {
        self.open_entry(path, operation.permission(), mode).inspect_err(|_| self.audit_denial(operation, path))
    }

    /// Tells the audit trail of an operation that was refused because it is not allowed, and not because
    /// nothing is there: the rule itself says which. Only refusals come here. Looking at a folder on the way down
    /// to what is granted is answered with the way, whatever asked for more: nobody is refused.
    pub(super) fn audit_denial(&self, operation: TreeOperation, path: &TreePath) {
        let is_read = matches!(operation, TreeOperation::Stat | TreeOperation::List | TreeOperation::Read);
        if let Ok(access) = self.session().access()
            && !(is_read && access.path_access(path) == PathAccess::Visible)
            && let Err(denial) = operation.authorize(&access, path)
        {
            self.session().record_denial(&format!("{operation}: {denial}"), Some(path));
        }
    }

    /// Opens an entry at which `needed` is allowed; links are followed.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when it can be seen but that is not allowed, [`Error::Absent`] when it can't.
    pub(super) fn open_entry(&self, path: &TreePath, needed: Permission, mode: OpenMode) -> Result<OpenEntry> {
        let permissions = self.permissions_at(path)?;
        self.open_with_permissions(&permissions, path, needed, mode)
    }

    /// As [`View::open_entry`], by permissions that were looked up before.
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
            Err(error) if is_missing(error) => {
                return Err(self.absent_or_forbidden(permissions, path, Some((grant, mode))));
            }
            Err(error) => return Err(error.into()),
        };
        let stat = file.stat()?;
        let has_expected_kind = match grant.anchor {
            GrantAnchor::Directory(..) => stat.kind.is_some(),
            GrantAnchor::ParentDirectory(_) => stat.kind == Some(EntryKind::File),
        };
        if !has_expected_kind {
            return Err(Error::Absent);
        }
        let mut permission = permissions.permission();
        if resolved_path != *path {
            permission = permission & self.permissions_at(&resolved_path)?.permission();
        }
        Ok(OpenEntry { file, stat, path: resolved_path, permission })
    }

    /// As [`View::open_entry`] to read, of a file that is reached without links and without waiting for a disk;
    /// none otherwise, and wherever it is not allowed.
    pub(super) fn open_cached(&self, path: &TreePath, needed: Permission) -> Option<OpenEntry> {
        let permissions = self.permissions_with_mode(path, ResolveMode::Cached).ok()?;
        let grant = permissions.topmost_grant(needed)?;
        let (file, resolved_path) = grant.open(self.fs(), path, OpenMode::ReadCached).ok()?;
        let stat = file.stat().ok()?;
        let entry = OpenEntry { file, stat, path: resolved_path, permission: permissions.permission() };
        (entry.path == *path && entry.stat.kind.is_some()).then_some(entry)
    }

    /// Returns a name in a folder in which the session may create and remove.
    ///
    /// # Errors
    /// [`Error::NoParent`] when the folder is absent, [`Error::Forbidden`] when it can be seen but
    /// nothing may be changed in it, or the path is the root.
    pub(super) fn create_slot(&self, path: &TreePath) -> Result<EntrySlot> {
        self.slot_for_operation(TreeOperation::Create, path)
            .inspect_err(|_| self.audit_denial(TreeOperation::Create, path))
    }

    fn slot_for_operation(&self, operation: TreeOperation, path: &TreePath) -> Result<EntrySlot> {
        self.slot_with_permission(path, operation.permission())
    }

    /// Returns a name in a folder at which `needed` is allowed; nothing needed is any permission.
    pub(super) fn slot_with_permission(&self, path: &TreePath, needed: Permission) -> Result<EntrySlot> {
        let Some((parent, name)) = path.split_last() else { return Err(Error::Forbidden) };
        let permissions = self.permissions_at(&parent)?;
        let (directory, directory_stat, parent, permission) = match permissions.open_directory_at(&parent, needed) {
            Some((directory, stat)) => (directory, stat, parent, permissions.permission()),
            None => match self.open_with_permissions(&permissions, &parent, needed, OpenMode::DirectoryPath) {
                Ok(OpenEntry { file, stat, path, permission }) => (file.into(), stat, path, permission),
                Err(Error::Absent) => return Err(Error::NoParent),
                Err(error) => return Err(error),
            },
        };
        let path = parent.child(&name);
        let permission = permission | self.permission_granted_at(&path)?;
        Ok(EntrySlot { directory, directory_stat, name, path, permission, existing_only: false })
    }

    /// Returns what is allowed at a path by what begins right there and stands.
    fn permission_granted_at(&self, path: &TreePath) -> Result<Permission> {
        let access = self.session().access()?;
        let mut permission = Permission::NONE;
        for grant in access.effective_grants().iter().filter(|grant| grant.path == *path) {
            if verify_grant(self.fs(), grant, ResolveMode::Blocking)?.is_some() {
                permission = permission | grant.permission;
            }
        }
        Ok(permission)
    }

    /// Returns an entry that the session may remove or move away, and what it is.
    ///
    /// # Errors
    /// [`Error::Absent`] when it can't be seen, [`Error::Forbidden`] when it can but must stay.
    pub(super) fn removal_slot(&self, operation: TreeOperation, path: &TreePath) -> Result<(EntrySlot, Stat)> {
        self.resolve_removal_slot(operation, path).inspect_err(|_| self.audit_denial(operation, path))
    }

    fn resolve_removal_slot(&self, operation: TreeOperation, path: &TreePath) -> Result<(EntrySlot, Stat)> {
        let slot = match self.slot_for_operation(operation, path) {
            Err(Error::NoParent) => return Err(Error::Absent),
            Err(Error::Forbidden) => return Err(self.absent_or_forbidden(&self.permissions_at(path)?, path, None)),
            slot => slot?,
        };
        match self.visible_stat(&slot, path)? {
            Some(stat) => {
                if stat.is_directory() {
                    // Nodes in it would end with the directory on which it is to be mounted.
                    self.fs().verify_mounts_below(&slot.path)?;
                }
                Ok((slot, stat))
            }
            None => Err(Error::Absent),
        }
    }

    /// Returns where a file that is written at a path goes: behind a link that leads to something, or to where
    /// something could be, to that. Also what stands there: a file, or a link that is absolute or leads out and is
    /// replaced itself.
    ///
    /// # Errors
    /// [`Error::IsADirectory`]; [`Error::Forbidden`] when path or folder can be seen but not written,
    /// [`Error::NoParent`] when the folder is absent.
    pub(super) fn write_slot(&self, path: &TreePath) -> Result<(EntrySlot, Option<Stat>)> {
        self.resolve_write_slot(path, MAX_SYMLINKS).inspect_err(|_| self.audit_denial(TreeOperation::Write, path))
    }

    /// As [`View::write_slot`], over at most so many links that lead nowhere.
    fn resolve_write_slot(&self, path: &TreePath, links_left: usize) -> Result<(EntrySlot, Option<Stat>)> {
        let slot = match self.slot_for_operation(TreeOperation::Create, path) {
            Ok(slot) => slot,
            Err(error @ (Error::Forbidden | Error::NoParent)) => return self.granted_file_slot(path, error),
            Err(error) => return Err(error),
        };
        match slot.stat()? {
            Some(stat) if stat.kind == Some(EntryKind::Directory) => Err(Error::IsADirectory),
            Some(stat) if stat.kind == Some(EntryKind::Symlink) => {
                match self.open_entry(path, TreeOperation::Write.permission(), OpenMode::Path) {
                    Ok(entry) if entry.stat.is_directory() => Err(Error::IsADirectory),
                    Ok(entry) if entry.path != slot.path => self.resolve_write_slot(&entry.path, links_left),
                    Err(Error::Absent) => self.resolve_dangling_link_slot(slot, stat, path, links_left),
                    Ok(_) | Err(Error::Forbidden) => Ok((slot, Some(stat))),
                    Err(error) => Err(error),
                }
            }
            Some(stat) if stat.kind.is_none() => Err(Error::Forbidden),
            stat => Ok((slot, stat)),
        }
    }

    /// Goes on behind a link that leads to nothing, as open(2) does: the file is made where the link leads.
    fn resolve_dangling_link_slot(
        &self,
        slot: EntrySlot,
        link: Stat,
        path: &TreePath,
        links_left: usize,
    ) -> Result<(EntrySlot, Option<Stat>)> {
        match (self.dangling_link_target(&slot, path)?, links_left.checked_sub(1)) {
            (None, _) => Ok((slot, Some(link))),
            (Some(_), None) => Err(Error::Absent),
            (Some(target), Some(links_left)) => self.resolve_write_slot(&target, links_left),
        }
    }

    /// Returns where a link to nothing leads; none where that is hidden.
    ///
    /// # Errors
    /// [`Error::Absent`] for a target that goes up again behind a name: what that is can't be told without following it.
    pub(super) fn dangling_link_target(&self, slot: &EntrySlot, path: &TreePath) -> Result<Option<TreePath>> {
        let Some(target) = self.contained_link_target(slot, path)? else { return Ok(None) };
        let mut segments =
            target.split(|&byte| byte == b'/').skip_while(|segment| matches!(*segment, b"" | b"." | b".."));
        if segments.any(|segment| segment == b"..") {
            return Err(Error::Absent);
        }
        Ok(slot.directory_path().resolve(&target).ok())
    }

    /// A file that is itself granted, in a folder that is not.
    fn granted_file_slot(&self, path: &TreePath, error_otherwise: Error) -> Result<(EntrySlot, Option<Stat>)> {
        let permissions = self.permissions_at(path)?;
        let permission = permissions.permission();
        let Some(grant) = permissions.topmost_grant(TreeOperation::Write.permission()) else {
            let is_visible = matches!(self.absent_or_forbidden(&permissions, path, None), Error::Forbidden);
            return Err(if is_visible { Error::Forbidden } else { error_otherwise });
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
                    existing_only: true,
                };
                match slot.stat()? {
                    Some(stat) if stat.kind == Some(EntryKind::File) => Ok((slot, Some(stat))),
                    Some(_) | None => Err(Error::Absent),
                }
            }
            (GrantAnchor::Directory(..), _) if grant.path == *path => Err(Error::IsADirectory),
            (GrantAnchor::Directory(..) | GrantAnchor::ParentDirectory(_), _) => Err(error_otherwise),
        }
    }

    /// Returns what stands at a spot, none where nothing may be seen: special files, and links that are
    /// absolute, lead out, or lead to the gateway's own folder.
    pub(super) fn visible_stat(&self, slot: &EntrySlot, path: &TreePath) -> Result<Option<Stat>> {
        let Some(stat) = slot.stat()? else { return Ok(None) };
        let is_shown = match stat.kind {
            None => false,
            Some(EntryKind::File | EntryKind::Directory) => true,
            Some(EntryKind::Symlink) => self.contained_link_target(slot, path)?.is_some(),
        };
        Ok(is_shown.then_some(stat))
    }

    /// Returns what a link says, none when that is absolute, leads out or to the gateway's own folder.
    pub(super) fn contained_link_target(&self, slot: &EntrySlot, path: &TreePath) -> Result<Option<Vec<u8>>> {
        let target = slot.directory.read_link(&slot.name)?;
        let permissions = self.permissions_at(path)?;
        let Some(grant) = permissions.topmost_grant(Permission::NONE) else { return Ok(None) };
        if !link_stays_within(&slot.path, &target, &grant.path) {
            return Ok(None);
        }
        match grant.open(self.fs(), path, OpenMode::Path) {
            Err(Errno::XDEV) => Ok(None),
            Ok(_) | Err(_) => Ok(Some(target)),
        }
    }

    /// Tells whether a path is a folder above something that the session may reach.
    pub(super) fn is_visible(&self, access: &TreeAccess, path: &TreePath) -> Result<bool> {
        if path.is_root() {
            return Ok(true);
        }
        for grant in access.effective_grants().iter().filter(|grant| grant.path.starts_with(path)) {
            if verify_grant(self.fs(), grant, ResolveMode::Blocking)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the refusal of what is not allowed at a path, or was not found in the way that was tried: whether it
    /// can be seen decides.
    fn absent_or_forbidden(
        &self,
        permissions: &PermissionSet,
        path: &TreePath,
        tried: Option<(&VerifiedGrant, OpenMode)>,
    ) -> Error {
        // A file where a folder is needed is missing, whichever root shows it.
        let open_mode =
            if matches!(tried, Some((_, OpenMode::DirectoryPath))) { OpenMode::DirectoryPath } else { OpenMode::Path };
        let is_visible = match permissions.topmost_grant(Permission::NONE) {
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
    /// Returns all that is allowed.
    pub(super) fn permission(&self) -> Permission {
        self.grants.iter().fold(Permission::NONE, |sum, grant| sum | grant.permission)
    }

    /// Tells whether one grant, and not two joined, allows `needed` here and at another path.
    pub(super) fn single_grant_covers(&self, other: &TreePath, needed: Permission) -> bool {
        let mut covering_both = self.grants.iter().filter(|grant| other.starts_with(&grant.path));
        covering_both.any(|grant| grant.permission.allows(needed))
    }

    /// Returns the topmost place at which all of `needed` is allowed.
    pub(super) fn topmost_path(&self, needed: Permission) -> Option<&TreePath> {
        self.topmost_grant(needed).map(|grant| &grant.path)
    }

    /// Returns the session's access as it was looked up.
    pub(super) fn access(&self) -> &Arc<TreeAccess> {
        &self.access
    }

    /// Returns the folder at a path, which is open already where it is the topmost place at which all of `needed`
    /// is allowed.
    fn open_directory_at(&self, path: &TreePath, needed: Permission) -> Option<(DirectoryFd, Stat)> {
        match self.topmost_grant(needed)? {
            VerifiedGrant { path: grant_path, anchor: GrantAnchor::Directory(directory, stat), .. }
                if grant_path == path =>
            {
                Some((directory.clone(), stat.clone()))
            }
            VerifiedGrant { anchor: GrantAnchor::Directory(..) | GrantAnchor::ParentDirectory(_), .. } => None,
        }
    }

    /// Returns the topmost place at which all of `needed` (and anything at all) is allowed.
    fn topmost_grant(&self, needed: Permission) -> Option<&VerifiedGrant> {
        let sum = |path: &TreePath| {
            let above = self.grants.iter().filter(|grant| path.starts_with(&grant.path));
            above.fold(Permission::NONE, |sum, grant| sum | grant.permission)
        };
        let candidates = self.grants.iter().filter(|grant| sum(&grant.path).allows(needed));
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

impl EntrySlot {
    /// Asks what stands there.
    pub(super) fn stat(&self) -> Result<Option<Stat>> {
        match self.directory.stat_entry(&self.name) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns where the folder is.
    pub(super) fn directory_path(&self) -> TreePath {
        self.path.parent().unwrap_or_default()
    }
}

/// Opens the place where a permission begins, if all that gives it stands.
fn verify_grant(fs: &ServedFs, grant: &EffectiveGrant, resolve_mode: ResolveMode) -> Result<Option<GrantAnchor>> {
    let mut anchor = None;
    for scope in &grant.sources {
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
        NodeIdentity::Directory { .. } => {
            let directory = fs.open_directory_with(&scope.path, resolve_mode)?;
            let stat = directory.stat()?;
            Ok(scope.identity.matches(stat.directory_identity()).then_some(GrantAnchor::Directory(directory, stat)))
        }
        NodeIdentity::File { .. } if resolve_mode == ResolveMode::Cached => Err(Errno::AGAIN),
        NodeIdentity::File { inode, birth_time } => {
            let Some((parent, name)) = scope.path.split_last() else { return Ok(None) };
            let directory = fs.open_directory(&parent)?;
            let same_directory =
                (NodeIdentity::Directory { inode, birth_time }).matches(directory.stat()?.directory_identity());
            let is_file = same_directory && directory.stat_entry(&name)?.kind == Some(EntryKind::File);
            Ok(is_file.then_some(GrantAnchor::ParentDirectory(directory)))
        }
    }
}

/// Tells whether an error says that nothing is there, or nothing that a session could be shown.
fn is_missing(error: Errno) -> bool {
    matches!(Error::from(error), Error::Absent)
}

/// Tells whether a link's text, read from where the link is, stays at or below `topmost_path`.
pub(super) fn link_stays_within(link: &TreePath, target: &[u8], boundary: &TreePath) -> bool {
    if target.starts_with(b"/") || target.is_empty() || target.contains(&0) {
        return false;
    }
    let mut depth = link.depth().saturating_sub(1).checked_sub(boundary.depth());
    for segment in target.split(|&b| b == b'/') {
        depth = match (segment, depth) {
            (_, None) => return false,
            (b"" | b".", depth) => depth,
            (b"..", Some(depth)) => depth.checked_sub(1),
            (crate::domain::RESERVED_DIRECTORY, _) => return false,
            (_, Some(depth)) => depth.checked_add(1),
        };
    }
    depth.is_some()
}

#[cfg(test)]
mod tests;
