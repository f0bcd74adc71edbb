//! The entries of a folder.

use std::collections::BTreeSet;

use super::check::Found;
use super::handle_access::HandleAccess;
use super::host::{Folder, Names};
use super::{Entry, Error, Kind, Result, View};
use crate::domain::{EntryName, Permission, TreePath};

/// The entries of a folder, in no order, without `.` and `..`; read as they are asked for.
pub struct Listing {
    view: View,
    asked: TreePath,
    follow: bool,
    source: Source,
}

enum Source {
    All(Box<All>),
    WayDown(BTreeSet<EntryName>),
    End,
}

/// All entries of a folder that may be read.
struct All {
    access: HandleAccess,
    names: Names,
    block: std::vec::IntoIter<EntryName>,
    path: TreePath,
    permission: Permission,
    mixed: bool,
}

impl Listing {
    /// Lists a folder that the check let through.
    pub(super) fn all(view: &View, asked: &TreePath, found: Found, follow: bool) -> Result<Self> {
        let access = view.session().access()?;
        let mixed =
            access.effective_grants().iter().any(|root| root.path != found.path && root.path.starts_with(&found.path));
        let all = All {
            access: HandleAccess::new(view, found.path.clone(), Permission::R)?,
            names: Folder::from(found.file).names()?,
            block: Vec::new().into_iter(),
            path: found.path,
            permission: found.permission,
            mixed,
        };
        Ok(Self { view: view.clone(), asked: asked.clone(), follow, source: Source::All(Box::new(all)) })
    }

    /// Lists only these names, as far as something stands there.
    pub(super) fn way_down(view: &View, asked: &TreePath, names: BTreeSet<EntryName>) -> Self {
        Self { view: view.clone(), asked: asked.clone(), follow: true, source: Source::WayDown(names) }
    }

    /// Returns the names that are listed where something stands there; none where all that can be seen is.
    pub(super) fn into_way_down(self) -> Option<BTreeSet<EntryName>> {
        match self.source {
            Source::WayDown(names) => Some(names),
            Source::All(_) | Source::End => None,
        }
    }

    /// Tells whether the session may go on listing the folder where it is now.
    ///
    /// # Errors
    /// [`Error::SessionEnded`].
    pub(super) fn check(&self) -> Result<()> {
        match &self.source {
            Source::All(all) => all.access.check(&all.names),
            Source::WayDown(_) | Source::End => Ok(()),
        }
    }

    fn step(&mut self) -> Result<Option<Entry>> {
        loop {
            let name = match &mut self.source {
                Source::End => return Ok(None),
                Source::WayDown(names) => names.pop_first(),
                Source::All(all) => all.next()?,
            };
            let Some(name) = name else { return Ok(None) };
            if let Some(entry) = self.entry(&name)? {
                return Ok(Some(entry));
            }
        }
    }

    fn entry(&self, name: &EntryName) -> Result<Option<Entry>> {
        let Source::All(all) = &self.source else { return seen(self.view.stat(&self.asked.child(name))) };
        let stat = match all.names.stat_entry(name).map_err(Error::from) {
            Err(Error::Absent) => return Ok(None),
            stat => stat?,
        };
        match stat.kind {
            None => Ok(None),
            Some(Kind::Link) if self.follow => seen(self.view.stat(&all.path.child(name))),
            Some(Kind::Link) => seen(self.view.link_stat(&all.path.child(name))),
            Some(Kind::File | Kind::Folder) => {
                let permission = if all.mixed { all.permission_of(&self.view, name)? } else { all.permission };
                Ok(Some(self.view.entry_named(name.as_bytes(), &stat, permission)))
            }
        }
    }
}

impl All {
    fn next(&mut self) -> Result<Option<EntryName>> {
        if let Some(name) = self.block.next() {
            return Ok(Some(name));
        }
        self.access.check(&self.names)?;
        // Where the folder is now: a rename leads nothing of it elsewhere.
        self.path = self.access.place().path;
        self.block = self.names.block()?.into_iter();
        Ok(self.block.next())
    }

    fn permission_of(&self, view: &View, name: &EntryName) -> Result<Permission> {
        Ok(self.permission | view.session().access()?.permission_at(&self.path.child(name)))
    }
}

impl Iterator for Listing {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        let step = self.step();
        if !matches!(step, Ok(Some(_))) {
            self.source = Source::End;
        }
        step.transpose()
    }
}

fn seen(entry: Result<Entry>) -> Result<Option<Entry>> {
    match entry {
        Ok(entry) => Ok(Some(entry)),
        Err(Error::Absent) => Ok(None),
        Err(error) => Err(error),
    }
}
