//! How an upload takes its place: at the path that a request named, or in the directory that it was begun in.
//!
//! A request of WebDAV names a path and its conditions; what stands there when its body has come is replaced. An upload
//! over SFTP belongs to a handle: it goes into its own directory, and never in the place of what somebody else has
//! finished since it began.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Committed, Finish, Recorded, Upload};
use crate::domain::{EntryName, Permission, TreePath};
use crate::tree::check::Spot;
use crate::tree::handle_access::Place;
use crate::tree::host::{Aside, EarlyNote, Errno, File, Folder, Stat};
use crate::tree::in_place::InPlace;
use crate::tree::{Claim, EditMode, Error, Kind, Result, Timestamp, View};

/// How many renames of its directory a commit follows before it gives up.
const DIRECTORY_RENAMES: usize = 16;

/// A commit, and how it can still be taken back: also by the next start, where this process is killed meanwhile.
pub(in crate::tree) struct EarlyCommit<T = (EarlyNote, Undo)> {
    view: View,
    directory: Folder,
    replaced: Option<Stat>,
    undo: T,
    entry: (TreePath, Permission),
}

/// How a commit is taken back.
pub(in crate::tree) enum Undo {
    /// Nothing stood there.
    TakeBack,
    /// What stood there waits under the staged file's name.
    Exchange,
    /// What stood there waits in staging, with a note.
    PutBack(Aside),
}

impl Upload {
    /// Puts the file in its place in one step, synced as the tree's durability asks. Rights, locks and
    /// the claim's judgement are asked again just before. On an error the old content stands.
    ///
    /// # Errors
    /// As for [`View::stage`], and what the claim's judgement says; [`Error::Spoilt`], [`Error::WrongType`];
    /// [`Error::Precondition`] where somebody else has changed what was copied to be edited.
    pub fn commit(mut self, claim: &Claim<'_>) -> Result<Committed> {
        self.access.check(&*self.file)?;
        if self.is_untouched() {
            return Ok(Committed { entry: self.stat()?, replaced: true });
        }
        let view = self.access.view().clone();
        // What is put by a request is as old as the request, unless the client said otherwise.
        self.prepare(|upload| Ok(upload.wanted.lock().modified))?;
        let (spot, _) = view.writable(&self.asked)?;
        let permission = spot.permission;
        let names = view.shared().names.hold(&[&spot.path]);
        let steady = view.shared().locks.steady();
        let replaced = spot.stat()?;
        self.may_replace(&spot, replaced.as_ref(), claim)?;
        if self.base.as_ref().is_some_and(|base| !base.holds(&view, replaced.as_ref())) {
            return Err(Error::Precondition);
        }
        let (staged, tags) = (&mut self.staged, self.tags.into_inner());
        let mut put = || staged.put(&spot.folder, &spot.name).map_err(Error::putting);
        view.shared().tags.replacing(replaced.as_ref(), 0, || match tags {
            Some(tags) => view.put_labelled(&spot, replaced.as_ref(), &tags, put),
            None => put(),
        })?;
        drop((steady, names));
        view.sync_names(&spot.folder)?;
        let replaced = replaced.is_some_and(|stat| stat.kind == Some(Kind::File));
        Ok(Committed { entry: view.entry(&self.asked, &self.file.stat()?, permission), replaced })
    }

    /// Puts the file in the directory that it was begun in, wherever that is now, unless somebody else has put another
    /// entry under its name, or has changed the one there, since it began. On an error the old content stands.
    ///
    /// # Errors
    /// [`Error::Replaced`]; [`Error::NoParent`] where the directory is gone; else as [`Upload::commit`].
    pub(in crate::tree) fn commit_in_directory(mut self) -> Result<()> {
        if self.is_untouched() {
            self.access.check(&*self.file)?;
            self.finish_for_readers();
            return Ok(());
        }
        let committed = self.at_name(0, |upload, _, spot, replaced| {
            let put = match replaced {
                Some(_) => upload.staged.put(&spot.folder, &spot.name),
                None => upload.staged.put_new(&spot.folder, &spot.name),
            };
            put.map_err(putting_new)
        })?;
        committed.view.sync_names(&committed.directory)
    }

