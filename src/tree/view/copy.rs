//! Copying: into staging, in as long as it takes, and from there to its place in one step.

use super::links::{climbs_first, may_lead};
use super::tree_sync::is_synced_at_once;
use super::{Claim, Overwrite, View};
use crate::domain::{EntryName, Permission, TreeOperation, TreePath};
use crate::tree::check::{Spot, stays_inside};
use crate::tree::handle_access::HandleAccess;
use crate::tree::host::{Errno, File, Folder, How, Staged, Stat};
use crate::tree::index::Change;
use crate::tree::{Error, Kind, Result};

/// How much is copied between two looks at whether the session lives.
const BLOCK: usize = 8 << 20;

impl View {
    /// Copies a file, or a folder with all in it (`deep`) or without (an empty folder), with dead
    /// properties; the copy appears in one step. Returns whether something was replaced.
    ///
    /// Sockets and devices are left out, and links that are absolute or lead out of the folder.
    ///
    /// # Errors
    /// [`Error::Absent`], [`Error::NoParent`], [`Error::Exists`], [`Error::Forbidden`], [`Error::Overlap`],
    /// [`Error::Locked`], [`Error::NoSpace`], [`Error::PathTooLong`]; [`Error::TooLarge`], [`Error::WrongType`] and [`Error::WrongTag`] for
    /// anything in it.
    pub fn copy(
        &self,
        from: &TreePath,
        to: &TreePath,
        deep: bool,
        overwrite: Overwrite,
        claim: &Claim<'_>,
    ) -> Result<bool> {
        let source = self.open_for(TreeOperation::Copy, from, How::Place)?;
        if deep && source.stat.is_folder() {
            self.host().verify_below(&source.path)?;
        }
        let target = self.spot(to)?;
        let into_itself = deep && target.path.starts_with(&source.path);
        if into_itself || source.path.starts_with(&target.path) {
            return Err(Error::Overlap);
        }
        self.may_replace(&target, overwrite, claim)?;
        self.may_copy_tags(&source.path, deep)?;
        self.shared().index.may_copy_properties(&source.path, &target.path, self.session().login(), deep)?;
        let work = Work {
            view: self,
            access: HandleAccess::new(self, source.path.clone(), Permission::R)?,
            target: target.path.clone(),
            same: false,
            moved: None,
            blind: false,
        };
        let staging = self.staging(&target)?;
        let staged = if source.stat.is_folder() {
            let staged = staging.make_folder()?;
            let copy = work.folder(&source.file.into(), &source.stat, &staged, deep)?;
            if self.is_full() {
                self.sync_tree(&copy)?;
            }
            staged
        } else {
            let file = self.open(from, Permission::R, How::Read)?;
            let (copy, staged) = staging.make_file()?;
            work.file(&file.file, &file.stat, &copy, &target.name)?;
            if self.is_full() {
                copy.sync()?;
            }
            staged
        };
        let names = self.shared().names.hold(&[&target.path]);
        let steady = self.shared().locks.steady();
        let replaced = self.may_replace(&target, overwrite, claim)?;
        let folders = source.stat.is_folder() || replaced.as_ref().is_some_and(Stat::is_folder);
        let change = match folders && replaced.is_some() {
            true => Some(self.shared().index.begin_remove(&target.path)?),
            false => None,
        };
        let put = || self.put(staged, source.stat.is_folder(), &target, replaced.as_ref(), overwrite);
        let old = self.shared().tags.replacing(replaced.as_ref(), 0, put)?;
        self.sync_names(&target.folder)?;
        change.map_or(Ok(()), Change::finish)?;
        old.into_iter().for_each(|old| self.shared().removals.begin(old));
        self.shared().locks.forget_below(&target.path);
        drop((steady, names));
        self.shared().index.copy_properties(&source.path, &target.path, self.session().login(), deep)?;
        Ok(replaced.is_some())
    }

    /// Puts what is staged in its place, under the name's commit lock. Folders that are replaced, or
    /// replace, change places with the staged: returns then what waits there now to be removed.
    pub(super) fn put(
        &self,
        mut staged: Staged,
        folder: bool,
        target: &Spot,
        replaced: Option<&Stat>,
        overwrite: Overwrite,
    ) -> Result<Option<Staged>> {
        let Some(old) = replaced else {
            return staged.put_new(&target.folder, &target.name).map_err(Error::putting).map(|()| None);
        };
        if overwrite == Overwrite::Posix || !(folder || old.is_folder()) {
            return staged.put(&target.folder, &target.name).map_err(Error::putting).map(|()| None);
        }
        self.put_for(staged, target)
    }

    /// Puts what is staged in the place of what stands there, and returns that, under the name's commit lock.
    pub(super) fn put_for(&self, mut staged: Staged, target: &Spot) -> Result<Option<Staged>> {
        match staged.exchange(&target.folder, &target.name) {
            Ok(()) => Ok(Some(staged)),
            // What stood there has gone behind the gateway's back.
            Err(Errno::NOENT) => staged.put_new(&target.folder, &target.name).map_err(Error::putting).map(|()| None),
            // The file system has no such rename: the next best is two.
            Err(Errno::INVAL | Errno::NOSYS) => {
                let staging = self.staging(target)?;
                let put = || staged.put_new(&target.folder, &target.name);
                staging.replace(&target.folder, &target.name, &target.path, put).map(Some).map_err(Error::putting)
            }
            Err(error) => Err(Error::putting(error)),
        }
    }
}

