//! Reading the audit trail, the usage counts and the metrics.

use super::{Principal, Result, TokenService};
use crate::domain::{AuditEvent, EventKind, Role, UnixMillis, UsageCount};
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

    /// Records an event that concerns the state directory as a whole.
    ///
    /// # Errors
    /// [`super::Error::Forbidden`].
    pub fn record_state_event(&self, principal: &Principal, kind: EventKind, detail: &str) -> Result<()> {
        principal.authorized_caller()?.require_role(Role::Admin)?;
        let now = self.clock.now();
        let event = AuditEvent::new(now, kind).with_actor(principal.audit_context(now).actor).with_detail(detail);
        Ok(self.store.record_events(&[event])?)
    }

    /// Makes a restored store ready to be used in place of the one that was backed up, and records that it was restored.
    ///
    /// # Errors
    /// [`super::Error::Forbidden`].
    pub fn adopt_restored(&self, principal: &Principal, detail: &str) -> Result<()> {
        principal.authorized_caller()?.require_role(Role::Admin)?;
        let now = self.clock.now();
        Ok(self.store.adopt_restored(principal.audit_context(now).actor, detail, now)?)
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
