//! The bound on files and directories that are open: for each user over all of his connections, and in all.
//!
//! Each Reader, Listing, upload, edit and copy holds a share as long as it is open, whichever protocol it serves. A
//! process that may open no more files accepts no connection and reads no store: a caller reaches his bound before.

use std::sync::OnceLock;

use super::{Error, Result, Tree};
use crate::domain::{Login, QuotaReservation, UserQuotaLimits, UserQuotas};

/// The shares of a tree; without limits until they are set.
#[derive(Default)]
pub(super) struct OpenFileLimit(OnceLock<UserQuotas>);

impl OpenFileLimit {
    /// Takes the place of one more open file or directory.
    ///
    /// # Errors
    /// [`Error::TooManyOpenFiles`].
    pub(super) fn acquire(&self, login: &Login) -> Result<Option<QuotaReservation>> {
        match self.0.get() {
            Some(quotas) => quotas.try_reserve(login, 1).map(Some).ok_or(Error::TooManyOpenFiles),
            None => Ok(None),
        }
    }

    /// Takes the place of what was open until now, whose own place is returned soon.
    pub(super) fn acquire_beyond_limit(&self, login: &Login) -> Option<QuotaReservation> {
        self.0.get().map(|quotas| quotas.reserve_over_limit(login, 1))
    }
}

impl Tree {
    /// Bounds how many files and directories are open at once, from now on; to be called once.
    pub fn limit_open_files(&self, limits: UserQuotaLimits) {
        let _ = self.shared.open_limit.0.set(UserQuotas::new(limits));
    }
}