/// A move by copying.
pub(super) struct Moved {
    pub(super) from: TreePath,
    pub(super) to: TreePath,
    /// Topmost place around the target at which the session may write.
    pub(super) top: TreePath,
}

/// A copy under way.
pub(super) struct Work<'a> {
    pub(super) view: &'a View,
    pub(super) access: HandleAccess,
    /// Where the copy will stand.
    pub(super) target: TreePath,
    /// Whether it is to be the same: times kept, links as they are, nothing left out.
    pub(super) same: bool,
    /// Where it is moved from and to; none for a copy, whose links are new ones.
    pub(super) moved: Option<Moved>,
    /// Whether the session may not read what moves: then nothing in it is judged, which would tell of it.
    pub(super) blind: bool,
}

impl Work<'_> {
    fn judge(&self, rule: impl FnOnce() -> Result<()>) -> Result<()> {
        if self.blind { Ok(()) } else { rule() }
    }

    /// Copies a file that will be called `name`.
    pub(super) fn file(&self, from: &File, stat: &Stat, to: &File, name: &EntryName) -> Result<()> {
        self.judge(|| self.view.may_hold(stat.size).and_then(|()| self.view.fits_name(name)))?;
        let mut offset = 0;
        loop {
            self.view.cancellation().check()?;
            self.access.check(from)?;
            match from.copy_to(to, offset, BLOCK)? {
                0 => break,
                count => offset += count as u64,
            }
            self.judge(|| self.view.may_hold(offset))?;
        }
        self.judge(|| self.view.fits(name, to))?;
        to.set_mode(stat.mode & 0o777)?;
        if self.same {
            to.set_owner(Some(stat.uid), Some(stat.gid));
            let modified = self.view.shared().tags.modified(stat)?;
            return self.view.shared().tags.set_times(to, Some(modified), Some(stat.accessed));
        }
        self.view.shared().tags.set_times(to, Some(self.view.shared().tags.fresh(None)), None)
    }

    /// Copies a folder into one that is staged, a folder at a time, so that no depth needs more than a few
    /// open handles. Returns the copy.
    pub(super) fn folder(&self, from: &Folder, stat: &Stat, staged: &Staged, deep: bool) -> Result<Folder> {
        let (staging, name) = staged.place();
        let to = staging.folder(&TreePath::root().child(name))?;
        let mut left = if deep { vec![TreePath::root()] } else { Vec::new() };
        while let Some(below) = left.pop() {
            self.entries(from, &to, &below, &mut left)?;
        }
        self.dress(&to, stat)?;
        Ok(to)
    }

    fn entries(&self, from: &Folder, to: &Folder, below: &TreePath, left: &mut Vec<TreePath>) -> Result<()> {
        let (from, to) = (from.folder(below)?, to.folder(below)?);
        let mut names = if self.same { from.all_names()? } else { from.names()? };
        loop {
            let block = names.block()?;
            if block.is_empty() {
                return Ok(());
            }
            self.access.check(&names)?;
            for name in block {
                self.view.cancellation().check()?;
                self.entry(&from, &to, &name, below, left)?;
            }
        }
    }

    fn entry(
        &self,
        from: &Folder,
        to: &Folder,
        name: &EntryName,
        below: &TreePath,
        left: &mut Vec<TreePath>,
    ) -> Result<()> {
        let stat = match from.stat_entry(name) {
            Err(Errno::NOENT) => return Ok(()),
            stat => stat?,
        };
        let place = below.child(name);
        if !self.target.can_hold(&place) {
            return Err(Error::PathTooLong);
        }
        match stat.kind {
            Some(Kind::File) => {
                let (file, copy) = (from.open(name, How::Read)?, to.make_file(name, 0o600)?);
                let stat = file.stat()?;
                self.file(&file, &stat, &copy, name)?;
                if self.view.is_full() && is_synced_at_once(stat.mode) {
                    copy.sync()?;
                }
                Ok(())
            }
            Some(Kind::Folder) => {
                to.make_folder(name, 0o700)?;
                self.dress(&to.folder(&TreePath::root().child(name))?, &stat)?;
                left.push(place);
                Ok(())
            }
            Some(Kind::Link) => {
                self.judge(|| self.view.fits_name(name))?;
                let target = from.read_link(name)?;
                if self.keeps_link(&place, &target)? {
                    to.symlink(&target, name)?;
                }
                Ok(())
            }
            None if self.same => Err(Error::Unsupported),
            None => Ok(()),
        }
    }

    /// Tells whether the copy gets a link that stands at a place below the source; refuses one that may not be moved.
    fn keeps_link(&self, place: &TreePath, target: &[u8]) -> Result<bool> {
        match &self.moved {
            Some(moved) if may_lead(target, &moved.from.join(place), &moved.to.join(place), &moved.top) => Ok(true),
            Some(_) => Err(Error::Forbidden),
            None => Ok(climbs_first(target) && stays_inside(place, target, &TreePath::root())),
        }
    }

    /// Gives a copied folder its mode; whoever runs the server always keeps the way in.
    fn dress(&self, folder: &Folder, stat: &Stat) -> Result<()> {
        Ok(folder.set_mode(stat.mode & 0o777 | 0o700)?)
    }
}
