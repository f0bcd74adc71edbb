//! Access and locks of what is open: asked again at every block, by where the open file is now.
//!
//! A handle outlives the request that opened it, and names change meanwhile. So each block asks whether the session
//! still lives, whether it may do this where the file is now, and whether a lock covers the file there.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::fs::{DirectoryFd, FdLocation, Stat, host_path};
use super::{LockToken, Result, TreeOutage, View};
use crate::auth::SessionEnded;
use crate::domain::{EntryName, Permission, QuotaReservation, TreeAccess, TreePath};

/// Time after opening in which a file is not looked for again: opening and the first block are one step then.
const HANDLE_RECHECK_GRACE: Duration = Duration::from_micros(100);

/// Where something open is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HandleLocation {
    /// Its path; the last one where it has none any more.
    pub(super) path: TreePath,
    /// Whether it stands there still.
    pub(super) linked: bool,
}

/// How the present place of something open is found.
pub(super) enum HandleAnchor {
    /// By the open file itself, which is in the tree.
    File,
    /// By the directory and the name that a staged file is for.
    Slot(DirectoryFd, EntryName),
    /// By the slot until the staged file has been put in place, then by the file.
    SlotThenFile(DirectoryFd, EntryName),
}

/// Authorization of something open.
pub(super) struct HandleAccess {
    view: View,
    needed: Permission,
    anchor: HandleAnchor,
    /// When a path led to it; none for what has been open for longer.
    opened_at: Option<Instant>,
    last_check: Mutex<LastCheck>,
    /// Its place among the open files of its user.
    _reservation: Option<QuotaReservation>,
}

/// What the last check found allowed.
struct LastCheck {
    access: Arc<TreeAccess>,
    /// What the kernel said of the anchor's path; none before the first look.
    host_path: Option<Vec<u8>>,
    location: HandleLocation,
}

impl HandleAccess {
    /// Authorizes what was opened at a canonical path with a permission.
    ///
    /// # Errors
    /// [`super::Error::SessionEnded`]; [`super::Error::TooManyOpenFiles`].
    pub(super) fn new(view: &View, path: TreePath, needed: Permission) -> Result<Self> {
        Self::with_anchor(view, path, needed, HandleAnchor::File)
    }

    /// As [`HandleAccess::new`], for a file that was opened earlier: it may be elsewhere already.
    ///
    /// # Errors
    /// [`super::Error::SessionEnded`].
    pub(super) fn for_open_file(view: &View, path: TreePath, needed: Permission) -> Result<Self> {
        let reservation = view.shared().open_limit.acquire_beyond_limit(view.session().login());
        Ok(Self { opened_at: None, ..Self::with_reservation(view, path, needed, HandleAnchor::File, reservation)? })
    }

    /// As [`HandleAccess::new`], for what is not found by itself alone.
    ///
    /// # Errors
    /// As [`HandleAccess::new`].
    pub(super) fn with_anchor(view: &View, path: TreePath, needed: Permission, anchor: HandleAnchor) -> Result<Self> {
        let reservation = view.shared().open_limit.acquire(view.session().login())?;
        Self::with_reservation(view, path, needed, anchor, reservation)
    }

    fn with_reservation(
        view: &View,
        path: TreePath,
        needed: Permission,
        anchor: HandleAnchor,
        reservation: Option<QuotaReservation>,
    ) -> Result<Self> {
        let access = view.session().access()?;
        let last = Mutex::new(LastCheck { access, host_path: None, location: HandleLocation { path, linked: true } });
        Ok(Self {
            view: view.clone(),
            needed,
            anchor,
            opened_at: Some(Instant::now()),
            last_check: last,
            _reservation: reservation,
        })
    }

    /// Returns the view that it was opened by.
    pub(super) fn view(&self) -> &View {
        &self.view
    }

    /// Notes a use, if the session lives and may go on with the file where it is now.
    ///
    /// # Errors
    /// [`super::Error::SessionEnded`]; [`super::Error::Unavailable`] where the file's file system is not there any more.
    pub(super) fn authorize_use(&self, file: &impl AsFd) -> Result<()> {
        if let Err(outage) = self.view.fs().check_available() {
            self.view.session().access()?;
            return Err(outage.into());
        }
        let mut last = self.last_check.lock();
        if !self.is_allowed(file, &mut last)? {
            // A rename of the scope's own root moves the names first and then what the store says of them.
            self.view.shared().index.wait_for_change();
            if !self.is_allowed(file, &mut last)? {
                // Nobody has taken anything from the session: its file belongs to a mount that has ended.
                let detached = self.view.fs().is_detached(file);
                return Err(if detached { TreeOutage::Detached.into() } else { SessionEnded.into() });
            }
        }
        drop(last);
        self.view.session().record_use();
        Ok(())
    }

