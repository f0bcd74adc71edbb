//! What all open files and folders share: they outlive the request that opened them, so each block asks
//! again whether the session still lives and still reaches them.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::{LockToken, Result, View};
use crate::auth::Ended;
use crate::domain::{Access, Permission, TreePath};

/// Keeps an open entry honest.
pub(super) struct Hold {
    view: View,
    needed: Permission,
    last: Mutex<(Arc<Access>, TreePath)>,
}

impl Hold {
    /// Holds what was opened at a canonical path with a permission.
    pub(super) fn new(view: &View, path: TreePath, needed: Permission) -> Result<Self> {
        let access = view.session().access()?;
        Ok(Self { view: view.clone(), needed, last: Mutex::new((access, path)) })
    }

    /// Returns the view that it was opened by.
    pub(super) fn view(&self) -> &View {
        &self.view
    }

    /// Notes a use, if the session lives and reaches the entry: where it was opened, or where a rename has
    /// taken it since.
    ///
    /// # Errors
    /// [`super::Error::Ended`].
    pub(super) fn check(&self, file: &impl AsFd) -> Result<()> {
        let access = self.view.session().access()?;
        let mut last = self.last.lock();
        if !Arc::ptr_eq(&access, &last.0) {
            let path = self.view.host().whereabouts(file).unwrap_or_else(|| last.1.clone());
            if !access.may(&path, self.needed) {
                return Err(Ended.into());
            }
            *last = (access, path);
        }
        drop(last);
        self.view.session().used();
        Ok(())
    }
}

/// Asks for locks again when any was taken or ended since.
pub(super) struct LockWatch {
    path: TreePath,
    tokens: Vec<LockToken>,
    seen: AtomicU64,
}

impl LockWatch {
    /// Watches a canonical path for one who submitted `tokens`.
    pub(super) fn new(path: TreePath, tokens: &[LockToken]) -> Self {
        Self { path, tokens: tokens.to_vec(), seen: AtomicU64::new(u64::MAX) }
    }

    /// Lets a write pass.
    ///
    /// # Errors
    /// [`super::Error::Locked`].
    pub(super) fn check(&self, view: &View) -> Result<()> {
        let now = view.shared().locks.generation();
        if self.seen.load(Ordering::Acquire) != now {
            view.unlocked(&self.path, &self.tokens)?;
            self.seen.store(now, Ordering::Release);
        }
        Ok(())
    }
}
