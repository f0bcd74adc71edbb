//! Open sessions: listing them, and closing them without revoking their tokens.

use super::{Error, Principal, Result, TokenService};
use crate::auth::{Authenticator, OpenSession};
use crate::domain::{AuditEvent, EventKind, Role, TokenId};

impl TokenService {
    /// Returns the open sessions of the tokens that the caller may see, the latest first.
    ///
    /// # Errors
    /// [`Error::SessionEnded`].
    pub fn sessions(&self, principal: &Principal, auth: &Authenticator) -> Result<Vec<OpenSession>> {
        let caller = principal.authorized_caller()?;
        let mut visible = Vec::new();
        let mut sessions = auth.sessions();
        // By token, so that each record is read once, however many sessions a token has.
        sessions.sort_by_key(|session| (session.token, std::cmp::Reverse(session.number)));
        for group in sessions.chunk_by(|one, other| one.token == other.token) {
            let Some(first) = group.first() else { continue };
            match self.find_record(first.token).and_then(|record| caller.require_visible(&self.store, &record)) {
                Ok(()) => visible.extend_from_slice(group),
                // Hidden from the caller, or deleted meanwhile.
                Err(Error::UnknownToken(_)) => {}
                Err(error) => return Err(error),
            }
        }
        visible.sort_by_key(|session| std::cmp::Reverse(session.number));
        Ok(visible)
    }

    /// Closes one open session of a token, or all of them; returns how many. The token stays valid.
    ///
    /// # Errors
    /// As [`TokenService::revoke`].
    pub fn close_sessions(
        &self,
        principal: &Principal,
        auth: &Authenticator,
        token: TokenId,
        number: Option<u64>,
    ) -> Result<usize> {
        let caller = principal.authorized_caller()?;
        let record = self.find_record(token)?;
        caller.authorize_action(&self.store, &record, Role::RevokeTokens)?;
        let is_selected =
            |session: &OpenSession| session.token == token && number.is_none_or(|number| number == session.number);
        let sessions = auth.sessions().into_iter().filter(is_selected);
        let closed = sessions.filter(|session| auth.close_session(token, session.number)).count();
        if closed > 0 {
            let context = principal.audit_context(self.clock.now());
            let event = AuditEvent::new(context.at, EventKind::SessionEnded)
                .with_user(&record.owner)
                .with_token(token)
                .with_actor(context.actor);
            let event = if let Some(peer) = &context.peer { event.with_peer(peer) } else { event };
            self.store
                .record_events(&[event.with_count(u64::try_from(closed).unwrap_or(u64::MAX)).with_detail("by hand")])?;
        }
        Ok(closed)
    }
}
