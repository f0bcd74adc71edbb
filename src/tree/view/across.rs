//! Moving an entry to another file system: a whole copy takes the target's place, then the source goes.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::copy::Work;
use super::{Claim, Overwrite, View};
use crate::domain::{Permission, TreePath};
use crate::tree::check::Spot;
use crate::tree::handles::Hold;
use crate::tree::host::{How, Staged, Stat};
use crate::tree::{Error, Kind, Result};

/// What is to move, copied into staging.
pub(super) struct Copied {
    staged: Staged,
    /// What the entry was, and all in it.
    stat: Stat,
    sum: u64,
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
        if stat.is_folder() && self.host().holds_mounts(&source.path) {
            return Err(Error::Forbidden);
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
        let change = self.shared().index.begin_copy(&source.path, &target.path, staged.stat()?.entity())?;
        let old = self.put(staged, stat.is_folder(), target, moving.replaced.as_ref(), overwrite)?;
        self.sync_names(&target.folder)?;
        let left = match leaving.take(&source.folder, &source.name) {
            Ok(left) => left,
            Err(error) => {
                self.take_back(target, old, moving.replaced.as_ref())?;
                return Err(error.into());
            }
        };
        self.sync_names(&source.folder)?;
        change.finish()?;
        old.into_iter().chain([left]).for_each(|staged| self.shared().removals.begin(staged));
        self.shared().locks.forget(&source.path)?;
        self.shared().locks.forget_below(&target.path)?;
        drop((steady, names));
        Ok(moving.replaced.is_some())
    }

    /// Copies into staging what is to move, as it is.
    pub(super) fn copy_across(&self, source: &Spot, stat: &Stat, target: &Spot) -> Result<Copied> {
        let sum = self.sum(source, stat)?;
        let hold = Hold::new(self, source.path.clone(), Permission::W)?;
        let work = Work { view: self, hold, same: true, blind: !source.permission.allows(Permission::R) };
        let staging = self.staging(target)?;
        let staged = match stat.kind {
            Some(Kind::Folder) => {
                let staged = staging.make_folder()?;
                let folder = source.folder.folder(&TreePath::root().child(&source.name))?;
                work.folder(&folder, stat, &staged, true)?;
                staged
            }
            Some(Kind::Link) => staging.make_link(&source.folder.read_link(&source.name)?)?,
            Some(Kind::File) => {
                let (copy, staged) = staging.make_file()?;
                work.file(&source.folder.open(&source.name, How::Read)?, stat, &copy, &target.name)?;
                staged
            }
            None => return Err(Error::Unsupported),
        };
        if self.is_full() {
            staging.sync_all()?;
        }
        Ok(Copied { staged, stat: stat.clone(), sum })
    }

    /// Returns a number that is another once anything in an entry has changed: what is there and its content.
    fn sum(&self, source: &Spot, stat: &Stat) -> Result<u64> {
        let mut sum = self.number(&TreePath::root(), stat);
        if stat.is_folder() {
            let top = source.folder.folder(&TreePath::root().child(&source.name))?;
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

    /// Takes a copy back that was put at a target, where that is still possible.
    fn take_back(&self, target: &Spot, old: Option<Staged>, replaced: Option<&Stat>) -> Result<()> {
        let copy = match (old, replaced) {
            (Some(old), _) => {
                old.exchange(&target.folder, &target.name)?;
                old
            }
            (None, Some(_)) => return Ok(()),
            (None, None) => self.staging(target)?.take(&target.folder, &target.name)?,
        };
        self.shared().removals.begin(copy);
        self.sync_names(&target.folder)
    }
}
