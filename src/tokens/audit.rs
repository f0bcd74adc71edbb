//! Reading the audit trail, the usage counts and the metrics.

use super::{Principal, Result, TokenService};
use crate::domain::{Role, UnixMillis, UsageCount};
use crate::store::{ChainPage, EventCursor, EventFilter, RecordedEvent};

impl TokenService {
    /// Returns up to `limit` events of the audit trail from a cursor on.
    ///
    /// # Errors
    /// [`super::Error::Forbidden`].
    pub fn events(
        &self,
        principal: &Principal,
        filter: &EventFilter,
        cursor: EventCursor,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>> {
        principal.authorized_caller()?.require_role(Role::ReadAudit)?;
        Ok(self.store.audit_events(filter, cursor, limit)?)
    }

    /// Returns up to `limit` rows of the audit trail with their hash chain, from the one after `after` on, oldest first.
    ///
    /// # Errors
    /// [`super::Error::Forbidden`].
    pub fn audit_chain(&self, principal: &Principal, after: u64, limit: usize) -> Result<ChainPage> {
        principal.authorized_caller()?.require_role(Role::ReadAudit)?;
        Ok(self.store.audit_chain(after, limit)?)
    }

    /// Returns the number of the latest event; 0 where there is none.
    ///
    /// # Errors
    /// [`super::Error::Forbidden`].
    pub fn latest_event_id(&self, principal: &Principal) -> Result<u64> {
        principal.authorized_caller()?.require_role(Role::ReadAudit)?;
        Ok(self.store.latest_event_id()?)
    }

    /// Returns the stored counts of uses and refusals in the hours that begin at a time or later.
    ///
    /// # Errors
    /// [`super::Error::Forbidden`].
    pub fn usage_counts(&self, principal: &Principal, since: UnixMillis) -> Result<Vec<UsageCount>> {
        principal.authorized_caller()?.require_role(Role::ReadAudit)?;
        Ok(self.store.usage_counts(since)?)
    }

    /// Checks that the principal may read the server's metrics.
    ///
    /// # Errors
    /// [`super::Error::Forbidden`].
    pub fn authorize_metrics(&self, principal: &Principal) -> Result<()> {
        principal.authorized_caller()?.require_role(Role::ReadMetrics)
    }

    /// Returns the current time of the clock that decides expirations.
    pub fn now(&self) -> UnixMillis {
        self.clock.now()
    }
}
