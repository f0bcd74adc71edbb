//! The one check: what a session may do at a path, and where resolution of it starts.
//!
//! A permission counts only while everything that gives it stands where it was recognised: each time,
//! the host is asked for the inode and birth time of every granted and scoped folder on the way. A
//! folder swapped behind the gateway's back so gives nothing, and what is below it is absent.
//!
//! What the check lets through is an open entry ([`Found`]) or an open folder with a name in it
//! ([`Spot`]), reached beneath the topmost place at which the operation is allowed, so that the
//! operation is allowed wherever a link leads. Nothing else reaches the host.

use std::sync::Arc;

use super::host::{Errno, File, Folder, Host, How, Pace, Stat};
use super::{Error, Kind, Result, View};
use crate::domain::{
    EffectiveGrant, EntryName, NodeIdentity, PathAccess, Permission, ResolvedScope, TreeAccess, TreeOperation, TreePath,
};

/// How many links that lead to nothing in the tree are followed to where a file is made, or staged (as many as the kernel
/// follows).
pub(super) const MAX_LINKS: usize = 40;

/// An open entry at which an operation is allowed.
pub(super) struct Found {
    /// The entry, open as it was asked for.
    pub(super) file: File,
    /// What it is.
    pub(super) stat: Stat,
    /// Where it is, without links.
    pub(super) path: TreePath,
    /// All that the session may do with it.
    pub(super) permission: Permission,
}

/// A name in an open folder, at which an operation is allowed; something may stand there or not.
pub(super) struct Spot {
    /// The folder.
    pub(super) folder: Folder,
    /// What the folder is.
    pub(super) holder: Stat,
    /// The name.
    pub(super) name: EntryName,
    /// Where that is, without links above the name.
    pub(super) path: TreePath,
    /// All that the session may do there.
    pub(super) permission: Permission,
    /// Whether nothing may be made there: the file is granted, its folder is not.
    pub(super) fixed: bool,
}

/// What gives a session permissions at a path, each found to stand.
pub(super) struct Grounds {
    access: Arc<TreeAccess>,
    grounds: Vec<Ground>,
}

struct Ground {
    place: TreePath,
    permission: Permission,
    base: Base,
}

enum Base {
    /// The folder at the place, and what it is.
    Folder(Folder, Stat),
    /// The folder that holds the file at the place.
    Holder(Folder),
}

impl View {
    /// Returns what may be done at a path, and by what.
    pub(super) fn grounds(&self, path: &TreePath) -> Result<Grounds> {
        self.grounds_at(path, Pace::Patient)
    }

    fn grounds_at(&self, path: &TreePath, pace: Pace) -> Result<Grounds> {
        let access = self.session().access()?;
        self.host().available()?;
        let mut grounds = Vec::new();
        for root in access.grants_covering(path) {
            if let Some(base) = base(self.host(), root, pace)? {
                grounds.push(Ground { place: root.path.clone(), permission: root.permission, base });
            }
        }
        Ok(Grounds { access, grounds })
    }

    /// Opens an entry to do something with it; links are followed. A refusal is told to the audit trail.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when it can be seen but that is not allowed, [`Error::Absent`] when it can't.
    pub(super) fn open_for(&self, operation: TreeOperation, path: &TreePath, how: How) -> Result<Found> {
        self.open(path, operation.permission(), how).inspect_err(|_| self.tell(operation, path))
    }

    /// Tells the audit trail of an operation that was refused because it is not allowed, and not because
    /// nothing is there: the rule itself says which. Only refusals come here. Looking at a folder on the way down
    /// to what is granted is answered with the way, whatever asked for more: nobody is refused.
    pub(super) fn tell(&self, operation: TreeOperation, path: &TreePath) {
        let looks = matches!(operation, TreeOperation::Stat | TreeOperation::List | TreeOperation::Read);
        if let Ok(access) = self.session().access()
            && !(looks && access.path_access(path) == PathAccess::Visible)
            && let Err(denial) = operation.authorize(&access, path)
        {
            self.session().record_denial(&format!("{operation}: {denial}"), Some(path));
        }
    }

