//! Operations that make, change and remove.

use std::sync::Arc;

use super::{Claim, EditMode, View};
use crate::domain::{Permission, TreeOperation, TreePath};
use crate::tree::check::{Found, Spot};
use crate::tree::handle_access::HandleAccess;
use crate::tree::host::{File, How, Stat};
use crate::tree::tag::keep;
use crate::tree::{Attributes, Editor, Entry, Error, Kind, PropertyChange, Result, Upload};

impl View {
    /// Begins an upload that will replace or make a file when it is committed. `size` is the length
    /// that was announced, if any: too large and no space are refused at once.
    ///
    /// # Errors
    /// [`Error::NoParent`], [`Error::Forbidden`], [`Error::IsFolder`], [`Error::Locked`],
    /// [`Error::TooLarge`], [`Error::WrongType`] for the name alone, [`Error::NoSpace`].
    pub fn stage(&self, path: &TreePath, size: Option<u64>, claim: &Claim<'_>) -> Result<Upload> {
        let (spot, stat) = self.writable(path)?;
        self.unlocked_put(&spot, stat.as_ref(), claim)?;
        self.fits_name(&spot.name)?;
        // The commit is a rename in this folder: better refused now than when all has been sent.
        spot.folder.may_change_names()?;
        if let Some(size) = size {
            self.may_hold(size)?;
            if size > 0 && size > spot.folder.space()?.available {
                return Err(Error::NoSpace);
            }
        }
        Upload::begin(self, path, &spot, stat.as_ref(), claim)
    }

    /// Opens a file to be written: in place, or, where the token limits types, as a copy that takes its
    /// place when it is closed. Whether that fits would tell of content that is kept: it has to be one that may be
    /// read, so that a drop box takes whole files alone from such a token.
    ///
    /// # Errors
    /// As [`View::stage`]; [`Error::Forbidden`] for content that may not be read; [`Error::Absent`] unless it may be made, [`Error::Exists`] where it must be.
    pub fn edit(&self, path: &TreePath, mode: EditMode, claim: &Claim<'_>) -> Result<Editor> {
        let (spot, stat) = match self.writable(path) {
            Err(Error::NoParent) if !mode.create => return Err(Error::Absent),
            // Where nothing may be made, what is not there is missing rather than forbidden.
            Err(Error::Forbidden) if !mode.create => {
                return Err(self.link_stat(path).err().unwrap_or(Error::Forbidden));
            }
            place => place?,
        };
        let is_file = |stat: &Option<Stat>| stat.as_ref().is_some_and(|stat| stat.kind == Some(Kind::File));
        if !mode.create && !is_file(&stat) {
            return Err(Error::Absent);
        }
        if mode.read && !spot.permission.allows(Permission::RW) {
            return Err(Error::Forbidden);
        }
        // A link that leads nowhere exists, too (open(2), O_EXCL).
        if mode.exclusive && self.spot(path)?.stat()?.is_some() {
            return Err(Error::Exists);
        }
        let name = self.shared().names.hold(&[&spot.path]);
        let steady = self.shared().locks.steady();
        let stat = spot.stat()?;
        if stat.is_some() && mode.exclusive {
            return Err(Error::Exists);
        }
        self.may_put(&spot, stat.as_ref(), claim)?;
        if let Some(file) = stat.as_ref().filter(|stat| stat.kind == Some(Kind::File) && stat.links > 1) {
            self.unlocked_links(file, &spot.path, claim.tokens)?;
        }
        self.fits_name(&spot.name)?;
        let copies = self.limits_types();
        let blind = copies && !spot.permission.allows(Permission::RW);
        if blind && !mode.truncate && stat.as_ref().is_some_and(|stat| stat.size > 0) {
            return Err(Error::Forbidden);
        }
        let how = if mode.read || copies { How::Both } else { How::Write };
        // Its place among open files comes before the file is made.
        let access = match copies {
            true => None,
            false => {
                let needed = if mode.read { Permission::RW } else { Permission::W };
                Some(HandleAccess::new(self, spot.path.clone(), needed)?)
            }
        };
        let file = match stat.map(|stat| stat.kind) {
            Some(Some(Kind::File)) => spot.folder.open(&spot.name, how)?,
            Some(Some(Kind::Folder | Kind::Link) | None) => return Err(Error::Forbidden),
            None if !mode.create => return Err(Error::Absent),
            None => {
                let file = spot.folder.make_file(&spot.name, self.host().masked(mode.mode.unwrap_or(0o666)))?;
                self.shared().tags.set_times(&file, Some(self.shared().tags.fresh(None)), None)?;
                self.sync_names(&spot.folder)?;
                file
            }
        };
        let found = Found { stat: file.stat()?, file, path: spot.path.clone(), permission: spot.permission };
        if let Some(access) = access {
            return Editor::in_place(self, path, (found, access), mode, claim);
        }
        drop((steady, name));
        // Nothing is kept of what came into an empty file meanwhile.
        let mode = EditMode { truncate: mode.truncate || blind, ..mode };
        Editor::copy(self, path, &spot, found, mode, claim)
    }

