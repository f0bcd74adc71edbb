//! Moving an entry to another file system: a whole copy takes the target's place, then the source goes.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::copy::Work;
use super::{Claim, Overwrite, View};
use crate::domain::{Permission, TreePath};
use crate::tree::check::Spot;
use crate::tree::handles::Hold;
use crate::tree::host::{How, Staged, Stat};
use crate::tree::{Error, Kind, Result};

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
        let leaving = self.host().staging(&source.folder, source.holder.mount())?;
        let before = self.sum(source, stat)?;
        let staged = self.copy_for_move(source, stat, target)?;
        let names = self.shared().names.hold(&[&source.path, &target.path]);
        let steady = self.shared().locks.steady();
        let moving = self.may_move(source, target, overwrite, claim)?;
        let change = self.shared().index.begin_copy(&source.path, &target.path, staged.stat()?.entity())?;
        if self.sum(source, &moving.moved)? != before {
            return Err(Error::Precondition);
        }
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
    fn copy_for_move(&self, source: &Spot, stat: &Stat, target: &Spot) -> Result<Staged> {
        let hold = Hold::new(self, source.path.clone(), Permission::W)?;
        let work = Work { view: self, hold, same: true, blind: !source.permission.allows(Permission::R) };
        let staging = self.host().staging(&target.folder, target.holder.mount())?;
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
        Ok(staged)
    }

    /// Returns a number that is another once anything in an entry has changed: what is there and its content.
    fn sum(&self, source: &Spot, stat: &Stat) -> Result<u64> {
        let number = |place: &TreePath, stat: &Stat| {
            let mut hasher = DefaultHasher::new();
            let tag = (stat.kind == Some(Kind::File)).then(|| self.shared().tags.of(stat).bytes());
            (place.as_bytes(), stat.inode, tag).hash(&mut hasher);
            hasher.finish()
        };
        let mut sum = number(&TreePath::root(), stat);
        if stat.is_folder() {
            let top = source.folder.folder(&TreePath::root().child(&source.name))?;
            self.each_below(&top, |_, below, name, stat| {
                sum = sum.wrapping_add(number(&below.child(name), stat));
                Ok(())
            })?;
        }
        Ok(sum)
    }

    /// Takes a copy back that was put at a target, where that is still possible.
    fn take_back(&self, target: &Spot, old: Option<Staged>, replaced: Option<&Stat>) -> Result<()> {
        let copy = match (old, replaced) {
            (Some(old), _) => {
                old.exchange(&target.folder, &target.name)?;
                old
            }
            (None, Some(_)) => return Ok(()),
            (None, None) => {
                self.host().staging(&target.folder, target.holder.mount())?.take(&target.folder, &target.name)?
            }
        };
        self.shared().removals.begin(copy);
        self.sync_names(&target.folder)
    }
}
