//! The actor of changes: recorded in the audit trail with each change, in the transaction that makes it.

use std::sync::Arc;

use super::transactions::WriteTransaction;
use super::{Result, Store, audit};
use crate::domain::{Actor, AuditEvent, EventKind, Peer, UnixMillis};

/// The actor, the peer and the time that audit events of changes are recorded with.
#[derive(Clone, Debug)]
pub struct AuditContext {
    /// The actor that makes the changes.
    pub actor: Actor,
    /// Protocol, address and program of the caller; `None` for a command on the state directory.
    pub peer: Option<Peer>,
    /// The current time.
    pub at: UnixMillis,
}

impl Store {
    /// Returns this store with an actor: each change is recorded in the audit trail, unless it had no effect.
    #[must_use]
    pub fn with_audit_context(&self, context: AuditContext) -> Store {
        Store { inner: self.inner.clone(), audit_context: Some(Arc::new(context)) }
    }

    /// Records a change in the audit trail, where the store has an actor.
    pub(super) fn record_change(
        &self,
        t: &WriteTransaction<'_>,
        kind: EventKind,
        describe: impl FnOnce(AuditEvent) -> AuditEvent,
    ) -> Result<()> {
        let Some(context) = &self.audit_context else { return Ok(()) };
        let event = AuditEvent::new(context.at, kind).with_actor(context.actor.clone());
        let event = match &context.peer {
            Some(peer) => event.with_peer(peer),
            None => event,
        };
        audit::insert_event(t, &describe(event))
    }
}