    /// Makes a folder.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::NoParent`], [`Error::Forbidden`], [`Error::Locked`].
    pub fn make_folder(&self, path: &TreePath, attributes: &Attributes, claim: &Claim<'_>) -> Result<Entry> {
        self.with_new_folder(path, claim, |spot| {
            let mode = self.host().masked(attributes.mode.unwrap_or(0o777));
            spot.folder.make_folder(&spot.name, mode).map_err(Error::putting)?;
            let place = spot.folder.open(&spot.name, How::Folder)?;
            if attributes.modified.is_some() || attributes.accessed.is_some() {
                place.set_times_exactly(attributes.modified, attributes.accessed).inspect_err(|_| {
                    if let Err(error) = spot.folder.remove_folder(&spot.name) {
                        tracing::warn!(path = %spot.path, %error, "a folder whose times could not be kept is left");
                    }
                })?;
            }
            self.sync_names(&spot.folder)?;
            Ok(self.entry(path, &place.stat()?, spot.permission))
        })
    }

    /// Lets a folder be made and its properties be set, and makes none.
    ///
    /// # Errors
    /// As [`View::make_folder`]; [`Error::WrongTag`].
    pub fn may_make_folder(&self, path: &TreePath, changes: &[PropertyChange], claim: &Claim<'_>) -> Result<()> {
        self.with_new_folder(path, claim, |spot| match spot.stat()? {
            Some(_) => Err(Error::Exists),
            None => self.may_change(changes),
        })
    }

    /// Runs the making of a folder while rights, locks and conditions allow it.
    fn with_new_folder<T>(
        &self,
        path: &TreePath,
        claim: &Claim<'_>,
        make: impl FnOnce(&Spot) -> Result<T>,
    ) -> Result<T> {
        let spot = match self.spot_with(path, TreeOperation::Create.permission()) {
            // As mkdir(2): that something is there is told before that nothing may be made.
            Err(Error::Forbidden) if self.link_stat(path).is_ok() => return Err(Error::Exists),
            Err(error) => {
                self.tell(TreeOperation::Create, path);
                return Err(error);
            }
            Ok(spot) => spot,
        };
        let _name = self.shared().names.hold(&[&spot.path]);
        let _steady = self.shared().locks.steady();
        self.may_put(&spot, None, claim)?;
        make(&spot)
    }

    /// Removes a file or link (not what the link leads to).
    ///
    /// # Errors
    /// [`Error::Absent`], [`Error::IsFolder`], [`Error::Forbidden`], [`Error::Locked`].
    pub fn remove_file(&self, path: &TreePath, claim: &Claim<'_>) -> Result<()> {
        self.remove(path, claim, |spot, stat| match stat.kind {
            Some(Kind::Folder) => Err(Error::IsFolder),
            Some(Kind::File | Kind::Link) | None => Ok(spot.folder.unlink(&spot.name)?),
        })
    }

    /// Removes an empty folder.
    ///
    /// # Errors
    /// As [`View::remove_file`]; [`Error::NotFolder`], [`Error::NotEmpty`].
    pub fn remove_folder(&self, path: &TreePath, claim: &Claim<'_>) -> Result<()> {
        self.remove(path, claim, |spot, stat| match stat.kind {
            Some(Kind::Folder) => {
                let remove = || Ok(spot.folder.remove_folder(&spot.name)?);
                self.shared().uploads.remove_empty(stat, remove)
            }
            Some(Kind::File | Kind::Link) | None => Err(Error::NotFolder),
        })
    }

