//! The limit on open files and directories: per user over all connections of the user, and in total.
//!
//! Each reader, listing, upload, edit and copy holds a reservation while it is open, on either protocol; a small file that
//! is opened, read and closed at once holds none. A process
//! without free descriptors accepts no connection and can't use the store: users reach this limit before that.

use std::sync::OnceLock;

use super::{Error, Result, Tree};
use crate::domain::{Login, QuotaReservation, UserQuotaLimits, UserQuotas};

/// The reservations of a tree; unlimited until [`Tree::limit_open_files`] was called.
#[derive(Default)]
pub(super) struct OpenFileLimit(OnceLock<UserQuotas>);

impl OpenFileLimit {
    /// Reserves one open file or directory; `None` while no limit is set.
    ///
    /// # Errors
    /// [`Error::TooManyOpenFiles`].
    pub(super) fn acquire(&self, login: &Login) -> Result<Option<QuotaReservation>> {
        match self.0.get() {
            Some(quotas) => quotas.try_reserve(login, 1).map(Some).ok_or(Error::TooManyOpenFiles),
            None => Ok(None),
        }
    }

    /// Reserves for a file that is open already and whose own reservation is released soon, even beyond the limit.
    pub(super) fn acquire_beyond_limit(&self, login: &Login) -> Option<QuotaReservation> {
        // A refusal here would break an upload at its commit, and the file is open anyway.
        self.0.get().map(|quotas| quotas.reserve_over_limit(login, 1))
    }
}

impl Tree {
    /// Returns how many files and directories are open, and how many may be; `None` while no limit is set.
    pub fn open_file_usage(&self) -> Option<(u64, u64)> {
        self.shared.open_limit.0.get().map(|quotas| (quotas.total_reserved(), quotas.limits().total))
    }

    /// Limits how many files and directories are open at once. Only the first call has an effect.
    pub fn limit_open_files(&self, limits: UserQuotaLimits) {
        let _ = self.shared.open_limit.0.set(UserQuotas::new(limits));
    }
}