    /// Opens an entry at which `needed` is allowed; links are followed.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when it can be seen but that is not allowed, [`Error::Absent`] when it can't.
    pub(super) fn open(&self, path: &TreePath, needed: Permission, how: How) -> Result<Found> {
        let grounds = self.grounds(path)?;
        self.open_on(&grounds, path, needed, how)
    }

    /// As [`View::open`], by permissions that were looked up before.
    pub(super) fn open_on(&self, grounds: &Grounds, path: &TreePath, needed: Permission, how: How) -> Result<Found> {
        let Some(ground) = grounds.anchor(needed) else { return Err(self.refusal(grounds, path, None)) };
        let (file, at) = match ground.open(self.host(), path, how) {
            Ok(opened) => opened,
            Err(error) if is_missing(error) => return Err(self.refusal(grounds, path, Some((ground, how)))),
            Err(error) => return Err(error.into()),
        };
        let stat = file.stat()?;
        let stands = match ground.base {
            Base::Folder(..) => stat.kind.is_some(),
            Base::Holder(_) => stat.kind == Some(Kind::File),
        };
        if !stands {
            return Err(Error::Absent);
        }
        let mut permission = grounds.permission();
        if at != *path {
            permission = permission & self.grounds(&at)?.permission();
        }
        Ok(Found { file, stat, path: at, permission })
    }

    /// As [`View::open`] to read, of a file that is reached without links and without waiting for a disk;
    /// none otherwise, and wherever it is not allowed.
    pub(super) fn open_cached(&self, path: &TreePath, needed: Permission) -> Option<Found> {
        let grounds = self.grounds_at(path, Pace::Cached).ok()?;
        let ground = grounds.anchor(needed)?;
        let (file, at) = ground.open(self.host(), path, How::ReadCached).ok()?;
        let stat = file.stat().ok()?;
        let found = Found { file, stat, path: at, permission: grounds.permission() };
        (found.path == *path && found.stat.kind.is_some()).then_some(found)
    }

    /// Returns a name in a folder in which the session may create and remove.
    ///
    /// # Errors
    /// [`Error::NoParent`] when the folder is absent, [`Error::Forbidden`] when it can be seen but
    /// nothing may be changed in it, or the path is the root.
    pub(super) fn spot(&self, path: &TreePath) -> Result<Spot> {
        self.spot_for(TreeOperation::Create, path).inspect_err(|_| self.tell(TreeOperation::Create, path))
    }

    fn spot_for(&self, operation: TreeOperation, path: &TreePath) -> Result<Spot> {
        self.spot_with(path, operation.permission())
    }

    /// Returns a name in a folder at which `needed` is allowed; nothing needed is any permission.
    pub(super) fn spot_with(&self, path: &TreePath, needed: Permission) -> Result<Spot> {
        let Some((parent, name)) = path.split_last() else { return Err(Error::Forbidden) };
        let grounds = self.grounds(&parent)?;
        let (folder, holder, parent, permission) = match grounds.folder_at(&parent, needed) {
            Some((folder, stat)) => (folder, stat, parent, grounds.permission()),
            None => match self.open_on(&grounds, &parent, needed, How::Folder) {
                Ok(Found { file, stat, path, permission }) => (file.into(), stat, path, permission),
                Err(Error::Absent) => return Err(Error::NoParent),
                Err(error) => return Err(error),
            },
        };
        let path = parent.child(&name);
        let permission = permission | self.begins_at(&path)?;
        Ok(Spot { folder, holder, name, path, permission, fixed: false })
    }

    /// Returns what is allowed at a path by what begins right there and stands.
    fn begins_at(&self, path: &TreePath) -> Result<Permission> {
        let access = self.session().access()?;
        let mut permission = Permission::NONE;
        for root in access.effective_grants().iter().filter(|root| root.path == *path) {
            if base(self.host(), root, Pace::Patient)?.is_some() {
                permission = permission | root.permission;
            }
        }
        Ok(permission)
    }

    /// Returns an entry that the session may remove or move away, and what it is.
    ///
    /// # Errors
    /// [`Error::Absent`] when it can't be seen, [`Error::Forbidden`] when it can but must stay.
    pub(super) fn removable(&self, operation: TreeOperation, path: &TreePath) -> Result<(Spot, Stat)> {
        self.to_remove(operation, path).inspect_err(|_| self.tell(operation, path))
    }