    /// Removes a file, a link, or a folder with all in it, in one step.
    ///
    /// # Errors
    /// [`Error::Absent`]; [`Error::Locked`], with a lock anywhere in it; [`Error::Forbidden`], also when a
    /// file system is mounted in it.
    pub fn remove_all(&self, path: &TreePath, claim: &Claim<'_>) -> Result<()> {
        self.remove(path, claim, |spot, stat| match stat.kind {
            Some(Kind::Folder) if self.host().holds_mounts(&spot.path)? => Err(Error::Forbidden),
            Some(Kind::Folder) => {
                let staging = self.staging(spot)?;
                let take = || Ok(staging.take(&spot.folder, &spot.name)?);
                let staged = self.shared().uploads.remove_all(self.host(), &spot.path, take)?;
                self.shared().removals.begin(staged);
                Ok(())
            }
            Some(Kind::File | Kind::Link) | None => Ok(spot.folder.unlink(&spot.name)?),
        })
    }

    fn remove(
        &self,
        path: &TreePath,
        claim: &Claim<'_>,
        effect: impl FnOnce(&Spot, &Stat) -> Result<()>,
    ) -> Result<()> {
        let (spot, _) = self.removable(TreeOperation::Delete, path)?;
        let _name = self.shared().names.hold(&[&spot.path]);
        let _steady = self.shared().locks.steady();
        self.unlocked(&spot.parent(), claim.tokens)?;
        self.unlocked_all(&spot.path, claim.tokens)?;
        (claim.judge)()?;
        let stat = spot.stat()?.ok_or(Error::Absent)?;
        let change = self.shared().index.begin_remove(&spot.path)?;
        effect(&spot, &stat)?;
        self.sync_names(&spot.folder)?;
        change.finish()?;
        self.shared().locks.forget(&spot.path);
        Ok(())
    }

    /// Sets attributes; a link is followed unless `follow` is false. A size is on disk where durability asks for it, times
    /// and mode when the host likes: SFTP clients set them of every file, and ask for FSYNC where it matters.
    ///
    /// # Errors
    /// [`Error::Absent`], [`Error::Forbidden`], [`Error::Locked`], [`Error::TooLarge`];
    /// [`Error::Unsupported`] for what a link itself doesn't have.
    pub fn set_attributes(
        &self,
        path: &TreePath,
        attributes: &Attributes,
        follow: bool,
        claim: &Claim<'_>,
    ) -> Result<()> {
        if !follow && self.link_stat(path)?.kind == Kind::Link {
            return self.set_link_attributes(path, attributes, claim);
        }
        self.change_together(path, &[], attributes, claim).map(drop)
    }

    fn set_link_attributes(&self, path: &TreePath, attributes: &Attributes, claim: &Claim<'_>) -> Result<()> {
        let spot = self.spot(path)?;
        let _name = self.shared().names.hold(&[&spot.path]);
        let _steady = self.shared().locks.steady();
        self.unlocked(&spot.path, claim.tokens)?;
        (claim.judge)()?;
        if attributes.mode.is_some() || attributes.size.is_some() {
            return Err(Error::Unsupported);
        }
        let link = spot.folder.open(&spot.name, How::Itself)?;
        Ok(link.set_place_times(attributes.modified, attributes.accessed)?)
    }

    /// Sets the attributes of what was found. A time that is set keeps the tag, unless the size changes too.
    pub(super) fn apply(&self, found: &Found, attributes: &Attributes) -> Result<()> {
        let mut stat = found.stat.clone();
        if let Some(size) = attributes.size {
            if size > stat.size {
                self.may_hold(size)?;
            }
            let judged = self.limits_types();
            let how = if judged { How::Both } else { How::Write };
            let again = self.open(&found.path, Permission::W, how)?;
            if judged && size > 0 && !again.permission.allows(Permission::RW) {
                return Err(Error::Forbidden);
            }
            if !again.stat.is_same(&stat) {
                return Err(Error::Absent);
            }
            if let (true, Some(name)) = (judged, found.path.name()) {
                self.fits_type(&name, &again.file, size)?;
            }
            // What has the size already keeps its content, and so its tag.
            if again.stat.size != size {
                stat = self.cut(&Arc::new(again.file), &stat, size)?;
            }
        }
        if let Some(mode) = attributes.mode {
            let kept = if stat.is_folder() { stat.mode & 0o7000 } else { 0 };
            found.file.set_place_mode(mode & 0o777 | kept)?;
        }
        if attributes.modified.is_some() || attributes.accessed.is_some() {
            self.shared().tags.while_not_settling(&stat, || {
                let tags = &self.shared().tags;
                let now = tags.modified(&found.file.stat()?)?;
                let tagged = |wanted| if stat.is_folder() { wanted } else { keep(now, wanted) };
                let modified = attributes.modified.map(tagged);
                found.file.set_times_exactly(modified, attributes.accessed)?;
                tags.note_time(&found.file, modified.filter(|_| !stat.is_folder()))
            })?;
        }
        Ok(())
    }