    /// As [`Upload::commit_in_directory`], before CLOSE: what is replaced waits, so that the commit can be taken back,
    /// and on an error the upload can go on.
    ///
    /// # Errors
    /// As [`Upload::commit_in_directory`].
    pub(in crate::tree) fn commit_early(&mut self) -> Result<EarlyCommit> {
        let committed = self.at_name(1, |upload, view, spot, replaced| {
            let note = upload.staged.note_early(&spot.path)?;
            let put = match replaced {
                Some(_) => upload.put_reversibly(view, spot),
                None => upload.staged.put_new(&spot.folder, &spot.name).map(|()| Undo::TakeBack).map_err(putting_new),
            };
            match put {
                Ok(undo) => Ok((note, undo)),
                Err(error) => note.delete().map_err(Error::from).and(Err(error)),
            }
        })?;
        match committed.view.sync_names(&committed.directory) {
            Ok(()) => Ok(committed),
            Err(error) => {
                // What can't be taken back stays as it was put; nobody was told that it is safe.
                let _ = self.undo(committed);
                Err(error)
            }
        }
    }

    /// Lets `put` do its work under the lock of the name, in the directory that the upload is for; what it replaces keeps
    /// so many names in staging.
    fn at_name<T>(
        &mut self,
        kept_names: u32,
        put: impl FnOnce(&mut Self, &View, &Spot, Option<&Stat>) -> Result<T>,
    ) -> Result<EarlyCommit<T>> {
        self.prepare(|upload| Ok(Some(upload.file.stat()?.modified)))?;
        let view = self.access.view().clone();
        // The directory may be renamed between the look at where it is and the lock on the name there.
        for _ in 0..DIRECTORY_RENAMES {
            let place = self.present_place()?;
            let (spot, _) = view.writable(&place.path)?;
            let _names = view.shared().names.hold(&[&spot.path]);
            let _steady = view.shared().locks.steady();
            // Somebody has put a link there.
            if spot.path != place.path {
                return Err(Error::Replaced);
            }
            if !spot.holder.is_same(&self.directory.stat()?) {
                continue;
            }
            let replaced = spot.stat()?;
            self.may_replace(&spot, replaced.as_ref(), &Claim::none())?;
            // Nobody writes into what is replaced between the look at it and its end.
            let undo = view.shared().tags.replacing(replaced.as_ref(), kept_names, || {
                self.is_as_recorded(spot.stat()?.as_ref())?;
                put(self, &view, &spot, replaced.as_ref())
            })?;
            let (directory, entry) = (spot.folder, (spot.path, spot.permission));
            return Ok(EarlyCommit { view: view.clone(), directory, replaced, undo, entry });
        }
        Err(Error::NoParent)
    }

    /// Puts the file in the place of another so that that one can be had back.
    fn put_reversibly(&mut self, view: &View, spot: &Spot) -> Result<Undo> {
        match self.staged.exchange(&spot.folder, &spot.name) {
            Ok(()) => Ok(Undo::Exchange),
            // The file system has no such rename: the next best is two.
            Err(Errno::INVAL | Errno::NOSYS) => {
                let old = view.staging(spot)?.set_aside(&spot.folder, &spot.name, &spot.path)?;
                match self.staged.put_new(&spot.folder, &spot.name) {
                    Ok(()) => Ok(Undo::PutBack(old)),
                    Err(error) => {
                        old.put_back(&spot.folder, &spot.name)?;
                        Err(Error::putting(error))
                    }
                }
            }
            Err(error) => Err(Error::putting(error)),
        }
    }