    fn to_remove(&self, operation: TreeOperation, path: &TreePath) -> Result<(Spot, Stat)> {
        let spot = match self.spot_for(operation, path) {
            Err(Error::NoParent) => return Err(Error::Absent),
            Err(Error::Forbidden) => return Err(self.refusal(&self.grounds(path)?, path, None)),
            spot => spot?,
        };
        match self.shown(&spot, path)? {
            Some(stat) => {
                if stat.is_folder() {
                    // Nodes in it would end with the directory on which it is to be mounted.
                    self.host().verify_below(&spot.path)?;
                }
                Ok((spot, stat))
            }
            None => Err(Error::Absent),
        }
    }

    /// Returns where a file that is written at a path goes: behind a link that leads to something, or to where
    /// something could be, to that. Also what stands there: a file, or a link that is absolute or leads out and is
    /// replaced itself.
    ///
    /// # Errors
    /// [`Error::IsFolder`]; [`Error::Forbidden`] when path or folder can be seen but not written,
    /// [`Error::NoParent`] when the folder is absent.
    pub(super) fn writable(&self, path: &TreePath) -> Result<(Spot, Option<Stat>)> {
        self.to_write(path, MAX_LINKS).inspect_err(|_| self.tell(TreeOperation::Write, path))
    }

    /// As [`View::writable`], over at most so many links that lead nowhere.
    fn to_write(&self, path: &TreePath, links: usize) -> Result<(Spot, Option<Stat>)> {
        let spot = match self.spot_for(TreeOperation::Create, path) {
            Ok(spot) => spot,
            Err(error @ (Error::Forbidden | Error::NoParent)) => return self.writable_root(path, error),
            Err(error) => return Err(error),
        };
        match spot.stat()? {
            Some(stat) if stat.kind == Some(Kind::Folder) => Err(Error::IsFolder),
            Some(stat) if stat.kind == Some(Kind::Link) => {
                match self.open(path, TreeOperation::Write.permission(), How::Place) {
                    Ok(found) if found.stat.is_folder() => Err(Error::IsFolder),
                    Ok(found) if found.path != spot.path => self.to_write(&found.path, links),
                    Err(Error::Absent) => self.to_write_behind(spot, stat, path, links),
                    Ok(_) | Err(Error::Forbidden) => Ok((spot, Some(stat))),
                    Err(error) => Err(error),
                }
            }
            Some(stat) if stat.kind.is_none() => Err(Error::Forbidden),
            stat => Ok((spot, stat)),
        }
    }

    /// Goes on behind a link that leads to nothing, as open(2) does: the file is made where the link leads.
    fn to_write_behind(&self, spot: Spot, link: Stat, path: &TreePath, links: usize) -> Result<(Spot, Option<Stat>)> {
        match (self.link_path(&spot, path)?, links.checked_sub(1)) {
            (None, _) => Ok((spot, Some(link))),
            (Some(_), None) => Err(Error::Absent),
            (Some(target), Some(links)) => self.to_write(&target, links),
        }
    }

    /// Returns where a link to nothing leads; none where that is hidden.
    ///
    /// # Errors
    /// [`Error::Absent`] for a target that goes up again behind a name: what that is can't be told without following it.
    pub(super) fn link_path(&self, spot: &Spot, path: &TreePath) -> Result<Option<TreePath>> {
        let Some(target) = self.link_inside(spot, path)? else { return Ok(None) };
        let mut parts = target.split(|&byte| byte == b'/').skip_while(|part| matches!(*part, b"" | b"." | b".."));
        if parts.any(|part| part == b"..") {
            return Err(Error::Absent);
        }
        Ok(spot.parent().resolve(&target).ok())
    }

