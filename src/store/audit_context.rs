//! In whose name changes are made: what the audit trail is told of each of them, in the transaction
//! that makes it.

use std::sync::Arc;

use rusqlite::Transaction;

use super::{Result, Store, audit};
use crate::domain::{Actor, AuditEvent, EventKind, Peer, UnixMillis};

/// Who makes changes, and when.
#[derive(Clone, Debug)]
pub struct AuditContext {
    /// Who.
    pub actor: Actor,
    /// From where, with what and by which door; `None` for work on the state directory.
    pub peer: Option<Peer>,
    /// The present instant.
    pub at: UnixMillis,
}

impl Store {
    /// Returns this store for changes in somebody's name: each notes in the audit trail what it did, or
    /// nothing where it did nothing.
    #[must_use]
    pub fn with_audit_context(&self, context: AuditContext) -> Store {
        Store { inner: self.inner.clone(), audit_context: Some(Arc::new(context)) }
    }

    /// Notes what a change did, where it is made in somebody's name.
    pub(super) fn record_change(
        &self,
        t: &Transaction<'_>,
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