    /// Takes an early commit back, where nobody has put anything else under the name since.
    ///
    /// # Errors
    /// The commit, where it can't be taken back: it stands, and the upload is staged no more.
    pub(in crate::tree) fn undo(&mut self, commit: EarlyCommit) -> std::result::Result<(), Box<EarlyCommit>> {
        let view = commit.view.clone();
        let _names = view.shared().names.hold(&[&commit.entry.0]);
        let _steady = view.shared().locks.steady();
        let ours = self.file.stat().and_then(|ours| Ok(commit.directory.stat_entry(&self.name)?.is_same(&ours)));
        if !ours.unwrap_or(false) {
            return Err(Box::new(commit));
        }
        let (directory, name) = (&commit.directory, &self.name);
        let undone = match &commit.undo.1 {
            Undo::Exchange => self.staged.exchange(directory, name),
            Undo::TakeBack | Undo::PutBack(_) => self.staged.take_back(directory, name),
        };
        if let Err(error) = undone {
            tracing::warn!(path = %self.asked, %error, "an upload that was committed early stays committed");
            return Err(Box::new(commit));
        }
        let (note, undo) = commit.undo;
        if let Undo::PutBack(old) = undo
            && let Err(error) = old.put_back(directory, name)
        {
            tracing::warn!(path = %self.asked, %error, "what an upload had replaced comes back at the next start");
        }
        // Last: until then the next start would do the same.
        if let Err(error) = note.delete() {
            tracing::error!(path = %self.asked, %error, "an upload can't be committed any more: its note stays");
            // The next start would take it back.
            self.spoilt.store(true, Ordering::Release);
        }
        if let Some(old) = &commit.replaced {
            view.shared().tags.not_replaced(old);
        }
        Ok(())
    }

    /// Ends the staging of an upload that was committed early for good, and goes on in place by the same descriptor: what
    /// it replaced goes.
    ///
    /// # Errors
    /// [`Error::SessionEnded`]; it stays committed.
    pub(in crate::tree) fn keep(self, commit: EarlyCommit, mode: EditMode) -> Result<InPlace> {
        let EarlyCommit { view, undo: (note, undo), entry, .. } = commit;
        let (file, staged) = (self.file, self.staged);
        // First: from here on nothing is taken back, also by the next start.
        if let Err(error) = note.delete() {
            tracing::error!(path = %self.asked, %error, "the next start may take an upload back that is in its place");
        }
        match undo {
            // What was replaced waits in the place of the staged file and goes with it.
            Undo::Exchange => drop(staged),
            Undo::PutBack(old) => drop(old.let_go()),
            Undo::TakeBack => staged.leave(),
        }
        InPlace::after_commit(&view, entry, file, mode)
    }

    /// Returns what was copied, open to be edited, where it still has its name.
    ///
    /// # Errors
    /// [`Error::Replaced`] where something else stands there now.
    pub(in crate::tree) fn original(&self) -> Result<Arc<File>> {
        self.access.check(&*self.file)?;
        let original = self.base.as_ref().and_then(|base| base.original.clone()).ok_or(Error::Replaced)?;
        let there = self.directory.stat_entry(&self.name)?;
        let stands = self.replaces.is_some_and(|old| old.is_entry(&there));
        if stands { Ok(original) } else { Err(Error::Replaced) }
    }

    /// Goes on in place in what was copied.
    ///
    /// # Errors
    /// [`Error::SessionEnded`].
    pub(in crate::tree) fn into_original(self, original: Arc<File>, mode: EditMode) -> Result<InPlace> {
        self.finish_for_readers();
        let (view, path) = (self.access.view(), self.path());
        let permission = view.grounds(&path)?.permission();
        InPlace::after_commit(view, (path, permission), original, mode)
    }

    /// Lets go of the name that it was for: it is never put in place, and locks on the name do not bind it.
    pub(in crate::tree) fn detach(&mut self) {
        (self.detached, self.registered) = (true, None);
        self.finish_for_readers();
    }

    /// Gives a staged file that is not put in place the mode that it would have: handles that go on reading it show what
    /// it is, and not how it was staged.
    fn finish_for_readers(&self) {
        if let Err(error) = self.finish.apply(&self.file, &self.wanted.lock()) {
            tracing::debug!(%error, "an upload without a name keeps the mode that it was staged with");
        }
    }

