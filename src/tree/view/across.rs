//! Moving an entry to another file system: a whole copy takes the target's place, then the source goes.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::copy::{Moved, Work};
use super::{Claim, Overwrite, View};
use crate::domain::{EntryName, Permission, TreePath};
use crate::tree::check::Spot;
use crate::tree::handle_access::HandleAccess;
use crate::tree::host::{Folder, How, Staged, Staging, Stat};
use crate::tree::{Error, Kind, Result};

/// What is to move, copied into staging.
pub(super) struct Copied {
    staged: Staged,
    /// What the entry was, and all in it.
    stat: Stat,
    sum: u64,
}

/// What has become of a source.
enum Left {
    /// It waits to be removed.
    Gone(Staged),
    /// It stands where it was.
    Back(Error),
}

impl View {
    /// Moves an entry to another file system, of which all else is allowed already.
    pub(super) fn move_across(
        &self,
        source: &Spot,
        stat: &Stat,
        target: &Spot,
        overwrite: Overwrite,
        claim: &Claim<'_>,
    ) -> Result<bool> {
        if stat.is_folder() && self.host().holds_mounts(&source.path)? {
            return Err(Error::Forbidden);
        }
        if stat.is_folder() {
            // What is staged for it can't follow it.
            self.shared().uploads.check(self.host(), &source.path)?;
        }
        let copied = self.copy_across(source, stat, target)?;
        self.arrive(copied, source, target, overwrite, claim)
    }

    /// Puts a copy in the place of its target and removes the source, if that is still what was copied.
    pub(super) fn arrive(
        &self,
        copied: Copied,
        source: &Spot,
        target: &Spot,
        overwrite: Overwrite,
        claim: &Claim<'_>,
    ) -> Result<bool> {
        let Copied { staged, stat, sum } = copied;
        let leaving = self.staging(source)?;
        // Not under the locks: that takes long in a large folder, and everybody would wait.
        if self.sum(source, &stat)? != sum {
            return Err(Error::Precondition);
        }
        let names = self.shared().names.hold(&[&source.path, &target.path]);
        let steady = self.shared().locks.steady();
        let moving = self.may_move(source, target, overwrite, claim)?;
        if self.number(&TreePath::root(), &moving.moved) != self.number(&TreePath::root(), &stat) {
            return Err(Error::Precondition);
        }
        // Before the change begins: nothing is named while it is under way.
        self.shared().index.prepare_move(&source.path, &target.path, self.session().login())?;
        let change = self.shared().index.begin_copy(&source.path, &target.path, staged.stat()?.entity())?;
        let effect = self.shared().link_moves.exclusive();
        // The links of the copy were judged for this place.
        if self.host().whereabouts(&target.folder).as_ref() != Some(&target.parent()) {
            return Err(Error::NoParent);
        }
        let old = match &moving.replaced {
            Some(old) => self.put_keeping(staged, stat.is_folder(), target, old, overwrite)?,
            None => self.put(staged, stat.is_folder(), target, None, overwrite)?,
        };
        effect.arrived(&target.path);
        // What was replaced may come back, and its links with it: until then nothing above it moves.
        let pinned = effect.pin(&target.path);
        drop(effect);
        self.sync_names(&target.folder)?;
        let left = match self.leave(&leaving, source, &stat, sum)? {
            Left::Gone(left) => left,
            Left::Back(error) => {
                self.take_back(target, old)?;
                return Err(error);
            }
        };
        self.sync_names(&source.folder)?;
        drop(pinned);
        change.finish()?;
        old.into_iter().chain([left]).for_each(|staged| self.shared().removals.begin(staged));
        self.shared().locks.forget(&source.path);
        self.shared().locks.forget_below(&target.path);
        drop((steady, names));
        Ok(moving.replaced.is_some())
    }

    /// Puts a copy in the place of what stands at its target, as `overwrite` asks, and returns that: it is to be had
    /// back until the source is gone.
    fn put_keeping(
        &self,
        staged: Staged,
        folder: bool,
        target: &Spot,
        replaced: &Stat,
        overwrite: Overwrite,
    ) -> Result<Option<Staged>> {
        if overwrite != Overwrite::Posix {
            return self.put_for(staged, target);
        }
        let below = |name| TreePath::root().child(name);
        match (folder, replaced.is_folder()) {
            (false, true) => return Err(Error::IsFolder),
            (true, false) => return Err(Error::NotFolder),
            (true, true) if !target.folder.folder(&below(&target.name))?.is_empty()? => return Err(Error::NotEmpty),
            (true, true) | (false, false) => {}
        }
        let old = self.put_for(staged, target)?;
        // Something may have come into an empty folder since.
        if folder && let Some(staged) = &old {
            let (staging, name) = staged.place();
            if !staging.folder(&below(name))?.is_empty()? {
                self.take_back(target, old)?;
                return Err(Error::NotEmpty);
            }
        }
        Ok(old)
    }