    /// A file that is itself granted, in a folder that is not.
    fn writable_root(&self, path: &TreePath, otherwise: Error) -> Result<(Spot, Option<Stat>)> {
        let grounds = self.grounds(path)?;
        let permission = grounds.permission();
        let Some(ground) = grounds.anchor(TreeOperation::Write.permission()) else {
            let seen = matches!(self.refusal(&grounds, path, None), Error::Forbidden);
            return Err(if seen { Error::Forbidden } else { otherwise });
        };
        match (&ground.base, path.name()) {
            (Base::Holder(folder), Some(name)) if ground.place == *path => {
                let holder = folder.stat()?;
                let spot = Spot { folder: folder.clone(), holder, name, path: path.clone(), permission, fixed: true };
                match spot.stat()? {
                    Some(stat) if stat.kind == Some(Kind::File) => Ok((spot, Some(stat))),
                    Some(_) | None => Err(Error::Absent),
                }
            }
            (Base::Folder(..), _) if ground.place == *path => Err(Error::IsFolder),
            (Base::Folder(..) | Base::Holder(_), _) => Err(otherwise),
        }
    }

    /// Returns what stands at a spot, none where nothing may be seen: special files, and links that are
    /// absolute, lead out, or lead to the gateway's own folder.
    pub(super) fn shown(&self, spot: &Spot, path: &TreePath) -> Result<Option<Stat>> {
        let Some(stat) = spot.stat()? else { return Ok(None) };
        let shows = match stat.kind {
            None => false,
            Some(Kind::File | Kind::Folder) => true,
            Some(Kind::Link) => self.link_inside(spot, path)?.is_some(),
        };
        Ok(shows.then_some(stat))
    }

    /// Returns what a link says, none when that is absolute, leads out or to the gateway's own folder.
    pub(super) fn link_inside(&self, spot: &Spot, path: &TreePath) -> Result<Option<Vec<u8>>> {
        let target = spot.folder.read_link(&spot.name)?;
        let grounds = self.grounds(path)?;
        let Some(ground) = grounds.anchor(Permission::NONE) else { return Ok(None) };
        if !stays_inside(&spot.path, &target, &ground.place) {
            return Ok(None);
        }
        match ground.open(self.host(), path, How::Place) {
            Err(Errno::XDEV) => Ok(None),
            Ok(_) | Err(_) => Ok(Some(target)),
        }
    }