    /// Does what can be done before the name is locked: limits, attributes, sync.
    fn prepare(&self, modified: impl FnOnce(&Self) -> Result<Option<Timestamp>>) -> Result<()> {
        self.access.check(&*self.file)?;
        let (view, modified) = (self.access.view(), modified(self)?);
        view.fits(&self.name, &self.file)?;
        let wanted = *self.wanted.lock();
        self.finish.apply(&self.file, &wanted)?;
        let tags = &view.shared().tags;
        let fresh = modified.map_or_else(|| tags.fresh(None), |time| tags.fresh_at(time));
        tags.set_times(&self.file, Some(fresh), wanted.accessed)?;
        if view.is_full() {
            self.file.sync()?;
        }
        Ok(())
    }

    /// Lets the file take the place of what stands at a spot: asked under the name's commit lock, just before.
    fn may_replace(&self, spot: &Spot, replaced: Option<&Stat>, claim: &Claim<'_>) -> Result<()> {
        let view = self.access.view();
        view.may_put(spot, replaced, claim)?;
        if self.is_spoilt() {
            return Err(Error::Spoilt);
        }
        view.fits(&spot.name, &self.file)?;
        // Where what it replaces has gone meanwhile, it still becomes what that was: no more is shown to others.
        let finish = replaced.map_or(self.finish, |replaced| Finish::of(view, spot, Some(replaced)));
        if finish != self.finish {
            finish.apply(&self.file, &self.wanted.lock())?;
        }
        Ok(())
    }

    /// Refuses what would replace something that somebody else has finished since the upload began. Where nothing
    /// stands any more, nothing is lost.
    fn is_as_recorded(&self, now: Option<&Stat>) -> Result<()> {
        let view = self.access.view();
        let same = now.is_none_or(|now| self.replaces.is_some_and(|old| old == Recorded::of(view, now)));
        if same { Ok(()) } else { Err(Error::Replaced) }
    }

    /// Tells whether something stood under its name when it began.
    pub(in crate::tree) fn replaces_file(&self) -> bool {
        self.replaces.is_some()
    }

    /// Tells whether this is what stood under its name when it began.
    pub(in crate::tree) fn replaces_this(&self, entry: &Stat) -> bool {
        self.replaces.is_some_and(|old| old.is_entry(entry))
    }

    /// Tells whether its name still holds the entry, or nothing, that it held when the upload began.
    pub(in crate::tree) fn shows_at(&self, now: Option<&Stat>) -> bool {
        match (&self.replaces, now) {
            (None, None) => true,
            (Some(old), Some(now)) => old.is_entry(now),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }

    /// Asks before CLOSE what its commit would say of the name: for FSYNC, whose success says that the file is safe.
    ///
    /// # Errors
    /// [`Error::Replaced`], [`Error::NoParent`], [`Error::Spoilt`], [`Error::SessionEnded`].
    pub(in crate::tree) fn may_still_commit(&self) -> Result<()> {
        self.access.check(&*self.file)?;
        self.present_place()?;
        if self.is_spoilt() {
            return Err(Error::Spoilt);
        }
        match self.directory.stat_entry(&self.name) {
            Ok(now) => self.is_as_recorded(Some(&now)),
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the path that it is for now.
    fn present_place(&self) -> Result<Place> {
        self.access.check(&*self.file)?;
        Some(self.access.place()).filter(|place| place.linked).ok_or(Error::NoParent)
    }

    /// Returns the path that it was for when that was last looked at.
    pub(in crate::tree) fn path(&self) -> TreePath {
        self.access.place().path
    }

    /// Returns the directory that it is for, and the name there.
    pub(in crate::tree) fn slot(&self) -> (&Folder, &EntryName) {
        (&self.directory, &self.name)
    }

    /// Returns the staged file, for one who reads it whatever becomes of the upload.
    pub(in crate::tree) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Tells whether writes go to its end.
    pub(in crate::tree) fn appends(&self) -> bool {
        self.base.as_ref().is_some_and(|base| base.append)
    }
}

/// Says what went wrong when something was put where nothing stood: what stands there now is somebody else's.
fn putting_new(error: Errno) -> Error {
    if error == Errno::EXIST { Error::Replaced } else { Error::putting(error) }
}