    fn cut(&self, file: &Arc<File>, stat: &Stat, size: u64) -> Result<Stat> {
        let edit = self.shared().tags.edit(file, stat);
        edit.change(|| Ok(()), || file.truncate(size))?;
        edit.settle()?;
        if self.is_full() {
            file.sync()?;
        }
        Ok(file.stat()?)
    }

    /// Makes a hard link to a file.
    ///
    /// # Errors
    /// [`Error::Absent`], [`Error::NoParent`], [`Error::Exists`], [`Error::IsFolder`], [`Error::Locked`];
    /// [`Error::Forbidden`], also when source and new folder are not under one grant.
    pub fn hard_link(&self, from: &TreePath, to: &TreePath, claim: &Claim<'_>) -> Result<()> {
        let source = self.open_for(TreeOperation::Link, from, How::Place)?;
        let spot = self.may_link(&source.path, &source.stat, to, claim)?;
        if self.limits_types() {
            self.fits(&spot.name, &self.open(from, Permission::RW, How::Read)?.file)?;
        }
        let _names = self.shared().names.hold(&[&source.path, &spot.path]);
        let _steady = self.shared().locks.steady();
        self.unlocked(&source.path, claim.tokens)?;
        self.may_put(&spot, None, claim)?;
        source.file.link(&spot.folder, &spot.name).map_err(Error::putting)?;
        self.sync_names(&spot.folder)
    }

    /// Lets a file that stands at a canonical path, or will, get another name.
    ///
    /// # Errors
    /// As [`View::hard_link`].
    pub(in crate::tree) fn may_link(
        &self,
        from: &TreePath,
        source: &Stat,
        to: &TreePath,
        claim: &Claim<'_>,
    ) -> Result<Spot> {
        if source.is_folder() {
            return Err(Error::IsFolder);
        }
        let spot = self.spot(to)?;
        if !self.grounds(from)?.together(&spot.path, Permission::RW) {
            return Err(Error::Forbidden);
        }
        self.may_hold(source.size)?;
        self.unlocked(from, claim.tokens)?;
        self.unlocked_put(&spot, None, claim)?;
        if spot.stat()?.is_some() { Err(Error::Exists) } else { Ok(spot) }
    }

    /// Makes a symbolic link whose target is relative, climbs first and stays inside (see [`super::links`]).
    ///
    /// # Errors
    /// [`Error::Forbidden`] when it doesn't, or nothing may be made there; [`Error::NoParent`],
    /// [`Error::Exists`], [`Error::Locked`].
    pub fn symlink(&self, target: &[u8], path: &TreePath, claim: &Claim<'_>) -> Result<()> {
        let spot = self.spot(path)?;
        self.may_make_link(&spot, target)?;
        let _name = self.shared().names.hold(&[&spot.path]);
        let _steady = self.shared().locks.steady();
        self.fits_name(&spot.name)?;
        self.may_put(&spot, None, claim)?;
        self.make_link(&spot, target)?;
        self.sync_names(&spot.folder)
    }

    /// Lets something be put at a spot, of which `replaced` stands there: to be asked under the name's
    /// commit lock, just before.
    pub(in crate::tree) fn may_put(&self, spot: &Spot, replaced: Option<&Stat>, claim: &Claim<'_>) -> Result<()> {
        match replaced.map(|stat| stat.kind) {
            Some(Some(Kind::Folder)) => return Err(Error::IsFolder),
            Some(None) => return Err(Error::Forbidden),
            None if spot.fixed => return Err(Error::Absent),
            Some(Some(Kind::File | Kind::Link)) | None => {}
        }
        self.unlocked_put(spot, replaced, claim)?;
        (claim.judge)()
    }

    /// Lets something be put at a spot as far as locks go.
    pub(in crate::tree) fn unlocked_put(&self, spot: &Spot, replaced: Option<&Stat>, claim: &Claim<'_>) -> Result<()> {
        if replaced.is_none() {
            self.unlocked(&spot.parent(), claim.tokens)?;
        }
        self.unlocked(&spot.path, claim.tokens)
    }
}