    fn is_allowed(&self, file: &impl AsFd, last: &mut LastCheck) -> Result<bool> {
        let access = self.view.session().access()?;
        let same_access = Arc::ptr_eq(&access, &last.access);
        let is_opening = || self.opened_at.is_some_and(|opened| opened.elapsed() < HANDLE_RECHECK_GRACE);
        if same_access && last.host_path.is_none() && is_opening() {
            return Ok(true);
        }
        let host_path = self.anchor_host_path(file);
        let moved = host_path != last.host_path;
        if same_access && !moved {
            return Ok(true);
        }
        let location = if moved { self.locate(file, &last.location) } else { Some(last.location.clone()) };
        let Some(location) = location.filter(|location| access.may(&location.path, self.needed)) else {
            return Ok(false);
        };
        *last = LastCheck { access, host_path, location };
        Ok(true)
    }

    /// Returns where the last check found the file.
    pub(super) fn last_location(&self) -> HandleLocation {
        self.last_check.lock().location.clone()
    }

    /// Returns what tells two places of the anchor apart.
    fn anchor_host_path(&self, file: &impl AsFd) -> Option<Vec<u8>> {
        match &self.anchor {
            HandleAnchor::File => host_path(file),
            HandleAnchor::Slot(directory, _) => host_path(directory),
            // No path of the host has a NUL.
            HandleAnchor::SlotThenFile(directory, _) => Some([host_path(file)?, host_path(directory)?].join(&0)),
        }
    }

    /// Finds where the file is now; none where that is outside of the tree.
    fn locate(&self, file: &impl AsFd, last: &HandleLocation) -> Option<HandleLocation> {
        let fs = self.view.fs();
        let slot = |directory: &DirectoryFd, name: &EntryName| match fs.locate_fd(directory) {
            FdLocation::Linked(parent) => FdLocation::Linked(parent.child(name)),
            FdLocation::Unlinked(parent) => FdLocation::Unlinked(parent.child(name)),
            other @ (FdLocation::Reserved | FdLocation::Discarded | FdLocation::Outside) => other,
        };
        let found = match &self.anchor {
            HandleAnchor::File => fs.locate_fd(file),
            HandleAnchor::Slot(directory, name) => slot(directory, name),
            HandleAnchor::SlotThenFile(directory, name) => match fs.locate_fd(file) {
                FdLocation::Reserved => slot(directory, name),
                // One that was discarded stands for no name: what locks the name does not bind it.
                found => found,
            },
        };
        match found {
            FdLocation::Linked(path) => Some(HandleLocation { path, linked: true }),
            FdLocation::Unlinked(path) => Some(HandleLocation { path, linked: false }),
            // Removed, alone or with a directory above it: its last path decides.
            FdLocation::Reserved | FdLocation::Discarded => {
                Some(HandleLocation { path: last.path.clone(), linked: false })
            }
            FdLocation::Outside => None,
        }
    }
}

/// The WebDAV locks that bind an open file: those that cover the names it has now, and none of a name that it had.
pub(super) struct HandleLocks {
    tokens: Vec<LockToken>,
    /// The locks' generation and the place that were let through last.
    last_allowed: Mutex<Option<(u64, HandleLocation)>>,
}

impl HandleLocks {
    /// Makes the check of one who submitted `tokens`.
    pub(super) fn new(tokens: &[LockToken]) -> Self {
        Self { tokens: tokens.to_vec(), last_allowed: Mutex::default() }
    }

    /// Lets a change of the open file pass, after `access` has found where it is. `stat` asks the file.
    ///
    /// # Errors
    /// [`super::Error::Locked`].
    pub(super) fn check(&self, access: &HandleAccess, stat: impl FnOnce() -> super::fs::Result<Stat>) -> Result<()> {
        let view = access.view();
        let locks = &view.shared().locks;
        // Read before the locks are: a lock that is taken meanwhile has another number.
        let generation = locks.generation();
        if locks.is_empty() {
            return Ok(());
        }
        let current = (generation, access.last_location());
        let mut last_allowed = self.last_allowed.lock();
        if last_allowed.as_ref() == Some(&current) {
            return Ok(());
        }
        if current.1.linked {
            view.check_locks(&current.1.path, &self.tokens)?;
        }
        let stat = stat()?;
        // A file without the name that it was opened by may have others still.
        if stat.link_count > u32::from(current.1.linked) {
            view.check_hard_link_locks(&stat, &current.1.path, &self.tokens)?;
        }
        *last_allowed = Some(current);
        Ok(())
    }
}