    /// Takes the source away, of which a copy stands in its place. A folder is looked at once more where nothing
    /// comes to it any longer: it goes back if it isn't what was copied. An error says that it could not.
    fn leave(&self, leaving: &Arc<Staging>, source: &Spot, stat: &Stat, sum: u64) -> Result<Left> {
        if !stat.is_folder() {
            let left = leaving.take(&source.folder, &source.name);
            return Ok(left.map_or_else(|error| Left::Back(error.into()), Left::Gone));
        }
        let left = match leaving.set_aside(&source.folder, &source.name, &source.path) {
            Ok(left) => left,
            Err(error) => return Ok(Left::Back(error.into())),
        };
        let (folder, name) = left.place();
        let error = match self.sum_of(folder, name, stat) {
            Ok(now) if now == sum => return Ok(Left::Gone(left.let_go())),
            changed => changed.err().unwrap_or(Error::Precondition),
        };
        left.put_back(&source.folder, &source.name)?;
        Ok(Left::Back(error))
    }

    /// Copies into staging what is to move, as it is.
    pub(super) fn copy_across(&self, source: &Spot, stat: &Stat, target: &Spot) -> Result<Copied> {
        let sum = self.sum(source, stat)?;
        let access = HandleAccess::new(self, source.path.clone(), Permission::W)?;
        let top = self.link_top(target)?;
        if stat.kind == Some(Kind::Link) {
            self.judge_link(source, &target.path, &top)?;
        }
        let moved = Some(Moved { from: source.path.clone(), to: target.path.clone(), top });
        let goes_to = target.path.clone();
        let work = Work {
            view: self,
            access,
            target: goes_to,
            same: true,
            moved,
            blind: !source.permission.allows(Permission::R),
        };
        let staging = self.staging(target)?;
        let staged = match stat.kind {
            Some(Kind::Folder) => {
                let staged = staging.make_folder()?;
                let folder = source.folder.folder(&TreePath::root().child(&source.name))?;
                let copy = work.folder(&folder, stat, &staged, true)?;
                if self.is_full() {
                    self.sync_tree(&copy)?;
                }
                staged
            }
            // On disk with the directory that it is put in.
            Some(Kind::Link) => staging.make_link(&source.folder.read_link(&source.name)?)?,
            Some(Kind::File) => {
                let (copy, staged) = staging.make_file()?;
                work.file(&source.folder.open(&source.name, How::Read)?, stat, &copy, &target.name)?;
                if self.is_full() {
                    copy.sync()?;
                }
                staged
            }
            None => return Err(Error::Unsupported),
        };
        Ok(Copied { staged, stat: stat.clone(), sum })
    }

    /// Returns a number that is another once anything in an entry has changed: what is there and its content.
    fn sum(&self, source: &Spot, stat: &Stat) -> Result<u64> {
        self.sum_of(&source.folder, &source.name, stat)
    }

    fn sum_of(&self, folder: &Folder, name: &EntryName, stat: &Stat) -> Result<u64> {
        let mut sum = self.number(&TreePath::root(), stat);
        if stat.is_folder() {
            let top = folder.folder(&TreePath::root().child(name))?;
            self.each_below(&top, |_, below, name, stat| {
                sum = sum.wrapping_add(self.number(&below.child(name), stat));
                Ok(())
            })?;
        }
        Ok(sum)
    }

    fn number(&self, place: &TreePath, stat: &Stat) -> u64 {
        let mut hasher = DefaultHasher::new();
        let tag = (stat.kind == Some(Kind::File)).then(|| self.shared().tags.of(stat).bytes());
        (place.as_bytes(), stat.inode, tag).hash(&mut hasher);
        hasher.finish()
    }

    /// Takes a copy back that was put at a target, where what it replaced stands then again.
    fn take_back(&self, target: &Spot, old: Option<Staged>) -> Result<()> {
        let copy = match old {
            Some(old) => self.put_for(old, target)?,
            None => Some(self.staging(target)?.take(&target.folder, &target.name)?),
        };
        copy.into_iter().for_each(|copy| self.shared().removals.begin(copy));
        self.sync_names(&target.folder)
    }
}
