//! Access and locks of open files: checked again at every block, by the current path of the file.
//!
//! A handle outlives the request that opened it, and names change meanwhile. So each block checks whether the session
//! is still valid, whether it may do this at the current path of the file, and whether a lock covers the file there.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::fs::{DirectoryFd, FdLocation, Stat, host_path};
use super::{LockToken, Result, TreeOutage, View};
use crate::auth::SessionEnded;
use crate::domain::{EntryName, Permission, QuotaReservation, TreeAccess, TreePath};

/// Time after opening in which the path of a file is not looked up again, so that the first block of a small file is
/// cheap.
const HANDLE_RECHECK_GRACE: Duration = Duration::from_micros(100);

/// Location of an open file or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HandleLocation {
    /// Current path, or the last one if it has none any more.
    pub(super) path: TreePath,
    /// Whether the file is still there.
    pub(super) linked: bool,
}

/// The way in which the current path of an open file is found.
pub(super) enum HandleAnchor {
    /// By the open file itself, which is in the tree.
    File,
    /// By the directory and the name that a staged file is for.
    Slot(DirectoryFd, EntryName),
    /// By the slot until the staged file has been put in place, then by the file.
    SlotThenFile(DirectoryFd, EntryName),
}

/// Authorization of an open file or directory.
pub(super) struct HandleAccess {
    view: View,
    needed: Permission,
    anchor: HandleAnchor,
    /// Time at which it was opened by path; `None` if the descriptor is older than this.
    opened_at: Option<Instant>,
    last_check: Mutex<LastCheck>,
    /// Reservation in the user's limit of open files.
    _reservation: Option<QuotaReservation>,
}

/// Result of the last successful check.
struct LastCheck {
    access: Arc<TreeAccess>,
    /// Path of the anchor in the kernel's words; `None` before the first look-up.
    host_path: Option<Vec<u8>>,
    location: HandleLocation,
    /// Time of the look-up; `None` before the first.
    checked_at: Option<Instant>,
}

impl HandleAccess {
    /// Authorizes a file that was just opened at a canonical path, for uses that need `needed`.
    ///
    /// # Errors
    /// [`super::Error::SessionEnded`]; [`super::Error::TooManyOpenFiles`].
    pub(super) fn new(view: &View, path: TreePath, needed: Permission) -> Result<Self> {
        Self::with_anchor(view, path, needed, HandleAnchor::File)
    }

    /// Authorizes as [`HandleAccess::new`] does a file that was opened earlier, and may have been moved since.
    ///
    /// # Errors
    /// [`super::Error::SessionEnded`].
    pub(super) fn for_open_file(view: &View, path: TreePath, needed: Permission) -> Result<Self> {
        let reservation = view.shared().open_limit.acquire_beyond_limit(view.session().login());
        Ok(Self { opened_at: None, ..Self::with_reservation(view, path, needed, HandleAnchor::File, reservation)? })
    }