    /// Tells whether a path is a folder above something that the session may reach.
    pub(super) fn is_visible(&self, access: &TreeAccess, path: &TreePath) -> Result<bool> {
        if path.is_root() {
            return Ok(true);
        }
        for root in access.effective_grants().iter().filter(|root| root.path.starts_with(path)) {
            if base(self.host(), root, Pace::Patient)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the refusal of what is not allowed at a path, or was not found in the way that was tried: whether it
    /// can be seen decides.
    fn refusal(&self, grounds: &Grounds, path: &TreePath, tried: Option<(&Ground, How)>) -> Error {
        // A file where a folder is needed is missing, whichever root shows it.
        let how = if matches!(tried, Some((_, How::Folder))) { How::Folder } else { How::Place };
        let seen = match grounds.anchor(Permission::NONE) {
            Some(ground) if tried.is_some_and(|(tried, _)| tried.place == ground.place) => return Error::Absent,
            Some(ground) => match ground.open(self.host(), path, how) {
                Ok((place, _)) => place.stat().map(|stat| stat.kind.is_some()).map_err(Error::from),
                Err(error) if is_missing(error) => Ok(false),
                Err(error) => Err(error.into()),
            },
            None => self.is_visible(&grounds.access, path),
        };
        match seen {
            Ok(true) => Error::Forbidden,
            Ok(false) => Error::Absent,
            Err(error) => error,
        }
    }
}

impl Grounds {
    /// Returns all that is allowed.
    pub(super) fn permission(&self) -> Permission {
        self.grounds.iter().fold(Permission::NONE, |sum, ground| sum | ground.permission)
    }

    /// Tells whether one grant, and not two joined, allows `needed` here and at another path.
    pub(super) fn together(&self, other: &TreePath, needed: Permission) -> bool {
        let mut both = self.grounds.iter().filter(|ground| other.starts_with(&ground.place));
        both.any(|ground| ground.permission.allows(needed))
    }

    /// Returns the topmost place at which all of `needed` is allowed.
    pub(super) fn top(&self, needed: Permission) -> Option<&TreePath> {
        self.anchor(needed).map(|ground| &ground.place)
    }

    /// Returns the session's access as it was looked up.
    pub(super) fn access(&self) -> &Arc<TreeAccess> {
        &self.access
    }

    /// Returns the folder at a path, which is open already where it is the topmost place at which all of `needed`
    /// is allowed.
    fn folder_at(&self, path: &TreePath, needed: Permission) -> Option<(Folder, Stat)> {
        match self.anchor(needed)? {
            Ground { place, base: Base::Folder(folder, stat), .. } if place == path => {
                Some((folder.clone(), stat.clone()))
            }
            Ground { base: Base::Folder(..) | Base::Holder(_), .. } => None,
        }
    }

    /// Returns the topmost place at which all of `needed` (and anything at all) is allowed.
    fn anchor(&self, needed: Permission) -> Option<&Ground> {
        let sum = |place: &TreePath| {
            let above = self.grounds.iter().filter(|ground| place.starts_with(&ground.place));
            above.fold(Permission::NONE, |sum, ground| sum | ground.permission)
        };
        let fits = self.grounds.iter().filter(|ground| sum(&ground.place).allows(needed));
        fits.min_by_key(|ground| ground.place.as_bytes().len())
    }
}

impl Ground {
    fn open(&self, host: &Host, path: &TreePath, how: How) -> super::host::Result<(File, TreePath)> {
        let rest = path.strip_prefix(&self.place).ok_or(Errno::NOENT)?;
        match &self.base {
            Base::Folder(folder, _) => host.resolve(folder, &self.place, &rest, how),
            Base::Holder(folder) => match path.name() {
                Some(name) if rest.is_root() => folder.open(&name, how).map(|file| (file, path.clone())),
                Some(_) | None => Err(Errno::NOENT),
            },
        }
    }
}

impl Spot {
    /// Asks what stands there.
    pub(super) fn stat(&self) -> Result<Option<Stat>> {
        match self.folder.stat_entry(&self.name) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns where the folder is.
    pub(super) fn parent(&self) -> TreePath {
        self.path.parent().unwrap_or_default()
    }
}

/// Opens the place where a permission begins, if all that gives it stands.
fn base(host: &Host, root: &EffectiveGrant, pace: Pace) -> Result<Option<Base>> {
    let mut at_place = None;
    for reach in &root.sources {
        match stands(host, reach, pace) {
            Ok(Some(base)) if reach.path == root.path => at_place = Some(base),
            Ok(Some(_)) => {}
            Ok(None) => return Ok(None),
            Err(error) if is_missing(error) || error == Errno::ACCESS => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(at_place)
}

fn stands(host: &Host, reach: &ResolvedScope, pace: Pace) -> super::host::Result<Option<Base>> {
    match reach.identity {
        NodeIdentity::Directory { .. } => {
            let folder = host.folder_at(&reach.path, pace)?;
            let stat = folder.stat()?;
            Ok(reach.identity.matches(stat.folder_identity()).then_some(Base::Folder(folder, stat)))
        }
        NodeIdentity::File { .. } if pace == Pace::Cached => Err(Errno::AGAIN),
        NodeIdentity::File { inode, birth_time: born } => {
            let Some((parent, name)) = reach.path.split_last() else { return Ok(None) };
            let holder = host.folder(&parent)?;
            let held = (NodeIdentity::Directory { inode, birth_time: born }).matches(holder.stat()?.folder_identity());
            let stands = held && holder.stat_entry(&name)?.kind == Some(Kind::File);
            Ok(stands.then_some(Base::Holder(holder)))
        }
    }
}

/// Tells whether an error says that nothing is there, or nothing that a session could be shown.
fn is_missing(error: Errno) -> bool {
    matches!(Error::from(error), Error::Absent)
}

/// Tells whether a link's text, read from where the link is, stays at or below `top`.
pub(super) fn stays_inside(link: &TreePath, target: &[u8], top: &TreePath) -> bool {
    if target.starts_with(b"/") || target.is_empty() || target.contains(&0) {
        return false;
    }
    let mut depth = link.depth().saturating_sub(1).checked_sub(top.depth());
    for part in target.split(|&b| b == b'/') {
        depth = match (part, depth) {
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