    /// Authorizes as [`HandleAccess::new`] does, with another anchor than the file itself.
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
        let location = HandleLocation { path, linked: true };
        let last = Mutex::new(LastCheck { access, host_path: None, location, checked_at: None });
        Ok(Self {
            view: view.clone(),
            needed,
            anchor,
            opened_at: Some(Instant::now()),
            last_check: last,
            _reservation: reservation,
        })
    }

    /// Returns the view through which it was opened.
    pub(super) fn view(&self) -> &View {
        &self.view
    }

    /// Checks that the session is valid and may use the file at its current path, and records the use.
    ///
    /// # Errors
    /// [`super::Error::SessionEnded`]; [`super::Error::Unavailable`] when the file's file system is not served any
    /// more.
    pub(super) fn authorize_use(&self, file: &impl AsFd) -> Result<()> {
        if let Err(outage) = self.view.fs().check_available() {
            // A revoked token is refused as such also during an outage: its transfer must end within a second.
            self.view.session().access()?;
            return Err(outage.into());
        }
        let mut last = self.last_check.lock();
        if !self.is_allowed(file, &mut last)? {
            // A rename of a scope's own root changes the path first and the store after that: look again once both are
            // done.
            self.view.shared().index.wait_for_change();
            if !self.is_allowed(file, &mut last)? {
                // The session keeps its access, but the file belongs to a mount that was unmounted.
                let detached = self.view.fs().is_detached(file);
                return Err(if detached { TreeOutage::Detached.into() } else { SessionEnded.into() });
            }
        }
        drop(last);
        self.view.session().record_use();
        Ok(())
    }

    /// Checks as [`HandleAccess::authorize_use`] does, but doesn't look the path up again where that was done less than
    /// `interval` ago and the session's access is the same: for work on many small files below one directory.
    ///
    /// # Errors
    /// As [`HandleAccess::authorize_use`].
    pub(super) fn authorize_use_within(&self, interval: Duration, file: &impl AsFd) -> Result<()> {
        let access = self.view.session().access()?;
        let is_recent = {
            let last = self.last_check.lock();
            let checked_at = last.checked_at.filter(|_| Arc::ptr_eq(&access, &last.access));
            checked_at.is_some_and(|checked_at| checked_at.elapsed() < interval)
        };
        if is_recent && self.view.fs().check_available().is_ok() { Ok(()) } else { self.authorize_use(file) }
    }

    fn is_allowed(&self, file: &impl AsFd, last: &mut LastCheck) -> Result<bool> {
        let access = self.view.session().access()?;
        let same_access = Arc::ptr_eq(&access, &last.access);
        let is_opening = || self.opened_at.is_some_and(|opened| opened.elapsed() < HANDLE_RECHECK_GRACE);
        if same_access && last.host_path.is_none() && is_opening() {
            return Ok(true);
        }
        let checked_at = Some(Instant::now());
        let host_path = self.anchor_host_path(file);
        let moved = host_path != last.host_path;
        if same_access && !moved {
            last.checked_at = checked_at;
            return Ok(true);
        }
        let location = if moved { self.locate(file, &last.location) } else { Some(last.location.clone()) };
        let Some(location) = location.filter(|location| access.may(&location.path, self.needed)) else {
            return Ok(false);
        };
        *last = LastCheck { access, host_path, location, checked_at };
        Ok(true)
    }

    /// Returns the location of the file at the last check.
    pub(super) fn last_location(&self) -> HandleLocation {
        self.last_check.lock().location.clone()
    }

    /// Returns a key that changes whenever the anchor moves.
    fn anchor_host_path(&self, file: &impl AsFd) -> Option<Vec<u8>> {
        match &self.anchor {
            HandleAnchor::File => host_path(file),
            HandleAnchor::Slot(directory, _) => host_path(directory),
            // Joined with NUL, which no path contains, so that two pairs never give the same key.
            HandleAnchor::SlotThenFile(directory, _) => Some([host_path(file)?, host_path(directory)?].join(&0)),
        }
    }

    /// Returns the current location of the file; `None` when it is outside of the tree.
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
                // A discarded upload no longer belongs to its name, so locks on the name don't apply to it.
                found => found,
            },
        };
        match found {
            FdLocation::Linked(path) => Some(HandleLocation { path, linked: true }),
            FdLocation::Unlinked(path) => Some(HandleLocation { path, linked: false }),
            // Removed, alone or with a directory above it: access is decided by its last path.
            FdLocation::Reserved | FdLocation::Discarded => {
                Some(HandleLocation { path: last.path.clone(), linked: false })
            }
            FdLocation::Outside => None,
        }
    }
}

/// Check of the WebDAV locks that apply to an open file: those that cover its current names, and not its former ones.
pub(super) struct HandleLocks {
    tokens: Vec<LockToken>,
    /// Generation of the lock table and location of the file at the last successful check.
    last_allowed: Mutex<Option<(u64, HandleLocation)>>,
}

impl HandleLocks {
    /// Creates the check for a request that submitted `tokens`.
    pub(super) fn new(tokens: &[LockToken]) -> Self {
        Self { tokens: tokens.to_vec(), last_allowed: Mutex::default() }
    }

    /// Checks that no lock excludes a change of the open file at the location that `access` has found last.
    ///
    /// # Errors
    /// [`super::Error::Locked`].
    pub(super) fn check(&self, access: &HandleAccess, stat: impl FnOnce() -> super::fs::Result<Stat>) -> Result<()> {
        let view = access.view();
        let locks = &view.shared().locks;
        // Read before the table: a lock that is taken in between changes the generation, so it is not missed next time.
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
        // Besides the name that was opened, if that still exists, the file may have hard links under locked paths.
        if stat.link_count > u32::from(current.1.linked) {
            view.check_hard_link_locks(&stat, &current.1.path, &self.tokens)?;
        }
        *last_allowed = Some(current);
        Ok(())
    }
}
